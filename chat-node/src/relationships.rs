//! What pairs of users are to each other, as owners and delivery need it: without asking the store for each message (ID-8, ID-9).
//!
//! What was read is kept, and forgotten when it has changed: every change is a numbered row, for which each node looks twice a second, and at
//! once for what it has written itself. So a block, or its end, counts everywhere at most [`STALE`] after it was answered, whoever owns the
//! chat by then, while a node can read the store. A node that cannot goes by what it knows.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use common::{
    ids::{UserId, UserKey},
    store::{Pair, RelationChange, Relations, StoreError, Ties, follow, in_time},
    wire::{codes::ErrorCode, owner::Refusal},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// How long after it was answered a change may not count yet on some node: a [`POLL`], and the store's answers with room to spare.
pub const STALE: Duration = Duration::from_secs(2);

/// How often the store is asked for changes.
const POLL: Duration = Duration::from_millis(500);

/// Changes in one answer of the store: a full one has a successor.
const PAGE: usize = 1_000;

/// Pairs that are known, at least, and at most twice as many: some 60 MiB. A node that owns more direct chats in use than that reads some of
/// them again.
const KNOWN: usize = 250_000;

/// Pairs in one question.
const TOGETHER: usize = 500;

/// Pairs that wait to be asked for: as many chats as all partitions of a node may have in need at once.
const WAITING: usize = 65_536;

/// How often a pair is read anew because something changed in the meantime, before what was read is taken as it is.
const TRIES: usize = 4;

/// Who does not take somebody's messages: the same whatever the reason, so that a block does not show.
pub(crate) fn not_accepting() -> Refusal {
    Refusal::new(ErrorCode::Forbidden, "they are not accepting messages from you")
}

/// What is known. Cheap to clone.
#[derive(Clone)]
pub struct Relationships(Arc<Inner>);

struct Inner {
    store: Arc<dyn Relations>,
    known: Mutex<Known>,
    /// The newest change seen. Held over a look, so that two never run at once.
    seen: tokio::sync::Mutex<Option<RelationChange>>,
    hint: Notify,
    questions: Mutex<VecDeque<Question>>,
    /// Whoever asks the store asks for all who wait.
    turn: tokio::sync::Mutex<()>,
}

struct Question {
    pair: Pair,
    reply: oneshot::Sender<Result<Ties, StoreError>>,
}

/// Pairs in two generations: those that were asked for of late, and those before them.
#[derive(Default)]
struct Known {
    newer: HashMap<Pair, Ties>,
    older: HashMap<Pair, Ties>,
    /// Grows with each look that saw a change: what was read before may lack it.
    looks: u64,
}

impl Known {
    fn get(&mut self, pair: Pair) -> Option<Ties> {
        if let Some(ties) = self.newer.get(&pair) {
            return Some(*ties);
        }
        let ties = self.older.remove(&pair)?;
        self.put(pair, ties);
        Some(ties)
    }

    fn put(&mut self, pair: Pair, ties: Ties) {
        if self.newer.len() >= KNOWN {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(pair, ties);
    }

    fn forget(&mut self, changed: &[RelationChange]) {
        self.looks += 1;
        for RelationChange { pair, .. } in changed {
            self.newer.remove(pair);
            self.older.remove(pair);
        }
    }

    fn forget_all(&mut self) {
        self.looks += 1;
        self.newer.clear();
        self.older.clear();
    }
}

impl fmt::Debug for Relationships {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relationships")
    }
}

impl Relationships {
    /// Knows nothing yet, and learns of no change before [`Self::run`].
    pub fn new(store: Arc<dyn Relations>) -> Self {
        Self(Arc::new(Inner {
            store,
            known: Mutex::default(),
            seen: tokio::sync::Mutex::default(),
            hint: Notify::new(),
            questions: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Looks for changes twice a second, and when hinted, until `shutdown`. While the store is silent, what is known goes on counting.
    pub async fn run(self, shutdown: CancellationToken) {
        follow("contacts and blocks", POLL, &self.0.hint, &shutdown, async || self.look().await).await;
    }

    /// Look now.
    pub fn hint(&self) {
        self.0.hint.notify_one();
    }

    /// What two are to each other, if that is known.
    pub(crate) fn known(&self, pair: Pair) -> Option<Ties> {
        self.0.known.lock().get(pair)
    }

    /// What two are to each other, as the store has it; known from then on.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn read(&self, pair: Pair) -> Result<Ties, StoreError> {
        let mut tries = TRIES;
        loop {
            let looks = self.0.known.lock().looks;
            let ties = self.ask(pair).await?;
            tries -= 1;
            let mut known = self.0.known.lock();
            if known.looks == looks {
                known.put(pair, ties);
                return Ok(ties);
            }
            if tries == 0 {
                // It is fresh, and not to be relied on for longer.
                return Ok(ties);
            }
        }
    }

    /// Whom each of these users has blocked.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn blocked_by(
        &self,
        users: &[UserKey],
    ) -> Result<HashMap<UserKey, Vec<UserId>>, StoreError> {
        let each: HashSet<UserKey> = users.iter().copied().collect();
        let mut blocked: HashMap<UserKey, Vec<UserId>> = HashMap::new();
        for (user, peer) in self.0.store.blocked_by(&each.into_iter().collect::<Vec<_>>()).await? {
            blocked.entry(user).or_default().push(peer);
        }
        Ok(blocked)
    }

    /// Asks the store, together with whoever else waits for it.
    async fn ask(&self, pair: Pair) -> Result<Ties, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        {
            let mut questions = self.0.questions.lock();
            if questions.len() >= WAITING {
                // Who has stopped waiting does not count.
                questions.retain(|question| !question.reply.is_closed());
            }
            if questions.len() >= WAITING {
                return Err(StoreError::Unavailable("too many pairs are asked for".into()));
            }
            questions.push_back(Question { pair, reply });
        }
        let _turn = self.0.turn.lock().await;
        // Somebody before may have asked for this one as well; who did and gave up has taken the question along.
        if let Ok(answer) = answer.try_recv() {
            return answer;
        }
        let others: Vec<Question> = {
            let mut questions = self.0.questions.lock();
            questions.retain(|question| !question.reply.is_closed());
            let count = questions.len().min(TOGETHER - 1);
            questions.drain(..count).collect()
        };
        let mut pairs: Vec<Pair> = others.iter().map(|question| question.pair).chain([pair]).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let found = in_time(self.0.store.ties(&pairs)).await;
        let ties: Result<HashMap<Pair, Ties>, StoreError> =
            found.map(|found| found.into_iter().map(|ties| (ties.pair(), ties)).collect());
        let of = |pair: Pair| match &ties {
            Ok(ties) => Ok(ties.get(&pair).copied().unwrap_or_else(|| Ties::none(pair))),
            Err(error) => Err(error.clone()),
        };
        for Question { pair, reply } in others {
            // Who asked may have stopped waiting.
            let _ = reply.send(of(pair));
        }
        of(pair)
    }

    /// Forgets what has changed.
    async fn look(&self) -> Result<(), StoreError> {
        let mut seen = self.0.seen.lock().await;
        loop {
            // The newest one seen comes once more.
            let after = seen.map_or(0, |seen| seen.no.saturating_sub(1));
            let rows = in_time(self.0.store.relation_changes(after)).await?;
            let goes_on = match *seen {
                Some(seen) => rows.first() == Some(&seen),
                None => rows.first().is_none_or(|first| first.no == 1),
            };
            let new = if seen.is_some() { rows.get(1..).unwrap_or_default() } else { rows.as_slice() };
            if !goes_on {
                // Some are gone that were never seen, or the store was put back to an earlier state.
                self.0.known.lock().forget_all();
            } else if !new.is_empty() {
                self.0.known.lock().forget(new);
            }
            *seen = rows.last().copied();
            if rows.len() < PAGE {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
