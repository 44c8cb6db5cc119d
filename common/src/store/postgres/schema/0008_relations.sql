-- Whom a user has among their contacts, and whom they have blocked. Deleted by the user who made them, and with nothing else.
CREATE TABLE relations (
    app     uuid             NOT NULL,
    user_id uuid             NOT NULL,
    -- The program's word.
    kind    text COLLATE "C" NOT NULL,
    -- Who is one.
    peer    uuid             NOT NULL,
    -- The direct chat of the two, whether or not there is one.
    chat    uuid             NOT NULL,
    at      bigint           NOT NULL,
    PRIMARY KEY (app, user_id, kind, peer)
);

-- Which pairs have changed. Nodes poll for the numbers after the last they have seen: the key's own order.
CREATE TABLE relation_changes (
    no      bigint NOT NULL PRIMARY KEY,
    app     uuid   NOT NULL,
    user_id uuid   NOT NULL,
    peer    uuid   NOT NULL,
    at      bigint NOT NULL
);

-- The last number given to a change: one row. Who takes the next one holds its lock until it is committed, so numbers are seen in their
-- order.
CREATE TABLE relation_change_count (
    one  boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
    last bigint  NOT NULL
);
INSERT INTO relation_change_count (last) VALUES (0);
