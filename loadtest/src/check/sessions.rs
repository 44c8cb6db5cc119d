//! Invariant 4: a session is shown a chat's events in `seq` order, none twice, none missing.
//!
//! A session is one socket, from `ready` to its close. Where it begins to be entitled to a chat's events is known from the chat's
//! first event in it, from a read of the chat after `ready` (its head: everything later comes as an event), or from `new_chat` (its seq).
//! Where the server itself says that a view is not whole (`chat_reload`), the view begins anew.

use std::collections::HashMap;

use common::ids::{ChatId, Seq};

use super::{
    DeviceJournal, Violation,
    facts::{Facts, Place},
};
use crate::journal::{Entry, Event, Restart};

#[derive(Clone, Copy, Debug, Default)]
struct View {
    /// The newest event, or the seq that `new_chat` told.
    last: Option<(Seq, Place)>,
    /// The first event of the session, before anything told where the view begins.
    first: Option<(Seq, Place)>,
    /// The head of a read in this session.
    read: Option<(Seq, Place)>,
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (device, journal) in facts.journals.devices.iter().enumerate() {
        sessions(facts, device, journal, &mut found);
    }
    found
}

fn sessions(facts: &Facts<'_>, device: usize, journal: &DeviceJournal, found: &mut Vec<Violation>) {
    let mut views: HashMap<ChatId, View> = HashMap::new();
    for (line, entry) in journal.lines.iter().map(|line| &line.entry).enumerate() {
        let place = Place { device, line };
        match entry {
            Entry::Opened { .. } | Entry::Closed { .. } => views.clear(),
            Entry::ChatReload { chat } | Entry::ChatRemoved { chat } => drop(views.remove(chat)),
            Entry::NewChat { chat, seq } => {
                let view = views.entry(*chat).or_default();
                if view.last.is_none_or(|(last, _)| last < *seq) {
                    view.last = Some((*seq, place));
                }
            }
            Entry::ViewRestarted { chat, seq, why, .. } if *why != Restart::Gap => {
                let view = views.entry(*chat).or_default();
                view.read.get_or_insert((*seq, place));
                beginning(facts, *chat, view, found);
            }
            Entry::Event(Event { chat, seq, .. }) => {
                let view = views.entry(*chat).or_default();
                match view.last {
                    Some((last, before)) if *seq != last + 1 => {
                        let what = if *seq > last + 1 {
                            format!(
                                "seq {} to {} of chat {chat} never came to a session that then saw seq {seq}",
                                last + 1,
                                seq - 1
                            )
                        } else if *seq == last {
                            format!("seq {seq} of chat {chat} came twice to a session")
                        } else {
                            format!("seq {seq} of chat {chat} came to a session after seq {last}")
                        };
                        found.push(Violation {
                            invariant: 4,
                            what,
                            evidence: facts.evidences([before, place]),
                        });
                    }
                    Some(_) => {}
                    None => {
                        view.first = Some((*seq, place));
                        beginning(facts, *chat, view, found);
                    }
                }
                if view.last.is_none_or(|(last, _)| last < *seq) {
                    view.last = Some((*seq, place));
                }
            }
            _ => {}
        }
    }
}

/// The read's head and the first event, once both are known: nothing may lie between.
fn beginning(facts: &Facts<'_>, chat: ChatId, view: &mut View, found: &mut Vec<Violation>) {
    let (Some((read, at)), Some((first, place))) = (view.read, view.first) else { return };
    view.first = None;
    if first > read + 1 {
        let what = format!(
            "seq {} to {} of chat {chat} never came to a session that had read it up to seq {read}",
            read + 1,
            first - 1
        );
        found.push(Violation { invariant: 4, what, evidence: facts.evidences([at, place]) });
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        check::testing::Run,
        journal::{Entry, Restart, What},
    };

    fn see(run: &mut Run, seqs: &[u64]) {
        for seq in seqs {
            run.event('b', *seq, What::ChatUpdated);
        }
    }

    fn restart(run: &mut Run, seq: u64, why: Restart) {
        let chat = run.chat;
        run.write('b', Entry::ViewRestarted { chat, seq, number: 0, why });
    }

    #[test]
    fn an_event_that_is_missing_doubled_or_late_is_found() {
        for (seqs, broken) in [(&[4, 5, 6][..], false), (&[4, 6], true), (&[4, 4, 5], true), (&[4, 3], true)]
        {
            let mut run = Run::new();
            see(&mut run, seqs);
            assert_eq!(run.broken(), if broken { vec![4] } else { vec![] }, "{seqs:?}");
        }
    }

    #[test]
    fn each_session_counts_for_itself() {
        let mut run = Run::new();
        see(&mut run, &[1, 2]);
        run.write('b', Entry::Closed { socket: 1, code: None });
        run.open('b');
        see(&mut run, &[7, 8]);
        assert_eq!(run.broken(), [] as [u8; 0]);
    }

    #[test]
    fn what_is_missing_between_a_read_and_the_first_event_is_found() {
        for (read, first, broken) in [(6, 7, false), (6, 5, false), (6, 8, true)] {
            let mut run = Run::new();
            restart(&mut run, read, Restart::Opened);
            see(&mut run, &[first]);
            assert_eq!(run.broken(), if broken { vec![4] } else { vec![] }, "{read} {first}");
            let mut run = Run::new();
            see(&mut run, &[first]);
            restart(&mut run, read, Restart::Opened);
            assert_eq!(run.broken(), if broken { vec![4] } else { vec![] }, "{read} {first}");
        }
    }

    #[test]
    fn what_is_missing_after_a_new_chat_is_found() {
        let mut run = Run::new();
        let chat = run.chat;
        run.write('b', Entry::NewChat { chat, seq: 3 });
        see(&mut run, &[5]);
        assert_eq!(run.broken(), [4]);
    }

    #[test]
    fn a_hole_that_the_server_told_of_is_none_and_one_that_the_client_mended_is() {
        let mut run = Run::new();
        let chat = run.chat;
        see(&mut run, &[1]);
        run.write('b', Entry::ChatReload { chat });
        restart(&mut run, 4, Restart::Told);
        see(&mut run, &[5]);
        assert_eq!(run.broken(), [] as [u8; 0]);
        see(&mut run, &[7]);
        restart(&mut run, 7, Restart::Gap);
        assert_eq!(run.broken(), [4]);
    }
}
