//! Who serves whom: consistent hashing of stable hashes over the names of nodes (the one place that names hashring).
//!
//! Pure and the same in every process and version: a point is [`stable_hash`] of the node's name and the virtual node's number, a user
//! stands at [`crate::ids::UserKey::hash64`]. Joining and leaving moves the users of one node's points and nobody else (LO-2); a full
//! node is passed over, and its overflow goes to the next on the ring (LO-3). Loads are the caller's to know.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
};

use hashring::HashRing;

use crate::{ids::NodeId, partition::stable_hash};

/// Points of each node: with 256 a node's share is within about 6 % of the mean (standard deviation 1/√256).
pub const VIRTUAL_NODES: u32 = 256;

/// The ring of a set of nodes.
#[derive(Clone)]
pub struct Ring {
    points: HashRing<Point, AsItIs>,
    nodes: Vec<NodeId>,
}

/// A virtual node: where it stands, and whose it is (by place in `Ring::nodes`).
#[derive(Clone, Copy, Debug)]
struct Point {
    at: u64,
    node: usize,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.at);
    }
}

/// A place on the ring that somebody is looked for.
struct Place(u64);

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Hands on the hash it is given: hashring's own (SipHash with fixed keys) is its to change.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl BuildHasher for AsItIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = stable_hash(&[bytes]);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ring").field(&self.nodes).finish()
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new([])
    }
}

impl Ring {
    /// The ring of these nodes, in whatever order and however often they are named.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort();
        nodes.dedup();
        let of = |(node, name): (usize, &NodeId)| {
            let name = name.as_str().as_bytes().to_vec();
            // No name holds 0xff, so no two pairs of name and number have the same bytes.
            (0..VIRTUAL_NODES)
                .map(move |number| Point { at: stable_hash(&[&name, &[0xff], &number.to_be_bytes()]), node })
        };
        let mut points = HashRing::with_hasher(AsItIs::default());
        points.batch_add(nodes.iter().enumerate().flat_map(of).collect());
        Self { points, nodes }
    }

    /// Its nodes, in order of their names.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Whether nobody is on it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whose place `hash` is, full or not.
    pub fn home(&self, hash: u64) -> Option<&NodeId> {
        self.point(hash).and_then(|point| self.nodes.get(point.node))
    }

    /// Who serves `hash`: the first from its place on that is not full. None when all are, or nobody is there.
    pub fn place(&self, hash: u64, mut full: impl FnMut(&NodeId) -> bool) -> Option<&NodeId> {
        self.from(hash).find(|node| !full(node))
    }

    /// Every node once, in the order of their first points from `hash` on.
    pub fn from(&self, hash: u64) -> impl Iterator<Item = &NodeId> {
        let mut seen = vec![false; self.nodes.len()];
        let mut left = self.nodes.len();
        // Once around at most.
        let mut steps = self.points.len();
        let mut at = hash;
        std::iter::from_fn(move || {
            while left > 0 && steps > 0 {
                steps -= 1;
                let point = self.point(at)?;
                at = point.at.wrapping_add(1);
                if let (Some(seen), Some(node)) = (seen.get_mut(point.node), self.nodes.get(point.node))
                    && !std::mem::replace(seen, true)
                {
                    left -= 1;
                    return Some(node);
                }
            }
            None
        })
    }

    /// The first point at `hash` or after it, around the end.
    fn point(&self, hash: u64) -> Option<Point> {
        self.points.get(&Place(hash)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const USERS: u64 = 4_000;

    fn name(number: usize) -> NodeId {
        NodeId::new(&format!("node-{number}")).unwrap()
    }

    fn ring(count: usize) -> Ring {
        Ring::new((1..=count).map(name))
    }

    fn user(number: u64) -> u64 {
        stable_hash(&[&number.to_be_bytes()])
    }

    fn homes(ring: &Ring) -> Vec<&NodeId> {
        (0..USERS).map(|number| ring.home(user(number)).unwrap()).collect()
    }

    #[test]
    fn places_are_the_same_for_ever() {
        let ring = ring(5);
        let homes: Vec<&str> = homes(&ring).into_iter().take(8).map(NodeId::as_str).collect();
        assert_eq!(homes, GOLDEN);
        let order: Vec<&str> = ring.from(user(1)).map(NodeId::as_str).collect();
        assert_eq!(order, GOLDEN_ORDER);
    }

    const GOLDEN: [&str; 8] =
        ["node-3", "node-1", "node-4", "node-1", "node-2", "node-5", "node-1", "node-1"];
    const GOLDEN_ORDER: [&str; 5] = ["node-1", "node-3", "node-5", "node-2", "node-4"];

    #[test]
    fn the_order_in_which_nodes_are_named_does_not_matter() {
        let backwards = Ring::new((1..=5).rev().chain(1..=3).map(name));
        assert_eq!(backwards.nodes(), ring(5).nodes());
        assert_eq!(homes(&backwards), homes(&ring(5)));
    }

    #[test]
    fn nobody_is_placed_on_an_empty_ring() {
        let ring = Ring::default();
        assert!(ring.is_empty());
        assert_eq!(ring.home(1), None);
        assert_eq!(ring.place(1, |_| false), None);
        assert_eq!(ring.from(u64::MAX).count(), 0);
    }

    #[test]
    fn users_spread_within_reason() {
        for count in [2, 3, 10, 30] {
            let ring = ring(count);
            let mut shares: HashMap<&NodeId, u64> = HashMap::new();
            for home in homes(&ring) {
                *shares.entry(home).or_default() += 1;
            }
            let mean = USERS / count as u64;
            assert_eq!(shares.len(), count);
            assert!(
                shares.values().all(|share| *share > mean / 2 && *share < mean * 3 / 2),
                "{count}: {shares:?}"
            );
        }
    }

    #[test]
    fn the_overflow_of_a_full_node_goes_to_the_next_and_nobody_else_moves() {
        let ring = ring(5);
        let full = name(3);
        for number in 0..USERS {
            let (home, order) =
                (ring.home(user(number)).unwrap(), ring.from(user(number)).collect::<Vec<_>>());
            let placed = ring.place(user(number), |node| *node == full).unwrap();
            assert_eq!(order.len(), 5);
            assert_eq!(order[0], home);
            assert_eq!(placed, if *home == full { order[1] } else { home });
        }
        assert_eq!(ring.place(7, |_| true), None, "all are full");
    }

    proptest! {
        // Each case makes two rings and looks up thousands of users.
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// LO-2, for whoever joins or leaves whichever set of nodes.
        #[test]
        fn a_change_of_one_node_moves_its_users_and_no_others(
            names in proptest::collection::btree_set("[a-z]{1,8}", 2..24),
            one in any::<prop::sample::Index>(),
        ) {
            let all: Vec<NodeId> = names.iter().map(|name| NodeId::new(name).unwrap()).collect();
            let one = one.get(&all).clone();
            let with = Ring::new(all.iter().cloned());
            let without = Ring::new(all.iter().filter(|node| **node != one).cloned());
            let mut moved = 0;
            for (before, after) in homes(&with).into_iter().zip(homes(&without)) {
                if before != after {
                    prop_assert_eq!(before, &one, "nobody moves between two that both stay");
                    moved += 1;
                }
            }
            // Twice 1/N, and never none.
            prop_assert!(moved > 0);
            prop_assert!(moved * all.len() as u64 <= 2 * USERS, "{} of {} moved among {}", moved, USERS, all.len());
        }

        #[test]
        fn from_any_place_every_node_comes_once(hash: u64, count in 1_usize..12) {
            let ring = ring(count);
            let mut order: Vec<NodeId> = ring.from(hash).cloned().collect();
            prop_assert_eq!(order.first(), ring.home(hash));
            order.sort();
            prop_assert_eq!(order.as_slice(), ring.nodes());
        }
    }
}
