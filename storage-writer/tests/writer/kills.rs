//! Killed between any two steps, and served by a store that fails: rows are the valid records, none twice.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::time::timeout;

use crate::{
    kit::{Bench, Mishap, Moment, Unlucky, Writer, small},
    owner_with_chat, send,
};

const MOMENTS: [Moment; 3] = [Moment::BeforePositions, Moment::BeforeCommit, Moment::AfterCommit];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_killed_between_any_two_steps_loses_and_doubles_nothing() {
    let bench = Bench::new(2).await;
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    let (mut other, there) = owner_with_chat(&bench.log, 1).await;
    let (mut sent, mut sent_there) = (Vec::new(), Vec::new());
    for calls in 0..4 {
        for moment in MOMENTS {
            let store = Unlucky::new(bench.store.clone(), moment, Mishap::Hangs, calls, u64::MAX / 2);
            let writer = Writer::start(bench.engines(store.clone()), small());
            // Enough for several transactions, and something for each.
            for _ in 0..4 {
                sent.extend(send(&mut owner, chat, 30).await);
                sent_there.extend(send(&mut other, there, 30).await);
            }
            // Positions are read once by a writer that meets no trouble.
            let soon = if moment == Moment::BeforePositions && calls > 0 {
                Duration::ZERO
            } else {
                Duration::from_secs(20)
            };
            let met = timeout(soon, store.happened.notified()).await;
            assert!(met.is_ok() || soon.is_zero(), "{moment:?} after {calls}");
            writer.kill().await;
        }
    }
    let writer = bench.writer();
    bench.drained().await;
    assert_eq!(bench.messages(chat).await, sent);
    assert_eq!(bench.messages(there).await, sent_there);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_dropped_at_random_lose_and_double_nothing() {
    let bench = Bench::new(2).await;
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    let mut sent = Vec::new();
    for _ in 0..40 {
        let writer = bench.writer();
        sent.extend(send(&mut owner, chat, 40).await);
        let life = Duration::from_micros(rand::rng().random_range(0..30_000));
        tokio::time::sleep(life).await;
        writer.kill().await;
    }
    let writer = bench.writer();
    bench.drained().await;
    assert_eq!(bench.messages(chat).await, sent);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_for_a_while_is_asked_again_and_nothing_is_lost() {
    for moment in MOMENTS {
        let bench = Bench::new(2).await;
        let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
        let store = Unlucky::new(bench.store.clone(), moment, Mishap::Fails, 0, 4);
        let writer = Writer::start(bench.engines(store.clone()), small());
        let mut sent = Vec::new();
        for _ in 0..5 {
            sent.extend(send(&mut owner, chat, 40).await);
        }
        bench.drained().await;
        assert_eq!(bench.messages(chat).await, sent, "{moment:?}");
        writer.counts("writer_store_errors_total", "", 4.0).await;
        writer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_asked_to_stop_while_the_store_is_away_stops() {
    let bench = Bench::new(1).await;
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    send(&mut owner, chat, 10).await;
    let store = Unlucky::new(bench.store.clone(), Moment::BeforeCommit, Mishap::Fails, 0, u64::MAX);
    let writer = Writer::start(bench.engines(Arc::clone(&store) as _), small());
    store.happened.notified().await;
    writer.stop().await;
    assert!(bench.messages(chat).await.is_empty());
}
