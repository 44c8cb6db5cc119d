//! The loop: finds out where each partition is, hears what the log has, and has it written.
//!
//! A partition that is assigned waits until the store has told its position, and then runs from there. Whatever is doubtful (a
//! refused batch, a store that did not answer) sends it back to waiting: what is in memory is forgotten, and read again from the position.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use common::{
    ids::{Offset, Partition},
    log::{Delivery, Entry, LogError, ReadError, Subscription},
    store::{Position, Refused},
};
use futures_util::future::try_join;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Engines, Joined, RunError, WriterConfig,
    batch::{Batch, Halt},
    metrics::Metrics,
    write::{Outcome, Pace, write},
};

/// How often the lag of each partition is measured.
const LAG_EVERY: Duration = Duration::from_secs(1);

/// Why a partition stopped. It stays so until the writer is started again, or the partition is assigned anew.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("the store's position belongs to log {stored}, and this is log {here}")]
    ForeignLog { stored: Uuid, here: Uuid },
    #[error("the log ends at {end}, before the store's position {position}: it has lost records")]
    LogTooShort { end: Offset, position: Offset },
    #[error(
        "the log begins at {begin}, after the store's position {position}, and has forgotten what lies between: this store is older \
         than `writer.log_keep` lets it be, and cannot be caught up; put back a newer backup of it, whose position is {begin} or later"
    )]
    LogTooLate { begin: Offset, position: Offset },
    #[error(transparent)]
    Read(ReadError),
    #[error(transparent)]
    Record(Halt),
    #[error(transparent)]
    Store(Refused),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { from, begin, .. } if from < begin => {
                Self::LogTooLate { begin, position: from }
            }
            error => Self::Read(error),
        }
    }
}

/// What may be done after a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Hear the next one, or write.
    GoOn,
    /// Find out where the waiting partitions are.
    Locate,
    /// The same, after a while.
    Pause,
}

/// A partition of this writer.
#[derive(Debug)]
enum Seat {
    /// Its position is to be read.
    Waiting,
    Running(Running),
    /// It goes on no more, and was here.
    Stopped(Offset),
}

#[derive(Debug)]
struct Running {
    /// The store's.
    position: Option<Position>,
    /// What it has delivered and the store has not.
    queue: VecDeque<Entry>,
}

impl Running {
    fn drained(&self) -> Offset {
        self.position.map_or(0, |position| position.offset)
    }
}

pub(crate) struct Consumer {
    config: WriterConfig,
    engines: Engines,
    metrics: Metrics,
    joined: Joined,
    /// Whose partitions it drains, for who must know.
    owned: watch::Sender<BTreeSet<Partition>>,
    seats: BTreeMap<Partition, Seat>,
    /// In all queues.
    records: usize,
    bytes: usize,
    pace: Pace,
    measured: Option<Instant>,
    #[cfg(feature = "planted")]
    sleeper: crate::planted::Sleeper,
}

impl Consumer {
    pub(crate) fn new(
        config: WriterConfig,
        engines: Engines,
        metrics: Metrics,
        joined: Joined,
        owned: watch::Sender<BTreeSet<Partition>>,
    ) -> Self {
        let pace = Pace::new(config.batch_records);
        Self {
            config,
            engines,
            metrics,
            joined,
            owned,
            seats: BTreeMap::new(),
            records: 0,
            bytes: 0,
            pace,
            measured: None,
            #[cfg(feature = "planted")]
            sleeper: Default::default(),
        }
    }

    pub(crate) async fn run(mut self, shutdown: &CancellationToken) -> Result<(), RunError> {
        while let Some(mut subscription) = self.join(shutdown).await? {
            tracing::info!(group = %self.config.group, "joined the log's readers");
            self.joined.set(true);
            let ended = self.drain(subscription.as_mut(), shutdown).await;
            self.joined.set(false);
            for partition in std::mem::take(&mut self.seats).into_keys() {
                self.metrics.forget(partition);
            }
            (self.records, self.bytes) = (0, 0);
            self.tell_owned();
            match ended {
                Ok(()) => break,
                Err(LogError::Unavailable(why)) => {
                    tracing::warn!(%why, "lost the log: joining its readers again");
                    self.pause(shutdown).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// None when it is time to stop.
    async fn join(
        &mut self,
        shutdown: &CancellationToken,
    ) -> Result<Option<Box<dyn Subscription>>, RunError> {
        while !shutdown.is_cancelled() {
            match self.engines.log.join(&self.config.group).await {
                Ok(subscription) => return Ok(Some(subscription)),
                Err(LogError::Unavailable(why)) => {
                    tracing::warn!(%why, "the log cannot be joined: trying again");
                    self.pause(shutdown).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Works until it is time to stop (`Ok`), or the subscription ends.
    async fn drain(
        &mut self,
        subscription: &mut dyn Subscription,
        shutdown: &CancellationToken,
    ) -> Result<(), LogError> {
        while !shutdown.is_cancelled() {
            if !self.locate(subscription).await? {
                self.pause(shutdown).await;
                continue;
            }
            self.tell_owned();
            self.measure().await;
            if self.records == 0 {
                // Dropped by a stop: what was heard by then is read again by whoever comes next.
                let Some(heard) = shutdown.run_until_cancelled(self.gather(subscription)).await else {
                    break;
                };
                if heard? == Then::Pause {
                    self.pause(shutdown).await;
                    continue;
                }
            }
            if !self.write_round(subscription).await {
                self.pause(shutdown).await;
            }
        }
        Ok(())
    }

    fn tell_owned(&self) {
        let running = self.seats.iter().filter(|(_, seat)| matches!(seat, Seat::Running(_)));
        let running: BTreeSet<Partition> = running.map(|(partition, _)| *partition).collect();
        self.owned.send_if_modified(|owned| {
            let changed = *owned != running;
            *owned = running;
            changed
        });
    }

    async fn pause(&mut self, shutdown: &CancellationToken) {
        let wait = self.pace.failed(&mut rand::rng());
        shutdown.run_until_cancelled(sleep(wait)).await;
    }

    /// Starts each waiting partition at its position; false when that cannot be told yet.
    async fn locate(&mut self, subscription: &mut dyn Subscription) -> Result<bool, LogError> {
        let waiting: Vec<Partition> =
            self.seats.iter().filter(|(_, seat)| matches!(seat, Seat::Waiting)).map(|(p, _)| *p).collect();
        if waiting.is_empty() {
            return Ok(true);
        }
        let positions: HashMap<Partition, Position> = match self.engines.store.positions().await {
            Ok(positions) => positions.into_iter().collect(),
            Err(error) => {
                self.metrics.store_errors.inc();
                tracing::warn!(%error, "the store's positions cannot be read: trying again");
                return Ok(false);
            }
        };
        for partition in waiting {
            let position = positions.get(&partition).copied();
            let from = position.map_or(0, |position| position.offset);
            match self.check(partition, position).await {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => {
                    self.stop(subscription, partition, from, &why);
                    continue;
                }
            }
            match subscription.start(partition, from) {
                Ok(()) => {
                    tracing::info!(partition, offset = from, "draining");
                    let running = Running { position, queue: VecDeque::new() };
                    self.seats.insert(partition, Seat::Running(running));
                }
                // It was taken away meanwhile: the next delivery says so.
                Err(LogError::NotAssigned(_)) => {
                    self.seats.remove(&partition);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether the log goes on from the position; false when it does not answer.
    async fn check(&self, partition: Partition, position: Option<Position>) -> Result<bool, Stop> {
        let here = self.engines.log.id();
        if let Some(position) = position.filter(|position| position.log != here) {
            return Err(Stop::ForeignLog { stored: position.log, here });
        }
        let position = position.map_or(0, |position| position.offset);
        let log = &self.engines.log;
        match try_join(log.begin(partition), log.end(partition)).await {
            Ok((_, end)) if end < position => Err(Stop::LogTooShort { end, position }),
            Ok((begin, _)) if begin > position => Err(Stop::LogTooLate { begin, position }),
            Ok(_) => Ok(true),
            Err(ReadError::Unavailable(why)) => {
                tracing::warn!(partition, %why, "the log's bounds cannot be read: trying again");
                Ok(false)
            }
            // The subscription says the same.
            Err(ReadError::Closed) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn stop(&mut self, subscription: &mut dyn Subscription, partition: Partition, at: Offset, why: &Stop) {
        tracing::error!(partition, offset = at, %why, "a partition stopped: an operator must look");
        self.metrics.stopped(partition, true);
        subscription.stop(partition);
        self.reseat(partition, Seat::Stopped(at));
    }

    /// Replaces what is known of a partition; what was heard of it is forgotten.
    fn reseat(&mut self, partition: Partition, seat: Seat) {
        let before = self.seats.insert(partition, seat);
        self.forget(before);
    }

    fn forget(&mut self, seat: Option<Seat>) {
        if let Some(Seat::Running(running)) = seat {
            self.records = self.records.saturating_sub(running.queue.len());
            let bytes = running.queue.iter().map(size).sum();
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Waits for something to do (a second at most), and for what else is there within the linger.
    async fn gather(&mut self, subscription: &mut dyn Subscription) -> Result<Then, LogError> {
        let Ok(delivery) = timeout(LAG_EVERY, subscription.next()).await else { return Ok(Then::GoOn) };
        let mut then = self.hear(subscription, delivery)?;
        let until = Instant::now() + self.config.linger;
        while then == Then::GoOn && self.records < self.pace.rows() && self.bytes < self.config.batch_bytes {
            match timeout_at(until, subscription.next()).await {
                Ok(delivery) => then = self.hear(subscription, delivery)?,
                Err(_) => break,
            }
        }
        Ok(then)
    }

    fn hear(
        &mut self,
        subscription: &mut dyn Subscription,
        delivery: Result<Delivery, LogError>,
    ) -> Result<Then, LogError> {
        match delivery {
            Ok(Delivery::Assigned(partitions)) => {
                for partition in partitions {
                    self.metrics.stopped(partition, false);
                    self.reseat(partition, Seat::Waiting);
                }
                return Ok(Then::Locate);
            }
            // Nothing of it is under way: what was heard and not written is the next one's to read.
            Ok(Delivery::Revoked(partitions)) => {
                for partition in partitions {
                    tracing::info!(partition, "given away");
                    self.metrics.forget(partition);
                    let seat = self.seats.remove(&partition);
                    self.forget(seat);
                }
            }
            Ok(Delivery::Records { partition, entries }) => {
                // One that was stopped may have had a delivery on its way.
                if let Some(Seat::Running(running)) = self.seats.get_mut(&partition) {
                    self.records += entries.len();
                    self.bytes += entries.iter().map(size).sum::<usize>();
                    running.queue.extend(entries);
                }
            }
            Err(LogError::Read(ReadError::Closed)) => return Err(LogError::Closed),
            Err(LogError::Read(error)) => match of(&error) {
                Some(partition) => {
                    let at = match self.seats.get(&partition) {
                        Some(Seat::Running(running)) => running.drained(),
                        _ => 0,
                    };
                    self.stop(subscription, partition, at, &error.into());
                }
                None => {
                    tracing::warn!(%error, "a partition could not be read: reading on from the positions");
                    let running = self.seats.iter().filter(|(_, seat)| matches!(seat, Seat::Running(_)));
                    for partition in running.map(|(partition, _)| *partition).collect::<Vec<_>>() {
                        self.reseat(partition, Seat::Waiting);
                    }
                    return Ok(Then::Pause);
                }
            },
            Err(error) => return Err(error),
        }
        Ok(Then::GoOn)
    }

    /// Writes as much of what was heard as one transaction should have; false when the store did not answer.
    async fn write_round(&mut self, subscription: &mut dyn Subscription) -> bool {
        let (batches, halts) = self.next_round();
        #[cfg(feature = "planted")]
        {
            self.sleeper.remember(&batches);
            self.sleeper.wake(self.config.planted, self.engines.store.as_ref()).await;
        }
        let mut answered = true;
        if !batches.is_empty() {
            let (outcomes, answer) = write(self.engines.store.as_ref(), batches, &self.metrics).await;
            match answer {
                Ok(()) => self.pace.succeeded(),
                Err(error) => {
                    self.metrics.store_errors.inc();
                    tracing::warn!(%error, "the store did not answer: reading its positions again");
                    answered = false;
                }
            }
            for (partition, outcome) in outcomes {
                self.settle(subscription, partition, outcome);
            }
        }
        for (partition, halt) in halts {
            // Only if all before it is in the store: otherwise it is met again.
            if let Some(Seat::Running(running)) = self.seats.get(&partition) {
                let at = running.drained();
                self.stop(subscription, partition, at, &Stop::Record(halt));
            }
        }
        answered
    }

    fn next_round(&mut self) -> (Vec<Batch>, Vec<(Partition, Halt)>) {
        let (log, partitions) = (self.engines.log.id(), self.engines.log.partitions());
        let (mut batches, mut halts) = (Vec::new(), Vec::new());
        let mut room = self.pace.rows();
        for (partition, seat) in &mut self.seats {
            let Seat::Running(running) = seat else { continue };
            let mut batch = Batch::new(*partition, partitions, log, running.position);
            #[cfg(feature = "planted")]
            {
                batch.planted = self.config.planted;
            }
            while room > 0 {
                let Some(entry) = running.queue.pop_front() else { break };
                self.records = self.records.saturating_sub(1);
                self.bytes = self.bytes.saturating_sub(size(&entry));
                match batch.take(&entry) {
                    Ok(rows) => room = room.saturating_sub(rows),
                    Err(halt) => {
                        halts.push((*partition, halt));
                        break;
                    }
                }
            }
            if !batch.is_empty() {
                batches.push(batch);
            }
        }
        (batches, halts)
    }

    fn settle(&mut self, subscription: &mut dyn Subscription, partition: Partition, outcome: Outcome) {
        let Some(Seat::Running(running)) = self.seats.get_mut(&partition) else { return };
        match outcome {
            Outcome::Applied(position) => {
                running.position = Some(position);
                subscription.note_progress(partition, position.offset);
            }
            Outcome::Moved(position) => {
                self.metrics.refused.inc();
                tracing::warn!(
                    partition,
                    ?position,
                    "another writer has moved the position: going on from it"
                );
                self.reseat(partition, Seat::Waiting);
            }
            Outcome::Broken(refused) => {
                let at = running.drained();
                self.stop(subscription, partition, at, &Stop::Store(refused));
            }
            Outcome::Unknown => self.reseat(partition, Seat::Waiting),
        }
    }

    /// Tells how far each partition is behind, once a second. A log that does not answer is asked the next time.
    async fn measure(&mut self) {
        if self.measured.is_some_and(|at| at.elapsed() < LAG_EVERY) {
            return;
        }
        self.measured = Some(Instant::now());
        for (partition, seat) in &self.seats {
            let drained = match seat {
                Seat::Waiting => continue,
                Seat::Running(running) => running.drained(),
                Seat::Stopped(at) => *at,
            };
            if let Ok(end) = self.engines.log.end(*partition).await {
                self.metrics.lag(*partition, end.saturating_sub(drained));
            }
        }
    }
}

fn size(entry: &Entry) -> usize {
    entry.key.len() + entry.payload.len()
}

/// The partition that an error is about.
fn of(error: &ReadError) -> Option<Partition> {
    match error {
        ReadError::OutOfRange { partition, .. }
        | ReadError::NoSuchPartition { partition, .. }
        | ReadError::Corrupt { partition, .. } => Some(*partition),
        ReadError::Unavailable(_) | ReadError::Closed => None,
    }
}
