//! Which records of a partition's log count.
//!
//! An owner takes a partition by appending a claim; the claim's offset is its *term*. Its entries carry that term
//! and `n` = 1, 2, 3… An entry is valid if its term is the latest claimed before it and its `n` follows the last
//! valid one of that term. Everything else is void, for every reader, for ever: the verdict depends on nothing but
//! the records before it, so no later record can change it.
//!
//! Only the rule is here: no record format, no log, no lease. The rule rests on the log never giving one offset to
//! two records; a log that was truncated or made anew is another log, and must have another log id.
//! `tests/term_model.rs` explores what the rule guarantees, and what is lost if any part of it is left out.

use serde::{Deserialize, Serialize};

/// Where the rule stands in one partition after some prefix of its log. The default is the empty log's.
///
/// A reader that starts in the middle must start with the state that was stored with its offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TermState {
    /// Offset of the latest claim; `None` before the first.
    pub term: Option<u64>,
    /// `n` of the last valid entry of that term; 0 after the claim.
    pub n: u64,
}

/// What the rule needs to know of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// Somebody takes the partition.
    Claim,
    /// Whatever an owner writes.
    Entry {
        /// Offset of the writer's claim.
        term: u64,
        /// 1 for the first entry of the term.
        n: u64,
    },
}

/// Whether a record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Verdict {
    /// It counts, for every reader, for ever.
    Valid,
    /// It is skipped, by every reader, for ever.
    Void,
}

/// Decides about the record at `offset`; `state` is that of all records before it.
pub fn check(state: &TermState, header: Header, offset: u64) -> Verdict {
    let valid = match header {
        Header::Claim => true,
        // A term at or after its own record was never read from a claim: the record is forged or misplaced.
        Header::Entry { term, n } => {
            state.term == Some(term) && term < offset && state.n.checked_add(1) == Some(n)
        }
    };
    if valid { Verdict::Valid } else { Verdict::Void }
}

impl TermState {
    /// Decides like [`check`], and moves on to the state after the record. A void record changes nothing.
    pub fn advance(&mut self, header: Header, offset: u64) -> Verdict {
        let verdict = check(self, header, offset);
        if verdict == Verdict::Valid {
            *self = match header {
                Header::Claim => Self { term: Some(offset), n: 0 },
                Header::Entry { term, n } => Self { term: Some(term), n },
            };
        }
        verdict
    }
}

/// The offset at which the owner of `term` must find its `n`-th entry for that entry to be confirmed.
///
/// It is confirmed only if entries 1 to `n - 1` are, too: then the offsets after the claim hold nothing but this
/// owner's entries in order. The place alone proves nothing: if an earlier entry was lost, a stranger's void record
/// can fill its place, and this entry is void. A sum past `u64::MAX` is `u64::MAX`, which no log reaches.
pub fn confirmed_at(term: u64, n: u64) -> u64 {
    term.saturating_add(n)
}
