//! Invariant 12: at rest the rows are the valid message records of the log, no more and no fewer, and nothing is left to be drained.

use std::collections::BTreeMap;

use common::ids::{ChatId, Number};

use super::{Evidence, RestJournal, Violation, facts::Facts};
use crate::journal::{Drained, Entry, Kept};

type Messages<'a> = BTreeMap<(ChatId, Number), (&'a Kept, usize)>;

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    facts.journals.rest.iter().flat_map(compare).collect()
}

fn compare(rest: &RestJournal) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut wrong = |what: String, lines: &[usize]| {
        let evidence =
            lines.iter().map(|line| Evidence { file: rest.file.clone(), line: line + 1 }).collect();
        found.push(Violation { invariant: 12, what, evidence });
    };
    let (mut logged, mut rows) = (Messages::new(), Messages::new());
    for (at, line) in rest.lines.iter().enumerate() {
        let (into, chat, message) = match &line.entry {
            Entry::Logged { chat, message } => (&mut logged, chat, message),
            Entry::Row { chat, message } => (&mut rows, chat, message),
            Entry::Heads { chat, logged, row } => {
                if logged != row {
                    wrong(
                        format!("chat {chat} is at {logged:?} by the log, and its row says {row:?}"),
                        &[at],
                    );
                }
                continue;
            }
            Entry::Drained(drained) => {
                if let Some(what) = undrained(drained) {
                    wrong(what, &[at]);
                }
                continue;
            }
            _ => continue,
        };
        if let Some((_, before)) = into.insert((*chat, message.number), (message, at)) {
            wrong(format!("number {} of chat {chat} stands there twice", message.number), &[before, at]);
        }
    }
    for ((chat, number), (message, at)) in &logged {
        match rows.remove(&(*chat, *number)) {
            None => wrong(format!("number {number} of chat {chat} is in the log, and has no row"), &[*at]),
            Some((row, _)) if row == *message => {}
            // What it said has ended; its place has not.
            Some((row, _)) if row.expired && (row.id, row.from) == (message.id, message.from) => {}
            Some((_, row)) => {
                wrong(
                    format!("the row of number {number} of chat {chat} is not what the log says"),
                    &[*at, row],
                );
            }
        }
    }
    for ((chat, number), (_, at)) in rows {
        wrong(format!("number {number} of chat {chat} has a row, and is not in the log"), &[at]);
    }
    found
}

fn undrained(drained: &Drained) -> Option<String> {
    let Drained { partition, position, state, should_be, undrained } = drained;
    let at = position.unwrap_or(0);
    if *undrained > 0 {
        return Some(format!(
            "partition {partition} is drained up to {at}, and {undrained} valid changes follow in the log"
        ));
    }
    (state != should_be).then(|| {
        format!("the position of partition {partition}, {at}, says {state:?}, and by the log it is {should_be:?} there")
    })
}

#[cfg(test)]
mod tests {
    use common::{model::Head, term::TermState};

    use super::*;
    use crate::check::testing::{Run, kept};

    fn found(entries: Vec<Entry>) -> usize {
        let mut run = Run::new();
        run.at_rest(entries);
        let judged = run.judged();
        assert!(judged.iter().all(|violation| violation.invariant == 12));
        judged.len()
    }

    fn drained(undrained: u64, n: u64) -> Entry {
        let state = TermState { term: Some(1), n };
        let should_be = TermState { term: Some(1), n: 2 };
        Entry::Drained(Drained { partition: 0, position: Some(4), state, should_be, undrained })
    }

    #[test]
    fn rows_that_are_missing_doubled_invented_or_different_are_found() {
        let chat = Run::new().chat;
        let logged = |number, text: &str| Entry::Logged { chat, message: kept(number, 'a', text) };
        let row = |number, text: &str| Entry::Row { chat, message: kept(number, 'a', text) };
        assert_eq!(found(vec![logged(1, "one"), row(1, "one"), drained(0, 2)]), 0);
        assert_eq!(found(vec![logged(1, "one"), logged(2, "two"), row(1, "one")]), 1, "missing");
        assert_eq!(found(vec![logged(1, "one"), row(1, "one"), row(2, "one")]), 1, "invented");
        assert_eq!(found(vec![logged(1, "one"), row(1, "one"), row(1, "one")]), 1, "doubled");
        assert_eq!(found(vec![logged(1, "one"), row(1, "two")]), 1, "different");
        let reacted = |count| {
            let reaction = common::model::Reaction { emoji: "+".into(), count, users: Vec::new() };
            Kept { reactions: Kept::reactions(&[reaction]), ..kept(1, 'a', "one") }
        };
        let answered = |log, row| {
            vec![Entry::Logged { chat, message: reacted(log) }, Entry::Row { chat, message: reacted(row) }]
        };
        assert_eq!(found(answered(2, 2)), 0);
        assert_eq!(found(answered(2, 1)), 1, "a reaction is lost");
        let expired =
            |id: char| Entry::Row { chat, message: Kept { expired: true, deleted: true, ..kept(1, id, "") } };
        assert_eq!(found(vec![logged(1, "one"), expired('a')]), 0);
        assert_eq!(found(vec![logged(1, "one"), expired('b')]), 1, "somebody else's");
        let (here, there) = (Head { number: 1, seq: 2 }, Head { number: 1, seq: 1 });
        assert_eq!(found(vec![Entry::Heads { chat, logged: here, row: here }]), 0);
        assert_eq!(found(vec![Entry::Heads { chat, logged: here, row: there }]), 1, "behind");
    }

    #[test]
    fn a_position_that_is_behind_or_says_something_else_than_the_log_is_found() {
        assert_eq!(found(vec![drained(3, 2)]), 1);
        assert_eq!(found(vec![drained(0, 1)]), 1);
    }
}
