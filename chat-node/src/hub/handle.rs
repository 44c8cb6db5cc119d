//! One session as everybody else sees it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    applications::KeyMark,
    ids::{ChatId, ChatKey, SessionId, SocketId, UserKey},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::outbox::Outbox;

/// One session: whose it is, and its outbox. The session's task has one, and each room it is in.
#[derive(Debug)]
pub struct Handle {
    /// The socket.
    pub socket: SocketId,
    /// Whose it is.
    pub user: UserKey,
    /// The sign-in behind it.
    pub session: SessionId,
    /// The key of its application's choice that its token was signed with.
    pub signed_by: Option<KeyMark>,
    /// What is on its way to the client.
    pub outbox: Outbox,
    chats: Mutex<Chats>,
    /// See [`Owed`].
    owed: AtomicUsize,
    made: Instant,
    /// How many milliseconds later something was read from the client.
    heard: AtomicU64,
}

/// Something that a session has yet to be told outside the order of events: that a chat is new, gone, or to be read. While there is any,
/// it is told no cursor: neither the marks nor the rooms' places say that it was told.
#[derive(Debug)]
pub(super) struct Owed(Arc<Handle>);

impl Owed {
    pub(super) fn to(handle: &Arc<Handle>) -> Self {
        handle.owed.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(handle))
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.0
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.owed.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The chats in whose rooms the session may have a seat: all that it ever had one in, so that its end finds them.
#[derive(Debug, Default)]
struct Chats {
    seated: HashSet<ChatId>,
    ended: bool,
}

impl Handle {
    /// A session that is in no room.
    pub fn new(socket: SocketId, user: UserKey, session: SessionId, outbox: Outbox) -> Self {
        Self {
            socket,
            user,
            session,
            signed_by: None,
            outbox,
            chats: Mutex::default(),
            owed: AtomicUsize::new(0),
            made: Instant::now(),
            heard: AtomicU64::new(0),
        }
    }

    /// The same, by a token that was signed with such a key.
    pub fn signed_by(self, signed_by: Option<KeyMark>) -> Self {
        Self { signed_by, ..self }
    }

    /// Something was read from the client: it is there.
    pub(crate) fn hear(&self) {
        let after = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(after, Ordering::Relaxed);
    }

    /// For how long nothing was read from the client. What it was sent meanwhile may have reached nobody.
    pub(crate) fn silent_for(&self) -> Duration {
        self.made.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }

    /// Whether the session was told everything outside the order of events that it is to be told.
    pub(super) fn is_owed_nothing(&self) -> bool {
        self.owed.load(Ordering::Acquire) == 0
    }

    /// A chat of its application.
    pub(crate) fn chat_key(&self, chat: ChatId) -> ChatKey {
        ChatKey { app: self.user.app, chat }
    }

    /// Runs `seat`, which may give the session a seat, unless the session has ended: under the lock that the end takes, so that
    /// no seat is left behind.
    pub(super) fn seat<T>(&self, chat: ChatId, seat: impl FnOnce() -> T) -> Option<T> {
        let mut chats = self.chats.lock();
        if chats.ended {
            return None;
        }
        chats.seated.insert(chat);
        Some(seat())
    }

    /// The chats it may have a seat in.
    pub(crate) fn chats(&self) -> Vec<ChatId> {
        self.chats.lock().seated.iter().copied().collect()
    }

    /// The session ends: from here on it gets no seat.
    pub(super) fn end(&self) -> Vec<ChatId> {
        let mut chats = self.chats.lock();
        chats.ended = true;
        std::mem::take(&mut chats.seated).into_iter().collect()
    }
}
