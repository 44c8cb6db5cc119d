//! Each second: how far this node's partitions are, to every other node, behind the live events that the marks speak of; and to this
//! node itself.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::{
    ids::Partition,
    wire::{
        codec::pack,
        marks::{Mark, Place},
        peer::NodeToDispatcher,
    },
};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Control, Line, Receiver};
use crate::owner::Owners;

/// Between two marks.
const EVERY: Duration = Duration::from_secs(1);
/// How long the frames of the second may take to be acknowledged (20 ms, when the dispatcher is well). Marks that wait longer say that they
/// are not whole.
const HANDED_OVER: Duration = Duration::from_millis(500);
/// Between two looks whether they are.
const LOOK: Duration = Duration::from_millis(10);

/// Where the partitions were by the marks before.
type Places = HashMap<Partition, Place>;

pub(super) async fn run(
    control: Control,
    owners: Owners,
    receiver: Arc<dyn Receiver>,
    shutdown: CancellationToken,
) {
    let saying = async {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said =
            Said { here: Places::new(), others: Places::new(), published: Vec::new(), lossy: false };
        loop {
            every.tick().await;
            said.again(&control, &owners, &*receiver).await;
        }
    };
    shutdown.run_until_cancelled(saying).await;
}

/// What was said last.
struct Said {
    here: Places,
    others: Places,
    /// Of each line, the last live event that the marks before spoke of.
    published: Vec<u64>,
    /// Live events were lost before the marks before were said. They may have been of changes behind the places that these spoke of.
    lossy: bool,
}

impl Said {
    async fn again(&mut self, control: &Control, owners: &Owners, receiver: &dyn Receiver) {
        let shared = &control.0;
        let now: Places = owners.places().into_iter().collect();
        // Here, a change was delivered before its place was moved.
        receiver.marks(&shared.presentation.node, &row(&self.here, &now, true));
        self.here.clone_from(&now);

        let lines = &shared.lines;
        // What is lost from here on is the next marks' business.
        let lossy = shared.lossy.swap(false, Ordering::AcqRel);
        let published: Vec<u64> = lines.iter().map(|line| line.published.load(Ordering::Acquire)).collect();
        let chosen = lines.iter().enumerate().find(|(_, line)| line.ready() && line.link.is_up());
        let Some((chosen, line)) = chosen else {
            // Said when there is a way again, for all the time since.
            shared.lossy.fetch_or(lossy, Ordering::AcqRel);
            return;
        };
        // What went another way may come behind these marks.
        let other_ways = published
            .iter()
            .enumerate()
            .any(|(at, no)| at != chosen && *no > self.published.get(at).copied().unwrap_or(0));
        let upto = published.get(chosen).copied().unwrap_or(0);
        let whole = handed_over(line, upto).await && !lossy && !self.lossy && !other_ways;
        let marks = row(&self.others, &now, whole);
        if line.send(&NodeToDispatcher::Marks { body: pack(&marks) }).is_ok() {
            self.others = now;
            self.published = published;
            self.lossy = lossy;
        } else {
            shared.lossy.fetch_or(lossy, Ordering::AcqRel);
        }
    }
}

/// Whether the dispatcher has everything up to this number, in time.
async fn handed_over(line: &Line, upto: u64) -> bool {
    let end = Instant::now() + HANDED_OVER;
    while line.link.acked() < upto {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

fn row(before: &Places, now: &Places, whole: bool) -> Vec<Mark> {
    let mark = |(partition, place): (&Partition, &Place)| {
        // The first of a term says nothing of the time before: whoever hears it asks.
        let before = before.get(partition).filter(|before| before.term == place.term).unwrap_or(place);
        Mark { partition: *partition, from: before.to, told_from: before.told.offset, place: *place, whole }
    };
    now.iter().map(mark).collect()
}
