-- What users want to be told while they are away, as JSON: fields come and go without a step of their own.
CREATE TABLE notification_preferences (
    app         BLOB NOT NULL,
    user        BLOB NOT NULL,
    preferences TEXT NOT NULL,
    PRIMARY KEY (app, user)
) STRICT, WITHOUT ROWID;

-- What they want otherwise in one chat. By user: all of it goes with them.
CREATE TABLE chat_notification_preferences (
    app         BLOB NOT NULL,
    user        BLOB NOT NULL,
    chat        BLOB NOT NULL,
    preferences TEXT NOT NULL,
    PRIMARY KEY (app, user, chat)
) STRICT, WITHOUT ROWID;

-- Where notifications go, and the head of the queue of each. Whether an application has any is the beginning of the key: the writer asks
-- that with each batch.
CREATE TABLE notify_endpoints (
    app          BLOB    NOT NULL,
    id           BLOB    NOT NULL,
    -- Whose browser it is; all zeros: a webhook of the application.
    user         BLOB    NOT NULL,
    url          TEXT    NOT NULL,
    -- What deliveries to a webhook are signed with; what is shared with a browser.
    secret       BLOB    NOT NULL,
    -- Of a browser.
    public_key   BLOB,
    -- Of a browser: the sign-in with which it comes and goes.
    session      BLOB,
    -- Of a browser: SHA-256 of its URL.
    url_hash     BLOB,
    created_at   INTEGER NOT NULL,
    enabled      INTEGER NOT NULL,
    -- Whether there may be something in its queue.
    queued       INTEGER NOT NULL DEFAULT 0,
    -- The last place that was given in its queue.
    last_place   INTEGER NOT NULL DEFAULT 0,
    -- In a row.
    failures     INTEGER NOT NULL DEFAULT 0,
    -- Nothing is sent before.
    next_at      INTEGER NOT NULL DEFAULT 0,
    leased       INTEGER NOT NULL DEFAULT 0,
    -- Of the last lease: its end and its name, which no other has.
    leased_until INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (app, id)
) STRICT, WITHOUT ROWID;

-- The browsers of one user, for each candidate and for each notification; and the webhooks among an application's 100,000 browsers.
-- Statements name it: what is known of no sizes takes the beginning of the key for as good.
CREATE INDEX notify_endpoints_by_user ON notify_endpoints (app, user);

-- A browser is there once.
CREATE UNIQUE INDEX notify_endpoints_by_url ON notify_endpoints (app, url_hash) WHERE url_hash IS NOT NULL;

-- The browsers of a sign-in that is ended.
CREATE INDEX notify_endpoints_by_session ON notify_endpoints (app, session) WHERE session IS NOT NULL;

-- Whether a sign-in was ended, asked by a browser that comes at the same time.
CREATE INDEX revocations_by_session ON revocations (session);

-- What can be sent to, looked for each second, webhooks and browsers apart: only those with something to be sent are in it.
CREATE INDEX notify_webhooks_due ON notify_endpoints (next_at) WHERE queued = 1 AND enabled = 1 AND url_hash IS NULL;
CREATE INDEX notify_browsers_due ON notify_endpoints (next_at) WHERE queued = 1 AND enabled = 1 AND url_hash IS NOT NULL;

-- Endpoints that are gone, while there is something left that was to be sent to them: it may be much, and goes in parts.
CREATE TABLE notify_removed (
    app      BLOB NOT NULL,
    endpoint BLOB NOT NULL,
    PRIMARY KEY (app, endpoint)
) STRICT, WITHOUT ROWID;

-- Chats with messages that nobody was notified of yet: one row, whatever the number of members and messages.
CREATE TABLE notify_waiting (
    app         BLOB    NOT NULL,
    chat        BLOB    NOT NULL,
    partition   INTEGER NOT NULL,
    -- The first of these messages, and when it was accepted.
    from_number INTEGER NOT NULL,
    from_at     INTEGER NOT NULL,
    -- While the members are looked through: the last message that this is about, and the last member.
    upto        INTEGER,
    last_member BLOB,
    PRIMARY KEY (app, chat)
) STRICT, WITHOUT ROWID;

-- Those of one application that have waited long enough, oldest first.
CREATE INDEX notify_waiting_by_age ON notify_waiting (app, from_at, partition);

-- Users who are to be told later, as they are not to be disturbed. By user: all of it goes with them.
CREATE TABLE notify_held (
    app         BLOB    NOT NULL,
    user        BLOB    NOT NULL,
    chat        BLOB    NOT NULL,
    partition   INTEGER NOT NULL,
    from_number INTEGER NOT NULL,
    upto        INTEGER NOT NULL,
    until       INTEGER NOT NULL,
    PRIMARY KEY (app, user, chat)
) STRICT, WITHOUT ROWID;

-- Who is to be told by now, earliest first.
CREATE INDEX notify_held_by_time ON notify_held (until, partition);

-- What was sent, and is to be sent: the queue of each endpoint by place, and what was done with. With row ids: bodies are too long for the
-- inner pages of a table without.
CREATE TABLE notify_deliveries (
    app          BLOB    NOT NULL,
    endpoint     BLOB    NOT NULL,
    place        INTEGER NOT NULL,
    id           BLOB    NOT NULL,
    body         TEXT    NOT NULL,
    -- The program's word.
    state        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    -- When it came into the queue last, or was done with.
    since        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    status       INTEGER,
    error        TEXT,
    attempted_at INTEGER,
    PRIMARY KEY (app, endpoint, place)
) STRICT;

-- An endpoint has each once; and a delivery is named by its id, by whoever has it sent again and by the note of an attempt. The id comes first:
-- the beginning of the key, which every other query names, leads to one index.
CREATE UNIQUE INDEX notify_deliveries_by_id ON notify_deliveries (app, id, endpoint);

-- The head of a queue, without all that was sent in the week before.
CREATE INDEX notify_deliveries_queue ON notify_deliveries (app, endpoint, place) WHERE state = 'pending';

-- What has waited for too long, and what need not be known any more, oldest first.
CREATE INDEX notify_deliveries_waiting ON notify_deliveries (since) WHERE state = 'pending';
CREATE INDEX notify_deliveries_ended ON notify_deliveries (since) WHERE state <> 'pending';
