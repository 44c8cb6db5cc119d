//! Which nodes have sessions for which topics. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::{
    ids::NodeId,
    wire::peer::{TOPICS_PER_NODE, Topic},
};

use crate::parts::Parts;

/// A node has registered as many topics as it may. Nothing of the request was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node may not register more than {0} topics")]
pub struct TooMany(usize);

/// A part of a live event: the topics that these nodes, and exactly these, have of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    /// Those of the event's topics.
    pub topics: Vec<Topic>,
    /// Who has all of them and no other, in order of their names.
    pub nodes: Vec<NodeId>,
}

/// Interest of nodes in topics.
#[derive(Debug)]
pub struct Topics {
    limit: usize,
    nodes_of: Parts<Vec<NodeId>>,
    topics_of: HashMap<NodeId, Parts<()>>,
}

impl Default for Topics {
    fn default() -> Self {
        Self::new(TOPICS_PER_NODE)
    }
}

impl Topics {
    /// Nothing yet, and at most `limit` topics a node.
    pub fn new(limit: usize) -> Self {
        Self { limit, nodes_of: Parts::default(), topics_of: HashMap::new() }
    }

    /// Registers topics; those that the node has already are no trouble.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn add(&mut self, node: &NodeId, topics: &[Topic]) -> Result<(), TooMany> {
        let own = self.topics_of.entry(node.clone()).or_default();
        let fresh: HashSet<Topic> = topics.iter().filter(|topic| !own.contains(topic)).copied().collect();
        if own.len() + fresh.len() > self.limit {
            return Err(TooMany(self.limit));
        }
        for topic in fresh {
            own.of(topic);
            self.nodes_of.of(topic).push(node.clone());
        }
        Ok(())
    }

    /// Forgets topics of a node.
    pub fn remove(&mut self, node: &NodeId, topics: &[Topic]) {
        let Some(own) = self.topics_of.get_mut(node) else { return };
        for topic in topics {
            own.change(topic, |()| {
                forget(&mut self.nodes_of, topic, node);
                true
            });
        }
        if own.len() == 0 {
            self.topics_of.remove(node);
        }
    }

    /// Forgets all topics of a node.
    pub fn drop_node(&mut self, node: &NodeId) {
        for topic in self.topics_of.remove(node).into_iter().flat_map(Parts::into_topics) {
            forget(&mut self.nodes_of, &topic, node);
        }
    }

    /// Who gets an event about `topics`: everybody interested but its publisher. One part for each distinct set of topics, as each is
    /// encoded once.
    pub fn audience(&self, topics: &[Topic], publisher: &NodeId) -> Vec<Audience> {
        // Nearly always one topic: then all nodes have the same set.
        if let [topic] = topics {
            let mut nodes = self.nodes_of.get(topic).cloned().unwrap_or_default();
            nodes.retain(|node| node != publisher);
            nodes.sort();
            return if nodes.is_empty() {
                Vec::new()
            } else {
                vec![Audience { topics: topics.to_vec(), nodes }]
            };
        }
        let mut of_node: BTreeMap<&NodeId, Vec<Topic>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for topic in topics.iter().filter(|topic| seen.insert(**topic)) {
            for node in self.nodes_of.get(topic).into_iter().flatten().filter(|node| *node != publisher) {
                of_node.entry(node).or_default().push(*topic);
            }
        }
        let mut parts: BTreeMap<Vec<Topic>, Vec<NodeId>> = BTreeMap::new();
        for (node, topics) in of_node {
            parts.entry(topics).or_default().push(node.clone());
        }
        parts.into_iter().map(|(topics, nodes)| Audience { topics, nodes }).collect()
    }

    /// How many topics anybody has.
    pub fn len(&self) -> usize {
        self.nodes_of.len()
    }

    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn forget(nodes_of: &mut Parts<Vec<NodeId>>, topic: &Topic, node: &NodeId) {
    nodes_of.change(topic, |nodes| {
        nodes.retain(|other| other != node);
        nodes.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use common::ids::{AppId, ChatId, UserId};
    use proptest::prelude::*;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::new(&format!("node-{number}")).unwrap()
    }

    fn id(number: u8) -> [u8; 16] {
        [number; 16]
    }

    fn chat(number: u8) -> Topic {
        Topic::Chat(AppId::DEFAULT, ChatId::from_slice(&id(number)).unwrap())
    }

    fn user(number: u8) -> Topic {
        Topic::User(AppId::DEFAULT, UserId::from_slice(&id(number)).unwrap())
    }

    #[test]
    fn an_event_reaches_the_interested_but_its_publisher() {
        let mut topics = Topics::default();
        for number in 1..=3 {
            topics.add(&node(number), &[chat(1)]).unwrap();
        }
        topics.add(&node(4), &[chat(2), user(1)]).unwrap();
        assert_eq!(
            topics.audience(&[chat(1)], &node(2)),
            [Audience { topics: vec![chat(1)], nodes: vec![node(1), node(3)] }]
        );
        assert_eq!(topics.audience(&[chat(9)], &node(2)), []);
        assert_eq!(topics.audience(&[user(1)], &node(4)), []);
        assert_eq!(topics.audience(&[], &node(4)), []);
    }

    #[test]
    fn an_event_of_several_topics_has_one_part_for_each_distinct_set() {
        let mut topics = Topics::default();
        topics.add(&node(1), &[user(1), user(2)]).unwrap();
        topics.add(&node(2), &[user(2)]).unwrap();
        topics.add(&node(3), &[user(2), user(9)]).unwrap();
        topics.add(&node(4), &[user(1), user(2)]).unwrap();
        assert_eq!(
            topics.audience(&[user(2), user(1), user(3), user(2)], &node(9)),
            [
                Audience { topics: vec![user(2)], nodes: vec![node(2), node(3)] },
                Audience { topics: vec![user(2), user(1)], nodes: vec![node(1), node(4)] },
            ]
        );
    }

    #[test]
    fn a_node_at_its_limit_registers_nothing_of_a_request_that_goes_past_it() {
        let mut topics = Topics::new(2);
        topics.add(&node(1), &[chat(1), chat(1), chat(2)]).unwrap();
        topics.add(&node(1), &[chat(1)]).unwrap();
        assert_eq!(topics.add(&node(1), &[chat(2), chat(3)]), Err(TooMany(2)));
        assert_eq!(topics.audience(&[chat(3)], &node(9)), []);
        topics.remove(&node(1), &[chat(1)]);
        topics.add(&node(1), &[chat(3)]).unwrap();
        topics.add(&node(2), &[chat(1)]).unwrap();
    }

    proptest! {
        /// Against the plain definition: a set of pairs.
        #[test]
        fn interest_is_what_was_added_and_not_removed(
            steps in proptest::collection::vec((0_u8..4, 1_u8..5, proptest::collection::vec(0_u8..6, 0..4)), 0..60),
            asked in proptest::collection::vec(0_u8..6, 0..5),
        ) {
            let mut topics = Topics::default();
            let mut model: std::collections::BTreeSet<(u8, u8)> = Default::default();
            for (what, who, which) in steps {
                let list: Vec<Topic> = which.iter().map(|number| chat(*number)).collect();
                match what {
                    0 | 1 => {
                        topics.add(&node(who), &list).unwrap();
                        model.extend(which.iter().map(|number| (who, *number)));
                    }
                    2 => {
                        topics.remove(&node(who), &list);
                        model.retain(|(other, number)| *other != who || !which.contains(number));
                    }
                    _ => {
                        topics.drop_node(&node(who));
                        model.retain(|(other, _)| *other != who);
                    }
                }
            }
            let distinct: HashSet<u8> = model.iter().map(|(_, number)| *number).collect();
            prop_assert_eq!(topics.len(), distinct.len());
            let list: Vec<Topic> = asked.iter().map(|number| chat(*number)).collect();
            let mut got = HashSet::new();
            for part in topics.audience(&list, &node(1)) {
                for node in &part.nodes {
                    for topic in &part.topics {
                        prop_assert!(got.insert((node.clone(), *topic)), "twice");
                    }
                }
            }
            let expected: HashSet<(NodeId, Topic)> = model
                .iter()
                .filter(|(who, number)| *who != 1 && asked.contains(number))
                .map(|(who, number)| (node(*who), chat(*number)))
                .collect();
            prop_assert_eq!(got, expected);
        }
    }
}
