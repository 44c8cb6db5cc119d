//! Who came and who went, here and elsewhere.

use std::time::Duration;

use common::{
    cache::USERS_TOGETHER,
    ids::{AppId, ChatId, SocketId, UserKey},
    time::Millis,
    wire::peer::{Came, Live, Topic},
};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use super::{Going, PATIENCE, People, TICK, tell::News};
use crate::{deliver::Deliver, pace::Pace};

/// Calls of the cache in flight.
const TOGETHER: usize = 32;
/// How long it takes to look up the chats of those who came, and of how many at once in any case: some 50 µs.
const LOOKED_UP_IN: Duration = TICK.checked_div(4).unwrap();
const USERS_AT_ONCE: usize = 4;
/// Users whose rows are written at once.
const ROWS: usize = 1_000;
/// How old what was said may be that is told: older things were held up on the way.
const AGE: Duration = Duration::from_secs(5);

/// A user, since when they are gone, and where that is told.
pub(super) type Change = (UserKey, Option<Millis>, Vec<ChatId>);

impl People {
    /// Users who are here and of whom the others are to hear, with whether in any case.
    fn newcomers(&mut self) -> Vec<(UserKey, bool)> {
        let mut newcomers = Vec::new();
        for user in std::mem::take(&mut self.coming) {
            if let Some(here) =
                self.here.get_mut(&user).filter(|here| !here.announced && here.going.is_none())
            {
                here.announced = true;
                newcomers.push((user, std::mem::take(&mut here.insist)));
            }
        }
        newcomers
    }

    /// Users whose grace is over, and whether the others were told of them.
    fn gone(&mut self, now: Instant) -> Vec<(UserKey, Going, bool)> {
        let mut gone = Vec::new();
        while let Some((due, user, no)) = self.going.front().copied()
            && due <= now
        {
            self.going.pop_front();
            let same = |here: &super::Here| here.going.as_ref().is_some_and(|going| going.no == no);
            if self.here.get(&user).is_some_and(same)
                && let Some(here) = self.here.remove(&user)
                && let Some(going) = here.going
            {
                gone.push((user, going, here.announced));
            }
        }
        gone
    }
}

impl Deliver {
    pub(super) async fn see_who_came(&self) {
        let newcomers = self.0.presence.people.lock().newcomers();
        let mut pace = Pace::over(LOOKED_UP_IN, newcomers.len(), USERS_AT_ONCE);
        let mut news: Vec<Change> = Vec::new();
        for users in newcomers.chunks(USERS_TOGETHER) {
            let asked: Vec<UserKey> = users.iter().map(|(user, _)| *user).collect();
            let lives = match timeout(PATIENCE, self.0.cache.lives_of(&asked)).await {
                Ok(Ok(lives)) => lives,
                // Everybody is told: those who knew it hear it again.
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            for (place, (user, insist)) in users.iter().enumerate() {
                let mut elsewhere =
                    lives.get(place).into_iter().flatten().filter(|life| **life != self.0.presence.life);
                if elsewhere.next().is_some() && !insist {
                    // The others know it from there.
                    continue;
                }
                pace.next().await;
                let handles = self.0.hub.user(*user).map(|user| user.ready_handles()).unwrap_or_default();
                if let Some(handle) = handles.first() {
                    news.push((*user, None, self.small_chats(handle)));
                }
            }
        }
        self.announce(news).await;
    }

    pub(super) async fn see_who_went(&self) {
        let (gone, mut closed) = {
            let mut people = self.0.presence.people.lock();
            (people.gone(Instant::now()), std::mem::take(&mut people.stale))
        };
        // Before the cache shows them as gone: whoever asks it first and then when they were here last, finds one or the other.
        let seen: Vec<_> = gone.iter().map(|(user, going, _)| (*user, going.at)).collect();
        self.note_seen(&seen).await;
        // Before it is asked who is elsewhere: of two nodes that are left at the same time, the later one must not find the other's.
        closed.extend(gone.iter().map(|(user, going, _)| (*user, going.socket)));
        self.close_in_cache(closed).await;
        let mut news: Vec<Change> = Vec::new();
        let mut gone = gone.into_iter();
        loop {
            let some: Vec<_> = gone.by_ref().take(USERS_TOGETHER).collect();
            if some.is_empty() {
                break;
            }
            let asked: Vec<UserKey> = some.iter().map(|(user, ..)| *user).collect();
            let lives = timeout(PATIENCE, self.0.cache.lives_of(&asked)).await;
            let lives = lives.ok().and_then(Result::ok);
            for (place, (user, going, announced)) in some.into_iter().enumerate() {
                let elsewhere = match &lives {
                    Some(lives) => lives.get(place).is_some_and(|lives| !lives.is_empty()),
                    None => going.elsewhere,
                };
                if elsewhere {
                    continue;
                }
                if announced {
                    news.push((user, Some(going.at), going.chats));
                }
            }
        }
        self.announce(news).await;
    }

    async fn close_in_cache(&self, sockets: Vec<(UserKey, SocketId)>) {
        let closing = stream::iter(sockets).map(|(user, socket)| async move {
            if !matches!(timeout(PATIENCE, self.0.cache.session_closed(user, socket)).await, Ok(Ok(()))) {
                tracing::debug!(%socket, "a closed socket may still be shown");
            }
        });
        closing.buffer_unordered(TOGETHER).collect::<()>().await;
    }

    /// Notes when users were here last. What cannot be noted is lost, unless the caller tries again: an earlier time stays. `false` then.
    pub(super) async fn note_seen(&self, seen: &[(UserKey, Millis)]) -> bool {
        let mut noted = true;
        for rows in seen.chunks(ROWS) {
            match timeout(PATIENCE, self.0.presence.seen.note_seen(rows)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => tracing::warn!(%error, "when users were here last is not noted"),
                Err(_) => tracing::warn!("when users were here last is not noted: the store does not answer"),
            }
            noted = false;
        }
        noted
    }

    pub(super) fn tell_all(&self, mut topics: Vec<Topic>, live: Live) {
        topics.sort_unstable();
        topics.dedup();
        (self.0.presence.hint)(topics, &live);
        self.live(live);
    }

    /// Users came or went, as a node says.
    pub(crate) fn heard_presence(&self, app: AppId, at: Millis, users: Vec<Came>) {
        if self.0.clock.now().since(at) > AGE {
            return;
        }
        for Came { user, last_seen, chats, hidden_from, only } in users {
            let key = UserKey { app, user };
            if only.is_none() && self.is_known_better(key, last_seen.is_some()) {
                continue;
            }
            self.0.presence.telling.lock().add(key, News { at, last_seen, chats, hidden_from, only });
        }
    }

    /// Whether a user who is said to be gone is here: then the others hear so.
    fn is_known_better(&self, user: UserKey, gone: bool) -> bool {
        let mut people = self.0.presence.people.lock();
        let people = &mut *people;
        let Some(here) = people.here.get_mut(&user) else { return false };
        match &mut here.going {
            Some(going) => {
                going.elsewhere |= !gone;
                false
            }
            None if gone => {
                here.insist = true;
                if std::mem::take(&mut here.announced) {
                    people.coming.push(user);
                }
                true
            }
            None => false,
        }
    }
}
