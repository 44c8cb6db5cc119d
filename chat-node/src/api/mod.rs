//! The REST API of a node: paths, bodies and answers; what is done is done by [`crate::commands`] and [`crate::identity`].
//!
//! To add a path: a handler in the file of its area, which takes the [`Caller`](common::token::Caller) first, then what it wants of path,
//! query and body through [`extract`] and [`query`] (so that whatever is wrong with them is a problem in the one format), and answers
//! `Result<impl IntoResponse, Problem>`; a line in that area's `routes`.

mod bundles;
mod chats;
mod extract;
mod health;
mod members;
mod messages;
mod metrics;
mod query;
mod sessions;
mod users;

use std::{any::Any, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use common::{applications::Applications, ids::AppId, problem::Problem, wire::codes::ErrorCode};
use tower_http::catch_panic::CatchPanicLayer;

pub use self::metrics::HttpMetrics;
use crate::{auth::Auth, commands::Commands, identity::Identity, people::People};

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

/// The application that users register in and sign in to.
const APP: AppId = AppId::DEFAULT;

/// Whether the node can serve: why not, in words for an operator.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the API stands on.
#[derive(Clone)]
pub struct Deps {
    /// What is done about chats.
    pub commands: Commands,
    /// What is done about users.
    pub identity: Identity,
    /// Who is asking.
    pub auth: Auth,
    /// Profiles, and who knows whom.
    pub people: People,
    /// What applications have chosen.
    pub applications: Applications,
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
struct Api(Arc<Deps>);

impl std::ops::Deref for Api {
    type Target = Deps;

    fn deref(&self) -> &Deps {
        &self.0
    }
}

/// The node's HTTP paths, but for its socket. Clients' addresses come from `ConnectInfo<SocketAddr>` in a request's extensions; without it
/// there is no limit by address.
pub fn router(deps: Deps) -> Router {
    let api = Api(Arc::new(deps));
    let v1 = Router::new()
        .merge(users::routes())
        .merge(sessions::routes())
        .merge(chats::routes())
        .merge(members::routes())
        .merge(messages::routes());
    Router::new()
        .nest("/api/v1", v1)
        .merge(bundles::routes())
        .merge(health::routes())
        .fallback(|| async { Problem::new(ErrorCode::NotFound, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(ErrorCode::MethodNotAllowed, "this path does not have this method")
        })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(api.clone(), in_time))
        .layer(middleware::from_fn_with_state(api.clone(), counted))
        .with_state(api)
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
