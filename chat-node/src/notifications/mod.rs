//! What users choose to be told while they are away, and where notifications go (NO-1 to NO-3): rows of the store, checked before they are
//! written. Whom they go to, and sending them, is the storage writers' (`storage-writer/src/notify`).

mod address;
mod push;
mod webhooks;

use std::sync::Arc;

use common::{
    address::Networks,
    ids::{ChatId, ChatKey},
    notifications::{ChatPreferences, Preferences},
    problem::Problem,
    store::SharedStore,
    time::Millis,
    token::Caller,
    vapid::Vapid,
};
use tokio::sync::OnceCell;

pub use self::{
    push::{Subscription, SubscriptionView},
    webhooks::{DeliveryView, NewWebhook, WebhookChange, WebhookView},
};
use crate::{auth::unauthenticated, check::Checks, control::Clock};

/// Notifications, as users and operators choose them. Cheap to clone.
#[derive(Clone)]
pub struct Notifications {
    store: SharedStore,
    /// Internal networks that may be reached.
    allow: Arc<Networks>,
    clock: Clock,
    /// What browsers subscribe with, once it was asked for.
    public_key: Arc<OnceCell<String>>,
}

impl std::fmt::Debug for Notifications {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notifications")
    }
}

impl Notifications {
    /// Notifications whose rows are in `store`. URLs with an address that is internal are refused, but for those of `allow`.
    pub fn new(store: SharedStore, allow: Networks, clock: Clock) -> Self {
        Self { store, allow: Arc::new(allow), clock, public_key: Arc::default() }
    }

    /// What browsers subscribe with, as `applicationServerKey`: base64url.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn public_key(&self) -> Result<&str, Problem> {
        let load = async || Ok::<_, Problem>(Vapid::load(self.store.as_ref()).await?.public_key().to_owned());
        self.public_key.get_or_try_init(load).await.map(String::as_str)
    }

    /// What the caller has chosen.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn preferences(&self, caller: &Caller) -> Result<Preferences, Problem> {
        Ok(self.store.preferences(caller.key()).await?)
    }

    /// Chooses, whole.
    ///
    /// # Errors
    /// `invalid`, `unauthenticated` when the user is no more, `retry_later`: asking again is harmless.
    pub async fn set_preferences(&self, caller: &Caller, preferences: &Preferences) -> Result<(), Problem> {
        muted(preferences.muted_until)?;
        let there = self.store.set_preferences(caller.key(), preferences).await?;
        there.then_some(()).ok_or_else(unauthenticated)
    }

    /// What the caller has chosen for a chat.
    ///
    /// # Errors
    /// `not_found` to who is not in it, `retry_later`.
    pub async fn chat_preferences(&self, caller: &Caller, chat: ChatId) -> Result<ChatPreferences, Problem> {
        let key = ChatKey { app: caller.app, chat };
        let chosen = self.store.chat_preferences(key, caller.user).await?;
        chosen.ok_or_else(|| Problem::not_found("chat"))
    }

    /// Chooses for a chat, whole.
    ///
    /// # Errors
    /// `invalid`, `not_found` to who is not in it, `retry_later`: asking again is harmless.
    pub async fn set_chat_preferences(
        &self,
        caller: &Caller,
        chat: ChatId,
        preferences: &ChatPreferences,
    ) -> Result<(), Problem> {
        muted(preferences.muted_until)?;
        let key = ChatKey { app: caller.app, chat };
        let there = self.store.set_chat_preferences(key, caller.user, preferences).await?;
        there.then_some(()).ok_or_else(|| Problem::not_found("chat"))
    }
}

/// Whether muting may end then.
fn muted(until: Option<Millis>) -> Result<(), Problem> {
    let mut checks = Checks::default();
    // RFC 3339 has years of four digits, and no sign.
    if until.is_some_and(|until| until < Millis::default()) {
        checks.wrong("muted_until", "must be a moment of 1970 or later");
    }
    checks.done()
}
