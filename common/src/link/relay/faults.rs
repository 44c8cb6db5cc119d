//! What a path does to one datagram. Pure: it is told the time, and chance is a seed's.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// How much a narrow path holds each way before it drops, as the time it takes to send that: a small router's buffer.
const BACKLOG: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    There,
    Back,
}

/// When a datagram goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Leaves {
    pub(super) at: Instant,
    /// When a second copy does.
    pub(super) again: Option<Instant>,
}

/// What is wrong with the path now.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) target: SocketAddr,
    pub(super) cut_there: bool,
    pub(super) cut_back: bool,
    /// Shares from 0 to 1.
    pub(super) loss: f64,
    pub(super) doubled: f64,
    pub(super) delay: Duration,
    /// By how much more than `delay` a datagram is held, at most.
    pub(super) jitter: Duration,
    /// Bytes a second, each way.
    pub(super) rate: Option<u32>,
    /// Until when the narrow path is busy with what came before: there, back.
    busy: (Option<Instant>, Option<Instant>),
    chance: StdRng,
}

impl Faults {
    /// None.
    pub(super) fn none(target: SocketAddr) -> Self {
        Self {
            target,
            cut_there: false,
            cut_back: false,
            loss: 0.0,
            doubled: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            busy: (None, None),
            chance: StdRng::seed_from_u64(0),
        }
    }

    /// Takes all of them away; chance goes on where it was.
    pub(super) fn heal(&mut self) {
        let chance = self.chance.clone();
        *self = Self { chance, ..Self::none(self.target) };
    }

    /// Chance begins anew.
    pub(super) fn seed(&mut self, seed: u64) {
        self.chance = StdRng::seed_from_u64(seed);
    }

    /// When a datagram of so many bytes goes on; `None`: it is dropped.
    pub(super) fn judge(&mut self, way: Way, bytes: usize, now: Instant) -> Option<Leaves> {
        let cut = if way == Way::There { self.cut_there } else { self.cut_back };
        if cut || self.happens(self.loss) {
            return None;
        }
        let through = self.through(way, bytes, now)?;
        let at = through + self.held();
        let again = self.happens(self.doubled).then(|| through + self.held());
        Some(Leaves { at, again })
    }

    /// When the datagram is through the narrow part; `None`: too much waits there already.
    fn through(&mut self, way: Way, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.rate else { return Some(now) };
        let busy = if way == Way::There { &mut self.busy.0 } else { &mut self.busy.1 };
        let free = busy.unwrap_or(now).max(now);
        if free.saturating_duration_since(now) > BACKLOG {
            return None;
        }
        let through = free + Duration::from_secs_f64(bytes as f64 / f64::from(rate.max(1)));
        *busy = Some(through);
        Some(through)
    }

    fn held(&mut self) -> Duration {
        if self.jitter.is_zero() {
            self.delay
        } else {
            self.delay + self.jitter.mul_f64(self.chance.random())
        }
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.chance.random_bool(share.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn faults() -> Faults {
        Faults::none((Ipv4Addr::LOCALHOST, 9).into())
    }

    #[test]
    fn without_faults_everything_leaves_at_once_and_after_healing_again() {
        let (mut faults, now) = (faults(), Instant::now());
        let at_once = Some(Leaves { at: now, again: None });
        assert_eq!(faults.judge(Way::There, 100, now), at_once);
        (faults.cut_there, faults.doubled, faults.delay, faults.rate) =
            (true, 1.0, Duration::from_secs(1), Some(1));
        assert_eq!(faults.judge(Way::There, 100, now), None);
        assert!(faults.judge(Way::Back, 100, now).is_some_and(|leaves| leaves.again.is_some()));
        faults.heal();
        assert_eq!(faults.judge(Way::There, 100, now), at_once);
        assert_eq!(faults.judge(Way::Back, 100, now), at_once);
    }

    #[test]
    fn the_same_seed_drops_doubles_and_holds_the_same() {
        let now = Instant::now();
        let run = |seed| {
            let mut faults = faults();
            (faults.loss, faults.doubled, faults.jitter) = (0.3, 0.3, Duration::from_millis(50));
            faults.seed(seed);
            (0..100).map(|_| faults.judge(Way::There, 1_000, now)).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
        let dropped = run(5).iter().filter(|leaves| leaves.is_none()).count();
        assert!((15..45).contains(&dropped), "{dropped} of 100 at 0.3");
    }

    #[test]
    fn a_narrow_path_sends_one_after_the_other_and_drops_what_it_cannot_hold() {
        let (mut faults, now) = (faults(), Instant::now());
        faults.rate = Some(10_000);
        let left: Vec<_> = (0..10).filter_map(|_| faults.judge(Way::There, 1_000, now)).collect();
        let after: Vec<_> = left.iter().map(|leaves| (leaves.at - now).as_millis()).collect();
        assert_eq!(
            after,
            [100, 200, 300],
            "a second's worth at once: what waits longer than the backlog is dropped"
        );
        assert!(faults.judge(Way::Back, 1_000, now).is_some(), "each way has its own");
        assert!(faults.judge(Way::There, 1_000, now + Duration::from_millis(100)).is_some());
    }
}
