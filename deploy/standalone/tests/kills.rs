//! The process is killed again and again, at any instant, under load: the judge finds nothing.
//!
//! `CHAT_TRIAL__KILLS=500 cargo test -p standalone --test kills -- --nocapture` kills it more often; `CHAT_TRIAL__SEED` makes the same
//! choices again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fall"
)]

mod stage;

use std::time::{Duration, Instant};

use loadtest::{
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use stage::{
    Folder,
    program::{Program, port},
    trial,
};

/// Users, the stranger among them, and devices of each: 30 clients.
const USERS: usize = 15;
const DEVICES: usize = 2;

/// Of the kills, how many strike a process that does not serve yet.
const WHILE_STARTING: f64 = 0.2;

/// How long it lives otherwise, in milliseconds from when it serves.
const LIVES: std::ops::Range<u64> = 200..2_000;

/// How long the last one lives before everything comes to rest.
const CALM: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_at_random_instants_leave_nothing_to_complain_of() {
    let trial = trial::chosen();
    let mut random = StdRng::seed_from_u64(trial.seed.into());
    let folder = Folder::new();
    let (data, log, port) = (folder.path().join("data"), folder.path().join("server.log"), port());
    let launch = || Program::launch_with_log(&data, port, &log);
    let mut program = launch();
    program.serves().await;
    let crowd = stage::crowd(&program.url, &folder, USERS, DEVICES).await;
    let faults = stage::faults(&folder, &crowd);
    let options = MixedOptions { seed: trial.seed.into(), breaks: 2, ..Default::default() };
    let load = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    let mut starts = Duration::from_secs(1);
    let mut killed = 0;
    while killed < trial.kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(LIVES))).await;
        faults.fault_begins("the process is killed");
        program.kill();
        killed += 1;
        program = launch();
        while killed < trial.kills && random.random_bool(WHILE_STARTING) {
            tokio::time::sleep(starts.mul_f64(random.random())).await;
            program.kill();
            killed += 1;
            program = launch();
        }
        let launched = Instant::now();
        program.serves().await;
        starts = launched.elapsed();
        faults.fault_ends("the process is killed");
        println!("killed {killed} times; serves again after {} ms", starts.as_millis());
    }
    drop(faults);
    tokio::time::sleep(CALM).await;
    load.stop().await;
    let trouble = stage::rest(&folder, crowd).await;
    assert!(program.stop(Duration::from_secs(10)).await.success());
    stage::at_rest(&folder).await;
    let exercise = stage::verdict(&folder, trouble);
    println!("{exercise}");
    assert!(exercise.acked > u64::from(trial.kills) * 10, "little was said between the kills:\n{exercise}");
}
