//! `/users`: registering, profiles, and finding people by name (ID-1, ID-4, ID-7).

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Routes, says},
    ids::UserId,
    problem::Problem,
    token::Caller,
    wire::codes::ErrorCode,
};
use http::StatusCode;
use serde_json::json;

use super::{
    Api, example,
    extract::{ClientAddress, Json, One},
    named,
    query::Named,
};
use crate::{
    identity::{Confirmation, Registration},
    people::ProfileUpdate,
};

pub(super) fn routes() -> Routes<Api> {
    let registers =
        json!({"username": "ana", "password": "correct horse", "name": "Ana", "timezone": "Europe/Madrid"});
    Routes::new("Users")
        .post(
            "/users",
            register,
            says("Registers somebody")
                .takes(registers)
                .made(&example::own_user())
                .refuses(&[ErrorCode::Conflict, ErrorCode::NotFound]),
        )
        .get("/users", find, says("Finds people by name").ok(&example::page(vec![example::user()])))
        .get("/users/me", me, says("The caller's own profile").ok(&example::own_user()))
        .patch(
            "/users/me",
            update,
            says("Changes the caller's profile; what is absent stays")
                .takes(json!({"name": "Ana", "timezone": null}))
                .ok(&example::own_user()),
        )
        .delete(
            "/users/me",
            erase,
            says("Erases the caller, who says their password once more")
                .takes(json!({"password": "correct horse"}))
                .done(),
        )
        .get(
            "/users/{user}",
            user,
            says("Somebody's public profile, with their presence").ok(&example::profile()),
        )
}

async fn register(
    State(api): State<Api>,
    ClientAddress(address): ClientAddress,
    Json(registration): Json<Registration>,
) -> Result<impl IntoResponse, Problem> {
    let app = named(&api, registration.application).await?;
    Ok((StatusCode::CREATED, Answer(api.identity.register(app, registration, address).await?)))
}

async fn me(State(api): State<Api>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.identity.me(&caller).await?))
}

async fn update(
    State(api): State<Api>,
    caller: Caller,
    Json(update): Json<ProfileUpdate>,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.people.update(&caller, update, api.commands.check_attachments()).await?))
}

async fn erase(
    State(api): State<Api>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    Json(confirmation): Json<Confirmation>,
) -> Result<impl IntoResponse, Problem> {
    api.identity.erase(&caller, confirmation, address).await?;
    api.erasing.hint();
    Ok(StatusCode::NO_CONTENT)
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
