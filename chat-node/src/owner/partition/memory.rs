//! What a partition's memory holds: it follows the writer, and forgets what the store has and nobody uses.

use common::wire::marks::Told;
use tokio::time::Instant;

use super::{
    super::{chat::KEPT_DRAINED, publish::announcement, stored::Positions},
    Owned,
};

impl Owned {
    /// The writer got on.
    pub(super) fn stored(&mut self, positions: &Positions) {
        let Some(position) = positions.get(&self.partition) else { return };
        if position.log != self.context.log.id() || position.offset <= self.drained {
            return;
        }
        self.drained = position.offset;
        let later = self.announcements.split_off(&self.drained);
        for change in std::mem::replace(&mut self.announcements, later).into_values() {
            if let Some((topics, live)) = announcement(&change) {
                self.context.outlet.publish(topics, live);
            }
        }
        self.undrained.drained(self.drained);
        if let Some(place) = self.place.lock().as_mut() {
            place.told = Told { offset: position.offset, state: position.state };
        }
        self.context.outlet.flush();
        let later = self.unstored.split_off(&self.drained);
        for open in std::mem::replace(&mut self.unstored, later).into_values().flatten() {
            open.finish();
        }
        if self.drained_bytes() > self.context.limits.drained_bytes {
            self.shed();
        }
    }

    /// Bytes of what is appended and not in the store.
    pub(super) fn undrained_bytes(&self) -> usize {
        self.undrained.bytes() + self.tail.bytes()
    }

    /// Bytes of what is kept though the store has it.
    pub(super) fn drained_bytes(&self) -> usize {
        self.held_bytes.saturating_sub(self.undrained_bytes())
    }

    /// Keeps less and less of what is drained, until it is half of what may be kept: then as much again is drained before the next time.
    pub(super) fn shed(&mut self) {
        let mut keep = KEPT_DRAINED;
        self.tidy(keep);
        while keep > 0 && self.drained_bytes() > self.context.limits.drained_bytes / 2 {
            keep /= 4;
            self.tidy(keep);
        }
    }

    /// Forgets what the store has and nobody uses. Each chat keeps `keep` drained changes.
    pub(super) fn tidy(&mut self, keep: usize) {
        let (drained, now) = (self.drained, Instant::now());
        // Whoever waited for the store and has stopped waiting.
        self.unstored.retain(|_, open| {
            open.retain(|open| !open.is_abandoned());
            !open.is_empty()
        });
        self.tail.forget_abandoned();
        let mut bytes = 0;
        self.slots.retain(|_, slot| {
            // Of a chat that nobody has asked for since the take-over: what was drained meanwhile the store has. An answer that is under
            // way may have been read before.
            if !slot.fetching {
                slot.replay.retain(|kept| kept.offset >= drained);
            }
            bytes += slot.replay.iter().map(|kept| kept.payload.len()).sum::<usize>();
            let waits = slot.fetching || !slot.jobs.is_empty() || !slot.replay.is_empty();
            let idle = match &mut slot.chat {
                Some(Some(chat)) => {
                    chat.forget(drained, keep, now);
                    bytes += chat.kept_bytes;
                    chat.idle(drained, now)
                }
                Some(None) | None => true,
            };
            waits || !idle
        });
        self.held_bytes = bytes;
    }
}
