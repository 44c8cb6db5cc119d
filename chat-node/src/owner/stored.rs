//! How far the writer is: polled from the store, quickly while somebody waits for it, slowly otherwise.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    ids::Partition,
    shutdown::Shutdown,
    store::{Position, SharedStore},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// While a request waits to be stored: a writer takes a few milliseconds, and this is a read of at most 64 rows.
const QUICK: Duration = Duration::from_millis(5);
/// Otherwise: memory is pruned by it, and nobody waits.
const SLOW: Duration = Duration::from_millis(500);

/// What was read.
#[derive(Debug)]
pub(super) struct Read {
    /// By partition.
    pub(super) positions: HashMap<Partition, Position>,
    /// When the store was asked.
    pub(super) asked: Instant,
}

/// Positions as last read.
pub(super) type Positions = Arc<Read>;

/// The positions of the writers, as last read.
#[derive(Clone)]
pub(super) struct Stored {
    positions: watch::Receiver<Positions>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    count: AtomicUsize,
    wake: Notify,
}

/// While one lives, positions are read quickly.
pub(super) struct Urgent(Arc<Waiting>);

impl Drop for Urgent {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stored {
    pub(super) fn start(store: SharedStore, shutdown: &Shutdown) -> Self {
        let (sender, positions) =
            watch::channel(Arc::new(Read { positions: HashMap::new(), asked: Instant::now() }));
        let waiting = Arc::new(Waiting::default());
        let poll = poll(store, sender, Arc::clone(&waiting));
        let soft = shutdown.soft();
        shutdown.spawn("positions of the writers", async move {
            soft.run_until_cancelled_owned(poll).await;
        });
        Self { positions, waiting }
    }

    /// Changes whenever a writer got on.
    pub(super) fn watch(&self) -> watch::Receiver<Positions> {
        self.positions.clone()
    }

    /// Somebody waits.
    pub(super) fn urgent(&self) -> Urgent {
        self.waiting.count.fetch_add(1, Ordering::Relaxed);
        self.waiting.wake.notify_one();
        Urgent(Arc::clone(&self.waiting))
    }
}

async fn poll(store: SharedStore, sender: watch::Sender<Positions>, waiting: Arc<Waiting>) {
    loop {
        let asked = Instant::now();
        match store.positions().await {
            Ok(read) => {
                let positions: HashMap<_, _> = read.into_iter().collect();
                sender.send_if_modified(|known| {
                    let changed = known.positions != positions;
                    if changed {
                        *known = Arc::new(Read { positions, asked });
                    }
                    changed
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the writers' positions cannot be read");
                tokio::time::sleep(SLOW).await;
            }
        }
        let quick = waiting.count.load(Ordering::Relaxed) > 0;
        tokio::select! {
            () = tokio::time::sleep(if quick { QUICK } else { SLOW }) => {}
            () = waiting.wake.notified(), if !quick => {}
        }
    }
}
