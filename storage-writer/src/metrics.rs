//! What a writer tells about itself.

use common::ids::Partition;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets,
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
        registry.register(Box::new(records.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(stopped.clone()))?;
        registry.register(Box::new(batch_records.clone()))?;
        registry.register(Box::new(batch_seconds.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(store_errors.clone()))?;
        Ok(Self { records, lag, stopped, batch_records, batch_seconds, refused, store_errors })
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
