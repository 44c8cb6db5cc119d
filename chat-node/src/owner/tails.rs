//! Confirmed changes on their way to the cache's tails, off the path of requests.

use std::{collections::HashMap, time::Duration};

use common::{
    cache::{SharedCache, TailEntry},
    ids::ChatKey,
    shutdown::Shutdown,
};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

/// Changes that wait: half a second of 16,000 a second. When it is full a change is left out; its chat's tail then begins anew behind it.
const WAITING: usize = 8_192;
/// Changes that are put in together.
const TOGETHER: usize = 1_024;
/// For how long they are gathered: one by one they cost the cache and this node several times as much.
const GATHERED: Duration = Duration::from_millis(10);
/// Chats that are added to at once: on one connection their calls leave together.
const AT_ONCE: usize = 64;

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
        tokio::time::sleep(GATHERED).await;
        while changes.len() < TOGETHER
            && let Ok(change) = waiting.try_recv()
        {
            changes.push(change);
        }
        let mut chats: HashMap<ChatKey, Vec<TailEntry>> = HashMap::new();
        for (chat, entry) in changes.drain(..) {
            chats.entry(chat).or_default().push(entry);
        }
        let adding = stream::iter(chats).for_each_concurrent(AT_ONCE, |(chat, entries)| {
            let adding = cache.append_tail(chat, entries);
            async move {
                if let Err(error) = adding.await {
                    tracing::debug!(%chat, %error, "a tail was not added to");
                }
            }
        });
        adding.await;
    }
}
