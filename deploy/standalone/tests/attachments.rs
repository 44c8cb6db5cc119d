//! Files through the cluster's one address: in streams that memory does not see, and with nothing left of what nobody refers to (ME-7).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{convert::Infallible, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use stage::{
    Folder, MEND,
    program::{Program, command, port},
};

const PIECE: usize = 64 * 1024;

/// The pieces of a file: each is told from the others.
fn piece(at: usize) -> Bytes {
    let mut piece = vec![(at % 251) as u8; PIECE];
    piece[..8].copy_from_slice(&(at as u64).to_be_bytes());
    piece.into()
}

fn body(pieces: usize) -> reqwest::Body {
    let frames = (0..pieces).map(|at| Ok::<_, Infallible>(Frame::data(piece(at))));
    reqwest::Body::wrap(StreamBody::new(stream::iter(frames)))
}

/// Somebody who is signed in.
struct Person {
    url: String,
    client: Client,
    id: String,
    token: String,
}

impl Person {
    async fn new(url: &str, name: &str) -> Self {
        let client = Client::new();
        let body = json!({"username": name, "password": "correct horse", "name": name});
        for path in ["users", "sessions"] {
            let made = client.post(format!("{url}/api/v1/{path}")).json(&body).send().await.unwrap();
            let status = made.status();
            let made: Value = made.json().await.unwrap();
            assert_eq!(status, 201, "{made}");
            if path == "sessions" {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let (id, token) = (text(&made["user"]["id"]), text(&made["token"]));
                return Self { url: url.to_owned(), client, id, token };
            }
        }
        unreachable!()
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token)
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token)
    }

    async fn upload(&self, body: impl Into<reqwest::Body>) -> String {
        let uploaded = json_of(self.post("attachments").body(body), 201).await;
        uploaded["id"].as_str().unwrap().to_owned()
    }

    async fn status(&self, id: &str) -> u16 {
        self.get(&format!("attachments/{id}")).send().await.unwrap().status().as_u16()
    }

    async fn chat_with(&self, other: &Self) -> String {
        let chat = json_of(self.post("chats").json(&json!({"host_id": other.id})), 201).await;
        format!("chats/{}/messages", chat["id"].as_str().unwrap())
    }
}

async fn json_of(request: RequestBuilder, status: u16) -> Value {
    let response = request.send().await.unwrap();
    let (got, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Reads all of it, and compares it with what was sent.
async fn compare(mut response: Response, pieces: usize) {
    assert_eq!(response.status(), 200);
    let (mut at, mut rest) = (0, Vec::new());
    while let Some(bytes) = response.chunk().await.unwrap() {
        rest.extend_from_slice(&bytes);
        while rest.len() >= PIECE {
            assert!(rest[..PIECE] == piece(at), "piece {at}");
            rest.drain(..PIECE);
            at += 1;
        }
    }
    assert_eq!((at, rest.len()), (pieces, 0));
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + MEND;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn me_7_a_hundred_megabytes_go_up_and_down_and_memory_stays_flat() {
    /// Some 10 MB are usual: a part of the upload, and buffers of sockets. Of a file that is held there would be 100.
    const GROWTH: u64 = 32 * 1024 * 1024;
    const PIECES: usize = 100 * 1024 * 1024 / PIECE;

    let folder = Folder::new();
    let program = Program::start(&folder.path().join("data"), port()).await;
    let ana = Person::new(&program.url, "ana").await;
    // What a first request opens, and buffers once.
    let small = ana.upload(body(128)).await;
    compare(ana.get(&format!("attachments/{small}")).send().await.unwrap(), 128).await;
    let before = program.memory_from_now_on();

    let id = ana.upload(body(PIECES)).await;
    compare(ana.get(&format!("attachments/{id}")).send().await.unwrap(), PIECES).await;
    let part = ana.get(&format!("attachments/{id}")).header("range", "bytes=65536-65543");
    let part = part.send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), part.bytes().await.unwrap().as_ref()),
        (206, &1_u64.to_be_bytes()[..])
    );
    let grown = program.most_memory().saturating_sub(before);
    println!("memory grew by {grown} bytes");
    assert!(grown <= GROWTH, "memory grew by {grown} bytes");

    // A byte more is too much, for the gateway as for a node.
    let more = ana.post("attachments").body(body(PIECES + 1)).send().await;
    assert!(more.map_or(true, |answer| answer.status() == 413));
    until("what was refused is gone", async || files(&folder.path().join("data/attachments")) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn me_7_a_kill_in_the_middle_of_an_upload_leaves_nothing_and_what_nobody_refers_to_is_collected() {
    let folder = Folder::new();
    let (data, port) = (folder.path().join("data"), port());
    let kept = data.join("attachments");
    let mut program = Program::start(&data, port).await;
    let (ana, ben) = (Person::new(&program.url, "ana").await, Person::new(&program.url, "ben").await);
    let slow =
        stream::iter(0..200).map(|at| Ok::<_, Infallible>(Frame::data(piece(at)))).chain(stream::pending());
    let request = ana.post("attachments").body(reqwest::Body::wrap(StreamBody::new(slow)));
    let under_way = tokio::spawn(request.send());
    until("some of it is written", async || files(&kept) == 1).await;
    program.kill();
    assert!(!under_way.await.unwrap().is_ok_and(|answer| answer.status().is_success()));
    assert_eq!(files(&kept), 1, "nobody has tidied up");

    let mut quick = command(&data, port);
    quick.env("CHAT_ATTACHMENTS__UNUSED_AFTER", "5").env("CHAT_ATTACHMENTS__UPLOAD_TIME", "2");
    let _program = Program::start_as(quick).await;
    until("what was left of it is gone", async || files(&kept) == 0).await;

    let messages = ana.chat_with(&ben).await;
    let (never, sent) = (ana.upload("never sent").await, ana.upload("sent").await);
    let message = json!({"body": "", "type": "file", "attachments": [sent]});
    let message = json_of(ana.post(&messages).json(&message), 201).await;
    assert_eq!((ben.status(&sent).await, ben.status(&never).await), (200, 404));
    until("what was never sent is gone", async || ana.status(&never).await == 404 && files(&kept) == 1).await;
    assert_eq!(ben.status(&sent).await, 200);
    let path = format!("{}/api/v1/{messages}/{}", ana.url, message["number"]);
    let deleted = ana.client.delete(path).bearer_auth(&ana.token).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    until("what was deleted is gone", async || ana.status(&sent).await == 404 && files(&kept) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn me_7_over_a_socket_a_message_refers_to_its_senders_uploads_as_well() {
    let stage = stage::Stage::new(2).await;
    let url = stage.cluster.url();
    let (ana, ben) = (Person::new(&url, "ana").await, Person::new(&url, "ben").await);
    let messages = ana.chat_with(&ben).await;
    let chat = messages.split('/').nth(1).unwrap();
    let location = json_of(ana.client.get(format!("{url}/chat/location")).bearer_auth(&ana.token), 200).await;
    let (mut socket, _) = tokio_tungstenite::connect_async(location["url"].as_str().unwrap()).await.unwrap();
    let id = ana.upload("words").await;
    let send = |ref_: u64, client_id: &str, attachments: Value| json!({"type": "send", "ref": ref_, "chat": chat, "client_id": client_id, "body": "look", "attachments": attachments});
    let frames = [
        json!({"type": "hello", "ref": 1}),
        send(2, "good", json!([id])),
        send(3, "bad", json!(["00000000000000000000000000000007"])),
        send(4, "after", json!([])),
    ];
    for frame in frames {
        let text = tokio_tungstenite::tungstenite::Message::text(frame.to_string());
        futures_util::SinkExt::send(&mut socket, text).await.unwrap();
    }
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let message = tokio::time::timeout(MEND, socket.next()).await.unwrap().unwrap().unwrap();
        let Ok(text) = message.to_text() else { continue };
        let Ok(frame) = serde_json::from_str::<Value>(text) else { continue };
        match frame["ref"].as_u64() {
            Some(ref_) if ref_ > 1 => answers.push((ref_, frame)),
            _ => {}
        }
    }
    let told: Vec<_> = answers.iter().map(|(ref_, frame)| (*ref_, frame["type"].as_str().unwrap())).collect();
    assert_eq!(told, [(2, "ack"), (3, "error"), (4, "ack")]);
    assert_eq!(answers[1].1["code"], "invalid");
    assert_eq!(answers[1].1["errors"][0]["param"], "attachments[0]");
    assert_eq!((&answers[0].1["number"], &answers[2].1["number"]), (&json!(1), &json!(2)));
    assert_eq!(ben.status(&id).await, 200);
    stage.cluster.stop().await.unwrap();
}
