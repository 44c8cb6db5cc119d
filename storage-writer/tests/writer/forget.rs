//! What the log forgets of what is drained (ME-9), by a clock that the test sets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use common::{
    ids::Offset,
    log::{
        SharedLog,
        kafka::{KafkaLog, KafkaSettings},
    },
    servers::Servers,
    store::Drain,
    time::Millis,
};
use rand::Rng;
use sqlx::AssertSqlSafe;
use storage_writer::{Clock, Engines, WriterConfig};
use tempfile::TempDir;

use crate::{
    kit::{Bench, Mishap, Moment, Owner, Unlucky, Writer, small, until},
    owner_with_chat, send,
    stops::stopped,
};

/// A mark is written each sixteenth of what is kept.
const STEP: i64 = 1_000;

/// A clock, and how long what is drained is kept by it.
struct Time(Arc<AtomicI64>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(0)))
    }

    fn start(&self, bench: &Bench, store: Arc<dyn Drain>) -> Writer {
        let read = Arc::clone(&self.0);
        let clock = Clock::new(move || Millis(read.load(Ordering::SeqCst)));
        let config = WriterConfig {
            sweep_every: Duration::from_millis(2),
            log_keep: Duration::from_secs(16),
            ..small()
        };
        Writer::start(Engines { clock, ..bench.engines(store) }, config)
    }

    /// Goes on by so much, and waits until it is marked how far each partition is.
    async fn passes(&self, bench: &Bench, millis: i64) {
        let now = Millis(self.0.fetch_add(millis, Ordering::SeqCst) + millis);
        until("it is marked how far the partitions are", async || {
            let marks = bench.store.drained_marks().await.unwrap();
            let marked = marks.iter().filter(|(_, mark)| mark.at == now).count();
            marked == usize::from(bench.log.partitions())
        })
        .await;
    }
}

async fn begin(bench: &Bench, partition: u16) -> Offset {
    bench.log.begin(partition).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn me_9_the_log_forgets_what_was_drained_and_kept_for_its_time_and_nothing_else() {
    let (bench, time) = (Bench::new(2).await, Time::new());
    let mut chats = Vec::new();
    for partition in 0..2 {
        let (owner, chat) = owner_with_chat(&bench.log, partition).await;
        chats.push((owner, chat, Vec::new()));
    }
    let writer = time.start(&bench, bench.store.clone());
    // How far each was before the clock went on.
    let mut was = Vec::new();
    for tick in 0..40_usize {
        for (owner, chat, sent) in &mut chats {
            sent.extend(send(owner, *chat, 5).await);
        }
        bench.drained().await;
        was.push([bench.offset(0).await, bench.offset(1).await]);
        time.passes(&bench, STEP).await;
        for partition in 0..2 {
            let kept = tick.checked_sub(16).map_or(0, |tick| was[tick][usize::from(partition)]);
            let begin = begin(&bench, partition).await;
            assert!(begin <= kept, "partition {partition} begins at {begin}, and {kept} is not old enough");
            if let Some(past) = tick.checked_sub(18).map(|tick| was[tick][usize::from(partition)]) {
                until("it goes when it was kept", async || bench.log.begin(partition).await.unwrap() >= past)
                    .await;
            }
        }
    }
    // A clock that jumps makes a step and no more.
    time.passes(&bench, 1_000 * 86_400_000).await;
    time.passes(&bench, STEP).await;
    let begins = async || [begin(&bench, 0).await, begin(&bench, 1).await];
    until("it goes when it was kept", async || begins().await == was[24]).await;
    let forgotten = was[24].iter().sum::<Offset>() as f64;
    writer.counts("writer_log_forgotten_total", "", forgotten).await;
    assert_eq!(writer.metric("writer_partition_stopped", ""), 0.0);
    for (_, chat, sent) in &chats {
        assert_eq!(&bench.messages(*chat).await, sent);
    }
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn me_9_what_is_not_drained_stays_and_a_partition_that_was_cut_goes_on() {
    let (bench, time) = (Bench::new(1).await, Time::new());
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    let mut sent = send(&mut owner, chat, 30).await;
    let writer = time.start(&bench, bench.store.clone());
    bench.drained().await;
    writer.kill().await;
    let drained = bench.offset(0).await;
    sent.extend(send(&mut owner, chat, 30).await);

    let away = Unlucky::new(bench.store.clone(), Moment::BeforeCommit, Mishap::Fails, 0, u64::MAX);
    let writer = time.start(&bench, away);
    for _ in 0..60 {
        time.passes(&bench, STEP).await;
        assert!(begin(&bench, 0).await <= drained);
    }
    until("what is drained goes", async || begin(&bench, 0).await == drained).await;
    writer.kill().await;
    assert_eq!((bench.offset(0).await, bench.log.end(0).await), (drained, Ok(62)));

    let mut next = Owner::claim(&bench.log, 0, Some(&owner)).await;
    sent.extend(send(&mut next, chat, 30).await);
    let writer = time.start(&bench, bench.store.clone());
    bench.drained().await;
    assert_eq!(bench.messages(chat).await, sent);
    for _ in 0..20 {
        time.passes(&bench, STEP).await;
    }
    until("all of it goes", async || bench.log.begin(0).await == bench.log.end(0).await).await;
    writer.stop().await;

    let mut next = Owner::claim(&bench.log, 0, Some(&next)).await;
    sent.extend(send(&mut next, chat, 1).await);
    let writer = time.start(&bench, bench.store.clone());
    bench.drained().await;
    assert_eq!(bench.messages(chat).await, sent);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn me_9_a_writer_that_is_killed_as_the_log_forgets_loses_and_doubles_nothing() {
    let (bench, time) = (Bench::new(1).await, Time::new());
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    let mut sent = Vec::new();
    for _ in 0..80 {
        let writer = time.start(&bench, bench.store.clone());
        sent.extend(send(&mut owner, chat, 40).await);
        time.0.fetch_add(STEP, Ordering::SeqCst);
        let life = Duration::from_micros(rand::rng().random_range(0..30_000));
        tokio::time::sleep(life).await;
        writer.kill().await;
        let begin = begin(&bench, 0).await;
        assert!(begin <= bench.offset(0).await);
    }
    let writer = time.start(&bench, bench.store.clone());
    bench.drained().await;
    for _ in 0..20 {
        time.passes(&bench, STEP).await;
    }
    until("all of it goes", async || bench.log.begin(0).await == bench.log.end(0).await).await;
    assert_eq!(bench.messages(chat).await, sent);
    assert_eq!(writer.metric("writer_partition_stopped", ""), 0.0);
    writer.stop().await;
}

/// A backup of the bench's store, in a folder of its own.
async fn backup(bench: &Bench) -> TempDir {
    let folder = TempDir::new().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bench.folder.path().join("store.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let copy = format!("VACUUM INTO '{}'", folder.path().join("store.db").display());
    sqlx::raw_sql(AssertSqlSafe(copy)).execute(&pool).await.unwrap();
    pool.close().await;
    folder
}

/// A store that is put back to a backup of which the log has forgotten the sequel, and to one of which it has not.
async fn put_back(bench: Bench) {
    let time = Time::new();
    let (mut owner, chat) = owner_with_chat(&bench.log, 0).await;
    let (mut other, there) = owner_with_chat(&bench.log, 1).await;
    let mut sent = send(&mut owner, chat, 10).await;
    let mut sent_there = send(&mut other, there, 10).await;
    let writer = time.start(&bench, bench.store.clone());
    bench.drained().await;
    let old = backup(&bench).await;
    let position = bench.offset(0).await;
    sent.extend(send(&mut owner, chat, 10).await);
    bench.drained().await;
    for _ in 0..3 {
        time.passes(&bench, STEP).await;
    }
    let newer = backup(&bench).await;
    for _ in 0..17 {
        sent.extend(send(&mut owner, chat, 10).await);
        bench.drained().await;
        time.passes(&bench, STEP).await;
    }
    until("the log forgets", async || begin(&bench, 0).await > position).await;
    writer.stop().await;

    // Only the partition of which something is missing stops.
    let older = Bench::on(old, bench.log.clone()).await;
    let writer = time.start(&older, older.store.clone());
    stopped(&writer, 0).await;
    sent_there.extend(send(&mut other, there, 10).await);
    until("the other goes on", async || older.messages(there).await == sent_there).await;
    assert_eq!(writer.metric("writer_partition_stopped", "1"), 0.0);
    assert_eq!(older.offset(0).await, position, "nothing is skipped");
    writer.stop().await;

    let empty = Bench::on(TempDir::new().unwrap(), bench.log.clone()).await;
    let writer = time.start(&empty, empty.store.clone());
    stopped(&writer, 0).await;
    stopped(&writer, 1).await;
    assert!(empty.store.positions().await.unwrap().is_empty());
    writer.stop().await;

    let newer = Bench::on(newer, bench.log.clone()).await;
    assert!(newer.offset(0).await < bench.offset(0).await);
    let writer = time.start(&newer, newer.store.clone());
    newer.drained().await;
    assert_eq!(newer.messages(chat).await, sent);
    assert_eq!(newer.messages(there).await, sent_there);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn me_9_a_store_that_is_older_than_what_the_log_keeps_stops_and_a_newer_one_is_caught_up() {
    put_back(Bench::new(2).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn me_9_a_store_that_is_older_than_what_kafka_keeps_stops_and_a_newer_one_is_caught_up() {
    let topic = format!("test-{:016x}", rand::random::<u64>());
    let settings = KafkaSettings { topic, ..KafkaSettings::from_url(Servers::shared().log()).unwrap() };
    KafkaLog::init(&settings, 2).await.unwrap();
    let log: SharedLog = Arc::new(KafkaLog::open(&settings, 2).await.unwrap());
    put_back(Bench::on(TempDir::new().unwrap(), log).await).await;
}
