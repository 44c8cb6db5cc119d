//! Where Kafka is, and how it is used: read from a URL or from a configuration.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The topic when the URL names none.
const DEFAULT_TOPIC: &str = "chat";

/// What follows the topic's name in the name of the topic that holds the log's id.
const META_SUFFIX: &str = "-meta";

/// Bytes of a URL: 32 brokers with long names, and some options.
const MAX_URL: usize = 16 * 1024;

/// Brokers named. They are only where a client begins; it learns the others from them.
const MAX_BROKERS: usize = 32;

/// Bytes of a topic's name: Kafka's 249, less [`META_SUFFIX`].
const MAX_TOPIC: usize = 244;

/// Options handed through to the client library.
const MAX_OVERRIDES: usize = 64;

/// Milliseconds. From here on a record waits longer for company than for the disk.
const MAX_LINGER_MS: u32 = 1000;

/// Milliseconds. Below is noise of a busy machine; above, a dead member's partitions lie idle for minutes.
const SESSION_MS: std::ops::RangeInclusive<u32> = 1000..=300_000;

/// Copies of each record.
const REPLICATION: std::ops::RangeInclusive<u16> = 1..=15;

/// A hundred years.
const MAX_RETENTION_DAYS: u32 = 36_500;

/// What the contract of the log rests on, under each of its names: no override may change it.
const FIXED: [&str; 28] = [
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "isolation.level",
    "linger.ms",
    "log.queue",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "queue.buffering.max.ms",
    "request.required.acks",
    "retries",
    "session.timeout.ms",
    "transactional.id",
];

/// How members of a group agree on who reads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// The broker decides (KIP-848, Kafka 4 and later): partitions move in a heartbeat. A dead member's come free after the
    /// broker's `group.consumer.session.timeout.ms`, which is 45 s unless it is set there.
    #[default]
    Consumer,
    /// The members decide (cooperative-sticky): 1 to 2 s for a move, and works with older brokers.
    Classic,
}

/// Where Kafka is, and how it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSettings {
    /// `host:port` of the brokers to begin with.
    pub brokers: Vec<String>,
    /// The topic of the records. Beside it, `<topic>-meta` holds the log's id.
    pub topic: String,
    /// How long a record waits for company, in milliseconds, before it is sent. 0 is best up to some 20,000 records a second; 5
    /// saves CPU above.
    pub linger_ms: u32,
    /// Of readers that share the partitions.
    pub group_protocol: GroupProtocol,
    /// After how many milliseconds a silent member of a classic group is taken for dead. The other protocol has this on the broker.
    pub group_session_ms: u32,
    /// Copies of each record, for the topics that [`super::KafkaLog::init`] makes: an append is confirmed when all but one have it.
    pub replication: u16,
    /// Days after which Kafka drops records, for the topic that [`super::KafkaLog::init`] makes; 0: never. Longer than writers may ever lag, and
    /// than the oldest backup of the store is kept: records that are dropped before they are drained stop their partition.
    pub retention_days: u32,
    /// Settings of the client library (librdkafka), for producers and consumers alike: TLS, SASL, buffers.
    pub overrides: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
            topic: DEFAULT_TOPIC.to_owned(),
            linger_ms: 0,
            group_protocol: GroupProtocol::default(),
            group_session_ms: 6000,
            replication: 3,
            retention_days: 0,
            overrides: BTreeMap::new(),
        }
    }
}

/// Overrides may hold a password: only their names are shown.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("linger_ms", &self.linger_ms)
            .field("group_protocol", &self.group_protocol)
            .field("group_session_ms", &self.group_session_ms)
            .field("replication", &self.replication)
            .field("retention_days", &self.retention_days)
            .field("overrides", &self.overrides.keys())
            .finish()
    }
}

/// The log's name in messages: brokers and topic.
impl fmt::Display for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kafka://{}/{}", self.brokers.join(","), self.topic)
    }
}

impl KafkaSettings {
    /// `retention.ms` of the topic of the records.
    pub(super) fn retention_ms(&self) -> String {
        match self.retention_days {
            0 => "-1".to_owned(),
            days => (u64::from(days) * 86_400_000).to_string(),
        }
    }
}

/// What is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The URL is none of this engine's.
    #[error("a Kafka log is named kafka://HOST:PORT[,HOST:PORT]/TOPIC[?OPTION=VALUE&…]: {0}")]
    Url(String),
    /// An option of the URL has no meaning.
    #[error(
        "{0:?} is no option of a Kafka log; known: linger_ms, group_protocol, group_session_ms, replication, retention_days, and \
         rdkafka.NAME for the settings of the client library"
    )]
    Unknown(String),
    /// A value is not possible.
    #[error("{name} of the Kafka log: {why}")]
    Value {
        /// Of the setting.
        name: String,
        /// What would do.
        why: String,
    },
}

fn bad(name: &str, why: impl Into<String>) -> SettingsError {
    SettingsError::Value { name: name.to_owned(), why: why.into() }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, SettingsError> {
    value.parse().map_err(|_| bad(name, format!("{value:?} is not a number in range")))
}

impl KafkaSettings {
    /// Reads `kafka://HOST:PORT[,HOST:PORT]/TOPIC[?OPTION=VALUE&…]`. Nothing is percent-decoded: no value needs it.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn from_url(url: &str) -> Result<Self, SettingsError> {
        if url.len() > MAX_URL {
            return Err(SettingsError::Url(format!("it is longer than {MAX_URL} bytes")));
        }
        let rest = url
            .strip_prefix("kafka://")
            .ok_or_else(|| SettingsError::Url("it does not begin with kafka://".to_owned()))?;
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (brokers, topic) = place.split_once('/').unwrap_or((place, ""));
        let mut settings =
            Self { brokers: brokers.split(',').map(str::to_owned).collect(), ..Self::default() };
        if !topic.is_empty() {
            topic.clone_into(&mut settings.topic);
        }
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "linger_ms" => settings.linger_ms = number(name, value)?,
                "group_session_ms" => settings.group_session_ms = number(name, value)?,
                "replication" => settings.replication = number(name, value)?,
                "retention_days" => settings.retention_days = number(name, value)?,
                "group_protocol" => {
                    settings.group_protocol = match value {
                        "consumer" => GroupProtocol::Consumer,
                        "classic" => GroupProtocol::Classic,
                        _ => return Err(bad(name, format!("{value:?} is neither consumer nor classic"))),
                    }
                }
                _ => {
                    let key = name
                        .strip_prefix("rdkafka.")
                        .ok_or_else(|| SettingsError::Unknown(name.chars().take(64).collect()))?;
                    settings.overrides.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        settings.check()?;
        Ok(settings)
    }

    /// Whether every value is possible, wherever it came from.
    ///
    /// # Errors
    /// [`SettingsError::Value`].
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.brokers.is_empty() || self.brokers.len() > MAX_BROKERS {
            return Err(bad("brokers", format!("1 to {MAX_BROKERS} are named")));
        }
        if let Some(wrong) = self.brokers.iter().find(|broker| !is_address(broker)) {
            return Err(bad("brokers", format!("{wrong:?} is not HOST:PORT")));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let topic = &self.topic;
        if topic.is_empty() || topic.len() > MAX_TOPIC || !topic.chars().all(legal) || topic.starts_with('.')
        {
            let why =
                format!("{topic:?} is not 1 to {MAX_TOPIC} letters, digits, dots, dashes and underscores");
            return Err(bad("topic", why));
        }
        if self.linger_ms > MAX_LINGER_MS {
            return Err(bad("linger_ms", format!("{} is more than {MAX_LINGER_MS}", self.linger_ms)));
        }
        if !SESSION_MS.contains(&self.group_session_ms) {
            return Err(bad(
                "group_session_ms",
                format!("{} is not in {SESSION_MS:?}", self.group_session_ms),
            ));
        }
        if !REPLICATION.contains(&self.replication) {
            return Err(bad("replication", format!("{} is not in {REPLICATION:?}", self.replication)));
        }
        if self.retention_days > MAX_RETENTION_DAYS {
            let why = format!("{} is more than {MAX_RETENTION_DAYS}", self.retention_days);
            return Err(bad("retention_days", why));
        }
        if self.overrides.len() > MAX_OVERRIDES {
            return Err(bad("rdkafka", format!("there are more than {MAX_OVERRIDES} settings")));
        }
        for (key, value) in &self.overrides {
            let name = || format!("rdkafka.{}", key.chars().take(64).collect::<String>());
            if FIXED.contains(&key.as_str()) {
                return Err(bad(&name(), "the log rests on its value; it cannot be changed"));
            }
            if key.is_empty() || key.contains('\0') || value.contains('\0') {
                return Err(bad(&name(), "an empty name or a zero byte"));
            }
        }
        Ok(())
    }

    /// The topic that holds the log's id.
    pub fn meta_topic(&self) -> String {
        format!("{}{META_SUFFIX}", self.topic)
    }
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_is_one = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    host_is_one && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_names_brokers_topic_and_options() {
        let plain = KafkaSettings::from_url("kafka://kafka:9092").unwrap();
        assert_eq!(plain.topic, "chat");
        assert_eq!(plain.meta_topic(), "chat-meta");
        assert_eq!(plain, KafkaSettings { brokers: vec!["kafka:9092".into()], ..KafkaSettings::default() });
        let full = KafkaSettings::from_url(
            "kafka://a.example:9092,[::1]:9093/talk?linger_ms=5&group_protocol=classic&group_session_ms=9000\
             &replication=1&retention_days=30&rdkafka.security.protocol=ssl",
        )
        .unwrap();
        let expected = KafkaSettings {
            brokers: vec!["a.example:9092".into(), "[::1]:9093".into()],
            topic: "talk".into(),
            linger_ms: 5,
            group_protocol: GroupProtocol::Classic,
            group_session_ms: 9000,
            replication: 1,
            retention_days: 30,
            overrides: [("security.protocol".to_owned(), "ssl".to_owned())].into(),
        };
        assert_eq!(full, expected);
        assert_eq!((plain.retention_ms().as_str(), full.retention_ms().as_str()), ("-1", "2592000000"));
        assert_eq!(full.to_string(), "kafka://a.example:9092,[::1]:9093/talk");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_by_name() {
        for (url, said) in [
            ("file:log.db", "kafka://"),
            ("kafka://", "HOST:PORT"),
            ("kafka://kafka", "HOST:PORT"),
            ("kafka://kafka:0", "HOST:PORT"),
            ("kafka://kafka:99999", "HOST:PORT"),
            ("kafka://user@kafka:9092", "HOST:PORT"),
            ("kafka://kafka:9092/chat/more", "topic"),
            ("kafka://kafka:9092/chat?lingr=5", "lingr"),
            ("kafka://kafka:9092/chat?linger_ms=soon", "linger_ms"),
            ("kafka://kafka:9092/chat?linger_ms=1001", "linger_ms"),
            ("kafka://kafka:9092/chat?group_protocol=new", "group_protocol"),
            ("kafka://kafka:9092/chat?group_session_ms=10", "group_session_ms"),
            ("kafka://kafka:9092/chat?replication=0", "replication"),
            ("kafka://kafka:9092/chat?retention_days=36501", "retention_days"),
            ("kafka://kafka:9092/chat?rdkafka.acks=1", "rdkafka.acks"),
            ("kafka://kafka:9092/chat?rdkafka.delivery.timeout.ms=1", "rdkafka.delivery.timeout.ms"),
        ] {
            let error = KafkaSettings::from_url(url).unwrap_err().to_string();
            assert!(error.contains(said), "{url}: {error}");
        }
        assert!(KafkaSettings::from_url(&format!("kafka://{}:9092", "k".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn a_configuration_may_name_only_what_is_known_and_hides_what_may_be_secret() {
        let settings: KafkaSettings =
            serde_json::from_str(r#"{"topic": "talk", "overrides": {"sasl.password": "hush"}}"#).unwrap();
        assert_eq!(settings.topic, "talk");
        assert!(!format!("{settings:?} {settings}").contains("hush"));
        assert!(serde_json::from_str::<KafkaSettings>(r#"{"topics": "talk"}"#).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_given_as_a_url_is_answered(tail in ".{0,200}") {
            drop(KafkaSettings::from_url(&tail));
            if let Ok(settings) = KafkaSettings::from_url(&format!("kafka://{tail}")) {
                prop_assert!(settings.check().is_ok());
            }
        }
    }
}
