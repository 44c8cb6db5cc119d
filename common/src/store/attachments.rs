//! Uploaded files, as the store knows them: whose they are, what they are, and which messages refer to them. What is in them is kept
//! elsewhere, as an object.
//!
//! An object is known here before its first byte is written, and until after its last one is gone: so nothing is left over, whoever dies in
//! between. It is *loose* while no attachment has it.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{Result, plan::Plan};
use crate::{
    ids::{AppId, AttachmentId, ChatKey, Number, ObjectId, UserId},
    model::MessageKind,
    time::Millis,
};

/// An uploaded file's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// Who uploaded it.
    pub uploader: UserId,
    /// What it is kept under.
    pub object: ObjectId,
    /// What it is, by its content: image, video, audio or file.
    pub kind: MessageKind,
    /// Its media type, by its content.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its name, as far as it can be shown.
    pub name: Option<String>,
    /// Its SHA-256, when it was uploaded under a key.
    pub digest: Option<Vec<u8>>,
    /// When it was uploaded.
    pub created_at: Millis,
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is an attachment now.
    New,
    /// There was one of this id already; it stands, and the new object is still loose.
    Known(Attachment),
    /// Its object is no longer noted: it took too long, and was taken for left over.
    Gone,
}

/// What nodes know and write of uploaded files.
#[async_trait]
pub trait Attachments: Send + Sync {
    /// Notes an object that is going to be written.
    async fn note_object(&self, app: AppId, object: ObjectId, at: Millis) -> Result<()>;

    /// Makes an attachment of an object that is written.
    async fn add_attachment(&self, app: AppId, attachment: &Attachment) -> Result<Added>;

    /// The attachment, for who uploaded it, for members of a chat with a message that refers to it (or is about to), and for everybody in the
    /// application while it is its uploader's profile picture.
    async fn attachment(&self, app: AppId, id: AttachmentId, reader: UserId) -> Result<Option<Attachment>>;

    /// Those of `ids` that `from` uploaded, in no order: something is about to refer to them, and they are not collected meanwhile.
    async fn touch_attachments(
        &self,
        app: AppId,
        from: UserId,
        ids: &[AttachmentId],
        at: Millis,
    ) -> Result<Vec<Attachment>>;

    /// Those of `ids` that `from` uploaded, in no order: they are going to be sent to the chat, so that its members may read them from now on,
    /// and are not collected meanwhile. Nobody may read anything of a chat that `from` is not in.
    async fn offer_attachments(
        &self,
        chat: ChatKey,
        from: UserId,
        ids: &[AttachmentId],
        at: Millis,
    ) -> Result<Vec<Attachment>>;

    /// Makes at most `limit` attachments objects that may go at once: those that no message refers to and that are nobody's profile picture,
    /// and that were last touched (or else uploaded) before `before`. Answers how many were looked at: as many as `limit` means that there may be more.
    async fn drop_unused(&self, before: Millis, now: Millis, limit: u32) -> Result<u32>;

    /// Loose objects that are so since before `before`, oldest first.
    async fn loose_objects(&self, before: Millis, limit: u32) -> Result<Vec<(AppId, ObjectId)>>;

    /// Forgets a loose object, once it is gone.
    async fn forget_object(&self, app: AppId, object: ObjectId) -> Result<()>;
}

/// What a plan does to references.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) added: Vec<(ChatKey, Number, AttachmentId)>,
    /// Messages that refer to nothing any more.
    pub(super) removed: Vec<(ChatKey, Number)>,
}

impl References {
    pub(super) fn of(plan: &Plan<'_>) -> Self {
        let mut references = Self::default();
        for message in plan.messages.iter().filter(|message| !message.text.deleted) {
            // Texts of another form are from before there were attachments.
            let ids: BTreeSet<AttachmentId> =
                message.text.attachments.iter().filter_map(|id| id.parse().ok()).collect();
            references.added.extend(ids.into_iter().map(|id| (message.key, message.number, id)));
        }
        let gone = plan.rewritten.iter().filter(|rewrite| rewrite.text.is_none_or(|text| text.deleted));
        references.removed = gone.map(|rewrite| (rewrite.key, rewrite.number)).collect();
        references
    }
}
