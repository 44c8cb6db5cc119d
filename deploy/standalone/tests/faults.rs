//! Nodes and writers killed, links cut, the dispatcher replaced, all of it under load: the judge finds nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{sync::Arc, time::Duration};

use loadtest::{
    progress::Progress,
    workload::{
        Crowd,
        mixed::{Mixed, MixedOptions},
    },
};
use stage::{Stage, links::Links};

async fn mixed(crowd: &Arc<Crowd>, seed: u64) -> Mixed {
    let options = MixedOptions { seed, breaks: 2, ..Default::default() };
    Mixed::start(crowd, &options, &Progress::quiet()).await.unwrap()
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_die_in_the_middle_of_everything() {
    let mut stage = Stage::new(3).await;
    let crowd = stage.crowd(7, 1).await;
    let faults = stage.faults(&crowd);
    let load = mixed(&crowd, 11).await;
    for node in ["node-1", "node-2", "node-3"] {
        pause(1_500).await;
        faults.fault_begins("a node is killed");
        stage.cluster.kill_node(node);
        faults.fault_ends("a node is killed");
        pause(5_000).await;
        stage.cluster.restart_node(node).unwrap();
    }
    drop(faults);
    pause(5_000).await;
    load.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_as_asked() {
    let mut stage = Stage::new(2).await;
    let crowd = stage.crowd(7, 1).await;
    let load = mixed(&crowd, 12).await;
    pause(1_000).await;
    let added = stage.cluster.add_node().unwrap();
    pause(3_000).await;
    stage.cluster.stop_node("node-1").await.unwrap();
    pause(3_000).await;
    stage.cluster.restart_node("node-1").unwrap();
    pause(2_000).await;
    stage.cluster.stop_node(&added).await.unwrap();
    pause(3_000).await;
    load.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_die_and_others_go_on_where_they_were() {
    let mut stage = Stage::new(2).await;
    let crowd = stage.crowd(7, 1).await;
    let load = mixed(&crowd, 13).await;
    for _ in 0..10 {
        pause(300).await;
        stage.cluster.kill_writers();
        pause(200).await;
        stage.cluster.add_writer().unwrap();
        stage.cluster.add_writer().unwrap();
    }
    pause(1_000).await;
    load.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_between_nodes_and_dispatcher_are_cut_and_lose_frames() {
    let links = Links::of(3).await;
    let stage = Stage::over(3, links.way()).await;
    let crowd = stage.crowd(7, 1).await;
    let faults = stage.faults(&crowd);
    let load = mixed(&crowd, 14).await;
    for round in 0..2 {
        for (_, path) in links.iter() {
            pause(700).await;
            faults.fault_begins("a link is cut");
            // Shorter than a lease: the node stays named. Longer: it does not.
            path.cut();
            pause(if round == 0 { 1_500 } else { 4_500 }).await;
            path.heal();
            pause(500).await;
            path.cut_back();
            pause(800).await;
            path.heal();
            path.lose(0.1, round);
            pause(800).await;
            path.heal();
            path.forget();
            faults.fault_ends("a link is cut");
        }
    }
    drop(faults);
    pause(4_000).await;
    load.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dispatcher_dies_and_another_takes_its_place() {
    let mut stage = Stage::new(3).await;
    let crowd = stage.crowd(7, 1).await;
    let faults = stage.faults(&crowd);
    let load = mixed(&crowd, 15).await;
    for _ in 0..2 {
        pause(1_500).await;
        faults.fault_begins("the dispatcher dies");
        stage.cluster.restart_dispatcher().await.unwrap();
        faults.fault_ends("the dispatcher dies");
        pause(7_000).await;
    }
    drop(faults);
    load.stop().await;
    stage.judge(crowd).await;
}
