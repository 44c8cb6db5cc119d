//! Drains the log into the store: reads each partition from the position that the store has, and writes rows and the new position in one
//! transaction. [`consume`] hears the log and keeps the partitions, [`batch`] decides what counts (pure), [`mod@write`] applies and tells what
//! came of it. Beside it, [`index`] makes the segments of the search index.
//!
//! It may be killed at any moment and run any number of times beside itself: what it has not committed is read again, and whoever is not
//! where the position is, is refused.
//!
//! Beside it messages end that are past their time ([`retention`]), the log forgets what was drained long ago ([`forget`]), and those who
//! were away are notified ([`notify`]).
//!
//! Absent: the log's committed offsets (for watchers only).

mod batch;
mod consume;
mod forget;
mod index;
mod metrics;
mod notify;
#[cfg(feature = "planted")]
mod planted;
#[cfg(feature = "servers")]
pub mod program;
mod retention;
mod write;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{
    cache::SharedCache,
    log::{LogError, SharedLog},
    store::{Drain, Expire, Notify, Search, SharedStore},
    time::Millis,
};
use prometheus::Registry;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinError};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub use self::notify::NotifyConfig;
use self::{consume::Consumer, forget::Forgetter, metrics::Metrics, retention::Sweeper};

/// How a writer works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WriterConfig {
    /// The group of readers that share the partitions. All writers of a cluster are in one.
    pub group: String,
    /// Most rows in one transaction: records, and members that they list. 2,000 are written in some 50 to 200 ms, a small part of the 5 s
    /// that the store has for them. A record with more is written alone.
    pub batch_records: usize,
    /// Bytes of records after which no more are gathered. What is held is at most this and one delivery of the log (4 MiB).
    pub batch_bytes: usize,
    /// How long a record waits for others to share its transaction. Whoever changes a chat's members waits for it too.
    #[serde(with = "millis")]
    pub linger: Duration,
    /// From one sweep for messages that are past their time, and for what the log may forget, to the next.
    #[serde(with = "millis")]
    pub sweep_every: Duration,
    /// How long the log keeps at least what is drained; zero: for ever. A store that is put back to a backup goes on from where that was, so it is
    /// longer than any backup is old that may still be put back. A week, with hourly to daily backups, leaves days to notice.
    #[serde(with = "millis")]
    pub log_keep: Duration,
    /// How those who were away are notified.
    pub notify: NotifyConfig,
    /// What is planted in it.
    #[cfg(feature = "planted")]
    #[serde(skip)]
    pub planted: common::planted::Planted,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            group: "storage-writer".to_owned(),
            batch_records: 2_000,
            batch_bytes: 4 * 1024 * 1024,
            linger: Duration::from_millis(2),
            sweep_every: Duration::from_secs(60),
            log_keep: Duration::from_secs(7 * 86_400),
            notify: NotifyConfig::default(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        }
    }
}

/// A duration in configuration: whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// What a writer stands on.
#[derive(Clone)]
pub struct Engines {
    /// What it reads.
    pub log: SharedLog,
    /// What it writes.
    pub store: Arc<dyn Drain>,
    /// The same store, for the index by which messages are found.
    pub search: Arc<dyn Search>,
    /// Where messages end.
    pub retention: Arc<dyn Expire>,
    /// Who is to be notified, and what is on its way.
    pub notify: Arc<dyn Notify>,
    /// The same store, for what notifications say: chats, messages, people.
    pub reads: SharedStore,
    /// Who is connected. Nobody is notified while it does not say.
    pub cache: SharedCache,
    /// By which their time is over.
    pub clock: Clock,
}

/// What tells the time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Millis + Send + Sync>);

impl Default for Clock {
    /// This machine's.
    fn default() -> Self {
        Self::new(Millis::now)
    }
}

impl Clock {
    /// This one.
    pub fn new(now: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Millis {
        (self.0)()
    }
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engines over log {}", self.log.id())
    }
}

/// Why a writer ended that nobody stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its metrics cannot be registered: another writer uses the registry.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The log was closed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Whether a writer is a member of its group, for those who ask whether it is ready. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Joined(Arc<AtomicBool>);

impl Joined {
    /// It is.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, joined: bool) {
        self.0.store(joined, Ordering::Relaxed);
    }
}

/// Runs a writer until `shutdown`; a transaction that has begun is ended first (5 s at most).
///
/// A store or a log that does not answer is asked again, and nothing is lost. A partition that cannot go on stops alone: an
/// error is logged, and `writer_partition_stopped` says so until the writer is started again.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    config: WriterConfig,
    engines: Engines,
    registry: Registry,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    run_telling(config, engines, registry, Joined::default(), shutdown).await
}

/// Likewise, and says in `joined` whether it drains.
///
/// # Errors
/// [`RunError`].
pub async fn run_telling(
    config: WriterConfig,
    engines: Engines,
    registry: Registry,
    joined: Joined,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let metrics = Metrics::new(&registry)?;
    let (search, told) = (Arc::clone(&engines.search), metrics.clone());
    let (tell, owned) = watch::channel(BTreeSet::new());
    let sweeper = Sweeper::new(&config, engines.clone(), metrics.clone(), owned.clone());
    let forgetter = Forgetter::new(&config, engines.clone(), metrics.clone(), owned.clone());
    // In a task of its own: whatever it is about, the draining does not wait for it.
    let notifying = notify::run(config.notify.clone(), engines.clone(), metrics.clone(), owned);
    let notifying = AbortOnDropHandle::new(tokio::spawn(notifying));
    tokio::select! {
        ended = Consumer::new(config, engines, metrics, joined, tell).run(&shutdown) => ended,
        never = index::run(search, &told) => match never {},
        never = sweeper.run() => match never {},
        never = forgetter.run() => match never {},
        never = undying(notifying) => match never {},
    }
}

/// A task that never ends. If it dies, so does whoever waits for it.
async fn undying(task: AbortOnDropHandle<Infallible>) -> Infallible {
    match task.await.map_err(JoinError::try_into_panic) {
        Ok(never) => never,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends.
        Err(Err(_)) => std::future::pending().await,
    }
}
