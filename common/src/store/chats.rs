//! Chats as those who are in them read them: where users stand, their lists of chats, members, and what was said.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{Position, Result};
use crate::{
    ids::{AppId, ChatId, ChatKey, MessageId, Number, Offset, Partition, Seq, UserId, UserKey},
    model::{ChatView, ChatsPage, Head, MemberView, Message, Page, PageRequest},
};

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
    /// Messages up to here are past their time ([`Expire`](super::Expire)): what they said is not told any more.
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
    /// Messages up to here are past their time ([`Expire`](super::Expire)), wherever `messages` are.
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
    /// ([`Drain::apply`](super::Drain::apply)). All of it is read at one instant.
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
