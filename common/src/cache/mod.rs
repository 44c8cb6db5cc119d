//! The cache: what is shared between processes and short-lived.
//!
//! Tails of chats for quick resumes, who is connected where, and shared limits. All of it may be gone at any moment
//! (flushed, evicted, its engine down): that costs speed, never correctness. So nothing here numbers anything, nothing is
//! only here, and who gets an error goes on without.
//!
//! Here: the contract ([`Cache`]). Beside it: [`memory`], the embedded engine, `redis`, the one that processes share, and
//! `conformance`, the suite that every engine passes.

#[cfg(any(test, feature = "conformance"))]
#[doc(hidden)]
pub mod conformance;
pub mod memory;
#[cfg(feature = "servers")]
pub mod redis;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ids::{AppId, ChatKey, Incarnation, NodeId, Offset, Seq, SessionId, SocketId, UserKey},
    time::Millis,
};

/// Changes that the tail of one chat holds at most. A client that missed more reads pages from the store.
pub const TAIL_ENTRIES: usize = 256;

/// Bytes that the tail of one chat holds at most: 1 KiB for each of its changes on the mean, about four times what they have.
pub const TAIL_BYTES: usize = 256 * 1024;

/// Users that are asked about at once: 1,000 short answers in one round trip.
pub const USERS_TOGETHER: usize = 1_000;

/// How long after the end of their last session nodes have users noted as connected, unless they are told otherwise: a client that was cut off
/// is back within some seconds.
pub const GRACE: Duration = Duration::from_secs(10);

/// What is shared and short-lived, as every service sees it.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// Adds changes to the tail of a chat.
    ///
    /// A tail is one run without a hole. What it has already is ignored (a `seq` names one change for ever); what ends right
    /// before it is put in front while there is room; what leaves a gap behind it replaces it. Past [`TAIL_ENTRIES`] or [`TAIL_BYTES`]
    /// the oldest go, and chats that nobody asked for go first.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn append_tail(&self, chat: ChatKey, entries: Vec<TailEntry>) -> Result<(), CacheError>;

    /// The changes of a chat behind `after`. Whether they reach the chat's head, the caller sees by comparing.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn tail_after(&self, chat: ChatKey, after: Seq) -> Result<Tail, CacheError>;

    /// The changes of a chat that stand at `offset` of its partition's log or after it: one at least. [`Tail::Missing`] unless the tail
    /// surely has the first of them: it begins with one that stands there or before, or with the chat's very first.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn tail_from(&self, chat: ChatKey, offset: Offset) -> Result<Tail, CacheError>;

    /// Notes that a user has a socket. The same socket again replaces what was known of it.
    ///
    /// # Errors
    /// [`CacheError`]: the socket is served, and not shown.
    async fn session_opened(&self, user: UserKey, session: LiveSession) -> Result<(), CacheError>;

    /// Notes that a socket is gone; one that is not known is no error.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn session_closed(&self, user: UserKey, socket: SocketId) -> Result<(), CacheError>;

    /// Notes that a socket is gone whichever process has opened it, unless that was after `at`: it is not noted again either. For what is no
    /// socket of this cluster, and has no process of its own that would know.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`]: to be said again.
    async fn session_ended(&self, user: UserKey, socket: SocketId, at: Millis) -> Result<(), CacheError>;

    /// The sockets of a user on all nodes, oldest first.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn sessions_of(&self, user: UserKey) -> Result<Vec<LiveSession>, CacheError>;

    /// The lives that serve sockets of each of these users, in the order asked; at most [`USERS_TOGETHER`]. Who has none is not connected.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn lives_of(&self, users: &[UserKey]) -> Result<Vec<Vec<NodeLife>>, CacheError>;

    /// Whether nobody is connected whom an answer of [`Self::lives_of`] left out that was there before this was asked. `false` for a while after
    /// it forgot who is, until all processes have noted it again, and while a life is over that nobody has taken. Lives must be kept up with
    /// [`Self::keep_life`]; while none is, nothing is sure.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn is_whole(&self) -> Result<bool, CacheError>;

    /// Keeps a life of a node up for `term`: the sockets of a life are shown while it is. One call for all of them, again and again; a
    /// life for which it was never called is kept up by the process that opened its sockets. `now` is by the caller's clock, and given
    /// back when the life is over ([`Lapsed::renewed`]).
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn keep_life(&self, life: &NodeLife, term: Duration, now: Millis) -> Result<(), CacheError>;

    /// Forgets every socket of one life of a node, which is over.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn node_gone(&self, life: &NodeLife) -> Result<(), CacheError>;

    /// A life whose term is over, with the users who had sockets there, for the caller `by` to tell that they are gone and then to say so
    /// ([`Self::buried`]); none when there is none. The caller is given it again when it asks again, and nobody else for as long as `hold`: then
    /// whoever asks, as the caller may be no more.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`]. Nothing is lost by it: it is found again.
    async fn take_lapsed(&self, by: &NodeLife, hold: Duration) -> Result<Option<Lapsed>, CacheError>;

    /// Forgets a life that was taken, unless it has been kept up since: who had sockets there has been told of. To be said again until it is no
    /// error.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn buried(&self, lapsed: &Lapsed) -> Result<(), CacheError>;

    /// Takes `cost` from the bucket that `key` names within an application, if it holds that much. A bucket not used before
    /// is full. `cost` counts as at most the burst, so that whatever is asked for can be had some time.
    ///
    /// Time is the caller's, and callers' clocks may differ: a bucket is never emptier than empty.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn take(
        &self,
        app: AppId,
        key: &str,
        cost: u32,
        policy: LimitPolicy,
        now: Millis,
    ) -> Result<Grant, CacheError>;

    /// Forgets everything. Nothing may depend on when this happens, and tests call it at the worst time.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn flush(&self) -> Result<(), CacheError>;
}

/// A cache that can be shared.
pub type SharedCache = Arc<dyn Cache>;

/// A change of a chat in its tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEntry {
    /// Its place in the chat.
    pub seq: Seq,
    /// Its place in its partition's log: it grows with `seq`.
    pub offset: Offset,
    /// The change; what it means is not known here.
    pub bytes: Bytes,
}

/// What the cache knows behind a `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// The changes from the one after it on, without a hole, as far as the tail goes; none when it ends right there.
    Run(Vec<TailEntry>),
    /// The tail does not touch that place. Ask the owner or the store.
    Missing,
}

/// One life of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeLife {
    /// Its name.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// A socket that a user has somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSession {
    /// The socket.
    pub socket: SocketId,
    /// The sign-in behind it.
    pub session: SessionId,
    /// The device's name, as its client gave it.
    pub device: Option<Arc<str>>,
    /// Who serves it.
    pub life: NodeLife,
    /// Since when.
    pub since: Millis,
}

/// A life whose term is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapsed {
    /// Which.
    pub life: NodeLife,
    /// When it was kept up last, by its own clock: its node was there, however much later it is found out that it is no more.
    pub renewed: Millis,
    /// Who had sockets there, each once.
    pub users: Vec<UserKey>,
}

/// A token bucket's shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitPolicy {
    /// What flows in per second. Below one a day (and for what is no number) it counts as one a day.
    pub per_second: f64,
    /// What the bucket holds; 0 counts as 1.
    pub burst: u32,
}

/// A bucket's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Grant {
    /// It was taken.
    Granted,
    /// Nothing was taken. If nobody else takes any, there is enough after this long.
    RetryAfter(Duration),
}

/// Why the cache did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The engine did not answer. Go on without.
    #[error("the cache is not available: {0}")]
    Unavailable(String),
    /// There is no room for another session, of this user or at all.
    #[error("the cache holds as many sessions as it may")]
    Full,
}
