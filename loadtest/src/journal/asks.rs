//! What a device asks beside sends, and how it is answered.

use common::{
    ids::{ChatId, Number, Seq, UserId},
    model::Head,
    wire::codes::ErrorCode,
};
use serde::{Deserialize, Serialize};

use super::{Kept, Print};

/// What is asked beside sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The direct chat with somebody.
    Direct {
        /// Whom.
        with: UserId,
    },
    /// A new group.
    Group {
        /// Who is in it beside the asker.
        members: Vec<UserId>,
    },
    /// Let somebody into a group.
    Add {
        /// Which.
        chat: ChatId,
        /// Whom.
        user: UserId,
    },
    /// Take somebody out of a group.
    Remove {
        /// Which.
        chat: ChatId,
        /// Whom.
        user: UserId,
    },
    /// Change a message.
    Edit {
        /// Where it stands.
        chat: ChatId,
        /// Which.
        number: Number,
        /// What it is to say.
        body: Print,
    },
    /// Delete a message.
    Delete {
        /// Where it stands.
        chat: ChatId,
        /// Which.
        number: Number,
    },
    /// Answer a message with an emoji, or take that back.
    React {
        /// Where it stands.
        chat: ChatId,
        /// Which.
        number: Number,
        /// What with.
        emoji: String,
        /// Whether it is to stand.
        on: bool,
    },
    /// Say that messages were read.
    Read {
        /// Where.
        chat: ChatId,
        /// The newest of them.
        number: Number,
    },
    /// A page of a chat's history, on the way; the final read has files of its own.
    History {
        /// Of which chat.
        chat: ChatId,
        /// Below this number, newest first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Number>,
        /// Above this number, oldest first. Neither: the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Number>,
        /// How many at most.
        limit: u32,
    },
    /// What came after a seq: the events follow, and a `resumed`.
    Changes {
        /// In which chat.
        chat: ChatId,
        /// The seq.
        after: Seq,
    },
    /// The asker's chats with what is unread in them.
    Chats,
    /// End the sign-in that this device has.
    SignOut,
}

/// How an [`Ask`] was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done {
        /// Of a chat that was opened or made: its id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chat: Option<ChatId>,
        /// Of an edit or delete: its place in the chat.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<Seq>,
    },
    /// It was surely not done.
    Refused {
        /// Why.
        code: ErrorCode,
    },
    /// It may be done or not.
    Unknown,
    /// The read mark as it stands now.
    Read {
        /// The newest message that is read.
        number: Number,
    },
    /// A page.
    Page {
        /// How far the chat is.
        head: Head,
        /// Whether the server calls it complete.
        complete: bool,
        /// Its messages, in its order.
        messages: Vec<Kept>,
    },
    /// Chats with what is unread in them.
    Chats {
        /// One each.
        chats: Vec<Counted>,
    },
}

/// A chat in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Which.
    pub chat: ChatId,
    /// How many messages it has.
    pub messages: Number,
    /// How many of them are unread.
    pub unread: Number,
}
