//! Invariant 3: in a chat, numbers are 1…n without holes, seqs never mean two things, and every observer (history, acks, events)
//! sees the same pairing of number, message and seq.

use std::collections::{BTreeMap, HashMap};

use common::ids::{ChatId, MessageId, Number, Seq};

use super::{
    Evidence, Violation,
    facts::{Facts, Place},
};
use crate::journal::{Event, What};

/// What stands at a seq, as far as all observers must agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stands {
    Event(Event),
    /// Known from an ack alone.
    Message(Number, MessageId),
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    holes(facts, &mut found);
    pairings(facts, &mut found);
    seqs(facts, &mut found);
    found
}

fn holes(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for history in &facts.histories {
        let mut wrong = |what: String, evidence: Evidence| {
            let what = format!("in the history of chat {} {what}", history.chat);
            found.push(Violation { invariant: 3, what, evidence: vec![evidence] });
        };
        let mut next: Number = 1;
        for (at, message) in history.messages.iter().enumerate() {
            if message.number != next {
                wrong(format!("number {} stands where {next} should", message.number), history.evidence(at));
            }
            next = message.number + 1;
        }
        if next - 1 != history.head.number {
            wrong(
                format!("the last number is {}, and the head says {}", next - 1, history.head.number),
                history.top(),
            );
        }
    }
}

/// A message's number and id, from whoever saw them.
fn pairings(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let mut of_number: HashMap<(ChatId, Number), (MessageId, Evidence)> = HashMap::new();
    let mut of_id: HashMap<MessageId, (ChatId, Number, Evidence)> = HashMap::new();
    let mut see = |chat: ChatId, number: Number, id: MessageId, evidence: &dyn Fn() -> Evidence| {
        let (was, first) = of_number.entry((chat, number)).or_insert_with(|| (id, evidence()));
        if *was != id {
            let what = format!("number {number} of chat {chat} is message {was} to one and {id} to another");
            found.push(Violation { invariant: 3, what, evidence: vec![first.clone(), evidence()] });
        }
        let (in_chat, under, first) = of_id.entry(id).or_insert_with(|| (chat, number, evidence()));
        if (*in_chat, *under) != (chat, number) {
            let what = format!(
                "message {id} is number {under} of chat {in_chat} to one and number {number} of chat {chat} to another"
            );
            found.push(Violation { invariant: 3, what, evidence: vec![first.clone(), evidence()] });
        }
    };
    for history in &facts.histories {
        for (at, message) in history.messages.iter().enumerate() {
            see(history.chat, message.number, message.id, &|| history.evidence(at));
        }
    }
    for ((chat, ..), sent) in &facts.sent {
        for ack in &sent.acks {
            see(*chat, ack.number, ack.id, &|| facts.evidence(ack.place));
        }
    }
    for (place, _, event) in facts.events() {
        if let What::Message { number, id, .. } | What::Updated { number, id, .. } = &event.what {
            see(event.chat, *number, *id, &|| facts.evidence(place));
        }
    }
}

/// What stands at each seq, from whoever saw it; and that numbers rise with seqs.
fn seqs(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let mut chats: BTreeMap<ChatId, BTreeMap<Seq, (Stands, Place)>> = BTreeMap::new();
    let events = facts
        .events()
        .map(|(place, _, event)| (event.chat, event.seq, Stands::Event(comparable(event)), place));
    let acks = facts.sent.iter().flat_map(|((chat, ..), sent)| {
        sent.acks.iter().map(|ack| (*chat, ack.seq, Stands::Message(ack.number, ack.id), ack.place))
    });
    for (chat, seq, stands, place) in events.chain(acks) {
        let (was, first) =
            chats.entry(chat).or_default().entry(seq).or_insert_with(|| (stands.clone(), place));
        if !agree(was, &stands) {
            let what =
                format!("seq {seq} of chat {chat} is one thing to one observer and another to another");
            found.push(Violation { invariant: 3, what, evidence: facts.evidences([*first, place]) });
        } else if let (Stands::Event(before), Stands::Event(_)) = (&*was, &stands)
            && is_silent(before)
        {
            // Others are held against who was told what it said.
            (*was, *first) = (stands, place);
        }
    }
    for (chat, seqs) in &chats {
        let mut last: Option<(Number, Seq, Place)> = None;
        for (seq, (stands, place)) in seqs {
            let Some((number, _)) = message(stands) else { continue };
            if let Some((before, at, first)) = last
                && number <= before
            {
                let what =
                    format!("in chat {chat} number {before} has seq {at} and number {number} has seq {seq}");
                found.push(Violation { invariant: 3, what, evidence: facts.evidences([first, *place]) });
            }
            last = Some((number, *seq, *place));
        }
        beyond_head(facts, *chat, seqs, found);
    }
}

/// A history that was read in the end and yet ends before what somebody saw.
fn beyond_head(
    facts: &Facts<'_>,
    chat: ChatId,
    seqs: &BTreeMap<Seq, (Stands, Place)>,
    found: &mut Vec<Violation>,
) {
    let Some((seq, (_, place))) = seqs.last_key_value() else { return };
    for history in facts.histories.iter().filter(|history| history.chat == chat && history.head.seq < *seq) {
        let what =
            format!("the head of chat {chat} is seq {} in the end, and seq {seq} was seen", history.head.seq);
        let mut evidence = vec![history.top()];
        evidence.extend(facts.evidences([*place]));
        found.push(Violation { invariant: 3, what, evidence });
    }
}

/// The event without what only some observers are shown.
fn comparable(event: &Event) -> Event {
    let mut event = event.clone();
    if let What::Message { client_id, .. } = &mut event.what {
        *client_id = None;
    }
    event
}

fn message(stands: &Stands) -> Option<(Number, MessageId)> {
    match stands {
        Stands::Message(number, id) => Some((*number, *id)),
        Stands::Event(Event { what: What::Message { number, id, .. }, .. }) => Some((*number, *id)),
        Stands::Event(_) => None,
    }
}

/// Whether it tells of a message that was deleted before it was told.
fn is_silent(event: &Event) -> bool {
    matches!(event.what, What::Message { body: None, .. } | What::Updated { body: None, .. })
}

fn silenced(event: &Event) -> Event {
    let mut event = event.clone();
    if let What::Message { body, .. } | What::Updated { body, .. } = &mut event.what {
        *body = None;
    }
    event
}

fn agree(one: &Stands, other: &Stands) -> bool {
    match (one, other) {
        (Stands::Event(one), Stands::Event(other)) => {
            // To whom it was told after its deletion, it did not say what it had said.
            one == other
                || (is_silent(one) || is_silent(other)) && {
                    let [one, other] = [one, other].map(silenced);
                    one == other
                }
        }
        (one, other) => message(one) == message(other),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        check::testing::{Run, id, kept},
        journal::{Kept, What},
    };

    /// `a` has sent one and two; all is well.
    fn two() -> Run {
        let mut run = Run::new();
        run.sending('a', "one", false).acked('a', "one", 1, 1);
        run.sending('a', "two", false).acked('a', "two", 2, 3);
        run.message('b', 1, 1, 'a', "one").event('b', 2, What::ChatUpdated).message('b', 3, 2, 'a', "two");
        run
    }

    fn history() -> Vec<Kept> {
        vec![kept(1, 'a', "one"), kept(2, 'a', "two")]
    }

    #[test]
    fn a_run_in_which_all_agree_is_clean() {
        assert_eq!(two().history(3, history()).broken(), [] as [u8; 0]);
    }

    #[test]
    fn a_hole_in_the_numbers_is_found() {
        let mut run = Run::new();
        run.sending('a', "one", false).sending('a', "three", false);
        run.history(3, vec![kept(1, 'a', "one"), kept(3, 'a', "three")]);
        assert_eq!(run.broken(), [3]);
    }

    #[test]
    fn a_head_that_is_behind_what_was_seen_is_found() {
        assert_eq!(two().history(2, history()).broken(), [3]);
    }

    #[test]
    fn a_number_that_is_two_messages_is_found() {
        let mut run = two();
        run.device('b');
        run.event('b', 1, What::Updated { number: 1, id: id(7), body: Some(crate::journal::Print::of("x")) });
        assert!(run.history(3, history()).broken().contains(&3));
    }

    #[test]
    fn who_is_told_of_a_message_after_its_deletion_need_not_hear_what_it_said() {
        let told = |who: char, body: Option<&str>| {
            let (id, from) = (id(2), crate::check::testing::user('a'));
            let body = body.map(crate::journal::Print::of);
            (who, What::Message { number: 2, id, from, body, client_id: None })
        };
        let run = |events: [(char, What); 3]| {
            let mut run = Run::new();
            run.sending('a', "one", false).acked('a', "one", 1, 1);
            run.sending('a', "two", false).acked('a', "two", 2, 3);
            for (who, what) in events {
                run.device(who);
                run.event(who, 3, what);
            }
            run.history(3, history()).broken()
        };
        let [silent, two] = [None, Some("two")];
        assert_eq!(run([told('b', silent), told('a', two), told('b', silent)]), [] as [u8; 0]);
        assert_eq!(run([told('b', two), told('a', silent), told('b', two)]), [] as [u8; 0]);
        assert!(run([told('b', silent), told('a', two), told('b', Some("other"))]).contains(&3));
    }

    #[test]
    fn a_seq_that_is_two_things_is_found() {
        let mut run = two();
        run.device('b');
        run.event('b', 2, What::Deleted { number: 1 });
        assert_eq!(run.history(3, history()).broken(), [3]);
    }

    #[test]
    fn an_event_and_an_ack_that_disagree_are_found() {
        let mut run = two();
        run.sending('a', "four", false).acked('a', "four", 3, 2);
        let mut history = history();
        history.push(kept(3, 'a', "four"));
        assert!(run.history(3, history).broken().contains(&3));
    }
}
