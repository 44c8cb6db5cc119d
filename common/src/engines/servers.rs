//! The engines that are servers of their own, and what makes them ready for the first start.

use std::sync::Arc;

use uuid::Uuid;

use super::{EngineError, EngineUrls, Scheme, Seam, masked, waiting};
use crate::{
    cache::{SharedCache, redis::RedisCache},
    engines::waiting::Waits,
    ids::Partition,
    log::{
        SharedLog,
        kafka::{KafkaLog, KafkaSettings},
    },
    store::{
        SharedStore, StoreError,
        postgres::{self, Postgres},
    },
};
use tokio_util::sync::CancellationToken;

/// Looks whether a server's URL can be read, without asking the server.
pub(super) fn check(seam: Seam, url: &str) -> Result<(), EngineError> {
    let bad = |why: String| EngineError::Url { seam, url: masked(url), why };
    match seam {
        Seam::Log => KafkaSettings::from_url(url).map(drop).map_err(|error| bad(error.to_string())),
        Seam::Store => postgres::check_url(url).map_err(bad),
        // Read when it is opened, which takes no server.
        Seam::Cache => Ok(()),
    }
}

fn kafka(urls: &EngineUrls) -> Result<KafkaSettings, EngineError> {
    let bad = |why| EngineError::Url { seam: Seam::Log, url: masked(&urls.log), why };
    KafkaSettings::from_url(&urls.log).map_err(|error| bad(error.to_string()))
}

fn store_error(urls: &EngineUrls, error: StoreError) -> EngineError {
    EngineError::Store { url: masked(&urls.store), error }
}

pub(super) async fn log(urls: &EngineUrls, partitions: Partition) -> Result<SharedLog, EngineError> {
    Ok(Arc::new(KafkaLog::open(&kafka(urls)?, partitions).await?))
}

pub(super) async fn store(urls: &EngineUrls) -> Result<SharedStore, EngineError> {
    check(Seam::Store, &urls.store)?;
    let store = Postgres::open(&urls.store, urls.postgres).await;
    Ok(Arc::new(store.map_err(|error| store_error(urls, error))?))
}

pub(super) async fn cache(urls: &EngineUrls) -> Result<SharedCache, EngineError> {
    let bad = |why| EngineError::Url { seam: Seam::Cache, url: masked(&urls.cache), why };
    Ok(Arc::new(RedisCache::open(&urls.cache).await.map_err(|error| bad(error.to_string()))?))
}

/// What [`init`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Whether the log was made now.
    pub log_made: bool,
    /// The log's id.
    pub log_id: Uuid,
    /// Whether tables were made or altered.
    pub store_made: bool,
}

/// Makes what is missing: the log, with so many partitions, and the store's tables in the form of this program. Waits for the servers, and
/// changes nothing that is as it should be. Of embedded engines it makes nothing: they make themselves.
///
/// # Errors
/// [`EngineError`], never a temporary one.
pub async fn init(urls: &EngineUrls, partitions: Partition) -> Result<Made, EngineError> {
    for seam in [Seam::Log, Seam::Store] {
        if matches!(Scheme::of(seam, seam.url(urls))?, Scheme::Embedded(_)) {
            return Err(EngineError::Embedded { seam, url: seam.url(urls).to_owned() });
        }
        check(seam, seam.url(urls))?;
    }
    let kafka = kafka(urls)?;
    let log = async || {
        let there = KafkaLog::open(&kafka, partitions).await.is_ok();
        let id = KafkaLog::init(&kafka, partitions).await?;
        Ok((!there, id))
    };
    let store = async || {
        let there = Postgres::open(&urls.store, urls.postgres).await.is_ok();
        Postgres::init(&urls.store).await.map_err(|error| store_error(urls, error))?;
        Ok(!there)
    };
    let (waits, never) = (Waits::new(), CancellationToken::new());
    let made = tokio::try_join!(
        waiting::until_open(Seam::Log, urls, &waits, &never, log),
        waiting::until_open(Seam::Store, urls, &waits, &never, store),
    )?;
    match made {
        (Some((log_made, log_id)), Some(store_made)) => Ok(Made { log_made, log_id, store_made }),
        // Nobody stops it but by ending the process.
        _ => std::future::pending().await,
    }
}
