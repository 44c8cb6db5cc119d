//! `/group/`: chats.

use std::collections::HashSet;

use axum::{Json as Answer, Router, extract::State, response::IntoResponse, routing::get};
use common::{
    ids::{AppId, ChatId, UserId},
    model::{ChatView, Head, Message, Page, PageRequest, limits},
    problem::Problem,
    token::Caller,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{FromZero, InApplication, Up, named};
use crate::{
    api::{
        Api,
        chats::GROUP_BYTES,
        extract::{IdempotencyKey, Json, One},
        query::{GroupPage, PageFromZero},
    },
    check::Checks,
    commands::{NewGroup, itself},
    history::History,
};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/group", get(list).post(create))
        .route("/group/", get(list).post(create))
        .route("/group/messages", get(messages))
        .route("/group/user/{up}", get(of_user))
        .route("/group/{id}", get(one))
}

#[derive(Deserialize)]
struct New {
    #[serde(default)]
    name: Option<String>,
    users: Vec<String>,
}

/// A page of one chat's messages.
#[derive(Serialize)]
struct Messages {
    #[serde(flatten)]
    page: FromZero<Message>,
    head: Head,
    complete: bool,
}

async fn list(
    State(api): State<Api>,
    InApplication(app): InApplication,
    PageFromZero(page): PageFromZero,
) -> Result<impl IntoResponse, Problem> {
    chats(&api, &itself(app), page).await
}

async fn of_user(
    State(api): State<Api>,
    InApplication(app): InApplication,
    One(up): One<Up>,
    PageFromZero(page): PageFromZero,
) -> Result<impl IntoResponse, Problem> {
    let user = up.user(app).ok_or_else(|| Problem::not_found("user"))?;
    api.commands.user_exists(&itself(app), user).await?;
    chats(&api, &Caller { user, ..itself(app) }, page).await
}

async fn chats(api: &Api, caller: &Caller, page: PageRequest) -> Result<Answer<FromZero<ChatView>>, Problem> {
    let chats = api.commands.chats(caller, page).await?;
    let page = Page { current: chats.current, total: chats.total, results: chats.results };
    Ok(Answer(page.into()))
}

async fn one(
    State(api): State<Api>,
    InApplication(app): InApplication,
    One(chat): One<ChatId>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.commands.chat(&itself(app), chat).await?))
}

async fn messages(
    State(api): State<Api>,
    InApplication(app): InApplication,
    GroupPage { group, page }: GroupPage,
) -> Result<impl IntoResponse, Problem> {
    let (history, count) = api.commands.history_page(&itself(app), group, page).await?;
    let History { messages, head, complete } = history;
    Ok(Answer(Messages { page: page.answer(count, messages).into(), head, complete }))
}

async fn create(
    State(api): State<Api>,
    InApplication(app): InApplication,
    IdempotencyKey(key): IdempotencyKey,
    Json(New { name, users }): Json<New, GROUP_BYTES>,
) -> Result<impl IntoResponse, Problem> {
    let caller = itself(app);
    let members = members(app, &users)?;
    api.commands.users_exist(&caller, "users", &members).await?;
    let group = NewGroup { name, members, ..NewGroup::default() };
    let opened = api.commands.create_group(&caller, group, key.as_ref()).await?;
    let status = if opened.made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(opened.chat)))
}

/// Who is to be in it, each once.
fn members(app: AppId, users: &[String]) -> Result<Vec<UserId>, Problem> {
    let mut checks = Checks::default();
    if users.len() > limits::MEMBERS {
        checks.wrong("users", format!("must be at most {}", limits::MEMBERS));
    }
    let mut seen = HashSet::with_capacity(users.len());
    let mut members = Vec::with_capacity(users.len());
    for (at, name) in users.iter().enumerate() {
        let field = format!("users[{at}]");
        let Some(user) = named(&mut checks, app, &field, name) else { continue };
        if !seen.insert(user) {
            checks.wrong(field, "is named twice");
        }
        members.push(user);
    }
    checks.done()?;
    Ok(members)
}
