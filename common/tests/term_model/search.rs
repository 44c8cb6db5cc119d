//! Breadth first through every state of a model.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use crate::cluster::{Cluster, Model, Step};

/// What a search came upon.
pub(crate) struct Explored {
    /// Number of different states.
    pub(crate) states: usize,
    /// The shortest way to a state that `wrong` names; `None` if there is none, and every state was seen.
    pub(crate) counterexample: Option<Vec<Step>>,
}

impl Explored {
    /// The counterexample, one step after the other.
    pub(crate) fn trace(&self) -> String {
        let steps = self.counterexample.iter().flatten();
        steps.map(Step::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Tries every step from every state until `wrong` is true of one or no new one is left. States with the same
/// `identity` are explored once. `watch` sees every step, and the states before and after it.
pub(crate) fn explore<I: Eq + Hash>(
    model: &Model,
    identity: impl Fn(&Cluster) -> I,
    wrong: impl Fn(&Cluster) -> bool,
    mut watch: impl FnMut(&Cluster, Step, &Cluster),
) -> Explored {
    let mut seen = HashSet::from([identity(&Cluster::default())]);
    // How each state was first reached: from which other, by which step. The first was not.
    let mut reached: Vec<(usize, Step)> = vec![(0, Step::Claim { owner: 0 })];
    let mut frontier = VecDeque::from([(0, Cluster::default())]);
    while let Some((index, cluster)) = frontier.pop_front() {
        for step in cluster.steps(model) {
            let Some(next) = cluster.after(model, step) else { continue };
            watch(&cluster, step, &next);
            if wrong(&next) {
                let counterexample = Some(way_to(index, step, &reached));
                return Explored { states: seen.len(), counterexample };
            }
            if seen.insert(identity(&next)) {
                frontier.push_back((reached.len(), next));
                reached.push((index, step));
            }
        }
    }
    Explored { states: seen.len(), counterexample: None }
}

fn way_to(mut index: usize, last: Step, reached: &[(usize, Step)]) -> Vec<Step> {
    let mut steps = vec![last];
    while index > 0 {
        let (before, step) = reached[index];
        steps.push(step);
        index = before;
    }
    steps.reverse();
    steps
}
