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
const A_SECOND: u32 = 40_000;
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

/// Of whom something is told, and to whom alone, if not to everybody.
type Of = (UserKey, Option<UserId>);

/// What is to be told, and what was.
#[derive(Default)]
pub(super) struct Telling {
    news: HashMap<Of, News>,
    order: VecDeque<Of>,
    newer: HashMap<UserKey, Millis>,
    older: HashMap<UserKey, Millis>,
}

/// A user is there, or not since then, as the members of these chats are to hear but for some.
pub(super) struct News {
    pub(super) at: Millis,
    pub(super) last_seen: Option<Millis>,
    pub(super) chats: Vec<ChatId>,
    pub(super) hidden_from: Vec<UserId>,
}

impl Telling {
    /// A user is, or is not, there since then. What is older than what everybody was told is not told to everybody, nor what is too much.
    pub(super) fn add(&mut self, user: UserKey, only: Option<UserId>, next: News) {
        if let Some(news) = self.news.get_mut(&(user, only)) {
            news.chats.extend(next.chats);
            news.chats.sort_unstable();
            news.chats.dedup();
            if next.at >= news.at {
                (news.at, news.last_seen, news.hidden_from) = (next.at, next.last_seen, next.hidden_from);
            }
            return;
        }
        let told = self.newer.get(&user).or_else(|| self.older.get(&user));
        let stale = only.is_none() && told.is_some_and(|before| *before > next.at);
        if stale || self.news.len() >= WAITING {
            return;
        }
        self.news.insert((user, only), next);
        self.order.push_back((user, only));
    }

    fn next(&mut self) -> Option<(Of, News)> {
        let of = self.order.pop_front()?;
        let news = self.news.remove(&of)?;
        if let (user, None) = of {
            self.newer.insert(user, news.at);
            if self.newer.len() >= REMEMBERED {
                self.older = std::mem::take(&mut self.newer);
            }
        }
        Some((of, news))
    }
}

/// What one session is told.
struct Piece {
    handle: Arc<Handle>,
    /// Those before, each full.
    full: Vec<Vec<u8>>,
    frames: Vec<u8>,
    /// Of whom it is told last.
    last: Option<Of>,
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
            let next = Instant::now() + period;
            let told = self.tell_turn(period).await;
            period = (EACH * u32::try_from(told).unwrap_or(u32::MAX)).clamp(TICK, LONGEST);
            sleep_until(next).await;
        }
    }

    /// One turn: looks up who is to be told, which takes a quarter of its time where they are many, and then tells them, which takes another.
    /// How many they were.
    async fn tell_turn(&self, period: Duration) -> usize {
        let most = u128::from(A_SECOND) * period.as_millis() / 1_000;
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
            // Of one user there may be hundreds to tell.
            tokio::task::yield_now().await;
            let Some((of, news)) = self.0.presence.telling.lock().next() else { break };
            told += 1 + self.tell_of(of, news, &mut pieces);
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
    fn tell_of(&self, of: Of, news: News, pieces: &mut HashMap<SocketId, Piece>) -> usize {
        let (user, only) = of;
        let frame = ServerFrame::Presence(view(user, news.last_seen));
        let (mut frames, mut told) = (Frames::default(), 0);
        let hidden_from: HashSet<UserId> = news.hidden_from.into_iter().collect();
        for chat in news.chats {
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
