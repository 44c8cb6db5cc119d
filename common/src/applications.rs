//! What applications have chosen, in memory: read by every request and every decision without asking the store, and read anew within
//! seconds when an operator changes it.
//!
//! Here: [`AppSettings`], the choices, and [`Applications`], what is known of them. Which tokens count is [`crate::token`]'s.

mod settings;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::settings::{
    Algorithm, AppSettings, Links, MAX_BYTES, MAX_KEYS, MAX_WORDS, MessageRate, PolicyAction, Retention,
    VerificationKey, Words,
};
use crate::{
    ids::AppId,
    store::{self, Application, SharedStore, StoreError},
};

/// How often the store is asked whether something changed: one number, by its key.
const POLL: Duration = Duration::from_secs(1);

/// How long the store has to answer before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Applications of one cluster: 1,000 of the largest settings are 64 MiB on every node, of usual ones 1 MiB.
pub const MAX_APPLICATIONS: usize = 1_000;

/// What is known of all applications. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Applications(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: ArcSwap<Known>,
    hint: Notify,
}

/// One reading of the store.
#[derive(Debug, Default)]
struct Known {
    /// The change that it includes.
    change: u64,
    applications: HashMap<AppId, Arc<Application>>,
}

impl Known {
    fn new(change: u64, applications: Vec<Application>) -> Self {
        let applications = applications.into_iter().map(|one| (one.id, Arc::new(one))).collect();
        Self { change, applications }
    }
}

impl Applications {
    /// These, for ever.
    pub fn fixed(applications: Vec<Application>) -> Self {
        let known = ArcSwap::from_pointee(Known::new(0, applications));
        Self(Arc::new(Inner { known, hint: Notify::new() }))
    }

    /// As the store has them. Asks again until it answers; none when `shutdown` came first.
    pub async fn load(store: &SharedStore, shutdown: &CancellationToken) -> Option<Self> {
        let known = store::until_answered("applications", shutdown, async || read(store).await).await?;
        Some(Self(Arc::new(Inner { known: ArcSwap::from_pointee(known), hint: Notify::new() })))
    }

    /// Looks each second, and when hinted, whether something changed, until `shutdown`. While the store is silent, what is known goes on
    /// counting.
    pub async fn run(self, store: SharedStore, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
                () = self.0.hint.notified() => {}
            }
            let looked = tokio::select! {
                () = shutdown.cancelled() => return,
                looked = self.look(&store) => looked,
            };
            if let Err(error) = looked {
                tracing::warn!(%error, "applications not read: what is known goes on counting");
            }
        }
    }

    /// Look now.
    pub fn hint(&self) {
        self.0.hint.notify_one();
    }

    /// Reads anew what has changed; whether anything had.
    ///
    /// # Errors
    /// As the store's.
    pub async fn look(&self, store: &SharedStore) -> Result<bool, StoreError> {
        let late = || StoreError::Unavailable("no answer".into());
        let change =
            tokio::time::timeout(PATIENCE, store.application_changes()).await.map_err(|_| late())??;
        if change == self.0.known.load().change {
            return Ok(false);
        }
        let known = tokio::time::timeout(PATIENCE, read(store)).await.map_err(|_| late())??;
        self.0.known.store(Arc::new(known));
        Ok(true)
    }

    /// An application, if there is such a one.
    pub fn get(&self, app: AppId) -> Option<Arc<Application>> {
        self.0.known.load().applications.get(&app).cloned()
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<Application>> {
        self.0.known.load().applications.values().cloned().collect()
    }

    /// What an application has chosen; of one that is not known, what nobody has chosen otherwise.
    pub fn settings(&self, app: AppId) -> Arc<AppSettings> {
        self.get(app).map_or_else(Arc::default, |known| Arc::clone(&known.settings))
    }
}

async fn read(store: &SharedStore) -> Result<Known, StoreError> {
    // First the count: what is read then includes that change at least, and a later one is read again.
    let change = store.application_changes().await?;
    Ok(Known::new(change, store.applications().await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    #[tokio::test]
    async fn a_change_of_an_application_is_known_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let stop = CancellationToken::new();
        let applications = Applications::load(&store, &stop).await.unwrap();
        assert_eq!(*applications.settings(AppId::DEFAULT), AppSettings::default());
        assert_eq!(*applications.settings(AppId::random()), AppSettings::default());
        assert!(!applications.look(&store).await.unwrap(), "nothing has changed");

        let running = tokio::spawn(applications.clone().run(Arc::clone(&store), stop.clone()));
        let settings = AppSettings { contacts_only: true, ..AppSettings::default() };
        assert!(store.update_application(AppId::DEFAULT, "default", &settings).await.unwrap());
        applications.hint();
        while !applications.settings(AppId::DEFAULT).contacts_only {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        running.await.unwrap();
    }
}
