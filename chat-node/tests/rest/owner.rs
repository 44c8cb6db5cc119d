//! An owner on paper: one list of changes, which reach the store when a test says so.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

use chat_node::ask::AskOwner;
use common::{
    ids::{ChatId, ChatKey, ClientId, MessageId, UserId},
    model::{ChatKind, Head, Message, Reaction, Role, limits},
    store::{PartitionBatch, Position, SharedStore, fingerprint, group_fingerprint},
    term::TermState,
    time::Millis,
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, Draft, OwnerRequest, Refusal, Sent},
        record::{Change, Record, What},
    },
};
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use uuid::Uuid;

/// What an owner does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Unknown,
    RetryLater,
    Hangs,
    Panics,
    /// Groups are made by their first record, and there it stops.
    BreaksOff,
}

pub(crate) struct PaperOwner {
    store: SharedStore,
    book: Mutex<Book>,
    drains: AtomicBool,
    mood: parking_lot::Mutex<Mood>,
    /// Whether the last request was flagged as a retry, by its node or by its first draft.
    pub(crate) last_was_retry: AtomicBool,
}

impl std::fmt::Debug for PaperOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PaperOwner")
    }
}

#[derive(Default)]
struct Book {
    chats: HashMap<ChatId, Chat>,
    requests: HashMap<ChatId, u64>,
    /// Of groups whose making broke off: who is to come in yet.
    left: HashMap<ChatId, Vec<(UserId, Role)>>,
    undrained: Vec<Change>,
    position: Option<Position>,
    n: u64,
}

#[derive(Default)]
struct Chat {
    members: BTreeMap<UserId, Role>,
    head: Head,
    messages: Vec<Message>,
    sent: HashMap<(UserId, ClientId), (u64, Sent)>,
    deleted: bool,
}

impl PaperOwner {
    pub(crate) fn new(store: SharedStore) -> Self {
        Self {
            store,
            book: Mutex::default(),
            drains: AtomicBool::new(true),
            mood: parking_lot::Mutex::new(Mood::Well),
            last_was_retry: AtomicBool::new(false),
        }
    }

    pub(crate) fn feel(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    /// From now on messages stay out of the store until a change of membership, or until this is called with `true`.
    pub(crate) async fn drain(&self, on: bool) {
        self.drains.store(on, Ordering::SeqCst);
        if on {
            self.flush(&mut *self.book.lock().await).await;
        }
    }

    async fn flush(&self, book: &mut Book) {
        if book.undrained.is_empty() {
            return;
        }
        let next = Position {
            log: Uuid::from_u128(1),
            offset: book.n + 1,
            state: TermState { term: Some(0), n: book.n },
        };
        let changes = std::mem::take(&mut book.undrained);
        let batch = PartitionBatch { partition: 0, expected: book.position, next, changes, dead: Vec::new() };
        for outcome in self.store.apply(&[batch]).await.unwrap() {
            outcome.unwrap();
        }
        book.position = Some(next);
    }

    async fn decide(&self, request: OwnerRequest, breaks_off: bool) -> Answer {
        let mut book = self.book.lock().await;
        let book = &mut *book;
        let retry = match &request.ask {
            Ask::Send(drafts) => drafts.iter().any(|draft| draft.retry),
            _ => request.retry,
        };
        if !request.ask.reads() {
            self.last_was_retry.store(retry, Ordering::SeqCst);
        }
        let by = request.by;
        let present = book.chats.get(&request.chat).filter(|chat| !chat.deleted);
        let making = matches!(request.ask, Ask::OpenDirect { .. } | Ask::CreateGroup { .. });
        let itself = by == UserId::APPLICATION;
        if !making && !present.is_some_and(|chat| itself || chat.members.contains_key(&by)) {
            return Answer::Refused(Refusal::new(ErrorCode::NotFound, "there is no such chat"));
        }
        let role = present.and_then(|chat| chat.members.get(&by)).copied();
        if !itself
            && role != Some(Role::Owner)
            && matches!(request.ask, Ask::AddMember { .. } | Ask::Update { .. } | Ask::DeleteChat)
        {
            return Answer::Refused(Refusal::new(ErrorCode::Forbidden, "only its owner may"));
        }
        let key = request.key();
        let answer = match request.ask {
            Ask::Send(drafts) => {
                Answer::Sent(drafts.into_iter().map(|draft| book.send(key, by, draft)).collect())
            }
            Ask::Edit { number, body } => match book.own_message(key.chat, by, number) {
                Ok(message) if body.is_empty() && message.attachments.is_empty() => {
                    Answer::Refused(Refusal::new(ErrorCode::Invalid, "body: must not be empty"))
                }
                Ok(message) => {
                    let message = Message { body, edited_at: Some(Millis::now()), ..message };
                    book.change(key, by, What::Edited { message: Box::new(message) })
                }
                Err(refusal) => Answer::Refused(refusal),
            },
            Ask::Erase { number } => match book.own_message(key.chat, by, number) {
                Ok(_) => book.change(key, by, What::Erased { number }),
                Err(refusal) => Answer::Refused(refusal),
            },
            Ask::React { number, emoji, on } => {
                let message = book.chats[&key.chat].messages.get(number as usize - 1);
                match message.filter(|message| !message.deleted) {
                    Some(_) => {
                        let reactions = vec![Reaction { emoji: emoji.clone(), count: 1, users: vec![by] }];
                        let reactions = if on { reactions } else { Vec::new() };
                        book.change(key, by, What::Reacted { number, emoji, on, reactions })
                    }
                    None => Answer::Refused(Refusal::new(ErrorCode::NotFound, "there is no such message")),
                }
            }
            Ask::OpenDirect { peer, .. } => {
                let members = vec![(by, Role::Member), (peer, Role::Member)];
                book.make(key, by, (None, None), members, None)
            }
            Ask::CreateGroup { name, description, members, first } => {
                let text = first.as_ref().map(|first| first.body.as_str());
                let print = group_fingerprint(name.as_deref(), description.as_deref(), &members, text);
                match book.requests.get(&key.chat) {
                    Some(made_by) if *made_by == print => {
                        if breaks_off {
                            return Answer::Unknown;
                        }
                        if let Some(members) = book.left.remove(&key.chat) {
                            book.change(key, by, What::Members { members });
                            self.flush(book).await;
                            return Answer::Created { made: true, seq: book.chats[&key.chat].head.seq };
                        }
                        return Answer::Created { made: false, seq: book.chats[&key.chat].head.seq };
                    }
                    Some(_) => {
                        return Answer::Refused(Refusal::new(ErrorCode::IdConflict, "another group"));
                    }
                    None => drop(book.requests.insert(key.chat, print)),
                }
                let makers = [by].into_iter().filter(|_| !itself);
                let role = |(at, user)| (user, if at == 0 { Role::Owner } else { Role::Member });
                let mut members: Vec<_> = makers.chain(members).enumerate().map(role).collect();
                if breaks_off {
                    book.left.insert(key.chat, members.split_off(limits::MEMBERS_PER_RECORD));
                }
                let mut answer = book.make(key, by, (name, description), members, Some(print));
                if breaks_off {
                    answer = Answer::Unknown;
                }
                if let Some(first) = first {
                    book.send(key, by, first).unwrap();
                }
                answer
            }
            Ask::AddMember { user } if book.chats[&key.chat].members.contains_key(&user) => {
                Answer::Done { seq: book.chats[&key.chat].head.seq }
            }
            Ask::AddMember { user } => book.change(key, by, What::Joined { user, role: Role::Member }),
            Ask::SetRole { user, role } if book.chats[&key.chat].members.contains_key(&user) => {
                book.change(key, by, What::Roles { roles: vec![(user, role)] })
            }
            Ask::SetRole { user, role } => book.change(key, by, What::Joined { user, role }),
            Ask::RemoveMember { user } => book.change(key, by, What::Left { user, heir: None }),
            Ask::Update { name, description, retention } => {
                book.change(key, by, What::Updated { name, description, retention })
            }
            Ask::DeleteChat => book.change(key, by, What::Deleted),
            Ask::Recent => {
                let of_chat = book.undrained.iter().filter(|change| change.chat == key.chat);
                let changes = of_chat.map(|change| Record::Change(change.clone()).encode()).collect();
                Answer::Recent { head: book.chats[&key.chat].head, changes }
            }
            Ask::Changes { .. } | Ask::Since { .. } => {
                unreachable!("REST does not ask this")
            }
        };
        if self.drains.load(Ordering::SeqCst) || book.undrained.iter().any(Change::of_membership) {
            self.flush(book).await;
        }
        answer
    }
}

impl Book {
    fn make(
        &mut self,
        key: ChatKey,
        by: UserId,
        (name, description): (Option<String>, Option<String>),
        members: Vec<(UserId, Role)>,
        request: Option<u64>,
    ) -> Answer {
        if let Some(chat) = self.chats.get(&key.chat) {
            return Answer::Created { made: false, seq: chat.head.seq };
        }
        self.chats.insert(key.chat, Chat { members: members.iter().copied().collect(), ..Chat::default() });
        let kind = if request.is_some() { ChatKind::Group } else { ChatKind::Direct };
        self.change(key, by, What::Created { kind, name, description, members, request });
        Answer::Created { made: true, seq: 1 }
    }

    fn send(&mut self, key: ChatKey, by: UserId, draft: Draft) -> Result<Sent, Refusal> {
        let Draft { client_id, body, kind, reply_to, attachments, mentions, mention_all, .. } = draft;
        let print = fingerprint(&body, kind, reply_to, &attachments);
        let chat = self.chats.get_mut(&key.chat).unwrap();
        let name = client_id.clone().map(|client_id| (by, client_id));
        if let Some((known, sent)) = name.as_ref().and_then(|name| chat.sent.get(name)) {
            return if *known == print {
                Ok(Sent { repeat: true, ..sent.clone() })
            } else {
                Err(Refusal::new(ErrorCode::IdConflict, "another body under the same client_id"))
            };
        }
        let (id, number) = (MessageId::random(), chat.head.number + 1);
        if reply_to.is_some_and(|answered| answered >= number) {
            return Err(Refusal::new(ErrorCode::Invalid, "reply_to: there is no such message"));
        }
        let what = What::Sent {
            id,
            number,
            client_id,
            body,
            kind,
            reply_to,
            attachments,
            mentions,
            mention_all,
            sent_as: None,
        };
        self.change(key, by, what);
        let chat = self.chats.get_mut(&key.chat).unwrap();
        let at = chat.messages.last().unwrap().created_at;
        let sent = Sent { id, number, seq: chat.head.seq, at, repeat: false, masked: None, mentions: None };
        if let Some(name) = name {
            chat.sent.insert(name, (print, sent.clone()));
        }
        Ok(sent)
    }

    fn own_message(&self, chat: ChatId, by: UserId, number: u64) -> Result<Message, Refusal> {
        let message = self.chats[&chat].messages.iter().find(|message| message.number == number);
        match message {
            Some(message) if message.deleted => Err(Refusal::new(ErrorCode::NotFound, "it was deleted")),
            Some(message) if message.from != by => Err(Refusal::new(ErrorCode::Forbidden, "it is not yours")),
            Some(message) => Ok(message.clone()),
            None => Err(Refusal::new(ErrorCode::NotFound, "there is no such message")),
        }
    }

    fn change(&mut self, key: ChatKey, by: UserId, what: What) -> Answer {
        self.n += 1;
        let chat = self.chats.get_mut(&key.chat).unwrap();
        chat.head.seq += 1;
        let (n, seq) = (self.n, chat.head.seq);
        let change = Change { app: key.app, chat: key.chat, term: 0, n, seq, at: Millis::now(), by, what };
        match &change.what {
            What::Joined { user, role } => drop(chat.members.insert(*user, *role)),
            What::Members { members } => chat.members.extend(members.iter().copied()),
            What::Left { user, .. } => drop(chat.members.remove(user)),
            What::Roles { roles } => chat.members.extend(roles.iter().copied()),
            What::Deleted => chat.deleted = true,
            What::Sent { number, .. } => {
                chat.head.number = *number;
                chat.messages.extend(change.message());
            }
            What::Edited { message } => chat.messages[message.number as usize - 1] = (**message).clone(),
            What::Reacted { number, reactions, .. } => {
                chat.messages[*number as usize - 1].reactions.clone_from(reactions);
            }
            What::Erased { number } => chat.messages[*number as usize - 1].deleted = true,
            _ => {}
        }
        self.undrained.push(change);
        Answer::Done { seq }
    }
}

impl AskOwner for PaperOwner {
    fn ask(&self, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let mood = *self.mood.lock();
            match mood {
                Mood::Well | Mood::BreaksOff => self.decide(request, mood == Mood::BreaksOff).await,
                Mood::Unknown => Answer::Unknown,
                Mood::RetryLater => Answer::Refused(Refusal::new(ErrorCode::RetryLater, "not now")),
                Mood::Hangs => std::future::pending().await,
                Mood::Panics => panic!("an owner that panics"),
            }
        })
    }
}
