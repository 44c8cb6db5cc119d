//! The file: its lock, its format, and how connections to it are made.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    ids::{Offset, Partition},
    log::OpenError,
};

/// The version of the tables below, in the file's `user_version`. A file that is not a log yet has 0.
const FORMAT: i64 = 2;

/// `offset` is contiguous within a partition. Without a row id a record is stored once, in the order it is read.
const SCHEMA: &str = "
    CREATE TABLE log (
        one        INTEGER PRIMARY KEY CHECK (one = 1),
        id         BLOB    NOT NULL,
        partitions INTEGER NOT NULL
    );
    CREATE TABLE records (
        partition INTEGER NOT NULL,
        offset    INTEGER NOT NULL,
        key       BLOB    NOT NULL,
        payload   BLOB    NOT NULL,
        PRIMARY KEY (partition, offset)
    ) WITHOUT ROWID;
";

/// From format 1: what a partition begins with. One that is not here has forgotten nothing. All of its records may be gone: the next
/// offset is known from here then.
const BEGINS: &str = "
    CREATE TABLE begins (
        partition INTEGER NOT NULL PRIMARY KEY,
        offset    INTEGER NOT NULL
    );
    PRAGMA user_version = 2;
";

/// Where a partition (?1) begins. Older records than it says may only be gone by hand.
pub(super) const BEGIN: &str = "SELECT max(
    coalesce((SELECT offset FROM begins WHERE partition = ?1), 0),
    coalesce((SELECT min(offset) FROM records WHERE partition = ?1), 0))";

/// Records that are forgotten in one transaction at most: some milliseconds, for which appends wait.
const FORGET_RECORDS: u32 = 1024;

/// Bytes of them at most, but for one record that is larger: each is overwritten.
const FORGET_BYTES: u32 = 4 * 1024 * 1024;

/// How long to wait for the lock of a process that is just closing the file. A restart overlaps by less.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How long a statement waits for a lock inside the file. Only someone who opened it by hand can hold one.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// What the write-ahead file is cut back to when it starts anew: sixteen times what SQLite lets gather before it moves pages
/// over.
const WAL_KEPT_BYTES: u32 = 64 * 1024 * 1024;

/// How large the write-ahead file may grow. It starts anew whenever no reader uses it, and readers who catch up without a
/// pause never let it; past this size the writer waits for them. Measured without that: 167 MiB after 400,000 records.
const WAL_MOST_BYTES: u64 = 2 * WAL_KEPT_BYTES as u64;

/// A log's file, locked for this process as long as this lives.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    partitions: Partition,
    wal: PathBuf,
    /// The size of `wal` at which it is to start anew.
    trim_at: u64,
    /// SQLite's own locks are dropped when a process closes any handle of the file, so this one is on a file beside it.
    _lock: File,
}

impl LogFile {
    /// Locks the file, makes the log if there is none, and checks that it is the one asked for.
    pub(super) async fn open(path: &Path, partitions: Partition) -> Result<(Self, Uuid), OpenError> {
        let lock = lock(path).await?;
        let wal = beside(path, "-wal");
        let file = Self { path: path.to_owned(), partitions, wal, trim_at: WAL_MOST_BYTES, _lock: lock };
        let mut connection = file
            .writer_options()
            .create_if_missing(true)
            .connect()
            .await
            .map_err(|error| file.unavailable(&error))?;
        let id = file.identify(&mut connection).await?;
        connection.close().await.map_err(|error| file.unavailable(&error))?;
        Ok((file, id))
    }

    async fn identify(&self, connection: &mut SqliteConnection) -> Result<Uuid, OpenError> {
        let unavailable = |error| self.unavailable(&error);
        let format: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *connection)
            .await
            .map_err(unavailable)?;
        match format {
            0 => self.create(connection).await?,
            1 => {
                let mut transaction = connection.begin().await.map_err(unavailable)?;
                sqlx::raw_sql(BEGINS).execute(&mut *transaction).await.map_err(unavailable)?;
                transaction.commit().await.map_err(unavailable)?;
            }
            FORMAT => {}
            _ => return Err(OpenError::Version { log: self.name(), has: format, known: FORMAT }),
        }
        let (id, has): (Vec<u8>, i64) = sqlx::query_as("SELECT id, partitions FROM log")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.foreign(error.to_string()))?;
        let id = Uuid::from_slice(&id).map_err(|error| self.foreign(error.to_string()))?;
        let has = Partition::try_from(has).map_err(|_| self.foreign(format!("it has {has} partitions")))?;
        if has != self.partitions {
            return Err(OpenError::PartitionCount { log: self.name(), has, asked: self.partitions });
        }
        Ok(id)
    }

    async fn create(&self, connection: &mut SqliteConnection) -> Result<(), OpenError> {
        let unavailable = |error| self.unavailable(&error);
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut *connection)
            .await
            .map_err(unavailable)?;
        if tables != 0 {
            return Err(self.foreign("it is a database of another kind".to_owned()));
        }
        if self.partitions == 0 {
            return Err(self.foreign("a log needs at least one partition".to_owned()));
        }
        let mut transaction = connection.begin().await.map_err(unavailable)?;
        sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await.map_err(unavailable)?;
        sqlx::query("INSERT INTO log (one, id, partitions) VALUES (1, ?, ?)")
            .bind(Uuid::new_v4().as_bytes().as_slice())
            .bind(i64::from(self.partitions))
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        sqlx::raw_sql(BEGINS).execute(&mut *transaction).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }

    /// A connection for the writer.
    pub(super) async fn connect(&self) -> sqlx::Result<SqliteConnection> {
        self.writer_options().connect().await
    }

    /// By partition, the offset that its next record will have, as the file says.
    pub(super) async fn ends(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<Offset>> {
        let mut ends = Vec::with_capacity(usize::from(self.partitions));
        for partition in 0..self.partitions {
            let last: Option<i64> = sqlx::query_scalar("SELECT max(offset) FROM records WHERE partition = ?")
                .bind(i64::from(partition))
                .fetch_one(&mut *connection)
                .await?;
            ends.push(match last {
                Some(last) => last.cast_unsigned() + 1,
                None => begin(connection, partition).await?,
            });
        }
        Ok(ends)
    }

    /// Forgets a piece of what a partition has before `before`. Where it begins then.
    pub(super) async fn forget_before(
        &self,
        connection: &mut SqliteConnection,
        partition: Partition,
        before: Offset,
    ) -> sqlx::Result<Offset> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let begins = begin(&mut transaction, partition).await?;
        if before <= begins {
            return Ok(begins);
        }
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT max(offset) FROM (
               SELECT offset, sum(size) OVER (ORDER BY offset) AS bytes FROM (
                 SELECT offset, length(key) + length(payload) AS size FROM records
                 WHERE partition = ? AND offset < ? ORDER BY offset LIMIT ?))
             WHERE bytes <= ?",
        )
        .bind(i64::from(partition))
        .bind(before.cast_signed())
        .bind(FORGET_RECORDS)
        .bind(FORGET_BYTES)
        .fetch_one(&mut *transaction)
        .await?;
        let begins = last.map_or(begins, i64::cast_unsigned) + 1;
        sqlx::query("DELETE FROM records WHERE partition = ? AND offset < ?")
            .bind(i64::from(partition))
            .bind(begins.cast_signed())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT OR REPLACE INTO begins (partition, offset) VALUES (?, ?)")
            .bind(i64::from(partition))
            .bind(begins.cast_signed())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(begins)
    }

    /// Starts the write-ahead file anew if it has grown past its size. Reads take milliseconds; one that takes longer than
    /// [`BUSY_WAIT`] is let be, until the file has grown by as much again.
    pub(super) async fn trim_wal(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        // One stat, next to a sync to disk.
        let size = std::fs::metadata(&self.wal).map_or(0, |wal| wal.len());
        if size < self.trim_at {
            return Ok(());
        }
        self.empty_wal(connection, size).await
    }

    /// Starts the write-ahead file anew whatever its size, as it has what was forgotten. Whoever reads for longer than [`BUSY_WAIT`] is let be:
    /// that stays in it until it starts anew of itself.
    pub(super) async fn wipe_wal(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let size = std::fs::metadata(&self.wal).map_or(0, |wal| wal.len());
        self.empty_wal(connection, size).await
    }

    async fn empty_wal(&mut self, connection: &mut SqliteConnection, size: u64) -> sqlx::Result<()> {
        let (busy, _, _): (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await?;
        self.trim_at = if busy == 0 { WAL_MOST_BYTES } else { size + WAL_MOST_BYTES };
        Ok(())
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(&self.path).busy_timeout(BUSY_WAIT).disable_statement_logging()
    }

    fn writer_options(&self) -> SqliteConnectOptions {
        self.options()
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is on the disk before it is reported. It is what a receipt promises.
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", WAL_KEPT_BYTES.to_string())
            // What is forgotten is overwritten: the pages would keep it until they are used again.
            .pragma("secure_delete", "ON")
    }

    pub(super) fn reader_options(&self) -> SqliteConnectOptions {
        self.options().read_only(true)
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn unavailable(&self, error: &sqlx::Error) -> OpenError {
        OpenError::Unavailable { log: self.name(), what: error.to_string() }
    }

    fn foreign(&self, what: String) -> OpenError {
        OpenError::Foreign { log: self.name(), what }
    }
}

async fn begin(connection: &mut SqliteConnection, partition: Partition) -> sqlx::Result<Offset> {
    let begin: i64 = sqlx::query_scalar(BEGIN).bind(i64::from(partition)).fetch_one(connection).await?;
    Ok(begin.cast_unsigned())
}

async fn lock(path: &Path) -> Result<File, OpenError> {
    let log = || path.display().to_string();
    let unavailable = |error: std::io::Error| OpenError::Unavailable { log: log(), what: error.to_string() };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(beside(path, ".lock"))
        .map_err(unavailable)?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(Duration::from_millis(20)).await,
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { log: log() }),
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
