//! A request on its way through its chat's queue.

use std::collections::{HashSet, VecDeque};

use common::{
    ids::{Number, Offset, UserId},
    model::Message,
    store::{Pair, SendKey, Ties},
    time::Millis,
    wire::owner::{Answer, Ask, Draft, OwnerRequest},
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    chat::{Chat, Kept, Known, REPEAT_MEMORY},
    stored::Urgent,
};

/// Requests that wait for one chat. A chat that waits for the store (5 s at most) at 200 requests/s; when it is full, a request is
/// refused with `retry_later`.
pub(super) const CHAT_QUEUE: usize = 1_024;

/// A request, what has been found for it, and where its answer goes. Dropped without an answer it counts as unknown.
pub(super) struct Job {
    pub(super) request: OwnerRequest,
    pub(super) deadline: Millis,
    reply: oneshot::Sender<Answer>,
    /// Whether the store was asked for the names of its sends.
    pub(super) looked_up: bool,
    /// The message it is about, once the store was asked.
    pub(super) message: Option<Option<Message>>,
    /// Whether the store was asked which messages are past their time.
    pub(super) knows_expired: bool,
    /// Whether who asks answers that message with the emoji in question, as the store has it.
    pub(super) reacts: bool,
    /// What the users of a direct chat are to each other, once the store was asked.
    pub(super) ties: Option<Ties>,
    /// Which of those whom it lets into the chat are in as many chats as they may be, once the store was asked.
    pub(super) full: Option<HashSet<UserId>>,
}

impl Job {
    pub(super) fn new(request: OwnerRequest, deadline: Millis, reply: oneshot::Sender<Answer>) -> Self {
        Self {
            request,
            deadline,
            reply,
            looked_up: false,
            message: None,
            knows_expired: false,
            reacts: false,
            ties: None,
            full: None,
        }
    }

    pub(super) fn answer(self, answer: Answer) {
        // Whoever asked may have stopped waiting.
        let _ = self.reply.send(answer);
    }

    /// The request is appended, or is a repeat of one that is: what is left is to wait.
    pub(super) fn open(self, answer: Answer, stored: Option<Offset>) -> Open {
        Open { answer, reply: self.reply, stored, _urgent: None }
    }

    /// The names of its sends that memory does not know and the store may.
    pub(super) fn unknown_names(&self, chat: &Chat, owned_since: Instant, now: Instant) -> Vec<SendKey> {
        let fresh = now.duration_since(owned_since) < REPEAT_MEMORY;
        let drafts = match &self.request.ask {
            _ if self.looked_up || chat.knows_every_name => return Vec::new(),
            Ask::Send(drafts) => drafts.as_slice(),
            Ask::CreateGroup { first: Some(first), .. } => std::slice::from_ref(first),
            _ => return Vec::new(),
        };
        let unknown = drafts.iter().filter(|draft| fresh || draft.retry || self.request.retry);
        unknown
            .filter_map(|draft| draft.client_id.clone())
            .filter(|client_id| chat.accepted(self.request.by, client_id).is_none())
            .map(|client_id| SendKey { chat: self.request.key(), from: self.request.by, client_id })
            .collect()
    }

    /// Whose ties it must know: those of a direct chat in which it says something.
    pub(super) fn pair(&self, chat: &Chat) -> Option<Pair> {
        let OwnerRequest { app, by, ask, .. } = &self.request;
        match ask {
            Ask::Send(_) | Ask::Edit { .. } | Ask::React { on: true, .. } => chat.pair(*app, *by),
            _ => None,
        }
    }

    /// Whom it lets into the chat, who must have room for another one (SP-3). Of a direct chat that is who makes it: nobody fills another's.
    pub(super) fn comers(&self, chat: Option<&Chat>) -> Vec<UserId> {
        let by = self.request.by;
        if by == UserId::APPLICATION {
            // It knows how many it gives them, and may take somebody out of one chat only after it has let them into the next.
            return Vec::new();
        }
        match (&self.request.ask, chat) {
            (Ask::OpenDirect { .. }, None) => vec![by],
            (Ask::CreateGroup { members, .. }, None) => {
                let maker = (!members.contains(&by)).then_some(by);
                members.iter().copied().chain(maker).collect()
            }
            (Ask::AddMember { user } | Ask::SetRole { user, .. }, Some(chat))
                if !chat.members.contains_key(user) =>
            {
                vec![*user]
            }
            _ => Vec::new(),
        }
    }

    /// Whether it answers a message whose time may be over by now. `ends`: whether messages of the chat end some day.
    pub(super) fn unknown_expired(&self, chat: &Chat, ends: bool) -> bool {
        let Ask::Send(drafts) = &self.request.ask else { return false };
        let answered = |draft: &Draft| draft.reply_to.is_some_and(|number| number > chat.expired);
        ends && !self.knows_expired && drafts.iter().any(answered)
    }

    /// What it must know of the message it is about, if only the store knows that. `ends`: whether messages of the chat end some day.
    pub(super) fn unknown_message(&self, chat: &Chat, ends: bool) -> Option<Unknown> {
        let in_store = |number| match chat.message(number) {
            Known::InStore => true,
            Known::Message(_) => ends,
            Known::Erased(_) | Known::Never => false,
        };
        match &self.request.ask {
            _ if self.message.is_some() => None,
            Ask::Edit { number, .. } => in_store(*number).then_some(Unknown::Message(*number)),
            Ask::Erase { number } => {
                // Who may delete it once more is who might have deleted it.
                let erased = matches!(chat.message(*number), Known::Erased(_));
                let unknown = in_store(*number) || erased && chat.author(*number).is_none();
                unknown.then_some(Unknown::Message(*number))
            }
            Ask::React { number, emoji, .. } => {
                let known = chat.reacts(*number, self.request.by, emoji).is_some();
                let unknown =
                    in_store(*number) || !known && matches!(chat.message(*number), Known::Message(_));
                unknown.then(|| Unknown::Reaction(*number, self.request.by, emoji.clone()))
            }
            _ => None,
        }
    }
}

/// What of a message only the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// How it stands.
    Message(Number),
    /// That, and whether this user answers it with this emoji.
    Reaction(Number, UserId, String),
}

/// A request whose answer is known and waits for the log, and, if it changes who is in a chat, for the store.
pub(super) struct Open {
    answer: Answer,
    reply: oneshot::Sender<Answer>,
    /// The record that must be stored first.
    pub(super) stored: Option<Offset>,
    _urgent: Option<Urgent>,
}

impl Open {
    /// Somebody waits for the store now.
    pub(super) fn hurry(mut self, urgent: Urgent) -> Self {
        self._urgent = Some(urgent);
        self
    }

    /// Nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    pub(super) fn finish(self) {
        let _ = self.reply.send(self.answer);
    }
}

/// A chat's place in its partition: the chat, as far as it is known, and what waits for it.
#[derive(Default)]
pub(super) struct Slot {
    /// Not yet asked for; asked for, and there is none; or the chat.
    pub(super) chat: Option<Option<Box<Chat>>>,
    /// Undrained changes of a chat that the store has and memory has not yet.
    pub(super) replay: Vec<Kept>,
    pub(super) jobs: VecDeque<Job>,
    /// Whether an answer of the store is under way: the queue waits.
    pub(super) fetching: bool,
}

impl Slot {
    /// The chat, if there is one.
    pub(super) fn chat(&self) -> Option<&Chat> {
        self.chat.as_ref().and_then(Option::as_deref)
    }

    /// The chat, if there is one.
    pub(super) fn chat_mut(&mut self) -> Option<&mut Chat> {
        self.chat.as_mut().and_then(Option::as_deref_mut)
    }
}
