//! `/applications`: the operator makes and changes them (ID-6), and sees how many chats and messages they have (CH-8).

use std::sync::Arc;

use axum::{
    Json as Answer,
    extract::{FromRequestParts, State},
    response::IntoResponse,
};
use common::{
    applications::{AppSettings, MAX_APPLICATIONS, VerificationKey},
    document::{Routes, says},
    ids::AppId,
    model::{Page, limits},
    problem::Problem,
    store::{AppCounts, Application},
    token::{MIN_SECRET_BYTES, is_key},
    wire::{client::FieldError, codes::ErrorCode},
};
use http::{StatusCode, request::Parts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Api,
    extract::{IdempotencyKey, Json, One},
    query::PageOf,
};
use crate::{auth::unauthenticated, check::Checks, commands::after_writing};

/// How often a change is merged with what there is by then, when another one came between reading and writing. Each time one of those who meet
/// is done.
const TRIES: usize = 20;

pub(super) fn routes() -> Routes<Api> {
    let settings =
        AppSettings { contacts_only: true, register_on_first_sight: true, ..AppSettings::default() };
    let view =
        View { token: AppId::DEFAULT, name: "School".into(), chats_count: 3, messages_count: 790, settings };
    let whole = json!({"name": "School", "settings": {"retention": {"keep": "days", "days": 30}}});
    Routes::new("Applications")
        .get(
            "/applications",
            list,
            says("All applications").ok(&Page { current: 1, total: 1, results: vec![&view] }),
        )
        .post(
            "/applications",
            create,
            says("Makes an application")
                .takes(whole.clone())
                .made_or_there(&view)
                .refuses(&[ErrorCode::IdConflict, ErrorCode::TooLarge]),
        )
        .get("/applications/{token}", one, says("One application").ok(&view))
        .put(
            "/applications/{token}",
            update,
            says("Changes an application; what is absent stays, `settings` are given whole")
                .takes(whole)
                .ok(&view),
        )
        .delete(
            "/applications/{token}",
            erase,
            says("Erases an application with all that is in it; the default one stays")
                .done()
                .refuses(&[ErrorCode::Forbidden]),
        )
}

/// Whoever has the operator's key: `Authorization: Bearer`.
pub(super) struct Operator;

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if api.auth.is_operator(&parts.headers) { Ok(Self) } else { Err(unauthenticated()) }
    }
}

#[derive(Deserialize, JsonSchema)]
struct NewApplication {
    #[schemars(length(min = 1, max = limits::NAME_CHARS))]
    name: String,
    #[serde(default)]
    settings: AppSettings,
}

/// What is absent stays. `settings` are given whole.
#[derive(Deserialize, JsonSchema)]
struct Update {
    #[serde(default)]
    #[schemars(length(min = 1, max = limits::NAME_CHARS))]
    name: Option<String>,
    #[serde(default)]
    settings: Option<AppSettings>,
}

/// An application as the operator sees it. Secrets are not shown.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Application")]
struct View {
    token: AppId,
    name: String,
    chats_count: u64,
    messages_count: u64,
    settings: AppSettings,
}

impl View {
    fn new(application: &Application, counts: AppCounts) -> Self {
        let mut settings = (*application.settings).clone();
        settings.keys.iter_mut().for_each(VerificationKey::hide_secret);
        Self {
            token: application.id,
            name: application.name.clone(),
            chats_count: counts.chats,
            messages_count: counts.messages,
            settings,
        }
    }
}

async fn list(
    State(api): State<Api>,
    _: Operator,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    api.applications.look(api.commands.store()).await?;
    let mut all = api.applications.all();
    all.sort_unstable_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
    let count = all.len() as u64;
    let mut shown = Vec::new();
    for application in page.part_of(all) {
        shown.push(View::new(&application, api.commands.application_counts(application.id).await?));
    }
    Ok(Answer(page.answer(count, shown)))
}

async fn erase(
    State(api): State<Api>,
    _: Operator,
    One(app): One<AppId>,
) -> Result<impl IntoResponse, Problem> {
    if app == AppId::DEFAULT {
        return Err(Problem::new(ErrorCode::Forbidden, "the default application stays"));
    }
    let erased = api.commands.store().erase_application(app, api.auth.now()).await;
    if !erased.map_err(|error| after_writing(error.into()))? {
        return Err(Problem::not_found("application"));
    }
    api.applications.hint();
    Ok(StatusCode::NO_CONTENT)
}

async fn create(
    State(api): State<Api>,
    _: Operator,
    IdempotencyKey(key): IdempotencyKey,
    Json(NewApplication { name, settings }): Json<NewApplication>,
) -> Result<impl IntoResponse, Problem> {
    let application = Application {
        id: key.as_ref().map_or_else(AppId::random, |key| AppId::keyed(key.as_str())),
        name,
        token_secret: rand::random::<[u8; MIN_SECRET_BYTES]>().to_vec(),
        token_kid: format!("{:08x}", rand::random::<u32>()),
        settings: Arc::new(settings),
    };
    check(&application)?;
    let known = api.applications.all();
    if known.len() >= MAX_APPLICATIONS && !known.iter().any(|one| one.id == application.id) {
        return Err(Problem::new(
            ErrorCode::TooLarge,
            format!("a cluster has at most {MAX_APPLICATIONS} applications"),
        ));
    }
    let made = api.commands.store().add_application(&application).await?;
    let there = match read(&api, application.id).await {
        Err(problem) if problem.code == ErrorCode::NotFound => {
            let why = "the application that was made under this key was erased: take another key";
            return Err(Problem::new(ErrorCode::IdConflict, why));
        }
        there => there.map_err(after_writing)?,
    };
    // A repeat gives the one that is there, if it is this one.
    if !made && (&there.name, &there.settings) != (&application.name, &application.settings) {
        return Err(Problem::new(
            ErrorCode::IdConflict,
            "another application was made under this key; it stands",
        ));
    }
    let counts = api.commands.application_counts(there.id).await.map_err(after_writing)?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(View::new(&there, counts))))
}

async fn one(
    State(api): State<Api>,
    _: Operator,
    One(app): One<AppId>,
) -> Result<impl IntoResponse, Problem> {
    let application = read(&api, app).await?;
    Ok(Answer(View::new(&application, api.commands.application_counts(app).await?)))
}

async fn update(
    State(api): State<Api>,
    _: Operator,
    One(app): One<AppId>,
    Json(Update { name, settings }): Json<Update>,
) -> Result<impl IntoResponse, Problem> {
    for _ in 0..TRIES {
        let (seen, before) = read_as_of(&api, app).await?;
        let after = merged(&before, name.as_ref(), settings.as_ref());
        check(&after)?;
        let store = api.commands.store();
        if store.update_application(app, &after.name, &after.settings, seen).await? {
            let application = read(&api, app).await.map_err(after_writing)?;
            let counts = api.commands.application_counts(app).await.map_err(after_writing)?;
            return Ok(Answer(View::new(&application, counts)));
        }
    }
    Err(Problem::retry_later("applications are being changed by others at the same time"))
}

/// The application with what is wanted of it; what is absent stays.
fn merged(before: &Application, name: Option<&String>, settings: Option<&AppSettings>) -> Application {
    let mut after = before.clone();
    if let Some(name) = name {
        after.name.clone_from(name);
    }
    if let Some(settings) = settings {
        let mut settings = settings.clone();
        // A secret is not shown, and so need not be given again.
        for key in settings.keys.iter_mut().filter(|key| key.key.is_empty()) {
            let same = |known: &&VerificationKey| known.kid == key.kid && known.algorithm == key.algorithm;
            if let Some(known) = before.settings.keys.iter().find(same) {
                key.key.clone_from(&known.key);
            }
        }
        after.settings = Arc::new(settings);
    }
    after
}

/// An application as it is now; and from now on this node knows it so.
async fn read(api: &Api, app: AppId) -> Result<Arc<Application>, Problem> {
    read_as_of(api, app).await.map(|(_, application)| application)
}

/// Likewise, with the change of applications that it includes at least.
async fn read_as_of(api: &Api, app: AppId) -> Result<(u64, Arc<Application>), Problem> {
    api.applications.look(api.commands.store()).await?;
    api.applications.get_as_of(app).ok_or_else(|| Problem::not_found("application"))
}

fn check(application: &Application) -> Result<(), Problem> {
    let mut checks = Checks::default();
    checks.text("name", &application.name, 1, limits::NAME_CHARS);
    let faults = application.settings.faults();
    if faults.is_empty() {
        for (at, key) in application.settings.keys.iter().enumerate() {
            if key.kid == application.token_kid {
                checks.wrong(format!("settings.keys[{at}].kid"), "is the name of the cluster's own key");
            }
            if !is_key(key) {
                checks.wrong(format!("settings.keys[{at}].key"), "is no key of its algorithm");
            }
        }
    }
    faults.into_iter().for_each(|FieldError { param, msg, .. }| checks.wrong(param, msg));
    checks.done()
}
