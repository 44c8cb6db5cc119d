//! The engine that processes share: Redis 7 or newer.
//!
//! Tails are streams, one script per call, so that a tail is whole whoever adds to it. A user's sockets are a hash; they are shown while the
//! life of the node that serves them is kept up, by one command per process and third of its term: so a node that vanished takes its
//! sockets along, and nobody refreshes users one by one. Buckets are one number each. All of it expires; let the server evict what was not
//! used for longest (`maxmemory-policy allkeys-lru`).
//!
//! Every call ends within its time-out, and at once while there is no connection. What a server forgot (flushed, restarted, evicted)
//! fills again by use; sockets that are open are noted again at the next renewal.
//!
//! Keys of one script share what stands in braces, as a cluster wants it. This client speaks to one server.

mod ended;
mod keys;
mod link;
mod lives;
mod presence;
mod tails;
mod whole;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redis::{Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, Script, ScriptInvocation};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use self::{keys::Keys, link::Link, presence::Presence};
use super::{Cache, CacheError, Grant, Lapsed, LimitPolicy, LiveSession, NodeLife, Tail, TailEntry};
use crate::{
    ids::{AppId, ChatKey, Offset, Seq, SocketId, UserKey},
    time::Millis,
};

/// The slowest a bucket fills: one a day.
const SLOWEST: f64 = 1.0 / 86_400.0;

/// How long a bucket is kept after it is full, since callers' clocks differ from the server's.
const BUCKET_SLACK_MS: u64 = 60_000;

/// What a flush may take: 100,000 keys are some 2 s.
const FLUSH: Duration = Duration::from_secs(60);

/// How a [`RedisCache`] behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What all keys begin with: letters, digits and `:._-/`. Whoever shares a prefix shares a cache.
    pub prefix: String,
    /// What a call may take, in milliseconds. Connecting may take longer: no call waits for it.
    pub timeout_ms: u64,
    /// Calls in flight; further ones fail at once. Each may hold a tail of 256 KiB.
    pub in_flight: usize,
    /// How long a tail stays after its last change, in milliseconds.
    pub tail_ms: u64,
    /// How long a node's sockets are shown after it was last heard of, in milliseconds.
    pub life_ms: u64,
}

impl Default for Settings {
    /// 250 ms is a thousand times what a call takes; whoever waited so long is better off without. 1,024 in flight are some 1 MiB, and
    /// an answer is due every 4,096th of a second. A day brings most clients back. 30 s are three renewals.
    fn default() -> Self {
        Self {
            prefix: "chat:".into(),
            timeout_ms: 250,
            in_flight: 1024,
            tail_ms: 24 * 60 * 60 * 1000,
            life_ms: 30_000,
        }
    }
}

/// Why a cache did not open. That the server is away is no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The URL is none of a server. It is not repeated: it may hold a password.
    #[error("not redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]: {0}")]
    Url(String),
    /// A setting is out of range.
    #[error("{0}")]
    Setting(&'static str),
}

/// A cache in Redis.
pub struct RedisCache {
    inner: Arc<Inner>,
    renewal: JoinHandle<()>,
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisCache").field(&self.inner.link).finish()
    }
}

#[derive(Debug)]
struct Inner {
    link: Link,
    keys: Keys,
    tail_ms: u64,
    tails: tails::Scripts,
    presence: Presence,
    take: Script,
}

impl RedisCache {
    /// A cache at `redis://HOST:PORT`, with [`Settings::default`]. Call it within a runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Self::open_with(url, &Settings::default()).await
    }

    /// A cache at `redis://HOST:PORT`. Tries to connect; without success it says so in the log and goes on trying. Call it within a
    /// runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_with(url: &str, settings: &Settings) -> Result<Self, OpenError> {
        let (client, keys) = read(url, settings)?;
        let patience = Duration::from_millis(settings.timeout_ms);
        // More than the semaphore can count is no bound.
        let in_flight = settings.in_flight.min(1 << 20);
        let inner = Arc::new(Inner {
            link: Link::open(client, patience, in_flight).await,
            keys,
            tail_ms: settings.tail_ms,
            tails: tails::Scripts::default(),
            presence: Presence::new(settings.life_ms),
            take: Script::new(include_str!("take.lua")),
        });
        let renewal = tokio::spawn(presence::keep(Arc::clone(&inner)));
        Ok(Self { inner, renewal })
    }
}

/// Looks whether a cache could be opened there with these settings, without asking the server.
///
/// # Errors
/// [`OpenError`].
pub fn check(url: &str, settings: &Settings) -> Result<(), OpenError> {
    read(url, settings).map(drop)
}

fn read(url: &str, settings: &Settings) -> Result<(Client, Keys), OpenError> {
    let info = url.into_connection_info().map_err(|error| OpenError::Url(error.to_string()))?;
    if !matches!(info.addr(), ConnectionAddr::Tcp(..)) {
        return Err(OpenError::Url("another scheme".into()));
    }
    let client = Client::open(info).map_err(|error| OpenError::Url(error.to_string()))?;
    let keys = Keys::new(&settings.prefix)
        .ok_or(OpenError::Setting("the prefix must have 1 to 64 letters, digits and :._-/"))?;
    if settings.timeout_ms == 0 || settings.in_flight == 0 || settings.tail_ms == 0 || settings.life_ms < 3 {
        return Err(OpenError::Setting("time-outs, terms and calls in flight must not be 0"));
    }
    Ok((client, keys))
}

impl Drop for RedisCache {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Inner {
    async fn invoke<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, CacheError> {
        // A server that does not know the script is given it, and asked again.
        self.link.call(async |mut to| call.invoke_async(&mut to).await).await
    }

    /// Walks over all keys: a key that is there all the time is met.
    async fn flush(&self) -> Result<(), CacheError> {
        let (pattern, until) = (self.keys.all(), Instant::now() + FLUSH);
        let mut cursor = 0_u64;
        while Instant::now() < until {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
            let (next, found): (u64, Vec<Vec<u8>>) =
                self.link.call(async |mut to| scan.query_async(&mut to).await).await?;
            if !found.is_empty() {
                // One command each: they lie in different slots.
                let mut unlink = redis::pipe();
                for key in &found {
                    unlink.cmd("UNLINK").arg(key).ignore();
                }
                self.link.call(async |mut to| unlink.query_async::<()>(&mut to).await).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
        Err(CacheError::Unavailable("there are too many keys to forget".into()))
    }
}

#[async_trait]
impl Cache for RedisCache {
    async fn append_tail(&self, chat: ChatKey, entries: Vec<TailEntry>) -> Result<(), CacheError> {
        let inner = &self.inner;
        match inner.tails.append(&inner.keys.tail(chat), entries, inner.tail_ms) {
            Some(call) => inner.invoke(&call).await,
            None => Ok(()),
        }
    }

    async fn tail_after(&self, chat: ChatKey, after: Seq) -> Result<Tail, CacheError> {
        let call = self.inner.tails.after(&self.inner.keys.tail(chat), after);
        tails::read(self.inner.invoke(&call).await?)
    }

    async fn tail_from(&self, chat: ChatKey, offset: Offset) -> Result<Tail, CacheError> {
        let call = self.inner.tails.from(&self.inner.keys.tail(chat), offset);
        tails::read(self.inner.invoke(&call).await?)
    }

    async fn session_opened(&self, user: UserKey, session: LiveSession) -> Result<(), CacheError> {
        self.inner.opened(user, session).await
    }

    async fn session_closed(&self, user: UserKey, socket: SocketId) -> Result<(), CacheError> {
        self.inner.closed(user, socket).await
    }

    async fn session_ended(&self, user: UserKey, socket: SocketId, at: Millis) -> Result<(), CacheError> {
        self.inner.ended(user, socket, at).await
    }

    async fn sessions_of(&self, user: UserKey) -> Result<Vec<LiveSession>, CacheError> {
        self.inner.sessions(user).await
    }

    async fn lives_of(&self, users: &[UserKey]) -> Result<Vec<Vec<NodeLife>>, CacheError> {
        self.inner.lives(users).await
    }

    async fn is_whole(&self) -> Result<bool, CacheError> {
        self.inner.is_whole().await
    }

    async fn keep_life(&self, life: &NodeLife, term: Duration, now: Millis) -> Result<(), CacheError> {
        self.inner.keep_up(life, term, now).await
    }

    async fn node_gone(&self, life: &NodeLife) -> Result<(), CacheError> {
        self.inner.gone(life).await
    }

    async fn take_lapsed(&self, by: &NodeLife, hold: Duration) -> Result<Option<Lapsed>, CacheError> {
        self.inner.take_lapsed(by, hold).await
    }

    async fn buried(&self, lapsed: &Lapsed) -> Result<(), CacheError> {
        self.inner.buried(lapsed).await
    }

    async fn take(
        &self,
        app: AppId,
        key: &str,
        cost: u32,
        policy: LimitPolicy,
        now: Millis,
    ) -> Result<Grant, CacheError> {
        // `max` also replaces what is no number.
        let one = (1e6 / policy.per_second.max(SLOWEST)).floor().max(1.0);
        let mut call = self.inner.take.key(self.inner.keys.bucket(app, key));
        call.arg(now.0.saturating_mul(1000)).arg(one).arg(policy.burst.max(1)).arg(cost).arg(BUCKET_SLACK_MS);
        Ok(match self.inner.invoke::<u64>(&call).await? {
            0 => Grant::Granted,
            millis => Grant::RetryAfter(Duration::from_millis(millis)),
        })
    }

    async fn flush(&self) -> Result<(), CacheError> {
        self.inner.flush().await
    }
}
