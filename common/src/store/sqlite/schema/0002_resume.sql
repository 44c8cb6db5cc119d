-- What a session that comes back needs: which of its chats changed after a place in the log, and which it is in no more.
--
-- A place is the writer's position after the batch that wrote the change, so that a cursor, which is a position as well, is before it
-- or not. What was written before this step may have changed at any time: the largest place of all.

ALTER TABLE chats ADD COLUMN head_upto INTEGER NOT NULL DEFAULT 9223372036854775807;

ALTER TABLE memberships ADD COLUMN joined_seq INTEGER NOT NULL DEFAULT 0;
-- Who was in already then is in since ever.
ALTER TABLE memberships ADD COLUMN joined_upto INTEGER NOT NULL DEFAULT 0;

UPDATE memberships SET joined_seq = coalesce(
    (SELECT m.joined_seq FROM members m
     WHERE m.app = memberships.app AND m.chat = memberships.chat AND m.user = memberships.user), 0);

-- Chats that a user has left, was removed from, or that were deleted: the newest time of each. Who is in again has a membership as well.
CREATE TABLE departures (
    app       BLOB    NOT NULL,
    user      BLOB    NOT NULL,
    chat      BLOB    NOT NULL,
    left_upto INTEGER NOT NULL,
    PRIMARY KEY (app, user, chat)
) STRICT, WITHOUT ROWID;
