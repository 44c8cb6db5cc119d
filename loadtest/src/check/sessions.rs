//! Invariant 4: a session is shown a chat's events in `seq` order, none twice, none missing.
//!
//! A session is one socket, from `ready` to its close. Where it begins to be entitled to a chat's events is known from the chat's
//! first event in it, from a read of the chat after `ready` (its head: everything later comes as an event), or from `new_chat` (its seq).
//! Where the server itself says that a view is not whole (`chat_reload`, or `resumed` without `complete`), the view begins anew. A session
//! that is resumed goes on where the one before it ended.

use std::collections::{HashMap, HashSet};

use common::ids::{ChatId, Seq};

use super::{
    DeviceJournal, Violation,
    facts::{Facts, Place},
};
use crate::journal::{Ask, Entry, Event, Mended, Restart};

#[derive(Clone, Copy, Debug, Default)]
struct View {
    /// The newest event, or the seq that `new_chat` told.
    last: Option<(Seq, Place)>,
    /// The first event of the session, before anything told where the view begins.
    first: Option<(Seq, Place)>,
    /// The head of a read in this session, or how far the chat was known before it when it is resumed.
    read: Option<(Seq, Place)>,
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (device, journal) in facts.journals.devices.iter().enumerate() {
        sessions(facts, device, journal, &mut found);
    }
    found
}

/// One device's walk through its journal.
#[derive(Default)]
struct Walk {
    views: HashMap<ChatId, View>,
    /// Between `ready` and `resumed`: a hole is none when the chat is then called incomplete.
    resuming: bool,
    held: Vec<(ChatId, Violation)>,
    /// Chats whose changes were asked for: what is shown again is no repeat, until `resumed`.
    mending: HashSet<ChatId>,
}

impl Walk {
    /// The session is resumed: what was known before it is known in it, and goes on somewhere at or before its end.
    fn carry_over(&mut self) {
        for view in self.views.values_mut() {
            let known = view.last.max(view.read);
            *view = View { read: known, ..View::default() };
        }
    }

    fn resumed(&mut self, chats: &[Mended], place: Place, hello: bool, found: &mut Vec<Violation>) {
        for mended in chats {
            if !mended.complete {
                self.views.remove(&mended.chat);
                self.held.retain(|(chat, _)| *chat != mended.chat);
            } else if self.mending.remove(&mended.chat) || hello {
                // That everything up to there was shown is invariant 7.
                let view = self.views.entry(mended.chat).or_default();
                let to = view.last.max(Some((mended.to, place)));
                match view.last {
                    Some(_) => view.last = to,
                    None => view.read = view.read.max(to),
                }
            }
            self.mending.remove(&mended.chat);
        }
        if hello {
            self.resuming = false;
            found.extend(self.held.drain(..).map(|(_, violation)| violation));
        }
    }

    fn wrong(&mut self, chat: ChatId, violation: Violation, found: &mut Vec<Violation>) {
        if self.resuming { self.held.push((chat, violation)) } else { found.push(violation) }
    }
}

fn sessions(facts: &Facts<'_>, device: usize, journal: &DeviceJournal, found: &mut Vec<Violation>) {
    let mut walk = Walk::default();
    for (line, entry) in journal.lines.iter().map(|line| &line.entry).enumerate() {
        let place = Place { device, line };
        match entry {
            Entry::Opened { resuming, .. } => {
                walk.resuming = *resuming;
                if *resuming { walk.carry_over() } else { walk.views.clear() }
            }
            Entry::Closed { .. } => {
                // Nobody has said whether these chats would have been called complete.
                for (chat, _) in std::mem::take(&mut walk.held) {
                    walk.views.remove(&chat);
                }
                walk.mending.clear();
            }
            Entry::Resumed { chats, hello } => walk.resumed(chats, place, *hello, found),
            Entry::Asked { ask: Ask::Changes { chat, .. }, .. } => {
                walk.mending.insert(*chat);
            }
            Entry::ChatReload { chat } | Entry::ChatRemoved { chat } => {
                walk.views.remove(chat);
                walk.held.retain(|(held, _)| held != chat);
            }
            Entry::NewChat { chat, seq } => {
                let view = walk.views.entry(*chat).or_default();
                if view.last.is_none_or(|(last, _)| last < *seq) {
                    view.last = Some((*seq, place));
                }
            }
            Entry::ViewRestarted { chat, seq, why, .. } if *why != Restart::Gap => {
                let view = walk.views.entry(*chat).or_default();
                view.read.get_or_insert((*seq, place));
                if let Some(violation) = beginning(facts, *chat, view) {
                    walk.wrong(*chat, violation, found);
                }
            }
            Entry::Event(Event { chat, seq, .. }) if walk.mending.contains(chat) => {
                let view = walk.views.entry(*chat).or_default();
                view.last = view.last.max(Some((*seq, place)));
            }
            Entry::Event(Event { chat, seq, .. }) => {
                let view = walk.views.entry(*chat).or_default();
                let violation = follows(facts, *chat, *seq, view, place);
                if view.last.is_none_or(|(last, _)| last < *seq) {
                    view.last = Some((*seq, place));
                }
                if let Some(violation) = violation {
                    walk.wrong(*chat, violation, found);
                }
            }
            _ => {}
        }
    }
}

/// Whether an event is the next one.
fn follows(facts: &Facts<'_>, chat: ChatId, seq: Seq, view: &mut View, place: Place) -> Option<Violation> {
    let Some((last, before)) = view.last else {
        view.first = Some((seq, place));
        return beginning(facts, chat, view);
    };
    if seq == last + 1 {
        return None;
    }
    let what = if seq > last + 1 {
        format!(
            "seq {} to {} of chat {chat} never came to a session that then saw seq {seq}",
            last + 1,
            seq - 1
        )
    } else if seq == last {
        format!("seq {seq} of chat {chat} came twice to a session")
    } else {
        format!("seq {seq} of chat {chat} came to a session after seq {last}")
    };
    Some(Violation { invariant: 4, what, evidence: facts.evidences([before, place]) })
}

/// What was known before the session's events and the first of them, once both are known: nothing may lie between.
fn beginning(facts: &Facts<'_>, chat: ChatId, view: &mut View) -> Option<Violation> {
    let ((read, at), (first, place)) = view.read.zip(view.first)?;
    view.first = None;
    if first <= read + 1 {
        return None;
    }
    let what = format!(
        "seq {} to {} of chat {chat} never came to a session that knew it up to seq {read}",
        read + 1,
        first - 1
    );
    Some(Violation { invariant: 4, what, evidence: facts.evidences([at, place]) })
}

#[cfg(test)]
mod tests {
    use crate::{
        check::testing::Run,
        journal::{Ask, Entry, Mended, Restart, What},
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

    fn resumed(run: &mut Run, from: u64, to: u64, complete: bool, hello: bool) {
        let chat = run.chat;
        run.write('b', Entry::Resumed { chats: vec![Mended { chat, from, to, complete }], hello });
    }

    #[test]
    fn a_resumed_session_goes_on_where_the_one_before_it_ended() {
        for (first, complete, broken) in
            [(3, true, false), (2, true, false), (4, true, true), (4, false, false)]
        {
            let mut run = Run::new();
            see(&mut run, &[1, 2]);
            run.close('b').opens('b', true);
            see(&mut run, &[first, first + 1]);
            resumed(&mut run, 2, first + 1, complete, true);
            let found = run.judged();
            assert_eq!(found.iter().any(|violation| violation.invariant == 4), broken, "{first} {complete}");
        }
    }

    #[test]
    fn a_chat_that_was_not_named_did_not_change() {
        let mut run = Run::new();
        see(&mut run, &[1, 2]);
        run.close('b').opens('b', true);
        run.write('b', Entry::Resumed { chats: vec![], hello: true });
        see(&mut run, &[4]);
        assert_eq!(run.broken(), [4]);
    }

    #[test]
    fn what_is_asked_for_again_is_no_repeat() {
        let mut run = Run::new();
        let chat = run.chat;
        see(&mut run, &[1, 2, 3]);
        run.write('b', Entry::Asked { request: 1, ask: Ask::Changes { chat, after: 1 } });
        see(&mut run, &[2, 3]);
        resumed(&mut run, 1, 3, true, false);
        see(&mut run, &[4]);
        assert_eq!(run.broken(), [] as [u8; 0]);
        see(&mut run, &[4]);
        assert_eq!(run.broken(), [4]);
    }
}
