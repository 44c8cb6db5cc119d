//! What a partition stops at, alone; and what it does not stop at.

use std::sync::Arc;

use bytes::Bytes;
use common::{
    log::sqlite::SqliteLog,
    store::{PartitionBatch, Position},
    term::TermState,
    wire::record::{VERSION, What},
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    kit::{Bench, Owner, Writer, chat_in, until},
    owner_with_chat, send,
};

pub(crate) async fn stopped(writer: &Writer, partition: u16) {
    let name = "writer_partition_stopped";
    until("it stopped", async || writer.metric(name, &partition.to_string()) == 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_record_are_kept_and_the_rest_goes_on() {
    let bench = Bench::new(1).await;
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    let mut sent = send(&mut owner, chat, 5).await;
    let rubbish: [&'static [u8]; 4] = [b"", b"hello", &[1, 0xc1], &[1]];
    for bytes in rubbish {
        owner.append_bytes(Bytes::new(), Bytes::from_static(bytes)).await;
    }
    // The owner sees a stranger's record in its place, and claims anew.
    owner.settled().await;
    let mut owner = Owner::claim(&bench.log, 0, Some(&owner)).await;
    sent.extend(send(&mut owner, chat, 5).await);
    let writer = bench.writer();
    bench.drained().await;
    assert_eq!(bench.messages(chat).await, sent);
    let expected: Vec<_> = (7..).zip(rubbish).map(|(offset, bytes)| (0, offset, bytes.to_vec())).collect();
    assert_eq!(bench.dead_letters().await, expected);
    writer.counts("writer_records_total", "dead", 4.0).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_does_not_follow_stops_its_partition_alone() {
    let bench = Bench::new(3).await;
    let (mut broken, chat) = owner_with_chat(&bench.log, 1).await;
    let before = send(&mut broken, chat, 5).await;
    let mut change = broken.change(chat, What::Deleted);
    change.seq += 1;
    broken.append(change).await;
    send(&mut broken, chat, 5).await;
    let writer = bench.writer();
    stopped(&writer, 1).await;
    for partition in [0, 2] {
        let (mut owner, chat) = owner_with_chat(&bench.log, partition).await;
        let sent = send(&mut owner, chat, 20).await;
        until("the others go on", async || bench.messages(chat).await == sent).await;
        assert_eq!(writer.metric("writer_partition_stopped", &partition.to_string()), 0.0);
    }
    let stored = bench.messages(chat).await;
    assert!(before.starts_with(&stored), "nothing past the broken one");
    until("its lag is told", async || writer.metric("writer_lag_records", "1") >= 6.0).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_later_version_stops_its_partition_behind_all_before_it() {
    let bench = Bench::new(2).await;
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    let sent = send(&mut owner, chat, 5).await;
    owner.append_bytes(Bytes::new(), Bytes::from_static(&[VERSION + 1, 0x80])).await;
    send(&mut owner, chat, 5).await;
    let writer = bench.writer();
    stopped(&writer, 0).await;
    assert_eq!(bench.messages(chat).await, sent);
    assert_eq!(bench.offset(0).await, 7);
    let (mut other, there) = owner_with_chat(&bench.log, 1).await;
    let sent = send(&mut other, there, 5).await;
    until("the other goes on", async || bench.messages(there).await == sent).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_of_another_partition_stops_the_one_it_is_in() {
    let bench = Bench::new(2).await;
    let mut owner = Owner::claim(&bench.log, 0, None).await;
    owner.create(chat_in(1, 2)).await;
    owner.settled().await;
    let writer = bench.writer();
    stopped(&writer, 0).await;
    assert_eq!(bench.offset(0).await, 1);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_of_another_log_and_past_the_end_stop_their_partitions() {
    let bench = Bench::new(3).await;
    let mut sent = Vec::new();
    for partition in 0..3 {
        let (mut owner, chat) = owner_with_chat(&bench.log, partition).await;
        sent.push((chat, send(&mut owner, chat, 3).await));
    }
    let position = |log: Uuid, offset| Position { log, offset, state: TermState::default() };
    let at = |partition, next| PartitionBatch {
        partition,
        expected: None,
        next,
        changes: Vec::new(),
        dead: Vec::new(),
    };
    let foreign = at(0, position(Uuid::from_u128(5), 1));
    let ahead = at(1, position(bench.log.id(), 100));
    bench.store.apply(&[foreign, ahead]).await.unwrap();
    let writer = bench.writer();
    stopped(&writer, 0).await;
    stopped(&writer, 1).await;
    until("the third goes on", async || bench.messages(sent[2].0).await == sent[2].1).await;
    assert!(bench.messages(sent[0].0).await.is_empty() && bench.messages(sent[1].0).await.is_empty());
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_closed_ends_the_writer() {
    let bench = Bench::new(1).await;
    let other = TempDir::new().unwrap();
    let log = Arc::new(SqliteLog::open(&other.path().join("log.db"), 1).await.unwrap());
    let engines = storage_writer::Engines { log: log.clone(), ..bench.engines(bench.store.clone()) };
    let task = tokio::spawn(storage_writer::run(
        crate::kit::small(),
        engines,
        prometheus::Registry::new(),
        tokio_util::sync::CancellationToken::new(),
    ));
    common::log::Log::close(log.as_ref()).await.unwrap();
    assert!(task.await.unwrap().is_err());
}
