//! Telling sessions who came and went: each session once per user, however many chats they share, and all that is to be told in one piece.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use common::{
    ids::{ChatId, ChatKey, SocketId, UserId, UserKey},
    time::Millis,
    wire::client::ServerFrame,
};
use tokio::time::{Instant, sleep_until};

use super::{LONGEST, TICK, WAITING, view};
use crate::{
    deliver::Deliver,
    hub::Handle,
    pace::Pace,
    socket::frame::{Frames, framed},
};

/// What is told in a second, at a microsecond each. What is more waits for the next turn.
const TOLD_A_SECOND: u32 = 40_000;
/// How long it is to the next turn for each session that was told, from [`TICK`] to [`LONGEST`]. To write to one takes the node some 10 µs,
/// however many it is told of: the more they are, the more each is told at once.
const EACH: Duration = Duration::from_millis(1);
/// Bytes for one session that are written together, and dropped together when it does not take them.
const PIECE: usize = 64 * 1024;
/// Users who are looked up and sessions that are told at once in any case: some 50 µs of either.
const USERS_AT_ONCE: usize = 2;
const SESSIONS_AT_ONCE: usize = 8;
/// Users of whom it is remembered what was told last, at least, and at most twice as many: 1 MiB.
const REMEMBERED: usize = 8_192;

/// What is to be told, and what was.
#[derive(Default)]
pub(super) struct Telling {
    /// By user, in the order in which it was heard.
    news: HashMap<UserKey, Vec<News>>,
    waiting: usize,
    order: VecDeque<UserKey>,
    newer: HashMap<UserKey, Millis>,
    older: HashMap<UserKey, Millis>,
}

/// A user is there, or not since then, as the members of these chats are to hear: only this one, or all but for some.
#[derive(Debug)]
pub(super) struct News {
    pub(super) at: Millis,
    pub(super) last_seen: Option<Millis>,
    pub(super) chats: Vec<ChatId>,
    pub(super) hidden_from: Vec<UserId>,
    pub(super) only: Option<UserId>,
}

impl News {
    fn tell_also(&mut self, chats: Vec<ChatId>) {
        self.chats.extend(chats);
        self.chats.sort_unstable();
        self.chats.dedup();
    }
}

impl Telling {
    /// Something is heard of a user. What is older than what everybody was told is not told, unless it hides the user from one, nor what is too
    /// much.
    pub(super) fn add(&mut self, user: UserKey, mut next: News) {
        let told = self.newer.get(&user).or_else(|| self.older.get(&user));
        let hides = next.only.is_some() && next.last_seen.is_some();
        if !hides && told.is_some_and(|before| *before > next.at) {
            return;
        }
        let same = |news: &Vec<News>| news.iter().position(|before| before.only == next.only);
        let place = self.news.get(&user).and_then(same);
        if place.is_none() && self.waiting >= WAITING {
            return;
        }
        let news = self.news.entry(user).or_insert_with(|| {
            self.order.push_back(user);
            Vec::new()
        });
        match place.map(|place| (place, news.remove(place))) {
            Some((place, mut before)) if before.at > next.at && !hides => {
                before.tell_also(next.chats);
                news.insert(place, before);
            }
            // Behind whatever was heard between the two.
            Some((_, before)) => {
                next.tell_also(before.chats);
                news.push(next);
            }
            None => {
                self.waiting += 1;
                news.push(next);
            }
        }
    }

    fn next(&mut self) -> Option<(UserKey, Vec<News>)> {
        let user = self.order.pop_front()?;
        let news = self.news.remove(&user)?;
        self.waiting = self.waiting.saturating_sub(news.len());
        if let Some(to_all) = news.iter().find(|news| news.only.is_none()) {
            self.newer.insert(user, to_all.at);
            if self.newer.len() >= REMEMBERED {
                self.older = std::mem::take(&mut self.newer);
            }
        }
        Some((user, news))
    }
}

/// What one session is told.
struct Piece {
    handle: Arc<Handle>,
    /// Those before, each full.
    full: Vec<Vec<u8>>,
    frames: Vec<u8>,
    /// What it is told last: of whom, and which of their news.
    last: Option<(UserKey, usize)>,
}

impl Piece {
    fn of(handle: &Arc<Handle>) -> Self {
        Self { handle: Arc::clone(handle), full: Vec::new(), frames: Vec::new(), last: None }
    }

    fn put(&mut self, frame: &[u8]) {
        if self.frames.len() + frame.len() > PIECE {
            self.full.push(std::mem::take(&mut self.frames));
        }
        self.frames.extend_from_slice(frame);
    }

    fn offer(self) {
        for frames in self.full.into_iter().chain([self.frames]) {
            self.handle.outbox.offer(frames.into());
        }
    }
}

impl Deliver {
    /// Tells sessions who came and went, turn by turn.
    pub(super) async fn tell_sessions(&self) {
        let mut period = TICK;
        loop {
            let begun = Instant::now();
            period = period_of(self.tell_turn(period).await);
            sleep_until(begun + period).await;
        }
    }

    /// One turn: looks up who is to be told, which takes a quarter of its time, and then tells them, which takes another. How many they were.
    async fn tell_turn(&self, period: Duration) -> usize {
        let most = u128::from(TOLD_A_SECOND) * period.as_millis() / 1_000;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut pieces: HashMap<SocketId, Piece> = HashMap::new();
        let users = self.0.presence.telling.lock().order.len();
        let mut pace = Pace::over(period / 4, users, USERS_AT_ONCE);
        let mut told = 0;
        // Who comes meanwhile is told of in the next turn: the pace is not for so many.
        for _ in 0..users {
            if told >= most {
                break;
            }
            pace.next().await;
            let Some((user, news)) = self.0.presence.telling.lock().next() else { break };
            for (place, news) in news.into_iter().enumerate() {
                // Of one user there may be hundreds to tell.
                tokio::task::yield_now().await;
                told += 1 + self.tell_of((user, place), news, &mut pieces);
            }
        }
        let sessions = pieces.len();
        let mut pace = Pace::over(period / 4, sessions, SESSIONS_AT_ONCE);
        for piece in pieces.into_values() {
            pace.next().await;
            piece.offer();
        }
        sessions
    }

    /// Gives how many are told.
    fn tell_of(&self, of: (UserKey, usize), news: News, pieces: &mut HashMap<SocketId, Piece>) -> usize {
        let (user, _) = of;
        let News { last_seen, chats, hidden_from, only, .. } = news;
        let frame = ServerFrame::Presence(view(user, last_seen));
        let (mut frames, mut told) = (Frames::default(), 0);
        let hidden_from: HashSet<UserId> = hidden_from.into_iter().collect();
        for chat in chats {
            let Some(room) = self.0.hub.room(ChatKey { app: user.app, chat }) else { continue };
            if room.members() > self.0.presence.config.group {
                continue;
            }
            room.company_of(user.user, |handle| {
                let to = handle.user.user;
                if hidden_from.contains(&to) || only.is_some_and(|only| only != to) {
                    return;
                }
                let piece = pieces.entry(handle.socket).or_insert_with(|| Piece::of(handle));
                if piece.last.replace(of) != Some(of) {
                    let format = handle.outbox.format();
                    piece.put(&frames.get(format, || framed(&frame, format)));
                    told += 1;
                }
            });
        }
        told
    }
}

/// How long it is from one turn to the next, after so many sessions were told.
fn period_of(told: usize) -> Duration {
    (EACH * u32::try_from(told).unwrap_or(u32::MAX)).clamp(TICK, LONGEST)
}

#[cfg(test)]
mod tests {
    use common::ids::AppId;

    use super::*;

    fn news(at: i64, last_seen: Option<i64>, only: Option<UserId>) -> News {
        News {
            at: Millis(at),
            last_seen: last_seen.map(Millis),
            chats: vec![ChatId::random()],
            hidden_from: Vec::new(),
            only,
        }
    }

    fn told(telling: &mut Telling) -> Vec<(i64, Option<UserId>)> {
        let (_, news) = telling.next().unwrap();
        news.iter().map(|news| (news.at.0, news.only)).collect()
    }

    #[test]
    fn id_9_what_is_heard_later_is_told_later_to_everybody_and_to_one_alone() {
        let user = UserKey { app: AppId::random(), user: UserId::random() };
        let (ben, cid) = (Some(UserId::random()), Some(UserId::random()));
        let mut telling = Telling::default();
        telling.add(user, news(1, None, ben));
        telling.add(user, news(2, None, None));
        telling.add(user, news(3, Some(3), ben));
        telling.add(user, news(4, Some(4), cid));
        telling.add(user, news(1, Some(1), None));
        assert_eq!(told(&mut telling), [(2, None), (3, ben), (4, cid)]);
        assert!(telling.next().is_none());

        telling.add(user, news(1, None, ben));
        telling.add(user, news(1, None, None));
        assert!(telling.next().is_none(), "what is older than what everybody was told");
        telling.add(user, news(1, Some(1), ben));
        assert_eq!(told(&mut telling), [(1, ben)]);

        telling.add(user, news(6, None, None));
        telling.add(user, news(5, Some(5), None));
        let (_, last) = telling.next().unwrap();
        assert_eq!(last.iter().map(|news| (news.at.0, news.chats.len())).collect::<Vec<_>>(), [(6, 2)]);
    }

    #[test]
    fn pr_1_the_more_are_told_the_longer_it_is_to_the_next_time() {
        let periods = [0, 100, 1_000, 1_000_000, usize::MAX].map(period_of);
        assert_eq!(periods, [TICK, TICK, Duration::from_secs(1), LONGEST, LONGEST]);
    }
}
