//! Whether people are there, as far as the cache knows.

use std::collections::HashMap;

use common::{
    cache::SharedCache,
    ids::{AppId, UserId, UserKey},
    model::{PresenceStatus, PresenceView},
};
use futures_util::{StreamExt, stream};

/// Users who are asked for at once.
const AT_ONCE: usize = 16;

/// Whether each of these users is there; empty when the cache does not say so of all.
pub(crate) async fn of(cache: &SharedCache, app: AppId, users: &[UserId]) -> HashMap<UserId, PresenceView> {
    let asked = stream::iter(users.to_vec()).map(|user| async move {
        let sessions = cache.sessions_of(UserKey { app, user }).await?;
        let status = if sessions.is_empty() { PresenceStatus::Offline } else { PresenceStatus::Online };
        Ok::<_, common::cache::CacheError>((user, PresenceView { status, last_seen: None }))
    });
    let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    answers.into_iter().collect::<Result<_, _>>().unwrap_or_else(|error| {
        tracing::warn!(%error, "people are shown without their presence");
        HashMap::new()
    })
}
