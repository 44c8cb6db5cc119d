//! Browsers of users, as they subscribe (the Push API; RFC 8030, RFC 8291).

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use common::{
    ids::EndpointId,
    model::{Page, PageRequest},
    notifications::{Endpoint, Target},
    problem::Problem,
    store::EndpointAdded,
    time::Millis,
    token::Caller,
};
use p256::PublicKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Notifications,
    address::{self, Of, URL_CHARS},
};
use crate::{auth::unauthenticated, check::Checks, commands::after_writing};

/// Bytes of a browser's public key: an uncompressed point on P-256.
const P256DH_BYTES: usize = 65;

/// Bytes of the secret shared with a browser (RFC 8291, section 3.2).
const AUTH_BYTES: usize = 16;

/// Browsers write base64url without padding; what passed through other hands may have it.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What `PushSubscription.toJSON()` gives. The body of `POST /api/v1/users/me/push`.
#[derive(Deserialize, JsonSchema)]
pub struct Subscription {
    /// The push service's URL for the browser: `https://`.
    #[schemars(length(min = 1, max = URL_CHARS))]
    endpoint: String,
    keys: Keys,
}

#[derive(Deserialize, JsonSchema)]
struct Keys {
    /// 65 bytes in base64url.
    #[schemars(length(min = 87, max = 88))]
    p256dh: String,
    /// 16 bytes in base64url.
    #[schemars(length(min = 22, max = 24))]
    auth: String,
}

impl std::fmt::Debug for Subscription {
    /// Without what only the browser and we may know.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

/// A browser of the caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Subscription")]
pub struct SubscriptionView {
    /// By which it is taken away.
    pub id: EndpointId,
    /// The push service: of its URL only the origin, for the rest is a secret.
    pub origin: String,
    /// Since when.
    pub created_at: Millis,
}

impl From<Endpoint> for SubscriptionView {
    fn from(endpoint: Endpoint) -> Self {
        let origin = Url::parse(endpoint.target.url()).map(|url| url.origin().ascii_serialization());
        Self { id: endpoint.id, origin: origin.unwrap_or_default(), created_at: endpoint.created_at }
    }
}

impl Notifications {
    /// The caller's browsers, oldest first.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn subscriptions(
        &self,
        caller: &Caller,
        page: PageRequest,
    ) -> Result<Page<SubscriptionView>, Problem> {
        let all = self.store.endpoints(caller.app, Some(caller.user)).await?;
        Ok(page.page_of(all.into_iter().map(SubscriptionView::from).collect()))
    }

    /// The caller is told by this browser until the sign-in is ended; once, however often it is said. Answers also whether it is new.
    ///
    /// # Errors
    /// `invalid` with the fields, `unauthenticated` when the user or the sign-in is no more, `retry_later`, `unknown`: asking again is harmless.
    pub async fn subscribe(
        &self,
        caller: &Caller,
        subscription: Subscription,
    ) -> Result<(SubscriptionView, bool), Problem> {
        let Subscription { endpoint: url, keys } = subscription;
        let mut checks = Checks::default();
        address::target(&mut checks, "endpoint", &url, Of::Browser, &self.allow);
        let p256dh = decoded(&mut checks, "keys.p256dh", &keys.p256dh, P256DH_BYTES);
        if p256dh.len() == P256DH_BYTES && PublicKey::from_sec1_bytes(&p256dh).is_err() {
            checks.wrong("keys.p256dh", "must be an uncompressed point on the curve P-256");
        }
        let auth = decoded(&mut checks, "keys.auth", &keys.auth, AUTH_BYTES);
        checks.done()?;
        let id = EndpointId::random();
        let target =
            Target::Push { user: caller.user, session: caller.session, url: url.clone(), p256dh, auth };
        let endpoint = Endpoint { id, app: caller.app, target, created_at: self.clock.now(), enabled: true };
        match self.store.add_endpoint(&endpoint).await? {
            EndpointAdded::Added => {}
            EndpointAdded::Nobody => return Err(unauthenticated()),
            // Of webhooks there can be too many; a browser takes the place of the oldest.
            EndpointAdded::Full => {
                return Err(Problem::retry_later("other browsers are subscribed at the moment"));
            }
        }
        let all = self.store.endpoints(caller.app, Some(caller.user)).await;
        let all = all.map_err(|error| after_writing(error.into()))?;
        let there = all.into_iter().find(|one| one.target.url() == url);
        // In between it may have been taken away, or made way for others.
        let there = there.ok_or_else(|| Problem::retry_later("it was taken away at the same time"))?;
        let made = there.id == id;
        Ok((there.into(), made))
    }

    /// The caller is told by this browser no more.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn unsubscribe(&self, caller: &Caller, id: EndpointId) -> Result<(), Problem> {
        let was_there = self.store.remove_endpoint(caller.app, Some(caller.user), id).await?;
        was_there.then_some(()).ok_or_else(|| Problem::not_found("subscription"))
    }
}

fn decoded(checks: &mut Checks, param: &str, text: &str, bytes: usize) -> Vec<u8> {
    // Not more is decoded than could be right.
    let decoded =
        Some(text).filter(|text| text.len() <= bytes * 2).and_then(|text| BASE64URL.decode(text).ok());
    let good = decoded.filter(|decoded| decoded.len() == bytes);
    if good.is_none() {
        checks.wrong(param, format!("must be {bytes} bytes in base64url"));
    }
    good.unwrap_or_default()
}
