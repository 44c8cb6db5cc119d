//! The log's suite on the embedded engine, and what is true of that one alone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use common::log::{
    Delivery, Log, LogError, OpenError, ReadError, ReadLimit, SharedLog, conformance::Fixture,
    sqlite::SqliteLog,
};
use futures_util::future::try_join_all;
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

struct Embedded(TempDir);

impl Embedded {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("log.db")
    }

    async fn log(&self, partitions: u16) -> SqliteLog {
        SqliteLog::open(&self.path(), partitions).await.unwrap()
    }

    async fn by_hand(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).create_if_missing(true).connect().await.unwrap()
    }
}

#[async_trait]
impl Fixture for Embedded {
    async fn open(&self, partitions: u16) -> Result<SharedLog, OpenError> {
        Ok(Arc::new(SqliteLog::open(&self.path(), partitions).await?))
    }
}

common::log_conformance!(Embedded::new());

async fn append(log: &SqliteLog, payload: &'static str) -> Result<u64, common::log::Unconfirmed> {
    log.append(0, Bytes::new(), Bytes::from_static(payload.as_bytes())).await.unwrap().await
}

#[tokio::test]
async fn a_second_opener_is_refused_while_the_first_lives_and_not_when_it_is_gone() {
    let fixture = Embedded::new();
    let log = fixture.log(1).await;
    let refused = SqliteLog::open(&fixture.path(), 1).await.unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    let receipt = log.append(0, Bytes::new(), Bytes::from_static(b"taken")).await.unwrap();
    drop(log);
    // Dropped, not closed: what it took is finished all the same, and the opener waits for that.
    let log = fixture.log(1).await;
    assert_eq!(receipt.await, Ok(0));
    assert_eq!(log.end(0).await, Ok(1));
}

#[tokio::test]
async fn a_file_of_another_kind_or_version_is_refused() {
    let fixture = Embedded::new();
    let mut other = fixture.by_hand().await;
    sqlx::raw_sql("CREATE TABLE accounts (name TEXT)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let refused = SqliteLog::open(&fixture.path(), 1).await.unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");

    let fixture = Embedded::new();
    fixture.log(1).await.close().await.unwrap();
    let mut newer = fixture.by_hand().await;
    sqlx::raw_sql("PRAGMA user_version = 3").execute(&mut newer).await.unwrap();
    newer.close().await.unwrap();
    let refused = SqliteLog::open(&fixture.path(), 1).await.unwrap_err();
    assert!(matches!(refused, OpenError::Version { has: 3, known: 2, .. }), "{refused}");
}

#[tokio::test]
async fn a_missing_folder_and_a_count_of_zero_are_refused() {
    let fixture = Embedded::new();
    let nowhere = fixture.0.path().join("nowhere").join("log.db");
    assert!(matches!(SqliteLog::open(&nowhere, 1).await, Err(OpenError::Unavailable { .. })));
    assert!(SqliteLog::open(&fixture.path(), 0).await.is_err());
}

#[tokio::test]
async fn a_commit_that_fails_is_unconfirmed_and_the_next_lands_behind_what_the_file_holds() {
    let fixture = Embedded::new();
    let log = fixture.log(1).await;
    assert_eq!(append(&log, "first").await, Ok(0));
    let mut other = fixture.by_hand().await;
    sqlx::raw_sql("INSERT INTO records VALUES (0, 1, x'', 'by hand')").execute(&mut other).await.unwrap();
    assert!(append(&log, "in the way").await.is_err());
    assert_eq!(append(&log, "next").await, Ok(2));
    let payloads: Vec<Bytes> =
        log.read(0, 0, ReadLimit::BATCH).await.unwrap().into_iter().map(|entry| entry.payload).collect();
    assert_eq!(payloads, ["first", "by hand", "next"]);
}

#[tokio::test]
async fn a_log_that_no_longer_begins_at_zero_says_where_it_begins_and_a_hole_is_called_damage() {
    let fixture = Embedded::new();
    let log = fixture.log(1).await;
    for _ in 0..10 {
        append(&log, "record").await.unwrap();
    }
    let mut other = fixture.by_hand().await;
    sqlx::raw_sql("DELETE FROM records WHERE offset < 3 OR offset = 6").execute(&mut other).await.unwrap();
    let gone = ReadError::OutOfRange { partition: 0, from: 2, begin: 3, end: 10 };
    assert_eq!(log.read(0, 2, ReadLimit::BATCH).await, Err(gone));
    for from in [3, 6] {
        let read = log.read(0, from, ReadLimit::BATCH).await;
        assert!(matches!(read, Err(ReadError::Corrupt { partition: 0, .. })), "{read:?}");
    }
    assert_eq!(log.read(0, 3, ReadLimit { records: 3, ..ReadLimit::BATCH }).await.unwrap().len(), 3);
    assert_eq!(log.read(0, 7, ReadLimit::BATCH).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_file_of_the_first_format_is_opened_and_begins_where_it_did() {
    let fixture = Embedded::new();
    let log = fixture.log(2).await;
    let id = log.id();
    for _ in 0..3 {
        append(&log, "record").await.unwrap();
    }
    log.close().await.unwrap();
    drop(log);
    let mut other = fixture.by_hand().await;
    sqlx::raw_sql("DROP TABLE begins; PRAGMA user_version = 1").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let log = fixture.log(2).await;
    assert_eq!((log.id(), log.begin(0).await, log.end(0).await), (id, Ok(0), Ok(3)));
    assert_eq!(log.forget_before(0, 2).await, Ok(2));
}

/// Of the file and of what SQLite keeps beside it.
fn files_say(fixture: &Embedded, text: &str) -> bool {
    let files = fixture.0.path().read_dir().unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[tokio::test]
async fn me_9_what_is_forgotten_is_not_in_the_file() {
    let fixture = Embedded::new();
    let log = fixture.log(1).await;
    let records = (0..2_000).map(|number| {
        let long = if number % 500 == 0 { "long ".repeat(10_000) } else { String::new() };
        log.append(0, Bytes::new(), Bytes::from(format!("{number} secret {long}")))
    });
    let receipts = try_join_all(records).await.unwrap();
    try_join_all(receipts).await.unwrap();
    append(&log, "left").await.unwrap();
    assert!(log.read(0, 0, ReadLimit::BATCH).await.is_ok());
    while log.forget_before(0, 2_000).await.unwrap() < 2_000 {}
    assert!(files_say(&fixture, "left"));
    assert!(!files_say(&fixture, "secret") && !files_say(&fixture, "long long"));
}

#[tokio::test]
async fn a_piece_at_a_time_is_forgotten_and_appends_come_in_between() {
    let fixture = Embedded::new();
    let log = Arc::new(fixture.log(1).await);
    let records = (0..5_000).map(|_| log.append(0, Bytes::new(), Bytes::from_static(b"record")));
    let receipts = try_join_all(records).await.unwrap();
    try_join_all(receipts).await.unwrap();
    for _ in 0..8 {
        let large = log.append(0, Bytes::new(), Bytes::from(vec![1; 900 * 1024])).await.unwrap();
        large.await.unwrap();
    }
    // Given up in the midst of one, whatever comes of it.
    drop(tokio::time::timeout(Duration::from_micros(50), log.forget_before(0, 5_008)).await);
    let forgetting = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            let (mut pieces, mut begin) = (0, log.begin(0).await.unwrap());
            while begin < 5_008 {
                let begins = log.forget_before(0, 5_008).await.unwrap();
                // With the one that was given up, which may come in between.
                assert!(begins > begin && begins - begin <= 2 * 1_024, "{begin} {begins}");
                (pieces, begin) = (pieces + 1, begins);
            }
            pieces
        }
    });
    let mut between = 0;
    while !forgetting.is_finished() {
        append(&log, "between").await.unwrap();
        between += 1;
    }
    assert!(forgetting.await.unwrap() >= 4, "some records, or some bytes of them, at a time");
    assert!(between >= 2, "{between}");
    assert_eq!((log.begin(0).await, log.end(0).await), (Ok(5_008), Ok(5_008 + between)));
}

#[tokio::test]
async fn dropping_the_log_ends_its_subscriptions() {
    let fixture = Embedded::new();
    let log = fixture.log(1).await;
    let mut member = log.join("writers").await.unwrap();
    member.next().await.unwrap();
    drop(log);
    assert_eq!(member.next().await, Err(LogError::Closed));
}

/// The path of the log that a child of the test below appends to.
const CHILD_LOG: &str = "LOG_CONFORMANCE_CHILD";

/// What the child appends: who wrote it, and enough bytes that a record lies on several pages now and then.
fn payload(partition: u16, life: usize, number: usize) -> Bytes {
    let mut payload = format!("{partition}/{life}/{number}:").into_bytes();
    payload.resize(payload.len() + number % 701 * 7, b'x');
    payload.into()
}

#[test]
fn what_was_confirmed_before_a_kill_is_there_after_it() {
    let fixture = Embedded::new();
    let mut told = Vec::new();
    for life in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "child_appends_until_it_is_killed",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD_LOG, format!("{life}:{}", fixture.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let before = told.len();
        let kill_after = rand::random_range(1..4000);
        let mut parse = |line: String| {
            let receipt: Vec<u64> =
                line.strip_prefix("receipt ")?.split(' ').map_while(|n| n.parse().ok()).collect();
            // A line cut by the kill has no end mark.
            if let ([partition, number, offset], true) = (&*receipt, line.ends_with(" .")) {
                told.push((*partition as u16, life, *number as usize, *offset));
            }
            Some(())
        };
        for line in lines.by_ref() {
            if parse(line).is_some() {
                break;
            }
        }
        for line in lines.by_ref().take(kill_after) {
            parse(line);
        }
        child.kill().unwrap();
        // What it had said and nobody had read yet counts as well.
        for line in lines {
            parse(line);
        }
        child.wait().unwrap();
        assert!(told.len() > before, "the child confirmed something");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = fixture.log(3).await;
        for (partition, life, number, offset) in told {
            let entries =
                log.read(partition, offset, ReadLimit { records: 1, ..ReadLimit::BATCH }).await.unwrap();
            assert_eq!(entries[0].offset, offset);
            assert_eq!(entries[0].payload, payload(partition, life, number));
        }
        for partition in 0..3 {
            let mut from = 0;
            while let Some(last) = log.read(partition, from, ReadLimit::BATCH).await.unwrap().last() {
                from = last.offset + 1;
            }
            assert_eq!(Ok(from), log.end(partition).await, "without a hole to the end");
        }
    });
}

#[test]
#[ignore = "the child of the test above"]
#[allow(clippy::disallowed_methods, reason = "a test has no other way to tell its child which log to open")]
fn child_appends_until_it_is_killed() {
    let Ok(told) = std::env::var(CHILD_LOG) else { return };
    let (life, path) = told.split_once(':').unwrap();
    let life: usize = life.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = SqliteLog::open(Path::new(path), 3).await.unwrap();
        println!();
        for chunk in 0.. {
            let mut receipts = Vec::new();
            for number in chunk * 50..chunk * 50 + 50 {
                let partition = u16::try_from(number % 3).unwrap();
                let receipt =
                    log.append(partition, Bytes::new(), payload(partition, life, number)).await.unwrap();
                receipts.push((partition, number, receipt));
            }
            for (partition, number, receipt) in receipts {
                let offset = receipt.await.unwrap();
                writeln!(std::io::stdout(), "receipt {partition} {number} {offset} .").unwrap();
            }
        }
    });
}

/// Appends in the pipelined part of the measurement.
const TOTAL: u32 = 400_000;

/// Eight callers, each with up to 512 appends under way.
async fn pipeline(log: &Arc<SqliteLog>, payload: &Bytes) {
    let appenders = (0..8_u16).map(|appender| {
        let (log, payload) = (Arc::clone(log), payload.clone());
        tokio::spawn(async move {
            let mut receipts = VecDeque::new();
            for number in 0..TOTAL / 8 {
                let partition = (appender * 2 + u16::try_from(number % 2).unwrap()) % 16;
                receipts.push_back(
                    log.append(partition, Bytes::from_static(&[0; 32]), payload.clone()).await.unwrap(),
                );
                if receipts.len() == 512 {
                    receipts.pop_front().unwrap().await.unwrap();
                }
            }
            try_join_all(receipts).await.unwrap();
        })
    });
    try_join_all(appenders).await.unwrap();
}

/// `cargo test --release -p common --test log_conformance -- --ignored --nocapture speed`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and asserts nothing"]
async fn speed() {
    let fixture = Embedded::new();
    let log = Arc::new(fixture.log(16).await);
    let payload = Bytes::from(vec![b'x'; 200]);

    let mut alone = Vec::new();
    for number in 0..2000_u16 {
        let start = Instant::now();
        log.append(number % 16, Bytes::from_static(&[0; 32]), payload.clone()).await.unwrap().await.unwrap();
        alone.push(start.elapsed());
    }
    alone.sort_unstable();
    println!("alone: p50 {:?}, p99 {:?}", alone[1000], alone[1980]);

    let mut paced = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    for number in 0..4000_u16 {
        tick.tick().await;
        let (log, payload) = (Arc::clone(&log), payload.clone());
        paced.push(tokio::spawn(async move {
            let start = Instant::now();
            log.append(number % 16, Bytes::from_static(&[0; 32]), payload).await.unwrap().await.unwrap();
            start.elapsed()
        }));
    }
    let mut paced = try_join_all(paced).await.unwrap();
    paced.sort_unstable();
    println!("at 1,000/s: p50 {:?}, p99 {:?}", paced[2000], paced[3960]);

    for readers in [0, 1, 2] {
        let mut members = Vec::new();
        for reader in 0..readers {
            let mut member = log.join(&format!("readers {reader}")).await.unwrap();
            let ends = try_join_all((0..16).map(|partition| log.end(partition))).await.unwrap();
            members.push(tokio::spawn(async move {
                let mut left = TOTAL;
                while left > 0 {
                    match member.next().await.unwrap() {
                        Delivery::Assigned(partitions) => {
                            for partition in partitions {
                                member.start(partition, ends[usize::from(partition)]).unwrap();
                            }
                        }
                        Delivery::Revoked(_) => {}
                        Delivery::Records { entries, .. } => left -= u32::try_from(entries.len()).unwrap(),
                    }
                }
            }));
        }
        let start = Instant::now();
        pipeline(&log, &payload).await;
        let rate = f64::from(TOTAL) / start.elapsed().as_secs_f64();
        try_join_all(members).await.unwrap();
        let drained = f64::from(TOTAL) / start.elapsed().as_secs_f64();
        let wal = std::fs::metadata(fixture.path().with_extension("db-wal")).unwrap().len() >> 20;
        println!(
            "pipelined, {readers} readers: {rate:.0} appends/s, drained at {drained:.0}/s, {wal} MiB of WAL"
        );
    }

    let start = Instant::now();
    let mut read = 0;
    for partition in 0..16 {
        let mut from = 0;
        loop {
            let entries = log.read(partition, from, ReadLimit::BATCH).await.unwrap();
            let Some(last) = entries.last() else { break };
            from = last.offset + 1;
            read += entries.len();
        }
    }
    println!("reading: {:.0} records/s", read as f64 / start.elapsed().as_secs_f64());
}
