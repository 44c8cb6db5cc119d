//! What a request needs to know of the store before it is decided: its chat, whether its sends are there, the message it is about, what the
//! two of a direct chat are to each other, who has no room for another chat.

use std::{ops::ControlFlow, time::Duration};

use common::{
    ids::{ChatKey, Number, Offset, UserId},
    model::Message,
    store::{AsOf, ChatRow, Found, Pair, Range, StoreError, Ties},
};
use tokio::time::Instant;

use super::{
    super::{
        Context,
        chat::Chat,
        publish::Lost,
        queue::{Job, Unknown},
        retry_later,
    },
    Owned,
};
use crate::relationships::Relationships;

/// What the store answered about a chat.
enum Fetched {
    Chat(Result<AsOf<Option<ChatRow>>, StoreError>),
    Sends(Result<AsOf<Vec<Found>>, StoreError>),
    Message(Result<AsOf<Option<Message>>, StoreError>),
    Reaction(Result<AsOf<Option<(Message, bool)>>, StoreError>),
    Ties(Result<Ties, StoreError>),
    Full(Result<Vec<UserId>, StoreError>),
    Expired(Result<Number, StoreError>),
}

/// A question to the store.
pub(super) struct Fetch {
    key: ChatKey,
    /// How far the partition was drained when it was asked.
    drained: Offset,
    fetched: Fetched,
}

/// How long the store may take for what can be decided without it if it must: the chat's other requests wait meanwhile.
const BRIEF: Duration = Duration::from_secs(1);

/// The pair whose ties a request needs and nobody knows here.
fn unknown_pair(relationships: &Relationships, job: &Job, chat: &Chat) -> Option<Pair> {
    let pair = job.pair(chat).filter(|_| job.ties.is_none())?;
    relationships.known(pair).is_none().then_some(pair)
}

async fn within<T>(
    wait: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(wait, answer).await;
    answer.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".into())))
}

impl Context {
    /// Of whom it must be known how many chats they are in before a request is decided, and how many they may be in at most.
    fn uncounted(&self, job: &Job, chat: Option<&Chat>) -> Option<(Vec<UserId>, u64)> {
        let most = self.chats_per_user(job.request.app).filter(|_| job.full.is_none())?;
        let comers = job.comers(chat);
        (!comers.is_empty()).then_some((comers, most.into()))
    }
}

impl Owned {
    /// The chat's next request, if it has what it needs; else what it needs is asked for.
    pub(super) fn next_job(&mut self, key: ChatKey) -> ControlFlow<(), Job> {
        let Some(slot) = self.slots.get_mut(&key).filter(|slot| !slot.fetching) else {
            return ControlFlow::Break(());
        };
        let Some(job) = slot.jobs.front() else { return ControlFlow::Break(()) };
        let (lookup, drained) = (self.context.lookup.clone(), self.drained.offset);
        let uncounted = slot.chat.as_ref().and_then(|chat| self.context.uncounted(job, chat.as_deref()));
        let fetch = match (&slot.chat, uncounted) {
            (None, _) => {
                self.fetches.spawn(async move {
                    Fetch { key, drained, fetched: Fetched::Chat(lookup.chat(key).await) }
                });
                true
            }
            (Some(chat), Some((comers, most))) => {
                let store = self.context.store.clone();
                // Nothing else waits for a chat that is not there yet, which may have 50,000 members: it has as long as the store takes.
                let wait = if chat.is_none() { Duration::MAX } else { BRIEF };
                self.fetches.spawn(async move {
                    let counted = within(wait, store.with_chats(key.app, &comers, most)).await;
                    Fetch { key, drained, fetched: Fetched::Full(counted) }
                });
                true
            }
            (Some(None), None) => false,
            (Some(Some(chat)), None) => {
                let now = Instant::now();
                let ends = self.context.messages_end(key.app, chat);
                if let Some(unknown) = job.unknown_message(chat, ends) {
                    let store = self.context.store.clone();
                    self.fetches.spawn(async move {
                        let fetched = match unknown {
                            Unknown::Message(number) => Fetched::Message(store.message(key, number).await),
                            Unknown::Reaction(number, user, emoji) => {
                                Fetched::Reaction(store.reaction(key, number, user, &emoji).await)
                            }
                        };
                        Fetch { key, drained, fetched }
                    });
                    true
                } else if job.unknown_expired(chat, ends) {
                    let store = self.context.store.clone();
                    self.fetches.spawn(async move {
                        // No messages: how far they have ended is told beside them.
                        let slice = within(BRIEF, store.history(key, Range::After(0), 0)).await;
                        let expired = slice.map(|slice| slice.map_or(0, |slice| slice.expired));
                        Fetch { key, drained, fetched: Fetched::Expired(expired) }
                    });
                    true
                } else if job.unknown_names(chat, self.since, now).is_empty() {
                    // Last, so that nothing else is waited for between what is read and what is decided.
                    let unknown = unknown_pair(&self.context.relationships, job, chat);
                    if let Some(pair) = unknown {
                        let relationships = self.context.relationships.clone();
                        self.fetches.spawn(async move {
                            Fetch { key, drained, fetched: Fetched::Ties(relationships.read(pair).await) }
                        });
                    }
                    unknown.is_some()
                } else {
                    // Whatever else waits here is asked for along with it.
                    let mut names = Vec::new();
                    for job in &mut slot.jobs {
                        names.extend(job.unknown_names(chat, self.since, now));
                        job.looked_up = true;
                    }
                    self.fetches.spawn(async move {
                        Fetch { key, drained, fetched: Fetched::Sends(lookup.sends(names).await) }
                    });
                    true
                }
            }
        };
        slot.fetching = fetch;
        match slot.jobs.pop_front() {
            Some(job) if !fetch => ControlFlow::Continue(job),
            Some(job) => {
                slot.jobs.push_front(job);
                ControlFlow::Break(())
            }
            None => ControlFlow::Break(()),
        }
    }

    /// The store has answered.
    pub(super) async fn fetched(&mut self, fetch: Fetch) -> Result<(), Lost> {
        let Fetch { key, drained, fetched } = fetch;
        let offset = match &fetched {
            Fetched::Chat(Ok(read)) => Some(read.offset(self.partition)),
            Fetched::Sends(Ok(read)) => Some(read.offset(self.partition)),
            Fetched::Message(Ok(read)) => Some(read.offset(self.partition)),
            Fetched::Reaction(Ok(read)) => Some(read.offset(self.partition)),
            // They are no part of the log, or may be as of any moment.
            Fetched::Ties(_)
            | Fetched::Full(_)
            | Fetched::Expired(_)
            | Fetched::Chat(Err(_))
            | Fetched::Sends(Err(_))
            | Fetched::Message(Err(_))
            | Fetched::Reaction(Err(_)) => None,
        };
        if let Some(offset) = offset {
            self.still_has(drained, offset)?;
        }
        let now = Instant::now();
        let Some(slot) = self.slots.get_mut(&key) else { return Ok(()) };
        slot.fetching = false;
        let failed = match fetched {
            Fetched::Chat(Ok(row)) => {
                let mut replay = std::mem::take(&mut slot.replay);
                let mut chat = row.answer.map(|row| Box::new(Chat::from_row(row, now)));
                if let Some(chat) = &mut chat {
                    for kept in std::mem::take(&mut replay) {
                        chat.apply(kept, now);
                    }
                    chat.confirm_all();
                } else if !replay.is_empty() {
                    tracing::error!(chat = %key, "the log changes a chat that the store does not have");
                    slot.replay = replay;
                    for job in slot.jobs.drain(..) {
                        job.answer(retry_later("the chat cannot be read at the moment"));
                    }
                    return Ok(());
                }
                slot.chat = Some(chat);
                None
            }
            Fetched::Sends(Ok(found)) => {
                if let Some(chat) = slot.chat_mut() {
                    for found in found.answer {
                        chat.found(found, now);
                    }
                }
                None
            }
            Fetched::Message(Ok(message)) => {
                if let Some(job) = slot.jobs.front_mut() {
                    job.message = Some(message.answer);
                }
                None
            }
            Fetched::Reaction(Ok(read)) => {
                if let Some(job) = slot.jobs.front_mut() {
                    let (message, reacts) = read.answer.unzip();
                    job.message = Some(message);
                    job.reacts = reacts.unwrap_or_default();
                }
                None
            }
            Fetched::Ties(Ok(ties)) => {
                if let Some(job) = slot.jobs.front_mut() {
                    job.ties = Some(ties);
                }
                None
            }
            Fetched::Full(full) => {
                let full = full.unwrap_or_else(|error| {
                    // The limit keeps lists from growing without end, and is not worth refusing what can be decided.
                    tracing::warn!(chat = %key, %error, "the chats of those who come into a chat are not counted");
                    Vec::new()
                });
                if let Some(job) = slot.jobs.front_mut() {
                    job.full = Some(full.into_iter().collect());
                }
                None
            }
            Fetched::Expired(expired) => {
                let expired = expired.unwrap_or_else(|error| {
                    // What was over when the chat was last looked at is known, and a message is worth more than what it answers.
                    tracing::warn!(chat = %key, %error, "whether the time of what is answered is over is not known");
                    0
                });
                if let Some(chat) = slot.chat_mut() {
                    chat.expired = chat.expired.max(expired);
                }
                if let Some(job) = slot.jobs.front_mut() {
                    job.knows_expired = true;
                }
                None
            }
            Fetched::Ties(Err(error))
            | Fetched::Chat(Err(error))
            | Fetched::Sends(Err(error))
            | Fetched::Message(Err(error))
            | Fetched::Reaction(Err(error)) => Some(error),
        };
        if let Some(error) = failed {
            tracing::warn!(chat = %key, %error, "a chat's requests are refused: the store did not answer");
            for job in slot.jobs.drain(..) {
                job.answer(retry_later("the store does not answer at the moment"));
            }
            return Ok(());
        }
        self.advance(key).await;
        Ok(())
    }
}
