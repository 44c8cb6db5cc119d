//! The embedded engine: SQLite, in a file of its own so that it shares no write lock with the store.
//!
//! One [`writer`] task takes what has gathered in the intake (up to 1,024 appends), writes it in one transaction that is
//! synced to disk, and settles the receipts; a watch of the partitions' ends wakes who reads. Readers have connections of their
//! own. Group membership lives in memory, as the file serves one process.
//!
//! What is forgotten goes in small transactions of the same task. The file does not shrink: its room is used again.

mod file;
mod reader;
mod subscription;
mod writer;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{
    file::LogFile,
    reader::{READ_WAIT, Reader, slow},
    subscription::SqliteSubscription,
    writer::{Append, Forget, Writer},
};
use super::{
    AppendError, Entry, INTAKE_WAIT, Log, LogError, MAX_RECORD_BYTES, OpenError, ReadError, ReadLimit,
    Receipt, Subscription, group::Groups,
};
use crate::ids::{Offset, Partition};

/// Records that the intake holds at most, those being written included: eight transactions of 1,024, or some 100 ms of
/// work at 80,000 a second. When it is full, appends wait [`INTAKE_WAIT`] and are then refused.
const INTAKE_RECORDS: usize = 8 * writer::BATCH;

/// What each record takes of the intake's room at least, and so 64 MiB in all: 8,192 records of up to 8 KiB, or 68 of the largest.
const LEAST_ROOM: usize = 8 * 1024;

/// How long [`Log::close`] waits: a full intake is written in a second on a slow disk.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// A log in a SQLite file.
#[derive(Debug)]
pub struct SqliteLog {
    id: Uuid,
    partitions: Partition,
    intake: mpsc::Sender<Append>,
    forgets: mpsc::Sender<Forget>,
    /// In bytes.
    room: Arc<Semaphore>,
    reader: Reader,
    groups: Groups,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl SqliteLog {
    /// Opens the log in this file, or makes one. Beside it SQLite keeps `-wal` and `-shm`, and the engine `.lock`. The
    /// folder must exist.
    ///
    /// Waits up to 2 s for a process that is just closing the same file.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(path: &Path, partitions: Partition) -> Result<Self, OpenError> {
        let (file, id) = LogFile::open(path, partitions).await?;
        let reader_options = file.reader_options();
        let (ends, watched) = watch::channel(Vec::new());
        let writer = Writer::open(file, ends).await?;
        let reader = Reader::new(reader_options, watched);
        let (intake, appends) = mpsc::channel(INTAKE_RECORDS);
        // One is under way at a time; more wait, as long as reads do.
        let (forgets, to_forget) = mpsc::channel(1);
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(writer.run(appends, to_forget, closing.clone()));
        tasks.close();
        Ok(Self {
            id,
            partitions,
            intake,
            forgets,
            room: Arc::new(Semaphore::new(INTAKE_RECORDS * LEAST_ROOM)),
            reader,
            groups: Groups::new(partitions),
            closing,
            tasks,
        })
    }
}

#[async_trait]
impl Log for SqliteLog {
    fn id(&self) -> Uuid {
        self.id
    }

    fn partitions(&self) -> Partition {
        self.partitions
    }

    async fn append(&self, partition: Partition, key: Bytes, payload: Bytes) -> Result<Receipt, AppendError> {
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
        let (settle, receipt) = Receipt::new();
        match self.intake.try_send(Append { partition, key, payload, settle, room }) {
            Ok(()) => Ok(receipt),
            Err(mpsc::error::TrySendError::Full(_)) => Err(AppendError::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(AppendError::Closed),
        }
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        self.reader.read(partition, from, limit).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.reader.end(partition)
    }

    async fn begin(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.reader.begin(partition).await
    }

    async fn forget_before(&self, partition: Partition, before: Offset) -> Result<Offset, ReadError> {
        let end = self.reader.end(partition)?;
        if before > end {
            let begin = self.reader.begin(partition).await?;
            return Err(ReadError::OutOfRange { partition, from: before, begin, end });
        }
        let (answer, begins) = oneshot::channel();
        let asked = async {
            self.forgets.send(Forget { partition, before, answer }).await.map_err(|_| ReadError::Closed)?;
            begins.await.map_err(|_| ReadError::Closed)?
        };
        timeout(READ_WAIT, asked).await.map_err(|_| slow())?
    }

    async fn join(&self, group: &str) -> Result<Box<dyn Subscription>, LogError> {
        if self.closing.is_cancelled() {
            return Err(LogError::Closed);
        }
        let membership = self.groups.join(group, Instant::now())?;
        Ok(Box::new(SqliteSubscription::new(membership, self.reader.clone())))
    }

    async fn close(&self) -> Result<(), LogError> {
        self.closing.cancel();
        self.room.close();
        timeout(CLOSE_WAIT, self.tasks.wait())
            .await
            .map_err(|_| LogError::Unavailable("its writer did not finish in time".to_owned()))?;
        self.reader.close().await;
        Ok(())
    }
}
