//! What owners' marks tell a node, and what it does when one is missing: it asks the owner what changed since, and mends what it serves.
//!
//! [`Row`] is pure; [`Deliver`]'s part asks and mends.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use common::{
    ids::{AppId, ChatId, NodeId, Offset, Partition, UserId},
    partition::partition_of,
    store::Position,
    wire::{
        marks::{LogPlace, Mark, Place, Since},
        owner::{Answer, Ask, OwnerRequest},
        peer::Placement,
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use uuid::Uuid;

use crate::{deliver::Deliver, hub::Job};

/// Without a mark for this long the owner is asked: two of its seconds, and some.
const SILENCE: Duration = Duration::from_millis(2_500);
/// Between two looks who is silent, and who has not answered yet.
const LOOK: Duration = Duration::from_millis(500);
/// How long an owner may take: what a read has, and some.
const PATIENCE: Duration = Duration::from_secs(4);
/// How far the writers may be behind what owners have told before a look at the store alone is not whole: they take a second at the most, and
/// marks come each second.
const STORED: Duration = Duration::from_secs(3);
/// Marks that are kept for that: as many as come meanwhile, and some.
const ENDS: usize = 8;
/// Marks that are kept while the owner is asked: it answers within as many seconds, or the next mark leads to another question.
const KEPT: usize = 4;

/// The partitions of the log, and who owns them.
#[derive(Clone, Debug)]
pub struct Partitions {
    /// How many there are.
    pub count: Partition,
    /// The log's id.
    pub log: Uuid,
    /// Who owns which.
    pub placement: watch::Receiver<Arc<Placement>>,
}

impl Partitions {
    /// Those of a log that nobody owns, for tests without marks.
    pub fn unowned() -> Self {
        Self { count: 16, log: Uuid::nil(), placement: watch::Sender::new(Arc::default()).subscribe() }
    }
}

/// What marks have told of each partition.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) partitions: Partitions,
    rows: Mutex<Vec<Row>>,
}

/// What a mark means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing was missed.
    Whole,
    /// It is the first: what came before is not known.
    First,
    /// Something may have been missed.
    Ask,
}

/// One partition as its marks tell.
#[derive(Debug)]
struct Row {
    /// Up to here everything was heard.
    place: Option<Place>,
    /// When the named owner was last heard.
    heard: Instant,
    /// Something may have been missed, and the owner has not said what.
    broken: bool,
    asking: bool,
    /// What came since it was asked, oldest first.
    kept: VecDeque<Mark>,
    /// How far the log was when: the newest one that is older than [`STORED`], and newer ones.
    ends: VecDeque<(Instant, Offset)>,
}

impl Row {
    fn new(now: Instant) -> Self {
        Self {
            place: None,
            heard: now,
            broken: false,
            asking: false,
            kept: VecDeque::new(),
            ends: VecDeque::new(),
        }
    }

    fn ends(&mut self, now: Instant, end: Offset) {
        let grown = self.ends.back().is_none_or(|(_, last)| end > *last);
        if grown && self.ends.len() < ENDS {
            self.ends.push_back((now, end));
        }
        while self.ends.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) > STORED) {
            self.ends.pop_front();
        }
    }

    /// Whether the store, which is this far, lacks what it should have by now.
    fn is_behind(&self, now: Instant, stored: Offset) -> bool {
        let due =
            |(at, end): &(Instant, Offset)| now.saturating_duration_since(*at) > STORED && *end > stored;
        self.ends.iter().any(due)
    }

    fn hear(&mut self, mark: &Mark) -> Verdict {
        let Some(place) = &mut self.place else {
            self.place = Some(mark.place);
            // Until everything was looked at.
            self.broken = true;
            return Verdict::First;
        };
        if mark.place.term < place.term {
            // Of an owner that has been replaced, and does not know it yet.
            return Verdict::Whole;
        }
        if follows(place, mark) {
            *place = further(*place, mark.place);
            self.broken = false;
            return Verdict::Whole;
        }
        self.broken = true;
        self.kept.push_back(mark.clone());
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        Verdict::Ask
    }

    /// The owner has said what was missed up to `answer`. False when something was missed since.
    fn answered(&mut self, answer: Place) -> bool {
        let mut place = match self.place {
            Some(place) if place.term > answer.term => place,
            Some(place) if place.term == answer.term => further(place, answer),
            _ => answer,
        };
        self.broken = false;
        for mark in self.kept.drain(..) {
            let known = mark.place.term < place.term || further(place, mark.place) == place;
            if follows(&place, &mark) {
                place = further(place, mark.place);
            } else if !known {
                self.broken = true;
            }
        }
        self.place = Some(place);
        !self.broken
    }
}

/// Whether nothing lies between what was heard and what the mark speaks of.
fn follows(place: &Place, mark: &Mark) -> bool {
    mark.whole
        && mark.place.term == place.term
        && mark.from <= place.to
        && mark.told_from <= place.told.offset
}

/// The further one of two places in one term.
fn further(one: Place, other: Place) -> Place {
    Place {
        term: one.term,
        to: one.to.max(other.to),
        told: if one.told.offset >= other.told.offset { one.told } else { other.told },
    }
}

impl Marks {
    pub(crate) fn new(partitions: Partitions) -> Self {
        let now = Instant::now();
        let count = usize::from(partitions.count);
        Self { rows: Mutex::new((0..count).map(|_| Row::new(now)).collect()), partitions }
    }

    /// By partition, up to where everything was heard, and everybody's coming and going with it; none where something may have been missed.
    pub(crate) fn heard(&self) -> Vec<Option<LogPlace>> {
        let rows = self.rows.lock();
        rows.iter().map(|row| row.place.filter(|_| !row.broken).map(|place| place.told)).collect()
    }

    /// Whether a store with these positions lacks what was published some seconds ago: the writers are away, or far behind.
    fn are_ahead_of(&self, positions: &[(Partition, Position)]) -> bool {
        let (now, positions): (_, HashMap<_, _>) = (Instant::now(), positions.iter().copied().collect());
        let stored = |partition| positions.get(&partition).map_or(0, |position: &Position| position.offset);
        (0..).zip(self.rows.lock().iter()).any(|(partition, row)| row.is_behind(now, stored(partition)))
    }
}

impl Deliver {
    /// See [`Marks::are_ahead_of`].
    pub(crate) fn is_ahead_of(&self, positions: &[(Partition, Position)]) -> bool {
        self.0.marks.are_ahead_of(positions)
    }

    /// How far the partitions are that `from` owns. Never blocks.
    pub fn marks(&self, from: &NodeId, marks: &[Mark]) {
        let now = Instant::now();
        let placement = self.0.marks.partitions.placement.borrow().clone();
        let (mut first, mut ask) = (Vec::new(), Vec::new());
        {
            let mut rows = self.0.marks.rows.lock();
            for mark in marks {
                let at = usize::from(mark.partition);
                let Some(row) = rows.get_mut(at) else { continue };
                #[cfg(feature = "planted")]
                let believed = self.0.hub.planted().is(common::planted::Bug::DropAMark);
                #[cfg(feature = "planted")]
                let mark = &Mark { whole: mark.whole || believed, ..mark.clone() };
                if placement.owners.get(at).and_then(Option::as_ref) == Some(from) {
                    row.heard = now;
                }
                row.ends(now, mark.place.to);
                match row.hear(mark) {
                    Verdict::Whole => {}
                    Verdict::First => first.push(mark.partition),
                    Verdict::Ask if !row.asking => {
                        row.asking = true;
                        ask.push(mark.partition);
                    }
                    Verdict::Ask => {}
                }
            }
        }
        if !first.is_empty() {
            self.lost_in(&first);
            let mut rows = self.0.marks.rows.lock();
            for partition in first {
                if let Some(row) = rows.get_mut(usize::from(partition)) {
                    row.broken = !row.kept.is_empty();
                }
            }
        }
        for partition in ask {
            self.0.tasks.spawn(self.clone().catch_up(partition));
        }
    }

    /// Asks the owners that are silent, and those that have not answered yet, until the shutdown.
    pub(crate) async fn listen_for_marks(self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.0.shutdown.cancelled() => return,
                _ = look.tick() => {}
            }
            let now = Instant::now();
            let placement = self.0.marks.partitions.placement.borrow().clone();
            let mut ask = Vec::new();
            for (number, row) in (0..).zip(self.0.marks.rows.lock().iter_mut()) {
                let named = placement.owners.get(usize::from(number)).is_some_and(Option::is_some);
                if !named {
                    // Whoever is named next has as long.
                    row.heard = now;
                }
                let silent = now.saturating_duration_since(row.heard) > SILENCE;
                if named && (silent || row.broken) && !row.asking {
                    row.asking = true;
                    ask.push(number);
                }
            }
            for partition in ask {
                self.0.tasks.spawn(self.clone().catch_up(partition));
            }
        }
    }

    /// Asks a partition's owner what changed since its last mark, and mends it.
    async fn catch_up(self, partition: Partition) {
        let at = usize::from(partition);
        let from = self.0.marks.rows.lock().get(at).and_then(|row| row.place);
        let told = from.map(|place| place.told);
        let since = tokio::select! {
            () = self.0.shutdown.cancelled() => return,
            since = self.since(partition, told) => since,
        };
        if let Some(since) = &since {
            self.0.metrics.caught_up.inc();
            if since.complete && from.is_some() {
                self.mend(since);
            } else {
                self.lost_in(&[partition]);
            }
        }
        let mut rows = self.0.marks.rows.lock();
        let Some(row) = rows.get_mut(at) else { return };
        row.asking = false;
        if let Some(since) = since {
            row.answered(since.place);
            row.heard = Instant::now();
        } else {
            // The owner did not answer: it is asked again at the next look.
            row.broken |= row.place.is_some();
        }
    }

    /// What changed in a partition; none when its owner does not say.
    pub(crate) async fn since(&self, partition: Partition, from: Option<LogPlace>) -> Option<Since> {
        // The node asks for itself, about no chat.
        let request = OwnerRequest {
            app: AppId::DEFAULT,
            chat: ChatId(Uuid::nil()),
            by: UserId(Uuid::nil()),
            retry: false,
            ask: Ask::Since { from },
        };
        match tokio::time::timeout(PATIENCE, self.0.owners.ask_partition(partition, request)).await {
            Ok(Answer::Since(since)) => Some(since),
            Ok(_) | Err(_) => None,
        }
    }

    /// Tells the rooms how far their chats are, and has the users compared who came or went.
    pub(crate) fn mend(&self, since: &Since) {
        for (chat, seq) in &since.chats {
            if let Some(room) = self.0.hub.room(*chat) {
                let effects = room.told(*seq);
                self.apply(&room, effects);
            }
        }
        for user in &since.users {
            self.job(*user, Job::Compare);
        }
    }

    /// Live events of these partitions may have been lost.
    fn lost_in(&self, partitions: &[Partition]) {
        let count = self.0.marks.partitions.count;
        for room in self.0.hub.all_rooms() {
            if partitions.contains(&partition_of(room.key, count)) {
                self.suspect(&room);
            }
        }
        for user in self.0.hub.all_users() {
            self.job(user.key, Job::Compare);
        }
    }
}

#[cfg(test)]
mod tests {
    use common::term::TermState;

    use super::*;

    fn place(term: Offset, to: Offset, told: Offset) -> Place {
        Place { term, to, told: LogPlace { offset: told, state: TermState::default() } }
    }

    fn mark(from: Offset, told_from: Offset, place: Place) -> Mark {
        Mark { partition: 0, from, told_from, place, whole: true }
    }

    fn row(at: Place) -> Row {
        Row { place: Some(at), ..Row::new(Instant::now()) }
    }

    #[test]
    fn an_unbroken_row_of_whole_marks_is_believed() {
        let mut row = Row::new(Instant::now());
        assert_eq!(row.hear(&mark(5, 3, place(4, 6, 3))), Verdict::First);
        assert_eq!(row.hear(&mark(6, 3, place(4, 6, 3))), Verdict::Whole, "nothing happened");
        assert_eq!(row.hear(&mark(6, 3, place(4, 9, 8))), Verdict::Whole);
        assert_eq!(row.place, Some(place(4, 9, 8)));
    }

    #[test]
    fn a_missing_mark_a_lossy_one_and_a_new_term_are_asked_about() {
        let at = place(4, 9, 8);
        for broken in [
            mark(10, 8, place(4, 11, 8)),
            mark(9, 9, place(4, 9, 10)),
            Mark { whole: false, ..mark(9, 8, place(4, 9, 8)) },
            mark(12, 9, place(11, 12, 9)),
        ] {
            let mut row = row(at);
            assert_eq!(row.hear(&broken), Verdict::Ask, "{broken:?}");
            assert_eq!((row.place, row.broken), (Some(at), true));
        }
        let mut row = row(at);
        assert_eq!(row.hear(&mark(3, 2, place(2, 4, 3))), Verdict::Whole, "of an owner that was replaced");
        assert_eq!(row.place, Some(at));
    }

    #[test]
    fn marks_that_come_while_the_owner_is_asked_count_when_it_has_answered() {
        let mut row = row(place(4, 9, 8));
        assert_eq!(row.hear(&mark(10, 8, place(4, 11, 9))), Verdict::Ask);
        assert_eq!(row.hear(&mark(11, 9, place(4, 13, 12))), Verdict::Ask);
        assert!(row.answered(place(4, 11, 9)));
        assert_eq!((row.place, row.broken), (Some(place(4, 13, 12)), false));

        assert_eq!(row.hear(&mark(14, 12, place(4, 15, 12))), Verdict::Ask);
        assert_eq!(row.hear(&mark(17, 12, place(4, 18, 12))), Verdict::Ask);
        assert!(!row.answered(place(4, 16, 12)), "16 is missing again");
        assert_eq!((row.place, row.broken), (Some(place(4, 16, 12)), true));
        assert!(row.answered(place(20, 22, 19)));
        assert_eq!(row.place, Some(place(20, 22, 19)));
    }

    #[test]
    fn me_6_a_store_is_behind_when_it_lacks_what_was_told_a_while_ago() {
        let (mut row, begin) = (Row::new(Instant::now()), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut behind = |seconds: u64, end: Offset, stored: Offset| {
            row.ends(at(seconds), end);
            row.is_behind(at(seconds), stored)
        };
        assert_eq!([behind(0, 10, 10), behind(2, 20, 10), behind(3, 30, 9)], [false; 3], "it has a moment");
        assert!(behind(4, 40, 9) && !behind(4, 40, 10), "10 are told since four seconds");
        // Writers that go on are never that far behind, however much there is; those that do not are.
        assert!((5..100).all(|second| !behind(second, second * 10, (second - 3) * 10)));
        assert!((100..200).all(|second| behind(second, 1_000, 970) == (second > 101)));
        assert!(!behind(200, 1_000, 1_000));
    }

    #[test]
    fn an_owner_that_was_replaced_takes_nothing_back() {
        let mut row = row(place(20, 22, 19));
        assert!(row.answered(place(4, 30, 29)));
        assert_eq!(row.place, Some(place(20, 22, 19)));
    }
}
