//! From the records of a partition to what the store is asked to apply: pure.

use common::{
    ids::{ChatKey, Offset, Partition},
    log::Entry,
    partition::partition_of,
    store::{DeadLetter, PartitionBatch, Position},
    term::{TermState, Verdict},
    wire::record::{BadRecord, Change, Record, What},
};
use uuid::Uuid;

/// Why a partition cannot go on past a record. Nothing is skipped: an operator must look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Halt {
    /// Written by a later version of this program.
    #[error("the record at {offset} has version {version}, which this program does not know: upgrade it")]
    Version { offset: Offset, version: u8 },
    /// The log did not give the next record.
    #[error("the record at {found} came where {expected} must be next")]
    Hole { expected: Offset, found: Offset },
    /// The chat's other records are in another partition.
    #[error("the record at {offset} is of chat {chat}, whose partition is {home}")]
    Elsewhere { offset: Offset, chat: ChatKey, home: Partition },
}

/// What a batch has of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) applied: u64,
    pub(crate) void: u64,
    pub(crate) claims: u64,
    pub(crate) dead: u64,
}

impl Counts {
    pub(crate) fn all(self) -> u64 {
        self.applied + self.void + self.claims + self.dead
    }
}

/// A batch that grows record by record from a position on.
#[derive(Debug)]
pub(crate) struct Batch {
    /// How many partitions the log has.
    partitions: Partition,
    inner: PartitionBatch,
    pub(crate) counts: Counts,
    #[cfg(feature = "planted")]
    pub(crate) planted: common::planted::Planted,
}

impl Batch {
    /// An empty one. `log` is the log's id, `position` what the store has of the partition.
    pub(crate) fn new(
        partition: Partition,
        partitions: Partition,
        log: Uuid,
        position: Option<Position>,
    ) -> Self {
        let next = position.unwrap_or(Position { log, offset: 0, state: TermState::default() });
        let inner =
            PartitionBatch { partition, expected: position, next, changes: Vec::new(), dead: Vec::new() };
        Self {
            partitions,
            inner,
            counts: Counts::default(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        }
    }

    /// Takes the next record in, and says how many rows it may become (1 at least).
    pub(crate) fn take(&mut self, entry: &Entry) -> Result<usize, Halt> {
        let offset = entry.offset;
        if offset != self.inner.next.offset {
            return Err(Halt::Hole { expected: self.inner.next.offset, found: offset });
        }
        let rows = match Record::decode(&entry.payload) {
            Ok(record) => self.judge(record, offset)?,
            Err(BadRecord::Version(version)) => return Err(Halt::Version { offset, version }),
            Err(BadRecord::Bytes(error)) => {
                let letter =
                    DeadLetter { offset, payload: entry.payload.to_vec(), reason: error.to_string() };
                self.inner.dead.push(letter);
                self.counts.dead += 1;
                1
            }
        };
        self.inner.next.offset = offset.saturating_add(1);
        Ok(rows)
    }

    fn judge(&mut self, record: Record, offset: Offset) -> Result<usize, Halt> {
        let mut state = self.inner.next.state;
        let verdict = state.advance(record.header(), offset);
        #[cfg(feature = "planted")]
        let verdict =
            if self.planted.is(common::planted::Bug::IgnoreTheTerm) { Verdict::Valid } else { verdict };
        let rows = match (record, verdict) {
            (_, Verdict::Void) => {
                self.counts.void += 1;
                1
            }
            (Record::Claim(_), Verdict::Valid) => {
                self.counts.claims += 1;
                1
            }
            (Record::Change(change), Verdict::Valid) => {
                let (chat, home) = (change.key(), partition_of(change.key(), self.partitions));
                if home != self.inner.partition {
                    return Err(Halt::Elsewhere { offset, chat, home });
                }
                let rows = rows(&change);
                self.inner.changes.push(change);
                self.counts.applied += 1;
                rows
            }
        };
        self.inner.next.state = state;
        Ok(rows)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.next.offset == self.inner.expected.map_or(0, |position| position.offset)
    }

    /// What it has so far.
    #[cfg(feature = "planted")]
    pub(crate) fn peek(&self) -> &PartitionBatch {
        &self.inner
    }

    pub(crate) fn done(self) -> (PartitionBatch, Counts) {
        (self.inner, self.counts)
    }
}

fn rows(change: &Change) -> usize {
    match &change.what {
        What::Created { members, .. } | What::Members { members } => 1 + members.len(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_not_the_next_one_is_not_taken() {
        let log = Uuid::from_u128(1);
        let at = Position { log, offset: 5, state: TermState::default() };
        let entry = |offset| Entry { offset, key: Default::default(), payload: Default::default() };
        let mut batch = Batch::new(0, 1, log, Some(at));
        assert!(batch.is_empty());
        assert_eq!(batch.take(&entry(6)), Err(Halt::Hole { expected: 5, found: 6 }));
        assert_eq!(batch.take(&entry(5)), Ok(1));
        assert_eq!(batch.take(&entry(5)), Err(Halt::Hole { expected: 6, found: 5 }));
        let (batch, counts) = batch.done();
        assert_eq!((batch.expected, batch.next.offset, batch.dead.len()), (Some(at), 6, 1));
        assert_eq!((counts.all(), counts.dead), (1, 1));
    }
}
