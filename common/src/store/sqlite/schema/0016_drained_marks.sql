-- How far each partition was drained when, in the order of their places: by them the log forgets what was drained long ago.
CREATE TABLE drained_marks (
    partition INTEGER NOT NULL,
    place     INTEGER NOT NULL,
    log       BLOB    NOT NULL,
    at        INTEGER NOT NULL,
    offset    INTEGER NOT NULL,
    PRIMARY KEY (partition, place)
) STRICT, WITHOUT ROWID;
