//! A cache that is away.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use common::{
    cache::{
        Cache, CacheError, Grant, Lapsed, LimitPolicy, LiveSession, NodeLife, SharedCache, Tail, TailEntry,
    },
    ids::{AppId, ChatKey, Offset, Seq, SocketId, UserKey},
    time::Millis,
};
use parking_lot::Mutex;

/// A cache that does not say who is connected until it is told to. The writer asks for nothing else.
pub(super) struct Silent {
    cache: SharedCache,
    pub(super) answers: AtomicBool,
    pub(super) asked: tokio::sync::Notify,
    /// What is done before the next answer.
    before: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Silent {
    pub(super) fn new(cache: SharedCache) -> Self {
        Self { cache, answers: AtomicBool::new(false), asked: Default::default(), before: Mutex::default() }
    }

    /// Answers from here on, once this is done.
    pub(super) fn answers_after(&self, before: impl Future<Output = ()> + Send + 'static) {
        *self.before.lock() = Some(Box::pin(before));
        self.answers.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Cache for Silent {
    async fn lives_of(&self, users: &[UserKey]) -> Result<Vec<Vec<NodeLife>>, CacheError> {
        self.asked.notify_one();
        let before = self.before.lock().take();
        if let Some(before) = before {
            before.await;
        }
        match self.answers.load(Ordering::SeqCst) {
            true => self.cache.lives_of(users).await,
            false => Err(CacheError::Unavailable("away".into())),
        }
    }

    async fn is_whole(&self) -> Result<bool, CacheError> {
        self.cache.is_whole().await
    }

    async fn append_tail(&self, _: ChatKey, _: Vec<TailEntry>) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn tail_after(&self, _: ChatKey, _: Seq) -> Result<Tail, CacheError> {
        unreachable!()
    }

    async fn tail_from(&self, _: ChatKey, _: Offset) -> Result<Tail, CacheError> {
        unreachable!()
    }

    async fn session_opened(&self, _: UserKey, _: LiveSession) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn session_closed(&self, _: UserKey, _: SocketId) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn session_ended(&self, _: UserKey, _: SocketId, _: Millis) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn sessions_of(&self, _: UserKey) -> Result<Vec<LiveSession>, CacheError> {
        unreachable!()
    }

    async fn keep_life(&self, _: &NodeLife, _: Duration, _: Millis) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn node_gone(&self, _: &NodeLife) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn take_lapsed(&self, _: &NodeLife, _: Duration) -> Result<Option<Lapsed>, CacheError> {
        unreachable!()
    }

    async fn buried(&self, _: &Lapsed) -> Result<(), CacheError> {
        unreachable!()
    }

    async fn take(&self, _: AppId, _: &str, _: u32, _: LimitPolicy, _: Millis) -> Result<Grant, CacheError> {
        unreachable!()
    }

    async fn flush(&self) -> Result<(), CacheError> {
        unreachable!()
    }
}
