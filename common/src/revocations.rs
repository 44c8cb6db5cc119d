//! Sign-ins that were ended before their token expired. Every service that checks tokens polls the store's numbered rows;
//! a hint makes it look at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{AppId, SessionId, UserKey},
    store::{self, Revocation, SharedStore, StoreError, in_time},
    time::Millis,
    token::LEEWAY,
};

/// How often the store is asked. An ended sign-in is refused everywhere within a second (ID-2), the query included.
const POLL: Duration = Duration::from_millis(500);

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
    /// The newest row seen. Held over a question, so that two never run at once.
    last: Mutex<Option<Seen>>,
    hint: Notify,
    news: broadcast::Sender<Revocation>,
}

/// A row. A number alone does not name one: of a store that was put back to an earlier state, it may be given a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    no: u64,
    session: SessionId,
}

impl Seen {
    fn of(row: &Revocation) -> Self {
        Self { no: row.no, session: row.session }
    }
}

impl Revocations {
    /// Reads all that still matter, so that nothing revoked is let in at start. Retries until the store answers; none when `shutdown`
    /// came first.
    pub async fn load(store: SharedStore, shutdown: &CancellationToken) -> Option<Self> {
        let (news, _) = broadcast::channel(SUBSCRIBER_QUEUE);
        let revocations = Self(Arc::new(Inner {
            store,
            ended: RwLock::default(),
            last: Mutex::new(None),
            hint: Notify::new(),
            news,
        }));
        let look = async || revocations.look(Millis::now()).await;
        store::until_answered("revocations", shutdown, look).await?;
        Some(revocations)
    }

    /// Polls twice each second, and when hinted, until `shutdown`. What is past its token's expiry is forgotten. While the store is
    /// silent, what is known goes on counting.
    pub async fn run(self, shutdown: CancellationToken) {
        let look = async || {
            let now = Millis::now();
            let looked = self.look(now).await;
            self.forget(now);
            looked
        };
        store::follow("revocations", POLL, &self.0.hint, &shutdown, look).await;
    }

    /// Whether this sign-in of the user was ended, be it with all of theirs.
    pub fn contains(&self, UserKey { app, user }: UserKey, session: SessionId) -> bool {
        let ended = self.0.ended.read();
        [session, SessionId::every(app, user)].iter().any(|session| ended.contains_key(&(app, *session)))
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
        let since = now.minus(KEEP);
        loop {
            // The newest row seen should come once more.
            let after = last.map_or(0, |seen| seen.no.saturating_sub(1));
            let rows = in_time(self.0.store.revocations(after, since)).await?;
            if last.is_some() && *last != rows.first().map(Seen::of) {
                // It matters no more; or the store was put back to an earlier state, and what it counts next was counted before. So
                // all that there is counts.
                *last = None;
                continue;
            }
            let full = rows.len() >= PAGE;
            *last = rows.last().map(Seen::of);
            self.absorb(rows);
            if !full {
                return Ok(());
            }
        }
    }

    fn absorb(&self, mut rows: Vec<Revocation>) {
        let known = self.0.ended.read();
        rows.retain(|row| !known.contains_key(&(row.app, row.session)));
        drop(known);
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

    fn key(user: UserId) -> UserKey {
        UserKey { app: AppId::DEFAULT, user }
    }

    /// Somebody who signed in and out.
    async fn ended(store: &SharedStore, user: UserId, expires_at: Millis) -> SessionId {
        let session = SessionId::random();
        let sign_in = SignIn { id: session, user, device: None, created_at: expires_at, expires_at };
        store.add_sign_in(AppId::DEFAULT, &sign_in).await.unwrap();
        assert!(store.end_sign_in(AppId::DEFAULT, user, session).await.unwrap());
        session
    }

    async fn with_user(folder: &std::path::Path, user: UserId, created_at: Millis) -> SharedStore {
        let store: SharedStore = Arc::new(Sqlite::open(&folder.join("store.db")).await.unwrap());
        let row = User::without_password(user, "ana".into(), "Ana".into(), created_at);
        assert!(store.add_user(AppId::DEFAULT, &row).await.unwrap());
        store
    }

    #[tokio::test]
    async fn a_store_that_was_put_back_to_an_earlier_state_hides_no_sign_in_that_is_ended_after_that() {
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (user, now) = (UserId::random(), Millis::now());
        let store = with_user(before.path(), user, now).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(ended(&store, user, now).await);
        }
        let revocations = Revocations::load(store, &CancellationToken::new()).await.unwrap();
        let last = *revocations.0.last.lock().await;
        assert_eq!(last.map(|seen| seen.no), Some(3));

        // As it was before any of them: what is ended now has numbers that were seen, first fewer, then as many.
        let store = with_user(after.path(), user, now).await;
        let inner = Inner {
            store: store.clone(),
            ended: RwLock::new(revocations.0.ended.read().clone()),
            last: Mutex::new(last),
            hint: Notify::new(),
            news: broadcast::channel(SUBSCRIBER_QUEUE).0,
        };
        let revocations = Revocations(Arc::new(inner));
        let mut news = revocations.subscribe();
        for _ in 0..4 {
            seen.push(ended(&store, user, now).await);
            revocations.look(now).await.unwrap();
            assert_eq!(news.recv().await.unwrap().session, seen[seen.len() - 1]);
        }
        assert!(news.is_empty(), "each is told of once");
        assert!(seen.iter().all(|session| revocations.contains(key(user), *session)));

        revocations.0.last.lock().await.take();
        revocations.look(now).await.unwrap();
        assert!(news.is_empty(), "each is told of once");
    }

    #[tokio::test]
    async fn a_machine_whose_clock_is_ahead_refuses_an_ended_sign_in_for_as_long_as_its_token_is_good() {
        let folder = tempfile::tempdir().unwrap();
        // By the cluster's clock the token is still good, and will be for its leeway.
        let now = Millis::now();
        let cluster = Millis(now.0 - i64::try_from(AHEAD.as_millis()).unwrap());
        let user = UserId::random();
        let store = with_user(folder.path(), user, cluster).await;
        let session = ended(&store, user, cluster).await;

        let revocations = Revocations::load(store, &CancellationToken::new()).await.unwrap();
        assert!(revocations.contains(key(user), session));
        revocations.forget(now.plus(LEEWAY));
        assert!(revocations.contains(key(user), session));
        revocations.forget(cluster.plus(KEEP).plus(Duration::from_millis(1)));
        assert!(!revocations.contains(key(user), session), "nothing is kept for ever");
    }
}
