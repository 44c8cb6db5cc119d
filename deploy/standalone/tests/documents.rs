//! What the cluster says of itself at its one address (OP-7): the document of its paths, the one of its sockets, the page that shows them; and
//! that it answers as it says, whatever it is asked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{
    collections::HashSet,
    path::Path,
    process::{Command, Stdio},
};

use common::{document::socket, shutdown::Shutdown};
use jsonschema::Validator;
use reqwest::Client;
use serde_json::{Value, json};
use stage::{ADMIN_KEY, Folder, Stage, settings};
use standalone::{Cluster, Runtimes, Settings, StorageApi};

/// A browser's public key: a point on P-256.
const POINT: &str = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";

async fn get(url: &str) -> Value {
    let answer = Client::new().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    answer.json().await.unwrap()
}

/// A schema of the document.
fn schema(document: &Value, schema: &Value) -> Validator {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
        "components": document["components"],
    });
    jsonschema::validator_for(&schema).unwrap()
}

#[track_caller]
fn examples_hold(document: &Value, whose: &str, content: &Value) {
    for (media_type, content) in content.as_object().into_iter().flatten() {
        let schema = schema(document, &content["schema"]);
        let examples: Vec<_> = content["examples"].as_object().into_iter().flatten().collect();
        assert!(
            !media_type.ends_with("json") || !examples.is_empty(),
            "{whose} has no example: give it one where it is registered"
        );
        for (name, example) in examples {
            let wrong: Vec<_> =
                schema.iter_errors(&example["value"]).map(|error| error.to_string()).collect();
            assert!(wrong.is_empty(), "{whose}, example {name}: {wrong:?}");
        }
    }
}

/// What a request may bring has a schema, and its examples are good.
#[track_caller]
fn requests_hold(document: &Value, whose: &str, operation: &Value) {
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = format!("{whose}, {}", parameter["name"]);
        assert!(parameter["schema"].as_object().is_some_and(|one| !one.is_empty()), "{name}: no schema");
        assert!(schema(document, &parameter["schema"]).is_valid(&parameter["example"]), "{name}");
    }
    examples_hold(document, &format!("{whose}, the body"), &operation["requestBody"]["content"]);
}

/// Every operation says what it takes and answers, with good examples. Their ids.
#[track_caller]
fn operations_hold(document: &Value) -> HashSet<&Value> {
    let mut ids = HashSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let whose = format!("{method} {path}");
            assert!(ids.insert(&operation["operationId"]), "{whose} has the operationId of another");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{whose}");
            let responses = operation["responses"].as_object().unwrap();
            let mut needed = vec!["500", "503"];
            if operation["security"].is_array() {
                needed.push("401");
            }
            if path.contains('{') {
                needed.push("404");
            }
            if operation["requestBody"].is_object() {
                needed.extend(["400", "408", "413"]);
            }
            for status in needed {
                assert!(responses.contains_key(status), "{whose} is never answered {status}");
            }
            assert!(responses.keys().any(|status| status.starts_with('2')), "{whose} never succeeds");
            requests_hold(document, &whose, operation);
            for (status, response) in responses {
                let reference = response["$ref"].as_str().unwrap_or_default();
                let response = document
                    .pointer(reference.trim_start_matches('#'))
                    .filter(|_| !reference.is_empty())
                    .unwrap_or(response);
                examples_hold(document, &format!("{whose}, {status}"), &response["content"]);
            }
        }
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn op_7_one_document_has_all_paths_with_their_errors_and_good_examples() {
    let stage = Stage::new(2).await;
    let url = stage.cluster.url();
    let document = get(&format!("{url}/openapi.json")).await;
    let paths = document["paths"].as_object().unwrap();
    for path in ["/chat/location", "/cluster", "/docs", "/asyncapi.json", "/api/v1/chats/{chat}/messages"] {
        assert!(paths.contains_key(path), "{path}: {:?}", paths.keys());
    }
    let mut ids = operations_hold(&document);
    assert!(ids.len() > 40, "only {} operations", ids.len());
    let webhooks = document["webhooks"].as_object().unwrap();
    assert_eq!(webhooks.keys().collect::<Vec<_>>(), ["messages.unseen"]);
    for (name, webhook) in webhooks {
        let operation = &webhook["post"];
        assert!(ids.insert(&operation["operationId"]), "{name} has the operationId of another");
        requests_hold(&document, name, operation);
        let answers: Vec<_> = operation["responses"].as_object().unwrap().keys().collect();
        assert_eq!(answers, ["2XX", "410", "default"], "{name}");
    }
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn op_6_the_storage_api_has_a_document_of_its_own_behind_its_key_and_on_no_other_port() {
    let key = "the storage key of this stage";
    let folder = Folder::new();
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let storage_api = StorageApi { listen, key: key.to_owned().into() };
    let settings = Settings { storage_api, ..settings(&folder, 1) };
    let cluster = Cluster::start(settings, Runtimes::Own, Shutdown::new()).await.unwrap();
    let (_, url) = cluster.storage().next().unwrap();
    let asked = Client::new().get(format!("{url}/openapi.json"));
    assert_eq!(asked.try_clone().unwrap().send().await.unwrap().status(), 401);
    let document: Value = asked.bearer_auth(key).send().await.unwrap().json().await.unwrap();
    assert!(operations_hold(&document).len() > 12);
    assert!(document["paths"]["/group/{id}"].is_object());
    for url in [cluster.url(), cluster.nodes().next().unwrap().1] {
        let asked = Client::new().get(format!("{url}/openapi.json")).bearer_auth(key);
        let public: Value = asked.send().await.unwrap().json().await.unwrap();
        assert!(public["paths"]["/api/v1/chats"].is_object() && public["paths"]["/group/{id}"].is_null());
    }
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn op_7_the_page_shows_the_documents_and_needs_nothing_from_elsewhere() {
    let stage = Stage::new(1).await;
    let url = stage.cluster.url();
    assert_eq!(get(&format!("{url}/asyncapi.json")).await, socket::asyncapi());
    let page = Client::new().get(format!("{url}/docs")).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let page = page.text().await.unwrap();
    let script = Client::new().get(format!("{url}/docs/page.js")).send().await.unwrap();
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    let script = script.text().await.unwrap();
    for document in ["/openapi.json", "/asyncapi.json"] {
        assert!(page.contains(document) && script.contains(document), "{document}");
    }
    for text in [page, script] {
        assert!(!text.contains("//cdn") && !text.contains("https://") && !text.contains("http://"), "{text}");
    }
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn op_7_whatever_is_asked_is_answered_as_the_document_says() {
    let stage = Stage::new(2).await;
    let url = stage.cluster.url();
    let call = async |bearer: &str, path: &str, body: Value| -> Value {
        let request = Client::new().post(format!("{url}/api/v1{path}")).bearer_auth(bearer).json(&body);
        let answer = request.send().await.unwrap();
        let (status, body) = (answer.status(), answer.json().await.unwrap());
        assert_eq!(status, 201, "{path}: {body}");
        body
    };
    let mut people = Vec::new();
    for name in ["ana", "ben", "cleo"] {
        let body = json!({"username": name, "password": "correct horse", "name": name});
        let made = call("", "/users", body.clone()).await;
        people.push((
            made["id"].clone(),
            call("", "/sessions", body).await["token"].as_str().unwrap().to_owned(),
        ));
    }
    let (token, ben, other) = (&people[0].1, &people[1].0, &people[2].1);
    let chat = call(token, "/chats", json!({"name": "Choir", "members": [ben], "message": "Welcome"})).await;
    let file = call(token, "/attachments", json!({"text": "a file"})).await;
    let app = "0".repeat(31) + "1";
    let hook = json!({"url": "https://example.org/hook", "enabled": false});
    let hook = call(ADMIN_KEY, &format!("/applications/{app}/webhooks"), hook).await;
    let browser = json!({"endpoint": "https://push.example.org/ana",
        "keys": {"p256dh": POINT, "auth": "A".repeat(22)}});
    let browser = call(token, "/users/me/push", browser).await;
    let there = json!({
        "chat": chat["id"],
        "group": chat["id"],
        "user": ben,
        "attachment": file["id"],
        "token": app,
        "webhook": hook["id"],
        "subscription": browser["id"],
        // Of a chat, and of a message.
        "number": 1,
        "message": 1,
        "emoji": "%F0%9F%91%8D",
    });
    // It ends by itself: within two minutes, and where its tool is to be installed first, within some more.
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemathesis/run"));
    script.arg(&url).env("CHAT_TOKEN", token).env("CHAT_ADMIN_KEY", ADMIN_KEY).stdin(Stdio::null());
    script.env("CHAT_OTHER", other).env("CHAT_THERE", there.to_string());
    let output = tokio::task::spawn_blocking(move || script.output()).await.unwrap().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
    // It came with a good key all the while.
    let me = Client::new().get(format!("{url}/api/v1/users/me")).bearer_auth(token).send().await.unwrap();
    assert_eq!(me.status(), 200, "{}", said(&output.stdout));
    stage.cluster.stop().await.unwrap();
}
