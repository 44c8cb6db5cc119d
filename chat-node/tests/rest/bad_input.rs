//! Whatever is wrong with a request is said in the one format (which every reply of a test is held against), and nothing
//! of it makes the node panic.

use std::sync::atomic::Ordering;

use axum::body::Body;
use chat_node::attempts::AttemptLimits;
use http::{Method, header};
use serde_json::{Value, json};

use crate::{
    owner::Mood,
    world::{World, request},
};

/// A browser's public key: a point on P-256.
const POINT: &str = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";

struct Case {
    method: Method,
    path: String,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    /// What is named, where something is.
    param: &'static str,
}

/// Status, word, and what is named.
type Wrong = (u16, &'static str, &'static str);

fn case(
    line: &str,
    body: impl Into<Vec<u8>>,
    (status, code, param): (u16, &'static str, &'static str),
) -> Case {
    let (method, path) = line.split_once(' ').unwrap();
    let path = if path.starts_with("//") { path[1..].to_owned() } else { format!("/api/v1{path}") };
    Case { method: method.parse().unwrap(), path, body: body.into(), status, code, param }
}

const NOT_FOUND: Wrong = (404, "not_found", "");
const NOT_ALLOWED: Wrong = (405, "method_not_allowed", "");
const TOO_LARGE: Wrong = (413, "too_large", "");

fn invalid(param: &'static str) -> Wrong {
    (400, "invalid", param)
}

/// Bodies that are wrong wherever a JSON object is expected.
fn no_objects() -> Vec<(Vec<u8>, Wrong)> {
    vec![
        (b"".to_vec(), invalid("")),
        (b"{".to_vec(), invalid("")),
        (b"{} x".to_vec(), invalid("")),
        (b"null".to_vec(), invalid("")),
        (b"[]".to_vec(), invalid("")),
        (b"[\"anaana\", \"correct horse\", \"Ana\"]".to_vec(), invalid("")),
        (b"\"text\"".to_vec(), invalid("")),
        (b"{\"body\": \"\xff\"}".to_vec(), invalid("")),
        (b"{\"body\": \"a\0b\"}".to_vec(), invalid("")),
        (vec![b'['; 100_000], invalid("")),
        (vec![b' '; 3_000_000], TOO_LARGE),
    ]
}

fn registrations() -> Vec<Case> {
    let good = json!({"username": "nobody", "password": "correct horse", "name": "Nobody"});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string()
    };
    let without = |field: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        body.to_string()
    };
    let post = |body: String, param: &'static str| case("POST /users", body, invalid(param));
    vec![
        post(without("username"), "username"),
        post(without("password"), "password"),
        post(without("name"), "name"),
        post(with("username", json!(7)), "username"),
        post(with("username", json!("ab")), "username"),
        post(with("username", json!("a".repeat(65))), "username"),
        post(with("username", json!("ana maria")), "username"),
        post(with("username", json!("ana\u{0}")), "username"),
        post(with("username", json!("ana\u{202f}m")), "username"),
        post(with("password", json!("short12")), "password"),
        post(with("password", json!("x".repeat(1025))), "password"),
        post(with("password", json!("1234567\u{0}")), "password"),
        post(with("name", json!("")), "name"),
        post(with("name", json!("   ")), "name"),
        post(with("name", json!("x".repeat(201))), "name"),
        post(with("name", json!("a\u{0}b")), "name"),
        post(with("mobile_number", json!("call me")), "mobile_number"),
        post(with("mobile_number", json!("1".repeat(33))), "mobile_number"),
        post(with("timezone", json!("../../etc/passwd")), "timezone"),
        post(with("timezone", json!("Europe/Madird")), "timezone"),
        post(with("timezone", json!("Etc/Unknown")), "timezone"),
        post(with("timezone", json!(2)), "timezone"),
        post(
            r#"{"username": "ana", "username": "ben", "password": "correct horse", "name": "x"}"#.into(),
            "username",
        ),
    ]
}

fn sign_ins() -> Vec<Case> {
    let post = |body: Value, param: &'static str| case("POST /sessions", body.to_string(), invalid(param));
    vec![
        post(json!({"password": "correct horse"}), "username"),
        post(json!({"username": "ana"}), "password"),
        post(json!({"username": "ana", "password": ["x"]}), "password"),
        post(json!({"username": "ana", "password": "x".repeat(1025)}), "password"),
        post(json!({"username": "a\u{0}na", "password": "correct horse"}), "username"),
        post(json!({"username": "ana", "password": "correct horse", "device": "x".repeat(201)}), "device"),
        post(json!({"username": "ana", "password": "correct horse", "device": "a\u{0}"}), "device"),
    ]
}

fn chats(chat: &str, me: &str, id: &str) -> Vec<Case> {
    let post = |body: Value, param: &'static str| case("POST /chats", body.to_string(), invalid(param));
    let many: Vec<String> = (0..50_001).map(|n| format!("{n:032x}")).collect();
    vec![
        post(json!({}), "members"),
        post(json!({"host_id": "x"}), "host_id"),
        post(json!({"host_id": 7}), "host_id"),
        post(json!({"host_id": me}), "host_id"),
        post(json!({"host_id": id, "members": []}), "host_id"),
        post(json!({"members": "all"}), "members"),
        post(json!({"members": [me, "x"]}), "members[1]"),
        post(json!({"members": [id]}), "members[0]"),
        post(json!({"members": [id, me, id]}), "members[2]"),
        post(json!({"members": many}), "members"),
        post(json!({"members": [], "name": ""}), "name"),
        post(json!({"members": [], "name": "x".repeat(201)}), "name"),
        post(json!({"members": [], "name": "a\u{0}"}), "name"),
        post(json!({"members": [], "description": "x".repeat(2001)}), "description"),
        post(json!({"members": [], "message": ""}), "body"),
        case("POST /chats", json!({"members": [], "message": "x".repeat(16_385)}).to_string(), TOO_LARGE),
        case("POST /chats", json!({"host_id": id}).to_string(), NOT_FOUND),
        case("GET /chats?page=0", "", invalid("page")),
        case("GET /chats?page=-1", "", invalid("page")),
        case("GET /chats?page=one", "", invalid("page")),
        case("GET /chats?page=", "", invalid("page")),
        case("GET /chats?page=1&page=2", "", invalid("page")),
        case("GET /chats?perPage=101", "", invalid("perPage")),
        case("GET /chats?perPage=0", "", invalid("perPage")),
        case("GET /chats/x", "", NOT_FOUND),
        case(&format!("GET /chats/{id}"), "", NOT_FOUND),
        case(&format!("GET /chats/%00{}", &id[3..]), "", NOT_FOUND),
        case("GET /chats/%ff%fe", "", NOT_FOUND),
        case(&format!("PATCH {chat}"), "{}", invalid("name")),
        case(&format!("PATCH {chat}"), json!({"name": ""}).to_string(), invalid("name")),
        case(&format!("PATCH {chat}"), json!({"name": 1}).to_string(), invalid("name")),
        case(&format!("PATCH {chat}"), json!({"description": "\u{0}"}).to_string(), invalid("description")),
        case(&format!("PUT {chat}"), "{}", NOT_ALLOWED),
        case(&format!("GET {chat}/members?page=0"), "", invalid("page")),
        case(&format!("PUT {chat}/members/x"), "", NOT_FOUND),
        case(&format!("PUT {chat}/members/{id}"), "", NOT_FOUND),
        case(&format!("DELETE {chat}/members/x"), "", NOT_FOUND),
        case(&format!("POST {chat}/members"), "{}", NOT_ALLOWED),
    ]
}

fn messages(chat: &str) -> Vec<Case> {
    let post = |body: Value, wrong| case(&format!("POST {chat}/messages"), body.to_string(), wrong);
    let put = |body: Value, wrong| case(&format!("PUT {chat}/messages/1"), body.to_string(), wrong);
    let mut cases = vec![
        post(json!({}), invalid("body")),
        post(json!({"body": ""}), invalid("body")),
        post(json!({"body": 7}), invalid("body")),
        post(json!({"message": null}), invalid("message")),
        post(json!({"body": "a", "message": "b"}), invalid("body")),
        post(json!({"body": "a\u{0}b"}), invalid("body")),
        post(json!({"body": "x".repeat(16_385)}), TOO_LARGE),
        post(json!({"body": "é".repeat(8_193)}), TOO_LARGE),
        post(json!({"body": "a", "client_id": ""}), invalid("client_id")),
        post(json!({"body": "a", "client_id": "x".repeat(65)}), invalid("client_id")),
        post(json!({"body": "a", "client_id": "\u{0}"}), invalid("client_id")),
        post(json!({"body": "a", "client_id": 5}), invalid("client_id")),
        post(json!({"body": "a", "type": "smell"}), invalid("type")),
        post(json!({"body": "a", "kind": 1}), invalid("kind")),
        post(json!({"body": "a", "reply_to": 0}), invalid("reply_to")),
        post(json!({"body": "a", "reply_to": 99}), invalid("reply_to")),
        post(json!({"body": "a", "reply_to": -1}), invalid("reply_to")),
        post(json!({"body": "a", "reply_to": 1.5}), invalid("reply_to")),
        post(json!({"body": "a", "reply_to": u64::MAX}), invalid("reply_to")),
        post(json!({"body": "a", "attachments": "a1"}), invalid("attachments")),
        post(json!({"body": "a", "attachments": vec!["a"; 11]}), invalid("attachments")),
        post(json!({"body": "a", "attachments": ["a", ""]}), invalid("attachments[1]")),
        post(json!({"body": "a", "attachments": ["x".repeat(513)]}), invalid("attachments[0]")),
        post(json!({"body": "a", "attachments": ["\u{0}"]}), invalid("attachments[0]")),
        put(json!({}), invalid("body")),
        put(json!({"body": ""}), invalid("body")),
        put(json!({"body": "\u{0}"}), invalid("body")),
        put(json!({"body": "x".repeat(16_385)}), TOO_LARGE),
        case(&format!("PUT {chat}/messages/99"), json!({"body": "a"}).to_string(), NOT_FOUND),
        case(&format!("PATCH {chat}/messages/1"), "{}", NOT_ALLOWED),
        case(&format!("DELETE {chat}/messages/99"), "", NOT_FOUND),
        case("POST /chats/x/messages", json!({"body": "a"}).to_string(), NOT_FOUND),
    ];
    for number in ["0", "-1", "x", "1.0", "01", "%2B1", "99", "9223372036854775808", "99999999999999999999"] {
        cases.push(case(&format!("GET {chat}/messages/{number}"), "", NOT_FOUND));
    }
    for (query, param) in [
        ("page=0", "page"),
        ("page=1.0", "page"),
        ("perPage=101", "perPage"),
        ("before=0", "before"),
        ("before=x", "before"),
        ("after=-1", "after"),
        ("before=3&after=1", "after"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("before=3&page=1", "page"),
    ] {
        cases.push(case(&format!("GET {chat}/messages?{query}"), "", invalid(param)));
    }
    cases
}

fn searches(chat: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [format!("POST {chat}/messages/search"), "POST /messages/search".to_owned()] {
        let mut post = |body: Value| cases.push(case(&path, body.to_string(), invalid("query")));
        post(json!({}));
        post(json!({"query": 7}));
        post(json!({"query": ""}));
        post(json!({"query": " \t\n"}));
        post(json!({"query": "é".repeat(101)}));
        post(json!({"query": "a\u{0}b"}));
        let good = json!({"query": "x"}).to_string();
        cases.push(case(&format!("{path}?page=0"), good.clone(), invalid("page")));
        cases.push(case(&format!("{path}?perPage=101"), good, invalid("perPage")));
        cases.extend(no_objects().into_iter().map(|(body, wrong)| case(&path, body, wrong)));
    }
    let good = json!({"query": "x"}).to_string();
    cases.push(case("POST /chats/x/messages/search", good.clone(), NOT_FOUND));
    cases.push(case(&format!("POST /chats/{:032x}/messages/search", 7), good, NOT_FOUND));
    cases.push(case(&format!("GET {chat}/messages/search"), "", NOT_ALLOWED));
    cases
}

fn notifications(chat: &str) -> Vec<Case> {
    let put = |path: &str, body: Value, param: &'static str| {
        case(&format!("PUT {path}/notifications"), body.to_string(), invalid(param))
    };
    let quiet = |from: Value, param: &'static str| {
        put("/users/me", json!({"quiet_hours": {"from": from, "to": "07:00"}}), param)
    };
    let good = json!({"endpoint": "https://push.example.org/send/x",
        "keys": {"p256dh": POINT, "auth": "A".repeat(22)}});
    let push = |pointer: &str, value: Value, param: &'static str| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        case("POST /users/me/push", body.to_string(), invalid(param))
    };
    let long = format!("https://push.example.org/{}", "x".repeat(2_048));
    vec![
        put("/users/me", json!({"kinds": ["all"]}), "kinds[0]"),
        put("/users/me", json!({"kinds": null}), "kinds"),
        put("/users/me", json!({"muted_until": "tomorrow"}), "muted_until"),
        put("/users/me", json!({"muted_until": 1_795_252_554}), "muted_until"),
        put("/users/me", json!({"muted_until": "2026-12-24T18:00:00"}), "muted_until"),
        put("/users/me", json!({"muted_until": "1969-12-31T23:59:59Z"}), "muted_until"),
        put("/users/me", json!({"muted_until": "-000001-01-01T00:00:00Z"}), "muted_until"),
        put("/users/me", json!({"mute": true}), "mute"),
        put("/users/me", json!({"quiet_hours": "22:00-07:00"}), "quiet_hours"),
        put("/users/me", json!({"quiet_hours": {"from": "22:00"}}), "quiet_hours.to"),
        quiet(json!("22:00:00"), "quiet_hours.from"),
        quiet(json!("24:00"), "quiet_hours.from"),
        quiet(json!("7:00"), "quiet_hours.from"),
        quiet(json!(22), "quiet_hours.from"),
        put(chat, json!({"kinds": [7]}), "kinds[0]"),
        put(chat, json!({"muted_until": "soon"}), "muted_until"),
        put(chat, json!({"quiet_hours": null}), "quiet_hours"),
        case("PUT /chats/x/notifications", "{}", NOT_FOUND),
        case(&format!("PUT /chats/{:032x}/notifications", 7), "{}", NOT_FOUND),
        case("DELETE /users/me/notifications", "", NOT_ALLOWED),
        case("POST /users/me/push", "{}", invalid("endpoint")),
        push("/endpoint", json!(""), "endpoint"),
        push("/endpoint", json!("http://push.example.org/send/x"), "endpoint"),
        push("/endpoint", json!("https://ana@push.example.org/send/x"), "endpoint"),
        push("/endpoint", json!("https://127.0.0.1/send/x"), "endpoint"),
        push("/endpoint", json!("https://push.example.org/\u{0}"), "endpoint"),
        push("/endpoint", json!(long), "endpoint"),
        push("/keys", json!({"p256dh": "B"}), "keys.auth"),
        push("/keys/p256dh", json!("A".repeat(87)), "keys.p256dh"),
        push("/keys/p256dh", json!(format!("B{}", "A".repeat(86))), "keys.p256dh"),
        push("/keys/p256dh", json!("A".repeat(86)), "keys.p256dh"),
        push("/keys/p256dh", json!("A".repeat(100_000)), "keys.p256dh"),
        push("/keys/auth", json!("A".repeat(21)), "keys.auth"),
        push("/keys/auth", json!("A".repeat(23)), "keys.auth"),
        push("/keys/auth", json!(format!("{}+", "A".repeat(21))), "keys.auth"),
        case("DELETE /users/me/push/x", "", NOT_FOUND),
        case(&format!("DELETE /users/me/push/{:032x}", 7), "", NOT_FOUND),
        case("GET /users/me/push?page=0", "", invalid("page")),
    ]
}

fn elsewhere() -> Vec<Case> {
    vec![
        case("GET //", "", NOT_FOUND),
        case("GET //api/v1", "", NOT_FOUND),
        case("GET //api/v2/users", "", NOT_FOUND),
        case("GET //api/v1/chats/", "", NOT_FOUND),
        case("GET //api/v1/../healthz", "", NOT_FOUND),
        case("DELETE /users", "", NOT_ALLOWED),
        case("BREW /users", "", NOT_ALLOWED),
        case("POST //healthz", "", NOT_ALLOWED),
        case("GET /users/x", "", NOT_FOUND),
        case("DELETE /sessions/x", "", NOT_FOUND),
        case(&format!("DELETE /sessions/{:032x}", 7), "", NOT_FOUND),
    ]
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_word_and_the_field_and_the_node_goes_on() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    let short = chat.strip_prefix("/api/v1").unwrap();
    let me = ana.id.to_string();
    world.post(&ana, &format!("{chat}/messages"), json!({"body": "Hi"})).await.expect(201);

    let mut cases = registrations();
    cases.extend(sign_ins());
    cases.extend(chats(short, &me, &format!("{:032x}", 7)));
    cases.extend(messages(short));
    cases.extend(searches(short));
    cases.extend(notifications(short));
    cases.extend(elsewhere());
    for path in ["POST /users", "POST /sessions", "POST /chats"] {
        cases.extend(no_objects().into_iter().map(|(body, wrong)| case(path, body, wrong)));
    }
    for path in [
        format!("PATCH {short}"),
        format!("POST {short}/messages"),
        format!("PUT {short}/messages/1"),
        format!("PUT {short}/notifications"),
        "PUT /users/me/notifications".into(),
        "POST /users/me/push".into(),
    ] {
        cases.extend(no_objects().into_iter().map(|(body, wrong)| case(&path, body, wrong)));
    }
    let mut surprises = Vec::new();
    for Case { method, path, body, status, code, param } in cases {
        let shown: String = String::from_utf8_lossy(&body).chars().take(100).collect();
        let case = format!("{method} {path} {shown}");
        let reply = world.raw(request(Some(&ana), method, &path).body(body.into()).unwrap()).await;
        let said = (reply.status.as_u16(), reply.body["code"].as_str()) == (status, Some(code));
        let named = reply.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let named = (status != 400 || named.iter().any(|error| error["param"] == param)) && named.len() <= 20;
        let allowed = status != 405 || reply.headers.contains_key(header::ALLOW);
        if !(said && named && allowed) {
            surprises.push(format!("{case}: {}", reply.body));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    let history = world.get(&ana, &format!("{chat}/messages")).await.expect(200);
    assert_eq!(history["head"]["number"], 1, "nothing of it was stored");
    world.get(&ana, "/api/v1/chats").await.expect(200);
}

#[tokio::test]
async fn without_a_token_nothing_but_registering_and_signing_in_is_answered() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    for (method, path) in [
        (Method::GET, "/api/v1/users/me".to_owned()),
        (Method::GET, format!("/api/v1/users/{}", ana.id)),
        (Method::GET, "/api/v1/users/x".to_owned()),
        (Method::GET, "/api/v1/sessions".to_owned()),
        (Method::DELETE, "/api/v1/sessions/current".to_owned()),
        (Method::DELETE, "/api/v1/sessions/x".to_owned()),
        (Method::GET, "/api/v1/chats?page=0".to_owned()),
        (Method::POST, "/api/v1/chats".to_owned()),
        (Method::GET, chat.clone()),
        (Method::PATCH, chat.clone()),
        (Method::DELETE, chat.clone()),
        (Method::GET, format!("{chat}/members")),
        (Method::PUT, format!("{chat}/members/{}", ana.id)),
        (Method::DELETE, format!("{chat}/members/{}", ana.id)),
        (Method::GET, format!("{chat}/messages")),
        (Method::POST, format!("{chat}/messages")),
        (Method::GET, format!("{chat}/messages/1")),
        (Method::PUT, format!("{chat}/messages/1")),
        (Method::DELETE, format!("{chat}/messages/1")),
        (Method::GET, format!("{chat}/notifications")),
        (Method::PUT, format!("{chat}/notifications")),
        (Method::GET, "/api/v1/users/me/notifications".to_owned()),
        (Method::PUT, "/api/v1/users/me/notifications".to_owned()),
        (Method::GET, "/api/v1/push".to_owned()),
        (Method::GET, "/api/v1/users/me/push".to_owned()),
        (Method::POST, "/api/v1/users/me/push".to_owned()),
        (Method::DELETE, "/api/v1/users/me/push/x".to_owned()),
    ] {
        world.call(None, method, &path, Value::Null).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn an_idempotency_key_is_one_and_in_bounds() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    let long = "x".repeat(65);
    for keys in [&[""][..], &[long.as_str()], &["a", "b"], &["é"], &["a\tb"]] {
        for path in [format!("{chat}/messages"), "/api/v1/chats".to_owned()] {
            let mut request = request(Some(&ana), Method::POST, &path);
            for key in keys {
                request = request.header("Idempotency-Key", *key);
            }
            let body = json!({"body": "Hi", "members": []}).to_string();
            let refused = world.raw(request.body(body.into()).unwrap()).await.refused(400, "invalid");
            assert_eq!(refused["errors"][0]["location"], "headers");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_announced_or_streamed_too_long_is_not_read_to_its_end() {
    let world = World::new().await;
    let announced = request(None, Method::POST, "/api/v1/users").header(header::CONTENT_LENGTH, "99999999");
    world.raw(announced.body(Body::empty()).unwrap()).await.refused(413, "too_large");
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1024]));
    let streamed = request(None, Method::POST, "/api/v1/users").body(Body::from_stream(endless)).unwrap();
    world.raw(streamed).await.refused(413, "too_large");
    let broken = futures_util::stream::iter([Ok(vec![b'{']), Err(std::io::Error::other("gone"))]);
    let broken = request(None, Method::POST, "/api/v1/users").body(Body::from_stream(broken)).unwrap();
    world.raw(broken).await.refused(400, "invalid");
}

#[tokio::test]
async fn what_takes_too_long_ends_with_a_word() {
    let world = World::impatient().await;
    let stalled = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let stalled = request(None, Method::POST, "/api/v1/users").body(stalled).unwrap();
    world.raw(stalled).await.refused(408, "too_slow");
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    world.owner.feel(Mood::Hangs);
    world
        .post(&ana, &format!("{chat}/messages"), json!({"body": "Hi"}))
        .await
        .refused(503, "outcome_unknown");
    world.get(&ana, &format!("{chat}/messages")).await.refused(503, "retry_later");
}

#[tokio::test]
async fn a_panic_ends_one_request() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    world.owner.feel(Mood::Panics);
    world.post(&ana, &format!("{chat}/messages"), json!({"body": "Hi"})).await.refused(500, "internal");
    world.owner.feel(Mood::Well);
    world.post(&ana, &format!("{chat}/messages"), json!({"body": "Hi"})).await.expect(201);
}

#[tokio::test]
async fn operators_are_told_alive_ready_and_figures() {
    let world = World::with(AttemptLimits::default()).await;
    let get = async |path: &str| world.call(None, Method::GET, path, Value::Null).await;
    get("/healthz").await.expect(200);
    get("/readyz").await.expect(200);
    world.ready.store(false, Ordering::SeqCst);
    get("/readyz").await.refused(503, "retry_later");
    get("/api/v1/users/me").await.refused(401, "unauthenticated");
    world.raw(request(None, Method::from_bytes(b"BREW").unwrap(), "/tea").body(Body::empty()).unwrap()).await;
    let figures = get("/metrics").await.expect(200);
    let figures = figures.as_str().unwrap();
    for line in [
        r#"chat_http_requests_total{method="GET",route="/api/v1/users/me",status="401"} 1"#,
        r#"chat_http_requests_total{method="other",route="none",status="404"} 1"#,
        r#"chat_http_request_seconds_count{method="GET",route="/readyz"} 2"#,
    ] {
        assert!(figures.contains(line), "{line} is not in {figures}");
    }
}
