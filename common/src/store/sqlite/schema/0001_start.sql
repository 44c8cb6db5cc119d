-- Ids are 16 bytes. Times are milliseconds since 1970. Words (kinds, roles) are those of the wire. The application leads every key.
--
-- Tables are WITHOUT ROWID: what is read together (a chat's messages, a user's chats) lies together, and each row is stored once.

CREATE TABLE applications (
    id           BLOB NOT NULL PRIMARY KEY,
    name         TEXT NOT NULL,
    token_secret BLOB NOT NULL,
    token_kid    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Secrets of the cluster itself.
CREATE TABLE secrets (
    name   TEXT NOT NULL PRIMARY KEY,
    secret BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    app           BLOB    NOT NULL,
    id            BLOB    NOT NULL,
    username      TEXT    NOT NULL,
    -- The user name in lower case: one application has each only once.
    folded        TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    mobile_number TEXT,
    timezone      TEXT,
    created_at    INTEGER NOT NULL,
    password_hash TEXT    NOT NULL,
    PRIMARY KEY (app, id)
) STRICT, WITHOUT ROWID;

-- Sign-in looks a user up by name; and no name is given twice.
CREATE UNIQUE INDEX users_by_username ON users (app, folded);

-- By user: a list of one's own sign-ins, and the end of one of them, name their user.
CREATE TABLE sign_ins (
    app        BLOB    NOT NULL,
    user       BLOB    NOT NULL,
    id         BLOB    NOT NULL,
    device     TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (app, user, id)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a number is never given twice, even when the rows with the highest are gone.
CREATE TABLE revocations (
    no         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    app        BLOB    NOT NULL,
    user       BLOB    NOT NULL,
    session    BLOB    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- What no longer matters is removed by its time.
CREATE INDEX revocations_by_expiry ON revocations (expires_at);

-- How many chats an application has had: the last number given.
CREATE TABLE chat_counts (
    app   BLOB    NOT NULL PRIMARY KEY,
    chats INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE chats (
    app         BLOB    NOT NULL,
    chat        BLOB    NOT NULL,
    -- In the application, from 1.
    number      INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    name        TEXT,
    description TEXT,
    created_by  BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    -- The newest message and the newest change that are in these tables.
    head_number INTEGER NOT NULL,
    head_seq    INTEGER NOT NULL,
    -- Of the newest message, or of its making.
    active_at   INTEGER NOT NULL,
    members     INTEGER NOT NULL,
    deleted     INTEGER NOT NULL,
    PRIMARY KEY (app, chat)
) STRICT, WITHOUT ROWID;

-- No number of a chat is given twice; and applications name chats by it.
CREATE UNIQUE INDEX chats_by_number ON chats (app, number);

-- Who is in a chat. Stays when the chat is deleted.
CREATE TABLE members (
    app        BLOB    NOT NULL,
    chat       BLOB    NOT NULL,
    user       BLOB    NOT NULL,
    role       TEXT    NOT NULL,
    joined_at  INTEGER NOT NULL,
    joined_seq INTEGER NOT NULL,
    -- The place among those whom the same change let in.
    place      INTEGER NOT NULL,
    PRIMARY KEY (app, chat, user)
) STRICT, WITHOUT ROWID;

-- A page of members, and the first of them for a chat's view, in order of joining without sorting 50,000.
CREATE INDEX members_by_joining ON members (app, chat, joined_seq, place);

-- Which chats a user is in: the same memberships once more, so that both ways of asking name one key.
CREATE TABLE memberships (
    app           BLOB    NOT NULL,
    user          BLOB    NOT NULL,
    chat          BLOB    NOT NULL,
    -- The chat's newest message when the user came in.
    joined_number INTEGER NOT NULL,
    -- The newest message the user has read.
    read_number   INTEGER NOT NULL,
    PRIMARY KEY (app, user, chat)
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
    app         BLOB    NOT NULL,
    chat        BLOB    NOT NULL,
    number      INTEGER NOT NULL,
    id          BLOB    NOT NULL,
    -- The change that wrote it.
    seq         INTEGER NOT NULL,
    sender      BLOB    NOT NULL,
    body        TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    edited_at   INTEGER,
    deleted     INTEGER NOT NULL,
    reply_to    INTEGER,
    -- A JSON array; null when there are none.
    attachments TEXT,
    client_id   TEXT,
    -- Of what was sent first; edits leave it.
    fingerprint INTEGER NOT NULL,
    PRIMARY KEY (app, chat, number)
) STRICT, WITHOUT ROWID;

-- Whether a send is a repeat. Not unique: a client that gives an old name to a new message and does not call it a repeat must not stop the
-- writer. The first message is the one that the name means.
CREATE INDEX messages_by_client_id ON messages (app, chat, sender, client_id) WHERE client_id IS NOT NULL;

-- How far the writer is with each partition of the log.
CREATE TABLE positions (
    partition INTEGER NOT NULL PRIMARY KEY,
    log       BLOB    NOT NULL,
    offset    INTEGER NOT NULL,
    term      INTEGER,
    n         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    partition INTEGER NOT NULL,
    log       BLOB    NOT NULL,
    offset    INTEGER NOT NULL,
    payload   BLOB    NOT NULL,
    reason    TEXT    NOT NULL,
    PRIMARY KEY (partition, log, offset)
) STRICT, WITHOUT ROWID;
