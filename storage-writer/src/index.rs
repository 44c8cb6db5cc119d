//! Makes the segments of the search index (ME-6), beside the draining: what drains only notes that one is due. Any number of writers share
//! them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use common::{store::Search, time::Millis};
use tokio::time::{Instant, sleep};

use crate::metrics::Metrics;

/// How long until it is asked again whether a segment is due. Until then its messages are found all the same, by reading them.
const IDLE: Duration = Duration::from_secs(1);

/// How long after an error.
const PAUSE: Duration = Duration::from_secs(5);

/// How often changed messages are looked for whose segments are to be made anew.
const LOOK: Duration = Duration::from_secs(60);

/// How long a segment may have a changed message in it: what was deleted is gone from the index then. The largest segment is made in
/// some 3 s, so that a hundred chats of so many messages that delete something every hour keep a tenth of a core busy.
const CHANGED_FOR: Duration = Duration::from_secs(3_600);

/// Goes on until it is dropped; a segment that it is making then is made by another, or later.
pub(crate) async fn run(search: Arc<dyn Search>, metrics: &Metrics) -> Infallible {
    let mut looked: Option<Instant> = None;
    loop {
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            if let Err(error) = search.index_changed(Millis::now().minus(CHANGED_FOR)).await {
                metrics.store_errors.inc();
                tracing::warn!(%error, "what has changed in the search index could not be looked up");
            }
        }
        match search.index_next(Millis::now()).await {
            Ok(true) => metrics.segments.inc(),
            Ok(false) => sleep(IDLE).await,
            Err(error) => {
                metrics.store_errors.inc();
                tracing::warn!(%error, "a segment of the search index was not made: trying again");
                sleep(PAUSE).await;
            }
        }
    }
}
