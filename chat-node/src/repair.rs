//! Mending holes: what a room misses is asked of the chat's owner, which knows the changes that are not drained and some that are.
//!
//! One question per room at a time, so many rooms of each partition at once: whoever asks an owner that is away holds up nobody else's
//! rooms. While the owner is away it is asked again, and the room waits: what comes in the meantime is kept as far as there is room, and
//! fetched afterwards. When the owner does not know the changes any more, the room's sessions are told to read the chat again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use common::{
    ids::{Partition, Seq},
    partition::partition_of,
    wire::{owner::Answer, record::Record},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    deliver::{Deliver, Event},
    hub::{Handle, Job, Room},
};

/// Rooms of one partition whose owner is asked at once. An answer is 1 MiB at the worst and usually a few changes: 128 MiB for 64
/// partitions. A thousand rooms of theirs that take 2 ms each are through in 20 ms.
const TOGETHER: usize = 2;
/// Before an owner that was away is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a session whose user left waits to be told that the chat is gone, if nobody says that the store shows it.
const GRACE: Duration = Duration::from_secs(3);

/// How long sessions wait for what is missing before they hear that their view is not whole.
const EARLY: Duration = Duration::from_millis(250);

/// What waits to be repaired. A room stands here once at most, so this is bounded by the rooms, and they by the sessions' chats.
#[derive(Debug)]
pub(crate) struct Repairs {
    partitions: Partition,
    queue: Mutex<Turns<Arc<Room>>>,
    /// In order of time: all wait equally long. Bounded like the rooms' seats, which stand here once each.
    reminders: Mutex<VecDeque<Reminder>>,
    /// In order of time. A room stands here once at most.
    timed: Mutex<VecDeque<(Instant, Arc<Room>)>>,
    wake: Notify,
}

/// When a session in a room is to be told that its user was removed.
type Reminder = (Instant, Arc<Room>, Arc<Handle>);

/// What waits by partition, of which so many have their turn at once.
#[derive(Debug)]
struct Turns<T>(BTreeMap<Partition, Turn<T>>);

#[derive(Debug)]
struct Turn<T> {
    waiting: VecDeque<T>,
    running: usize,
}

impl<T> Turns<T> {
    fn push(&mut self, partition: Partition, what: T) {
        let turn = self.0.entry(partition).or_insert_with(|| Turn { waiting: VecDeque::new(), running: 0 });
        turn.waiting.push_back(what);
    }

    /// What has its turn now, until it is [`Self::done`].
    fn next(&mut self) -> Option<T> {
        let mut turns = self.0.values_mut().filter(|turn| turn.running < TOGETHER);
        turns.find_map(|turn| {
            let next = turn.waiting.pop_front()?;
            turn.running += 1;
            Some(next)
        })
    }

    fn done(&mut self, partition: Partition) {
        let Some(turn) = self.0.get_mut(&partition) else { return };
        turn.running = turn.running.saturating_sub(1);
        if turn.running == 0 && turn.waiting.is_empty() {
            self.0.remove(&partition);
        }
    }
}

impl Repairs {
    pub(crate) fn new(partitions: Partition) -> Self {
        Self {
            partitions,
            queue: Mutex::new(Turns(BTreeMap::new())),
            reminders: Mutex::default(),
            timed: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// A room whose repair is queued.
    pub(crate) fn queue(&self, room: Arc<Room>) {
        self.queue.lock().push(partition_of(room.key, self.partitions), room);
        self.wake.notify_one();
    }

    /// A session is to be told after a while that its user was removed, if it was not told by then.
    pub(crate) fn remind(&self, room: Arc<Room>, handle: Arc<Handle>) {
        self.reminders.lock().push_back((Instant::now() + GRACE, room, handle));
        self.wake.notify_one();
    }

    /// It is to be looked at after a while whether a room still misses something.
    pub(crate) fn time(&self, room: Arc<Room>) {
        self.timed.lock().push_back((Instant::now() + EARLY, room));
        self.wake.notify_one();
    }

    fn overdue(&self, now: Instant) -> Option<Arc<Room>> {
        let mut timed = self.timed.lock();
        let due = timed.front().is_some_and(|(at, _)| *at <= now);
        if due { timed.pop_front().map(|(_, room)| room) } else { None }
    }

    fn next(&self) -> Option<Arc<Room>> {
        self.queue.lock().next()
    }

    /// A room has had its turn.
    fn done(&self, room: &Room) {
        self.queue.lock().done(partition_of(room.key, self.partitions));
    }

    fn due(&self, now: Instant) -> Option<(Arc<Room>, Arc<Handle>)> {
        let mut reminders = self.reminders.lock();
        let due = reminders.front().is_some_and(|(at, ..)| *at <= now);
        if due { reminders.pop_front().map(|(_, room, handle)| (room, handle)) } else { None }
    }

    fn next_reminder(&self) -> Option<Instant> {
        let reminder = self.reminders.lock().front().map(|(at, ..)| *at);
        let timed = self.timed.lock().front().map(|(at, _)| *at);
        reminder.into_iter().chain(timed).min()
    }
}

/// What came of a question.
enum Outcome {
    /// Something, or nobody is there any more.
    Done,
    /// Nothing, for now.
    Retry,
}

impl Deliver {
    /// Repairs what is queued until the shutdown.
    pub(crate) async fn repair(self) {
        let mut running = FuturesUnordered::new();
        let mut later: VecDeque<(Instant, Arc<Room>)> = VecDeque::new();
        loop {
            while let Some(room) = self.0.repairs.next() {
                running.push(self.repair_room(room));
            }
            let at = [later.front().map(|(at, _)| *at), self.0.repairs.next_reminder()]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                () = self.0.shutdown.cancelled() => return,
                Some((room, outcome)) = running.next() => {
                    self.0.repairs.done(&room);
                    let retry = matches!(outcome, Outcome::Retry);
                    if room.end_repair(retry) {
                        if retry {
                            later.push_back((Instant::now() + PAUSE, room));
                        } else {
                            self.0.repairs.queue(room);
                        }
                    }
                }
                () = self.0.repairs.wake.notified() => {}
                () = tokio::time::sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                    let now = Instant::now();
                    while later.front().is_some_and(|(at, _)| *at <= now) {
                        later.pop_front().into_iter().for_each(|(_, room)| self.0.repairs.queue(room));
                    }
                    while let Some(room) = self.0.repairs.overdue(now) {
                        room.overdue();
                        self.say(&room);
                    }
                    while let Some((room, handle)) = self.0.repairs.due(now) {
                        if room.stop_waiting(&handle) {
                            // Nobody said that its user was removed, so nobody may have said that it is in again.
                            self.job(handle.user, Job::Compare);
                        }
                        self.say(&room);
                    }
                }
            }
        }
    }

    async fn repair_room(&self, room: Arc<Room>) -> (Arc<Room>, Outcome) {
        let outcome = match room.begin_repair() {
            Some(after) => self.ask_owner(&room, after).await,
            None => Outcome::Done,
        };
        (room, outcome)
    }

    async fn ask_owner(&self, room: &Arc<Room>, after: Seq) -> Outcome {
        self.0.metrics.repairs.inc();
        match self.changes_after(room.key, after).await {
            Some(Answer::Changes { changes, head, complete }) => {
                for bytes in changes {
                    match Record::decode(&bytes) {
                        Ok(Record::Change(change)) if change.key() == room.key => {
                            let effects = room.accept(Event::new(change, bytes.len()));
                            self.apply(room, effects);
                        }
                        Ok(_) => {
                            tracing::error!(chat = %room.key, "an owner answered another chat's records")
                        }
                        Err(error) => tracing::error!(%error, chat = %room.key, "a change cannot be read"),
                    }
                }
                let (have, known) = room.heard(head.seq);
                if have > after || (complete && have >= known) {
                    return Outcome::Done;
                }
                // An owner that knows less than was heard of is none any more, or not yet.
                if complete || head.seq < known {
                    return Outcome::Retry;
                }
                self.reload(room, head.seq);
                Outcome::Done
            }
            Some(Answer::Refused(refusal)) if !refusal.code.temporary() => {
                // There is no such chat any more, as far as the owner knows: the store tells whose it is.
                let (_, known) = room.heard(0);
                self.reload(room, known);
                Outcome::Done
            }
            Some(_) | None => Outcome::Retry,
        }
    }

    fn reload(&self, room: &Arc<Room>, head: Seq) {
        self.0.metrics.reloads.inc();
        let effects = room.reload(head);
        self.apply(room, effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_turns_however_much_waits_for_another() {
        let mut turns = Turns(BTreeMap::new());
        (0..100).for_each(|room| turns.push(7, room));
        turns.push(9, 100);
        let mut next = || std::iter::from_fn(|| turns.next()).collect::<Vec<_>>();
        assert_eq!(next(), [0, 1, 100]);
        assert_eq!(next(), [0; 0], "nobody has answered");
        turns.done(7);
        turns.done(9);
        assert_eq!((turns.next(), turns.next()), (Some(2), None), "in the order in which they came");
        for room in 3..100 {
            turns.done(7);
            assert_eq!(turns.next(), Some(room));
        }
        turns.done(7);
        turns.done(7);
        assert!(turns.0.is_empty());
    }
}
