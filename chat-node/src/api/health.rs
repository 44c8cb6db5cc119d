//! What operators ask: alive, ready, figures.

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use common::{problem::Problem, wire::codes::ErrorCode};
use http::header;
use prometheus::TextEncoder;
use serde_json::json;

use super::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

async fn alive() -> impl IntoResponse {
    axum::Json(json!({"status": "alive"}))
}

async fn ready(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    match (api.ready)() {
        Ok(()) => Ok(axum::Json(json!({"status": "ready"}))),
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
