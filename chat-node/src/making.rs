//! How fast one user may make chats: each new one has a bucket of its own for messages (SP-1), so without this a group with a first message,
//! again and again, would be as many messages as one likes. Counted for each user together by all nodes.
//!
//! When the cache does not answer, everybody may: chats are made by the owners then as ever.

use std::fmt;

use common::{
    applications::MessageRate,
    cache::{LimitPolicy, SharedCache},
    problem::Problem,
    token::Caller,
};

use crate::{attempts::take, control::Clock};

/// Counts the chats that users make. Cheap to clone.
#[derive(Clone)]
pub struct Making {
    cache: SharedCache,
    clock: Clock,
    policy: LimitPolicy,
}

impl fmt::Debug for Making {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Making").field(&self.policy).finish()
    }
}

impl Making {
    /// So many chats a second, and so many at once; none when that is no limit.
    pub fn new(cache: SharedCache, clock: Clock, rate: MessageRate) -> Option<Self> {
        let MessageRate { per_second, burst } = rate;
        (per_second > 0.0).then_some(Self { cache, clock, policy: LimitPolicy { per_second, burst } })
    }

    /// Whether the caller may make another one now.
    ///
    /// # Errors
    /// `rate_limited`, with the wait.
    pub(crate) async fn another(&self, caller: &Caller) -> Result<(), Problem> {
        let key = format!("chats/by/{}", caller.user);
        let why = "too many new chats: wait a moment";
        take(&self.cache, caller.app, &key, self.policy, self.clock.now(), why).await
    }
}
