//! Invariant 11: a read mark never goes back and never passes the head, and what is unread is counted from it.
//!
//! A mark is known from its reader's acks and from what others are told (`message_read`). One's own messages move it too.

use std::collections::{BTreeMap, HashMap};

use common::ids::{ChatId, Number, UserId};

use super::{
    Violation,
    facts::{Facts, Place},
    members::{Members, memberships},
};
use crate::journal::{Answer, Ask, Counted, Entry, Event, What};

/// Whose mark, where.
type Whose = (ChatId, UserId);

/// A mark that its reader was acknowledged, when it was asked and when it was answered.
#[derive(Clone, Copy, Debug)]
struct Acked {
    number: Number,
    clock: u64,
    asked: (u64, Place),
    answered: (u64, Place),
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let acked = acked(facts);
    told(facts, &mut found);
    for ((chat, user), acks) in &acked {
        back(facts, *chat, *user, acks, &mut found);
    }
    beyond_head(facts, &acked, &mut found);
    unread(facts, &acked, &mut found);
    found
}

fn acked(facts: &Facts<'_>) -> BTreeMap<Whose, Vec<Acked>> {
    let mut acked: BTreeMap<Whose, Vec<Acked>> = BTreeMap::new();
    for asked in &facts.asked {
        let (Ask::Read { chat, .. }, Some((Answer::Read { number }, place))) = (asked.ask, asked.answer)
        else {
            continue;
        };
        let (Some((clock, from)), Some((_, to))) = (facts.time(asked.place), facts.time(place)) else {
            continue;
        };
        let ack = Acked { number: *number, clock, asked: (from, asked.place), answered: (to, place) };
        acked.entry((*chat, asked.by)).or_default().push(ack);
    }
    acked
}

/// A mark that one session is told of and that is behind what it was told before.
fn told(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for (device, journal) in facts.journals.devices.iter().enumerate() {
        let mut marks: HashMap<Whose, (Number, Place)> = HashMap::new();
        for (line, entry) in journal.lines.iter().map(|line| &line.entry).enumerate() {
            let place = Place { device, line };
            match entry {
                // Who leaves and comes again begins anew.
                Entry::Event(Event { chat, what: What::Left { user }, .. }) => {
                    marks.remove(&(*chat, *user));
                }
                Entry::ChatRemoved { chat } => marks.retain(|(other, _), _| other != chat),
                Entry::ReadMark { chat, user, number } => {
                    let (before, at) = *marks.entry((*chat, *user)).or_insert((*number, place));
                    if *number < before {
                        let what =
                            format!("{user}'s read mark in chat {chat} went back from {before} to {number}");
                        found.push(Violation { invariant: 11, what, evidence: facts.evidences([at, place]) });
                    }
                    marks.insert((*chat, *user), (*number, place));
                }
                _ => {}
            }
        }
    }
}

/// A mark that was acknowledged, and a smaller one to a later question.
fn back(facts: &Facts<'_>, chat: ChatId, user: UserId, acks: &[Acked], found: &mut Vec<Violation>) {
    let mut asked: Vec<&Acked> = acks.iter().collect();
    asked.sort_by_key(|ack| ack.asked.0);
    let mut answered: Vec<&Acked> = acks.iter().collect();
    answered.sort_by_key(|ack| ack.answered.0);
    let mut answered = answered.into_iter().peekable();
    let mut highest: HashMap<u64, &Acked> = HashMap::new();
    for later in asked {
        while let Some(earlier) = answered.next_if(|earlier| earlier.answered.0 < later.asked.0) {
            let newest = highest.entry(earlier.clock).or_insert(earlier);
            if newest.number < earlier.number {
                *newest = earlier;
            }
        }
        if let Some(earlier) = highest.get(&later.clock).filter(|earlier| earlier.number > later.number)
            && !left_between(facts, chat, user)
        {
            let what = format!(
                "{user}'s read mark in chat {chat} was {} and, asked later, {}",
                earlier.number, later.number
            );
            let evidence = facts.evidences([earlier.answered.1, later.answered.1]);
            found.push(Violation { invariant: 11, what, evidence });
        }
    }
}

/// Whether the user ever left: then the mark may have begun anew.
fn left_between(facts: &Facts<'_>, chat: ChatId, user: UserId) -> bool {
    facts.events().any(|(_, _, event)| event.chat == chat && event.what == What::Left { user })
}

/// A mark past the last message there is in the end.
fn beyond_head(facts: &Facts<'_>, acked: &BTreeMap<Whose, Vec<Acked>>, found: &mut Vec<Violation>) {
    let heads: HashMap<ChatId, Number> = facts
        .histories
        .iter()
        .filter(|history| history.complete)
        .map(|history| (history.chat, history.head.number))
        .collect();
    let mut see = |chat: ChatId, user: UserId, number: Number, place: Place| {
        if let Some(head) = heads.get(&chat).filter(|head| number > **head) {
            let what = format!("{user}'s read mark in chat {chat} is {number}, and the chat ends at {head}");
            found.push(Violation { invariant: 11, what, evidence: facts.evidences([place]) });
        }
    };
    for ((chat, user), acks) in acked {
        acks.iter().for_each(|ack| see(*chat, *user, ack.number, ack.answered.1));
    }
    for (device, journal) in facts.journals.devices.iter().enumerate() {
        for (line, entry) in journal.lines.iter().map(|line| &line.entry).enumerate() {
            if let Entry::ReadMark { chat, user, number } = entry {
                see(*chat, *user, *number, Place { device, line });
            }
        }
    }
}

/// Counts of what is unread that do not follow from the marks.
fn unread(facts: &Facts<'_>, acked: &BTreeMap<Whose, Vec<Acked>>, found: &mut Vec<Violation>) {
    let (members, _) = memberships(facts);
    for asked in &facts.asked {
        let (Ask::Chats, Some((Answer::Chats { chats }, at))) = (asked.ask, asked.answer) else { continue };
        for Counted { chat, messages, unread } in chats {
            let whose = (*chat, asked.by);
            let mut wrong = |what: String, other: Option<Place>| {
                let what = format!(
                    "{unread} of {messages} messages of chat {chat} are unread to {}, {what}",
                    asked.by
                );
                let evidence = facts.evidences([at].into_iter().chain(other));
                found.push(Violation { invariant: 11, what, evidence });
            };
            let read = messages.saturating_sub(*unread);
            if unread > messages {
                wrong("which is more than there are".to_owned(), None);
            } else if let Some((mark, place)) =
                // A mark may be ahead of the stored messages, which are the ones counted.
                least(facts, &members, acked, whose, asked.place, *messages)
                        .filter(|(mark, _)| read < *mark.min(messages))
            {
                wrong(format!("who had read them up to {mark}"), Some(place));
            } else if most(facts, &members, whose).is_some_and(|most| read > most) {
                wrong("and nobody has read as many".to_owned(), None);
            }
        }
    }
}

/// Whether nothing but the beginning made the user a member: then the mark has had one life.
fn stayed(members: &Members, whose: Whose) -> bool {
    members.get(&whose).is_some_and(|member| member.founder && member.changes.is_empty())
}

/// How far the mark was at least when something was asked, and `messages` of the chat were stored.
fn least(
    facts: &Facts<'_>,
    members: &Members,
    acked: &BTreeMap<Whose, Vec<Acked>>,
    whose: Whose,
    before: Place,
    messages: Number,
) -> Option<(Number, Place)> {
    if !stayed(members, whose) {
        return None;
    }
    let (clock, until) = facts.time(before)?;
    let earlier = |place: Place| facts.time(place).is_some_and(|(other, at)| other == clock && at < until);
    let marks = acked.get(&whose).into_iter().flatten().map(|ack| (ack.number, ack.answered.1));
    let own = facts.sent.iter().filter(|((chat, user, _), _)| (*chat, *user) == whose);
    let own = own.flat_map(|(_, sent)| sent.acks.iter().map(|ack| (ack.number, ack.place)));
    // One's own messages count when they are stored, which may be a while after they are acknowledged.
    let own = own.filter(|(number, _)| *number <= messages);
    marks.chain(own).filter(|(_, place)| earlier(*place)).max_by_key(|(number, _)| *number)
}

/// How far the mark can be at most, over the whole run; not known of who came later than the chat began.
fn most(facts: &Facts<'_>, members: &Members, whose: Whose) -> Option<Number> {
    if !stayed(members, whose) {
        return None;
    }
    let asked = facts.asked.iter().filter_map(|asked| match asked.ask {
        Ask::Read { chat, number } if (*chat, asked.by) == whose => Some(*number),
        _ => None,
    });
    // A history that nobody read does not tell which messages are one's own.
    let history = facts.histories.iter().find(|history| history.chat == whose.0 && history.complete)?;
    let own = history.messages.iter().filter(|message| message.from == whose.1);
    Some(asked.chain(own.map(|message| message.number)).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{Run, SECOND, kept, user};

    fn two() -> Run {
        let mut run = Run::new();
        run.sending('a', "one", false).acked('a', "one", 1, 1);
        run.sending('a', "two", false).acked('a', "two", 2, 2);
        run.history(2, vec![kept(1, 'a', "one"), kept(2, 'a', "two")]);
        run
    }

    fn read(run: &mut Run, number: u64, answered: u64) {
        let chat = run.chat;
        run.asks('b', Ask::Read { chat, number }, Answer::Read { number: answered });
    }

    #[test]
    fn a_mark_that_goes_back_is_found_by_its_reader_and_by_who_is_told() {
        let mut run = two();
        read(&mut run, 1, 1);
        read(&mut run, 2, 2);
        read(&mut run, 1, 2);
        assert_eq!(run.broken(), [] as [u8; 0]);
        read(&mut run, 1, 1);
        assert_eq!(run.broken(), [11]);

        let mut run = two();
        let chat = run.chat;
        for number in [1, 2, 2] {
            run.write('a', Entry::ReadMark { chat, user: user('b'), number });
        }
        assert_eq!(run.broken(), [] as [u8; 0]);
        run.write('a', Entry::ReadMark { chat, user: user('b'), number: 1 });
        assert_eq!(run.broken(), [11]);
    }

    #[test]
    fn a_mark_past_the_head_is_found() {
        let mut run = two();
        read(&mut run, 7, 2);
        assert_eq!(run.broken(), [] as [u8; 0]);
        read(&mut run, 7, 7);
        assert_eq!(run.broken(), [11]);
    }

    #[test]
    fn counts_that_do_not_follow_from_the_marks_are_found() {
        for (unread, broken) in [(0, true), (1, false), (2, true), (3, true)] {
            let mut run = two();
            read(&mut run, 1, 1);
            let counted = Counted { chat: run.chat, messages: 2, unread };
            run.asks('b', Ask::Chats, Answer::Chats { chats: vec![counted] });
            assert_eq!(run.broken(), if broken { vec![11] } else { vec![] }, "{unread}");
        }
        let mut run = two();
        let counted = Counted { chat: run.chat, messages: 2, unread: 1 };
        run.asks('a', Ask::Chats, Answer::Chats { chats: vec![counted] });
        assert_eq!(run.broken(), [11], "one's own message is read");
        let mut run = two();
        let counted = Counted { chat: run.chat, messages: 1, unread: 0 };
        run.later(60 * SECOND).asks('a', Ask::Chats, Answer::Chats { chats: vec![counted] });
        assert_eq!(run.broken(), [] as [u8; 0], "its second message is not stored yet");
    }
}
