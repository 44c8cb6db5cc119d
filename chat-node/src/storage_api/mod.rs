//! The storage API (OP-6): groups, messages and users for systems of the operator's own that stand beside the cluster. It has a listener of its
//! own, which no client and no gateway reaches, and a key of its own: `Authorization: Bearer KEY`.
//!
//! | | |
//! | --- | --- |
//! | `GET /group/`, `GET /group/{id}` | the application's chats, groups and direct ones, by their numbers; as `/api/v1/chats` shows them, and to nobody |
//! | `GET /group/user/{up}` | a user's chats as the user sees them, the most active first |
//! | `GET /group/messages?groupID=ID` | a chat's messages, newest first: {current, total, results, head, complete} |
//! | `POST /group/` | `{name?, users: [up]}` → 201 with the chat, which the first user owns |
//! | `GET /message/`, `GET /message/{id}` | the messages of all chats, chat by chat, as stored; one message |
//! | `POST /message/` | {group, message, from?: up, client_id?} → 201 with the message, 200 when it was there already; without `from` it is the application's own |
//! | `GET /user/` | users by their ids: {id, username, name, online} |
//! | `POST /user/{up}` | {username?, name?, online?} → 201 when that makes the user, 200 when it changes one |
//!
//! Lists are pages, counted from 0: `page`, `perPage` (at most 100). A user is named by id, or by a name of the operator's own (`up`) that leads
//! to the same user as the `sub` of the application's own tokens. Everything is of the default application, unless `application=TOKEN` names
//! another. `Idempotency-Key` is a `client_id`. Whatever changes a chat is asked of its owner, like anything that clients ask: it has a number,
//! stands in the log, and is told to who is in the chat.
//!
//! All of it is written down in `GET /openapi.json`, which needs the key as well.
//!
//! `online` is true while the user has a session anywhere, and while it was said here: a user may be connected to something that is not this
//! cluster. It is said until false is said, or the node that heard it ends.

mod groups;
mod messages;
mod users;

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use common::{
    admin_key::AdminKey,
    document::{self, Document, Input, Key, Operation, Routes, says},
    ids::{AppId, UserId},
    model::Page,
    problem::Problem,
    token::SUBJECT_BYTES,
    wire::codes::ErrorCode,
};
use http::request::Parts;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::{
        Api, Deps, application_exists, bounded, example, extract::PathPart, health::openapi, inputs::Shown,
        query::OfApplication, served,
    },
    auth::bearer,
    check::Checks,
};

/// Its paths. Without `key` in a request there is none of them.
pub fn router(deps: Deps, key: AdminKey) -> Router {
    let mut document = Document::new(
        "Chat cluster: the storage API",
        "For systems of the operator's own, on a port of its own. Whatever is refused is answered as `application/problem+json`, with a \
         stable `code`; lists are paged by `page`, from 0, and `perPage`. A user is named by id, or by the operator's own name for them.",
    );
    let routes = groups::routes().merge(messages::routes()).merge(users::routes()).merge(documents());
    let routes = document.take("", routes);
    let api = Api::new(deps, document.openapi().to_string().into());
    let guarded = middleware::from_fn_with_state(Arc::new(key), guarded);
    served(bounded(routes, &api).layer(guarded), api)
}

fn documents() -> Routes<Api> {
    let example = json!({"openapi": "3.1.0", "info": {"title": "Chat cluster: the storage API"}});
    Routes::new("Documents").get(document::PATH, openapi, says("This document").by(Key::Storage).ok(&example))
}

async fn guarded(State(key): State<Arc<AdminKey>>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Some(presented) if key.opens_to(presented) => next.run(request).await,
        _ => Problem::new(ErrorCode::Unauthenticated, "send the storage API's key: Authorization: Bearer …")
            .into_response(),
    }
}

/// The application that is meant.
struct InApplication(AppId);

impl FromRequestParts<Api> for InApplication {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let OfApplication(named) = OfApplication::from_request_parts(parts, api).await?;
        let Some(app) = named else { return Ok(Self(AppId::DEFAULT)) };
        application_exists(api, app).await?;
        Ok(Self(app))
    }
}

impl Input for InApplication {
    fn describe(operation: &mut Operation) {
        operation.needs(Key::Storage);
        OfApplication::describe(operation);
    }
}

/// What a user is called here: an id of ours, or a name of the operator's own.
struct Up(String);

impl PathPart for Up {
    const WHAT: &'static str = "user";

    fn read(text: &str) -> Option<Self> {
        let good = !text.is_empty() && text.len() <= SUBJECT_BYTES && !text.chars().any(char::is_control);
        good.then(|| Self(text.to_owned()))
    }
}

impl Shown for Up {
    fn shown() -> (Value, Value) {
        (json!({"type": "string", "minLength": 1, "maxLength": SUBJECT_BYTES}), json!("up201706518"))
    }
}

impl Up {
    /// The user. That there is one is not said; that it is not the application itself is.
    fn user(&self, app: AppId) -> Option<UserId> {
        Some(UserId::called(app, &self.0)).filter(|user| *user != UserId::APPLICATION)
    }
}

/// The user whom the field of a body names.
fn named(checks: &mut Checks, app: AppId, field: &str, name: &str) -> Option<UserId> {
    let user = Up::read(name).and_then(|up| up.user(app));
    if user.is_none() {
        let msg = format!("must be a user's id or name, of 1 to {SUBJECT_BYTES} bytes");
        checks.wrong(field, msg);
    }
    user
}

/// A page, counted from 0.
#[derive(Serialize, JsonSchema)]
struct FromZero<T> {
    current: u32,
    total: u32,
    results: Vec<T>,
}

impl<T> From<Page<T>> for FromZero<T> {
    fn from(page: Page<T>) -> Self {
        let Page { current, total, results } = page;
        Self { current: current.saturating_sub(1), total, results }
    }
}

impl<T> FromZero<T> {
    /// The one page of a short list, for the document.
    fn example(results: Vec<T>) -> Self {
        example::page(results).into()
    }
}
