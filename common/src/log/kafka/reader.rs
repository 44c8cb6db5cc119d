//! Reading ranges: a few threads, each with a consumer of its own that is told what to read.
//!
//! A thread that has cut a read short stays where it is for a second: who reads on gets it again, with what it has fetched ahead.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::{
    Message, Offset as KafkaOffset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};
use tracing::debug;

use super::{
    KafkaSettings,
    client::{self, Quiet, REQUEST_WAIT},
};
use crate::{
    ids::{Offset, Partition},
    log::{Entry, ReadError, ReadLimit},
};

/// How long a reader that cut a read short keeps its place; also how often an idle one looks at what its client has to say.
const IDLE: Duration = Duration::from_secs(1);

/// The longest single wait for a record within a read.
const POLL: Duration = Duration::from_millis(100);

/// Where a reader stands.
type Place = (Partition, Offset);

#[derive(Debug)]
enum Job {
    Read { from: Place, limit: ReadLimit, answer: oneshot::Sender<Result<Vec<Entry>, ReadError>> },
    Bounds { partition: Partition, answer: oneshot::Sender<Result<(Offset, Offset), ReadError>> },
}

/// Who has nothing to do, by number, and where it stands.
type Free = Vec<(usize, Option<Place>)>;

/// The readers of one topic.
#[derive(Debug)]
pub(super) struct Readers {
    partitions: Partition,
    /// By number. Their threads end when these are dropped.
    inboxes: Vec<SyncSender<(Job, OwnedSemaphorePermit)>>,
    free: Arc<Mutex<Free>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Makes `readers` threads; each makes a client when it is first needed.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub(super) fn start(
        settings: &KafkaSettings,
        topic: &str,
        partitions: Partition,
        readers: usize,
    ) -> std::io::Result<Self> {
        let free: Arc<Mutex<Free>> =
            Arc::new(Mutex::new((0..readers).map(|number| (number, None)).collect()));
        let permits = Arc::new(Semaphore::new(readers));
        let mut inboxes = Vec::with_capacity(readers);
        for number in 0..readers {
            let (jobs, inbox) = mpsc::sync_channel(1);
            inboxes.push(jobs);
            let worker = Worker {
                number,
                settings: settings.clone(),
                topic: topic.to_owned(),
                free: Arc::clone(&free),
                permits: Arc::clone(&permits),
                consumer: None,
                stands: None,
                carried: None,
            };
            thread::Builder::new().name(format!("log-reader-{number}")).spawn(move || worker.run(&inbox))?;
        }
        Ok(Self { partitions, inboxes, free, permits })
    }

    fn check(&self, partition: Partition) -> Result<(), ReadError> {
        if partition < self.partitions {
            return Ok(());
        }
        Err(ReadError::NoSuchPartition { partition, partitions: self.partitions })
    }

    pub(super) async fn read(
        &self,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        self.check(partition)?;
        let from = (partition, from);
        self.ask(Some(from), |answer| Job::Read { from, limit, answer }).await
    }

    /// Begin and end of a partition.
    pub(super) async fn bounds(&self, partition: Partition) -> Result<(Offset, Offset), ReadError> {
        self.check(partition)?;
        self.ask(None, |answer| Job::Bounds { partition, answer }).await
    }

    pub(super) fn close(&self) {
        self.permits.close();
    }

    /// Gives a job to a free reader: the one that stands there, if any does.
    async fn ask<T>(
        &self,
        place: Option<Place>,
        job: impl FnOnce(oneshot::Sender<Result<T, ReadError>>) -> Job,
    ) -> Result<T, ReadError> {
        let slow = || ReadError::Unavailable("it did not answer in time".to_owned());
        let permit = timeout(REQUEST_WAIT, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| slow())?
            .map_err(|_| ReadError::Closed)?;
        let number = {
            let mut free = self.free.lock();
            let at = free
                .iter()
                .rposition(|(_, stands)| place.is_some() && *stands == place)
                .or_else(|| free.iter().rposition(|(_, stands)| stands.is_none()))
                .or_else(|| free.len().checked_sub(1));
            // There are as many as permits.
            at.map(|at| free.remove(at).0)
        };
        let inbox = number.and_then(|number| self.inboxes.get(number)).ok_or(ReadError::Closed)?;
        let (answer, outcome) = oneshot::channel();
        // It is free, so its inbox is empty.
        if inbox.try_send((job(answer), permit)).is_err() {
            return Err(ReadError::Closed);
        }
        // The reader keeps its own time; this is for one that is stuck.
        match timeout(2 * REQUEST_WAIT, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ReadError::Closed),
            Err(_) => Err(slow()),
        }
    }
}

/// One reader's thread.
struct Worker {
    number: usize,
    settings: KafkaSettings,
    topic: String,
    free: Arc<Mutex<Free>>,
    permits: Arc<Semaphore>,
    consumer: Option<BaseConsumer<Quiet>>,
    /// Where the consumer's next record is, if anything is assigned to it.
    stands: Option<Place>,
    /// That record, if it was fetched and did not fit.
    carried: Option<Entry>,
}

fn unavailable(error: &KafkaError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

/// Copies a record out of the client's memory: key and payload in one piece.
pub(super) fn entry(message: &BorrowedMessage<'_>) -> Option<Entry> {
    let key = message.key().unwrap_or_default();
    let payload = message.payload().unwrap_or_default();
    let mut both = Vec::with_capacity(key.len() + payload.len());
    both.extend_from_slice(key);
    both.extend_from_slice(payload);
    let mut key_bytes = Bytes::from(both);
    let payload = key_bytes.split_off(key.len());
    Some(Entry { offset: Offset::try_from(message.offset()).ok()?, key: key_bytes, payload })
}

impl Worker {
    /// Until every sender is gone, or the log is closed.
    fn run(mut self, inbox: &Receiver<(Job, OwnedSemaphorePermit)>) {
        loop {
            match inbox.recv_timeout(IDLE) {
                Ok((Job::Read { from, limit, answer }, permit)) => {
                    let outcome = self.read(from, limit);
                    if outcome.is_err() {
                        self.leave();
                    }
                    self.is_free(permit);
                    drop(answer.send(outcome));
                }
                Ok((Job::Bounds { partition, answer }, permit)) => {
                    let outcome = self.watermarks(partition);
                    self.is_free(permit);
                    drop(answer.send(outcome));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.permits.is_closed() {
                        return;
                    }
                    self.leave();
                    for (number, stands) in self.free.lock().iter_mut() {
                        if *number == self.number {
                            *stands = None;
                        }
                    }
                    // What the client has logged meanwhile.
                    if let Some(consumer) = &self.consumer {
                        drop(consumer.poll(Duration::ZERO));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_free(&self, permit: OwnedSemaphorePermit) {
        self.free.lock().push((self.number, self.stands));
        drop(permit);
    }

    fn consumer(&mut self) -> Result<&BaseConsumer<Quiet>, ReadError> {
        let fatal = self.consumer.as_ref().and_then(|consumer| consumer.client().fatal_error());
        if let Some((code, reason)) = fatal {
            debug!(%code, reason, "a reader of the log is made anew");
            self.consumer = None;
        }
        if self.consumer.is_none() {
            let config = client::reader(&self.settings, &format!("{}-reads", self.topic), client::RANGE_WAIT);
            let made = BaseConsumer::from_config_and_context(&config, Quiet);
            self.consumer = Some(made.map_err(|error| unavailable(&error))?);
        }
        self.consumer.as_ref().ok_or(ReadError::Closed)
    }

    /// Begin and end of a partition. The end is the high watermark: an append is confirmed only when that is past it, and a
    /// leader that is new says nothing before its own has caught up (KIP-207).
    fn watermarks(&mut self, partition: Partition) -> Result<(Offset, Offset), ReadError> {
        let topic = self.topic.clone();
        let marks = self.consumer()?.fetch_watermarks(&topic, i32::from(partition), REQUEST_WAIT);
        let (begin, end) = marks.map_err(|error| unavailable(&error))?;
        match (Offset::try_from(begin), Offset::try_from(end)) {
            (Ok(begin), Ok(end)) => Ok((begin, end)),
            _ => Err(ReadError::Unavailable(format!("partition {partition} has no offsets"))),
        }
    }

    fn leave(&mut self) {
        self.carried = None;
        if self.stands.take().is_some()
            && let Some(consumer) = &self.consumer
            && let Err(error) = consumer.unassign()
        {
            debug!(%error, "a reader of the log is made anew");
            self.consumer = None;
        }
    }

    fn read(&mut self, (partition, from): Place, limit: ReadLimit) -> Result<Vec<Entry>, ReadError> {
        let deadline = Instant::now() + REQUEST_WAIT;
        let (begin, end) = self.watermarks(partition)?;
        if from < begin || from > end {
            return Err(ReadError::OutOfRange { partition, from, begin, end });
        }
        if from == end {
            self.leave();
            return Ok(Vec::new());
        }
        if self.stands != Some((partition, from)) {
            self.leave();
            self.assign(partition, from)?;
        }
        let most = limit.records.max(1).min(usize::try_from(end - from).unwrap_or(usize::MAX));
        let mut entries: Vec<Entry> = Vec::with_capacity(most.min(ReadLimit::BATCH.records));
        let (mut bytes, mut expected) = (0, from);
        while entries.len() < most {
            let Some(entry) = self.next(partition, expected, deadline)? else {
                return Err(ReadError::Unavailable(format!(
                    "partition {partition} gave nothing from {expected} on, and ends at {end}"
                )));
            };
            bytes += entry.key.len() + entry.payload.len();
            if bytes > limit.bytes && !entries.is_empty() {
                self.carried = Some(entry);
                break;
            }
            expected += 1;
            entries.push(entry);
        }
        self.stands = Some((partition, expected));
        if expected == end {
            self.leave();
        }
        Ok(entries)
    }

    fn assign(&mut self, partition: Partition, from: Offset) -> Result<(), ReadError> {
        let from_raw = i64::try_from(from).map_err(|error| ReadError::Unavailable(error.to_string()))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, i32::from(partition), KafkaOffset::Offset(from_raw))
            .map_err(|error| unavailable(&error))?;
        self.consumer()?.assign(&list).map_err(|error| unavailable(&error))?;
        self.stands = Some((partition, from));
        Ok(())
    }

    /// The record at `expected`; none when it does not come in time.
    fn next(
        &mut self,
        partition: Partition,
        expected: Offset,
        deadline: Instant,
    ) -> Result<Option<Entry>, ReadError> {
        if let Some(entry) = self.carried.take() {
            return Ok(Some(entry));
        }
        let consumer = self.consumer()?;
        while Instant::now() < deadline {
            match consumer.poll(POLL) {
                Some(Ok(message)) if message.partition() == i32::from(partition) => {
                    let Some(entry) = entry(&message) else { continue };
                    if entry.offset < expected {
                        continue;
                    }
                    if entry.offset > expected {
                        let what = format!("offset {expected} is missing, before {}", entry.offset);
                        return Err(ReadError::Corrupt { partition, what });
                    }
                    return Ok(Some(entry));
                }
                // What it was told before.
                Some(Ok(_)) | None => {}
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(
                        RDKafkaErrorCode::BrokerTransportFailure
                        | RDKafkaErrorCode::AllBrokersDown
                        | RDKafkaErrorCode::Resolve,
                    ) => debug!(%error, "a read of the log waits for a broker"),
                    _ => return Err(unavailable(&error)),
                },
            }
        }
        Ok(None)
    }
}
