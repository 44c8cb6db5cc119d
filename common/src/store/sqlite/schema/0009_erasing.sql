-- When it was erased. The row stays, so that the id is given to nobody else.
ALTER TABLE users ADD COLUMN erased_at INTEGER;
ALTER TABLE applications ADD COLUMN erased_at INTEGER;
-- When none of its rows was left.
ALTER TABLE applications ADD COLUMN dropped_at INTEGER;

-- Users who were erased and may be in groups still.
CREATE TABLE erased_users (
    app       BLOB    NOT NULL,
    user      BLOB    NOT NULL,
    erased_at INTEGER NOT NULL,
    PRIMARY KEY (app, user)
) STRICT, WITHOUT ROWID;
