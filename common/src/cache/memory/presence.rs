//! Who is connected where: by user, and by the node that may die.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{
    cache::{CacheError, Lapsed, LiveSession, NodeLife},
    ids::{SocketId, UserKey},
    time::Millis,
};

#[derive(Debug)]
pub(super) struct Presence {
    most: usize,
    most_of_user: usize,
    count: usize,
    by_user: HashMap<UserKey, Vec<LiveSession>>,
    by_life: HashMap<NodeLife, HashSet<(UserKey, SocketId)>>,
    /// Lives that somebody keeps up. One that is over stays until its users have been told of.
    up: HashMap<NodeLife, Lease>,
}

#[derive(Debug)]
struct Lease {
    until: Instant,
    renewed: Millis,
    /// Who tells of its users, and until when nobody else does.
    taken: Option<(NodeLife, Instant)>,
}

impl Lease {
    fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }
}

impl Presence {
    pub(super) fn new(most: usize, most_of_user: usize) -> Self {
        Self {
            most,
            most_of_user,
            count: 0,
            by_user: HashMap::new(),
            by_life: HashMap::new(),
            up: HashMap::new(),
        }
    }

    pub(super) fn opened(&mut self, user: UserKey, session: LiveSession) -> Result<(), CacheError> {
        self.closed(user, session.socket);
        let of_user = self.by_user.get(&user).map_or(0, Vec::len);
        if self.count >= self.most || of_user >= self.most_of_user {
            return Err(CacheError::Full);
        }
        self.count += 1;
        self.by_life.entry(session.life.clone()).or_default().insert((user, session.socket));
        self.by_user.entry(user).or_default().push(session);
        Ok(())
    }

    pub(super) fn closed(&mut self, user: UserKey, socket: SocketId) {
        let Some(life) = self.forget(user, socket) else { return };
        if let Some(sockets) = self.by_life.get_mut(&life) {
            sockets.remove(&(user, socket));
            if sockets.is_empty() {
                self.by_life.remove(&life);
            }
        }
    }

    pub(super) fn ended(&mut self, user: UserKey, socket: SocketId, at: Millis) {
        let ended = |session: &LiveSession| session.socket == socket && session.since <= at;
        if self.by_user.get(&user).is_some_and(|sessions| sessions.iter().any(ended)) {
            self.closed(user, socket);
        }
    }

    pub(super) fn of(&self, user: UserKey) -> Vec<LiveSession> {
        let mut sessions = self.by_user.get(&user).cloned().unwrap_or_default();
        sessions.retain(|session| self.is_up(&session.life));
        sessions.sort_by_key(|session| (session.since, session.socket));
        sessions
    }

    pub(super) fn lives_of(&self, user: UserKey) -> Vec<NodeLife> {
        let sessions = self.by_user.get(&user).into_iter().flatten();
        let mut lives: Vec<_> = sessions.map(|session| session.life.clone()).collect();
        lives.sort_unstable();
        lives.dedup();
        lives.retain(|life| self.is_up(life));
        lives
    }

    pub(super) fn keep(&mut self, life: &NodeLife, term: Duration, now: Millis) {
        self.up.insert(life.clone(), Lease { until: Instant::now() + term, renewed: now, taken: None });
    }

    fn is_up(&self, life: &NodeLife) -> bool {
        match self.up.get(life) {
            Some(lease) => !lease.is_over(Instant::now()),
            None => self.by_life.contains_key(life),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        let now = Instant::now();
        self.up.values().all(|lease| !lease.is_over(now))
    }

    pub(super) fn take_lapsed(&mut self, by: &NodeLife, hold: Duration) -> Option<Lapsed> {
        let now = Instant::now();
        let free =
            |lease: &Lease| lease.taken.as_ref().is_none_or(|(taker, until)| taker == by || *until <= now);
        // A node that was held up for longer than its own lease is not gone.
        let due = |(life, lease): &(&NodeLife, &mut Lease)| *life != by && lease.is_over(now) && free(lease);
        let (life, lease) = self.up.iter_mut().find(due)?;
        lease.taken = Some((by.clone(), now + hold));
        let sockets = self.by_life.get(life).into_iter().flatten();
        let users: HashSet<UserKey> = sockets.map(|(user, _)| *user).collect();
        Some(Lapsed { life: life.clone(), renewed: lease.renewed, users: users.into_iter().collect() })
    }

    pub(super) fn buried(&mut self, lapsed: &Lapsed) {
        let now = Instant::now();
        let same = |lease: &Lease| lease.is_over(now) && lease.renewed == lapsed.renewed;
        if self.up.get(&lapsed.life).is_some_and(same) {
            self.gone(&lapsed.life);
        }
    }

    pub(super) fn gone(&mut self, life: &NodeLife) {
        self.up.remove(life);
        for (user, socket) in self.by_life.remove(life).unwrap_or_default() {
            self.forget(user, socket);
        }
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.by_user.clear();
        self.by_life.clear();
        self.up.clear();
    }

    /// Takes a socket from its user, and says whose it was.
    fn forget(&mut self, user: UserKey, socket: SocketId) -> Option<NodeLife> {
        let sessions = self.by_user.get_mut(&user)?;
        let place = sessions.iter().position(|session| session.socket == socket)?;
        let session = sessions.swap_remove(place);
        if sessions.is_empty() {
            self.by_user.remove(&user);
        }
        self.count -= 1;
        Some(session.life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AppId, Incarnation, NodeId, SessionId, UserId};

    fn user() -> UserKey {
        UserKey { app: AppId::DEFAULT, user: UserId::random() }
    }

    fn session() -> LiveSession {
        LiveSession {
            socket: SocketId::random(),
            session: SessionId::random(),
            device: None,
            life: NodeLife { node: NodeId::new("a").unwrap(), incarnation: Incarnation(1) },
            since: Millis(0),
        }
    }

    #[test]
    fn a_full_house_refuses_and_takes_again_when_somebody_left() {
        let mut presence = Presence::new(3, 2);
        let (ana, ben) = (user(), user());
        let (first, second) = (session(), session());
        assert_eq!(presence.opened(ana, first.clone()), Ok(()));
        assert_eq!(presence.opened(ana, second.clone()), Ok(()));
        assert_eq!(presence.opened(ana, second.clone()), Ok(()), "it was there already");
        assert_eq!(presence.opened(ana, session()), Err(CacheError::Full), "two are what one user may have");
        assert_eq!(presence.opened(ben, session()), Ok(()));
        assert_eq!(presence.opened(ben, session()), Err(CacheError::Full), "three are what there may be");
        presence.closed(ana, first.socket);
        presence.closed(ana, first.socket);
        assert_eq!(presence.opened(ben, session()), Ok(()));
        presence.gone(&second.life);
        assert_eq!(
            (presence.count, presence.by_user.len(), presence.by_life.len()),
            (0, 0, 0),
            "nothing is left behind"
        );
    }
}
