//! Who may still serve a partition, so that nobody else is named for it before that is over. Pure.
//!
//! The log voids what a second owner decides, but reads do not go through the log: an owner answers them while its lease holds. So a
//! partition moves between two live nodes in two steps. First nobody is named; once the former owner has said that it gave the partition up,
//! or cannot serve it any more, the next one is. What a dead node had moves at once: its lease is over.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use common::ids::{Incarnation, NodeId, Partition};

/// Which nodes may serve which partitions.
#[derive(Debug)]
pub struct Handover {
    lease: Duration,
    holders: BTreeMap<(Partition, NodeId), Holder>,
}

/// A node that is named for a partition, or was.
#[derive(Debug)]
struct Holder {
    incarnation: Incarnation,
    /// Since when it is named no more.
    unnamed: Option<Unnamed>,
}

#[derive(Debug)]
struct Unnamed {
    /// The first placement without it.
    epoch: u64,
    /// When it is waited for no longer.
    until: Instant,
}

impl Handover {
    /// Nobody serves anything. A node that is no longer named is waited for as long as a `lease` at most.
    pub fn new(lease: Duration) -> Self {
        Self { lease, holders: BTreeMap::new() }
    }

    /// This life of a node was named for these partitions, by whomever.
    pub fn named(
        &mut self,
        node: &NodeId,
        incarnation: Incarnation,
        partitions: impl IntoIterator<Item = Partition>,
    ) {
        for partition in partitions {
            self.holders.insert((partition, node.clone()), Holder { incarnation, unnamed: None });
        }
    }

    /// Who was named for each of `partitions`; of several the first by name.
    pub fn holders(&self, partitions: Partition) -> Vec<Option<NodeId>> {
        let holder = |partition| {
            let mut of_it = self.holders.keys().filter(|(of, _)| *of == partition);
            of_it.next().map(|(_, node)| node.clone())
        };
        (0..partitions).map(holder).collect()
    }

    /// Who of `wanted` can be named under `epoch`: whoever is the only one that may serve the partition. `life` is each live node's. The others
    /// are waited for from now on.
    pub fn place(
        &mut self,
        wanted: &[Option<NodeId>],
        epoch: u64,
        now: Instant,
        life: impl Fn(&NodeId) -> Option<Incarnation>,
    ) -> Vec<Option<NodeId>> {
        self.holders.retain(|(_, node), holder| {
            let over = holder.unnamed.as_ref().is_some_and(|unnamed| unnamed.until <= now);
            life(node) == Some(holder.incarnation) && !over
        });
        let mut owners = wanted.to_vec();
        for (partition, node) in self.holders.keys() {
            if let Some(owner) = owners.get_mut(usize::from(*partition))
                && owner.as_ref() != Some(node)
            {
                *owner = None;
            }
        }
        let until = now + self.lease;
        for ((partition, node), holder) in &mut self.holders {
            if owners.get(usize::from(*partition)).is_none_or(|owner| owner.as_ref() != Some(node)) {
                holder.unnamed.get_or_insert(Unnamed { epoch, until });
            }
        }
        for (partition, owner) in (0..).zip(&owners) {
            if let Some((owner, incarnation)) = owner.as_ref().and_then(|owner| Some((owner, life(owner)?))) {
                self.named(owner, incarnation, [partition]);
            }
        }
        owners
    }

    /// This life of a node has given up what the placement of `epoch` does not name it for. Whether anybody can be named now.
    pub fn handed_over(&mut self, node: &NodeId, incarnation: Incarnation, epoch: u64) -> bool {
        let before = self.holders.len();
        self.holders.retain(|(_, holds), holder| {
            let given_up = holder.unnamed.as_ref().is_some_and(|unnamed| unnamed.epoch <= epoch);
            holds != node || holder.incarnation != incarnation || !given_up
        });
        self.holders.len() < before
    }

    /// Another life of a node has begun: it is named for what the one before was, and what that one was to give up is free. Whether anybody can
    /// be named now.
    pub fn replaced(&mut self, node: &NodeId, incarnation: Incarnation) -> bool {
        let before = self.holders.len();
        self.holders.retain(|(_, holds), holder| holds != node || holder.unnamed.is_none());
        for (_, holder) in self.holders.iter_mut().filter(|((_, holds), _)| holds == node) {
            holder.incarnation = incarnation;
        }
        self.holders.len() < before
    }

    /// Whether somebody was waited for long enough.
    pub fn overdue(&self, now: Instant) -> bool {
        let mut unnamed = self.holders.values().filter_map(|holder| holder.unnamed.as_ref());
        unnamed.any(|unnamed| unnamed.until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn table(names: &[&str]) -> Vec<Option<NodeId>> {
        names.iter().map(|name| NodeId::new(name).ok()).collect()
    }

    /// Everybody lives, for the first time.
    fn alive(_: &NodeId) -> Option<Incarnation> {
        Some(Incarnation(1))
    }

    #[test]
    fn what_nobody_served_is_named_at_once_and_what_moves_only_when_it_was_given_up() {
        let now = Instant::now();
        let mut handover = Handover::new(LEASE);
        assert_eq!(handover.place(&table(&["a", "a", "b"]), 1, now, alive), table(&["a", "a", "b"]));
        assert_eq!(handover.place(&table(&["a", "c", "c"]), 2, now, alive), table(&["a", "", ""]));
        assert!(!handover.handed_over(&node("a"), Incarnation(1), 1), "it speaks of a placement before");
        assert!(!handover.handed_over(&node("a"), Incarnation(2), 2), "another life of it speaks");
        assert!(handover.handed_over(&node("a"), Incarnation(1), 2));
        assert_eq!(handover.place(&table(&["a", "c", "c"]), 3, now, alive), table(&["a", "c", ""]));
        assert!(handover.handed_over(&node("b"), Incarnation(1), 2));
        assert_eq!(handover.place(&table(&["a", "c", "c"]), 4, now, alive), table(&["a", "c", "c"]));
        assert!(!handover.handed_over(&node("b"), Incarnation(1), 4), "it had nothing else");
    }

    #[test]
    fn whoever_is_wanted_again_before_it_gave_the_partition_up_keeps_it() {
        let now = Instant::now();
        let mut handover = Handover::new(LEASE);
        handover.place(&table(&["a"]), 1, now, alive);
        assert_eq!(handover.place(&table(&["b"]), 2, now, alive), table(&[""]));
        assert_eq!(handover.place(&table(&["a"]), 3, now, alive), table(&["a"]));
        assert!(!handover.handed_over(&node("a"), Incarnation(1), 2), "it is named again");
        assert_eq!(handover.place(&table(&["b"]), 4, now, alive), table(&[""]));
        assert!(!handover.handed_over(&node("a"), Incarnation(1), 3));
        assert!(!handover.overdue(now));
    }

    #[test]
    fn the_dead_and_the_replaced_are_not_waited_for_and_the_silent_for_a_lease() {
        let now = Instant::now();
        let mut handover = Handover::new(LEASE);
        handover.place(&table(&["a", "b", "c"]), 1, now, alive);
        let life = |id: &NodeId| match id.as_str() {
            "a" => None,
            "b" => Some(Incarnation(2)),
            _ => Some(Incarnation(1)),
        };
        let wanted = table(&["d", "d", "d"]);
        assert_eq!(handover.place(&wanted, 2, now, life), table(&["d", "d", ""]));
        assert!(!handover.overdue(now + LEASE / 2));
        assert_eq!(handover.place(&wanted, 3, now + LEASE / 2, life), table(&["d", "d", ""]));
        assert!(handover.overdue(now + LEASE));
        assert_eq!(handover.place(&wanted, 4, now + LEASE, life), wanted);
        assert!(!handover.overdue(now + LEASE));
    }

    #[test]
    fn a_new_life_of_a_node_holds_what_the_one_before_was_named_for_and_owes_nothing() {
        let now = Instant::now();
        let mut handover = Handover::new(LEASE);
        handover.place(&table(&["a", "a"]), 1, now, alive);
        handover.place(&table(&["a", "b"]), 2, now, alive);
        assert!(handover.replaced(&node("a"), Incarnation(2)));
        let second = |id: &NodeId| Some(Incarnation(if *id == node("a") { 2 } else { 1 }));
        assert_eq!(handover.place(&table(&["a", "b"]), 3, now, second), table(&["a", "b"]));
        assert!(!handover.replaced(&node("a"), Incarnation(2)), "nothing was owed");
        assert_eq!(handover.place(&table(&["b", "b"]), 4, now, second), table(&["", "b"]));
    }

    #[test]
    fn of_two_that_say_they_were_named_neither_is_before_the_other_gave_the_partition_up() {
        let now = Instant::now();
        let mut handover = Handover::new(LEASE);
        handover.named(&node("a"), Incarnation(1), [0]);
        handover.named(&node("b"), Incarnation(1), [0, 1]);
        assert_eq!(handover.holders(3), table(&["a", "b", ""]));
        let wanted = table(&["b", "b", "b"]);
        assert_eq!(handover.place(&wanted, 1, now, alive), table(&["", "b", "b"]));
        assert!(handover.handed_over(&node("a"), Incarnation(1), 1));
        assert!(handover.handed_over(&node("b"), Incarnation(1), 1));
        assert_eq!(handover.place(&wanted, 2, now, alive), wanted);
    }
}
