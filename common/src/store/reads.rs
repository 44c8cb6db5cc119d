//! Read marks: how far users have read their chats (PR-4).

use async_trait::async_trait;

use super::Result;
use crate::ids::{ChatKey, Number, UserId};

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
    pub(super) fn from(&self, at: Number, stored: Number) -> Marked {
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
