//! Reading: beside the writer, on connections of its own.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::{sync::watch, time::timeout};

use super::file::BEGIN;
use crate::{
    ids::{Offset, Partition},
    log::{Entry, ReadError, ReadLimit},
};

/// Connections that read at once: a storage writer, a take-over, and two for whoever looks. More wait, up to
/// [`READ_WAIT`].
const CONNECTIONS: u32 = 4;

/// How long a read may take, waiting for a connection included. 4 MiB take a few milliseconds from a healthy disk.
pub(super) const READ_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(super) struct Reader {
    pool: SqlitePool,
    ends: watch::Receiver<Vec<Offset>>,
}

impl Reader {
    pub(super) fn new(options: SqliteConnectOptions, ends: watch::Receiver<Vec<Offset>>) -> Self {
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(READ_WAIT)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Self { pool, ends }
    }

    /// The ends of the partitions, as they move; it ends with the writer.
    pub(super) fn ends(&self) -> watch::Receiver<Vec<Offset>> {
        self.ends.clone()
    }

    pub(super) fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        let ends = self.ends.borrow();
        ends.get(usize::from(partition)).copied().ok_or_else(|| ReadError::NoSuchPartition {
            partition,
            partitions: Partition::try_from(ends.len()).unwrap_or(Partition::MAX),
        })
    }

    pub(super) async fn begin(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.end(partition)?;
        timeout(READ_WAIT, self.find_begin(partition)).await.map_err(|_| slow())?
    }

    pub(super) async fn read(
        &self,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        let end = self.end(partition)?;
        if from == end {
            return Ok(Vec::new());
        }
        timeout(READ_WAIT, self.read_before(end, partition, from, limit)).await.map_err(|_| slow())?
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn read_before(
        &self,
        end: Offset,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        if from > end {
            let begin = self.find_begin(partition).await?;
            return Err(ReadError::OutOfRange { partition, from, begin, end });
        }
        let most =
            limit.records.clamp(1, i32::MAX as usize).min(usize::try_from(end - from).unwrap_or(usize::MAX));
        let mut rows = sqlx::query(
            "SELECT offset, key, payload FROM records
             WHERE partition = ? AND offset >= ? ORDER BY offset LIMIT ?",
        )
        .bind(i64::from(partition))
        .bind(from.cast_signed())
        .bind(most.cast_signed() as i64)
        .fetch(&self.pool);
        let mut entries: Vec<Entry> = Vec::with_capacity(most.min(ReadLimit::BATCH.records));
        let mut bytes = 0;
        let mut expected = from;
        while let Some(row) = rows.try_next().await.map_err(unavailable)? {
            let entry = Entry {
                offset: row.try_get::<i64, _>(0).map_err(unavailable)?.cast_unsigned(),
                key: Bytes::from(row.try_get::<Vec<u8>, _>(1).map_err(unavailable)?),
                payload: Bytes::from(row.try_get::<Vec<u8>, _>(2).map_err(unavailable)?),
            };
            if entry.offset != expected {
                break;
            }
            bytes += entry.key.len() + entry.payload.len();
            if bytes > limit.bytes && !entries.is_empty() {
                return Ok(entries);
            }
            entries.push(entry);
            expected += 1;
        }
        if entries.len() == most {
            return Ok(entries);
        }
        drop(rows);
        let begin = self.find_begin(partition).await?;
        if from < begin {
            return Err(ReadError::OutOfRange { partition, from, begin, end });
        }
        let what = format!("offset {expected} is missing, before {end}");
        Err(ReadError::Corrupt { partition, what })
    }

    async fn find_begin(&self, partition: Partition) -> Result<Offset, ReadError> {
        let begin: i64 = sqlx::query_scalar(BEGIN)
            .bind(i64::from(partition))
            .fetch_one(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(begin.cast_unsigned())
    }
}

pub(super) fn slow() -> ReadError {
    ReadError::Unavailable("it did not answer in time".to_owned())
}

fn unavailable(error: sqlx::Error) -> ReadError {
    match error {
        sqlx::Error::PoolClosed => ReadError::Closed,
        error => ReadError::Unavailable(error.to_string()),
    }
}
