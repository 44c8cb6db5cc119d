//! How many members of a large group are connected (PR-2): each node says how many it serves when that changes, and now and then in any case, so
//! that a number that was lost, or a node that came later, is made good.

use std::time::{Duration, Instant};

use common::{
    ids::{AppId, ChatId, ChatKey, NodeId},
    wire::peer::{Live, Topic},
};

use crate::{
    deliver::Deliver,
    hub::{Heads, Room},
};

/// How often large groups are looked at, and the most that their sessions are told.
const EVERY: Duration = Duration::from_secs(2);

impl Deliver {
    pub(super) async fn count_large(&self) {
        let mut ticks = tokio::time::interval(EVERY.min(self.0.presence.config.beat()));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let watched: Vec<ChatKey> = self.0.presence.large.lock().iter().copied().collect();
            for key in watched {
                self.count(key);
                tokio::task::yield_now().await;
            }
        }
    }

    /// A chat has grown: above the bound its members are counted from here on.
    pub(crate) fn watch_if_large(&self, room: &Room) {
        if room.members() > self.0.presence.config.group {
            self.0.presence.large.lock().insert(room.key);
        }
    }

    fn count(&self, key: ChatKey) {
        let config = &self.0.presence.config;
        let room = {
            // Looked at under the lock: one that grows meanwhile is put there again.
            let mut large = self.0.presence.large.lock();
            let room = self.0.hub.room(key);
            if room.as_ref().is_none_or(|room| room.members() <= config.group) {
                large.remove(&key);
                if let Some(room) = room {
                    room.count_no_more();
                }
                return;
            }
            room
        };
        let Some(room) = room else { return };
        let heads = room.count_heads(Instant::now(), config.beat(), config.term());
        self.say(&room);
        if let Some(Heads { users, ask }) = heads {
            let ChatKey { app, chat } = key;
            let node = self.0.presence.life.node.clone();
            let live = Live::Headcount { app, chat, node, users, ask };
            (self.0.presence.hint)(vec![Topic::Chat(app, chat)], &live);
        }
    }

    /// A node serves so many members of a large group.
    pub(crate) fn heard_heads(&self, app: AppId, chat: ChatId, node: NodeId, heads: Heads) {
        let key = ChatKey { app, chat };
        if node == self.0.presence.life.node {
            return;
        }
        if let Some(room) = self.0.hub.room(key) {
            room.heard_heads(node, heads, Instant::now());
            self.0.presence.large.lock().insert(key);
        }
    }
}
