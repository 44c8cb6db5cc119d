//! Taking a partition over: claim it, then read what the store does not have yet, from the writer's position up to the claim.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    ids::{ChatKey, Offset, Partition},
    log::{AppendError, ReadError, ReadLimit, Receipt, Unconfirmed},
    store::StoreError,
    term::Verdict,
    wire::{
        marks::LogPlace,
        record::{BadRecord, Claim, Record, What},
    },
};
use tokio::time::Instant;

use super::{
    Context,
    chat::{Chat, Kept},
    queue::Slot,
};

/// A claim that the log has not answered by then may still land; another one is made then.
const CLAIM_WAIT: Duration = Duration::from_secs(10);

/// What one request may add to what is undrained after the owner before has found room for it: it comes in one frame of a link (4 MiB),
/// and makes few enough records that these are not twice as long. A successor that could not hold that would refuse reads as well.
const ONE_REQUEST: usize = 2 * 4 * 1024 * 1024;

/// What a term begins with.
pub(super) struct Taken {
    /// The offset of the claim.
    pub(super) term: Offset,
    /// Everything before is in the store, and where the rule stands there.
    pub(super) drained: LogPlace,
    /// The chats with undrained changes.
    pub(super) slots: HashMap<ChatKey, Slot>,
    /// Bytes of undrained changes.
    pub(super) bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the dispatchers do not count on this node at the moment")]
    NoLease,
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    #[error("the log did not answer in time")]
    Slow,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(ReadError),
    #[error(
        "the log begins at {begin}, after the store's position {position}, and has forgotten what lies between: put back a newer backup of the store"
    )]
    Forgotten { begin: Offset, position: Offset },
    #[error(
        "the store's position belongs to another log: was the log replaced, or the store restored beside a new one?"
    )]
    ForeignLog,
    #[error("offset {offset}: {error}")]
    Version { offset: Offset, error: BadRecord },
    #[error("the writer is {bytes} bytes behind, more than an owner may hold")]
    TooFarBehind { bytes: usize },
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { from, begin, .. } if from < begin => {
                Self::Forgotten { begin, position: from }
            }
            error => Self::Read(error),
        }
    }
}

/// Claims `partition`; the term begins when what is undrained was read as well. While the log has not answered, the claim is `under_way`.
pub(super) async fn claim(
    context: &Context,
    partition: Partition,
    under_way: &mut Option<Receipt>,
) -> Result<Offset, Failure> {
    if !context.lease.holds() {
        return Err(Failure::NoLease);
    }
    let claim = Record::Claim(Claim {
        node: context.node.clone(),
        incarnation: context.incarnation,
        at: context.clock.now(),
    });
    let receipt = under_way.insert(context.log.append(partition, Bytes::new(), claim.encode()).await?);
    let settled = tokio::time::timeout(CLAIM_WAIT, receipt).await.map_err(|_| Failure::Slow)?;
    *under_way = None;
    let term = settled?;
    context.metrics.terms.with_label_values(&["claimed"]).inc();
    Ok(term)
}

/// Reads what the store does not have yet of a partition that was claimed at `term`. May be tried again.
pub(super) async fn prepare(context: &Context, partition: Partition, term: Offset) -> Result<Taken, Failure> {
    let positions = context.store.positions().await?;
    let position =
        positions.into_iter().find_map(|(number, position)| (number == partition).then_some(position));
    if position.is_some_and(|position| position.log != context.log.id()) {
        return Err(Failure::ForeignLog);
    }
    let drained = position
        .map_or(LogPlace::default(), |position| LogPlace { offset: position.offset, state: position.state });
    read(context, partition, term, drained).await
}

async fn read(
    context: &Context,
    partition: Partition,
    term: Offset,
    drained: LogPlace,
) -> Result<Taken, Failure> {
    let now = Instant::now();
    let mut taken = Taken { term, drained, slots: HashMap::new(), bytes: 0 };
    let (mut next, mut state) = (drained.offset, drained.state);
    // The writer may be past the claim already: then there is nothing undrained.
    while next < term {
        let entries = context.log.read(partition, next, ReadLimit::default()).await?;
        let Some(last) = entries.last() else {
            // The claim is confirmed, so what comes before it is there to be read.
            return Err(ReadError::Unavailable(format!(
                "nothing to read at {next}, below a claim at {term}"
            ))
            .into());
        };
        next = last.offset + 1;
        for entry in entries {
            if entry.offset >= term {
                break;
            }
            let record = match Record::decode(&entry.payload) {
                Ok(record) => record,
                Err(error @ BadRecord::Version(_)) => {
                    return Err(Failure::Version { offset: entry.offset, error });
                }
                // No record, for every reader: the writer keeps it as a dead letter.
                Err(BadRecord::Bytes(_)) => continue,
            };
            if state.advance(record.header(), entry.offset) == Verdict::Void {
                continue;
            }
            if let Record::Change(change) = record {
                taken.bytes += entry.payload.len();
                if taken.bytes > context.limits.undrained_bytes.saturating_add(ONE_REQUEST) {
                    return Err(Failure::TooFarBehind { bytes: taken.bytes });
                }
                let kept = Kept { offset: entry.offset, change: Arc::new(change), payload: entry.payload };
                replay(taken.slots.entry(kept.change.key()).or_default(), kept, now);
            }
        }
    }
    for chat in taken.slots.values_mut().filter_map(Slot::chat_mut) {
        chat.confirm_all();
    }
    Ok(taken)
}

/// A chat that was made in the undrained part is whole in memory; of any other the changes wait until it is loaded.
fn replay(slot: &mut Slot, kept: Kept, now: Instant) {
    if let What::Created { .. } = kept.change.what {
        slot.chat = Some(Chat::begin(&kept.change, now).map(Box::new));
    }
    match slot.chat_mut() {
        Some(chat) => chat.apply(kept, now),
        None => slot.replay.push(kept),
    }
}
