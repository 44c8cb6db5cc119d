//! `/message/`: messages of all chats.

use std::time::Duration;

use axum::{Json as Answer, Router, extract::State, response::IntoResponse, routing::get};
use common::{
    ids::{ChatId, ClientId, MessageId},
    model::MessageKind,
    problem::Problem,
    token::Caller,
    wire::owner::Draft,
};
use serde::Deserialize;

use super::{FromZero, InApplication, named};
use crate::{
    api::{
        Api,
        extract::{IdempotencyKey, Json, One},
        messages::write,
        query::PageFromZero,
    },
    check::Checks,
    commands::itself,
};

/// The waits before a message is looked for again that is not found by its id. Only the store knows it by that, and the writers may be a
/// moment behind what was acknowledged: a second in all.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(500),
];

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/message", get(list).post(send))
        .route("/message/", get(list).post(send))
        .route("/message/{id}", get(one))
}

#[derive(Deserialize)]
struct New {
    group: ChatId,
    #[serde(alias = "body")]
    message: String,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    client_id: Option<ClientId>,
}

async fn list(
    State(api): State<Api>,
    InApplication(app): InApplication,
    PageFromZero(page): PageFromZero,
) -> Result<impl IntoResponse, Problem> {
    let messages = api.commands.store().all_messages(app, page).await?;
    Ok(Answer(FromZero::from(messages)))
}

async fn one(
    State(api): State<Api>,
    InApplication(app): InApplication,
    One(id): One<MessageId>,
) -> Result<impl IntoResponse, Problem> {
    let store = api.commands.store();
    let mut place = store.message_place(app, id).await?;
    for wait in AGAIN {
        if place.is_some() {
            break;
        }
        tokio::time::sleep(wait).await;
        place = store.message_place(app, id).await?;
    }
    let (chat, number) = place.ok_or_else(|| Problem::not_found("message"))?;
    Ok(Answer(api.commands.message(&itself(app), chat, number).await?))
}

async fn send(
    State(api): State<Api>,
    InApplication(app): InApplication,
    key: IdempotencyKey,
    Json(New { group, message, from, client_id }): Json<New>,
) -> Result<impl IntoResponse, Problem> {
    let mut caller = itself(app);
    if let Some(from) = from {
        let mut checks = Checks::default();
        let user = named(&mut checks, app, "from", &from);
        checks.done()?;
        caller = Caller { user: user.unwrap_or(caller.user), ..caller };
    }
    let client_id = key.or_body(client_id)?;
    let retry = client_id.is_some();
    let draft = Draft {
        client_id,
        body: message,
        kind: MessageKind::Text,
        reply_to: None,
        attachments: Vec::new(),
        mentions: Vec::new(),
        mention_all: false,
        retry,
    };
    write(&api, &caller, group, draft).await
}
