//! Doing many small things over a while and not all at once: whoever sends a message meanwhile would wait behind them on each of its many
//! steps, and yielding alone keeps every thread busy until all is done.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// From some of them to the next, at least: two ticks of the runtime's clock.
const STEP: Duration = Duration::from_millis(2);

/// How fast things are done.
pub(crate) struct Pace {
    steps: Interval,
    in_a_step: usize,
    begun: usize,
}

impl Pace {
    /// So many things, evenly over `time`, or longer where steps come late; `at_least` so many at once.
    pub(crate) fn over(time: Duration, count: usize, at_least: usize) -> Self {
        let most = usize::try_from(time.as_micros() / STEP.as_micros()).unwrap_or(usize::MAX).max(1);
        let in_a_step = count.div_ceil(most).max(at_least).max(1);
        let steps = u32::try_from(count.div_ceil(in_a_step)).unwrap_or(u32::MAX).max(1);
        let mut steps = interval((time / steps).max(STEP));
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { steps, in_a_step, begun: 0 }
    }

    /// Resolves when the next one is due.
    pub(crate) async fn next(&mut self) {
        if self.begun.is_multiple_of(self.in_a_step) {
            self.steps.tick().await;
        }
        self.begun += 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn took(time: Duration, count: usize, at_least: usize) -> Duration {
        let begun = Instant::now();
        let mut pace = Pace::over(time, count, at_least);
        for _ in 0..count {
            pace.next().await;
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn things_are_spread_over_their_time_unless_they_are_few() {
        let time = Duration::from_millis(200);
        assert_eq!(took(time, 16, 16).await, Duration::ZERO);
        assert_eq!(took(time, 17, 16).await, time / 2);
        for many in [64, 1_000, 10_000] {
            let long = took(time, many, 16).await;
            assert!(long <= time && long > time / 2, "{long:?} for {many}");
        }
        assert_eq!(took(Duration::ZERO, 1_000, 0).await, Duration::ZERO);
    }
}
