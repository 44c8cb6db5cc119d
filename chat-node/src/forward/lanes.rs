//! One device's sends, in order per chat: one batch under way for each chat, and what comes meanwhile travels in the next. So a batch that
//! is asked again is overtaken by nothing.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use common::{
    ids::ChatId,
    problem::Problem,
    token::Caller,
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, Draft, OwnerRequest, Refusal, Sent},
    },
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::Forward;
use crate::attachments::CheckAttachments;

/// Drafts in one batch: at 16 KiB each, a quarter of what a link's frame may hold.
const TOGETHER: usize = 64;
/// After a draft failed for now, how long those behind it are refused that are not flagged as retries: whatever the client sent before it
/// heard. Otherwise a later message could overtake the failed one.
const BROKEN: Duration = Duration::from_secs(1);

type Outcome = Result<Sent, Refusal>;

/// Drafts, each with where its outcome goes.
type Batch = Vec<(Draft, oneshot::Sender<Outcome>)>;

/// The sends of one socket. Cheap to clone. What waits is bounded by the socket's pending requests.
#[derive(Clone)]
pub struct Lanes(Arc<Inner>);

struct Inner {
    forward: Forward,
    check: CheckAttachments,
    caller: Caller,
    lanes: Mutex<HashMap<ChatId, Lane>>,
}

/// One chat's sends. It exists while a batch is under way, and while it is broken.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<(Draft, oneshot::Sender<Outcome>)>,
    busy: bool,
    broken_until: Option<Instant>,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lanes of {}", self.0.caller.user)
    }
}

impl Lanes {
    /// For one socket of `caller`.
    pub fn new(forward: Forward, check: CheckAttachments, caller: Caller) -> Self {
        Self(Arc::new(Inner { forward, check, caller, lanes: Mutex::default() }))
    }

    /// Takes its place in the chat's order before it returns. The outcome comes within about 5 s.
    pub fn send(&self, chat: ChatId, draft: Draft) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        let mut lanes = self.0.lanes.lock();
        let lane = lanes.entry(chat).or_default();
        match lane.broken_until {
            Some(until) if !draft.retry && Instant::now() < until => {
                let _ = reply.send(Err(overtakes()));
                return outcome;
            }
            _ => lane.broken_until = None,
        }
        lane.waiting.push_back((draft, reply));
        if !lane.busy {
            lane.busy = true;
            tokio::spawn(self.clone().drive(chat));
        }
        outcome
    }

    /// Sends batch after batch until nothing waits.
    async fn drive(self, chat: ChatId) {
        while let Some(batch) = self.batch(chat) {
            let (drafts, replies) = self.checked(chat, batch).await;
            if drafts.is_empty() {
                continue;
            }
            let Caller { app, user, .. } = self.0.caller;
            let request = OwnerRequest { app, chat, by: user, retry: false, ask: Ask::Send(drafts) };
            let outcomes = match self.0.forward.ask(request).await {
                Answer::Sent(outcomes) if outcomes.len() == replies.len() => outcomes,
                Answer::Refused(refusal) => vec![Err(refusal); replies.len()],
                _ => vec![
                    Err(Refusal::new(ErrorCode::Unknown, "the chat's owner did not answer in time"));
                    replies.len()
                ],
            };
            let stuck =
                outcomes.iter().any(|outcome| matches!(outcome, Err(refusal) if refusal.code.temporary()));
            if stuck {
                self.break_off(chat);
            }
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                let _ = reply.send(outcome);
            }
        }
    }

    /// The drafts of a batch that may be sent; the others are answered. After one that cannot be looked at for now, those behind it wait for
    /// it to be sent again.
    async fn checked(&self, chat: ChatId, batch: Batch) -> (Vec<Draft>, Vec<oneshot::Sender<Outcome>>) {
        let mut good = Vec::with_capacity(batch.len());
        let mut stuck = false;
        for (draft, reply) in batch {
            if stuck {
                let _ = reply.send(Err(overtakes()));
                continue;
            }
            match self.0.check.check(&self.0.caller, chat, &draft).await {
                Ok(()) => good.push((draft, reply)),
                Err(problem) => {
                    stuck = problem.code.temporary();
                    if stuck {
                        self.break_off(chat);
                    }
                    let _ = reply.send(Err(refusal(problem)));
                }
            }
        }
        good.into_iter().unzip()
    }

    fn batch(&self, chat: ChatId) -> Option<Batch> {
        let mut lanes = self.0.lanes.lock();
        let now = Instant::now();
        let lane = lanes.get_mut(&chat)?;
        if lane.waiting.is_empty() {
            lane.busy = false;
            lanes.retain(|_, lane| lane.busy || lane.broken_until.is_some_and(|until| now < until));
            return None;
        }
        let take = lane.waiting.len().min(TOGETHER);
        Some(lane.waiting.drain(..take).collect())
    }

    /// A draft failed for now: what waits behind it fails too, and what is still to come must say that it is a retry.
    fn break_off(&self, chat: ChatId) {
        let mut lanes = self.0.lanes.lock();
        let Some(lane) = lanes.get_mut(&chat) else { return };
        lane.broken_until = Some(Instant::now() + BROKEN);
        for (_, reply) in lane.waiting.drain(..) {
            let _ = reply.send(Err(overtakes()));
        }
    }
}

fn overtakes() -> Refusal {
    Refusal {
        retry_after_ms: Some(100),
        ..Refusal::new(
            ErrorCode::RetryLater,
            "an earlier message of the same chat was not accepted; send it again first",
        )
    }
}

/// A problem in the words of owners, who name the field in front.
fn refusal(problem: Problem) -> Refusal {
    let Problem { code, detail, retry_after_ms, .. } = problem;
    Refusal { retry_after_ms, ..Refusal::new(code, detail) }
}
