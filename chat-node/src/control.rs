//! The node's links to the dispatchers.

use common::{time::Millis, wire::peer::Topic};

/// The topics this node wants to hear of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Interest;

/// The dispatchers did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dispatchers did not confirm the interest in time")]
pub struct InterestTimeout;

impl Interest {
    /// Registers `topics`; resolves when every event published from now on reaches this node.
    ///
    /// # Errors
    /// [`InterestTimeout`] after 5 s.
    pub async fn add(&self, _topics: Vec<Topic>) -> Result<(), InterestTimeout> {
        todo!()
    }

    /// Forgets `topics`. The caller counts who wants them.
    pub fn remove(&self, _topics: Vec<Topic>) {
        todo!()
    }

    /// One that answers at once, for a node without dispatchers.
    pub fn detached() -> Self {
        Self
    }
}

/// The dispatchers' clock.
#[derive(Clone, Debug)]
pub struct Clock;

impl Clock {
    /// Now, by the dispatchers' clock; by the machine's own until one has been heard.
    pub fn now(&self) -> Millis {
        todo!()
    }
}
