//! Commands on messages: sending, changing, deleting and answering them, and how far one has read.

use std::collections::HashSet;

use common::{
    ids::{ChatId, ChatKey, ClientId, MessageId, Number, Seq, SocketId},
    model::{Message, limits},
    problem::Problem,
    store::ReadMark,
    token::Caller,
    wire::owner::{Answer, Ask, Draft, Sent},
};

use super::{Commands, undone};
use crate::{check::Checks, reads::readable};

/// A message that the log has, and whether it was there before this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The message as it was first written.
    pub message: Message,
    /// Whether an earlier request with the same `client_id` wrote it.
    pub repeat: bool,
}

impl Commands {
    /// A message that may be sent.
    ///
    /// # Errors
    /// `invalid` with the fields, `too_large`.
    pub fn draft(&self, mut draft: Draft) -> Result<Draft, Problem> {
        let Draft { body, reply_to, attachments, mentions, .. } = &mut draft;
        let mut checks = Checks::default();
        checks.body(body, !attachments.is_empty());
        checks.attachments(attachments);
        // Numbers are kept in signed 64 bits.
        if reply_to.is_some_and(|number| number == 0 || i64::try_from(number).is_err()) {
            checks.wrong("reply_to", "must be the number of a message, from 1");
        }
        let mut seen = HashSet::new();
        mentions.retain(|user| seen.insert(*user));
        if mentions.len() > limits::MENTIONS {
            checks.wrong("mentions", format!("must be at most {}", limits::MENTIONS));
        }
        checks.done()?;
        Ok(draft)
    }

    /// Sends one message and waits until the log has it. Sockets use lanes instead, which keep a device's order.
    ///
    /// # Errors
    /// The owner's refusals, `invalid` for attachments that are not the caller's, `not_found` to who is not in the chat, `id_conflict`,
    /// `retry_later`, `unknown`.
    pub async fn send(&self, caller: &Caller, chat: ChatId, mut draft: Draft) -> Result<Written, Problem> {
        self.check.check(caller, chat, &draft).await?;
        // Asking the owner again after a break must not write it twice, so it needs a name even when its client gave it none.
        let named = draft.client_id.is_some();
        if !named {
            draft.client_id = ClientId::new(&MessageId::random().to_string()).ok();
        }
        let answer = self.ask(caller, chat, false, Ask::Send(vec![draft.clone()])).await;
        let sent = match answer {
            Answer::Sent(mut outcomes) => match outcomes.pop() {
                Some(Ok(sent)) if outcomes.is_empty() => sent,
                Some(Err(refusal)) if outcomes.is_empty() => return Err(refusal.into()),
                _ => return Err(undone(Answer::Sent(outcomes))),
            },
            other => return Err(undone(other)),
        };
        if !named {
            draft.client_id = None;
        }
        let repeat = named && sent.repeat;
        Ok(Written { message: written(caller, chat, draft, sent), repeat })
    }

    /// Changes a message's text; answers the change's place in the chat.
    ///
    /// # Errors
    /// `invalid`, `too_large`, `not_found`, `forbidden`, `retry_later`, `unknown`.
    pub async fn edit(
        &self,
        caller: &Caller,
        chat: ChatId,
        number: Number,
        body: String,
    ) -> Result<Seq, Problem> {
        let mut checks = Checks::default();
        // Whether it has attachments, beside which it may be empty, the owner knows.
        checks.body(&body, true);
        checks.done()?;
        self.change(caller, chat, Ask::Edit { number, body }).await
    }

    /// Deletes a message, which keeps its number; answers the change's place in the chat.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `retry_later`, `unknown`.
    pub async fn delete(&self, caller: &Caller, chat: ChatId, number: Number) -> Result<Seq, Problem> {
        self.change(caller, chat, Ask::Erase { number }).await
    }

    /// Answers a message with an emoji, or takes that back; once, however often it is asked. Answers the change's place in the chat.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `too_large` (too many different emoji), `retry_later`, `unknown`.
    pub async fn react(
        &self,
        caller: &Caller,
        chat: ChatId,
        number: Number,
        emoji: String,
        on: bool,
    ) -> Result<Seq, Problem> {
        let mut checks = Checks::default();
        checks.emoji(&emoji);
        checks.done()?;
        self.change(caller, chat, Ask::React { number, emoji, on }).await
    }

    /// Moves the caller's read mark forward to a message, on behalf of one of the caller's sockets or of none; answers where it stands when
    /// the store has it. It never goes back, and never past the chat's head: `seen` is how far that is to the asker's knowledge (0: not
    /// known). Past both that and what is stored, the chat's owner is asked how far the log is; when it is silent, the mark stays at what
    /// is known, and the answer says so.
    ///
    /// # Errors
    /// `invalid`, `not_found` to who is not in the chat, `retry_later`.
    pub async fn read(
        &self,
        caller: &Caller,
        chat: ChatId,
        number: Number,
        socket: Option<SocketId>,
        seen: Number,
    ) -> Result<Number, Problem> {
        let chat_key = ChatKey { app: caller.app, chat };
        let mark = ReadMark { chat: chat_key, user: caller.user, number: readable(number)?, head: seen };
        let not_found = || Problem::not_found("chat");
        let marked = self.reads.mark(mark, socket).await?.ok_or_else(not_found)?.number;
        if marked >= number {
            return Ok(marked);
        }
        let head = match self.ask(caller, chat, false, Ask::Recent).await {
            Answer::Recent { head, .. } => head.number,
            Answer::Unknown | Answer::NotOwner => return Ok(marked),
            Answer::Refused(refusal) if refusal.code.temporary() => return Ok(marked),
            other => return Err(undone(other)),
        };
        if number.min(head) <= marked {
            return Ok(marked);
        }
        let marked = self.reads.mark(ReadMark { head, ..mark }, socket).await?.ok_or_else(not_found)?;
        Ok(marked.number)
    }
}

/// The message that `draft` became.
fn written(caller: &Caller, chat: ChatId, draft: Draft, sent: Sent) -> Message {
    Message {
        id: sent.id,
        chat,
        room_id: chat,
        number: sent.number,
        from: caller.user,
        body: sent.masked.unwrap_or(draft.body),
        kind: draft.kind,
        created_at: sent.at,
        edited_at: None,
        deleted: false,
        expired: false,
        reply_to: draft.reply_to,
        attachments: draft.attachments,
        reactions: Vec::new(),
        mentions: sent.mentions.unwrap_or(draft.mentions),
        mention_all: draft.mention_all,
        client_id: draft.client_id,
    }
}

/// Takes a message's `client_id` away when its reader is not its sender.
pub(crate) fn hide_client_id(caller: &Caller, message: Option<&mut Message>) {
    if let Some(message) = message.filter(|message| message.from != caller.user) {
        message.client_id = None;
    }
}
