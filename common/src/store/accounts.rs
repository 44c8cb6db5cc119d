//! What accounts are, whichever engine keeps them: applications, users, and their sign-ins.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use rand::RngCore;
use uuid::Uuid;

use super::Result;
use crate::{
    applications::AppSettings,
    ids::{AppId, SessionId, UserId},
    model::UserView,
    time::Millis,
};

/// How long after its token's expiry a revocation is kept: clocks of nodes differ, and tokens are accepted some seconds late.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(3600);

/// Most sign-ins that one answer lists.
pub(super) const SIGN_INS: i64 = 100;

/// Most revocations that one answer lists.
pub(super) const REVOCATIONS: i64 = 1_000;

/// Bytes of a secret that signs tokens: as many as HS256's hash has (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

/// Digits of the id in the name of who has none: enough to tell the members of a chat apart.
const UNNAMED_DIGITS: usize = 6;

/// A user's row.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The public id.
    pub id: UserId,
    /// The sign-in name, as given. Unique in its application without regard to case.
    pub username: String,
    /// The name to show.
    pub name: String,
    /// Their picture: an attachment's id, or an address on the web.
    pub avatar: Option<String>,
    /// Never shown to others.
    pub mobile_number: Option<String>,
    /// IANA name.
    pub timezone: Option<String>,
    /// When the user registered.
    pub created_at: Millis,
    /// Argon2id, in PHC form; empty, which no password has, of who comes with tokens of their application's own.
    pub password_hash: String,
}

impl User {
    /// One who signs in with no password.
    pub fn without_password(id: UserId, username: String, name: String, created_at: Millis) -> Self {
        Self {
            id,
            username,
            name,
            avatar: None,
            mobile_number: None,
            timezone: None,
            created_at,
            password_hash: String::new(),
        }
    }

    /// What is shown of a user for whom no name was given: what else they are called is nobody else's to see (ID-4), and may be a mail address. They
    /// may name themselves.
    pub fn unnamed(id: UserId) -> String {
        let id = id.to_string();
        format!("User {}", id.get(..UNNAMED_DIGITS).unwrap_or(&id))
    }

    /// Whether they sign in with one.
    pub fn has_password(&self) -> bool {
        !self.password_hash.is_empty()
    }
}

impl fmt::Debug for User {
    /// Without what nobody else may see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A sign-in's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// The device's name, as given.
    pub device: Option<String>,
    /// Since when.
    pub created_at: Millis,
    /// Until when its token is good.
    pub expires_at: Millis,
}

/// A sign-in that was ended before its token expired, or all of a user's. Numbered, so that nodes poll for what is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its number, from 1. A row is seen only after every row with a lower number.
    pub no: u64,
    /// The application.
    pub app: AppId,
    /// Whose.
    pub user: UserId,
    /// Which; [`SessionId::every`]: all of them.
    pub session: SessionId,
    /// Until when it matters: the token's own expiry.
    pub expires_at: Millis,
}

/// An application's row.
#[derive(Clone, PartialEq)]
pub struct Application {
    /// Its id, also the issuer of its tokens.
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// The secret that signs the tokens of its users (HS256).
    pub token_secret: Vec<u8>,
    /// The name of that secret in a token's `kid`.
    pub token_kid: String,
    /// What it has chosen.
    pub settings: Arc<AppSettings>,
}

impl fmt::Debug for Application {
    /// Without its secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("token_kid", &self.token_kid)
            .finish_non_exhaustive()
    }
}

/// Users and their sign-ins.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Every application that was not erased, in order of their ids.
    async fn applications(&self) -> Result<Vec<Application>>;

    /// How often applications were made or changed: it grows with each time, and whoever has read it reads at least that change.
    async fn application_changes(&self) -> Result<u64>;

    /// Adds an application; `false` when there is one with its id.
    async fn add_application(&self, application: &Application) -> Result<bool>;

    /// Gives an application another name and other settings; its secret stays. `false`, and nothing is changed, when there is no such one, or when
    /// applications were made or changed after `seen`, as [`Accounts::application_changes`] was before this one was read: whoever merges what there is
    /// with what is wanted reads it again then.
    async fn update_application(
        &self,
        app: AppId,
        name: &str,
        settings: &AppSettings,
        seen: u64,
    ) -> Result<bool>;

    /// A secret of the cluster, made from `fresh` when there is none of that name. Whoever asks first decides; all get the same.
    async fn cluster_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>>;

    /// Adds a user; `false` when the username is taken, or the id, be it by somebody who was erased.
    async fn add_user(&self, app: AppId, user: &User) -> Result<bool>;

    /// The user with this sign-in name.
    async fn user_by_username(&self, app: AppId, username: &str) -> Result<Option<User>>;

    /// The user with this id; none when they were erased.
    async fn user(&self, app: AppId, id: UserId) -> Result<Option<User>>;

    /// Those of `ids` that exist and were not erased, in no order. One query, up to 1,000 ids.
    async fn users(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserView>>;

    /// Adds a sign-in; `false` when its user was erased, be it at the same moment.
    async fn add_sign_in(&self, app: AppId, sign_in: &SignIn) -> Result<bool>;

    /// The user's sign-ins that are neither ended nor expired, newest first, at most 100.
    async fn sign_ins(&self, app: AppId, user: UserId, now: Millis) -> Result<Vec<SignIn>>;

    /// Ends a sign-in of `user` and numbers the revocation, in one transaction, with the browsers that came with it; `false` when there is no such one (any more).
    async fn end_sign_in(&self, app: AppId, user: UserId, session: SessionId) -> Result<bool>;

    /// Revocations after number `after` that still matter at `now`, in order, at most 1,000.
    async fn revocations(&self, after: u64, now: Millis) -> Result<Vec<Revocation>>;
}

/// What two spellings of one user name have in common.
pub(super) fn fold(username: &str) -> String {
    username.to_lowercase()
}

/// A revocation is kept at `now` when its token expires after this.
pub(super) fn kept_after(now: Millis) -> Millis {
    now.minus(KEPT_AFTER_EXPIRY)
}

/// Settings as their column has them.
pub(super) fn settings_column(settings: &AppSettings) -> String {
    // Texts, numbers and lists always have a JSON form.
    serde_json::to_string(settings).unwrap_or_else(|_| "{}".to_owned())
}

/// A new secret that signs tokens, and its name.
pub(super) fn token_secret() -> (Vec<u8>, String) {
    let mut secret = vec![0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    let mut kid = Uuid::new_v4().as_simple().to_string();
    kid.truncate(8);
    (secret, kid)
}
