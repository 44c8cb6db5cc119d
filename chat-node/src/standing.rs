//! Where users stand, asked of the store for all who ask at the same time with one question: a storm of sessions that come back is a
//! handful of queries.

use std::{collections::HashMap, sync::Arc, time::Duration};

use common::{
    ids::{Partition, UserKey},
    store::{Chats, Position, Standing, StoreError, UserChats},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Users in one question: 50 chats each are 25,000 rows, some 50 ms.
const TOGETHER: usize = 500;
/// Questions that wait: every session of a node. When it is full the askers wait.
const WAITING: usize = 20_000;
/// How long the store may take for one question.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Where one user stands.
#[derive(Clone, Debug)]
pub(crate) struct Stand {
    /// How far the writers were at that instant.
    pub(crate) positions: Arc<Vec<(Partition, Position)>>,
    /// The user's chats.
    pub(crate) chats: UserChats,
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
    while asked.recv_many(&mut questions, TOGETHER).await > 0 {
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
                let positions = Arc::new(positions);
                for (user, replies) in askers {
                    let chats = users.remove(&user).unwrap_or_default();
                    for reply in replies {
                        let stand = Stand { positions: Arc::clone(&positions), chats: chats.clone() };
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
