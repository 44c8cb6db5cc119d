//! The judge: proves the invariants of the cluster (design, section 10) from what devices wrote down and from a final read of every
//! chat's history. It asks the cluster nothing, and knows nothing of how it works; only for the last invariant somebody
//! must have looked into log and store ([`read_stored`], [`read_stored_at`]).
//!
//! | file | invariants |
//! | --- | --- |
//! | `history` | 1: what was acknowledged is there once; 2: nothing else is |
//! | `numbers` | 3: numbers without holes, one pairing for all |
//! | `sessions` | 4: a session sees a chat's events in order, once, all |
//! | `order` | 5: sending order and causality |
//! | `whole` | 6: a connected member has everything, or was told |
//! | `complete`, `pages` | 7: what is called complete is |
//! | `acks` | 8: one message for one `client_id` |
//! | `members` | 9: nothing for and from those who are no members |
//! | `ended` | 10: nothing for sign-ins that are over |
//! | `reads` | 11: read marks only move forward |
//! | `rows` | 12: rows = valid records; `stored` reads both |
//!
//! Each is a pure function of [`Facts`] and returns what it found. To judge one more invariant: a file with such a function, a line in
//! [`RULES`], a line above.

mod acks;
mod complete;
mod ended;
mod exercise;
mod facts;
mod history;
mod journals;
mod members;
mod numbers;
mod order;
mod pages;
mod reading;
mod reads;
mod rows;
mod sessions;
mod stored;
#[cfg(test)]
mod testing;
mod whole;

use std::fmt;

pub use self::{
    exercise::Exercise,
    facts::Facts,
    journals::{DeviceJournal, FaultJournal, HistoryJournal, Journals, RestJournal, UnreadableJournal},
    reading::{ATTEMPTS, ReadError, read_history},
    stored::{Unreadable, read_stored, read_stored_at},
};

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evidence {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, by its number in the design.
    pub invariant: u8,
    /// What is wrong, in a sentence.
    pub what: String,
    /// Where that is seen.
    pub evidence: Vec<Evidence>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.what)?;
        for (n, evidence) in self.evidence.iter().enumerate() {
            write!(f, "{}{evidence}", if n == 0 { " [" } else { ", " })?;
        }
        if self.evidence.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

/// A rule: what it proves, in a few words for a table, and the function that looks for what breaks it.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Its number in the design.
    pub invariant: u8,
    /// What it says.
    pub says: &'static str,
    find: fn(&Facts<'_>) -> Vec<Violation>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({}: {})", self.invariant, self.says)
    }
}

/// Every rule, in the design's order. The seventh has two.
pub const RULES: &[Rule] = &[
    Rule {
        invariant: 1,
        says: "what was acknowledged is in history, once, under its number",
        find: history::kept,
    },
    Rule {
        invariant: 2,
        says: "nothing is in history that nobody sent or that was refused",
        find: history::sent,
    },
    Rule { invariant: 3, says: "numbers without holes, the same for every observer", find: numbers::find },
    Rule {
        invariant: 4,
        says: "a session sees events in order, none twice, none missing",
        find: sessions::find,
    },
    Rule {
        invariant: 5,
        says: "a device's order and what was seen before writing are kept",
        find: order::find,
    },
    Rule {
        invariant: 6,
        says: "10 s after the last fault a connected member has everything, or was told",
        find: whole::find,
    },
    Rule {
        invariant: 7,
        says: "what a resumed session is told to be complete is complete",
        find: complete::find,
    },
    Rule { invariant: 7, says: "a page that is called complete is complete", find: pages::find },
    Rule { invariant: 8, says: "all acks for one client_id name one message", find: acks::find },
    Rule {
        invariant: 9,
        says: "nothing reaches or comes from those who are no members",
        find: members::find,
    },
    Rule {
        invariant: 10,
        says: "nothing comes to a session whose sign-in expired or was ended",
        find: ended::find,
    },
    Rule {
        invariant: 11,
        says: "read marks only move forward, to the head at most, and unread counts follow them",
        find: reads::find,
    },
    Rule { invariant: 12, says: "at rest the rows are the valid records of the log", find: rows::find },
];

/// Judges.
pub fn judge(journals: &Journals) -> Vec<Violation> {
    let facts = Facts::of(journals);
    RULES.iter().flat_map(|rule| (rule.find)(&facts)).collect()
}
