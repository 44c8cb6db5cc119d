//! Which node owns which partition: from the ring, capped, and moving as little as possible. Pure.
//!
//! Made from nothing it depends on the set of nodes alone, so that a dispatcher that starts anew finds the table that most
//! nodes still have.

use std::collections::{HashMap, HashSet};

use common::{
    ids::{NodeId, Partition},
    partition::stable_hash,
    ring::Ring,
};

/// The most partitions that one of `nodes` owns: 1.25 × the mean, rounded up.
pub fn cap(partitions: Partition, nodes: usize) -> usize {
    (5 * usize::from(partitions)).div_ceil(4 * nodes.max(1))
}

/// The owners of `partitions`, given who owned them `before` (empty: nobody). All none when the ring is empty.
///
/// A partition moves when its owner is gone, when its place on the ring belongs to a node that owned nothing before, or when its owner has
/// more than [`cap`]; then guests go first, partitions whose place is another's.
pub fn assign(ring: &Ring, partitions: Partition, before: &[Option<NodeId>]) -> Vec<Option<NodeId>> {
    let cap = cap(partitions, ring.nodes().len());
    let owned: HashSet<&NodeId> = before.iter().flatten().collect();
    let mut table = Table { owners: Vec::with_capacity(partitions.into()), counts: HashMap::new(), cap };

    for partition in 0..partitions {
        let owner = before.get(usize::from(partition)).and_then(Option::as_ref);
        let owner = owner.filter(|owner| ring.nodes().binary_search(owner).is_ok());
        let home = ring.home(place(partition));
        let newcomer = home.filter(|home| !owned.contains(home) && table.has_room(home));
        table.push(newcomer.or(owner));
    }
    table.shed(ring);
    for partition in 0..partitions {
        if table.owner(partition).is_none() {
            // The caps add up to more than there are partitions, so there is always room somewhere.
            let free = ring.from(place(partition)).find(|node| table.has_room(node));
            table.set(partition, free);
        }
    }
    table.owners.into_iter().map(|owner| owner.cloned()).collect()
}

/// Where a partition stands on the ring.
fn place(partition: Partition) -> u64 {
    stable_hash(&[b"partition", &partition.to_be_bytes()])
}

struct Table<'a> {
    owners: Vec<Option<&'a NodeId>>,
    counts: HashMap<&'a NodeId, usize>,
    cap: usize,
}

impl<'a> Table<'a> {
    fn has_room(&self, node: &NodeId) -> bool {
        self.counts.get(node).is_none_or(|count| *count < self.cap)
    }

    fn owner(&self, partition: Partition) -> Option<&'a NodeId> {
        self.owners.get(usize::from(partition)).copied().flatten()
    }

    fn push(&mut self, owner: Option<&'a NodeId>) {
        self.owners.push(None);
        let last = self.owners.len().saturating_sub(1);
        self.set(last as Partition, owner);
    }

    fn set(&mut self, partition: Partition, owner: Option<&'a NodeId>) {
        let Some(slot) = self.owners.get_mut(usize::from(partition)) else { return };
        if let Some(count) = slot.and_then(|before| self.counts.get_mut(before)) {
            *count -= 1;
        }
        *slot = owner;
        if let Some(owner) = owner {
            *self.counts.entry(owner).or_default() += 1;
        }
    }

    /// Takes from every node what it has above the cap.
    fn shed(&mut self, ring: &Ring) {
        for guests in [true, false] {
            for partition in (0..self.owners.len() as Partition).rev() {
                let Some(owner) = self.owner(partition) else { continue };
                let over = self.counts.get(owner).is_some_and(|count| *count > self.cap);
                if over && (!guests || ring.home(place(partition)) != Some(owner)) {
                    self.set(partition, None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owners = Vec<Option<NodeId>>;

    fn ring(names: impl IntoIterator<Item = usize>) -> Ring {
        Ring::new(names.into_iter().map(|name| NodeId::new(&format!("node-{name}")).unwrap()))
    }

    fn counts(owners: &Owners) -> HashMap<&NodeId, usize> {
        let mut counts = HashMap::new();
        for owner in owners.iter().flatten() {
            *counts.entry(owner).or_default() += 1;
        }
        counts
    }

    fn moved(before: &Owners, after: &Owners) -> usize {
        before.iter().zip(after).filter(|(before, after)| before != after).count()
    }

    fn check(owners: &Owners, ring: &Ring, partitions: Partition) {
        assert_eq!(owners.len(), usize::from(partitions));
        assert!(owners.iter().flatten().all(|owner| ring.nodes().contains(owner)));
        assert_eq!(owners.iter().flatten().count(), if ring.is_empty() { 0 } else { owners.len() });
        let cap = cap(partitions, ring.nodes().len());
        assert!(counts(owners).values().all(|count| *count <= cap), "{owners:?}");
    }

    #[test]
    fn the_table_of_three_nodes_is_the_same_for_ever() {
        let owners = assign(&ring(1..=3), 16, &[]);
        let digits: String =
            owners.iter().flatten().filter_map(|owner| owner.as_str().chars().last()).collect();
        assert_eq!(digits, "2111222112321233");
    }

    #[test]
    fn the_cap_is_a_quarter_above_the_mean() {
        assert_eq!([cap(16, 1), cap(16, 3), cap(64, 4), cap(64, 64), cap(16, 100)], [20, 7, 20, 2, 1]);
    }

    #[test]
    fn nobody_owns_anything_without_nodes_and_one_owns_all() {
        assert_eq!(assign(&ring([]), 4, &[]), vec![None; 4]);
        let all = assign(&ring([1]), 4, &vec![None; 4]);
        assert_eq!(all, vec![Some(NodeId::new("node-1").unwrap()); 4]);
        assert_eq!(assign(&ring([]), 4, &all), vec![None; 4]);
    }

    #[test]
    fn what_does_not_change_moves_nothing() {
        let ring = ring(1..=5);
        let owners = assign(&ring, 64, &[]);
        assert_eq!(assign(&ring, 64, &owners), owners);
    }

    proptest! {
        #[test]
        fn a_leaver_moves_its_own_partitions_and_no_others(count in 2_usize..12, leaver in 1_usize..12, partitions in 1_u16..129) {
            let leaver = leaver.min(count);
            let before = assign(&ring(1..=count), partitions, &[]);
            let rest = ring((1..=count).filter(|name| *name != leaver));
            let after = assign(&rest, partitions, &before);
            check(&after, &rest, partitions);
            let gone = NodeId::new(&format!("node-{leaver}")).unwrap();
            let had = before.iter().flatten().filter(|owner| **owner == gone).count();
            prop_assert_eq!(moved(&before, &after), had);
        }

        #[test]
        fn a_newcomer_takes_its_share_and_others_give_up_only_what_is_above_the_cap(count in 1_usize..12, partitions in 1_u16..129) {
            let before = assign(&ring(1..=count), partitions, &[]);
            let all = ring(1..=count + 1);
            let after = assign(&all, partitions, &before);
            check(&after, &all, partitions);
            let newcomer = NodeId::new(&format!("node-{}", count + 1)).unwrap();
            let cap = cap(partitions, count + 1);
            // What has to move because of the cap, once the newcomer has what is its own.
            let taken = before.iter().zip(&after).filter(|(_, after)| **after == Some(newcomer.clone())).count();
            let excess: usize = counts(&before).values().map(|count| count.saturating_sub(cap)).sum();
            prop_assert!(moved(&before, &after) <= taken + excess);
            prop_assert!(taken <= cap);
        }

        #[test]
        fn whatever_happens_every_partition_has_one_owner_within_the_cap(
            sets in proptest::collection::vec(proptest::collection::btree_set(1_usize..10, 0..8), 1..12),
            partitions in 1_u16..129,
        ) {
            let mut owners = Vec::new();
            for set in sets {
                let ring = ring(set);
                owners = assign(&ring, partitions, &owners);
                check(&owners, &ring, partitions);
            }
        }
    }
}
