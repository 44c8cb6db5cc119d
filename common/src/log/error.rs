//! What can go wrong with a log: one type per moment, one variant per decision.

use crate::ids::{Offset, Partition};

/// Why a record was not taken in. It is surely not in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The intake stayed full. Try later.
    #[error("the log's intake is full")]
    Full,
    /// The record is larger than any may be. Do not try again.
    #[error("a record of {bytes} bytes is larger than the {max} allowed")]
    TooLarge {
        /// Of key and payload.
        bytes: usize,
        /// [`super::MAX_RECORD_BYTES`].
        max: usize,
    },
    /// There is no such partition.
    #[error("there is no partition {partition}: the log has {partitions}")]
    NoSuchPartition {
        /// The one asked for.
        partition: Partition,
        /// How many there are.
        partitions: Partition,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// The outcome of an append is not known: the record may be in the log or not, now or later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not known whether the record was appended: {0}")]
pub struct Unconfirmed(pub String);

/// Why nothing could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log no longer begins, or does not yet reach, where the reader stands. It must not go on from elsewhere by itself:
    /// what lies between would be skipped.
    #[error("partition {partition} has offsets {begin} to {end}, and {from} was asked for")]
    OutOfRange {
        /// Which.
        partition: Partition,
        /// The offset asked for.
        from: Offset,
        /// The first there is.
        begin: Offset,
        /// The next that will be appended.
        end: Offset,
    },
    /// There is no such partition.
    #[error("there is no partition {partition}: the log has {partitions}")]
    NoSuchPartition {
        /// The one asked for.
        partition: Partition,
        /// How many there are.
        partitions: Partition,
    },
    /// The log's own rules do not hold in what was read. A person must look.
    #[error("partition {partition} is damaged: {what}")]
    Corrupt {
        /// Which.
        partition: Partition,
        /// What is wrong.
        what: String,
    },
    /// The engine did not answer. Try later.
    #[error("the log cannot be read: {0}")]
    Unavailable(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// What can go wrong with a log or a subscription as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// One partition cannot be read from where it stands. The others go on.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The partition is not this member's.
    #[error("partition {0} is not assigned to this member")]
    NotAssigned(Partition),
    /// The engine did not answer. Try later.
    #[error("the log is not available: {0}")]
    Unavailable(String),
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The count is fixed for the life of a log: a chat's partition follows from it.
    #[error("the log {log} has {has} partitions and {asked} were asked for; their count cannot be changed")]
    PartitionCount {
        /// Where it is.
        log: String,
        /// How many it has.
        has: Partition,
        /// How many were asked for.
        asked: Partition,
    },
    /// It was written by another version of this program.
    #[error("the log {log} has format {has}, and this program knows format {known}")]
    Version {
        /// Where it is.
        log: String,
        /// The format found.
        has: i64,
        /// The format this program reads and writes.
        known: i64,
    },
    /// An embedded log serves one process.
    #[error("the log {log} is in use by another process; an embedded log serves only one")]
    InUse {
        /// Where it is.
        log: String,
    },
    /// It was never made, and opening does not make it.
    #[error("there is no log {log}: {what}")]
    Missing {
        /// Where it should be.
        log: String,
        /// What is missing, and what makes it.
        what: String,
    },
    /// A setting is not possible.
    #[error("the log {log} cannot be used as it is configured: {what}")]
    Settings {
        /// Where it is.
        log: String,
        /// Which, and why.
        what: String,
    },
    /// What is there is not a log.
    #[error("{log} is not a log: {what}")]
    Foreign {
        /// Where it is.
        log: String,
        /// How that shows.
        what: String,
    },
    /// The engine did not answer.
    #[error("the log {log} cannot be opened: {what}")]
    Unavailable {
        /// Where it is.
        log: String,
        /// What the engine said.
        what: String,
    },
}
