//! What a dispatcher counts, on a registry of its own: several run in one process.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    process_collector::ProcessCollector,
};

/// The dispatcher's instruments.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Nodes that hold a lease.
    pub nodes: IntGauge,
    /// The placement's epoch.
    pub epoch: IntGauge,
    /// Topics that any node has registered.
    pub topics: IntGauge,
    /// Requests for which there was no owner to ask.
    pub undeliverable: IntCounter,
    /// Gaps that were told to nodes.
    pub gaps: IntCounter,
    /// Frames of nodes that could not be read.
    pub bad_frames: IntCounter,
    /// Registrations of topics that were refused because the node has too many.
    pub interest_refused: IntCounter,
    /// Seconds from a gateway request to the head of its answer.
    pub gateway_seconds: Histogram,
    forwarded: IntCounterVec,
    locations: IntCounterVec,
    gateway: IntCounterVec,
}

impl Metrics {
    /// New instruments, all at zero.
    ///
    /// # Errors
    /// Never in practice: two instruments of one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            nodes: IntGauge::new("dispatcher_nodes", "Nodes that hold a lease.")?,
            epoch: IntGauge::new("dispatcher_placement_epoch", "Epoch of ring and table.")?,
            topics: IntGauge::new("dispatcher_topics", "Topics that any node has registered.")?,
            undeliverable: IntCounter::new(
                "dispatcher_undeliverable_total",
                "Requests to owners that could not be passed on.",
            )?,
            gaps: IntCounter::new("dispatcher_gaps_total", "Gaps in live delivery that were told to nodes.")?,
            bad_frames: IntCounter::new(
                "dispatcher_bad_frames_total",
                "Frames of nodes that could not be read.",
            )?,
            interest_refused: IntCounter::new(
                "dispatcher_interest_refused_total",
                "Registrations of topics that were refused because the node has too many.",
            )?,
            gateway_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "dispatcher_gateway_seconds",
                    "From a REST request to the head of its answer.",
                )
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0]),
            )?,
            forwarded: IntCounterVec::new(
                Opts::new("dispatcher_forwarded_total", "Frames passed on to nodes."),
                &["kind"],
            )?,
            locations: IntCounterVec::new(
                Opts::new("dispatcher_locations_total", "Answers to requests for a location."),
                &["outcome"],
            )?,
            gateway: IntCounterVec::new(
                Opts::new("dispatcher_gateway_total", "Outcomes of REST requests passed on to nodes."),
                &["outcome"],
            )?,
            registry,
        };
        metrics.registry.register(Box::new(ProcessCollector::for_self()))?;
        metrics.registry.register(Box::new(metrics.nodes.clone()))?;
        metrics.registry.register(Box::new(metrics.epoch.clone()))?;
        metrics.registry.register(Box::new(metrics.topics.clone()))?;
        metrics.registry.register(Box::new(metrics.undeliverable.clone()))?;
        metrics.registry.register(Box::new(metrics.gaps.clone()))?;
        metrics.registry.register(Box::new(metrics.bad_frames.clone()))?;
        metrics.registry.register(Box::new(metrics.interest_refused.clone()))?;
        metrics.registry.register(Box::new(metrics.gateway_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.forwarded.clone()))?;
        metrics.registry.register(Box::new(metrics.locations.clone()))?;
        metrics.registry.register(Box::new(metrics.gateway.clone()))?;
        Ok(metrics)
    }

    /// A frame was passed on.
    pub fn forwarded(&self, kind: &'static str) {
        self.forwarded.with_label_values(&[kind]).inc();
    }

    /// A location was answered, or refused.
    pub fn location(&self, outcome: &'static str) {
        self.locations.with_label_values(&[outcome]).inc();
    }

    /// A REST request was passed on, or not.
    pub fn gateway(&self, outcome: &'static str) {
        self.gateway.with_label_values(&[outcome]).inc();
    }

    /// Everything in the text form that Prometheus reads, and its content type.
    pub fn text(&self) -> (String, String) {
        let encoder = TextEncoder::new();
        let mut text = String::new();
        if let Err(error) = encoder.encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        (text, encoder.format_type().to_owned())
    }
}
