//! The engines of a process, chosen by URL.
//!
//! | seam | a server of its own, shared by a cluster | embedded: a file or memory of one process |
//! | --- | --- | --- |
//! | log | `kafka://HOST:PORT[,HOST:PORT…]/TOPIC` | `file:PATH` |
//! | store | `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE` | `sqlite:PATH` |
//! | cache | `redis://[:PASSWORD@]HOST[:PORT]` | `memory:` |
//!
//! [`Engines::open`] tries once. [`waiting`] goes on until servers answer, and says what it waits for.

#[cfg(feature = "servers")]
mod servers;
pub mod waiting;

use std::{fmt, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    cache::{SharedCache, memory::MemoryCache},
    ids::Partition,
    log::{OpenError, SharedLog, sqlite::SqliteLog},
    store::{SharedStore, StoreError, sqlite::Sqlite},
};

#[cfg(feature = "servers")]
pub use self::servers::{Made, init};
#[cfg(feature = "servers")]
use crate::{cache::redis, store::postgres::PostgresSettings};

/// What the settings of the servers mean, in the help of every program that has them.
#[cfg(feature = "servers")]
pub const MEANINGS: &[(&str, &str)] = &[
    (
        "engines.postgres.max_connections",
        "Most connections of this process; those of all must be fewer than the server takes.",
    ),
    ("engines.postgres.acquire_timeout", "Milliseconds for which a call waits for a connection."),
    ("engines.postgres.statement_timeout", "Milliseconds after which the server gives a statement up."),
    ("engines.redis.prefix", "What all keys begin with: who shares it shares a cache."),
    ("engines.redis.timeout_ms", "Milliseconds that a call may take; whoever waits does without it then."),
    ("engines.redis.in_flight", "Calls at once; more do without."),
    ("engines.redis.tail_ms", "Milliseconds for which a chat's newest messages stay after the last."),
    ("engines.redis.life_ms", "Milliseconds for which a node's users are shown when it is silent."),
];

/// Where the engines are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineUrls {
    /// Of the log.
    pub log: String,
    /// Of the store.
    pub store: String,
    /// Of the cache.
    pub cache: String,
    /// How Postgres is used.
    #[cfg(feature = "servers")]
    pub postgres: PostgresSettings,
    /// How Redis is used.
    #[cfg(feature = "servers")]
    pub redis: redis::Settings,
    /// What is planted in them.
    #[cfg(feature = "planted")]
    #[serde(skip)]
    pub planted: crate::planted::Planted,
}

impl Default for EngineUrls {
    /// Servers at their usual ports on this machine.
    fn default() -> Self {
        Self {
            log: "kafka://127.0.0.1:9092/chat".into(),
            store: "postgres://chat@127.0.0.1:5432/chat".into(),
            cache: "redis://127.0.0.1:6379".into(),
            #[cfg(feature = "servers")]
            postgres: PostgresSettings::default(),
            #[cfg(feature = "servers")]
            redis: redis::Settings::default(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        }
    }
}

impl EngineUrls {
    /// Embedded engines in one folder.
    pub fn embedded(folder: &Path) -> Self {
        Self {
            log: format!("file:{}", folder.join("log.db").display()),
            store: format!("sqlite:{}", folder.join("store.db").display()),
            cache: "memory:".into(),
            #[cfg(feature = "servers")]
            postgres: PostgresSettings::default(),
            #[cfg(feature = "servers")]
            redis: redis::Settings::default(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        }
    }

    /// Whether a process that is one of several can use these engines.
    ///
    /// # Errors
    /// [`EngineError::Embedded`] or [`EngineError::Url`] for the first of `seams` that it cannot.
    pub fn check_shared(&self, seams: &[Seam]) -> Result<(), EngineError> {
        for seam in seams {
            let url = seam.url(self);
            match Scheme::of(*seam, url)? {
                #[cfg(feature = "servers")]
                Scheme::Server => servers::check(*seam, self)?,
                #[cfg(not(feature = "servers"))]
                Scheme::Server => {}
                Scheme::Embedded(_) => {
                    return Err(EngineError::Embedded { seam: *seam, url: url.to_owned() });
                }
            }
        }
        Ok(())
    }
}

/// What an engine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seam {
    /// The truth of every chat.
    Log,
    /// Rows.
    Store,
    /// What is short-lived.
    Cache,
}

impl Seam {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Log, Self::Store, Self::Cache];

    /// Its URL among these.
    pub fn url(self, urls: &EngineUrls) -> &str {
        match self {
            Self::Log => &urls.log,
            Self::Store => &urls.store,
            Self::Cache => &urls.cache,
        }
    }

    /// The scheme of its server's URL, of its embedded engine's, and an example of both.
    fn schemes(self) -> (&'static [&'static str], &'static str, &'static str) {
        match self {
            Self::Log => (&["kafka"], "file", "kafka://HOST:PORT/TOPIC or file:PATH"),
            Self::Store => {
                (&["postgres", "postgresql"], "sqlite", "postgres://USER@HOST/DATABASE or sqlite:PATH")
            }
            Self::Cache => (&["redis", "rediss"], "memory", "redis://HOST:PORT or memory:"),
        }
    }
}

impl fmt::Display for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Store => "store",
            Self::Cache => "cache",
        })
    }
}

/// Which kind of engine a URL names.
enum Scheme<'a> {
    Server,
    /// With what follows the scheme.
    Embedded(&'a str),
}

impl<'a> Scheme<'a> {
    fn of(seam: Seam, url: &'a str) -> Result<Self, EngineError> {
        let (servers, embedded, known) = seam.schemes();
        match url.split_once(':') {
            Some((scheme, rest)) if servers.contains(&scheme) && rest.starts_with("//") => Ok(Self::Server),
            Some((scheme, rest)) if scheme == embedded => Ok(Self::Embedded(rest)),
            _ => Err(EngineError::Url { seam, url: masked(url), why: format!("known are {known}") }),
        }
    }
}

/// The URL without its secrets, for people: the password, and parameters that are called so, are three stars. Where one cannot tell what is a
/// password (what has an `@` behind the authority, or is no URL), only the scheme is shown: a password with a `/` or a `?` in it makes a URL
/// unreadable, and then it is shown to say so.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        return if url.contains('@') { unclear(scheme, ":") } else { url.to_owned() };
    };
    let (authority, behind) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if scheme.contains('@') || behind.contains('@') {
        return unclear(scheme, "://");
    }
    let mut shown = format!("{scheme}://");
    match authority.rsplit_once('@') {
        Some((who, hosts)) => {
            let user = who.split_once(':').map(|(user, _)| format!("{user}:***"));
            shown += &format!("{}@{hosts}", user.as_deref().unwrap_or(who));
        }
        None => shown += authority,
    }
    let Some((path, query)) = behind.split_once('?') else { return shown + behind };
    let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((key, _)) if ["pass", "secret"].iter().any(|word| key.to_lowercase().contains(word)) => {
            format!("{key}=***")
        }
        _ => parameter.to_owned(),
    });
    shown + path + "?" + &parameters.collect::<Vec<_>>().join("&")
}

/// What is shown of a text that may be a password anywhere behind its scheme. A scheme with an `@` is none.
fn unclear(scheme: &str, colon: &str) -> String {
    if scheme.is_empty() || scheme.contains('@') { "***".to_owned() } else { format!("{scheme}{colon}***") }
}

/// The engines of a process.
#[derive(Clone)]
pub struct Engines {
    /// The truth of every chat.
    pub log: SharedLog,
    /// What was drained from it, and accounts.
    pub store: SharedStore,
    /// What is short-lived.
    pub cache: SharedCache,
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engines over log {}", self.log.id())
    }
}

/// Why the engines could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It names no engine.
    #[error("engines.{seam}: {url:?} names no {seam}: {why}")]
    Url {
        /// What it was for.
        seam: Seam,
        /// As given, without secrets.
        url: String,
        /// What would do.
        why: String,
    },
    /// An embedded engine was asked for by a process that shares it with others.
    #[error(
        "engines.{seam}: {url:?} is an embedded engine and serves one process only; processes of a cluster share theirs: give {}, \
         or run everything in one process, with chat-cluster",
        .seam.schemes().2.split(" or ").next().unwrap_or_default()
    )]
    Embedded {
        /// What it was for.
        seam: Seam,
        /// As given.
        url: String,
    },
    /// This program is built without the engines that are servers.
    #[error("engines.{seam}: {url:?} is a server, and this program is built for embedded engines only")]
    NotBuilt {
        /// What it was for.
        seam: Seam,
        /// As given, without secrets.
        url: String,
    },
    /// The store is drained from another log.
    #[error(
        "the store {store} is drained from another log than {log}, and only from that one: name the log that it was made beside, or a store \
         with nothing in it"
    )]
    Apart {
        /// Where the log is.
        log: String,
        /// Where the store is.
        store: String,
    },
    /// The log did not open.
    #[error("{}{}", .0, advice(.0))]
    Log(#[from] OpenError),
    /// The store did not open.
    #[error("the store {url}: {error}")]
    Store {
        /// Where.
        url: String,
        /// Why.
        error: StoreError,
    },
}

/// What an operator may do about it, where the error does not say so itself.
fn advice(error: &OpenError) -> String {
    match error {
        OpenError::PartitionCount { has, .. } => format!(": set `partitions` to {has}, or name another log"),
        _ => String::new(),
    }
}

impl EngineError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Log(OpenError::Unavailable { .. }) | Self::Store { error: StoreError::Unavailable(_), .. }
        )
    }
}

impl Engines {
    /// Opens what the URLs name. An embedded log that is made gets `partitions`; one that exists must have as many.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn open(urls: &EngineUrls, partitions: Partition) -> Result<Self, EngineError> {
        // The log first: it says when another process has the folder.
        let log = open_log(urls, partitions).await?;
        let store = open_store(urls).await?;
        tie(urls, log.id(), &store).await?;
        Ok(Self { log, store, cache: open_cache(urls).await? })
    }
}

fn store_error(urls: &EngineUrls, error: StoreError) -> EngineError {
    EngineError::Store { url: masked(&urls.store), error }
}

/// The name under which a store keeps the id of the log that it is drained from.
const LOG: &str = "log";

/// Ties the store to the log that is opened beside it first, and sees that it is this one.
async fn tie(urls: &EngineUrls, log: Uuid, store: &SharedStore) -> Result<(), EngineError> {
    let kept = store.cluster_secret(LOG, log.as_bytes()).await;
    let kept = kept.map_err(|error| store_error(urls, error))?;
    if kept == log.as_bytes() {
        Ok(())
    } else {
        Err(EngineError::Apart { log: masked(&urls.log), store: masked(&urls.store) })
    }
}

/// Opens the log alone; see [`Engines::open`].
///
/// # Errors
/// [`EngineError`].
pub async fn open_log(urls: &EngineUrls, partitions: Partition) -> Result<SharedLog, EngineError> {
    let log: SharedLog = match Scheme::of(Seam::Log, &urls.log)? {
        Scheme::Embedded(path) => Arc::new(SqliteLog::open(Path::new(path), partitions).await?),
        #[cfg(feature = "servers")]
        Scheme::Server => servers::log(urls, partitions).await?,
        #[cfg(not(feature = "servers"))]
        Scheme::Server => return Err(not_built(Seam::Log, urls)),
    };
    #[cfg(feature = "planted")]
    if urls.planted.with(crate::planted::Circumstance::SlowLog) {
        return Ok(crate::planted::slow_log::SlowLog::over(log));
    }
    Ok(log)
}

/// Opens the store alone.
///
/// # Errors
/// [`EngineError`].
pub async fn open_store(urls: &EngineUrls) -> Result<SharedStore, EngineError> {
    match Scheme::of(Seam::Store, &urls.store)? {
        Scheme::Embedded(path) => {
            let store = Sqlite::open(Path::new(path)).await;
            let store = store.map_err(|error| EngineError::Store { url: urls.store.clone(), error })?;
            #[cfg(feature = "planted")]
            let store = store.with_planted(urls.planted);
            Ok(Arc::new(store))
        }
        #[cfg(feature = "servers")]
        Scheme::Server => servers::store(urls).await,
        #[cfg(not(feature = "servers"))]
        Scheme::Server => Err(not_built(Seam::Store, urls)),
    }
}

/// Opens the cache alone. A server need not be there: the cache is used once it is.
///
/// # Errors
/// [`EngineError::Url`].
pub async fn open_cache(urls: &EngineUrls) -> Result<SharedCache, EngineError> {
    match Scheme::of(Seam::Cache, &urls.cache)? {
        Scheme::Embedded(_) => Ok(Arc::new(MemoryCache::default())),
        #[cfg(feature = "servers")]
        Scheme::Server => servers::cache(urls).await,
        #[cfg(not(feature = "servers"))]
        Scheme::Server => Err(not_built(Seam::Cache, urls)),
    }
}

#[cfg(not(feature = "servers"))]
fn not_built(seam: Seam, urls: &EngineUrls) -> EngineError {
    EngineError::NotBuilt { seam, url: masked(seam.url(urls)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_url_are_not_shown() {
        for (url, shown) in [
            (
                "postgres://chat:s3cret@db:5432/chat?sslmode=require",
                "postgres://chat:***@db:5432/chat?sslmode=require",
            ),
            ("postgres://chat@db/chat", "postgres://chat@db/chat"),
            ("redis://:s3cret@cache", "redis://:***@cache"),
            ("postgres://chat:a@b:c@db/chat", "postgres://chat:***@db/chat"),
            (
                "kafka://a:1,b:2/chat?sasl.username=u&sasl.password=p&ssl.key.Passphrase=q",
                "kafka://a:1,b:2/chat?sasl.username=u&sasl.password=***&ssl.key.Passphrase=***",
            ),
            ("redis://cache?password=s3cret", "redis://cache?password=***"),
            ("file:/var/lib/log.db", "file:/var/lib/log.db"),
            // What no engine can read is shown when it is refused.
            ("postgres://chat:pa/ss@db/chat", "postgres://***"),
            ("redis://:pa?ss@h", "redis://***"),
            ("postgres://chat:a@b/c@db/chat", "postgres://***"),
            ("kafka://a:1/chat?sasl.password=p@ss", "kafka://***"),
            ("postgres:chat:pw@db", "postgres:***"),
            ("chat:pw@db", "chat:***"),
            ("pw@db", "***"),
            ("p@w://db", "***"),
        ] {
            assert_eq!(masked(url), shown);
        }
    }

    #[tokio::test]
    async fn a_store_is_opened_beside_its_own_log_only() {
        let folder = tempfile::tempdir().unwrap();
        let urls = EngineUrls::embedded(folder.path());
        for _ in 0..2 {
            Engines::open(&urls, 4).await.unwrap().log.close().await.unwrap();
        }
        let other =
            EngineUrls { log: format!("file:{}", folder.path().join("other.db").display()), ..urls.clone() };
        let error = Engines::open(&other, 4).await.unwrap_err();
        assert!(matches!(error, EngineError::Apart { .. }) && !error.is_temporary(), "{error}");
        Engines::open(&urls, 4).await.unwrap();
    }

    #[tokio::test]
    async fn a_url_of_no_engine_is_refused_with_what_would_do() {
        let urls = EngineUrls { log: "kafak://127.0.0.1/chat".into(), ..EngineUrls::default() };
        let error = Engines::open(&urls, 4).await.unwrap_err();
        assert!(!error.is_temporary());
        let said = error.to_string();
        assert!(said.contains("engines.log") && said.contains("kafka://HOST:PORT/TOPIC"), "{said}");
    }

    #[test]
    fn an_embedded_engine_is_not_for_several_processes() {
        let folder = tempfile::tempdir().unwrap();
        let urls = EngineUrls::embedded(folder.path());
        for seam in Seam::ALL {
            let said = urls.check_shared(&[seam]).unwrap_err().to_string();
            assert!(said.contains("serves one process only"), "{said}");
            assert!(said.contains(&format!("engines.{seam}")) && said.contains("chat-cluster"), "{said}");
        }
        EngineUrls::default().check_shared(&Seam::ALL).unwrap();
    }
}
