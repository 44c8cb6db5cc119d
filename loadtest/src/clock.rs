//! One clock for a whole run: what one device wrote down can be compared in time with what another did.

use std::time::Instant;

/// Microseconds since the run began. Journals of one clock can be compared; the id says whether two are of one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    id: u64,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self { began: Instant::now(), id: rand::random() }
    }

    /// Which clock this is: random, so that journals of two processes are never taken for one's.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Microseconds since the clock began.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// When `micros` is, for timers.
    pub fn instant(&self, micros: u64) -> Instant {
        self.began + std::time::Duration::from_micros(micros)
    }
}
