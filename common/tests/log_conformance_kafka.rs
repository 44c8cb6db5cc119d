//! The log's suite on a real Kafka, and what is true of that one alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use common::{
    log::{
        Delivery, Entry, Log, LogError, OpenError, ReadError, ReadLimit, SharedLog, Subscription,
        conformance::Fixture,
        kafka::{GroupProtocol, KafkaLog, KafkaSettings},
    },
    servers::Servers,
    term::{Header, TermState, Verdict, confirmed_at},
};
use futures_util::future::{join_all, try_join_all};
use rdkafka::{
    ClientConfig, Offset as KafkaOffset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tokio::time::timeout;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A log in a topic of its own.
struct Kafka(KafkaSettings);

impl Kafka {
    fn new() -> Self {
        Self::speaking(GroupProtocol::Consumer)
    }

    fn speaking(group_protocol: GroupProtocol) -> Self {
        Self(KafkaSettings {
            topic: format!("test-{:016x}", rand::random::<u64>()),
            group_protocol,
            group_session_ms: 2000,
            ..KafkaSettings::from_url(Servers::shared().log()).unwrap()
        })
    }

    async fn log(&self, partitions: u16) -> KafkaLog {
        KafkaLog::init(&self.0, partitions).await.unwrap();
        KafkaLog::open(&self.0, partitions).await.unwrap()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.0.brokers[0]);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    async fn delete(&self, topic: &str) {
        let deleted = self.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    async fn drop_records_before(&self, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.0.topic, 0, KafkaOffset::Offset(offset)).unwrap();
        self.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    }
}

#[async_trait]
impl Fixture for Kafka {
    async fn open(&self, partitions: u16) -> Result<SharedLog, OpenError> {
        KafkaLog::init(&self.0, partitions).await?;
        Ok(Arc::new(KafkaLog::open(&self.0, partitions).await?))
    }
}

common::log_conformance!(Kafka::new());

/// Groups as brokers before Kafka 4 know them.
mod classic {
    use super::{GroupProtocol, Kafka};

    common::log_conformance! { @tests Kafka::speaking(GroupProtocol::Classic), groups:
        one_member_is_given_every_partition_and_sees_every_record
        a_start_beyond_the_end_stops_that_partition_alone
        a_start_before_the_beginning_stops_that_partition_alone
        two_members_split_the_partitions
        a_member_that_leaves_is_replaced
        while_members_come_and_go_no_record_is_missed
        a_closed_log_ends_its_subscriptions
    }
}

async fn put(log: &KafkaLog, payload: impl Into<Bytes>) -> u64 {
    let receipt = log.append(0, Bytes::new(), payload.into()).await.unwrap();
    timeout(PATIENCE, receipt).await.expect("a receipt").unwrap()
}

async fn next(member: &mut Box<dyn Subscription>) -> Result<Delivery, LogError> {
    timeout(PATIENCE, member.next()).await.expect("a delivery")
}

async fn read_all(log: &KafkaLog, partition: u16) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let entries = log.read(partition, all.len() as u64, ReadLimit::BATCH).await.unwrap();
        if entries.is_empty() {
            return all;
        }
        all.extend(entries);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_name_contiguous_offsets_however_many_records_are_under_way() {
    const EACH: usize = 20_000;
    let log = Kafka::new().log(4).await;
    let mut receipts = Vec::new();
    for number in 0..EACH {
        for partition in 0..4 {
            let payload = Bytes::from(format!("{partition}/{number}"));
            receipts.push(log.append(partition, Bytes::new(), payload).await.unwrap());
        }
    }
    let offsets = timeout(PATIENCE, try_join_all(receipts)).await.expect("receipts").unwrap();
    assert!(offsets.into_iter().eq((0..4 * EACH).map(|place| (place / 4) as u64)));
    assert_eq!(log.oldest_unconfirmed(), None);
    for partition in 0..4 {
        let entries = read_all(&log, partition).await;
        assert_eq!(entries.len(), EACH);
        assert!(entries.iter().enumerate().all(|(number, entry)| {
            entry.offset == number as u64 && entry.payload == format!("{partition}/{number}")
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_between_two_records_of_a_paused_owner_voids_the_second_and_the_owner_sees_it() {
    let kafka = Kafka::new();
    let paused = kafka.log(1).await;
    let successor = KafkaLog::open(&kafka.0, 1).await.unwrap();
    assert_eq!(paused.id(), successor.id());
    // Records say what they are: a claim, or the n-th entry of a term.
    let record = |term: u64, n: u64| Bytes::from(format!("{term}/{n}"));
    for _ in 0..3 {
        put(&paused, "claim").await;
    }
    let term = put(&paused, "claim").await;
    let (first, second) = (
        paused.append(0, Bytes::new(), record(term, 1)).await.unwrap(),
        paused.append(0, Bytes::new(), record(term, 2)).await.unwrap(),
    );
    assert_eq!((first.await, second.await), (Ok(confirmed_at(term, 1)), Ok(confirmed_at(term, 2))));
    let next_term = put(&successor, "claim").await;
    assert_eq!(put(&successor, record(next_term, 1)).await, confirmed_at(next_term, 1));
    // The owner wakes, and goes on as if nothing had been.
    let late = put(&paused, record(term, 3)).await;
    assert_ne!(late, confirmed_at(term, 3), "so it knows that it is owner no more");
    assert_eq!(put(&successor, record(next_term, 2)).await, confirmed_at(next_term, 2) + 1);

    let mut state = TermState::default();
    let void: Vec<u64> = read_all(&successor, 0)
        .await
        .into_iter()
        .filter(|entry| {
            let header = match std::str::from_utf8(&entry.payload).unwrap().split_once('/') {
                Some((term, n)) => Header::Entry { term: term.parse().unwrap(), n: n.parse().unwrap() },
                None => Header::Claim,
            };
            state.advance(header, entry.offset) == Verdict::Void
        })
        .map(|entry| entry.offset)
        .collect();
    assert_eq!(void, [late], "every reader finds the same one void");
}

#[tokio::test]
async fn what_keeps_a_log_from_opening_is_said_with_what_to_do() {
    let kafka = Kafka::new();
    let missing = KafkaLog::open(&kafka.0, 4).await.unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains("storage-writer init"), "{missing}");

    let id = KafkaLog::init(&kafka.0, 4).await.unwrap();
    assert_eq!(KafkaLog::init(&kafka.0, 4).await.unwrap(), id, "again, and nothing is done");
    for refused in
        [KafkaLog::open(&kafka.0, 8).await.unwrap_err(), KafkaLog::init(&kafka.0, 8).await.unwrap_err()]
    {
        assert!(matches!(refused, OpenError::PartitionCount { has: 4, asked: 8, .. }), "{refused}");
    }

    let mut wrong = kafka.0.clone();
    wrong.overrides.insert("no.such.setting".to_owned(), "1".to_owned());
    let wrong = KafkaLog::open(&wrong, 4).await.unwrap_err();
    assert!(matches!(wrong, OpenError::Settings { .. }), "{wrong}");
    assert!(wrong.to_string().contains("no.such.setting"), "{wrong}");

    let copies = KafkaSettings { replication: 15, ..Kafka::new().0 };
    let copies = KafkaLog::init(&copies, 1).await.unwrap_err();
    assert!(matches!(copies, OpenError::Settings { .. }), "{copies}");
    assert!(copies.to_string().contains("replication"), "{copies}");
}

#[tokio::test]
async fn brokers_out_of_reach_are_named_and_not_waited_for_for_ever() {
    let nowhere = KafkaSettings { brokers: vec!["127.0.0.1:1".to_owned()], ..KafkaSettings::default() };
    let unreachable = timeout(PATIENCE, KafkaLog::open(&nowhere, 4)).await.expect("an answer").unwrap_err();
    assert!(matches!(unreachable, OpenError::Unavailable { .. }), "{unreachable}");
    assert!(unreachable.to_string().contains("127.0.0.1:1"), "{unreachable}");
}

#[tokio::test]
async fn a_compacted_topic_is_refused_and_so_is_one_that_was_given_more_partitions() {
    let kafka = Kafka::new();
    let compacted =
        NewTopic::new(&kafka.0.topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    kafka.admin().create_topics([&compacted], &AdminOptions::new()).await.unwrap();
    KafkaLog::init(&kafka.0, 1).await.unwrap();
    let refused = KafkaLog::open(&kafka.0, 1).await.unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");

    let kafka = Kafka::new();
    KafkaLog::init(&kafka.0, 1).await.unwrap();
    let more = rdkafka::admin::NewPartitions::new(&kafka.0.topic, 2);
    kafka.admin().create_partitions([&more], &AdminOptions::new()).await.unwrap();
    for asked in [1, 2] {
        let refused = timeout(PATIENCE, async {
            // The brokers hear of it a little later.
            loop {
                match KafkaLog::open(&kafka.0, asked).await {
                    Err(refused) if asked == 1 || refused.to_string().contains("has 1") => return refused,
                    _ => {}
                }
            }
        });
        let refused = refused.await.expect("a refusal");
        assert!(matches!(refused, OpenError::PartitionCount { .. }), "{asked}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_make_the_log_at_once_agree_on_its_id() {
    let kafka = Kafka::new();
    let made = join_all((0..4).map(|_| KafkaLog::init(&kafka.0, 2))).await;
    let ids: BTreeSet<_> = made.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(KafkaLog::open(&kafka.0, 2).await.unwrap().id(), *ids.first().unwrap());
}

#[tokio::test]
async fn a_log_that_was_deleted_is_not_made_anew_under_its_old_id() {
    let kafka = Kafka::new();
    let id = KafkaLog::init(&kafka.0, 1).await.unwrap();
    kafka.delete(&kafka.0.topic).await;
    let refused = timeout(PATIENCE, async {
        // The brokers hear of it a little later.
        loop {
            if let Err(refused) = KafkaLog::init(&kafka.0, 1).await {
                return refused;
            }
        }
    });
    let refused = refused.await.expect("a refusal");
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    kafka.delete(&kafka.0.meta_topic()).await;
    let anew = timeout(PATIENCE, async {
        loop {
            if let Ok(anew) = KafkaLog::init(&kafka.0, 1).await {
                return anew;
            }
        }
    });
    assert_ne!(anew.await.expect("a new log"), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_no_longer_begins_at_zero_says_where_it_begins() {
    let kafka = Kafka::new();
    let log = kafka.log(1).await;
    for _ in 0..10 {
        put(&log, "record").await;
    }
    kafka.drop_records_before(3).await;
    let gone = ReadError::OutOfRange { partition: 0, from: 2, begin: 3, end: 10 };
    assert_eq!(log.read(0, 2, ReadLimit::BATCH).await, Err(gone.clone()));
    assert_eq!(log.read(0, 3, ReadLimit::BATCH).await.unwrap().len(), 7);
    let mut member = log.join("writers").await.unwrap();
    assert_eq!(next(&mut member).await, Ok(Delivery::Assigned(vec![0])));
    member.start(0, 2).unwrap();
    assert_eq!(next(&mut member).await, Err(LogError::Read(gone)));
    member.start(0, u64::MAX).unwrap();
    let beyond = ReadError::OutOfRange { partition: 0, from: u64::MAX, begin: 3, end: 10 };
    assert_eq!(next(&mut member).await, Err(LogError::Read(beyond)));
    member.start(0, 3).unwrap();
    let Ok(Delivery::Records { entries, .. }) = next(&mut member).await else { panic!("records") };
    assert_eq!(entries[0].offset, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_set_back_and_forth_while_it_grows_never_shows_what_it_was_not_asked_for() {
    let log = Arc::new(Kafka::new().log(2).await);
    for number in 0..3000_u32 {
        drop(log.append(0, Bytes::new(), Bytes::from(number.to_string())).await.unwrap());
    }
    let last = put(&log, "last").await;
    let growing = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            loop {
                log.append(0, Bytes::new(), Bytes::from_static(b"more")).await.unwrap().await.unwrap();
            }
        }
    });
    let mut member = log.join("writers").await.unwrap();
    assert_eq!(next(&mut member).await, Ok(Delivery::Assigned(vec![0, 1])));
    for _ in 0..200 {
        let mut expected = rand::random_range(0..=last);
        member.start(0, expected).unwrap();
        for _ in 0..rand::random_range(0..4) {
            match next(&mut member).await {
                Ok(Delivery::Records { partition: 0, entries }) => {
                    for entry in entries {
                        assert_eq!(entry.offset, expected);
                        expected += 1;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    growing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_ask_loses_its_partitions_in_time_and_learns_it_when_it_asks() {
    let log = Kafka::new().log(2).await;
    let mut stalled = log.join("writers").await.unwrap();
    assert_eq!(next(&mut stalled).await, Ok(Delivery::Assigned(vec![0, 1])));
    let mut other = log.join("writers").await.unwrap();
    let Ok(Delivery::Assigned(theirs)) = next(&mut other).await else { panic!("a partition") };
    assert_eq!(theirs.len(), 1);
    assert_eq!(next(&mut stalled).await, Ok(Delivery::Revoked(theirs.clone())));
    assert_eq!(stalled.start(theirs[0], 0), Err(LogError::NotAssigned(theirs[0])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_can_be_seen_from_outside() {
    let kafka = Kafka::new();
    let log = kafka.log(1).await;
    let mut member = log.join("writers").await.unwrap();
    assert_eq!(next(&mut member).await, Ok(Delivery::Assigned(vec![0])));
    let watcher: BaseConsumer =
        kafka.client().set("group.id", format!("{}.writers", kafka.0.topic)).create().unwrap();
    let seen = timeout(PATIENCE, async {
        loop {
            member.note_progress(0, 7);
            let mut list = TopicPartitionList::new();
            list.add_partition(&kafka.0.topic, 0);
            let committed = watcher.committed_offsets(list, Duration::from_secs(5)).unwrap();
            let offset = committed.elements()[0].offset();
            if offset != KafkaOffset::Invalid {
                return offset;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(seen.await.expect("a committed position"), KafkaOffset::Offset(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_log_ends_its_subscriptions_and_finishes_what_it_took() {
    let kafka = Kafka::new();
    let log = kafka.log(1).await;
    let mut member = log.join("writers").await.unwrap();
    assert_eq!(next(&mut member).await, Ok(Delivery::Assigned(vec![0])));
    let receipt = log.append(0, Bytes::new(), Bytes::from_static(b"taken")).await.unwrap();
    drop(log);
    assert_eq!(next(&mut member).await, Err(LogError::Closed));
    assert_eq!(timeout(PATIENCE, receipt).await.expect("a receipt"), Ok(0));
}
