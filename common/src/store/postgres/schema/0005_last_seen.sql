-- When somebody who is not connected was connected last. It changes in a column that no index has.
CREATE TABLE last_seen (
    app     uuid   NOT NULL,
    user_id uuid   NOT NULL,
    at      bigint NOT NULL,
    PRIMARY KEY (app, user_id)
) WITH (fillfactor = 70);
