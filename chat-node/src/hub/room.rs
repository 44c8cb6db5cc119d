//! One chat on this node: which sessions are shown it, and how far.
//!
//! A room takes changes from everywhere (the dispatchers, an owner on this node, a repair), in any order and any number of times, and
//! shows each to its seats once, in the order of `seq`, without a hole. Pure: it names what is to be done ([`Effects`]), and puts down what
//! is to be said ([`Say`](super::fanout::Say)), which is written afterwards, in that order.
//!
//! A **seat** is a session in a room. It is shown changes after its `since`. While it is not certain that its user is a member at the
//! room's place it is **pending**: what it would be shown is held, until the store has been read far enough ([`Room::settle`]).

mod behind;
mod company;
mod saying;
mod state;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::{
    ids::{ChatKey, Number, Seq, SocketId, UserId},
    store::Membership,
    wire::client::ServerFrame,
};
use parking_lot::Mutex;

pub(crate) use self::company::Heads;
use self::state::State;
use super::{
    Handle, Hold,
    seat::{Pending, Seat, SeatState, Settled, Why},
};
use crate::{deliver::Event, socket::frame::framed};

/// A chat with sessions on this node, or that is being entered.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) key: ChatKey,
    /// Whether the dispatchers were ever asked for the chat.
    pub(super) wanted: AtomicBool,
    /// Whether they have said that they send it.
    registered: AtomicBool,
    state: Mutex<State>,
}

/// What a session was shown of a chat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// Its user is a member since this change, or longer: what was before is not theirs to see.
    pub(crate) joined: Seq,
    /// The newest change.
    pub(crate) upto: Seq,
}

/// What is to be done after the room's lock is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Effects {
    /// Seats that are no more. Dropping them may close the room.
    pub(crate) gone: Vec<Seat>,
    /// Ask the owner for what is missing.
    pub(crate) repair: bool,
    /// Look after a while whether it is still missing.
    pub(crate) time: bool,
    /// Sessions that are told of their user's removal when the store shows it, or after a while.
    pub(crate) leaving: Vec<Arc<Handle>>,
    /// Users with pending seats.
    pub(crate) settle: Vec<UserId>,
    /// The chat has more members than was known.
    pub(crate) grew: bool,
}

impl Room {
    pub(super) fn new(key: ChatKey) -> Self {
        Self {
            key,
            wanted: AtomicBool::new(false),
            registered: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Acquire)
    }

    #[cfg(feature = "planted")]
    pub(super) fn plant(&self, planted: common::planted::Planted) {
        self.state.lock().planted = planted;
    }

    pub(super) fn set_registered(&self) {
        self.registered.store(true, Ordering::Release);
    }

    /// A change of the chat.
    pub(crate) fn accept(&self, event: Event) -> Effects {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        if !state.over {
            state.known = state.known.max(event.seq());
            match state.have {
                Some(have) if event.seq() <= have => {}
                Some(have) if event.seq() == have + 1 && !state.say.is_full() => {
                    state.show(event, &mut effects);
                    state.advance(&mut effects);
                }
                Some(_) | None => state.keep_early(event),
            }
            state.mind_the_gap(&mut effects);
        }
        drop(state);
        effects
    }

    /// The newest message that was shown since the room was opened; 0 when there was none. The log has it.
    pub(crate) fn number(&self) -> Number {
        self.state.lock().number
    }

    /// A member has read the chat up to a message: told to everybody's sessions but the one that did it, or (`hidden`) to the member's own
    /// others.
    ///
    /// An event without a number, which may be left out: who is not certain to be a member is not told, nor who reads slowly.
    pub(crate) fn read(&self, user: UserId, number: Number, socket: Option<SocketId>, hidden: bool) {
        let mut state = self.state.lock();
        if !state.over && state.marks_told.is_news(user, number) {
            let frame = ServerFrame::MessageRead { chat: self.key.chat, user, number };
            state.offer(&frame, |handle| {
                Some(handle.socket) != socket && (!hidden || handle.user.user == user)
            });
        }
    }

    /// A session whose user the store showed as this member, and whose client has `seen` the chat up to there (0: is to read it). Tells where the session is shown it from, if it has a seat now that is certain.
    pub(super) fn enter(
        &self,
        handle: &Arc<Handle>,
        hold: Hold,
        membership: &Membership,
        seen: Seq,
    ) -> (Effects, Option<Seq>) {
        let head = membership.head.seq;
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        if state.over {
            // It was deleted since: nobody tells a session of that which has no seat, and the store may list it for a while.
            let removed = ServerFrame::ChatRemoved { chat: self.key.chat };
            state.say.to(handle, framed(&removed, handle.outbox.format()));
            return (effects, None);
        }
        if state.seat(handle).is_some() {
            return (effects, None);
        }
        let have = state.place(head);
        // The store is ahead of the room: others here miss something, whether or not anybody tells of it.
        state.known = state.known.max(head);
        effects.grew |= state.company.counted(membership.members, head);
        let (since, certain) = (have.max(head), state.last_left <= head);
        state.seats_changed();
        if certain {
            let seat = Seat::new(handle, hold, since, SeatState::Live).having_seen(seen);
            state.seats.push(seat.joined(membership.joined_seq));
        } else {
            let pending = Pending::seat(handle, Why::Reload, Some(have));
            state.seats.push(Seat::new(handle, hold, since, pending));
            effects.settle.push(handle.user.user);
        }
        state.advance(&mut effects);
        state.mind_the_gap(&mut effects);
        drop(state);
        (effects, certain.then_some(since))
    }

    /// Whether a session has what it says it has, up to the change `seen`: false when the chat is not as far, as far as this room has heard. Then
    /// it is shown whatever comes from here on.
    pub(crate) fn has_seen(&self, handle: &Arc<Handle>, seen: Seq) -> bool {
        let mut state = self.state.lock();
        if seen <= state.heard() {
            return true;
        }
        if let Some(seat) = state.seat(handle).and_then(|at| state.seats.get_mut(at)) {
            seat.has_seen_nothing();
        }
        false
    }

    /// What a session in this room was shown of the chat, or is about to be; none inside while its seat is not certain, and none at all when
    /// its user is no member.
    pub(crate) fn shown_to(&self, handle: &Arc<Handle>) -> Option<Option<Shown>> {
        let state = self.state.lock();
        let seat = state.seat(handle).and_then(|at| state.seats.get(at))?;
        match seat.state {
            SeatState::Live => {
                let upto = state.have.map_or(seat.since, |have| have.max(seat.since));
                Some(Some(Shown { joined: seat.joined, upto }))
            }
            SeatState::Pending(_) => Some(None),
            SeatState::Leaving { .. } => None,
        }
    }

    /// A session whose user came into the chat by the change `seq`, or later. Pending, unless it is known already: the caller settles it.
    pub(super) fn join(&self, handle: &Arc<Handle>, hold: Hold, seq: Seq) -> Effects {
        let effects = Effects::default();
        let mut state = self.state.lock();
        if state.over {
            return effects;
        }
        if let Some(at) = state.seat(handle) {
            let leaving = |seat: &Seat| matches!(seat.state, SeatState::Leaving { .. });
            if state.seats.get(at).is_some_and(|seat| seat.since >= seq && !leaving(seat)) {
                return effects;
            }
            // It was removed and is in again, and the removal was not heard of.
            state.tell_removed(at);
        }
        let base = state.have;
        let pending = Pending::seat(handle, Why::New, base);
        state.seats.push(Seat::new(handle, hold, base.unwrap_or(0), pending));
        drop(state);
        effects
    }

    /// Whether a session has a seat that includes the change `seq`, and is not about to lose it.
    pub(super) fn seated(&self, handle: &Arc<Handle>, seq: Seq) -> bool {
        let state = self.state.lock();
        let seat = state.seat(handle).and_then(|at| state.seats.get(at));
        seat.is_some_and(|seat| seat.since >= seq && !matches!(seat.state, SeatState::Leaving { .. }))
    }

    /// Whether seats of `user` are pending.
    pub(crate) fn is_pending(&self, user: UserId) -> bool {
        self.state.lock().seats.iter().any(|seat| seat.handle.user.user == user && seat.pending().is_some())
    }

    /// The store has been read: it shows `user` as a member at `seen`, and `new_chat` says so. True when that was far enough for all
    /// pending seats of the user; else it must be read again.
    pub(crate) fn settle(&self, user: UserId, seen: Seq, new_chat: &ServerFrame) -> (bool, Effects) {
        let mut effects = Effects::default();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.place(seen);
        if let ServerFrame::NewChat { chat, .. } = new_chat {
            effects.grew |= state.company.counted(chat.members_count, seen);
        }
        state.seats_changed();
        let (mut done, mut settled) = (true, false);
        let mut at = 0;
        while at < state.seats.len() {
            let keep = match state.seats.get_mut(at) {
                Some(seat) if seat.handle.user.user == user => {
                    seat.settle(self.key, seen, new_chat, &mut state.say)
                }
                _ => Settled::Stays,
            };
            match keep {
                Settled::Stays => at += 1,
                Settled::Now => {
                    settled = true;
                    at += 1;
                }
                Settled::NotYet => {
                    done = false;
                    at += 1;
                }
                Settled::Gone => {
                    let seat = state.seats.swap_remove(at);
                    state.say.then_nothing(seat);
                }
            }
        }
        state.advance(&mut effects);
        state.mind_the_gap(&mut effects);
        if settled {
            // What was published before the interest was registered, and was not drained when the view was read: from this instant on
            // the room counts as behind, so no cursor is told before its owner was asked.
            effects.repair |= state.suspect();
        }
        drop(guard);
        (done, effects)
    }

    /// The store shows that `user` is not in the chat: pending seats of the user are none.
    pub(crate) fn refuse(&self, user: UserId) {
        let mut state = self.state.lock();
        while let Some(at) =
            state.seats.iter().position(|seat| seat.handle.user.user == user && seat.pending().is_some())
        {
            state.tell_removed(at);
        }
    }

    /// `user` is in the chat no more since the change `seq`, and the store shows it.
    pub(crate) fn removed(&self, user: UserId, seq: Seq) {
        let mut state = self.state.lock();
        #[cfg(feature = "planted")]
        if state.planted.is(common::planted::Bug::DeliverToRemoved) {
            return;
        }
        state.last_left = state.last_left.max(seq);
        while let Some(at) =
            state.seats.iter().position(|seat| seat.handle.user.user == user && seat.since < seq)
        {
            state.tell_removed(at);
        }
    }

    /// One session's user is in the chat no more, as the store showed after the session was seated.
    pub(crate) fn expel(&self, handle: &Arc<Handle>) {
        let mut state = self.state.lock();
        if let Some(at) = state.seat(handle) {
            state.tell_removed(at);
        }
    }

    /// A session that was to be told of its user's removal has waited long enough. False when it was told.
    pub(crate) fn stop_waiting(&self, handle: &Arc<Handle>) -> bool {
        let mut state = self.state.lock();
        let leaving = |seat: &Seat| {
            Arc::ptr_eq(&seat.handle, handle) && matches!(seat.state, SeatState::Leaving { .. })
        };
        let waits = state.seats.iter().position(leaving);
        waits.into_iter().for_each(|at| state.tell_removed(at));
        waits.is_some()
    }

    /// A session has ended.
    pub(super) fn leave(&self, handle: &Arc<Handle>) -> Effects {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        if let Some(at) = state.seat(handle) {
            effects.gone.push(state.seats.swap_remove(at));
            state.seats_changed();
        }
        drop(state);
        effects
    }
}
