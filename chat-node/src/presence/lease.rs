//! This node's lease, and what other nodes leave behind whose lease has lapsed (PR-3).

use common::{cache::USERS_TOGETHER, ids::UserKey, time::Millis};
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
        let mut bereaved: Vec<(UserKey, Millis)> = Vec::new();
        loop {
            ticks.tick().await;
            // Before it is asked: the cache may take its time.
            let now = self.0.clock.now();
            let kept = timeout(PATIENCE, self.0.cache.keep_life(&self.0.presence.life, term, now)).await;
            if !matches!(kept, Ok(Ok(()))) {
                tracing::debug!("the cache does not take this node's lease");
                continue;
            }
            // Whoever took a life must hear all of it: that may be many users.
            match self.0.cache.take_lapsed().await {
                Ok(lapsed) => bereaved.extend(lapsed.into_iter().flat_map(|lapsed| {
                    // Whoever was silent by then had perhaps been cut off.
                    let at = lapsed.renewed.minus(self.0.presence.silence);
                    lapsed.users.into_iter().map(move |user| (user, at))
                })),
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

    /// Tells of those users of nodes that are no more who are on no other one, and when they were there last. Gives them back when it cannot be
    /// told which chats they are in.
    async fn bury(&self, users: Vec<(UserKey, Millis)>) -> Result<(), Vec<(UserKey, Millis)>> {
        debug_assert!(users.len() <= USERS_TOGETHER, "one question");
        let asked: Vec<UserKey> = users.iter().map(|(user, _)| *user).collect();
        let lives = match timeout(PATIENCE, self.0.cache.lives_of(&asked)).await {
            Ok(Ok(lives)) => lives,
            Ok(Err(_)) | Err(_) => return Err(users),
        };
        let mut gone = users.clone();
        let mut lives = lives.into_iter();
        gone.retain(|(user, _)| {
            lives.next().is_some_and(|lives| lives.is_empty()) && !self.0.presence.is_here(*user)
        });
        if gone.is_empty() {
            return Ok(());
        }
        let asked: Vec<UserKey> = gone.iter().map(|(user, _)| *user).collect();
        let standing = match timeout(PATIENCE, self.0.chats.standing(&asked)).await {
            Ok(Ok(standing)) => standing,
            Ok(Err(_)) | Err(_) => return Err(users),
        };
        let largest = self.0.presence.config.group;
        let chats = |user: &UserKey| {
            let memberships = standing.users.get(user).into_iter().flat_map(|chats| &chats.memberships);
            memberships.filter(|chat| chat.members <= largest).map(|chat| chat.chat).collect()
        };
        let news: Vec<Change> = gone.iter().map(|(user, at)| (*user, Some(*at), chats(user))).collect();
        self.announce(news).await;
        self.note_seen(&gone).await;
        Ok(())
    }
}
