//! What owners ask the store: chats that are not in memory, and sends that may have been stored before. Questions that
//! come together are asked together, over all partitions of the node.

use std::collections::HashMap;

use common::{
    ids::ChatKey,
    shutdown::Shutdown,
    store::{ChatRow, Found, SendKey, SharedStore, StoreError},
};
use tokio::sync::{mpsc, oneshot};

/// Questions in one query: the engines bind at most 32,766 variables, and three name a send.
const TOGETHER: usize = 500;
/// Questions that wait. A partition asks one per chat at a time, so this is chats in need, not requests; when full, the askers wait.
const WAITING: usize = 4_096;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The way to the store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lookup {
    chats: mpsc::Sender<(ChatKey, Reply<Option<ChatRow>>)>,
    sends: mpsc::Sender<(Vec<SendKey>, Reply<Vec<Found>>)>,
}

impl Lookup {
    pub(super) fn start(store: SharedStore, shutdown: &Shutdown) -> Self {
        let (chats, asked_chats) = mpsc::channel(WAITING);
        let (sends, asked_sends) = mpsc::channel(WAITING);
        let (load, find) = (load(store.clone(), asked_chats), find(store, asked_sends));
        // It ends with the last asker.
        shutdown.spawn("owner's questions to the store", async move {
            tokio::join!(load, find);
        });
        Self { chats, sends }
    }

    /// A chat, if the store has it.
    pub(super) async fn chat(&self, key: ChatKey) -> Result<Option<ChatRow>, StoreError> {
        ask(&self.chats, key).await
    }

    /// Those of these sends that the store has.
    pub(super) async fn sends(&self, keys: Vec<SendKey>) -> Result<Vec<Found>, StoreError> {
        ask(&self.sends, keys).await
    }
}

async fn ask<Q, A>(queue: &mpsc::Sender<(Q, Reply<A>)>, question: Q) -> Result<A, StoreError> {
    let gone = || StoreError::Unavailable("the node is stopping".into());
    let (reply, answer) = oneshot::channel();
    queue.send((question, reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

async fn load(store: SharedStore, mut asked: mpsc::Receiver<(ChatKey, Reply<Option<ChatRow>>)>) {
    let mut questions = Vec::with_capacity(TOGETHER);
    while asked.recv_many(&mut questions, TOGETHER).await > 0 {
        // Of a chat that was asked for in a term that is over, and is asked for again in the next, there are two.
        let mut takers: HashMap<ChatKey, Vec<Reply<Option<ChatRow>>>> = HashMap::new();
        for (key, reply) in questions.drain(..).filter(|(_, reply)| !reply.is_closed()) {
            takers.entry(key).or_default().push(reply);
        }
        if takers.is_empty() {
            continue;
        }
        let keys: Vec<_> = takers.keys().copied().collect();
        let answer = store.load(&keys).await;
        let mut rows =
            answer.map(|rows| rows.into_iter().map(|row| (row.key, row)).collect::<HashMap<_, _>>());
        for (key, mut takers) in takers {
            let row = match &mut rows {
                Ok(rows) => Ok(rows.remove(&key)),
                Err(error) => Err(error.clone()),
            };
            let Some(last) = takers.pop() else { continue };
            for taker in takers {
                let _ = taker.send(row.clone());
            }
            let _ = last.send(row);
        }
    }
}

async fn find(store: SharedStore, mut asked: mpsc::Receiver<(Vec<SendKey>, Reply<Vec<Found>>)>) {
    let mut questions = Vec::with_capacity(TOGETHER);
    while asked.recv_many(&mut questions, TOGETHER).await > 0 {
        questions.retain(|(_, reply)| !reply.is_closed());
        let keys: Vec<_> = questions.iter().flat_map(|(keys, _)| keys.iter().cloned()).collect();
        let mut found = HashMap::new();
        let mut failed = None;
        for keys in keys.chunks(TOGETHER) {
            match store.find_sent(keys).await {
                Ok(rows) => found.extend(rows.into_iter().map(|row| (row.key.clone(), row))),
                Err(error) => failed = Some(error),
            }
        }
        for (keys, reply) in questions.drain(..) {
            let _ = reply.send(match &failed {
                Some(error) => Err(error.clone()),
                None => Ok(keys.iter().filter_map(|key| found.get(key).cloned()).collect()),
            });
        }
    }
}
