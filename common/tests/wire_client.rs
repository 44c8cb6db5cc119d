//! The socket's frames: the literal JSON of every one, and what a client's text turns out to be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

#[path = "wire/packed.rs"]
mod packed;
mod wire;

use std::collections::{BTreeSet, HashMap};

use common::{
    document::socket::asyncapi,
    ids::{ChatId, Seq},
    model::{Head, MessageKind, PresenceStatus, Role, UserPresence},
    wire::{
        client::{
            Ack, Changes, ClientFrame, Delete, Edit, ErrorFrame, FieldError, Hello, History, HistoryPage,
            Ping, React, Read, Ready, Resume, Resumed, RoleOf, Send, ServerFrame, SocketLimits, Typing,
        },
        codec::{FromClient, NotJson, decode_client, encode_server, fields},
        codes::ErrorCode,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};
use wire::{ANA, AT, BEN, CHAT, MESSAGE, SESSION, chat_view, client_id, full_message, node, plain_message};

const CHAT_TEXT: &str = "0000000000000000000000000000c4a7";

/// A golden text is written with `$chat`, `$ana`, … for the long ids.
fn golden(text: &str) -> String {
    let text = text
        .replace("$chat", CHAT_TEXT)
        .replace("$ana", "0000000000000000000000000000000a")
        .replace("$ben", "0000000000000000000000000000000b")
        .replace("$message", "00000000000000000000000000003e55")
        .replace("$session", "00000000000000000000000000005e55")
        .replace("$at", "2026-11-21T09:15:54.120Z");
    // Golden texts are broken into lines for the reader.
    text.lines().map(str::trim).collect()
}

fn send() -> Send {
    Send {
        ref_: 2,
        chat: CHAT,
        client_id: client_id(),
        body: "héllo".into(),
        kind: MessageKind::Text,
        reply_to: None,
        attachments: Vec::new(),
        mentions: vec![],
        mention_all: false,
        retry: false,
    }
}

/// Every client frame with its optional fields absent, then present.
fn client_frames() -> Vec<(ClientFrame, &'static str)> {
    let resume = Resume { cursor: Some("0".into()), chats: HashMap::from([(CHAT, 812)]) };
    vec![
        (ClientFrame::Hello(Hello { ref_: 0, device: None, resume: None }), r#"{"type":"hello","ref":0}"#),
        (
            ClientFrame::Hello(Hello { ref_: 1, device: Some("phone".into()), resume: Some(resume) }),
            r#"{"type":"hello","ref":1,"device":"phone","resume":{"cursor":"0","chats":{"$chat":812}}}"#,
        ),
        (
            ClientFrame::Hello(Hello { ref_: 1, device: None, resume: Some(Resume::default()) }),
            r#"{"type":"hello","ref":1,"resume":{}}"#,
        ),
        (
            ClientFrame::Send(send()),
            r#"{"type":"send","ref":2,"chat":"$chat","client_id":"c-1","body":"héllo","kind":"text"}"#,
        ),
        (
            ClientFrame::Send(Send {
                kind: MessageKind::File,
                reply_to: Some(789),
                attachments: vec!["att-1".into()],
                mentions: vec![BEN],
                mention_all: true,
                retry: true,
                ..send()
            }),
            r#"{"type":"send","ref":2,"chat":"$chat","client_id":"c-1","body":"héllo","kind":"file",
                "reply_to":789,"attachments":["att-1"],"mentions":["$ben"],"mention_all":true,"retry":true}"#,
        ),
        (
            ClientFrame::Edit(Edit { ref_: 3, chat: CHAT, number: 790, body: "new".into() }),
            r#"{"type":"edit","ref":3,"chat":"$chat","number":790,"body":"new"}"#,
        ),
        (
            ClientFrame::Delete(Delete { ref_: 4, chat: CHAT, number: 790 }),
            r#"{"type":"delete","ref":4,"chat":"$chat","number":790}"#,
        ),
        (
            ClientFrame::React(React { ref_: 8, chat: CHAT, number: 790, emoji: "👍".into(), on: true }),
            r#"{"type":"react","ref":8,"chat":"$chat","number":790,"emoji":"👍","on":true}"#,
        ),
        (
            ClientFrame::History(History { ref_: 5, chat: CHAT, before: None, after: None, limit: None }),
            r#"{"type":"history","ref":5,"chat":"$chat"}"#,
        ),
        (
            ClientFrame::History(History {
                ref_: 5,
                chat: CHAT,
                before: Some(9),
                after: Some(1),
                limit: Some(50),
            }),
            r#"{"type":"history","ref":5,"chat":"$chat","before":9,"after":1,"limit":50}"#,
        ),
        (
            ClientFrame::Read(Read { ref_: 7, chat: CHAT, number: 790 }),
            r#"{"type":"read","ref":7,"chat":"$chat","number":790}"#,
        ),
        (
            ClientFrame::Typing(Typing { chat: CHAT, on: true }),
            r#"{"type":"typing","chat":"$chat","on":true}"#,
        ),
        (
            ClientFrame::Changes(Changes { ref_: 6, chat: CHAT, after: 811 }),
            r#"{"type":"changes","ref":6,"chat":"$chat","after":811}"#,
        ),
        (ClientFrame::Ping(Ping { ref_: u64::MAX }), r#"{"type":"ping","ref":18446744073709551615}"#),
    ]
}

const PLAIN: &str = r#"{"id":"$message","chat":"$chat","room_id":"$chat","number":790,"from":"$ana",
    "body":"héllo \"you\"","kind":"text","created_at":"$at"}"#;
const FULL: &str = r#"{"id":"$message","chat":"$chat","room_id":"$chat","number":790,"from":"$ana",
    "body":"héllo \"you\"","kind":"photo","created_at":"$at","edited_at":"$at","deleted":true,"reply_to":789,
    "attachments":["att-1"],"reactions":[{"emoji":"👍","count":2,"users":["$ana","$ben"]}],"mentions":["$ben"],
    "mention_all":true,"client_id":"c-1"}"#;
const VIEW: &str = r#"{"id":"$chat","number":3,"kind":"group","name":"Pair","description":null,
    "members":[{"id":"$ana","name":"Ana","role":"owner","joined_at":"$at"}],"members_count":1,"messages_count":0,
    "created_at":"$at","created_by":"$ana","last_message":null,"unread_count":0,"mentions_count":0,"seq":1}"#;

/// Every server frame with its optional fields absent, then present.
fn server_frames() -> Vec<(ServerFrame, String)> {
    let (chat, seq, at, by) = (CHAT, 812, AT, ANA);
    let ack = Ack {
        ref_: 2,
        chat,
        seq: None,
        client_id: None,
        id: None,
        number: None,
        created_at: None,
        repeat: false,
        masked: None,
    };
    let error = ErrorFrame {
        ref_: None,
        code: ErrorCode::Unknown,
        detail: "no".into(),
        retry_after_ms: None,
        temporary: true,
        errors: Vec::new(),
    };
    let ready = Ready {
        ref_: 1,
        session: SESSION,
        user: ANA,
        node: node(),
        cursor: "0".into(),
        ping_interval_ms: 20_000,
        limits: SocketLimits { frame_bytes: 65_536, body_bytes: 16_384, pending_sends: 64 },
        resuming: false,
    };
    let page = HistoryPage {
        ref_: 5,
        chat,
        messages: vec![plain_message()],
        head: Head { number: 790, seq },
        complete: true,
    };
    let table: Vec<(ServerFrame, &str)> = vec![
        (
            ServerFrame::Ready(ready),
            r#"{"type":"ready","ref":1,"session":"$session","user":"$ana","node":"node-1","cursor":"0",
                "ping_interval_ms":20000,"limits":{"frame_bytes":65536,"body_bytes":16384,"pending_sends":64},
                "resuming":false}"#,
        ),
        (ServerFrame::Ack(ack.clone()), r#"{"type":"ack","ref":2,"chat":"$chat"}"#),
        (
            ServerFrame::Ack(Ack {
                seq: Some(seq),
                client_id: Some(client_id()),
                id: Some(MESSAGE),
                number: Some(790),
                created_at: Some(at),
                repeat: true,
                masked: Some("****".into()),
                ..ack
            }),
            r#"{"type":"ack","ref":2,"chat":"$chat","seq":812,"client_id":"c-1","id":"$message","number":790,
                "created_at":"$at","repeat":true,"masked":"****"}"#,
        ),
        (
            ServerFrame::Page(page),
            r#"{"type":"page","ref":5,"chat":"$chat","messages":[$plain],"head":{"number":790,"seq":812},
                "complete":true}"#,
        ),
        (ServerFrame::Pong { ref_: 6 }, r#"{"type":"pong","ref":6}"#),
        (ServerFrame::Resumed { ref_: 1, chats: [].into() }, r#"{"type":"resumed","ref":1,"chats":{}}"#),
        (
            ServerFrame::Resumed {
                ref_: 1,
                chats: [(chat, Resumed { from: 805, to: seq, complete: true })].into(),
            },
            r#"{"type":"resumed","ref":1,"chats":{"$chat":{"from":805,"to":812,"complete":true}}}"#,
        ),
        (
            ServerFrame::Error(error.clone()),
            r#"{"type":"error","code":"unknown","detail":"no","temporary":true}"#,
        ),
        (
            ServerFrame::Error(ErrorFrame {
                ref_: Some(7),
                code: ErrorCode::Invalid,
                retry_after_ms: Some(1_500),
                temporary: false,
                errors: vec![FieldError::body("chat", "is missing")],
                ..error
            }),
            r#"{"type":"error","ref":7,"code":"invalid","detail":"no","retry_after_ms":1500,"temporary":false,
                "errors":[{"location":"body","param":"chat","msg":"is missing"}]}"#,
        ),
        (
            ServerFrame::NewMessage { chat, seq, at, by, message: plain_message() },
            r#"{"type":"new_message","chat":"$chat","seq":812,"at":"$at","by":"$ana","message":$plain}"#,
        ),
        (
            ServerFrame::NewMessage { chat, seq, at, by, message: full_message() },
            r#"{"type":"new_message","chat":"$chat","seq":812,"at":"$at","by":"$ana","message":$full}"#,
        ),
        (
            ServerFrame::MessageUpdated { chat, seq, at, by, message: full_message() },
            r#"{"type":"message_updated","chat":"$chat","seq":812,"at":"$at","by":"$ana","message":$full}"#,
        ),
        (
            ServerFrame::MessageDeleted { chat, seq, at, by, number: 790 },
            r#"{"type":"message_deleted","chat":"$chat","seq":812,"at":"$at","by":"$ana","number":790}"#,
        ),
        (
            ServerFrame::Reaction {
                chat, seq, at, by, number: 790, emoji: "👍".into(), on: true, count: 2
            },
            r#"{"type":"reaction","chat":"$chat","seq":812,"at":"$at","by":"$ana","number":790,"emoji":"👍","on":true,"count":2}"#,
        ),
        (
            ServerFrame::MemberJoined { chat, seq, at, by, user: BEN, role: Role::Member },
            r#"{"type":"member_joined","chat":"$chat","seq":812,"at":"$at","by":"$ana","user":"$ben","role":"member"}"#,
        ),
        (
            ServerFrame::MemberLeft { chat, seq, at, by, user: BEN, owner: None },
            r#"{"type":"member_left","chat":"$chat","seq":812,"at":"$at","by":"$ana","user":"$ben"}"#,
        ),
        (
            ServerFrame::MemberLeft { chat, seq, at, by, user: ANA, owner: Some(BEN) },
            r#"{"type":"member_left","chat":"$chat","seq":812,"at":"$at","by":"$ana","user":"$ana","owner":"$ben"}"#,
        ),
        (
            ServerFrame::ChatUpdated {
                chat,
                seq,
                at,
                by,
                name: None,
                description: None,
                retention: None,
                roles: vec![],
            },
            r#"{"type":"chat_updated","chat":"$chat","seq":812,"at":"$at","by":"$ana"}"#,
        ),
        (
            ServerFrame::ChatUpdated {
                chat,
                seq,
                at,
                by,
                name: None,
                description: None,
                retention: None,
                roles: vec![RoleOf { user: BEN, role: Role::Admin }],
            },
            r#"{"type":"chat_updated","chat":"$chat","seq":812,"at":"$at","by":"$ana","roles":[{"user":"$ben","role":"admin"}]}"#,
        ),
        (
            ServerFrame::ChatUpdated {
                chat,
                seq,
                at,
                by,
                name: Some("N".into()),
                description: Some("D".into()),
                retention: None,
                roles: vec![],
            },
            r#"{"type":"chat_updated","chat":"$chat","seq":812,"at":"$at","by":"$ana","name":"N","description":"D"}"#,
        ),
        (
            ServerFrame::ChatDeleted { chat, seq, at, by },
            r#"{"type":"chat_deleted","chat":"$chat","seq":812,"at":"$at","by":"$ana"}"#,
        ),
        (
            ServerFrame::NewChat { chat: Box::new(chat_view()), seq: 1 },
            r#"{"type":"new_chat","chat":$view,"seq":1}"#,
        ),
        (ServerFrame::ChatRemoved { chat }, r#"{"type":"chat_removed","chat":"$chat"}"#),
        (ServerFrame::ChatReload { chat }, r#"{"type":"chat_reload","chat":"$chat"}"#),
        (
            ServerFrame::Typing { chat: CHAT, user: BEN, on: true },
            r#"{"type":"typing","chat":"$chat","user":"$ben","on":true}"#,
        ),
        (
            ServerFrame::Presence(UserPresence {
                user: BEN,
                status: PresenceStatus::Online,
                last_seen: None,
            }),
            r#"{"type":"presence","user":"$ben","status":"online","last_seen":null}"#,
        ),
        (
            ServerFrame::Presence(UserPresence {
                user: BEN,
                status: PresenceStatus::Offline,
                last_seen: Some(AT),
            }),
            r#"{"type":"presence","user":"$ben","status":"offline","last_seen":"$at"}"#,
        ),
        (
            ServerFrame::PresenceCount { chat: CHAT, online: 2_000 },
            r#"{"type":"presence_count","chat":"$chat","online":2000}"#,
        ),
        (
            ServerFrame::MessageRead { chat: CHAT, user: BEN, number: 790 },
            r#"{"type":"message_read","chat":"$chat","user":"$ben","number":790}"#,
        ),
        (ServerFrame::Cursor { cursor: "AQ".into() }, r#"{"type":"cursor","cursor":"AQ"}"#),
        (
            ServerFrame::SessionRevoked { session: SESSION },
            r#"{"type":"session_revoked","session":"$session"}"#,
        ),
    ];
    let whole =
        |text: &str| golden(&text.replace("$plain", PLAIN).replace("$full", FULL).replace("$view", VIEW));
    table.into_iter().map(|(frame, text)| (frame, whole(text))).collect()
}

#[test]
fn every_client_frame_has_its_golden_text_and_reads_back_from_it() {
    let mut types = Vec::new();
    for (frame, text) in client_frames() {
        let text = golden(text);
        assert_eq!(serde_json::to_string(&frame).unwrap(), text);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        types.push(value["type"].as_str().unwrap().to_owned());
        assert_eq!(decode_client(&text), Ok(FromClient::Frame(frame)), "{text}");
    }
    types.dedup();
    assert_eq!(types, ClientFrame::TYPES, "a frame has no golden text");
}

#[test]
fn every_server_frame_has_its_golden_text_and_reads_back_from_it() {
    for (frame, text) in server_frames() {
        assert_eq!(encode_server(&frame), text);
        assert_eq!(serde_json::from_str::<ServerFrame>(&text).unwrap(), frame);
        // No other match names every frame: one that is added here has to be added to the table as well.
        match frame {
            ServerFrame::Ready(_)
            | ServerFrame::Ack(_)
            | ServerFrame::Page(_)
            | ServerFrame::Pong { .. }
            | ServerFrame::Error(_)
            | ServerFrame::NewMessage { .. }
            | ServerFrame::MessageUpdated { .. }
            | ServerFrame::MessageDeleted { .. }
            | ServerFrame::Reaction { .. }
            | ServerFrame::MemberJoined { .. }
            | ServerFrame::MemberLeft { .. }
            | ServerFrame::ChatUpdated { .. }
            | ServerFrame::ChatDeleted { .. }
            | ServerFrame::NewChat { .. }
            | ServerFrame::ChatRemoved { .. }
            | ServerFrame::ChatReload { .. }
            | ServerFrame::Resumed { .. }
            | ServerFrame::Cursor { .. }
            | ServerFrame::MessageRead { .. }
            | ServerFrame::Typing { .. }
            | ServerFrame::Presence(_)
            | ServerFrame::PresenceCount { .. }
            | ServerFrame::SessionRevoked { .. } => {}
        }
    }
}

#[test]
fn op_7_every_frame_is_in_the_document_of_the_socket_and_is_as_it_says() {
    let document = asyncapi();
    let messages = document["components"]["messages"].as_object().unwrap();
    let client = client_frames().into_iter().map(|(_, text)| ("client", golden(text)));
    let server = server_frames().into_iter().map(|(_, text)| ("server", text));
    let mut shown = BTreeSet::new();
    for (side, text) in client.chain(server) {
        let frame: Value = serde_json::from_str(&text).unwrap();
        let name = format!("{side}.{}", frame["type"].as_str().unwrap());
        let message = messages.get(&name).unwrap_or_else(|| panic!("{name} is not in the document"));
        let schema = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "allOf": [message["payload"]],
            "components": document["components"],
        });
        let schema = jsonschema::validator_for(&schema).unwrap();
        let wrong: Vec<_> = schema.iter_errors(&frame).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}: {text}");
        let fields = fields_of(&document, &message["payload"]);
        for field in frame.as_object().unwrap().keys() {
            assert!(fields.contains(field), "{name} has {field}, which is not in the document");
            let mut less = frame.clone();
            less.as_object_mut().unwrap().remove(field);
            let needed = serde_json::from_value::<ClientFrame>(less.clone()).is_err();
            assert!(side == "server" || schema.is_valid(&less) != needed, "{name} without {field}");
        }
        shown.insert(name);
    }
    // Nor does it have one that there is not; and each of them is among those of the channel.
    let known: BTreeSet<String> = messages.keys().cloned().collect();
    assert_eq!(shown, known);
    let of_channel = document["channels"]["socket"]["messages"].as_object().unwrap();
    assert_eq!(shown, of_channel.keys().cloned().collect());
    for kind in ClientFrame::TYPES {
        let reply = &document["operations"][kind]["reply"]["messages"];
        assert_eq!(reply.is_null(), *kind == "typing", "{kind} is answered by: {reply}");
        for answer in reply.as_array().into_iter().flatten() {
            let name = answer["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
            assert!(known.contains(name), "{kind} is answered by {name}");
        }
    }
}

/// The names of a schema's own fields, and of those that it takes from another.
fn fields_of(document: &Value, schema: &Value) -> BTreeSet<String> {
    let mut fields: BTreeSet<String> =
        schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
    for other in schema["allOf"].as_array().into_iter().flatten() {
        fields.extend(fields_of(document, other));
    }
    if let Some(reference) = schema["$ref"].as_str() {
        fields.extend(fields_of(document, document.pointer(&reference[1..]).unwrap()));
    }
    fields
}

#[test]
fn what_is_not_json_ends_the_connection() {
    for text in [
        "",
        " ",
        "hello",
        "{",
        "{\"type\":\"ping\",\"ref\":1",
        "{\"type\":\"ping\",\"ref\":1}}",
        "{\"type\":\"ping\",\"ref\":1} x",
        "{'type':'ping'}",
        "{\"type\":\"ping\",\"ref\":01}",
        "{\"type\":\"ping\",\"type\":\"ping\"",
        "[1,2",
        "[1] x",
        "5 x",
        "nul",
        "\"open",
        "NaN",
    ] {
        assert_eq!(decode_client(text), Err(NotJson), "{text}");
    }
}

#[test]
fn whatever_is_json_is_answered_with_what_is_wrong_in_it() {
    let send = |fields: &str| {
        format!(r#"{{"type":"send","chat":"{CHAT_TEXT}","client_id":"c","body":"b",{fields}}}"#)
    };
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let table: Vec<(String, Option<u64>, &str, &str)> = vec![
        ("null".into(), None, "", "an object was expected"),
        ("true".into(), None, "", "an object was expected"),
        ("5".into(), None, "", "an object was expected"),
        ("\"ping\"".into(), None, "", "an object was expected"),
        ("[]".into(), None, "", "an object was expected"),
        (r#"["ping", 1]"#.into(), None, "", "an object was expected"),
        (deep.clone(), None, "", "an object was expected"),
        ("{}".into(), None, "type", "a text was expected"),
        (r#"{"ref":4}"#.into(), Some(4), "type", "a text was expected"),
        (r#"{"type":null,"ref":4}"#.into(), Some(4), "type", "a text was expected"),
        (r#"{"type":5,"ref":4}"#.into(), Some(4), "type", "a text was expected"),
        (r#"{"type":["ping"],"ref":4}"#.into(), Some(4), "type", "a text was expected"),
        (format!(r#"{{"type":{deep},"ref":4}}"#), Some(4), "type", "a text was expected"),
        (r#"{"type":"ping","type":"ping","ref":4}"#.into(), None, "type", "stands twice"),
        (r#"{"type":"ping","ref":4,"ref":4}"#.into(), None, "ref", "stands twice"),
        (r#"{"type":"ping"}"#.into(), None, "ref", "is missing"),
        (r#"{"type":"ping","ref":null}"#.into(), None, "ref", "invalid type: null, expected u64"),
        (r#"{"type":"ping","ref":-1}"#.into(), None, "ref", "invalid value: integer `-1`, expected u64"),
        (
            r#"{"type":"ping","ref":1.0}"#.into(),
            None,
            "ref",
            "invalid type: floating point `1.0`, expected u64",
        ),
        (
            r#"{"type":"ping","ref":18446744073709551616}"#.into(),
            None,
            "ref",
            "invalid type: floating point `1.8446744073709552e+19`, expected u64",
        ),
        (r#"{"type":"ping","ref":"1"}"#.into(), None, "ref", "invalid type: string \"1\", expected u64"),
        (r#"{"type":"ping","ref":[1]}"#.into(), None, "ref", "invalid type: sequence, expected u64"),
        (
            r#"{"type":"hello","ref":1,"device":7}"#.into(),
            Some(1),
            "device",
            "invalid type: integer `7`, expected a string",
        ),
        (
            r#"{"type":"hello","ref":1,"resume":{"chats":{"x":1}}}"#.into(),
            Some(1),
            "resume.chats.x",
            "not an id: 32 hexadecimal digits were expected",
        ),
        (
            format!(r#"{{"type":"hello","ref":1,"resume":{{"chats":{{"{CHAT_TEXT}":-1}}}}}}"#),
            Some(1),
            "resume.chats.0000000000000000000000000000c4a7",
            "invalid value: integer `-1`, expected u64",
        ),
        (r#"{"type":"send","ref":1}"#.into(), Some(1), "chat", "is missing"),
        (send(r#""ref":2,"body":"again""#), Some(2), "body", "stands twice"),
        (
            send(r#""ref":2,"kind":"gif""#),
            Some(2),
            "kind",
            "unknown variant `gif`, expected one of `text`, `image`, `photo`, `video`, `audio`, `file`",
        ),
        (send(r#""ref":2,"reply_to":-1"#), Some(2), "reply_to", "invalid value: integer `-1`, expected u64"),
        (
            send(r#""ref":2,"attachments":"x""#),
            Some(2),
            "attachments",
            "invalid type: string \"x\", expected a sequence",
        ),
        (
            send(r#""ref":2,"attachments":["x",1]"#),
            Some(2),
            "attachments[1]",
            "invalid type: integer `1`, expected a string",
        ),
        (
            send(r#""ref":2,"retry":"yes""#),
            Some(2),
            "retry",
            "invalid type: string \"yes\", expected a boolean",
        ),
        (
            format!(r#"{{"type":"send","ref":2,"chat":"{CHAT_TEXT}","client_id":"","body":"b"}}"#),
            Some(2),
            "client_id",
            "a client_id must have 1 to 64 characters and no control characters",
        ),
        (
            format!(
                r#"{{"type":"send","ref":2,"chat":"{CHAT_TEXT}","client_id":"{}","body":"b"}}"#,
                "c".repeat(65)
            ),
            Some(2),
            "client_id",
            "a client_id must have 1 to 64 characters and no control characters",
        ),
        (
            format!(r#"{{"type":"send","ref":2,"chat":"{CHAT_TEXT}","client_id":"c","body":{deep}}}"#),
            Some(2),
            "body",
            "invalid type: sequence, expected a string",
        ),
        (
            r#"{"type":"delete","ref":3,"chat":"{0000}","number":1}"#.into(),
            Some(3),
            "chat",
            "not an id: 32 hexadecimal digits were expected",
        ),
        (format!(r#"{{"type":"delete","ref":3,"chat":"{CHAT_TEXT}"}}"#), Some(3), "number", "is missing"),
        (
            format!(r#"{{"type":"history","ref":3,"chat":"{CHAT_TEXT}","limit":4294967296}}"#),
            Some(3),
            "limit",
            "invalid value: integer `4294967296`, expected u32",
        ),
        (
            r#"{"type":"ping","ref":3e0}"#.into(),
            None,
            "ref",
            "invalid type: floating point `3.0`, expected u64",
        ),
    ];
    for (text, ref_, param, msg) in table {
        let shown: String = text.chars().take(100).collect();
        let expected = FromClient::Invalid { ref_, error: FieldError::body(param, msg) };
        assert_eq!(decode_client(&text), Ok(expected), "{shown}");
    }
}

#[test]
fn a_type_that_is_not_known_is_named_in_the_answer_and_bounded() {
    let unknown = |text: &str| match decode_client(text) {
        Ok(FromClient::UnknownType { ref_, kind }) => (ref_, kind),
        other => panic!("{other:?}"),
    };
    assert_eq!(unknown(r#"{"type":"dance","ref":4,"x":[1]}"#), (Some(4), "dance".into()));
    assert_eq!(unknown(r#"{"type":"Ping","ref":4}"#), (Some(4), "Ping".into()));
    assert_eq!(unknown(r#"{"type":"","ref":-4}"#), (None, String::new()));
    let long = format!(r#"{{"type":"{}"}}"#, "é".repeat(60_000));
    assert_eq!(unknown(&long), (None, "é".repeat(64)));
}

#[test]
fn fields_that_are_not_known_are_ignored_however_deep() {
    let deep = format!("{}1{}", r#"{"a":["#.repeat(5_000), "]}".repeat(5_000));
    let text = format!("\n\t {{\"x\":{deep},\"type\":\"p\\u0069ng\",\"ref\":7,\"y\":null}} ");
    assert_eq!(decode_client(&text), Ok(FromClient::Frame(ClientFrame::Ping(Ping { ref_: 7 }))));
}

#[test]
fn a_request_body_is_one_object_and_nothing_after_it() {
    assert!(fields::<Ping>(r#"{"ref":1}"#).is_ok());
    for (text, msg) in [
        (r#"{"ref":1} x"#, "trailing characters"),
        (r#"{"ref":1}{"ref":1}"#, "trailing characters"),
        ("[1]", "an object was expected"),
        ("", "an object was expected"),
        ("null", "an object was expected"),
        ("{", "EOF while parsing an object"),
    ] {
        assert_eq!(fields::<Ping>(text), Err(FieldError::body("", msg)), "{text}");
    }
}

fn any_client_frame() -> impl Strategy<Value = ClientFrame> {
    let chat = any::<u128>().prop_map(|id| ChatId(uuid::Uuid::from_u128(id)));
    let client_id = "[a-zA-Z0-9é-]{1,64}".prop_map(|text| text.parse().unwrap());
    let kind = proptest::sample::select(MessageKind::ALL.map(|(kind, _)| kind).to_vec());
    let resume = (
        any::<Option<String>>(),
        proptest::collection::hash_map(
            any::<u128>().prop_map(|id| ChatId(uuid::Uuid::from_u128(id))),
            any::<Seq>(),
            0..4,
        ),
    )
        .prop_map(|(cursor, chats)| Resume { cursor, chats });
    prop_oneof![
        (any::<u64>(), any::<Option<String>>(), proptest::option::of(resume))
            .prop_map(|(ref_, device, resume)| ClientFrame::Hello(Hello { ref_, device, resume })),
        (
            any::<u64>(),
            chat.clone(),
            client_id,
            any::<String>(),
            kind,
            any::<Option<u64>>(),
            any::<Vec<String>>(),
            any::<bool>()
        )
            .prop_map(|(ref_, chat, client_id, body, kind, reply_to, attachments, retry)| {
                ClientFrame::Send(Send {
                    ref_,
                    chat,
                    client_id,
                    body,
                    kind,
                    reply_to,
                    attachments,
                    mentions: vec![],
                    mention_all: retry,
                    retry,
                })
            }),
        (any::<u64>(), chat.clone(), any::<u64>(), any::<String>())
            .prop_map(|(ref_, chat, number, body)| ClientFrame::Edit(Edit { ref_, chat, number, body })),
        (any::<u64>(), chat.clone(), any::<u64>())
            .prop_map(|(ref_, chat, number)| ClientFrame::Delete(Delete { ref_, chat, number })),
        (chat.clone(), any::<bool>()).prop_map(|(chat, on)| ClientFrame::Typing(Typing { chat, on })),
        (any::<u64>(), chat.clone(), any::<u64>())
            .prop_map(|(ref_, chat, after)| ClientFrame::Changes(Changes { ref_, chat, after })),
        (any::<u64>(), chat, any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u32>>()).prop_map(
            |(ref_, chat, before, after, limit)| ClientFrame::History(History {
                ref_,
                chat,
                before,
                after,
                limit
            })
        ),
        any::<u64>().prop_map(|ref_| ClientFrame::Ping(Ping { ref_ })),
    ]
}

proptest! {
    #[test]
    fn any_client_frame_reads_back_from_its_text(frame in any_client_frame()) {
        let text = serde_json::to_string(&frame).unwrap();
        prop_assert_eq!(decode_client(&text), Ok(FromClient::Frame(frame)));
    }

    #[test]
    fn a_mangled_text_never_panics(
        which in 0usize..10,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0u8..3), 1..8),
    ) {
        let mut text: Vec<char> = golden(client_frames()[which].1).chars().collect();
        for (at, with, how) in edits {
            let at = at.index(text.len());
            match how {
                0 => text[at] = with,
                1 => text.insert(at, with),
                _ if text.len() > 1 => { text.remove(at); }
                _ => {}
            }
        }
        let text: String = text.into_iter().collect();
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(decode_client(&text).is_ok(), is_json, "{}", text);
    }

    #[test]
    fn any_text_at_all_never_panics(text in any::<String>()) {
        let _ = decode_client(&text);
        let _ = fields::<Send>(&text);
    }
}
