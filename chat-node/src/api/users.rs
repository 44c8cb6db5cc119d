//! `/users`: registering, profiles, and finding people by name (ID-1, ID-4, ID-7).

use axum::{
    Json as Answer, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use common::{ids::UserId, problem::Problem, token::Caller};
use http::StatusCode;

use super::{
    APP, Api,
    extract::{ClientAddress, Json, One},
    query::Named,
};
use crate::{identity::Registration, people::ProfileUpdate};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/users", post(register).get(find))
        .route("/users/me", get(me).patch(update))
        .route("/users/{user}", get(user))
}

async fn register(
    State(api): State<Api>,
    ClientAddress(address): ClientAddress,
    Json(registration): Json<Registration>,
) -> Result<impl IntoResponse, Problem> {
    Ok((StatusCode::CREATED, Answer(api.identity.register(APP, registration, address).await?)))
}

async fn me(State(api): State<Api>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.identity.me(&caller).await?))
}

async fn update(
    State(api): State<Api>,
    caller: Caller,
    Json(update): Json<ProfileUpdate>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.people.update(&caller, update).await?))
}

async fn find(
    State(api): State<Api>,
    caller: Caller,
    Named { query, page }: Named,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.people.find(&caller, &query, page).await?))
}

async fn user(
    State(api): State<Api>,
    caller: Caller,
    One(user): One<UserId>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.people.profile(&caller, user).await?))
}
