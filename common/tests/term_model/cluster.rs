//! One partition, its log, its owners and its clients: what can be, and what can happen next.

use std::fmt;

use common::term::{self, Header, TermState, Verdict};

/// Who may acknowledge what, and which records count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `common::term`, and owners that confirm an entry at its place, after all before it.
    Ours,
    /// No claims: the placement gives each owner the next epoch. Readers skip an entry whose epoch is lower than the
    /// highest they have seen in the log; an owner acknowledges on any delivery report.
    EpochsCheckedByReaders,
    /// Claims and readers as ours; an owner acknowledges on any delivery report, whatever its offset.
    ClaimWithAnyReport,
    /// Claims and readers as ours; an owner acknowledges once an entry and all before it are reported, wherever.
    OrderWithoutOffsets,
    /// Claims and readers as ours; an owner acknowledges an entry at its place, whatever became of those before it.
    OffsetsWithoutOrder,
}

/// How much of the world there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) rule: Rule,
    /// At most this many claims.
    pub(crate) owners: usize,
    /// At most this many different messages.
    pub(crate) messages: usize,
}

/// A message; its index stands for its client id.
pub(crate) type Message = usize;

/// The number that a message has in the chat.
pub(crate) type Number = usize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cluster {
    /// Offset of the next record.
    pub(crate) end: u64,
    /// Where every reader stands when it has read the whole log.
    pub(crate) readers: TermState,
    /// What the valid records say, in the order of the log.
    pub(crate) valid: Vec<(Message, Number)>,
    /// In the order of their claims.
    pub(crate) owners: Vec<Owner>,
    /// Every acknowledgement that a client was ever given, each once, sorted.
    pub(crate) acks: Vec<(Message, Number)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) term: u64,
    /// False once its memory is gone.
    pub(crate) up: bool,
    /// How many valid messages it found before its claim. It knows their client ids and numbers.
    pub(crate) read: usize,
    /// What it sent, in order: index `i` is entry `n = i + 1`.
    pub(crate) sent: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    pub(crate) number: Number,
    pub(crate) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// The log may take it at any time.
    UnderWay,
    /// The log has it, and its owner does not know. Of its offset an owner asks only: is it the one I expect?
    Landed { in_place: bool },
    /// Its owner has acknowledged it.
    Acknowledged,
    /// The log never takes it.
    Lost,
}

/// Owners are named by their index, entries by their `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Claim { owner: usize },
    HandOver { from: usize, to: usize },
    Send { message: Message, owner: usize },
    Land { owner: usize },
    Lose { owner: usize, n: usize },
    Report { owner: usize, n: usize },
    Drop { owner: usize },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |owner: usize| char::from(b'A' + u8::try_from(owner).unwrap());
        match *self {
            Step::Claim { owner } => write!(f, "{} claims", name(owner)),
            Step::HandOver { from, to } => write!(f, "{} hands over to {}", name(from), name(to)),
            Step::Send { message, owner } => write!(f, "m{} to {}", message + 1, name(owner)),
            Step::Land { owner } => write!(f, "{}'s next lands", name(owner)),
            Step::Lose { owner, n } => write!(f, "{}{n} is lost", name(owner)),
            Step::Report { owner, n } => write!(f, "{}{n} is reported", name(owner)),
            Step::Drop { owner } => write!(f, "{} drops", name(owner)),
        }
    }
}

/// What an owner does about a delivery report.
enum Answer {
    Acknowledge,
    /// Not before those before it.
    Wait,
    /// Somebody else was here: drop the partition.
    Drop,
}

impl Rule {
    /// What readers make of entry `n` of `term` when it lands.
    fn advance(self, readers: &mut TermState, term: u64, n: usize, offset: u64) -> Verdict {
        match self {
            Rule::EpochsCheckedByReaders if readers.term.is_some_and(|highest| term < highest) => {
                Verdict::Void
            }
            Rule::EpochsCheckedByReaders => {
                readers.term = Some(term);
                Verdict::Valid
            }
            _ => readers.advance(Header::Entry { term, n: n as u64 }, offset),
        }
    }

    fn answer(self, owner: &Owner, n: usize) -> Answer {
        let in_place = owner.sent[n - 1].fate == Fate::Landed { in_place: true };
        let all_before = owner.sent[..n - 1].iter().all(|entry| entry.fate == Fate::Acknowledged);
        match self {
            Rule::Ours | Rule::OrderWithoutOffsets if !all_before => Answer::Wait,
            Rule::Ours | Rule::OffsetsWithoutOrder if !in_place => Answer::Drop,
            _ => Answer::Acknowledge,
        }
    }
}

impl Cluster {
    /// Everything that can happen next.
    pub(crate) fn steps(&self, model: &Model) -> Vec<Step> {
        let mut steps = Vec::with_capacity(16);
        let next_owner = Some(self.owners.len()).filter(|owner| *owner < model.owners);
        steps.extend(next_owner.map(|owner| Step::Claim { owner }));
        let sendable = self.sendable(model);
        for (index, owner) in self.owners.iter().enumerate() {
            for (i, entry) in owner.sent.iter().enumerate() {
                match entry.fate {
                    Fate::UnderWay => steps.push(Step::Lose { owner: index, n: i + 1 }),
                    Fate::Landed { .. } if owner.up => steps.push(Step::Report { owner: index, n: i + 1 }),
                    _ => {}
                }
            }
            if owner.under_way() > 0 {
                steps.push(Step::Land { owner: index });
            }
            if owner.up {
                steps.extend(sendable.iter().map(|&message| Step::Send { message, owner: index }));
                steps.push(Step::Drop { owner: index });
                if owner.sent.iter().all(|entry| entry.fate == Fate::Acknowledged) {
                    steps.extend(next_owner.map(|to| Step::HandOver { from: index, to }));
                }
            }
        }
        steps
    }

    /// The messages that were sent before, and one that was not: those that were not are interchangeable.
    fn sendable(&self, model: &Model) -> Vec<Message> {
        let was_sent = |message: Message| {
            self.owners.iter().any(|owner| owner.sent.iter().any(|entry| entry.message == message))
        };
        let fresh = (0..model.messages).find(|&message| !was_sent(message));
        (0..model.messages).filter(|&message| was_sent(message) || fresh == Some(message)).collect()
    }

    /// The state after `step`; `None` if it changes nothing.
    pub(crate) fn after(&self, model: &Model, step: Step) -> Option<Cluster> {
        let mut next = self.clone();
        match step {
            Step::Claim { .. } => next.claim(model),
            Step::HandOver { from, .. } => {
                next.owners[from].up = false;
                next.claim(model);
            }
            Step::Send { message, owner } => return next.receive(message, owner).then_some(next),
            Step::Land { owner } => next.land(model, owner),
            Step::Lose { owner, n } => next.owners[owner].sent[n - 1].fate = Fate::Lost,
            Step::Report { owner, n } => match model.rule.answer(&next.owners[owner], n) {
                Answer::Wait => return None,
                Answer::Drop => next.owners[owner].up = false,
                Answer::Acknowledge => {
                    let entry = &mut next.owners[owner].sent[n - 1];
                    entry.fate = Fate::Acknowledged;
                    let (message, number) = (entry.message, entry.number);
                    next.acknowledge(message, number);
                }
            },
            Step::Drop { owner } => next.owners[owner].up = false,
        }
        Some(next)
    }

    fn claim(&mut self, model: &Model) {
        let term = match model.rule {
            Rule::EpochsCheckedByReaders => self.owners.len() as u64,
            _ => {
                let offset = self.end;
                assert_eq!(self.readers.advance(Header::Claim, offset), Verdict::Valid);
                self.end += 1;
                offset
            }
        };
        self.owners.push(Owner { term, up: true, read: self.valid.len(), sent: Vec::new() });
    }

    /// A client's message reaches an owner. False if that changes nothing.
    fn receive(&mut self, message: Message, owner: usize) -> bool {
        let owner = &mut self.owners[owner];
        let read = self.valid[..owner.read].iter().find(|(known, _)| *known == message).copied();
        let sent = owner.sent.iter().find(|entry| entry.message == message);
        match (read, sent) {
            (Some((message, number)), _) => self.acknowledge(message, number),
            (None, Some(entry)) if entry.fate == Fate::Acknowledged => {
                let (message, number) = (entry.message, entry.number);
                self.acknowledge(message, number)
            }
            // The client hears when it is confirmed.
            (None, Some(_)) => false,
            (None, None) => {
                let number = owner.read + owner.sent.len() + 1;
                owner.sent.push(Entry { message, number, fate: Fate::UnderWay });
                true
            }
        }
    }

    /// False if the client has heard exactly this before.
    fn acknowledge(&mut self, message: Message, number: Number) -> bool {
        let place = self.acks.binary_search(&(message, number));
        if let Err(place) = place {
            self.acks.insert(place, (message, number));
        }
        place.is_err()
    }

    /// The log takes the owner's next entry.
    fn land(&mut self, model: &Model, owner: usize) {
        let owner = &mut self.owners[owner];
        let Some(i) = owner.sent.iter().position(|entry| entry.fate == Fate::UnderWay) else { return };
        let (entry, n, offset) = (&mut owner.sent[i], i + 1, self.end);
        self.end += 1;
        entry.fate = Fate::Landed { in_place: offset == term::confirmed_at(owner.term, n as u64) };
        if model.rule.advance(&mut self.readers, owner.term, n, offset) == Verdict::Valid {
            self.valid.push((entry.message, entry.number));
        }
    }

    /// True if somebody claimed after `owner`, so that whatever it still lands is void.
    pub(crate) fn is_stale(&self, owner: &Owner) -> bool {
        self.readers.term > Some(owner.term)
    }
}

impl Owner {
    pub(crate) fn under_way(&self) -> usize {
        self.sent.iter().filter(|entry| entry.fate == Fate::UnderWay).count()
    }
}
