-- Of a group: the fingerprint of the request that made it. A group from before has none.
ALTER TABLE chats ADD COLUMN request INTEGER;
-- Records of its making that are in these tables: the first, and each that brought more first members.
ALTER TABLE chats ADD COLUMN makings INTEGER NOT NULL DEFAULT 1;
