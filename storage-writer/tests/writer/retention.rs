//! The sweep for messages that are past their time (ME-9), by a clock that the test sets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use common::{
    applications::Retention,
    ids::{ChatId, Number},
    model::Message,
    store::{Range, ReadMark},
    time::Millis,
    wire::record::What,
};
use storage_writer::{Clock, Engines, WriterConfig};

use crate::{
    kit::{Bench, Owner, Writer, key, small, until},
    owner_with_chat, send,
};

const DAY: i64 = 86_400_000;

/// A clock, and what sets it.
fn clock(at: i64) -> (Clock, Arc<AtomicI64>) {
    let set = Arc::new(AtomicI64::new(at));
    let read = Arc::clone(&set);
    (Clock::new(move || Millis(read.load(Ordering::SeqCst))), set)
}

fn start(bench: &Bench, clock: &Clock) -> Writer {
    let engines = Engines { clock: clock.clone(), ..bench.engines(bench.store.clone()) };
    Writer::start(engines, WriterConfig { sweep_every: Duration::from_millis(5), ..small() })
}

async fn keeps(owner: &mut Owner, chat: ChatId, retention: Retention) {
    let what = What::Updated { name: None, description: None, retention: Some(retention) };
    let change = owner.change(chat, what);
    owner.append(change).await;
}

async fn history(bench: &Bench, chat: ChatId) -> Vec<Message> {
    bench.store.history(key(chat), Range::After(0), 100).await.unwrap().unwrap().messages
}

async fn ended(bench: &Bench, chat: ChatId) -> Vec<Number> {
    let messages = history(bench, chat).await.into_iter();
    messages.filter(|message| message.expired).map(|message| message.number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn me_9_a_writer_ends_what_is_past_its_time_and_nothing_else() {
    let bench = Bench::new(4).await;
    let mut chats = Vec::new();
    for partition in 0..4 {
        let (mut owner, chat) = owner_with_chat(&bench.log, partition).await;
        keeps(&mut owner, chat, Retention::Days { days: 1 }).await;
        let sent = send(&mut owner, chat, 3).await;
        chats.push((owner, chat, sent));
    }
    let (mut owner, kept) = owner_with_chat(&bench.log, 0).await;
    send(&mut owner, kept, 3).await;
    drop(owner);
    let (clock, set) = clock(1_000);
    let writer = start(&bench, &clock);
    bench.drained().await;
    assert_eq!(writer.metric("writer_expired_total", ""), 0.0);

    // Written a millisecond apart.
    let second = history(&bench, chats[0].1).await[1].created_at.0;
    set.store(second + DAY, Ordering::SeqCst);
    until("two of each have ended", async || writer.metric("writer_expired_total", "") >= 8.0).await;
    for (_, chat, sent) in &chats {
        assert_eq!(ended(&bench, *chat).await, [1, 2]);
        assert_eq!(history(&bench, *chat).await[2].body, "message 3");
        assert_eq!(&bench.messages(*chat).await, sent, "each has its place");
    }
    set.store(1_000 * DAY, Ordering::SeqCst);
    until("all have ended", async || writer.metric("writer_expired_total", "") >= 12.0).await;
    assert!(ended(&bench, kept).await.is_empty());
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn me_9_of_two_writers_the_one_that_has_the_partition_ends_its_messages() {
    let bench = Bench::new(1).await;
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    keeps(&mut owner, chat, Retention::UntilRead).await;
    send(&mut owner, chat, 1).await;
    let (clock, _) = clock(0);
    let writers = [start(&bench, &clock), start(&bench, &clock)];
    bench.drained().await;
    // The only member has read what they wrote.
    let by = |writer: &Writer| writer.metric("writer_expired_total", "");
    until("it has ended", async || by(&writers[0]) + by(&writers[1]) >= 1.0).await;
    assert_eq!(ended(&bench, chat).await, [1]);
    assert_eq!(by(&writers[0]) + by(&writers[1]), 1.0, "once");

    // Draining goes on beside it, whoever reads and writes.
    for round in 0..20 {
        send(&mut owner, chat, 10).await;
        let mark = ReadMark { chat: key(chat), user: owner.user, number: round, head: 0 };
        bench.store.mark_read(&[mark]).await.unwrap();
    }
    bench.drained().await;
    let all = history(&bench, chat).await.last().unwrap().number;
    until("all have ended", async || ended(&bench, chat).await.len() == 100).await;
    assert!(all >= 100);
    for writer in writers {
        writer.stop().await;
    }
}
