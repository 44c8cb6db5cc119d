//! What the journals say, gathered once: who sent what, what became of it, and what was asked for.

use std::collections::{BTreeMap, HashMap};

use common::ids::{ChatId, ClientId, MessageId, Number, Seq, UserId};

use super::{Evidence, Journals};
use crate::{
    client::frames::definite,
    journal::{Answer, Ask, Entry, Event, Kept, Line, Print},
};

/// A line of a device's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) device: usize,
    /// From 0.
    pub(super) line: usize,
}

/// One acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    pub(super) id: MessageId,
    pub(super) number: Number,
    pub(super) seq: Seq,
    pub(super) place: Place,
}

/// Everything about one message that somebody sent, on however many devices and however often.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    /// What it said, at each handing over to a socket (a `client_id` may be used twice).
    pub(super) bodies: Vec<Print>,
    pub(super) attempts: Vec<Place>,
    pub(super) definite_refusals: usize,
    pub(super) refusals: Vec<Place>,
    pub(super) acks: Vec<Acked>,
}

impl Sent {
    /// Whether every attempt was answered by a refusal that says it is surely not stored.
    pub(super) fn surely_refused(&self) -> bool {
        self.acks.is_empty() && self.definite_refusals >= self.attempts.len()
    }
}

/// Names a message before it has an id.
pub(super) type Name<'a> = (ChatId, UserId, &'a ClientId);

/// One thing that was asked beside sends, and how it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) by: UserId,
    pub(super) ask: &'a Ask,
    pub(super) place: Place,
    /// Absent: no answer was written down.
    pub(super) answer: Option<(&'a Answer, Place)>,
}

impl Asked<'_> {
    /// Whether it may have been done.
    pub(super) fn possible(&self) -> bool {
        !matches!(self.answer, Some((Answer::Refused { .. }, _)))
    }
}

/// A chat's history as one reader found it.
#[derive(Clone, Debug)]
pub(super) struct History<'a> {
    pub(super) file: &'a str,
    pub(super) chat: ChatId,
    pub(super) head: common::model::Head,
    pub(super) complete: bool,
    pub(super) messages: Vec<&'a Kept>,
}

impl History<'_> {
    /// Where the `at`-th message stands: the head is line 1.
    pub(super) fn evidence(&self, at: usize) -> Evidence {
        Evidence { file: self.file.to_owned(), line: at + 2 }
    }

    pub(super) fn top(&self) -> Evidence {
        Evidence { file: self.file.to_owned(), line: 1 }
    }
}

/// Journals, and what they say together.
#[derive(Debug)]
pub struct Facts<'a> {
    pub(super) journals: &'a Journals,
    pub(super) sent: BTreeMap<Name<'a>, Sent>,
    pub(super) asked: Vec<Asked<'a>>,
    pub(super) histories: Vec<History<'a>>,
    /// What each message id said when it was new, as observers were told.
    pub(super) told: HashMap<MessageId, (Print, Place)>,
}

impl<'a> Facts<'a> {
    /// Gathers them.
    pub fn of(journals: &'a Journals) -> Self {
        let mut facts = Self {
            journals,
            sent: BTreeMap::new(),
            asked: Vec::new(),
            histories: journals.histories.iter().filter_map(history).collect(),
            told: HashMap::new(),
        };
        for device in 0..journals.devices.len() {
            facts.gather(device);
        }
        facts
    }

    fn gather(&mut self, device: usize) {
        let Some(journal) = self.journals.devices.get(device) else { return };
        let mut open: HashMap<u64, usize> = HashMap::new();
        for (line, Line { entry, .. }) in journal.lines.iter().enumerate() {
            let place = Place { device, line };
            match entry {
                Entry::Sending { chat, client_id, body, .. } => {
                    let sent = self.sent.entry((*chat, journal.user, client_id)).or_default();
                    sent.bodies.push(*body);
                    sent.attempts.push(place);
                }
                Entry::Refused { chat, client_id, code, .. } => {
                    let sent = self.sent.entry((*chat, journal.user, client_id)).or_default();
                    sent.refusals.push(place);
                    sent.definite_refusals += usize::from(definite(*code));
                }
                Entry::Acked { chat, client_id, id, number, seq, .. } => {
                    let sent = self.sent.entry((*chat, journal.user, client_id)).or_default();
                    sent.acks.push(Acked { id: *id, number: *number, seq: *seq, place });
                }
                Entry::Asked { request, ask } => {
                    open.insert(*request, self.asked.len());
                    self.asked.push(Asked { by: journal.user, ask, place, answer: None });
                }
                Entry::Answered { request, answer } => {
                    if let Some(asked) = open.remove(request).and_then(|at| self.asked.get_mut(at)) {
                        asked.answer = Some((answer, place));
                    }
                }
                Entry::Event(Event {
                    what: crate::journal::What::Message { id, body: Some(body), .. },
                    ..
                }) => {
                    self.told.entry(*id).or_insert((*body, place));
                }
                _ => {}
            }
        }
    }

    /// The line at a place.
    pub(super) fn line(&self, place: Place) -> Option<&'a Line> {
        self.journals.devices.get(place.device)?.lines.get(place.line)
    }

    /// When the line at a place was written, and by which clock. Times of different clocks cannot be compared.
    pub(super) fn time(&self, place: Place) -> Option<(u64, u64)> {
        let clock = self.journals.devices.get(place.device)?.clock;
        Some((clock, self.line(place)?.at))
    }

    /// The place, for a person.
    pub(super) fn evidence(&self, place: Place) -> Evidence {
        let file =
            self.journals.devices.get(place.device).map(|device| device.file.clone()).unwrap_or_default();
        Evidence { file, line: place.line + 1 }
    }

    /// The places, for a person; a handful of many.
    pub(super) fn evidences(&self, places: impl IntoIterator<Item = Place>) -> Vec<Evidence> {
        places.into_iter().take(6).map(|place| self.evidence(place)).collect()
    }

    /// Every event that any device was sent, with its place.
    pub(super) fn events(&self) -> impl Iterator<Item = (Place, UserId, &'a Event)> {
        self.journals.devices.iter().enumerate().flat_map(|(device, journal)| {
            journal.lines.iter().enumerate().filter_map(move |(line, Line { entry, .. })| match entry {
                Entry::Event(event) => Some((Place { device, line }, journal.user, event)),
                _ => None,
            })
        })
    }
}

fn history(journal: &super::HistoryJournal) -> Option<History<'_>> {
    let mut lines = journal.lines.iter();
    let Entry::History { chat, head, complete, .. } = lines.next()?.entry else { return None };
    let messages = lines
        .filter_map(|line| match &line.entry {
            Entry::Message(kept) => Some(kept),
            _ => None,
        })
        .collect();
    Some(History { file: &journal.file, chat, head, complete, messages })
}
