//! Redis is flushed, dies and is absent, under load: everything goes on, and the judge finds nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::time::Duration;

use common::{engines::EngineUrls, servers::Servers};
use loadtest::{
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};
use stage::{
    Stage, apart_on, ask_redis, judged,
    steady::{Steady, outage},
};
use tokio::{task::block_in_place, time::Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Redis of the test's own, and the engines with it.
fn engines() -> (EngineUrls, Servers) {
    block_in_place(|| {
        let redis = Servers::own(&["redis"]);
        (apart_on(Servers::shared(), Servers::shared(), &redis), redis)
    })
}

/// Waits until there is something in Redis.
async fn filled(engines: &EngineUrls) {
    let until = Instant::now() + 10 * SECOND;
    while ask_redis(engines, "DBSIZE") == "0" {
        assert!(Instant::now() < until, "nothing comes into the cache");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn options(seed: u64) -> MixedOptions {
    MixedOptions { seed, breaks: 5, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_flushed_ten_times_and_nothing_is_lost() {
    let (engines, _redis) = engines();
    let stage = Stage::on(engines.clone(), 3, 2).await;
    let crowd = judged::crowd(&stage.cluster.url(), &stage.folder, 7, 1).await;
    let load = Mixed::start(&crowd, &options(31), &Progress::quiet()).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(SECOND).await;
        filled(&engines).await;
        assert_eq!(ask_redis(&engines, "FLUSHALL"), "OK");
    }
    tokio::time::sleep(SECOND).await;
    load.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_without_redis() {
    let (engines, redis) = engines();
    block_in_place(|| redis.stop("redis"));
    let stage = Stage::on(engines.clone(), 3, 2).await;
    let url = stage.cluster.url();

    // Signing in, making chats, and all that people do.
    let crowd = judged::crowd(&url, &stage.folder, 7, 1).await;
    let steady = Steady::new(&url).await;
    let load = Mixed::start(&crowd, &options(32), &Progress::quiet()).await.unwrap();
    steady.goes_on(3 * SECOND).await;
    block_in_place(|| redis.start("redis"));
    filled(&engines).await;
    steady.goes_on(2 * SECOND).await;

    block_in_place(|| redis.stop("redis"));
    steady.goes_on(outage()).await;
    // Somebody new finds nothing amiss.
    Steady::new(&url).await.judge().await;
    block_in_place(|| redis.start("redis"));
    filled(&engines).await;
    steady.goes_on(2 * SECOND).await;

    for _ in 0..3 {
        block_in_place(|| redis.kill("redis"));
        steady.goes_on(SECOND).await;
        block_in_place(|| redis.start("redis"));
        filled(&engines).await;
    }
    steady.goes_on(2 * SECOND).await;
    load.stop().await;
    steady.judge().await;
    stage.judge(crowd).await;
}
