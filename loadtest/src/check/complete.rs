//! Invariant 7, of resuming: what `resumed` calls complete is complete. Everything between `from` and `to` was shown in this
//! session, and `from` is no further than what the device said it has, or than it had seen a chat that it did not name; answering
//! `changes`, no further than it asked from.
//!
//! Whether it was the right thing that was shown is invariant 3, and whether `to` was far enough invariants 4 and 6. What came before
//! somebody was let in again need not be shown.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use common::ids::{ChatId, Seq};

use super::{
    DeviceJournal, Violation,
    facts::{Facts, Place},
    members::{Membership, memberships},
};
use crate::journal::{Ask, Entry, Event, Mended};

/// A chat as a device has it.
#[derive(Debug, Default)]
struct Seen {
    /// How far, since the last session that began anew.
    have: Option<(Seq, Place)>,
    /// How far when this session began, by the device's own words if it named the chat.
    had: Option<(Seq, Place)>,
    /// What was shown in this session.
    shown: BTreeSet<Seq>,
    /// Where the chat begins for this session, if it was told so (`new_chat`).
    since: Seq,
    /// After which seq its changes were asked for, and where; the newest.
    asked: Option<(Seq, Place)>,
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let devices = facts.journals.devices.iter().enumerate();
    let (members, _) = memberships(facts);
    let nobody = Membership::default();
    devices
        .flat_map(|(device, journal)| {
            let member = |chat| members.get(&(chat, journal.user)).unwrap_or(&nobody);
            resumed(facts, device, journal, member)
        })
        .collect()
}

fn resumed<'m>(
    facts: &Facts<'_>,
    device: usize,
    journal: &DeviceJournal,
    member: impl Fn(ChatId) -> &'m Membership,
) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut chats: HashMap<ChatId, Seen> = HashMap::new();
    let mut said = None;
    for (line, entry) in journal.lines.iter().map(|line| &line.entry).enumerate() {
        let place = Place { device, line };
        match entry {
            Entry::Resuming { chats, .. } => said = Some((chats, place)),
            Entry::Opened { resuming: false, .. } => {
                // How far a cursor of this session is in a chat that it has not read, nobody knows.
                chats.clear();
                said = None;
            }
            Entry::Opened { resuming: true, .. } => {
                for seen in chats.values_mut() {
                    *seen = Seen { have: seen.have, had: seen.have, ..Seen::default() };
                }
                if let Some((said, place)) = said.take() {
                    for (chat, seq) in said {
                        let had = Some((*seq, place));
                        chats.insert(*chat, Seen { have: had, had, ..Seen::default() });
                    }
                }
            }
            Entry::Asked { ask: Ask::Changes { chat, after }, .. } => {
                let seen = chats.entry(*chat).or_default();
                seen.asked = seen.asked.max(Some((*after, place)));
            }
            Entry::Event(Event { chat, seq, .. }) => {
                let seen = chats.entry(*chat).or_default();
                seen.shown.insert(*seq);
                seen.have = seen.have.max(Some((*seq, place)));
            }
            Entry::ViewRestarted { chat, seq, .. } => {
                let seen = chats.entry(*chat).or_default();
                seen.have = seen.have.max(Some((*seq, place)));
            }
            Entry::NewChat { chat, seq } => {
                let seen = chats.entry(*chat).or_default();
                seen.since = seen.since.max(*seq);
                seen.have = seen.have.max(Some((*seq, place)));
            }
            Entry::ChatRemoved { chat } | Entry::ChatReload { chat } => {
                let seen = chats.entry(*chat).or_default();
                (seen.have, seen.had) = (None, None);
            }
            Entry::Resumed { chats: mended, hello } => {
                for mended in mended {
                    let seen = chats.entry(mended.chat).or_default();
                    if mended.complete {
                        found.extend(incomplete(facts, mended, seen, member(mended.chat), *hello, place));
                        seen.have = seen.have.max(Some((mended.to, place)));
                    } else {
                        (seen.have, seen.had) = (None, None);
                    }
                    if !hello {
                        seen.asked = None;
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn incomplete(
    facts: &Facts<'_>,
    mended: &Mended,
    seen: &Seen,
    member: &Membership,
    hello: bool,
    place: Place,
) -> Option<Violation> {
    let Mended { chat, from, to, .. } = *mended;
    let wrong = |what: String, before: Option<Place>| {
        let what = format!("chat {chat} was called complete from seq {from} to {to}, {what}");
        Some(Violation { invariant: 7, what, evidence: facts.evidences(before.into_iter().chain([place])) })
    };
    if let Some((had, before)) = if hello { seen.had } else { seen.asked }
        && from > had.max(seen.since)
        && member.let_in(had, from).is_none()
    {
        let word = if hello { "had seen it up to" } else { "asked for what came after" };
        return wrong(format!("and its client {word} seq {had}"), Some(before));
    }
    let from = from.max(seen.since).max(member.let_in(from, to).unwrap_or(0));
    let between = (Bound::Excluded(from), Bound::Included(to.max(from)));
    let shown = seen.shown.range(between).count() as u64;
    if shown == to.saturating_sub(from) {
        return None;
    }
    let missing = (from + 1..=to).find(|seq| !seen.shown.contains(seq)).unwrap_or(to);
    let all = to.saturating_sub(from) - shown;
    wrong(format!("and seq {missing} was not shown ({all} are missing)"), None)
}

#[cfg(test)]
mod tests {
    use crate::{
        check::testing::Run,
        journal::{Ask, Entry, Mended, What},
    };

    /// Two events seen, then a session that is resumed and shows these.
    fn again(shown: &[u64], from: u64, to: u64, complete: bool) -> Vec<u8> {
        let mut run = Run::new();
        let chat = run.chat;
        run.event('b', 1, What::ChatUpdated).event('b', 2, What::ChatUpdated);
        run.close('b').opens('b', true);
        for seq in shown {
            run.event('b', *seq, What::ChatUpdated);
        }
        run.write('b', Entry::Resumed { chats: vec![Mended { chat, from, to, complete }], hello: true });
        run.broken()
    }

    #[test]
    fn what_is_called_complete_and_is_not_is_found() {
        assert_eq!(again(&[3, 4, 5], 2, 5, true), [] as [u8; 0]);
        assert_eq!(again(&[2, 3, 4, 5], 1, 5, true), [] as [u8; 0], "told from further back");
        assert_eq!(again(&[], 2, 2, true), [] as [u8; 0]);
        assert_eq!(again(&[3], 2, 2, true), [] as [u8; 0], "and more came");
        assert!(again(&[3, 5], 2, 5, true).contains(&7), "one in the middle");
        assert!(again(&[3, 4], 2, 5, true).contains(&7), "the last");
        assert!(again(&[4, 5], 2, 5, true).contains(&7), "the first");
        assert!(again(&[4, 5], 3, 5, true).contains(&7), "from later than was seen");
        assert_eq!(again(&[3], 2, 5, false), [] as [u8; 0], "it says so itself");
    }

    #[test]
    fn a_device_is_taken_at_its_word_about_what_it_has() {
        for (from, broken) in [(1, false), (2, true)] {
            let mut run = Run::new();
            let chat = run.chat;
            run.event('b', 1, What::ChatUpdated).event('b', 2, What::ChatUpdated).close('b');
            run.write('b', Entry::Resuming { cursor: None, chats: [(chat, 1)].into() }).opens('b', true);
            (from + 1..=3).for_each(|seq| _ = run.event('b', seq, What::ChatUpdated));
            let told = Mended { chat, from, to: 3, complete: true };
            run.write('b', Entry::Resumed { chats: vec![told], hello: true });
            assert_eq!(run.broken().contains(&7), broken, "{from}");
        }
    }

    #[test]
    fn what_a_session_that_began_anew_did_not_read_may_lie_before_its_cursor() {
        let mut run = Run::new();
        let chat = run.chat;
        run.event('b', 1, What::ChatUpdated).close('b').opens('b', false);
        run.close('b').opens('b', true).event('b', 9, What::ChatUpdated);
        let told = Mended { chat, from: 8, to: 9, complete: true };
        run.write('b', Entry::Resumed { chats: vec![told], hello: true });
        assert_eq!(run.broken(), [] as [u8; 0]);
    }

    #[test]
    fn changes_are_told_from_where_they_were_asked_for() {
        for (from, shown, broken) in [(1, 2, false), (2, 3, true), (1, 3, true)] {
            let mut run = Run::new();
            let chat = run.chat;
            run.write('b', Entry::Asked { request: 1, ask: Ask::Changes { chat, after: 1 } });
            (shown..=3).for_each(|seq| _ = run.event('b', seq, What::ChatUpdated));
            let told = Mended { chat, from, to: 3, complete: true };
            run.write('b', Entry::Resumed { chats: vec![told], hello: false });
            assert_eq!(run.broken().contains(&7), broken, "{from} {shown}");
        }
    }

    #[test]
    fn what_was_before_one_came_into_the_chat_need_not_be_shown() {
        let mut run = Run::new();
        let chat = run.chat;
        run.event('b', 1, What::ChatUpdated);
        run.close('b').opens('b', true);
        run.write('b', Entry::ChatRemoved { chat }).write('b', Entry::NewChat { chat, seq: 6 });
        run.event('b', 7, What::ChatUpdated);
        run.write(
            'b',
            Entry::Resumed { chats: vec![Mended { chat, from: 6, to: 7, complete: true }], hello: true },
        );
        assert_eq!(run.broken(), [] as [u8; 0]);
    }
}
