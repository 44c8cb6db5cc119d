//! A log on a slow disk: what is appended gets there a while later, in its order. A process that dies meanwhile takes it along.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::mpsc, time::sleep};
use uuid::Uuid;

use crate::{
    ids::{Offset, Partition},
    log::{
        AppendError, Entry, Log, LogError, ReadError, ReadLimit, Receipt, Settle, SharedLog, Subscription,
    },
};

/// How long an append waits: in a test there are always some that do.
const SLOW: Duration = Duration::from_millis(40);

/// Appends that wait. A test has some hundred a second; when it is full, the next one waits.
const WAITING: usize = 10_000;

struct Append {
    partition: Partition,
    key: Bytes,
    payload: Bytes,
    settle: Settle,
}

/// See the module.
pub(crate) struct SlowLog {
    inner: SharedLog,
    waiting: mpsc::Sender<Append>,
}

impl SlowLog {
    /// This log, slower. Must be called in a runtime.
    pub(crate) fn over(inner: SharedLog) -> SharedLog {
        let (waiting, appends) = mpsc::channel(WAITING);
        tokio::spawn(write(Arc::clone(&inner), appends));
        Arc::new(Self { inner, waiting })
    }
}

async fn write(log: SharedLog, mut appends: mpsc::Receiver<Append>) {
    let mut batch = Vec::new();
    while appends.recv_many(&mut batch, WAITING).await > 0 {
        sleep(SLOW).await;
        let mut taken = Vec::with_capacity(batch.len());
        for Append { partition, key, payload, settle } in batch.drain(..) {
            // Refused: its receipt says that the outcome is not known.
            if let Ok(receipt) = log.append(partition, key, payload).await {
                taken.push((settle, receipt));
            }
        }
        for (settle, receipt) in taken {
            settle.settle(receipt.await);
        }
    }
}

#[async_trait]
impl Log for SlowLog {
    fn id(&self) -> Uuid {
        self.inner.id()
    }

    fn partitions(&self) -> Partition {
        self.inner.partitions()
    }

    async fn append(&self, partition: Partition, key: Bytes, payload: Bytes) -> Result<Receipt, AppendError> {
        let (settle, receipt) = Receipt::new();
        let append = Append { partition, key, payload, settle };
        self.waiting.send(append).await.map_err(|_| AppendError::Closed)?;
        Ok(receipt)
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        self.inner.read(partition, from, limit).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.inner.end(partition).await
    }

    async fn begin(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.inner.begin(partition).await
    }

    async fn forget_before(&self, partition: Partition, before: Offset) -> Result<Offset, ReadError> {
        self.inner.forget_before(partition, before).await
    }

    async fn join(&self, group: &str) -> Result<Box<dyn Subscription>, LogError> {
        self.inner.join(group).await
    }

    async fn close(&self) -> Result<(), LogError> {
        self.inner.close().await
    }
}
