//! How long messages are kept (ME-9), the end of those that are past their time, and how far the log was drained when, by which
//! it forgets what it has of them.
//!
//! Messages end oldest first: a chat's row says up to which number. What a message said, what it was answered with, whom it mentioned and
//! which files it referred to are gone then; its place, its ids and its times stay, so that numbers and unread counts hold, and a send that is
//! repeated later is still known for one.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::Result;
use crate::{
    applications::Retention,
    ids::{AppId, ChatKey, Number, Offset, Partition},
    search::segment,
    time::Millis,
};

/// Which chats are looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that have chosen how long their messages are kept.
    Chosen,
    /// Those of an application that have not: this is what it has chosen.
    Application(AppId, Retention),
}

/// What was found among the chats that were looked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Chats with messages that are past their time.
    pub chats: Vec<ChatKey>,
    /// The last chat that was looked at, when there may be more behind it.
    pub next: Option<ChatKey>,
}

/// So far a partition of the log was drained at that time, or further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainedMark {
    /// Which log.
    pub log: Uuid,
    /// When.
    pub at: Millis,
    /// Everything before was in the store.
    pub offset: Offset,
}

/// What ends messages.
#[async_trait]
pub trait Expire: Send + Sync {
    /// What applications have chosen that do not keep messages for ever.
    async fn application_retentions(&self) -> Result<Vec<(AppId, Retention)>>;

    /// Looks through chats in order of their keys, at most `limit` of those behind `after`, for messages that are past their time at `now`:
    /// accepted so many days ago, or read by everybody who is in the chat. A chat that nobody is in has been read by nobody.
    async fn due(&self, scope: Scope, after: Option<ChatKey>, now: Millis, limit: u32) -> Result<Due>;

    /// Ends the messages of a chat of `partition` that are past their time at `now`, oldest first and at most `limit`, in one transaction with the
    /// chat's row. `default` counts for a chat that has chosen nothing. Answers how many there were; of a chat that was deleted, or is not
    /// known, none. A batch of the writer's comes before it or after it as a whole ([`super::Drain::apply`]).
    async fn expire(
        &self,
        partition: Partition,
        chat: ChatKey,
        default: Retention,
        now: Millis,
        limit: u32,
    ) -> Result<u32>;

    /// How far each partition was drained when: what [`Expire::mark_drained`] was given, in that order. A backup of the store has the marks
    /// of its time, and none that is ahead of its positions.
    async fn drained_marks(&self) -> Result<Vec<(Partition, DrainedMark)>>;

    /// Replaces the marks of a partition.
    async fn mark_drained(&self, partition: Partition, marks: &[DrainedMark]) -> Result<()>;
}

/// A chat's row, as far as its messages' end goes.
pub(super) struct Kept {
    pub(super) head: Number,
    /// Messages up to this one have ended.
    pub(super) expired: Number,
    /// What the chat has chosen.
    pub(super) retention: Option<Retention>,
}

/// An engine's tables, in the transaction that ends messages of a chat.
#[async_trait]
pub(super) trait Ending: Send {
    type Error;

    /// The newest message behind `from` and up to `most` that was accepted by then.
    async fn accepted(
        &mut self,
        chat: ChatKey,
        from: Number,
        most: Number,
        by: Millis,
    ) -> Result<Option<Number>, Self::Error>;

    /// The newest message that every member has read.
    async fn read_by_all(&mut self, chat: ChatKey) -> Result<Option<Number>, Self::Error>;

    /// Notes for the search index that the messages behind `from`, up to `upto`, are not what they were.
    async fn note(
        &mut self,
        chat: ChatKey,
        from: Number,
        upto: Number,
        now: Millis,
    ) -> Result<(), Self::Error>;

    /// Ends the messages behind `from`, up to `upto`. One that was deleted before stays one that was deleted.
    async fn end(&mut self, chat: ChatKey, from: Number, upto: Number) -> Result<(), Self::Error>;
}

/// Ends what is past its time of a chat; see [`Expire::expire`].
pub(super) async fn expire<E: Ending>(
    ending: &mut E,
    chat: ChatKey,
    Kept { head, expired: from, retention }: Kept,
    default: Retention,
    now: Millis,
    limit: u32,
) -> Result<u32, E::Error> {
    let most = head.min(from.saturating_add(u64::from(limit)));
    let upto = match retention.unwrap_or(default) {
        Retention::Forever => None,
        Retention::Days { days } => ending.accepted(chat, from, most, accepted_by(now, days)).await?,
        Retention::UntilRead => ending.read_by_all(chat).await?,
    };
    let Some(upto) = upto.map(|upto| upto.min(most)).filter(|upto| *upto > from) else { return Ok(0) };
    // The index has what they said until their segments are made anew.
    ending.note(chat, from, upto.min(segment::indexed(head)), now).await?;
    ending.end(chat, from, upto).await?;
    Ok(u32::try_from(upto - from).unwrap_or(u32::MAX))
}

/// In a column: days; 0 for ever; below it until every member has read them.
pub(super) fn retention_column(retention: Retention) -> i64 {
    match retention {
        Retention::Forever => 0,
        Retention::Days { days } => i64::from(days).max(1),
        Retention::UntilRead => -1,
    }
}

/// What such a column says.
pub(super) fn retention_of(column: i64) -> Retention {
    match u32::try_from(column) {
        Ok(0) => Retention::Forever,
        Ok(days) => Retention::Days { days },
        Err(_) => Retention::UntilRead,
    }
}

/// Messages that were accepted then or before are past their time.
fn accepted_by(now: Millis, days: u32) -> Millis {
    now.minus(Duration::from_secs(u64::from(days) * 86_400))
}
