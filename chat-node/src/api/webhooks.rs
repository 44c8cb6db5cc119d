//! `/applications/{token}/webhooks`: where the operator has an application told of those who were away, and what became of it (NO-1, NO-3).

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Operation, Routes, says},
    ids::{AppId, EndpointId},
    notifications::DeliveryState,
    problem::Problem,
    wire::codes::ErrorCode,
};
use http::{StatusCode, header};
use serde_json::json;
use uuid::Uuid;

use super::{
    Api, application_exists,
    applications::Operator,
    example,
    extract::{DeliveryId, Json, One, Three, Two},
    query::PageOf,
};
use crate::notifications::{DeliveryView, NewWebhook, WebhookChange, WebhookView};

pub(super) fn routes() -> Routes<Api> {
    let view = WebhookView {
        id: example::ENDPOINT,
        url: "https://school.example.org/chat".into(),
        enabled: true,
        secret: None,
        created_at: example::AT,
    };
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=".to_owned();
    let with_secret = WebhookView { secret: Some(secret), ..view.clone() };
    let delivery = DeliveryView {
        id: Uuid::from_u128(0x3af0_66c1_9b1d_4a5e_8d2b_c0de_00de_117e),
        state: DeliveryState::Pending,
        created_at: example::AT,
        attempts: 1,
        attempted_at: Some(example::AT),
        status: Some(502),
        error: None,
    };
    let all = "/applications/{token}/webhooks";
    let one = "/applications/{token}/webhooks/{webhook}";
    Routes::new("Webhooks")
        .get(
            all,
            list,
            says("An application's webhooks, oldest first").ok(&example::page(vec![view.clone()])),
        )
        .post(
            all,
            create,
            says("Makes a webhook, of which an application has 10 at most. Its secret is shown this once")
                .takes(json!({"url": view.url}))
                .made(&with_secret)
                .refuses(&[ErrorCode::Conflict]),
        )
        .get(one, get, says("One webhook").ok(&view))
        .patch(
            one,
            update,
            updates().takes(json!({"enabled": true})).takes(json!({"rotate_secret": true})).ok(&view),
        )
        .delete(one, delete, says("Takes a webhook away with all that was to be sent to it").done())
        .get(
            &format!("{one}/deliveries"),
            deliveries,
            says("What was sent to a webhook in the last seven days, and what is to be sent, newest first")
                .ok(&example::page(vec![delivery])),
        )
        .post(
            &format!("{one}/deliveries/{{delivery}}/redeliver"),
            redeliver,
            says("Sends something once more, with the same id, behind what is waiting, to tell of those to whom it is news still")
                .bare(202, "It is in the queue."),
        )
}

fn updates() -> Operation {
    says(
        "Changes a webhook; what is absent stays. A new secret is shown this once, and the old one signs nothing any more",
    )
}

/// No cache between here and the operator may keep a secret.
fn uncached(webhook: WebhookView) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], Answer(webhook))
}

async fn list(
    State(api): State<Api>,
    _: Operator,
    One(app): One<AppId>,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    application_exists(&api, app).await?;
    Ok(Answer(api.notifications.webhooks(app, page).await?))
}

async fn create(
    State(api): State<Api>,
    _: Operator,
    One(app): One<AppId>,
    Json(new): Json<NewWebhook>,
) -> Result<impl IntoResponse, Problem> {
    application_exists(&api, app).await?;
    let made = api.notifications.add_webhook(app, new).await?;
    Ok((StatusCode::CREATED, uncached(made)))
}

async fn get(
    State(api): State<Api>,
    _: Operator,
    Two(app, id): Two<AppId, EndpointId>,
) -> Result<impl IntoResponse, Problem> {
    application_exists(&api, app).await?;
    Ok(Answer(api.notifications.webhook(app, id).await?))
}

async fn update(
    State(api): State<Api>,
    _: Operator,
    Two(app, id): Two<AppId, EndpointId>,
    Json(change): Json<WebhookChange>,
) -> Result<impl IntoResponse, Problem> {
    application_exists(&api, app).await?;
    Ok(uncached(api.notifications.update_webhook(app, id, change).await?))
}

async fn delete(
    State(api): State<Api>,
    _: Operator,
    Two(app, id): Two<AppId, EndpointId>,
) -> Result<impl IntoResponse, Problem> {
    application_exists(&api, app).await?;
    api.notifications.remove_webhook(app, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn deliveries(
    State(api): State<Api>,
    _: Operator,
    Two(app, id): Two<AppId, EndpointId>,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    application_exists(&api, app).await?;
    Ok(Answer(api.notifications.deliveries(app, id, page).await?))
}

async fn redeliver(
    State(api): State<Api>,
    _: Operator,
    Three(app, id, DeliveryId(delivery)): Three<AppId, EndpointId, DeliveryId>,
) -> Result<impl IntoResponse, Problem> {
    application_exists(&api, app).await?;
    api.notifications.deliver_again(app, id, delivery).await?;
    Ok(StatusCode::ACCEPTED)
}
