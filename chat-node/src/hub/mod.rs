//! Who of this node's sessions is in which chat: rooms by chat, users by key, and the topics that the dispatchers are asked for.
//!
//! First in, last out: a room, and a user's entry, exists while somebody holds it, and with the last hold its topic is given back. Both
//! happen under the lock of the map's shard, so that a room that is entered anew at the same moment is another room, whose topic is
//! registered after the old one's was given back.
//!
//! Locks are taken in this order: a session's own, then a room's, then an outbox's; a shard's is taken under none of them but a room's
//! never under a shard's.

mod fanout;
mod handle;
mod marks_told;
mod room;
mod seat;
mod user;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{
    ids::{ChatId, ChatKey, Seq, UserKey},
    store::Membership,
    wire::{codes::CloseCode, peer::Topic},
};
use dashmap::DashMap;

pub use self::handle::Handle;
pub(crate) use self::{
    fanout::Fanout,
    room::{Effects, Heads, Room, Shown},
    user::{Began, Job, User},
};
use crate::control::{Interest, InterestTimeout};

/// Sessions of one user on one node: more than anybody has devices and tabs, few enough that one user cannot fill a node.
pub const SESSIONS_PER_USER: usize = 32;

/// The rooms and users of one node.
pub(crate) struct Hub {
    rooms: DashMap<ChatKey, Held>,
    users: DashMap<UserKey, Arc<User>>,
    interest: Interest,
    sessions_per_user: usize,
    closed: AtomicBool,
    #[cfg(feature = "planted")]
    planted: std::sync::OnceLock<common::planted::Planted>,
}

/// A room with how many hold it.
struct Held {
    room: Arc<Room>,
    holds: usize,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub of {} rooms and {} users", self.rooms.len(), self.users.len())
    }
}

/// Keeps a room, and the interest in its chat. The last one dropped closes it.
pub(crate) struct Hold {
    hub: Arc<Hub>,
    room: Arc<Room>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold of {}", self.room.key)
    }
}

impl Hold {
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let key = self.room.key;
        self.hub.rooms.remove_if_mut(&key, |_, held| {
            held.holds -= 1;
            let last = held.holds == 0;
            if last && self.room.wanted.load(Ordering::Acquire) {
                self.hub.interest.remove(vec![Topic::from(key)]);
            }
            last
        });
    }
}

/// Why a session is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAdmitted(pub(crate) CloseCode);

/// A session that the hub knows. Dropped, it leaves every room, and its user's entry.
pub(crate) struct Admitted {
    hub: Arc<Hub>,
    user: Arc<User>,
    handle: Arc<Handle>,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admitted {}", self.handle.socket)
    }
}

impl Admitted {
    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(crate) fn user(&self) -> &Arc<User> {
        &self.user
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        for chat in self.handle.end() {
            if let Some(room) = self.hub.room(self.handle.chat_key(chat)) {
                drop(room.leave(&self.handle));
            }
        }
        self.hub.dismiss(&self.handle);
    }
}

impl Hub {
    pub(crate) fn new(interest: Interest, sessions_per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            rooms: DashMap::new(),
            users: DashMap::new(),
            interest,
            sessions_per_user,
            closed: AtomicBool::new(false),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        })
    }

    /// What is planted in its rooms; said once, before there are any.
    #[cfg(feature = "planted")]
    pub(crate) fn plant(&self, planted: common::planted::Planted) {
        let _ = self.planted.set(planted);
    }

    #[cfg(feature = "planted")]
    pub(crate) fn planted(&self) -> common::planted::Planted {
        self.planted.get().copied().unwrap_or_default()
    }

    /// Takes a session in, which is shown nothing yet.
    pub(crate) fn admit(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<Admitted, NotAdmitted> {
        let handle = Arc::clone(handle);
        let entry = self.users.entry(handle.user).or_insert_with(|| Arc::new(User::new(handle.user)));
        // Looked at under the shard's lock: whoever closes looks at all shards afterwards.
        let refused = if self.closed.load(Ordering::Acquire) {
            Some(CloseCode::ShuttingDown)
        } else {
            (!entry.add(&handle, self.sessions_per_user)).then_some(CloseCode::TooManySessions)
        };
        let user = Arc::clone(&entry);
        drop(entry);
        match refused {
            None => Ok(Admitted { hub: Arc::clone(self), user, handle }),
            Some(code) => {
                self.forget_if_empty(handle.user);
                Err(NotAdmitted(code))
            }
        }
    }

    fn dismiss(&self, handle: &Arc<Handle>) {
        if let Some(user) = self.user(handle.user) {
            user.remove(handle);
        }
        self.forget_if_empty(handle.user);
    }

    fn forget_if_empty(&self, key: UserKey) {
        self.users.remove_if(&key, |_, user| {
            let last = user.is_empty();
            if last && user.was_wanted() {
                self.interest.remove(vec![Topic::from(key)]);
            }
            last
        });
    }

    /// The user's entry, while there are sessions.
    pub(crate) fn user(&self, key: UserKey) -> Option<Arc<User>> {
        self.users.get(&key).map(|user| Arc::clone(&user))
    }

    /// The chat's room, while somebody holds it.
    pub(crate) fn room(&self, key: ChatKey) -> Option<Arc<Room>> {
        self.rooms.get(&key).map(|held| Arc::clone(&held.room))
    }

    /// Every user with sessions here.
    pub(crate) fn all_users(&self) -> Vec<Arc<User>> {
        self.users.iter().map(|user| Arc::clone(&user)).collect()
    }

    /// Every room.
    pub(crate) fn all_rooms(&self) -> Vec<Arc<Room>> {
        self.rooms.iter().map(|held| Arc::clone(&held.room)).collect()
    }

    /// Holds a chat's room.
    pub(crate) fn hold(self: &Arc<Self>, key: ChatKey) -> Hold {
        let mut held =
            self.rooms.entry(key).or_insert_with(|| Held { room: Arc::new(Room::new(key)), holds: 0 });
        held.holds += 1;
        #[cfg(feature = "planted")]
        held.room.plant(self.planted());
        let room = Arc::clone(&held.room);
        drop(held);
        Hold { hub: Arc::clone(self), room }
    }

    /// Whether what the dispatchers say reached them reached this node: see [`Interest::is_whole`].
    pub(crate) fn hears_everything(&self) -> bool {
        self.interest.is_whole()
    }

    /// Registers interest in what concerns the user; resolves when every event from now on reaches this node.
    pub(crate) async fn register_user(&self, user: &User) -> Result<(), InterestTimeout> {
        if !user.is_registered() {
            user.want();
            self.interest.add(vec![Topic::from(user.key)]).await?;
            user.set_registered();
        }
        Ok(())
    }

    /// Registers interest in these rooms' chats, in one go; resolves when every event from now on reaches this node. The holds keep the
    /// rooms meanwhile, so that no topic is given back that is on its way.
    pub(crate) async fn register_rooms(&self, holds: &[Hold]) -> Result<(), InterestTimeout> {
        let fresh: Vec<_> = holds.iter().map(Hold::room).filter(|room| !room.is_registered()).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for room in &fresh {
            room.wanted.store(true, Ordering::Release);
        }
        self.interest.add(fresh.iter().map(|room| Topic::from(room.key)).collect()).await?;
        for room in fresh {
            room.set_registered();
        }
        Ok(())
    }

    /// Seats a session at its start: see [`Room::enter`].
    pub(crate) fn enter(
        &self,
        handle: &Arc<Handle>,
        hold: Hold,
        membership: &Membership,
        seen: Seq,
    ) -> (Effects, Option<Seq>) {
        let room = Arc::clone(hold.room());
        handle.seat(room.key.chat, || room.enter(handle, hold, membership, seen)).unwrap_or_default()
    }

    /// Seats a session whose user came into the chat by the change `seq`.
    pub(crate) fn join(&self, handle: &Arc<Handle>, hold: Hold, seq: Seq) -> Effects {
        let room = Arc::clone(hold.room());
        handle.seat(room.key.chat, || room.join(handle, hold, seq)).unwrap_or_default()
    }

    /// Whether a session has a seat in the chat that includes the change `seq`.
    pub(crate) fn seated(&self, handle: &Arc<Handle>, chat: ChatId, seq: Seq) -> bool {
        self.room(handle.chat_key(chat)).is_some_and(|room| room.seated(handle, seq))
    }

    /// Closes every session, and lets no more in.
    pub(crate) fn close(&self, code: CloseCode) {
        self.closed.store(true, Ordering::Release);
        for user in self.all_users() {
            user.handles().iter().for_each(|handle| handle.outbox.close(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use common::{
        ids::{AppId, SessionId, SocketId, UserId},
        model::Head,
    };

    use super::*;
    use crate::outbox::Outbox;

    fn handle(user: UserKey) -> Arc<Handle> {
        Arc::new(Handle::new(SocketId::random(), user, SessionId::random(), Outbox::default()))
    }

    fn user() -> UserKey {
        UserKey { app: AppId::DEFAULT, user: UserId::random() }
    }

    fn chat() -> ChatKey {
        ChatKey { app: AppId::DEFAULT, chat: ChatId::random() }
    }

    fn member(key: ChatKey, head: Seq) -> Membership {
        let head = Head { number: 0, seq: head };
        Membership {
            chat: key.chat,
            head,
            members: 2,
            head_upto: 0,
            expired: 0,
            joined_seq: 1,
            joined_upto: 0,
        }
    }

    fn topics(hub: &Hub) -> String {
        format!("{:?}", hub.interest)
    }

    #[tokio::test]
    async fn the_last_one_out_gives_the_topic_back() {
        let hub = Hub::new(Interest::detached(), 2);
        let (one, other) = (hub.admit(&handle(user())).unwrap(), hub.admit(&handle(user())).unwrap());
        let key = chat();
        for admitted in [&one, &other] {
            hub.register_user(admitted.user()).await.unwrap();
            let hold = hub.hold(key);
            hub.register_rooms(std::slice::from_ref(&hold)).await.unwrap();
            drop(hub.enter(admitted.handle(), hold, &member(key, 7), 0));
        }
        assert_eq!(topics(&hub), "Interest in 3 topics");
        drop(one);
        assert_eq!(topics(&hub), "Interest in 2 topics");
        assert!(hub.room(key).is_some());
        drop(other);
        assert_eq!(topics(&hub), "Interest in 0 topics");
        assert!(hub.room(key).is_none());
        assert_eq!(format!("{hub:?}"), "Hub of 0 rooms and 0 users");
    }

    #[tokio::test]
    async fn a_room_that_is_entered_anew_is_another_one_and_registered_anew() {
        let hub = Hub::new(Interest::detached(), 2);
        let key = chat();
        let first = hub.hold(key);
        hub.register_rooms(std::slice::from_ref(&first)).await.unwrap();
        let again = hub.hold(key);
        assert!(Arc::ptr_eq(first.room(), again.room()));
        drop(first);
        drop(again);
        let anew = hub.hold(key);
        assert!(!anew.room().is_registered());
    }

    #[test]
    fn a_user_has_so_many_sessions_and_no_more_until_one_ends() {
        let hub = Hub::new(Interest::detached(), 2);
        let key = user();
        let one = hub.admit(&handle(key)).unwrap();
        let _two = hub.admit(&handle(key)).unwrap();
        assert_eq!(hub.admit(&handle(key)).unwrap_err(), NotAdmitted(CloseCode::TooManySessions));
        drop(one);
        assert!(hub.admit(&handle(key)).is_ok());
    }

    #[test]
    fn a_hub_that_closes_lets_nobody_in() {
        let hub = Hub::new(Interest::detached(), 2);
        let open = hub.admit(&handle(user())).unwrap();
        hub.close(CloseCode::ShuttingDown);
        assert_eq!(open.handle().outbox.closing(), Some(CloseCode::ShuttingDown));
        assert_eq!(hub.admit(&handle(user())).unwrap_err(), NotAdmitted(CloseCode::ShuttingDown));
    }

    #[test]
    fn a_session_that_has_ended_is_seated_nowhere() {
        let hub = Hub::new(Interest::detached(), 2);
        let admitted = hub.admit(&handle(user())).unwrap();
        let handle = Arc::clone(admitted.handle());
        drop(admitted);
        let key = chat();
        drop(hub.enter(&handle, hub.hold(key), &member(key, 1), 0));
        assert!(hub.room(key).is_none());
    }

    #[test]
    fn entering_and_leaving_at_once_never_loses_a_room_or_leaves_one() {
        let hub = Hub::new(Interest::detached(), 1_000);
        let keys: Vec<_> = (0..3).map(|_| chat()).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..2_000 {
                        let admitted = hub.admit(&handle(user())).unwrap();
                        let key = keys[turn % keys.len()];
                        let hold = hub.hold(key);
                        hold.room().wanted.store(true, Ordering::Release);
                        drop(hub.enter(admitted.handle(), hold, &member(key, 1), 0));
                        assert!(hub.room(key).is_some());
                    }
                });
            }
        });
        assert_eq!(format!("{hub:?}"), "Hub of 0 rooms and 0 users");
    }
}
