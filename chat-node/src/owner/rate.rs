//! How fast somebody writes in a chat (SP-1), be it new messages or new texts of old ones, which all members are told as well: a token bucket for each, in the owner's memory. The owner decides for everybody, whichever
//! node or door a message came by, so nothing is shared. A new owner begins with full buckets. A chat that nobody uses stays in memory until its
//! buckets are full, a day at most ([`KEPT`]), unless the room is needed for others.

use std::{collections::HashMap, time::Duration};

use common::{applications::MessageRate, ids::UserId};
use tokio::time::Instant;

/// How long a chat that nobody uses is kept for the sake of buckets that are not full: the default fills in 10 s, and at a message a day,
/// which is as slow as any rate needs to be, one flows in meanwhile.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The buckets of one chat: of those who have written of late.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<UserId, Bucket>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What it held.
    tokens: f64,
    /// When.
    at: Instant,
}

impl Bucket {
    fn filled(self, rate: MessageRate, now: Instant) -> f64 {
        let flowed = now.duration_since(self.at).as_secs_f64() * rate.per_second;
        (self.tokens + flowed).min(f64::from(rate.burst.max(1)))
    }
}

impl Rates {
    /// Takes one message's worth; else how long until there is one.
    pub(super) fn take(&mut self, user: UserId, rate: MessageRate, now: Instant) -> Result<(), Duration> {
        if is_none(rate) {
            return Ok(());
        }
        let full = Bucket { tokens: f64::from(rate.burst.max(1)), at: now };
        let bucket = self.0.entry(user).or_insert(full);
        let tokens = bucket.filled(rate, now);
        if tokens < 1.0 {
            let wait = (1.0 - tokens) / rate.per_second;
            return Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX));
        }
        *bucket = Bucket { tokens: tokens - 1.0, at: now };
        Ok(())
    }

    /// Forgets the buckets that are full again.
    pub(super) fn forget(&mut self, rate: MessageRate, now: Instant) {
        let none = is_none(rate);
        self.0.retain(|_, bucket| !none && bucket.filled(rate, now) < f64::from(rate.burst.max(1)));
    }

    /// Whether all of them are full, as far as [`Self::forget`] has seen.
    pub(super) fn are_full(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a rate limits nobody. Not `<= 0.0`: what is no number is none.
fn is_none(rate: MessageRate) -> bool {
    !rate.per_second.is_normal() || rate.per_second < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_through_and_then_one_at_a_time_each_user_for_themself() {
        let rate = MessageRate { per_second: 2.0, burst: 3 };
        let (ana, ben, start) = (UserId::random(), UserId::random(), Instant::now());
        let mut rates = Rates::default();
        let taken = (0..5).filter(|_| rates.take(ana, rate, start).is_ok()).count();
        assert_eq!(taken, 3);
        let wait = rates.take(ana, rate, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(rates.take(ben, rate, start), Ok(()));
        assert_eq!(rates.take(ana, rate, start + wait), Ok(()), "after the wait that was told");
        assert!(rates.take(ana, rate, start + wait).is_err());
        rates.forget(rate, start + Duration::from_secs(1));
        assert_eq!(rates.0.len(), 1, "only who is not full again is remembered");
        assert!(!rates.are_full());
        rates.forget(rate, start + Duration::from_secs(10));
        assert!(rates.are_full());
        // An application that limits nobody any more leaves none behind.
        assert_eq!(rates.take(ana, rate, start), Ok(()));
        rates.forget(MessageRate::UNLIMITED, start);
        assert!(rates.are_full());
    }

    #[tokio::test]
    async fn no_rate_is_no_limit() {
        let mut rates = Rates::default();
        for rate in [MessageRate::UNLIMITED, MessageRate { per_second: f64::NAN, burst: 1 }] {
            assert!((0..100).all(|_| rates.take(UserId::random(), rate, Instant::now()).is_ok()));
        }
        assert!(rates.0.is_empty());
    }
}
