//! What a device has written and the cluster has not acknowledged. Pure: time comes in, what to send comes out.
//!
//! A lane per chat, first in, first out. Up to a window of a lane's messages are under way at once. When one of them meets trouble
//! that may pass (`retry_later`, `unknown`, a broken connection) the lane *recovers*: its oldest message goes again, alone, with
//! `retry: true`, and so on until none is left that was sent before; then the window opens again. So what the user wrote first
//! is never overtaken by what this device sends later.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use common::{
    ids::{ChatId, ClientId},
    wire::client::Ref,
};

/// One message on its way. `T` is whatever the writer wants back with the outcome.
#[derive(Debug)]
pub(crate) struct Item<T> {
    /// Its name.
    pub(crate) client_id: ClientId,
    /// Its text.
    pub(crate) body: String,
    /// The order in which the user wrote it; rises in the outbox.
    pub(crate) order: u64,
    /// The writer's own.
    pub(crate) tag: T,
    tries: u32,
    under_way: bool,
}

impl<T> Item<T> {
    /// A message that was never sent. `again` when it may have been, by another device or an earlier life.
    pub(crate) fn new(client_id: ClientId, body: String, order: u64, again: bool, tag: T) -> Self {
        Self { client_id, body, order, tag, tries: u32::from(again), under_way: false }
    }

    /// How often it was handed to a socket.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<Item<T>>,
    under_way: usize,
    recovering: bool,
    /// In `ready` already.
    queued: bool,
    /// Nothing goes before this.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Flight {
    chat: ChatId,
    order: u64,
    since: Instant,
}

/// See the module. Holds as many messages as its device admits (see `Options::outbox`).
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    window: usize,
    pending_limit: usize,
    lanes: HashMap<ChatId, Lane<T>>,
    ready: VecDeque<ChatId>,
    asleep: BinaryHeap<Reverse<(Instant, ChatId)>>,
    flights: BTreeMap<Ref, Flight>,
}

impl<T> Outbox<T> {
    /// At most `window` messages of a chat under way at once.
    pub(crate) fn new(window: usize) -> Self {
        Self {
            window: window.max(1),
            pending_limit: 1,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            asleep: BinaryHeap::new(),
            flights: BTreeMap::new(),
        }
    }

    /// How many requests the node takes from one socket at once.
    pub(crate) fn limit(&mut self, pending: usize) {
        self.pending_limit = pending.max(1);
    }

    /// Takes a message in.
    pub(crate) fn push(&mut self, chat: ChatId, item: Item<T>) {
        let lane = self.lanes.entry(chat).or_insert_with(|| Lane {
            items: VecDeque::new(),
            under_way: 0,
            recovering: false,
            queued: false,
            not_before: None,
        });
        lane.recovering |= item.tries > 0;
        lane.items.push_back(item);
        Self::queue(&mut self.ready, chat, lane);
    }

    /// The next message to hand to the socket under the mark `ref_`, if any may go now.
    pub(crate) fn next(&mut self, ref_: Ref, now: Instant) -> Option<(ChatId, &Item<T>)> {
        while let Some(Reverse((at, chat))) = self.asleep.peek().copied() {
            if at > now {
                break;
            }
            self.asleep.pop();
            if let Some(lane) = self.lanes.get_mut(&chat) {
                Self::queue(&mut self.ready, chat, lane);
            }
        }
        if self.flights.len() >= self.pending_limit {
            return None;
        }
        let (chat, at) = loop {
            let chat = self.ready.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&chat) else { continue };
            lane.queued = false;
            if let Some(until) = lane.not_before.filter(|until| *until > now) {
                self.asleep.push(Reverse((until, chat)));
                continue;
            }
            if let Some(at) = lane.pick(self.window) {
                break (chat, at);
            }
        };
        let lane = self.lanes.get_mut(&chat)?;
        lane.not_before = None;
        lane.under_way += 1;
        let item = lane.items.get_mut(at)?;
        item.tries += 1;
        item.under_way = true;
        self.flights.insert(ref_, Flight { chat, order: item.order, since: now });
        // The lane may have more to send: it stands in line again, behind the others.
        if !lane.recovering {
            Self::queue(&mut self.ready, chat, lane);
        }
        self.lanes.get(&chat).and_then(|lane| lane.items.get(at)).map(|item| (chat, item))
    }

    /// The send under this mark has its final answer.
    pub(crate) fn done(&mut self, ref_: Ref) -> Option<(ChatId, Item<T>)> {
        let flight = self.flights.remove(&ref_)?;
        let lane = self.lanes.get_mut(&flight.chat)?;
        let at = lane.position(flight.order)?;
        let item = lane.items.remove(at)?;
        lane.under_way -= 1;
        if lane.items.is_empty() {
            self.lanes.remove(&flight.chat);
        } else {
            Self::queue(&mut self.ready, flight.chat, lane);
        }
        Some((flight.chat, item))
    }

    /// The send under this mark is to be tried again, `after` a while; `after` is told how often it was tried.
    pub(crate) fn again(
        &mut self,
        ref_: Ref,
        now: Instant,
        after: impl FnOnce(u32) -> Duration,
    ) -> Option<(ChatId, &Item<T>)> {
        let flight = self.flights.remove(&ref_)?;
        let lane = self.lanes.get_mut(&flight.chat)?;
        let at = lane.position(flight.order)?;
        lane.under_way -= 1;
        lane.recovering = true;
        let item = lane.items.get_mut(at)?;
        item.under_way = false;
        let until = now + after(item.tries);
        lane.not_before = lane.not_before.max(Some(until));
        Self::queue(&mut self.ready, flight.chat, lane);
        self.lanes.get(&flight.chat).and_then(|lane| lane.items.get(at)).map(|item| (flight.chat, item))
    }

    /// The connection is gone: whatever was under way goes again on the next one.
    pub(crate) fn lost(&mut self) {
        self.flights.clear();
        for (chat, lane) in &mut self.lanes {
            lane.under_way = 0;
            for item in &mut lane.items {
                item.under_way = false;
                lane.recovering |= item.tries > 0;
            }
            Self::queue(&mut self.ready, *chat, lane);
        }
    }

    /// Since when the longest unanswered send is under way.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.flights.first_key_value().map(|(_, flight)| flight.since)
    }

    /// When a lane that waits wants to be looked at.
    pub(crate) fn wake(&self) -> Option<Instant> {
        self.asleep.peek().map(|Reverse((at, _))| *at)
    }

    fn queue(ready: &mut VecDeque<ChatId>, chat: ChatId, lane: &mut Lane<T>) {
        if !lane.queued {
            lane.queued = true;
            ready.push_back(chat);
        }
    }
}

impl<T> Lane<T> {
    /// Which item may go now.
    fn pick(&mut self, window: usize) -> Option<usize> {
        if self.recovering {
            let front = self.items.front()?;
            if front.under_way {
                return None;
            }
            if front.tries > 0 {
                return Some(0);
            }
            // Whatever was sent before is acknowledged: the rest was never sent.
            self.recovering = self.items.iter().any(|item| item.tries > 0);
        }
        // Outside of recovery the first `under_way` items are those under way.
        (self.under_way < window && self.under_way < self.items.len()).then_some(self.under_way)
    }

    fn position(&self, order: u64) -> Option<usize> {
        self.items.binary_search_by_key(&order, |item| item.order).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(100);

    struct Desk {
        outbox: Outbox<()>,
        chat: ChatId,
        now: Instant,
        ref_: Ref,
        order: u64,
    }

    impl Desk {
        fn new(window: usize) -> Self {
            let mut outbox = Outbox::new(window);
            outbox.limit(100);
            Self { outbox, chat: ChatId::random(), now: Instant::now(), ref_: 0, order: 0 }
        }

        fn write(&mut self, count: u64) {
            for _ in 0..count {
                self.order += 1;
                let name = ClientId::new(&self.order.to_string()).unwrap();
                self.outbox.push(self.chat, Item::new(name, String::new(), self.order, false, ()));
            }
        }

        /// What goes now: (order, whether as a retry), under refs that count from 1.
        fn go(&mut self) -> Vec<(u64, bool)> {
            let mut gone = Vec::new();
            while let Some((_, item)) = self.outbox.next(self.ref_ + 1, self.now) {
                gone.push((item.order, item.tries() > 1));
                self.ref_ += 1;
            }
            gone
        }

        fn trouble(&mut self, ref_: Ref) {
            self.outbox.again(ref_, self.now, |_| AFTER).unwrap();
        }
    }

    #[test]
    fn as_many_as_the_window_allows_go_at_once_and_in_order() {
        let mut desk = Desk::new(2);
        desk.write(3);
        assert_eq!(desk.go(), [(1, false), (2, false)]);
        desk.outbox.done(1).unwrap();
        assert_eq!(desk.go(), [(3, false)]);
    }

    #[test]
    fn after_trouble_the_oldest_goes_again_alone_and_later_ones_wait_for_its_ack() {
        let mut desk = Desk::new(3);
        desk.write(4);
        assert_eq!(desk.go().len(), 3);
        desk.trouble(1);
        desk.trouble(2);
        desk.outbox.done(3).unwrap();
        assert_eq!(desk.go(), [], "the pause is not over");
        assert_eq!(desk.outbox.wake(), Some(desk.now + AFTER));
        desk.now += AFTER;
        assert_eq!(desk.go(), [(1, true)]);
        desk.outbox.done(4).unwrap();
        assert_eq!(desk.go(), [(2, true)]);
        desk.outbox.done(5).unwrap();
        assert_eq!(desk.go(), [(4, false)]);
    }

    #[test]
    fn nothing_new_goes_while_an_older_one_is_still_unanswered_after_trouble() {
        let mut desk = Desk::new(2);
        desk.write(3);
        desk.go();
        desk.trouble(2);
        desk.now += AFTER;
        assert_eq!(desk.go(), [], "1 is under way: 2 and 3 wait for its answer");
        desk.outbox.done(1).unwrap();
        assert_eq!(desk.go(), [(2, true)]);
    }

    #[test]
    fn a_broken_connection_sends_everything_unacknowledged_again_in_order() {
        let mut desk = Desk::new(3);
        desk.write(4);
        desk.go();
        desk.outbox.done(2).unwrap();
        desk.outbox.lost();
        assert_eq!(desk.outbox.oldest(), None);
        let mut again = Vec::new();
        loop {
            let gone = desk.go();
            if gone.is_empty() {
                break;
            }
            again.extend(gone);
            desk.outbox.done(desk.ref_).unwrap();
        }
        assert_eq!(again, [(1, true), (3, true), (4, false)]);
    }

    #[test]
    fn one_chat_in_trouble_holds_no_other_back_and_the_socket_s_limit_holds_for_all() {
        let mut desk = Desk::new(1);
        desk.write(1);
        desk.go();
        desk.trouble(1);
        desk.chat = ChatId::random();
        desk.write(1);
        assert_eq!(desk.go(), [(2, false)]);
        desk.outbox.limit(1);
        desk.now += AFTER;
        assert_eq!(desk.go(), [], "one is under way, and one is the limit");
        desk.outbox.done(2).unwrap();
        assert_eq!(desk.go(), [(1, true)]);
    }

    #[test]
    fn what_another_device_may_have_sent_goes_as_a_retry_from_the_first_time() {
        let mut desk = Desk::new(5);
        let name = ClientId::new("x").unwrap();
        desk.outbox.push(desk.chat, Item::new(name, String::new(), 1, true, ()));
        assert_eq!(desk.go(), [(1, true)]);
    }
}
