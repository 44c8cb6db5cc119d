//! The one task that writes: it gives records their offsets, and nobody is told one before it is on the disk.

use std::time::Duration;

use bytes::Bytes;
use sqlx::{AssertSqlSafe, Connection, SqlSafeStr, SqlStr, SqliteConnection};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::file::LogFile;
use crate::{
    ids::{Offset, Partition},
    log::{OpenError, ReadError, Settle, Unconfirmed},
};

/// Appends that one transaction takes at most. One sync to disk for all of them is what makes the log fast; more would
/// gain little and make the first of them wait. Its 4,096 bound values are far from SQLite's 32,766.
pub(super) const BATCH: usize = 1024;

/// How long to wait before the file is tried again after it could not be opened. Appends gather meanwhile.
const RETRY: Duration = Duration::from_millis(200);

/// An append on its way.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) partition: Partition,
    pub(super) key: Bytes,
    pub(super) payload: Bytes,
    pub(super) settle: Settle,
    /// Its part of the intake, given back when it is settled.
    pub(super) room: OwnedSemaphorePermit,
}

/// Records to be forgotten: a piece of them.
#[derive(Debug)]
pub(super) struct Forget {
    pub(super) partition: Partition,
    pub(super) before: Offset,
    /// Where the partition begins then.
    pub(super) answer: oneshot::Sender<Result<Offset, ReadError>>,
}

#[derive(Debug)]
pub(super) struct Writer {
    file: LogFile,
    /// None after a failure: what the file holds is then read from it anew.
    connection: Option<SqliteConnection>,
    /// By partition, the next offset. What is published here is on the disk.
    ends: watch::Sender<Vec<Offset>>,
    inserts: Inserts,
}

impl Writer {
    pub(super) async fn open(file: LogFile, ends: watch::Sender<Vec<Offset>>) -> Result<Self, OpenError> {
        let mut writer = Self { file, connection: None, ends, inserts: Inserts::new() };
        let connection = writer.reconnect().await.map_err(|error| writer.file.unavailable(&error))?;
        writer.connection = Some(connection);
        Ok(writer)
    }

    /// Writes until every handle is gone or `closing` is cancelled, and then what was taken before.
    pub(super) async fn run(
        mut self,
        mut intake: mpsc::Receiver<Append>,
        mut forgets: mpsc::Receiver<Forget>,
        closing: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let taken = tokio::select! {
                biased;
                () = closing.cancelled(), if !intake.is_closed() => {
                    intake.close();
                    continue;
                }
                // Whoever wants more forgotten asks again when it is answered, and what is to be appended comes in between.
                Some(forget) = forgets.recv(), if !intake.is_closed() => {
                    self.forget(forget, &closing).await;
                    continue;
                }
                taken = intake.recv_many(&mut batch, BATCH) => taken,
            };
            if taken == 0 {
                break;
            }
            self.write(&mut batch, &closing).await;
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            warn!(log = self.file.name(), %error, "the log was not closed cleanly; it is recovered at the next start");
        }
    }

    async fn write(&mut self, batch: &mut Vec<Append>, closing: &CancellationToken) {
        let Some(mut connection) = self.connected(closing).await else {
            return settle_unconfirmed(batch, "the log was closed while its file was out of reach");
        };
        let (offsets, ends) = place(&self.ends.borrow(), batch);
        match self.inserts.commit(&mut connection, batch, &offsets).await {
            Ok(()) => {
                self.ends.send_replace(ends);
                for (append, offset) in batch.drain(..).zip(offsets) {
                    append.settle.settle(Ok(offset));
                    drop(append.room);
                }
                self.keep(connection).await;
            }
            Err(error) => {
                error!(log = self.file.name(), %error, records = batch.len(), "a commit to the log failed");
                settle_unconfirmed(batch, &error.to_string());
            }
        }
    }

    async fn forget(&mut self, Forget { partition, before, answer }: Forget, closing: &CancellationToken) {
        let Some(mut connection) = self.connected(closing).await else { return };
        let begins = self.file.forget_before(&mut connection, partition, before).await;
        match &begins {
            // Once for all pieces.
            Ok(begins) if *begins >= before => match self.file.wipe_wal(&mut connection).await {
                Ok(()) => self.connection = Some(connection),
                Err(error) => {
                    warn!(log = self.file.name(), %error, "the log's write-ahead file still has what was forgotten")
                }
            },
            Ok(_) => self.keep(connection).await,
            Err(_) => {}
        }
        drop(answer.send(begins.map_err(|error| ReadError::Unavailable(error.to_string()))));
    }

    /// None when the log is closed first.
    async fn connected(&mut self, closing: &CancellationToken) -> Option<SqliteConnection> {
        match self.connection.take() {
            Some(connection) => Some(connection),
            None => self.reconnect_patiently(closing).await,
        }
    }

    async fn keep(&mut self, mut connection: SqliteConnection) {
        match self.file.trim_wal(&mut connection).await {
            Ok(()) => self.connection = Some(connection),
            Err(error) => {
                warn!(log = self.file.name(), %error, "the log's write-ahead file cannot be trimmed")
            }
        }
    }

    /// Opens the file anew and publishes what it really holds: a commit that failed may be there all the same.
    async fn reconnect(&mut self) -> sqlx::Result<SqliteConnection> {
        let mut connection = self.file.connect().await?;
        let ends = self.file.ends(&mut connection).await?;
        self.ends.send_replace(ends);
        Ok(connection)
    }

    async fn reconnect_patiently(&mut self, closing: &CancellationToken) -> Option<SqliteConnection> {
        loop {
            match self.reconnect().await {
                Ok(connection) => return Some(connection),
                Err(error) => warn!(log = self.file.name(), %error, "the log is out of reach"),
            }
            tokio::select! {
                () = closing.cancelled() => return None,
                () = sleep(RETRY) => {}
            }
        }
    }
}

fn settle_unconfirmed(batch: &mut Vec<Append>, why: &str) {
    for append in batch.drain(..) {
        append.settle.settle(Err(Unconfirmed(why.to_owned())));
    }
}

/// The offsets that these appends get, and the ends after them.
fn place(ends: &[Offset], batch: &[Append]) -> (Vec<Offset>, Vec<Offset>) {
    let mut ends = ends.to_vec();
    let mut offsets = Vec::with_capacity(batch.len());
    for append in batch {
        // The intake takes only partitions that exist.
        if let Some(end) = ends.get_mut(usize::from(append.partition)) {
            offsets.push(*end);
            *end += 1;
        }
    }
    (offsets, ends)
}

/// One INSERT for 1, 2, 4, … 1,024 rows each: any batch is a few of them, and each is prepared once.
#[derive(Debug)]
struct Inserts(Vec<(usize, SqlStr)>);

impl Inserts {
    fn new() -> Self {
        let sizes = (0..=BATCH.ilog2()).rev().map(|power| 1 << power);
        Self(sizes.map(|rows| (rows, AssertSqlSafe(insert_of(rows)).into_sql_str())).collect())
    }

    async fn commit(
        &self,
        connection: &mut SqliteConnection,
        batch: &[Append],
        offsets: &[Offset],
    ) -> sqlx::Result<()> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut rows = batch.iter().zip(offsets);
        for (size, sql) in &self.0 {
            while rows.len() >= *size {
                let mut insert = sqlx::query(sql.clone());
                for (append, offset) in rows.by_ref().take(*size) {
                    insert = insert
                        .bind(i64::from(append.partition))
                        .bind(offset.cast_signed())
                        .bind(append.key.as_ref())
                        .bind(append.payload.as_ref());
                }
                insert.execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await
    }
}

fn insert_of(rows: usize) -> String {
    format!(
        "INSERT INTO records (partition, offset, key, payload) VALUES {}(?,?,?,?)",
        "(?,?,?,?),".repeat(rows - 1)
    )
}
