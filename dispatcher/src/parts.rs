//! A map of topics in many small parts: one of a million entries that grows moves all of them at once, some 50 ms in which nothing else is done.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
};

use common::wire::peer::Topic;

/// Of a million entries each has 4,000, which are moved in some 0.2 ms.
const PARTS: usize = 256;

#[derive(Debug)]
pub(crate) struct Parts<V> {
    /// [`PARTS`] of them.
    parts: Vec<HashMap<Topic, V>>,
    hashes: RandomState,
    len: usize,
}

impl<V> Default for Parts<V> {
    fn default() -> Self {
        Self {
            parts: std::iter::repeat_with(HashMap::new).take(PARTS).collect(),
            hashes: RandomState::new(),
            len: 0,
        }
    }
}

impl<V> Parts<V> {
    fn at(&self, topic: &Topic) -> usize {
        // Below `PARTS`.
        (self.hashes.hash_one(topic) % PARTS as u64) as usize
    }

    pub(crate) fn get(&self, topic: &Topic) -> Option<&V> {
        self.parts.get(self.at(topic))?.get(topic)
    }

    pub(crate) fn contains(&self, topic: &Topic) -> bool {
        self.get(topic).is_some()
    }

    /// What a topic has, made first if it is new.
    #[expect(clippy::indexing_slicing, reason = "there are as many as what it is below")]
    pub(crate) fn of(&mut self, topic: Topic) -> &mut V
    where
        V: Default,
    {
        let at = self.at(&topic);
        match self.parts[at].entry(topic) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.len += 1;
                entry.insert(V::default())
            }
        }
    }

    /// Changes what a topic has, if it has anything; it is gone when that says so.
    pub(crate) fn change(&mut self, topic: &Topic, change: impl FnOnce(&mut V) -> bool) {
        let at = self.at(topic);
        let Some(part) = self.parts.get_mut(at) else { return };
        if part.get_mut(topic).is_some_and(change) {
            part.remove(topic);
            self.len -= 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn into_topics(self) -> impl Iterator<Item = Topic> {
        self.parts.into_iter().flat_map(HashMap::into_keys)
    }
}
