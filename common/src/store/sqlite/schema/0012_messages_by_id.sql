-- One message by its id alone.
CREATE INDEX messages_by_id ON messages (id);
