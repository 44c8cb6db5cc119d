//! The writer on a real log and a real store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod forget;
mod kills;
mod kit;
mod notify;
mod property;
mod retention;
mod stops;

use common::{
    ids::{ChatId, MessageId, Partition},
    log::SharedLog,
};
use kit::{Bench, Owner, Writer, chat_in, small, until};

/// An owner of the partition with a chat in it.
async fn owner_with_chat(log: &SharedLog, partition: Partition) -> (Owner, ChatId) {
    let mut owner = Owner::claim(log, partition, None).await;
    let chat = chat_in(partition, log.partitions());
    owner.create(chat).await;
    (owner, chat)
}

async fn send(owner: &mut Owner, chat: ChatId, count: usize) -> Vec<MessageId> {
    let mut sent = Vec::with_capacity(count);
    for _ in 0..count {
        sent.push(owner.send(chat).await);
    }
    owner.settled().await;
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_log_is_drained_and_so_is_what_comes() {
    let bench = Bench::new(4).await;
    let mut chats = Vec::new();
    for partition in 0..4 {
        let (mut owner, chat) = owner_with_chat(&bench.log, partition).await;
        let sent = send(&mut owner, chat, 120).await;
        chats.push((owner, chat, sent));
    }
    let writer = bench.writer();
    bench.drained().await;
    for (owner, chat, sent) in &mut chats {
        assert_eq!(&bench.messages(*chat).await, sent);
        sent.extend(send(owner, *chat, 30).await);
    }
    bench.drained().await;
    for (_, chat, sent) in &chats {
        assert_eq!(&bench.messages(*chat).await, sent);
    }
    writer.counts("writer_records_total", "applied", 4.0 * 151.0).await;
    writer.counts("writer_records_total", "claim", 4.0).await;
    until("the lag is told", async || writer.metric("writer_lag_records", "") == 0.0).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn void_records_never_become_rows() {
    let bench = Bench::new(1).await;
    let (mut first, chat) = owner_with_chat(&bench.log, 0).await;
    let mut valid = send(&mut first, chat, 10).await;
    let mut second = Owner::claim(&bench.log, 0, Some(&first)).await;
    for _ in 0..25 {
        // The one that was paused goes on as if nothing had happened.
        first.send(chat).await;
        valid.push(second.send(chat).await);
    }
    first.settled().await;
    second.settled().await;
    let writer = bench.writer();
    bench.drained().await;
    assert_eq!(bench.messages(chat).await, valid);
    writer.counts("writer_records_total", "void", 25.0).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_group_share_the_work_and_nothing_is_written_twice() {
    let bench = Bench::new(4).await;
    let mut chats = Vec::new();
    for partition in 0..4 {
        let (owner, chat) = owner_with_chat(&bench.log, partition).await;
        chats.push((owner, chat, Vec::new()));
    }
    let mut writers = vec![bench.writer()];
    for round in 0..6 {
        for (owner, chat, sent) in &mut chats {
            sent.extend(send(owner, *chat, 40).await);
        }
        // One comes, then another, and they go in the middle of their work.
        if round < 3 {
            writers.push(bench.writer());
        } else if round % 2 == 0 {
            writers.remove(0).stop().await;
        } else {
            writers.remove(0).kill().await;
        }
    }
    bench.drained().await;
    for (_, chat, sent) in &chats {
        assert_eq!(&bench.messages(*chat).await, sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_fed_one_partition_each_batch_has_one() {
    let bench = Bench::new(1).await;
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    // Two groups: each is fed everything, as a writer that was cut off and does not know it would be.
    let start = |group: &str| {
        let config = storage_writer::WriterConfig { group: group.to_owned(), ..small() };
        Writer::start(bench.engines(bench.store.clone()), config)
    };
    let (one, other) = (start("one"), start("other"));
    let mut sent = Vec::new();
    for _ in 0..40 {
        sent.extend(send(&mut owner, chat, 20).await);
    }
    bench.drained().await;
    assert_eq!(bench.messages(chat).await, sent);
    let refused =
        async || one.metric("writer_refused_total", "") + other.metric("writer_refused_total", "") > 0.0;
    until("somebody was refused", refused).await;
    let written = ["applied", "claim"].map(|outcome| {
        one.metric("writer_records_total", outcome) + other.metric("writer_records_total", outcome)
    });
    assert_eq!(written, [801.0, 1.0], "each record by one of them");
    one.stop().await;
    other.stop().await;
}
