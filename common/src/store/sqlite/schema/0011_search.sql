-- The index that finds messages by their words: see common/src/search/mod.rs. Segments are made by the program from the messages as they are, a
-- while after these were written, and are never changed: a larger one, or one made anew, takes the place of what was there.

-- Segments that are to be made: of each the last message, from which the first follows. Noted by the transaction that writes it.
CREATE TABLE search_due (
    app           BLOB    NOT NULL,
    chat          BLOB    NOT NULL,
    upto          INTEGER NOT NULL,
    -- Until when somebody is making it, which others leave it to.
    claimed_until INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (app, chat, upto)
) STRICT, WITHOUT ROWID;

CREATE TABLE search_segments (
    app          BLOB    NOT NULL,
    chat         BLOB    NOT NULL,
    first_number INTEGER NOT NULL,
    last_number  INTEGER NOT NULL,
    buckets      INTEGER NOT NULL,
    PRIMARY KEY (app, chat, first_number)
) STRICT, WITHOUT ROWID;

-- The buckets of segments that are not empty. With row ids: rows of 1 KiB are too long for the inner pages of a table without.
CREATE TABLE search_buckets (
    app          BLOB    NOT NULL,
    chat         BLOB    NOT NULL,
    first_number INTEGER NOT NULL,
    bucket       INTEGER NOT NULL,
    bytes        BLOB    NOT NULL,
    PRIMARY KEY (app, chat, first_number, bucket)
) STRICT;

-- Messages in segments, or due to be in one, that were edited or deleted since.
CREATE TABLE search_changes (
    app    BLOB    NOT NULL,
    chat   BLOB    NOT NULL,
    number INTEGER NOT NULL,
    -- The change.
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (app, chat, number, seq)
) STRICT, WITHOUT ROWID;

-- What is there already is due, in the largest segments that it fills.
WITH RECURSIVE ends (app, chat, head, upto) AS (
    SELECT app, chat, head_number, 256 FROM chats WHERE head_number >= 256
    UNION ALL
    SELECT app, chat, head, upto + 256 FROM ends WHERE upto + 256 <= head)
INSERT INTO search_due (app, chat, upto)
SELECT app, chat, upto FROM ends
WHERE upto % 16384 = 0
   OR (upto % 2048 = 0 AND upto > head / 16384 * 16384)
   OR upto > head / 2048 * 2048;
