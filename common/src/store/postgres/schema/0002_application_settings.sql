-- What an application has chosen, as JSON: fields come and go without a step of their own. Text, not jsonb: it is read whole, as it was
-- written.
ALTER TABLE applications ADD COLUMN settings text NOT NULL DEFAULT '{}';

-- How often applications were made or changed: one row. Services that keep them in memory poll it. Whoever counts holds its lock until it
-- is committed, so whoever has read a count reads that change.
CREATE TABLE application_changes (
    one  boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
    last bigint  NOT NULL
);
INSERT INTO application_changes (last) VALUES (0);
