//! What is under a room's lock: how far the chat was shown, what waits for an earlier change, and to whom the next one is shown.

use std::{collections::BTreeMap, sync::Arc};

use common::{
    ids::{Number, Seq},
    wire::{client::ServerFrame, record::What},
};

use super::{Effects, behind::Behind, company::Company};
use crate::{
    deliver::Event,
    hub::{
        Handle,
        fanout::{Listener, Say},
        marks_told::MarksTold,
        seat::{Seat, SeatState},
    },
};

/// Changes that may wait for an earlier one: five seconds of a chat that speaks 200 times a second. Later ones are dropped, and fetched
/// when the hole is mended.
const EARLY: usize = 1_024;
/// Bytes of theirs: 1 KiB each.
const EARLY_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Everything up to here was shown. None: nobody has said where the chat is.
    pub(super) have: Option<Seq>,
    /// The newest change heard of. Past `have` while something is missing.
    pub(super) known: Seq,
    early: BTreeMap<Seq, Event>,
    early_bytes: usize,
    /// The newest change by which somebody left, or may have: a membership read before it proves nothing.
    pub(super) last_left: Seq,
    pub(super) repair: Repair,
    /// Repairs that came to something.
    pub(super) repaired: u64,
    /// Whether it is looked at soon how long something has been missing.
    pub(super) timed: bool,
    /// Everything up to here was given to those who write it, and everything up to there was written.
    pub(super) taken: Seq,
    pub(super) said: Seq,
    /// The chat was deleted.
    pub(super) over: bool,
    /// The newest message that was shown since the room was opened.
    pub(super) number: Number,
    pub(super) marks_told: MarksTold,
    pub(super) seats: Vec<Seat>,
    pub(super) company: Company,
    pub(super) say: Say,
    #[cfg(feature = "planted")]
    pub(super) planted: common::planted::Planted,
}

/// Whether somebody is fetching what the room misses. There is one at most.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    #[default]
    Idle,
    Queued,
    Running {
        /// Something may have been lost since the owner was asked.
        again: bool,
    },
}

impl State {
    /// Who is shown what, and who is there, is looked up anew.
    pub(super) fn seats_changed(&mut self) {
        self.say.seats_changed();
        self.company.seats_changed();
    }

    pub(super) fn seat(&self, handle: &Arc<Handle>) -> Option<usize> {
        self.seats.iter().position(|seat| Arc::ptr_eq(&seat.handle, handle))
    }

    pub(super) fn heard(&self) -> Seq {
        self.have.unwrap_or(0).max(self.known)
    }

    pub(super) fn is_behind(&self, behind: Behind) -> bool {
        !self.over && !self.seats.is_empty() && (behind.repaired.is_some() || !self.shown(behind.seq))
    }

    fn shown(&self, seq: Seq) -> bool {
        self.have.is_some_and(|have| have >= seq) && (self.said >= seq || self.say.is_idle())
    }

    pub(super) fn missing(&self) -> bool {
        self.have.is_some_and(|have| have < self.known)
    }

    /// Where the room is; `seen` when that was not known.
    pub(super) fn place(&mut self, seen: Seq) -> Seq {
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

    pub(super) fn suspect(&mut self) -> bool {
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

    pub(super) fn keep_early(&mut self, event: Event) {
        let fits = self.early.len() < EARLY && self.early_bytes + event.bytes() <= EARLY_BYTES;
        if fits && !self.early.contains_key(&event.seq()) {
            self.early_bytes += event.bytes();
            self.early.insert(event.seq(), event);
        }
    }

    /// Shows what waited for the change that was shown last.
    pub(super) fn advance(&mut self, effects: &mut Effects) {
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

    pub(super) fn mind_the_gap(&mut self, effects: &mut Effects) {
        // What waits only until others are written is not missing.
        let missing = self.missing() && !self.say.is_full();
        if missing && self.repair == Repair::Idle && !self.seats.is_empty() && !self.over {
            self.repair = Repair::Queued;
            effects.repair = true;
            effects.time = !std::mem::replace(&mut self.timed, true);
        }
    }

    /// The next change.
    pub(super) fn show(&mut self, mut event: Event, effects: &mut Effects) {
        let seq = event.seq();
        self.have = Some(seq);
        effects.grew |= self.company.show(&event);
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
    pub(super) fn tell_removed(&mut self, at: usize) {
        if at >= self.seats.len() {
            return;
        }
        let seat = self.seats.swap_remove(at);
        self.seats_changed();
        seat.tell(&ServerFrame::ChatRemoved { chat: seat.chat() }, &mut self.say);
        self.say.then_nothing(seat);
    }
}
