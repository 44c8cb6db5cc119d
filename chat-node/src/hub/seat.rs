//! A session in a room: what it has been shown, and what is held for it while it is not certain that its user is a member.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use common::{
    ids::{ChatId, ChatKey, Seq},
    wire::client::ServerFrame,
};

use super::{Effects, Handle, Hold, fanout::Say, handle::Owed};
use crate::{deliver::Event, socket::frame::framed};

/// Changes that may be held for a pending seat, which waits for one read of the store: two seconds of a chat that speaks 250 times a
/// second. When there are more, the store has to be read further.
const HELD: usize = 512;

/// A session in a room.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) handle: Arc<Handle>,
    /// Where its user was known to be a member: it is shown changes after this one.
    pub(super) since: Seq,
    /// Its user is a member since this change, as far as is certain.
    pub(super) joined: Seq,
    /// Its client says that it has seen the chat up to here: not shown again. Nothing else may follow from a client's word.
    seen: Seq,
    pub(super) state: SeatState,
    hold: Hold,
}

#[derive(Debug)]
pub(super) enum SeatState {
    Live,
    Pending(Box<Pending>),
    /// Its user has left: it is shown nothing any more, and will be told that the chat is gone.
    Leaving {
        _told: Owed,
    },
}

/// Why a seat is pending, and so what its client is told when it is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The chat is new to the client: `new_chat`.
    New,
    /// The client may know the chat, and has to read it again: `chat_reload`. Changes are missing that nobody has any more, or somebody left
    /// after the session's memberships were read.
    Reload,
}

#[derive(Debug)]
pub(super) struct Pending {
    why: Why,
    /// How far the store must be read: what came after is held. None while the room's place is not known.
    pub(super) base: Option<Seq>,
    held: VecDeque<(Seq, Bytes)>,
    /// The newest change by which its user left meanwhile.
    left: Option<Seq>,
    _told: Owed,
}

/// What became of a pending seat.
pub(super) enum Settled {
    /// It was not pending.
    Stays,
    /// It is live now.
    Now,
    NotYet,
    Gone,
}

impl Seat {
    pub(super) fn new(handle: &Arc<Handle>, hold: Hold, since: Seq, state: SeatState) -> Self {
        Self { handle: Arc::clone(handle), since, joined: since, seen: 0, state, hold }
    }

    /// The same, of a user who is known to be a member for longer.
    pub(super) fn joined(self, joined: Seq) -> Self {
        Self { joined, ..self }
    }

    /// The same, of a client that has seen the chat up to a change.
    pub(super) fn having_seen(self, seen: Seq) -> Self {
        Self { seen, ..self }
    }

    /// What its client said that it has seen says nothing.
    pub(super) fn has_seen_nothing(&mut self) {
        self.seen = 0;
    }

    /// It is shown changes after this one.
    pub(super) fn shown_after(&self) -> Seq {
        self.since.max(self.seen)
    }

    pub(super) fn chat(&self) -> ChatId {
        self.hold.room().key.chat
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        match &self.state {
            SeatState::Pending(pending) => Some(pending),
            SeatState::Live | SeatState::Leaving { .. } => None,
        }
    }

    pub(super) fn pending_mut(&mut self) -> Option<&mut Pending> {
        match &mut self.state {
            SeatState::Pending(pending) => Some(pending),
            SeatState::Live | SeatState::Leaving { .. } => None,
        }
    }

    pub(super) fn tell(&self, frame: &ServerFrame, say: &mut Say) {
        say.to(&self.handle, framed(frame, self.handle.outbox.format()));
    }

    /// Its user left by the change `seq`.
    pub(super) fn left(&mut self, seq: Seq, effects: &mut Effects) {
        match &mut self.state {
            SeatState::Live if self.since < seq => {
                self.state = SeatState::Leaving { _told: Owed::to(&self.handle) };
                effects.leaving.push(Arc::clone(&self.handle));
            }
            SeatState::Pending(pending) => pending.left = Some(seq),
            SeatState::Live | SeatState::Leaving { .. } => {}
        }
    }

    pub(super) fn reload(&mut self, have: Seq, effects: &mut Effects) {
        match &mut self.state {
            SeatState::Live => self.state = Pending::seat(&self.handle, Why::Reload, Some(have)),
            SeatState::Pending(pending) => {
                pending.base = pending.base.max(Some(have));
                pending.held.clear();
            }
            SeatState::Leaving { .. } => return,
        }
        effects.settle.push(self.handle.user.user);
    }

    /// The store shows its user as a member at `seen`.
    pub(super) fn settle(
        &mut self,
        key: ChatKey,
        seen: Seq,
        new_chat: &ServerFrame,
        say: &mut Say,
    ) -> Settled {
        let SeatState::Pending(pending) = &mut self.state else { return Settled::Stays };
        if pending.base.is_some_and(|base| seen < base) {
            return Settled::NotYet;
        }
        let held = std::mem::take(&mut pending.held);
        let why = pending.why;
        if pending.left.is_some_and(|left| left > seen) {
            self.tell(&ServerFrame::ChatRemoved { chat: key.chat }, say);
            return Settled::Gone;
        }
        match why {
            Why::New => self.tell(new_chat, say),
            Why::Reload => self.tell(&ServerFrame::ChatReload { chat: key.chat }, say),
        }
        for (_, frame) in held.into_iter().filter(|(seq, _)| *seq > seen) {
            say.to(&self.handle, frame);
        }
        // Since when without a break, nobody has asked.
        (self.since, self.joined, self.seen) = (seen, seen, 0);
        self.state = SeatState::Live;
        Settled::Now
    }
}

impl Pending {
    pub(super) fn seat(handle: &Arc<Handle>, why: Why, base: Option<Seq>) -> SeatState {
        let _told = Owed::to(handle);
        SeatState::Pending(Box::new(Self { why, base, held: VecDeque::new(), left: None, _told }))
    }

    /// Holds a change for later.
    pub(super) fn hold(&mut self, event: &mut Event, handle: &Handle) {
        if self.held.len() < HELD {
            self.held.push_back((event.seq(), event.frame(handle.user.user, handle.outbox.format())));
        } else {
            // The store has to be read as far as this one, then.
            self.held.clear();
            self.base = Some(event.seq());
        }
    }
}
