//! How fast somebody writes in a chat (SP-1): a token bucket for each, in the owner's memory. The owner decides for everybody, whichever
//! node or door a message came by, so nothing is shared. A new owner begins with full buckets, and so does a chat that
//! nobody has used for two minutes.

use std::{collections::HashMap, time::Duration};

use common::{applications::MessageRate, ids::UserId};
use tokio::time::Instant;

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
        // Not `> 0.0`: what is no number limits nobody.
        if !rate.per_second.is_normal() || rate.per_second < 0.0 {
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
        self.0.retain(|_, bucket| bucket.filled(rate, now) < f64::from(rate.burst.max(1)));
    }
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
        rates.forget(rate, start + Duration::from_secs(10));
        assert!(rates.0.is_empty());
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
