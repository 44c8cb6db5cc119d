//! Sign-ins that were ended before their token expired. Every service that checks tokens polls the store's numbered rows;
//! a hint makes it look at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{AppId, SessionId},
    store::{Revocation, SharedStore, StoreError},
    time::Millis,
    token::LEEWAY,
};

/// How often the store is asked. An ended sign-in is refused everywhere within a second (ID-2), the query included.
const POLL: Duration = Duration::from_millis(500);

/// The least time between two questions, however many hints come: a hint waits this long at most, and a burst of them costs 20 small
/// queries a second.
const HINT_GAP: Duration = Duration::from_millis(50);

/// How long the store has to answer before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after a token's expiry its revocation matters, here and when it is asked for: the token's leeway, and what this machine's clock may
/// be ahead of the cluster's, by which tokens are checked. Machines whose clocks are kept differ by far less than these 5 minutes. It costs
/// some rows more.
const KEEP: Duration = LEEWAY.saturating_add(Duration::from_secs(300));

/// Rows in one answer of the store: a full one has a successor.
const PAGE: usize = 1_000;

/// How many a subscriber may be behind. Two pages: more at once means that it compares what it holds with all that is known.
const SUBSCRIBER_QUEUE: usize = 2 * PAGE;

/// What is known of ended sign-ins. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Revocations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: SharedStore,
    /// Ended sign-ins and until when they matter. As many rows as the store has that still do.
    ended: RwLock<HashMap<(AppId, SessionId), Millis>>,
    /// The number of the last row seen. Held over a question, so that two never run at once.
    last: Mutex<u64>,
    hint: Notify,
    news: broadcast::Sender<Revocation>,
}

impl Revocations {
    /// Reads all that still matter, so that nothing revoked is let in at start. Retries until the store answers; none when `shutdown`
    /// came first.
    pub async fn load(store: SharedStore, shutdown: &CancellationToken) -> Option<Self> {
        let (news, _) = broadcast::channel(SUBSCRIBER_QUEUE);
        let revocations = Self(Arc::new(Inner {
            store,
            ended: RwLock::default(),
            last: Mutex::new(0),
            hint: Notify::new(),
            news,
        }));
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return None,
                outcome = revocations.look(Millis::now()) => outcome,
            };
            match outcome {
                Ok(()) => return Some(revocations),
                Err(error) => tracing::warn!(%error, "revocations not loaded: asking again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Polls twice each second, and when hinted, until `shutdown`. What is past its token's expiry is forgotten. While the store is
    /// silent, what is known goes on counting.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            let gap = tokio::time::sleep(HINT_GAP);
            let next = async {
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = async { tokio::join!(self.0.hint.notified(), gap); } => {}
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = next => {}
            }
            let now = Millis::now();
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.look(now) => outcome,
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "revocations not read: what is known goes on counting");
            }
            self.forget(now);
        }
    }

    /// Whether this sign-in was ended.
    pub fn contains(&self, app: AppId, session: SessionId) -> bool {
        self.0.ended.read().contains_key(&(app, session))
    }

    /// Look now.
    pub fn hint(&self) {
        self.0.hint.notify_one();
    }

    /// Each newly seen one; [`Self::contains`] knows it by then. A receiver that lags must compare what it holds with it.
    pub fn subscribe(&self) -> broadcast::Receiver<Revocation> {
        self.0.news.subscribe()
    }

    /// Reads what is new, to the end.
    async fn look(&self, now: Millis) -> Result<(), StoreError> {
        let mut last = self.0.last.lock().await;
        let since = Millis(now.0.saturating_sub(i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX)));
        loop {
            let rows = tokio::time::timeout(PATIENCE, self.0.store.revocations(*last, since))
                .await
                .map_err(|_| StoreError::Unavailable("no answer".into()))??;
            let full = rows.len() >= PAGE;
            let before = *last;
            *last = rows.iter().map(|row| row.no).fold(before, u64::max);
            self.absorb(rows);
            if !full || *last == before {
                return Ok(());
            }
        }
    }

    fn absorb(&self, rows: Vec<Revocation>) {
        if rows.is_empty() {
            return;
        }
        let mut ended = self.0.ended.write();
        for row in &rows {
            ended.insert((row.app, row.session), row.expires_at);
        }
        drop(ended);
        for row in rows {
            // Nobody may be listening.
            let _ = self.0.news.send(row);
        }
    }

    fn forget(&self, now: Millis) {
        let over = |until: &Millis| until.plus(KEEP) < now;
        // Looking needs no writer: mostly there is nothing to forget.
        if self.0.ended.read().values().any(over) {
            self.0.ended.write().retain(|_, until| !over(until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::UserId,
        store::{SignIn, User, sqlite::Sqlite},
    };

    /// How far the machine's clock is ahead.
    const AHEAD: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_machine_whose_clock_is_ahead_refuses_an_ended_sign_in_for_as_long_as_its_token_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        // By the cluster's clock the token is still good, and will be for its leeway.
        let now = Millis::now();
        let cluster = Millis(now.0 - i64::try_from(AHEAD.as_millis()).unwrap());
        let (app, user, session) = (AppId::DEFAULT, UserId::random(), SessionId::random());
        let row = User {
            id: user,
            username: "ana".into(),
            name: "Ana".into(),
            mobile_number: None,
            timezone: None,
            created_at: cluster,
            password_hash: String::new(),
        };
        assert!(store.add_user(app, &row).await.unwrap());
        let sign_in = SignIn { id: session, user, device: None, created_at: cluster, expires_at: cluster };
        store.add_sign_in(app, &sign_in).await.unwrap();
        assert!(store.end_sign_in(app, user, session).await.unwrap());

        let revocations = Revocations::load(store, &CancellationToken::new()).await.unwrap();
        assert!(revocations.contains(app, session));
        revocations.forget(now.plus(LEEWAY));
        assert!(revocations.contains(app, session));
        revocations.forget(cluster.plus(KEEP).plus(Duration::from_millis(1)));
        assert!(!revocations.contains(app, session), "nothing is kept for ever");
    }
}
