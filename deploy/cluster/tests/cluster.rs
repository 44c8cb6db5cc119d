//! The cluster as processes of their own, on real Kafka, Postgres and Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::time::Duration;

use loadtest::{
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};
use stage::{Stage, judged};

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_up_carries_a_crowd_over_its_nodes_and_stops_in_good_order() {
    let stage = Stage::new(3, 2).await;
    let crowd = judged::crowd(&stage.cluster.url(), &stage.folder, 8, 1).await;
    let options = MixedOptions { seed: 11, breaks: 0, ..Default::default() };
    let load = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.stop().await;

    let (_, view) = stage.cluster.dispatcher().unwrap().get("/cluster").await.unwrap();
    let view: serde_json::Value = serde_json::from_str(&view).unwrap();
    let nodes = view["nodes"].as_array().unwrap();
    let serving = nodes.iter().filter(|node| node["sockets"].as_u64() > Some(0)).count();
    let owning = nodes.iter().filter(|node| !node["partitions"].as_array().unwrap().is_empty()).count();
    assert!(serving >= 2 && owning == 3, "{view}");

    stage.judge(crowd).await;
}
