//! Who reads which partition: pure.

use std::collections::BTreeMap;

use crate::ids::Partition;

/// A member of a group; later members have higher numbers.
pub(super) type Member = u64;

/// Splits the partitions among the members: each has ⌊P / members⌋ or one more, and as few as possible change hands.
///
/// `targets` says, by partition, who has it now; it is changed in place. Without members nobody has anything.
pub(super) fn rebalance(targets: &mut [Option<Member>], members: &[Member]) {
    let mut load: BTreeMap<Member, Vec<Partition>> =
        members.iter().map(|member| (*member, Vec::new())).collect();
    let mut free = Vec::new();
    for (partition, target) in (0..).zip(targets.iter()) {
        match target.and_then(|member| load.get_mut(&member)) {
            Some(held) => held.push(partition),
            None => free.push(partition),
        }
    }
    let count = load.len();
    if count == 0 {
        targets.fill(None);
        return;
    }
    // Who has most keeps most: then the fewest move.
    let mut by_load: Vec<(Member, Vec<Partition>)> = load.into_iter().collect();
    by_load.sort_by_key(|(member, held)| (std::cmp::Reverse(held.len()), *member));
    let (share, rest) = (targets.len() / count, targets.len() % count);
    for (place, (_, held)) in by_load.iter_mut().enumerate() {
        let quota = share + usize::from(place < rest);
        free.extend(held.drain(quota.min(held.len())..));
    }
    free.sort_unstable_by(|a, b| b.cmp(a));
    for (place, (_, held)) in by_load.iter_mut().enumerate() {
        let quota = share + usize::from(place < rest);
        while held.len() < quota {
            let Some(partition) = free.pop() else { break };
            held.push(partition);
        }
    }
    for (member, held) in by_load {
        for partition in held {
            if let Some(target) = targets.get_mut(usize::from(partition)) {
                *target = Some(member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loads(targets: &[Option<Member>], members: &[Member]) -> Vec<usize> {
        members
            .iter()
            .map(|member| targets.iter().filter(|target| **target == Some(*member)).count())
            .collect()
    }

    #[test]
    fn a_second_member_takes_half_and_leaves_the_other_half_where_it_was() {
        let mut targets = vec![None; 16];
        rebalance(&mut targets, &[1]);
        assert_eq!(targets, vec![Some(1); 16]);
        rebalance(&mut targets, &[1, 2]);
        assert_eq!(loads(&targets, &[1, 2]), [8, 8]);
        rebalance(&mut targets, &[2]);
        assert_eq!(targets, vec![Some(2); 16]);
        rebalance(&mut targets, &[]);
        assert_eq!(targets, vec![None; 16]);
    }

    proptest! {
        #[test]
        fn the_split_is_even_and_moves_no_more_than_it_must(
            partitions in 1_usize..40,
            steps in proptest::collection::vec(proptest::collection::btree_set(0_u64..9, 1..7), 1..8),
        ) {
            let mut targets = vec![None; partitions];
            for members in steps {
                let members: Vec<Member> = members.into_iter().collect();
                let before = targets.clone();
                rebalance(&mut targets, &members);
                let (low, high) = (partitions / members.len(), partitions.div_ceil(members.len()));
                let loads = loads(&targets, &members);
                prop_assert!(loads.iter().all(|load| (low..=high).contains(load)), "{loads:?}");
                prop_assert_eq!(loads.iter().sum::<usize>(), partitions, "each partition has a member");
                // What a member keeps is bounded only by its quota.
                let kept = before.iter().zip(&targets).filter(|(was, is)| was == is).count();
                let mut held: Vec<usize> = members.iter()
                    .map(|m| before.iter().filter(|was| **was == Some(*m)).count()).collect();
                held.sort_unstable_by(|a, b| b.cmp(a));
                let best: usize = held.iter().enumerate()
                    .map(|(place, held)| (*held).min(low + usize::from(place < partitions % members.len()))).sum();
                prop_assert_eq!(kept, best);
            }
        }
    }
}
