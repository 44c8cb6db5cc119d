//! The embedded engine: SQLite, in a file of its own so that it shares no write lock with the log.
//!
//! One connection writes, a few read beside it (WAL), and a commit is on the disk before it is reported. SQLite has one writer at
//! a time, so revocations become visible in the order of their numbers by themselves.
//!
//! [`open`](Sqlite::open) makes the tables; [`accounts`], [`chats`], [`reads`], [`owned`] and [`drain`] are the parts of the contract, and
//! [`mod@write`] turns the writer's plan into rows. What a change does to rows is decided in [`super::plan`], not here.

mod accounts;
mod answers;
mod attachments;
mod chats;
mod drain;
mod erasing;
mod fault;
mod listed;
mod notifications;
mod numbered;
mod owned;
mod people;
#[cfg(feature = "planted")]
mod planted;
mod reads;
mod relations;
mod retention;
mod schema;
mod search;
mod seen;
mod value;
mod write;

use std::{fmt, path::Path, time::Duration};

use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::fault::{WAIT, fault, late};
use super::StoreError;

/// Connections that read at once; more callers wait, up to [`WAIT`]. A read is some 50 µs to 1 ms of one core, so four serve
/// some 10,000 a second.
const READERS: u32 = 4;

/// How long a statement waits for a lock inside the file: less than [`WAIT`], so that the call says what was the matter. Only another
/// process, or a connection that is just being closed, can hold one.
const BUSY_WAIT: Duration = Duration::from_secs(4);

/// Statements that a connection keeps prepared. The writer has some ten kinds with up to seven row counts each; readers have some twenty.
const PREPARED: usize = 128;

/// Pages (4 KiB) that gather in the write-ahead file before they are moved over: 16 MiB. A batch of 1,000 messages in as many chats changes
/// some 2,500, many of them again in the next batch: with SQLite's own 1,000 each would be moved every time.
const CHECKPOINT_PAGES: u32 = 4_096;

/// What the write-ahead file is cut back to after a burst: what may gather in it.
const WAL_KEPT_BYTES: u32 = CHECKPOINT_PAGES * 4 * 1024;

/// Pages that the writing connection keeps in memory, in KiB: chats, members and indexes that are busy. Negative is KiB by SQLite's rule.
const WRITER_CACHE_KIB: i32 = -32 * 1024;

/// A store in a SQLite file.
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    #[cfg(feature = "planted")]
    planted: crate::planted::Planted,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the store in this file, or makes one, with the default application and a secret of its own. Beside the file
    /// SQLite keeps `-wal` and `-shm`. The folder must exist.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a file of another kind, or of a later version of this program.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_WAIT)
            .statement_cache_capacity(PREPARED)
            .disable_statement_logging();
        let writing = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is on the disk before it is reported: positions and what clients were told rest on it.
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", WRITER_CACHE_KIB.to_string())
            // What a savepoint may have to take back is kept in memory: as a file it would double the writes of each batch.
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
            .pragma("journal_size_limit", WAL_KEPT_BYTES.to_string());
        let pool = || SqlitePoolOptions::new().acquire_timeout(WAIT).idle_timeout(None).max_lifetime(None);
        let writer = pool().max_connections(1).connect_with(writing).await.map_err(fault)?;
        let readers = pool().max_connections(READERS).connect_lazy_with(options.read_only(true));
        let store = Self {
            writer,
            readers,
            #[cfg(feature = "planted")]
            planted: Default::default(),
        };
        let prepared = async {
            let mut write = store.begin().await.map_err(fault)?;
            schema::prepare(&mut write).await?;
            write.commit().await.map_err(fault)
        };
        tokio::time::timeout(WAIT, prepared).await.map_err(|_| late())??;
        Ok(store)
    }

    /// The same store with something planted in it.
    #[cfg(feature = "planted")]
    pub fn with_planted(self, planted: crate::planted::Planted) -> Self {
        Self { planted, ..self }
    }

    /// Waits for what is under way, and closes the file. Calls after it answer [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Begins a transaction that writes: the only one at a time.
    async fn begin(&self) -> sqlx::Result<Writing> {
        let mut writing = Writing { connection: self.writer.acquire().await?, finished: false };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *writing).await?;
        Ok(writing)
    }
}

/// A transaction that writes. Dropped before it is committed, it takes its connection with it: whatever the engine was in the middle
/// of ends with the connection, and the next transaction starts on a fresh one.
struct Writing {
    connection: PoolConnection<sqlx::Sqlite>,
    finished: bool,
}

impl Writing {
    async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(&mut *self).await?;
        self.finished = true;
        Ok(())
    }
}

impl std::ops::Deref for Writing {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl std::ops::DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.finished {
            self.connection.close_on_drop();
        }
    }
}
