//! How far a device has its chats: what tells a repeat from news, and a hole from the next event. Pure.
//!
//! A chat's head is how far it is had without a hole. What came behind a hole, or before the chat was read, is kept beside it, as runs, and
//! joins the head once the hole is filled or closed by reading.

use std::collections::{BTreeMap, HashMap};

use common::{
    ids::{ChatId, Number, Seq, UserId},
    model::Head,
};

/// Runs kept behind a chat's head: each is the end of a hole, and a server that keeps its word leaves none. Full: what would be
/// another run is not kept, and comes again when the hole is mended.
const RUNS: usize = 64;

/// What an event's `seq` makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next one, the first of its session, or one that was missing.
    News,
    /// Seen before: to be passed over.
    Repeat,
    /// The next one after a hole: something in between never came.
    AfterGap,
}

/// Events without a hole between them.
#[derive(Clone, Copy, Debug)]
struct Run {
    to: Seq,
    number: Number,
}

#[derive(Clone, Debug, Default)]
struct View {
    head: Head,
    /// Whether everything up to the head is had. If not, it is to be read, and what comes meanwhile is kept beside the head.
    whole: bool,
    /// From where on everything up to the head came as events: where it was read, or where the user came in.
    since: Seq,
    /// What is had behind the head, by its first seq.
    behind: BTreeMap<Seq, Run>,
}

impl View {
    fn has(&self, seq: Seq) -> bool {
        let run = || self.behind.range(..=seq).next_back();
        seq <= self.head.seq || run().is_some_and(|(_, run)| seq <= run.to)
    }

    /// The newest that is had, holes or not; nothing while the chat is to be read and nothing came.
    fn newest(&self) -> Option<Seq> {
        let newest = self.behind.last_key_value().map(|(_, run)| run.to);
        newest.or(self.whole.then_some(self.head.seq))
    }

    fn keep(&mut self, seq: Seq, number: Number) {
        if self.whole && seq == self.head.seq + 1 {
            self.head.seq = seq;
            self.head.number = self.head.number.max(number);
            return;
        }
        let full = self.behind.len() >= RUNS;
        match self.behind.range_mut(..seq).next_back() {
            Some((_, run)) if run.to + 1 == seq => {
                run.to = seq;
                run.number = run.number.max(number);
            }
            _ if full => {}
            _ => drop(self.behind.insert(seq, Run { to: seq, number })),
        }
    }

    /// Takes in what the head has reached.
    fn join(&mut self) {
        if !self.whole {
            return;
        }
        while let Some(first) = self.behind.first_entry().filter(|first| *first.key() <= self.head.seq + 1) {
            let Run { to, number } = first.remove();
            self.head.seq = self.head.seq.max(to);
            self.head.number = self.head.number.max(number);
        }
    }
}

/// The chats a device follows.
#[derive(Debug, Default)]
pub(crate) struct Views {
    chats: HashMap<ChatId, View>,
    /// How far others have read, as told last.
    marks: HashMap<(ChatId, UserId), Number>,
    /// Holes are passed over: nobody mends them.
    careless: bool,
}

impl Views {
    /// Views whose holes are mended, or are not.
    pub(crate) fn new(mend: bool) -> Self {
        Self { careless: !mend, ..Self::default() }
    }

    /// Takes an event in.
    pub(crate) fn event(&mut self, chat: ChatId, seq: Seq, number: Option<Number>) -> Verdict {
        let view = self.chats.entry(chat).or_default();
        if view.has(seq) {
            return Verdict::Repeat;
        }
        let after_gap = view.newest().is_some_and(|newest| seq > newest + 1);
        if self.careless {
            view.whole = true;
            view.head.seq = seq.saturating_sub(1);
        }
        view.keep(seq, number.unwrap_or(0));
        view.join();
        if after_gap { Verdict::AfterGap } else { Verdict::News }
    }

    /// Takes in what was read: the chat is known up to `head`.
    pub(crate) fn read(&mut self, chat: ChatId, head: Head) {
        let view = self.chats.entry(chat).or_default();
        view.head.seq = view.head.seq.max(head.seq);
        view.head.number = view.head.number.max(head.number);
        view.whole = true;
        view.since = view.head.seq;
        view.join();
    }

    /// Takes in that the chat is followed from now on; from `seq` + 1 when that is told: what came before is no hole then.
    pub(crate) fn follow(&mut self, chat: ChatId, seq: Option<Seq>) {
        let view = self.chats.entry(chat).or_default();
        let Some(seq) = seq else { return };
        view.whole |= view.head.seq == 0;
        if seq > view.head.seq {
            view.head.seq = seq;
            view.since = seq;
        }
        view.join();
    }

    /// Takes in that the chat is followed no more.
    pub(crate) fn forget(&mut self, chat: ChatId) {
        self.chats.remove(&chat);
    }

    /// Takes in that the chat is not whole, and is to be read.
    pub(crate) fn doubt(&mut self, chat: ChatId) {
        self.chats.entry(chat).or_default().whole = false;
    }

    /// A new session without resume: every chat is to be read. Returns them, and how far they are had.
    pub(crate) fn restart(&mut self) -> Vec<(ChatId, Head)> {
        self.chats.values_mut().for_each(|view| view.whole = false);
        self.chats.iter().map(|(chat, view)| (*chat, view.head)).collect()
    }

    /// How far the chat is had, if everything up to there is.
    pub(crate) fn whole(&self, chat: ChatId) -> Option<Seq> {
        self.chats.get(&chat).filter(|view| view.whole).map(|view| view.head.seq)
    }

    /// After which seq, and up to which one, everything of the chat came as events.
    pub(crate) fn came(&self, chat: ChatId) -> Option<(Seq, Seq)> {
        self.chats.get(&chat).filter(|view| view.whole).map(|view| (view.since, view.head.seq))
    }

    /// Whether something of the chat is missing before what came.
    pub(crate) fn has_hole(&self, chat: ChatId) -> bool {
        self.chats.get(&chat).is_some_and(|view| view.whole && !view.behind.is_empty())
    }

    /// The chats of which something is missing before what came.
    pub(crate) fn with_holes(&self) -> Vec<ChatId> {
        self.chats.keys().copied().filter(|chat| self.has_hole(*chat)).collect()
    }

    /// Takes in how far somebody has read.
    pub(crate) fn read_up_to(&mut self, chat: ChatId, user: UserId, number: Number) {
        self.marks.insert((chat, user), number);
    }

    /// How far somebody has read, as told last.
    pub(crate) fn read_mark(&self, chat: ChatId, user: UserId) -> Option<Number> {
        self.marks.get(&(chat, user)).copied()
    }

    /// How far the chat is had without a hole.
    pub(crate) fn head(&self, chat: ChatId) -> Option<Head> {
        self.chats.get(&chat).map(|view| view.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views() -> (Views, ChatId) {
        let (mut views, chat) = (Views::new(true), ChatId::random());
        views.read(chat, Head { number: 4, seq: 5 });
        (views, chat)
    }

    fn head(number: Number, seq: Seq) -> Option<Head> {
        Some(Head { number, seq })
    }

    #[test]
    fn a_repeat_is_passed_over_and_the_head_waits_at_a_hole() {
        let (mut views, chat) = views();
        assert_eq!(views.event(chat, 5, Some(4)), Verdict::Repeat);
        assert_eq!(views.event(chat, 6, None), Verdict::News);
        assert_eq!(views.event(chat, 8, Some(6)), Verdict::AfterGap);
        assert_eq!(views.event(chat, 8, Some(6)), Verdict::Repeat, "kept behind the hole");
        assert_eq!(views.event(chat, 9, None), Verdict::News, "one hole is told once");
        assert_eq!(views.event(chat, 11, None), Verdict::AfterGap);
        assert_eq!((views.head(chat), views.whole(chat)), (head(4, 6), Some(6)));
        assert_eq!(views.with_holes(), [chat]);
        assert_eq!(views.event(chat, 7, Some(5)), Verdict::News);
        assert_eq!(views.head(chat), head(6, 9));
        assert_eq!(views.event(chat, 10, None), Verdict::News);
        assert_eq!((views.head(chat), views.has_hole(chat)), (head(6, 11), false));
    }

    #[test]
    fn what_fills_a_hole_may_come_in_any_order_and_more_than_once() {
        let (mut views, chat) = views();
        for seq in [9, 7, 9, 8, 7, 6] {
            views.event(chat, seq, None);
        }
        assert_eq!((views.head(chat), views.has_hole(chat)), (head(4, 9), false));
    }

    #[test]
    fn reading_closes_a_hole_and_what_came_meanwhile_is_not_lost() {
        let (mut views, chat) = views();
        views.event(chat, 9, Some(7));
        views.doubt(chat);
        views.event(chat, 10, Some(8));
        assert_eq!((views.head(chat), views.whole(chat)), (head(4, 5), None));
        views.read(chat, Head { number: 6, seq: 8 });
        assert_eq!((views.head(chat), views.whole(chat)), (head(8, 10), Some(10)));
    }

    #[test]
    fn a_chat_that_was_never_read_is_not_whole_wherever_it_begins() {
        let (mut views, chat) = (Views::new(true), ChatId::random());
        assert_eq!(views.event(chat, 15, None), Verdict::News, "the first of a session may be any");
        assert_eq!(views.whole(chat), None);
        assert_eq!(views.event(chat, 17, None), Verdict::AfterGap);
        views.read(chat, Head { number: 3, seq: 15 });
        assert_eq!((views.whole(chat), views.has_hole(chat)), (Some(15), true));
    }

    #[test]
    fn a_chat_told_up_to_a_seq_goes_on_from_there_and_a_new_session_reads_again() {
        let (mut views, chat) = (Views::new(true), ChatId::random());
        views.event(chat, 5, None);
        views.follow(chat, Some(3));
        assert_eq!((views.whole(chat), views.has_hole(chat)), (Some(3), true));
        views.follow(chat, Some(4));
        assert_eq!((views.whole(chat), views.has_hole(chat)), (Some(5), false), "let in again");
        assert_eq!(views.came(chat), Some((4, 5)));
        views.follow(chat, Some(2));
        assert_eq!(views.restart(), [(chat, Head { number: 0, seq: 5 })]);
        assert_eq!((views.event(chat, 9, None), views.whole(chat)), (Verdict::News, None));
        views.forget(chat);
        assert_eq!(views.head(chat), None);
    }

    #[test]
    fn where_nobody_mends_a_hole_is_passed_over() {
        let (mut views, chat) = (Views::new(false), ChatId::random());
        assert_eq!(views.event(chat, 5, None), Verdict::News);
        assert_eq!(views.event(chat, 8, Some(6)), Verdict::AfterGap);
        assert_eq!(views.event(chat, 9, None), Verdict::News);
        assert_eq!(views.head(chat), head(6, 9));
        views.restart();
        assert_eq!((views.event(chat, 20, None), views.head(chat)), (Verdict::News, head(6, 20)));
    }

    #[test]
    fn holes_without_end_are_not_kept_without_end() {
        let (mut views, chat) = views();
        for seq in (10..10_000).step_by(2) {
            views.event(chat, seq, None);
        }
        assert_eq!(views.chats[&chat].behind.len(), RUNS);
        for seq in 6..=10_000 {
            views.event(chat, seq, None);
        }
        assert_eq!(views.head(chat), head(4, 10_000));
    }
}
