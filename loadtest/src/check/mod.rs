//! The judge: proves invariants of the cluster (design, section 10) from what devices wrote down and from a final read of every
//! chat's history. It asks the cluster nothing, and knows nothing of how it works.
//!
//! | file | invariants |
//! | --- | --- |
//! | `history` | 1: what was acknowledged is there once; 2: nothing else is |
//! | `numbers` | 3: numbers without holes, one pairing for all |
//! | `sessions` | 4: a session sees a chat's events in order, once, all |
//! | `order` | 5: sending order and causality |
//! | `acks` | 8: one message for one `client_id` |
//! | `members` | 9: nothing for and from those who are no members |
//!
//! Each is a pure function of [`Facts`] and returns what it found. To judge one more invariant: a file with such a function, a line in
//! [`RULES`], a line above.

mod acks;
mod exercise;
mod facts;
mod history;
mod journals;
mod members;
mod numbers;
mod order;
mod reading;
mod sessions;
#[cfg(test)]
mod testing;

use std::fmt;

pub use self::{
    exercise::Exercise,
    facts::Facts,
    journals::{DeviceJournal, HistoryJournal, Journals, UnreadableJournal},
    reading::{ReadError, read_history},
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

/// Every rule that is judged, in the design's order. 6, 7, 10, 11 and 12 need marks, resume and read marks.
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
    Rule { invariant: 8, says: "all acks for one client_id name one message", find: acks::find },
    Rule {
        invariant: 9,
        says: "nothing reaches or comes from those who are no members",
        find: members::find,
    },
];

/// Judges.
pub fn judge(journals: &Journals) -> Vec<Violation> {
    let facts = Facts::of(journals);
    RULES.iter().flat_map(|rule| (rule.find)(&facts)).collect()
}
