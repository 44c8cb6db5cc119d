//! `/chat/message` and `/chat/{group}/message`: chats with their newest messages in one answer (ME-10). Pages count from 0 here.

use axum::{Json as Answer, Router, extract::State, response::IntoResponse, routing::get};
use common::{
    ids::ChatId,
    model::{ChatView, Head, Message},
    problem::Problem,
    token::Caller,
};
use serde::Serialize;

use super::{
    Api,
    extract::One,
    query::{BundleOf, PageFromZero},
};
use crate::history::History;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/chat/message", get(all))
        .route("/chat/message/", get(all))
        .route("/chat/{group}/message", get(one))
        .route("/chat/{group}/message/", get(one))
}

/// A page of the caller's chats.
#[derive(Serialize)]
struct Bundles {
    /// From 0.
    current: u32,
    total: u32,
    results: Vec<Bundle>,
    /// In all chats of the caller.
    unread_count: u64,
}

/// A chat with its newest messages.
#[derive(Serialize)]
struct Bundle {
    chat: ChatView,
    /// Newest first.
    messages: Vec<Message>,
    head: Head,
    complete: bool,
}

/// A page of one chat's messages.
#[derive(Serialize)]
struct OfOne {
    /// From 0.
    current: u32,
    total: u32,
    chat: ChatView,
    /// Newest first.
    results: Vec<Message>,
    head: Head,
    complete: bool,
}

async fn all(
    State(api): State<Api>,
    caller: Caller,
    BundleOf { page, messages }: BundleOf,
) -> Result<impl IntoResponse, Problem> {
    let (chats, histories) = api.commands.bundle(&caller, page, messages).await?;
    let bundle = |(chat, history): (ChatView, Option<History>)| {
        let History { messages, head, complete } = history?;
        Some(Bundle { chat, messages, head, complete })
    };
    Ok(Answer(Bundles {
        current: page.page - 1,
        total: chats.total,
        results: chats.results.into_iter().zip(histories).filter_map(bundle).collect(),
        unread_count: chats.unread_count,
    }))
}

async fn one(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    PageFromZero(page): PageFromZero,
) -> Result<impl IntoResponse, Problem> {
    let (history, count) = api.commands.history_page(&caller, chat, page).await?;
    let chat = api.commands.chat(&caller, chat).await?;
    let History { messages, head, complete } = history;
    let numbered = page.answer(count, messages);
    Ok(Answer(OfOne {
        current: page.page - 1,
        total: numbered.total,
        chat,
        results: numbered.results,
        head,
        complete,
    }))
}
