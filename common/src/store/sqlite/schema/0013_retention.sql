-- How long a chat's messages are kept: days; 0 for ever; -1 until every member has read them; null: as its application has it.
ALTER TABLE chats ADD COLUMN retention INTEGER;
-- Messages up to this one are past their time: they have their place, and say nothing.
ALTER TABLE chats ADD COLUMN expired_number INTEGER NOT NULL DEFAULT 0;
-- Whether what it said went when its time was over. Such a message is a deleted one to whoever does not know of retention.
ALTER TABLE messages ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;

-- What a sweep looks through.
CREATE INDEX chats_with_retention ON chats (app, chat) WHERE retention IS NOT NULL;
