//! What a link has received and its one reader has not taken.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Discarded, Event, PeerId, Refusal, core::Core};

/// A bounded queue with one writer (the link's task) and one reader ([`Events`]). Full, it makes the task stop reading, and QUIC's flow
/// control stops the peer. What is no frame takes no room: such events follow each other only in short runs (see [`Inbox::up`]).
pub(super) struct Inbox {
    state: Mutex<State>,
    /// The reader waits here.
    filled: Notify,
    /// The task waits here.
    emptied: Notify,
    max_frames: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Event>,
    frames: usize,
    bytes: usize,
    /// The last event is in.
    finished: bool,
    /// The task waits for room.
    waiting: bool,
}

impl Inbox {
    pub(super) fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), emptied: Notify::new(), max_frames, max_bytes }
    }

    /// Waits until a frame may be pushed. Dropping the future is safe.
    pub(super) async fn room(&self) {
        loop {
            {
                let mut state = self.state.lock();
                state.waiting = state.frames >= self.max_frames || state.bytes >= self.max_bytes;
                if !state.waiting {
                    return;
                }
            }
            self.emptied.notified().await;
        }
    }

    /// Adds a frame, after [`Self::room`].
    pub(super) fn frame(&self, payload: Bytes) {
        let mut state = self.state.lock();
        if state.finished {
            return;
        }
        state.frames += 1;
        state.bytes += payload.len();
        state.queue.push_back(Event::Frame(payload));
        drop(state);
        self.filled.notify_one();
    }

    /// Adds a gap, or makes the one at the end longer.
    pub(super) fn gap(&self, first: u64, last: u64) {
        self.control(|queue| match queue.back_mut() {
            Some(Event::Gap { missing }) if missing.end().saturating_add(1) == first => {
                *missing = *missing.start()..=last;
            }
            _ => queue.push_back(Event::Gap { missing: first..=last }),
        });
    }

    /// A connection is there. Two fresh starts with nothing between them become one.
    pub(super) fn up(&self, peer: Arc<PeerId>, fresh: bool, mut discarded: Option<Discarded>) {
        self.control(|queue| {
            let mut fresh = fresh;
            if matches!(queue.back(), Some(Event::Refused(_))) {
                queue.pop_back();
            }
            if let [.., Event::Up { .. }, Event::Down] = queue.make_contiguous() {
                queue.pop_back();
                if let Some(Event::Up { fresh: earlier, discarded: before, .. }) = queue.pop_back() {
                    fresh |= earlier;
                    discarded = merge(before, discarded);
                }
            }
            queue.push_back(Event::Up { peer, fresh, discarded });
        });
    }

    /// The connection is gone. An `up` that nobody has read yet, and that said nothing new, goes with it.
    pub(super) fn down(&self) {
        self.control(|queue| {
            if matches!(queue.back(), Some(Event::Up { fresh: false, .. })) {
                queue.pop_back();
            } else {
                queue.push_back(Event::Down);
            }
        });
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.control(|queue| {
            if matches!(queue.back(), Some(Event::Refused(_))) {
                queue.pop_back();
            }
            queue.push_back(Event::Refused(refusal));
        });
    }

    /// The last event; what comes after it is dropped.
    pub(super) fn finish(&self) {
        self.control(|queue| queue.push_back(Event::Closed));
        self.state.lock().finished = true;
    }

    fn control(&self, add: impl FnOnce(&mut VecDeque<Event>)) {
        let mut state = self.state.lock();
        if state.finished {
            return;
        }
        add(&mut state.queue);
        drop(state);
        self.filled.notify_one();
    }

    /// Takes up to `limit` events; empty when there are none.
    fn take(&self, limit: usize, into: &mut Vec<Event>) -> Taken {
        let mut state = self.state.lock();
        let before = into.len();
        while into.len() - before < limit {
            let Some(event) = state.queue.pop_front() else { break };
            if let Event::Frame(payload) = &event {
                state.frames -= 1;
                state.bytes -= payload.len();
            }
            into.push(event);
        }
        // Half empty, not one short of full: or task and reader would wake each other for every frame.
        if state.waiting && state.frames <= self.max_frames / 2 && state.bytes <= self.max_bytes / 2 {
            state.waiting = false;
            self.emptied.notify_one();
        }
        match into.len() - before {
            0 if state.finished => Taken::Ended,
            0 => Taken::Nothing,
            _ => Taken::Some,
        }
    }
}

enum Taken {
    Some,
    Nothing,
    Ended,
}

fn merge(before: Option<Discarded>, after: Option<Discarded>) -> Option<Discarded> {
    match (before, after) {
        (Some(before), Some(after)) => Some(Discarded { first: before.first, ..after }),
        (before, after) => after.or(before),
    }
}

/// The events of one link, for one reader. Dropping it closes the link: nobody would read any more.
pub struct Events {
    core: Arc<Core>,
    one: Vec<Event>,
}

impl Events {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, one: Vec::with_capacity(1) }
    }

    /// The next event; `None` after [`Event::Closed`]. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        let mut one = mem::take(&mut self.one);
        self.recv_many(&mut one, 1).await;
        let event = one.pop();
        self.one = one;
        event
    }

    /// Appends what is there, up to `limit` events, and waits for the first. Returns how many; 0 after [`Event::Closed`] (or with a limit
    /// of 0). Dropping the future loses nothing.
    pub async fn recv_many(&mut self, into: &mut Vec<Event>, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        let before = into.len();
        loop {
            match self.core.inbox.take(limit, into) {
                Taken::Some => return into.len() - before,
                Taken::Ended => return 0,
                Taken::Nothing => self.core.inbox.filled.notified().await,
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.core.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::Incarnation,
        link::{FrameNo, Name, Role},
    };

    fn peer() -> Arc<PeerId> {
        Arc::new(PeerId { role: Role::Node, name: Name::new("n").unwrap(), incarnation: Incarnation(1) })
    }

    fn events(inbox: &Inbox) -> Vec<Event> {
        let mut events = Vec::new();
        inbox.take(100, &mut events);
        events
    }

    fn up(fresh: bool, discarded: Option<Discarded>) -> Event {
        Event::Up { peer: peer(), fresh, discarded }
    }

    #[test]
    fn a_connection_that_came_and_went_unread_leaves_no_trace() {
        let inbox = Inbox::new(10, 100);
        inbox.up(peer(), true, None);
        inbox.frame(Bytes::from_static(b"x"));
        inbox.down();
        for _ in 0..5 {
            inbox.up(peer(), false, None);
            inbox.down();
        }
        let frame = Event::Frame(Bytes::from_static(b"x"));
        assert_eq!(events(&inbox), [up(true, None), frame, Event::Down]);
    }

    #[test]
    fn unread_fresh_starts_become_one_and_name_everything_discarded() {
        let inbox = Inbox::new(10, 100);
        let lost =
            |first, last| Discarded { first: FrameNo(first), last: FrameNo(last), sent_upto: FrameNo(last) };
        for n in 0..5 {
            inbox.up(peer(), true, Some(lost(n * 10 + 1, n * 10 + 5)));
            inbox.down();
        }
        inbox.up(peer(), false, None);
        assert_eq!(events(&inbox), [up(true, Some(lost(1, 45)))]);
    }

    #[tokio::test]
    async fn a_full_inbox_has_room_again_when_it_is_half_empty() {
        use futures_util::FutureExt as _;

        let inbox = Inbox::new(4, 1_000);
        for _ in 0..4 {
            inbox.room().await;
            inbox.frame(Bytes::from_static(b"x"));
        }
        assert!(inbox.room().now_or_never().is_none());
        let mut taken = Vec::new();
        inbox.take(2, &mut taken);
        inbox.room().await;
        inbox.finish();
        inbox.frame(Bytes::new());
        assert_eq!(events(&inbox).last(), Some(&Event::Closed));
        assert!(matches!(inbox.take(1, &mut taken), Taken::Ended));
    }
}
