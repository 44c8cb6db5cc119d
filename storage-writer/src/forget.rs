//! Has the log forget what was drained long ago (ME-9): until then it has the text of messages that are deleted or have ended.
//!
//! A store that is put back to a backup goes on from the position that the backup has, so the log must have everything from there on. What
//! counts is therefore how far the store *was*, not how old a record is: one that was drained late would be missed. So it is marked now
//! and then how far each partition is, in the store itself, and what comes before a mark is forgotten when that is old enough.
//!
//! [`Marks`] is pure: what it is told of clocks may be wrong, and then it forgets later, not earlier.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    time::Duration,
};

use common::{
    ids::{Offset, Partition},
    log::ReadError,
    store::{DrainedMark, StoreError},
    time::Millis,
};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use crate::{Engines, WriterConfig, metrics::Metrics};

/// Steps that what is kept is divided into: it is kept for up to two of them longer, and so many marks are written in that time.
const STEPS: u32 = 16;

/// Marks of a partition: one is old enough when so many steps lie between it and the newest, and one step more, for a clock that jumped ahead.
const MARKS: usize = STEPS as usize + 2;

/// Pieces that a partition forgets in one sweep (of 1,024 records in the embedded log, or 4 MiB; Kafka needs one for all). What is left
/// is the next sweep's.
const PIECES: usize = 64;

/// How far a partition was drained when, the oldest first.
#[derive(Debug, Default)]
struct Marks(Vec<DrainedMark>);

impl Marks {
    /// Takes in where the partition is, if a step has passed since the newest mark. Whether anything changed.
    ///
    /// Only so long as somebody marks does time pass: however far a clock has jumped, or however long no writer was there, it counts as one step.
    fn note(&mut self, log: Uuid, offset: Offset, now: Millis, keep: Duration) -> bool {
        let known = self.0.len();
        // A log that was replaced has offsets of its own.
        self.0.retain(|mark| mark.log == log);
        let step = (keep / STEPS).max(Duration::from_millis(1));
        match self.0.last_mut() {
            Some(newest) if now < newest.at => {
                // The clock that wrote it was ahead, or this one is behind.
                newest.at = now;
                return true;
            }
            Some(newest) if now.minus(step) < newest.at => return self.0.len() != known,
            _ => {}
        }
        self.0.push(DrainedMark { log, at: now, offset });
        self.0.drain(..self.0.len().saturating_sub(MARKS));
        true
    }

    /// Everything before was drained so long ago, if anything was.
    fn past(&self, now: Millis, keep: Duration) -> Option<Offset> {
        let old = self.0.len().checked_sub(MARKS).and_then(|place| self.0.get(place))?;
        (old.at <= now.minus(keep)).then_some(old.offset)
    }
}

pub(crate) struct Forgetter {
    keep: Duration,
    every: Duration,
    engines: Engines,
    metrics: Metrics,
    owned: watch::Receiver<BTreeSet<Partition>>,
}

impl Forgetter {
    pub(crate) fn new(
        config: &WriterConfig,
        engines: Engines,
        metrics: Metrics,
        owned: watch::Receiver<BTreeSet<Partition>>,
    ) -> Self {
        Self { keep: config.log_keep, every: config.sweep_every, engines, metrics, owned }
    }

    pub(crate) async fn run(self) -> Infallible {
        if self.keep.is_zero() {
            return std::future::pending().await;
        }
        loop {
            sleep(self.every).await;
            if self.owned.borrow().is_empty() {
                continue;
            }
            if let Err(error) = self.sweep().await {
                self.metrics.store_errors.inc();
                tracing::warn!(%error, "what the log may forget cannot be told for now");
            }
        }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let mut marks = BTreeMap::<Partition, Marks>::new();
        for (partition, mark) in self.engines.retention.drained_marks().await? {
            marks.entry(partition).or_default().0.push(mark);
        }
        let log = self.engines.log.id();
        for (partition, position) in self.engines.store.positions().await? {
            // Another log's is no place of this one; the partition has stopped.
            if position.log != log || !self.owned.borrow().contains(&partition) {
                continue;
            }
            let mut marks = marks.remove(&partition).unwrap_or_default();
            // After the position was read: it was there by then.
            let now = self.engines.clock.now();
            if marks.note(log, position.offset, now, self.keep) {
                self.engines.retention.mark_drained(partition, &marks.0).await?;
            }
            let Some(before) = marks.past(now, self.keep) else { continue };
            // A position that was set back by hand counts.
            if let Err(error) = self.forget(partition, before.min(position.offset)).await {
                tracing::warn!(%error, partition, "the log keeps for now what it should forget");
            }
        }
        Ok(())
    }

    async fn forget(&self, partition: Partition, before: Offset) -> Result<(), ReadError> {
        let mut begin = self.engines.log.begin(partition).await?;
        for _ in 0..PIECES {
            if begin >= before || !self.owned.borrow().contains(&partition) {
                break;
            }
            let begins = self.engines.log.forget_before(partition, before).await?;
            self.metrics.forgotten.inc_by(begins.saturating_sub(begin));
            tracing::debug!(partition, begin = begins, "the log has forgotten what was drained long ago");
            begin = begins;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Uuid = Uuid::from_u128(1);

    const KEEP: Duration = Duration::from_millis(16_000);

    #[test]
    fn what_was_drained_is_past_when_it_was_kept_for_its_time_and_two_steps_at_most() {
        let mut marks = Marks::default();
        // Drained to as many records as seconds, and looked at ten times a second.
        for now in (0..100_000_i64).step_by(100) {
            let drained = (now / 1_000).unsigned_abs();
            marks.note(LOG, drained, Millis(now), KEEP);
            let past = marks.past(Millis(now), KEEP).unwrap_or(0);
            assert!(past <= drained.saturating_sub(16), "{past} at {now}");
            assert!(past >= drained.saturating_sub(18), "{past} at {now}");
            assert!(marks.0.len() <= MARKS);
        }
    }

    #[test]
    fn a_step_that_has_not_passed_is_not_marked() {
        let mut marks = Marks::default();
        assert!(marks.note(LOG, 5, Millis(0), KEEP));
        assert!(!marks.note(LOG, 6, Millis(999), KEEP));
        assert!(marks.note(LOG, 7, Millis(1_000), KEEP));
        assert_eq!(marks.0.iter().map(|mark| mark.offset).collect::<Vec<_>>(), [5, 7]);
    }

    #[test]
    fn a_clock_that_jumps_ahead_gains_a_step_and_the_spare_one_makes_up_for_it() {
        let mut marks = Marks::default();
        for second in 0..18_u64 {
            marks.note(LOG, second, Millis(second.cast_signed() * 1_000), KEEP);
        }
        assert_eq!(marks.past(Millis(17_000), KEEP), Some(0));
        // A thousand years later: what is past is what was drained 16 real steps ago.
        let ahead = 1_000 * 365 * 86_400_000;
        assert!(marks.note(LOG, 17, Millis(ahead), KEEP));
        assert!(!marks.note(LOG, 17, Millis(ahead + 999), KEEP));
        assert_eq!(marks.past(Millis(ahead), KEEP), Some(1));
        // It was wrong, and is set right: nothing is gained, and what comes is kept for its time.
        assert!(marks.note(LOG, 17, Millis(17_500), KEEP));
        assert!(!marks.note(LOG, 18, Millis(18_499), KEEP));
        assert!(marks.note(LOG, 18, Millis(18_500), KEEP));
        for step in 19..36_u64 {
            let now = Millis(step.cast_signed() * 1_000 + 500);
            assert!(marks.past(now, KEEP).is_none_or(|past| past <= step - 16), "{marks:?} at {now:?}");
            marks.note(LOG, step, now, KEEP);
        }
        assert_eq!(marks.past(Millis(35_500), KEEP), Some(18));
    }

    #[test]
    fn marks_of_a_shorter_time_do_not_count_for_a_longer_one() {
        let mut marks = Marks::default();
        for second in 0..18_u64 {
            marks.note(LOG, second, Millis(second.cast_signed() * 1_000), KEEP);
        }
        let longer = KEEP * 100;
        assert_eq!(marks.past(Millis(17_000), longer), None);
        let day = 17_000 + 100_000;
        assert!(marks.note(LOG, 18, Millis(day), longer));
        assert_eq!(marks.past(Millis(day), longer), None);
    }

    #[test]
    fn marks_of_another_log_are_dropped() {
        let mut marks = Marks::default();
        for second in 0..18_u64 {
            marks.note(LOG, 1_000 + second, Millis(second.cast_signed() * 1_000), KEEP);
        }
        assert!(marks.note(Uuid::from_u128(2), 3, Millis(17_001), KEEP));
        assert_eq!(marks.past(Millis(100_000), KEEP), None);
        assert_eq!(marks.0.len(), 1);
    }
}
