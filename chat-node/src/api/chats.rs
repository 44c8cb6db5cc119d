//! `/chats`: listing, opening, naming, deleting, and how far they are read (CH-1 to CH-4, CH-7, PR-4, PR-5).

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    applications::Retention,
    document::{Routes, says},
    ids::{ChatId, Number, UserId},
    model::limits,
    problem::Problem,
    token::Caller,
    wire::{client::FieldError, codes::ErrorCode},
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Api, example,
    extract::{IdempotencyKey, JSON_BYTES, Json, One},
    query::PageOf,
};
use crate::{
    check::Checks,
    commands::{ChatChange, NewGroup},
};

/// Bytes of the body that makes a group: for each member an id of 32 digits, its quotes, a comma, and room for a line of its own; and the rest.
pub(crate) const GROUP_BYTES: usize = limits::MEMBERS * 48 + JSON_BYTES;

/// Why a group may not be made; its first message is one like any other.
pub(crate) const MAKES: &[ErrorCode] = &[
    ErrorCode::IdConflict,
    ErrorCode::TooLarge,
    ErrorCode::RateLimited,
    ErrorCode::RefusedWords,
    ErrorCode::RefusedLinks,
];

pub(super) fn routes() -> Routes<Api> {
    let group = json!({"name": "Choir", "members": [example::BEN], "message": "Welcome"});
    Routes::new("Chats")
        .get("/chats", list, says("The caller's chats, most recent activity first").ok(&example::chats()))
        .post(
            "/chats",
            create,
            says("Opens the direct chat with somebody (`host_id`), or makes a group (`members`)")
                .takes(json!({"host_id": example::BEN}))
                .takes(group)
                .made_or_there(&example::chat())
                .refuses(MAKES)
                .refuses(&[ErrorCode::Forbidden, ErrorCode::NotFound]),
        )
        .get("/chats/{chat}", one, says("One of the caller's chats").ok(&example::chat()))
        .patch(
            "/chats/{chat}",
            update,
            says("Names or describes a group, or says how long its messages are kept; what is absent stays")
                .takes(json!({"name": "Choir", "description": "Thursdays at eight"}))
                .takes(json!({"retention": {"keep": "days", "days": 30}}))
                .ok(&example::chat())
                .refuses(&[ErrorCode::Forbidden]),
        )
        .delete(
            "/chats/{chat}",
            delete,
            says("Deletes a group, for its owner").done().refuses(&[ErrorCode::Forbidden]),
        )
        .post(
            "/chats/{chat}/read",
            read,
            says("Moves the caller's read mark forward; it never goes back")
                .takes(json!({"number": 790}))
                .ok(&ReadTo { chat: example::CHAT, number: 790 }),
        )
}

/// A direct chat (`host_id`), or a group (`members`).
#[derive(Deserialize, JsonSchema)]
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

#[derive(Deserialize, JsonSchema)]
struct Read {
    number: Number,
}

/// Where the caller's read mark stands.
#[derive(Serialize, JsonSchema)]
struct ReadTo {
    chat: ChatId,
    number: Number,
}

/// What is to be changed of a group; what is absent stays.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Update {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) retention: Option<Retention>,
}

impl From<Update> for ChatChange {
    fn from(Update { name, description, retention }: Update) -> Self {
        Self { name, description, retention }
    }
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
        NewChat { host_id: Some(host), name, description, message, .. } => {
            // A direct chat has none of them, and what is said in it is sent there: nothing is dropped without a word.
            let mut checks = Checks::default();
            for (field, there) in [
                ("name", name.is_some()),
                ("description", description.is_some()),
                ("message", message.is_some()),
            ] {
                if there {
                    checks.wrong(field, "does not go with host_id");
                }
            }
            checks.done()?;
            let contacts_only = api.applications.settings(caller.app).contacts_only;
            api.commands.open_direct(&caller, host, contacts_only).await?
        }
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
    Json(update): Json<Update>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.update_chat(&caller, chat, update.into()).await?))
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
