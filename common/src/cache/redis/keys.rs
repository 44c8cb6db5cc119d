//! The names of all keys. What stands in braces decides where a cluster puts a key: keys of one script have it in common.

use crate::{
    cache::NodeLife,
    ids::{AppId, ChatKey, UserKey},
};

/// Keys under one prefix.
#[derive(Debug)]
pub(super) struct Keys(String);

impl Keys {
    /// The most characters of a prefix.
    pub(super) const PREFIX_CHARS: usize = 64;

    /// `None` when the prefix is too long, or has what means something in a pattern or a key.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":._-/".contains(&byte);
        let good = !prefix.is_empty() && prefix.len() <= Self::PREFIX_CHARS && prefix.bytes().all(plain);
        good.then(|| Self(prefix.to_owned()))
    }

    /// A pattern for all of them.
    pub(super) fn all(&self) -> String {
        format!("{}*", self.0)
    }

    pub(super) fn tail(&self, chat: ChatKey) -> String {
        format!("{}tail:{{{chat}}}", self.0)
    }

    pub(super) fn user(&self, user: UserKey) -> String {
        format!("{}user:{{{user}}}", self.0)
    }

    /// There while a life is up.
    pub(super) fn life(&self, life: &NodeLife) -> String {
        format!("{}life:{{{}/{}}}", self.0, life.incarnation, life.node)
    }

    /// The sockets of a life.
    pub(super) fn held(&self, life: &NodeLife) -> String {
        format!("{}held:{{{}/{}}}", self.0, life.incarnation, life.node)
    }

    /// The names of all lives, each with when it was renewed last.
    pub(super) fn lives(&self) -> String {
        format!("{}renewed", self.0)
    }

    /// Which sockets have ended without whoever had opened them.
    pub(super) fn ended_sockets(&self) -> String {
        format!("{}ended", self.0)
    }

    /// Since when nothing was forgotten.
    pub(super) fn whole(&self) -> String {
        format!("{}whole", self.0)
    }

    /// Who tells of the users of a life that is over.
    pub(super) fn taken(&self, life: &NodeLife) -> String {
        format!("{}taken:{{{}/{}}}", self.0, life.incarnation, life.node)
    }

    /// Where a life's sockets go when it is over.
    pub(super) fn ended(&self, life: &NodeLife) -> String {
        format!("{}ended:{{{}/{}}}", self.0, life.incarnation, life.node)
    }

    pub(super) fn bucket(&self, app: AppId, key: &str) -> String {
        format!("{}bucket:{app}/{key}", self.0)
    }
}
