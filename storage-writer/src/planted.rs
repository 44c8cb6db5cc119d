//! A writer that was paused and wakes: see [`common::planted`].

use std::{collections::BTreeMap, time::Duration};

use common::{
    ids::Partition,
    planted::{Circumstance, Planted},
    store::{Drain, PartitionBatch},
};
use tokio::time::Instant;

use crate::batch::Batch;

/// Between two awakenings.
const ASLEEP: Duration = Duration::from_millis(500);

/// Batches that were applied long ago.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    batches: BTreeMap<Partition, PartitionBatch>,
    woke: Option<Instant>,
}

impl Sleeper {
    /// Remembers the first batch of each partition that changes no chat: another would be refused for what it changes.
    pub(crate) fn remember(&mut self, batches: &[Batch]) {
        for batch in batches.iter().map(Batch::peek).filter(|batch| batch.changes.is_empty()) {
            self.batches.entry(batch.partition).or_insert_with(|| batch.clone());
        }
    }

    /// Applies them once more, now and then. A store that looks at the position refuses them all.
    pub(crate) async fn wake(&mut self, planted: Planted, store: &dyn Drain) {
        if !planted.with(Circumstance::StaleWriter) || self.woke.is_some_and(|at| at.elapsed() < ASLEEP) {
            return;
        }
        self.woke = Some(Instant::now());
        let batches: Vec<PartitionBatch> = self.batches.values().cloned().collect();
        if let Err(error) = store.apply(&batches).await {
            tracing::warn!(%error, "the stale batches were not answered");
        }
    }
}
