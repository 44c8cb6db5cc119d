//! Users whom somebody else knows to be connected: to something that is not this cluster (OP-6). Such a user has a socket in the cache that
//! nobody opened, one at most, kept up like all others of the node that was told of it, until any node is told the contrary.

use common::{
    cache::LiveSession,
    ids::{SessionId, SocketId, UserKey},
    problem::Problem,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::PATIENCE;
use crate::deliver::Deliver;

impl Deliver {
    /// Shows a user as connected, or no longer so; sessions of theirs go on showing them as such. The others in their small chats are told of
    /// a change.
    ///
    /// # Errors
    /// `retry_later` when the cache does not answer.
    pub(super) async fn declare(&self, user: UserKey, online: bool) -> Result<(), Problem> {
        let cache = &self.0.cache;
        let (socket, now) = (SocketId(user.user.0), self.0.clock.now());
        let said = async {
            let before = cache.lives_of(&[user]).await?;
            if online {
                let session = SessionId(Uuid::nil());
                let life = self.0.presence.life.clone();
                cache
                    .session_opened(user, LiveSession { socket, session, device: None, life, since: now })
                    .await?;
            } else {
                // Another node may have been told that they are.
                cache.session_ended(user, socket, now).await?;
            }
            let after = cache.lives_of(&[user]).await?;
            let there = |lives: &[Vec<_>]| lives.iter().any(|lives| !lives.is_empty());
            Ok::<_, common::cache::CacheError>((there(&before), there(&after)))
        };
        let (before, after) = match timeout(PATIENCE, said).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => {
                tracing::debug!(%error, "who is connected elsewhere cannot be noted");
                return Err(Problem::retry_later("the cache does not take it at the moment"));
            }
            Err(_) => return Err(Problem::retry_later("the cache does not answer at the moment")),
        };
        if before == after || self.0.presence.is_here(user) {
            return Ok(());
        }
        let last_seen = (!after).then_some(now);
        if last_seen.is_some() {
            self.note_seen(&[(user, now)]).await;
        }
        let mut standing = self.0.chats.standing(&[user]).await?;
        let memberships = standing.users.remove(&user).unwrap_or_default().memberships;
        let small = memberships.into_iter().filter(|chat| chat.members <= self.0.presence.config.group);
        self.announce(vec![(user, last_seen, small.map(|chat| chat.chat).collect())]).await;
        Ok(())
    }
}
