-- no-transaction
-- One message by its id alone. Ids are random and never compared: a hash holds four bytes of each. What was interrupted has left an index that
-- nobody reads and that bears the name.
DROP INDEX CONCURRENTLY IF EXISTS messages_by_id;
CREATE INDEX CONCURRENTLY messages_by_id ON messages USING hash (id);
