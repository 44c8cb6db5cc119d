-- What a message is answered with, as it is shown: a JSON array; null when there is nothing.
ALTER TABLE messages ADD COLUMN reactions TEXT;
-- Whom it mentions, as it is shown: a JSON array; null when there is nobody.
ALTER TABLE messages ADD COLUMN mentions TEXT;
ALTER TABLE messages ADD COLUMN mention_all INTEGER NOT NULL DEFAULT 0;

-- Who answers a message with what: each once.
CREATE TABLE reactions (
    app    BLOB    NOT NULL,
    chat   BLOB    NOT NULL,
    number INTEGER NOT NULL,
    emoji  TEXT    NOT NULL,
    user   BLOB    NOT NULL,
    PRIMARY KEY (app, chat, number, emoji, user)
) STRICT, WITHOUT ROWID;

-- Who is mentioned by name, by user and chat: what a user has not read of them is counted.
CREATE TABLE mentions (
    app    BLOB    NOT NULL,
    user   BLOB    NOT NULL,
    chat   BLOB    NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (app, user, chat, number)
) STRICT, WITHOUT ROWID;

-- A message that is deleted mentions nobody.
CREATE INDEX mentions_by_message ON mentions (app, chat, number);

-- Messages that mention everybody: one row, however many members the chat has.
CREATE TABLE mentions_of_all (
    app    BLOB    NOT NULL,
    chat   BLOB    NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (app, chat, number)
) STRICT, WITHOUT ROWID;
