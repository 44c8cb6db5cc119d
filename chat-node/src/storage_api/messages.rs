//! `/message/`: messages of all chats.

use std::time::Duration;

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::{ChatId, ClientId, MessageId},
    model::MessageKind,
    problem::Problem,
    token::{Caller, SUBJECT_BYTES},
    wire::owner::Draft,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{FromZero, InApplication, named};
use crate::{
    api::{
        Api, example,
        extract::{IdempotencyKey, Json, One},
        messages::{WRITES, message_or_body, write},
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

pub(super) fn routes() -> Routes<Api> {
    let mut routes =
        Routes::new("Messages").get("/message/{id}", one, says("One message").ok(&example::message()));
    for path in ["/message", "/message/"] {
        let page = FromZero::example(vec![example::message()]);
        routes = routes
            .get(path, list, says("The messages of all chats, chat by chat, as they are stored").ok(&page))
            .post(
                path,
                send,
                says("Sends a message, for a member or for the application itself: answered once it is in the log")
                    .takes(json!({"group": example::CHAT, "from": "up201706518", "message": "See you at eight"}))
                    .made_or_there(&example::message())
                    .refuses(WRITES),
            );
    }
    routes
}

#[derive(Deserialize, JsonSchema)]
#[schemars(transform = message_or_body)]
struct New {
    group: ChatId,
    #[serde(alias = "body")]
    message: String,
    /// Who writes; the application itself when it is absent.
    #[serde(default)]
    #[schemars(length(min = 1, max = SUBJECT_BYTES))]
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
