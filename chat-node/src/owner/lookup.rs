//! What owners ask the store: chats that are not in memory, and sends that may have been stored before. Questions that
//! come together are asked together, over all partitions of the node.

use std::{collections::HashMap, sync::Arc};

use common::{
    ids::{ChatKey, Offset, Partition},
    shutdown::Shutdown,
    store::{AsOf, ChatRow, Found, SendKey, SharedStore, StoreError},
};
use tokio::sync::{mpsc, oneshot};

/// Questions in one query: the engines bind at most 32,766 variables, and three name a send.
const TOGETHER: usize = 500;
/// Questions that wait. A partition asks one per chat at a time, so this is chats in need, not requests; when full, the askers wait.
const WAITING: usize = 4_096;

type Reply<T> = oneshot::Sender<Result<AsOf<T>, StoreError>>;
type ChatQuestion = (ChatKey, Reply<Option<ChatRow>>);
type SendsQuestion = (Vec<SendKey>, Reply<Vec<Found>>);

/// The way to the store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lookup {
    chats: mpsc::Sender<ChatQuestion>,
    sends: mpsc::Sender<SendsQuestion>,
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
    pub(super) async fn chat(&self, key: ChatKey) -> Result<AsOf<Option<ChatRow>>, StoreError> {
        ask(&self.chats, key).await
    }

    /// Those of these sends that the store has.
    pub(super) async fn sends(&self, keys: Vec<SendKey>) -> Result<AsOf<Vec<Found>>, StoreError> {
        ask(&self.sends, keys).await
    }
}

async fn ask<Q, A>(queue: &mpsc::Sender<(Q, Reply<A>)>, question: Q) -> Result<AsOf<A>, StoreError> {
    let gone = || StoreError::Unavailable("the node is stopping".into());
    let (reply, answer) = oneshot::channel();
    queue.send((question, reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

async fn load(store: SharedStore, mut asked: mpsc::Receiver<ChatQuestion>) {
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
        let mut read = store.load(&keys).await.map(|mut read| {
            let rows = std::mem::take(&mut read.answer).into_iter().map(|row| (row.key, row));
            read.with(rows.collect::<HashMap<_, _>>())
        });
        for (key, mut takers) in takers {
            let row = match &mut read {
                Ok(read) => {
                    let row = read.answer.remove(&key);
                    Ok(read.with(row))
                }
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

async fn find(store: SharedStore, mut asked: mpsc::Receiver<SendsQuestion>) {
    let mut questions = Vec::with_capacity(TOGETHER);
    while asked.recv_many(&mut questions, TOGETHER).await > 0 {
        questions.retain(|(_, reply)| !reply.is_closed());
        let keys: Vec<_> = questions.iter().flat_map(|(keys, _)| keys.iter().cloned()).collect();
        let found = sent(&store, &keys).await;
        for (keys, reply) in questions.drain(..) {
            let _ = reply.send(match &found {
                Ok(found) => {
                    Ok(found.with(keys.iter().filter_map(|key| found.answer.get(key).cloned()).collect()))
                }
                Err(error) => Err(error.clone()),
            });
        }
    }
}

/// Those of these sends that the store has, in as many queries as it takes: as of the earliest.
async fn sent(store: &SharedStore, keys: &[SendKey]) -> Result<AsOf<HashMap<SendKey, Found>>, StoreError> {
    let mut all: Option<AsOf<HashMap<SendKey, Found>>> = None;
    for keys in keys.chunks(TOGETHER) {
        let mut read = store.find_sent(keys).await?;
        let mut found: HashMap<_, _> =
            std::mem::take(&mut read.answer).into_iter().map(|row| (row.key.clone(), row)).collect();
        if let Some(before) = all {
            let earliest = |(partition, offset): (&Partition, &Offset)| {
                (*partition, before.offset(*partition).min(*offset))
            };
            read.offsets = Arc::new(read.offsets.iter().map(earliest).collect());
            found.extend(before.answer);
        }
        all = Some(read.with(found));
    }
    Ok(all.unwrap_or(AsOf { offsets: Arc::default(), answer: HashMap::new() }))
}
