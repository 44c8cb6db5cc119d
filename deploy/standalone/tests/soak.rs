//! Links between nodes and dispatcher are cut, slowed and made bad at random, one and several at a time, for as long as one likes: the judge
//! finds nothing, and after each heal every client is whole within 10 s.
//!
//! `make soak` does it for ten minutes. `CHAT_TRIAL__SECONDS` says how long, `CHAT_TRIAL__SEED` makes the same choices again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fall"
)]

mod stage;

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use common::link::relay::FaultyPath;
use futures_util::future::join_all;
use loadtest::{
    journal::Journal,
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use stage::{
    Stage,
    links::{Fault, Links},
    trial,
};

/// Users, the stranger among them, and devices of each: 30 clients.
const USERS: usize = 15;
const DEVICES: usize = 2;

/// What a user waits between two things, at most: so that ten minutes are no more than the judge holds in memory.
const PAUSE: Duration = Duration::from_millis(300);

/// How long a fault lasts, in milliseconds: shorter than a lease, and longer.
const LASTS: Range<u64> = 200..8_000;

/// After how many faults in a row there is calm.
const IN_A_ROW: Range<u32> = 1..5;

/// How long after a heal every client is to be whole.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);

/// How long the calm lasts: so that the judge can tell as well.
const CALM: Duration = Duration::from_secs(12);

/// One fault on one link, and for how long.
struct Misfortune<'a> {
    node: &'a str,
    path: &'a FaultyPath,
    fault: Fault,
    lasts: Duration,
    seed: u64,
    /// Whether the way is another one when it is over.
    forgets: bool,
}

impl<'a> Misfortune<'a> {
    fn any(node: &'a str, path: &'a FaultyPath, random: &mut StdRng) -> Self {
        Self {
            node,
            path,
            fault: Fault::any(random),
            lasts: Duration::from_millis(random.random_range(LASTS)),
            seed: random.random(),
            forgets: random.random_bool(0.2),
        }
    }

    async fn happen(self, faults: &Journal) {
        let Self { node, path, fault, lasts, seed, forgets } = self;
        let what = format!("{node}: {fault} for {} ms", lasts.as_millis());
        faults.fault_begins(&what);
        fault.befall(path, seed);
        tokio::time::sleep(lasts).await;
        path.heal();
        if forgets {
            path.forget();
        }
        faults.fault_ends(&what);
        println!("    {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_fail_at_random_leave_nothing_to_complain_of_and_every_client_whole() {
    let trial = trial::chosen();
    let mut random = StdRng::seed_from_u64(trial.seed.into());
    let links = Links::of(3).await;
    let stage = Stage::over(3, links.way()).await;
    let crowd = stage.crowd(USERS, DEVICES).await;
    let faults = stage.faults(&crowd);
    let options = MixedOptions { seed: trial.seed.into(), pause: PAUSE, breaks: 2, ..Default::default() };
    let load = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    let (began, mut heals) = (Instant::now(), 0);
    let mut not_whole = Vec::new();
    while began.elapsed() < Duration::from_secs(trial.seconds) {
        for _ in 0..random.random_range(IN_A_ROW) {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1_000))).await;
            // One link at least, and as a rule not all.
            let struck = random.random_range(0..links.iter().count());
            let misfortunes: Vec<_> = links
                .iter()
                .enumerate()
                .filter_map(|(n, (node, path))| {
                    let happens = n == struck || random.random_bool(0.3);
                    happens.then(|| Misfortune::any(node, path, &mut random))
                })
                .collect();
            join_all(misfortunes.into_iter().map(|misfortune| misfortune.happen(&faults))).await;
        }
        let healed = Instant::now();
        let behind = crowd.settled(WHOLE_WITHIN).await.unwrap();
        heals += 1;
        let (second, took) = (began.elapsed().as_secs(), healed.elapsed().as_millis());
        if !behind.is_empty() {
            println!("{second:>4} s: heal {heals}, not whole after {took} ms");
            not_whole = behind;
            break;
        }
        println!("{second:>4} s: heal {heals}, every client whole after {took} ms");
        tokio::time::sleep(CALM.saturating_sub(healed.elapsed())).await;
    }
    drop(faults);
    load.stop().await;
    let exercise = stage.judge(crowd).await;
    println!("{exercise}");
    assert_eq!(not_whole, Vec::<String>::new(), "not whole so long after a heal, though at the end");
    assert!(exercise.acked > trial.seconds * 5, "little was said:\n{exercise}");
}
