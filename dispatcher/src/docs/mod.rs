//! What the cluster serves, for readers: the OpenAPI document of all its paths, the AsyncAPI document of its sockets, and a page that shows
//! both (OP-7). The page is our own and takes nothing from anywhere else.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::{Body, Bytes, to_bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use common::{
    document::{self, Routes, joined, says, socket},
    problem::Problem,
};
use http::{Request, StatusCode, Uri, header};
use serde_json::{Value, json};

use crate::http::Door;

/// The longest document of a node that is read, in bytes: some ten times what it has.
const MOST: usize = 4 * 1024 * 1024;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");

/// What a browser may do with the page: run its script, and read the documents.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// What the dispatcher itself serves, written down.
#[derive(Clone, Debug)]
pub(crate) struct Mine(pub(crate) Arc<Value>);

pub(crate) fn routes() -> Routes<Arc<Door>> {
    let sockets = Bytes::from(socket::asyncapi().to_string());
    let sockets = move || async move { ([(header::CONTENT_TYPE, "application/json")], sockets.clone()) };
    Routes::new("Documents")
        .get("/docs", page, says("A page that shows these documents").raw(200, "The page.", "text/html"))
        .get("/docs/page.js", script, says("Its script").raw(200, "The script.", "text/javascript"))
        .get(
            document::PATH,
            openapi,
            says("This document").ok(&json!({"openapi": "3.1.0", "info": {"title": "Chat cluster"}})),
        )
        .get(
            socket::PATH,
            sockets,
            says("How the socket speaks (AsyncAPI 3.0)").ok(&json!({"asyncapi": "3.0.0"})),
        )
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, PAGE)
}

async fn script() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, SCRIPT)
}

/// A node's document, with the dispatcher's own paths: what one origin serves.
async fn openapi(State(door): State<Arc<Door>>, Extension(Mine(mine)): Extension<Mine>) -> Response {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static(document::PATH);
    let response = door.gateway.forward(&door.cluster.view(), rand::random(), None, request).await;
    if response.status() != StatusCode::OK {
        return response;
    }
    let theirs = to_bytes(response.into_body(), MOST).await.ok();
    match theirs.and_then(|theirs| joined(&mine, &theirs)) {
        Some(document) => Json(document).into_response(),
        None => Problem::retry_later("the node did not say what it serves").into_response(),
    }
}
