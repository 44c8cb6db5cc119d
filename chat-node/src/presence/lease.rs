//! This node's lease, and what other nodes leave behind whose lease has lapsed (PR-3).

use common::{cache::USERS_TOGETHER, ids::UserKey};
use tokio::time::timeout;

use super::{PATIENCE, WAITING, heard::Change};
use crate::deliver::Deliver;

/// Users whose chats are read at once: 50 each are 25,000 rows, some 50 ms.
const STANDINGS: usize = 500;

impl Deliver {
    pub(super) async fn keep_lease(&self) {
        let config = &self.0.presence.config;
        let term = config.term();
        let mut ticks = tokio::time::interval(config.beat());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut bereaved: Vec<UserKey> = Vec::new();
        loop {
            ticks.tick().await;
            let kept = timeout(PATIENCE, self.0.cache.keep_life(&self.0.presence.life, term)).await;
            if !matches!(kept, Ok(Ok(()))) {
                tracing::debug!("the cache does not take this node's lease");
                continue;
            }
            // Whoever took a life must hear all of it: that may be many users.
            match self.0.cache.take_lapsed().await {
                Ok(users) => bereaved.extend(users),
                Err(error) => tracing::debug!(%error, "the cache does not say whose lease has lapsed"),
            }
            bereaved.truncate(WAITING);
            while let Some(from) = bereaved.len().checked_sub(1) {
                let some = bereaved.split_off((from / STANDINGS) * STANDINGS);
                if let Err(some) = self.bury(some).await {
                    // The store is away: later.
                    bereaved.extend(some);
                    break;
                }
            }
        }
    }

    /// Tells of those users of a node that is no more who are on no other one: they were there when it prolonged its lease last. Gives them
    /// back when it cannot be told which chats they are in.
    async fn bury(&self, users: Vec<UserKey>) -> Result<(), Vec<UserKey>> {
        debug_assert!(users.len() <= USERS_TOGETHER, "one question");
        let lives = match timeout(PATIENCE, self.0.cache.lives_of(&users)).await {
            Ok(Ok(lives)) => lives,
            Ok(Err(_)) | Err(_) => return Err(users),
        };
        let gone: Vec<UserKey> = users
            .iter()
            .zip(lives)
            .filter(|(user, lives)| lives.is_empty() && !self.0.presence.is_here(**user))
            .map(|(user, _)| *user)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let standing = match timeout(PATIENCE, self.0.chats.standing(&gone)).await {
            Ok(Ok(standing)) => standing,
            Ok(Err(_)) | Err(_) => return Err(users),
        };
        // Nobody knows when the node died: its lease was prolonged last when it had its whole term before it. What was written since then
        // they may not have been sent.
        let at = self.0.clock.now().minus(self.0.presence.config.term());
        let largest = self.0.presence.config.group;
        let chats = |user: &UserKey| {
            let memberships = standing.users.get(user).into_iter().flat_map(|chats| &chats.memberships);
            memberships.filter(|chat| chat.members <= largest).map(|chat| chat.chat).collect()
        };
        let news: Vec<Change> = gone.iter().map(|user| (*user, Some(at), chats(user))).collect();
        self.announce(news).await;
        let seen: Vec<_> = gone.into_iter().map(|user| (user, at)).collect();
        self.note_seen(&seen).await;
        Ok(())
    }
}
