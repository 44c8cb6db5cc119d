//! Whether the dispatchers count on this node, and what time it is there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use common::time::Millis;
use tokio::time::Instant;

/// Holds from when an echoed heartbeat was sent, for as long as the dispatcher grants. The dispatcher counts from when it arrived, so
/// the node's own view ends first. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Milliseconds after `start`.
    until: AtomicU64,
}

impl Default for Lease {
    fn default() -> Self {
        Self(Arc::new(Inner { start: Instant::now(), until: AtomicU64::new(0) }))
    }
}

impl Lease {
    /// Whether no other node can have been named in this one's place.
    pub fn holds(&self) -> bool {
        self.millis(Instant::now()) < self.0.until.load(Ordering::Acquire)
    }

    /// A heartbeat sent at `sent` was echoed.
    pub fn renew(&self, sent: Instant, granted: Duration) {
        self.0.until.fetch_max(self.millis(sent + granted), Ordering::AcqRel);
    }

    /// One that holds for ever, for a node that is alone.
    pub fn unlimited() -> Self {
        let lease = Self::default();
        lease.0.until.store(u64::MAX, Ordering::Release);
        lease
    }

    /// Ends it now.
    pub fn end(&self) {
        self.0.until.store(0, Ordering::Release);
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The dispatchers' clock, as heartbeats tell it; the machine's own until one has been heard. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// Now.
    pub fn now(&self) -> Millis {
        Millis(Millis::now().0.saturating_add(self.0.load(Ordering::Relaxed)))
    }

    /// The dispatcher's clock stood at `told` somewhere within `round_trip` before `here`. Differences that the round trip explains are not
    /// followed, so that the clock does not waver.
    pub(super) fn hear(&self, told: Millis, here: Millis, round_trip: Duration) {
        let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(0);
        let ahead = told.0.saturating_add(half).saturating_sub(here.0);
        let before = self.0.load(Ordering::Relaxed);
        if ahead.abs_diff(before) > u64::try_from(half).unwrap_or(0) + 5 {
            self.0.store(ahead, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_from_when_the_heartbeat_was_sent() {
        let lease = Lease::default();
        assert!(!lease.holds());
        let now = Instant::now();
        lease.renew(now, Duration::from_secs(3));
        assert!(lease.holds());
        // An older echo that comes late takes nothing away.
        lease.renew(now.checked_sub(Duration::from_secs(5)).unwrap_or(now), Duration::ZERO);
        assert!(lease.holds());
    }

    #[test]
    fn the_clock_follows_a_difference_that_the_round_trip_does_not_explain() {
        let clock = Clock::default();
        let here = Millis(1_000_000);
        clock.hear(Millis(1_000_003), here, Duration::from_millis(4));
        assert_eq!(clock.0.load(Ordering::Relaxed), 0);
        clock.hear(Millis(1_060_000), here, Duration::from_millis(4));
        assert_eq!(clock.0.load(Ordering::Relaxed), 60_002);
    }
}
