//! What a room misses, or may have missed: that it is fetched, and when it is there.

use common::{ids::Seq, wire::client::ServerFrame};

use super::{
    Effects, Room,
    state::{Repair, State},
};
use crate::hub::seat::SeatState;

/// How far a room is behind what it had heard, or may have missed, when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    /// Repairs that must have come to something first; what they find is to be shown as well.
    pub(super) repaired: Option<u64>,
    pub(super) seq: Seq,
}

impl Room {
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
