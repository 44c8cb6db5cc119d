//! What a service cannot start without, asked of the store until it answers.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::StoreError;

/// How long before the store is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the store has. It has time-outs of its own; this one is for an engine that forgets them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The answer to `ask`, which is asked again until there is one; none when `shutdown` came first. `what` names it in the log.
pub(crate) async fn until_answered<T, F: Future<Output = Result<T, StoreError>>>(
    what: &'static str,
    shutdown: &CancellationToken,
    ask: impl Fn() -> F,
) -> Option<T> {
    loop {
        let attempt = tokio::select! {
            () = shutdown.cancelled() => return None,
            attempt = tokio::time::timeout(PATIENCE, ask()) => attempt,
        };
        match attempt {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::warn!(%error, what, "not loaded: asking again"),
            Err(_) => tracing::warn!(what, "not loaded, the store is silent: asking again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}
