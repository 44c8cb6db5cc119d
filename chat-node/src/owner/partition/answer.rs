//! When requests are answered: once the log has what their answer rests on, and, of who is in a chat, once the store has it.

use common::{
    cache::TailEntry,
    ids::{ChatKey, Seq},
    wire::{
        owner::{Answer, Ask, Refusal},
        peer::Live,
    },
};

use super::{
    super::{
        chat::Chat,
        policy,
        publish::{Confirmed, Lost},
        queue::{Job, Open, Slot},
        since::Lacking,
    },
    Owned,
};

impl Owned {
    /// Decided on what is appended: told once the log has that.
    pub(super) fn refuse(&mut self, key: ChatKey, job: Job, refusal: Refusal) {
        let n = self.chat(key).map_or(0, |chat| self.n_of(chat, chat.head.seq));
        let answer = self.read(Answer::Refused(refusal));
        self.open(n, job.open(answer, None));
    }

    /// The chat as decided is the answer, once the log has it, and once the store has its members.
    pub(super) fn wait_for_head(&mut self, key: ChatKey, job: Job, appended: bool, made: bool) {
        let Some(chat) = self.chat(key) else { return job.answer(Answer::Refused(policy::no_such_chat())) };
        let seq = chat.head.seq;
        let of_membership = matches!(
            job.request.ask,
            Ask::OpenDirect { .. }
                | Ask::CreateGroup { .. }
                | Ask::AddMember { .. }
                | Ask::SetRole { .. }
                | Ask::RemoveMember { .. }
                | Ask::DeleteChat
        );
        let stored = chat.membership_offset.filter(|_| of_membership);
        let n = self.n_of(chat, seq);
        let answer = match job.request.ask {
            Ask::OpenDirect { .. } | Ask::CreateGroup { .. } => Answer::Created { made, seq },
            _ => Answer::Done { seq },
        };
        // What is appended the log decides on; what was so already, whoever holds the lease.
        let answer = if appended { answer } else { self.read(answer) };
        self.open(n, job.open(answer, stored));
    }

    /// The place in this term of the chat's change `seq`; 0 when it is confirmed.
    pub(super) fn n_of(&self, chat: &Chat, seq: Seq) -> u64 {
        if seq <= chat.confirmed.seq {
            0
        } else {
            chat.offset_of(seq).map_or(0, |offset| self.tail.n_at(offset))
        }
    }

    pub(super) fn open(&mut self, n: u64, open: Open) {
        if let Some(open) = self.tail.wait(n, open) {
            self.await_store(open);
        }
    }

    fn await_store(&mut self, open: Open) {
        match open.stored {
            Some(offset) if offset >= self.drained.offset => {
                let open = open.hurry(self.context.stored.urgent());
                self.unstored.entry(offset).or_default().push(open);
            }
            _ => open.finish(),
        }
    }

    /// The log has a record, and whatever else it has by now.
    pub(super) fn all_confirmed(&mut self, first: Result<Confirmed, Lost>) -> Result<(), Lost> {
        self.confirmed(first?);
        while let Some(settled) = self.tail.settled_now() {
            self.confirmed(settled?);
        }
        Ok(())
    }

    /// The log has a record: it is shown, and who waited for it is answered.
    pub(super) fn confirmed(&mut self, confirmed: Confirmed) {
        let Confirmed { change, payload, finished } = confirmed;
        self.context.metrics.confirmed.inc();
        let key = change.key();
        if let Some(chat) = self.slots.get_mut(&key).and_then(Slot::chat_mut) {
            chat.confirm(&change);
        }
        let (offset, seq) = (self.tail.offset_of(change.n), change.seq);
        let bytes = payload.len();
        self.context.tails.push(key, TailEntry { seq, offset, bytes: payload.clone() });
        self.context.outlet.publish(vec![key.into()], Live::Change(payload));
        // Behind the publishing: a mark speaks of what is on its way already.
        self.undrained.push(Lacking { offset, chat: key, seq, bytes });
        if let Some(place) = self.place.lock().as_mut() {
            place.to = offset + 1;
        }
        self.tell_position();
        for open in finished {
            self.await_store(open);
        }
    }
}
