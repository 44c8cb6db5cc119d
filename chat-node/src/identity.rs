//! Users and their sign-ins: rows in the store, and the tokens that stand for them.
//!
//! A sign-in ends in three steps: its row (numbered, so that every service sees it within a second), this node's own knowledge of it
//! (before the answer, so that the same token is refused here from then on), and a live hint that makes the others look at once.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use common::{
    cache::SharedCache,
    ids::{AppId, SessionId, UserId},
    model::{OwnUserView, SessionView, limits},
    problem::Problem,
    revocations::Revocations,
    store::{SharedStore, SignIn, StoreError, User},
    time::{self, Millis},
    token::{Caller, Tokens},
    wire::{
        client::FieldError,
        codes::ErrorCode,
        peer::{Live, Topic},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    attempts::{AttemptLimits, Attempts},
    auth::unauthenticated,
    check::Checks,
    commands::after_writing,
    control::Clock,
    passwords::{BadCost, PasswordCost, Passwords},
};

/// Characters of a username.
const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=64;

/// Bytes of a password. The upper bound keeps what is hashed small; it is far past what a person types.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;

/// Characters of a mobile number.
const MOBILE_CHARS: usize = 32;

/// Characters of a device's name that are kept: a browser calls itself by some 150.
const DEVICE_CHARS: usize = 200;

/// How long the answer to a sign-out waits for this node to know of it: the store is polled at least that often.
const REFUSED_HERE_WITHIN: Duration = Duration::from_secs(1);

/// How identity behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityConfig {
    /// How long a token is good.
    pub token_life: Duration,
    /// What hashing a password costs.
    pub password_cost: PasswordCost,
    /// How often one may try.
    pub attempts: AttemptLimits,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            token_life: Duration::from_secs(30 * 24 * 3600),
            password_cost: PasswordCost::default(),
            attempts: AttemptLimits::default(),
        }
    }
}

/// Tells every node that serves one of the topics something live, this one included. Must not block.
pub type Announce = Arc<dyn Fn(Vec<Topic>, Live) + Send + Sync>;

/// What identity stands on.
#[derive(Clone)]
pub struct IdentityParts {
    /// Users and sign-ins.
    pub store: SharedStore,
    /// Shared limits.
    pub cache: SharedCache,
    /// Signs.
    pub tokens: Tokens,
    /// What this node knows of ended sign-ins.
    pub revocations: Revocations,
    /// The time.
    pub clock: Clock,
    /// The live hint.
    pub announce: Announce,
}

/// Who wants to be a user. The body of `POST /api/v1/users`.
#[derive(Deserialize, JsonSchema)]
pub struct Registration {
    /// Of which application; the default one's when it is absent.
    #[serde(default)]
    pub(crate) application: Option<AppId>,
    username: String,
    password: String,
    name: String,
    #[serde(default)]
    mobile_number: Option<String>,
    #[serde(default)]
    timezone: Option<String>,
}

/// Who wants to sign in. The body of `POST /api/v1/sessions`.
#[derive(Deserialize, JsonSchema)]
pub struct Credentials {
    /// Of which application; the default one's when it is absent.
    #[serde(default)]
    pub(crate) application: Option<AppId>,
    username: String,
    password: String,
    #[serde(default)]
    device: Option<String>,
}

/// Who really means it. The body of `DELETE /api/v1/users/me`; users without a password leave it empty.
#[derive(Default, Deserialize, JsonSchema)]
pub struct Confirmation {
    #[serde(default)]
    password: Option<String>,
}

/// A new sign-in.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SignedIn {
    /// The token.
    pub token: String,
    /// Until when it is good.
    pub expires_at: Millis,
    /// Whose it is.
    pub user: OwnUserView,
}

/// Users and sign-ins. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    parts: Arc<IdentityParts>,
    passwords: Passwords,
    attempts: Attempts,
    token_life: Duration,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("token_life", &self.token_life).finish_non_exhaustive()
    }
}

impl Identity {
    /// Users and sign-ins over these parts.
    ///
    /// # Errors
    /// [`BadCost`] when the cost of passwords is not one.
    pub fn new(config: &IdentityConfig, parts: IdentityParts) -> Result<Self, BadCost> {
        Ok(Self {
            passwords: Passwords::new(config.password_cost)?,
            attempts: Attempts::new(parts.cache.clone(), config.attempts.clone()),
            token_life: config.token_life,
            parts: Arc::new(parts),
        })
    }

    /// Makes a user. `from` is the client's address, as far as it is known.
    ///
    /// # Errors
    /// `invalid` with the fields, `conflict` when the username is taken, `rate_limited`, `retry_later`, `unknown`.
    pub async fn register(
        &self,
        app: AppId,
        registration: Registration,
        from: Option<IpAddr>,
    ) -> Result<OwnUserView, Problem> {
        registration.check()?;
        self.attempts.from(app, from, self.parts.clock.now()).await?;
        let Registration { application: _, username, password, name, mobile_number, timezone } = registration;
        let user = User {
            id: UserId::random(),
            username,
            name,
            avatar: None,
            mobile_number,
            timezone,
            created_at: self.parts.clock.now(),
            password_hash: self.passwords.hash(password).await?,
        };
        match self.parts.store.add_user(app, &user).await {
            Ok(true) => Ok(own_view(user)),
            Ok(false) => Err(Problem::new(ErrorCode::Conflict, "username: is taken already")),
            Err(StoreError::Unavailable(why)) => {
                tracing::warn!(why, "the store did not say whether it has a new user");
                Err(Problem::new(ErrorCode::Unknown, "you may be registered or not: try to sign in"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Signs a user in. `device` names the device when the credentials do not.
    ///
    /// # Errors
    /// `unauthenticated`, the same and after the same work for an unknown user and a wrong password; `invalid`, `rate_limited`, `retry_later`.
    pub async fn sign_in(
        &self,
        app: AppId,
        credentials: Credentials,
        device: Option<String>,
        from: Option<IpAddr>,
    ) -> Result<SignedIn, Problem> {
        credentials.check()?;
        self.attempts.from(app, from, self.parts.clock.now()).await?;
        self.attempts.under(app, &credentials.username, from, self.parts.clock.now()).await?;
        let Credentials { application: _, username, password, device: named } = credentials;
        let user = self.parts.store.user_by_username(app, &username).await?;
        // Who comes with tokens of the application's has no password, and so none is right.
        let known = user.as_ref().filter(|user| user.has_password()).map(|user| user.password_hash.clone());
        let good = self.passwords.verify(password, known).await?;
        let user = user
            .filter(|_| good)
            .ok_or_else(|| Problem::new(ErrorCode::Unauthenticated, "username or password is wrong"))?;

        let now = self.parts.clock.now();
        let sign_in = SignIn {
            id: SessionId::random(),
            user: user.id,
            device: named.or(device).and_then(|name| device_name(&name)),
            created_at: now,
            // Tokens count whole seconds.
            expires_at: Millis::from_secs(now.plus(self.token_life).as_secs()),
        };
        let (session, expires_at) = (sign_in.id, sign_in.expires_at);
        let caller = Caller { app, user: user.id, session, expires_at, signed_by: None };
        let token = self.parts.tokens.issue(&caller, now).map_err(|error| {
            tracing::error!(%error, "a token could not be signed");
            Problem::new(ErrorCode::Internal, "something is wrong here; it was reported")
        })?;
        if !self.parts.store.add_sign_in(app, &sign_in).await? {
            return Err(unauthenticated());
        }
        Ok(SignedIn { token, expires_at: sign_in.expires_at, user: own_view(user) })
    }

    /// Notes a sign-in that its application made, so that it can be ended.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn note(&self, caller: &Caller) -> Result<(), Problem> {
        let now = self.parts.clock.now();
        let &Caller { app, user, session: id, expires_at, .. } = caller;
        let known = self.parts.store.sign_ins(app, user, now).await?;
        if known.iter().all(|known| known.id != id) {
            let sign_in = SignIn { id, user, device: None, created_at: now, expires_at };
            self.parts.store.add_sign_in(app, &sign_in).await?;
        }
        Ok(())
    }

    /// Erases the caller: whatever is known of them but the id. From the answer on they are found by nobody and cannot sign in; their tokens
    /// are refused within a second everywhere.
    ///
    /// # Errors
    /// `invalid` for a wrong password, `unauthenticated` when the user is no more, `rate_limited`, `retry_later`, `unknown`.
    pub async fn erase(
        &self,
        caller: &Caller,
        confirmation: Confirmation,
        from: Option<IpAddr>,
    ) -> Result<(), Problem> {
        let &Caller { app, user: id, .. } = caller;
        let now = self.parts.clock.now();
        let user = self.parts.store.user(app, id).await?.ok_or_else(unauthenticated)?;
        if user.has_password() {
            self.attempts.under(app, &user.username, from, now).await?;
            let wrong = || Problem::invalid(FieldError::body("password", "is not yours"));
            let password = confirmation.password.ok_or_else(wrong)?;
            if !self.passwords.verify(password, Some(user.password_hash)).await? {
                return Err(wrong());
            }
        }
        let erased = self.parts.store.erase_user(app, id, now).await;
        if !erased.map_err(|error| after_writing(error.into()))? {
            return Err(unauthenticated());
        }
        self.tell_ended(caller, SessionId::every(app, id));
        Ok(())
    }

    /// A sign-in of the caller was ended: whoever may still go by it hears of it at once.
    fn tell_ended(&self, &Caller { app, user, .. }: &Caller, session: SessionId) {
        self.parts.revocations.hint();
        (self.parts.announce)(vec![Topic::User(app, user)], Live::Revoked { app, user, session });
    }

    /// Ends one of the caller's sign-ins. From the answer on its token is refused at this node, and within a second everywhere.
    ///
    /// # Errors
    /// `not_found` when there is no such one (any more), `retry_later`.
    pub async fn end(&self, caller: &Caller, session: SessionId) -> Result<(), Problem> {
        let mut news = self.parts.revocations.subscribe();
        let ended = self.parts.store.end_sign_in(caller.app, caller.user, session).await;
        if !ended.map_err(|error| after_writing(error.into()))? {
            return Err(Problem::not_found("session"));
        }
        self.tell_ended(caller, session);
        let known_here = async {
            while !self.parts.revocations.contains(caller.key(), session) {
                // A lagging receiver has missed names, not facts: look again.
                if let Err(tokio::sync::broadcast::error::RecvError::Closed) = news.recv().await {
                    return;
                }
            }
        };
        if tokio::time::timeout(REFUSED_HERE_WITHIN, known_here).await.is_err() {
            tracing::warn!("a sign-in was ended, and this node has not read so from the store yet");
        }
        Ok(())
    }

    /// The caller's sign-ins, newest first, with the nodes that hold sockets of theirs as far as the cache knows.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn sessions(&self, caller: &Caller) -> Result<Vec<SessionView>, Problem> {
        let rows = self.parts.store.sign_ins(caller.app, caller.user, self.parts.clock.now()).await?;
        let live = self.parts.cache.sessions_of(caller.key()).await;
        let live = live.unwrap_or_else(|error| {
            tracing::warn!(%error, "sign-ins are listed without their nodes");
            Vec::new()
        });
        let nodes = |session: SessionId| {
            let of_it = live.iter().filter(|socket| socket.session == session);
            of_it.map(|socket| socket.life.node.clone()).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let newest = |session: SessionId| {
            live.iter().filter(|socket| socket.session == session).max_by_key(|socket| socket.since)
        };
        let view = |row: SignIn| SessionView {
            id: row.id,
            // What the device calls itself in its `hello` is newer than what it said when it signed in.
            device: newest(row.id)
                .and_then(|socket| socket.device.as_deref())
                .map_or(row.device, |device| Some(device.to_owned())),
            node: newest(row.id).map(|socket| socket.life.node.clone()),
            nodes: nodes(row.id),
            since: row.created_at,
            expires_at: row.expires_at,
            current: row.id == caller.session,
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// The caller.
    ///
    /// # Errors
    /// `unauthenticated` when the user is no more, `retry_later`.
    pub async fn me(&self, caller: &Caller) -> Result<OwnUserView, Problem> {
        let user = self.parts.store.user(caller.app, caller.user).await?;
        user.map(own_view).ok_or_else(unauthenticated)
    }
}

pub(crate) fn own_view(user: User) -> OwnUserView {
    let User { id, username, name, avatar, mobile_number, timezone, created_at, password_hash: _ } = user;
    OwnUserView { id, username, name, avatar, mobile_number, timezone, created_at }
}

impl Registration {
    fn check(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        username(&mut checks, &self.username);
        if !PASSWORD_BYTES.contains(&self.password.len()) {
            let (min, max) = (PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
            checks.wrong("password", format!("must have {min} to {max} bytes"));
        }
        checks.storable("password", &self.password);
        a_name(&mut checks, &self.name);
        if let Some(number) = &self.mobile_number {
            let good = (1..=MOBILE_CHARS).contains(&number.len())
                && number.bytes().all(|byte| byte.is_ascii_digit() || b"+-() ./".contains(&byte))
                && number.bytes().any(|byte| byte.is_ascii_digit());
            if !good {
                checks.wrong(
                    "mobile_number",
                    format!("must be a telephone number of at most {MOBILE_CHARS} characters"),
                );
            }
        }
        a_timezone(&mut checks, self.timezone.as_deref());
        checks.done()
    }
}

impl Credentials {
    fn check(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        username(&mut checks, &self.username);
        // A short one is simply wrong; a long one is not worth hashing.
        if self.password.len() > *PASSWORD_BYTES.end() {
            checks.wrong("password", format!("must have at most {} bytes", PASSWORD_BYTES.end()));
        }
        if let Some(device) = &self.device {
            checks.text("device", device, 0, DEVICE_CHARS);
        }
        checks.done()
    }
}

/// A person's name.
pub(crate) fn a_name(checks: &mut Checks, name: &str) {
    checks.text("name", name, 1, limits::NAME_CHARS);
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        checks.wrong("name", "must be readable, without control characters");
    }
}

/// A time zone, when there is one.
pub(crate) fn a_timezone(checks: &mut Checks, zone: Option<&str>) {
    if zone.is_some_and(|zone| time::zone(zone).is_none()) {
        checks.wrong("timezone", "must be the name of a time zone in IANA's database, such as Europe/Madrid");
    }
}

pub(crate) fn username(checks: &mut Checks, name: &str) {
    let (min, max) = (*USERNAME_CHARS.start(), *USERNAME_CHARS.end());
    checks.text("username", name, min, max);
    if name.chars().any(|char| char.is_whitespace() || (char.is_control() && char != '\0')) {
        checks.wrong("username", "must not contain spaces or control characters");
    }
}

/// What is kept of a device's name: readable, and bounded. None when nothing is left.
fn device_name(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|char| !char.is_control()).take(DEVICE_CHARS).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_in_bounds_or_not_at_all() {
        assert_eq!(device_name(" Ana's\u{7} phone "), Some("Ana's phone".into()));
        assert_eq!(device_name("\u{1}\u{2}"), None);
        assert_eq!(device_name(&"x".repeat(999)).map(|name| name.len()), Some(DEVICE_CHARS));
    }
}
