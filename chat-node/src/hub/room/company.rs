//! Who is in a room, for presence and typing: to whom one member's coming and going is told, and how many of a large group are there.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    ids::{ChatKey, NodeId, Seq, UserId},
    store::Pair,
    wire::{client::ServerFrame, record::What},
};

use super::{Room, SeatState, State};
use crate::{
    deliver::Event,
    hub::Handle,
    socket::frame::{Frames, framed},
};

/// Nodes whose heads are counted: more than a cluster has.
const NODES: usize = 1_024;

/// How many members there are, and how many of them are connected.
#[derive(Debug, Default)]
pub(super) struct Company {
    members: u64,
    /// The change up to which `members` was counted.
    upto: Seq,
    /// Seats have changed since the sessions were told a count.
    changed: bool,
    told: Option<u64>,
    said: Option<(u32, Instant)>,
    /// Another node has come, and asks.
    asked: bool,
    others: HashMap<NodeId, (u32, Instant)>,
}

impl Company {
    /// The store counted so many members, up to a change. True when they are more than was known.
    pub(super) fn counted(&mut self, members: u64, upto: Seq) -> bool {
        let grew = upto >= self.upto && members > self.members;
        if upto >= self.upto {
            (self.members, self.upto) = (members, upto);
        }
        grew
    }

    /// The next change. True when there are more members than before.
    pub(super) fn show(&mut self, event: &Event) -> bool {
        if event.seq() <= self.upto {
            return false;
        }
        self.upto = event.seq();
        let before = self.members;
        self.members = match event.what() {
            What::Created { members, .. } | What::Members { members } => {
                self.members.saturating_add(members.len() as u64)
            }
            What::Joined { .. } => self.members.saturating_add(1),
            What::Left { .. } => self.members.saturating_sub(1),
            _ => self.members,
        };
        self.members > before
    }

    pub(super) fn seats_changed(&mut self) {
        self.changed = true;
    }
}

/// What one node says of its heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) users: u32,
    /// Nobody has said theirs yet.
    pub(crate) ask: bool,
}

impl Room {
    /// How many members the chat has, as far as is known here.
    pub(crate) fn members(&self) -> u64 {
        self.state.lock().company.members
    }

    /// Does something with the sessions of everybody but `user` that are certain to be members', under the room's lock.
    pub(crate) fn company_of(&self, user: UserId, mut each: impl FnMut(&Arc<Handle>)) {
        let state = self.state.lock();
        if state.over {
            return;
        }
        let live = state.seats.iter().filter(|seat| matches!(seat.state, SeatState::Live));
        live.map(|seat| &seat.handle).filter(|handle| handle.user.user != user).for_each(&mut each);
    }

    /// The two whose direct chat this is, when `user` is one of them and the other has a session here.
    pub(crate) fn pair_with(&self, user: UserId) -> Option<Pair> {
        let state = self.state.lock();
        if state.company.members > 2 {
            return None;
        }
        let other = state.seats.iter().map(|seat| seat.handle.user.user).find(|other| *other != user)?;
        drop(state);
        let ChatKey { app, chat } = self.key;
        let pair = Pair::new(app, user, other);
        // A hash of the two is the chat's id: of a group it is not, whoever is in it.
        (pair.chat() == chat).then_some(pair)
    }

    /// Whether a session is certain to be a member's.
    pub(crate) fn is_members(&self, handle: &Arc<Handle>) -> bool {
        let state = self.state.lock();
        let seat = state.seat(handle).and_then(|at| state.seats.get(at));
        seat.is_some_and(|seat| matches!(seat.state, SeatState::Live))
    }

    /// A member writes, or no longer does: told to the others' sessions, where it may be left out.
    pub(crate) fn typing(&self, user: UserId, on: bool) {
        let frame = ServerFrame::Typing { chat: self.key.chat, user, on };
        self.state.lock().offer(&frame, |handle| handle.user.user != user);
    }

    /// Another node serves so many of the members.
    pub(crate) fn heard_heads(&self, node: NodeId, heads: Heads, now: Instant) {
        let mut state = self.state.lock();
        let company = &mut state.company;
        company.asked |= heads.ask;
        if company.others.len() < NODES || company.others.contains_key(&node) {
            company.others.insert(node, (heads.users, now));
        }
    }

    /// The chat is one in which each member is told of: if it grows again, all are told again how many are there.
    pub(crate) fn count_no_more(&self) {
        let mut state = self.state.lock();
        (state.company.told, state.company.said) = (None, None);
    }

    /// Counts who is there, and tells the sessions when it has changed. What the other nodes are to be told: when it is news, when one of them
    /// asks, and each `again`. What a node said `lapse` ago counts no more.
    pub(crate) fn count_heads(&self, now: Instant, again: Duration, lapse: Duration) -> Option<Heads> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.over {
            return None;
        }
        let company = &mut state.company;
        let users = match company.said {
            Some((users, _)) if !company.changed => users,
            _ => {
                let live = state.seats.iter().filter(|seat| matches!(seat.state, SeatState::Live));
                let mut users: Vec<UserId> = live.map(|seat| seat.handle.user.user).collect();
                users.sort_unstable();
                users.dedup();
                u32::try_from(users.len()).unwrap_or(u32::MAX)
            }
        };
        company.others.retain(|_, (_, at)| now.saturating_duration_since(*at) < lapse);
        let elsewhere: u64 = company.others.values().map(|(users, _)| u64::from(*users)).sum();
        let online = elsewhere + u64::from(users);
        let news = company.changed || company.told != Some(online);
        let said = company.said;
        let asked = std::mem::take(&mut company.asked);
        let say = asked
            || said.is_none_or(|(before, at)| before != users || now.saturating_duration_since(at) >= again);
        company.said = if say { Some((users, now)) } else { said };
        (company.told, company.changed) = (Some(online), false);
        if news {
            state.offer(&ServerFrame::PresenceCount { chat: self.key.chat, online }, |_| true);
        }
        say.then_some(Heads { users, ask: said.is_none() })
    }
}

impl State {
    /// Something that may be left out, to those sessions that are certain to be members'.
    pub(super) fn offer(&mut self, frame: &ServerFrame, whom: impl Fn(&Handle) -> bool) {
        if self.over {
            return;
        }
        let mut frames = Frames::default();
        for seat in &self.seats {
            if matches!(seat.state, SeatState::Live) && whom(&seat.handle) {
                let format = seat.handle.outbox.format();
                self.say.offer(&seat.handle, frames.get(format, || framed(frame, format)));
            }
        }
    }
}
