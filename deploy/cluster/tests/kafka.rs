//! Kafka stops, dies and is absent, under load: what is sent meanwhile is not known, nothing is reordered, and the judge finds nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::time::Duration;

use common::servers::Servers;
use loadtest::{
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};
use stage::{
    Stage, apart_on, judged,
    steady::{Steady, outage},
};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep, sleep_until},
};

const SECOND: Duration = Duration::from_secs(1);

/// What a broker that was killed takes to be taken back by its controller, and its clients to notice.
const BACK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_nothing_is_acknowledged_and_all_goes_on_when_it_is_back() {
    let kafka = block_in_place(|| Servers::own(&["kafka"]));
    let engines = block_in_place(|| apart_on(&kafka, Servers::shared(), Servers::shared()));
    let stage = Stage::on(engines, 3, 2).await;
    let crowd = judged::crowd(&stage.cluster.url(), &stage.folder, 7, 1).await;
    let faults = judged::faults(&stage.folder, &crowd);
    let options = MixedOptions { seed: 51, breaks: 2, ..Default::default() };
    let steady = Steady::new(&stage.cluster.url()).await;
    let load = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    for (how, away) in [("stop", outage()), ("kill", SECOND), ("kill", 3 * SECOND)] {
        sleep(3 * SECOND).await;
        faults.fault_begins("Kafka is away");
        block_in_place(|| if how == "stop" { kafka.stop("kafka") } else { kafka.kill("kafka") });
        let begun = Instant::now();
        let unanswered = if how == "stop" { Some(steady.reads_on().await) } else { None };
        sleep_until(begun + away).await;
        block_in_place(|| kafka.start("kafka"));
        sleep(BACK).await;
        if let Some(unanswered) = unanswered {
            steady.is_answered(unanswered).await;
        }
        faults.fault_ends("Kafka is away");
    }
    // Whoever stays connected is answered again.
    steady.goes_on(3 * SECOND).await;
    drop(faults);
    load.stop().await;
    steady.judge().await;
    stage.judge(crowd).await;
}
