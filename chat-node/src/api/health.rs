//! What operators ask: alive, ready, figures.

use axum::{extract::State, response::IntoResponse};
use common::{
    document::{self, Routes, says},
    problem::Problem,
    wire::codes::ErrorCode,
};
use http::header;
use prometheus::TextEncoder;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::Api;

pub(super) fn routes() -> Routes<Api> {
    Routes::new("Operation")
        .get("/healthz", alive, says("Whether the service is alive").ok(&Health { status: "alive" }))
        .get("/readyz", ready, says("Whether it can serve").ok(&Health { status: "ready" }))
        .get(
            "/metrics",
            metrics,
            says("Its figures, for Prometheus").raw(200, "Prometheus' text format.", "text/plain"),
        )
        .get(
            document::PATH,
            openapi,
            says("This document").ok(&json!({"openapi": "3.1.0", "info": {"title": "Chat cluster"}})),
        )
}

/// How the service is.
#[derive(Serialize, JsonSchema)]
struct Health {
    status: &'static str,
}

/// What this router serves, written down.
pub(crate) async fn openapi(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], api.openapi.clone())
}

async fn alive() -> impl IntoResponse {
    axum::Json(Health { status: "alive" })
}

async fn ready(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    match (api.ready)() {
        Ok(()) => Ok(axum::Json(Health { status: "ready" })),
        Err(why) => Err(Problem::retry_later(why)),
    }
}

async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let text = TextEncoder::new().encode_to_string(&api.registry.gather()).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        Problem::new(ErrorCode::Internal, "the metrics could not be written")
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
