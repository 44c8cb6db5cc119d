-- The index that finds messages by their words: see common/src/search/mod.rs. Segments are made by the program from the messages as they are, a
-- while after these were written, and are never changed: a larger one, or one made anew, takes the place of what was there.

-- Segments that are to be made: of each the last message, from which the first follows. Noted by the transaction that writes it.
CREATE TABLE search_due (
    app           uuid   NOT NULL,
    chat          uuid   NOT NULL,
    upto          bigint NOT NULL,
    -- Until when a process is making it, which others leave it to.
    claimed_until bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (app, chat, upto)
);

CREATE TABLE search_segments (
    app          uuid    NOT NULL,
    chat         uuid    NOT NULL,
    first_number bigint  NOT NULL,
    last_number  bigint  NOT NULL,
    buckets      integer NOT NULL,
    PRIMARY KEY (app, chat, first_number)
);

-- The buckets of segments that are not empty.
CREATE TABLE search_buckets (
    app          uuid    NOT NULL,
    chat         uuid    NOT NULL,
    first_number bigint  NOT NULL,
    bucket       integer NOT NULL,
    bytes        bytea   NOT NULL,
    PRIMARY KEY (app, chat, first_number, bucket)
);

-- Their bytes are as short as they get.
ALTER TABLE search_buckets ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Messages in segments, or due to be in one, that were edited or deleted since. Only added to by the writer, whom nobody makes wait.
CREATE TABLE search_changes (
    app    uuid   NOT NULL,
    chat   uuid   NOT NULL,
    number bigint NOT NULL,
    -- The change.
    seq    bigint NOT NULL,
    at     bigint NOT NULL,
    PRIMARY KEY (app, chat, number, seq)
);

-- What is there already is due, in the largest segments that it fills.
INSERT INTO search_due (app, chat, upto)
SELECT c.app, c.chat, n.upto FROM chats c CROSS JOIN LATERAL generate_series(256, c.head_number, 256) AS n (upto)
WHERE n.upto % 16384 = 0
   OR (n.upto % 2048 = 0 AND n.upto > c.head_number / 16384 * 16384)
   OR n.upto > c.head_number / 2048 * 2048;
