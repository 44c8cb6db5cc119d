//! Sending: the messages of one request, each once, in the order in which they were given.

use common::{
    applications::Screened,
    ids::{ChatKey, MessageId, UserId},
    store::Ties,
    wire::{
        owner::{Answer, Draft, Refusal, Sent},
        record::What,
    },
};

use super::{
    super::{later, policy, queue::Job},
    Owned,
};

impl Owned {
    pub(super) async fn send(&mut self, key: ChatKey, job: Job, by: UserId, drafts: &[Draft]) {
        let mut outcomes = Vec::with_capacity(drafts.len());
        let mut n = 0;
        #[cfg(feature = "planted")]
        let drafts = &self.context.misordered(drafts);
        for draft in drafts {
            // What follows a draft that may be sent again must not overtake it.
            let stuck = matches!(outcomes.last(), Some(Err(Refusal { code, .. })) if code.temporary());
            let outcome = if stuck {
                Err(later("an earlier message of the same chat was not accepted"))
            } else {
                self.send_one(key, by, job.ties, draft).await
            };
            // As with reads: a refusal of a node that was replaced says nothing.
            let outcome = outcome.map_err(|refusal| {
                if self.is_owner() { refusal } else { later("the chat's owner has no lease at the moment") }
            });
            if outcome.is_err() {
                // Decided on what is appended: told once the log has that.
                n = n.max(self.chat(key).map_or(0, |chat| self.n_of(chat, chat.head.seq)));
            }
            outcomes.push(outcome.map(|(sent, at)| {
                n = n.max(at);
                sent
            }));
        }
        #[cfg(feature = "planted")]
        let outcomes = self.context.reordered(outcomes);
        #[cfg(feature = "planted")]
        let n = if self.context.planted.is(common::planted::Bug::AckBeforeAppend) { 0 } else { n };
        self.open(n, job.open(Answer::Sent(outcomes), None));
    }

    /// The message, and the place in the term that must be confirmed before it is told.
    async fn send_one(
        &mut self,
        key: ChatKey,
        by: UserId,
        ties: Option<Ties>,
        draft: &Draft,
    ) -> Result<(Sent, u64), Refusal> {
        let chat = self.chat(key).ok_or_else(policy::no_such_chat)?;
        if let Some(accepted) = draft.client_id.as_ref().and_then(|client_id| chat.accepted(by, client_id)) {
            policy::repeat(draft, &accepted)?;
            self.context.metrics.repeats.inc();
            let sent = Sent {
                id: accepted.id,
                number: accepted.number,
                seq: accepted.seq,
                at: accepted.at,
                repeat: true,
                masked: self.masked(key, draft),
                mentions: None,
            };
            return Ok((sent, self.n_of(chat, accepted.seq)));
        }
        let id = MessageId::random();
        let what = policy::send(chat, by, draft, id)?;
        self.taken(key, chat, ties, by)?;
        let mentions = match &what {
            What::Sent { mentions, .. } if *mentions != draft.mentions => Some(mentions.clone()),
            _ => None,
        };
        let masked = self.screen_and_append(key, by, what).await?;
        let chat = self.chat(key).ok_or_else(policy::no_such_chat)?;
        let sent = Sent {
            id,
            number: chat.head.number,
            seq: chat.head.seq,
            at: chat.last_at,
            repeat: false,
            masked,
            mentions,
        };
        let n = self.n_of(chat, sent.seq);
        Ok((sent, n))
    }

    /// What the application's policies make of a draft's text.
    fn masked(&self, key: ChatKey, draft: &Draft) -> Option<String> {
        match self.context.applications.content(key.app).screen(&draft.body) {
            Screened::Masked(masked) => Some(masked),
            _ => None,
        }
    }
}
