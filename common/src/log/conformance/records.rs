//! Appending, reading, opening again.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use tokio::time::timeout;

use super::{Fixture, PATIENCE, bytes, fill, forget, put, read_all, texts};
use crate::{
    ids::{Offset, Partition},
    log::{AppendError, LogError, MAX_RECORD_BYTES, OpenError, ReadError, ReadLimit},
};

pub async fn a_new_log_is_empty_and_has_an_id_of_its_own(fixture: &dyn Fixture) {
    let log = fixture.open(3).await.unwrap();
    assert_eq!(log.partitions(), 3);
    assert!(!log.id().is_nil());
    for partition in 0..3 {
        assert_eq!(log.end(partition).await, Ok(0));
        assert_eq!(log.read(partition, 0, ReadLimit::BATCH).await, Ok(Vec::new()));
    }
}

pub async fn offsets_are_contiguous_under_many_appenders(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    let appenders = (0..50).map(|appender| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut mine = Vec::new();
            for number in 0..40 {
                let payload = format!("{appender}/{number}");
                mine.push((put(&*log, 1, payload.clone()).await, payload));
            }
            mine
        })
    });
    let mut told: Vec<(Offset, String)> =
        join_all(appenders).await.into_iter().flat_map(|appender| appender.unwrap()).collect();
    told.sort_unstable();
    let entries = read_all(&*log, 1, 0).await;
    let found: Vec<(Offset, String)> =
        entries.iter().map(|entry| entry.offset).zip(texts(&entries)).collect();
    assert_eq!(told, found, "each record is where its receipt says");
    assert!(told.iter().map(|(offset, _)| *offset).eq(0..2000), "without a hole");
    assert_eq!(log.end(1).await, Ok(2000));
    assert_eq!(log.end(0).await, Ok(0));
}

pub async fn one_callers_appends_land_in_its_order(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let callers = (0..4).map(|caller| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut receipts = Vec::new();
            for number in 0..3000 {
                receipts
                    .push(log.append(0, bytes("key"), bytes(format!("{caller}/{number}"))).await.unwrap());
            }
            let offsets = timeout(PATIENCE, try_join_all(receipts)).await.expect("receipts").unwrap();
            assert!(offsets.is_sorted_by(|a, b| a < b), "a later append has a higher offset");
            (caller, offsets)
        })
    });
    let callers = join_all(callers).await;
    let all = texts(&read_all(&*log, 0, 0).await);
    for caller in callers {
        let (caller, offsets) = caller.unwrap();
        for (number, offset) in offsets.into_iter().enumerate() {
            assert_eq!(all[usize::try_from(offset).unwrap()], format!("{caller}/{number}"));
        }
    }
}

pub async fn receipts_can_be_awaited_in_any_order_or_not_at_all(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let first = log.append(0, bytes("key"), bytes("first")).await.unwrap();
    drop(log.append(0, bytes("key"), bytes("nobody waits for this one")).await.unwrap());
    let third = log.append(0, bytes("key"), bytes("third")).await.unwrap();
    assert_eq!(timeout(PATIENCE, third).await.unwrap(), Ok(2));
    assert_eq!(timeout(PATIENCE, first).await.unwrap(), Ok(0));
    assert_eq!(texts(&read_all(&*log, 0, 0).await)[1], "nobody waits for this one");
}

pub async fn a_record_between_two_others_sits_at_its_own_offset(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let claim = put(&*log, 0, "claim of one").await;
    let mut mine = Vec::new();
    for number in 1..=3 {
        mine.push(log.append(0, bytes("key"), bytes(format!("one, {number}"))).await.unwrap());
    }
    let other = log.append(0, Bytes::new(), bytes("claim of two")).await.unwrap();
    let late = log.append(0, bytes("key"), bytes("one, 4")).await.unwrap();
    let offsets = timeout(PATIENCE, try_join_all(mine)).await.expect("receipts").unwrap();
    assert_eq!(
        offsets,
        [claim + 1, claim + 2, claim + 3],
        "what stands before the claim is where its term says"
    );
    assert_eq!(timeout(PATIENCE, other).await.unwrap(), Ok(claim + 4));
    assert_eq!(timeout(PATIENCE, late).await.unwrap(), Ok(claim + 5), "what comes behind it is not");
}

pub async fn partitions_do_not_share_offsets(fixture: &dyn Fixture) {
    let log = fixture.open(3).await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..300_u64 {
        let partition = Partition::try_from(number % 3).unwrap();
        receipts.push(log.append(partition, bytes("key"), bytes(number.to_string())).await.unwrap());
    }
    let offsets = timeout(PATIENCE, try_join_all(receipts)).await.expect("receipts").unwrap();
    assert!(offsets.into_iter().eq((0..300).map(|number| number / 3)));
}

pub async fn a_read_starts_anywhere_and_keeps_its_limits(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    fill(&*log, 0, 0, 100).await;
    for from in [0, 1, 57, 99] {
        let rest = log.read(0, from, ReadLimit::BATCH).await.unwrap();
        assert_eq!(texts(&rest), (from..100).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(log.read(0, 100, ReadLimit::BATCH).await, Ok(Vec::new()), "the end is not beyond the end");
    let few = log.read(0, 10, ReadLimit { records: 3, ..ReadLimit::BATCH }).await.unwrap();
    assert_eq!(texts(&few), ["10", "11", "12"]);
    // A key of three bytes and a payload of two each.
    let small = log.read(0, 10, ReadLimit { bytes: 12, ..ReadLimit::BATCH }).await.unwrap();
    assert_eq!(texts(&small), ["10", "11"]);
    let least = log.read(0, 10, ReadLimit { records: 0, bytes: 0 }).await.unwrap();
    assert_eq!(texts(&least), ["10"], "a read that is not at the end gets on");
}

pub async fn a_read_beyond_the_end_is_refused(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    fill(&*log, 1, 0, 5).await;
    let refused = |partition, from, end| Err(ReadError::OutOfRange { partition, from, begin: 0, end });
    assert_eq!(log.read(1, 6, ReadLimit::BATCH).await, refused(1, 6, 5));
    assert_eq!(log.read(1, u64::MAX, ReadLimit::BATCH).await, refused(1, u64::MAX, 5));
    assert_eq!(log.read(0, 1, ReadLimit::BATCH).await, refused(0, 1, 0));
}

pub async fn a_partition_that_does_not_exist_is_refused(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    let refused = ReadError::NoSuchPartition { partition: 2, partitions: 2 };
    assert_eq!(log.end(2).await, Err(refused.clone()));
    assert_eq!(log.read(2, 0, ReadLimit::BATCH).await, Err(refused));
    let append = log.append(2, Bytes::new(), Bytes::new()).await;
    assert_eq!(append.unwrap_err(), AppendError::NoSuchPartition { partition: 2, partitions: 2 });
}

pub async fn a_record_that_is_too_large_is_refused_and_the_largest_is_not(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let key = bytes("key");
    let payload = Bytes::from(vec![7; MAX_RECORD_BYTES - key.len() + 1]);
    let refused = log.append(0, key.clone(), payload.clone()).await.unwrap_err();
    assert_eq!(refused, AppendError::TooLarge { bytes: MAX_RECORD_BYTES + 1, max: MAX_RECORD_BYTES });
    let largest = payload.slice(1..);
    let mut receipts = Vec::new();
    for _ in 0..6 {
        receipts.push(log.append(0, key.clone(), largest.clone()).await.unwrap());
    }
    assert_eq!(
        timeout(PATIENCE, try_join_all(receipts)).await.expect("receipts"),
        Ok(vec![0, 1, 2, 3, 4, 5])
    );
    let entries = log.read(0, 0, ReadLimit::BATCH).await.unwrap();
    assert_eq!(entries.len(), 4, "as many as 4 MiB hold");
    assert!(entries.iter().all(|entry| entry.payload == largest));
}

pub async fn keys_and_payloads_come_back_as_they_were(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let all: Bytes = (0..=255).collect();
    let records = [
        (Bytes::new(), Bytes::new()),
        (all.clone(), Bytes::new()),
        (Bytes::new(), all.clone()),
        (all.clone(), all),
    ];
    for (key, payload) in &records {
        let receipt = log.append(0, key.clone(), payload.clone()).await.unwrap();
        timeout(PATIENCE, receipt).await.unwrap().unwrap();
    }
    let entries = read_all(&*log, 0, 0).await;
    assert!(entries.into_iter().map(|entry| (entry.key, entry.payload)).eq(records));
}

pub async fn everything_is_there_after_a_reopen(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    let id = log.id();
    fill(&*log, 0, 0, 2500).await;
    fill(&*log, 1, 0, 10).await;
    let before = (read_all(&*log, 0, 0).await, read_all(&*log, 1, 0).await);
    log.close().await.unwrap();
    drop(log);
    let log = fixture.open(2).await.unwrap();
    assert_eq!(log.id(), id);
    assert_eq!((log.end(0).await, log.end(1).await), (Ok(2500), Ok(10)));
    assert!((read_all(&*log, 0, 0).await, read_all(&*log, 1, 0).await) == before);
    assert_eq!(put(&*log, 0, "next").await, 2500, "offsets go on where they were");
}

pub async fn another_partition_count_is_refused(fixture: &dyn Fixture) {
    let log = fixture.open(4).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let refused = fixture.open(8).await.err().expect("a refusal");
    assert!(matches!(refused, OpenError::PartitionCount { has: 4, asked: 8, .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains('4') && said.contains('8'), "{said}");
    fixture.open(4).await.expect("the log itself is well");
}

pub async fn closing_settles_what_was_taken_and_refuses_the_rest(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..3000 {
        receipts.push(log.append(0, bytes("key"), bytes(number.to_string())).await.unwrap());
    }
    log.close().await.unwrap();
    let offsets = timeout(PATIENCE, try_join_all(receipts)).await.expect("receipts").unwrap();
    assert!(offsets.into_iter().eq(0..3000));
    assert_eq!(log.append(0, bytes("key"), bytes("late")).await.unwrap_err(), AppendError::Closed);
    assert!(matches!(log.join("late").await, Err(LogError::Closed)));
    log.close().await.expect("nothing to do");
}

pub async fn what_is_forgotten_is_gone_and_what_follows_is_there(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    fill(&*log, 0, 0, 5000).await;
    fill(&*log, 1, 0, 10).await;
    assert_eq!((log.begin(0).await, log.begin(1).await), (Ok(0), Ok(0)));
    for before in [1, 3210] {
        forget(&*log, 0, before).await;
        assert_eq!((log.begin(0).await, log.end(0).await), (Ok(before), Ok(5000)));
        for from in [0, before - 1] {
            let gone = ReadError::OutOfRange { partition: 0, from, begin: before, end: 5000 };
            assert_eq!(log.read(0, from, ReadLimit::BATCH).await, Err(gone));
        }
        let rest = texts(&read_all(&*log, 0, before).await);
        assert!(rest.into_iter().eq((before..5000).map(|number| number.to_string())));
        assert_eq!(log.forget_before(0, before - 1).await, Ok(before), "it stays forgotten");
        assert_eq!(log.forget_before(0, 0).await, Ok(before));
    }
    assert_eq!(put(&*log, 0, "next").await, 5000, "offsets go on");
    assert_eq!(read_all(&*log, 1, 0).await.len(), 10, "the others forget nothing");
}

pub async fn a_partition_that_has_forgotten_everything_goes_on_with_the_next_offset(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    fill(&*log, 0, 0, 30).await;
    forget(&*log, 0, 30).await;
    assert_eq!((log.begin(0).await, log.end(0).await), (Ok(30), Ok(30)));
    assert_eq!(log.read(0, 30, ReadLimit::BATCH).await, Ok(Vec::new()));
    log.close().await.unwrap();
    drop(log);
    let log = fixture.open(2).await.unwrap();
    assert_eq!((log.begin(0).await, log.end(0).await), (Ok(30), Ok(30)));
    let gone = |end| Err(ReadError::OutOfRange { partition: 0, from: 29, begin: 30, end });
    assert_eq!(log.read(0, 29, ReadLimit::BATCH).await, gone(30));
    assert_eq!(put(&*log, 0, "next").await, 30);
    assert_eq!(put(&*log, 1, "of the other").await, 0);
    assert_eq!(log.read(0, 29, ReadLimit::BATCH).await, gone(31));
    assert_eq!(texts(&read_all(&*log, 0, 30).await), ["next"]);
}

pub async fn what_is_past_the_end_is_not_forgotten(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    fill(&*log, 0, 0, 5).await;
    for before in [6, u64::MAX] {
        let refused = ReadError::OutOfRange { partition: 0, from: before, begin: 0, end: 5 };
        assert_eq!(log.forget_before(0, before).await, Err(refused));
    }
    assert_eq!(read_all(&*log, 0, 0).await.len(), 5);
    let refused = ReadError::NoSuchPartition { partition: 1, partitions: 1 };
    assert_eq!(log.begin(1).await, Err(refused.clone()));
    assert_eq!(log.forget_before(1, 0).await, Err(refused));
    log.close().await.unwrap();
    assert_eq!(log.forget_before(0, 1).await, Err(ReadError::Closed));
}
