//! Appending and confirming: a record counts when the log has it at offset `term + n`, and all before it are confirmed. Then nothing
//! of anybody else lies between, and no later claim can void it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use common::{
    ids::{ChatKey, Offset},
    log::{AppendError, Receipt, Unconfirmed},
    term::confirmed_at,
    wire::{
        peer::{Live, Topic},
        record::{Change, What},
    },
};
use futures_util::FutureExt;

use super::queue::Open;

/// Records under way in one partition. At 1 ms a round trip this is 4 M/s; what it bounds is memory while the log stands still.
pub(super) const UNDER_WAY: usize = 4_096;

/// A record under way.
struct UnderWay {
    n: u64,
    change: Arc<Change>,
    payload: Bytes,
    receipt: Receipt,
}

/// The log did not put a record where this term's owner must find it: the term is over for this node.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error(
        "record {n} of term {term} landed at {offset}: another owner has the partition, or a record was lost"
    )]
    Elsewhere { term: Offset, n: u64, offset: Offset },
    #[error(
        "the store has what stands at {offset}, and this term, {term}, ends at {end}: another owner has the partition"
    )]
    Passed { term: Offset, end: Offset, offset: Offset },
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    #[error("a question to the store broke off: {0}")]
    Fetch(String),
    #[error(
        "the store was drained up to {drained}, and now only up to {offset}: it was put back to an earlier state"
    )]
    StoreWentBack { drained: Offset, offset: Offset },
}

/// The tail of a term: what is appended and not confirmed, and who waits for it.
pub(super) struct Tail {
    term: Offset,
    /// Of the newest record appended.
    n: u64,
    /// Of the newest record confirmed.
    confirmed: u64,
    under_way: VecDeque<UnderWay>,
    /// Bytes of the records under way.
    bytes: usize,
    waiting: BTreeMap<u64, Vec<Open>>,
    #[cfg(feature = "planted")]
    planted: common::planted::Planted,
}

/// A record that the log has.
pub(super) struct Confirmed {
    pub(super) change: Arc<Change>,
    pub(super) payload: Bytes,
    /// Requests that waited for it.
    pub(super) finished: Vec<Open>,
}

impl Tail {
    pub(super) fn new(term: Offset) -> Self {
        Self {
            term,
            n: 0,
            confirmed: 0,
            under_way: VecDeque::new(),
            bytes: 0,
            waiting: BTreeMap::new(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        }
    }

    #[cfg(feature = "planted")]
    pub(super) fn with_planted(self, planted: common::planted::Planted) -> Self {
        Self { planted, ..self }
    }

    pub(super) fn term(&self) -> Offset {
        self.term
    }

    /// The place of the next record in the term.
    pub(super) fn next_n(&self) -> u64 {
        self.n + 1
    }

    /// Where record `n` must be found.
    pub(super) fn offset_of(&self, n: u64) -> Offset {
        confirmed_at(self.term, n)
    }

    /// The `n` of the record at `offset`; 0, which is confirmed from the start, for what is older than the term.
    pub(super) fn n_at(&self, offset: Offset) -> u64 {
        offset.saturating_sub(self.term)
    }

    /// Bytes of the records under way.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() >= UNDER_WAY
    }

    /// The next record is on its way.
    pub(super) fn push(&mut self, change: Arc<Change>, payload: Bytes, receipt: Receipt) {
        self.n += 1;
        self.bytes += payload.len();
        self.under_way.push_back(UnderWay { n: self.n, change, payload, receipt });
    }

    /// Gives the request back if the log has everything up to `n` already.
    pub(super) fn wait(&mut self, n: u64, open: Open) -> Option<Open> {
        if n <= self.confirmed {
            return Some(open);
        }
        self.waiting.entry(n).or_default().push(open);
        None
    }

    /// Lets those go who have stopped waiting.
    pub(super) fn forget_abandoned(&mut self) {
        self.waiting.retain(|_, open| {
            open.retain(|open| !open.is_abandoned());
            !open.is_empty()
        });
    }

    /// Waits for the oldest record under way, for ever if there is none. May be dropped and called again.
    pub(super) async fn settled(&mut self) -> Result<Confirmed, Lost> {
        let outcome = match self.under_way.front_mut() {
            Some(oldest) => (&mut oldest.receipt).await,
            None => std::future::pending().await,
        };
        self.take(outcome)
    }

    /// The oldest record under way, if its outcome is known.
    pub(super) fn settled_now(&mut self) -> Option<Result<Confirmed, Lost>> {
        let outcome = (&mut self.under_way.front_mut()?.receipt).now_or_never()?;
        Some(self.take(outcome))
    }

    fn take(&mut self, outcome: Result<Offset, Unconfirmed>) -> Result<Confirmed, Lost> {
        let offset = outcome?;
        let Some(UnderWay { n, change, payload, .. }) = self.under_way.pop_front() else {
            return Err(Unconfirmed("nothing was under way".into()).into());
        };
        self.bytes -= payload.len();
        #[cfg(feature = "planted")]
        let offset = if self.planted.is(common::planted::Bug::AckOnAnyReport) {
            confirmed_at(self.term, n)
        } else {
            offset
        };
        if offset != confirmed_at(self.term, n) {
            return Err(Lost::Elsewhere { term: self.term, n, offset });
        }
        self.confirmed = n;
        let later = self.waiting.split_off(&(n + 1));
        let finished = std::mem::replace(&mut self.waiting, later).into_values().flatten().collect();
        Ok(Confirmed { change, payload, finished })
    }
}

/// Why nothing was appended.
pub(super) fn refused(error: &AppendError) -> super::Refusal {
    match error {
        AppendError::TooLarge { .. } => {
            super::Refusal::new(super::ErrorCode::TooLarge, "this is longer than a record may be")
        }
        AppendError::Full | AppendError::Closed | AppendError::NoSuchPartition { .. } => {
            super::later("the log takes nothing at the moment")
        }
    }
}

/// Who is told, once it is stored, that they are in a chat now, or no more.
pub(super) fn announcement(change: &Change) -> Option<(Vec<Topic>, Live)> {
    let ChatKey { app, chat } = change.key();
    let seq = change.seq;
    let (users, gone): (Vec<_>, bool) = match &change.what {
        What::Created { members, .. } | What::Members { members } => {
            (members.iter().map(|(user, _)| *user).collect(), false)
        }
        What::Joined { user, .. } => (vec![*user], false),
        What::Left { user, .. } => (vec![*user], true),
        _ => return None,
    };
    let topics = users.iter().map(|user| Topic::User(app, *user)).collect();
    let live =
        if gone { Live::Removed { app, chat, seq, users } } else { Live::Added { app, chat, seq, users } };
    Some((topics, live))
}
