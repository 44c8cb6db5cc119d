//! Token buckets, kept as one number each: the time at which the bucket is full again.

use std::{sync::Arc, time::Duration};

use moka::{policy::EvictionPolicy, sync::Cache};
use parking_lot::Mutex;

use crate::{
    cache::{Grant, LimitPolicy},
    ids::AppId,
    time::Millis,
};

/// What a bucket costs beside the bytes of its key.
const BUCKET_OVERHEAD: usize = 160;

/// The slowest a bucket fills: one a day.
const SLOWEST: f64 = 1.0 / 86_400.0;

#[derive(Debug)]
pub(super) struct Buckets(Cache<(AppId, Box<str>), Arc<Mutex<Micros>>>);

/// A moment, in microseconds since 1970.
type Micros = i64;

impl Buckets {
    pub(super) fn new(bytes: u64) -> Self {
        let weight = |key: &(AppId, Box<str>), _: &Arc<Mutex<Micros>>| {
            u32::try_from(key.1.len().saturating_add(BUCKET_OVERHEAD)).unwrap_or(u32::MAX)
        };
        Self(
            Cache::builder()
                .max_capacity(bytes)
                .weigher(weight)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        )
    }

    pub(super) fn take(&self, app: AppId, key: &str, cost: u32, policy: LimitPolicy, now: Millis) -> Grant {
        let bucket = self.0.get_with((app, key.into()), Arc::default);
        let mut full_at = bucket.lock();
        let (grant, then) = take(*full_at, cost, policy, now);
        *full_at = then;
        grant
    }

    pub(super) fn clear(&self) {
        self.0.invalidate_all();
    }
}

/// The answer of a bucket that is full at that moment, and when it is full afterwards.
fn take(full_at: Micros, cost: u32, policy: LimitPolicy, now: Millis) -> (Grant, Micros) {
    let now = now.0.saturating_mul(1000);
    let burst = policy.burst.max(1);
    // `max` also replaces what is no number.
    let one = ((1e6 / policy.per_second.max(SLOWEST)) as Micros).max(1);
    let empty_to_full = one.saturating_mul(i64::from(burst));
    let full_at = full_at.clamp(now, now.saturating_add(empty_to_full));
    let then = full_at.saturating_add(one.saturating_mul(i64::from(cost.min(burst))));
    let over = then.saturating_sub(now).saturating_sub(empty_to_full);
    match u64::try_from(over) {
        // A caller counts in milliseconds: the wait is rounded up to where it is enough.
        Ok(over) if over > 0 => (Grant::RetryAfter(Duration::from_millis(over.div_ceil(1000))), full_at),
        _ => (Grant::Granted, then),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_more_is_granted_than_the_burst_and_what_flowed_in(
            per_second in 0.01_f64..500.0,
            burst in 1_u32..50,
            steps in proptest::collection::vec((0_i64..3000, 1_u32..10), 1..200),
        ) {
            let policy = LimitPolicy { per_second, burst };
            let (mut full_at, mut now, mut granted) = (0, Millis(1_000_000), 0.0);
            let start = now;
            for (wait, cost) in steps {
                now = Millis(now.0 + wait);
                let cost = cost.min(burst);
                let (grant, then) = take(full_at, cost, policy, now);
                match grant {
                    Grant::Granted => granted += f64::from(cost),
                    Grant::RetryAfter(after) => {
                        prop_assert_eq!(then, full_at.max(now.0 * 1000), "nothing was taken");
                        let later = now.plus(after);
                        prop_assert_eq!(take(then, cost, policy, later).0, Grant::Granted, "the wait is enough");
                    }
                }
                full_at = then;
                let flowed = (now.0 - start.0) as f64 / 1000.0 * per_second;
                prop_assert!(granted <= (f64::from(burst) + flowed) * 1.001 + 0.01, "{granted} of {flowed} + {burst}");
            }
        }
    }

    #[test]
    fn a_policy_that_makes_no_sense_still_answers() {
        for per_second in [f64::NAN, 0.0, -1.0, f64::INFINITY, f64::MIN_POSITIVE] {
            let policy = LimitPolicy { per_second, burst: 0 };
            for now in [i64::MIN, 0, i64::MAX] {
                let (_, then) = take(0, u32::MAX, policy, Millis(now));
                let _ = take(then, 0, policy, Millis(now));
            }
        }
        let daily = LimitPolicy { per_second: f64::NAN, burst: 1 };
        let (first, then) = take(0, 1, daily, Millis(0));
        assert_eq!(first, Grant::Granted);
        assert_eq!(take(then, 1, daily, Millis(0)).0, Grant::RetryAfter(Duration::from_secs(86_400)));
    }

    #[test]
    fn a_clock_that_was_ahead_empties_a_bucket_and_no_more() {
        let policy = LimitPolicy { per_second: 1.0, burst: 2 };
        let (_, then) = take(0, 2, policy, Millis(1_000_000_000));
        let (grant, _) = take(then, 1, policy, Millis(0));
        assert_eq!(grant, Grant::RetryAfter(Duration::from_secs(1)));
    }
}
