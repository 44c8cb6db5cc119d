//! Counts and latencies of a run, taken while it runs and read when it is over.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use common::wire::codes::{CloseCode, ErrorCode};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    client::{
        Observer, OpenError,
        frames::{Event, Happened},
        http::HttpError,
    },
    workload::body,
};

/// The longest latency that is told apart: two minutes, in microseconds.
const LONGEST: u64 = 120_000_000;

/// Microseconds, in a histogram of three significant digits. (Absent only if the histogram did not take its constant bounds.)
#[derive(Debug)]
pub struct Latencies(Mutex<Option<Histogram<u64>>>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Mutex::new(Histogram::new_with_bounds(1, LONGEST, 3).ok()))
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&self, micros: u64) {
        if let Some(histogram) = self.0.lock().as_mut() {
            histogram.saturating_record(micros.max(1));
        }
    }

    /// How many were recorded so far.
    pub fn count(&self) -> u64 {
        self.0.lock().as_ref().map_or(0, Histogram::len)
    }

    /// What was recorded so far.
    pub fn percentiles(&self) -> Percentiles {
        let histogram = self.0.lock();
        let Some(histogram) = histogram.as_ref() else { return Percentiles::default() };
        let ms = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Percentiles {
            count: histogram.len(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: histogram.max() as f64 / 1_000.0,
        }
    }
}

/// A latency's distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Of how many.
    pub count: u64,
    /// Half are below.
    pub p50_ms: f64,
    /// 99 of 100 are below.
    pub p99_ms: f64,
    /// 999 of 1,000 are below.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        let Self { p50_ms, p99_ms, p999_ms, max_ms, .. } = self;
        write!(f, "p50 {p50_ms:.2} ms   p99 {p99_ms:.2} ms   p99.9 {p999_ms:.2} ms   max {max_ms:.2} ms")
    }
}

/// What the devices of a load did and saw, within the time that is measured.
#[derive(Debug)]
pub struct Figures {
    from: AtomicU64,
    to: AtomicU64,
    /// Acks that came.
    pub acks: AtomicU64,
    /// Messages that came.
    pub deliveries: AtomicU64,
    /// From when a send was due to its ack.
    pub ack: Latencies,
    /// From when a send was due to its arrival.
    pub delivery: Latencies,
    /// Events that were missing.
    pub gaps: AtomicU64,
    /// What went wrong, by its word.
    pub errors: Mutex<BTreeMap<String, u64>>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            from: AtomicU64::new(u64::MAX),
            to: AtomicU64::new(u64::MAX),
            acks: AtomicU64::default(),
            deliveries: AtomicU64::default(),
            ack: Latencies::default(),
            delivery: Latencies::default(),
            gaps: AtomicU64::default(),
            errors: Mutex::default(),
        }
    }
}

impl Figures {
    /// What comes between these two moments of the run's clock counts.
    pub fn measure(&self, from: u64, to: u64) {
        self.from.store(from, Ordering::Relaxed);
        self.to.store(to, Ordering::Relaxed);
    }

    /// Counts something that went wrong.
    pub fn error(&self, word: impl Into<String>) {
        *self.errors.lock().entry(word.into()).or_default() += 1;
    }

    /// Whether a moment lies in the measured time. Counts go by when something came; latencies by when it was due, however late it came.
    fn measured(&self, at: u64) -> bool {
        (self.from.load(Ordering::Relaxed)..self.to.load(Ordering::Relaxed)).contains(&at)
    }
}

impl Observer for Figures {
    fn acked(&self, scheduled: u64, now: u64) {
        if self.measured(now) {
            self.acks.fetch_add(1, Ordering::Relaxed);
        }
        if self.measured(scheduled) {
            self.ack.record(now.saturating_sub(scheduled));
        }
    }

    fn refused(&self, code: ErrorCode, _: bool) {
        self.error(code.word());
    }

    fn event(&self, event: &Event, now: u64) {
        let Happened::Message(message) = &event.what else { return };
        if self.measured(now) {
            self.deliveries.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(scheduled) = body::scheduled(&message.body).filter(|scheduled| self.measured(*scheduled))
        {
            self.delivery.record(now.saturating_sub(scheduled));
        }
    }

    fn gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    fn broken(&self, code: Option<u16>) {
        self.error(closed(code));
    }

    fn not_opened(&self, error: &OpenError) {
        self.error(open_error(error));
    }
}

/// A word for how a socket ended.
pub fn closed(code: Option<u16>) -> String {
    match (code, code.and_then(CloseCode::from_code)) {
        (_, Some(known)) => format!("closed: {}", known.word()),
        (Some(code), None) => format!("closed: {code}"),
        (None, None) => "connection lost".to_owned(),
    }
}

/// A word for why a socket did not open.
pub fn open_error(error: &OpenError) -> String {
    match error {
        OpenError::Location(error) => http_error(error),
        OpenError::Unreachable { .. } => "node unreachable".to_owned(),
        OpenError::Closed { code, .. } => closed(*code),
        OpenError::Unexpected { .. } => "not ready".to_owned(),
    }
}

/// A word for why a request has no result.
pub fn http_error(error: &HttpError) -> String {
    match error {
        HttpError::Refused { word, status, .. } => format!("http {}: {word}", status.as_u16()),
        HttpError::NoAnswer { .. } => "http: no answer".to_owned(),
        HttpError::Unexpected { .. } => "http: unexpected answer".to_owned(),
    }
}
