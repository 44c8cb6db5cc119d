//! A member of a group: its async face. What it does for it is done by a thread, in [`super::group`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::membership::State;
use crate::{
    ids::{Offset, Partition},
    log::{Delivery, LogError, Subscription},
};

/// What member and thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// The member has something to hear.
    pub(super) changed: Notify,
    /// The member is gone: its thread leaves the group.
    pub(super) left: AtomicBool,
}

#[derive(Debug)]
pub(super) struct KafkaSubscription {
    shared: Arc<Shared>,
    thread: Thread,
    /// Of the log.
    closing: CancellationToken,
}

impl KafkaSubscription {
    pub(super) fn new(shared: Arc<Shared>, thread: Thread, closing: CancellationToken) -> Self {
        Self { shared, thread, closing }
    }
}

impl Drop for KafkaSubscription {
    fn drop(&mut self) {
        self.shared.left.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn next(&mut self) -> Result<Delivery, LogError> {
        if self.shared.state.lock().ask() {
            self.thread.unpark();
        }
        loop {
            if self.closing.is_cancelled() {
                return Err(LogError::Closed);
            }
            let changed = self.shared.changed.notified();
            let (next, made_room) = {
                let mut state = self.shared.state.lock();
                let had_room = state.has_room();
                let next = state.next();
                (next, !had_room && state.has_room())
            };
            if made_room {
                self.thread.unpark();
            }
            if let Some(next) = next {
                return next;
            }
            tokio::select! {
                () = changed => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    fn start(&mut self, partition: Partition, from: Offset) -> Result<(), LogError> {
        let started = self.shared.state.lock().start(partition, from);
        self.thread.unpark();
        started
    }

    fn stop(&mut self, partition: Partition) {
        self.shared.state.lock().stop(partition);
        self.thread.unpark();
    }

    fn note_progress(&mut self, partition: Partition, next: Offset) {
        self.shared.state.lock().note_progress(partition, next);
    }
}
