//! Invariant 6: 10 s after a change, after the session began, and after the last fault that was done to the cluster, a connected member has been shown
//! the change, has read the chat since, or has been told that the view is not whole.
//!
//! When a change happened is told by the first who saw it or was told of it, on the run's clock. Who is a member at it is told by the chat
//! itself; where anything between is seen by nobody, that is not known, and the judge holds its peace.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use common::ids::{ChatId, Seq, UserId};

use super::{
    DeviceJournal, Violation,
    facts::{Facts, Place},
    members::{Members, Membership, memberships},
};
use crate::journal::{Answer, Entry, Event, Fate};

/// In microseconds, as all times here.
const WITHIN: u64 = 10_000_000;

/// How much later than it happened a change may be seen first. Who is told that the view is not whole is told of everything that
/// happened until then, seen or not.
const SEEN_WITHIN: u64 = 3_000_000;

/// A chat begins with a record for each 1,000 of its members, which nobody is shown.
const FIRST_RECORDS: Seq = 60;

/// A chat's changes, with when and where each was first heard of.
type Known = BTreeMap<Seq, (u64, Place)>;

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let (members, _) = memberships(facts);
    let mut found = Vec::new();
    let mut clocks: Vec<u64> = facts.journals.devices.iter().map(|journal| journal.clock).collect();
    clocks.sort_unstable();
    clocks.dedup();
    for clock in clocks {
        let run = Run { facts, known: known(facts, clock), faults: faults(facts, clock), members: &members };
        for (device, journal) in facts.journals.devices.iter().enumerate() {
            if journal.clock == clock {
                run.device(device, journal, &mut found);
            }
        }
    }
    found
}

/// Every change that anybody heard of, on one clock.
fn known(facts: &Facts<'_>, clock: u64) -> HashMap<ChatId, Known> {
    let mut known: HashMap<ChatId, Known> = HashMap::new();
    let mut hear = |chat: ChatId, seq: Seq, place: Place| {
        let Some((_, at)) = facts.time(place).filter(|(other, _)| *other == clock) else { return };
        let first = known.entry(chat).or_default().entry(seq).or_insert((at, place));
        if at < first.0 {
            *first = (at, place);
        }
    };
    for (place, _, event) in facts.events() {
        hear(event.chat, event.seq, place);
    }
    for ((chat, ..), sent) in &facts.sent {
        sent.acks.iter().for_each(|ack| hear(*chat, ack.seq, ack.place));
    }
    for asked in &facts.asked {
        use crate::journal::Ask;
        if let (
            Ask::Edit { chat, .. } | Ask::Delete { chat, .. } | Ask::React { chat, .. },
            Some((Answer::Done { seq: Some(seq), .. }, place)),
        ) = (asked.ask, asked.answer)
        {
            hear(*chat, *seq, place);
        }
    }
    known
}

/// From when to when something was being done to the cluster.
fn faults(facts: &Facts<'_>, clock: u64) -> Vec<(u64, u64)> {
    let mut intervals = Vec::new();
    for journal in facts.journals.faults.iter().filter(|journal| journal.clock == clock) {
        let mut open: HashMap<&str, u64> = HashMap::new();
        for line in &journal.lines {
            match &line.entry {
                Entry::Fault(Fate::Begins { what }) => drop(open.entry(what).or_insert(line.at)),
                Entry::Fault(Fate::Ends { what }) => {
                    intervals.extend(open.remove(what.as_str()).map(|begun| (begun, line.at)));
                }
                _ => {}
            }
        }
        // What is never over excuses everything after it.
        intervals.extend(open.into_values().map(|begun| (begun, u64::MAX)));
    }
    intervals.sort_unstable();
    intervals
}

/// How a session came to know one chat.
#[derive(Debug, Default)]
struct View {
    /// How far, and since when; both rise.
    has: Vec<(u64, Seq)>,
    /// When it was told that it is not whole.
    told: Vec<u64>,
}

impl View {
    fn knows(&mut self, at: u64, seq: Seq) {
        if self.has.last().is_none_or(|(_, has)| *has < seq) {
            self.has.push((at, seq));
        }
    }

    /// How far it was known at a time.
    fn at(&self, at: u64) -> Seq {
        let later = self.has.partition_point(|(since, _)| *since <= at);
        later.checked_sub(1).and_then(|newest| self.has.get(newest)).map_or(0, |(_, seq)| *seq)
    }
}

/// One socket session of a device.
#[derive(Debug)]
struct Session {
    opened: u64,
    /// When the last session began that was not resumed, this one or one before it: everything was to be read then.
    anew: u64,
    place: Place,
    closed: Option<u64>,
    views: HashMap<ChatId, View>,
}

struct Run<'f, 'a> {
    facts: &'f Facts<'a>,
    known: HashMap<ChatId, Known>,
    faults: Vec<(u64, u64)>,
    members: &'f Members,
}

impl Run<'_, '_> {
    fn device(&self, device: usize, journal: &DeviceJournal, found: &mut Vec<Violation>) {
        let mut have: HashMap<ChatId, Seq> = HashMap::new();
        // What was told is known in the next session as well, if it is resumed.
        let mut told: HashMap<ChatId, u64> = HashMap::new();
        let mut said = None;
        let mut anew = 0;
        let mut session: Option<Session> = None;
        for (line, written) in journal.lines.iter().enumerate() {
            let (at, place) = (written.at, Place { device, line });
            if let Entry::Resuming { chats, .. } = &written.entry {
                said = Some(chats);
                continue;
            }
            if let Entry::Opened { resuming, .. } = &written.entry {
                let said = said.take();
                if *resuming {
                    have.extend(said.into_iter().flatten().map(|(chat, seq)| (*chat, *seq)));
                } else {
                    anew = at;
                    have.clear();
                    told.clear();
                }
                let mut views: HashMap<ChatId, View> = HashMap::new();
                for (chat, seq) in &have {
                    views.entry(*chat).or_default().knows(at, *seq);
                }
                for (chat, at) in &told {
                    views.entry(*chat).or_default().told.push(*at);
                }
                session = Some(Session { opened: at, anew, place, closed: None, views });
                continue;
            }
            let Some(open) = &mut session else { continue };
            match &written.entry {
                Entry::Closed { .. } => {
                    open.closed = Some(at);
                    self.session(journal.user, open, found);
                    session = None;
                }
                Entry::Event(Event { chat, seq, .. })
                | Entry::NewChat { chat, seq }
                | Entry::ViewRestarted { chat, seq, .. } => {
                    open.views.entry(*chat).or_default().knows(at, *seq);
                    have.entry(*chat).and_modify(|has| *has = (*has).max(*seq)).or_insert(*seq);
                }
                Entry::Resumed { chats, .. } => {
                    for mended in chats {
                        let view = open.views.entry(mended.chat).or_default();
                        if mended.complete {
                            view.knows(at, mended.to);
                            have.entry(mended.chat)
                                .and_modify(|has| *has = (*has).max(mended.to))
                                .or_insert(mended.to);
                        } else {
                            view.told.push(at);
                            told.insert(mended.chat, at);
                            have.remove(&mended.chat);
                        }
                    }
                }
                Entry::ChatReload { chat } | Entry::ChatRemoved { chat } => {
                    open.views.entry(*chat).or_default().told.push(at);
                    told.insert(*chat, at);
                    have.remove(chat);
                }
                _ => {}
            }
        }
    }

    /// One session that has ended: what was it to see while it was open, and did not?
    fn session(&self, user: UserId, session: &Session, found: &mut Vec<Violation>) {
        let closed = session.closed.unwrap_or(0);
        if closed.saturating_sub(session.opened) <= WITHIN {
            return;
        }
        for (chat, known) in &self.known {
            let Some(membership) = self.members.get(&(*chat, user)) else { continue };
            let nothing = View::default();
            let view = session.views.get(chat).unwrap_or(&nothing);
            let missed = |(seq, (at, _)): &(&Seq, &(u64, Place))| {
                self.missed(session, view, membership, known, **seq, *at)
            };
            let mut missed = known.iter().filter(missed);
            let Some((seq, (at, place))) = missed.next() else { continue };
            let more = missed.count();
            let what = format!(
                "seq {seq} of chat {chat} was never shown to {user}, connected for {} s after it and told nothing ({more} more)",
                (closed - at.max(&session.opened)) / 1_000_000
            );
            found.push(Violation {
                invariant: 6,
                what,
                evidence: self.facts.evidences([*place, session.place]),
            });
        }
    }

    fn missed(
        &self,
        session: &Session,
        view: &View,
        member: &Membership,
        known: &Known,
        seq: Seq,
        at: u64,
    ) -> bool {
        // The session, or the one it goes on from, began with "read everything again".
        if at <= session.anew + SEEN_WITHIN {
            return false;
        }
        let due = self.due(at.max(session.opened));
        session.closed.is_some_and(|closed| due < closed)
            && view.at(due) < seq
            && !view.told.iter().any(|told| *told <= due && at <= told + SEEN_WITHIN)
            && self.is_member(member, known, seq, due)
    }

    /// When what happened at `at` must have been seen.
    fn due(&self, at: u64) -> u64 {
        let mut due = at.saturating_add(WITHIN);
        // In order of their beginnings: one pass finds what each drags along.
        for (begun, over) in &self.faults {
            if *begun <= due && *over >= at {
                due = due.max(over.saturating_add(WITHIN));
            }
        }
        due
    }

    /// Whether the user was surely in the chat at `seq`, and until `due`.
    fn is_member(&self, member: &Membership, known: &Known, seq: Seq, due: u64) -> bool {
        let first = known.keys().next().copied().unwrap_or(0);
        let since = match member.changes.range(..=seq).next_back() {
            Some((joined, (true, _))) => *joined,
            Some((_, (false, _))) => return false,
            None if member.founder && first <= FIRST_RECORDS => first.saturating_sub(1),
            None => return false,
        };
        let seen = known.range((Bound::Excluded(since), Bound::Included(seq))).count() as u64;
        let leaves = member.changes.range(seq + 1..).find(|(_, (joined, _))| !joined);
        let left = leaves.and_then(|(left, _)| known.get(left)).is_some_and(|(at, _)| *at <= due);
        seen == seq.saturating_sub(since) && !left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::testing::{self, SECOND, user},
        journal::{Ask, Mended, Restart, What},
    };

    /// `a` sees two changes, `b` the first one only; then so many seconds pass, and `b`'s session ends.
    fn silent(seconds: u64, meanwhile: impl FnOnce(&mut testing::Run)) -> Vec<u8> {
        let mut run = testing::Run::new();
        run.later(10 * SECOND);
        run.event('a', 1, What::ChatUpdated).event('b', 1, What::ChatUpdated).event(
            'a',
            2,
            What::ChatUpdated,
        );
        meanwhile(&mut run);
        run.later(seconds * SECOND).close('b');
        run.broken()
    }

    #[test]
    fn the_last_change_before_a_silence_that_one_member_never_sees_is_found() {
        assert_eq!(silent(11, |_| ()), [6]);
        assert_eq!(silent(9, |_| ()), [] as [u8; 0], "there is time yet");
    }

    #[test]
    fn who_sees_it_late_reads_it_or_is_told_is_not_wronged() {
        let chat = testing::Run::new().chat;
        for (n, entry) in [
            Entry::Event(Event { chat, seq: 2, by: user('a'), what: What::ChatUpdated }),
            Entry::ViewRestarted { chat, seq: 2, number: 0, why: Restart::Told },
            Entry::ChatReload { chat },
            Entry::Resumed { chats: vec![Mended { chat, from: 1, to: 1, complete: false }], hello: false },
        ]
        .into_iter()
        .enumerate()
        {
            let late = silent(30, |run| _ = run.later(8 * SECOND).write('b', entry.clone()));
            assert_eq!(late, [] as [u8; 0], "{n}");
            if n < 3 {
                let too_late = silent(30, |run| _ = run.later(12 * SECOND).write('b', entry));
                assert_eq!(too_late, [6], "{n}");
            }
        }
    }

    #[test]
    fn ten_seconds_count_from_the_last_fault() {
        let fault = |ends: bool| {
            let what = || "links are cut".to_owned();
            if ends { Fate::Ends { what: what() } } else { Fate::Begins { what: what() } }
        };
        let during = |run: &mut testing::Run| {
            run.fate(fault(false)).later(5 * SECOND).fate(fault(true));
        };
        assert_eq!(silent(9, during), [] as [u8; 0]);
        assert_eq!(silent(11, during), [6]);
        assert_eq!(silent(100, |run| _ = run.fate(fault(false))), [] as [u8; 0], "it never ends");
    }

    #[test]
    fn a_session_that_begins_anew_is_told_to_read_and_one_that_is_resumed_is_not() {
        for resuming in [false, true] {
            let found = silent(0, |run| {
                run.close('b').opens('b', resuming);
                run.later(11 * SECOND);
            });
            assert_eq!(found, if resuming { vec![6] } else { vec![] });
        }
    }

    #[test]
    fn what_was_told_or_began_anew_before_a_resumed_session_is_not_asked_of_it() {
        let chat = testing::Run::new().chat;
        let told = silent(0, |run| {
            run.write('b', Entry::ChatReload { chat }).close('b').opens('b', true).later(11 * SECOND);
        });
        assert_eq!(told, [] as [u8; 0]);
        let anew = silent(0, |run| {
            run.close('b').opens('b', false).close('b').opens('b', true).later(11 * SECOND);
        });
        assert_eq!(anew, [] as [u8; 0]);
    }

    #[test]
    fn a_change_that_a_resumed_session_is_not_told_of_is_found() {
        let chat = testing::Run::new().chat;
        let silent = silent(0, |run| {
            // It came behind a hole, and the device said so.
            run.event('b', 2, What::ChatUpdated).close('b');
            run.write('b', Entry::Resuming { cursor: None, chats: [(chat, 1)].into() }).opens('b', true);
            run.write('b', Entry::Resumed { chats: vec![], hello: true }).later(11 * SECOND);
        });
        assert_eq!(silent, [6]);
    }

    #[test]
    fn who_has_left_or_comes_later_misses_nothing() {
        let mut run = testing::Run::new();
        run.device('c');
        run.later(10 * SECOND);
        run.event('a', 1, What::Left { user: user('b') }).event('a', 2, What::ChatUpdated);
        run.asks('a', Ask::Add { chat: run.chat, user: user('c') }, Answer::Done { chat: None, seq: None });
        run.event('a', 3, What::Joined { user: user('c') });
        run.later(20 * SECOND).close('b').close('c');
        let missed: Vec<String> = run.judged().into_iter().map(|violation| violation.what).collect();
        assert_eq!(missed.len(), 1, "{missed:?}");
        assert!(missed[0].contains(&user('c').to_string()) && missed[0].starts_with("seq 3"), "{missed:?}");
    }
}
