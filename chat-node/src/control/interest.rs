//! The topics that this node has sessions for, as the dispatchers know them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::wire::peer::{NodeToDispatcher, Topic};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Line;

/// Topics in one frame: about 50 bytes each, so half a megabyte of the 4 MiB a link takes.
const TOGETHER: usize = 10_000;
/// How long the dispatchers may take to confirm.
const WAIT: Duration = Duration::from_secs(5);

/// The dispatchers did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dispatchers did not confirm the interest in time")]
pub struct InterestTimeout;

/// The topics that dispatchers send here. Cheap to clone.
#[derive(Clone)]
pub struct Interest {
    lines: Arc<[Line]>,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interest in {} topics", self.state.lock().topics.len())
    }
}

#[derive(Default)]
struct State {
    topics: HashSet<Topic>,
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    /// Links that have not answered, by index.
    links: HashSet<usize>,
    /// Dropped unsent when nobody waits any more.
    done: oneshot::Sender<()>,
}

impl Interest {
    pub(super) fn over(lines: Arc<[Line]>) -> Self {
        Self { lines, state: Arc::default() }
    }

    /// One that answers at once, for a node without dispatchers.
    pub fn detached() -> Self {
        Self::over(Arc::new([]))
    }

    /// Registers `topics`; resolves when every event published from now on reaches this node. With no dispatcher linked
    /// that is at once: when one comes, all topics are registered with it, and then everything served is looked at.
    ///
    /// # Errors
    /// [`InterestTimeout`] after 5 s. The topics stay registered until removed.
    pub async fn add(&self, topics: Vec<Topic>) -> Result<(), InterestTimeout> {
        let mut confirmed = Vec::new();
        for topics in topics.chunks(TOGETHER) {
            confirmed.extend(self.change(topics.to_vec(), Vec::new()));
        }
        let all = async {
            for confirmed in confirmed {
                // A dropped sender: the link was registered anew meanwhile, which includes these topics.
                let _ = confirmed.await;
            }
        };
        tokio::time::timeout(WAIT, all).await.map_err(|_| InterestTimeout)
    }

    /// Forgets `topics`. The caller counts who wants them.
    pub fn remove(&self, topics: Vec<Topic>) {
        if !topics.is_empty() {
            drop(self.change(Vec::new(), topics));
        }
    }

    /// Tells every dispatcher that knows this node. The lock keeps changes of one topic in order.
    fn change(&self, add: Vec<Topic>, remove: Vec<Topic>) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        state.topics.extend(add.iter().copied());
        for topic in &remove {
            state.topics.remove(topic);
        }
        state.last += 1;
        let no = state.last;
        let waits = !add.is_empty();
        let frame = common::wire::codec::pack(&NodeToDispatcher::Interest { no, add, remove });
        let mut links = HashSet::new();
        for (index, line) in self.lines.iter().enumerate().filter(|(_, line)| line.ready()) {
            match line.send_bytes(frame.clone()) {
                Ok(()) => {
                    links.insert(index);
                }
                // The link's task registers everything anew when there is room.
                Err(_) => line.behind.store(true, Ordering::Release),
            }
        }
        if !waits || links.is_empty() {
            return None;
        }
        let (done, confirmed) = oneshot::channel();
        state.waiting.retain(|_, waiting| !waiting.done.is_closed());
        state.waiting.insert(no, Waiting { links, done });
        Some(confirmed)
    }

    /// Registers every topic with a dispatcher that was told of this node just now; from here on it hears of changes as well. Gives the number
    /// that confirms the last.
    pub(super) fn register(&self, index: usize) -> u64 {
        self.forget(index);
        let mut state = self.state.lock();
        let topics: Vec<_> = state.topics.iter().copied().collect();
        let Some(line) = self.lines.get(index) else { return state.last };
        // An empty one ends it, so that there is always an answer to wait for.
        for add in topics.chunks(TOGETHER).chain([[].as_slice()]) {
            state.last += 1;
            let frame = NodeToDispatcher::Interest { no: state.last, add: add.to_vec(), remove: Vec::new() };
            if line.send(&frame).is_err() {
                line.behind.store(true, Ordering::Release);
            }
        }
        line.registered.store(true, Ordering::Release);
        state.last
    }

    /// A dispatcher has answered.
    pub(super) fn confirmed(&self, index: usize, no: u64) {
        let mut state = self.state.lock();
        let done = state.waiting.get_mut(&no).is_some_and(|waiting| {
            waiting.links.remove(&index);
            waiting.links.is_empty()
        });
        if done && let Some(waiting) = state.waiting.remove(&no) {
            let _ = waiting.done.send(());
        }
    }

    /// A dispatcher no longer knows this node: nobody waits for it.
    pub(super) fn forget(&self, index: usize) {
        let mut state = self.state.lock();
        if let Some(line) = self.lines.get(index) {
            line.registered.store(false, Ordering::Release);
        }
        state.waiting.retain(|_, waiting| {
            waiting.links.remove(&index);
            !waiting.links.is_empty()
        });
    }
}
