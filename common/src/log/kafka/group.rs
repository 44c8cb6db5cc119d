//! A member's thread: it keeps the member in its group, and fetches what the member has started.
//!
//! Two clients: one is the member and never fetches, the other fetches and is no member. A member that gives partitions away
//! falls silent for up to a second on those it keeps if the same client fetches for it; one that is told what to read does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Offset as KafkaOffset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{
    KafkaSettings,
    client::{self, Quiet, REQUEST_WAIT},
    reader::entry,
    subscription::{KafkaSubscription, Shared},
};
use crate::{
    ids::{Offset, Partition},
    log::{LogError, ReadError, Subscription},
};

/// How long a member may keep a partition that should be another's, counted from the change. It is the time for one
/// transaction of the store to end or to fail (5 s), so who is past it has stopped.
const REVOKE_WAIT: Duration = Duration::from_secs(5);

/// How long the thread sleeps when nothing wakes it.
const IDLE: Duration = Duration::from_millis(50);

/// Events of one client that are handled before the other has its turn.
const ROUND: usize = 1024;

/// Polls in a row that must bring nothing before a client is taken to have nothing: a line of its log counts as nothing, too.
const SILENT: usize = 3;

/// How often progress is told to the broker, for those who watch the group from outside.
const COMMIT: Duration = Duration::from_secs(1);

/// How long after a look at the partitions' bounds the next one is due at the soonest.
const AUDIT: Duration = Duration::from_millis(200);

/// What the group tells the member's client.
struct Member {
    topic: String,
    shared: Arc<Shared>,
    /// Nobody is asked any more before partitions are given back.
    leaves: AtomicBool,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let elements = list.elements_for_topic(&self.topic);
        let partitions: BTreeSet<Partition> =
            elements.iter().filter_map(|element| Partition::try_from(element.partition()).ok()).collect();
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if let Err(error) = self.take(consumer, &partitions) {
                warn!(%error, "partitions that the group gives could not be taken");
            }
            self.shared.state.lock().group_gives(partitions);
        } else {
            self.shared.state.lock().group_takes(partitions.clone(), Instant::now() + REVOKE_WAIT);
            if self.leaves.load(Ordering::Acquire) {
                self.give_back(consumer, &partitions);
            }
        }
        self.shared.changed.notify_one();
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            debug!(%error, "progress could not be told to the broker");
        }
    }
}

impl Member {
    /// Takes partitions without reading them. A start at the end needs no committed offset, and the pause comes before a fetch,
    /// or close behind it.
    fn take(&self, consumer: &BaseConsumer<Self>, partitions: &BTreeSet<Partition>) -> KafkaResult<()> {
        let list = listed(&self.topic, partitions.iter().map(|partition| (*partition, KafkaOffset::End)))?;
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Eager => consumer.assign(&list)?,
            _ => consumer.incremental_assign(&list)?,
        }
        if partitions.is_empty() { Ok(()) } else { consumer.pause(&list) }
    }

    fn give_back(&self, consumer: &BaseConsumer<Self>, partitions: &BTreeSet<Partition>) {
        let list = listed(&self.topic, partitions.iter().map(|partition| (*partition, KafkaOffset::Invalid)));
        let given = list.and_then(|list| match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&list),
            _ => consumer.unassign(),
        });
        if let Err(error) = given {
            debug!(%error, "partitions could not be given back; they were lost before");
        }
    }
}

fn listed(
    topic: &str,
    partitions: impl Iterator<Item = (Partition, KafkaOffset)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        list.add_partition_offset(topic, i32::from(partition), offset)?;
    }
    Ok(list)
}

/// A partition that is fetched.
#[derive(Debug)]
struct Fetched {
    /// For which start of the member.
    start: u64,
    /// The next offset.
    next: Offset,
    /// Whether the client was told.
    assigned: bool,
}

/// The thread.
struct Group {
    topic: String,
    shared: Arc<Shared>,
    closing: CancellationToken,
    member: BaseConsumer<Member>,
    fetcher: BaseConsumer<Quiet>,
    fetched: BTreeMap<Partition, Fetched>,
    /// Of the member's wishes.
    changes: u64,
    /// When the bounds of the partitions are to be looked at.
    audit: Option<Instant>,
    audited: Option<Instant>,
    committed: Instant,
}

/// Joins a group. The member leaves it when the subscription is dropped or the log is closed.
///
/// # Errors
/// [`LogError::Unavailable`] when the clients cannot be made.
pub(super) fn join(
    settings: &KafkaSettings,
    group: &str,
    closing: CancellationToken,
) -> Result<Box<dyn Subscription>, LogError> {
    let unavailable = |error: KafkaError| LogError::Unavailable(error.to_string());
    let shared = Arc::new(Shared::default());
    let context =
        Member { topic: settings.topic.clone(), shared: Arc::clone(&shared), leaves: AtomicBool::new(false) };
    let member = BaseConsumer::from_config_and_context(&client::member(settings, group), context)
        .map_err(unavailable)?;
    let fetcher = BaseConsumer::from_config_and_context(&client::fetcher(settings, group), Quiet)
        .map_err(unavailable)?;
    member.subscribe(&[&settings.topic]).map_err(unavailable)?;
    let thread = Group {
        topic: settings.topic.clone(),
        shared: Arc::clone(&shared),
        closing: closing.clone(),
        member,
        fetcher,
        fetched: BTreeMap::new(),
        changes: 0,
        audit: None,
        audited: None,
        committed: Instant::now(),
    };
    let handle = thread::Builder::new()
        .name("log-member".to_owned())
        .spawn(move || thread.run())
        .map_err(|error| LogError::Unavailable(error.to_string()))?;
    Ok(Box::new(KafkaSubscription::new(shared, handle.thread().clone(), closing)))
}

impl Group {
    fn run(mut self) {
        let me = thread::current();
        let wake = me.clone();
        self.member.set_nonempty_callback(move || wake.unpark());
        self.fetcher.set_nonempty_callback(move || me.unpark());
        let outcome = self.serve();
        if let Err(error) = outcome {
            self.shared.state.lock().ended = Some(error);
            self.shared.changed.notify_one();
        }
        // Leaves the group. What was to be given back is first, or the client would wait for it.
        self.member.context().leaves.store(true, Ordering::Release);
        let leaving = self.shared.state.lock().freed(Instant::now() + REVOKE_WAIT);
        if let Some(partitions) = leaving {
            self.member.context().give_back(&self.member, &partitions);
        }
        drop(self.member);
        drop(self.fetcher);
    }

    fn serve(&mut self) -> Result<(), LogError> {
        loop {
            if self.shared.left.load(Ordering::Acquire) || self.closing.is_cancelled() {
                return Ok(());
            }
            let mut busy = self.hear()?;
            let freed = self.shared.state.lock().freed(Instant::now());
            if let Some(partitions) = freed {
                self.member.context().give_back(&self.member, &partitions);
            }
            self.follow()?;
            busy |= self.fetch()?;
            if self.audit.is_some_and(|at| at <= Instant::now()) {
                self.look();
            }
            self.tell_progress();
            if !busy {
                thread::park_timeout(IDLE);
            }
        }
    }

    /// Hears what the group has to say. Whether there may be more.
    fn hear(&mut self) -> Result<bool, LogError> {
        let mut silent = 0;
        for _ in 0..ROUND {
            match self.member.poll(Duration::ZERO) {
                // Fetched before the pause.
                Some(Ok(_)) => {}
                Some(Err(error)) => self.judge(&error)?,
                None => silent += 1,
            }
            if silent == SILENT {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Which errors of a client end the subscription.
    fn judge(&self, error: &KafkaError) -> Result<(), LogError> {
        let fatal = self.member.client().fatal_error().or_else(|| self.fetcher.client().fatal_error());
        if let Some((code, reason)) = fatal {
            let hint = match code {
                RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature => {
                    "; with brokers before Kafka 4, set group_protocol=classic"
                }
                _ => "",
            };
            return Err(LogError::Unavailable(format!("{code}: {reason}{hint}")));
        }
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ) => Err(LogError::Unavailable(error.to_string())),
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve,
            ) => {
                debug!(%error, "a member of a group waits for a broker");
                Ok(())
            }
            _ => {
                warn!(%error, "a member of a group goes on after an error");
                Ok(())
            }
        }
    }

    /// Brings what is fetched in line with what the member wants.
    fn follow(&mut self) -> Result<(), LogError> {
        let wanted = self.shared.state.lock().wanted(&mut self.changes);
        let Self { topic, fetcher, fetched, .. } = self;
        if let Some(wanted) = wanted {
            let gone = |partition: &Partition, fetched: &Fetched| {
                wanted.get(partition).is_none_or(|start| start.number != fetched.start)
            };
            let gone: Vec<Partition> = fetched.iter().filter(|(p, f)| gone(p, f)).map(|(p, _)| *p).collect();
            forget(topic, fetcher, fetched, &gone)?;
            fetched.retain(|partition, _| !gone.contains(partition));
            for (partition, start) in wanted {
                let new = Fetched { start: start.number, next: start.from, assigned: false };
                fetched.entry(partition).or_insert(new);
            }
        }
        let mut list = TopicPartitionList::new();
        for (partition, fetched) in fetched.iter_mut().filter(|(_, fetched)| !fetched.assigned) {
            match i64::try_from(fetched.next) {
                Ok(next) => {
                    list.add_partition_offset(topic, i32::from(*partition), KafkaOffset::Offset(next))
                        .map_err(|error| LogError::Unavailable(error.to_string()))?;
                    fetched.assigned = true;
                }
                // No log reaches that far.
                Err(_) => due(&mut self.audit, self.audited),
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        fetcher.incremental_assign(&list).map_err(|error| LogError::Unavailable(error.to_string()))
    }

    /// Moves what was fetched to where the member takes it. Whether there may be more.
    fn fetch(&mut self) -> Result<bool, LogError> {
        let (mut silent, mut moved, mut busy) = (0, false, true);
        let mut failed = None;
        for _ in 0..ROUND {
            if silent == SILENT || !self.shared.state.lock().has_room() {
                busy = false;
                break;
            }
            match self.fetcher.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let partition = Partition::try_from(message.partition()).ok();
                    let Some((partition, fetched)) =
                        partition.and_then(|partition| Some((partition, self.fetched.get_mut(&partition)?)))
                    else {
                        continue;
                    };
                    let Some(entry) = entry(&message) else { continue };
                    if entry.offset < fetched.next {
                        continue;
                    }
                    let mut state = self.shared.state.lock();
                    if entry.offset > fetched.next {
                        let what = format!("offset {} is missing, before {}", fetched.next, entry.offset);
                        error!(partition, what, "the log is damaged");
                        state.fail(partition, fetched.start, ReadError::Corrupt { partition, what });
                    } else if state.fetched(partition, fetched.start, entry) {
                        fetched.next += 1;
                    }
                    moved = true;
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    // It does not say which.
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        due(&mut self.audit, self.audited);
                    }
                    _ => {
                        failed = Some(error);
                        break;
                    }
                },
                None => silent += 1,
            }
        }
        if moved {
            self.shared.changed.notify_one();
        }
        match failed {
            Some(error) => self.judge(&error).map(|()| true),
            None => Ok(busy),
        }
    }

    /// Some partition cannot be read from where it stands, and the client does not say which: compares each with its bounds. Those
    /// that are within are fetched anew, as theirs may be the one that was refused just before it grew.
    fn look(&mut self) {
        self.audit = None;
        self.audited = Some(Instant::now());
        let Self { topic, fetcher, fetched, shared, .. } = self;
        let all: Vec<Partition> = fetched.keys().copied().collect();
        if let Err(error) = forget(topic, fetcher, fetched, &all) {
            warn!(%error, "partitions could not be set back");
        }
        for (partition, fetched) in fetched.iter() {
            let (partition, from) = (*partition, fetched.next);
            match fetcher.fetch_watermarks(topic, i32::from(partition), REQUEST_WAIT) {
                Ok((begin, end)) => {
                    let (Ok(begin), Ok(end)) = (Offset::try_from(begin), Offset::try_from(end)) else {
                        continue;
                    };
                    if from < begin || from > end {
                        let beyond = ReadError::OutOfRange { partition, from, begin, end };
                        shared.state.lock().fail(partition, fetched.start, beyond);
                        shared.changed.notify_one();
                    }
                }
                Err(error) => {
                    debug!(%error, partition, "the bounds of a partition are not known; they are asked for again");
                    due(&mut self.audit, self.audited);
                    break;
                }
            }
        }
    }

    fn tell_progress(&mut self) {
        if self.committed.elapsed() < COMMIT {
            return;
        }
        self.committed = Instant::now();
        let progress = self.shared.state.lock().take_progress();
        let offsets = progress.into_iter().filter_map(|(partition, next)| {
            Some((partition, KafkaOffset::Offset(i64::try_from(next).ok()?)))
        });
        let told = listed(&self.topic, offsets).and_then(|list| match list.count() {
            0 => Ok(()),
            _ => self.member.commit(&list, CommitMode::Async),
        });
        if let Err(error) = told {
            debug!(%error, "progress could not be told to the broker");
        }
    }
}

/// Fetches no more of these.
fn forget(
    topic: &str,
    fetcher: &BaseConsumer<Quiet>,
    fetched: &mut BTreeMap<Partition, Fetched>,
    partitions: &[Partition],
) -> Result<(), LogError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        if let Some(fetched) = fetched.get_mut(partition).filter(|fetched| fetched.assigned) {
            fetched.assigned = false;
            list.add_partition(topic, i32::from(*partition));
        }
    }
    if list.count() == 0 {
        return Ok(());
    }
    fetcher.incremental_unassign(&list).map_err(|error| LogError::Unavailable(error.to_string()))
}

/// Sets the time of the next look, if none is set.
fn due(audit: &mut Option<Instant>, audited: Option<Instant>) {
    let now = Instant::now();
    audit.get_or_insert_with(|| audited.map_or(now, |audited| now.max(audited + AUDIT)));
}
