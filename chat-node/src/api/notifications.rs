//! `/notifications` and `/push`: what users choose to be told while they are away, and their browsers (NO-1, NO-2).

use std::collections::BTreeSet;

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::{ChatId, EndpointId},
    notifications::{ChatPreferences, NotificationKind, Preferences},
    problem::Problem,
    token::Caller,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{
    Api, example,
    extract::{Json, One},
    query::PageOf,
};
use crate::notifications::{Subscription, SubscriptionView};

/// A browser's public key, as an example: a point on P-256.
const POINT: &str = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";

pub(super) fn routes() -> Routes<Api> {
    let preferences = json!({
        "kinds": ["mention", "reply"],
        "muted_until": "2026-12-24T18:00:00Z",
        "quiet_hours": {"from": "22:00", "to": "07:00"},
    });
    let of_chat =
        ChatPreferences { kinds: Some(BTreeSet::from([NotificationKind::Mention])), muted_until: None };
    let key = PublicKey { public_key: format!("BP{}", "x".repeat(85)) };
    let origin = "https://push.example.org".to_owned();
    let subscription = SubscriptionView { id: example::ENDPOINT, origin, created_at: example::AT };
    Routes::new("Notifications")
        .get(
            "/users/me/notifications",
            preferences_of_user,
            says("What the caller is told while away").ok(&Preferences::default()),
        )
        .put(
            "/users/me/notifications",
            choose,
            says("Chooses what the caller is told while away; what is absent is as nobody chose")
                .takes(preferences)
                .ok(&Preferences::default()),
        )
        .get(
            "/chats/{chat}/notifications",
            preferences_of_chat,
            says("What the caller has chosen otherwise for one chat").ok(&of_chat),
        )
        .put(
            "/chats/{chat}/notifications",
            choose_for_chat,
            says("Chooses otherwise for one chat; what is absent is as the caller has chosen for all")
                .takes(json!({"kinds": ["mention"]}))
                .ok(&of_chat),
        )
        .get(
            "/push",
            public_key,
            says("What browsers subscribe to pushes with: their `applicationServerKey`").ok(&key),
        )
        .get(
            "/users/me/push",
            subscriptions,
            says("The caller's browsers that are told, oldest first")
                .ok(&example::page(vec![subscription.clone()])),
        )
        .post(
            "/users/me/push",
            subscribe,
            says("Has a browser of the caller's told until the sign-in is ended, 20 at most: what its `PushSubscription.toJSON()` gives")
                .takes(json!({
                    "endpoint": "https://push.example.org/send/dGhlIGJyb3dzZXI",
                    "expirationTime": null,
                    "keys": {"p256dh": POINT, "auth": "A".repeat(22)},
                }))
                .made_or_there(&subscription),
        )
        .delete("/users/me/push/{subscription}", unsubscribe, says("Has a browser told no more").done())
}

/// The cluster's public key for push services.
#[derive(Serialize, JsonSchema)]
struct PublicKey {
    /// An uncompressed point on P-256, in base64url.
    public_key: String,
}

async fn preferences_of_user(State(api): State<Api>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.notifications.preferences(&caller).await?))
}

async fn choose(
    State(api): State<Api>,
    caller: Caller,
    Json(preferences): Json<Preferences>,
) -> Result<impl IntoResponse, Problem> {
    api.notifications.set_preferences(&caller, &preferences).await?;
    Ok(Answer(preferences))
}

async fn preferences_of_chat(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.notifications.chat_preferences(&caller, chat).await?))
}

async fn choose_for_chat(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    Json(preferences): Json<ChatPreferences>,
) -> Result<impl IntoResponse, Problem> {
    api.notifications.set_chat_preferences(&caller, chat, &preferences).await?;
    Ok(Answer(preferences))
}

async fn public_key(State(api): State<Api>, _: Caller) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(PublicKey { public_key: api.notifications.public_key().await?.to_owned() }))
}

async fn subscriptions(
    State(api): State<Api>,
    caller: Caller,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.notifications.subscriptions(&caller, page).await?))
}

async fn subscribe(
    State(api): State<Api>,
    caller: Caller,
    Json(subscription): Json<Subscription>,
) -> Result<impl IntoResponse, Problem> {
    let (there, made) = api.notifications.subscribe(&caller, subscription).await?;
    Ok((if made { StatusCode::CREATED } else { StatusCode::OK }, Answer(there)))
}

async fn unsubscribe(
    State(api): State<Api>,
    caller: Caller,
    One(id): One<EndpointId>,
) -> Result<impl IntoResponse, Problem> {
    api.notifications.unsubscribe(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
