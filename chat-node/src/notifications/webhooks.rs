//! Webhooks of applications, as operators make them, and what was sent to them. Signed as Standard Webhooks are
//! (<https://www.standardwebhooks.com>).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{
    ids::{AppId, EndpointId},
    model::{Page, PageRequest},
    notifications::{self, Delivery, DeliveryState, Endpoint, Target},
    problem::Problem,
    store::{EndpointAdded, StoreError, WEBHOOKS},
    time::Millis,
    wire::codes::ErrorCode,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Notifications,
    address::{self, Of, URL_CHARS},
};
use crate::check::Checks;

/// Bytes of a secret: as many as the hash has (RFC 2104, section 3).
const SECRET_BYTES: usize = 32;

/// A webhook that is to be made. The body of `POST /api/v1/applications/{token}/webhooks`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct NewWebhook {
    /// `https://…` or `http://…`.
    #[schemars(length(min = 1, max = URL_CHARS))]
    url: String,
    /// Whether anything is sent there yet.
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

/// What is to be changed of a webhook; what is absent stays.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct WebhookChange {
    #[serde(default)]
    #[schemars(length(min = 1, max = URL_CHARS))]
    url: Option<String>,
    /// Whether anything is sent there. What comes up meanwhile is kept for three days.
    #[serde(default)]
    enabled: Option<bool>,
    /// Whether it gets another secret, which is answered. From then on nothing is signed with the old one.
    #[serde(default)]
    rotate_secret: bool,
}

/// A webhook.
#[derive(Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Webhook")]
pub struct WebhookView {
    /// Its id.
    pub id: EndpointId,
    /// Where deliveries go.
    pub url: String,
    /// Whether they do.
    pub enabled: bool,
    /// What they are signed with. Shown when it is new, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Since when.
    pub created_at: Millis,
}

impl fmt::Debug for WebhookView {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookView").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

impl WebhookView {
    fn new(endpoint: &Endpoint, with_secret: bool) -> Self {
        let secret = match &endpoint.target {
            Target::Webhook { secret, .. } if with_secret => Some(shown(secret)),
            _ => None,
        };
        Self {
            id: endpoint.id,
            url: endpoint.target.url().to_owned(),
            enabled: endpoint.enabled,
            secret,
            created_at: endpoint.created_at,
        }
    }
}

/// A secret as receivers take it.
pub(crate) fn shown(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

fn new_secret() -> Vec<u8> {
    rand::random::<[u8; SECRET_BYTES]>().to_vec()
}

/// What was sent to a webhook, or is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Delivery")]
pub struct DeliveryView {
    /// Its `webhook-id`: the same at every attempt.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// How it stands.
    pub state: DeliveryState,
    /// When it came up.
    pub created_at: Millis,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempted_at: Option<Millis>,
    /// The status that the last attempt was answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        // What it says is the receiver's to keep.
        let Delivery { id, body: _, created_at, state, attempts, status, error, attempted_at } = delivery;
        Self { id, state, created_at, attempts, attempted_at, status, error }
    }
}

impl Notifications {
    /// An application's webhooks, oldest first.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn webhooks(&self, app: AppId, page: PageRequest) -> Result<Page<WebhookView>, Problem> {
        let all = self.store.endpoints(app, None).await?;
        Ok(page.page_of(all.iter().map(|one| WebhookView::new(one, false)).collect()))
    }

    /// Makes a webhook; what is answered has its secret.
    ///
    /// # Errors
    /// `invalid`, `conflict` when there are as many as there may be, `not_found` when there is no such application, `unknown`.
    pub async fn add_webhook(&self, app: AppId, new: NewWebhook) -> Result<WebhookView, Problem> {
        let NewWebhook { url, enabled } = new;
        self.check_url(&url)?;
        let target = Target::Webhook { url, secret: new_secret() };
        let endpoint =
            Endpoint { id: EndpointId::random(), app, target, created_at: self.clock.now(), enabled };
        match self.store.add_endpoint(&endpoint).await.map_err(made_or_not)? {
            EndpointAdded::Added => Ok(WebhookView::new(&endpoint, true)),
            EndpointAdded::Full => {
                let why = format!("an application has at most {WEBHOOKS} webhooks");
                Err(Problem::new(ErrorCode::Conflict, why))
            }
            EndpointAdded::Nobody => Err(Problem::not_found("application")),
        }
    }

    /// One webhook.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn webhook(&self, app: AppId, id: EndpointId) -> Result<WebhookView, Problem> {
        Ok(WebhookView::new(&self.known_webhook(app, id).await?, false))
    }

    /// Changes a webhook; what is answered has its secret when that is new. Its queue stays.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `retry_later`: asking again is harmless, though a secret that was not heard of may have been in between.
    pub async fn update_webhook(
        &self,
        app: AppId,
        id: EndpointId,
        change: WebhookChange,
    ) -> Result<WebhookView, Problem> {
        let WebhookChange { url, enabled, rotate_secret } = change;
        if url.is_none() && enabled.is_none() && !rotate_secret {
            let mut checks = Checks::default();
            checks.wrong("url", "url, enabled or rotate_secret was expected");
            checks.done()?;
        }
        if let Some(url) = &url {
            self.check_url(url)?;
        }
        let change = notifications::WebhookChange { url, enabled, secret: rotate_secret.then(new_secret) };
        let changed = self.store.update_webhook(app, id, &change).await?;
        changed.map(|endpoint| WebhookView::new(&endpoint, rotate_secret)).ok_or_else(no_such)
    }

    /// Takes a webhook away with all that was to be sent to it.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn remove_webhook(&self, app: AppId, id: EndpointId) -> Result<(), Problem> {
        self.store.remove_endpoint(app, None, id).await?.then_some(()).ok_or_else(no_such)
    }

    /// What was sent to a webhook within the last days, and is to be sent, newest first.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn deliveries(
        &self,
        app: AppId,
        id: EndpointId,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>, Problem> {
        self.known_webhook(app, id).await?;
        let Page { current, total, results } = self.store.deliveries(app, id, page).await?;
        Ok(Page { current, total, results: results.into_iter().map(DeliveryView::from).collect() })
    }

    /// Sends something to a webhook once more, behind what is waiting already; what waits itself stays where it is.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn deliver_again(&self, app: AppId, id: EndpointId, delivery: Uuid) -> Result<(), Problem> {
        self.known_webhook(app, id).await?;
        let there = self.store.deliver_again(app, id, delivery, self.clock.now()).await?;
        there.then_some(()).ok_or_else(|| Problem::not_found("delivery"))
    }

    async fn known_webhook(&self, app: AppId, id: EndpointId) -> Result<Endpoint, Problem> {
        self.store.endpoint(app, None, id).await?.ok_or_else(no_such)
    }

    fn check_url(&self, url: &str) -> Result<(), Problem> {
        let mut checks = Checks::default();
        address::target(&mut checks, "url", url, Of::Webhook, &self.allow);
        checks.done()
    }
}

fn no_such() -> Problem {
    Problem::not_found("webhook")
}

/// Making one more is no retry.
fn made_or_not(error: StoreError) -> Problem {
    match Problem::from(error) {
        Problem { code: ErrorCode::RetryLater, .. } => Problem::new(
            ErrorCode::Unknown,
            "it may be made or not: look among the webhooks before you ask again",
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_1_a_secret_is_shown_as_receivers_take_it() {
        assert_eq!(shown(&[0xff; 24]), "whsec_////////////////////////////////");
        assert_eq!(STANDARD.decode(&shown(&new_secret())["whsec_".len()..]).unwrap().len(), SECRET_BYTES);
    }
}
