//! `/group/`: chats.

use std::collections::HashSet;

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Operation, Routes, says},
    ids::{AppId, ChatId, UserId},
    model::{ChatView, Head, Message, Page, PageRequest, limits},
    problem::Problem,
    token::{Caller, SUBJECT_BYTES},
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{FromZero, InApplication, Up, named};
use crate::{
    api::{
        Api,
        chats::{GROUP_BYTES, MAKES},
        example,
        extract::{IdempotencyKey, Json, One},
        query::{GroupPage, PageFromZero},
    },
    check::Checks,
    commands::{NewGroup, itself},
    history::History,
};

pub(super) fn routes() -> Routes<Api> {
    let page = || FromZero::example(vec![example::chat()]);
    let mut routes = Routes::new("Groups")
        .get("/group/messages", messages, says("A chat's messages, newest first").ok(&Messages::example()))
        .get("/group/user/{up}", of_user, says("A user's chats, the most active first").ok(&page()))
        .get("/group/{id}", one, says("One chat").ok(&example::chat()));
    for path in ["/group", "/group/"] {
        let all = says("The application's chats, groups and direct ones, by their numbers").ok(&page());
        routes = routes.get(path, list, all).post(path, create, makes());
    }
    routes
}

fn makes() -> Operation {
    says("Makes a group, which the first user owns")
        .takes(json!({"name": "Choir", "users": ["up201706518", example::BEN]}))
        .made_or_there(&example::chat())
        .refuses(MAKES)
}

#[derive(Deserialize, JsonSchema)]
struct New {
    #[serde(default)]
    #[schemars(length(min = 1, max = limits::NAME_CHARS))]
    name: Option<String>,
    /// By their ids, or by the operator's own names for them; each once.
    #[schemars(length(max = limits::MEMBERS), inner(length(min = 1, max = SUBJECT_BYTES)))]
    users: Vec<String>,
}

/// A page of one chat's messages.
#[derive(Serialize, JsonSchema)]
struct Messages {
    #[serde(flatten)]
    page: FromZero<Message>,
    head: Head,
    complete: bool,
}

impl Messages {
    fn example() -> Self {
        let page = FromZero::example(vec![example::message()]);
        Self { page, head: example::HEAD, complete: true }
    }
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
