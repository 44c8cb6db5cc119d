//! `/sessions`: signing in and out (ID-2, ID-5).

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::SessionId,
    problem::Problem,
    token::{Caller, Presented},
    wire::codes::ErrorCode,
};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use super::{
    Api, example,
    extract::{ClientAddress, Json, One},
    named,
    query::PageOf,
};
use crate::identity::{Credentials, SignedIn};

pub(super) fn routes() -> Routes<Api> {
    let signed_in = SignedIn {
        token: "eyJhbGciOiJIUzI1NiJ9.e30.c2ln".into(),
        expires_at: example::AT,
        user: example::own_user(),
    };
    Routes::new("Sessions")
        .post(
            "/sessions",
            sign_in,
            says("Signs in")
                .takes(json!({"username": "ana", "password": "correct horse", "device": "Ana's phone"}))
                .made(&signed_in)
                .refuses(&[ErrorCode::Unauthenticated, ErrorCode::NotFound]),
        )
        .get("/sessions", list, says("The caller's sign-ins").ok(&example::page(vec![example::session()])))
        .delete(
            "/sessions/current",
            sign_out,
            says("Signs out: the token is good nowhere from then on").done(),
        )
        .delete("/sessions/{session}", end, says("Ends one of the caller's sign-ins").done())
}

async fn sign_in(
    State(api): State<Api>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<impl IntoResponse, Problem> {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).map(str::to_owned);
    let app = named(&api, credentials.application).await?;
    let signed_in = api.identity.sign_in(app, credentials, agent, address).await?;
    // No cache between here and the client may keep a token.
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Answer(signed_in)))
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    let sessions = api.identity.sessions(&caller).await?;
    // A hundred at most.
    Ok(Answer(page.page_of(sessions)))
}

async fn sign_out(
    State(api): State<Api>,
    Presented { caller, foreign }: Presented,
) -> Result<impl IntoResponse, Problem> {
    if foreign.is_some() {
        api.identity.note(&caller).await?;
    }
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
