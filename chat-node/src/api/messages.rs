//! `/chats/{chat}/messages`: writing, reading, editing, deleting, reacting (ME-1, ME-2, ME-4, ME-5, ME-8).

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::{ChatId, ClientId, Number, UserId},
    model::{Head, Message, MessageKind},
    problem::Problem,
    token::Caller,
    wire::{codes::ErrorCode, owner::Draft},
};
use http::StatusCode;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Api, example,
    extract::{Emoji, IdempotencyKey, InChat, Json, One, Three, Two},
    query::Which,
};
use crate::commands::after_writing;

/// Why a message may be refused.
pub(crate) const WRITES: &[ErrorCode] = &[
    ErrorCode::Forbidden,
    ErrorCode::IdConflict,
    ErrorCode::RateLimited,
    ErrorCode::RefusedWords,
    ErrorCode::RefusedLinks,
];

/// Why another text for one may.
pub(super) const EDITS: &[ErrorCode] =
    &[ErrorCode::Forbidden, ErrorCode::RateLimited, ErrorCode::RefusedWords, ErrorCode::RefusedLinks];

pub(super) fn routes() -> Routes<Api> {
    let message = "/chats/{chat}/messages/{number}";
    let reaction = "/chats/{chat}/messages/{number}/reactions/{emoji}";
    Routes::new("Messages")
        .get(
            "/chats/{chat}/messages",
            list,
            says("Messages, newest first by the page; or before or after a number").ok(&Messages::example()),
        )
        .post(
            "/chats/{chat}/messages",
            send,
            says("Sends a message: answered once it is in the log")
                .takes(json!({"body": "See you at eight", "client_id": "6f1d2c", "reply_to": 789}))
                .takes(json!({"message": "See you at eight", "mention_all": true}))
                .made_or_there(&example::message())
                .refuses(WRITES),
        )
        .get(message, one, says("One message").ok(&example::message()))
        .put(
            message,
            edit,
            says("Edits one's own message")
                .takes(json!({"body": "See you at nine"}))
                .ok(&example::message())
                .refuses(EDITS),
        )
        .delete(
            message,
            delete,
            says("Deletes one's own message; an admin, anybody's").done().refuses(&[ErrorCode::Forbidden]),
        )
        .put(
            reaction,
            react,
            says("Answers a message with an emoji").done().refuses(&[
                ErrorCode::Forbidden,
                ErrorCode::Invalid,
                ErrorCode::TooLarge,
            ]),
        )
        .delete(
            reaction,
            unreact,
            says("Takes that back").done().refuses(&[ErrorCode::Invalid, ErrorCode::TooLarge]),
        )
}

#[derive(Deserialize, JsonSchema)]
#[schemars(transform = message_or_body)]
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

/// A message's new text.
#[derive(Deserialize, JsonSchema)]
#[schemars(transform = message_or_body)]
pub(super) struct NewBody {
    #[serde(alias = "message")]
    pub(super) body: String,
}

/// The cursor form of history, and of a page what it has besides.
#[derive(Serialize, JsonSchema)]
pub(super) struct Messages {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u32>,
    results: Vec<Message>,
    head: Head,
    complete: bool,
}

impl Messages {
    /// A page, for the document.
    pub(super) fn example() -> Self {
        let results = vec![example::message()];
        Self { current: Some(1), total: Some(1), results, head: example::HEAD, complete: true }
    }
}

/// A message's text may be called `message` as well as `body`.
pub(crate) fn message_or_body(schema: &mut Schema) {
    let names = ["body", "message"];
    if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        let text = names.iter().find_map(|name| properties.get(*name).cloned());
        properties
            .extend(text.into_iter().flat_map(|text| names.map(|name| (name.to_owned(), text.clone()))));
    }
    if let Some(required) = schema.get_mut("required").and_then(serde_json::Value::as_array_mut) {
        required.retain(|required| names.iter().all(|name| required != name));
        if required.is_empty() {
            schema.remove("required");
        }
    }
    schema.insert("oneOf".to_owned(), json!([{"required": ["body"]}, {"required": ["message"]}]));
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    One(chat): One<ChatId>,
    which: Which,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(read(&api, &caller, chat, which).await?))
}

/// The messages that were asked for.
pub(super) async fn read(
    api: &Api,
    caller: &Caller,
    chat: ChatId,
    which: Which,
) -> Result<Messages, Problem> {
    Ok(match which {
        Which::Page(page) => {
            let (history, count) = api.commands.history_page(caller, chat, page).await?;
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
            let history = api.commands.history(caller, chat, range, limit).await?;
            Messages {
                current: None,
                total: None,
                results: history.messages,
                head: history.head,
                complete: history.complete,
            }
        }
    })
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
    write(&api, &caller, chat, draft).await
}

/// Sends a message, and says whether it was there already.
pub(crate) async fn write(
    api: &Api,
    caller: &Caller,
    chat: ChatId,
    draft: Draft,
) -> Result<impl IntoResponse + use<>, Problem> {
    let draft = api.commands.draft(draft)?;
    let written = api.commands.send(caller, chat, draft).await?;
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
