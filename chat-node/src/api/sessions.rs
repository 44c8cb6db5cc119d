//! `/sessions`: signing in and out (ID-2, ID-5).

use axum::{
    Json as Answer, Router,
    extract::State,
    response::IntoResponse,
    routing::{delete, post},
};
use common::{ids::SessionId, problem::Problem, token::Caller, wire::codes::ErrorCode};
use http::{HeaderMap, StatusCode, header};

use super::{
    APP, Api,
    extract::{ClientAddress, Json, One},
    query::PageOf,
};
use crate::identity::Credentials;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/sessions", post(sign_in).get(list))
        .route("/sessions/current", delete(sign_out))
        .route("/sessions/{session}", delete(end))
}

async fn sign_in(
    State(api): State<Api>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<impl IntoResponse, Problem> {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).map(str::to_owned);
    let signed_in = api.identity.sign_in(APP, credentials, agent, address).await?;
    // No cache between here and the client may keep a token.
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Answer(signed_in)))
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    let sessions = api.identity.sessions(&caller).await?;
    let count = sessions.len() as u64;
    // A hundred at most.
    let skip = usize::try_from(page.skip()).unwrap_or(usize::MAX);
    let shown = sessions.into_iter().skip(skip).take(page.per_page as usize).collect::<Vec<_>>();
    Ok(Answer(page.answer(count, shown)))
}

async fn sign_out(State(api): State<Api>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    match api.identity.end(&caller, caller.session).await {
        // Of two at once, one ends it; for both it is ended.
        Err(problem) if problem.code != ErrorCode::NotFound => Err(problem),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

async fn end(
    State(api): State<Api>,
    caller: Caller,
    One(session): One<SessionId>,
) -> Result<impl IntoResponse, Problem> {
    api.identity.end(&caller, session).await?;
    Ok(StatusCode::NO_CONTENT)
}
