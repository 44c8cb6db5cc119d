//! Members of reader groups, for engines that keep them in memory: who should have which partition, and who still has it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::{
    Delivery, LogError,
    assign::{Member, rebalance},
};
use crate::ids::Partition;

/// How long a member may keep a partition that should be another's, counted from the change. It is the time for one
/// transaction of the store to end or to fail (5 s), so who is past it has stopped.
const REVOKE_WAIT: Duration = Duration::from_secs(5);

/// Group names come from configuration, one for each kind of reader; more than this is a mistake in a program.
const MAX_GROUPS: usize = 64;

/// One group: pure, `now` is given.
#[derive(Debug)]
struct Group {
    next_member: Member,
    members: BTreeMap<Member, Known>,
    /// By partition: who should have it.
    targets: Vec<Option<Member>>,
    /// By partition: who was told to have it and has not given it back.
    seats: Vec<Seat>,
}

#[derive(Debug, Clone, Default)]
struct Seat {
    holder: Option<Member>,
    /// Since when it should be another's.
    overdue_from: Option<Instant>,
}

/// What a member was told.
#[derive(Debug, Default)]
struct Known {
    held: BTreeSet<Partition>,
    /// Told to be revoked; given back when the member asks again.
    leaving: Vec<Partition>,
}

/// What a member learns when it asks.
#[derive(Debug, Default)]
struct Step {
    delivery: Option<Delivery>,
    /// Others may now be told something.
    moved: bool,
    /// When to ask again even if nothing changes.
    wake: Option<Instant>,
}

impl Group {
    fn new(partitions: Partition) -> Self {
        let count = usize::from(partitions);
        Self {
            next_member: 0,
            members: BTreeMap::new(),
            targets: vec![None; count],
            seats: vec![Seat::default(); count],
        }
    }

    fn join(&mut self, now: Instant) -> Member {
        let member = self.next_member;
        self.next_member += 1;
        self.members.insert(member, Known::default());
        self.rebalance(now);
        member
    }

    fn leave(&mut self, member: Member, now: Instant) {
        self.members.remove(&member);
        for seat in self.seats.iter_mut().filter(|seat| seat.holder == Some(member)) {
            seat.holder = None;
        }
        self.rebalance(now);
    }

    fn rebalance(&mut self, now: Instant) {
        let members: Vec<Member> = self.members.keys().copied().collect();
        rebalance(&mut self.targets, &members);
        for (target, seat) in self.targets.iter().zip(&mut self.seats) {
            let elsewhere = seat.holder.is_some() && seat.holder != *target;
            seat.overdue_from = elsewhere.then(|| seat.overdue_from.unwrap_or(now));
        }
    }

    fn step(&mut self, member: Member, now: Instant) -> Step {
        let mut step = Step::default();
        let Some(known) = self.members.get_mut(&member) else { return step };
        for partition in known.leaving.drain(..) {
            if let Some(seat) = self.seats.get_mut(usize::from(partition))
                && seat.holder == Some(member)
            {
                *seat = Seat::default();
                step.moved = true;
            }
        }
        let mine = |partition: &Partition| {
            let place = usize::from(*partition);
            let holder = self.seats.get(place).and_then(|seat| seat.holder);
            holder == Some(member) && self.targets.get(place).copied().flatten() == Some(member)
        };
        let revoked: Vec<Partition> =
            known.held.iter().copied().filter(|partition| !mine(partition)).collect();
        if !revoked.is_empty() {
            known.held.retain(|partition| !revoked.contains(partition));
            known.leaving.clone_from(&revoked);
            step.delivery = Some(Delivery::Revoked(revoked));
            return step;
        }
        let mut assigned = Vec::new();
        for ((partition, target), seat) in (0..).zip(&self.targets).zip(&mut self.seats) {
            if *target != Some(member) || seat.holder == Some(member) {
                continue;
            }
            let free_at = seat.overdue_from.filter(|_| seat.holder.is_some()).map(|from| from + REVOKE_WAIT);
            match free_at.filter(|at| *at > now) {
                Some(at) => step.wake = Some(step.wake.map_or(at, |wake| wake.min(at))),
                None => {
                    *seat = Seat { holder: Some(member), overdue_from: None };
                    known.held.insert(partition);
                    assigned.push(partition);
                }
            }
        }
        if !assigned.is_empty() {
            step.delivery = Some(Delivery::Assigned(assigned));
        }
        step
    }
}

/// The groups of one engine, by name. A group lives as long as it has members.
#[derive(Debug)]
pub(super) struct Groups {
    partitions: Partition,
    by_name: Mutex<HashMap<String, Weak<Shared>>>,
}

#[derive(Debug)]
struct Shared {
    group: Mutex<Group>,
    changed: watch::Sender<()>,
}

impl Groups {
    pub(super) fn new(partitions: Partition) -> Self {
        Self { partitions, by_name: Mutex::default() }
    }

    pub(super) fn join(&self, name: &str, now: Instant) -> Result<Membership, LogError> {
        let mut by_name = self.by_name.lock();
        by_name.retain(|_, group| group.strong_count() > 0);
        let shared = match by_name.get(name).and_then(Weak::upgrade) {
            Some(shared) => shared,
            None if by_name.len() >= MAX_GROUPS => {
                return Err(LogError::Unavailable(format!("there are {MAX_GROUPS} groups already")));
            }
            None => {
                let group = Mutex::new(Group::new(self.partitions));
                let shared = Arc::new(Shared { group, changed: watch::channel(()).0 });
                by_name.insert(name.to_owned(), Arc::downgrade(&shared));
                shared
            }
        };
        let changed = shared.changed.subscribe();
        let member = shared.group.lock().join(now);
        shared.changed.send_replace(());
        Ok(Membership { shared, member, changed, wake: None })
    }
}

/// One member; dropped, it leaves.
#[derive(Debug)]
pub(super) struct Membership {
    shared: Arc<Shared>,
    member: Member,
    changed: watch::Receiver<()>,
    wake: Option<Instant>,
}

impl Membership {
    /// What the member should know next, if anything.
    pub(super) fn step(&mut self, now: Instant) -> Option<Delivery> {
        // Seen before it is read, so that a change in between wakes.
        self.changed.mark_unchanged();
        let step = self.shared.group.lock().step(self.member, now);
        if step.moved {
            self.shared.changed.send_replace(());
        }
        self.wake = step.wake;
        step.delivery
    }

    /// Waits until [`Membership::step`] may have something.
    pub(super) async fn changed(&mut self) {
        let wake = self.wake;
        tokio::select! {
            // This member holds a sender itself: it cannot have ended.
            _ = self.changed.changed() => {}
            () = async { match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            } } => {}
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.group.lock().leave(self.member, Instant::now());
        self.shared.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(group: &mut Group, member: Member, now: Instant) -> Option<Delivery> {
        group.step(member, now).delivery
    }

    #[test]
    fn a_partition_is_given_on_when_its_member_asks_again_after_it_was_revoked() {
        let now = Instant::now();
        let mut group = Group::new(4);
        let one = group.join(now);
        assert_eq!(told(&mut group, one, now), Some(Delivery::Assigned(vec![0, 1, 2, 3])));
        assert_eq!(told(&mut group, one, now), None);
        let two = group.join(now);
        assert_eq!(told(&mut group, two, now), None, "nothing is free yet");
        assert_eq!(told(&mut group, one, now), Some(Delivery::Revoked(vec![2, 3])));
        assert_eq!(told(&mut group, two, now), None, "the first is still busy with them");
        let step = group.step(one, now);
        assert!(step.moved && step.delivery.is_none());
        assert_eq!(told(&mut group, two, now), Some(Delivery::Assigned(vec![2, 3])));
    }

    #[test]
    fn a_member_that_does_not_ask_loses_its_partitions_in_time_and_learns_it_when_it_asks() {
        let now = Instant::now();
        let mut group = Group::new(2);
        let one = group.join(now);
        assert_eq!(told(&mut group, one, now), Some(Delivery::Assigned(vec![0, 1])));
        let two = group.join(now);
        let step = group.step(two, now + Duration::from_secs(1));
        assert_eq!((step.delivery, step.wake), (None, Some(now + REVOKE_WAIT)));
        let late = now + REVOKE_WAIT;
        assert_eq!(told(&mut group, two, late), Some(Delivery::Assigned(vec![1])));
        assert_eq!(told(&mut group, one, late), Some(Delivery::Revoked(vec![1])));
        assert_eq!(told(&mut group, one, late), None);
        assert_eq!(told(&mut group, two, late), None, "what it took stays its own");
    }

    #[test]
    fn a_member_that_leaves_frees_its_partitions_at_once() {
        let now = Instant::now();
        let mut group = Group::new(4);
        let (one, two) = (group.join(now), group.join(now));
        assert_eq!(told(&mut group, one, now), Some(Delivery::Assigned(vec![0, 1])));
        assert_eq!(told(&mut group, two, now), Some(Delivery::Assigned(vec![2, 3])));
        group.leave(one, now);
        assert_eq!(told(&mut group, two, now), Some(Delivery::Assigned(vec![0, 1])));
    }

    #[test]
    fn a_partition_that_comes_back_before_its_member_asked_never_left() {
        let now = Instant::now();
        let mut group = Group::new(2);
        let one = group.join(now);
        assert_eq!(told(&mut group, one, now), Some(Delivery::Assigned(vec![0, 1])));
        let two = group.join(now);
        group.leave(two, now);
        assert_eq!(told(&mut group, one, now), None);
    }

    #[test]
    fn a_partition_that_comes_back_after_it_was_revoked_is_assigned_anew() {
        let now = Instant::now();
        let mut group = Group::new(2);
        let one = group.join(now);
        assert_eq!(told(&mut group, one, now), Some(Delivery::Assigned(vec![0, 1])));
        let two = group.join(now);
        assert_eq!(told(&mut group, one, now), Some(Delivery::Revoked(vec![1])));
        group.leave(two, now);
        assert_eq!(told(&mut group, one, now), Some(Delivery::Assigned(vec![1])));
    }

    #[test]
    fn members_beyond_the_partitions_wait() {
        let now = Instant::now();
        let mut group = Group::new(1);
        let (one, two) = (group.join(now), group.join(now));
        assert_eq!(told(&mut group, one, now), Some(Delivery::Assigned(vec![0])));
        assert_eq!(told(&mut group, two, now), None);
        group.leave(one, now);
        assert_eq!(told(&mut group, two, now), Some(Delivery::Assigned(vec![0])));
    }
}
