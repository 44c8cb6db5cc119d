//! Where users stand, asked of the store for all who ask at the same time with one question: a storm of sessions that come back is a
//! handful of queries.

use std::{collections::HashMap, sync::Arc, time::Duration};

use common::{
    ids::{Offset, Partition, UserKey},
    store::{Chats, Position, Standing, StoreError, UserChats},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Users in one question: 50 chats each are 25,000, some 50 ms.
const TOGETHER: usize = 500;
/// Questions that wait: every session of a node. When it is full the askers wait.
const WAITING: usize = 20_000;
/// Who asks within so long after a question is asked for in the next one, unless so many do sooner. Who comes alone does not wait.
const GATHER: Duration = Duration::from_millis(20);
const ENOUGH: usize = 32;
/// How long the store may take for one question.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Where one user stands.
#[derive(Clone, Debug)]
pub(crate) struct Stand {
    /// How far the writers were at that instant.
    pub(crate) positions: Arc<Vec<(Partition, Position)>>,
    /// The user's chats.
    pub(crate) chats: UserChats,
    /// Whether the store was farther once: put back to a backup, it does not know of chats that were made since until the writers have come as
    /// far again, and who begins meanwhile would have no seat in them.
    pub(crate) put_back: bool,
}

/// How far the store was at the most, by partition.
#[derive(Debug, Default)]
struct Farthest(HashMap<Partition, Offset>);

impl Farthest {
    /// Takes note of an answer, each newer than the one before. Whether the store is behind what it was.
    fn is_behind(&mut self, positions: &[(Partition, Position)]) -> bool {
        let is = |partition: Partition| {
            positions.iter().find(|(one, _)| *one == partition).map_or(0, |(_, position)| position.offset)
        };
        let behind = self.0.iter().any(|(partition, was)| is(*partition) < *was);
        if !behind {
            self.0.extend(positions.iter().map(|(partition, position)| (*partition, position.offset)));
        }
        behind
    }
}

type Answer = Result<Stand, StoreError>;
type Question = (UserKey, oneshot::Sender<Answer>);

/// The way to the store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Standings(mpsc::Sender<Question>);

impl Standings {
    pub(crate) fn start(chats: Arc<dyn Chats>, tasks: &TaskTracker, shutdown: CancellationToken) -> Self {
        let (ask, asked) = mpsc::channel(WAITING);
        tasks.spawn(async move {
            shutdown.run_until_cancelled(answer(chats, asked)).await;
        });
        Self(ask)
    }

    /// Where a user stands, read after this was asked.
    pub(crate) async fn of(&self, user: UserKey) -> Answer {
        let gone = || StoreError::Unavailable("the node is stopping".into());
        let (reply, answer) = oneshot::channel();
        self.0.send((user, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The store has not answered within the time that there was.
pub(crate) fn late() -> StoreError {
    StoreError::Unavailable("no answer in time".into())
}

async fn answer(chats: Arc<dyn Chats>, mut asked: mpsc::Receiver<Question>) {
    let mut questions = Vec::with_capacity(TOGETHER);
    let mut farthest = Farthest::default();
    let mut again = Instant::now();
    while asked.recv_many(&mut questions, TOGETHER).await > 0 {
        while questions.len() < ENOUGH {
            let room = TOGETHER - questions.len();
            let more = asked.recv_many(&mut questions, room);
            let Ok(1..) = timeout_at(again, more).await else { break };
        }
        again = Instant::now() + GATHER;
        let mut askers: HashMap<UserKey, Vec<oneshot::Sender<Answer>>> = HashMap::new();
        // Who has given up asks again when they come back.
        for (user, reply) in questions.drain(..).filter(|(_, reply)| !reply.is_closed()) {
            askers.entry(user).or_default().push(reply);
        }
        if askers.is_empty() {
            continue;
        }
        let users: Vec<_> = askers.keys().copied().collect();
        let read = tokio::time::timeout(ANSWER, chats.standing(&users));
        match read.await.unwrap_or_else(|_| Err(late())) {
            Ok(Standing { positions, mut users }) => {
                let put_back = farthest.is_behind(&positions);
                let positions = Arc::new(positions);
                for (user, replies) in askers {
                    let chats = users.remove(&user).unwrap_or_default();
                    for reply in replies {
                        let stand =
                            Stand { positions: Arc::clone(&positions), chats: chats.clone(), put_back };
                        // Whoever asked may be gone.
                        let _ = reply.send(Ok(stand));
                    }
                }
            }
            Err(error) => {
                for reply in askers.into_values().flatten() {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::term::TermState;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_store_that_was_put_back_is_behind_until_it_is_where_it_was() {
        let mut farthest = Farthest::default();
        let position = |offset| Position { log: Uuid::nil(), offset, state: TermState::default() };
        let mut at = |one, other| farthest.is_behind(&[(0, position(one)), (1, position(other))]);
        assert_eq!([at(5, 7), at(5, 8)], [false; 2]);
        assert_eq!([at(4, 8), at(6, 2), at(0, 0), at(5, 7)], [true; 4]);
        assert_eq!([at(5, 8), at(9, 9), at(8, 9)], [false, false, true]);
        assert!(farthest.is_behind(&[]));
    }
}
