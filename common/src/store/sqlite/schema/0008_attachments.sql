-- Uploaded files. What is in them is kept elsewhere, under `object`.
CREATE TABLE attachments (
    app        BLOB    NOT NULL,
    id         BLOB    NOT NULL,
    uploader   BLOB    NOT NULL,
    object     BLOB    NOT NULL,
    kind       TEXT    NOT NULL,
    media_type TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    name       TEXT,
    -- SHA-256, of those that were uploaded under a key.
    digest     BLOB,
    created_at INTEGER NOT NULL,
    -- When it was uploaded, or last sent.
    touched_at INTEGER NOT NULL,
    -- Whether a message refers to it. 0 may be wrong, and is looked at; 1 is not.
    referred   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (app, id)
) STRICT, WITHOUT ROWID;

-- What may have to be collected, oldest first.
CREATE INDEX attachments_unused ON attachments (touched_at) WHERE referred = 0;

-- Which messages refer to which; number 0: it is being sent to the chat.
CREATE TABLE attachment_uses (
    app        BLOB    NOT NULL,
    chat       BLOB    NOT NULL,
    number     INTEGER NOT NULL,
    attachment BLOB    NOT NULL,
    PRIMARY KEY (app, chat, number, attachment)
) STRICT, WITHOUT ROWID;

-- Who may read it: the members of these chats.
CREATE INDEX attachment_uses_by_attachment ON attachment_uses (app, attachment, chat);

-- Objects that belong to nobody: not yet, or no more.
CREATE TABLE loose_objects (
    app    BLOB    NOT NULL,
    object BLOB    NOT NULL,
    -- When its writing began; 0 when it may go at once.
    since  INTEGER NOT NULL,
    PRIMARY KEY (app, object)
) STRICT, WITHOUT ROWID;

CREATE INDEX loose_objects_by_age ON loose_objects (since);
