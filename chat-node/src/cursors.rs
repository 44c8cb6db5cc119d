//! Telling sessions where they are: cursors, in rounds.
//!
//! A round takes down how far the marks of each partition have come, and waits until every room has shown what it knew of then, or has asked
//! its owner where it may have missed something. From there on everything before those places was shown to every session that was ready
//! when the round began, and is told to those of them for whom nothing else is to be done or waits to be said. A partition of which
//! something may have been missed, or whose rooms take too long, stays where an earlier round saw it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use common::{
    ids::{AppId, Partition, UserId, UserKey},
    partition::partition_of,
    wire::{client::ServerFrame, marks::LogPlace},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    cursor::Cursor,
    deliver::Deliver,
    hub::Began,
    pace::Pace,
    socket::frame::{Frames, framed},
};

/// The round that says where the writers are.
const FIRST: u64 = 1;
/// Between two rounds: a mark comes each second.
const EVERY: Duration = Duration::from_secs(1);
/// Per session between two rounds, so that telling cursors (5 µs each) takes 1 % of a core at the most.
const EVERY_PER_SESSION: Duration = Duration::from_micros(500);
/// How long rooms may take to show what they know of, and how often they are looked at.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(50);
/// How long it takes to look at every room, and to tell every user's sessions; and how many at once in any case.
const LOOKED_AT_IN: Duration = EVERY.checked_div(5).unwrap();
const TOLD_IN: Duration = EVERY.checked_div(2).unwrap();
const ROOMS_AT_ONCE: usize = 128;
const USERS_AT_ONCE: usize = 8;

/// Where sessions are.
#[derive(Debug, Default)]
pub(crate) struct Rounds(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Rounds that have begun.
    round: u64,
    /// The last that has moved a place.
    moved: u64,
    /// By partition: up to where everything was shown, and the round that saw it. Empty before it is known where the writers are.
    shown: Vec<(LogPlace, u64)>,
}

impl Rounds {
    /// The round that began last.
    pub(crate) fn current(&self) -> u64 {
        self.0.lock().round
    }

    /// When a session began that is ready now, and whose chats were read after round `read`.
    pub(crate) fn began(&self, read: u64) -> Began {
        // Nobody was shown what the first one took for shown, who had read before it.
        Began { read, ready: self.current().max(FIRST) }
    }

    /// Begins a round, which goes by what was heard. In this order: a session that begins in between is left out of the round, and not
    /// taken for one that had begun before.
    fn begin(&self, heard: impl FnOnce() -> Vec<Option<LogPlace>>) -> (u64, Vec<Option<LogPlace>>) {
        let heard = heard();
        let mut state = self.0.lock();
        state.round += 1;
        (state.round, heard)
    }

    /// The first round: everybody is where the writers are, but for sessions that have read their chats already.
    fn begin_at(&self, places: Vec<LogPlace>) {
        let mut state = self.0.lock();
        state.round = FIRST;
        state.shown = places.into_iter().map(|place| (place, FIRST)).collect();
    }

    /// What a round has seen. Where everybody is now.
    fn end(&self, round: u64, seen: Vec<Option<LogPlace>>) -> Places {
        let mut state = self.0.lock();
        let State { shown, moved, .. } = &mut *state;
        for (place, seen) in shown.iter_mut().zip(seen) {
            // Seen anew, even where it stands still: an older round may say nothing of sessions that have begun since.
            if let Some(seen) = seen.filter(|seen| seen.offset >= place.0.offset) {
                if seen.offset > place.0.offset {
                    *moved = round;
                }
                *place = (seen, round);
            }
        }
        let (places, mut rounds): (Vec<_>, Vec<_>) = shown.iter().copied().unzip();
        rounds.sort_unstable();
        rounds.dedup();
        Places { places, rounds, moved: *moved }
    }
}

/// Where everybody is.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    /// Up to where everything was shown, by partition.
    places: Vec<LogPlace>,
    /// The rounds that say so.
    rounds: Vec<u64>,
    /// The last round that has moved one of them: who was told since then is told nothing new.
    moved: u64,
}

impl Deliver {
    /// Tells sessions where they are, until the shutdown.
    pub(crate) async fn tell_cursors(self) {
        let shutdown = self.0.shutdown.clone();
        let telling = async {
            self.begin_where_the_writers_are().await;
            loop {
                let sessions = u32::try_from(self.0.metrics.sockets.get()).unwrap_or(0);
                tokio::time::sleep(EVERY.max(EVERY_PER_SESSION * sessions)).await;
                self.round().await;
            }
        };
        shutdown.run_until_cancelled(telling).await;
    }

    /// Nobody who begins from here on needs to be told of what the store has now.
    async fn begin_where_the_writers_are(&self) {
        let (log, count) = (self.0.marks.partitions.log, self.0.marks.partitions.count);
        let nobody = UserKey { app: AppId::DEFAULT, user: UserId(Uuid::nil()) };
        let stand = loop {
            match self.0.standings.of(nobody).await {
                Ok(stand) => break stand,
                Err(error) => {
                    tracing::warn!(%error, "it is not known yet how far the writers are");
                    tokio::time::sleep(EVERY).await;
                }
            }
        };
        let drained = Cursor::drained(log, count, &stand.positions);
        let places = (0..count).map(|partition| drained.place(partition).unwrap_or_default());
        self.0.rounds.begin_at(places.collect());
    }

    async fn round(&self) {
        let count = self.0.marks.partitions.count;
        let (round, mut seen) = self.0.rounds.begin(|| {
            let heard = self.0.marks.heard();
            // Asked behind what was heard: whatever passed by while a dispatcher lacked topics is looked for before it is whole again.
            if self.0.hub.hears_everything() { heard } else { vec![None; usize::from(count)] }
        });
        let rooms = self.0.hub.all_rooms();
        let mut pace = Pace::over(LOOKED_AT_IN, rooms.len(), ROOMS_AT_ONCE);
        let mut behind = Vec::new();
        for room in rooms {
            pace.next().await;
            behind.extend(room.behind().map(|behind| (room, behind)));
        }
        let end = Instant::now() + PATIENCE;
        loop {
            behind.retain_mut(|(room, behind)| room.is_behind(behind));
            if behind.is_empty() || Instant::now() >= end {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let waited: HashSet<Partition> =
            behind.iter().map(|(room, _)| partition_of(room.key, count)).collect();
        for (_, seen) in (0..).zip(&mut seen).filter(|(partition, _)| waited.contains(partition)) {
            *seen = None;
        }
        self.tell_everybody(self.0.rounds.end(round, seen)).await;
    }

    /// Tells whoever was not told yet, be it that there was something to be done for them when the places moved. Made once for each
    /// application and format, and shared.
    async fn tell_everybody(&self, Places { places, rounds, moved }: Places) {
        let cursor = Cursor::new(self.0.marks.partitions.log, places);
        let mut made: HashMap<AppId, (ServerFrame, Frames)> = HashMap::new();
        let users = self.0.hub.all_users();
        let mut pace = Pace::over(TOLD_IN, users.len(), USERS_AT_ONCE);
        for user in users {
            pace.next().await;
            for handle in user.due_for_cursor(&rounds, moved) {
                let (app, format) = (handle.user.app, handle.outbox.format());
                let (frame, frames) = made.entry(app).or_insert_with(|| {
                    let cursor = self.0.cursors.text(app, &cursor);
                    (ServerFrame::Cursor { cursor }, Frames::default())
                });
                handle.outbox.offer(frames.get(format, || framed(frame, format)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::{ids::Offset, term::TermState};

    use super::*;

    fn told(offset: Offset) -> LogPlace {
        LogPlace { offset, state: TermState::default() }
    }

    #[test]
    fn a_partition_that_was_not_seen_stays_where_an_earlier_round_saw_it() {
        let rounds = Rounds::default();
        rounds.begin_at(vec![told(5), told(7)]);
        let round = |seen| rounds.end(rounds.begin(Vec::new).0, seen);
        let stand = |places: [Offset; 2], rounds: &[u64], moved| Places {
            places: places.map(told).to_vec(),
            rounds: rounds.to_vec(),
            moved,
        };
        assert_eq!(round(vec![Some(told(6)), None]), stand([6, 7], &[1, 2], 2));
        assert_eq!(round(vec![None, Some(told(7))]), stand([6, 7], &[2, 3], 2), "nothing has moved");
        assert_eq!(
            round(vec![Some(told(4)), Some(told(9))]),
            stand([6, 9], &[2, 4], 4),
            "and none goes back"
        );
    }

    #[test]
    fn the_first_round_says_nothing_of_sessions_that_had_read_before_it() {
        let rounds = Rounds::default();
        let read = rounds.current();
        let before = rounds.began(read);
        rounds.begin_at(vec![told(5), told(7)]);
        let around = rounds.began(read);
        let after = rounds.began(rounds.current());
        let (round, heard) = rounds.begin(|| vec![Some(told(6)), None]);
        let said = rounds.end(round, heard).rounds;
        let reached = [before, around, after].map(|began| began.outlasts(&said));
        assert_eq!(reached, [false, false, true], "one partition stands where the first round saw it");
        let (round, heard) = rounds.begin(|| vec![Some(told(6)), Some(told(8))]);
        let said = rounds.end(round, heard).rounds;
        assert!([before, around, after].iter().all(|began| began.outlasts(&said)));
    }

    #[test]
    fn a_session_that_reads_its_chats_while_a_round_begins_is_left_out_of_it() {
        let rounds = Rounds::default();
        rounds.begin_at(vec![told(5)]);
        let mut read = 0;
        let (round, _) = rounds.begin(|| {
            read = rounds.current();
            vec![Some(told(6))]
        });
        assert!(!rounds.began(read).outlasts(&[round]));
    }
}
