//! Ends messages that are past their time (ME-9): sweep after sweep through the chats that keep them for a while only, in small transactions
//! beside the draining. A sweep that breaks off leaves nothing undone that the next one does not do.
//!
//! Each writer looks through all such chats, and ends messages in those of its own partitions.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use common::{
    applications::Retention,
    ids::{ChatKey, Partition},
    partition::partition_of,
    store::{Scope, StoreError},
};
use tokio::{sync::watch, time::sleep};

use crate::{Engines, WriterConfig, metrics::Metrics};

/// Chats that are looked through by one query: one row of each is read, and of those that wait for their readers some members.
const CHATS: u32 = 500;

/// Messages that end in one transaction: some 10 ms, for which a batch of the partition may have to wait.
const MESSAGES: u32 = 500;

pub(crate) struct Sweeper {
    every: Duration,
    engines: Engines,
    metrics: Metrics,
    owned: watch::Receiver<BTreeSet<Partition>>,
}

impl Sweeper {
    pub(crate) fn new(
        config: &WriterConfig,
        engines: Engines,
        metrics: Metrics,
        owned: watch::Receiver<BTreeSet<Partition>>,
    ) -> Self {
        Self { every: config.sweep_every, engines, metrics, owned }
    }

    pub(crate) async fn run(self) -> Infallible {
        loop {
            sleep(self.every).await;
            if self.owned.borrow().is_empty() {
                continue;
            }
            if let Err(error) = self.sweep().await {
                self.metrics.store_errors.inc();
                tracing::warn!(%error, "a sweep for messages past their time broke off");
            }
        }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let store = &self.engines.retention;
        // What chats themselves have chosen needs no default.
        let mut scopes = vec![(Scope::Chosen, Retention::Forever)];
        let applications = store.application_retentions().await?.into_iter();
        scopes.extend(applications.map(|(app, retention)| (Scope::Application(app, retention), retention)));
        for (scope, default) in scopes {
            let mut after = None;
            loop {
                let due = store.due(scope, after, self.engines.clock.now(), CHATS).await?;
                for chat in due.chats {
                    // One that cannot be swept holds up no other.
                    if let Err(error) = self.end(chat, default).await {
                        self.metrics.store_errors.inc();
                        tracing::warn!(%error, %chat, "messages of a chat that are past their time stay for now");
                    }
                }
                match due.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn end(&self, chat: ChatKey, default: Retention) -> Result<(), StoreError> {
        let partition = partition_of(chat, self.engines.log.partitions());
        while self.owned.borrow().contains(&partition) {
            let now = self.engines.clock.now();
            let ended = self.engines.retention.expire(partition, chat, default, now, MESSAGES).await?;
            self.metrics.expired.inc_by(u64::from(ended));
            if ended < MESSAGES {
                break;
            }
        }
        Ok(())
    }
}
