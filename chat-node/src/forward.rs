//! Asking the owner of a chat, wherever it is: this node itself, or another one behind a dispatcher.
//!
//! A request is held until its owner has answered: after a break, or when the placement names another owner, it is asked again, flagged
//! as a retry. [`Lanes`] keep one device's sends in order per chat.

mod lanes;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use common::{
    ids::{NodeId, Partition},
    partition::partition_of,
    wire::{
        codec::pack,
        codes::ErrorCode,
        owner::{Answer, OwnerRequest, Refusal},
        peer::Placement,
    },
};
use tokio::{sync::watch, time::Instant};

pub use self::lanes::Lanes;
use crate::{
    control::{Clock, Control, Remote, RemoteAnswer},
    owner::Owners,
};

/// How long an owner may take, take-overs included. Then the asker is told that the outcome is not known.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// A read that nobody answers is answered from the store, so it need not wait as long: one take-over of a partition.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// Between two attempts, when nothing has changed meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// The way to every chat's owner. Cheap to clone.
#[derive(Clone)]
pub struct Forward(Arc<Inner>);

struct Inner {
    node: NodeId,
    partitions: Partition,
    placement: watch::Receiver<Arc<Placement>>,
    remote: Remote,
    clock: Clock,
    owners: OnceLock<Owners>,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forward of {}", self.0.node)
    }
}

impl Forward {
    /// For this node, over a log of `partitions`.
    pub fn new(node: NodeId, partitions: Partition, control: &Control) -> Self {
        Self(Arc::new(Inner {
            node,
            partitions,
            placement: control.placement(),
            remote: control.remote(),
            clock: control.clock(),
            owners: OnceLock::new(),
        }))
    }

    /// Who answers for what this node owns itself. Said once, when the owners are there.
    pub fn answer_locally(&self, owners: Owners) {
        if self.0.owners.set(owners).is_err() {
            tracing::error!("the owners of this node were set twice");
        }
    }

    /// Asks the chat's owner; asks again, flagged as a retry, after a break or a change of owner; at most 5 s. Never answers
    /// [`Answer::NotOwner`]. When the time is over: `retry_later` if the request is surely not stored, else [`Answer::Unknown`].
    pub async fn ask(&self, request: OwnerRequest) -> Answer {
        let partition = partition_of(request.key(), self.0.partitions);
        self.ask_partition(partition, request).await
    }

    /// Likewise, about a whole partition.
    pub async fn ask_partition(&self, partition: Partition, mut request: OwnerRequest) -> Answer {
        let inner = &self.0;
        let wait = if request.ask.reads() { READ_DEADLINE } else { DEADLINE };
        let end = Instant::now() + wait;
        let mut placement = inner.placement.clone();
        let mut surely_not = true;
        loop {
            let owner = placement.borrow_and_update().owners.get(usize::from(partition)).cloned().flatten();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return if surely_not { not_stored() } else { Answer::Unknown };
            }
            if let Some(owner) = owner {
                let moved = moved(&mut placement, partition, &owner);
                let attempt = tokio::select! {
                    attempt = self.attempt(&owner, partition, &request, left) => attempt,
                    // It may have been stored before the owner was replaced.
                    () = moved => RemoteAnswer::Broken,
                };
                match attempt {
                    RemoteAnswer::Answer(Answer::NotOwner) | RemoteAnswer::Undeliverable => {}
                    RemoteAnswer::Answer(Answer::Unknown) | RemoteAnswer::Broken => {
                        surely_not &= request.ask.reads();
                        request.retry = true;
                    }
                    // Refused for now, but an attempt before may have been stored: asked again under its name.
                    RemoteAnswer::Answer(answer) if !surely_not && for_now(&answer) => {}
                    RemoteAnswer::Answer(answer) => return answer,
                }
            }
            tokio::select! {
                () = tokio::time::sleep_until(end.min(Instant::now() + PAUSE)) => {}
                changed = placement.changed() => if changed.is_err() {
                    return if surely_not { not_stored() } else { Answer::Unknown };
                },
            }
        }
    }

    async fn attempt(
        &self,
        owner: &NodeId,
        partition: Partition,
        request: &OwnerRequest,
        left: Duration,
    ) -> RemoteAnswer {
        let inner = &self.0;
        let deadline = inner.clock.now().plus(left);
        if *owner != inner.node {
            return inner.remote.ask(partition, deadline, left, pack(request)).await;
        }
        let Some(owners) = inner.owners.get() else { return RemoteAnswer::Undeliverable };
        RemoteAnswer::Answer(owners.handle(partition, request.clone(), deadline, left).await)
    }
}

/// Whether the answer says that it was not done, for now.
fn for_now(answer: &Answer) -> bool {
    match answer {
        Answer::Refused(refusal) => refusal.code.temporary(),
        Answer::Sent(outcomes) => outcomes
            .iter()
            .any(|outcome| matches!(outcome, Err(refusal) if refusal.code == ErrorCode::RetryLater)),
        _ => false,
    }
}

/// Resolves when the placement names another owner than `owner`.
async fn moved(placement: &mut watch::Receiver<Arc<Placement>>, partition: Partition, owner: &NodeId) {
    let other = |placement: &Arc<Placement>| {
        placement.owners.get(usize::from(partition)).and_then(Option::as_ref) != Some(owner)
    };
    if placement.wait_for(other).await.is_err() {
        // Nobody tells of placements any more: the node is stopping.
        std::future::pending().await
    }
}

fn not_stored() -> Answer {
    Answer::Refused(Refusal {
        retry_after_ms: Some(1_000),
        ..Refusal::new(ErrorCode::RetryLater, "the chat has no owner at the moment")
    })
}
