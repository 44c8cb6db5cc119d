//! `/applications/{token}/chats`: chats and their messages by number (CH-5, CH-8, ME-6, ME-11), and groups made from circles (CH-9). `message` stands for `messages` as well.
//!
//! Who comes with the operator's key acts for the application itself: in every chat of it, as nobody, or, where a body says so, in the
//! name of a user (`from`, `created_by`). Who comes with a user's token of that application does what the user may do anywhere else.
//! To everybody else there is no such application.

use axum::{
    Json as Answer,
    extract::{FromRequestParts, RawPathParams, State},
    response::IntoResponse,
};
use common::{
    document::{Routes, says},
    ids::{AppId, ChatId, ClientId, Number, UserId},
    model::MessageKind,
    problem::Problem,
    token::Caller,
    wire::{client::FieldError, codes::ErrorCode, owner::Draft},
};
use http::{StatusCode, request::Parts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Api, application_exists,
    applications::Operator,
    chats::{GROUP_BYTES, MAKES, Update},
    example,
    extract::{IdempotencyKey, InApp, InChat, Json, PathPart, Three, Two},
    messages::{self, EDITS, Messages, NewBody, WRITES, message_or_body},
    query::{PageOf, Which},
    search::{Sought, finds},
};
use crate::{
    circles::{Circle, Settled},
    commands::{NewGroup, after_writing, is_application, itself},
};

pub(super) fn routes() -> Routes<Api> {
    let key = ClientId::example();
    let settled = Settled {
        key: key.clone(),
        chat: example::CHAT,
        made: true,
        renamed: false,
        added: 0,
        removed: 0,
        left_out: 0,
    };
    let settled = AllSettled { results: vec![settled] };
    let mut routes = Routes::new("Chats by number")
        .get("/applications/{token}/chats", list, says("Chats of the application").ok(&example::chats()))
        .post(
            "/applications/{token}/chats",
            create,
            says("Makes a group")
                .takes(json!({"name": "Choir", "members": [example::ANA], "created_by": example::ANA}))
                .made_or_there(&example::chat())
                .refuses(MAKES),
        )
        .put(
            "/applications/{token}/circles",
            settle,
            says("Makes groups be these circles")
                .takes(json!({"circles": [{"key": key, "name": "Course 7", "members": [example::ANA]}]}))
                .ok(&settled)
                .refuses(&[ErrorCode::Conflict, ErrorCode::TooLarge]),
        );
    let chat_path = "/applications/{token}/chats/{number}";
    let updates = || {
        let body = json!({"name": "Choir"});
        says("Names or describes a group, or says how long its messages are kept; what is absent stays")
            .takes(body)
            .ok(&example::chat())
            .refuses(&[ErrorCode::Forbidden])
    };
    routes = routes
        .get(chat_path, chat, says("One chat").ok(&example::chat()))
        .put(chat_path, update, updates())
        .patch(chat_path, update, updates())
        .delete(chat_path, delete, says("Deletes a group").done().refuses(&[ErrorCode::Forbidden]));
    let edits = || {
        let body = json!({"body": "See you at nine"});
        says("Edits a message").takes(body).ok(&example::message()).refuses(EDITS)
    };
    for word in ["messages", "message"] {
        let all = format!("{chat_path}/{word}");
        let one = format!("{all}/{{message}}");
        routes = routes
            .get(&all, list_messages, says("Messages of a chat").ok(&Messages::example()))
            .post(
                &all,
                send,
                says("Sends a message")
                    .takes(json!({"body": "See you at eight", "from": example::ANA}))
                    .made_or_there(&example::message())
                    .refuses(WRITES),
            )
            .post(&format!("{all}/search"), search_messages, finds("Finds messages of a chat by their words"))
            .get(&one, message, says("One message").ok(&example::message()))
            .put(&one, edit, edits())
            .patch(&one, edit, edits())
            .delete(&one, erase, says("Deletes a message").done().refuses(&[ErrorCode::Forbidden]));
    }
    routes
}

/// Who acts in the application that the path names.
pub(super) struct Actor(Caller);

impl FromRequestParts<Api> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let no_such = || Problem::not_found("application");
        let params = RawPathParams::from_request_parts(parts, api).await.map_err(|_| no_such())?;
        let named = params.iter().next().and_then(|(_, text)| AppId::read(text));
        if api.auth.is_operator(&parts.headers) {
            let app = named.ok_or_else(no_such)?;
            application_exists(api, app).await?;
            return Ok(Self(itself(app)));
        }
        // Who is asking comes first: without a token nobody learns which applications there are.
        let caller = Caller::from_request_parts(parts, api).await?;
        if named == Some(caller.app) { Ok(Self(caller)) } else { Err(no_such()) }
    }
}

/// In whose name something is done: the caller's, or that of a user whom the application itself names.
fn in_name_of(caller: &Caller, field: &str, user: Option<UserId>) -> Result<Caller, Problem> {
    match user {
        Some(user) if user != caller.user && !is_application(caller) => {
            Err(Problem::invalid(FieldError::body(field, "must be you, or be left out")))
        }
        Some(user) => Ok(Caller { user, ..caller.clone() }),
        None => Ok(caller.clone()),
    }
}

#[derive(Deserialize, JsonSchema)]
struct NewChat {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    members: Vec<UserId>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    created_by: Option<UserId>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(transform = message_or_body)]
struct NewMessage {
    #[serde(alias = "message")]
    body: String,
    #[serde(default)]
    from: Option<UserId>,
    #[serde(default)]
    client_id: Option<ClientId>,
    #[serde(default, alias = "type")]
    kind: MessageKind,
    /// Of those that who sends it has uploaded.
    #[serde(default)]
    attachments: Vec<String>,
    #[serde(default)]
    reply_to: Option<Number>,
    #[serde(default)]
    mentions: Vec<UserId>,
    #[serde(default)]
    mention_all: bool,
}

/// Circles as they are to be (CH-9).
#[derive(Deserialize, JsonSchema)]
struct Circles {
    circles: Vec<Circle>,
}

/// What became of them, in their order.
#[derive(Serialize, JsonSchema)]
struct AllSettled {
    results: Vec<Settled>,
}

async fn settle(
    State(api): State<Api>,
    _: Operator,
    Actor(caller): Actor,
    Json(Circles { circles }): Json<Circles, GROUP_BYTES>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(AllSettled { results: api.commands.settle(&caller, circles).await? }))
}

async fn list(
    State(api): State<Api>,
    Actor(caller): Actor,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.chats(&caller, page).await?))
}

async fn create(
    State(api): State<Api>,
    Actor(caller): Actor,
    IdempotencyKey(key): IdempotencyKey,
    Json(new): Json<NewChat, GROUP_BYTES>,
) -> Result<impl IntoResponse, Problem> {
    let NewChat { name, description, members, message, created_by } = new;
    let caller = in_name_of(&caller, "created_by", created_by)?;
    if created_by.is_some() {
        api.commands.user_exists(&caller, caller.user).await?;
    }
    let group = NewGroup { name, description, members, first: message };
    let opened = api.commands.create_group(&caller, group, key.as_ref()).await?;
    let status = if opened.made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(opened.chat)))
}

/// The chat with this number; what the caller may do in it is asked with what is done.
async fn known(api: &Api, caller: &Caller, number: u64) -> Result<ChatId, Problem> {
    api.commands.numbered(caller.app, number).await
}

async fn chat(
    State(api): State<Api>,
    Actor(caller): Actor,
    Two(_, InApp(number)): Two<AppId, InApp>,
) -> Result<impl IntoResponse, Problem> {
    let chat = known(&api, &caller, number).await?;
    Ok(Answer(api.commands.chat(&caller, chat).await?))
}

async fn update(
    State(api): State<Api>,
    Actor(caller): Actor,
    Two(_, InApp(number)): Two<AppId, InApp>,
    Json(update): Json<Update>,
) -> Result<impl IntoResponse, Problem> {
    let chat = known(&api, &caller, number).await?;
    Ok(Answer(api.commands.update_chat(&caller, chat, update.into()).await?))
}

async fn delete(
    State(api): State<Api>,
    Actor(caller): Actor,
    Two(_, InApp(number)): Two<AppId, InApp>,
) -> Result<impl IntoResponse, Problem> {
    let chat = known(&api, &caller, number).await?;
    api.commands.delete_chat(&caller, chat).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_messages(
    State(api): State<Api>,
    Actor(caller): Actor,
    Two(_, InApp(number)): Two<AppId, InApp>,
    which: Which,
) -> Result<impl IntoResponse, Problem> {
    let chat = known(&api, &caller, number).await?;
    Ok(Answer(messages::read(&api, &caller, chat, which).await?))
}

async fn send(
    State(api): State<Api>,
    Actor(caller): Actor,
    Two(_, InApp(number)): Two<AppId, InApp>,
    key: IdempotencyKey,
    Json(new): Json<NewMessage>,
) -> Result<impl IntoResponse, Problem> {
    let NewMessage { body, from, client_id, kind, attachments, reply_to, mentions, mention_all } = new;
    let caller = in_name_of(&caller, "from", from)?;
    let client_id = key.or_body(client_id)?;
    let chat = known(&api, &caller, number).await?;
    let retry = client_id.is_some();
    let draft = Draft { client_id, body, kind, reply_to, attachments, mentions, mention_all, retry };
    messages::write(&api, &caller, chat, draft).await
}

async fn search_messages(
    State(api): State<Api>,
    Actor(caller): Actor,
    Two(_, InApp(number)): Two<AppId, InApp>,
    PageOf(page): PageOf,
    Json(Sought { query }): Json<Sought>,
) -> Result<impl IntoResponse, Problem> {
    let chat = known(&api, &caller, number).await?;
    Ok(Answer(api.commands.search(&caller, chat, &query, page).await?))
}

async fn message(
    State(api): State<Api>,
    Actor(caller): Actor,
    Three(_, InApp(number), InChat(message)): Three<AppId, InApp, InChat>,
) -> Result<impl IntoResponse, Problem> {
    let chat = known(&api, &caller, number).await?;
    Ok(Answer(api.commands.message(&caller, chat, message).await?))
}

async fn edit(
    State(api): State<Api>,
    Actor(caller): Actor,
    Three(_, InApp(number), InChat(message)): Three<AppId, InApp, InChat>,
    Json(NewBody { body }): Json<NewBody>,
) -> Result<impl IntoResponse, Problem> {
    let chat = known(&api, &caller, number).await?;
    api.commands.edit(&caller, chat, message, body).await?;
    Ok(Answer(api.commands.message(&caller, chat, message).await.map_err(after_writing)?))
}

async fn erase(
    State(api): State<Api>,
    Actor(caller): Actor,
    Three(_, InApp(number), InChat(message)): Three<AppId, InApp, InChat>,
) -> Result<impl IntoResponse, Problem> {
    let chat = known(&api, &caller, number).await?;
    api.commands.delete(&caller, chat, message).await?;
    Ok(StatusCode::NO_CONTENT)
}
