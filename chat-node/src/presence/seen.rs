//! Whether somebody is connected, when somebody asks.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use common::{
    cache::{SharedCache, USERS_TOGETHER},
    ids::{UserId, UserKey},
    model::{PresenceStatus, PresenceView, UserPresence},
    problem::Problem,
    store::SharedStore,
    time::Millis,
    token::Caller,
    wire::client::FieldError,
};
use tokio::time::timeout;

use super::PATIENCE;
use crate::deliver::Deliver;

/// Users that may be asked for at once.
pub const ASKED: usize = 100;

const _: () = assert!(ASKED <= USERS_TOGETHER);

/// Who is connected: of every user of the caller's application, as their public profiles are (ID-7). Who has blocked the caller
/// looks as if they had not been there since (ID-9). Cheap to clone.
#[derive(Clone)]
pub struct Whereabouts {
    cache: SharedCache,
    store: SharedStore,
    deliver: Option<Deliver>,
}

impl fmt::Debug for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Whereabouts")
    }
}

impl Whereabouts {
    /// `of` has blocked `to` at that time, or does no longer: what `to` is shown follows.
    pub(crate) fn show_anew(&self, of: UserKey, to: UserId, at: Millis) {
        if let Some(deliver) = &self.deliver {
            deliver.show_anew(of, to, at);
        }
    }

    /// By what the cache says, and without it by who is on this node.
    pub fn new(cache: SharedCache, store: SharedStore, here: Deliver) -> Self {
        Self { cache, store, deliver: Some(here) }
    }

    /// By what the cache says alone.
    pub fn without_sessions(cache: SharedCache, store: SharedStore) -> Self {
        Self { cache, store, deliver: None }
    }

    /// Shows a user as connected, or no longer so, because somebody who knows says it: see [`crate::storage_api`]. Nothing where there are no
    /// sessions.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn declare(&self, user: UserKey, online: bool) -> Result<(), Problem> {
        match &self.deliver {
            Some(deliver) => deliver.declare(user, online).await,
            None => Ok(()),
        }
    }

    /// Any user of the caller's application.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn of_user(&self, caller: &Caller, user: UserId) -> Result<UserPresence, Problem> {
        self.of_users(caller, &[user]).await?.pop().ok_or_else(|| Problem::not_found("user"))
    }

    /// Several, each once, in the order asked; whom the application does not have is left out.
    ///
    /// # Errors
    /// `invalid` when there are more than [`ASKED`]; `retry_later`.
    pub async fn of_users(&self, caller: &Caller, users: &[UserId]) -> Result<Vec<UserPresence>, Problem> {
        if users.len() > ASKED {
            let msg = format!("must name at most {ASKED} users");
            return Err(Problem::invalid(FieldError::query("users", msg)));
        }
        let known = self.store.users(caller.app, users).await?;
        let mut known: HashSet<UserId> = known.into_iter().map(|user| user.id).collect();
        let asked: Vec<UserId> = users.iter().copied().filter(|user| known.remove(user)).collect();
        let viewer = caller.key();
        let views = self.of_known(viewer, &asked).await?;
        Ok(asked.into_iter().zip(views).map(|(user, view)| UserPresence::new(user, view)).collect())
    }

    /// A user that there is, as another of the application sees them.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn of(&self, viewer: UserKey, user: UserId) -> Result<PresenceView, Problem> {
        let view = self.of_known(viewer, &[user]).await?.pop();
        Ok(view.unwrap_or(PresenceView { status: PresenceStatus::Unknown, last_seen: None }))
    }

    /// Users that there are, each once, at most [`USERS_TOGETHER`], in the order asked.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn of_known(&self, viewer: UserKey, users: &[UserId]) -> Result<Vec<PresenceView>, Problem> {
        let app = viewer.app;
        let hidden: HashMap<UserId, Millis> =
            self.store.blockers_of(viewer, users).await?.into_iter().collect();
        let users: Vec<UserKey> = users.iter().map(|user| UserKey { app, user: *user }).collect();
        let lives = match timeout(PATIENCE, self.cache.lives_of(&users)).await {
            Ok(Ok(lives)) => Some(lives),
            Ok(Err(error)) => {
                tracing::debug!(%error, "who is connected is told of this node only");
                None
            }
            Err(_) => None,
        };
        let is_here =
            |user: UserKey| self.deliver.as_ref().is_some_and(|deliver| deliver.0.presence.is_here(user));
        let status = |(place, user): (usize, &UserKey)| match &lives {
            _ if !hidden.contains_key(&user.user) && is_here(*user) => PresenceStatus::Online,
            None => PresenceStatus::Unknown,
            Some(_) if hidden.contains_key(&user.user) => PresenceStatus::Offline,
            Some(lives) if lives.get(place).is_some_and(|lives| !lives.is_empty()) => PresenceStatus::Online,
            Some(_) => PresenceStatus::Offline,
        };
        let statuses: Vec<PresenceStatus> = users.iter().enumerate().map(status).collect();
        let shown = users.iter().copied().zip(statuses);
        let away: Vec<UserKey> = shown
            .clone()
            .filter(|(user, status)| *status != PresenceStatus::Online && !hidden.contains_key(&user.user))
            .map(|(user, _)| user)
            .collect();
        let seen: HashMap<_, _> = if away.is_empty() {
            HashMap::new()
        } else {
            self.store.last_seen(&away).await?.into_iter().collect()
        };
        // When they blocked somebody they were there; what came after that is not told.
        let last_seen = |user: UserKey| hidden.get(&user.user).or_else(|| seen.get(&user)).copied();
        let view = |(user, status)| PresenceView { status, last_seen: last_seen(user) };
        Ok(shown.map(view).collect())
    }
}
