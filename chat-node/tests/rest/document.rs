//! The document of the paths (OP-7): every reply of these tests is held against it.

use std::collections::HashMap;

use axum::{Router, body::Body, extract::Request};
use http::{Method, header};
use http_body_util::BodyExt;
use jsonschema::Validator;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tower::ServiceExt;

use crate::world::{Reply, STORAGE_KEY, World};

/// What was written down, and the schemas that were needed so far, by where they stand.
struct Held {
    document: Value,
    schemas: Mutex<HashMap<String, Validator>>,
}

/// Of the public API, and of the storage API, which wants its key.
static PUBLIC: OnceCell<Held> = OnceCell::const_new();
static STORAGE: OnceCell<Held> = OnceCell::const_new();

async fn written(router: Router, key: &str) -> Held {
    let request = Request::get("/openapi.json").header(header::AUTHORIZATION, format!("Bearer {key}"));
    let request = request.body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Held { document: serde_json::from_slice(&bytes).unwrap(), schemas: Mutex::default() }
}

/// Fails when this is not what the document says of an answer.
pub(crate) async fn hold(router: &Router, method: &Method, path: &str, reply: &Reply) {
    hold_to(PUBLIC.get_or_init(|| written(router.clone(), "")).await, method, path, reply);
}

/// Likewise, of the storage API.
pub(crate) async fn hold_storage(router: &Router, method: &Method, path: &str, reply: &Reply) {
    hold_to(STORAGE.get_or_init(|| written(router.clone(), STORAGE_KEY)).await, method, path, reply);
}

fn hold_to(held: &Held, method: &Method, path: &str, reply: &Reply) {
    let Reply { status, headers, body } = reply;
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let name = method.as_str().to_ascii_lowercase();
    let paths = held.document["paths"].as_object().unwrap();
    // What is written out comes before what is in braces.
    let mut patterns: Vec<_> = paths.keys().filter(|pattern| is(pattern, path)).collect();
    patterns.sort_by_key(|pattern| pattern.matches('{').count());
    let Some(pattern) = patterns.first() else {
        assert_eq!(status.as_u16(), 404, "{path} is served, and is not in the document");
        return;
    };
    let operation = &paths[*pattern][&name];
    if operation.is_null() {
        assert_eq!(status.as_u16(), 405, "{method} {pattern} is served, and is not in the document");
        return;
    }
    let responses = &operation["responses"];
    let mut pointer = format!("/paths/{}/{name}/responses/{}", pattern.replace('/', "~1"), status.as_u16());
    let mut response = &responses[status.as_str()];
    assert!(
        !response.is_null(),
        "{method} {pattern} is answered {status} ({}): say so where it is registered, with `.refuses(…)` or an answer",
        body["code"]
    );
    if let Some(reference) = response["$ref"].as_str() {
        pointer = reference.trim_start_matches('#').to_owned();
        response = held.document.pointer(&pointer).unwrap();
    }
    for (name, _) in response["headers"].as_object().into_iter().flatten() {
        assert!(headers.contains_key(name.as_str()), "{method} {pattern} {status}: no {name}");
    }
    let Some(content) = response["content"].as_object() else {
        assert!(body.is_null(), "{method} {pattern} {status} has a body: {body}");
        return;
    };
    let given = headers[header::CONTENT_TYPE].to_str().unwrap().split(';').next().unwrap();
    let fits = |known: &&String| {
        *known == given
            || *known == "*/*"
            || known.strip_suffix('*').is_some_and(|start| given.starts_with(start))
    };
    let known = content.keys().find(fits);
    let known = known.unwrap_or_else(|| panic!("{method} {pattern} {status} is {given}"));
    if !body.is_null() && given.ends_with("json") {
        let mut schemas = held.schemas.lock();
        let schema =
            schemas.entry(pointer).or_insert_with(|| schema(&held.document, &content[known]["schema"]));
        let wrong: Vec<_> = schema.iter_errors(body).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{method} {pattern} {status}: {wrong:?}: {body}");
    }
}

/// Whether a path is one of this pattern.
fn is(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.split('/'), path.split('/'));
    pattern.clone().count() == path.clone().count()
        && pattern.zip(path).all(|(one, other)| one == other || one.starts_with('{') && !other.is_empty())
}

fn schema(document: &Value, schema: &Value) -> Validator {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
        "components": document["components"],
    });
    jsonschema::validator_for(&schema).unwrap()
}

#[tokio::test]
async fn op_7_the_document_is_served_and_has_every_path() {
    let world = World::new().await;
    let document = world.call(None, Method::GET, "/openapi.json", Value::Null).await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for path in ["/api/v1/chats/{chat}/messages", "/api/v1/attachments", "/chat/message/", "/healthz"] {
        assert!(paths.contains_key(path), "{path}: {:?}", paths.keys());
    }
    // What a handler takes is there without having been said.
    let send = &paths["/api/v1/chats/{chat}/messages"]["post"];
    assert_eq!(send["security"], json!([{"user": []}]));
    let named: Vec<_> = send["parameters"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(named, ["chat", "Idempotency-Key"]);
    for status in ["201", "200", "400", "401", "403", "404", "408", "409", "413", "429", "500", "503"] {
        assert!(!send["responses"][status].is_null(), "{status}: {send}");
    }
}
