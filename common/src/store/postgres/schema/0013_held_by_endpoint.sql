-- Who is held as something is to be sent to them is told later by that endpoint alone: by the others they may have been told. All zeros: all
-- that lead to the user.
ALTER TABLE notify_held ADD COLUMN endpoint uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
ALTER TABLE notify_held DROP CONSTRAINT notify_held_pkey, ADD PRIMARY KEY (app, user_id, chat, endpoint);

-- Who is to be told by now, earliest first, and at the same time of the earliest messages first.
DROP INDEX notify_held_by_time;
CREATE INDEX notify_held_by_time ON notify_held (until, upto, partition);
