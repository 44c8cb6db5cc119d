//! `/chats/{chat}/messages`: writing, reading, editing, deleting, reacting (ME-1, ME-2, ME-4, ME-5, ME-8).

use axum::{
    Json as Answer, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, put},
};
use common::{
    ids::{ChatId, ClientId, Number, UserId},
    model::{Head, Message, MessageKind},
    problem::Problem,
    token::Caller,
    wire::owner::Draft,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    extract::{Emoji, IdempotencyKey, InChat, Json, One, Three, Two},
    query::Which,
};
use crate::commands::after_writing;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/chats/{chat}/messages", get(list).post(send))
        .route("/chats/{chat}/messages/{number}", get(one).put(edit).delete(delete))
        .route("/chats/{chat}/messages/{number}/reactions/{emoji}", put(react).delete(unreact))
}

#[derive(Deserialize)]
struct NewMessage {
    #[serde(alias = "message")]
    body: String,
    #[serde(default)]
    client_id: Option<ClientId>,
    #[serde(default, alias = "type")]
    kind: MessageKind,
    #[serde(default)]
    attachments: Vec<String>,
    #[serde(default)]
    reply_to: Option<Number>,
    #[serde(default)]
    mentions: Vec<UserId>,
    #[serde(default)]
    mention_all: bool,
}

#[derive(Deserialize)]
struct NewBody {
    #[serde(alias = "message")]
    body: String,
}

/// The cursor form of history, and of a page what it has besides.
#[derive(Serialize)]
struct Messages {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u32>,
    results: Vec<Message>,
    head: Head,
    complete: bool,
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    which: Which,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(match which {
        Which::Page(page) => {
            let (history, count) = api.commands.history_page(&caller, chat, page).await?;
            let numbered = page.answer(count, history.messages);
            Messages {
                current: Some(numbered.current),
                total: Some(numbered.total),
                results: numbered.results,
                head: history.head,
                complete: history.complete,
            }
        }
        Which::Range(range, limit) => {
            let history = api.commands.history(&caller, chat, range, limit).await?;
            Messages {
                current: None,
                total: None,
                results: history.messages,
                head: history.head,
                complete: history.complete,
            }
        }
    }))
}

async fn send(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    key: IdempotencyKey,
    Json(new): Json<NewMessage>,
) -> Result<impl IntoResponse, Problem> {
    let NewMessage { body, client_id, kind, attachments, reply_to, mentions, mention_all } = new;
    let client_id = key.or_body(client_id)?;
    // HTTP clients repeat without saying so: whatever has a name may have been sent before.
    let retry = client_id.is_some();
    let draft = Draft { client_id, body, kind, reply_to, attachments, mentions, mention_all, retry };
    let draft = api.commands.draft(draft)?;
    let written = api.commands.send(&caller, chat, draft).await?;
    let status = if written.repeat { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Answer(written.message)))
}

async fn one(
    State(api): State<Api>,
    caller: Caller,
    Two(chat, InChat(number)): Two<ChatId, InChat>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.message(&caller, chat, number).await?))
}

async fn edit(
    State(api): State<Api>,
    caller: Caller,
    Two(chat, InChat(number)): Two<ChatId, InChat>,
    Json(NewBody { body }): Json<NewBody>,
) -> Result<impl IntoResponse, Problem> {
    api.commands.edit(&caller, chat, number, body).await?;
    Ok(Answer(api.commands.message(&caller, chat, number).await.map_err(after_writing)?))
}

async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Two(chat, InChat(number)): Two<ChatId, InChat>,
) -> Result<impl IntoResponse, Problem> {
    api.commands.delete(&caller, chat, number).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn react(
    State(api): State<Api>,
    caller: Caller,
    Three(chat, InChat(number), Emoji(emoji)): Three<ChatId, InChat, Emoji>,
) -> Result<impl IntoResponse, Problem> {
    api.commands.react(&caller, chat, number, emoji, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unreact(
    State(api): State<Api>,
    caller: Caller,
    Three(chat, InChat(number), Emoji(emoji)): Three<ChatId, InChat, Emoji>,
) -> Result<impl IntoResponse, Problem> {
    api.commands.react(&caller, chat, number, emoji, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
