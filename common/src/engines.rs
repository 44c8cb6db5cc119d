//! The engines of a process, chosen by URL.
//!
//! | seam | embedded | |
//! | --- | --- | --- |
//! | log | `file:PATH` | a file that one process opens |
//! | store | `sqlite:PATH` | a file that one process opens |
//! | cache | `memory:` | this process's own |

use std::{fmt, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    cache::{SharedCache, memory::MemoryCache},
    ids::Partition,
    log::{OpenError, SharedLog, sqlite::SqliteLog},
    store::{SharedStore, StoreError, sqlite::Sqlite},
};

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
    /// What is planted in them.
    #[cfg(feature = "planted")]
    #[serde(skip)]
    pub planted: crate::planted::Planted,
}

impl Default for EngineUrls {
    fn default() -> Self {
        Self::embedded(Path::new("data"))
    }
}

impl EngineUrls {
    /// Embedded engines in one folder.
    pub fn embedded(folder: &Path) -> Self {
        Self {
            log: format!("file:{}", folder.join("log.db").display()),
            store: format!("sqlite:{}", folder.join("store.db").display()),
            cache: "memory:".into(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        }
    }
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
    /// No engine has this scheme.
    #[error("{url:?} names no {seam} engine; known: {known}")]
    Url {
        /// What it was for.
        seam: &'static str,
        /// As given.
        url: String,
        /// What would do.
        known: &'static str,
    },
    /// The log did not open.
    #[error(transparent)]
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

impl Engines {
    /// Opens what the URLs name. A log that is made gets `partitions`; one that exists must have as many.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn open(urls: &EngineUrls, partitions: Partition) -> Result<Self, EngineError> {
        let unknown = |seam, url: &str, known| EngineError::Url { seam, url: url.to_owned(), known };
        let log = urls.log.strip_prefix("file:").ok_or_else(|| unknown("log", &urls.log, "file:PATH"))?;
        let store =
            urls.store.strip_prefix("sqlite:").ok_or_else(|| unknown("store", &urls.store, "sqlite:PATH"))?;
        if urls.cache != "memory:" {
            return Err(unknown("cache", &urls.cache, "memory:"));
        }
        // The log first: it says when another process has the folder.
        let log = SqliteLog::open(Path::new(log), partitions).await?;
        let store = Sqlite::open(Path::new(store))
            .await
            .map_err(|error| EngineError::Store { url: urls.store.clone(), error })?;
        #[cfg(feature = "planted")]
        let store = store.with_planted(urls.planted);
        let log: SharedLog = Arc::new(log);
        #[cfg(feature = "planted")]
        let log = if urls.planted.with(crate::planted::Circumstance::SlowLog) {
            crate::planted::slow_log::SlowLog::over(log)
        } else {
            log
        };
        Ok(Self { log, store: Arc::new(store), cache: Arc::new(MemoryCache::default()) })
    }
}
