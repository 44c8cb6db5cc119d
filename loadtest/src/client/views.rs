//! How far a device has seen its chats: what tells a repeat from news, and a hole from the next event. Pure.

use std::collections::HashMap;

use common::{
    ids::{ChatId, Number, Seq, UserId},
    model::Head,
};

/// What an event's `seq` makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next one, or the first of its session.
    News,
    /// Seen before: to be passed over.
    Repeat,
    /// The next one after a hole: something in between never came.
    AfterGap,
}

#[derive(Clone, Copy, Debug, Default)]
struct View {
    head: Head,
    /// The session is young: what came before it was not sent to it, and is closed by reading.
    fresh: bool,
}

/// The chats a device follows.
#[derive(Debug, Default)]
pub(crate) struct Views {
    chats: HashMap<ChatId, View>,
    /// How far others have read, as told last.
    marks: HashMap<(ChatId, UserId), Number>,
}

impl Views {
    /// Takes an event in.
    pub(crate) fn event(&mut self, chat: ChatId, seq: Seq, number: Option<Number>) -> Verdict {
        let view = self.chats.entry(chat).or_insert(View { head: Head::default(), fresh: true });
        if seq <= view.head.seq {
            return Verdict::Repeat;
        }
        let verdict = if view.fresh || seq == view.head.seq + 1 { Verdict::News } else { Verdict::AfterGap };
        view.fresh = false;
        view.head.seq = seq;
        view.head.number = view.head.number.max(number.unwrap_or(0));
        verdict
    }

    /// Takes in what was read: the chat is known up to `head`.
    pub(crate) fn read(&mut self, chat: ChatId, head: Head) {
        let view = self.chats.entry(chat).or_default();
        view.head.seq = view.head.seq.max(head.seq);
        view.head.number = view.head.number.max(head.number);
        view.fresh = false;
    }

    /// Takes in that the chat is followed from now on; from `seq` + 1 when that is told.
    pub(crate) fn follow(&mut self, chat: ChatId, seq: Option<Seq>) {
        let view = self.chats.entry(chat).or_insert(View { head: Head::default(), fresh: seq.is_none() });
        view.head.seq = view.head.seq.max(seq.unwrap_or(0));
    }

    /// Takes in that the chat is followed no more.
    pub(crate) fn forget(&mut self, chat: ChatId) {
        self.chats.remove(&chat);
    }

    /// A new session without resume: the views start anew. Returns the chats that are to be read again, and from where.
    pub(crate) fn restart(&mut self) -> Vec<(ChatId, Head)> {
        self.chats.values_mut().for_each(|view| view.fresh = true);
        self.chats.iter().map(|(chat, view)| (*chat, view.head)).collect()
    }

    /// Takes in how far somebody has read.
    pub(crate) fn read_up_to(&mut self, chat: ChatId, user: UserId, number: Number) {
        self.marks.insert((chat, user), number);
    }

    /// How far somebody has read, as told last.
    pub(crate) fn read_mark(&self, chat: ChatId, user: UserId) -> Option<Number> {
        self.marks.get(&(chat, user)).copied()
    }

    /// How far the chat was seen.
    pub(crate) fn head(&self, chat: ChatId) -> Option<Head> {
        self.chats.get(&chat).map(|view| view.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_passed_over_and_a_hole_is_seen() {
        let (mut views, chat) = (Views::default(), ChatId::random());
        assert_eq!(views.event(chat, 5, Some(4)), Verdict::News, "the first of a session may be any");
        assert_eq!(views.event(chat, 5, Some(4)), Verdict::Repeat);
        assert_eq!(views.event(chat, 6, None), Verdict::News);
        assert_eq!(views.event(chat, 8, None), Verdict::AfterGap);
        assert_eq!(views.head(chat), Some(Head { number: 4, seq: 8 }));
    }

    #[test]
    fn a_new_session_may_begin_anywhere_and_a_chat_told_up_to_a_seq_goes_on_from_there() {
        let (mut views, chat) = (Views::default(), ChatId::random());
        views.follow(chat, Some(3));
        assert_eq!(views.event(chat, 5, None), Verdict::AfterGap);
        assert_eq!(views.restart(), [(chat, Head { number: 0, seq: 5 })]);
        assert_eq!(views.event(chat, 9, None), Verdict::News);
        views.read(chat, Head { number: 7, seq: 8 });
        assert_eq!(views.event(chat, 10, None), Verdict::News);
        views.forget(chat);
        assert_eq!(views.head(chat), None);
    }
}
