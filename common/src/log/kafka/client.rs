//! What every client of the library is told, and where its own words go.

use std::time::Duration;

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};
use tracing::{debug, error, warn};

use super::settings::{GroupProtocol, KafkaSettings};

/// How long one request to the brokers may take, where somebody waits for it.
pub(super) const REQUEST_WAIT: Duration = Duration::from_secs(5);

/// How long the broker may hold a member's fetch for which it has less than [`TAIL_BYTES`]. What is started meanwhile waits for it, and so
/// does whoever changes who is in a chat.
pub(super) const TAIL_WAIT: Duration = Duration::from_millis(50);

/// Bytes of records for which the broker answers a member at once. Answered for each record, a member took a sixth of a small machine at
/// 1,000 a second, and the broker and the store as much again; 64 KiB are some 250 records.
const TAIL_BYTES: &str = "65536";

/// The same for reads of ranges: they fetch only where records are, so a short one costs nothing, and the next read waits for it.
pub(super) const RANGE_WAIT: Duration = Duration::from_millis(10);

/// What is queued in a consumer, in KiB: four batches of a partition.
const CONSUMER_QUEUE_KIB: &str = "16384";

fn base(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.brokers.join(","))
        .set("client.id", "chat")
        // By default the pauses double to 10 s: a client then sleeps beside a broker that is back.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .set("socket.nagle.disable", "true")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    config
}

fn overridden(mut config: ClientConfig, settings: &KafkaSettings) -> ClientConfig {
    for (key, value) in &settings.overrides {
        config.set(key, value);
    }
    config
}

/// For topics, their settings and the brokers' own.
pub(super) fn admin(settings: &KafkaSettings) -> ClientConfig {
    overridden(base(settings), settings)
}

/// One that appends: in order, never twice, and without ever giving up a record while the process lives. `messages` and `kib`
/// must be more than the intake lets in.
pub(super) fn producer(settings: &KafkaSettings, messages: usize, kib: usize) -> ClientConfig {
    let mut config = base(settings);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // A finite time-out would drop a record and keep the one behind it.
        .set("message.timeout.ms", "0")
        .set("linger.ms", settings.linger_ms.to_string())
        .set("queue.buffering.max.messages", messages.to_string())
        .set("queue.buffering.max.kbytes", kib.to_string());
    overridden(config, settings)
}

/// One that reads partitions it is told to. The library wants a group's name even so; the group is never joined.
/// `wait` is how long the broker may hold a fetch that finds nothing.
pub(super) fn reader(settings: &KafkaSettings, group: &str, wait: Duration) -> ClientConfig {
    let mut config = base(settings);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The default would go on from the end, and skip what lies between without a word.
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        // Whatever is below the high watermark counts: nobody here writes in transactions.
        .set("isolation.level", "read_uncommitted")
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", wait.as_millis().to_string())
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "100")
        .set("queued.min.messages", "4096")
        .set("queued.max.messages.kbytes", CONSUMER_QUEUE_KIB);
    overridden(config, settings)
}

/// One that reads for a member of a group: many records at once rather than each as it comes.
pub(super) fn fetcher(settings: &KafkaSettings, group: &str) -> ClientConfig {
    let mut config = reader(settings, group, TAIL_WAIT);
    config.set("fetch.min.bytes", TAIL_BYTES);
    overridden(config, settings)
}

/// One that is a member of a group.
pub(super) fn member(settings: &KafkaSettings, group: &str) -> ClientConfig {
    let mut config = fetcher(settings, group);
    match settings.group_protocol {
        // The server holds the time-outs, and refuses a member that brings its own.
        GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
        GroupProtocol::Classic => config
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", settings.group_session_ms.to_string())
            .set("heartbeat.interval.ms", (settings.group_session_ms / 6).to_string()),
    };
    config
}

/// The library's own log, handed to ours. It repeats itself while brokers are away, so only what somebody must see is a warning.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            error!(facility, "kafka client: {line}");
        }
        _ => debug!(facility, "kafka client: {line}"),
    }
}

/// An error of a client as a whole.
pub(super) fn report(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // Several times a second while they are away; whoever needs them says so.
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve,
        ) => {
            debug!(%error, reason, "a broker is out of reach");
        }
        _ => warn!(%error, reason, "a kafka client reports an error"),
    }
}

/// A client whose words only go to the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}
