//! The engine for a cluster: Kafka.
//!
//! - [`producer`]: the intake. One ordered queue for the process; receipts are settled by the broker's own reports.
//! - [`reader`]: ranges, for who takes a partition over or reads a window: a few consumers that are told what to read.
//! - [`subscription`], [`group`], [`membership`]: members of groups: the async face, the thread behind it, and what they share.
//! - [`admin`]: topics are made once and checked at each start, and hold the log's id.
//! - [`settings`], [`client`]: where Kafka is, and what each client is told.
//!
//! An append is confirmed when all replicas in sync have it in memory (Kafka does not sync each record to disk): it survives what
//! they survive. Absent: transactions, which leave holes in the offsets, and Kafka's committed positions, which are only written
//! for those who watch from outside.

mod admin;
mod client;
mod group;
mod membership;
mod producer;
mod reader;
mod settings;
mod subscription;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::settings::{GroupProtocol, KafkaSettings, SettingsError};
use self::{admin::Admin, producer::Intake, reader::Readers};
use super::{AppendError, Entry, Log, LogError, OpenError, ReadError, ReadLimit, Receipt, Subscription};
use crate::ids::{Offset, Partition};

/// Reads at a time; each has a consumer, made when it is first needed. An owner that takes over reads its partitions one after
/// the other, so this is for windows that are read meanwhile.
const READERS: usize = 4;

/// Bytes of a group's name: Kafka's limit.
const MAX_GROUP: usize = 249;

/// A log in a topic of Kafka.
pub struct KafkaLog {
    id: Uuid,
    partitions: Partition,
    settings: KafkaSettings,
    intake: Intake,
    readers: Readers,
    /// For what is forgotten; made when it is first needed.
    admin: OnceCell<Admin>,
    closing: CancellationToken,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KafkaLog {} at {}", self.id, self.settings)
    }
}

impl KafkaLog {
    /// Opens the log. It must have been made, with as many partitions: see [`KafkaLog::init`]. Each question to the brokers waits up
    /// to 10 s for the answer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(settings: &KafkaSettings, partitions: Partition) -> Result<Self, OpenError> {
        let wrong = |what: String| OpenError::Settings { log: settings.to_string(), what };
        settings.check().map_err(|error| wrong(error.to_string()))?;
        // First, so that it gets its producer id meanwhile.
        let intake = Intake::start(settings, settings.topic.clone(), partitions)
            .map_err(|error| wrong(error.to_string()))?;
        let id = Admin::new(settings)?.check(partitions).await?;
        let readers = Readers::start(settings, &settings.topic, partitions, READERS)
            .map_err(|error| OpenError::Unavailable { log: settings.to_string(), what: error.to_string() })?;
        let settings = settings.clone();
        let closing = CancellationToken::new();
        Ok(Self { id, partitions, settings, intake, readers, admin: OnceCell::new(), closing })
    }

    /// Makes the log's topics and its id, so far as they are missing. Two may do so at once, and both get the same id.
    ///
    /// # Errors
    /// [`OpenError`]; also when what is there has another number of partitions, or is the rest of a log that was deleted.
    pub async fn init(settings: &KafkaSettings, partitions: Partition) -> Result<Uuid, OpenError> {
        settings
            .check()
            .map_err(|error| OpenError::Settings { log: settings.to_string(), what: error.to_string() })?;
        Admin::new(settings)?.init(partitions).await
    }

    /// For how long the oldest append has been without an outcome. Above some seconds the brokers do not answer: the library
    /// says nothing of a record meanwhile, it goes on trying.
    pub fn oldest_unconfirmed(&self) -> Option<Duration> {
        self.intake.oldest()
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

#[async_trait]
impl Log for KafkaLog {
    fn id(&self) -> Uuid {
        self.id
    }

    fn partitions(&self) -> Partition {
        self.partitions
    }

    async fn append(&self, partition: Partition, key: Bytes, payload: Bytes) -> Result<Receipt, AppendError> {
        self.intake.append(partition, key, payload).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        self.readers.read(partition, from, limit).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        Ok(self.readers.bounds(partition).await?.1)
    }

    async fn begin(&self, partition: Partition) -> Result<Offset, ReadError> {
        Ok(self.readers.bounds(partition).await?.0)
    }

    async fn forget_before(&self, partition: Partition, before: Offset) -> Result<Offset, ReadError> {
        let (begin, end) = self.readers.bounds(partition).await?;
        if before > end {
            return Err(ReadError::OutOfRange { partition, from: before, begin, end });
        }
        if before <= begin {
            return Ok(begin);
        }
        let made = self.admin.get_or_try_init(async || Admin::new(&self.settings)).await;
        made.map_err(|error| ReadError::Unavailable(error.to_string()))?
            .forget_before(partition, before)
            .await
    }

    async fn join(&self, group: &str) -> Result<Box<dyn Subscription>, LogError> {
        if self.closing.is_cancelled() {
            return Err(LogError::Closed);
        }
        // Two logs in one Kafka have groups of their own.
        let group = format!("{}.{group}", self.settings.topic);
        if group.len() > MAX_GROUP || group.contains('\0') {
            return Err(LogError::Unavailable(format!(
                "the group's name {group:?} is longer than {MAX_GROUP} bytes"
            )));
        }
        if self.settings.group_protocol == GroupProtocol::Consumer
            && let Ok(admin) = Admin::new(&self.settings)
        {
            let closing = self.closing.clone();
            tokio::spawn(async move { closing.run_until_cancelled(admin.warn_of_long_session()).await });
        }
        group::join(&self.settings, &group, self.closing.clone())
    }

    async fn close(&self) -> Result<(), LogError> {
        self.closing.cancel();
        self.intake.close();
        self.readers.close();
        if self.intake.settled().await {
            return Ok(());
        }
        Err(LogError::Unavailable("the brokers did not confirm what was taken in time".to_owned()))
    }
}
