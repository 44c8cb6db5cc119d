//! Tails: one run without a hole per chat, and all of them within a number of bytes.

use std::{collections::VecDeque, sync::Arc};

use moka::{policy::EvictionPolicy, sync::Cache};
use parking_lot::Mutex;

use crate::{
    cache::{TAIL_BYTES, TAIL_ENTRIES, Tail, TailEntry},
    ids::{ChatKey, Offset, Seq},
};

/// What a chat costs beside its changes: its key and places in the maps.
const RUN_OVERHEAD: usize = 256;

/// What a change costs beside its bytes: its place in the run, and the head of its allocation.
const ENTRY_OVERHEAD: usize = 64;

#[derive(Debug)]
pub(super) struct Tails(Cache<ChatKey, Arc<Mutex<Run>>>);

impl Tails {
    pub(super) fn new(bytes: u64) -> Self {
        let weight =
            |_: &ChatKey, run: &Arc<Mutex<Run>>| u32::try_from(run.lock().weight()).unwrap_or(u32::MAX);
        // The chat that moved last is the one that will be asked for: the newest stay, not the most frequent.
        Self(
            Cache::builder()
                .max_capacity(bytes)
                .weigher(weight)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        )
    }

    pub(super) fn append(&self, chat: ChatKey, entries: Vec<TailEntry>) {
        if entries.is_empty() {
            return;
        }
        let run = self.0.get_with(chat, Arc::default);
        run.lock().append(entries);
        // Put again, to be weighed again. If another run took its place meanwhile, this one replaces it: one of the two is
        // lost, and what is left has no hole.
        self.0.insert(chat, run);
    }

    pub(super) fn after(&self, chat: ChatKey, after: Seq) -> Tail {
        self.0.get(&chat).map_or(Tail::Missing, |run| run.lock().after(after))
    }

    pub(super) fn from(&self, chat: ChatKey, offset: Offset) -> Tail {
        self.0.get(&chat).map_or(Tail::Missing, |run| run.lock().from(offset))
    }

    pub(super) fn clear(&self) {
        self.0.invalidate_all();
    }
}

/// Changes with contiguous `seq`s.
#[derive(Debug, Default)]
struct Run {
    entries: VecDeque<TailEntry>,
    bytes: usize,
}

impl Run {
    fn append(&mut self, mut entries: Vec<TailEntry>) {
        entries.sort_by_key(|entry| entry.seq);
        self.put_in_front(&entries);
        for entry in entries {
            match self.entries.back().map(|last| last.seq) {
                Some(last) if entry.seq <= last => continue,
                Some(last) if entry.seq - last > 1 => {
                    self.entries.clear();
                    self.bytes = 0;
                }
                _ => {}
            }
            self.bytes += entry.bytes.len();
            self.entries.push_back(entry);
        }
        while self.entries.len() > TAIL_ENTRIES || self.bytes > TAIL_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes.len();
        }
    }

    /// Adds what ends right before the run, as far back as there is room.
    fn put_in_front(&mut self, sorted: &[TailEntry]) {
        for entry in sorted.iter().rev() {
            let Some(first) = self.entries.front().map(|first| first.seq) else { return };
            if entry.seq >= first {
                continue;
            }
            let room = self.entries.len() < TAIL_ENTRIES && self.bytes + entry.bytes.len() <= TAIL_BYTES;
            if first - entry.seq > 1 || !room {
                return;
            }
            self.bytes += entry.bytes.len();
            self.entries.push_front(entry.clone());
        }
    }

    fn after(&self, after: Seq) -> Tail {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return Tail::Missing;
        };
        if after > last.seq || after.saturating_add(1) < first.seq {
            return Tail::Missing;
        }
        Tail::Run(self.entries.iter().skip_while(|entry| entry.seq <= after).cloned().collect())
    }

    fn from(&self, offset: Offset) -> Tail {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return Tail::Missing;
        };
        if last.offset < offset || (first.offset > offset && first.seq > 1) {
            return Tail::Missing;
        }
        Tail::Run(self.entries.iter().skip_while(|entry| entry.offset < offset).cloned().collect())
    }

    fn weight(&self) -> usize {
        RUN_OVERHEAD + self.bytes + self.entries.len() * ENTRY_OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ids::{AppId, ChatId};

    fn entry(seq: Seq) -> TailEntry {
        // Sizes differ, so that both bounds are met.
        TailEntry {
            seq,
            offset: seq,
            bytes: vec![u8::try_from(seq % 251).unwrap(); usize::try_from(seq * 37 % 9000).unwrap()].into(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_appended_a_run_has_no_hole_and_keeps_its_bounds(
            appends in proptest::collection::vec((0_u64..700, 1_u64..90, any::<bool>()), 1..40),
        ) {
            let mut run = Run::default();
            let mut newest = 0;
            for (from, count, shuffled) in appends {
                let mut entries: Vec<TailEntry> = (from..from + count).map(entry).collect();
                if shuffled {
                    entries.reverse();
                    entries.extend((from..from + count / 2).map(entry));
                }
                run.append(entries);
                newest = newest.max(from + count - 1);
                let seqs: Vec<Seq> = run.entries.iter().map(|entry| entry.seq).collect();
                prop_assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?}");
                prop_assert_eq!(seqs.last(), Some(&newest), "it always ends with the newest");
                prop_assert!(run.entries.iter().all(|known| *known == entry(known.seq)));
                prop_assert!(run.entries.len() <= TAIL_ENTRIES && run.bytes <= TAIL_BYTES);
                prop_assert_eq!(run.bytes, run.entries.iter().map(|entry| entry.bytes.len()).sum::<usize>());
                for after in seqs[0].saturating_sub(2)..newest + 2 {
                    let expected = if after > newest || after + 1 < seqs[0] {
                        Tail::Missing
                    } else {
                        Tail::Run((after.max(seqs[0].saturating_sub(1)) + 1..=newest).map(entry)
                            .filter(|entry| entry.seq >= seqs[0]).collect())
                    };
                    if after > 0 || seqs[0] > 0 {
                        prop_assert_eq!(run.after(after), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn a_change_that_is_larger_than_a_tail_leaves_none() {
        let mut run = Run::default();
        run.append(vec![entry(1), TailEntry { seq: 2, offset: 2, bytes: vec![0; TAIL_BYTES + 1].into() }]);
        assert_eq!(run.after(1), Tail::Missing);
        run.append(vec![entry(3)]);
        assert_eq!(run.after(2), Tail::Run(vec![entry(3)]));
    }

    #[test]
    fn the_largest_seq_there_is_does_no_harm() {
        let mut run = Run::default();
        let last = TailEntry { seq: Seq::MAX, offset: Seq::MAX, bytes: vec![1].into() };
        run.append(vec![last.clone()]);
        assert_eq!(run.after(Seq::MAX - 1), Tail::Run(vec![last]));
        assert_eq!(run.after(Seq::MAX), Tail::Run(Vec::new()));
        run.append(vec![entry(0), entry(1)]);
        assert_eq!(run.after(0), Tail::Missing);
    }

    #[test]
    fn all_tails_together_stay_within_their_bytes_and_the_newest_stay() {
        let tails = Tails::new(1024 * 1024);
        let chat = |number: u128| ChatKey { app: AppId::DEFAULT, chat: ChatId(Uuid::from_u128(number)) };
        let kib = |seq| TailEntry { seq, offset: seq, bytes: vec![0; 1024].into() };
        for number in 0..200 {
            for seq in 1..=50 {
                tails.append(chat(number), vec![kib(seq)]);
            }
        }
        tails.0.run_pending_tasks();
        let held = tails.0.weighted_size();
        assert!((512 * 1024..=1024 * 1024).contains(&held), "{held} bytes");
        assert_eq!(tails.after(chat(0), 0), Tail::Missing);
        assert!(matches!(tails.after(chat(199), 0), Tail::Run(run) if run.len() == 50));
    }
}
