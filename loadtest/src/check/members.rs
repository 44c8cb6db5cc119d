//! Invariant 9: who was removed gets nothing after the removal and adds nothing; a stranger gets nothing at all.
//!
//! Who is a member when is told by the chat itself (`member_joined`, `member_left`, each with its seq, seen by anybody), by who was in the
//! chat when it was made, and by who was asked to be let in. Where an addition was asked for and its event was seen by nobody, its
//! place is not known, and the judge holds its peace.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::ids::{ChatId, Seq, UserId};

use super::{
    Violation,
    facts::{Acked, Asked, Facts, Name, Place, Sent},
};
use crate::journal::{Answer, Ask, Entry, Event, What};

/// What is known of one user in one chat.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Joined (`true`) and left, by seq.
    pub(super) changes: BTreeMap<Seq, (bool, Place)>,
    /// How often somebody may have let them in.
    additions: usize,
    /// Whether they were there from the start.
    pub(super) founder: bool,
}

impl Membership {
    /// Where the user had left before `seq`, when they were surely out at it.
    fn out_at(&self, seq: Seq) -> Option<(Seq, Place)> {
        let (left, (joined, place)) = self.changes.range(..seq).next_back()?;
        let joins = self.changes.values().filter(|(joined, _)| *joined).count();
        (!joined && joins >= self.additions).then_some((*left, *place))
    }

    /// Where the user last came in after `after` and not after `until`. Where an addition was seen by nobody it may be anywhere.
    pub(super) fn let_in(&self, after: Seq, until: Seq) -> Option<Seq> {
        let joins = || self.changes.iter().filter(|(_, (joined, _))| *joined);
        if joins().count() < self.additions {
            return Some(until).filter(|until| *until > after);
        }
        joins().map(|(seq, _)| *seq).rfind(|seq| after < *seq && *seq <= until)
    }

    fn stranger(&self) -> bool {
        !self.founder && self.additions == 0 && self.changes.is_empty()
    }
}

pub(super) type Members = HashMap<(ChatId, UserId), Membership>;

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (members, known) = memberships(facts);
    let nobody = Membership::default();
    let of = |chat, user| members.get(&(chat, user)).unwrap_or(&nobody);
    let stranger = |chat, user| known.contains(&chat) && of(chat, user).stranger();

    for (place, user, event) in facts.events() {
        let (chat, seq) = (event.chat, event.seq);
        if stranger(chat, user) {
            let what = format!("{user}, a stranger to chat {chat}, was sent its seq {seq}");
            found.push(Violation { invariant: 9, what, evidence: facts.evidences([place]) });
        } else if let Some((left, at)) = of(chat, user).out_at(seq) {
            let what = format!("{user} left chat {chat} at seq {left} and was sent its seq {seq}");
            found.push(Violation { invariant: 9, what, evidence: facts.evidences([at, place]) });
        }
    }
    for ((chat, user, client_id), sent) in &facts.sent {
        let Some(ack) = sent.acks.first() else { continue };
        if stranger(*chat, *user) {
            let what = format!("{client_id} of {user}, a stranger to chat {chat}, was accepted");
            found.push(Violation { invariant: 9, what, evidence: facts.evidences([ack.place]) });
        } else if let Some((left, at)) = of(*chat, *user).out_at(ack.seq) {
            let what = format!(
                "{user} left chat {chat} at seq {left}, and {client_id} was accepted from them at seq {}",
                ack.seq
            );
            found.push(Violation { invariant: 9, what, evidence: facts.evidences([at, ack.place]) });
        }
    }
    told_and_still_sent(facts, &mut found);
    removed_and_still_heard(facts, &mut found);
    let mut once = BTreeSet::new();
    found.retain(|violation| once.insert((violation.what.clone(), violation.evidence.clone())));
    found
}

/// Everybody's membership, and the chats of which it is known who made them.
pub(super) fn memberships(facts: &Facts<'_>) -> (Members, HashSet<ChatId>) {
    let mut members = Members::new();
    let mut known = HashSet::new();
    for asked in facts.asked.iter().filter(|asked| asked.possible()) {
        let made = match asked.answer {
            Some((Answer::Done { chat: Some(chat), .. }, _)) => Some(*chat),
            _ => None,
        };
        match (asked.ask, made) {
            (Ask::Direct { with }, Some(chat)) => {
                known.insert(chat);
                members.entry((chat, *with)).or_default().founder = true;
                members.entry((chat, asked.by)).or_default().founder = true;
            }
            (Ask::Group { members: first }, Some(chat)) => {
                known.insert(chat);
                for user in first.iter().chain([&asked.by]) {
                    members.entry((chat, *user)).or_default().founder = true;
                }
            }
            (Ask::Add { chat, user }, _) => members.entry((*chat, *user)).or_default().additions += 1,
            _ => {}
        }
    }
    for (place, _, Event { chat, seq, what, .. }) in facts.events() {
        let (user, joined) = match what {
            What::Joined { user } => (user, true),
            What::Left { user } => (user, false),
            _ => continue,
        };
        members.entry((*chat, *user)).or_default().changes.entry(*seq).or_insert((joined, place));
    }
    (members, known)
}

/// A session that was told `chat_removed` sees nothing more of the chat until it is told `new_chat`.
fn told_and_still_sent(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for (device, journal) in facts.journals.devices.iter().enumerate() {
        let mut out: HashMap<ChatId, Place> = HashMap::new();
        for (line, entry) in journal.lines.iter().map(|line| &line.entry).enumerate() {
            let place = Place { device, line };
            match entry {
                Entry::Opened { .. } => out.clear(),
                Entry::ChatRemoved { chat } => drop(out.insert(*chat, place)),
                Entry::NewChat { chat, .. } => drop(out.remove(chat)),
                Entry::Event(Event { chat, seq, .. }) => {
                    if let Some(told) = out.get(chat) {
                        let what = format!(
                            "a session was told that it is out of chat {chat}, and then sent its seq {seq}"
                        );
                        found.push(Violation {
                            invariant: 9,
                            what,
                            evidence: facts.evidences([*told, place]),
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

/// A message that was acknowledged, with its first ack.
type Accepted<'f, 'a> = (Name<'a>, &'f Sent, Acked);

/// A removal was answered as done, and a message that was written only then was accepted from the one removed. By the clock, and so only
/// between journals of one clock.
fn removed_and_still_heard(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let removals = facts.asked.iter().filter_map(|asked| match (asked.ask, asked.answer) {
        (Ask::Remove { chat, user }, Some((Answer::Done { .. }, done))) => Some((*chat, *user, asked, done)),
        _ => None,
    });
    let mut accepted: HashMap<(ChatId, UserId), Vec<Accepted<'_, '_>>> = HashMap::new();
    for (name, sent) in &facts.sent {
        if let Some(ack) = sent.acks.first() {
            accepted.entry((name.0, name.1)).or_default().push((*name, sent, *ack));
        }
    }
    for (chat, user, removal, done) in removals {
        let Some((clock, removed_at)) = facts.time(done) else { continue };
        if let_in_since(facts, chat, user, removal) {
            continue;
        }
        for ((_, _, client_id), sent, ack) in accepted.get(&(chat, user)).into_iter().flatten() {
            let after = |place: &Place| {
                facts.time(*place).is_some_and(|(other, at)| other == clock && at > removed_at)
            };
            if sent.attempts.iter().all(after) {
                let what = format!(
                    "{user} was removed from chat {chat}, and {client_id}, written after that was answered, was accepted"
                );
                found.push(Violation {
                    invariant: 9,
                    what,
                    evidence: facts.evidences(sent.attempts.iter().take(2).copied().chain([done, ack.place])),
                });
            }
        }
    }
}

/// Whether somebody may have let the user in again: any addition that was not surely over before the removal was asked.
fn let_in_since(facts: &Facts<'_>, chat: ChatId, user: UserId, removal: &Asked<'_>) -> bool {
    let Some((clock, asked_at)) = facts.time(removal.place) else { return true };
    facts.asked.iter().filter(|asked| asked.possible()).any(|asked| {
        let over = asked.answer.and_then(|(_, place)| facts.time(place));
        matches!(asked.ask, Ask::Add { chat: c, user: u } if *c == chat && *u == user)
            && over.is_none_or(|(other, at)| other != clock || at >= asked_at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::testing::{Run, kept, user},
        journal::Answer::Done,
    };

    const DONE: Answer = Done { chat: None, seq: None };

    fn removal() -> Run {
        let mut run = Run::new();
        run.event('a', 1, What::Joined { user: user('b') });
        run.event('a', 2, What::Left { user: user('b') });
        run
    }

    #[test]
    fn an_event_after_one_s_removal_is_found() {
        let mut run = removal();
        run.event('a', 3, What::ChatUpdated);
        run.event('b', 1, What::Joined { user: user('b') });
        run.event('b', 2, What::Left { user: user('b') });
        assert_eq!(run.broken(), [] as [u8; 0], "one's own removal is no leak");
        run.event('b', 3, What::ChatUpdated);
        assert_eq!(run.broken(), [9]);
    }

    #[test]
    fn an_event_after_the_server_said_that_one_is_out_is_found() {
        let mut run = Run::new();
        let chat = run.chat;
        run.write('b', Entry::ChatRemoved { chat }).event('b', 1, What::ChatUpdated);
        assert_eq!(run.broken(), [9]);
    }

    #[test]
    fn a_message_accepted_from_one_who_was_out_is_found() {
        let mut run = removal();
        run.sending('b', "late", false).acked('b', "late", 1, 3);
        run.history(3, vec![kept(1, 'b', "late")]);
        assert_eq!(run.broken(), [9]);
    }

    #[test]
    fn a_message_written_after_the_removal_was_answered_is_found_by_the_clock() {
        let mut run = Run::new();
        let chat = run.chat;
        run.asks('a', Ask::Remove { chat, user: user('b') }, DONE);
        run.sending('b', "late", false).acked('b', "late", 1, 1);
        run.history(1, vec![kept(1, 'b', "late")]);
        assert_eq!(run.broken(), [9]);
    }

    #[test]
    fn who_was_let_in_again_may_read_and_write() {
        let mut run = removal();
        let chat = run.chat;
        run.asks('a', Ask::Remove { chat, user: user('b') }, DONE);
        run.asks('a', Ask::Add { chat, user: user('b') }, DONE);
        run.event('a', 3, What::Joined { user: user('b') });
        run.write('b', Entry::NewChat { chat, seq: 3 });
        run.sending('b', "back", false).acked('b', "back", 1, 4);
        run.message('a', 4, 1, 'b', "back").message('b', 4, 1, 'b', "back");
        run.history(4, vec![kept(1, 'b', "back")]);
        assert_eq!(run.broken(), [] as [u8; 0]);
    }

    #[test]
    fn a_stranger_who_sees_or_writes_anything_is_found() {
        let mut run = Run::new();
        run.device('c');
        run.event('c', 1, What::ChatUpdated);
        assert_eq!(run.broken(), [9]);

        let mut run = Run::new();
        run.device('c');
        run.sending('c', "hello", false).acked('c', "hello", 1, 1);
        run.history(1, vec![kept(1, 'c', "hello")]);
        assert_eq!(run.broken(), [9]);
    }
}
