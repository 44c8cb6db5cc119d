//! Who writes (ME-8): told to the other members at once, and kept nowhere. In a direct chat nobody is told when one has blocked the other (ID-9).

use std::{sync::Arc, time::Duration};

use common::{
    ids::{ChatId, ChatKey, UserId},
    time::Millis,
    wire::peer::{Live, Topic},
};
use tokio::time::Instant;

use crate::{deliver::Deliver, hub::Handle};

/// What one session may say at once, and how often again: a client says it every few seconds while its user writes, in one chat at a time.
const BURST: u32 = 10;
const EVERY: Duration = Duration::from_millis(500);
/// How old it may be that is told: older it was held up on the way, and the user may have written.
const AGE: Duration = Duration::from_secs(1);

/// How much one session may still say.
#[derive(Debug)]
pub(crate) struct Limit {
    left: u32,
    since: Instant,
}

impl Default for Limit {
    fn default() -> Self {
        Self { left: BURST, since: Instant::now() }
    }
}

impl Limit {
    /// Whether it may say something now; what it may not is dropped.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let back = now.saturating_duration_since(self.since).as_millis() / EVERY.as_millis();
        if let Ok(back @ 1..) = u32::try_from(back.min(u128::from(BURST))) {
            self.left = (self.left + back).min(BURST);
            self.since = now;
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

impl Deliver {
    /// A session says that its user writes in a chat, or no longer does. Told nobody unless it is a member's, nor in large groups.
    pub(crate) fn typing(&self, handle: &Arc<Handle>, chat: ChatId, on: bool) {
        let key = handle.chat_key(chat);
        let Some(room) = self.0.hub.room(key).filter(|room| room.is_members(handle)) else { return };
        if room.members() > self.0.presence.config.group {
            return;
        }
        let ChatKey { app, chat } = key;
        let (user, at) = (handle.user.user, self.0.clock.now());
        let live = Live::Typing { app, chat, user, on, at };
        self.tell_all(vec![Topic::Chat(app, chat)], live);
    }

    /// A member writes, or no longer does, as their node says.
    pub(crate) fn heard_typing(&self, key: ChatKey, user: UserId, on: bool, at: Millis) {
        if self.0.clock.now().since(at) > AGE {
            return;
        }
        let Some(room) = self.0.hub.room(key) else { return };
        let pair = room.pair_with(user);
        let tell = move |deliver: &Self| {
            room.typing(user, on);
            deliver.say(&room);
        };
        let Some(pair) = pair else { return tell(self) };
        self.knowing(pair, AGE, move |deliver, ties| {
            let held_up = deliver.0.clock.now().since(at) > AGE;
            if !held_up && !ties.blocks(user) && !ties.blocks(ties.other(user)) {
                tell(deliver);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_says_so_much_at_once_and_then_twice_a_second() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let mut taken = |after: u64, asks: u32| {
            let now = start + Duration::from_millis(after);
            (0..asks).filter(|_| limit.take(now)).count()
        };
        assert_eq!([taken(0, 20), taken(400, 3), taken(1_600, 9), taken(900_000, 99)], [10, 0, 3, 10]);
    }
}
