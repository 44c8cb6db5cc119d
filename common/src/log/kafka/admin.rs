//! Topics: made once, checked at every start; and the log's id.
//!
//! Kafka gives a topic no place for a value of ours, and the topic's own id is out of the client library's reach. So the id is the
//! first record of a topic beside it, `<topic>-meta`, with one partition and nothing else in it: of two processes that write
//! one at once, both read the first. It is written only when the log's topic is there, so an id without a topic means that
//! somebody deleted the log, and a log made anew must not get the old id: [`Admin::init`] refuses until that topic is deleted, too.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use serde::{Deserialize, Serialize};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    KafkaSettings,
    client::{self, Quiet, REQUEST_WAIT},
    producer::Intake,
    reader::Readers,
};
use crate::{
    ids::{Offset, Partition},
    log::{OpenError, ReadError, ReadLimit},
};

/// How long the brokers have for each answer. One that is just starting needs some seconds.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// How long to wait before the topics are looked at again, when they are not ready.
const RETRY: Duration = Duration::from_millis(100);

/// The format of [`Identity`] that this program writes and reads.
const FORMAT: i64 = 1;

/// A day: by default it is a week, and a quiet partition's file takes that long to be done with.
const SEGMENT_MS: &str = "86400000";

/// Above this, a dead member's partitions lie idle for long.
const LONG_SESSION: Duration = Duration::from_secs(10);

/// What the first record of the companion topic says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: i64,
    id: Uuid,
    /// As many as the log was made with: a topic can be given more, and a chat's partition would change.
    partitions: Partition,
}

/// One topic as the brokers describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Missing,
    /// With so many partitions, of which some may have no leader yet.
    There {
        partitions: usize,
        led: bool,
    },
}

pub(super) struct Admin {
    settings: KafkaSettings,
    client: Arc<AdminClient<Quiet>>,
}

impl Admin {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, OpenError> {
        let client = AdminClient::from_config_and_context(&client::admin(settings), Quiet);
        let client = client
            .map_err(|error| OpenError::Settings { log: settings.to_string(), what: error.to_string() })?;
        Ok(Self { settings: settings.clone(), client: Arc::new(client) })
    }

    fn unavailable(&self, what: impl Into<String>) -> OpenError {
        OpenError::Unavailable { log: self.settings.to_string(), what: what.into() }
    }

    fn foreign(&self, what: impl Into<String>) -> OpenError {
        OpenError::Foreign { log: self.settings.to_string(), what: what.into() }
    }

    fn partition_count(&self, has: usize, asked: Partition) -> OpenError {
        let has = Partition::try_from(has).unwrap_or(Partition::MAX);
        OpenError::PartitionCount { log: self.settings.to_string(), has, asked }
    }

    /// Checks that the log is there and is what was configured. Its id.
    pub(super) async fn check(&self, partitions: Partition) -> Result<Uuid, OpenError> {
        let topic = &self.settings.topic;
        let missing = |topic: &str| OpenError::Missing {
            log: self.settings.to_string(),
            what: format!("Kafka has no topic {topic}; `storage-writer init` makes it"),
        };
        let deadline = Instant::now() + OPEN_WAIT;
        loop {
            match self.find(topic).await? {
                Found::Missing => return Err(missing(topic)),
                Found::There { partitions: has, .. } if has != usize::from(partitions) => {
                    return Err(self.partition_count(has, partitions));
                }
                Found::There { led: false, .. } if Instant::now() < deadline => sleep(RETRY).await,
                Found::There { .. } => break,
            }
        }
        self.check_settings().await?;
        let meta = self.settings.meta_topic();
        if self.find(&meta).await? == Found::Missing {
            return Err(missing(&meta));
        }
        let identity = self.identity().await?.ok_or_else(|| OpenError::Missing {
            log: self.settings.to_string(),
            what: format!("topic {meta} holds no id; `storage-writer init` writes it"),
        })?;
        self.identified(&identity, partitions)
    }

    /// Makes what is missing of the log.
    pub(super) async fn init(&self, partitions: Partition) -> Result<Uuid, OpenError> {
        let (topic, meta) = (&self.settings.topic, self.settings.meta_topic());
        if partitions == 0 {
            return Err(self.partition_count(0, 0));
        }
        let orphaned = self.find(topic).await? == Found::Missing
            && self.find(&meta).await? != Found::Missing
            && self.identity().await?.is_some()
            // Another may have made both in between.
            && self.find(topic).await? == Found::Missing;
        if orphaned {
            return Err(self.foreign(format!(
                "its topic {topic} is gone, but {meta} still holds its id, and a log made anew must have a new one; \
                 delete {meta} as well if the log is to begin again"
            )));
        }
        self.create(topic, partitions, &self.settings.retention_ms()).await?;
        // The log's id stays as long as the log.
        self.create(&meta, 1, "-1").await?;
        let has = self.ready(topic).await?;
        if has != usize::from(partitions) {
            return Err(self.partition_count(has, partitions));
        }
        self.ready(&meta).await?;
        if let Some(identity) = self.identity().await? {
            return self.identified(&identity, partitions);
        }
        self.write_identity(partitions).await?;
        let first =
            self.identity().await?.ok_or_else(|| self.unavailable("its id was written and is not there"))?;
        info!(log = %self.settings, id = %first.id, partitions, "the log was made");
        self.identified(&first, partitions)
    }

    fn identified(&self, identity: &Identity, partitions: Partition) -> Result<Uuid, OpenError> {
        if identity.partitions == partitions {
            return Ok(identity.id);
        }
        Err(self.partition_count(identity.partitions.into(), partitions))
    }

    async fn find(&self, topic: &str) -> Result<Found, OpenError> {
        let (client, name) = (Arc::clone(&self.client), topic.to_owned());
        let found = spawn_blocking(move || {
            let metadata = client.inner().fetch_metadata(Some(&name), OPEN_WAIT)?;
            let found = metadata.topics().iter().find(|topic| topic.name() == name);
            let Some(found) = found else { return Ok(Ok(Found::Missing)) };
            let led = found.partitions().iter().all(|partition| partition.leader() >= 0);
            Ok(match found.error().map(RDKafkaErrorCode::from) {
                None | Some(RDKafkaErrorCode::NoError | RDKafkaErrorCode::LeaderNotAvailable) => {
                    Ok(Found::There { partitions: found.partitions().len(), led })
                }
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    Ok(Found::Missing)
                }
                Some(code) => Err(code),
            })
        });
        match found.await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(code))) => Err(self.unavailable(format!("topic {topic}: {code}"))),
            Ok(Err(error)) => {
                let error: KafkaError = error;
                Err(self.unavailable(format!(
                    "no broker answered at {} within {} s ({error}); is Kafka running there, and reachable from here?",
                    self.settings.brokers.join(", "),
                    OPEN_WAIT.as_secs(),
                )))
            }
            Err(error) => Err(self.unavailable(error.to_string())),
        }
    }

    /// Waits until every partition of a topic has a leader. How many there are.
    async fn ready(&self, topic: &str) -> Result<usize, OpenError> {
        let deadline = Instant::now() + OPEN_WAIT;
        loop {
            if let Found::There { partitions, led: true } = self.find(topic).await? {
                return Ok(partitions);
            }
            if Instant::now() > deadline {
                return Err(self.unavailable(format!("topic {topic} has partitions without a leader")));
            }
            sleep(RETRY).await;
        }
    }

    async fn create(&self, topic: &str, partitions: Partition, retention_ms: &str) -> Result<(), OpenError> {
        let replication = i32::from(self.settings.replication);
        let in_sync = (replication - 1).max(1).to_string();
        let new = NewTopic::new(topic, i32::from(partitions), TopicReplication::Fixed(replication))
            .set("cleanup.policy", "delete")
            .set("retention.ms", retention_ms)
            .set("retention.bytes", "-1")
            // What is forgotten is out of reach at once, and on the brokers' disks until its file is done with and a later one begun.
            .set("segment.ms", SEGMENT_MS)
            .set("unclean.leader.election.enable", "false")
            .set("min.insync.replicas", &in_sync);
        let options = AdminOptions::new().operation_timeout(Some(OPEN_WAIT)).request_timeout(Some(OPEN_WAIT));
        let made = self.client.create_topics([&new], &options).await;
        let refused = match made.map_err(|error| self.unavailable(error.to_string()))?.pop() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => return Ok(()),
            Some(Err((_, code))) => code,
        };
        let what =
            format!("topic {topic} with {partitions} partitions, {replication} copies each: {refused}");
        Err(match refused {
            RDKafkaErrorCode::InvalidReplicationFactor => OpenError::Settings {
                log: self.settings.to_string(),
                what: format!("{what}; set `replication` to at most the number of brokers"),
            },
            _ => self.unavailable(what),
        })
    }

    async fn settings_of(&self, what: ResourceSpecifier<'_>) -> Result<ConfigResource, RDKafkaErrorCode> {
        let options = AdminOptions::new().request_timeout(Some(OPEN_WAIT));
        let answer = self.client.describe_configs([&what], &options).await;
        let answer = answer.map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))?;
        answer.into_iter().next().unwrap_or(Err(RDKafkaErrorCode::Fail))
    }

    /// A compacted topic loses records and is none of ours; other settings that lose some are said.
    async fn check_settings(&self) -> Result<(), OpenError> {
        let (log, topic) = (self.settings.to_string(), &self.settings.topic);
        let settings = match self.settings_of(ResourceSpecifier::Topic(topic)).await {
            Ok(settings) => settings,
            Err(
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed),
            ) => {
                warn!(log, %code, "the topic's settings may not be read and are not checked");
                return Ok(());
            }
            Err(code) => return Err(self.unavailable(format!("the settings of topic {topic}: {code}"))),
        };
        let value = |name| settings.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        if value("cleanup.policy").contains("compact") {
            let policy = value("cleanup.policy");
            return Err(self.foreign(format!(
                "topic {topic} has cleanup.policy={policy}, which drops records; set it to delete"
            )));
        }
        let chosen = self.settings.retention_ms();
        for (name, safe) in [
            ("retention.ms", chosen.as_str()),
            ("retention.bytes", "-1"),
            ("unclean.leader.election.enable", "false"),
        ] {
            if value(name) != safe {
                warn!(log, setting = name, value = value(name), "the topic can lose records; {safe} is safe");
            }
        }
        Ok(())
    }

    async fn identity(&self) -> Result<Option<Identity>, OpenError> {
        let meta = self.settings.meta_topic();
        let readers = Readers::start(&self.settings, &meta, 1, 1)
            .map_err(|error| self.unavailable(error.to_string()))?;
        let limit = ReadLimit { records: 1, bytes: 0 };
        let first = match readers.read(0, 0, limit).await {
            Ok(first) => first,
            Err(error @ ReadError::OutOfRange { .. }) => {
                return Err(self.foreign(format!("topic {meta} has lost the log's id: {error}")));
            }
            Err(error) => return Err(self.unavailable(format!("topic {meta}: {error}"))),
        };
        let Some(first) = first.first() else { return Ok(None) };
        // The format first: of another, the rest may be unknown.
        #[derive(Deserialize)]
        struct Format {
            format: i64,
        }
        let unread = || self.foreign(format!("the first record of topic {meta} is no id of a log"));
        let Format { format } = serde_json::from_slice(&first.payload).map_err(|_| unread())?;
        if format != FORMAT {
            return Err(OpenError::Version { log: self.settings.to_string(), has: format, known: FORMAT });
        }
        serde_json::from_slice(&first.payload).map(Some).map_err(|_| unread())
    }

    async fn write_identity(&self, partitions: Partition) -> Result<(), OpenError> {
        let identity = Identity { format: FORMAT, id: Uuid::new_v4(), partitions };
        let payload = serde_json::to_vec(&identity).map_err(|error| self.unavailable(error.to_string()))?;
        let intake = Intake::start(&self.settings, self.settings.meta_topic(), 1)
            .map_err(|error| self.unavailable(error.to_string()))?;
        let receipt = intake.append(0, Bytes::from_static(b"log"), payload.into()).await;
        let receipt = receipt.map_err(|error| self.unavailable(error.to_string()))?;
        match timeout(OPEN_WAIT, receipt).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.unavailable(error.to_string())),
            Err(_) => Err(self.unavailable("its id was not written in time")),
        }
    }

    /// Has the brokers forget the records of a partition before `before`. Where it begins then.
    pub(super) async fn forget_before(
        &self,
        partition: Partition,
        before: Offset,
    ) -> Result<Offset, ReadError> {
        let failed = |why: String| {
            ReadError::Unavailable(format!(
                "partition {partition} does not forget what is before {before}: {why}"
            ))
        };
        let (topic, number) = (&self.settings.topic, i32::from(partition));
        let place = i64::try_from(before).map_err(|error| failed(error.to_string()))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, number, KafkaOffset::Offset(place))
            .map_err(|error| failed(error.to_string()))?;
        let options =
            AdminOptions::new().operation_timeout(Some(REQUEST_WAIT)).request_timeout(Some(REQUEST_WAIT));
        // The library keeps its own time; this is for when it does not.
        let answer = timeout(2 * REQUEST_WAIT, self.client.delete_records(&list, &options)).await;
        let answer = answer
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let begins = answer.find_partition(topic, number).ok_or_else(|| failed("no answer".to_owned()))?;
        begins.error().map_err(|error| failed(error.to_string()))?;
        match begins.offset() {
            KafkaOffset::Offset(begins) => {
                Offset::try_from(begins).map_err(|error| failed(error.to_string()))
            }
            other => Err(failed(format!("it begins at {other:?}"))),
        }
    }

    /// Says so if the brokers take long to notice that a member of a KIP-848 group is dead: no client can see or choose it otherwise.
    pub(super) async fn warn_of_long_session(&self) {
        let (client, topic) = (Arc::clone(&self.client), self.settings.topic.clone());
        let broker = spawn_blocking(move || {
            let metadata = client.inner().fetch_metadata(Some(&topic), OPEN_WAIT).ok()?;
            metadata.brokers().first().map(rdkafka::metadata::MetadataBroker::id)
        });
        let Ok(Some(broker)) = broker.await else { return };
        let Ok(settings) = self.settings_of(ResourceSpecifier::Broker(broker)).await else { return };
        let given =
            settings.get("group.consumer.session.timeout.ms").and_then(|entry| entry.value.as_deref());
        let Some(given) = given.and_then(|given| given.parse().ok()).map(Duration::from_millis) else {
            return;
        };
        if given > LONG_SESSION {
            warn!(
                seconds = given.as_secs(),
                "the brokers take this long to notice a dead reader, and its partitions are not drained meanwhile; set \
                 group.consumer.session.timeout.ms, and its minimum, to some 6 s there"
            );
        }
    }
}
