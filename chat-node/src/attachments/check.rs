//! Whether a message may refer to what it refers to: asked by the sender's node before the chat's owner is, and only of messages with
//! attachments.

use std::collections::HashSet;

use common::{
    ids::{AttachmentId, ChatId, ChatKey},
    model::MessageKind,
    problem::Problem,
    store::{Attachment, SendKey, SharedStore},
    token::Caller,
    wire::{client::FieldError, owner::Draft},
};

use crate::{check::Checks, control::Clock};

/// Looks at what messages refer to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CheckAttachments {
    store: SharedStore,
    clock: Clock,
}

impl CheckAttachments {
    /// Against the rows of this store.
    pub fn new(store: SharedStore, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Whether `caller` may send `draft` to the chat. From then on the chat's members may read what it refers to, and it is not collected before
    /// the message is stored.
    ///
    /// # Errors
    /// `invalid`: one of them is not there, or was not uploaded by the caller, or the message's kind does not go with them. `retry_later`.
    pub async fn check(&self, caller: &Caller, chat: ChatId, draft: &Draft) -> Result<(), Problem> {
        if draft.attachments.is_empty() {
            return plausible(draft.kind, &[]);
        }
        let key = ChatKey { app: caller.app, chat };
        let named: Vec<Option<AttachmentId>> = draft.attachments.iter().map(|id| id.parse().ok()).collect();
        let ids: Vec<AttachmentId> = named.iter().flatten().copied().collect();
        let found = self.store.offer_attachments(key, caller.user, &ids, self.clock.now()).await?;
        match judge(draft.kind, &named, &found) {
            Err(problem) if self.was_sent(key, caller, draft).await? => {
                tracing::debug!(%problem, "a message that was sent before refers to what is gone");
                Ok(())
            }
            judged => judged,
        }
    }

    /// Whether everybody in the caller's application may be shown this as the caller's picture, named by `field`. It is not collected before
    /// the caller's row says so.
    ///
    /// # Errors
    /// `invalid`: it is no picture that the caller uploaded. `retry_later`.
    pub(crate) async fn may_be_shown(
        &self,
        caller: &Caller,
        field: &str,
        id: AttachmentId,
    ) -> Result<(), Problem> {
        let found = self.store.touch_attachments(caller.app, caller.user, &[id], self.clock.now()).await?;
        let wrong = |msg: &str| Err(Problem::invalid(FieldError::body(field, msg)));
        match found.first() {
            None => wrong("there is no such upload of yours"),
            Some(found) if found.kind != MessageKind::Image => wrong("is no picture"),
            Some(_) => Ok(()),
        }
    }

    /// Whether this is the repeat of a message that is stored: its owner says what became of it, and of what it referred to nothing may be left.
    async fn was_sent(&self, chat: ChatKey, caller: &Caller, draft: &Draft) -> Result<bool, Problem> {
        let Some(client_id) = draft.client_id.clone() else { return Ok(false) };
        let found = self.store.find_sent(&[SendKey { chat, from: caller.user, client_id }]).await?;
        Ok(!found.answer.is_empty())
    }
}

fn judge(kind: MessageKind, named: &[Option<AttachmentId>], found: &[Attachment]) -> Result<(), Problem> {
    let known: HashSet<AttachmentId> = found.iter().map(|attachment| attachment.id).collect();
    let (mut checks, mut seen) = (Checks::default(), HashSet::new());
    for (at, id) in named.iter().enumerate() {
        let field = format!("attachments[{at}]");
        match id {
            Some(id) if !known.contains(id) => checks.wrong(field, "there is no such upload of yours"),
            None => checks.wrong(field, "there is no such upload of yours"),
            Some(id) if !seen.insert(*id) => checks.wrong(field, "is named twice"),
            Some(_) => {}
        }
    }
    checks.done()?;
    plausible(kind, found)
}

/// Whether a message of this kind may have these attachments: a picture has pictures, and so on; a file or a text may have anything.
fn plausible(kind: MessageKind, attachments: &[Attachment]) -> Result<(), Problem> {
    let wanted = match kind {
        MessageKind::Text => return Ok(()),
        MessageKind::Image | MessageKind::Photo => Some(MessageKind::Image),
        MessageKind::Video | MessageKind::Audio => Some(kind),
        MessageKind::File => None,
    };
    let wrong = |msg: String| Err(Problem::invalid(FieldError::body("kind", msg)));
    if attachments.is_empty() {
        return wrong(format!("{} needs an attachment", kind.word()));
    }
    match attachments.iter().find(|attachment| wanted.is_some_and(|wanted| wanted != attachment.kind)) {
        Some(other) => wrong(format!("{} does not go with {}", kind.word(), other.media_type)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use common::{
        ids::{ObjectId, UserId},
        time::Millis,
    };

    use super::*;

    fn attachment(kind: MessageKind) -> Attachment {
        Attachment {
            id: AttachmentId::random(),
            uploader: UserId::random(),
            object: ObjectId::random(),
            kind,
            media_type: "x/y".into(),
            size: 1,
            name: None,
            digest: None,
            created_at: Millis(1),
        }
    }

    #[test]
    fn me_7_a_messages_kind_goes_with_what_it_refers_to() {
        use MessageKind::{Audio, File, Image, Photo, Text, Video};
        for (kind, of, good) in [
            (Text, vec![], true),
            (Text, vec![Image, File], true),
            (File, vec![Image, File], true),
            (File, vec![], false),
            (Photo, vec![Image, Image], true),
            (Photo, vec![Image, Video], false),
            (Image, vec![], false),
            (Video, vec![Video], true),
            (Video, vec![Audio], false),
            (Audio, vec![Audio], true),
            (Audio, vec![File], false),
        ] {
            let attachments: Vec<_> = of.iter().copied().map(attachment).collect();
            assert_eq!(plausible(kind, &attachments).is_ok(), good, "{kind:?} with {of:?}");
        }
    }

    #[test]
    fn me_7_what_is_not_there_or_named_twice_is_named() {
        let one = attachment(MessageKind::File);
        let named = [Some(one.id), None, Some(AttachmentId::random()), Some(one.id)];
        let problem = judge(MessageKind::Text, &named, std::slice::from_ref(&one)).unwrap_err();
        let params: Vec<_> = problem.errors.iter().map(|error| error.param.as_str()).collect();
        assert_eq!(params, ["attachments[1]", "attachments[2]", "attachments[3]"]);
    }
}
