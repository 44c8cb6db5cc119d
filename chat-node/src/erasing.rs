//! What a user or an application that was erased leaves behind is seen to in rounds, by any number of nodes at once: whoever finds something
//! left does it, and doing it twice changes nothing.
//!
//! A user leaves their groups, as if they had asked to; what they wrote stays. An application's sessions are closed within seconds, as are those
//! whose token it signed with a key that it has taken away, and its rows are deleted when the writers have drained what the log had an hour later, since when nobody can have added anything.

use std::{fmt, sync::Arc, time::Duration};

use common::{
    applications::Applications,
    ids::Offset,
    log::SharedLog,
    problem::Problem,
    store::SharedStore,
    time::Millis,
    token::Caller,
    wire::{codes::ErrorCode, owner::Ask},
};
use futures_util::{StreamExt, stream};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    commands::{Commands, itself},
    control::Clock,
    deliver::Deliver,
};

/// Between two looks for sessions of applications, or by keys of theirs, that are no more, when nothing is heard of a change: a ticket may open one
/// after it.
const LOOK: Duration = Duration::from_secs(1);
/// Between two rounds.
const EVERY: Duration = Duration::from_secs(60);
/// Groups that are left in one round, and at once.
const GROUPS: u32 = 500;
const TOGETHER: usize = 16;
/// For how long a user may still be let into a group by who looked before the end. When the writers have drained what the log had then, the store shows
/// each group that they are in.
const LATE: Duration = Duration::from_secs(600);
/// How long rows of an application stay at least: in that time every node has heard that it is no more.
const HEARD: Duration = Duration::from_secs(3_600);
/// Rows of one table that are deleted in one transaction, and how many such follow each other at most in one round.
const ROWS: u32 = 500;
const PARTS: usize = 200;

/// How long the log was at a time.
struct Ends {
    at: Millis,
    of: Vec<Offset>,
}

/// Sees to it. Cheap to clone.
#[derive(Clone)]
pub struct Erasing(Arc<Inner>);

struct Inner {
    commands: Commands,
    store: SharedStore,
    applications: Applications,
    clock: Clock,
    now: Notify,
}

impl fmt::Debug for Erasing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Erasing")
    }
}

impl Erasing {
    /// Of what `store` has.
    pub fn new(commands: Commands, store: SharedStore, applications: Applications, clock: Clock) -> Self {
        Self(Arc::new(Inner { commands, store, applications, clock, now: Notify::new() }))
    }

    /// Somebody was erased: a round begins now.
    pub(crate) fn hint(&self) {
        self.0.now.notify_one();
    }

    /// Closes sessions and goes its rounds, until `shutdown`.
    pub async fn run(self, deliver: Deliver, log: SharedLog, shutdown: CancellationToken) {
        let rounds = async {
            let mut ends = None;
            loop {
                // Nodes that start together do not go together.
                let pause = EVERY.mul_f64(0.5 + rand::random::<f64>());
                let _ = tokio::time::timeout(pause, self.0.now.notified()).await;
                if let Err(problem) = self.round(&log, &mut ends).await {
                    tracing::warn!(%problem, "what was erased is not gone yet: tried again");
                }
            }
        };
        let looks = async {
            let mut news = self.0.applications.news();
            loop {
                let _ = tokio::time::timeout(LOOK, news.changed()).await;
                deliver.close_untaken(&self.0.applications, &self.0.store).await;
            }
        };
        let _ = shutdown.run_until_cancelled(async { tokio::join!(rounds, looks) }).await;
    }

    async fn round(&self, log: &SharedLog, ends: &mut Option<Ends>) -> Result<(), Problem> {
        let began = Instant::now();
        let left = self.0.store.groups_of_erased(GROUPS).await?;
        let left = stream::iter(left).map(async |(key, chat)| {
            // Who leaves is its member, whose sign-ins have all ended.
            let (member, ask) =
                (Caller { user: key.user, ..itself(key.app) }, Ask::RemoveMember { user: key.user });
            match self.0.commands.change(&member, chat.chat, ask).await {
                // Somebody else was faster.
                Err(problem) if problem.code == ErrorCode::NotFound => Ok(()),
                Err(problem) => Err(problem),
                Ok(_) => Ok(()),
            }
        });
        let outcomes: Vec<_> = left.buffer_unordered(TOGETHER).collect().await;
        if let Some(drained) = self.drained(log, ends).await? {
            // Before that, the store may have no group of somebody who is in one.
            self.0.store.settle_erased(drained.minus(LATE)).await?;
            for _ in 0..PARTS {
                if self.0.store.drop_rows(drained.minus(HEARD), ROWS).await? == 0 {
                    break;
                }
                // Others write to these tables as well.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tracing::debug!(groups = outcomes.len(), took = ?began.elapsed(), "looked after what was erased");
        outcomes.into_iter().collect()
    }

    /// A time up to which everything that was appended is in the store. None when that is not known yet: it is looked how long the log is, and
    /// in a later round whether the writers are as far.
    async fn drained(&self, log: &SharedLog, ends: &mut Option<Ends>) -> Result<Option<Millis>, Problem> {
        let drained = match ends.as_ref() {
            Some(Ends { at, of }) => {
                let positions = self.0.store.positions().await?;
                let is_there = |(partition, end): (u16, &Offset)| {
                    *end == 0
                        || positions
                            .iter()
                            .any(|(one, position)| *one == partition && position.offset >= *end)
                };
                if !(0..).zip(of).all(is_there) {
                    return Ok(None);
                }
                Some(*at)
            }
            None => None,
        };
        let (at, mut of) = (self.0.clock.now(), Vec::new());
        for partition in 0..log.partitions() {
            let end = log.end(partition).await;
            of.push(end.map_err(|_| Problem::retry_later("the log does not say how long it is"))?);
        }
        *ends = Some(Ends { at, of });
        Ok(drained)
    }
}

#[cfg(test)]
mod tests;
