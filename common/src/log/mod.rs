//! The log: the truth of every chat.
//!
//! One topic of P partitions. A partition is a sequence of records that grows at its end, with offsets 0, 1, 2, … and no
//! hole: the rule of terms rests on that, so an engine uses neither transactions that leave markers nor compaction. Its oldest
//! records may be forgotten ([`Log::forget_before`]); offsets never begin anew.
//! What a record means is not known here: a key, bytes, and the place they got.
//!
//! Here: the contract ([`Log`], [`Subscription`], [`Receipt`]). Beside it: [`sqlite`], the embedded engine, `kafka`, the one for a
//! cluster, and `conformance`, the suite that every engine passes.

mod assign;
#[cfg(any(test, feature = "conformance"))]
#[doc(hidden)]
pub mod conformance;
mod error;
mod group;
#[cfg(feature = "servers")]
pub mod kafka;
mod receipt;
pub mod sqlite;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

pub use self::{
    error::{AppendError, LogError, OpenError, ReadError, Unconfirmed},
    receipt::{Receipt, Settle},
};
use crate::ids::{Offset, Partition};

/// The most bytes that a record's key and payload may have together. A record with its framing passes Kafka's
/// defaults (`message.max.bytes`: 1,000,000 in librdkafka, 1,048,588 in the broker), so an engine changes no limit.
pub const MAX_RECORD_BYTES: usize = 960 * 1024;

/// How long an append waits for room before it is refused. A full intake of the embedded engine is written in a tenth of a
/// second (in less than a whole one if all its records are of the largest), and a full Kafka queue in less, so one that is
/// still full after this long belongs to a log that stands still.
pub const INTAKE_WAIT: Duration = Duration::from_secs(1);

/// A record where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in its partition.
    pub offset: Offset,
    /// What it was appended under.
    pub key: Bytes,
    /// What was appended.
    pub payload: Bytes,
}

/// How much one read answers at most. The first record is answered whatever its size, so a read that is not at the end
/// always gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Records.
    pub records: usize,
    /// Bytes of keys and payloads.
    pub bytes: usize,
}

impl ReadLimit {
    /// What a batch of a subscription holds: 1,024 records of 200 to 400 bytes are a transaction of some 10 ms for the
    /// store, and 4 MiB a partition bound what a reader holds.
    pub const BATCH: Self = Self { records: 1024, bytes: 4 * 1024 * 1024 };
}

impl Default for ReadLimit {
    fn default() -> Self {
        Self::BATCH
    }
}

/// One log, as every service sees it.
///
/// Handles are shared as `Arc<dyn Log>`. When the last one is gone the engine still finishes the appends it took;
/// [`Log::close`] does so and waits for it.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// The log's identity, made once with it. A position that was taken under another id says nothing about this log.
    fn id(&self) -> Uuid;

    /// How many partitions it has, for as long as it lives.
    fn partitions(&self) -> Partition;

    /// Takes a record in for the end of a partition.
    ///
    /// Its place in the order is taken before this returns: of two appends by one caller, one after the other, the first
    /// has the lower offset if both land. Any number may be under way; each is settled through its own receipt. While
    /// the intake is full this waits, up to [`INTAKE_WAIT`].
    ///
    /// Dropping this future before it is ready appends nothing; dropping the receipt changes nothing.
    ///
    /// # Errors
    /// [`AppendError`]: the record was surely not appended.
    async fn append(&self, partition: Partition, key: Bytes, payload: Bytes) -> Result<Receipt, AppendError>;

    /// The records from `from` on, in order and without a hole, as many as the limit allows; none at the end.
    /// What a receipt has confirmed is there, until it is forgotten.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::OutOfRange`] where records were forgotten.
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError>;

    /// The offset that the next record of the partition will have. It covers everything that was confirmed before the
    /// call.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn end(&self, partition: Partition) -> Result<Offset, ReadError>;

    /// The offset of the oldest record that the partition has; its end when it has none. All before it were forgotten.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn begin(&self, partition: Partition) -> Result<Offset, ReadError>;

    /// Forgets records before `before`, the oldest first, as many as are done with in some milliseconds. Answers where the
    /// partition begins now: before `before` if there are more, and never earlier than it was.
    ///
    /// When this returns, they are out of every reader's reach, also after a crash. Dropping the future leaves it open whether they are.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::OutOfRange`] when `before` is past the end: nothing is forgotten then.
    async fn forget_before(&self, partition: Partition, before: Offset) -> Result<Offset, ReadError>;

    /// Becomes a member of a group of readers that share the partitions among them.
    ///
    /// # Errors
    /// [`LogError`].
    async fn join(&self, group: &str) -> Result<Box<dyn Subscription>, LogError>;

    /// Takes no more appends, and waits until each one that was taken has its outcome. A second call finds nothing to
    /// do. Subscriptions end with [`LogError::Closed`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the engine did not finish in time (10 s): what is left stays unconfirmed.
    async fn close(&self) -> Result<(), LogError>;
}

/// A log that can be shared.
pub type SharedLog = Arc<dyn Log>;

/// One member's part of a group.
///
/// Partitions are split evenly (none has more than ⌈P / members⌉) and move as little as possible. Dropping the
/// subscription leaves the group at once, and the others take over.
///
/// A partition normally has one reader at a time: it is given on when its member has asked for the next delivery after
/// [`Delivery::Revoked`], or is gone. But a member that does not ask for long loses it all the same, and knows only when it
/// asks again. So whoever writes what it reads guards the position in the same transaction.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next thing this member should know. It may be dropped and called again; nothing is lost. Calling it
    /// says that the member is done with what it was last told was revoked.
    ///
    /// # Errors
    /// [`LogError::Read`] names one partition that cannot be read from where it stands: it is stopped, until it is
    /// started again, and the others go on. Any other error ends the subscription.
    async fn next(&mut self) -> Result<Delivery, LogError>;

    /// Delivers a partition's records from this offset on; also one that was started or stopped before.
    ///
    /// # Errors
    /// [`LogError::NotAssigned`] when the partition is not this member's.
    fn start(&mut self, partition: Partition, from: Offset) -> Result<(), LogError>;

    /// Delivers no more of a partition, until it is started again. It stays assigned.
    fn stop(&mut self, partition: Partition);

    /// Tells the engine how far the partition is drained (the next offset to read), for those who watch the group from
    /// outside. Nothing depends on it, and it may be forgotten.
    fn note_progress(&mut self, _partition: Partition, _next: Offset) {}
}

/// What a member of a group is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// These partitions are this member's now. Each is silent until it is started.
    Assigned(Vec<Partition>),
    /// These are no longer. Nothing more of them will come; finish what is begun, then ask for the next delivery.
    Revoked(Vec<Partition>),
    /// Records of a partition, in order, from where it stood; never none.
    Records {
        /// Whose.
        partition: Partition,
        /// The records.
        entries: Vec<Entry>,
    },
}
