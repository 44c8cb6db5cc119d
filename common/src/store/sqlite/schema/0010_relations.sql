-- Whom a user has among their contacts, and whom they have blocked. Deleted by the user who made them, and with nothing else.
CREATE TABLE relations (
    app  BLOB    NOT NULL,
    user BLOB    NOT NULL,
    -- The program's word.
    kind TEXT    NOT NULL,
    -- Who is one.
    peer BLOB    NOT NULL,
    -- The direct chat of the two, whether or not there is one.
    chat BLOB    NOT NULL,
    at   INTEGER NOT NULL,
    PRIMARY KEY (app, user, kind, peer)
) STRICT, WITHOUT ROWID;

-- Which pairs have changed. Nodes poll for the numbers after the last they have seen. A number is not given again, whatever was removed.
CREATE TABLE relation_changes (
    no   INTEGER PRIMARY KEY AUTOINCREMENT,
    app  BLOB    NOT NULL,
    user BLOB    NOT NULL,
    peer BLOB    NOT NULL,
    at   INTEGER NOT NULL
) STRICT;
