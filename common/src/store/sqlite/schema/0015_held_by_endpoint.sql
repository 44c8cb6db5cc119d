ALTER TABLE notify_held RENAME TO notify_held_before;

-- Who is held as something is to be sent to them is told later by that endpoint alone: by the others they may have been told.
CREATE TABLE notify_held (
    app         BLOB    NOT NULL,
    user        BLOB    NOT NULL,
    chat        BLOB    NOT NULL,
    -- All zeros: all that lead to the user.
    endpoint    BLOB    NOT NULL,
    partition   INTEGER NOT NULL,
    from_number INTEGER NOT NULL,
    upto        INTEGER NOT NULL,
    until       INTEGER NOT NULL,
    PRIMARY KEY (app, user, chat, endpoint)
) STRICT, WITHOUT ROWID;

INSERT INTO notify_held (app, user, chat, endpoint, partition, from_number, upto, until)
SELECT app, user, chat, zeroblob(16), partition, from_number, upto, until FROM notify_held_before;

DROP TABLE notify_held_before;

-- Who is to be told by now, earliest first, and at the same time of the earliest messages first.
CREATE INDEX notify_held_by_time ON notify_held (until, upto, partition);
