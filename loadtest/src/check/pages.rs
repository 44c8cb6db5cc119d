//! Invariant 7, of history: a page that is called complete has everything that was acknowledged before it was asked for: no
//! message of its range is missing, and none is shown as it was before an edit or a delete.
//!
//! What was acknowledged before is told by the clock, and so only between journals of one clock.

use std::collections::{BTreeMap, HashMap};

use common::{
    ids::{ChatId, MessageId, Number, Seq},
    model::Head,
};

use super::{
    Violation,
    facts::{Asked, Facts, Place},
};
use crate::journal::{Answer, Ask, Kept, Print};

/// Something acknowledged: when, and where that is written.
type When = (u64, u64, Place);

/// An edit or delete that may have been done.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// What it says now; absent when it was deleted.
    body: Option<Print>,
    /// When it was acknowledged, and its place in the chat.
    done: Option<(When, Option<Seq>)>,
}

#[derive(Debug, Default)]
struct Chat {
    acked: BTreeMap<Number, (MessageId, When)>,
    changes: HashMap<Number, Vec<Change>>,
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let chats = chats(facts);
    let nothing = Chat::default();
    let mut found = Vec::new();
    for asked in &facts.asked {
        let (Ask::History { chat, before, after, limit }, Some((answer, at))) = (asked.ask, asked.answer)
        else {
            continue;
        };
        let Answer::Page { head, complete: true, messages } = answer else { continue };
        let known = chats.get(chat).unwrap_or(&nothing);
        let page = Page { facts, asked, at, chat: *chat, head: *head, messages };
        found.extend(page.holes(*before, *after, *limit));
        found.extend(page.behind(known));
        found.extend(page.unchanged(known));
    }
    found
}

fn chats(facts: &Facts<'_>) -> HashMap<ChatId, Chat> {
    let mut chats: HashMap<ChatId, Chat> = HashMap::new();
    let when = |place: Place| facts.time(place).map(|(clock, at)| (clock, at, place));
    for ((chat, ..), sent) in &facts.sent {
        for ack in &sent.acks {
            if let Some(when) = when(ack.place) {
                let acked = &mut chats.entry(*chat).or_default().acked;
                let first = acked.entry(ack.number).or_insert((ack.id, when));
                if (when.0, when.1) < (first.1.0, first.1.1) {
                    *first = (ack.id, when);
                }
            }
        }
    }
    for asked in facts.asked.iter().filter(|asked| asked.possible()) {
        let (chat, number, body) = match asked.ask {
            Ask::Edit { chat, number, body } => (chat, number, Some(*body)),
            Ask::Delete { chat, number } => (chat, number, None),
            _ => continue,
        };
        let done = match asked.answer {
            Some((Answer::Done { seq, .. }, place)) => when(place).map(|when| (when, *seq)),
            _ => None,
        };
        let changes = &mut chats.entry(*chat).or_default().changes;
        changes.entry(*number).or_default().push(Change { body, done });
    }
    chats
}

/// A page that is called complete.
struct Page<'f, 'a> {
    facts: &'f Facts<'a>,
    asked: &'f Asked<'a>,
    at: Place,
    chat: ChatId,
    head: Head,
    messages: &'a [Kept],
}

impl Page<'_, '_> {
    fn wrong(&self, what: &str, other: Option<Place>) -> Option<Violation> {
        let what = format!("a page of chat {} is called complete, and {what}", self.chat);
        let evidence = self.facts.evidences([self.asked.place, self.at].into_iter().chain(other));
        Some(Violation { invariant: 7, what, evidence })
    }

    /// Whether something was acknowledged before the page was asked for.
    fn before(&self, (clock, at, _): When) -> bool {
        self.facts.time(self.asked.place).is_some_and(|(other, asked)| other == clock && at < asked)
    }

    /// Numbers of the range that are not there.
    fn holes(&self, before: Option<Number>, after: Option<Number>, limit: u32) -> Option<Violation> {
        let limit = u64::from(limit);
        let (first, last) = match (before, after) {
            (_, Some(after)) => (after + 1, after.saturating_add(limit).min(self.head.number)),
            (before, None) => {
                let last =
                    before.map_or(self.head.number, |before| before.saturating_sub(1).min(self.head.number));
                (last.saturating_sub(limit) + 1, last)
            }
        };
        let has = |number| self.messages.iter().any(|message| message.number == number);
        let missing = (first..=last).take(1_000).find(|number| !has(*number))?;
        self.wrong(&format!("number {missing} of {first} to {last} is not in it"), None)
    }

    /// A head that is behind what was acknowledged.
    fn behind(&self, known: &Chat) -> Option<Violation> {
        let beyond = known.acked.range(self.head.number + 1..);
        let (number, (_, when)) = beyond.into_iter().find(|(_, (_, when))| self.before(*when))?;
        self.wrong(
            &format!(
                "says that the chat ends at {}, when number {number} was acknowledged",
                self.head.number
            ),
            Some(when.2),
        )
    }

    /// A message without a change that was acknowledged.
    fn unchanged(&self, known: &Chat) -> Option<Violation> {
        self.messages.iter().find_map(|message| {
            let changes = known.changes.get(&message.number).map_or(&[][..], Vec::as_slice);
            let done = changes.iter().filter_map(|change| Some((change.body, change.done?)));
            let (newest, (when, seq)) =
                done.filter(|(_, (when, _))| self.before(*when)).max_by_key(|(_, (_, seq))| *seq)?;
            // What came after it, or may have come.
            let later = |change: &&Change| change.done.is_none_or(|(_, other)| other >= seq);
            let shown = changes.iter().filter(later).any(|change| match change.body {
                None => message.deleted,
                Some(_) if message.expired => true,
                Some(body) => !message.deleted && message.edited && message.body == body,
            });
            if shown {
                return None;
            }
            let how = if newest.is_some() { "edited" } else { "deleted" };
            self.wrong(
                &format!("shows number {} as it was before it was {how}", message.number),
                Some(when.2),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{Run, kept};

    fn three() -> Run {
        let mut run = Run::new();
        for (number, text) in (1..).zip(["one", "two", "three"]) {
            run.sending('a', text, false).acked('a', text, number, number);
        }
        run.history(3, vec![kept(1, 'a', "one"), kept(2, 'a', "two"), kept(3, 'a', "three")]);
        run
    }

    fn page(run: &mut Run, after: Option<u64>, head: u64, complete: bool, messages: Vec<Kept>) {
        let ask = Ask::History { chat: run.chat, before: None, after, limit: 2 };
        let head = Head { number: head, seq: head };
        run.asks('b', ask, Answer::Page { head, complete, messages });
    }

    #[test]
    fn a_page_with_a_hole_or_behind_what_was_acknowledged_is_found() {
        let (one, two, three_) = (kept(1, 'a', "one"), kept(2, 'a', "two"), kept(3, 'a', "three"));
        let found = |after, head, complete, messages| {
            let mut run = three();
            page(&mut run, after, head, complete, messages);
            run.broken()
        };
        assert_eq!(found(None, 3, true, vec![three_.clone(), two.clone()]), [] as [u8; 0]);
        assert_eq!(found(Some(0), 3, true, vec![one.clone(), two.clone()]), [] as [u8; 0]);
        assert_eq!(found(Some(2), 3, true, vec![three_.clone()]), [] as [u8; 0]);
        assert_eq!(found(None, 3, true, vec![three_]), [7], "one is missing");
        assert_eq!(found(Some(0), 3, true, vec![two.clone()]), [7], "the first is missing");
        assert_eq!(found(None, 2, true, vec![two.clone(), one.clone()]), [7], "the newest is not known");
        assert_eq!(found(None, 2, false, vec![two, one]), [] as [u8; 0], "it says so itself");
    }

    #[test]
    fn what_is_acknowledged_later_need_not_be_there() {
        let mut run = Run::new();
        run.sending('a', "one", false);
        page(&mut run, None, 0, true, vec![]);
        run.acked('a', "one", 1, 1).history(1, vec![kept(1, 'a', "one")]);
        assert_eq!(run.broken(), [] as [u8; 0]);
    }

    #[test]
    fn a_page_that_shows_a_message_as_it_was_before_its_edit_is_found() {
        let done = |seq| Answer::Done { chat: None, seq: Some(seq) };
        let edited = |text: &str| Kept { edited: true, ..kept(1, 'a', text) };
        for (shown, broken) in [(kept(1, 'a', "one"), true), (edited("uno"), true), (edited("une"), false)] {
            let mut run = Run::new();
            run.sending('a', "one", false).acked('a', "one", 1, 1);
            let edit = |text: &str| Ask::Edit { chat: Run::new().chat, number: 1, body: Print::of(text) };
            run.asks('a', edit("uno"), done(2)).asks('a', edit("une"), done(3));
            let ask = Ask::History { chat: run.chat, before: None, after: None, limit: 5 };
            let head = Head { number: 1, seq: 3 };
            run.asks('b', ask, Answer::Page { head, complete: true, messages: vec![shown.clone()] });
            run.history(3, vec![edited("une")]);
            assert_eq!(run.broken(), if broken { vec![7] } else { vec![] }, "{shown:?}");
        }
    }

    #[test]
    fn a_page_that_shows_a_deleted_message_is_found() {
        let mut run = Run::new();
        run.sending('a', "one", false).acked('a', "one", 1, 1);
        run.asks('a', Ask::Delete { chat: run.chat, number: 1 }, Answer::Done { chat: None, seq: Some(2) });
        let ask = Ask::History { chat: run.chat, before: None, after: None, limit: 5 };
        let head = Head { number: 1, seq: 2 };
        run.asks('b', ask, Answer::Page { head, complete: true, messages: vec![kept(1, 'a', "one")] });
        run.history(2, vec![Kept { deleted: true, ..kept(1, 'a', "") }]);
        assert_eq!(run.broken(), [7]);
    }
}
