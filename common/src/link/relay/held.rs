//! Datagrams that go on later, in the order in which they are due.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Datagrams held at a time: 12 MB of the usual 1,500 bytes. What comes on top is dropped, as a router would.
const HELD: usize = 8_192;

/// What waits, of the type `T`.
pub(super) struct Held<T> {
    waiting: Mutex<Queue<T>>,
    /// Something is due earlier than all that waited before.
    earlier: Notify,
}

struct Queue<T> {
    due: BinaryHeap<Reverse<Due<T>>>,
    taken: u64,
}

struct Due<T> {
    at: Instant,
    /// Of two that are due at once, the one that came first.
    order: u64,
    what: T,
}

impl<T> Held<T> {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::new(Queue { due: BinaryHeap::new(), taken: 0 }), earlier: Notify::new() }
    }

    /// Takes it in; `false` when there is no room.
    pub(super) fn until(&self, at: Instant, what: T) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.due.len() >= HELD {
            return false;
        }
        waiting.taken += 1;
        let order = waiting.taken;
        let earliest = waiting.due.peek().is_none_or(|Reverse(first)| at < first.at);
        waiting.due.push(Reverse(Due { at, order, what }));
        if earliest {
            self.earlier.notify_one();
        }
        true
    }

    /// The next one, when it is due.
    pub(super) async fn next(&self) -> T {
        loop {
            let first = {
                let mut waiting = self.waiting.lock();
                match waiting.due.peek().map(|Reverse(first)| first.at) {
                    Some(at) if at <= Instant::now() => {
                        if let Some(Reverse(due)) = waiting.due.pop() {
                            return due.what;
                        }
                        None
                    }
                    first => first,
                }
            };
            match first {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }
}

impl<T> Due<T> {
    fn place(&self) -> (Instant, u64) {
        (self.at, self.order)
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}
