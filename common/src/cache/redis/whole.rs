//! Whether somebody may be connected whom the cache does not show: for a while after it forgot them, or let all lives end because nobody
//! reached it.
//!
//! One key says since when nothing was forgotten. Whoever keeps a life up prolongs it, for less than what keeps the life: when the server is
//! flushed, comes back with what it knew long ago, or stands still, the key is gone before any life is, and begins anew. All sockets are
//! noted again within a third of [`life_ms`](super::Settings::life_ms); so long, and for two more attempts, nobody is surely away.

use std::time::Duration;

use redis::Script;

use super::Inner;
use crate::cache::CacheError;

pub(super) fn keep_script() -> Script {
    Script::new(include_str!("whole_keep.lua"))
}

impl Inner {
    /// Nothing was forgotten, and a life that was kept up just now for `term` is known. Gives since when.
    pub(super) async fn keep_whole(&self, term: Duration) -> Result<i64, CacheError> {
        let term = u64::try_from(term.as_millis() / 2).unwrap_or(u64::MAX).max(1);
        let mut call = self.presence.keep_whole.key(self.keys.whole());
        call.arg(term);
        self.invoke(&call).await
    }

    pub(super) async fn is_whole(&self) -> Result<bool, CacheError> {
        let whole = self.keys.whole();
        let mut ask = redis::pipe();
        ask.cmd("GET").arg(&whole).cmd("TIME");
        let (since, (seconds, micros)): (Option<i64>, (i64, i64)) =
            self.link.call(async |mut to| ask.query_async(&mut to).await).await?;
        let now = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
        let settled = i64::try_from(self.presence.life_ms()).unwrap_or(i64::MAX);
        if since.is_none_or(|since| now.saturating_sub(since) < settled) {
            return Ok(false);
        }
        // Of one that is over it is not said yet when its users were there.
        Ok(self.over().await?.is_empty())
    }
}
