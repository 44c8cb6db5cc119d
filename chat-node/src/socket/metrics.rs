//! What is counted of sockets and of live delivery. Labels come from closed tables of our own.

use common::wire::codes::CloseCode;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of sockets and of what is delivered over them, on one registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SocketMetrics {
    /// Open sockets.
    pub sockets: IntGauge,
    /// Frames that clients sent.
    pub frames_in: IntCounter,
    /// Texts put into outboxes.
    pub delivered: IntCounter,
    /// Times that a chat's owner was asked for missed changes.
    pub repairs: IntCounter,
    /// Times that missed changes could not be had, and clients were told to read the chat again.
    pub reloads: IntCounter,
    /// Times that a partition's owner was asked what changed since its last mark.
    pub caught_up: IntCounter,
    /// Sessions that were slower than their chats.
    pub slow_consumers: IntCounter,
    closes: IntCounterVec,
    resumed_chats: IntCounterVec,
    missed: IntCounter,
}

impl SocketMetrics {
    /// New ones, registered.
    ///
    /// # Errors
    /// When the registry has some already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            sockets: IntGauge::new("chat_sockets", "Open sockets")?,
            frames_in: IntCounter::new("chat_socket_frames_received_total", "Frames that clients sent")?,
            delivered: IntCounter::new("chat_events_delivered_total", "Events put into sessions' outboxes")?,
            repairs: IntCounter::new(
                "chat_repairs_total",
                "Times that an owner was asked for missed changes",
            )?,
            reloads: IntCounter::new(
                "chat_reloads_total",
                "Times that missed changes could not be had any more",
            )?,
            caught_up: IntCounter::new(
                "chat_marks_missed_total",
                "Times that an owner was asked what changed since its last mark",
            )?,
            slow_consumers: IntCounter::new("chat_slow_consumers_total", "Sessions slower than their chats")?,
            closes: IntCounterVec::new(
                Opts::new("chat_socket_closes_total", "Sockets that were closed, by reason"),
                &["reason"],
            )?,
            resumed_chats: IntCounterVec::new(
                Opts::new(
                    "chat_resumed_chats_total",
                    "Chats that changed while a session was away, by outcome",
                ),
                &["outcome"],
            )?,
            missed: IntCounter::new(
                "chat_missed_events_total",
                "Events that sessions were sent when they came back",
            )?,
        };
        registry.register(Box::new(metrics.sockets.clone()))?;
        for counter in [
            &metrics.frames_in,
            &metrics.delivered,
            &metrics.repairs,
            &metrics.reloads,
            &metrics.caught_up,
            &metrics.slow_consumers,
            &metrics.missed,
        ] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(metrics.closes.clone()))?;
        registry.register(Box::new(metrics.resumed_chats.clone()))?;
        Ok(metrics)
    }

    /// A session came back, and was sent what it missed of so many chats; so many others it is to read.
    pub fn resumed(&self, complete: usize, incomplete: usize, events: usize) {
        self.resumed_chats.with_label_values(&["complete"]).inc_by(complete as u64);
        self.resumed_chats.with_label_values(&["incomplete"]).inc_by(incomplete as u64);
        self.missed.inc_by(events as u64);
    }

    /// A socket was closed by this side with `code`, or by the client (none).
    pub fn closed(&self, code: Option<CloseCode>) {
        self.closes.with_label_values(&[code.map_or("client", CloseCode::word)]).inc();
        if code == Some(CloseCode::SlowConsumer) {
            self.slow_consumers.inc();
        }
    }
}
