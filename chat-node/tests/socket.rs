//! Sockets through their door: who gets in, what is said, and every way it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "socket/counted.rs"]
mod counted;
#[path = "socket/formats.rs"]
mod formats;
#[path = "socket/presence.rs"]
mod presence;
#[path = "socket/resume.rs"]
mod resume;
#[path = "socket/stage.rs"]
mod stage;

use std::{sync::atomic::Ordering, time::Duration};

use chat_node::{session::PENDING, socket::SocketConfig};
use common::{
    ids::{ChatId, UserKey},
    time::Millis,
    wire::{codes::ErrorCode, owner::Refusal, peer::Live, record::What},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use stage::{APP, LONG, Stage, change, live, sent};
use tokio_tungstenite::tungstenite::{self, Message};

/// The answer of a door that did not open: status and code.
fn refused(outcome: Result<stage::Client, tungstenite::Error>) -> (u16, String) {
    match outcome {
        Err(tungstenite::Error::Http(response)) => {
            let body: Value = serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap();
            let form = response.headers().get("content-type").unwrap();
            assert_eq!(form, "application/problem+json");
            assert_eq!(body["status"], response.status().as_u16());
            (response.status().as_u16(), body["code"].as_str().unwrap().to_owned())
        }
        Err(other) => panic!("refused in another way: {other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn a_ticket_opens_one_socket_and_a_bad_one_none() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let ticket = stage.ticket(ana);
    let _open = stage.open_with(&ticket, &[]).await.unwrap();
    let forged = format!("{}x", stage.ticket(ana));
    let expired = stage.ticket(ana).replace('.', "");
    for (what, ticket) in [
        ("used", ticket.as_str()),
        ("forged", &forged),
        ("cut", &expired),
        ("none", ""),
        ("long", &"x".repeat(9_000)),
    ] {
        assert_eq!(refused(stage.open_with(ticket, &[]).await), (401, "bad_ticket".into()), "{what}");
    }
    let twice = format!("{}&ticket=", stage.ticket(ana));
    assert_eq!(refused(stage.open_with(&twice, &[]).await), (401, "bad_ticket".into()));
    assert_eq!(stage.sockets.load(Ordering::SeqCst), 1, "what was refused is not counted");
}

#[tokio::test]
async fn what_is_no_upgrade_is_told_so() {
    let stage = Stage::new().await;
    let answer = reqwest::get(format!("http://{}/socket", stage.address)).await.unwrap();
    assert_eq!(answer.status(), 400);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "invalid");
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_open_a_socket() {
    let origins = vec!["https://chat.example.org".to_owned()];
    let stage = Stage::with(SocketConfig { origins, ..SocketConfig::default() }).await;
    let ana = stage.person("ana").await;
    for origin in [
        "https://evil.example",
        "https://chat.example.org.evil.example",
        "http://chat.example.org",
        "null",
        "",
    ] {
        let outcome = stage.open_with(&stage.ticket(ana), &[("origin", origin)]).await;
        assert_eq!(refused(outcome), (403, "forbidden".into()), "{origin}");
    }
    let own = [("origin", "https://chat.example.org")];
    assert!(stage.open_with(&stage.ticket(ana), &own).await.is_ok());
    assert!(stage.open_with(&stage.ticket(ana), &[]).await.is_ok(), "no browser");
}

#[tokio::test]
async fn json_is_spoken_to_who_asks_for_it_and_to_who_asks_for_nothing() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let asked = |protocols: &'static str| [("sec-websocket-protocol", protocols)];
    let client = stage.open_with(&stage.ticket(ana), &asked("chat.v9.cbor, chat.v1.json")).await.unwrap();
    assert_eq!(client.protocol.unwrap(), "chat.v1.json");
    let client = stage.open(ana).await;
    assert_eq!(client.protocol, None);
    let outcome = stage.open_with(&stage.ticket(ana), &asked("chat.v9.cbor")).await;
    assert_eq!(refused(outcome), (400, "invalid".into()));
}

#[tokio::test]
async fn a_full_node_refuses_and_keeps_the_ticket_good() {
    let stage = Stage::with(SocketConfig { capacity: 1, ..SocketConfig::default() }).await;
    let ana = stage.person("ana").await;
    let mut open = stage.open(ana).await;
    let ticket = stage.ticket(ana);
    assert_eq!(refused(stage.open_with(&ticket, &[]).await), (503, "retry_later".into()));
    open.socket.close(None).await.unwrap();
    stage.until(|| async { stage.sockets.load(Ordering::SeqCst) == 0 }).await;
    assert!(stage.open_with(&ticket, &[]).await.is_ok());
}

#[tokio::test]
async fn a_user_has_32_sockets_and_no_more() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(stage.ready(ana).await);
    }
    stage.open(ana).await.closed_with(4008, "too_many_sessions").await;
    stage.ready(ben).await;
    open.pop();
    stage.until(|| async { stage.sockets.load(Ordering::SeqCst) <= 32 }).await;
    stage.ready(ana).await;
}

#[tokio::test]
async fn ready_says_who_where_and_with_what_bounds() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let mut client = stage.open(ana).await;
    let ready = client
        .ask(json!({"type": "hello", "ref": 41, "device": "phone", "resume": {"cursor": "0", "chats": {}}, "later": 1}))
        .await;
    let expected = json!({
        "type": "ready", "ref": 41, "session": ana.session.to_string(), "user": ana.user.to_string(),
        "node": "node-1", "cursor": ready["cursor"], "ping_interval_ms": 20_000,
        "limits": {"frame_bytes": 65_536, "body_bytes": 16_384, "pending_sends": 64}, "resuming": false,
    });
    assert_eq!(ready, expected);
    assert_eq!(client.ask(json!({"type": "ping", "ref": 42})).await, json!({"type": "pong", "ref": 42}));
}

#[tokio::test]
async fn the_first_frame_is_hello_and_comes_in_time_and_once() {
    let hello_wait = Duration::from_millis(300);
    let stage = Stage::with(SocketConfig { hello_wait, ..SocketConfig::default() }).await;
    let ana = stage.person("ana").await;
    stage.open(ana).await.closed_with(4000, "protocol_error").await;

    let mut client = stage.open(ana).await;
    let early = client.ask(json!({"type": "ping", "ref": 1})).await;
    assert_eq!((early["type"].as_str(), early["code"].as_str()), (Some("error"), Some("invalid")));
    let bad = client.ask(json!({"type": "hello"})).await;
    assert_eq!(bad["errors"][0]["param"], "ref");
    assert_eq!(client.ask(json!({"type": "hello", "ref": 2})).await["type"], "ready");
    client.say(json!({"type": "hello", "ref": 3})).await;
    client.closed_with(4000, "protocol_error").await;
}

#[tokio::test]
async fn a_bad_frame_is_answered_and_the_session_goes_on() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let chat = stage.group(&[ana]).await;
    let mut client = stage.ready(ana).await;
    let send = |field: &str, value: Value| {
        let mut frame =
            json!({"type": "send", "ref": 5, "chat": chat.to_string(), "client_id": "c", "body": "b"});
        frame[field] = value;
        frame
    };
    let table = [
        (json!([]), None, "invalid"),
        (json!({}), None, "invalid"),
        (json!({"type": "dance", "ref": 5}), Some(5), "unknown_type"),
        (json!({"type": "ping"}), None, "invalid"),
        (json!({"type": "ping", "ref": -1}), None, "invalid"),
        (json!({"type": "delete", "ref": 5, "chat": "x", "number": 1}), Some(5), "invalid"),
        (send("body", json!(7)), Some(5), "invalid"),
        (send("body", json!("")), Some(5), "invalid"),
        (send("body", json!("a\u{0}b")), Some(5), "invalid"),
        (send("body", json!("x".repeat(16 * 1024 + 1))), Some(5), "too_large"),
        (send("client_id", json!("")), Some(5), "invalid"),
        (send("client_id", json!("x".repeat(65))), Some(5), "invalid"),
        (send("kind", json!("gif")), Some(5), "invalid"),
        (send("reply_to", json!(0)), Some(5), "invalid"),
        (send("attachments", json!([7])), Some(5), "invalid"),
        (
            json!({"type": "history", "ref": 5, "chat": chat.to_string(), "before": 1, "after": 1}),
            Some(5),
            "invalid",
        ),
        (json!({"type": "history", "ref": 5, "chat": chat.to_string(), "limit": 0}), Some(5), "invalid"),
        (json!({"type": "history", "ref": 5, "chat": chat.to_string(), "limit": 101}), Some(5), "invalid"),
    ];
    for (frame, ref_, code) in table {
        let answer = client.ask(frame.clone()).await;
        assert_eq!(answer["type"], "error", "{frame}");
        assert_eq!((answer["ref"].as_u64(), answer["code"].as_str()), (ref_, Some(code)), "{frame}");
        assert_eq!(answer["temporary"], false);
        assert_eq!(answer["errors"].is_array(), code == "invalid", "{answer}");
    }
    assert_eq!(client.ask(json!({"type": "ping", "ref": 6})).await["type"], "pong");
}

#[tokio::test]
async fn what_is_no_json_ends_the_session() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    for text in ["", "hello", "{", "{\"type\":\"ping\",\"ref\":1} x"] {
        let mut client = stage.ready(ana).await;
        client.say_text(text).await;
        client.closed_with(4000, "protocol_error").await;
    }
    let mut client = stage.ready(ana).await;
    client.socket.send(Message::binary(vec![0xc1])).await.unwrap();
    client.closed_with(4000, "protocol_error").await;
    let mut client = stage.open(ana).await;
    client.say_text("hello").await;
    client.closed_with(4000, "protocol_error").await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_session() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    // At the bound, past it, and far past it, where it is not even read; whole and in pieces.
    let padded = |bytes: usize| {
        let frame = json!({"type": "ping", "ref": 1, "x": ""}).to_string();
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - frame.len())))
    };
    let mut client = stage.ready(ana).await;
    client.say_text(&padded(65_536)).await;
    assert_eq!(client.hear().await["type"], "pong");
    client.say_text(&padded(65_537)).await;
    client.closed_with(1009, "frame_too_large").await;
    for bytes in [200_000, 3_000_000] {
        let mut client = stage.ready(ana).await;
        // The server may close while this is being written.
        let _ = client.socket.send(Message::text(padded(bytes))).await;
        client.closed_with(1009, "frame_too_large").await;
    }
}

#[tokio::test]
async fn me_1_a_send_is_acknowledged_with_its_place_and_errors_come_in_its_stead() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let chat = stage.group(&[ana]).await.to_string();
    let mut client = stage.ready(ana).await;
    let send = json!({"type": "send", "ref": 7, "chat": chat, "client_id": "c-1", "body": "hello"});
    let ack = client.ask(send.clone()).await;
    let id = ack["id"].as_str().unwrap().to_owned();
    let expected = json!({
        "type": "ack", "ref": 7, "chat": chat, "seq": 2, "client_id": "c-1", "id": id, "number": 1,
        "created_at": "1970-01-01T00:00:00.000Z",
    });
    assert_eq!(ack, expected);

    stage.lanes.hold.store(true, Ordering::SeqCst);
    client.say(send).await;
    stage.until(|| async { !stage.lanes.sending.lock().is_empty() }).await;
    let sending = stage.lanes.sending.lock().pop().unwrap();
    assert_eq!((sending.draft.body.as_str(), sending.draft.retry), ("hello", false));
    let refusal =
        Refusal { retry_after_ms: Some(300), ..Refusal::new(ErrorCode::RetryLater, "the chat has no owner") };
    sending.outcome.send(Err(refusal)).unwrap();
    let expected = json!({
        "type": "error", "ref": 7, "code": "retry_later", "detail": "the chat has no owner", "retry_after_ms": 300,
        "temporary": true,
    });
    assert_eq!(client.hear().await, expected);

    let edit = json!({"type": "edit", "ref": 8, "chat": chat, "number": 1, "body": "new"});
    assert_eq!(client.ask(edit).await, json!({"type": "ack", "ref": 8, "chat": chat, "seq": 77}));
    let delete = client.ask(json!({"type": "delete", "ref": 9, "chat": chat, "number": 1})).await;
    assert_eq!((delete["ref"].as_u64(), delete["code"].as_str()), (Some(9), Some("forbidden")));
    let page = client.ask(json!({"type": "history", "ref": 10, "chat": chat})).await;
    assert_eq!((page["type"].as_str(), page["complete"].as_bool()), (Some("page"), Some(true)), "{page}");
}

#[tokio::test]
async fn acknowledgements_of_one_chat_keep_their_order_and_chats_do_not_wait_for_each_other() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let (chat, other) = (ChatId::random(), ChatId::random());
    let mut client = stage.ready(ana).await;
    stage.lanes.hold.store(true, Ordering::SeqCst);
    for (ref_, chat) in [(1, chat), (2, chat), (3, chat), (4, other)] {
        let id = format!("c-{ref_}");
        client
            .say(json!({"type": "send", "ref": ref_, "chat": chat.to_string(), "client_id": id, "body": "b"}))
            .await;
    }
    stage.until(|| async { stage.lanes.sending.lock().len() == 4 }).await;
    // Outcomes in another order than the sends.
    for at in [3, 2, 1, 0] {
        let sending = stage.lanes.sending.lock().remove(at);
        sending.outcome.send(Ok(stage.lanes.next(false))).unwrap();
        if sending.chat == other {
            assert_eq!(client.hear().await["ref"], 4);
        }
    }
    for ref_ in 1..=3 {
        assert_eq!(client.hear().await["ref"], ref_);
    }
}

#[tokio::test]
async fn too_many_requests_at_once_are_refused_and_the_others_answered() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let chat = ChatId::random().to_string();
    let mut client = stage.ready(ana).await;
    stage.lanes.hold.store(true, Ordering::SeqCst);
    for ref_ in 0..=PENDING {
        let id = format!("c-{ref_}");
        client.say(json!({"type": "send", "ref": ref_, "chat": chat, "client_id": id, "body": "b"})).await;
    }
    let refused = client.hear().await;
    assert_eq!((refused["ref"].as_u64(), refused["code"].as_str()), (Some(64), Some("too_many_pending")));
    assert_eq!(refused["temporary"], true);
    assert_eq!(
        client.ask(json!({"type": "ping", "ref": 99})).await["type"],
        "pong",
        "a ping is no request to wait for"
    );
    for sending in std::mem::take(&mut *stage.lanes.sending.lock()) {
        sending.outcome.send(Ok(stage.lanes.next(false))).unwrap();
    }
    for ref_ in 0..PENDING {
        assert_eq!(client.hear().await["ref"], ref_);
    }
    client.say(json!({"type": "send", "ref": 100, "chat": chat, "client_id": "c", "body": "b"})).await;
    stage.until(|| async { stage.lanes.sending.lock().len() == 1 }).await;
}

#[tokio::test]
async fn sends_of_a_session_that_comes_back_are_flagged_as_retries() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let chat = ChatId::random().to_string();
    let send = json!({"type": "send", "ref": 1, "chat": chat, "client_id": "c", "body": "b"});
    let mut client = stage.ready(ana).await;
    assert_eq!(client.ask(send.clone()).await.get("repeat"), None);
    let mut again = send.clone();
    again["retry"] = json!(true);
    assert_eq!(client.ask(again).await["repeat"], true);
    let mut back = stage.open(ana).await;
    assert_eq!(back.ask(json!({"type": "hello", "ref": 0, "resume": {}})).await["resuming"], false);
    assert_eq!(back.ask(send).await["repeat"], true);
}

#[tokio::test]
async fn id_5_me_3_events_reach_every_device_of_every_member_and_nobody_else() {
    let stage = Stage::new().await;
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    let chat = stage.group(&[ana, ben]).await;
    let mut sender = stage.ready(ana).await;
    let mut others = [stage.ready(ben).await, stage.ready(ben).await];
    let mut stranger = stage.ready(eve).await;
    stage.deliver.live(live(change(chat, 2, ana.user, sent(1, "hello"))));
    let event = sender.hear().await;
    assert_eq!((event["type"].as_str(), event["seq"].as_u64()), (Some("new_message"), Some(2)));
    assert_eq!(event["message"]["client_id"], "m1");
    for client in &mut others {
        let event = client.hear().await;
        assert_eq!(event["message"]["body"], "hello");
        assert_eq!(event["message"].get("client_id"), None);
    }
    let pong = stranger.ask(json!({"type": "ping", "ref": 1})).await;
    assert_eq!(pong["type"], "pong", "the first thing it hears");
    assert_eq!(stage.counted("chat_events_delivered_total", None), 3);
}

#[tokio::test]
async fn ch_6_who_is_let_in_hears_of_the_chat_at_once() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let mut client = stage.ready(ben).await;
    let chat = stage.group(&[ana, ben]).await;
    stage.deliver.live(Live::Added { app: APP, chat, seq: 1, users: vec![ana.user, ben.user] });
    let event = client.hear().await;
    assert_eq!((event["type"].as_str(), event["seq"].as_u64()), (Some("new_chat"), Some(1)));
    assert_eq!(
        (event["chat"]["id"].as_str(), event["chat"]["name"].as_str()),
        (Some(&*chat.to_string()), Some("group"))
    );
    stage.deliver.live(live(change(chat, 2, ana.user, sent(1, "hello"))));
    assert_eq!(client.hear().await["seq"], 2);
    stage.deliver.live(live(change(chat, 3, ana.user, What::Left { user: ben.user, heir: None })));
    stage.deliver.live(Live::Removed { app: APP, chat, seq: 3, users: vec![ben.user] });
    stage.deliver.live(live(change(chat, 4, ana.user, sent(2, "alone"))));
    assert_eq!(client.hear().await, json!({"type": "chat_removed", "chat": chat.to_string()}));
    assert_eq!(client.ask(json!({"type": "ping", "ref": 1})).await["type"], "pong");
}

#[tokio::test]
async fn ws_4_a_client_that_does_not_read_is_closed_holds_nobody_back_and_loses_nothing() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = stage.group(&[ana, ben]).await;
    let (mut slow, cursor) = resume::begin(&stage, ben).await;
    let mut quick = stage.ready(ana).await;
    let reading = tokio::spawn(async move {
        for seq in 2.. {
            let event = quick.hear().await;
            assert_eq!(event["seq"], seq);
            if event["message"]["body"] == "last" {
                return quick;
            }
        }
        unreachable!("it reads until the last")
    });
    // 16 KiB each: the system's buffers and the outbox are full after some MiB.
    let text = "x".repeat(16_000);
    let mut seq = 2;
    let mut said = Vec::new();
    let ended = || stage.counted("chat_socket_closes_total", Some("slow_consumer")) == 1;
    while !ended() {
        assert!(seq < 20_000, "it is never slow");
        said.push(change(chat, seq, ana.user, sent(seq - 1, &text)));
        stage.deliver.live(live(said.last().unwrap().clone()));
        seq += 1;
        tokio::task::yield_now().await;
        if seq % 16 == 0 {
            // The other one keeps up.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    said.push(change(chat, seq, ana.user, sent(seq - 1, "last")));
    stage.deliver.live(live(said.last().unwrap().clone()));
    let mut quick = tokio::time::timeout(LONG, reading).await.unwrap().unwrap();
    assert_eq!(quick.ask(json!({"type": "ping", "ref": 1})).await["type"], "pong");
    let frames = slow.closed_with(4004, "slow_consumer").await;
    let heard = frames.len();
    for (frame, seq) in frames.iter().zip(2u64..) {
        assert_eq!(frame["seq"], seq, "what it got is whole as far as it goes");
    }
    assert_eq!(stage.counted("chat_slow_consumers_total", None), 1);

    // It comes back with less to catch up on than it was behind, and then with all of it.
    stage.write(said).await;
    let back = |seen: u64| json!({"cursor": cursor, "chats": {chat.to_string(): seen}});
    let (_client, frames) = resume::again(&stage, ben, back(seq - 20)).await;
    assert_eq!(frames.len(), 21);
    assert_eq!(resume::of(&frames, chat), json!({"from": seq - 20, "to": seq, "complete": true}));
    let had = 1 + u64::try_from(heard).unwrap();
    let (_client, frames) = resume::again(&stage, ben, back(had)).await;
    assert_eq!(
        resume::of(&frames, chat),
        json!({"from": had, "to": seq, "complete": false}),
        "it is to be read"
    );
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let soon = Millis::from_secs(Millis::now().as_secs() + 2);
    let mut client = stage.open_with(&stage.ticket_until(ana, soon), &[]).await.unwrap();
    assert_eq!(client.ask(json!({"type": "hello", "ref": 0})).await["type"], "ready");
    client.closed_with(4002, "token_expired").await;
    assert!(Millis::now() >= soon);
    assert!(Millis::now().since(soon) < Duration::from_secs(5));
    let past = Millis::from_secs(Millis::now().as_secs() - 60);
    stage
        .open_with(&stage.ticket_until(ana, past), &[])
        .await
        .unwrap()
        .closed_with(4002, "token_expired")
        .await;
}

#[tokio::test]
async fn id_2_ending_a_sign_in_closes_its_sockets_within_two_seconds_and_no_others() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let (mut one, mut two, mut other) =
        (stage.ready(ana).await, stage.ready(ana).await, stage.ready(ben).await);
    let silent = stage.open(ana).await;
    let began = tokio::time::Instant::now();
    assert!(stage.store.end_sign_in(APP, ana.user, ana.session).await.unwrap());
    for mut client in [silent] {
        client.closed_with(4003, "revoked").await;
    }
    for client in [&mut one, &mut two] {
        let frames = client.closed_with(4003, "revoked").await;
        assert_eq!(frames, [json!({"type": "session_revoked", "session": ana.session.to_string()})]);
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(other.ask(json!({"type": "ping", "ref": 1})).await["type"], "pong");
    // A ticket that is still good opens nothing for it.
    stage.open(ana).await.closed_with(4003, "revoked").await;
}

#[tokio::test]
async fn who_gives_no_sign_of_life_is_closed() {
    let config = SocketConfig {
        ping_every: Duration::from_millis(300),
        pong_wait: Duration::from_millis(300),
        ..SocketConfig::default()
    };
    let stage = Stage::with(config).await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let mut dead = stage.ready(ana).await;
    let mut alive = stage.ready(ben).await;
    // A client answers pings when it reads, and this one does not.
    let listening = tokio::spawn(async move {
        let mut pings = 0;
        while pings < 5 {
            match alive.socket.next().await.unwrap().unwrap() {
                Message::Ping(_) => pings += 1,
                other => panic!("a ping was expected: {other:?}"),
            }
        }
        alive
    });
    stage.until(|| async { stage.counted("chat_socket_closes_total", Some("idle")) == 1 }).await;
    let mut alive = tokio::time::timeout(LONG, listening).await.unwrap().unwrap();
    assert_eq!(alive.ask(json!({"type": "ping", "ref": 1})).await["type"], "pong");
    dead.closed_with(4007, "idle").await;
}

#[tokio::test]
async fn a_node_that_stops_tells_every_client_and_waits_for_them() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let (mut ready, mut silent) = (stage.ready(ana).await, stage.open(ana).await);
    stage.shutdown.cancel();
    ready.closed_with(4006, "shutting_down").await;
    silent.closed_with(4006, "shutting_down").await;
    stage.tasks.close();
    tokio::time::timeout(LONG, stage.tasks.wait()).await.unwrap();
    assert_eq!(stage.sockets.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_socket_is_shown_in_the_cache_until_it_ends_however_it_ends() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let key = UserKey { app: APP, user: ana.user };
    let shown = || async { stage.cache.sessions_of(key).await.unwrap() };
    let mut client = stage.open(ana).await;
    client.ask(json!({"type": "hello", "ref": 0, "device": "d".repeat(500)})).await;
    let sessions = shown().await;
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].session, sessions[0].life.node.as_str()), (ana.session, "node-1"));
    assert_eq!(sessions[0].device.as_deref().map(str::len), Some(200));
    client.socket.close(None).await.unwrap();
    stage.until(|| async { shown().await.is_empty() }).await;
    let client = stage.ready(ana).await;
    assert_eq!(shown().await.len(), 1);
    // Without a word.
    drop(client);
    stage.until(|| async { shown().await.is_empty() }).await;
    stage.until(|| async { stage.sockets.load(Ordering::SeqCst) == 0 }).await;
    assert_eq!(stage.counted("chat_socket_closes_total", Some("client")), 2);
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let mut client = stage.ready(ana).await;
    client.socket.close(None).await.unwrap();
    let last = tokio::time::timeout(LONG, client.socket.next()).await.unwrap();
    assert!(matches!(last, Some(Ok(Message::Close(_)))), "{last:?}");
    assert!(tokio::time::timeout(LONG, client.socket.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_read_mark_is_acknowledged_to_its_session_and_told_to_the_others_of_the_chat() {
    let stage = Stage::new().await;
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    let chat = stage.group(&[ana, ben]).await;
    let (mut here, mut there) = (stage.ready(ben).await, stage.ready(ben).await);
    let (mut other, mut stranger) = (stage.ready(ana).await, stage.ready(eve).await);
    for seq in 2..=6 {
        stage.deliver.live(live(change(chat, seq, ana.user, sent(seq - 1, "hello"))));
        for client in [&mut here, &mut there, &mut other] {
            assert_eq!(client.hear().await["message"]["number"], seq - 1);
        }
    }
    let read = |ref_: u64, number: u64| json!({"type": "read", "ref": ref_, "chat": chat, "number": number});
    // The log has five, though the store has none yet.
    for (ref_, number, at) in [(7, 3, 3), (8, 5, 5), (9, 4, 5)] {
        let answer = here.ask(read(ref_, number)).await;
        assert_eq!(answer, json!({"type": "ack", "ref": ref_, "chat": chat, "number": at}));
    }
    for client in [&mut there, &mut other] {
        for number in [3, 5] {
            let told = json!({"type": "message_read", "chat": chat, "user": ben.user, "number": number});
            assert_eq!(client.hear().await, told);
        }
    }
    // What was held up on the way comes too late, and what is older than what was told as well.
    let late = |number, at| Live::Read { app: APP, chat, user: ben.user, number, socket: None, at };
    stage.deliver.live(late(4, Millis::now()));
    stage.deliver.live(late(9, Millis(Millis::now().0 - 5_000)));
    stage.deliver.live(late(6, Millis::now()));
    for client in [&mut here, &mut there, &mut other] {
        assert_eq!(client.hear().await["number"], 6);
    }
    let refused = stranger.ask(read(1, 1)).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("not_found")));
    let wrong = here.ask(read(10, 0)).await;
    assert_eq!((&wrong["code"], &wrong["errors"][0]["param"]), (&json!("invalid"), &json!("number")));
    let pong = stranger.ask(json!({"type": "ping", "ref": 2})).await;
    assert_eq!(pong["type"], "pong", "a stranger was told nothing");
}
