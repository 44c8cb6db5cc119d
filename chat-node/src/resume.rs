//! Coming back: what a session is told that says where it left off.
//!
//! What became of each chat is decided by [`Plan`], which is pure: chats that the user is still in, those that are new to the client, and
//! those that are gone. A session is seated first, which says from where on it is shown a chat; what lies between where its client left
//! off and there is what it missed ([`crate::missed`]), told before any live event. So nothing falls between, and nothing is told twice.
//!
//! What changed and is not in the store yet, nobody may have told this node while it had no session in the chat: the partitions' owners are
//! asked ([`crate::recent`]), and the rooms fetch it as they fetch anything they miss.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use common::{
    ids::{AppId, ChatId, ChatKey, Number, Partition, Seq},
    partition::partition_of,
    problem::Problem,
    store::{DEPARTURES, Departure, Membership, Range, UserChats},
    wire::client::{Resume, Resumed, ServerFrame},
};
use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    cursor::{Cursor, Cursors},
    deliver::Deliver,
    hub::{Handle, Hold, Room, Shown},
    joins::new_chat,
    missed::{Allowance, Left, Missing, SharedEvent},
    socket::frame::framed,
    standing::Stand,
};

/// Changes that one session is sent when it comes back, over all chats; what is beyond is to be read. A screen full of each of 80 chats.
pub(crate) const EVENTS: usize = 4_096;
/// Changes of one chat.
pub(crate) const EVENTS_OF_ONE: usize = 512;
/// Bytes of the frames of all of them: half of what an outbox holds.
const BYTES: usize = 1024 * 1024;
/// KiB of such frames that are on their way to the outboxes of all sessions that come back; what finds no room is to be read.
pub(crate) const GATHERED: usize = 64 * 1024;
/// Chats that may be new to a client that comes back, or gone: with more it begins anew, and reads its list of chats.
const NEW: usize = 256;
/// Chats whose changes are fetched at once for one session.
const TOGETHER: usize = 16;
/// Sessions that come back for which changes are fetched at once: 64 MiB of records.
pub(crate) const SESSIONS: usize = 64;
/// Gaps that are mended at once, for all sessions: likewise.
pub(crate) const MENDING: usize = 64;
/// How long all of it may take. A chat that was not fetched by then is to be read.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the store may take to say which of a chat's messages have ended: one row, and a gap is to be mended without it.
const STORE: Duration = Duration::from_millis(500);
/// How long owners may take to say what changed just now. Where one is silent, the rooms ask on, and the session need not wait for it.
const OWNERS: Duration = Duration::from_millis(1_500);

/// Where a client left off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOff {
    cursor: Option<Cursor>,
    chats: HashMap<ChatId, Seq>,
}

/// What a session is told that comes back, before anything live.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Ready for the wire: what it missed, and which chats it is in no more.
    pub(crate) frames: Vec<Bytes>,
    /// How far each chat was told that changed.
    pub(crate) chats: BTreeMap<ChatId, Resumed>,
    bytes: usize,
    /// Given back when this is dropped: by then the outbox has the frames, and its own bounds hold.
    room: Option<OwnedSemaphorePermit>,
}

impl Replay {
    /// Whether these frames may be told besides.
    fn takes(&mut self, frames: &[Bytes], gathered: &Arc<Semaphore>) -> bool {
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        if self.frames.len() + frames.len() > EVENTS || self.bytes + bytes > BYTES {
            return false;
        }
        let needed = (self.bytes + bytes).div_ceil(1_024) - self.bytes.div_ceil(1_024);
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(gathered).try_acquire_many_owned(needed) else { return false };
        self.bytes += bytes;
        match &mut self.room {
            Some(all) => all.merge(room),
            none => *none = Some(room),
        }
        true
    }
}

impl LeftOff {
    /// What a client says; none when it says nothing that can be used, and has to begin anew.
    pub(crate) fn read(resume: Resume, app: AppId, cursors: &Cursors) -> Option<Self> {
        let Resume { cursor, chats } = resume;
        let cursor = match cursor {
            // The seqs of another log's chats say nothing either.
            Some(text) => Some(cursors.read(app, &text)?).filter(|cursor| !cursor.is_nowhere()),
            None => None,
        };
        (cursor.is_some() || !chats.is_empty()).then_some(Self { cursor, chats })
    }

    /// Whether its client may have left chats since that nobody knows of any more. `drained` is where the writers were when
    /// `departures` were read.
    pub(crate) fn may_be_gone_unseen(
        &self,
        departures: &[Departure],
        drained: &Cursor,
        partitions: Partition,
    ) -> bool {
        let Some(cursor) = self.cursor.as_ref().filter(|_| departures.len() >= DEPARTURES) else {
            return false;
        };
        // Those that are kept no more were no later than any of these, nor than the writers.
        let oldest = departures.iter().map(|departure| departure.left_upto).min().unwrap_or(0);
        let offset = |cursor: &Cursor, partition| cursor.place(partition).map_or(0, |place| place.offset);
        (0..partitions).any(|partition| offset(cursor, partition) < oldest.min(offset(drained, partition)))
    }

    /// What the client is to come back with if it gets no further: nothing is promised before `resumed`. Who came without a cursor has one
    /// that says as much.
    pub(crate) fn cursor(&self, log: Uuid) -> Cursor {
        self.cursor.clone().unwrap_or_else(|| Cursor::nowhere(log))
    }
}

/// What became of the chats of a client that comes back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Those that it knows and its user is in.
    stays: Vec<Stays>,
    /// Those that are new to it.
    new: Vec<Membership>,
    /// Those that it may know, and that its user is in no more, or was not in all the time.
    gone: Vec<ChatId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stays {
    membership: Membership,
    left: Left,
    /// Of a chat that the client does not name: the store shows a change that it does not have.
    changed: bool,
}

impl Plan {
    pub(crate) fn of(left_off: &LeftOff, chats: &UserChats, partition: impl Fn(ChatId) -> Partition) -> Self {
        let LeftOff { cursor, chats: named } = left_off;
        let place = |chat| cursor.as_ref().and_then(|cursor| cursor.place(partition(chat)));
        let departed = chats.departures.iter().filter(|departure| {
            place(departure.chat).is_some_and(|place| departure.left_upto > place.offset)
        });
        // What the client may know from before.
        let mut gone: HashSet<ChatId> = departed.map(|departure| departure.chat).collect();
        gone.extend(named.keys());
        let mut plan = Self::default();
        for membership in &chats.memberships {
            let Membership { chat, joined_seq, joined_upto, head_upto, .. } = *membership;
            let left = Left { seq: named.get(&chat).copied(), place: place(chat) };
            let (known, changed) = match left {
                // Whether it changed is seen where it is seated.
                Left { seq: Some(seq), .. } => (seq >= joined_seq, false),
                Left { seq: None, place: Some(place) } => {
                    (joined_upto <= place.offset, head_upto > place.offset)
                }
                // It says which chats it has, and this is none of them: named as one that is to be read.
                Left { seq: None, place: None } => (true, true),
            };
            if known {
                gone.remove(&chat);
                plan.stays.push(Stays { membership: *membership, left, changed });
            } else {
                // One that its user has left, and is in again, is gone first.
                plan.new.push(*membership);
            }
        }
        plan.gone = gone.into_iter().collect();
        plan
    }

    /// The chats that the session is seated in, in the order of their holds.
    pub(crate) fn stays(&self) -> impl Iterator<Item = Membership> {
        self.stays.iter().map(|stays| stays.membership)
    }

    /// The chats that are new to the client and that it is told of later, each with the change that let its user in.
    pub(crate) fn arrivals(&self) -> impl Iterator<Item = (ChatId, Seq)> {
        self.new.iter().map(|membership| (membership.chat, membership.joined_seq))
    }

    /// Whether so much is new or gone that the client had better begin anew.
    pub(crate) fn is_too_much(&self) -> bool {
        self.new.len() + self.gone.len() > NEW
    }
}

/// A chat in which the session has its seat.
struct Seated {
    room: Arc<Room>,
    stays: Stays,
    /// From where on it is shown live; none while its user's membership is not certain.
    upto: Option<Seq>,
}

impl Seated {
    /// What is to be fetched, if anything.
    fn missed(&self) -> Option<(ChatKey, Missing)> {
        let Stays { membership, left, changed } = self.stays;
        let upto = self.upto?;
        let missed = match left.seq {
            Some(seq) => upto > seq,
            None => changed || upto > membership.head.seq,
        };
        missed.then_some((self.room.key, Missing { left, upto, expired: membership.expired }))
    }
}

impl Deliver {
    /// Reads the chats that are new to the client, as the store has them: the client is told of each as it stands there, and from there on it
    /// is one that it knows. What the store does not give in time, or what finds no room, stays new: it is told of when the session has
    /// started.
    pub(crate) async fn introduce(&self, handle: &Arc<Handle>, plan: &mut Plan) -> Replay {
        let (mut told, who, format) = (Replay::default(), handle.user.user, handle.outbox.format());
        if plan.new.is_empty() {
            return told;
        }
        let end = Instant::now() + PATIENCE;
        let Ok(Ok(_permit)) = tokio::time::timeout_at(end, self.0.resuming.acquire()).await else {
            return told;
        };
        for together in std::mem::take(&mut plan.new).chunks(TOGETHER) {
            let views = together.iter().map(|new| {
                tokio::time::timeout_at(end, self.0.chats.chat_view(handle.chat_key(new.chat), who))
            });
            for (membership, view) in together.iter().zip(join_all(views).await) {
                let view = view.ok().and_then(Result::ok).flatten();
                let view = view.filter(|view| view.seq >= membership.joined_seq);
                let introduced = view.map(|view| (view.seq, framed(&new_chat(view, who), format)));
                match introduced
                    .filter(|(_, frame)| told.takes(std::slice::from_ref(frame), &self.0.gathered))
                {
                    Some((seq, frame)) => {
                        told.frames.push(frame);
                        let left = Left { seq: Some(seq), place: None };
                        plan.stays.push(Stays { membership: *membership, left, changed: false });
                    }
                    None => plan.new.push(*membership),
                }
            }
        }
        told
    }

    /// Seats a session that comes back, and gathers what it missed. `holds` are of the chats of [`Plan::stays`], and `introduced` is what
    /// [`Self::introduce`] gave.
    pub(crate) async fn come_back(
        &self,
        handle: &Arc<Handle>,
        stand: &Stand,
        plan: Plan,
        holds: Vec<Hold>,
        introduced: Replay,
    ) -> Replay {
        let Plan { stays, gone, new: _ } = plan;
        let mut told = introduced;
        // First: a chat that its user has left, and is in again, is gone before it is new.
        let removed =
            gone.into_iter().map(|chat| framed(&ServerFrame::ChatRemoved { chat }, handle.outbox.format()));
        told.frames.splice(..0, removed);
        let mut seated = Vec::with_capacity(stays.len());
        for (stays, hold) in stays.into_iter().zip(holds) {
            let room = Arc::clone(hold.room());
            let seen = stays.left.seq.unwrap_or(0);
            let (effects, upto) = self.0.hub.enter(handle, hold, &stays.membership, seen);
            self.apply(&room, effects);
            seated.push(Seated { room, stays, upto });
        }
        tokio::join!(self.hear_of_recent_changes(stand, &seated), self.gather(handle, &seated, &mut told));
        for Seated { room, stays, upto } in &seated {
            // Whoever has more than there is has it of another life of the chat, and is asked to read.
            if let (Some(seq), Some(upto)) = (stays.left.seq, *upto)
                && !room.has_seen(handle, seq)
            {
                self.tell(handle, &mut told, room.key.chat, stays.left, upto, None);
            }
        }
        let complete = told.chats.values().filter(|chat| chat.complete).count();
        self.0.metrics.resumed(complete, told.chats.len() - complete, told.frames.len());
        told
    }

    /// Tells rooms of changes that are not in the store yet. Where an owner does not say, each room asks until it does.
    async fn hear_of_recent_changes(&self, stand: &Stand, seated: &[Seated]) {
        let (log, count) = (self.0.marks.partitions.log, self.0.marks.partitions.count);
        let drained = Cursor::drained(log, count, &stand.positions);
        let partition = |seated: &Seated| partition_of(seated.room.key, count);
        let partitions: HashSet<Partition> = seated.iter().map(partition).collect();
        let asked = partitions.into_iter().map(async |partition| {
            let changed = self.changed_since(partition, drained.place(partition).unwrap_or_default());
            (partition, tokio::time::timeout(OWNERS, changed).await.ok().flatten())
        });
        let changed: HashMap<_, _> = join_all(asked).await.into_iter().collect();
        for seated in seated {
            let room = &seated.room;
            match changed.get(&partition(seated)).and_then(Option::as_ref) {
                Some(changed) => {
                    if let Some(seq) = changed.get(&room.key) {
                        let effects = room.told(*seq);
                        self.apply(room, effects);
                    }
                }
                None => self.suspect(room),
            }
        }
    }

    /// Fetches what was missed, as far as it may be sent. What is not fetched in time, or finds no room, is to be read.
    async fn gather(&self, handle: &Arc<Handle>, seated: &[Seated], told: &mut Replay) {
        for seated in seated.iter().filter(|seated| seated.upto.is_none()) {
            // Nothing may be told before it is certain that its user is a member; then it is to be read.
            let left = seated.stays.left;
            self.tell(handle, told, seated.room.key.chat, left, left.seq.unwrap_or(0), None);
        }
        let missed: Vec<_> = seated.iter().filter_map(Seated::missed).collect();
        if missed.is_empty() {
            return;
        }
        let end = Instant::now() + PATIENCE;
        let permit = tokio::time::timeout_at(end, self.0.resuming.acquire()).await;
        let fetching = matches!(permit, Ok(Ok(_)));
        let allowance = Allowance::default();
        for together in missed.chunks(TOGETHER) {
            let most = EVENTS_OF_ONE.min(EVENTS.saturating_sub(told.frames.len()));
            let room = fetching && most > 0 && told.bytes < BYTES;
            let fetched = together.iter().map(async |(chat, missing)| {
                if !room {
                    return None;
                }
                let missed = self.missed(*chat, *missing, most, &allowance);
                tokio::time::timeout_at(end, missed).await.ok().flatten()
            });
            for ((chat, missing), fetched) in together.iter().zip(join_all(fetched).await) {
                self.tell(handle, told, chat.chat, missing.left, missing.upto, fetched);
            }
        }
    }

    /// Adds what was fetched of one chat to what is told, and says so; none, or what finds no room, is to be read.
    fn tell(
        &self,
        handle: &Handle,
        told: &mut Replay,
        chat: ChatId,
        left: Left,
        upto: Seq,
        fetched: Option<(Seq, Vec<SharedEvent>)>,
    ) {
        #[cfg(feature = "planted")]
        let fetched = crate::planted::missed(self.0.hub.planted(), fetched, left, upto);
        let (user, format) = (handle.user.user, handle.outbox.format());
        let framed = fetched.map(|(from, events)| {
            let frames: Vec<_> = events.iter().map(|event| event.lock().frame(user, format)).collect();
            (from, frames)
        });
        let resumed = match framed.filter(|(_, frames)| told.takes(frames, &self.0.gathered)) {
            Some((from, frames)) => {
                told.frames.extend(frames);
                Resumed { from, to: upto, complete: true }
            }
            None => Resumed { from: left.seq.unwrap_or(0), to: upto, complete: false },
        };
        told.chats.insert(chat, resumed);
    }

    /// The changes of a chat after one, for a session that asks for them: what it is told, and how far the chat was shown to it when it
    /// asked. Nothing from before its user was a member.
    ///
    /// What the session has in its outbox, or is about to get, may be among them; and what is shown live meanwhile may be written before the
    /// answer. So an event may come twice, with the same `seq` and the same content; a client takes each that follows the last it has, passes
    /// over what it has, and keeps what is early until the answer has filled the gap. Then it has each once and in order, whatever comes
    /// first: the answer has no hole from `after` to where it ends, and what comes live has none from there on.
    ///
    /// # Errors
    /// `not_found` when its user is no member, `retry_later` while that is not certain, or while too many ask.
    pub(crate) async fn changes(
        &self,
        handle: &Arc<Handle>,
        chat: ChatId,
        after: Seq,
    ) -> Result<Replay, Problem> {
        let key = handle.chat_key(chat);
        let Shown { joined, upto } = self.shown(handle, key)?;
        let left = Left { seq: Some(after), place: None };
        let fetched = if joined <= after && after <= upto {
            let permit = tokio::time::timeout(PATIENCE, self.0.mending.acquire()).await;
            let Ok(Ok(_permit)) = permit else {
                return Err(Problem::retry_later("too many changes are asked for at the moment"));
            };
            let expired = self.expired(key).await;
            self.missed(key, Missing { left, upto, expired }, EVENTS_OF_ONE, &Allowance::default()).await
        } else {
            // Whoever has more than there is, or was not there, is asked to read.
            None
        };
        // Its user may have been removed meanwhile, and let in again.
        let Shown { joined, .. } = self.shown(handle, key)?;
        let mut told = Replay::default();
        self.tell(handle, &mut told, chat, left, upto, fetched.filter(|_| joined <= after));
        Ok(told)
    }

    /// Up to which message a chat's are past their time, as the store has it; while it is silent, as if none were.
    async fn expired(&self, chat: ChatKey) -> Number {
        let read = self.0.chats.history(chat, Range::Before(1), 1);
        match tokio::time::timeout(STORE, read).await {
            Ok(Ok(Some(slice))) => slice.expired,
            _ => 0,
        }
    }

    fn shown(&self, handle: &Arc<Handle>, chat: ChatKey) -> Result<Shown, Problem> {
        let room = self.0.hub.room(chat).ok_or_else(|| Problem::not_found("chat"))?;
        match room.shown_to(handle) {
            Some(shown) => shown.ok_or_else(|| Problem::retry_later("it is being read who is in the chat")),
            None => Err(Problem::not_found("chat")),
        }
    }
}
