//! From whom presence is hidden (ID-9): whoever was blocked hears nothing of the blocker, nor what they have read in their direct chat.

use std::{collections::HashMap, sync::Arc, time::Duration};

use common::{
    ids::{AppId, ChatId, ChatKey, Number, SocketId, UserId, UserKey},
    store::{Pair, Ties},
    time::Millis,
    wire::peer::{Came, Live, Topic},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{PATIENCE, TICK, WAITING, heard::Change};
use crate::{deliver::Deliver, pace::Pace};

/// Users who are told of at once. Of those their blocks are read: 10,000 of each at the worst are 3 MiB, and a few of each are nothing. With 20
/// chats each, a frame of 200 topics: some 0.2 ms of the node and of the dispatcher, in which they do nothing else.
const TOGETHER: usize = 10;
/// How long it takes to tell of all of them: those who came and those who went, each turn.
const TOLD_IN: Duration = TICK.checked_div(4).unwrap();
/// Topics of one frame: 50 KiB with the names of the chats.
const TOPICS: usize = 1_000;
/// Users of one frame from whom something is hidden, unless they are of one user: 1 MiB of the 4 MiB that a frame may have.
const HIDDEN: usize = 50_000;
/// How long after a block, or its end, it is said how the blocked are to see the other: whatever a node read before of whom something is hidden
/// from was said by then. Those who hear it keep to the order in which they hear.
const SETTLED: Duration = TICK.saturating_mul(2);
/// Pairs that wait for that; of what is more the blocked hear when the other comes or goes.
const SHOWN: usize = 4_096;
/// Typing and reading that waits until the store has said whether it is hidden; what is more is not told.
const ASKED: usize = 1_024;
/// How old a read mark may be that is told: one that a link has held up longer may come after a newer one was told, to a session that has
/// moved here since.
const READ_AGE: Duration = Duration::from_secs(1);

/// What is looked up before something is told.
pub(super) struct Hiding {
    shown: Arc<Semaphore>,
    asked: Arc<Semaphore>,
}

impl Default for Hiding {
    fn default() -> Self {
        Self { shown: Arc::new(Semaphore::new(SHOWN)), asked: Arc::new(Semaphore::new(ASKED)) }
    }
}

/// A frame that is being made.
#[derive(Default)]
struct Frame {
    topics: Vec<Topic>,
    users: Vec<Came>,
    hidden: usize,
}

impl Deliver {
    /// Tells the sessions of those chats, here and on other nodes, but for those of whom the user has blocked. While the store does not say who
    /// those are, nobody is told.
    pub(super) async fn announce(&self, news: Vec<Change>) {
        let mut untold = std::mem::take(&mut *self.0.presence.untold.lock());
        untold.extend(news);
        let mut pace = Pace::over(TOLD_IN, untold.len().div_ceil(TOGETHER), 1);
        while !untold.is_empty() {
            pace.next().await;
            let users: Vec<UserKey> = untold.iter().take(TOGETHER).map(|(user, ..)| *user).collect();
            let Ok(Ok(blocked)) = timeout(PATIENCE, self.0.relationships.blocked_by(&users)).await else {
                tracing::debug!(
                    "who came and went is told later: the store does not say from whom it is hidden"
                );
                break;
            };
            let rest = untold.split_off(users.len());
            self.tell_all_but(std::mem::replace(&mut untold, rest), &blocked);
        }
        if !untold.is_empty() {
            let mut later = self.0.presence.untold.lock();
            // Others may have put something there meanwhile: that is newer.
            untold.append(&mut later);
            untold.truncate(WAITING);
            *later = untold;
        }
    }

    fn tell_all_but(&self, news: Vec<Change>, blocked: &HashMap<UserKey, Vec<UserId>>) {
        let at = self.0.clock.now();
        let mut frames: HashMap<AppId, Frame> = HashMap::new();
        for (key, last_seen, chats) in news {
            let UserKey { app, user } = key;
            let hidden_from = blocked.get(&key).map(Vec::as_slice).unwrap_or_default();
            for chats in chats.chunks(TOPICS) {
                let frame = frames.entry(app).or_default();
                if frame.hidden + hidden_from.len() > HIDDEN {
                    self.tell_frame(app, at, std::mem::take(frame));
                }
                frame.topics.extend(chats.iter().map(|chat| Topic::Chat(app, *chat)));
                frame.hidden += hidden_from.len();
                frame.users.push(Came {
                    user,
                    last_seen,
                    chats: chats.to_vec(),
                    hidden_from: hidden_from.to_vec(),
                    only: None,
                });
                if frame.topics.len() >= TOPICS {
                    self.tell_frame(app, at, std::mem::take(frame));
                }
            }
        }
        for (app, frame) in frames {
            self.tell_frame(app, at, frame);
        }
    }

    fn tell_frame(&self, app: AppId, at: Millis, frame: Frame) {
        if !frame.topics.is_empty() {
            self.tell_all(frame.topics, Live::Presence { app, at, users: frame.users });
        }
    }

    /// `of` has blocked `to` at that time, or does no longer: if `of` is there, `to` hears soon that they are not since, or that they are.
    pub(crate) fn show_anew(&self, of: UserKey, to: UserId, at: Millis) {
        let Ok(permit) = Arc::clone(&self.0.presence.hiding.shown).try_acquire_owned() else { return };
        let deliver = self.clone();
        self.0.tasks.spawn(async move {
            let shown = async {
                tokio::time::sleep(SETTLED).await;
                timeout(PATIENCE, deliver.show_one(of, to, at)).await
            };
            let _ = deliver.0.shutdown.run_until_cancelled(shown).await;
            drop(permit);
        });
    }

    async fn show_one(&self, of: UserKey, to: UserId, blocked: Millis) {
        let UserKey { app, user } = of;
        let elsewhere = async {
            let lives = self.0.cache.lives_of(&[of]).await;
            lives.is_ok_and(|lives| lives.first().is_some_and(|lives| !lives.is_empty()))
        };
        if !self.0.presence.is_here(of) && !elsewhere.await {
            // That they are not there was said when they went.
            return;
        }
        let Ok(ties) = self.0.relationships.read(Pair::new(app, user, to)).await else { return };
        let Ok(mut standing) = self.0.chats.standing(&[of]).await else { return };
        let largest = self.0.presence.config.group;
        let chats = standing.users.remove(&of).unwrap_or_default().memberships;
        let chats: Vec<ChatId> =
            chats.into_iter().filter(|chat| chat.members <= largest).map(|chat| chat.chat).collect();
        let at = self.0.clock.now();
        let last_seen = ties.blocks(user).then_some(blocked);
        for chats in chats.chunks(TOPICS) {
            let came =
                Came { user, last_seen, chats: chats.to_vec(), hidden_from: Vec::new(), only: Some(to) };
            self.tell_all(vec![Topic::User(app, to)], Live::Presence { app, at, users: vec![came] });
        }
    }

    /// A member has read a chat up to a message, as their node says.
    pub(crate) fn heard_read(
        &self,
        key: ChatKey,
        user: UserId,
        number: Number,
        socket: Option<SocketId>,
        at: Millis,
    ) {
        if self.0.clock.now().since(at) > READ_AGE {
            return;
        }
        let Some(room) = self.0.hub.room(key) else { return };
        let pair = room.pair_with(user);
        let tell = move |deliver: &Self, hidden| {
            room.read(user, number, socket, hidden);
            deliver.say(&room);
        };
        match pair {
            Some(pair) => self.knowing(pair, READ_AGE, move |deliver, ties| tell(deliver, ties.blocks(user))),
            None => tell(self, false),
        }
    }

    /// Does something with what two are to each other: at once if that is known, or once the store has said it, unless that takes too long or
    /// too many wait for it.
    pub(super) fn knowing(
        &self,
        pair: Pair,
        patience: Duration,
        act: impl FnOnce(&Self, Ties) + Send + 'static,
    ) {
        if let Some(ties) = self.0.relationships.known(pair) {
            return act(self, ties);
        }
        let Ok(permit) = Arc::clone(&self.0.presence.hiding.asked).try_acquire_owned() else { return };
        let deliver = self.clone();
        self.0.tasks.spawn(async move {
            let read = timeout(patience, deliver.0.relationships.read(pair));
            if let Some(Ok(Ok(ties))) = deliver.0.shutdown.run_until_cancelled(read).await {
                act(&deliver, ties);
            }
            drop(permit);
        });
    }
}
