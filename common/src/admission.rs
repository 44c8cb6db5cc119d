//! Who comes with a token that their application signed itself: a user who is known, or becomes one at first sight if the application says
//! so (ID-6). Whose token is ours signed in, and so is known.

use std::{fmt, sync::Arc, time::Duration};

use moka::sync::Cache;
use tokio::time::timeout;

use crate::{
    applications::Applications,
    ids::UserKey,
    model::limits,
    problem::Problem,
    store::{SharedStore, User},
    time::Millis,
    token::{Presented, Subject, Tokens},
    wire::codes::ErrorCode,
};

/// Users that are remembered as known: of 100 bytes, 5 MB.
const KNOWN: u64 = 50_000;

/// For how long: so long may somebody who is no user any more still be one here.
const REMEMBERED: Duration = Duration::from_secs(30);

/// How long a key that is not known is looked up.
const LOOKED_UP_IN: Duration = Duration::from_secs(1);

/// Lets users in. Cheap to clone.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    store: SharedStore,
    applications: Applications,
    known: Cache<UserKey, ()>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

impl Admission {
    /// For the applications as they are known.
    pub fn new(store: SharedStore, applications: Applications) -> Self {
        let known = Cache::builder().max_capacity(KNOWN).time_to_live(REMEMBERED).build();
        Self(Arc::new(Inner { store, applications, known }))
    }

    /// What a token says, if it is good by `tokens`, which are the applications' own. One whose key is not known is looked up before it is refused:
    /// the application, or the key, may have been made on another node a moment ago. Strangers who make up keys wait with everybody who does
    /// ([`Applications::look_anew`]). While the store is silent it is not good: only those that it says are.
    pub async fn present(&self, tokens: &Tokens, token: &str, now: Millis) -> Option<Presented> {
        if let Ok(presented) = tokens.present(token, now) {
            return Some(presented);
        }
        if !tokens.names_unknown_key(token) {
            return None;
        }
        match timeout(LOOKED_UP_IN, self.0.applications.look_anew(&self.0.store)).await {
            Ok(Ok(())) => tokens.present(token, now).ok(),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Lets the bearer of a good token in.
    ///
    /// # Errors
    /// `unauthenticated` for who is no user and does not become one, `retry_later`.
    pub async fn admit(&self, presented: &Presented, now: Millis) -> Result<(), Problem> {
        let Some(subject) = &presented.foreign else { return Ok(()) };
        let key = UserKey { app: presented.caller.app, user: presented.caller.user };
        if self.0.known.contains_key(&key) {
            return Ok(());
        }
        if !self.exists(key).await? {
            if !self.0.applications.settings(key.app).register_on_first_sight {
                return Err(Problem::new(
                    ErrorCode::Unauthenticated,
                    "the token is good, and there is no such user here",
                ));
            }
            self.register(key, subject, now).await?;
        }
        self.0.known.insert(key, ());
        Ok(())
    }

    async fn exists(&self, UserKey { app, user }: UserKey) -> Result<bool, Problem> {
        Ok(!self.0.store.users(app, &[user]).await?.is_empty())
    }

    async fn register(&self, key: UserKey, subject: &Subject, now: Millis) -> Result<(), Problem> {
        let Subject { subject, name } = subject;
        let name = name.as_deref().map(readable).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| User::unnamed(key.user));
        // By the name that its application has for the user; when somebody else has that, by the id, which nobody else has.
        for username in [subject.clone(), key.user.to_string()] {
            let user = User::without_password(key.user, username, name.clone(), now);
            let added = self.0.store.add_user(key.app, &user).await;
            // Two that come at once for the first time: one of them makes the user, for both.
            if matches!(added, Ok(true)) || self.exists(key).await? {
                return Ok(());
            }
            added?;
        }
        Err(Problem::new(ErrorCode::Unauthenticated, "the token is good, and its user was erased"))
    }
}

/// As much of a name as may be shown.
fn readable(name: &str) -> String {
    let name: String = name.chars().filter(|char| !char.is_control()).take(limits::NAME_CHARS).collect();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        applications::AppSettings,
        ids::{AppId, SessionId, UserId},
        model::PageRequest,
        store::{Application, sqlite::Sqlite},
        token::Caller,
    };

    #[tokio::test]
    async fn id_4_what_an_application_calls_its_user_is_shown_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let settings = AppSettings { register_on_first_sight: true, ..AppSettings::default() };
        let application = Application {
            id: AppId::random(),
            name: "School".into(),
            token_secret: vec![7; 32],
            token_kid: "k1".into(),
            settings: Arc::new(settings),
        };
        let app = application.id;
        let admission = Admission::new(Arc::clone(&store), Applications::fixed(vec![application]));
        let comes = async |subject: &str, name: Option<&str>| {
            let user = UserId::called(app, subject);
            let session = SessionId::random();
            let caller = Caller { app, user, session, expires_at: Millis(i64::MAX), signed_by: None };
            let subject = Subject { subject: subject.into(), name: name.map(str::to_owned) };
            admission.admit(&Presented { caller, foreign: Some(subject) }, Millis(1)).await.unwrap();
            store.user(app, user).await.unwrap().unwrap()
        };
        for (subject, name) in
            [("ana.diaz@school.example", None), ("eve@school.example", Some(" \u{7} ")), ("7", Some(""))]
        {
            let user = comes(subject, name).await;
            assert_eq!(user.username, subject, "known by it to the application, and to oneself");
            assert_eq!(user.name, format!("User {}", &user.id.to_string()[..6]));
        }
        assert_eq!(comes("ben@school.example", Some(" Ben ")).await.name, "Ben");
        let page = PageRequest { page: 1, per_page: 10 };
        for query in ["ana", "diaz", "school", "example"] {
            assert_eq!(store.find_people(app, query, page).await.unwrap().results, [], "{query}");
        }
    }
}
