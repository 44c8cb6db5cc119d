//! Which nodes there are: their registrations and leases. Pure: it is told the time and holds no connection.
//!
//! A lease, and not the state of a link, says that a node lives: both ends of a cut link disagree about it for seconds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use common::ids::{Incarnation, NodeId};

/// What a node says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where clients open sockets: `ws://host:port` or `wss://…`, without a path.
    pub socket_url: String,
    /// Where the gateway sends REST requests: `http://host:port`.
    pub http_url: String,
    /// How many sockets it takes.
    pub capacity: u32,
}

/// A node that holds a lease.
#[derive(Clone, Debug)]
pub struct Member {
    /// As it registered.
    pub registration: Registration,
    /// When the lease was last renewed.
    pub renewed: Instant,
    /// It is about to stop: it is to have no users and no partitions any more.
    pub leaving: bool,
}

/// What a registration changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The node was not there.
    Joined,
    /// Another life of it was there, and has ended.
    Replaced,
    /// The same life was there: it starts its link afresh.
    Again,
}

/// The nodes that hold a lease.
#[derive(Debug)]
pub struct Members {
    lease: Duration,
    members: BTreeMap<NodeId, Member>,
}

impl Members {
    /// Nobody yet. A lease holds for `lease` after each renewal.
    pub fn new(lease: Duration) -> Self {
        Self { lease, members: BTreeMap::new() }
    }

    /// Takes a node in, with a new lease. Of two lives of one name the one that registers last stands.
    pub fn register(&mut self, id: NodeId, registration: Registration, now: Instant) -> Registered {
        let incarnation = registration.incarnation;
        let same = |member: &Member| member.registration.incarnation == incarnation;
        let leaving = self.members.get(&id).is_some_and(|before| before.leaving && same(before));
        match self.members.insert(id, Member { registration, renewed: now, leaving }) {
            None => Registered::Joined,
            Some(before) if before.registration.incarnation != incarnation => Registered::Replaced,
            Some(_) => Registered::Again,
        }
    }

    /// Renews a lease. False when this life of the node holds none (any more): it must register again.
    pub fn renew(&mut self, id: &NodeId, incarnation: Incarnation, now: Instant) -> bool {
        let lease = self.lease;
        match self.members.get_mut(id) {
            Some(member) if member.registration.incarnation == incarnation && !over(member, lease, now) => {
                member.renewed = now;
                true
            }
            _ => false,
        }
    }

    /// A node says that it is about to stop. False when this life of it was not there, or has said so before.
    pub fn leaving(&mut self, id: &NodeId, incarnation: Incarnation) -> bool {
        let member = self.members.get_mut(id).filter(|member| member.registration.incarnation == incarnation);
        member.is_some_and(|member| !std::mem::replace(&mut member.leaving, true))
    }

    /// Takes a node out that says it stops. False when this life of it was not there.
    pub fn leave(&mut self, id: &NodeId, incarnation: Incarnation) -> bool {
        let there = self.members.get(id).is_some_and(|member| member.registration.incarnation == incarnation);
        there && self.members.remove(id).is_some()
    }

    /// Takes out whose lease is over, and says who.
    pub fn expire(&mut self, now: Instant) -> Vec<NodeId> {
        let lease = self.lease;
        self.members.extract_if(.., |_, member| over(member, lease, now)).map(|(id, _)| id).collect()
    }

    /// Renews all leases: when whoever calls [`Self::expire`] could not look for a while, and so could not hear heartbeats either.
    pub fn forgive(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.renewed = now;
        }
    }

    /// This node, if it holds a lease.
    pub fn get(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id)
    }

    /// Those that stay, in order of their names.
    pub fn staying(&self) -> impl Iterator<Item = &NodeId> {
        self.members.iter().filter(|(_, member)| !member.leaving).map(|(id, _)| id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

fn over(member: &Member, lease: Duration, now: Instant) -> bool {
    now.saturating_duration_since(member.renewed) >= lease
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn life(number: u64) -> Registration {
        Registration {
            incarnation: Incarnation(number),
            socket_url: "ws://127.0.0.1:1".into(),
            http_url: "http://127.0.0.1:2".into(),
            capacity: 10,
        }
    }

    #[test]
    fn a_node_is_there_until_its_lease_is_over() {
        let start = Instant::now();
        let mut members = Members::new(LEASE);
        assert_eq!(members.register(node("a"), life(1), start), Registered::Joined);
        assert!(members.renew(&node("a"), Incarnation(1), start + Duration::from_secs(2)));
        assert_eq!(members.expire(start + Duration::from_secs(4)), []);
        assert_eq!(members.expire(start + Duration::from_secs(5)), [node("a")]);
        assert!(members.is_empty());
        assert!(!members.renew(&node("a"), Incarnation(1), start + Duration::from_secs(5)));
    }

    #[test]
    fn a_heartbeat_after_the_end_of_the_lease_does_not_revive_it() {
        let start = Instant::now();
        let mut members = Members::new(LEASE);
        members.register(node("a"), life(1), start);
        assert!(!members.renew(&node("a"), Incarnation(1), start + LEASE));
        assert_eq!(members.expire(start + LEASE), [node("a")]);
    }

    #[test]
    fn a_new_life_replaces_the_old_one_whose_words_count_no_more() {
        let start = Instant::now();
        let mut members = Members::new(LEASE);
        members.register(node("a"), life(1), start);
        assert_eq!(members.register(node("a"), life(1), start), Registered::Again);
        assert_eq!(members.register(node("a"), life(2), start), Registered::Replaced);
        assert!(!members.renew(&node("a"), Incarnation(1), start));
        assert!(!members.leave(&node("a"), Incarnation(1)));
        assert!(members.renew(&node("a"), Incarnation(2), start));
        assert!(members.leave(&node("a"), Incarnation(2)));
        assert!(members.is_empty());
    }

    #[test]
    fn a_node_that_is_about_to_stop_keeps_its_lease_and_stays_so_until_another_life_of_it() {
        let start = Instant::now();
        let mut members = Members::new(LEASE);
        members.register(node("a"), life(1), start);
        assert!(!members.leaving(&node("a"), Incarnation(2)));
        assert_eq!(members.staying().count(), 1);
        assert!(members.leaving(&node("a"), Incarnation(1)));
        assert!(!members.leaving(&node("a"), Incarnation(1)), "said already");
        // Its link breaks meanwhile.
        assert_eq!(members.register(node("a"), life(1), start), Registered::Again);
        assert_eq!((members.staying().count(), members.len()), (0, 1));
        assert!(members.renew(&node("a"), Incarnation(1), start));
        assert_eq!(members.register(node("a"), life(2), start), Registered::Replaced);
        assert_eq!(members.staying().count(), 1);
    }

    #[test]
    fn leases_are_renewed_when_nobody_could_look() {
        let start = Instant::now();
        let mut members = Members::new(LEASE);
        members.register(node("a"), life(1), start);
        members.forgive(start + Duration::from_secs(60));
        assert_eq!(members.expire(start + Duration::from_secs(61)), []);
        assert_eq!(members.len(), 1);
    }
}
