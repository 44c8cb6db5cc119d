//! How many rooms miss something: while one does, its partition was not shown to everybody as far as its marks are.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use common::{
    ids::{ChatKey, Partition},
    partition::partition_of,
};

/// The number of rooms that miss something, by partition.
#[derive(Debug)]
pub(crate) struct Mending(Vec<AtomicUsize>);

impl Mending {
    pub(crate) fn new(partitions: Partition) -> Self {
        Self((0..partitions).map(|_| AtomicUsize::new(0)).collect())
    }

    /// Whether no room of the partition misses anything that it knows of.
    pub(crate) fn none(&self, partition: Partition) -> bool {
        self.0.get(usize::from(partition)).is_none_or(|count| count.load(Ordering::Acquire) == 0)
    }
}

/// One room's part in the count. Dropped, it is not counted.
#[derive(Debug)]
pub(super) struct Counted {
    mending: Arc<Mending>,
    partition: Partition,
    counts: bool,
}

impl Counted {
    pub(super) fn new(mending: Arc<Mending>, chat: ChatKey) -> Self {
        let count = Partition::try_from(mending.0.len()).unwrap_or(Partition::MAX);
        Self { partition: partition_of(chat, count), mending, counts: false }
    }

    /// Whether the room misses something.
    pub(super) fn set(&mut self, misses: bool) {
        if misses == self.counts {
            return;
        }
        self.counts = misses;
        let Some(count) = self.mending.0.get(usize::from(self.partition)) else { return };
        if misses {
            count.fetch_add(1, Ordering::AcqRel);
        } else {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(false);
    }
}
