//! Confirmed changes on their way to the cache's tails, off the path of requests.

use std::collections::HashMap;

use common::{
    cache::{SharedCache, TailEntry},
    ids::ChatKey,
    shutdown::Shutdown,
};
use tokio::sync::mpsc;

/// Changes that wait: half a second of 16,000 a second. When it is full a change is left out; its chat's tail then begins anew behind it.
const WAITING: usize = 8_192;
/// Changes that are put in together.
const TOGETHER: usize = 1_024;

/// The way to the tails. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tails(mpsc::Sender<(ChatKey, TailEntry)>);

impl Tails {
    pub(super) fn start(cache: SharedCache, shutdown: &Shutdown) -> Self {
        let (changes, waiting) = mpsc::channel(WAITING);
        let stop = shutdown.soft();
        shutdown.spawn("tails", async move {
            stop.run_until_cancelled(append(cache, waiting)).await;
        });
        Self(changes)
    }

    /// A change is confirmed. Never waits.
    pub(super) fn push(&self, chat: ChatKey, entry: TailEntry) {
        // Without room it is read elsewhere.
        let _ = self.0.try_send((chat, entry));
    }
}

async fn append(cache: SharedCache, mut waiting: mpsc::Receiver<(ChatKey, TailEntry)>) {
    let mut changes = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut changes, TOGETHER).await > 0 {
        let mut chats: HashMap<ChatKey, Vec<TailEntry>> = HashMap::new();
        for (chat, entry) in changes.drain(..) {
            chats.entry(chat).or_default().push(entry);
        }
        for (chat, entries) in chats {
            if let Err(error) = cache.append_tail(chat, entries).await {
                tracing::debug!(%chat, %error, "a tail was not added to");
            }
        }
    }
}
