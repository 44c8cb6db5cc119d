//! The words of the domain, as clients see them: messages, chats, members, users, pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    applications::Retention,
    ids::{ChatId, ClientId, MessageId, NodeId, Number, SessionId, UserId},
    time::Millis,
};

/// Bounds on what may be stored. A request past one of them is refused before anything is appended.
pub mod limits {
    /// Bytes of a message's body (UTF-8).
    pub const BODY_BYTES: usize = 16 * 1024;
    /// Members of a chat.
    pub const MEMBERS: usize = 50_000;
    /// Contacts of a user.
    pub const CONTACTS: u64 = 10_000;
    /// Chats that one user may be in, unless the operator or the application has chosen otherwise: lists of chats are read whole.
    pub const CHATS: u32 = 10_000;
    /// Users whom a user has blocked at once.
    pub const BLOCKS: u64 = 10_000;
    /// Members in one record: a longer list is several records.
    pub const MEMBERS_PER_RECORD: usize = 1_000;
    /// Characters of a chat's or a person's name.
    pub const NAME_CHARS: usize = 200;
    /// Characters of what finds people by name.
    pub const QUERY_CHARS: usize = 200;
    /// Characters of what finds messages by their words.
    pub const SEARCH_CHARS: usize = 100;
    /// Characters of a picture's id or address.
    pub const AVATAR_CHARS: usize = 512;
    /// Characters of a chat's description.
    pub const DESCRIPTION_CHARS: usize = 2_000;
    /// Attachments of one message.
    pub const ATTACHMENTS: usize = 10;
    /// Characters of one attachment's id or address.
    pub const ATTACHMENT_CHARS: usize = 512;
    /// Different emoji that one message is answered with at once.
    pub const REACTIONS: usize = 20;
    /// Bytes of one emoji (UTF-8): those of several code points have up to 41.
    pub const EMOJI_BYTES: usize = 64;
    /// Users whom a message shows under each of its emoji.
    pub const REACTION_USERS: usize = 20;
    /// Users whom one message mentions by name.
    pub const MENTIONS: usize = 50;
    /// Most results on a page, and most messages in one history answer.
    pub const PER_PAGE: u32 = 100;
    /// Members that a chat's own view lists; the rest are paged.
    pub const MEMBERS_SHOWN: usize = 100;
}

/// Whether the store can hold `text`: Postgres has no U+0000.
pub fn storable(text: &str) -> bool {
    !text.contains('\0')
}

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Plain text.
    #[default]
    Text,
    /// A picture.
    Image,
    /// A photograph.
    Photo,
    /// A moving picture.
    Video,
    /// Sound.
    Audio,
    /// Any other file.
    File,
}

impl MessageKind {
    /// Every kind, with its word.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Text, "text"),
        (Self::Image, "image"),
        (Self::Photo, "photo"),
        (Self::Video, "video"),
        (Self::Audio, "audio"),
        (Self::File, "file"),
    ];

    /// Its word in frames and rows.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("text", |(_, word)| word)
    }

    /// The kind with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind)
    }
}

/// What members answered a message with: one emoji.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reaction {
    /// Which.
    pub emoji: String,
    /// How many members.
    pub count: u64,
    /// Some of them, in the order in which they did: at most [`limits::REACTION_USERS`].
    pub users: Vec<UserId>,
}

/// A message as it stands: what history answers and what events carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Its name anywhere.
    pub id: MessageId,
    /// Its chat.
    pub chat: ChatId,
    /// Its chat once more, under the name that older clients know.
    pub room_id: ChatId,
    /// Its place in the chat, from 1, without holes.
    pub number: Number,
    /// Who wrote it.
    pub from: UserId,
    /// The text; empty once deleted.
    pub body: String,
    /// What it is.
    pub kind: MessageKind,
    /// When its chat's owner accepted it.
    pub created_at: Millis,
    /// When it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<Millis>,
    /// Whether it was deleted: it keeps its number and its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Whether its time was over (ME-9): it is `deleted` as well, and says nothing any more here; whoever has it may keep it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
    /// The number of the message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Number>,
    /// Ids of its attachments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<String>,
    /// What it was answered with (ME-8), in the order in which the emoji came; none once deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
    /// Members whom it mentions (ME-8); none once deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// Whether it mentions everybody in the chat (`@all`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mention_all: bool,
    /// The name its sender's client gave it; shown to nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
}

/// Two people, or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    /// Two users; there is one such chat for each pair.
    Direct,
    /// Any number of users, with a name or without.
    Group,
}

/// What a member may do in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and writes.
    #[default]
    Member,
    /// Also manages members and messages.
    Admin,
    /// Also names admins and deletes the group. A group has one owner.
    Owner,
}

/// A member as chats list them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberView {
    /// The user.
    pub id: UserId,
    /// The user's name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Since when they are in.
    pub joined_at: Millis,
}

/// A chat as one of its members sees it (CH-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChatView {
    /// Its id.
    pub id: ChatId,
    /// Its number in the application, from 1.
    pub number: u64,
    /// Direct or group.
    pub kind: ChatKind,
    /// The group's name; of a direct chat, and of an unnamed group, the names of the others.
    pub name: String,
    /// What the group is for.
    pub description: Option<String>,
    /// How long its messages are kept (ME-9), when it has chosen that; else it is as its application has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The first members (at most [`limits::MEMBERS_SHOWN`]), in order of joining.
    pub members: Vec<MemberView>,
    /// How many members there are.
    pub members_count: u64,
    /// How many messages there are, deleted ones included.
    pub messages_count: u64,
    /// When it was made.
    pub created_at: Millis,
    /// By whom.
    pub created_by: UserId,
    /// The newest message.
    pub last_message: Option<Message>,
    /// Messages after the caller's read mark.
    pub unread_count: u64,
    /// How many of those mention the caller, by name or as one of all (ME-8).
    #[serde(default)]
    pub mentions_count: u64,
    /// The `seq` of the newest change this view includes.
    pub seq: u64,
    /// The caller's read mark: nothing up to here counts as unread. For who makes the view; not shown.
    #[serde(skip)]
    pub mark: Number,
}

/// How far a chat is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Head {
    /// The number of its newest message.
    pub number: Number,
    /// The `seq` of its newest change.
    pub seq: u64,
}

/// A user as others see them (ID-7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserView {
    /// The public id.
    pub id: UserId,
    /// The name to show.
    pub name: String,
    /// Their picture: an attachment's id, or an address on the web.
    pub avatar: Option<String>,
}

/// Whether somebody is connected (PR-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceStatus {
    /// A session of theirs lives, or ended so recently that they may come back at once.
    Online,
    /// None does.
    Offline,
    /// It cannot be told at the moment.
    Unknown,
}

/// Whether somebody is connected, and when they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PresenceView {
    /// Whether they are.
    pub status: PresenceStatus,
    /// When their last session ended; none while one lives, and of who was never connected.
    pub last_seen: Option<Millis>,
}

/// The presence of one of several users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserPresence {
    /// Who.
    pub user: UserId,
    /// Whether they are connected.
    pub status: PresenceStatus,
    /// When their last session ended; none while one lives, and of who was never connected.
    pub last_seen: Option<Millis>,
}

impl UserPresence {
    /// A user's.
    pub fn new(user: UserId, presence: PresenceView) -> Self {
        let PresenceView { status, last_seen } = presence;
        Self { user, status, last_seen }
    }
}

/// A user's public profile (ID-7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileView {
    /// Who.
    #[serde(flatten)]
    pub user: UserView,
    /// Whether they are connected.
    pub presence: PresenceView,
}

/// Somebody among the caller's contacts (ID-8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContactView {
    /// Who.
    #[serde(flatten)]
    pub user: UserView,
    /// Whether they are connected.
    pub presence: PresenceView,
    /// When the newest message of the direct chat with them was sent; none when there is none.
    pub last_message_at: Option<Millis>,
}

/// A user as they see themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnUserView {
    /// The public id.
    pub id: UserId,
    /// The sign-in name; never shown to others.
    pub username: String,
    /// The name to show.
    pub name: String,
    /// Their picture: an attachment's id, or an address on the web.
    pub avatar: Option<String>,
    /// Never shown to others.
    pub mobile_number: Option<String>,
    /// IANA name of the time zone, as given.
    pub timezone: Option<String>,
    /// When the user registered.
    pub created_at: Millis,
}

/// One sign-in of the caller (ID-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// The device's name, as its client gave it.
    pub device: Option<String>,
    /// The node that holds its newest open socket.
    pub node: Option<NodeId>,
    /// The nodes that hold open sockets of it.
    pub nodes: Vec<NodeId>,
    /// Since when it is signed in.
    pub since: Millis,
    /// Until when its token is good.
    pub expires_at: Millis,
    /// Whether the request came with this one's token.
    pub current: bool,
}

/// A page of results: `current` from 1, `total` pages in all. Past the end `results` is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// Which page this is.
    pub current: u32,
    /// How many there are.
    pub total: u32,
    /// What is on it.
    pub results: Vec<T>,
}

/// A page of a user's chats (CH-1, PR-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChatsPage {
    /// Which page this is.
    pub current: u32,
    /// How many there are.
    pub total: u32,
    /// What is on it.
    pub results: Vec<ChatView>,
    /// Unread messages in all chats of the user, on this page or not.
    #[serde(default)]
    pub unread_count: u64,
}

/// A page that was asked for, checked: both at least 1, `per_page` at most [`limits::PER_PAGE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Which page, from 1.
    pub page: u32,
    /// How many results on it.
    pub per_page: u32,
}

impl PageRequest {
    /// How many results come before this page.
    pub fn skip(self) -> u64 {
        u64::from(self.page.saturating_sub(1)) * u64::from(self.per_page)
    }

    /// Those of all results that are on the page.
    pub fn part_of<I: IntoIterator>(self, all: I) -> impl Iterator<Item = I::Item> {
        let skip = usize::try_from(self.skip()).unwrap_or(usize::MAX);
        all.into_iter().skip(skip).take(self.per_page as usize)
    }

    /// The page, when all results are at hand.
    pub fn page_of<T>(self, all: Vec<T>) -> Page<T> {
        self.answer(all.len() as u64, self.part_of(all).collect())
    }

    /// The page, of `count` results in all, that holds `results`.
    pub fn answer<T>(self, count: u64, results: Vec<T>) -> Page<T> {
        let total = count.div_ceil(u64::from(self.per_page.max(1)));
        Page { current: self.page, total: u32::try_from(total).unwrap_or(u32::MAX), results }
    }
}
