//! Invariant 4: a session is shown a chat's events in `seq` order, none twice, none missing.
//!
//! A session is one socket, from `ready` to its close. Where it begins to be entitled to a chat's events is known from the chat's
//! first event in it, from a read of the chat after `ready` (its head: everything later comes as an event), or from `new_chat` (its seq).
//! Where the server itself says that a view is not whole (`chat_reload`, or `resumed` without `complete`), the view begins anew. A session
//! that is resumed goes on where its device said it left off, and of chats it did not name, where the one before it ended.

use std::collections::{BTreeMap, HashMap};

use common::ids::{ChatId, Seq};

use super::{
    DeviceJournal, Violation,
    facts::{Facts, Place},
    members::{Members, memberships},
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
    /// How far it is known, by whatever told it.
    known: Option<(Seq, Place)>,
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let (members, _) = memberships(facts);
    let mut found = Vec::new();
    for (device, journal) in facts.journals.devices.iter().enumerate() {
        sessions(facts, &members, device, journal, &mut found);
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
    /// What the next session says it has, and where that is written.
    said: Option<(BTreeMap<ChatId, Seq>, Place)>,
    /// Chats whose changes were asked for, by request: what is shown again is no repeat, until `resumed`.
    mending: BTreeMap<u64, ChatId>,
}

impl Walk {
    /// The session is resumed: what its device said it has, and what is known of other chats, is known in it, and goes on somewhere at or
    /// before its end.
    fn carry_over(&mut self) {
        for view in self.views.values_mut() {
            let known = view.last.max(view.read).max(view.known);
            *view = View { read: known, ..View::default() };
        }
        if let Some((said, place)) = self.said.take() {
            let said = said
                .into_iter()
                .map(|(chat, seq)| (chat, View { read: Some((seq, place)), ..View::default() }));
            self.views.extend(said);
        }
    }

    fn is_mending(&self, chat: ChatId) -> bool {
        self.mending.values().any(|of| *of == chat)
    }

    /// Whether one request for the chat's changes is answered now.
    fn mended(&mut self, chat: ChatId) -> bool {
        let request = self.mending.iter().find(|(_, of)| **of == chat).map(|(request, _)| *request);
        request.and_then(|request| self.mending.remove(&request)).is_some()
    }

    fn resumed(&mut self, chats: &[Mended], place: Place, hello: bool, found: &mut Vec<Violation>) {
        for mended in chats {
            let asked = !hello && self.mended(mended.chat);
            if !mended.complete {
                self.views.remove(&mended.chat);
                self.held.retain(|(chat, _)| *chat != mended.chat);
            } else if asked || hello {
                // That everything up to there was shown is invariant 7.
                let view = self.views.entry(mended.chat).or_default();
                let to = view.last.max(Some((mended.to, place)));
                match view.last {
                    Some(_) => view.last = to,
                    None => view.read = view.read.max(to),
                }
            }
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

fn sessions(
    facts: &Facts<'_>,
    members: &Members,
    device: usize,
    journal: &DeviceJournal,
    found: &mut Vec<Violation>,
) {
    let mut walk = Walk::default();
    // Let in again while away: what came before that was not for this user, and `new_chat` may come later.
    let let_in = |hole: &Hole| {
        let member = members.get(&(hole.chat, journal.user));
        member.is_some_and(|member| member.let_in(hole.after, hole.before - 1).is_some())
    };
    for (line, entry) in journal.lines.iter().map(|line| &line.entry).enumerate() {
        let place = Place { device, line };
        match entry {
            Entry::Resuming { chats, .. } => walk.said = Some((chats.clone(), place)),
            Entry::Opened { resuming, .. } => {
                walk.resuming = *resuming;
                if *resuming {
                    walk.carry_over();
                } else {
                    walk.views.clear();
                    walk.said = None;
                }
            }
            Entry::Closed { .. } => {
                // Nobody has said whether these chats would have been called complete.
                for (chat, _) in std::mem::take(&mut walk.held) {
                    walk.views.remove(&chat);
                }
                walk.mending.clear();
            }
            Entry::Resumed { chats, hello } => walk.resumed(chats, place, *hello, found),
            Entry::Asked { request, ask: Ask::Changes { chat, .. } } => {
                walk.mending.insert(*request, *chat);
            }
            Entry::Answered { request, .. } => drop(walk.mending.remove(request)),
            Entry::ChatReload { chat } | Entry::ChatRemoved { chat } => {
                walk.views.remove(chat);
                walk.held.retain(|(held, _)| held != chat);
            }
            Entry::NewChat { chat, seq } => {
                let view = walk.views.entry(*chat).or_default();
                // A resumed session may be told once more of a chat that it knows.
                if view.last.max(view.read).is_none_or(|(known, _)| known < *seq) {
                    view.last = Some((*seq, place));
                }
            }
            Entry::ViewRestarted { chat, seq, why, .. } => {
                let view = walk.views.entry(*chat).or_default();
                view.known = view.known.max(Some((*seq, place)));
                // A hole that its device closed is one all the same.
                if *why == Restart::Gap {
                    continue;
                }
                view.read.get_or_insert((*seq, place));
                if let Some(hole) = beginning(*chat, view).filter(|hole| !let_in(hole)) {
                    walk.wrong(*chat, hole.violation(facts, "that knew it up to"), found);
                }
            }
            Entry::Event(Event { chat, seq, .. }) if walk.is_mending(*chat) => {
                let view = walk.views.entry(*chat).or_default();
                view.last = view.last.max(Some((*seq, place)));
            }
            Entry::Event(Event { chat, seq, .. }) => {
                let view = walk.views.entry(*chat).or_default();
                let resuming = walk.resuming;
                let wrong = match view.last {
                    None => {
                        view.first = Some((*seq, place));
                        let hole = beginning(*chat, view).filter(|hole| !let_in(hole));
                        hole.map(|hole| hole.violation(facts, "that knew it up to"))
                    }
                    Some((last, before)) if *seq > last + 1 => {
                        let hole = Hole { chat: *chat, after: last, before: *seq, places: [before, place] };
                        let excused = resuming && let_in(&hole);
                        (!excused).then(|| hole.violation(facts, "that then saw"))
                    }
                    Some((last, before)) => out_of_order(facts, *chat, (last, before), (*seq, place)),
                };
                if view.last.is_none_or(|(last, _)| last < *seq) {
                    view.last = Some((*seq, place));
                }
                if let Some(violation) = wrong {
                    walk.wrong(*chat, violation, found);
                }
            }
            _ => {}
        }
    }
}

/// What never came, between two places that show it.
#[derive(Clone, Copy, Debug)]
struct Hole {
    chat: ChatId,
    after: Seq,
    before: Seq,
    places: [Place; 2],
}

impl Hole {
    fn violation(self, facts: &Facts<'_>, who: &str) -> Violation {
        let Self { chat, after, before, places } = self;
        let shown = if who.ends_with("up to") { after } else { before };
        let what = format!(
            "seq {} to {} of chat {chat} never came to a session {who} seq {shown}",
            after + 1,
            before - 1
        );
        Violation { invariant: 4, what, evidence: facts.evidences(places) }
    }
}

/// An event that is not the next one and leaves no hole either.
fn out_of_order(
    facts: &Facts<'_>,
    chat: ChatId,
    (last, before): (Seq, Place),
    (seq, place): (Seq, Place),
) -> Option<Violation> {
    let what = match seq {
        _ if seq > last => return None,
        _ if seq == last => format!("seq {seq} of chat {chat} came twice to a session"),
        _ => format!("seq {seq} of chat {chat} came to a session after seq {last}"),
    };
    Some(Violation { invariant: 4, what, evidence: facts.evidences([before, place]) })
}

/// What was known before the session's events and the first of them, once both are known: nothing may lie between.
fn beginning(chat: ChatId, view: &mut View) -> Option<Hole> {
    let ((after, at), (before, place)) = view.read.zip(view.first)?;
    view.first = None;
    (before > after + 1).then_some(Hole { chat, after, before, places: [at, place] })
}

#[cfg(test)]
mod tests {
    use crate::{
        check::testing::{Run, user},
        journal::{Answer, Ask, Entry, Mended, Restart, What},
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

    fn says(run: &mut Run, seq: u64) {
        let chats = [(run.chat, seq)].into();
        run.close('b').write('b', Entry::Resuming { cursor: Some("c".into()), chats }).opens('b', true);
    }

    #[test]
    fn a_resumed_session_goes_on_where_its_device_said_it_left_off() {
        for (first, broken) in [(3, false), (2, false), (4, true)] {
            let mut run = Run::new();
            // The device knows that it has 1 and 2 only.
            run.event('b', 1, What::ChatUpdated).event('b', 2, What::ChatUpdated);
            run.close('b').opens('b', true);
            see(&mut run, &[3, 6]);
            says(&mut run, 2);
            see(&mut run, &[first]);
            resumed(&mut run, 2, first, true, true);
            let found = run.judged();
            assert_eq!(found.iter().any(|violation| violation.invariant == 4), broken, "{first}");
        }
    }

    #[test]
    fn what_was_read_after_the_last_event_is_had_as_well() {
        let mut run = Run::new();
        restart(&mut run, 1, Restart::Opened);
        see(&mut run, &[2]);
        restart(&mut run, 6, Restart::Opened);
        run.close('b').opens('b', true);
        see(&mut run, &[7]);
        assert_eq!(run.broken(), [] as [u8; 0]);
    }

    #[test]
    fn a_resumed_session_may_be_told_again_of_a_chat_that_it_knows() {
        let mut run = Run::new();
        let chat = run.chat;
        run.write('b', Entry::NewChat { chat, seq: 3 });
        see(&mut run, &[4, 5]);
        says(&mut run, 5);
        run.write('b', Entry::NewChat { chat, seq: 3 });
        see(&mut run, &[6]);
        resumed(&mut run, 5, 6, true, true);
        assert_eq!(run.broken(), [] as [u8; 0]);
        see(&mut run, &[8]);
        assert_eq!(run.broken(), [4]);
    }

    #[test]
    fn who_was_let_in_again_while_away_missed_nothing() {
        for let_in in [false, true] {
            let mut run = Run::new();
            see(&mut run, &[1, 2]);
            if let_in {
                run.event('a', 3, What::Left { user: user('b') });
                run.event('a', 4, What::ChatUpdated).event('a', 5, What::Joined { user: user('b') });
            }
            says(&mut run, 2);
            see(&mut run, &[6, 7]);
            resumed(&mut run, 5, 7, true, true);
            let chat = run.chat;
            run.write('b', Entry::NewChat { chat, seq: 5 });
            assert_eq!(run.judged().is_empty(), let_in);
        }
    }

    #[test]
    fn a_resume_that_breaks_before_its_end_proves_nothing_and_the_next_one_does() {
        let mut run = Run::new();
        see(&mut run, &[1, 2]);
        says(&mut run, 2);
        see(&mut run, &[3, 4]);
        says(&mut run, 4);
        see(&mut run, &[5]);
        resumed(&mut run, 4, 5, true, true);
        assert_eq!(run.broken(), [] as [u8; 0]);
        see(&mut run, &[7]);
        assert_eq!(run.broken(), [4]);
    }

    #[test]
    fn what_is_asked_for_and_refused_ends_as_it_began() {
        let mut run = Run::new();
        let chat = run.chat;
        see(&mut run, &[1]);
        let code = common::wire::codes::ErrorCode::RetryLater;
        run.asks('b', Ask::Changes { chat, after: 1 }, Answer::Refused { code });
        see(&mut run, &[3]);
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
