//! What a device does about what it does not have: chats that are read again, holes that are asked for, and what it missed between two
//! sessions.
//!
//! A chat that is to be read stays so until it was, through every break: a cursor may have passed what is missing in it.

use std::collections::{BTreeMap, VecDeque};

use common::{
    ids::{ChatId, Number, Seq},
    model::Head,
    wire::{
        client::{Changes, ClientFrame, History, HistoryPage, Ref, Resumed},
        codes::ErrorCode,
    },
};

use super::{
    Done,
    connection::HELLO,
    device::{Device, Waiting},
};
use crate::journal::{Answer, Ask, Entry, Mended, Restart};

/// Chats read again or mended at once. A device with hundreds of chats is no burden for its node when it comes back.
const AT_ONCE: usize = 4;

/// Messages asked for at once when a chat is read again.
const PAGE: u32 = 100;

/// A chat that is to be read again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reread {
    pub(super) chat: ChatId,
    why: Restart,
    /// The newest message before the hole, as it was known when the hole was: what has come since lies behind it. Nothing known: only
    /// where the chat is now is of interest.
    after: Option<Number>,
    /// The head that the first page told, once it was read.
    to: Option<Number>,
}

impl Reread {
    fn new(chat: ChatId, why: Restart, known: Number) -> Self {
        Self { chat, why, after: Some(known).filter(|known| *known > 0), to: None }
    }

    /// One reading for both: from the older of the two, and up to where the chat is then.
    fn also(&mut self, other: Self) {
        self.after = self.after.min(other.after).or(self.after).or(other.after);
        if other.to.is_none() && self.to.take().is_some() {
            self.why = other.why;
        }
    }
}

impl Device {
    /// A session that is not resumed: it is where `cursor` says, and every chat is to be read again.
    pub(super) fn begin_anew(&mut self, cursor: &str) {
        self.whereabouts.anew(cursor);
        if !cursor.is_empty() {
            self.note(|| Entry::Cursor { cursor: cursor.to_owned() });
        }
        let chats = self.shared.views.lock().restart();
        if !self.options.mend {
            return;
        }
        // What was to be read already is read from where it was to be, and in this session.
        for reread in &mut self.rereads {
            *reread = Reread { why: Restart::Opened, to: None, ..*reread };
        }
        for (chat, head) in chats {
            self.read_soon(Reread::new(chat, Restart::Opened, head.number));
        }
    }

    /// Is told what it missed, or what it asked for.
    pub(super) fn resumed(&mut self, ref_: Ref, chats: &BTreeMap<ChatId, Resumed>) {
        let hello = ref_ == HELLO;
        self.note(|| Entry::Resumed { chats: chats.iter().map(mended).collect(), hello });
        let waiting = self.waiting.remove(&ref_).map(|(_, waiting)| waiting);
        for (chat, told) in chats {
            if !told.complete {
                self.doubt(*chat, Restart::Told);
            }
        }
        match waiting {
            Some(Waiting::Hello) => {
                self.resuming = false;
                // Whatever is missing now does not come by itself any more.
                let holes = self.shared.views.lock().with_holes();
                holes.into_iter().for_each(|chat| self.mend_soon(chat));
                chats.iter().for_each(|(chat, told)| self.compare(*chat, told));
            }
            Some(Waiting::Changes(chat, mark)) => {
                self.answered(mark, Answer::Done { chat: Some(chat), seq: None });
                match chats.get(&chat) {
                    Some(told) => self.compare(chat, told),
                    // It did not change, says the server, and there was a hole.
                    None if self.shared.views.lock().has_hole(chat) => self.doubt(chat, Restart::Gap),
                    None => {}
                }
                if self.shared.views.lock().has_hole(chat) {
                    // Another one, behind what was told.
                    self.mend_soon(chat);
                }
            }
            Some(Waiting::Caller(reply)) => {
                // A caller that has given up is no trouble.
                drop(reply.send(Ok(Done::Changes(chats.values().next().copied()))));
            }
            _ => {}
        }
        self.shared.moved.notify_waiters();
    }

    /// What is called complete and is not is read, as any other hole.
    fn compare(&mut self, chat: ChatId, told: &Resumed) {
        let had = self.shared.views.lock().whole(chat);
        if told.complete && had.is_some_and(|had| had < told.to) {
            self.observer.gap();
            self.doubt(chat, Restart::Gap);
        }
    }

    /// What was missing is not told.
    pub(super) fn not_mended(&mut self, chat: ChatId, mark: Option<u64>, code: ErrorCode) {
        self.answered(mark, Answer::Refused { code });
        if code == ErrorCode::NotFound { self.forget(chat) } else { self.doubt(chat, Restart::Gap) }
    }

    fn answered(&self, mark: Option<u64>, answer: Answer) {
        if let (Some(journal), Some(mark)) = (&self.journal, mark) {
            journal.answered(mark, answer);
        }
    }

    /// The user is in this chat no more.
    pub(super) fn forget(&mut self, chat: ChatId) {
        self.shared.views.lock().forget(chat);
        self.rereads.retain(|reread| reread.chat != chat);
        self.rereads_later.retain(|reread| reread.chat != chat);
        self.holes.retain(|holed| *holed != chat);
        self.shared.moved.notify_waiters();
    }

    /// A chat is not whole: it is to be read, whatever else is known of it.
    pub(super) fn doubt(&mut self, chat: ChatId, why: Restart) {
        if !self.options.mend && why == Restart::Gap {
            return;
        }
        let mut views = self.shared.views.lock();
        views.doubt(chat);
        let known = views.head(chat).unwrap_or_default().number;
        drop(views);
        self.read_soon(Reread::new(chat, why, known));
    }

    /// A chat of which nothing was known but its last event is read, so that a hole at its beginning can be told.
    pub(super) fn read_if_new(&mut self, chat: ChatId) {
        if !self.options.mend || self.shared.views.lock().whole(chat).is_some() {
            return;
        }
        let is_this = |reread: &Reread| reread.chat == chat;
        let asked = self.waiting.values().any(|(_, waiting)| match waiting {
            Waiting::Reread(reread) => is_this(reread),
            _ => false,
        });
        if !asked && !self.rereads_later.iter().any(is_this) {
            self.read_soon(Reread::new(chat, Restart::Opened, 0));
        }
    }

    /// Has a chat read again, once however often it is asked for meanwhile: so there are never more of these than chats.
    pub(super) fn read_soon(&mut self, reread: Reread) {
        match self.rereads.iter_mut().find(|queued| queued.chat == reread.chat) {
            Some(queued) => queued.also(reread),
            None => self.rereads.push_back(reread),
        }
    }

    /// Has a hole mended, once.
    pub(super) fn mend_soon(&mut self, chat: ChatId) {
        let asked = |(_, waiting): &(_, Waiting)| matches!(waiting, Waiting::Changes(of, _) if *of == chat);
        if self.options.mend && !self.holes.contains(&chat) && !self.waiting.values().any(asked) {
            self.holes.push_back(chat);
        }
    }

    /// The next thing to ask for, if it may be asked for now. While missed events are told, nothing is: they may be it.
    pub(super) fn next_to_mend(&mut self) -> Option<(Ref, ClientFrame, Waiting)> {
        if self.resuming || self.rereads.is_empty() && self.holes.is_empty() {
            return None;
        }
        let busy = |waiting: &Waiting| matches!(waiting, Waiting::Reread(_) | Waiting::Changes(..));
        if self.waiting.values().filter(|(_, waiting)| busy(waiting)).count() >= AT_ONCE {
            return None;
        }
        let ref_ = self.mark();
        if let Some((chat, after)) = self.next_hole() {
            let mark = self.journal.as_ref().map(|journal| journal.asked(Ask::Changes { chat, after }));
            let ask = ClientFrame::Changes(Changes { ref_, chat, after });
            return Some((ref_, ask, Waiting::Changes(chat, mark)));
        }
        let reread = self.rereads.pop_front()?;
        let limit = if reread.after.is_some() { PAGE } else { 1 };
        let ask = History { ref_, chat: reread.chat, before: None, after: reread.after, limit: Some(limit) };
        Some((ref_, ClientFrame::History(ask), Waiting::Reread(reread)))
    }

    fn next_hole(&mut self) -> Option<(ChatId, Seq)> {
        let views = self.shared.views.lock();
        let holes: &mut VecDeque<ChatId> = &mut self.holes;
        while let Some(chat) = holes.pop_front() {
            // What is missing may have come meanwhile, or is read.
            if views.has_hole(chat) {
                return views.whole(chat).map(|after| (chat, after));
            }
        }
        None
    }

    /// Takes in a page of a chat that is read again.
    pub(super) fn reread(&mut self, reread: Reread, page: &HistoryPage) {
        let Reread { chat, why, after, to } = reread;
        if !page.complete {
            self.rereads_later.push(reread);
            return;
        }
        let Head { number, seq } = page.head;
        if to.is_none() {
            self.note(|| Entry::ViewRestarted { chat, seq, number, why });
            let mut views = self.shared.views.lock();
            views.read(chat, page.head);
            let hole = views.has_hole(chat);
            drop(views);
            self.whereabouts.moved(chat);
            self.shared.moved.notify_waiters();
            if hole {
                self.mend_soon(chat);
            }
        }
        // What the chat has grown by since the first page comes as events.
        let to = to.unwrap_or(number);
        let read_to = page.messages.iter().map(|message| message.number).max();
        if let (Some(after), Some(read_to)) = (after, read_to)
            && read_to > after
            && read_to < to
        {
            self.rereads.push_back(Reread { after: Some(read_to), to: Some(to), ..reread });
        }
    }
}

fn mended((chat, told): (&ChatId, &Resumed)) -> Mended {
    let Resumed { from, to, complete } = *told;
    Mended { chat: *chat, from, to, complete }
}
