-- Uploaded files. What is in them is kept elsewhere, under `object`.
CREATE TABLE attachments (
    app        uuid    NOT NULL,
    id         uuid    NOT NULL,
    uploader   uuid    NOT NULL,
    object     uuid    NOT NULL,
    size       bigint  NOT NULL,
    created_at bigint  NOT NULL,
    -- When it was uploaded, or last sent.
    touched_at bigint  NOT NULL,
    -- Whether a message refers to it. False may be wrong, and is looked at; true is not.
    referred   boolean NOT NULL DEFAULT false,
    kind       text    NOT NULL,
    media_type text    NOT NULL,
    name       text,
    -- SHA-256, of those that were uploaded under a key.
    digest     bytea,
    PRIMARY KEY (app, id)
);

-- What may have to be collected, oldest first.
CREATE INDEX attachments_unused ON attachments (touched_at) WHERE NOT referred;

-- Which messages refer to which; number 0: it is being sent to the chat.
CREATE TABLE attachment_uses (
    app        uuid   NOT NULL,
    chat       uuid   NOT NULL,
    number     bigint NOT NULL,
    attachment uuid   NOT NULL,
    PRIMARY KEY (app, chat, number, attachment)
);

-- Who may read it: the members of these chats.
CREATE INDEX attachment_uses_by_attachment ON attachment_uses (app, attachment, chat);

-- Objects that belong to nobody: not yet, or no more.
CREATE TABLE loose_objects (
    app    uuid   NOT NULL,
    object uuid   NOT NULL,
    -- When its writing began; 0 when it may go at once.
    since  bigint NOT NULL,
    PRIMARY KEY (app, object)
);

CREATE INDEX loose_objects_by_age ON loose_objects (since);
