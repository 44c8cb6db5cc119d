//! Appending: one ordered intake for the process, and the receipts of what is under way.
//!
//! The order is the library's own queue, which an append enters before it returns. A semaphore that serves its waiters in turn
//! lets in less than that queue holds, so the queue is never full, and no record is tried again behind a later one.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tracing::{error, info};

use super::client;
use crate::{
    ids::{Offset, Partition},
    log::{AppendError, INTAKE_WAIT, MAX_RECORD_BYTES, Receipt, Settle, Unconfirmed},
};

/// Records under way at most: 100,000 a second at a report time of 300 ms. When they are all taken, appends wait
/// [`INTAKE_WAIT`] and are then refused.
const INTAKE_RECORDS: usize = 32 * 1024;

/// What each record takes of the intake's room at least, and so 64 MiB in all: 32,768 records of up to 2 KiB, or 68 of the largest.
const LEAST_ROOM: usize = 2 * 1024;

/// The library frees a record a little after it reported it, so its queue is twice the intake.
const QUEUE_RECORDS: usize = 2 * INTAKE_RECORDS;

/// In KiB; see [`QUEUE_RECORDS`].
const QUEUE_KIB: usize = 2 * INTAKE_RECORDS * LEAST_ROOM / 1024;

/// How long the reporting thread waits before it looks whether it should end.
const POLL: Duration = Duration::from_millis(100);

/// How long what was taken may take after the last handle is gone. What has no report by then stays unconfirmed.
pub(super) const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// An append on its way.
#[derive(Debug)]
struct Pending {
    settle: Settle,
    since: Instant,
    /// Its part of the intake, given back when it is settled.
    _room: OwnedSemaphorePermit,
}

/// The appends under way of one client, by number. They are settled roughly in the order of their numbers.
#[derive(Debug, Default)]
struct Outstanding {
    /// The number of the first in `pending`.
    first: usize,
    pending: VecDeque<Option<Pending>>,
}

impl Outstanding {
    fn insert(&mut self, pending: Pending) -> usize {
        self.pending.push_back(Some(pending));
        self.first.wrapping_add(self.pending.len() - 1)
    }

    fn take(&mut self, number: usize) -> Option<Pending> {
        let taken = self.pending.get_mut(number.wrapping_sub(self.first))?.take();
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        taken
    }
}

/// What a client's reports reach.
#[derive(Debug)]
struct Reports {
    outstanding: Mutex<Outstanding>,
    /// How many appends of the whole intake have no outcome.
    under_way: Arc<watch::Sender<usize>>,
}

impl Reports {
    fn settle(&self, number: usize, outcome: Result<Offset, Unconfirmed>) {
        // One that is not there was given up with its client.
        let Some(pending) = self.outstanding.lock().take(number) else { return };
        pending.settle.settle(outcome);
        self.under_way.send_modify(|count| *count = count.saturating_sub(1));
    }

    fn give_up(&self, why: &str) {
        let outstanding = std::mem::take(&mut *self.outstanding.lock());
        let given_up = outstanding.pending.into_iter().flatten();
        let count = given_up.map(|pending| pending.settle.settle(Err(Unconfirmed(why.to_owned())))).count();
        self.under_way.send_modify(|under_way| *under_way = under_way.saturating_sub(count));
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
    }
}

impl ProducerContext for Reports {
    /// A number and no pointer: what the library never reports is still ours to settle.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let outcome = match result {
            // A retry that the broker no longer remembers is confirmed without an offset.
            Ok(message) => Offset::try_from(message.offset())
                .map_err(|_| Unconfirmed("it was confirmed without an offset".to_owned())),
            Err((error, _)) => Err(Unconfirmed(error.to_string())),
        };
        self.settle(number, outcome);
    }
}

type Client = BaseProducer<Reports>;

/// The intake. Dropped, it finishes what it took, for up to [`CLOSE_WAIT`].
#[derive(Debug)]
pub(super) struct Intake {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    partitions: Partition,
}

struct Shared {
    topic: String,
    config: ClientConfig,
    /// The client that appends go to; another after a fatal error.
    client: RwLock<Arc<Client>>,
    under_way: Arc<watch::Sender<usize>>,
    /// Whether any handle is left.
    open: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared of topic {}", self.topic)
    }
}

fn connect(config: &ClientConfig, under_way: &Arc<watch::Sender<usize>>) -> Result<Arc<Client>, KafkaError> {
    let reports = Reports { outstanding: Mutex::default(), under_way: Arc::clone(under_way) };
    Ok(Arc::new(Client::from_config_and_context(config, reports)?))
}

impl Intake {
    /// Makes the client, which at once asks for its producer id (0.5 to 1 s), and the thread that hears its reports.
    ///
    /// # Errors
    /// What the library does not like about the settings.
    pub(super) fn start(
        settings: &super::KafkaSettings,
        topic: String,
        partitions: Partition,
    ) -> Result<Self, KafkaError> {
        let config = client::producer(settings, QUEUE_RECORDS, QUEUE_KIB);
        let under_way = Arc::new(watch::channel(0).0);
        let client = RwLock::new(connect(&config, &under_way)?);
        let open = watch::channel(true).0;
        let shared = Arc::new(Shared { topic, config, client, under_way, open });
        let reporting = Arc::clone(&shared);
        thread::Builder::new()
            .name("log-reports".to_owned())
            .spawn(move || reporting.report())
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { shared, room: Arc::new(Semaphore::new(INTAKE_RECORDS * LEAST_ROOM)), partitions })
    }

    pub(super) async fn append(
        &self,
        partition: Partition,
        key: Bytes,
        payload: Bytes,
    ) -> Result<Receipt, AppendError> {
        if partition >= self.partitions {
            return Err(AppendError::NoSuchPartition { partition, partitions: self.partitions });
        }
        let bytes = key.len().saturating_add(payload.len());
        let too_large = AppendError::TooLarge { bytes, max: MAX_RECORD_BYTES };
        if bytes > MAX_RECORD_BYTES {
            return Err(too_large);
        }
        let room = u32::try_from(bytes.max(LEAST_ROOM)).map_err(|_| too_large)?;
        let room = timeout(INTAKE_WAIT, Arc::clone(&self.room).acquire_many_owned(room))
            .await
            .map_err(|_| AppendError::Full)?
            .map_err(|_| AppendError::Closed)?;
        self.shared.append(partition, &key, &payload, room)
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.room.close();
    }

    /// Waits until everything that was taken has its outcome; whether it did in time.
    pub(super) async fn settled(&self) -> bool {
        let mut under_way = self.shared.under_way.subscribe();
        timeout(CLOSE_WAIT, under_way.wait_for(|count| *count == 0)).await.is_ok()
    }

    /// For how long the oldest append has been under way.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let client = Arc::clone(&self.shared.client.read());
        let outstanding = client.context().outstanding.lock();
        outstanding.pending.front()?.as_ref().map(|pending| pending.since.elapsed())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.shared.open.send_replace(false);
    }
}

impl Shared {
    fn append(
        &self,
        partition: Partition,
        key: &[u8],
        payload: &[u8],
        room: OwnedSemaphorePermit,
    ) -> Result<Receipt, AppendError> {
        let (settle, receipt) = Receipt::new();
        // Held until the record is in the queue: a client that is replaced gets no more.
        let client = self.client.read();
        let reports = client.context();
        let pending = Pending { settle, since: Instant::now(), _room: room };
        let number = reports.outstanding.lock().insert(pending);
        self.under_way.send_modify(|count| *count += 1);
        let record = BaseRecord::with_opaque_to(&self.topic, number)
            .partition(i32::from(partition))
            .key(key)
            .payload(payload);
        match client.send(record) {
            Ok(()) => Ok(receipt),
            Err((error, _)) => {
                drop(reports.outstanding.lock().take(number));
                self.under_way.send_modify(|count| *count = count.saturating_sub(1));
                Err(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                        AppendError::TooLarge { bytes: key.len() + payload.len(), max: MAX_RECORD_BYTES }
                    }
                    // A full queue, or a client that has had a fatal error and is about to be replaced.
                    _ => AppendError::Full,
                })
            }
        }
    }

    /// The reporting thread: the only one that hears the client, so reports come in its order.
    fn report(&self) {
        let mut ends_at = None;
        loop {
            let client = Arc::clone(&self.client.read());
            client.poll(POLL);
            if let Some((code, reason)) = client.client().fatal_error() {
                error!(%code, reason, "the kafka producer has failed; what was under way is unconfirmed");
                self.replace(&format!("the producer failed: {reason}"));
            }
            if !*self.open.borrow() {
                let ends_at = *ends_at.get_or_insert_with(|| Instant::now() + CLOSE_WAIT);
                if *self.under_way.borrow() == 0 || Instant::now() >= ends_at {
                    client.context().give_up("the log was closed before it was confirmed");
                    return;
                }
            }
        }
    }

    /// Puts a new client in the place of one that failed. What that one had taken may be in the log or not, now or later.
    fn replace(&self, why: &str) {
        let new = match connect(&self.config, &self.under_way) {
            Ok(new) => new,
            Err(error) => {
                error!(%error, "no new kafka producer could be made; it is tried again");
                self.client.read().context().give_up(why);
                return;
            }
        };
        let old = std::mem::replace(&mut *self.client.write(), new);
        old.context().give_up(why);
        info!("a new kafka producer takes over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::kafka::KafkaSettings;

    /// Nothing listens there: what is appended stays under way.
    fn unreachable() -> Intake {
        let settings = KafkaSettings { brokers: vec!["127.0.0.1:1".to_owned()], ..KafkaSettings::default() };
        Intake::start(&settings, "chat".to_owned(), 2).unwrap()
    }

    async fn append(intake: &Intake) -> Result<Receipt, AppendError> {
        intake.append(0, Bytes::new(), Bytes::from_static(b"record")).await
    }

    #[tokio::test]
    async fn what_a_failed_producer_had_taken_is_unconfirmed_and_its_room_is_given_back() {
        let intake = unreachable();
        let mut receipts = Vec::new();
        for _ in 0..10 {
            receipts.push(append(&intake).await.unwrap());
        }
        assert!(intake.oldest().is_some());
        let all = INTAKE_RECORDS * LEAST_ROOM;
        assert_eq!(intake.room.available_permits(), all - 10 * LEAST_ROOM);
        intake.shared.replace("a test says so");
        for receipt in receipts {
            assert_eq!(receipt.await, Err(Unconfirmed("a test says so".to_owned())));
        }
        assert_eq!(intake.room.available_permits(), all);
        assert_eq!((intake.oldest(), *intake.shared.under_way.borrow()), (None, 0));
        let next = append(&intake).await.unwrap();
        assert_eq!(*intake.shared.under_way.borrow(), 1, "the new one takes records");
        drop(next);
    }

    #[tokio::test]
    async fn an_intake_that_is_full_refuses_after_a_while_and_a_closed_one_at_once() {
        let intake = unreachable();
        let mut receipts = Vec::new();
        for _ in 0..INTAKE_RECORDS {
            receipts.push(append(&intake).await.unwrap());
        }
        assert_eq!(append(&intake).await.unwrap_err(), AppendError::Full);
        intake.close();
        assert_eq!(append(&intake).await.unwrap_err(), AppendError::Closed);
    }

    #[test]
    fn numbers_are_given_back_in_any_order() {
        let room = Arc::new(Semaphore::new(8));
        let pending = || Pending {
            settle: Receipt::new().0,
            since: Instant::now(),
            _room: Arc::clone(&room).try_acquire_owned().unwrap(),
        };
        let mut outstanding = Outstanding { first: usize::MAX, ..Outstanding::default() };
        let numbers: Vec<usize> = (0..4).map(|_| outstanding.insert(pending())).collect();
        assert_eq!(numbers, [usize::MAX, 0, 1, 2]);
        for number in [0, 2, usize::MAX, 1] {
            assert!(outstanding.take(number).is_some());
            assert!(outstanding.take(number).is_none(), "only once");
        }
        assert!(outstanding.pending.is_empty());
        assert_eq!(room.available_permits(), 8);
    }
}
