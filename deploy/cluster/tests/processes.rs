//! Processes are killed, stopped for a while, and scaled, under load: the judge finds nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]
#![allow(clippy::print_stdout, reason = "what was seen")]

mod stage;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cluster::{Kind, Process, quoted};
use common::{
    engines::{EngineUrls, open_store},
    ids::{AppId, ChatId, ChatKey},
    servers::Servers,
    store::Range,
};
use futures_util::future::join_all;
use loadtest::{
    client::{Outcome, Post},
    figures::{Latencies, Percentiles},
    progress::Progress,
    workload::{
        Crowd,
        mixed::{Mixed, MixedOptions},
    },
};
use stage::{PARTITIONS, Stage, apart_on, gate::Gate, judged};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

/// How long the partitions of a writer that is gone may stay without one.
const MOVED: Duration = Duration::from_secs(10);

/// How long a writer is stopped, the first time.
const STOPPED: Duration = Duration::from_secs(60);

/// How long a process may take to its end that is told so for the second time: far less than it gives itself to finish.
const AT_ONCE: Duration = Duration::from_secs(5);

/// How often the store is asked for a message, and how long one may take to come there at most, however partitions move.
const LOOK: Duration = Duration::from_millis(10);
const STORED: Duration = Duration::from_secs(30);

async fn mixed(crowd: &Arc<Crowd>, seed: u64) -> Mixed {
    let options = MixedOptions { seed, breaks: 2, ..Default::default() };
    Mixed::start(crowd, &options, &Progress::quiet()).await.unwrap()
}

/// The partitions that a writer says it has.
async fn partitions(writer: &Process) -> Vec<u16> {
    let (_, page) = writer.get("/metrics").await.unwrap();
    let labels = page.lines().filter_map(|line| line.strip_prefix("writer_lag_records{partition=\""));
    labels.map(|rest| rest.split_once('"').unwrap().0.parse().unwrap()).collect()
}

/// Waits until these writers have all partitions among them, each at one, and none of them is without.
async fn have_all(writers: &[Arc<Process>]) {
    let begun = Instant::now();
    loop {
        let (mut had, mut idle) = (Vec::new(), false);
        for writer in writers {
            let its = partitions(writer).await;
            idle |= its.is_empty();
            had.extend(its);
        }
        had.sort_unstable();
        if !idle && had.iter().copied().eq(0..PARTITIONS) {
            println!("{} writers have all partitions after {:?}", writers.len(), begun.elapsed());
            return;
        }
        assert!(
            begun.elapsed() < MOVED,
            "of {PARTITIONS} partitions these have a writer: {had:?}, idle: {idle}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// A message is written to each of the chats again and again, until told so: from each ack to the moment that a read of the store shows it.
async fn queryable(
    crowd: &Crowd,
    engines: &EngineUrls,
    chats: &[ChatId],
    enough: &AtomicBool,
) -> Percentiles {
    let (store, latencies) = (open_store(engines).await.unwrap(), Latencies::default());
    let one = async |chat: ChatId| {
        let (device, key) = (crowd.device(0).unwrap(), ChatKey { app: AppId::DEFAULT, chat });
        while !enough.load(Ordering::Relaxed) {
            let Outcome::Acked { number, .. } = device.send(chat, "to be stored").await else { panic!() };
            let acked = Instant::now();
            loop {
                let slice = store.history(key, Range::After(number - 1), 1).await.unwrap();
                if slice.is_some_and(|slice| slice.messages.iter().any(|it| it.number == number)) {
                    break;
                }
                assert!(acked.elapsed() < STORED, "{number} of {chat} was acknowledged and is not stored");
                sleep(LOOK).await;
            }
            latencies.record(acked.elapsed().as_micros() as u64);
            sleep(LOOK).await;
        }
    };
    join_all(chats.iter().map(|chat| one(*chat))).await;
    latencies.percentiles()
}

/// One group for each partition, which may be of any of them.
async fn groups(crowd: &Crowd) -> Vec<ChatId> {
    let mut chats = Vec::new();
    for n in 0..PARTITIONS {
        chats.push(crowd.group(&format!("group {n}"), 0, &[1]).await.unwrap());
    }
    chats
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_process_is_killed_and_comes_back() {
    let stage = Stage::new(3, 2).await;
    let crowd = judged::crowd(&stage.cluster.url(), &stage.folder, 7, 1).await;
    let faults = judged::faults(&stage.folder, &crowd);
    let load = mixed(&crowd, 41).await;
    for node in stage.cluster.of(Kind::Node) {
        sleep(SECOND).await;
        faults.fault_begins("a node is killed");
        node.kill9().unwrap();
        faults.fault_ends("a node is killed");
        sleep(5 * SECOND).await;
        node.start().unwrap();
        node.ready(30 * SECOND).await.unwrap();
    }
    let dispatcher = stage.cluster.dispatcher().unwrap();
    for _ in 0..2 {
        sleep(SECOND).await;
        faults.fault_begins("the dispatcher is killed");
        dispatcher.kill9().unwrap();
        dispatcher.start().unwrap();
        dispatcher.ready(30 * SECOND).await.unwrap();
        faults.fault_ends("the dispatcher is killed");
        sleep(6 * SECOND).await;
    }
    drop(faults);
    load.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn op_5_writers_are_added_and_taken_away_and_die_and_others_go_on_where_they_were() {
    let stage = Stage::new(2, 1).await;
    let crowd = judged::crowd(&stage.cluster.url(), &stage.folder, 7, 1).await;
    let load = mixed(&crowd, 42).await;
    let enough = Arc::new(AtomicBool::new(false));
    let measured = tokio::spawn({
        let (crowd, engines, enough) = (Arc::clone(&crowd), stage.engines.clone(), Arc::clone(&enough));
        async move { queryable(&crowd, &engines, &groups(&crowd).await, &enough).await }
    });
    have_all(&stage.cluster.of(Kind::Writer)).await;
    for _ in 0..3 {
        let added = stage.cluster.add_writer().unwrap();
        added.ready(30 * SECOND).await.unwrap();
        sleep(SECOND).await;
    }
    let writers = stage.cluster.of(Kind::Writer);
    have_all(&writers).await;
    for writer in &writers {
        assert!(
            partitions(writer).await.len() <= usize::from(PARTITIONS).div_ceil(4) + 1,
            "OP-5: they share"
        );
    }
    let [kept, first, second, third] = <[_; 4]>::try_from(writers).unwrap();
    first.terminate(10 * SECOND).await.unwrap();
    have_all(&[Arc::clone(&kept), Arc::clone(&second), Arc::clone(&third)]).await;
    second.terminate(10 * SECOND).await.unwrap();
    have_all(&[Arc::clone(&kept), Arc::clone(&third)]).await;
    third.terminate(10 * SECOND).await.unwrap();
    have_all(&[Arc::clone(&kept)]).await;
    sleep(SECOND).await;
    enough.store(true, Ordering::Relaxed);
    println!("from the ack to a read of the store, writers from 1 to 4 to 1: {:?}", measured.await.unwrap());

    // Without a word: for its partitions the group waits until its session is over.
    third.start().unwrap();
    third.ready(30 * SECOND).await.unwrap();
    have_all(&[Arc::clone(&kept), Arc::clone(&third)]).await;
    third.kill9().unwrap();
    have_all(&[Arc::clone(&kept)]).await;
    sleep(SECOND).await;
    load.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_stopped_and_wakes_writes_nothing_that_another_has_written() {
    let stage = Stage::new(2, 2).await;
    let crowd = judged::crowd(&stage.cluster.url(), &stage.folder, 7, 1).await;
    let chats = groups(&crowd).await;
    let load = mixed(&crowd, 43).await;
    let writers = stage.cluster.of(Kind::Writer);
    let mut gates = Vec::new();
    for (stopped, other, time) in
        [(0, 1, STOPPED), (1, 0, SECOND)].map(|(a, b, time)| (&writers[a], &writers[b], time))
    {
        let gate = Gate::new(&stage.engines.store).await;
        stopped.terminate(10 * SECOND).await.unwrap();
        stopped.set("engines.store", quoted(gate.url()));
        // It does not give up what it has in hand only because time has passed.
        stopped.set("engines.postgres.statement_timeout", (4 * STOPPED).as_millis());
        stopped.start().unwrap();
        stopped.ready(30 * SECOND).await.unwrap();
        have_all(&writers).await;
        gate.close();
        let device = crowd.device(0).unwrap();
        for chat in &chats {
            device.post(Post::new(*chat, "is in the hands of a writer that is stopped")).await;
        }
        // What it has read it begins to write within a second, and gets no further.
        sleep(SECOND).await;
        assert!(gate.held() > 0, "a writer has nothing in hand");
        stopped.pause().unwrap();
        have_all(&[Arc::clone(other)]).await;
        sleep(time).await;
        gate.open();
        stopped.resume().unwrap();
        let woke = Instant::now();
        while stopped.metric("writer_refused_total").await.unwrap().unwrap_or(0.0) == 0.0 {
            assert!(woke.elapsed() < MOVED, "a writer that woke was not refused");
            sleep(LOOK).await;
        }
        have_all(&writers).await;
        gates.push(gate);
    }
    for writer in &writers {
        assert_eq!(writer.metric("writer_partition_stopped").await.unwrap().unwrap_or(0.0), 0.0);
    }
    load.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_what_a_first_one_would_let_finish() {
    let postgres = block_in_place(|| Servers::own(&["postgres"]));
    let engines = block_in_place(|| apart_on(Servers::shared(), &postgres, Servers::shared()));
    let stage = Stage::on(engines, 2, 2).await;
    let crowd = judged::crowd(&stage.cluster.url(), &stage.folder, 7, 1).await;
    let faults = judged::faults(&stage.folder, &crowd);
    let load = mixed(&crowd, 44).await;
    let all = stage.cluster.all();
    for process in [Kind::Writer, Kind::Node].map(|kind| stage.cluster.of(kind)[0].clone()) {
        sleep(2 * SECOND).await;
        faults.fault_begins("Postgres does nothing, and a process is told twice to stop");
        // What it has begun does not come to an end.
        block_in_place(|| postgres.pause("postgres"));
        sleep(SECOND).await;
        process.ask_to_stop().unwrap();
        sleep(SECOND).await;
        assert!(process.is_running(), "{} had nothing to finish", process.name());
        process.ask_to_stop().unwrap();
        let ended = process.ended(AT_ONCE).await.unwrap_err().to_string();
        assert!(ended.contains("exit status: 1") && ended.contains("stopped at once"), "{ended}");
        block_in_place(|| postgres.resume("postgres"));
        process.start().unwrap();
        process.ready(30 * SECOND).await.unwrap();
        faults.fault_ends("Postgres does nothing, and a process is told twice to stop");
        sleep(5 * SECOND).await;
    }
    assert!(all.iter().all(|process| process.is_running()));
    drop(faults);
    load.stop().await;
    stage.judge(crowd).await;
}
