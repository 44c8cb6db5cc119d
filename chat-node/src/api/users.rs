//! `/users`: registering, and who somebody is (ID-1, ID-4, ID-7 in part).

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
};
use crate::identity::Registration;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/users", post(register))
        .route("/users/me", get(me))
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

async fn user(
    State(api): State<Api>,
    caller: Caller,
    One(user): One<UserId>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.identity.user(&caller, user).await?))
}
