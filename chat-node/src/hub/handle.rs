//! One session as everybody else sees it.

use std::collections::HashSet;

use common::ids::{ChatId, ChatKey, SessionId, SocketId, UserKey};
use parking_lot::Mutex;

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
    /// What is on its way to the client.
    pub outbox: Outbox,
    chats: Mutex<Chats>,
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
        Self { socket, user, session, outbox, chats: Mutex::default() }
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
