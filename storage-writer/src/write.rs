//! One transaction: batches go in, and what came of each comes out.

use std::{mem, time::Duration};

use common::{
    ids::Partition,
    store::{Drain, PartitionBatch, Position, Refused, StoreError},
};
use rand::Rng;
use tokio::time::Instant;

use crate::{
    batch::{Batch, Counts},
    metrics::Metrics,
};

/// The first wait after the store did not answer: a database that fails over needs more, a hiccup less.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The longest: so that a writer is back soon after its store is.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What became of one partition's batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is in the store, which is at this position now.
    Applied(Position),
    /// Nothing of it is: another writer was faster.
    Moved(Option<Position>),
    /// Nothing of it is: it contradicts what is stored.
    Broken(Refused),
    /// Nobody knows: the store's position says it.
    Unknown,
}

/// Applies all of them in one transaction. When the store does not answer, every outcome is [`Outcome::Unknown`].
pub(crate) async fn write(
    store: &dyn Drain,
    batches: Vec<Batch>,
    metrics: &Metrics,
) -> (Vec<(Partition, Outcome)>, Result<(), StoreError>) {
    let (batches, counts): (Vec<_>, Vec<Counts>) = batches.into_iter().map(Batch::done).unzip();
    let begun = Instant::now();
    let answer = store.apply(&batches).await;
    metrics.transaction(counts.iter().map(|counts| counts.all()).sum(), begun.elapsed().as_secs_f64());
    let answer = match answer {
        Ok(outcomes) if outcomes.len() == batches.len() => Ok(outcomes),
        Ok(outcomes) => {
            Err(StoreError::Corrupt(format!("{} batches had {} outcomes", batches.len(), outcomes.len())))
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok(outcomes) => {
            let outcome = |((batch, counts), outcome)| {
                let batch: &PartitionBatch = batch;
                let outcome = match outcome {
                    Ok(()) => {
                        metrics.drained(counts);
                        Outcome::Applied(batch.next)
                    }
                    Err(Refused::Moved(position)) => Outcome::Moved(position),
                    Err(broken) => Outcome::Broken(broken),
                };
                (batch.partition, outcome)
            };
            (batches.iter().zip(counts).zip(outcomes).map(outcome).collect(), Ok(()))
        }
        Err(error) => (batches.iter().map(|batch| (batch.partition, Outcome::Unknown)).collect(), Err(error)),
    }
}

/// How much is asked of the store, and how soon it is asked again.
///
/// What takes longer than the store's own time limit would never be done, however often it is tried: so each failure halves
/// what is asked, down to one record, and each success doubles it.
#[derive(Debug)]
pub(crate) struct Pace {
    most: usize,
    rows: usize,
    wait: Duration,
}

impl Pace {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, rows: most, wait: FIRST_WAIT }
    }

    /// Rows that one transaction should have at most.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn succeeded(&mut self) {
        self.rows = self.rows.saturating_mul(2).min(self.most);
        self.wait = FIRST_WAIT;
    }

    /// How long to wait now: half of it at random, so that writers that failed together do not come back together.
    pub(crate) fn failed(&mut self, random: &mut impl Rng) -> Duration {
        self.rows = (self.rows / 2).max(1);
        let longer = self.wait.saturating_mul(2).min(LONGEST_WAIT);
        mem::replace(&mut self.wait, longer).mul_f64(random.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_halves_what_is_asked_and_doubles_the_wait_within_bounds() {
        let (mut pace, mut random) = (Pace::new(1_000), rand::rng());
        let waits: Vec<Duration> = (0..20).map(|_| pace.failed(&mut random)).collect();
        assert_eq!(pace.rows(), 1);
        assert!(waits[0] >= FIRST_WAIT / 2 && waits[0] <= FIRST_WAIT);
        assert!(waits[19] >= LONGEST_WAIT / 2 && waits[19] <= LONGEST_WAIT);
        pace.succeeded();
        assert_eq!(pace.rows(), 2);
        assert!(pace.failed(&mut random) <= FIRST_WAIT);
        for _ in 0..12 {
            pace.succeeded();
        }
        assert_eq!(pace.rows(), 1_000);
    }
}
