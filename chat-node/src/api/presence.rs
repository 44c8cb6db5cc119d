//! Who is connected (PR-1).

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::UserId,
    model::UserPresence,
    problem::Problem,
    token::Caller,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, example, extract::One, query::Users};

pub(super) fn routes() -> Routes<Api> {
    let several = Several { results: vec![example::presence_of_user()] };
    Routes::new("Presence")
        .get(
            "/users/{user}/presence",
            one,
            says("Whether somebody is connected").ok(&example::presence_of_user()),
        )
        .get("/presence", self::several, says("Whether each of several people is connected").ok(&several))
}

#[derive(Serialize, JsonSchema)]
struct Several {
    results: Vec<UserPresence>,
}

async fn one(
    State(api): State<Api>,
    caller: Caller,
    One(user): One<UserId>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.presence.of_user(&caller, user).await?))
}

async fn several(
    State(api): State<Api>,
    caller: Caller,
    Users(users): Users,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(Several { results: api.presence.of_users(&caller, &users).await? }))
}
