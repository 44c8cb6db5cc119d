//! Bugs on purpose in owning, and an owner that was paused and wakes: see [`common::planted`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    ids::Partition,
    planted::{Bug, Circumstance},
    wire::{
        owner::{Draft, Refusal, Sent},
        record::{Claim, Record},
    },
};
use tokio_util::sync::CancellationToken;

use super::Context;

/// Claims the partition now and then, named or not, and does nothing with it: whoever owns it has lost it, and may not know.
pub(super) async fn second_owner(context: Arc<Context>, partition: Partition, shutdown: CancellationToken) {
    if !context.planted.with(Circumstance::SecondOwner) {
        return;
    }
    loop {
        let asleep = Duration::from_millis(rand::random_range(1_500..4_000));
        if shutdown.run_until_cancelled(tokio::time::sleep(asleep)).await.is_none() {
            return;
        }
        let claim = Record::Claim(Claim {
            node: context.node.clone(),
            incarnation: context.incarnation,
            at: context.clock.now(),
        });
        // Refused or lost: the next one comes soon.
        let _ = context.log.append(partition, Bytes::new(), claim.encode()).await;
    }
}

impl Context {
    /// The order in which a batch's sends are taken.
    pub(super) fn misordered(&self, drafts: &[Draft]) -> Vec<Draft> {
        let mut drafts = drafts.to_vec();
        self.misorder(&mut drafts);
        drafts
    }

    /// The outcomes in the order in which the sends were asked.
    pub(super) fn reordered(&self, mut outcomes: Vec<Result<Sent, Refusal>>) -> Vec<Result<Sent, Refusal>> {
        self.misorder(&mut outcomes);
        outcomes
    }

    fn misorder<T>(&self, batch: &mut [T]) {
        if self.planted.is(Bug::ReorderTwoSends) {
            batch.reverse();
        }
    }
}
