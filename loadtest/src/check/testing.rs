//! Journals made by hand, for the tests of the rules.

use common::{
    ids::{ChatId, ClientId, MessageId, Number, Seq, UserId},
    model::Head,
};

use super::{DeviceJournal, FaultJournal, HistoryJournal, Journals, RestJournal, Violation, judge};
use crate::journal::{Answer, Ask, Entry, Event, Fate, Kept, Line, Print, VERSION, What};

/// In microseconds.
pub(super) const SECOND: u64 = 1_000_000;

/// A run being written down. Users, chats and messages have one-letter or numbered names.
pub(super) struct Run {
    pub(super) chat: ChatId,
    journals: Journals,
    at: u64,
}

pub(super) fn user(name: char) -> UserId {
    UserId::from_slice(&[name as u8; 16]).unwrap()
}

pub(super) fn id(number: u64) -> MessageId {
    MessageId::from_slice(&u128::from(number).to_be_bytes()).unwrap()
}

pub(super) fn name(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

/// The message `text` as history shows it.
pub(super) fn kept(number: Number, from: char, text: &str) -> Kept {
    Kept {
        number,
        id: id(number),
        from: user(from),
        body: Print::of(text),
        edited: false,
        deleted: false,
        expired: false,
        reactions: None,
        mentions: Vec::new(),
    }
}

impl Run {
    /// A chat of `ana` (a), who made it, and `ben` (b), each with an open session.
    pub(super) fn new() -> Self {
        let mut run =
            Self { chat: ChatId::from_slice(&[9; 16]).unwrap(), journals: Journals::default(), at: 0 };
        run.device('a');
        run.device('b');
        let request = 1;
        run.write('a', Entry::Asked { request, ask: Ask::Group { members: vec![user('b')] } });
        run.write('a', Entry::Answered { request, answer: Answer::Done { chat: Some(run.chat), seq: None } });
        run
    }

    pub(super) fn device(&mut self, of: char) {
        let lines = Vec::new();
        self.journals.devices.push(DeviceJournal {
            file: format!("{of}.jsonl"),
            user: user(of),
            clock: 1,
            lines,
        });
        self.write(of, Entry::Device { version: VERSION, device: of.to_string(), user: user(of), clock: 1 });
        self.open(of);
    }

    pub(super) fn open(&mut self, of: char) {
        self.opens(of, false);
    }

    /// A session that says whether missed events follow.
    pub(super) fn opens(&mut self, of: char, resuming: bool) -> &mut Self {
        let node = common::ids::NodeId::new("node-1").unwrap();
        self.write(of, Entry::Opened { socket: 1, node, resuming })
    }

    pub(super) fn close(&mut self, of: char) -> &mut Self {
        self.write(of, Entry::Closed { socket: 1, code: None })
    }

    /// When the next line is written, to the microsecond.
    pub(super) fn now(&self) -> u64 {
        self.at + 1
    }

    /// Time passes.
    pub(super) fn later(&mut self, micros: u64) -> &mut Self {
        self.at += micros;
        self
    }

    /// A line of whoever does something to the cluster.
    pub(super) fn fate(&mut self, fate: Fate) -> &mut Self {
        self.at += 1;
        if self.journals.faults.is_empty() {
            let first = Line { n: 1, at: 0, entry: Entry::Faults { version: VERSION, clock: 1 } };
            self.journals.faults.push(FaultJournal {
                file: "faults.jsonl".into(),
                clock: 1,
                lines: vec![first],
            });
        }
        let lines = &mut self.journals.faults[0].lines;
        lines.push(Line { n: lines.len() as u64 + 1, at: self.at, entry: Entry::Fault(fate) });
        self
    }

    /// What log and store hold in the end.
    pub(super) fn at_rest(&mut self, entries: Vec<Entry>) -> &mut Self {
        let first = Entry::AtRest { version: VERSION };
        let entries = std::iter::once(first).chain(entries);
        let lines = (1..).zip(entries).map(|(n, entry)| Line { n, at: 0, entry }).collect();
        self.journals.rest.push(RestJournal { file: "rest.jsonl".into(), lines });
        self
    }

    /// A line in somebody's newest journal.
    pub(super) fn write(&mut self, of: char, entry: Entry) -> &mut Self {
        self.at += 1;
        let journal = self.journals.devices.iter_mut().rfind(|journal| journal.user == user(of)).unwrap();
        journal.lines.push(Line { n: journal.lines.len() as u64 + 1, at: self.at, entry });
        self
    }

    /// Hands a message to the socket; its name is its text.
    pub(super) fn sending(&mut self, of: char, text: &str, retry: bool) -> &mut Self {
        let (chat, client_id, body) = (self.chat, name(text), Print::of(text));
        self.write(of, Entry::Sending { order: 1, chat, client_id, body, retry })
    }

    pub(super) fn acked(&mut self, of: char, text: &str, number: Number, seq: Seq) -> &mut Self {
        let (chat, client_id) = (self.chat, name(text));
        self.write(of, Entry::Acked { chat, client_id, id: id(number), number, seq, repeat: false })
    }

    pub(super) fn refused(
        &mut self,
        of: char,
        text: &str,
        code: common::wire::codes::ErrorCode,
    ) -> &mut Self {
        let (chat, client_id) = (self.chat, name(text));
        self.write(of, Entry::Refused { chat, client_id, code, last: !code.temporary() })
    }

    /// `of` is shown the event `what` at `seq`.
    pub(super) fn event(&mut self, of: char, seq: Seq, what: What) -> &mut Self {
        let chat = self.chat;
        self.write(of, Entry::Event(Event { chat, seq, by: user('a'), what }))
    }

    /// `of` is shown the message `text` of `from`.
    pub(super) fn message(
        &mut self,
        of: char,
        seq: Seq,
        number: Number,
        from: char,
        text: &str,
    ) -> &mut Self {
        let (id, body, from) = (id(number), Some(Print::of(text)), user(from));
        self.event(of, seq, What::Message { number, id, from, body, client_id: None })
    }

    /// `of` asks and is answered.
    pub(super) fn asks(&mut self, of: char, ask: Ask, answer: Answer) -> &mut Self {
        let request = 1_000 + self.at;
        self.write(of, Entry::Asked { request, ask }).write(of, Entry::Answered { request, answer })
    }

    /// The chat as it is read in the end.
    pub(super) fn history(&mut self, head_seq: Seq, messages: Vec<Kept>) -> &mut Self {
        let head = Head { number: messages.last().map_or(0, |message| message.number), seq: head_seq };
        let first =
            Entry::History { version: VERSION, chat: self.chat, reader: user('a'), head, complete: true };
        let entries = std::iter::once(first).chain(messages.into_iter().map(Entry::Message));
        let lines = (1..).zip(entries).map(|(n, entry)| Line { n, at: 0, entry }).collect();
        self.journals.histories.push(HistoryJournal { file: "history.jsonl".into(), chat: self.chat, lines });
        self
    }

    /// The numbers of the invariants that the judge finds broken.
    #[track_caller]
    pub(super) fn broken(&self) -> Vec<u8> {
        let mut numbers: Vec<u8> = self.judged().iter().map(|violation| violation.invariant).collect();
        numbers.dedup();
        numbers
    }

    pub(super) fn judged(&self) -> Vec<Violation> {
        let violations = judge(&self.journals);
        for violation in &violations {
            println!("{violation}");
        }
        violations
    }
}
