//! What others are told of a partition's chats: members what the store may lack, nodes what they missed.

use std::sync::Arc;

use common::{
    ids::{ChatKey, UserId},
    wire::{
        marks::LogPlace,
        owner::{Answer, Refusal},
    },
};
use tokio::sync::watch;

use super::{
    super::{Context, chat::Kept, policy, queue::Job, retry_later, since},
    Owned,
};

/// Answers read from the log at once; more are put off.
const READS: usize = 8;
/// Bytes of records in one answer: a link's frame is bounded at a few MiB.
const ANSWER_BYTES: usize = 1024 * 1024;

impl Owned {
    /// What `by` may read that the store may lack.
    ///
    /// # Errors
    /// Who is in the chat no more as decided: that may not be in the log yet.
    pub(super) fn recent(&self, key: ChatKey, by: UserId) -> Result<Answer, Refusal> {
        let chat = self.chat(key).filter(|chat| chat.reader(by)).ok_or_else(policy::no_such_chat)?;
        // The newest, as far as an answer may be long. A reader sees the hole before them, and says that its answer is not whole.
        let mut bytes = 0;
        let mut changes: Vec<_> = chat
            .undrained(self.drained.offset)
            .rev()
            .take_while(|kept| {
                bytes += kept.payload.len();
                bytes <= ANSWER_BYTES
            })
            .map(|kept| kept.payload.clone())
            .collect();
        changes.reverse();
        Ok(self.read(Answer::Recent { head: chat.confirmed, changes }))
    }

    /// What a node missed of a chat; none when memory does not reach back that far.
    pub(super) fn changes<'a>(
        &self,
        key: ChatKey,
        changes: Option<impl Iterator<Item = &'a Kept>>,
    ) -> Answer {
        let head = self.chat(key).map(|chat| chat.confirmed).unwrap_or_default();
        let Some(kept) = changes else {
            return self.read(Answer::Changes { changes: Vec::new(), head, complete: false });
        };
        let (mut changes, mut bytes, mut complete) = (Vec::new(), 0, true);
        for kept in kept {
            bytes += kept.payload.len();
            if bytes > ANSWER_BYTES {
                complete = false;
                break;
            }
            changes.push(kept.payload.clone());
        }
        self.read(Answer::Changes { changes, head, complete })
    }

    /// What changed in the partition. From memory, or, further back, from the log: meanwhile others are served.
    pub(super) fn since(&mut self, job: Job, from: Option<LogPlace>) {
        let Some(place) = *self.place.lock() else { return job.answer(Answer::NotOwner) };
        match from {
            Some(told) if told.offset > place.to.max(self.drained.offset) => {
                // Of another log.
                job.answer(self.read(Answer::Since(since::everything(place))));
            }
            Some(told) if told.offset < self.drained.offset => {
                if self.reads.len() >= READS {
                    return job.answer(retry_later("the partition's owner reads for others at the moment"));
                }
                let (context, partition) = (Arc::clone(&self.context), self.partition);
                let named = self.named.clone();
                self.reads.spawn(async move {
                    let answer = since::read(&context, partition, told, place).await;
                    // Whatever is confirmed stays so; but who is owner by now may have confirmed more.
                    let owner = is_owner(&context, &named);
                    job.answer(if owner { Answer::Since(answer) } else { Answer::NotOwner });
                });
            }
            from => {
                let offset = from.map_or(0, |told| told.offset);
                job.answer(self.read(Answer::Since(self.undrained.since(offset, place))));
            }
        }
    }

    /// What the log does not check (a read, a refusal) counts only if nobody else can own the partition by now: asked afterwards.
    pub(super) fn read(&self, answer: Answer) -> Answer {
        if self.is_owner() { answer } else { Answer::NotOwner }
    }

    /// Whether nobody else can own the partition, as far as this node knows.
    pub(super) fn is_owner(&self) -> bool {
        is_owner(&self.context, &self.named)
    }
}

/// The dispatchers name another only when this node has said that it gave the partition up, or a lease later. A node that is linked to
/// them keeps its lease, and can be slow to give up: it goes by both.
fn is_owner(context: &Context, named: &watch::Receiver<bool>) -> bool {
    context.lease.holds() && *named.borrow()
}
