//! `/user/`: users, and whether they are there.

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::{AppId, UserId, UserKey},
    model::{Page, PresenceStatus, PresenceView},
    problem::Problem,
    store::{ProfileChange, User},
    wire::codes::ErrorCode,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{FromZero, InApplication, Up};
use crate::{
    api::{
        Api, example,
        extract::{Json, One},
        query::PageFromZero,
    },
    check::Checks,
    commands::{after_writing, itself},
    identity::{a_name, username},
};

pub(super) fn routes() -> Routes<Api> {
    let view = || View { id: example::ANA, username: "ana".into(), name: "Ana".into(), online: Some(true) };
    let mut routes = Routes::new("Users").post(
        "/user/{up}",
        put,
        says("Makes a user, without a password, or changes one, and says whether they are there")
            .takes(json!({"username": "ana", "name": "Ana", "online": true}))
            .answers(201, "Made.", &view())
            .answers(200, "It was there: this is how it is.", &view())
            .refuses(&[ErrorCode::Conflict]),
    );
    for path in ["/user", "/user/"] {
        let page = FromZero::example(vec![view()]);
        routes = routes.get(path, list, says("Everybody, by their ids").ok(&page));
    }
    routes
}

/// What is to be known of a user. What is absent stays; a new user is called here as in the path, and shown to others under a name that tells
/// nothing.
#[derive(Deserialize, JsonSchema)]
struct Said {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    online: Option<bool>,
}

/// A user as the operator sees one.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StoredUser")]
struct View {
    id: UserId,
    username: String,
    name: String,
    /// None when it cannot be told at the moment.
    online: Option<bool>,
}

impl View {
    fn new(user: User, presence: PresenceView) -> Self {
        let online = match presence.status {
            PresenceStatus::Online => Some(true),
            PresenceStatus::Offline => Some(false),
            PresenceStatus::Unknown => None,
        };
        Self { id: user.id, username: user.username, name: user.name, online }
    }
}

async fn list(
    State(api): State<Api>,
    InApplication(app): InApplication,
    PageFromZero(page): PageFromZero,
) -> Result<impl IntoResponse, Problem> {
    let Page { current, total, results: users } = api.commands.store().all_users(app, page).await?;
    let ids: Vec<UserId> = users.iter().map(|user| user.id).collect();
    let presences = api.presence.of_known(itself(app).key(), &ids).await?;
    let results: Vec<View> =
        users.into_iter().zip(presences).map(|(user, presence)| View::new(user, presence)).collect();
    Ok(Answer(FromZero::from(Page { current, total, results })))
}

async fn put(
    State(api): State<Api>,
    InApplication(app): InApplication,
    One(up): One<Up>,
    Json(Said { username, name, online }): Json<Said>,
) -> Result<impl IntoResponse, Problem> {
    let id = up.user(app).ok_or_else(|| Problem::not_found("user"))?;
    let (user, made) = match api.commands.store().user(app, id).await? {
        Some(known) => (changed(&api, app, known, username.as_deref(), name).await?, false),
        None => made(&api, app, id, username.unwrap_or(up.0), name).await?,
    };
    if let Some(online) = online {
        let said = api.presence.declare(UserKey { app, user: id }, online).await;
        said.map_err(after_writing)?;
    }
    let presence = api.presence.of(itself(app).key(), id).await.map_err(after_writing)?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(View::new(user, presence))))
}

/// A new user, and whether this request made it. No password signs them in: they come with the application's own tokens, or not at all.
async fn made(
    api: &Api,
    app: AppId,
    id: UserId,
    called: String,
    name: Option<String>,
) -> Result<(User, bool), Problem> {
    let name = name.unwrap_or_else(|| User::unnamed(id));
    let mut checks = Checks::default();
    username(&mut checks, &called);
    a_name(&mut checks, &name);
    checks.done()?;
    let user = User::without_password(id, called, name, api.auth.now());
    let added = api.commands.store().add_user(app, &user).await;
    if matches!(added, Ok(true)) {
        return Ok((user, true));
    }
    // Two that come at once for the first time: one of them makes the user, for both.
    match api.commands.store().user(app, id).await? {
        Some(there) => Ok((changed(api, app, there, Some(&user.username), Some(user.name)).await?, false)),
        None => {
            added.map_err(|error| after_writing(error.into()))?;
            Err(Problem::new(ErrorCode::Conflict, "username: is taken already"))
        }
    }
}

async fn changed(
    api: &Api,
    app: AppId,
    known: User,
    called: Option<&str>,
    name: Option<String>,
) -> Result<User, Problem> {
    if called.is_some_and(|called| called.to_lowercase() != known.username.to_lowercase()) {
        return Err(Problem::new(ErrorCode::Conflict, "username: the user has another one, which stays"));
    }
    let Some(name) = name.filter(|name| *name != known.name) else { return Ok(known) };
    let mut checks = Checks::default();
    a_name(&mut checks, &name);
    checks.done()?;
    let change = ProfileChange { name: Some(name), ..ProfileChange::default() };
    let user = api.commands.store().update_profile(app, known.id, &change).await?;
    user.ok_or_else(|| Problem::not_found("user"))
}
