//! One chat on this node: which sessions are shown it, and how far.
//!
//! A room takes changes from everywhere (the dispatchers, an owner on this node, a repair), in any order and any number of times, and
//! shows each to its seats once, in the order of `seq`, without a hole. Pure: it names what is to be done ([`Effects`]), and puts down what
//! is to be said ([`Say`]), which is written afterwards, in that order.
//!
//! A **seat** is a session in a room. It is shown changes after its `since`. While it is not certain that its user is a member at the
//! room's place it is **pending**: what it would be shown is held, until the store has been read far enough ([`Room::settle`]).

mod company;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{
    ids::{ChatKey, Number, Seq, SocketId, UserId},
    store::Membership,
    wire::{client::ServerFrame, record::What},
};
use parking_lot::Mutex;

use self::company::Company;
pub(crate) use self::company::Heads;
use super::{
    Handle, Hold,
    fanout::{Fanout, Listener, Say, Saying},
    marks_told::MarksTold,
    seat::{Pending, Seat, SeatState, Settled, Why},
};
use crate::{deliver::Event, socket::frame::framed};

/// Changes that may wait for an earlier one: five seconds of a chat that speaks 200 times a second. Later ones are dropped, and fetched
/// when the hole is mended.
const EARLY: usize = 1_024;
/// Bytes of theirs: 1 KiB each.
const EARLY_BYTES: usize = 1024 * 1024;

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

#[derive(Debug, Default)]
struct State {
    /// Everything up to here was shown. None: nobody has said where the chat is.
    have: Option<Seq>,
    /// The newest change heard of. Past `have` while something is missing.
    known: Seq,
    early: BTreeMap<Seq, Event>,
    early_bytes: usize,
    /// The newest change by which somebody left, or may have: a membership read before it proves nothing.
    last_left: Seq,
    repair: Repair,
    /// Repairs that came to something.
    repaired: u64,
    /// Whether it is looked at soon how long something has been missing.
    timed: bool,
    /// Everything up to here was given to those who write it, and everything up to there was written.
    taken: Seq,
    said: Seq,
    /// The chat was deleted.
    over: bool,
    /// The newest message that was shown since the room was opened.
    number: Number,
    marks_told: MarksTold,
    seats: Vec<Seat>,
    company: Company,
    say: Say,
    #[cfg(feature = "planted")]
    planted: common::planted::Planted,
}

/// Whether somebody is fetching what the room misses. There is one at most.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Repair {
    #[default]
    Idle,
    Queued,
    Running {
        /// Something may have been lost since the owner was asked.
        again: bool,
    },
}

/// What a session was shown of a chat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// Its user is a member since this change, or longer: what was before is not theirs to see.
    pub(crate) joined: Seq,
    /// The newest change.
    pub(crate) upto: Seq,
}

/// How far a room is behind what it had heard, or may have missed, when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    /// Repairs that must have come to something first; what they find is to be shown as well.
    repaired: Option<u64>,
    seq: Seq,
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
        state.company.counted(membership.members, head);
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
            state.company.counted(chat.members_count, seen);
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

    /// Something may have been missed. True when a repair is to be queued.
    pub(crate) fn suspect(&self) -> bool {
        self.state.lock().suspect()
    }

    /// A queued repair begins: changes after this one are wanted. None when nobody is there any more.
    pub(crate) fn begin_repair(&self) -> Option<Seq> {
        let mut state = self.state.lock();
        let have = state.have.filter(|_| !state.seats.is_empty() && !state.over);
        state.repair = if have.is_some() { Repair::Running { again: false } } else { Repair::Idle };
        have
    }

    /// A repair has ended, whatever came of it; `retry` when nothing did. True when another is to be queued.
    pub(crate) fn end_repair(&self, retry: bool) -> bool {
        let mut state = self.state.lock();
        // One that did not begin, as nobody was there, says nothing of one that was queued since.
        let Repair::Running { again } = state.repair else { return false };
        state.repaired += u64::from(!retry);
        let again = retry || again || state.missing();
        let again = again && !state.seats.is_empty() && !state.over;
        state.repair = if again { Repair::Queued } else { Repair::Idle };
        again
    }

    /// The chat is as far as this: what is missing up to there is to be fetched.
    pub(crate) fn told(&self, seq: Seq) -> Effects {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        if !state.over {
            state.known = state.known.max(seq);
            state.mind_the_gap(&mut effects);
        }
        drop(state);
        effects
    }

    /// Something has been missing for a while: sessions hear that their view is not whole, so that they need not wait for an owner that is
    /// away. What is missing is shown all the same when it is there, and nothing after it before that.
    pub(crate) fn overdue(&self) {
        let mut state = self.state.lock();
        state.timed = false;
        if !state.missing() || state.over {
            return;
        }
        let State { say, seats, .. } = &mut *state;
        let frame = ServerFrame::ChatReload { chat: self.key.chat };
        let live = seats.iter().filter(|seat| matches!(seat.state, SeatState::Live));
        live.for_each(|seat| seat.tell(&frame, say));
    }

    /// What its sessions must be shown until they have everything that was published before now; none when they were.
    pub(crate) fn behind(&self) -> Option<Behind> {
        let state = self.state.lock();
        let repaired = match state.repair {
            Repair::Idle => None,
            Repair::Queued | Repair::Running { again: false } => Some(state.repaired + 1),
            Repair::Running { again: true } => Some(state.repaired + 2),
        };
        let behind = Behind { repaired, seq: state.heard() };
        state.is_behind(behind).then_some(behind)
    }

    /// Whether its sessions still are behind.
    pub(crate) fn is_behind(&self, behind: &mut Behind) -> bool {
        let state = self.state.lock();
        if behind.repaired.is_some_and(|repaired| state.repaired >= repaired) {
            *behind = Behind { repaired: None, seq: state.heard() };
        }
        state.is_behind(*behind)
    }

    /// The chat's owner says how far it is; gives how far the room is, and the newest change that it has heard of.
    pub(crate) fn heard(&self, head: Seq) -> (Seq, Seq) {
        let mut state = self.state.lock();
        state.known = state.known.max(head);
        (state.have.unwrap_or(0), state.known)
    }

    /// What the room misses cannot be had any more: its sessions begin anew at `head`, once it is certain whose they still are.
    pub(crate) fn reload(&self, head: Seq) -> Effects {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        let have = state.have.map_or(head, |have| have.max(head));
        state.have = Some(have);
        state.known = state.known.max(have);
        // Whoever left in between is not known.
        state.last_left = state.last_left.max(have);
        state.seats_changed();
        for seat in &mut state.seats {
            seat.reload(have, &mut effects);
        }
        state.advance(&mut effects);
        drop(state);
        effects
    }
}

/// Saying what is to be said.
impl Room {
    /// What is to be said, for the caller to write; none when there is nothing, or somebody does already.
    pub(crate) fn begin_fanout(&self) -> Option<Fanout> {
        let mut state = self.state.lock();
        let fanout = state.say.begin();
        if fanout.is_some() {
            state.taken = state.have.unwrap_or(0);
        }
        fanout
    }

    /// Everything was said: what has come meanwhile. Nothing ends it.
    pub(super) fn more_to_say(&self) -> (Saying, Effects) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        state.said = state.taken;
        let mut more = state.say.more();
        // Before what waited is put behind it: that is not taken yet, and must not count as said with this.
        state.taken = state.have.unwrap_or(0);
        // Events may have had to wait until others were written.
        state.advance(&mut effects);
        state.mind_the_gap(&mut effects);
        if more.is_empty() {
            more = state.say.more();
            state.taken = state.have.unwrap_or(0);
        }
        drop(state);
        (more, effects)
    }
}

impl State {
    /// Who is shown what, and who is there, is looked up anew.
    fn seats_changed(&mut self) {
        self.say.seats_changed();
        self.company.seats_changed();
    }

    fn seat(&self, handle: &Arc<Handle>) -> Option<usize> {
        self.seats.iter().position(|seat| Arc::ptr_eq(&seat.handle, handle))
    }

    fn heard(&self) -> Seq {
        self.have.unwrap_or(0).max(self.known)
    }

    fn is_behind(&self, behind: Behind) -> bool {
        !self.over && !self.seats.is_empty() && (behind.repaired.is_some() || !self.shown(behind.seq))
    }

    fn shown(&self, seq: Seq) -> bool {
        self.have.is_some_and(|have| have >= seq) && (self.said >= seq || self.say.is_idle())
    }

    fn missing(&self) -> bool {
        self.have.is_some_and(|have| have < self.known)
    }

    /// Where the room is; `seen` when that was not known.
    fn place(&mut self, seen: Seq) -> Seq {
        if let Some(have) = self.have {
            return have;
        }
        self.have = Some(seen);
        // Who left before is not known.
        self.last_left = self.last_left.max(seen);
        for pending in self.seats.iter_mut().filter_map(Seat::pending_mut) {
            pending.base.get_or_insert(seen);
        }
        seen
    }

    fn suspect(&mut self) -> bool {
        match self.repair {
            Repair::Idle if self.have.is_some() && !self.over => {
                self.repair = Repair::Queued;
                true
            }
            Repair::Idle | Repair::Queued => false,
            Repair::Running { .. } => {
                self.repair = Repair::Running { again: true };
                false
            }
        }
    }

    fn keep_early(&mut self, event: Event) {
        let fits = self.early.len() < EARLY && self.early_bytes + event.bytes() <= EARLY_BYTES;
        if fits && !self.early.contains_key(&event.seq()) {
            self.early_bytes += event.bytes();
            self.early.insert(event.seq(), event);
        }
    }

    /// Shows what waited for the change that was shown last.
    fn advance(&mut self, effects: &mut Effects) {
        while let (Some(have), Some(entry)) = (self.have, self.early.first_entry()) {
            let seq = *entry.key();
            if seq > have + 1 || self.say.is_full() {
                return;
            }
            let event = entry.remove();
            self.early_bytes -= event.bytes();
            if seq == have + 1 {
                self.show(event, effects);
            }
        }
    }

    fn mind_the_gap(&mut self, effects: &mut Effects) {
        // What waits only until others are written is not missing.
        let missing = self.missing() && !self.say.is_full();
        if missing && self.repair == Repair::Idle && !self.seats.is_empty() && !self.over {
            self.repair = Repair::Queued;
            effects.repair = true;
            effects.time = !std::mem::replace(&mut self.timed, true);
        }
    }

    /// The next change.
    fn show(&mut self, mut event: Event, effects: &mut Effects) {
        let seq = event.seq();
        self.have = Some(seq);
        self.company.show(&event);
        if let What::Sent { number, .. } = event.what() {
            self.number = *number;
        }
        if let What::Left { user, .. } = *event.what() {
            self.last_left = seq;
            for seat in self.seats.iter_mut().filter(|seat| seat.handle.user.user == user) {
                #[cfg(feature = "planted")]
                if self.planted.is(common::planted::Bug::DeliverToRemoved) {
                    continue;
                }
                seat.left(seq, effects);
                self.say.seats_changed();
                self.company.seats_changed();
            }
        }
        for seat in &mut self.seats {
            if let SeatState::Pending(pending) = &mut seat.state {
                pending.hold(&mut event, &seat.handle);
            }
        }
        let deleted = matches!(event.what(), What::Deleted);
        let seats = &self.seats;
        let listeners = || {
            let live = seats.iter().filter(|seat| matches!(seat.state, SeatState::Live));
            live.map(|seat| Listener { handle: Arc::clone(&seat.handle), since: seat.shown_after() })
                .collect()
        };
        #[cfg(feature = "planted")]
        if seq.is_multiple_of(7) && self.planted.is(common::planted::Bug::SkipASeq) {
            return;
        }
        #[cfg(feature = "planted")]
        if seq.is_multiple_of(7) && self.planted.is(common::planted::Bug::DeliverARepeat) {
            self.say.event(event.clone(), listeners);
        }
        self.say.event(event, listeners);
        if deleted {
            self.end();
        }
    }

    /// The chat was deleted, and who is live was told.
    fn end(&mut self) {
        self.over = true;
        self.early = BTreeMap::new();
        self.early_bytes = 0;
        self.say.seats_changed();
        for seat in std::mem::take(&mut self.seats) {
            if !matches!(seat.state, SeatState::Live) {
                seat.tell(&ServerFrame::ChatRemoved { chat: seat.chat() }, &mut self.say);
            }
            self.say.then_nothing(seat);
        }
    }

    /// Ends a seat and says so to its client. Who was not told of the chat yet may have seen it in the list of its chats.
    fn tell_removed(&mut self, at: usize) {
        if at >= self.seats.len() {
            return;
        }
        let seat = self.seats.swap_remove(at);
        self.seats_changed();
        seat.tell(&ServerFrame::ChatRemoved { chat: seat.chat() }, &mut self.say);
        self.say.then_nothing(seat);
    }
}
