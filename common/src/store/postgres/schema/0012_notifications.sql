-- What users want to be told while they are away, as JSON: fields come and go without a step of their own.
CREATE TABLE notification_preferences (
    app         uuid NOT NULL,
    user_id     uuid NOT NULL,
    preferences text NOT NULL,
    PRIMARY KEY (app, user_id)
);

-- What they want otherwise in one chat. By user: all of it goes with them.
CREATE TABLE chat_notification_preferences (
    app         uuid NOT NULL,
    user_id     uuid NOT NULL,
    chat        uuid NOT NULL,
    preferences text NOT NULL,
    PRIMARY KEY (app, user_id, chat)
);

-- Where notifications go, and the head of the queue of each. Whether an application has any is the beginning of the key: the writer asks
-- that with each batch. Its row changes with whatever is put into its queue.
CREATE TABLE notify_endpoints (
    app          uuid    NOT NULL,
    id           uuid    NOT NULL,
    -- Whose browser it is; all zeros: a webhook of the application.
    user_id      uuid    NOT NULL,
    created_at   bigint  NOT NULL,
    -- The last place that was given in its queue.
    last_place   bigint  NOT NULL DEFAULT 0,
    -- In a row.
    failures     bigint  NOT NULL DEFAULT 0,
    -- Nothing is sent before.
    next_at      bigint  NOT NULL DEFAULT 0,
    -- Of the last lease: its end and its name, which no other has.
    leased_until bigint  NOT NULL DEFAULT 0,
    leased       boolean NOT NULL DEFAULT false,
    -- Whether there may be something in its queue.
    queued       boolean NOT NULL DEFAULT false,
    enabled      boolean NOT NULL,
    url          text    NOT NULL,
    -- What deliveries to a webhook are signed with; what is shared with a browser.
    secret       bytea   NOT NULL,
    -- Of a browser.
    public_key   bytea,
    -- Of a browser: the sign-in with which it comes and goes.
    session      uuid,
    -- Of a browser: SHA-256 of its URL.
    url_hash     bytea,
    PRIMARY KEY (app, id)
) WITH (fillfactor = 70);

-- The browsers of one user, for each candidate and for each notification; and the webhooks among an application's 100,000 browsers.
CREATE INDEX notify_endpoints_by_user ON notify_endpoints (app, user_id);

-- A browser is there once.
CREATE UNIQUE INDEX notify_endpoints_by_url ON notify_endpoints (app, url_hash) WHERE url_hash IS NOT NULL;

-- The browsers of a sign-in that is ended.
CREATE INDEX notify_endpoints_by_session ON notify_endpoints (app, session) WHERE session IS NOT NULL;

-- Whether a sign-in was ended, asked by a browser that comes at the same time.
CREATE INDEX revocations_by_session ON revocations (session);

-- What can be sent to, looked for each second, webhooks and browsers apart: only those with something to be sent are in it.
CREATE INDEX notify_webhooks_due ON notify_endpoints (next_at) WHERE queued AND enabled AND url_hash IS NULL;
CREATE INDEX notify_browsers_due ON notify_endpoints (next_at) WHERE queued AND enabled AND url_hash IS NOT NULL;

-- Endpoints that are gone, while there is something left that was to be sent to them: it may be much, and goes in parts.
CREATE TABLE notify_removed (
    app      uuid NOT NULL,
    endpoint uuid NOT NULL,
    PRIMARY KEY (app, endpoint)
);

-- Chats with messages that nobody was notified of yet: one row, whatever the number of members and messages. Each page of members changes
-- it in columns that no index has.
CREATE TABLE notify_waiting (
    app         uuid    NOT NULL,
    chat        uuid    NOT NULL,
    -- The first of these messages, and when it was accepted.
    from_number bigint  NOT NULL,
    from_at     bigint  NOT NULL,
    -- While the members are looked through: the last message that this is about, and the last member.
    upto        bigint,
    last_member uuid,
    partition   integer NOT NULL,
    PRIMARY KEY (app, chat)
) WITH (fillfactor = 70);

-- Those of one application that have waited long enough, oldest first; those of others' partitions are passed over in the index.
CREATE INDEX notify_waiting_by_age ON notify_waiting (app, from_at, partition);

-- Users who are to be told later, as they are not to be disturbed. By user: all of it goes with them.
CREATE TABLE notify_held (
    app         uuid    NOT NULL,
    user_id     uuid    NOT NULL,
    chat        uuid    NOT NULL,
    from_number bigint  NOT NULL,
    upto        bigint  NOT NULL,
    until       bigint  NOT NULL,
    partition   integer NOT NULL,
    PRIMARY KEY (app, user_id, chat)
);

-- Who is to be told by now, earliest first.
CREATE INDEX notify_held_by_time ON notify_held (until, partition);

-- What was sent, and is to be sent: the queue of each endpoint by place, and what was done with.
CREATE TABLE notify_deliveries (
    app          uuid   NOT NULL,
    endpoint     uuid   NOT NULL,
    id           uuid   NOT NULL,
    place        bigint NOT NULL,
    created_at   bigint NOT NULL,
    -- When it came into the queue last, or was done with.
    since        bigint NOT NULL,
    attempts     bigint NOT NULL DEFAULT 0,
    status       bigint,
    attempted_at bigint,
    -- The program's word.
    state        text COLLATE "C" NOT NULL,
    error        text,
    body         text   NOT NULL,
    PRIMARY KEY (app, endpoint, place)
);

-- An endpoint has each once; and a delivery is named by its id, by whoever has it sent again and by the note of an attempt. The id comes first:
-- the beginning of the key, which every other query names, leads to one index.
CREATE UNIQUE INDEX notify_deliveries_by_id ON notify_deliveries (app, id, endpoint);

-- The head of a queue, without all that was sent in the week before.
CREATE INDEX notify_deliveries_queue ON notify_deliveries (app, endpoint, place) WHERE state = 'pending';

-- What has waited for too long, and what need not be known any more, oldest first.
CREATE INDEX notify_deliveries_waiting ON notify_deliveries (since) WHERE state = 'pending';
CREATE INDEX notify_deliveries_ended ON notify_deliveries (since) WHERE state <> 'pending';
