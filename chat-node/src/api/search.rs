//! `…/messages/search`: finding messages in a chat, and in all of one's chats (ME-6). A `POST`, for what somebody looks for has no business in
//! the logs of what is in between; the page is asked for in the query, as elsewhere.

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Operation, Routes, says},
    ids::ChatId,
    problem::Problem,
    token::Caller,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    Api, example,
    extract::{Json, One},
    query::PageOf,
};

pub(super) fn routes() -> Routes<Api> {
    Routes::new("Messages")
        .post(
            "/messages/search",
            search_all,
            finds("Finds messages by their words in all of the caller's chats"),
        )
        .post("/chats/{chat}/messages/search", search, finds("Finds messages of a chat by their words"))
}

/// What finding messages takes and answers.
pub(super) fn finds(summary: &'static str) -> Operation {
    says(summary).takes(json!({"query": "eight"})).ok(&example::found())
}

/// What is looked for.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Sought {
    pub(super) query: String,
}

async fn search(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    PageOf(page): PageOf,
    Json(Sought { query }): Json<Sought>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.search(&caller, chat, &query, page).await?))
}

async fn search_all(
    State(api): State<Api>,
    caller: Caller,
    PageOf(page): PageOf,
    Json(Sought { query }): Json<Sought>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.search_all(&caller, &query, page).await?))
}
