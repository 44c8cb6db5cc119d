//! `/chat/message` and `/chat/{group}/message`: chats with their newest messages in one answer (ME-10). Pages count from 0 here.

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::ChatId,
    model::{ChatView, Head, Message},
    problem::Problem,
    token::Caller,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api, example,
    extract::One,
    query::{BundleOf, PageFromZero},
};
use crate::history::History;

pub(super) fn routes() -> Routes<Api> {
    let (chat, messages, head) = (example::chat(), vec![example::message()], example::HEAD);
    let of_one =
        OfOne { current: 0, total: 1, chat: chat.clone(), results: messages.clone(), head, complete: true };
    let bundle = Bundle { chat, messages, head, complete: true };
    let bundles = Bundles { current: 0, total: 1, results: vec![bundle], unread_count: 2 };
    let mut routes = Routes::new("Bundles");
    for end in ["", "/"] {
        routes = routes
            .get(
                &format!("/chat/message{end}"),
                all,
                says("The caller's chats, each with its newest messages").ok(&bundles),
            )
            .get(
                &format!("/chat/{{group}}/message{end}"),
                one,
                says("One chat with a page of its messages, newest first").ok(&of_one),
            );
    }
    routes
}

/// A page of the caller's chats.
#[derive(Serialize, JsonSchema)]
struct Bundles {
    /// From 0.
    current: u32,
    total: u32,
    results: Vec<Bundle>,
    /// In all chats of the caller.
    unread_count: u64,
}

/// A chat with its newest messages.
#[derive(Serialize, JsonSchema)]
struct Bundle {
    chat: ChatView,
    /// Newest first.
    messages: Vec<Message>,
    head: Head,
    complete: bool,
}

/// A page of one chat's messages.
#[derive(Serialize, JsonSchema)]
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
