//! `/chats/{chat}/members`: who is in and as what, letting in, naming admins, handing over, removing, leaving (CH-4).

use axum::{
    Json as Answer, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, put},
};
use common::{
    ids::{ChatId, UserId},
    model::Role,
    problem::Problem,
    token::Caller,
};
use http::StatusCode;
use serde::Deserialize;

use super::{
    Api,
    extract::{MaybeJson, One, Two},
    query::PageOf,
};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/chats/{chat}/members", get(list))
        .route("/chats/{chat}/members/{user}", put(add).delete(remove))
}

/// What they may do; who is in already keeps what they may do when none is said.
#[derive(Default, Deserialize)]
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
