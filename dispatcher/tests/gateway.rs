//! REST requests by way of the dispatcher.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use common::{
    ids::UserKey,
    listen::{self, ListenLimits},
    problem::Problem,
    ring::Ring,
    wire::codes::ErrorCode,
};
use dispatcher::{DispatcherConfig, gateway::GatewaySettings};
use futures_util::StreamExt;
use http::Request;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::Method;
use serde_json::{Value, json};
use support::{FakeNode, PATIENCE, Rig, config, json, loopback, node_id};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A node's REST side: says what it was asked.
struct Api {
    url: String,
    /// Lets the streams go on.
    permits: Arc<Semaphore>,
    _guard: DropGuard,
}

async fn echo(State(name): State<&'static str>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut length = 0;
    let mut body = body.into_data_stream();
    while let Some(Ok(part)) = body.next().await {
        length += part.len();
    }
    let headers: serde_json::Map<String, Value> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let said = json!({
        "node": name, "method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers, "length": length,
    });
    ([("keep-alive", "timeout=5"), ("x-kept", "yes")], Json(said)).into_response()
}

impl Api {
    async fn start(name: &'static str) -> Self {
        let permits = Arc::new(Semaphore::new(0));
        let stream = Arc::clone(&permits);
        let router = Router::new()
            .route(
                "/api/v1/stream",
                get(async move || {
                    let parts = futures_util::stream::unfold(stream, |stream| async {
                        stream.acquire().await.unwrap().forget();
                        Some((Ok::<_, Infallible>(Bytes::from_static(b"part")), stream))
                    });
                    Body::from_stream(parts)
                }),
            )
            .route(
                "/api/v1/chats/small",
                post(async || Problem::new(ErrorCode::TooLarge, "a body may have 100000 bytes")),
            )
            .fallback(any(echo))
            .with_state(name);
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let token = CancellationToken::new();
        tokio::spawn(listen::serve(listener, router, ListenLimits::default(), token.clone()));
        Self { url, permits, _guard: token.drop_guard() }
    }
}

async fn node(rig: &Rig, name: &str, http_url: String) -> FakeNode {
    let mut node = FakeNode::linked(rig, name).await;
    node.http_url = http_url;
    node.register().await;
    node
}

/// An address at which nobody listens.
async fn dead() -> String {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn problem(response: reqwest::Response, status: u16, code: &str) {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(json(response).await["code"], code);
}

#[tokio::test]
async fn lo_6_a_request_goes_to_the_callers_node_and_a_stranger_to_any() {
    let rig = Rig::start(2).await;
    let (one, two) = (Api::start("a").await, Api::start("b").await);
    let _nodes = (node(&rig, "a", one.url.clone()).await, node(&rig, "b", two.url.clone()).await);
    rig.ready().await;
    let ring = Ring::new(["a", "b"].map(node_id));
    for _ in 0..20 {
        let (caller, token) = rig.token();
        let said = json(rig.get("/api/v1/chats?page=2&q=a%20b", Some(&token)).await).await;
        let user = UserKey { app: caller.app, user: caller.user };
        assert_eq!(said["node"], ring.home(user.hash64()).unwrap().as_str());
        assert_eq!(said["target"], "/api/v1/chats?page=2&q=a%20b");
        assert_eq!(said["headers"]["authorization"], format!("Bearer {token}"));
    }
    for path in ["/api/v1/sessions", "/chat/message", "/chat/7/message", "/v1/users/7/contacts"] {
        let response = rig.client.post(rig.url(path)).body("{}").send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let said = json(response).await;
        assert_eq!(
            (&said["target"], &said["method"], &said["length"]),
            (&json!(path), &json!("POST"), &json!(2))
        );
    }
    assert_eq!(
        rig.get("/api/v1/chats", Some("forged")).await.status(),
        200,
        "to refuse it is the node's to do"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_client_cannot_say_where_it_comes_from_and_connections_keep_their_headers() {
    let rig = Rig::start(1).await;
    let api = Api::start("a").await;
    let _node = node(&rig, "a", api.url.clone()).await;
    rig.ready().await;
    let request = rig.client.get(rig.url("/api/v1/chats"));
    let request = request
        .header("x-forwarded-for", "10.1.1.1")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "for=10.1.1.1")
        .header("x-real-ip", "10.1.1.1")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .header("upgrade", "websocket")
        .header("idempotency-key", "k1");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["x-kept"], "yes");
    assert!(!response.headers().contains_key("keep-alive"));
    let headers = json(response).await["headers"].clone();
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["idempotency-key"], "k1");
    assert_eq!(format!("http://{}", headers["host"].as_str().unwrap()), api.url);
    for gone in ["forwarded", "x-real-ip", "x-mine", "upgrade"] {
        assert_eq!(headers[gone], Value::Null, "{gone}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_replaced_by_another_with_the_body_whole() {
    let rig = Rig::start(2).await;
    let api = Api::start("b").await;
    let _nodes = (node(&rig, "a", dead().await).await, node(&rig, "b", api.url.clone()).await);
    rig.ready().await;
    for _ in 0..20 {
        let (_, token) = rig.token();
        let request = rig.client.post(rig.url("/api/v1/chats")).bearer_auth(token).body(vec![7; 10_000]);
        let said = json(request.send().await.unwrap()).await;
        assert_eq!((&said["node"], &said["length"]), (&json!("b"), &json!(10_000)));
    }
    rig.stop().await;
}

#[tokio::test]
async fn without_a_node_that_can_be_reached_it_was_surely_not_sent() {
    let rig = Rig::start(1).await;
    let request = async || rig.client.post(rig.url("/api/v1/users")).body("{}").send().await.unwrap();
    problem(request().await, 503, "retry_later").await;
    let _node = node(&rig, "a", dead().await).await;
    rig.ready().await;
    problem(request().await, 503, "retry_later").await;
    rig.stop().await;
}

/// A node that reads a request and then does as told, once for each connection; and how often it was asked.
async fn rude(answer: &'static [u8], hang: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 65_536];
            if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                count.fetch_add(1, Relaxed);
            }
            let _ = stream.write_all(answer).await;
            if hang {
                held.push(stream);
            }
        }
    });
    (url, asked)
}

#[tokio::test]
async fn what_may_have_been_stored_is_called_so_and_never_sent_twice() {
    for hang in [false, true] {
        let gateway = GatewaySettings { answer: Duration::from_millis(500), ..GatewaySettings::default() };
        let rig = Rig::with(DispatcherConfig { gateway, ..config(2) }).await;
        let ((first, one), (second, two)) = (rude(b"", hang).await, rude(b"", hang).await);
        let _nodes = (node(&rig, "a", first).await, node(&rig, "b", second).await);
        rig.ready().await;
        let asked = || one.load(Relaxed) + two.load(Relaxed);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let before = asked();
            let request = rig.client.request(method.clone(), rig.url("/api/v1/chats")).body("{}");
            problem(request.send().await.unwrap(), 503, "outcome_unknown").await;
            assert_eq!(asked(), before + 1, "{method}, hang: {hang}");
        }
        problem(rig.get("/api/v1/chats", None).await, 503, "retry_later").await;
        rig.stop().await;
    }
}

/// A body that does not say how long it is.
fn chunked(parts: usize, length: usize) -> reqwest::Body {
    let part = move |_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![1; length])));
    reqwest::Body::wrap(StreamBody::new(futures_util::stream::iter((0..parts).map(part))))
}

#[tokio::test]
async fn a_body_is_passed_on_as_it_comes_both_ways() {
    let rig = Rig::start(1).await;
    let api = Api::start("a").await;
    let _node = node(&rig, "a", api.url.clone()).await;
    rig.ready().await;
    let mut response = rig.get("/api/v1/stream", None).await;
    for _ in 0..3 {
        // The node writes the next part only now.
        api.permits.add_permits(1);
        let part = timeout(PATIENCE, response.chunk()).await.expect("before the body ends").unwrap();
        assert_eq!(part.unwrap(), "part");
    }
    drop(response);

    let request = rig.client.post(rig.url("/api/v1/attachments")).body(chunked(5, 1_000_000));
    assert_eq!(json(request.send().await.unwrap()).await["length"], 5_000_000);
    rig.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_whether_it_says_so_or_not() {
    let gateway = GatewaySettings { max_body: 10_000, max_upload: 100_000, ..GatewaySettings::default() };
    let rig = Rig::with(DispatcherConfig { gateway, ..config(1) }).await;
    let api = Api::start("a").await;
    let _node = node(&rig, "a", api.url.clone()).await;
    rig.ready().await;
    let post = || rig.client.post(rig.url("/api/v1/attachments"));
    assert_eq!(json(post().body(vec![1; 100_000]).send().await.unwrap()).await["length"], 100_000);
    problem(post().body(vec![1; 100_001]).send().await.unwrap(), 413, "too_large").await;
    problem(post().body(chunked(3, 50_000)).send().await.unwrap(), 413, "too_large").await;
    let other = rig.client.post(rig.url("/api/v1/chats")).body(vec![1; 10_001]);
    problem(other.send().await.unwrap(), 413, "too_large").await;
    rig.stop().await;
}

#[tokio::test]
async fn lo_6_what_a_node_refuses_in_the_midst_of_a_body_is_what_the_client_hears() {
    let rig = Rig::start(1).await;
    let api = Api::start("a").await;
    let _node = node(&rig, "a", api.url.clone()).await;
    rig.ready().await;
    for at in 0..50 {
        let known = rig.client.post(rig.url("/api/v1/chats/small")).body(vec![b' '; 3_000_000]);
        problem(known.send().await.unwrap_or_else(|error| panic!("{at}: {error:?}")), 413, "too_large").await;
        let unknown = rig.client.post(rig.url("/api/v1/chats/small")).body(chunked(30, 100_000));
        problem(unknown.send().await.unwrap_or_else(|error| panic!("{at}: {error:?}")), 413, "too_large")
            .await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_its_clients_fault() {
    let rig = Rig::with(config(1)).await;
    let api = Api::start("a").await;
    let _node = node(&rig, "a", api.url.clone()).await;
    rig.ready().await;
    let http: std::net::SocketAddr = rig.url("").trim_start_matches("http://").parse().unwrap();
    for body in
        ["transfer-encoding: chunked\r\n\r\n{\"body\":\"x\"}", "content-length: 100\r\n\r\n{\"body\":"]
    {
        let mut stream = TcpStream::connect(http).await.unwrap();
        let request = format!("POST /api/v1/chats HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"invalid\""), "{answer}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn me_7_an_upload_may_take_as_long_as_it_goes_on() {
    let answer = Duration::from_millis(600);
    let gateway = GatewaySettings { answer, ..GatewaySettings::default() };
    let rig = Rig::with(DispatcherConfig { gateway, ..config(1) }).await;
    let api = Api::start("a").await;
    let _node = node(&rig, "a", api.url.clone()).await;
    rig.ready().await;
    // Three times what an answer may take, a piece each third of it.
    let pieces = futures_util::stream::unfold(0, move |at| async move {
        tokio::time::sleep(answer / 3).await;
        (at < 9).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from(vec![1; 1_000]))), at + 1))
    });
    let body = reqwest::Body::wrap(StreamBody::new(Box::pin(pieces)));
    let request = rig.client.post(rig.url("/api/v1/attachments")).body(body);
    assert_eq!(json(request.send().await.unwrap()).await["length"], 9_000);
    // One that stands still is not waited for.
    let stuck = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
    let body = reqwest::Body::wrap(StreamBody::new(stuck));
    let request = rig.client.post(rig.url("/api/v1/attachments")).body(body);
    problem(request.send().await.unwrap(), 503, "outcome_unknown").await;
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let rig = Rig::start(1).await;
    let (url, _) = rude(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", false).await;
    let _node = node(&rig, "a", url).await;
    rig.ready().await;
    let response = rig.get("/api/v1/chats", None).await;
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    rig.stop().await;
}

/// What comes back for these bytes, up to the end of the header.
async fn raw(http: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(http).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut answer).await.unwrap() == 0 {
                break;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn nothing_but_the_public_api_reaches_a_node_however_it_is_written() {
    let rig = Rig::start(1).await;
    let (url, asked) = rude(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    let _node = node(&rig, "a", url).await;
    rig.ready().await;
    for target in [
        "/api/v1/../../group/",
        "/api/v1/%2e%2e/%2E%2E/group/",
        "/api/v1/./x",
        "//api/v1/x",
        "/group/",
        "/user/1",
        "/message/",
        "http://elsewhere/group/",
        "*",
        "/socket?ticket=x",
        "/api/v1/%2e%2e/x",
    ] {
        let answer = raw(rig.http, &format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 400"),
            "{target}: {answer}"
        );
    }
    assert_eq!(asked.load(Relaxed), 0);
    let answer = raw(rig.http, "GET http://elsewhere/api/v1/x HTTP/1.1\r\nhost: elsewhere\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "to our own node, whatever host is named: {answer}");
    assert_eq!(asked.load(Relaxed), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_is_clean_though_a_request_takes_longer_than_it_may() {
    let rig = Rig::start(1).await;
    let (url, asked) = rude(b"", true).await;
    let _node = node(&rig, "a", url).await;
    rig.ready().await;
    let (http, client) = (rig.url("/api/v1/chats"), rig.client.clone());
    let (_, token) = rig.token();
    let slow = tokio::spawn(async move { client.get(http).bearer_auth(token).send().await });
    support::until("the request is under way", async || asked.load(Relaxed) > 0).await;
    rig.stop().await;
    assert!(slow.await.unwrap().is_err(), "it was cut off");
}
