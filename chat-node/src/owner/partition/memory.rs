//! What a partition's memory holds: it follows the writer, and forgets what the store has and nobody uses.

use std::time::Duration;

use common::{ids::Offset, wire::marks::LogPlace};
use tokio::time::Instant;

use super::{
    super::{
        chat::KEPT_DRAINED,
        publish::{Lost, announcement},
        rate,
        stored::Positions,
    },
    Owned,
};

impl Owned {
    /// The writer got on; or the store was put back to what it was earlier, which ends the term.
    pub(super) fn stored(&mut self, read: &Positions) -> Result<(), Lost> {
        let position = read.positions.get(&self.partition).filter(|at| at.log == self.context.log.id());
        // What was read before the term began says less than the term began with.
        if read.asked > self.since {
            self.still_has(self.drained.offset, position.map_or(0, |position| position.offset))?;
        }
        let Some(position) = position.filter(|position| position.offset > self.drained.offset) else {
            return Ok(());
        };
        // Only what was appended in this term lies behind its claim.
        let end = self.tail.offset_of(self.tail.next_n());
        if position.offset > end {
            return Err(Lost::Passed { term: self.tail.term(), end, offset: position.offset });
        }
        self.drained = LogPlace { offset: position.offset, state: position.state };
        let later = self.announcements.split_off(&position.offset);
        for change in std::mem::replace(&mut self.announcements, later).into_values() {
            if let Some((topics, live)) = announcement(&change) {
                self.context.outlet.publish(topics, live);
            }
        }
        self.undrained.drained(position.offset);
        self.tell_position();
        self.context.outlet.flush();
        let later = self.unstored.split_off(&position.offset);
        for open in std::mem::replace(&mut self.unstored, later).into_values().flatten() {
            open.finish();
        }
        if self.drained_bytes() > self.context.limits.drained_bytes {
            self.shed();
        }
        Ok(())
    }

    /// Marks speak of how far the writer is where that was confirmed here: only then was it shown to everybody by this owner, and not by another
    /// who has replaced it unheard.
    pub(super) fn tell_position(&self) {
        if let Some(place) = self.place.lock().as_mut().filter(|place| self.drained.offset <= place.to) {
            place.told = self.drained;
        }
    }

    /// The store, whose position is `offset` now, had drained the partition up to `drained` before. One that has less was put back, and
    /// lacks what is not in memory any more: a number that it does not know may be taken, and a send that it does not find may be there.
    pub(super) fn still_has(&self, drained: Offset, offset: Offset) -> Result<(), Lost> {
        if offset < drained { Err(Lost::StoreWentBack { drained, offset }) } else { Ok(()) }
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
        let (drained, now) = (self.drained.offset, Instant::now());
        // Whoever waited for the store and has stopped waiting.
        self.unstored.retain(|_, open| {
            open.retain(|open| !open.is_abandoned());
            !open.is_empty()
        });
        self.tail.forget_abandoned();
        let mut bytes = 0;
        let context = &self.context;
        // Half of the room is for chats that are in use, whatever rates others are kept for.
        let roomy = self.slots.len() <= context.limits.chats / 2;
        let rates_kept = if roomy { rate::KEPT } else { Duration::ZERO };
        self.slots.retain(|key, slot| {
            // Of a chat that nobody has asked for since the take-over: what was drained meanwhile the store has. An answer that is under
            // way may have been read before.
            if !slot.fetching {
                slot.replay.retain(|kept| kept.offset >= drained);
            }
            bytes += slot.replay.iter().map(|kept| kept.payload.len()).sum::<usize>();
            let waits = slot.fetching || !slot.jobs.is_empty() || !slot.replay.is_empty();
            let idle = match &mut slot.chat {
                Some(Some(chat)) => {
                    // What the store is being asked for may lack what was undrained then.
                    if !slot.fetching {
                        chat.forget(drained, keep, now);
                    }
                    chat.rates.forget(context.message_rate(key.app), now);
                    bytes += chat.kept_bytes;
                    chat.idle(drained, now, rates_kept)
                }
                Some(None) | None => true,
            };
            waits || !idle
        });
        self.held_bytes = bytes;
    }
}
