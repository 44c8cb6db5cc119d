//! The embedded engine: this process's memory, so it serves one process. It never answers
//! [`CacheError::Unavailable`].

mod limits;
mod presence;
mod tails;

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::{limits::Buckets, presence::Presence, tails::Tails};
use super::{Cache, CacheError, Grant, Lapsed, LimitPolicy, LiveSession, NodeLife, Tail, TailEntry};
use crate::{
    ids::{AppId, ChatKey, Offset, Seq, SocketId, UserKey},
    time::Millis,
};

/// How much a [`MemoryCache`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of all tails together. When they are reached, the tails not used for longest go.
    pub tail_bytes: u64,
    /// Sockets in all. When they are reached, further ones are refused with [`CacheError::Full`].
    pub sessions: usize,
    /// Sockets of one user, likewise.
    pub sessions_of_user: usize,
    /// Bytes of all buckets together. When they are reached, those not used for longest go, and are full when they are
    /// used again.
    pub bucket_bytes: u64,
}

impl Default for Bounds {
    /// 64 MiB are the last 10 changes of some 20,000 chats at 300 bytes each. 262,144 sockets are more than one process can hold
    /// (5 KiB each in a node), and cost about 400 bytes each here: 100 MiB. 32 MiB are some 200,000 buckets.
    fn default() -> Self {
        Self {
            tail_bytes: 64 * 1024 * 1024,
            sessions: 262_144,
            sessions_of_user: 256,
            bucket_bytes: 32 * 1024 * 1024,
        }
    }
}

/// A cache in memory.
#[derive(Debug)]
pub struct MemoryCache {
    tails: Tails,
    presence: Mutex<Presence>,
    buckets: Buckets,
}

impl MemoryCache {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            tails: Tails::new(bounds.tail_bytes),
            presence: Mutex::new(Presence::new(bounds.sessions, bounds.sessions_of_user)),
            buckets: Buckets::new(bounds.bucket_bytes),
        }
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn append_tail(&self, chat: ChatKey, entries: Vec<TailEntry>) -> Result<(), CacheError> {
        self.tails.append(chat, entries);
        Ok(())
    }

    async fn tail_after(&self, chat: ChatKey, after: Seq) -> Result<Tail, CacheError> {
        Ok(self.tails.after(chat, after))
    }

    async fn tail_from(&self, chat: ChatKey, offset: Offset) -> Result<Tail, CacheError> {
        Ok(self.tails.from(chat, offset))
    }

    async fn session_opened(&self, user: UserKey, session: LiveSession) -> Result<(), CacheError> {
        self.presence.lock().opened(user, session)
    }

    async fn session_closed(&self, user: UserKey, socket: SocketId) -> Result<(), CacheError> {
        self.presence.lock().closed(user, socket);
        Ok(())
    }

    async fn session_ended(&self, user: UserKey, socket: SocketId, at: Millis) -> Result<(), CacheError> {
        self.presence.lock().ended(user, socket, at);
        Ok(())
    }

    async fn sessions_of(&self, user: UserKey) -> Result<Vec<LiveSession>, CacheError> {
        Ok(self.presence.lock().of(user))
    }

    async fn lives_of(&self, users: &[UserKey]) -> Result<Vec<Vec<NodeLife>>, CacheError> {
        let presence = self.presence.lock();
        Ok(users.iter().map(|user| presence.lives_of(*user)).collect())
    }

    async fn is_whole(&self) -> Result<bool, CacheError> {
        Ok(self.presence.lock().is_whole())
    }

    async fn keep_life(&self, life: &NodeLife, term: Duration, now: Millis) -> Result<(), CacheError> {
        self.presence.lock().keep(life, term, now);
        Ok(())
    }

    async fn node_gone(&self, life: &NodeLife) -> Result<(), CacheError> {
        self.presence.lock().gone(life);
        Ok(())
    }

    async fn take_lapsed(&self, by: &NodeLife, hold: Duration) -> Result<Option<Lapsed>, CacheError> {
        Ok(self.presence.lock().take_lapsed(by, hold))
    }

    async fn buried(&self, lapsed: &Lapsed) -> Result<(), CacheError> {
        self.presence.lock().buried(lapsed);
        Ok(())
    }

    async fn take(
        &self,
        app: AppId,
        key: &str,
        cost: u32,
        policy: LimitPolicy,
        now: Millis,
    ) -> Result<Grant, CacheError> {
        Ok(self.buckets.take(app, key, cost, policy, now))
    }

    async fn flush(&self) -> Result<(), CacheError> {
        self.tails.clear();
        self.presence.lock().clear();
        self.buckets.clear();
        Ok(())
    }
}
