//! Invariants 1 and 2: history holds what was acknowledged, once, and nothing that nobody sent.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::ids::{ChatId, MessageId, Number, Seq, UserId};

use super::{
    Violation,
    facts::{Asked, Facts, History, Name, Place, Sent},
};
use crate::journal::{Answer, Ask, Kept, Print, What};

/// Invariant 1.
pub(super) fn kept(facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    unread(facts, &mut found);
    let changes = changes(facts);
    let by_body = by_body(facts);
    let mut by_chat: HashMap<ChatId, Vec<(Name<'_>, &Sent)>> = HashMap::new();
    for (name, sent) in &facts.sent {
        by_chat.entry(name.0).or_default().push((*name, sent));
    }
    for history in &facts.histories {
        if !history.complete {
            let what = format!("the history of chat {} was read and is not complete", history.chat);
            found.push(Violation { invariant: 1, what, evidence: vec![history.top()] });
        }
        let mut of_id: HashMap<MessageId, usize> = HashMap::new();
        let mut of_number: HashMap<Number, usize> = HashMap::new();
        for (at, message) in history.messages.iter().enumerate() {
            of_number.entry(message.number).or_insert(at);
            if let Some(first) = of_id.insert(message.id, at) {
                let what = format!("message {} stands in chat {} more than once", message.id, history.chat);
                let evidence = vec![history.evidence(first), history.evidence(at)];
                found.push(Violation { invariant: 1, what, evidence });
            }
        }
        for (name, sent) in by_chat.get(&history.chat).into_iter().flatten() {
            acknowledged(facts, history, *name, sent, (&of_id, &of_number), &mut found);
        }
        doubled(facts, history, &by_body, &mut found);
        for (at, message) in history.messages.iter().enumerate() {
            let changes = changes.get(&(history.chat, message.number)).map_or(&[][..], Vec::as_slice);
            changed(facts, history, (at, message), changes, &mut found);
        }
    }
    found
}

/// Acks in a chat whose history nobody read.
fn unread(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let gone: HashSet<ChatId> = facts
        .events()
        .filter(|(_, _, event)| event.what == What::ChatDeleted)
        .map(|(_, _, event)| event.chat)
        .collect();
    let read: HashSet<ChatId> = facts.histories.iter().map(|history| history.chat).collect();
    let mut said = HashSet::new();
    for ((chat, ..), sent) in &facts.sent {
        if let Some(ack) = sent.acks.first()
            && !read.contains(chat)
            && !gone.contains(chat)
            && said.insert(*chat)
        {
            let what = format!("messages of chat {chat} were acknowledged, and its history was not read");
            found.push(Violation { invariant: 1, what, evidence: facts.evidences([ack.place]) });
        }
    }
}

fn acknowledged(
    facts: &Facts<'_>,
    history: &History<'_>,
    (chat, user, client_id): Name<'_>,
    sent: &Sent,
    (of_id, of_number): (&HashMap<MessageId, usize>, &HashMap<Number, usize>),
    found: &mut Vec<Violation>,
) {
    // That all acks of a name agree is invariant 8.
    let Some(ack) = sent.acks.first() else { return };
    let mut wrong = |what: String, at: Option<usize>| {
        let mut evidence = facts.evidences([ack.place]);
        evidence.push(at.map_or_else(|| history.top(), |at| history.evidence(at)));
        found.push(Violation { invariant: 1, what, evidence });
    };
    let name = format!("{client_id} in chat {chat}, acknowledged as number {}", ack.number);
    let at = match (of_id.get(&ack.id), of_number.get(&ack.number)) {
        (Some(at), _) => *at,
        (None, Some(other)) => {
            return wrong(format!("{name}, is not in history: another message has its number"), Some(*other));
        }
        (None, None) => return wrong(format!("{name}, is not in history"), None),
    };
    let Some(message) = history.messages.get(at) else { return };
    if message.number != ack.number {
        wrong(format!("{name}, is in history as number {}", message.number), Some(at));
    }
    if message.from != user {
        wrong(format!("{name}, is in history as somebody else's"), Some(at));
    }
    if !message.deleted && !message.edited && !sent.bodies.contains(&message.body) {
        wrong(format!("{name}, is in history with another text"), Some(at));
    }
}

/// Messages by their author and text: a text under two names may stand there twice.
type ByBody<'f, 'a> = BTreeMap<(ChatId, UserId, Print), Vec<(Name<'a>, &'f Sent)>>;

fn by_body<'f, 'a>(facts: &'f Facts<'a>) -> ByBody<'f, 'a> {
    let mut by_body = ByBody::new();
    for (name, sent) in &facts.sent {
        let bodies: HashSet<Print> = sent.bodies.iter().copied().collect();
        for body in bodies {
            by_body.entry((name.0, name.1, body)).or_default().push((*name, sent));
        }
    }
    by_body
}

/// What a message said when it was written, as far as anybody can tell.
fn original(facts: &Facts<'_>, message: &Kept) -> Option<Print> {
    let told = facts.told.get(&message.id).map(|(body, _)| *body);
    told.or_else(|| (!message.deleted && !message.edited).then_some(message.body))
}

/// More messages of one text than were sent with it.
fn doubled(facts: &Facts<'_>, history: &History<'_>, by_body: &ByBody<'_, '_>, found: &mut Vec<Violation>) {
    let mut stand: BTreeMap<(UserId, Print), Vec<usize>> = BTreeMap::new();
    for (at, message) in history.messages.iter().enumerate() {
        if let Some(body) = original(facts, message) {
            stand.entry((message.from, body)).or_default().push(at);
        }
    }
    for ((from, body), places) in stand {
        let Some(sent) = by_body.get(&(history.chat, from, body)) else { continue };
        if places.len() > sent.len() {
            let name = sent.first().map(|((_, _, client_id), _)| client_id.as_str()).unwrap_or_default();
            let what = format!(
                "{name} was written {} time(s) in chat {} and stands in history {} times",
                sent.len(),
                history.chat,
                places.len()
            );
            let evidence = places.iter().take(6).map(|at| history.evidence(*at)).collect();
            found.push(Violation { invariant: 1, what, evidence });
        }
    }
}

/// Edits and deletes that may have been done, by message.
type Changes<'f, 'a> = HashMap<(ChatId, Number), Vec<&'f Asked<'a>>>;

fn changes<'f, 'a>(facts: &'f Facts<'a>) -> Changes<'f, 'a> {
    let mut changes = Changes::new();
    for asked in facts.asked.iter().filter(|asked| asked.possible()) {
        if let Ask::Edit { chat, number, .. } | Ask::Delete { chat, number } = asked.ask {
            changes.entry((*chat, *number)).or_default().push(asked);
        }
    }
    changes
}

/// Whether a message shows the edits and deletes that were acknowledged, and no others.
fn changed(
    facts: &Facts<'_>,
    history: &History<'_>,
    (at, message): (usize, &Kept),
    changes: &[&Asked<'_>],
    found: &mut Vec<Violation>,
) {
    let mut wrong = |invariant: u8, what: &str, place: Option<Place>| {
        let what = format!("number {} of chat {} {what}", message.number, history.chat);
        let mut evidence = facts.evidences(place);
        evidence.push(history.evidence(at));
        found.push(Violation { invariant, what, evidence });
    };
    let done = |asked: &Asked<'_>| match asked.answer {
        Some((Answer::Done { seq, .. }, _)) => Some(seq.unwrap_or(0)),
        _ => None,
    };
    let deletes: Vec<_> = changes.iter().filter(|asked| matches!(asked.ask, Ask::Delete { .. })).collect();
    if message.deleted {
        // What ended by itself nobody deleted.
        if deletes.is_empty() && !message.expired {
            wrong(2, "is deleted, and nobody asked for that", None);
        }
        return;
    }
    if let Some(delete) = deletes.iter().find(|asked| done(asked).is_some()) {
        wrong(1, "was deleted, which was acknowledged, and is still there", Some(delete.place));
        return;
    }
    let edits: Vec<(Print, Option<Seq>, Place)> = changes
        .iter()
        .filter_map(|asked| match asked.ask {
            Ask::Edit { body, .. } => Some((*body, done(asked), asked.place)),
            _ => None,
        })
        .collect();
    let newest = edits.iter().filter(|(_, seq, _)| seq.is_some()).max_by_key(|(_, seq, _)| *seq);
    if !message.edited {
        if let Some((_, _, place)) = newest {
            wrong(1, "was edited, which was acknowledged, and history shows it as it was", Some(*place));
        }
        return;
    }
    // The newest acknowledged edit, or one whose outcome its client does not know.
    let good = edits.iter().any(|(body, seq, _)| {
        *body == message.body && (seq.is_none() || newest.is_some_and(|(_, newest, _)| newest == seq))
    });
    if edits.is_empty() {
        wrong(2, "was edited, and nobody asked for that", None);
    } else if !good {
        wrong(1, "does not show its newest edit", newest.map(|(_, _, place)| *place));
    }
}

/// Invariant 2.
pub(super) fn sent(facts: &Facts<'_>) -> Vec<Violation> {
    let by_body = by_body(facts);
    let acked: HashSet<MessageId> =
        facts.sent.values().flat_map(|sent| sent.acks.iter().map(|ack| ack.id)).collect();
    let mut found = Vec::new();
    for history in &facts.histories {
        for (at, message) in history.messages.iter().enumerate() {
            if acked.contains(&message.id) {
                continue;
            }
            // Deleted or edited before anybody saw it: nothing is left to know it by.
            let Some(body) = original(facts, message) else { continue };
            let candidates = by_body.get(&(history.chat, message.from, body)).map_or(&[][..], Vec::as_slice);
            let mut wrong = |what: &str, places: Vec<Place>| {
                let what = format!("number {} of chat {} {what}", message.number, history.chat);
                let mut evidence = vec![history.evidence(at)];
                evidence.extend(facts.evidences(places));
                found.push(Violation { invariant: 2, what, evidence });
            };
            if candidates.is_empty() {
                wrong("was sent by nobody", Vec::new());
            } else if candidates.iter().all(|(_, sent)| sent.surely_refused()) {
                let places = candidates.iter().flat_map(|(_, sent)| sent.refusals.iter().copied()).collect();
                wrong("was refused, and is in history", places);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use common::wire::codes::ErrorCode;

    use super::*;
    use crate::check::testing::{Run, id, kept};

    const CLEAN: [u8; 0] = [];

    fn one() -> Run {
        let mut run = Run::new();
        run.sending('a', "one", false).acked('a', "one", 1, 1);
        run
    }

    #[test]
    fn an_acknowledged_message_that_is_missing_moved_or_another_s_is_found() {
        assert_eq!(one().history(1, vec![kept(1, 'a', "one")]).broken(), CLEAN);
        assert!(one().history(0, vec![]).broken().contains(&1), "missing");
        let other = Kept { id: id(5), ..kept(1, 'a', "one") };
        assert!(one().history(1, vec![other]).broken().contains(&1), "another stands there");
        assert!(one().history(1, vec![kept(1, 'b', "one")]).broken().contains(&1), "somebody else's");
        assert!(one().history(1, vec![kept(1, 'a', "two")]).broken().contains(&1), "another text");
    }

    #[test]
    fn acks_in_a_chat_whose_history_nobody_read_prove_nothing() {
        assert_eq!(one().broken(), [1]);
    }

    #[test]
    fn a_message_that_was_stored_twice_is_found() {
        let mut run = Run::new();
        run.sending('a', "one", false).sending('a', "one", true).acked('a', "one", 1, 1);
        run.history(2, vec![kept(1, 'a', "one"), kept(2, 'a', "one")]);
        assert_eq!(run.broken(), [1]);
    }

    #[test]
    fn a_text_that_was_written_twice_may_stand_twice() {
        let mut run = one();
        let (chat, client_id) = (run.chat, crate::check::testing::name("other"));
        let body = Print::of("one");
        run.write('a', crate::journal::Entry::Sending { order: 2, chat, client_id, body, retry: false });
        run.history(2, vec![kept(1, 'a', "one"), kept(2, 'a', "one")]);
        assert_eq!(run.broken(), CLEAN);
    }

    #[test]
    fn a_message_that_nobody_sent_is_found() {
        assert_eq!(Run::new().history(1, vec![kept(1, 'a', "ghost")]).broken(), [2]);
    }

    #[test]
    fn a_message_that_was_surely_refused_and_is_there_is_found() {
        let mut run = Run::new();
        run.sending('a', "one", false).refused('a', "one", ErrorCode::RetryLater);
        run.history(1, vec![kept(1, 'a', "one")]);
        assert_eq!(run.broken(), [2]);
    }

    #[test]
    fn a_message_whose_outcome_is_not_known_may_be_there_or_not() {
        let mut run = Run::new();
        run.sending('a', "one", false).refused('a', "one", ErrorCode::Unknown);
        run.sending('a', "two", false);
        assert_eq!(run.history(1, vec![kept(1, 'a', "two")]).broken(), CLEAN);
    }

    #[test]
    fn edits_and_deletes_that_were_acknowledged_show_and_others_do_not() {
        let chat = Run::new().chat;
        let edit = |text: &str| Ask::Edit { chat, number: 1, body: Print::of(text) };
        let done = |seq| Answer::Done { chat: None, seq: Some(seq) };
        let edited = |text: &str| Kept { edited: true, ..kept(1, 'a', text) };
        let deleted = || Kept { deleted: true, ..kept(1, 'a', "") };

        let twice = || {
            let mut run = one();
            run.asks('a', edit("second"), done(3)).asks('a', edit("first"), done(2));
            run
        };
        assert_eq!(twice().history(3, vec![edited("second")]).broken(), CLEAN);
        assert_eq!(twice().history(3, vec![edited("first")]).broken(), [1], "an older edit");
        assert_eq!(twice().history(3, vec![kept(1, 'a', "one")]).broken(), [1], "no edit at all");
        assert_eq!(one().history(3, vec![edited("x")]).broken(), [2], "an edit nobody asked for");
        let mut run = twice();
        run.asks('a', edit("third"), Answer::Unknown);
        assert_eq!(run.history(4, vec![edited("third")]).broken(), CLEAN);

        let gone = |answer| {
            let mut run = one();
            run.asks('a', Ask::Delete { chat, number: 1 }, answer);
            run
        };
        assert_eq!(gone(done(2)).history(2, vec![deleted()]).broken(), CLEAN);
        assert_eq!(gone(done(2)).history(2, vec![kept(1, 'a', "one")]).broken(), [1]);
        assert_eq!(one().history(2, vec![deleted()]).broken(), [2]);
        let expired = || Kept { expired: true, ..deleted() };
        assert_eq!(one().history(2, vec![expired()]).broken(), CLEAN, "its time was over");
        let refused = Answer::Refused { code: ErrorCode::Forbidden };
        assert_eq!(gone(refused).history(2, vec![deleted()]).broken(), [2]);
    }
}
