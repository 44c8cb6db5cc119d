//! What the writer drains from the log: batches of changes, applied each whole or not at all, and how far it is with each partition.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Result;
use crate::{
    ids::{ChatKey, Offset, Partition, Seq},
    term::TermState,
    wire::record::Change,
};

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
    /// What is about a message that is past its time ([`Expire`](super::Expire)) changes nothing. A deleted message keeps its number, its ids and its times; its text, attachments, reactions and mentions are gone. Chats are numbered in the order in
    /// which they are applied, without holes. Sending moves the sender's read mark.
    async fn apply(&self, batches: &[PartitionBatch]) -> Result<Vec<std::result::Result<(), Refused>>>;
}
