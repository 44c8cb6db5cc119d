//! `/chats/{chat}/members`: who is in and as what, letting in, naming admins, handing over, removing, leaving (CH-4).

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::{ChatId, UserId},
    model::Role,
    problem::Problem,
    token::Caller,
    wire::codes::ErrorCode,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    Api, example,
    extract::{MaybeJson, One, Two},
    query::PageOf,
};

pub(super) fn routes() -> Routes<Api> {
    Routes::new("Members")
        .get("/chats/{chat}/members", list, says("Who is in a chat").ok(&example::page(example::members())))
        .put(
            "/chats/{chat}/members/{user}",
            add,
            says("Lets somebody in, or says what a member may do (`owner` hands the group over)")
                .takes(json!({"role": "admin"}))
                .done()
                .refuses(&[ErrorCode::Forbidden, ErrorCode::TooLarge]),
        )
        .delete(
            "/chats/{chat}/members/{user}",
            remove,
            says("Removes a member; the caller, who leaves").done().refuses(&[ErrorCode::Forbidden]),
        )
}

/// What they may do; who is in already keeps what they may do when none is said.
#[derive(Default, Deserialize, JsonSchema)]
struct As {
    #[serde(default)]
    role: Option<Role>,
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.members(&caller, chat, page).await?))
}

async fn add(
    State(api): State<Api>,
    caller: Caller,
    Two(chat, user): Two<ChatId, UserId>,
    MaybeJson(As { role }): MaybeJson<As>,
) -> Result<impl IntoResponse, Problem> {
    match role {
        Some(role) => api.commands.set_role(&caller, chat, user, role).await?,
        None => api.commands.add_member(&caller, chat, user).await?,
    };
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Two(chat, user): Two<ChatId, UserId>,
) -> Result<impl IntoResponse, Problem> {
    api.commands.remove_member(&caller, chat, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
