-- Times are milliseconds since 1970. Words (kinds, roles) are those of the wire. The application leads every key, and the chat or the user
-- follows: every hot query names both, so that rows can be distributed by either.
--
-- Texts that are compared are in the collation "C": a new version of the machine's locale does not disorder their indexes.

CREATE TABLE applications (
    id           uuid  NOT NULL PRIMARY KEY,
    name         text  NOT NULL,
    token_secret bytea NOT NULL,
    token_kid    text  NOT NULL
);

-- Secrets of the cluster itself.
CREATE TABLE secrets (
    name   text COLLATE "C" NOT NULL PRIMARY KEY,
    secret bytea            NOT NULL
);

CREATE TABLE users (
    app           uuid   NOT NULL,
    id            uuid   NOT NULL,
    created_at    bigint NOT NULL,
    username      text   NOT NULL,
    -- The user name in lower case: one application has each only once.
    folded        text COLLATE "C" NOT NULL,
    name          text   NOT NULL,
    mobile_number text,
    timezone      text,
    password_hash text   NOT NULL,
    PRIMARY KEY (app, id)
);

-- Sign-in looks a user up by name; and no name is given twice.
CREATE UNIQUE INDEX users_by_username ON users (app, folded);

-- By user: a list of one's own sign-ins, and the end of one of them, name their user.
CREATE TABLE sign_ins (
    app        uuid   NOT NULL,
    user_id    uuid   NOT NULL,
    id         uuid   NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    device     text,
    PRIMARY KEY (app, user_id, id)
);

-- Nodes poll for the numbers after the last they have seen: the key's own order.
CREATE TABLE revocations (
    no         bigint NOT NULL PRIMARY KEY,
    app        uuid   NOT NULL,
    user_id    uuid   NOT NULL,
    session    uuid   NOT NULL,
    expires_at bigint NOT NULL
);

-- What no longer matters is removed by its time.
CREATE INDEX revocations_by_expiry ON revocations (expires_at);

-- The last number given to a revocation: one row. Who takes the next one holds its lock until it is committed, so numbers are seen in
-- their order. A sequence would give them out in order and let them be seen in another.
CREATE TABLE revocation_count (
    one  boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
    last bigint  NOT NULL
);
INSERT INTO revocation_count (last) VALUES (0);

-- How many chats an application has had: the last number given. Locked from the numbering, which comes last in a batch, to its commit.
CREATE TABLE chat_counts (
    app   uuid   NOT NULL PRIMARY KEY,
    chats bigint NOT NULL
) WITH (fillfactor = 50);

-- A chat's row changes with each batch that has a message of it, in columns that no index has: room in the page lets the new version stay
-- there, and no index is touched.
CREATE TABLE chats (
    app         uuid    NOT NULL,
    chat        uuid    NOT NULL,
    created_by  uuid    NOT NULL,
    -- In the application, from 1.
    number      bigint  NOT NULL,
    created_at  bigint  NOT NULL,
    -- The newest message and the newest change that are in these tables.
    head_number bigint  NOT NULL,
    head_seq    bigint  NOT NULL,
    -- The position of the writer after the batch that wrote the newest change.
    head_upto   bigint  NOT NULL,
    -- Of the newest message, or of its making.
    active_at   bigint  NOT NULL,
    members     bigint  NOT NULL,
    -- Of a group: the fingerprint of the request that made it.
    request     bigint,
    -- Records of its making that are in these tables: the first, and each that brought more first members.
    makings     bigint  NOT NULL,
    deleted     boolean NOT NULL,
    kind        text    NOT NULL,
    name        text,
    description text,
    PRIMARY KEY (app, chat)
) WITH (fillfactor = 70);

-- No number of a chat is given twice; and applications name chats by it.
CREATE UNIQUE INDEX chats_by_number ON chats (app, number);

-- Who is in a chat. Stays when the chat is deleted.
CREATE TABLE members (
    app        uuid    NOT NULL,
    chat       uuid    NOT NULL,
    user_id    uuid    NOT NULL,
    joined_at  bigint  NOT NULL,
    joined_seq bigint  NOT NULL,
    -- The place among those whom the same change let in.
    place      integer NOT NULL,
    role       text    NOT NULL,
    PRIMARY KEY (app, chat, user_id)
);

-- A page of members, and the first of them for a chat's view, in order of joining without sorting 50,000.
CREATE INDEX members_by_joining ON members (app, chat, joined_seq, place);

-- Which chats a user is in: the same memberships once more, so that both ways of asking name one key. Read marks move in columns that no
-- index has: see chats.
CREATE TABLE memberships (
    app           uuid   NOT NULL,
    user_id       uuid   NOT NULL,
    chat          uuid   NOT NULL,
    -- The chat's newest message when the user came in.
    joined_number bigint NOT NULL,
    -- The newest message the user has read.
    read_number   bigint NOT NULL,
    joined_seq    bigint NOT NULL,
    -- The position of the writer after the batch that let the user in.
    joined_upto   bigint NOT NULL,
    PRIMARY KEY (app, user_id, chat)
) WITH (fillfactor = 70);

-- Chats that a user has left, was removed from, or that were deleted: the newest time of each. Who is in again has a membership as well.
CREATE TABLE departures (
    app       uuid   NOT NULL,
    user_id   uuid   NOT NULL,
    chat      uuid   NOT NULL,
    left_upto bigint NOT NULL,
    PRIMARY KEY (app, user_id, chat)
);

-- The newest departures of a user, without reading the others.
CREATE INDEX departures_by_time ON departures (app, user_id, left_upto DESC);

-- The key is the page of a history, forwards and backwards, and each message is there once.
CREATE TABLE messages (
    app         uuid    NOT NULL,
    chat        uuid    NOT NULL,
    id          uuid    NOT NULL,
    sender      uuid    NOT NULL,
    number      bigint  NOT NULL,
    -- The change that wrote it.
    seq         bigint  NOT NULL,
    created_at  bigint  NOT NULL,
    edited_at   bigint,
    reply_to    bigint,
    -- Of what was sent first; edits leave it.
    fingerprint bigint  NOT NULL,
    deleted     boolean NOT NULL,
    kind        text    NOT NULL,
    body        text    NOT NULL,
    -- A JSON array; null when there are none.
    attachments text,
    client_id   text COLLATE "C",
    PRIMARY KEY (app, chat, number)
);

-- Whether a send is a repeat. Not unique: a client that gives an old name to a new message and does not call it a repeat must not stop the
-- writer. The first message, by number, is the one that the name means.
CREATE INDEX messages_by_client_id ON messages (app, chat, sender, client_id, number) WHERE client_id IS NOT NULL;

-- How far the writer is with each partition of the log. Few rows, each changed with every batch: see chats.
CREATE TABLE positions (
    partition   integer NOT NULL PRIMARY KEY,
    log         uuid    NOT NULL,
    next_offset bigint  NOT NULL,
    term        bigint,
    n           bigint  NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE dead_letters (
    partition  integer NOT NULL,
    log        uuid    NOT NULL,
    log_offset bigint  NOT NULL,
    payload    bytea   NOT NULL,
    reason     text    NOT NULL,
    PRIMARY KEY (partition, log, log_offset)
);
