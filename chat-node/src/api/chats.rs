//! `/chats`: listing, opening, naming, deleting, and how far they are read (CH-1 to CH-4, CH-7, PR-4, PR-5).

use axum::{
    Json as Answer, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use common::{
    ids::{ChatId, Number, UserId},
    model::limits,
    problem::Problem,
    token::Caller,
    wire::client::FieldError,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    extract::{IdempotencyKey, JSON_BYTES, Json, One},
    query::PageOf,
};
use crate::commands::NewGroup;

/// Bytes of the body that makes a group: for each member an id of 32 digits, its quotes, a comma, and room for a line of its own; and the rest.
const GROUP_BYTES: usize = limits::MEMBERS * 48 + JSON_BYTES;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/chats", get(list).post(create))
        .route("/chats/{chat}", get(one).patch(update).delete(delete))
        .route("/chats/{chat}/read", post(read))
}

/// A direct chat (`host_id`), or a group (`members`).
#[derive(Deserialize)]
struct NewChat {
    #[serde(default)]
    host_id: Option<UserId>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    members: Option<Vec<UserId>>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct Read {
    number: Number,
}

/// Where the caller's read mark stands.
#[derive(Serialize)]
struct ReadTo {
    chat: ChatId,
    number: Number,
}

#[derive(Deserialize)]
struct Update {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.chats(&caller, page).await?))
}

async fn create(
    State(api): State<Api>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    Json(new): Json<NewChat, GROUP_BYTES>,
) -> Result<impl IntoResponse, Problem> {
    let opened = match new {
        NewChat { host_id: Some(_), members: Some(_), .. } => {
            return Err(Problem::invalid(FieldError::body("host_id", "does not go with members")));
        }
        NewChat { host_id: Some(host), .. } => api.commands.open_direct(&caller, host).await?,
        NewChat { members: Some(members), name, description, message, .. } => {
            let group = NewGroup { name, description, members, first: message };
            api.commands.create_group(&caller, group, key.as_ref()).await?
        }
        NewChat { .. } => {
            return Err(Problem::invalid(FieldError::body("members", "members or host_id is missing")));
        }
    };
    let status = if opened.made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(opened.chat)))
}

async fn one(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.chat(&caller, chat).await?))
}

async fn update(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    Json(Update { name, description }): Json<Update>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.update_chat(&caller, chat, name, description).await?))
}

async fn delete(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
) -> Result<impl IntoResponse, Problem> {
    api.commands.delete_chat(&caller, chat).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    Json(Read { number }): Json<Read>,
) -> Result<impl IntoResponse, Problem> {
    let number = api.commands.read(&caller, chat, number, None, 0).await?;
    Ok(Answer(ReadTo { chat, number }))
}
