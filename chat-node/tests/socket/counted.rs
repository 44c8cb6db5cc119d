//! The embedded cache, with a count of its calls; on request it is away.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use common::{
    cache::{
        Cache, CacheError, Grant, Lapsed, LimitPolicy, LiveSession, NodeLife, Tail, TailEntry,
        memory::MemoryCache,
    },
    ids::{AppId, ChatKey, Offset, Seq, SocketId, UserKey},
    time::Millis,
};
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct CountedCache {
    inner: MemoryCache,
    calls: Mutex<BTreeMap<&'static str, usize>>,
    pub(crate) away: AtomicBool,
}

impl CountedCache {
    /// How often each was called.
    pub(crate) fn calls(&self) -> BTreeMap<&'static str, usize> {
        self.calls.lock().clone()
    }

    fn call(&self, name: &'static str) -> Result<&MemoryCache, CacheError> {
        *self.calls.lock().entry(name).or_default() += 1;
        if self.away.load(Ordering::SeqCst) {
            return Err(CacheError::Unavailable("away".into()));
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl Cache for CountedCache {
    async fn append_tail(&self, chat: ChatKey, entries: Vec<TailEntry>) -> Result<(), CacheError> {
        self.call("append_tail")?.append_tail(chat, entries).await
    }

    async fn tail_after(&self, chat: ChatKey, after: Seq) -> Result<Tail, CacheError> {
        self.call("tail_after")?.tail_after(chat, after).await
    }

    async fn tail_from(&self, chat: ChatKey, offset: Offset) -> Result<Tail, CacheError> {
        self.call("tail_from")?.tail_from(chat, offset).await
    }

    async fn session_opened(&self, user: UserKey, session: LiveSession) -> Result<(), CacheError> {
        self.call("session_opened")?.session_opened(user, session).await
    }

    async fn session_closed(&self, user: UserKey, socket: SocketId) -> Result<(), CacheError> {
        self.call("session_closed")?.session_closed(user, socket).await
    }

    async fn session_ended(&self, user: UserKey, socket: SocketId, at: Millis) -> Result<(), CacheError> {
        self.call("session_ended")?.session_ended(user, socket, at).await
    }

    async fn sessions_of(&self, user: UserKey) -> Result<Vec<LiveSession>, CacheError> {
        self.call("sessions_of")?.sessions_of(user).await
    }

    async fn lives_of(&self, users: &[UserKey]) -> Result<Vec<Vec<NodeLife>>, CacheError> {
        self.call("lives_of")?.lives_of(users).await
    }

    async fn is_whole(&self) -> Result<bool, CacheError> {
        self.call("is_whole")?.is_whole().await
    }

    async fn keep_life(&self, life: &NodeLife, term: Duration, now: Millis) -> Result<(), CacheError> {
        self.call("keep_life")?.keep_life(life, term, now).await
    }

    async fn node_gone(&self, life: &NodeLife) -> Result<(), CacheError> {
        self.call("node_gone")?.node_gone(life).await
    }

    async fn take_lapsed(&self, by: &NodeLife, hold: Duration) -> Result<Option<Lapsed>, CacheError> {
        self.call("take_lapsed")?.take_lapsed(by, hold).await
    }

    async fn buried(&self, lapsed: &Lapsed) -> Result<(), CacheError> {
        self.call("buried")?.buried(lapsed).await
    }

    async fn take(
        &self,
        app: AppId,
        key: &str,
        cost: u32,
        policy: LimitPolicy,
        now: Millis,
    ) -> Result<Grant, CacheError> {
        self.call("take")?.take(app, key, cost, policy, now).await
    }

    async fn flush(&self) -> Result<(), CacheError> {
        self.call("flush")?.flush().await
    }
}
