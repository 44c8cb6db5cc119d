//! Requests to owners on other nodes, through a dispatcher.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{
    ids::Partition,
    time::Millis,
    wire::{owner::Answer, peer::NodeToDispatcher},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Line;

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteAnswer {
    /// The owner has answered.
    Answer(Answer),
    /// It did not reach an owner: surely not stored by this attempt.
    Undeliverable,
    /// The way there or back broke, or nothing came in time: it may be stored.
    Broken,
}

/// The way to owners on other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    lines: Arc<[Line]>,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
    last: Arc<AtomicU64>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote, {} requests under way", self.waiting.lock().len())
    }
}

struct Waiting {
    link: usize,
    answer: oneshot::Sender<RemoteAnswer>,
}

/// Takes the request off the list when nobody waits any more.
struct Guard<'a> {
    remote: &'a Remote,
    id: u64,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.remote.waiting.lock().remove(&self.id);
    }
}

impl Remote {
    pub(super) fn over(lines: Arc<[Line]>) -> Self {
        Self { lines, waiting: Arc::default(), last: Arc::default() }
    }

    /// Asks the owner of `partition`. What is under way at once is bounded by who asks: sockets by their pending requests, REST by its
    /// connections.
    pub async fn ask(
        &self,
        partition: Partition,
        deadline: Millis,
        wait: Duration,
        body: Bytes,
    ) -> RemoteAnswer {
        let Some((link, line)) = self.lines.iter().enumerate().find(|(_, line)| line.ready()) else {
            return RemoteAnswer::Undeliverable;
        };
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(id, Waiting { link, answer: sender });
        let _guard = Guard { remote: self, id };
        if line.send(&NodeToDispatcher::Request { id, partition, deadline, body }).is_err() {
            return RemoteAnswer::Undeliverable;
        }
        match tokio::time::timeout(wait, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => RemoteAnswer::Broken,
        }
    }

    pub(super) fn answered(&self, id: u64, answer: RemoteAnswer) {
        let waiting = self.waiting.lock().remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.answer.send(answer);
        }
    }

    /// A link has lost what was under way on it.
    pub(super) fn broken(&self, link: usize) {
        // Their askers see the dropped senders.
        self.waiting.lock().retain(|_, waiting| waiting.link != link);
    }
}
