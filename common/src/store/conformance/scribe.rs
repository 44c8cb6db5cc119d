//! Writes records as an owner would, and applies them as the writer would.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{
    ids::{AppId, ChatId, ChatKey, ClientId, MessageId, Number, Partition, Seq, UserId, UserKey},
    model::{ChatKind, Head, Message, MessageKind, Role},
    store::{Membership, PartitionBatch, Position, Refused, SharedStore, User, UserChats},
    term::TermState,
    time::Millis,
    wire::record::{Change, What},
};

/// Keeps the heads of its chats and the positions of its partitions.
#[derive(Debug)]
pub struct Scribe {
    pub store: SharedStore,
    pub app: AppId,
    pub log: Uuid,
    /// Advances by one with each change.
    pub now: i64,
    heads: HashMap<ChatKey, Head>,
    positions: HashMap<Partition, Position>,
}

impl Scribe {
    pub fn new(store: SharedStore) -> Self {
        let (heads, positions) = (HashMap::new(), HashMap::new());
        Self { store, app: AppId::DEFAULT, log: Uuid::from_u128(7), now: 1_000, heads, positions }
    }

    pub fn key(&self, chat: ChatId) -> ChatKey {
        ChatKey { app: self.app, chat }
    }

    /// A user with this name.
    pub async fn user(&self, name: &str) -> UserId {
        let user = person(name);
        assert!(self.store.add_user(self.app, &user).await.unwrap());
        user.id
    }

    /// Where somebody stands.
    pub async fn standing(&self, user: UserId) -> UserChats {
        let key = UserKey { app: self.app, user };
        self.store.standing(&[key]).await.unwrap().users.remove(&key).unwrap_or_default()
    }

    /// The chats that somebody is in.
    pub async fn memberships(&self, user: UserId) -> Vec<Membership> {
        self.standing(user).await.memberships
    }

    /// The chat's next change.
    pub fn change(&mut self, chat: ChatId, by: UserId, what: What) -> Change {
        self.now += 1;
        let head = self.heads.entry(ChatKey { app: self.app, chat }).or_default();
        head.seq += 1;
        if let What::Sent { number, .. } = &what {
            head.number = *number;
        }
        Change { app: self.app, chat, term: 0, n: 1, seq: head.seq, at: Millis(self.now), by, what }
    }

    /// The chat's next message.
    pub fn message(&mut self, chat: ChatId, by: UserId, body: &str) -> Change {
        self.named(chat, by, body, None)
    }

    /// The same under a client's name for it.
    pub fn named(&mut self, chat: ChatId, by: UserId, body: &str, client_id: Option<&str>) -> Change {
        let number = self.head(chat).number + 1;
        self.change(chat, by, sent(number, body, client_id))
    }

    pub fn head(&self, chat: ChatId) -> Head {
        self.heads.get(&self.key(chat)).copied().unwrap_or_default()
    }

    /// Forgets changes that were not applied.
    pub fn back_to(&mut self, chat: ChatId, head: Head) {
        self.heads.insert(self.key(chat), head);
    }

    /// A batch of the partition from where this one is, `n` records long.
    pub fn batch(&self, partition: Partition, changes: Vec<Change>) -> PartitionBatch {
        let expected = self.positions.get(&partition).copied();
        let from = expected.map_or(0, |position| position.offset);
        let offset = from + changes.len().max(1) as u64;
        let state = TermState { term: Some(0), n: offset };
        let next = Position { log: self.log, offset, state };
        PartitionBatch { partition, expected, next, changes, dead: Vec::new() }
    }

    /// Takes the batch for applied.
    pub fn applied(&mut self, batch: &PartitionBatch) {
        self.positions.insert(batch.partition, batch.next);
    }

    /// Applies the changes to partition 0.
    pub async fn write(&mut self, changes: Vec<Change>) {
        assert_eq!(self.attempt(0, changes).await, Ok(()));
    }

    /// Applies the changes to a partition, and tells what came of it.
    pub async fn attempt(&mut self, partition: Partition, changes: Vec<Change>) -> Result<(), Refused> {
        let batch = self.batch(partition, changes);
        let mut outcomes = self.store.apply(std::slice::from_ref(&batch)).await.unwrap();
        assert_eq!(outcomes.len(), 1);
        let outcome = outcomes.remove(0);
        if outcome.is_ok() {
            self.applied(&batch);
        }
        outcome
    }

    /// Makes a group of these in another partition.
    pub async fn group_in(&mut self, partition: Partition, members: &[UserId]) -> ChatId {
        let chat = ChatId::random();
        let change = self.change(chat, members[0], group(None, members));
        assert_eq!(self.attempt(partition, vec![change]).await, Ok(()));
        chat
    }

    /// Makes a group of these, the first of them its owner.
    pub async fn group(&mut self, name: Option<&str>, members: &[UserId]) -> ChatId {
        let chat = ChatId::random();
        let change = self.change(chat, members[0], group(name, members));
        self.write(vec![change]).await;
        chat
    }

    /// The change that makes a group of two.
    pub fn chat(&mut self, one: UserId, other: UserId) -> (ChatId, Change) {
        let chat = ChatId::random();
        (chat, self.change(chat, one, group(None, &[one, other])))
    }

    pub async fn direct(&mut self, one: UserId, other: UserId) -> ChatId {
        let chat = ChatId::direct(self.app, one, other);
        let members = vec![(one, Role::Member), (other, Role::Member)];
        let what =
            What::Created { kind: ChatKind::Direct, name: None, description: None, members, request: None };
        let change = self.change(chat, one, what);
        self.write(vec![change]).await;
        chat
    }

    /// Writes a message to the chat.
    pub async fn say(&mut self, chat: ChatId, by: UserId, body: &str) -> Number {
        let change = self.message(chat, by, body);
        self.write(vec![change]).await;
        self.head(chat).number
    }

    /// Does something else in the chat.
    pub async fn does(&mut self, chat: ChatId, by: UserId, what: What) -> Seq {
        let change = self.change(chat, by, what);
        self.write(vec![change]).await;
        self.head(chat).seq
    }
}

pub(super) fn person(name: &str) -> User {
    User {
        id: UserId::random(),
        username: format!("{}-{}", name.to_lowercase(), Uuid::new_v4().as_simple()),
        name: name.to_owned(),
        avatar: None,
        mobile_number: Some("+49 1".to_owned()),
        timezone: Some("Europe/Berlin".to_owned()),
        created_at: Millis(5),
        password_hash: "$argon2id$secret".to_owned(),
    }
}

pub(super) fn group(name: Option<&str>, members: &[UserId]) -> What {
    let role = |place: usize| if place == 0 { Role::Owner } else { Role::Member };
    let members = members.iter().enumerate().map(|(place, user)| (*user, role(place))).collect();
    What::Created {
        kind: ChatKind::Group,
        name: name.map(str::to_owned),
        description: None,
        members,
        request: None,
    }
}

pub(super) fn sent(number: Number, body: &str, client_id: Option<&str>) -> What {
    What::Sent {
        id: MessageId::random(),
        number,
        client_id: client_id.map(|name| ClientId::new(name).unwrap()),
        body: body.to_owned(),
        kind: MessageKind::Text,
        reply_to: None,
        attachments: Vec::new(),
        mentions: Vec::new(),
        mention_all: false,
        sent_as: None,
    }
}

pub(super) fn edited(message: &Message, body: &str, at: i64) -> What {
    let message = Message { body: body.to_owned(), edited_at: Some(Millis(at)), ..message.clone() };
    What::Edited { message: Box::new(message) }
}
