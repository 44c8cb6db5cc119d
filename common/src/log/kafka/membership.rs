//! What a member and its thread know of each other: which partitions the group gives, which the member has been told of,
//! what it wants delivered, and what waits for it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use crate::{
    ids::{Offset, Partition},
    log::{Delivery, Entry, LogError, ReadError, ReadLimit},
};

/// Records that wait for the member at most: four batches. When they are there, the thread fetches no more.
const BUFFER_RECORDS: usize = 4 * ReadLimit::BATCH.records;

/// Bytes that wait for the member at most, but for one record that is larger.
const BUFFER_BYTES: usize = 2 * ReadLimit::BATCH.bytes;

/// One start of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) from: Offset,
    /// Tells two starts apart: what was fetched for an earlier one does not count.
    pub(super) number: u64,
}

/// Partitions that the group takes back, and until when the member may keep them.
#[derive(Debug)]
struct Leaving {
    partitions: BTreeSet<Partition>,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// What the group gives this member, whether it knows or not.
    given: BTreeSet<Partition>,
    /// What the member was told to have.
    told: BTreeSet<Partition>,
    /// What it should be told next, in this order.
    revoked: BTreeSet<Partition>,
    assigned: BTreeSet<Partition>,
    /// What it was last told was revoked: it is done with these when it asks again.
    finishing: BTreeSet<Partition>,
    leaving: Option<Leaving>,
    wanted: BTreeMap<Partition, Start>,
    starts: u64,
    buffers: BTreeMap<Partition, VecDeque<Entry>>,
    records: usize,
    bytes: usize,
    /// Who was served last: the search for the next begins behind it.
    served: Partition,
    failed: BTreeMap<Partition, ReadError>,
    progress: BTreeMap<Partition, Offset>,
    /// Changes of `wanted`, counted: the thread compares only after one.
    changes: u64,
    pub(super) ended: Option<LogError>,
}

impl State {
    // The member's side.

    /// The member is done with what it was last told was revoked. Whether there was any.
    pub(super) fn ask(&mut self) -> bool {
        !std::mem::take(&mut self.finishing).is_empty()
    }

    /// What the member should know next.
    pub(super) fn next(&mut self) -> Option<Result<Delivery, LogError>> {
        if !self.revoked.is_empty() {
            let revoked = std::mem::take(&mut self.revoked);
            self.told.retain(|partition| !revoked.contains(partition));
            self.finishing.clone_from(&revoked);
            return Some(Ok(Delivery::Revoked(revoked.into_iter().collect())));
        }
        if let Some(error) = &self.ended {
            return Some(Err(error.clone()));
        }
        if !self.assigned.is_empty() {
            let assigned = std::mem::take(&mut self.assigned);
            self.told.extend(&assigned);
            return Some(Ok(Delivery::Assigned(assigned.into_iter().collect())));
        }
        // What was fetched before it failed comes first.
        let failed = self.failed.keys().find(|partition| !self.buffers.contains_key(partition)).copied();
        if let Some(error) = failed.and_then(|partition| self.failed.remove(&partition)) {
            return Some(Err(error.into()));
        }
        self.records().map(Ok)
    }

    fn records(&mut self) -> Option<Delivery> {
        let behind = self.buffers.range(self.served.saturating_add(1)..).next();
        let partition = *behind.or_else(|| self.buffers.first_key_value())?.0;
        let buffer = self.buffers.get_mut(&partition)?;
        let (mut entries, mut bytes) = (Vec::with_capacity(buffer.len().min(ReadLimit::BATCH.records)), 0);
        while let Some(entry) = buffer.front() {
            let size = size(entry);
            let full = entries.len() == ReadLimit::BATCH.records || bytes + size > ReadLimit::BATCH.bytes;
            if full && !entries.is_empty() {
                break;
            }
            bytes += size;
            entries.extend(buffer.pop_front());
        }
        if buffer.is_empty() {
            self.buffers.remove(&partition);
        }
        self.records -= entries.len();
        self.bytes -= bytes;
        self.served = partition;
        Some(Delivery::Records { partition, entries })
    }

    pub(super) fn start(&mut self, partition: Partition, from: Offset) -> Result<(), LogError> {
        if !self.told.contains(&partition) {
            return Err(LogError::NotAssigned(partition));
        }
        self.stop(partition);
        // One that the group has taken back meanwhile stays silent; the member is about to hear so.
        if self.given.contains(&partition) && !self.revoked.contains(&partition) {
            self.starts += 1;
            self.wanted.insert(partition, Start { from, number: self.starts });
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, partition: Partition) {
        self.changes += 1;
        self.wanted.remove(&partition);
        self.failed.remove(&partition);
        if let Some(buffer) = self.buffers.remove(&partition) {
            self.records -= buffer.len();
            self.bytes -= buffer.iter().map(size).sum::<usize>();
        }
    }

    pub(super) fn note_progress(&mut self, partition: Partition, next: Offset) {
        if self.told.contains(&partition) {
            self.progress.insert(partition, next);
        }
    }

    // The thread's side.

    pub(super) fn group_gives(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        for partition in partitions {
            self.given.insert(partition);
            self.assigned.insert(partition);
        }
    }

    /// The group takes partitions back. It must hear that they are free: see [`State::freed`].
    pub(super) fn group_takes(&mut self, partitions: BTreeSet<Partition>, until: Instant) {
        for partition in &partitions {
            self.stop(*partition);
            self.progress.remove(partition);
            self.given.remove(partition);
            // What it was never told of, it need not be told the loss of.
            if !self.assigned.remove(partition) || self.told.contains(partition) {
                self.revoked.insert(*partition);
            }
        }
        let leaving = self.leaving.get_or_insert_with(|| Leaving { partitions: BTreeSet::new(), until });
        leaving.partitions.extend(partitions);
    }

    /// What is to be given back now: the member is done with it, or had its time.
    pub(super) fn freed(&mut self, now: Instant) -> Option<BTreeSet<Partition>> {
        let leaving = self.leaving.as_ref()?;
        let busy = |partition| self.revoked.contains(partition) || self.finishing.contains(partition);
        if now < leaving.until && leaving.partitions.iter().any(busy) {
            return None;
        }
        self.leaving.take().map(|leaving| leaving.partitions)
    }

    /// What the member wants delivered, if that changed since `seen`.
    pub(super) fn wanted(&self, seen: &mut u64) -> Option<BTreeMap<Partition, Start>> {
        (std::mem::replace(seen, self.changes) != self.changes).then(|| self.wanted.clone())
    }

    pub(super) fn has_room(&self) -> bool {
        self.records < BUFFER_RECORDS && self.bytes < BUFFER_BYTES
    }

    /// A record that was fetched for that start. Whether it is still wanted.
    pub(super) fn fetched(&mut self, partition: Partition, start: u64, entry: Entry) -> bool {
        let wanted = self.wanted.get(&partition).is_some_and(|wanted| wanted.number == start);
        if wanted {
            self.records += 1;
            self.bytes += size(&entry);
            self.buffers.entry(partition).or_default().push_back(entry);
        }
        wanted
    }

    /// A partition cannot be read on for that start.
    pub(super) fn fail(&mut self, partition: Partition, start: u64, error: ReadError) {
        if self.wanted.get(&partition).is_some_and(|wanted| wanted.number == start) {
            self.changes += 1;
            self.wanted.remove(&partition);
            self.failed.insert(partition, error);
        }
    }

    pub(super) fn take_progress(&mut self) -> BTreeMap<Partition, Offset> {
        std::mem::take(&mut self.progress)
    }
}

fn size(entry: &Entry) -> usize {
    entry.key.len() + entry.payload.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn set(partitions: &[Partition]) -> BTreeSet<Partition> {
        partitions.iter().copied().collect()
    }

    fn entry(offset: Offset) -> Entry {
        Entry { offset, key: Bytes::new(), payload: Bytes::from_static(b"record") }
    }

    /// A member that was told of these partitions and started them.
    fn member(partitions: &[Partition]) -> State {
        let mut state = State::default();
        state.group_gives(partitions.iter().copied());
        assert_eq!(state.next(), Some(Ok(Delivery::Assigned(partitions.to_vec()))));
        for partition in partitions {
            state.start(*partition, 0).unwrap();
        }
        state
    }

    fn number(state: &State, partition: Partition) -> u64 {
        state.wanted[&partition].number
    }

    #[test]
    fn what_the_group_takes_is_given_back_when_the_member_asks_again() {
        let (mut state, now) = (member(&[0, 1]), Instant::now());
        let start = number(&state, 0);
        assert!(state.fetched(0, start, entry(0)));
        state.group_takes(set(&[0]), now + Duration::from_secs(5));
        assert_eq!(state.freed(now), None, "it does not know yet");
        state.ask();
        assert_eq!(state.next(), Some(Ok(Delivery::Revoked(vec![0]))), "and nothing of its records");
        assert_eq!(state.freed(now), None, "it is busy with it");
        assert!(!state.fetched(0, start, entry(1)));
        assert!(state.ask());
        assert_eq!(state.freed(now), Some(set(&[0])));
        assert_eq!(state.freed(now), None, "once");
        assert_eq!(state.next(), None);
        assert_eq!(state.start(0, 0), Err(LogError::NotAssigned(0)));
    }

    #[test]
    fn a_member_that_does_not_ask_loses_its_partition_and_hears_so_even_if_it_is_its_own_again() {
        let (mut state, now) = (member(&[0]), Instant::now());
        let until = now + Duration::from_secs(5);
        state.group_takes(set(&[0]), until);
        assert_eq!(state.freed(until), Some(set(&[0])));
        state.group_gives([0]);
        state.start(0, 7).unwrap();
        assert!(state.wanted.is_empty(), "what it had is gone, whatever it believes");
        assert_eq!(state.next(), Some(Ok(Delivery::Revoked(vec![0]))));
        assert_eq!(state.next(), Some(Ok(Delivery::Assigned(vec![0]))));
        state.start(0, 7).unwrap();
        assert_eq!(state.wanted[&0].from, 7);
    }

    #[test]
    fn what_comes_and_goes_before_the_member_asks_was_never_there() {
        let (mut state, now) = (State::default(), Instant::now());
        state.group_gives([3]);
        state.group_takes(set(&[3]), now + Duration::from_secs(5));
        assert_eq!(state.freed(now), Some(set(&[3])), "there is nobody to wait for");
        assert_eq!(state.next(), None);
        state.group_takes(BTreeSet::new(), now + Duration::from_secs(5));
        assert_eq!(state.freed(now), Some(BTreeSet::new()), "an empty change is answered as well");
    }

    #[test]
    fn records_of_an_earlier_start_do_not_count() {
        let mut state = member(&[0]);
        let first = number(&state, 0);
        assert!(state.fetched(0, first, entry(0)));
        state.start(0, 5).unwrap();
        assert!(!state.fetched(0, first, entry(1)));
        assert_eq!(state.next(), None, "what was buffered is gone as well");
        let second = number(&state, 0);
        assert!(state.fetched(0, second, entry(5)));
        let records = Delivery::Records { partition: 0, entries: vec![entry(5)] };
        assert_eq!(state.next(), Some(Ok(records)));
        assert_eq!((state.records, state.bytes), (0, 0));
    }

    #[test]
    fn a_failure_comes_behind_what_was_fetched_before_it_and_stops_one_partition() {
        let mut state = member(&[0, 1]);
        let start = number(&state, 0);
        state.fetched(0, start, entry(0));
        let damage = ReadError::Corrupt { partition: 0, what: "a hole".to_owned() };
        state.fail(0, start, damage.clone());
        assert!(matches!(state.next(), Some(Ok(Delivery::Records { partition: 0, .. }))));
        assert_eq!(state.next(), Some(Err(LogError::Read(damage))));
        assert_eq!(state.next(), None);
        assert!(state.wanted.contains_key(&1) && !state.wanted.contains_key(&0));
        state.start(0, 0).unwrap();
        assert!(state.wanted.contains_key(&0));
    }

    #[test]
    fn a_busy_partition_does_not_starve_the_others_and_a_batch_has_a_bound() {
        let mut state = member(&[0, 1, 2]);
        let mut offset = 0;
        while state.has_room() {
            state.fetched(0, number(&state, 0), entry(offset));
            offset += 1;
        }
        assert_eq!(offset, BUFFER_RECORDS as u64);
        for partition in [1, 2] {
            state.fetched(partition, number(&state, partition), entry(0));
        }
        let mut served = Vec::new();
        while let Some(Ok(Delivery::Records { partition, entries })) = state.next() {
            assert!(entries.len() <= ReadLimit::BATCH.records);
            served.push(partition);
        }
        assert_eq!(served, [1, 2, 0, 0, 0, 0]);
        assert!(state.has_room() && state.records == 0 && state.bytes == 0);
    }
}
