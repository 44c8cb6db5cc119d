//! The store: what belongs to one user or one application (accounts, sessions), and what the writer drains from the
//! log (chats, members, messages, positions).
//!
//! A trait for each reader or writer, because no service needs them all: [`Accounts`] (REST, dispatcher), [`People`] (REST), [`Relations`]
//! (REST, owners, delivery), [`Attachments`] (uploads), [`Chats`] (REST, sessions), [`Numbered`] (REST), [`Listed`] (the storage API),
//! [`Owned`] (owners taking over and looking back), [`Search`] (REST, and beside the writer), [`Notifications`] (REST), [`Drain`], [`Expire`] and [`Notify`]
//! (the writer).
//! [`Store`] is an engine that has all of them.
//! Nothing here decides anything about a chat: the log does.

mod accounts;
mod attachments;
#[cfg(any(test, feature = "conformance"))]
#[doc(hidden)]
pub mod conformance;
mod erasing;
mod follow;
mod listed;
mod names;
mod notifications;
mod numbered;
mod people;
mod plan;
#[cfg(feature = "servers")]
pub mod postgres;
mod relations;
mod retention;
mod rows;
mod search;
pub mod sqlite;
mod title;
mod until;
mod words;

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use attachments::{Added, Attachment, Attachments};
pub use erasing::Erasing;
pub use follow::{follow, in_time};
pub use listed::Listed;
pub use notifications::{
    Attempt, Candidate, DELIVERIES_LISTED, EndpointAdded, Held, Leased, Looked, Notifications, Notify,
    PENDING_BROWSER, PENDING_WEBHOOK, Queued, Receivers, SUBSCRIPTIONS, Sending, WEBHOOKS, Waiting,
};
pub use numbered::{AppCounts, Numbered};
pub use people::{People, ProfileChange};
pub use relations::{Contact, Pair, Related, Relation, RelationChange, Relations, Ties};
pub use retention::{Due, Expire, Scope};
pub use search::{CHATS_SEARCHED, Findings, Hit, MESSAGES_FOUND, Search, SearchScope};
use title::title;
pub(crate) use until::until_answered;

use crate::{
    applications::{AppSettings, Retention},
    ids::{
        AppId, ChatId, ChatKey, ClientId, MessageId, Number, Offset, Partition, Seq, SessionId, UserId,
        UserKey,
    },
    model::{ChatKind, ChatView, ChatsPage, Head, MemberView, Message, Page, PageRequest, Role, UserView},
    term::TermState,
    time::Millis,
    wire::record::Change,
};

/// Why the store did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is busy past the time-out, or broke off: the same call may succeed later. A write may have been done.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// What it holds cannot be read by this program: an operator must look.
    #[error("the store holds what this program cannot read: {0}")]
    Corrupt(String),
}

/// What most calls answer.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Every part of an engine.
pub trait Store:
    Accounts
    + Attachments
    + People
    + Relations
    + Chats
    + Numbered
    + Listed
    + Reads
    + Seen
    + Erasing
    + Owned
    + Search
    + Drain
    + Expire
    + Notifications
    + Notify
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<T> Store for T where
    T: Accounts
        + Attachments
        + People
        + Relations
        + Chats
        + Numbered
        + Listed
        + Reads
        + Seen
        + Erasing
        + Owned
        + Search
        + Drain
        + Expire
        + Notifications
        + Notify
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// A store that is shared by everything in a process.
pub type SharedStore = Arc<dyn Store>;

/// A user's row.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The public id.
    pub id: UserId,
    /// The sign-in name, as given. Unique in its application without regard to case.
    pub username: String,
    /// The name to show.
    pub name: String,
    /// Their picture: an attachment's id, or an address on the web.
    pub avatar: Option<String>,
    /// Never shown to others.
    pub mobile_number: Option<String>,
    /// IANA name.
    pub timezone: Option<String>,
    /// When the user registered.
    pub created_at: Millis,
    /// Argon2id, in PHC form; empty, which no password has, of who comes with tokens of their application's own.
    pub password_hash: String,
}

impl User {
    /// One who signs in with no password.
    pub fn without_password(id: UserId, username: String, name: String, created_at: Millis) -> Self {
        Self {
            id,
            username,
            name,
            avatar: None,
            mobile_number: None,
            timezone: None,
            created_at,
            password_hash: String::new(),
        }
    }

    /// Whether they sign in with one.
    pub fn has_password(&self) -> bool {
        !self.password_hash.is_empty()
    }
}

impl fmt::Debug for User {
    /// Without what nobody else may see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A sign-in's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// The device's name, as given.
    pub device: Option<String>,
    /// Since when.
    pub created_at: Millis,
    /// Until when its token is good.
    pub expires_at: Millis,
}

/// A sign-in that was ended before its token expired, or all of a user's. Numbered, so that nodes poll for what is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its number, from 1. A row is seen only after every row with a lower number.
    pub no: u64,
    /// The application.
    pub app: AppId,
    /// Whose.
    pub user: UserId,
    /// Which; [`SessionId::every`]: all of them.
    pub session: SessionId,
    /// Until when it matters: the token's own expiry.
    pub expires_at: Millis,
}

/// An application's row.
#[derive(Clone, PartialEq)]
pub struct Application {
    /// Its id, also the issuer of its tokens.
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// The secret that signs the tokens of its users (HS256).
    pub token_secret: Vec<u8>,
    /// The name of that secret in a token's `kid`.
    pub token_kid: String,
    /// What it has chosen.
    pub settings: Arc<AppSettings>,
}

impl fmt::Debug for Application {
    /// Without its secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("token_kid", &self.token_kid)
            .finish_non_exhaustive()
    }
}

/// Users and their sign-ins.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Every application that was not erased, in order of their ids.
    async fn applications(&self) -> Result<Vec<Application>>;

    /// How often applications were made or changed: it grows with each time, and whoever has read it reads at least that change.
    async fn application_changes(&self) -> Result<u64>;

    /// Adds an application; `false` when there is one with its id.
    async fn add_application(&self, application: &Application) -> Result<bool>;

    /// Gives an application another name and other settings; its secret stays. `false` when there is no such one.
    async fn update_application(&self, app: AppId, name: &str, settings: &AppSettings) -> Result<bool>;

    /// A secret of the cluster, made from `fresh` when there is none of that name. Whoever asks first decides; all get the same.
    async fn cluster_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>>;

    /// Adds a user; `false` when the username is taken, or the id, be it by somebody who was erased.
    async fn add_user(&self, app: AppId, user: &User) -> Result<bool>;

    /// The user with this sign-in name.
    async fn user_by_username(&self, app: AppId, username: &str) -> Result<Option<User>>;

    /// The user with this id; none when they were erased.
    async fn user(&self, app: AppId, id: UserId) -> Result<Option<User>>;

    /// Those of `ids` that exist and were not erased, in no order. One query, up to 1,000 ids.
    async fn users(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserView>>;

    /// Adds a sign-in; `false` when its user was erased, be it at the same moment.
    async fn add_sign_in(&self, app: AppId, sign_in: &SignIn) -> Result<bool>;

    /// The user's sign-ins that are neither ended nor expired, newest first, at most 100.
    async fn sign_ins(&self, app: AppId, user: UserId, now: Millis) -> Result<Vec<SignIn>>;

    /// Ends a sign-in of `user` and numbers the revocation, in one transaction, with the browsers that came with it; `false` when there is no such one (any more).
    async fn end_sign_in(&self, app: AppId, user: UserId, session: SessionId) -> Result<bool>;

    /// Revocations after number `after` that still matter at `now`, in order, at most 1,000.
    async fn revocations(&self, after: u64, now: Millis) -> Result<Vec<Revocation>>;
}

/// A chat that a user is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The chat.
    pub chat: ChatId,
    /// How far it is, as stored.
    pub head: Head,
    /// How many are in it there.
    pub members: u64,
    /// The position of the writer after the batch that wrote the newest change: a session that was shown everything before that has seen
    /// it. Past every position when that is not known.
    pub head_upto: Offset,
    /// Messages up to here are past their time ([`Expire`]): what they said is not told any more.
    pub expired: Number,
    /// The change that let the user in.
    pub joined_seq: Seq,
    /// The position of the writer after the batch that wrote that one.
    pub joined_upto: Offset,
}

/// A chat that a user was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The chat.
    pub chat: ChatId,
    /// The position of the writer after the batch that took the user out, or the chat away.
    pub left_upto: Offset,
}

/// The departures of one user that are kept: who was away for longer than so many begins anew.
pub const DEPARTURES: usize = 256;

/// The chats of one user, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChats {
    /// Those the user is in.
    pub memberships: Vec<Membership>,
    /// Those the user has left, was removed from, or that were deleted, with the newest time of each. The user may be in one of them again.
    ///
    /// At most [`DEPARTURES`], those with the largest `left_upto` of all partitions: none that is kept no more has a larger one than any of
    /// these.
    pub departures: Vec<Departure>,
}

/// Where users stand at one instant: what sessions need at their start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How far each partition is drained that has a position: everything before it is in `users`.
    pub positions: Vec<(Partition, Position)>,
    /// By user; who is in no chat, and was in none, may be missing.
    pub users: HashMap<UserKey, UserChats>,
}

/// Which messages of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Below this number, newest first; `Number::MAX` starts at the end.
    Before(Number),
    /// Above this number, oldest first.
    After(Number),
}

/// Messages of a chat, as stored, and how far the store is with it. Read at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// In the order asked for, each at most once, no hole but at the ends. A deleted one has no body.
    pub messages: Vec<Message>,
    /// How far the store is: changes with a higher `seq` are not in `messages`.
    pub head: Head,
    /// Messages up to here are past their time ([`Expire`]), wherever `messages` are.
    pub expired: Number,
}

/// What clients read.
#[async_trait]
pub trait Chats: Send + Sync {
    /// Where these users (each once, at most 1,000) stand, and how far the writers are. Read at one instant.
    async fn standing(&self, users: &[UserKey]) -> Result<Standing>;

    /// A page of a user's chats, most recent activity first: the time of the newest message, or of the chat's making. The newest
    /// message shows its `client_id` to its sender only. Deleted chats are not listed.
    ///
    /// Unread is what came after the largest of the user's read mark and the newest message when they came in; own messages move the mark
    /// ([`Drain::apply`]). All of it is read at one instant.
    async fn chats_of(&self, app: AppId, user: UserId, page: PageRequest) -> Result<ChatsPage>;

    /// One chat as `user` sees it; none when the user is not in it or it was deleted.
    async fn chat_view(&self, chat: ChatKey, user: UserId) -> Result<Option<ChatView>>;

    /// A page of a chat's members in order of joining; none when `user` is not in it.
    async fn members(
        &self,
        chat: ChatKey,
        user: UserId,
        page: PageRequest,
    ) -> Result<Option<Page<MemberView>>>;

    /// Messages of a chat, at most `limit`; none when the store does not know the chat. Membership is the owner's to check: see
    /// [`Self::is_member`] for when there is none to ask. Each message has its `client_id`: whoever shows it to others than its sender
    /// takes it off.
    async fn history(&self, chat: ChatKey, range: Range, limit: u32) -> Result<Option<Slice>>;

    /// Whether the store shows `user` in the chat.
    async fn is_member(&self, chat: ChatKey, user: UserId) -> Result<bool>;

    /// The numbers of all messages that the store has of a chat, and their ids, in order of number, from `after` on, at most
    /// `limit`: for checks from outside.
    async fn message_ids(&self, chat: ChatKey, after: Number, limit: u32)
    -> Result<Vec<(Number, MessageId)>>;
}

/// How far a user has read a chat, as it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMark {
    /// The chat.
    pub chat: ChatKey,
    /// The user.
    pub user: UserId,
    /// The newest message that was read.
    pub number: Number,
    /// The newest message that the log is known to have; 0 when nobody was asked. The store may have it later.
    pub head: Number,
}

/// How far a user has read a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The newest message that is read: the largest of the mark and the newest message when the user came in.
    pub number: Number,
    /// Whether this call has moved it.
    pub moved: bool,
}

impl ReadMark {
    /// Where the mark stands when it stood at `at` and the stored head is `stored`.
    fn from(&self, at: Number, stored: Number) -> Marked {
        let number = self.number.min(self.head.max(stored));
        Marked { number: number.max(at), moved: number > at }
    }
}

/// Read marks: what nodes write on behalf of one user.
#[async_trait]
pub trait Reads: Send + Sync {
    /// Moves read marks forward, in one transaction; never back, whoever else moves them at the same time, and never past the chat's head:
    /// the larger of the stored one and the given one. Each user and chat at most once, at most 1,000. Answers in the order of `marks`; none
    /// where the store does not show the user in the chat. Doing it again changes nothing.
    async fn mark_read(&self, marks: &[ReadMark]) -> Result<Vec<Option<Marked>>>;
}

/// When users were connected last: written when somebody goes offline, and kept when the cache is not.
#[async_trait]
pub trait Seen: Send + Sync {
    /// Notes when users were connected last; an earlier time than the noted one changes nothing. Of who was erased, be it at the same moment,
    /// nothing is noted. At most 1,000, in one transaction.
    async fn note_seen(&self, seen: &[(UserKey, Millis)]) -> Result<()>;

    /// When these users (at most 1,000) were seen last, in no order; who was never noted is missing.
    async fn last_seen(&self, users: &[UserKey]) -> Result<Vec<(UserKey, Millis)>>;
}

/// A chat as its owner takes it up: all that deciding needs, read at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRow {
    /// The chat.
    pub key: ChatKey,
    /// Direct or group.
    pub kind: ChatKind,
    /// The group's name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// How long its messages are kept; none: as its application has it.
    pub retention: Option<Retention>,
    /// Who made it.
    pub created_by: UserId,
    /// How far it is, as stored.
    pub head: Head,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Its members in order of joining.
    pub members: Vec<MemberRow>,
    /// Of the request that made it, as its record has it; of a group it is [`group_fingerprint`].
    pub request: Option<Fingerprint>,
    /// How many records of its making the store has: the first, and each that brought more first members.
    pub makings: u64,
}

/// A member as the owner knows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// The user.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
    /// The change that let them in.
    pub joined_seq: Seq,
}

/// What names a send: the same three, the same message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SendKey {
    /// The chat.
    pub chat: ChatKey,
    /// The sender.
    pub from: UserId,
    /// The name its client gave it.
    pub client_id: ClientId,
}

/// An answer, and how far the store was with the log when it was read.
///
/// Positions only grow, unless the store was put back to what it was earlier (a backup). Whoever has seen a later position than the one of
/// an answer knows from it that what is missing may be in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf<T> {
    /// The position of each partition that has one: everything before it was there to be read.
    pub offsets: Arc<HashMap<Partition, Offset>>,
    /// What was read.
    pub answer: T,
}

impl<T> AsOf<T> {
    /// What was read together with these positions.
    pub fn new(positions: Vec<(Partition, Position)>, answer: T) -> Self {
        let offsets = positions.into_iter().map(|(partition, position)| (partition, position.offset));
        Self { offsets: Arc::new(offsets.collect()), answer }
    }

    /// How far a partition was drained.
    pub fn offset(&self, partition: Partition) -> Offset {
        self.offsets.get(&partition).copied().unwrap_or_default()
    }

    /// Another answer that was read at the same time.
    pub fn with<U>(&self, answer: U) -> AsOf<U> {
        AsOf { offsets: Arc::clone(&self.offsets), answer }
    }
}

/// What owners look up.
#[async_trait]
pub trait Owned: Send + Sync {
    /// Those of `chats` that the store knows, deleted ones included, in no order; each read at one instant. One query for many.
    async fn load(&self, chats: &[ChatKey]) -> Result<AsOf<Vec<ChatRow>>>;

    /// The messages that were sent under these names, of several under one name the first. Deleted ones are found too. One query for many. With each the
    /// fingerprint of what was sent ([`fingerprint`]), which an edit does not change.
    async fn find_sent(&self, keys: &[SendKey]) -> Result<AsOf<Vec<Found>>>;

    /// One message as it stands.
    async fn message(&self, chat: ChatKey, number: Number) -> Result<AsOf<Option<Message>>>;

    /// One message as it stands, and whether `user` answers it with `emoji`.
    async fn reaction(
        &self,
        chat: ChatKey,
        number: Number,
        user: UserId,
        emoji: &str,
    ) -> Result<AsOf<Option<(Message, bool)>>>;
}

/// A message found by its sender's name for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name.
    pub key: SendKey,
    /// Its id.
    pub id: MessageId,
    /// Its number.
    pub number: Number,
    /// The change that wrote it.
    pub seq: Seq,
    /// When it was accepted.
    pub at: Millis,
    /// Of what was sent.
    pub fingerprint: Fingerprint,
}

/// Tells two bodies under one client id apart without keeping them.
pub type Fingerprint = u64;

/// The fingerprint of what a client sent: body, kind, reply and attachments, by the stable hash of [`crate::partition`].
pub fn fingerprint(
    body: &str,
    kind: crate::model::MessageKind,
    reply_to: Option<Number>,
    attachments: &[String],
) -> Fingerprint {
    let reply_to = reply_to.unwrap_or(0).to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![body.as_bytes(), &[0xff], kind.word().as_bytes(), &reply_to];
    for attachment in attachments {
        parts.push(attachment.as_bytes());
        parts.push(&[0xff]);
    }
    crate::partition::stable_hash(&parts)
}

/// The fingerprint of a request that makes a group: its name, what it is for, who is in it besides its maker (in any order), and its first
/// message's text.
pub fn group_fingerprint(
    name: Option<&str>,
    description: Option<&str>,
    members: &[UserId],
    first: Option<&str>,
) -> Fingerprint {
    let mut members: Vec<&UserId> = members.iter().collect();
    members.sort_unstable();
    members.dedup();
    let texts = [name, description, first];
    // What is absent has a length that no text has; lengths keep two lists of texts with the same bytes apart.
    let lengths = texts.map(|text| text.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
    let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * texts.len() + members.len());
    for (length, text) in lengths.iter().zip(texts) {
        parts.push(length);
        parts.push(text.unwrap_or_default().as_bytes());
    }
    parts.extend(members.into_iter().map(|member| member.as_bytes().as_slice()));
    crate::partition::stable_hash(&parts)
}

/// How far the writer is with a partition: everything before `offset` is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The log that the offset belongs to.
    pub log: Uuid,
    /// The next offset to be read.
    pub offset: Offset,
    /// Where the rule stands there.
    pub state: TermState,
}

/// What one partition's records became: applied whole or not at all.
#[derive(Clone, Debug)]
pub struct PartitionBatch {
    /// The partition.
    pub partition: Partition,
    /// The position it starts from; another one in the store refuses it. None: the store must have none yet.
    pub expected: Option<Position>,
    /// The position it leads to.
    pub next: Position,
    /// Its valid changes in the order of the log.
    pub changes: Vec<Change>,
    /// Its bytes that are no record at all.
    pub dead: Vec<DeadLetter>,
}

/// Bytes in the log that are no record: kept for an operator to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where.
    pub offset: Offset,
    /// What.
    pub payload: Vec<u8>,
    /// Why it is none.
    pub reason: String,
}

/// Why a partition's batch was not applied. Nothing of it is in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another writer has moved the position: this one has lost the partition.
    #[error("the position in the store is {0:?}: another writer has the partition")]
    Moved(Option<Position>),
    /// A valid change does not follow what is stored: the partition stops until an operator has looked.
    #[error("change {seq} of chat {chat} does not follow what is stored: {why}")]
    Broken {
        /// Which chat.
        chat: ChatKey,
        /// Which change.
        seq: Seq,
        /// What does not fit.
        why: String,
    },
}

/// What the writer writes.
#[async_trait]
pub trait Drain: Send + Sync {
    /// The position of every partition that has one.
    async fn positions(&self) -> Result<Vec<(Partition, Position)>>;

    /// Applies the batches of several partitions in one transaction, each whole or not at all: rows, heads and the position
    /// (compare-and-set). `seq` and `number` of every change must follow the chat's head by one. Answers one outcome for each batch. An
    /// error means that what was done is unknown: the caller reads the positions again.
    ///
    /// What else must follow, or the batch is [`Refused::Broken`]: a chat is made once, before all else in it, and nothing comes after its
    /// deletion; who comes in is no member, and who leaves, inherits or is given a role is one; an edited message, and one that is reacted to, exists and is not deleted, and a deleted
    /// one exists (deleting it again changes nothing). A `client_id` that its sender uses again, without calling it a repeat, is no such
    /// case: no client may stop a partition. Both messages are kept, and the name means the first.
    ///
    /// What is about a message that is past its time ([`Expire`]) changes nothing. A deleted message keeps its number, its ids and its times; its text, attachments, reactions and mentions are gone. Chats are numbered in the order in
    /// which they are applied, without holes. Sending moves the sender's read mark.
    async fn apply(&self, batches: &[PartitionBatch]) -> Result<Vec<std::result::Result<(), Refused>>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_for_a_group_are_told_apart_by_whatever_differs_but_the_order_of_members() {
        let (ana, ben, cleo) =
            (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)), UserId(Uuid::from_u128(3)));
        let one = group_fingerprint(Some("ab"), Some("c"), &[ana, ben], Some("d"));
        assert_eq!(one, group_fingerprint(Some("ab"), Some("c"), &[ben, ana], Some("d")));
        // Kept in the log and in the store: the same in every version.
        assert_eq!(one, 4_240_549_260_800_953_680);
        let others = [
            group_fingerprint(Some("a"), Some("bc"), &[ana, ben], Some("d")),
            group_fingerprint(None, Some("c"), &[ana, ben], Some("d")),
            group_fingerprint(Some("ab"), Some(""), &[ana, ben], Some("d")),
            group_fingerprint(Some("ab"), None, &[ana, ben], Some("d")),
            group_fingerprint(Some("ab"), Some("c"), &[ana, cleo], Some("d")),
            group_fingerprint(Some("ab"), Some("c"), &[ana], Some("d")),
            group_fingerprint(Some("ab"), Some("c"), &[ana, ben, cleo], Some("d")),
            group_fingerprint(Some("ab"), Some("c"), &[ana, ben], None),
            group_fingerprint(Some("ab"), Some("c"), &[ana, ben], Some("e")),
        ];
        assert!(!others.contains(&one));
    }
}
