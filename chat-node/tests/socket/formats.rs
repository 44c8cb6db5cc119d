//! JSON and MessagePack on one node: what a session hears is of the kind it asked for, and what it says may be of either.

use common::wire::codec::pack_readable;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::stage::{Client, LONG, Person, Stage, change, live, sent};

async fn open(stage: &Stage, person: Person, protocol: &'static str) -> Client {
    let asked = [("sec-websocket-protocol", protocol)];
    let client = stage.open_with(&stage.ticket(person), &asked).await.unwrap();
    assert_eq!(client.protocol.as_ref().unwrap(), protocol);
    client
}

fn packed(frame: &Value) -> Message {
    let mut bytes = Vec::new();
    pack_readable(frame, &mut bytes);
    Message::binary(bytes)
}

/// The next frame, which is MessagePack.
async fn hear_packed(client: &mut Client) -> Value {
    loop {
        let next = tokio::time::timeout(LONG, client.socket.next()).await.expect("nothing was heard");
        match next.unwrap().unwrap() {
            Message::Binary(bytes) => return rmp_serde::from_slice(&bytes).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("a binary frame was expected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn ws_1_both_kinds_of_sessions_hear_the_same_of_one_chat() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = stage.group(&[ana, ben]).await;
    let mut text = stage.ready(ana).await;
    let mut binary = open(&stage, ben, "chat.v1.msgpack").await;
    binary.socket.send(packed(&json!({"type": "hello", "ref": 7}))).await.unwrap();
    let ready = hear_packed(&mut binary).await;
    assert_eq!((ready["type"].as_str(), ready["ref"].as_u64()), (Some("ready"), Some(7)));
    assert_eq!(ready["user"], json!(ben.user), "ids are the texts that they are in JSON");
    for number in 1..=3 {
        let mut said = change(chat, number + 1, ana.user, sent(number, "héllo"));
        // Neither wrote it: both hear the same.
        said.by = common::ids::UserId::random();
        stage.deliver.live(live(said));
        assert_eq!(text.hear().await, hear_packed(&mut binary).await);
    }
}

#[tokio::test]
async fn ws_1_a_client_may_say_either_kind_at_any_time() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let mut text = stage.open(ana).await;
    text.socket.send(packed(&json!({"type": "hello", "ref": 0}))).await.unwrap();
    assert_eq!(text.hear().await["type"], "ready");
    let mut binary = open(&stage, ana, "chat.v1.msgpack").await;
    binary.say(json!({"type": "hello", "ref": 0})).await;
    assert_eq!(hear_packed(&mut binary).await["type"], "ready");
    for turn in 0..4 {
        let ping = json!({"type": "ping", "ref": turn});
        let pong = json!({"type": "pong", "ref": turn});
        let message = if turn % 2 == 0 { packed(&ping) } else { Message::text(ping.to_string()) };
        text.socket.send(message.clone()).await.unwrap();
        assert_eq!(text.hear().await, pong);
        binary.socket.send(message).await.unwrap();
        assert_eq!(hear_packed(&mut binary).await, pong);
    }
    let bad = json!({"type": "ping", "ref": "x"});
    binary.socket.send(packed(&bad)).await.unwrap();
    let error = hear_packed(&mut binary).await;
    assert_eq!((&error["code"], &error["errors"][0]["param"]), (&json!("invalid"), &json!("ref")));
}

#[tokio::test]
async fn ws_1_the_first_subprotocol_that_is_spoken_here_is_chosen() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    for (asked, chosen) in [
        ("chat.v9.cbor, chat.v1.msgpack,chat.v1.json", "chat.v1.msgpack"),
        ("chat.v1.json, chat.v1.msgpack", "chat.v1.json"),
    ] {
        let client = stage.open_with(&stage.ticket(ana), &[("sec-websocket-protocol", asked)]).await.unwrap();
        assert_eq!(client.protocol.unwrap(), chosen);
    }
}
