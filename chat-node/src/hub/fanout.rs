//! What a room has to say, and saying it.
//!
//! A room puts down, in order, which events go to which seats, and what goes to one session alone ([`Say`]). One at a time takes what
//! is there and writes it to the sessions ([`Fanout`]), without the room's lock: what comes meanwhile is collected, and leaves
//! together at the next turn. So one write carries to a session all that was ready for it, and the more there is to say, the less each word costs.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use common::{
    ids::{Seq, UserId},
    wire::codec::Format,
};

use super::{Effects, Handle, Room, handle::Owed, seat::Seat};
use crate::deliver::Event;

/// Events that may be collected while others are written: half a second of a chat that speaks 8,000 times a second. Past it they wait with
/// the early ones, and what finds no room there is fetched anew.
const EVENTS: usize = 4_096;
/// Bytes of theirs: 2 KiB each.
const BYTES: usize = 8 * 1024 * 1024;
/// Things to be said beyond which what may be lost is: a mark of reading for each of 16 readers of a room of 1,000.
const OFFERS: usize = 16_384;
/// Events that leave together: what one session is given at once. Half a MiB of short messages, a quarter of what an outbox holds.
const TOGETHER: usize = 1_024;
/// Bytes that leave together, unless it is one event.
const TOGETHER_BYTES: usize = 256 * 1024;

/// What a room has to say, in order. Part of its state.
#[derive(Debug, Default)]
pub(super) struct Say {
    queue: Saying,
    /// The seats that are shown events now; none when they are to be looked up.
    audience: Option<Arc<[Listener]>>,
    events: usize,
    bytes: usize,
    /// Somebody writes.
    busy: bool,
}

/// Things to be said, oldest first.
pub(super) type Saying = VecDeque<Said>;

#[derive(Debug)]
pub(super) enum Said {
    Events {
        audience: Arc<[Listener]>,
        events: Vec<Event>,
        bytes: usize,
    },
    To {
        owed: Owed,
        frame: Bytes,
    },
    /// What may be lost, to one session.
    Offer {
        handle: Arc<Handle>,
        frame: Bytes,
    },
    /// Nothing more comes from here, to one session. Until it knows the last of it the room stays: another one of the same chat would not
    /// wait for this one.
    Nothing {
        _owed: Owed,
        _seat: Box<Seat>,
    },
}

/// A session, and the change after which it is shown events.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) handle: Arc<Handle>,
    pub(super) since: Seq,
}

impl Say {
    /// Whether no more events are taken at the moment.
    pub(super) fn is_full(&self) -> bool {
        self.events >= EVENTS || self.bytes >= BYTES
    }

    /// Whether nothing is to be said.
    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.queue.is_empty()
    }

    /// Seats have changed: who is shown the next event is looked up.
    pub(super) fn seats_changed(&mut self) {
        self.audience = None;
    }

    /// An event, to the seats that are shown events; `listeners` looks them up.
    pub(super) fn event(&mut self, event: Event, listeners: impl FnOnce() -> Arc<[Listener]>) {
        let audience = self.audience.get_or_insert_with(listeners);
        if audience.is_empty() {
            return;
        }
        self.events += 1;
        self.bytes += event.bytes();
        if let Some(Said::Events { audience: same, events, bytes }) = self.queue.back_mut()
            && Arc::ptr_eq(same, audience)
            && events.len() < TOGETHER
            && *bytes + event.bytes() <= TOGETHER_BYTES
        {
            *bytes += event.bytes();
            events.push(event);
        } else {
            let (audience, bytes) = (Arc::clone(audience), event.bytes());
            self.queue.push_back(Said::Events { audience, events: vec![event], bytes });
        }
    }

    /// A frame to one session.
    pub(super) fn to(&mut self, handle: &Arc<Handle>, frame: Bytes) {
        self.queue.push_back(Said::To { owed: Owed::to(handle), frame });
    }

    /// What is to be said is the last that a session hears by this seat: it is told no cursor before.
    pub(super) fn then_nothing(&mut self, seat: Seat) {
        self.queue.push_back(Said::Nothing { _owed: Owed::to(&seat.handle), _seat: Box::new(seat) });
    }

    /// Likewise, one that is dropped when the session reads slowly, or when much is to be said.
    pub(super) fn offer(&mut self, handle: &Arc<Handle>, frame: Bytes) {
        if self.queue.len() >= OFFERS {
            return;
        }
        self.queue.push_back(Said::Offer { handle: Arc::clone(handle), frame });
    }

    /// Everything that is to be said, for somebody to write; none when somebody does already, or nothing is there.
    pub(super) fn begin(&mut self) -> Option<Fanout> {
        if self.busy || self.queue.is_empty() {
            return None;
        }
        self.busy = true;
        Some(Fanout { queue: self.take(), at: 0, ready: Ready::default(), said: 0 })
    }

    /// What has come meanwhile; nothing ends the writing.
    pub(super) fn more(&mut self) -> Saying {
        self.busy = !self.queue.is_empty();
        self.take()
    }

    fn take(&mut self) -> Saying {
        (self.events, self.bytes) = (0, 0);
        std::mem::take(&mut self.queue)
    }
}

/// Writes what a room has to say. Whoever has it goes on until [`Fanout::step`] says that nothing is left.
#[must_use]
#[derive(Debug)]
pub(crate) struct Fanout {
    queue: Saying,
    /// How far the first in the queue is said.
    at: usize,
    ready: Ready,
    said: u64,
}

impl Fanout {
    /// Writes that are to be made, as far as is known.
    pub(crate) fn writes(&self) -> usize {
        let writes = self.queue.iter().map(|said| match said {
            Said::Events { audience, .. } => audience.len(),
            Said::To { .. } | Said::Offer { .. } => 1,
            Said::Nothing { .. } => 0,
        });
        writes.sum()
    }

    /// Frames given to sessions since this was asked last.
    pub(crate) fn said(&mut self) -> u64 {
        std::mem::take(&mut self.said)
    }

    /// Makes about so many writes. False when nothing is left to be said. What the room has to do besides is to be done.
    pub(crate) fn step(&mut self, room: &Room, most: usize) -> (bool, Effects) {
        let mut left = most;
        while left > 0 {
            let Some(said) = self.queue.front_mut() else {
                let (more, effects) = room.more_to_say();
                self.queue = more;
                return (!self.queue.is_empty(), effects);
            };
            let done = match said {
                Said::To { owed, frame } => {
                    owed.handle().outbox.push(frame.clone(), 1);
                    self.said += 1;
                    left -= 1;
                    true
                }
                Said::Offer { handle, frame } => {
                    handle.outbox.offer(frame.clone());
                    self.said += 1;
                    left -= 1;
                    true
                }
                Said::Nothing { .. } => true,
                Said::Events { audience, events, .. } => {
                    let turn = audience.iter().skip(self.at).take(left);
                    let mut writes = 0;
                    for listener in turn {
                        self.said += self.ready.tell(listener, events);
                        writes += 1;
                    }
                    self.at += writes;
                    left -= writes;
                    self.at >= audience.len()
                }
            };
            if done {
                self.queue.pop_front();
                self.at = 0;
                self.ready = Ready::default();
            }
        }
        (true, Effects::default())
    }
}

/// The frames of some events, laid together.
#[derive(Debug, Default)]
struct Ready {
    json: Option<Together>,
    message_pack: Option<Together>,
    /// Who sees some of them otherwise; sorted.
    authors: Option<Vec<UserId>>,
}

/// Frames that lie one behind the other.
#[derive(Debug, Clone)]
struct Together {
    bytes: Bytes,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Together {
    fn of(events: &mut [Event], format: Format) -> Self {
        if let [only] = events {
            let bytes = only.frame_for_others(format);
            return Self { ends: vec![bytes.len()], bytes };
        }
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(events.len());
        for event in events {
            bytes.extend_from_slice(&event.frame_for_others(format));
            ends.push(bytes.len());
        }
        Self { bytes: bytes.into(), ends }
    }
}

impl Ready {
    /// Gives a session the events that it is shown; how many that are.
    fn tell(&mut self, listener: &Listener, events: &mut [Event]) -> u64 {
        let Listener { handle, since } = listener;
        let format = handle.outbox.format();
        let user = handle.user.user;
        let authors = self.authors.get_or_insert_with(|| {
            let mut authors: Vec<UserId> = events.iter().filter_map(Event::author).collect();
            authors.sort_unstable();
            authors.dedup();
            authors
        });
        let ready = match format {
            Format::Json => &mut self.json,
            Format::MessagePack => &mut self.message_pack,
        };
        let together = ready.get_or_insert_with(|| Together::of(events, format));
        let whole = events.first().is_some_and(|first| first.seq() > *since);
        if whole && authors.binary_search(&user).is_err() {
            handle.outbox.push(together.bytes.clone(), events.len());
            return events.len() as u64;
        }
        let mut told = 0;
        let mut pieces: Vec<(Bytes, usize)> = Vec::new();
        // Where the frames begin that lie together with the ones before.
        let (mut run, mut length, mut start) = (0, 0, 0);
        for (event, end) in events.iter_mut().zip(&together.ends) {
            let shown = event.seq() > *since;
            if shown && event.author() != Some(user) {
                length += 1;
                told += 1;
            } else {
                if length > 0 {
                    pieces.push((together.bytes.slice(run..start), length));
                }
                if shown {
                    pieces.push((event.frame(user, format), 1));
                    told += 1;
                }
                (run, length) = (*end, 0);
            }
            start = *end;
        }
        if length > 0 {
            pieces.push((together.bytes.slice(run..start), length));
        }
        handle.outbox.push_all(pieces);
        told
    }
}

#[cfg(test)]
mod tests {
    use common::{
        ids::{AppId, ChatId, ClientId, MessageId, SessionId, SocketId, UserKey},
        model::MessageKind,
        time::Millis,
        wire::record::{Change, What},
    };
    use serde_json::Value;

    use super::*;
    use crate::outbox::Outbox;

    fn event(seq: Seq, by: UserId) -> Event {
        let what = What::Sent {
            id: MessageId::random(),
            number: seq,
            client_id: Some(ClientId::new("c").unwrap()),
            body: "hello".into(),
            kind: MessageKind::Text,
            reply_to: None,
            attachments: Vec::new(),
            mentions: Vec::new(),
            mention_all: false,
            sent_as: None,
        };
        let (app, chat, at) = (AppId::DEFAULT, ChatId::random(), Millis(0));
        Event::new(Change { app, chat, term: 1, n: seq, seq, at, by, what }, 100)
    }

    fn listener(user: UserId, since: Seq) -> Listener {
        let key = UserKey { app: AppId::DEFAULT, user };
        let outbox = Outbox::default();
        let handle = Arc::new(Handle::new(SocketId::random(), key, SessionId::random(), outbox));
        Listener { handle, since }
    }

    /// What a session was shown: each `seq`, and whether with the name that its author gave it.
    fn shown(listener: &Listener) -> Vec<(u64, bool)> {
        let payloads = listener.handle.outbox.take();
        let frames = payloads.iter().map(|payload| serde_json::from_slice::<Value>(payload).unwrap());
        frames
            .map(|frame| (frame["seq"].as_u64().unwrap(), frame["message"]["client_id"].is_string()))
            .collect()
    }

    #[test]
    fn each_is_shown_what_is_new_to_it_and_its_own_with_their_names() {
        let (ana, ben, eve) = (UserId::random(), UserId::random(), UserId::random());
        let mut events: Vec<_> =
            [ana, eve, eve, ana, ben, ana].into_iter().zip(1..).map(|(by, seq)| event(seq, by)).collect();
        for (user, since) in
            [(ana, 0), (ben, 0), (eve, 0), (UserId::random(), 0), (ana, 3), (ben, 5), (eve, 6)]
        {
            let listener = listener(user, since);
            let told = Ready::default().tell(&listener, &mut events);
            let expected: Vec<_> = events
                .iter()
                .filter(|event| event.seq() > since)
                .map(|event| (event.seq(), event.author() == Some(user)))
                .collect();
            assert_eq!(shown(&listener), expected);
            assert_eq!(told, expected.len() as u64);
        }
    }

    #[test]
    fn events_to_the_same_seats_leave_together_and_what_is_said_between_them_stays_between() {
        let (ana, ben) = (listener(UserId::random(), 0), listener(UserId::random(), 0));
        let both: Arc<[Listener]> = [ana.clone(), ben.clone()].into();
        let mut say = Say::default();
        let author = UserId::random();
        for seq in 1..=3 {
            say.event(event(seq, author), || Arc::clone(&both));
        }
        assert_eq!(say.queue.len(), 1);
        say.to(
            &ana.handle,
            crate::socket::frame::control(crate::socket::frame::Opcode::Ping, b"{\"seq\":99}"),
        );
        say.seats_changed();
        say.event(event(4, author), || [ana.clone()].into());
        let mut fanout = say.begin().unwrap();
        assert!(say.begin().is_none(), "one at a time");
        assert_eq!(fanout.writes(), 4);
        let room = Room::new(common::ids::ChatKey { app: AppId::DEFAULT, chat: ChatId::random() });
        while fanout.step(&room, 1).0 {}
        assert_eq!(fanout.said(), 8);
        let seqs = |listener| shown(listener).into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
        assert_eq!(seqs(&ana), [1, 2, 3, 99, 4]);
        assert_eq!(seqs(&ben), [1, 2, 3]);
    }

    #[test]
    fn what_is_collected_is_bounded() {
        let one: Arc<[Listener]> = [listener(UserId::random(), 0)].into();
        let mut say = Say::default();
        let mut seq = 0;
        while !say.is_full() {
            seq += 1;
            say.event(event(seq, UserId::random()), || Arc::clone(&one));
        }
        assert_eq!(seq as usize, EVENTS);
        assert!(say.queue.len() >= EVENTS / TOGETHER);
    }
}
