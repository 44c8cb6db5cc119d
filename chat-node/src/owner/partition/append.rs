//! Appending: a change that was decided goes to the end of the log, and into memory.

use std::sync::Arc;

use common::{
    ids::{ChatKey, UserId},
    wire::{
        owner::Refusal,
        record::{Change, Record, What},
    },
};
use tokio::time::Instant;

use super::{
    super::{
        chat::{Chat, Kept},
        policy,
        publish::refused,
        queue::Slot,
    },
    Owned,
};

impl Owned {
    /// Has a change pass the application's policies, and appends it; answers the text, when they changed it.
    pub(super) async fn screen_and_append(
        &mut self,
        key: ChatKey,
        by: UserId,
        mut what: What,
    ) -> Result<Option<String>, Refusal> {
        let masked = policy::screen(&self.context.applications.content(key.app), &mut what)?;
        if by != UserId::APPLICATION
            && let What::Sent { .. } | What::Edited { .. } = what
        {
            let (rate, now) = (self.context.message_rate(key.app), Instant::now());
            let chat = self.slots.get_mut(&key).and_then(Slot::chat_mut).ok_or_else(policy::no_such_chat)?;
            chat.rates.take(by, rate, now).map_err(policy::too_fast)?;
        }
        self.append(key, by, what).await?;
        Ok(masked)
    }

    /// Puts a change at the end of the log, and into memory. A refusal means that it is surely not there.
    pub(super) async fn append(&mut self, key: ChatKey, by: UserId, what: What) -> Result<(), Refusal> {
        let slot = self.slots.get(&key);
        let chat = slot.and_then(Slot::chat);
        let now = self.context.clock.now();
        let change = Arc::new(Change {
            app: key.app,
            chat: key.chat,
            term: self.tail.term(),
            n: self.tail.next_n(),
            seq: chat.map_or(0, |chat| chat.head.seq) + 1,
            at: chat.map_or(now, |chat| now.max(chat.last_at)),
            by,
            what,
        });
        let offset = self.tail.offset_of(change.n);
        // The record is encoded once: these bytes go to the log, to this node's sessions, and to other nodes.
        let payload = Record::encode_change(&change);
        let name = bytes::Bytes::copy_from_slice(&key.to_bytes());
        let receipt = self.context.log.append(self.partition, name, payload.clone()).await;
        let receipt = receipt.map_err(|error| refused(&error))?;
        self.context.metrics.appended.inc();
        self.held_bytes += payload.len();
        self.tail.push(Arc::clone(&change), payload.clone(), receipt);
        if change.of_membership() {
            self.announcements.insert(offset, Arc::clone(&change));
        }
        let now = Instant::now();
        let slot = self.slots.entry(key).or_default();
        let begins = slot.chat().is_none();
        if begins {
            slot.chat = Some(Chat::begin(&change, now).map(Box::new));
        }
        if let Some(chat) = slot.chat_mut() {
            chat.apply(Kept { offset, change, payload }, now);
            if let Some(pair) = chat.pair(key.app, by).filter(|_| begins) {
                // Somebody is about to write there, and should not wait for the store, which may be away by then.
                let relationships = self.context.relationships.clone();
                self.reads.spawn(async move { drop(relationships.read(pair).await) });
            }
        }
        Ok(())
    }
}
