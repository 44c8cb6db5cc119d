//! What applications have chosen, in memory: read by every request and every decision without asking the store, and read anew within
//! seconds when an operator changes it.
//!
//! Here: [`AppSettings`], the choices, and [`Applications`], what is known of them. Which tokens count is [`crate::token`]'s.

mod content;
mod settings;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Mutex, Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use self::content::{Content, Screened};
pub use self::settings::{
    Algorithm, AppSettings, KeyMark, Links, MAX_BYTES, MAX_KEYS, MAX_WORDS, MessageRate,
    NotificationSettings, PolicyAction, Retention, VerificationKey, Words,
};
use crate::{
    ids::AppId,
    store::{self, Application, SharedStore, StoreError, in_time},
    token::Tokens,
};

/// How often the store is asked whether something changed: one number, by its key.
const POLL: Duration = Duration::from_secs(1);

/// How long until the store is asked again for the sake of whoever comes with a key that is not known: whatever strangers make up, it is asked 10
/// times a second at most.
const REST: Duration = Duration::from_millis(100);

/// Applications of one cluster: 1,000 of the largest settings are 64 MiB on every node, of usual ones 1 MiB.
pub const MAX_APPLICATIONS: usize = 1_000;

/// What is known of all applications. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Applications(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: ArcSwap<Known>,
    hint: Notify,
    /// Held over a reading, so that an older one does not come after a newer.
    looking: Mutex<()>,
    /// When the last look of [`Applications::look_anew`] began, and whether the store answered; none when nobody waited for that.
    looked_anew: Mutex<Option<(Instant, Option<bool>)>>,
    /// Whose keys follow what is read.
    tokens: OnceLock<Tokens>,
    /// Says when something else is known.
    news: watch::Sender<()>,
}

/// One reading of the store.
#[derive(Debug, Default)]
struct Known {
    /// The change that it includes; none when nothing was read.
    change: Option<u64>,
    applications: HashMap<AppId, Arc<Application>>,
    /// What their settings say about what messages say.
    content: HashMap<AppId, Arc<Content>>,
    /// The keys that their users' tokens may be signed with.
    keys: HashSet<(AppId, KeyMark)>,
}

impl Known {
    fn new(change: u64, applications: Vec<Application>) -> Self {
        let content =
            applications.iter().map(|one| (one.id, Arc::new(Content::new(&one.settings)))).collect();
        let keys = applications
            .iter()
            .flat_map(|one| one.settings.keys.iter().map(|key| (one.id, key.mark())))
            .collect();
        let applications = applications.into_iter().map(|one| (one.id, Arc::new(one))).collect();
        Self { change: Some(change), applications, content, keys }
    }
}

impl Default for Applications {
    /// None is known; the first [`Applications::look`] reads them.
    fn default() -> Self {
        Self::of(ArcSwap::default())
    }
}

impl Applications {
    /// These, until they are looked up.
    pub fn fixed(applications: Vec<Application>) -> Self {
        let known = ArcSwap::from_pointee(Known::new(0, applications));
        Self::of(known)
    }

    fn of(known: ArcSwap<Known>) -> Self {
        Self(Arc::new(Inner {
            known,
            hint: Notify::new(),
            looking: Mutex::default(),
            looked_anew: Mutex::default(),
            tokens: OnceLock::new(),
            news: watch::Sender::new(()),
        }))
    }

    /// As the store has them. Asks again until it answers; none when `shutdown` came first.
    pub async fn load(store: &SharedStore, shutdown: &CancellationToken) -> Option<Self> {
        let known = store::until_answered("applications", shutdown, async || read(store).await).await?;
        let known = ArcSwap::from_pointee(known);
        Some(Self::of(known))
    }

    /// From now on the keys of `tokens` are those of the applications as they are known here.
    pub fn keep_keys(&self, tokens: &Tokens) {
        let tokens = self.0.tokens.get_or_init(|| tokens.clone());
        tokens.replace(self.0.known.load().applications.values().map(Arc::as_ref));
    }

    /// Looks each second, and when hinted, whether something changed, until `shutdown`. While the store is silent, what is known goes on
    /// counting.
    pub async fn run(self, store: SharedStore, shutdown: CancellationToken) {
        let look = async || self.look(&store).await.map(drop);
        store::follow("applications", POLL, &self.0.hint, &shutdown, look).await;
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
        let _one_at_a_time = self.0.looking.lock().await;
        let change = in_time(store.application_changes()).await?;
        if Some(change) == self.0.known.load().change {
            return Ok(false);
        }
        let known = Arc::new(in_time(read(store)).await?);
        // Before their keys: whose token is good is let in as their application has it.
        self.0.known.store(Arc::clone(&known));
        if let Some(tokens) = self.0.tokens.get() {
            tokens.replace(known.applications.values().map(Arc::as_ref));
        }
        self.0.news.send_replace(());
        Ok(true)
    }

    /// Reads anew what had changed when this was called, with everybody else who has called it meanwhile, and [`REST`] after the last time at the
    /// soonest.
    ///
    /// # Errors
    /// As the store's.
    pub async fn look_anew(&self, store: &SharedStore) -> Result<(), StoreError> {
        let called = Instant::now();
        let mut looked = self.0.looked_anew.lock().await;
        match *looked {
            Some((begun, Some(true))) if begun >= called => return Ok(()),
            // Nobody waits for the same silence twice.
            Some((begun, Some(false))) if begun >= called => {
                return Err(StoreError::Unavailable("no answer".into()));
            }
            Some((begun, _)) => sleep_until(begun + REST).await,
            None => {}
        }
        let begun = Instant::now();
        // Whoever asks may go away meanwhile, and that is a look all the same.
        *looked = Some((begun, None));
        let looking = self.look(store).await;
        *looked = Some((begun, Some(looking.is_ok())));
        looking.map(drop)
    }

    /// Hears of each change once it counts here.
    pub fn news(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    /// Whether the application takes tokens that were signed so: by that key of its own choice, or without one by ours.
    pub fn takes(&self, app: AppId, signed_by: Option<KeyMark>) -> bool {
        let known = self.0.known.load();
        match signed_by {
            Some(key) => known.keys.contains(&(app, key)),
            None => known.applications.contains_key(&app),
        }
    }

    /// An application, if there is such a one.
    pub fn get(&self, app: AppId) -> Option<Arc<Application>> {
        self.0.known.load().applications.get(&app).cloned()
    }

    /// Likewise, with the change that what is known includes at least; none when nothing was read.
    pub fn get_as_of(&self, app: AppId) -> Option<(u64, Arc<Application>)> {
        let known = self.0.known.load();
        Some((known.change?, known.applications.get(&app).cloned()?))
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<Application>> {
        self.0.known.load().applications.values().cloned().collect()
    }

    /// An application's policies about what messages say.
    pub fn content(&self, app: AppId) -> Arc<Content> {
        self.0.known.load().content.get(&app).cloned().unwrap_or_default()
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

    async fn store(folder: &tempfile::TempDir) -> SharedStore {
        Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap())
    }

    #[tokio::test]
    async fn who_asks_about_what_is_not_known_shares_a_look_with_others_and_strangers_cannot_have_many() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let applications = Applications::load(&store, &CancellationToken::new()).await.unwrap();
        let look = async || applications.look_anew(&store).await.unwrap();
        let change = async |contacts_only: bool| {
            let settings = AppSettings { contacts_only, ..AppSettings::default() };
            let seen = store.application_changes().await.unwrap();
            assert!(store.update_application(AppId::DEFAULT, "default", &settings, seen).await.unwrap());
        };
        change(true).await;
        let begun = Instant::now();
        look().await;
        assert!(applications.settings(AppId::DEFAULT).contacts_only, "known at once");

        // One after another they wait, and each sees what was there when it came.
        for at in 0..5 {
            change(at % 2 == 1).await;
            look().await;
            assert_eq!(applications.settings(AppId::DEFAULT).contacts_only, at % 2 == 1);
        }
        assert!(begun.elapsed() >= 5 * REST, "{:?}", begun.elapsed());
        // Together they wait for one look, or for that under way and the next one.
        let begun = Instant::now();
        futures_util::future::join_all((0..1_000).map(|_| look())).await;
        assert!(begun.elapsed() < 10 * REST, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_change_of_an_application_is_known_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let stop = CancellationToken::new();
        let applications = Applications::load(&store, &stop).await.unwrap();
        assert_eq!(*applications.settings(AppId::DEFAULT), AppSettings::default());
        assert_eq!(*applications.settings(AppId::random()), AppSettings::default());
        assert!(!applications.look(&store).await.unwrap(), "nothing has changed");

        let running = tokio::spawn(applications.clone().run(Arc::clone(&store), stop.clone()));
        let settings = AppSettings { contacts_only: true, ..AppSettings::default() };
        let seen = store.application_changes().await.unwrap();
        assert!(store.update_application(AppId::DEFAULT, "default", &settings, seen).await.unwrap());
        applications.hint();
        while !applications.settings(AppId::DEFAULT).contacts_only {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        running.await.unwrap();
    }
}
