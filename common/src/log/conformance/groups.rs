//! Readers that share the partitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Fixture, PATIENCE, fill, forget, put};
use crate::{
    ids::{Offset, Partition},
    log::{Delivery, Log, LogError, ReadError, Subscription},
};

async fn next(member: &mut Box<dyn Subscription>) -> Result<Delivery, LogError> {
    timeout(PATIENCE, member.next()).await.expect("a delivery")
}

/// A member that keeps what it is told, and starts what it is given where `starts` says (0 unless named).
struct Reader {
    member: Box<dyn Subscription>,
    held: BTreeSet<Partition>,
    starts: BTreeMap<Partition, Offset>,
    seen: Vec<(Partition, Offset)>,
}

impl Reader {
    async fn join(log: &dyn Log, group: &str) -> Self {
        let member = log.join(group).await.unwrap();
        Self { member, held: BTreeSet::new(), starts: BTreeMap::new(), seen: Vec::new() }
    }

    async fn step(&mut self) {
        match next(&mut self.member).await.unwrap() {
            Delivery::Assigned(partitions) => {
                for partition in partitions {
                    assert!(self.held.insert(partition), "partition {partition} was assigned twice");
                    self.member.start(partition, self.starts.get(&partition).copied().unwrap_or(0)).unwrap();
                }
            }
            Delivery::Revoked(partitions) => {
                for partition in partitions {
                    assert!(
                        self.held.remove(&partition),
                        "partition {partition} was revoked, and never assigned"
                    );
                }
            }
            Delivery::Records { partition, entries } => {
                assert!(
                    self.held.contains(&partition),
                    "records of partition {partition}, which is another's"
                );
                assert!(!entries.is_empty());
                for entry in entries {
                    assert_eq!(
                        entry.offset,
                        self.starts.get(&partition).copied().unwrap_or(0),
                        "a hole or a repeat"
                    );
                    self.starts.insert(partition, entry.offset + 1);
                    self.seen.push((partition, entry.offset));
                }
            }
        }
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.step().await;
        }
    }
}

/// Lets two members go on until both are content.
async fn settle(one: &mut Reader, two: &mut Reader, done: impl Fn(&Reader, &Reader) -> bool) {
    timeout(PATIENCE, async {
        while !done(one, two) {
            tokio::select! {
                () = one.step() => {}
                () = two.step() => {}
            }
        }
    })
    .await
    .expect("the members to settle");
}

pub async fn one_member_is_given_every_partition_and_sees_every_record(fixture: &dyn Fixture) {
    let log = fixture.open(4).await.unwrap();
    for partition in 0..4 {
        fill(&*log, partition, 0, 1500).await;
    }
    let mut reader = Reader::join(&*log, "writers").await;
    reader.until(|reader| reader.seen.len() == 6000).await;
    assert_eq!(reader.held, (0..4).collect());
    // And what comes later, without being asked anew.
    put(&*log, 2, "later").await;
    reader.until(|reader| reader.seen.last() == Some(&(2, 1500))).await;
}

pub async fn a_subscription_starts_where_it_is_told(fixture: &dyn Fixture) {
    let log = fixture.open(3).await.unwrap();
    for partition in 0..3 {
        fill(&*log, partition, 0, 10).await;
    }
    let mut reader = Reader::join(&*log, "writers").await;
    reader.starts = BTreeMap::from([(0, 4), (1, 10), (2, 0)]);
    reader.until(|reader| reader.seen.len() == 16).await;
    let from = |partition| {
        reader.seen.iter().filter(|seen| seen.0 == partition).map(|seen| seen.1).collect::<Vec<_>>()
    };
    assert_eq!(from(0), [4, 5, 6, 7, 8, 9]);
    assert!(from(1).is_empty());
    assert_eq!(from(2).len(), 10);
    reader.member.start(0, 9).unwrap();
    reader.starts.insert(0, 9);
    reader.until(|reader| reader.seen.len() == 17).await;
    assert_eq!(reader.seen.last(), Some(&(0, 9)), "it can be set back");
}

pub async fn a_stopped_partition_is_silent_until_it_is_started_again(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    let mut reader = Reader::join(&*log, "writers").await;
    reader.until(|reader| reader.held.len() == 2).await;
    reader.member.stop(0);
    put(&*log, 0, "not now").await;
    put(&*log, 1, "now").await;
    reader.until(|reader| !reader.seen.is_empty()).await;
    assert_eq!(reader.seen, [(1, 0)]);
    reader.member.start(0, 0).unwrap();
    reader.until(|reader| reader.seen.len() == 2).await;
    assert_eq!(reader.seen, [(1, 0), (0, 0)]);
}

pub async fn a_start_beyond_the_end_stops_that_partition_alone(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    fill(&*log, 0, 0, 5).await;
    let mut reader = Reader::join(&*log, "writers").await;
    reader.starts = BTreeMap::from([(0, 5)]);
    reader.until(|reader| reader.held.len() == 2).await;
    reader.member.start(0, 9).unwrap();
    let refused = next(&mut reader.member).await.unwrap_err();
    let beyond = ReadError::OutOfRange { partition: 0, from: 9, begin: 0, end: 5 };
    assert_eq!(refused, LogError::Read(beyond));
    put(&*log, 0, "is not delivered").await;
    put(&*log, 1, "is delivered").await;
    reader.until(|reader| !reader.seen.is_empty()).await;
    assert_eq!(reader.seen, [(1, 0)]);
    reader.member.start(0, 5).unwrap();
    reader.until(|reader| reader.seen.len() == 2).await;
}

pub async fn a_start_before_the_beginning_stops_that_partition_alone(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    fill(&*log, 0, 0, 5).await;
    let mut reader = Reader::join(&*log, "writers").await;
    reader.starts = BTreeMap::from([(0, 5)]);
    reader.until(|reader| reader.held.len() == 2).await;
    let refused = async |reader: &mut Reader, from, begin| {
        reader.member.start(0, from).unwrap();
        let gone = ReadError::OutOfRange { partition: 0, from, begin, end: 5 };
        assert_eq!(next(&mut reader.member).await, Err(LogError::Read(gone)));
    };
    forget(&*log, 0, 3).await;
    refused(&mut reader, 0, 3).await;
    refused(&mut reader, 2, 3).await;
    put(&*log, 1, "is delivered").await;
    reader.until(|reader| !reader.seen.is_empty()).await;
    assert_eq!(reader.seen, [(1, 0)]);
    reader.member.start(0, 3).unwrap();
    reader.starts.insert(0, 3);
    reader.until(|reader| reader.seen.len() == 3).await;
    assert_eq!(reader.seen[1..], [(0, 3), (0, 4)]);
    forget(&*log, 0, 5).await;
    refused(&mut reader, 4, 5).await;
}

pub async fn a_start_of_a_partition_of_another_is_refused(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let mut member = log.join("writers").await.unwrap();
    assert_eq!(member.start(0, 0), Err(LogError::NotAssigned(0)), "not before it was told");
    assert_eq!(next(&mut member).await, Ok(Delivery::Assigned(vec![0])));
    assert_eq!(member.start(0, 0), Ok(()));
    assert_eq!(member.start(1, 0), Err(LogError::NotAssigned(1)));
}

pub async fn two_members_split_the_partitions(fixture: &dyn Fixture) {
    let log = fixture.open(5).await.unwrap();
    let mut one = Reader::join(&*log, "writers").await;
    one.until(|one| one.held.len() == 5).await;
    let mut two = Reader::join(&*log, "writers").await;
    settle(&mut one, &mut two, |one, two| one.held.len() + two.held.len() == 5 && !two.held.is_empty()).await;
    assert!(one.held.is_disjoint(&two.held));
    assert!(one.held.len() <= 3 && two.held.len() <= 3, "{:?} {:?}", one.held, two.held);
    for partition in 0..5 {
        fill(&*log, partition, 0, 20).await;
    }
    settle(&mut one, &mut two, |one, two| one.seen.len() + two.seen.len() == 100).await;
    for reader in [&one, &two] {
        assert!(reader.seen.iter().all(|(partition, _)| reader.held.contains(partition)));
        assert_eq!(reader.seen.len(), 20 * reader.held.len());
    }
}

pub async fn a_member_that_leaves_is_replaced(fixture: &dyn Fixture) {
    let log = fixture.open(4).await.unwrap();
    let mut one = Reader::join(&*log, "writers").await;
    let mut two = Reader::join(&*log, "writers").await;
    settle(&mut one, &mut two, |one, two| one.held.len() == 2 && two.held.len() == 2).await;
    for partition in 0..4 {
        fill(&*log, partition, 0, 10).await;
    }
    settle(&mut one, &mut two, |one, two| one.seen.len() + two.seen.len() == 40).await;
    let stayed = two.held.clone();
    two.starts.extend(std::mem::take(&mut one.starts));
    drop(one);
    two.until(|two| two.held.len() == 4).await;
    assert!(stayed.is_subset(&two.held));
    for partition in 0..4 {
        put(&*log, partition, "after").await;
    }
    two.until(|two| two.seen.iter().filter(|(_, offset)| *offset == 10).count() == 4).await;
}

/// Positions are kept as a storage writer keeps them: with what was done, and compared before they are set.
pub async fn while_members_come_and_go_no_record_is_missed(fixture: &dyn Fixture) {
    const PARTITIONS: Partition = 4;
    const EACH: u64 = 2000;
    let log = fixture.open(PARTITIONS).await.unwrap();
    let positions = Arc::new(parking_lot::Mutex::new(vec![0; usize::from(PARTITIONS)]));
    let drain = |records: Option<usize>| {
        let (log, positions) = (Arc::clone(&log), Arc::clone(&positions));
        tokio::spawn(async move {
            let mut member = log.join("writers").await.unwrap();
            let mut drained = 0;
            while records.is_none_or(|records| drained < records)
                && !positions.lock().iter().all(|position| *position == EACH)
            {
                // A member that has nothing to do looks now and then whether all is done.
                let Ok(delivery) = timeout(Duration::from_millis(20), member.next()).await else { continue };
                match delivery.unwrap() {
                    Delivery::Assigned(partitions) => {
                        for partition in partitions {
                            let from = positions.lock()[usize::from(partition)];
                            member.start(partition, from).unwrap();
                        }
                    }
                    Delivery::Revoked(_) => {}
                    Delivery::Records { partition, entries } => {
                        let mut positions = positions.lock();
                        let position = &mut positions[usize::from(partition)];
                        for entry in &entries {
                            assert_eq!(
                                entry.offset, *position,
                                "the member before had not given it back, or kept some"
                            );
                            *position += 1;
                        }
                        drained += entries.len();
                    }
                }
            }
        })
    };
    let stays = drain(None);
    let appender = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            for chunk in 0..EACH / 100 {
                for partition in 0..PARTITIONS {
                    fill(&*log, partition, chunk * 100, 100).await;
                }
            }
        }
    });
    for records in [300, 100, 500] {
        let (one, two) = (drain(Some(records)), drain(Some(records / 2)));
        timeout(PATIENCE, join_all([one, two]))
            .await
            .expect("two short members")
            .into_iter()
            .for_each(Result::unwrap);
    }
    timeout(PATIENCE, appender).await.expect("the appender").unwrap();
    timeout(PATIENCE, stays).await.expect("the member that stays").unwrap();
    assert_eq!(*positions.lock(), vec![EACH; usize::from(PARTITIONS)]);
}

pub async fn groups_do_not_disturb_each_other(fixture: &dyn Fixture) {
    let log = fixture.open(2).await.unwrap();
    let mut one = Reader::join(&*log, "writers").await;
    let mut two = Reader::join(&*log, "indexers").await;
    fill(&*log, 0, 0, 10).await;
    fill(&*log, 1, 0, 10).await;
    one.until(|one| one.seen.len() == 20).await;
    two.until(|two| two.seen.len() == 20).await;
    assert_eq!((one.held.len(), two.held.len()), (2, 2));
}

pub async fn waiting_for_a_delivery_can_be_given_up_without_loss(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let mut reader = Reader::join(&*log, "writers").await;
    let appender = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            for number in 0..300_u64 {
                put(&*log, 0, number.to_string()).await;
            }
        }
    });
    timeout(PATIENCE, async {
        while reader.seen.len() < 300 {
            // Given up at any point of its work; each record still comes once, in order.
            drop(timeout(Duration::from_micros(rand::random_range(0..400)), reader.step()).await);
        }
    })
    .await
    .expect("every record");
    appender.await.unwrap();
}

pub async fn a_closed_log_ends_its_subscriptions(fixture: &dyn Fixture) {
    let log = fixture.open(1).await.unwrap();
    let mut member = log.join("writers").await.unwrap();
    assert_eq!(next(&mut member).await, Ok(Delivery::Assigned(vec![0])));
    let waiting = tokio::spawn(async move { next(&mut member).await });
    log.close().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Err(LogError::Closed));
}
