-- When somebody who is not connected was connected last.
CREATE TABLE last_seen (
    app  BLOB    NOT NULL,
    user BLOB    NOT NULL,
    at   INTEGER NOT NULL,
    PRIMARY KEY (app, user)
) STRICT, WITHOUT ROWID;
