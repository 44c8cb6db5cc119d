-- What an application has chosen, as JSON: fields come and go without a step of their own.
ALTER TABLE applications ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
-- How often applications were made or changed: one row. Services that keep them in memory poll it.
CREATE TABLE application_changes (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;
INSERT INTO application_changes (one, last) VALUES (1, 0);
