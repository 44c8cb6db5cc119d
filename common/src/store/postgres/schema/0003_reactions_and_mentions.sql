-- What a message is answered with, as it is shown: a JSON array; null when there is nothing.
ALTER TABLE messages ADD COLUMN reactions text;
-- Whom it mentions, as it is shown: a JSON array; null when there is nobody.
ALTER TABLE messages ADD COLUMN mentions text;
ALTER TABLE messages ADD COLUMN mention_all boolean NOT NULL DEFAULT false;

-- Who answers a message with what: each once.
CREATE TABLE reactions (
    app     uuid   NOT NULL,
    chat    uuid   NOT NULL,
    user_id uuid   NOT NULL,
    number  bigint NOT NULL,
    emoji   text COLLATE "C" NOT NULL,
    PRIMARY KEY (app, chat, number, emoji, user_id)
);

-- Who is mentioned by name, by user and chat: what a user has not read of them is counted.
CREATE TABLE mentions (
    app     uuid   NOT NULL,
    user_id uuid   NOT NULL,
    chat    uuid   NOT NULL,
    number  bigint NOT NULL,
    PRIMARY KEY (app, user_id, chat, number)
);

-- A message that is deleted mentions nobody.
CREATE INDEX mentions_by_message ON mentions (app, chat, number);

-- Messages that mention everybody: one row, however many members the chat has.
CREATE TABLE mentions_of_all (
    app    uuid   NOT NULL,
    chat   uuid   NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (app, chat, number)
);
