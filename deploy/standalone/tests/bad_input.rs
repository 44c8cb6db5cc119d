//! Bad input through the public doors, in two tables: what REST answers, and what a socket answers, and whether the session goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use common::ids::ChatId;
use futures_util::{SinkExt, StreamExt};
use http_body_util::StreamBody;
use hyper::body::Frame;
use loadtest::client::rest::{Session, register};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use stage::Stage;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, protocol::frame::coding::CloseCode},
};

/// Two people with a chat, and one who is not in it.
struct Scene {
    url: String,
    ana: Session,
    eve: Session,
    chat: ChatId,
}

impl Scene {
    async fn new(stage: &Stage) -> Self {
        let url = stage.cluster.url();
        let http = loadtest::client::http::Http::new(&url).unwrap();
        let mut people = Vec::new();
        for name in ["ana", "ben", "eve"] {
            let account = register(&http, name, "correct horse", name).await.unwrap();
            people.push(Session::sign_in(&http, &account).await.unwrap());
        }
        let (eve, ben, ana) = (people.pop().unwrap(), people.pop().unwrap(), people.pop().unwrap());
        let chat = ana.open_direct(ben.user()).await.unwrap();
        Self { url, ana, eve, chat }
    }
}

async fn token(url: &str, name: &str) -> String {
    let body = json!({"username": name, "password": "correct horse"});
    let answer = Client::new().post(format!("{url}/api/v1/sessions")).json(&body).send().await.unwrap();
    answer.json::<Value>().await.unwrap()["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_answers_bad_input_with_the_error_of_the_specification() {
    let stage = Stage::new(2).await;
    let scene = Scene::new(&stage).await;
    let url = &scene.url;
    let (ana, eve) = (token(url, "ana").await, token(url, "eve").await);
    let forged = {
        // The same claims under another signature.
        let mut parts: Vec<_> = ana.split('.').map(str::to_owned).collect();
        parts[2] = parts[2].chars().rev().collect();
        parts.join(".")
    };
    let chat = scene.chat;
    let messages = format!("/api/v1/chats/{chat}/messages");
    let long = "x".repeat(16 * 1024 + 1);
    let (post, get) = (Method::POST, Method::GET);
    let text = |value: Value| value.to_string();
    let table = [
        // who, how, where, what, status, code
        ("", &get, "/api/v1/chats".into(), String::new(), 401, "unauthenticated"),
        (&*forged, &get, "/api/v1/chats".into(), String::new(), 401, "unauthenticated"),
        ("nonsense", &get, "/chat/location".into(), String::new(), 401, "unauthenticated"),
        ("", &get, "/chat/location".into(), String::new(), 401, "unauthenticated"),
        (&*ana, &get, "/api/v1/nowhere".into(), String::new(), 404, "not_found"),
        (&*ana, &Method::PUT, "/api/v1/chats".into(), String::new(), 405, "method_not_allowed"),
        (&*ana, &post, messages.clone(), "{".into(), 400, "invalid"),
        (&*ana, &post, messages.clone(), "[]".into(), 400, "invalid"),
        (&*ana, &post, messages.clone(), "{}".into(), 400, "invalid"),
        (&*ana, &post, messages.clone(), text(json!({"body": 7})), 400, "invalid"),
        (&*ana, &post, messages.clone(), text(json!({"body": ""})), 400, "invalid"),
        (&*ana, &post, messages.clone(), text(json!({"body": "a\u{0}b"})), 400, "invalid"),
        (&*ana, &post, messages.clone(), text(json!({"body": "a", "type": "smell"})), 400, "invalid"),
        (
            &*ana,
            &post,
            messages.clone(),
            text(json!({"body": "a", "client_id": "c".repeat(65)})),
            400,
            "invalid",
        ),
        (&*ana, &post, messages.clone(), text(json!({"body": "a", "reply_to": 999})), 400, "invalid"),
        (&*ana, &post, messages.clone(), text(json!({"body": long})), 413, "too_large"),
        (&*ana, &post, messages.clone(), text(json!({"body": "x".repeat(200_000)})), 413, "too_large"),
        (&*eve, &post, messages.clone(), text(json!({"body": "hello"})), 404, "not_found"),
        (&*eve, &get, messages.clone(), String::new(), 404, "not_found"),
        (&*eve, &get, format!("/api/v1/chats/{chat}"), String::new(), 404, "not_found"),
        (&*eve, &get, format!("/api/v1/chats/{chat}/members"), String::new(), 404, "not_found"),
        (&*ana, &get, format!("/api/v1/chats/{}", ChatId::random()), String::new(), 404, "not_found"),
        (&*ana, &get, "/api/v1/chats/not-an-id".into(), String::new(), 404, "not_found"),
        (&*ana, &get, format!("{messages}?page=0"), String::new(), 400, "invalid"),
        (&*ana, &get, format!("{messages}?page=-1"), String::new(), 400, "invalid"),
        (&*ana, &get, format!("{messages}?page=one"), String::new(), 400, "invalid"),
        (&*ana, &get, format!("{messages}?after=0&limit=101"), String::new(), 400, "invalid"),
        (&*ana, &get, format!("{messages}?after=0&before=9"), String::new(), 400, "invalid"),
        (&*ana, &get, format!("{messages}/9"), String::new(), 404, "not_found"),
        (&*ana, &get, "/api/v1/chats?perPage=101".into(), String::new(), 400, "invalid"),
        (&*ana, &post, "/api/v1/chats".into(), text(json!({"host_id": "x"})), 400, "invalid"),
        (&*ana, &post, "/api/v1/chats".into(), text(json!({"host_id": scene.ana.user()})), 400, "invalid"),
        ("", &post, "/api/v1/users".into(), text(json!({"username": "a"})), 400, "invalid"),
        (
            "",
            &post,
            "/api/v1/users".into(),
            text(json!({"username":"ana","password":"correct horse","name":"A"})),
            409,
            "conflict",
        ),
        (
            "",
            &post,
            "/api/v1/sessions".into(),
            text(json!({"username":"ana","password":"wrong"})),
            401,
            "unauthenticated",
        ),
    ];
    let client = Client::new();
    for (who, how, path, what, status, code) in table {
        let case = format!("{how} {path} {}", what.chars().take(60).collect::<String>());
        let mut request = client.request(how.clone(), format!("{url}{path}"));
        if !who.is_empty() {
            request = request.bearer_auth(who);
        }
        if !what.is_empty() {
            request = request.header("content-type", "application/json").body(what);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::from_u16(status).unwrap(), "{case}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{case}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], code, "{case}");
        assert_eq!(problem["status"], status, "{case}");
        for field in ["title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{case}: {problem}");
        }
        if status == 400 {
            let errors = problem["errors"].as_array().unwrap();
            assert!(
                errors.iter().all(|error| error["location"].is_string() && error["msg"].is_string()),
                "{case}"
            );
            assert!(!errors.is_empty(), "{case}");
        }
    }
    // A second page past the end is empty, and no error.
    let page = client.get(format!("{url}{messages}?page=999")).bearer_auth(&ana).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.json::<Value>().await.unwrap()["results"], json!([]));
    stage.cluster.stop().await.unwrap();
}

/// A body that does not say how long it is.
fn chunked(parts: usize, length: usize) -> reqwest::Body {
    let part = move |_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; length])));
    reqwest::Body::wrap(StreamBody::new(futures_util::stream::iter((0..parts).map(part))))
}

#[tokio::test(flavor = "multi_thread")]
async fn sp_3_a_body_that_is_too_long_is_answered_so_each_time_whether_it_says_how_long_it_is_or_not() {
    let stage = Stage::new(1).await;
    let scene = Scene::new(&stage).await;
    let ana = token(&scene.url, "ana").await;
    let messages = format!("{}/api/v1/chats/{}/messages", scene.url, scene.chat);
    let client = Client::new();
    for at in 0..50 {
        for (how, body) in [
            ("content-length", reqwest::Body::from(vec![b' '; 3_000_000])),
            ("chunked", chunked(30, 100_000)),
        ] {
            let answer = client.post(&messages).bearer_auth(&ana).body(body).send().await;
            let answer = answer.unwrap_or_else(|error| panic!("{how}, {at}: {error:?}"));
            let status = answer.status();
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(
                (status.as_u16(), &problem["code"]),
                (413, &json!("too_large")),
                "{how}, {at}: {problem}"
            );
            assert_eq!(problem["status"], 413, "{how}, {at}: {problem}");
        }
    }
    stage.cluster.stop().await.unwrap();
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(session: &Session) -> Socket {
    let location = session.location().await.unwrap();
    connect_async(&location.url).await.unwrap().0
}

async fn say(socket: &mut Socket, text: impl Into<String>) {
    socket.send(Message::text(text.into())).await.unwrap();
}

/// The next frame that is no event.
async fn answer(socket: &mut Socket) -> Value {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(15), socket.next());
        let message = next.await.expect("an answer in time").expect("the socket is open").expect("a frame");
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        if frame.get("ref").is_some() || frame["type"] == "error" {
            return frame;
        }
    }
}

/// The code that the socket is closed with.
async fn closed(socket: &mut Socket) -> u16 {
    loop {
        let next =
            tokio::time::timeout(Duration::from_secs(15), socket.next()).await.expect("a close in time");
        match next {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_answers_bad_input_and_goes_on_or_closes_as_specified() {
    let stage = Stage::new(2).await;
    let scene = Scene::new(&stage).await;
    let chat = scene.chat;
    let send = |more: Value| {
        let mut frame = json!({"type": "send", "ref": 7, "chat": chat, "client_id": "c", "body": "hello"});
        for (key, value) in more.as_object().unwrap() {
            if value.is_null() {
                frame.as_object_mut().unwrap().remove(key);
            } else {
                frame[key] = value.clone();
            }
        }
        frame.to_string()
    };
    // After each of these the session is as usable as before.
    let table = [
        (r#"{"type":"dance","ref":7}"#.to_owned(), json!(7), "unknown_type"),
        (r#"{"ref":7}"#.into(), json!(7), "invalid"),
        ("[1,2,3]".into(), Value::Null, "invalid"),
        (r#""hello""#.into(), Value::Null, "invalid"),
        (r#"{"type":7,"ref":7}"#.into(), json!(7), "invalid"),
        (r#"{"type":"ping"}"#.into(), Value::Null, "invalid"),
        (r#"{"type":"ping","ref":-1}"#.into(), Value::Null, "invalid"),
        (send(json!({"body": null})), json!(7), "invalid"),
        (send(json!({"body": 7})), json!(7), "invalid"),
        (send(json!({"body": ""})), json!(7), "invalid"),
        (send(json!({"body": "a\u{0}b"})), json!(7), "invalid"),
        (send(json!({"body": "x".repeat(16 * 1024 + 1)})), json!(7), "too_large"),
        (send(json!({"client_id": "c".repeat(65)})), json!(7), "invalid"),
        (send(json!({"client_id": null})), json!(7), "invalid"),
        (send(json!({"chat": "x"})), json!(7), "invalid"),
        (send(json!({"chat": ChatId::random()})), json!(7), "not_found"),
        (send(json!({"kind": "smell"})), json!(7), "invalid"),
        (
            json!({"type":"edit","ref":7,"chat":chat,"number":99,"body":"x"}).to_string(),
            json!(7),
            "not_found",
        ),
        (json!({"type":"delete","ref":7,"chat":chat,"number":99}).to_string(), json!(7), "not_found"),
        (json!({"type":"history","ref":7,"chat":chat,"limit":0}).to_string(), json!(7), "invalid"),
        (json!({"type":"history","ref":7,"chat":chat,"limit":101}).to_string(), json!(7), "invalid"),
        (json!({"type":"history","ref":7,"chat":chat,"before":5,"after":1}).to_string(), json!(7), "invalid"),
        (json!({"type":"history","ref":7,"chat":ChatId::random()}).to_string(), json!(7), "not_found"),
    ];
    let mut socket = open(&scene.ana).await;
    say(&mut socket, r#"{"type":"hello","ref":1}"#).await;
    assert_eq!(answer(&mut socket).await["type"], "ready");
    for (said, ref_, code) in table {
        let case = said.chars().take(80).collect::<String>();
        say(&mut socket, said).await;
        let error = answer(&mut socket).await;
        assert_eq!(error["type"], "error", "{case}: {error}");
        assert_eq!((&error["code"], &error["ref"]), (&json!(code), &ref_), "{case}: {error}");
        assert!(error["temporary"].is_boolean() && error["detail"].is_string(), "{case}: {error}");
        say(&mut socket, r#"{"type":"ping","ref":8}"#).await;
        assert_eq!(
            answer(&mut socket).await,
            json!({"type": "pong", "ref": 8}),
            "{case}: the session is gone"
        );
    }
    say(&mut socket, send(json!({}))).await;
    assert_eq!(answer(&mut socket).await["type"], "ack");
    say(&mut socket, send(json!({"body": "another"}))).await;
    assert_eq!(answer(&mut socket).await["code"], "id_conflict");
    // A stranger's socket learns nothing of the chat.
    let mut other = open(&scene.eve).await;
    say(&mut other, r#"{"type":"hello","ref":1}"#).await;
    assert_eq!(answer(&mut other).await["type"], "ready");
    say(&mut other, send(json!({}))).await;
    assert_eq!(answer(&mut other).await["code"], "not_found");

    // These end it.
    let hello = r#"{"type":"hello","ref":1}"#.to_owned();
    let endings: [(&[Message], u16); 4] = [
        (&[Message::text("not json")], 4000),
        (&[Message::text(r#"{"type":"ping","ref":1}"#)], 4000),
        (&[Message::text(hello.clone()), Message::text(hello.clone())], 4000),
        (&[Message::text(hello), Message::text("x".repeat(70_000))], 1009),
    ];
    for (said, code) in endings {
        let mut socket = open(&scene.ana).await;
        for message in said {
            socket.send(message.clone()).await.unwrap();
        }
        assert_eq!(closed(&mut socket).await, code, "{:?}", said.last().map(Message::len));
    }
    let mut socket = open(&scene.ana).await;
    say(&mut socket, r#"{"type":"hello","ref":1}"#).await;
    answer(&mut socket).await;
    socket
        .close(Some(tungstenite::protocol::CloseFrame { code: CloseCode::Normal, reason: "".into() }))
        .await
        .unwrap();
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lo_1_a_ticket_opens_one_socket_on_its_own_node() {
    let stage = Stage::new(2).await;
    let scene = Scene::new(&stage).await;
    let location = scene.ana.location().await.unwrap();
    let refused = async |url: String| match connect_async(&url).await {
        Err(tungstenite::Error::Http(answer)) => {
            let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
            (answer.status().as_u16(), body["code"].as_str().unwrap().to_owned())
        }
        other => panic!("{url} was not refused before the upgrade: {other:?}"),
    };
    let bad = (401, "bad_ticket".to_owned());
    let other = stage.cluster.nodes().find(|(name, _)| *name != location.node.as_str()).unwrap().1;
    let (_, ticket) = location.url.split_once("?ticket=").unwrap();
    assert_eq!(refused(format!("{}/socket?ticket={ticket}", other.replace("http", "ws"))).await, bad);
    let (socket, _) = connect_async(&location.url).await.unwrap();
    assert_eq!(refused(location.url.clone()).await, bad, "used already");
    assert_eq!(refused(format!("{}x", scene.ana.location().await.unwrap().url)).await, bad, "forged");
    let bare = location.url.split_once('?').unwrap().0.to_owned();
    assert_eq!(refused(bare).await, bad);
    drop(socket);
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn id_2_a_session_that_was_ended_is_closed_within_two_seconds_and_refused_everywhere() {
    let stage = Stage::new(3).await;
    let scene = Scene::new(&stage).await;
    let url = &scene.url;
    let token = token(url, "ana").await;
    let client = Client::new();
    let get = |path: &str| client.get(format!("{url}{path}")).bearer_auth(&token).send();
    let location: Value = get("/chat/location").await.unwrap().json().await.unwrap();
    let (mut socket, _) = connect_async(location["url"].as_str().unwrap()).await.unwrap();
    say(&mut socket, r#"{"type":"hello","ref":1,"device":"a phone"}"#).await;
    assert_eq!(answer(&mut socket).await["type"], "ready");
    let listed: Value = get("/api/v1/sessions").await.unwrap().json().await.unwrap();
    assert!(listed.to_string().contains(location["node"].as_str().unwrap()), "{listed}");
    let ended =
        client.delete(format!("{url}/api/v1/sessions/current")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    let closing = tokio::time::timeout(Duration::from_secs(2), closed(&mut socket));
    assert_eq!(closing.await.expect("within two seconds"), 4003);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..10 {
        assert_eq!(get("/api/v1/chats").await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(get("/chat/location").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    stage.cluster.stop().await.unwrap();
}
