-- How far each partition was drained when, in the order of their places: by them the log forgets what was drained long ago.
CREATE TABLE drained_marks (
    partition   integer NOT NULL,
    place       integer NOT NULL,
    log         uuid    NOT NULL,
    at          bigint  NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (partition, place)
);
