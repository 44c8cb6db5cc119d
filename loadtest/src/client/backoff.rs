//! How long to wait before trying again.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(100);

/// Long enough that ten thousand clients of a dead node are 2,000 attempts a second and no more.
const LONGEST: Duration = Duration::from_secs(5);

/// The wait before the attempt after `failures` (at least 1) failed ones: doubled each time, with half of it left to chance, so that
/// those who fell together do not come back together.
pub(crate) fn backoff(failures: u32, random: &mut impl Rng) -> Duration {
    let doubled = FIRST.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(LONGEST).mul_f64(random.random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_never_overflow() {
        let mut random = rand::rng();
        assert!(backoff(1, &mut random) <= FIRST);
        assert!(backoff(3, &mut random) >= FIRST * 2);
        for failures in [7, 31, 32, 33, u32::MAX] {
            let wait = backoff(failures, &mut random);
            assert!((LONGEST / 2..=LONGEST).contains(&wait), "{failures}: {wait:?}");
        }
    }
}
