//! Opening engines whose servers may not be there yet: tries until they are, and says what it waits for. What no waiting mends (a
//! wrong URL, a missing topic, an old schema) is reported at once.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::Rng;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{EngineError, EngineUrls, Engines, Seam, masked, open_cache, open_log, open_store};
use crate::{ids::Partition, log::SharedLog, store::SharedStore};

/// The waits between two attempts: doubling, jittered.
const WAIT: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(3);

/// How often the log is told while nothing changes.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// How long one attempt may take. Engines have time-outs of their own; this one is for one that forgets them.
const ATTEMPT: Duration = Duration::from_secs(20);

/// What a start waits for, as operators are told. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Waits(Arc<Mutex<BTreeMap<Seam, String>>>);

impl Waits {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn set(&self, seam: Seam, what: String) {
        self.0.lock().insert(seam, what);
    }

    fn clear(&self, seam: Seam) {
        self.0.lock().remove(&seam);
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = self.0.lock();
        match waits.is_empty() {
            true => f.write_str("starting"),
            false => f.write_str(&waits.values().map(String::as_str).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// Log and store once both answer, and the cache, which nobody waits for. None when `shutdown` came first.
///
/// # Errors
/// [`EngineError`], never a temporary one.
pub async fn engines(
    urls: &EngineUrls,
    partitions: Partition,
    waits: &Waits,
    shutdown: &CancellationToken,
) -> Result<Option<Engines>, EngineError> {
    let cache = open_cache(urls).await?;
    let opened = log_and_store(urls, partitions, waits, shutdown).await?;
    Ok(opened.map(|(log, store)| Engines { log, store, cache }))
}

/// Likewise, without the cache.
///
/// # Errors
/// As [`engines`].
pub async fn log_and_store(
    urls: &EngineUrls,
    partitions: Partition,
    waits: &Waits,
    shutdown: &CancellationToken,
) -> Result<Option<(SharedLog, SharedStore)>, EngineError> {
    let log = until_open(Seam::Log, urls, waits, shutdown, async || open_log(urls, partitions).await);
    let (log, store) = tokio::try_join!(log, store(urls, waits, shutdown))?;
    let Some((log, store)) = log.zip(store) else { return Ok(None) };
    let tied = async || super::tie(urls, log.id(), &store).await;
    let tied = until_open(Seam::Store, urls, waits, shutdown, tied).await?;
    Ok(tied.map(|()| (log, store)))
}

/// The store alone.
///
/// # Errors
/// As [`engines`].
pub async fn store(
    urls: &EngineUrls,
    waits: &Waits,
    shutdown: &CancellationToken,
) -> Result<Option<SharedStore>, EngineError> {
    until_open(Seam::Store, urls, waits, shutdown, async || open_store(urls).await).await
}

/// Tries `open` until it succeeds or says something that no waiting mends. None when `shutdown` came first.
///
/// # Errors
/// What is not temporary.
pub async fn until_open<T, F: Future<Output = Result<T, EngineError>>>(
    seam: Seam,
    urls: &EngineUrls,
    waits: &Waits,
    shutdown: &CancellationToken,
    open: impl Fn() -> F,
) -> Result<Option<T>, EngineError> {
    let url = masked(seam.url(urls));
    let (mut wait, mut told) = (WAIT, None::<Instant>);
    let mut why = "it has not answered yet".to_owned();
    waits.set(seam, format!("opening the {seam} {url}"));
    loop {
        // Boxed: opening is tens of kilobytes of state, and happens once.
        let mut attempt = Box::pin(timeout(ATTEMPT, open()));
        let outcome = loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                outcome = attempt.as_mut() => break outcome,
                () = sleep(TELL_EVERY) => tell(seam, &url, &why, &mut told),
            }
        };
        why = match outcome {
            Ok(Ok(opened)) => {
                waits.clear(seam);
                if told.is_some() {
                    tracing::info!(%seam, url, "it answers");
                }
                return Ok(Some(opened));
            }
            Ok(Err(error)) if !error.is_temporary() => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ATTEMPT.as_secs()),
        };
        waits.set(seam, format!("waiting for the {seam} {url}: {why}"));
        tell(seam, &url, &why, &mut told);
        let jittered = wait.mul_f64(rand::rng().random_range(0.5..=1.0));
        if shutdown.run_until_cancelled(sleep(jittered)).await.is_none() {
            return Ok(None);
        }
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Tells the log, unless it was told a moment ago.
fn tell(seam: Seam, url: &str, why: &str, told: &mut Option<Instant>) {
    if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
        tracing::warn!(%seam, url, why, "waiting for a server");
        *told = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::store::StoreError;

    fn away() -> EngineError {
        EngineError::Store { url: "postgres://db".into(), error: StoreError::Unavailable("refused".into()) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_is_waited_for_and_named_meanwhile() {
        let (waits, tries) = (Waits::new(), AtomicU32::new(0));
        let urls = EngineUrls { store: "postgres://chat:secret@db/chat".into(), ..EngineUrls::default() };
        let open = async || match tries.fetch_add(1, Ordering::Relaxed) {
            0..5 => Err(away()),
            tries => {
                let said = waits.to_string();
                assert!(said.contains("refused") && said.contains("postgres://chat:***@db/chat"), "{said}");
                Ok(tries)
            }
        };
        let opened = until_open(Seam::Store, &urls, &waits, &CancellationToken::new(), open).await;
        assert_eq!(opened.unwrap(), Some(5));
        assert_eq!(waits.to_string(), "starting");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_waiting_mends_ends_the_start_at_once() {
        let (waits, urls) = (Waits::new(), EngineUrls::default());
        let wrong = async || {
            let (url, why) = (String::new(), String::new());
            Err::<(), _>(EngineError::Url { seam: Seam::Store, url, why })
        };
        let opened = until_open(Seam::Store, &urls, &waits, &CancellationToken::new(), wrong).await;
        assert!(matches!(opened, Err(EngineError::Url { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_wait() {
        let (waits, urls, shutdown) = (Waits::new(), EngineUrls::default(), CancellationToken::new());
        let stop = shutdown.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(60)).await;
            stop.cancel();
        });
        let never = async || Err::<(), _>(away());
        assert!(until_open(Seam::Store, &urls, &waits, &shutdown, never).await.unwrap().is_none());
    }
}
