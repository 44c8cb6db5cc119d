//! What a service keeps in memory of the store, and looks at again and again: changes that are counted or numbered there.

use std::time::Duration;

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Result, StoreError};

/// The least time between two looks, however many hints come: a hint waits this long at most, and a burst of them costs 20 small queries a
/// second.
const HINT_GAP: Duration = Duration::from_millis(50);

/// How long the store has to answer before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks every `poll`, and soon after each hint, until `shutdown`. `what` names it in the log; while the store is silent, what is known goes on
/// counting.
pub async fn follow<F: Future<Output = Result<()>>>(
    what: &'static str,
    poll: Duration,
    hint: &Notify,
    shutdown: &CancellationToken,
    look: impl Fn() -> F,
) {
    let next = async || {
        tokio::select! {
            () = sleep(poll) => {}
            () = async { tokio::join!(hint.notified(), sleep(HINT_GAP)); } => {}
        }
        look().await
    };
    while let Some(looked) = shutdown.run_until_cancelled(next()).await {
        if let Err(error) = looked {
            tracing::warn!(%error, what, "not read: what is known goes on counting");
        }
    }
}

/// What the store answers, if it does so in time.
///
/// # Errors
/// As the store's, and when it is silent.
pub async fn in_time<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer".into())))
}
