//! `/chats/{chat}/members`: who is in, letting in, removing, leaving (CH-4).

use axum::{
    Json as Answer, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, put},
};
use common::{
    ids::{ChatId, UserId},
    problem::Problem,
    token::Caller,
};
use http::StatusCode;

use super::{
    Api,
    extract::{One, Two},
    query::PageOf,
};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/chats/{chat}/members", get(list))
        .route("/chats/{chat}/members/{user}", put(add).delete(remove))
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
) -> Result<impl IntoResponse, Problem> {
    api.commands.add_member(&caller, chat, user).await?;
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
