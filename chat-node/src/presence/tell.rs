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

use super::{TICK, WAITING, view};
use crate::{
    deliver::Deliver,
    hub::Handle,
    pace::Pace,
    socket::frame::{Frames, framed},
};

/// What is told in one turn ([`super::TICK`]): 40,000 a second, at a microsecond each. What is more waits for the next.
const TURN: usize = 20_000;
/// How long it takes to look up who is to be told, where they are many, and to tell them.
const LOOKED_UP_IN: Duration = TICK.checked_div(4).unwrap();
const TOLD_IN: Duration = LOOKED_UP_IN;
/// Users who are looked up and sessions that are told at once in any case: some 50 µs of either.
const USERS_AT_ONCE: usize = 2;
const SESSIONS_AT_ONCE: usize = 8;
/// Users of whom it is remembered what was told last, at least, and at most twice as many: 1 MiB.
const REMEMBERED: usize = 8_192;

/// What is to be told, and what was.
#[derive(Default)]
pub(super) struct Telling {
    news: HashMap<UserKey, News>,
    order: VecDeque<UserKey>,
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
    /// A user is, or is not, there since then. What is older than what was told is not told, nor what is too much.
    pub(super) fn add(&mut self, user: UserKey, next: News) {
        if let Some(news) = self.news.get_mut(&user) {
            news.chats.extend(next.chats);
            news.chats.sort_unstable();
            news.chats.dedup();
            if next.at >= news.at {
                (news.at, news.last_seen, news.hidden_from) = (next.at, next.last_seen, next.hidden_from);
            }
            return;
        }
        let told = self.newer.get(&user).or_else(|| self.older.get(&user));
        let stale = told.is_some_and(|before| *before > next.at);
        if stale || self.news.len() >= WAITING {
            return;
        }
        self.news.insert(user, next);
        self.order.push_back(user);
    }

    fn next(&mut self) -> Option<(UserKey, News)> {
        let user = self.order.pop_front()?;
        let news = self.news.remove(&user)?;
        self.newer.insert(user, news.at);
        if self.newer.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.newer);
        }
        Some((user, news))
    }
}

/// What one session is told.
struct Piece {
    handle: Arc<Handle>,
    frames: Vec<u8>,
    /// Of whom it is told last.
    last: Option<UserKey>,
}

impl Deliver {
    pub(super) async fn tell_sessions(&self) {
        let mut pieces: HashMap<SocketId, Piece> = HashMap::new();
        let users = self.0.presence.telling.lock().order.len();
        let mut pace = Pace::over(LOOKED_UP_IN, users, USERS_AT_ONCE);
        let mut told = 0;
        // Who comes meanwhile is told of in the next turn: the pace is not for so many.
        for _ in 0..users {
            if told >= TURN {
                break;
            }
            pace.next().await;
            // Of one user there may be hundreds to tell.
            tokio::task::yield_now().await;
            let Some((user, news)) = self.0.presence.telling.lock().next() else { break };
            told += 1 + self.tell_of(user, news, &mut pieces);
        }
        let mut pace = Pace::over(TOLD_IN, pieces.len(), SESSIONS_AT_ONCE);
        for Piece { handle, frames, .. } in pieces.into_values() {
            pace.next().await;
            handle.outbox.offer(frames.into());
        }
    }

    /// Gives how many are told.
    fn tell_of(&self, user: UserKey, news: News, pieces: &mut HashMap<SocketId, Piece>) -> usize {
        let frame = ServerFrame::Presence(view(user, news.last_seen));
        let (mut frames, mut told) = (Frames::default(), 0);
        let hidden_from: HashSet<UserId> = news.hidden_from.into_iter().collect();
        for chat in news.chats {
            let Some(room) = self.0.hub.room(ChatKey { app: user.app, chat }) else { continue };
            if room.members() > self.0.presence.config.group {
                continue;
            }
            room.company_of(user.user, |handle| {
                if hidden_from.contains(&handle.user.user) {
                    return;
                }
                let piece = pieces.entry(handle.socket).or_insert_with(|| Piece {
                    handle: Arc::clone(handle),
                    frames: Vec::new(),
                    last: None,
                });
                if piece.last.replace(user) != Some(user) {
                    let format = handle.outbox.format();
                    piece.frames.extend_from_slice(&frames.get(format, || framed(&frame, format)));
                    told += 1;
                }
            });
        }
        told
    }
}
