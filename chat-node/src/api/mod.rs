//! The REST API of a node: paths, bodies and answers; what is done is done by [`crate::commands`] and [`crate::identity`].
//!
//! To add a path: a handler in the file of its area, which takes the [`Caller`](common::token::Caller) first, then what it wants of path,
//! query and body through [`extract`] and [`query`] (so that whatever is wrong with them is a problem in the one format), and answers
//! `Result<impl IntoResponse, Problem>`; an entry in that area's `routes`, which serves the path and writes it down in `/openapi.json`
//! ([`common::document`]): what it does, a body that it takes, what it answers, and why it may refuse. Types of bodies derive `JsonSchema`;
//! a new kind of argument gets its lines in [`inputs`].

mod application_chats;
mod applications;
mod attachments;
mod bundles;
pub(crate) mod chats;
pub(crate) mod example;
pub(crate) mod extract;
pub(crate) mod health;
pub(crate) mod inputs;
mod members;
pub(crate) mod messages;
mod metrics;
mod notifications;
mod presence;
pub(crate) mod query;
mod relations;
mod search;
mod sessions;
mod users;
mod webhooks;

use std::{any::Any, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use common::{
    admission::Admission, applications::Applications, document::Document, ids::AppId, problem::Problem,
    wire::codes::ErrorCode,
};
use tower_http::catch_panic::CatchPanicLayer;

pub use self::metrics::HttpMetrics;
use crate::{
    attachments::Attachments, auth::Auth, commands::Commands, erasing::Erasing, identity::Identity,
    notifications::Notifications, people::People, presence::Whereabouts,
};

/// How long a client is waited for, and may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a request may take in all. What is not done by then may still be.
    pub request: Duration,
    /// How long its body may take to arrive.
    pub body: Duration,
}

impl Default for Patience {
    /// 15 s are three times what an owner has to answer; 10 s are 1.5 Mbit/s for the longest body, and 100 kbit/s for the longest of
    /// the others.
    fn default() -> Self {
        Self { request: Duration::from_secs(15), body: Duration::from_secs(10) }
    }
}

/// The application that somebody registers in or signs in to: the default one, unless they name another that there is.
async fn named(api: &Api, application: Option<AppId>) -> Result<AppId, Problem> {
    let Some(app) = application else { return Ok(AppId::DEFAULT) };
    application_exists(api, app).await?;
    Ok(app)
}

/// Whether there is an application of this token.
pub(crate) async fn application_exists(api: &Api, app: AppId) -> Result<(), Problem> {
    if api.applications.get(app).is_none() {
        // It may have been made on another node a moment ago.
        api.applications.look_anew(api.commands.store()).await?;
    }
    api.applications.get(app).map(drop).ok_or_else(|| Problem::not_found("application"))
}

/// Whether the node can serve: why not, in words for an operator.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the API stands on.
#[derive(Clone)]
pub struct Deps {
    /// What is done about chats.
    pub commands: Commands,
    /// What is done about users.
    pub identity: Identity,
    /// Who is connected.
    pub presence: Whereabouts,
    /// Files.
    pub attachments: Attachments,
    /// Who is asking.
    pub auth: Auth,
    /// Profiles, and who knows whom.
    pub people: People,
    /// What users are told while away, and where that goes.
    pub notifications: Notifications,
    /// What applications have chosen.
    pub applications: Applications,
    /// Sees to what was erased.
    pub erasing: Erasing,
    /// Lets those in who come with their application's own tokens.
    pub admission: Admission,
    /// Counts requests; made once for each registry.
    pub http_metrics: HttpMetrics,
    /// All metrics of the node, for `/metrics`.
    pub registry: prometheus::Registry,
    /// For `/readyz`.
    pub ready: Ready,
    /// Whose `X-Forwarded-For` is believed: the gateways in front of this node.
    pub gateways: Vec<IpAddr>,
    /// How long is waited.
    pub patience: Patience,
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    deps: Arc<Deps>,
    /// What is served, written down; empty where it is not told.
    openapi: Bytes,
}

impl Api {
    pub(crate) fn new(deps: Deps, openapi: Bytes) -> Self {
        Self { deps: Arc::new(deps), openapi }
    }
}

impl std::ops::Deref for Api {
    type Target = Deps;

    fn deref(&self) -> &Deps {
        &self.deps
    }
}

/// The node's HTTP paths, but for its socket. Clients' addresses come from `ConnectInfo<SocketAddr>` in a request's extensions; without it
/// there is no limit by address.
pub fn router(deps: Deps) -> Router {
    let mut document = Document::default();
    document.tell_webhooks();
    let v1 = users::routes()
        .merge(relations::routes())
        .merge(sessions::routes())
        .merge(chats::routes())
        .merge(members::routes())
        .merge(messages::routes())
        .merge(search::routes())
        .merge(presence::routes())
        .merge(notifications::routes())
        .merge(applications::routes())
        .merge(application_chats::routes())
        .merge(webhooks::routes())
        .merge(attachments::routes());
    let v1 = document.take("/api/v1", v1);
    let others = bundles::routes().merge(relations::older_routes()).merge(health::routes());
    let others = document.take("", others);
    let slow = document.take("/api/v1", attachments::slow_routes());
    let api = Api::new(deps, document.openapi().to_string().into());
    // Their handlers have an eye on the time.
    let slow = slow.method_not_allowed_fallback(no_method).layer(CatchPanicLayer::custom(panicked));
    served(bounded(v1.merge(others), &api).merge(slow), api)
}

/// Routes with a problem for whatever they do not have, for a handler that panics, and for one that takes too long.
pub(crate) fn bounded(routes: Router<Api>, api: &Api) -> Router<Api> {
    routes
        .fallback(|| async { Problem::new(ErrorCode::NotFound, "there is no such path") })
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(api.clone(), in_time))
}

/// Routes whose requests are counted.
pub(crate) fn served(routes: Router<Api>, api: Api) -> Router {
    routes.layer(middleware::from_fn_with_state(api.clone(), counted)).with_state(api)
}

async fn no_method() -> Problem {
    Problem::new(ErrorCode::MethodNotAllowed, "this path does not have this method")
}

/// Ends a request that takes too long. Writes may have been done: `outcome_unknown` says so.
async fn in_time(State(api): State<Api>, request: Request, next: Next) -> Response {
    let reads = request.method().is_safe();
    match tokio::time::timeout(api.patience.request, next.run(request)).await {
        Ok(response) => response,
        Err(_) if reads => Problem::retry_later("this took too long").into_response(),
        Err(_) => {
            Problem::new(ErrorCode::Unknown, "this took too long: it may be done or not").into_response()
        }
    }
}

async fn counted(State(api): State<Api>, request: Request, next: Next) -> Response {
    let request_seen = api.http_metrics.begin(&request);
    let response = next.run(request).await;
    request_seen.end(response.status());
    response
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    // What it said went to the log by way of the panic hook.
    tracing::error!("a request panicked");
    Problem::new(ErrorCode::Internal, "something went wrong here; it was reported").into_response()
}
