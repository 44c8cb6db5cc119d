-- When it was erased. The row stays, so that the id is given to nobody else.
ALTER TABLE users ADD COLUMN erased_at bigint;
ALTER TABLE applications ADD COLUMN erased_at bigint;
-- When none of its rows was left.
ALTER TABLE applications ADD COLUMN dropped_at bigint;

-- Users who were erased and may be in groups still.
CREATE TABLE erased_users (
    app       uuid   NOT NULL,
    user_id   uuid   NOT NULL,
    erased_at bigint NOT NULL,
    PRIMARY KEY (app, user_id)
);
