//! One partition's task: not named, taking over, owning, and round again.
//!
//! A term of it ([`term`]) serves requests: what each needs is read ([`needs`]), it is decided ([`decide`], [`send`]), what was decided is
//! appended ([`append`]), and it is answered when the log has that ([`answer`]).

mod answer;
mod append;
mod decide;
mod memory;
mod needs;
mod reads;
mod send;
mod term;

use std::{sync::Arc, time::Duration};

use common::{ids::Partition, log::Receipt, wire::owner::Answer};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::term::Owned;
use super::{
    Context,
    queue::Job,
    retry_later,
    since::Whereabouts,
    takeover::{self, Failure, Taken},
};

/// How long what is under way may take to settle when the partition is handed over or the node stops.
const FLUSH: Duration = Duration::from_secs(2);
/// Before the second try to take a partition over; doubled up to [`CLAIM_PAUSE_MAX`].
const CLAIM_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two tries: half of what a request waits for its owner.
const CLAIM_PAUSE_MAX: Duration = Duration::from_millis(2_500);
/// Between two looks whether the dispatchers count on this node.
const LEASE_PAUSE: Duration = Duration::from_millis(20);
/// After a term was lost, at most this long passes before the next claim, by chance: two nodes that both believe themselves named must not
/// void each other's terms for ever. Doubled with each term lost in a row, up to 16 times.
const LOST_PAUSE: Duration = Duration::from_millis(50);
/// A term that lasted this long was no part of such a duel.
const SETTLED: Duration = Duration::from_secs(5);

/// What a partition's task stands on.
pub(super) struct Owning {
    pub(super) context: Arc<Context>,
    pub(super) partition: Partition,
    pub(super) place: Whereabouts,
}

/// Serves the partition whenever this node is named for it, until `shutdown`.
pub(super) async fn run(
    owning: Owning,
    mut jobs: mpsc::Receiver<Job>,
    mut named: watch::Receiver<bool>,
    serves: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let Owning { context, partition, place } = owning;
    let mut lost_in_a_row = 0;
    while !shutdown.is_cancelled() {
        if !*named.borrow_and_update() {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = named.changed() => if changed.is_err() { break },
                job = jobs.recv() => match job {
                    Some(job) => job.answer(Answer::NotOwner),
                    None => break,
                },
            }
            continue;
        }
        serves.send_replace(true);
        let mut claim = None;
        let taken = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(false),
            // Named no more, or the node is gone.
            unnamed = unnamed(&mut named) => Err(unnamed),
            taken = take_over(&context, partition, &mut jobs, &mut claim) => Ok(taken),
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(goes_on) => {
                // The next owner's claim must come behind this one: in front of it, it would be void.
                if let Some(claim) = claim {
                    let _ = tokio::time::timeout(FLUSH, claim).await;
                }
                serves.send_replace(false);
                if goes_on {
                    continue;
                }
                break;
            }
        };
        tracing::info!(partition, term = taken.term, undrained = taken.bytes, "owns the partition");
        let mut owned = Owned::new(&context, partition, &place, named.clone(), taken);
        let mut pause = Duration::ZERO;
        match owned.serve(&mut jobs, &mut named, &shutdown).await {
            Ok(()) => tracing::info!(partition, term = owned.tail.term(), "gave the partition up"),
            Err(lost) => {
                context.metrics.terms.with_label_values(&["lost"]).inc();
                tracing::warn!(partition, %lost, "lost the partition");
                lost_in_a_row = if owned.since.elapsed() > SETTLED { 0 } else { lost_in_a_row + 1 };
                pause = (LOST_PAUSE * (1 << lost_in_a_row.min(4))).mul_f64(rand::random());
            }
        }
        owned.abandon();
        serves.send_replace(false);
        shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    // Whoever is still in the queue asks the next owner at once.
    jobs.close();
    while let Some(job) = jobs.recv().await {
        job.answer(Answer::NotOwner);
    }
}

/// Resolves when the node is named for the partition no more; false: nobody names anybody any more.
async fn unnamed(named: &mut watch::Receiver<bool>) -> bool {
    named.wait_for(|named| !named).await.is_ok()
}

/// Claims the partition, and reads what is undrained. The claim is made once: while the store or the log cannot be read, the term waits, and
/// whoever asks is told to try later. `claim` is the newest that the log has not answered.
async fn take_over(
    context: &Context,
    partition: Partition,
    jobs: &mut mpsc::Receiver<Job>,
    claim: &mut Option<Receipt>,
) -> Taken {
    let mut pause = CLAIM_PAUSE;
    let term = loop {
        match takeover::claim(context, partition, claim).await {
            Ok(term) => break term,
            // A placement comes before the first heartbeat is echoed.
            Err(Failure::NoLease) => tokio::time::sleep(LEASE_PAUSE).await,
            Err(failure) => {
                tracing::warn!(partition, %failure, "cannot claim the partition; trying again");
                put_off(jobs, &mut pause).await;
            }
        }
    };
    loop {
        match takeover::prepare(context, partition, term).await {
            Ok(taken) => return taken,
            Err(failure) => {
                tracing::warn!(partition, term, %failure, "cannot read what is undrained; trying again");
                put_off(jobs, &mut pause).await;
            }
        }
    }
}

/// Waits a while before the next try, longer each time, and refuses what comes meanwhile.
async fn put_off(jobs: &mut mpsc::Receiver<Job>, pause: &mut Duration) {
    let refuse = async {
        while let Some(job) = jobs.recv().await {
            job.answer(retry_later("the chat's owner cannot read what it must know at the moment"));
        }
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0), refuse).await;
    *pause = (*pause * 2).min(CLAIM_PAUSE_MAX);
}
