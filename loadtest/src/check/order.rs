//! Invariant 5: one device's messages keep their sending order, and a message written after another was seen stands behind it.
//!
//! Order is judged from when a message was *first* handed to a socket. Two cases are left out. A was answered with an error when B was
//! on its way already: then A was sent once more, after B, and its device knew that. And A was sent before its sender was let into the
//! chat, and once more after that: the first copy was refused, which a break of the connection may have kept from the device.

use std::collections::{BTreeMap, HashMap};

use common::ids::{ChatId, ClientId, Number, Seq, UserId};

use super::{
    DeviceJournal, Violation,
    facts::{Facts, Place},
};
use crate::journal::{Entry, Event, What};

/// A message of this device whose number is known.
#[derive(Clone, Copy, Debug)]
struct Mine<'a> {
    client_id: &'a ClientId,
    number: Number,
    first: usize,
    /// From which line on everything written must stand behind it.
    binds: usize,
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for ((device, chat), mine) in mine(facts) {
        sending_order(facts, device, chat, &mine, &mut found);
    }
    for (device, journal) in facts.journals.devices.iter().enumerate() {
        causality(facts, device, journal, &mut found);
    }
    found
}

/// What each device sent to each chat, and no other device with it: then it is this device's order.
fn mine<'a>(facts: &Facts<'a>) -> BTreeMap<(usize, ChatId), Vec<Mine<'a>>> {
    let let_in = let_in(facts);
    let at = |place: Place| {
        let journal = facts.journals.devices.get(place.device);
        journal.and_then(|journal| journal.lines.get(place.line)).map_or(0, |line| line.at)
    };
    let mut all: BTreeMap<(usize, ChatId), Vec<Mine<'a>>> = BTreeMap::new();
    for (&(chat, user, client_id), sent) in &facts.sent {
        let (Some(ack), Some(attempt)) = (sent.acks.first(), sent.attempts.first()) else { continue };
        if sent.attempts.iter().any(|other| other.device != attempt.device) {
            continue;
        }
        let first = attempt.line;
        let trouble = sent.refusals.iter().map(|place| place.line).max().unwrap_or(0);
        let between = |joined: &u64| {
            sent.attempts
                .last()
                .filter(|last| (at(*attempt)..=at(**last)).contains(joined))
                .map(|last| last.line)
        };
        let joined = let_in.get(&(chat, user)).into_iter().flatten().filter_map(between).max().unwrap_or(0);
        let mine = Mine { client_id, number: ack.number, first, binds: first.max(trouble).max(joined) };
        all.entry((attempt.device, chat)).or_default().push(mine);
    }
    all
}

/// When it was first seen that a user had come into a chat, each time that one did.
fn let_in(facts: &Facts<'_>) -> HashMap<(ChatId, UserId), Vec<u64>> {
    let mut first_seen: BTreeMap<(ChatId, Seq), (UserId, u64)> = BTreeMap::new();
    for line in facts.journals.devices.iter().flat_map(|journal| &journal.lines) {
        if let Entry::Event(Event { chat, seq, what: What::Joined { user }, .. }) = &line.entry {
            let seen = first_seen.entry((*chat, *seq)).or_insert((*user, line.at));
            seen.1 = seen.1.min(line.at);
        }
    }
    let mut let_in: HashMap<(ChatId, UserId), Vec<u64>> = HashMap::new();
    for ((chat, _), (user, at)) in first_seen {
        let_in.entry((chat, user)).or_default().push(at);
    }
    let_in
}

/// For each message: none that was bound to stand before it stands behind it.
fn sending_order(
    facts: &Facts<'_>,
    device: usize,
    chat: ChatId,
    mine: &[Mine<'_>],
    found: &mut Vec<Violation>,
) {
    let mut written: Vec<&Mine<'_>> = mine.iter().collect();
    written.sort_by_key(|mine| mine.first);
    let mut binding: Vec<&Mine<'_>> = mine.iter().collect();
    binding.sort_by_key(|mine| mine.binds);
    let mut binding = binding.into_iter().peekable();
    let mut highest: Option<&Mine<'_>> = None;
    for later in written {
        while let Some(earlier) = binding.next_if(|earlier| earlier.binds < later.first) {
            if highest.is_none_or(|highest| highest.number < earlier.number) {
                highest = Some(earlier);
            }
        }
        if let Some(earlier) = highest.filter(|earlier| earlier.number > later.number) {
            let what = format!(
                "{} was sent before {} to chat {chat}, and has number {} behind {}",
                earlier.client_id, later.client_id, earlier.number, later.number
            );
            let places = [earlier.first, later.first].map(|line| Place { device, line });
            found.push(Violation { invariant: 5, what, evidence: facts.evidences(places) });
        }
    }
}

fn causality(facts: &Facts<'_>, device: usize, journal: &DeviceJournal, found: &mut Vec<Violation>) {
    let mut seen: HashMap<ChatId, (Number, usize)> = HashMap::new();
    let see = |seen: &mut HashMap<ChatId, (Number, usize)>, chat: ChatId, number: Number, line: usize| {
        let newest = seen.entry(chat).or_insert((number, line));
        if newest.0 < number {
            *newest = (number, line);
        }
    };
    for (line, entry) in journal.lines.iter().map(|line| &line.entry).enumerate() {
        match entry {
            Entry::Event(Event { chat, what: What::Message { number, .. }, .. }) => {
                see(&mut seen, *chat, *number, line);
            }
            Entry::Acked { chat, number, .. } => see(&mut seen, *chat, *number, line),
            Entry::Sending { chat, client_id, retry: false, .. } => {
                let Some((newest, at)) = seen.get(chat) else { continue };
                let Some(sent) = facts.sent.get(&(*chat, journal.user, client_id)) else { continue };
                let place = Place { device, line };
                // Another device may have sent it before this one saw anything.
                let first_here =
                    sent.attempts.iter().all(|other| other.device == device && other.line >= line);
                let Some(ack) = sent.acks.first().filter(|_| first_here) else { continue };
                if ack.number <= *newest {
                    let what = format!(
                        "{client_id} has number {} in chat {chat}, and its sender had seen number {newest} before writing it",
                        ack.number
                    );
                    let evidence = facts.evidences([Place { device, line: *at }, place, ack.place]);
                    found.push(Violation { invariant: 5, what, evidence });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use common::wire::codes::ErrorCode;

    use crate::{
        check::testing::{Run, kept, user},
        journal::What,
    };

    #[test]
    fn a_message_overtaken_by_a_later_one_of_its_device_is_found() {
        let mut run = Run::new();
        run.sending('b', "one", false).sending('b', "two", false);
        run.acked('b', "one", 2, 2).acked('b', "two", 1, 1);
        run.history(2, vec![kept(1, 'b', "two"), kept(2, 'b', "one")]);
        assert_eq!(run.broken(), [5]);
    }

    #[test]
    fn a_message_that_was_answered_with_an_error_while_the_next_was_on_its_way_may_stand_behind_it() {
        let mut run = Run::new();
        run.sending('b', "one", false).sending('b', "two", false);
        run.refused('b', "one", ErrorCode::RetryLater).acked('b', "two", 1, 1);
        run.sending('b', "one", true).acked('b', "one", 2, 2);
        run.history(2, vec![kept(1, 'b', "two"), kept(2, 'b', "one")]);
        assert_eq!(run.broken(), [] as [u8; 0]);
    }

    #[test]
    fn a_break_of_the_connection_excuses_nothing() {
        let mut run = Run::new();
        run.sending('b', "one", false).sending('b', "two", false);
        run.open('b');
        run.sending('b', "one", true).acked('b', "one", 2, 2);
        run.sending('b', "two", true).acked('b', "two", 1, 1);
        run.history(2, vec![kept(1, 'b', "two"), kept(2, 'b', "one")]);
        assert_eq!(run.broken(), [5]);
    }

    #[test]
    fn a_message_that_was_sent_before_its_sender_was_let_in_may_stand_where_it_was_sent_again() {
        for let_in in [true, false] {
            let mut run = Run::new();
            run.sending('b', "one", false);
            if let_in {
                run.event('a', 2, What::Joined { user: user('b') });
            }
            run.sending('b', "two", false);
            run.open('b');
            run.sending('b', "one", true).acked('b', "one", 2, 4);
            run.sending('b', "two", true).acked('b', "two", 1, 3);
            run.history(2, vec![kept(1, 'b', "two"), kept(2, 'b', "one")]);
            assert_eq!(run.broken().contains(&5), !let_in);
        }
    }

    #[test]
    fn an_answer_that_stands_before_what_it_answers_is_found() {
        let mut run = Run::new();
        run.sending('a', "question", false).acked('a', "question", 2, 2);
        run.message('b', 2, 2, 'a', "question");
        run.sending('b', "answer", false).acked('b', "answer", 1, 1);
        run.history(2, vec![kept(1, 'b', "answer"), kept(2, 'a', "question")]);
        assert_eq!(run.broken(), [5]);
    }
}
