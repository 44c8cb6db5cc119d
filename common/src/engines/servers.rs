//! The engines that are servers of their own, and what makes them ready for the first start.

use std::sync::Arc;

use uuid::Uuid;

use super::{EngineError, EngineUrls, Scheme, Seam, masked, store_error, waiting};
use crate::{
    cache::{
        SharedCache,
        redis::{self, RedisCache},
    },
    engines::waiting::Waits,
    ids::Partition,
    log::{
        SharedLog,
        kafka::{KafkaLog, KafkaSettings},
    },
    store::{
        SharedStore,
        postgres::{self, Postgres},
    },
};
use tokio_util::sync::CancellationToken;

/// Looks whether a server's URL can be read, without asking the server.
pub(super) fn check(seam: Seam, urls: &EngineUrls) -> Result<(), EngineError> {
    let url = seam.url(urls);
    let bad = |why: String| EngineError::Url { seam, url: masked(url), why };
    match seam {
        Seam::Log => KafkaSettings::from_url(url).map(drop).map_err(|error| bad(error.to_string())),
        Seam::Store => postgres::check_url(url).map_err(bad),
        Seam::Cache => redis::check(url, &urls.redis).map_err(|error| bad(error.to_string())),
    }
}

fn kafka(urls: &EngineUrls) -> Result<KafkaSettings, EngineError> {
    let bad = |why| EngineError::Url { seam: Seam::Log, url: masked(&urls.log), why };
    KafkaSettings::from_url(&urls.log).map_err(|error| bad(error.to_string()))
}

pub(super) async fn log(urls: &EngineUrls, partitions: Partition) -> Result<SharedLog, EngineError> {
    Ok(Arc::new(KafkaLog::open(&kafka(urls)?, partitions).await?))
}

pub(super) async fn store(urls: &EngineUrls) -> Result<SharedStore, EngineError> {
    check(Seam::Store, urls)?;
    let store = Postgres::open(&urls.store, urls.postgres).await;
    Ok(Arc::new(store.map_err(|error| store_error(urls, error))?))
}

pub(super) async fn cache(urls: &EngineUrls) -> Result<SharedCache, EngineError> {
    let bad = |why| EngineError::Url { seam: Seam::Cache, url: masked(&urls.cache), why };
    let cache = RedisCache::open_with(&urls.cache, &urls.redis).await;
    Ok(Arc::new(cache.map_err(|error| bad(error.to_string()))?))
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
        check(seam, urls)?;
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
        (Some((log_made, log_id)), Some(store_made)) => {
            let tied = async || super::tie(urls, log_id, &self::store(urls).await?).await;
            waiting::until_open(Seam::Store, urls, &waits, &never, tied).await?;
            Ok(Made { log_made, log_id, store_made })
        }
        // Nobody stops it but by ending the process.
        _ => std::future::pending().await,
    }
}
