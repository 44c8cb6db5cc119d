//! What a writer tells about itself.

use std::time::Duration;

use common::{ids::Partition, store::Attempt};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

use crate::batch::Counts;

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    records: IntCounterVec,
    lag: IntGaugeVec,
    stopped: IntGaugeVec,
    batch_records: Histogram,
    batch_seconds: Histogram,
    pub(crate) refused: IntCounter,
    pub(crate) store_errors: IntCounter,
    pub(crate) segments: IntCounter,
    pub(crate) expired: IntCounter,
    pub(crate) forgotten: IntCounter,
    looks: IntCounterVec,
    notifications: IntCounterVec,
    deliveries: IntCounterVec,
    delivery_seconds: Histogram,
    oldest_pending: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let records = IntCounterVec::new(
            Opts::new(
                "writer_records_total",
                "Records drained: applied, void (another owner's), claims, dead (no record at all)",
            ),
            &["outcome"],
        )?;
        let lag = IntGaugeVec::new(
            Opts::new("writer_lag_records", "Records of the log that are not in the store yet"),
            &["partition"],
        )?;
        let stopped = IntGaugeVec::new(
            Opts::new(
                "writer_partition_stopped",
                "1 while a partition waits for an operator; the log says why",
            ),
            &["partition"],
        )?;
        let batch_records = Histogram::with_opts(
            HistogramOpts::new("writer_batch_records", "Records of one transaction")
                .buckets(exponential_buckets(1.0, 4.0, 8)?),
        )?;
        let batch_seconds = Histogram::with_opts(
            HistogramOpts::new("writer_batch_seconds", "How long one transaction took")
                .buckets(exponential_buckets(0.001, 2.0, 14)?),
        )?;
        let refused = IntCounter::new(
            "writer_refused_total",
            "Batches refused because another writer had moved the position",
        )?;
        let store_errors = IntCounter::new(
            "writer_store_errors_total",
            "Calls that the store did not answer, or not in time",
        )?;
        let segments = IntCounter::new("writer_index_segments_total", "Segments of the search index made")?;
        let expired =
            IntCounter::new("writer_expired_total", "Messages that ended because their time was over")?;
        let forgotten = IntCounter::new(
            "writer_log_forgotten_total",
            "Records that the log forgot because they were drained long ago",
        )?;
        let looks = IntCounterVec::new(
            Opts::new(
                "writer_notify_looks_total",
                "Looks that came to their end: at chats for who is to be notified, at webhooks and browsers for what is to be sent",
            ),
            &["at"],
        )?;
        let notifications = IntCounterVec::new(
            Opts::new(
                "writer_notifications_total",
                "Members who were to be notified of a chat: made, or held because it is quiet where they are",
            ),
            &["outcome"],
        )?;
        let deliveries = IntCounterVec::new(
            Opts::new(
                "writer_deliveries_total",
                "Attempts to send a notification, to a webhook or a browser: delivered, failed (and tried again), given_up",
            ),
            &["to", "outcome"],
        )?;
        let delivery_seconds = Histogram::with_opts(
            HistogramOpts::new("writer_delivery_seconds", "From a notification to its being taken")
                .buckets(exponential_buckets(0.01, 4.0, 13)?),
        )?;
        let oldest_pending = IntGauge::new(
            "writer_notify_oldest_pending_seconds",
            "How long the oldest notification of the whole store waits to be sent, to an endpoint that is switched off as well",
        )?;
        registry.register(Box::new(oldest_pending.clone()))?;
        registry.register(Box::new(looks.clone()))?;
        registry.register(Box::new(notifications.clone()))?;
        registry.register(Box::new(deliveries.clone()))?;
        registry.register(Box::new(delivery_seconds.clone()))?;
        registry.register(Box::new(expired.clone()))?;
        registry.register(Box::new(forgotten.clone()))?;
        registry.register(Box::new(records.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(stopped.clone()))?;
        registry.register(Box::new(batch_records.clone()))?;
        registry.register(Box::new(batch_seconds.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(store_errors.clone()))?;
        registry.register(Box::new(segments.clone()))?;
        Ok(Self {
            records,
            lag,
            stopped,
            batch_records,
            batch_seconds,
            refused,
            store_errors,
            segments,
            expired,
            forgotten,
            looks,
            notifications,
            deliveries,
            delivery_seconds,
            oldest_pending,
        })
    }

    pub(crate) fn drained(&self, counts: Counts) {
        for (outcome, count) in [
            ("applied", counts.applied),
            ("void", counts.void),
            ("claim", counts.claims),
            ("dead", counts.dead),
        ] {
            self.records.with_label_values(&[outcome]).inc_by(count);
        }
    }

    /// A look at what is to be notified came to its end.
    pub(crate) fn looked_at(&self, what: &str) {
        self.looks.with_label_values(&[what]).inc();
    }

    /// Members of a chat who were told, and who will be when it is quiet no more.
    pub(crate) fn notified(&self, made: usize, held: usize) {
        self.notifications.with_label_values(&["made"]).inc_by(made as u64);
        self.notifications.with_label_values(&["held"]).inc_by(held as u64);
    }

    pub(crate) fn attempted(&self, is_browser: bool, attempt: &Attempt) {
        let outcome = match attempt {
            Attempt::Delivered { .. } => "delivered",
            Attempt::Failed { .. } => "failed",
            Attempt::GivenUp { .. } => "given_up",
            Attempt::Split(_) => return,
        };
        let to = if is_browser { "browser" } else { "webhook" };
        self.deliveries.with_label_values(&[to, outcome]).inc();
    }

    /// So long after it came up.
    pub(crate) fn delivered(&self, after: Duration) {
        self.delivery_seconds.observe(after.as_secs_f64());
    }

    /// How long the oldest notification waits; none: nothing does.
    pub(crate) fn oldest_pending(&self, waits: Option<Duration>) {
        let seconds = waits.unwrap_or_default().as_secs();
        self.oldest_pending.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Of one transaction, whatever came of it.
    pub(crate) fn transaction(&self, records: u64, seconds: f64) {
        self.batch_records.observe(records as f64);
        self.batch_seconds.observe(seconds);
    }

    pub(crate) fn lag(&self, partition: Partition, records: u64) {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.lag.with_label_values(&[partition.to_string()]).set(records);
    }

    pub(crate) fn stopped(&self, partition: Partition, stopped: bool) {
        self.stopped.with_label_values(&[partition.to_string()]).set(i64::from(stopped));
    }

    /// The partition is another writer's to tell about. That there was nothing to forget is no error.
    pub(crate) fn forget(&self, partition: Partition) {
        let label = partition.to_string();
        drop(self.lag.remove_label_values(&[&label]));
        drop(self.stopped.remove_label_values(&[&label]));
    }
}
