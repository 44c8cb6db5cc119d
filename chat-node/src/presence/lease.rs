//! This node's lease, and what other nodes leave behind whose lease has lapsed (PR-3).

use common::{
    cache::{Lapsed, USERS_TOGETHER},
    ids::UserKey,
    time::Millis,
};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::{PATIENCE, heard::Change};
use crate::deliver::Deliver;

/// Users whose chats are read at once: 50 each are 25,000, some 50 ms.
const STANDINGS: usize = 500;

const _: () = assert!(STANDINGS <= USERS_TOGETHER);

/// Something is away that is needed: later.
#[derive(Debug)]
struct Later;

impl Deliver {
    fn beats(&self) -> Interval {
        let mut ticks = interval(self.0.presence.config.beat());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    pub(super) async fn keep_lease(&self) {
        let term = self.0.presence.config.term();
        let mut ticks = self.beats();
        loop {
            ticks.tick().await;
            // Before it is asked: the cache may take its time.
            let now = self.0.clock.now();
            let kept = timeout(PATIENCE, self.0.cache.keep_life(&self.0.presence.life, term, now)).await;
            if !matches!(kept, Ok(Ok(()))) {
                tracing::debug!("the cache does not take this node's lease");
            }
        }
    }

    /// Tells of the users of nodes that are no more. Beside the lease: it must not lapse while many are told of.
    pub(super) async fn bury_lapsed(&self) {
        let (life, hold) = (&self.0.presence.life, self.0.presence.config.timeout);
        let mut ticks = self.beats();
        // The one that could not be told of whole, without those who were.
        let mut left: Option<Lapsed> = None;
        loop {
            ticks.tick().await;
            loop {
                let taken = match self.0.cache.take_lapsed(life, hold).await {
                    Ok(Some(taken)) => taken,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "the cache does not say whose lease has lapsed");
                        break;
                    }
                };
                let same = |left: &Lapsed| left.life == taken.life && left.renewed == taken.renewed;
                let mut lapsed = left.take().filter(same).unwrap_or(taken);
                if self.bury(&mut lapsed).await.is_err() {
                    left = Some(lapsed);
                    break;
                }
            }
        }
    }

    /// Tells of all users of a life, and says so to the cache.
    async fn bury(&self, lapsed: &mut Lapsed) -> Result<(), Later> {
        // Whoever was silent when it was kept up last had perhaps been cut off.
        let at = lapsed.renewed.minus(self.0.presence.silence);
        while let Some(last) = lapsed.users.len().checked_sub(1) {
            let some = lapsed.users.split_off((last / STANDINGS) * STANDINGS);
            if let Err(later) = self.bury_some(&some, at).await {
                lapsed.users.extend(some);
                return Err(later);
            }
        }
        match timeout(PATIENCE, self.0.cache.buried(lapsed)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Later),
        }
    }

    /// Tells of those of these users who are on no other node that they were there last at that time.
    async fn bury_some(&self, users: &[UserKey], at: Millis) -> Result<(), Later> {
        let Ok(Ok(lives)) = timeout(PATIENCE, self.0.cache.lives_of(users)).await else { return Err(Later) };
        let gone: Vec<UserKey> = users
            .iter()
            .zip(lives)
            .filter(|(user, lives)| lives.is_empty() && !self.0.presence.is_here(**user))
            .map(|(user, _)| *user)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let Ok(Ok(standing)) = timeout(PATIENCE, self.0.chats.standing(&gone)).await else {
            return Err(Later);
        };
        // Before anybody is told, and before the cache is sure again who is there: writers notify nobody until then.
        let seen: Vec<_> = gone.iter().map(|user| (*user, at)).collect();
        if !self.note_seen(&seen).await {
            return Err(Later);
        }
        let largest = self.0.presence.config.group;
        let chats = |user: &UserKey| {
            let memberships = standing.users.get(user).into_iter().flat_map(|chats| &chats.memberships);
            memberships.filter(|chat| chat.members <= largest).map(|chat| chat.chat).collect()
        };
        let news: Vec<Change> = gone.iter().map(|user| (*user, Some(at), chats(user))).collect();
        self.announce(news).await;
        Ok(())
    }
}
