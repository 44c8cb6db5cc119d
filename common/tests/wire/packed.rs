//! The socket's frames in MessagePack: what JSON says, under the same names and in the same texts; and what a client's bytes turn out
//! to be, however mangled.

use common::wire::{
    client::{ClientFrame, FieldError, Ping},
    codec::{Format, FromClient, NotMessagePack, decode_client, decode_client_packed, pack_readable},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{any_client_frame, client_frames, golden, server_frames, wire::hex};

fn packed<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack_readable(value, &mut bytes);
    bytes
}

#[test]
fn every_server_frame_says_in_both_formats_the_same() {
    for (frame, text) in server_frames() {
        let mut bytes = Vec::new();
        Format::MessagePack.encode(&frame, &mut bytes);
        assert_eq!(
            rmp_serde::from_slice::<Value>(&bytes).unwrap(),
            serde_json::from_str::<Value>(&text).unwrap()
        );
        let mut bytes = b"behind ".to_vec();
        Format::Json.encode(&frame, &mut bytes);
        assert_eq!(String::from_utf8(bytes).unwrap(), format!("behind {text}"));
    }
}

#[test]
fn every_client_frame_reads_back_from_its_bytes() {
    for (frame, text) in client_frames() {
        let said: Value = serde_json::from_str(&golden(text)).unwrap();
        assert_eq!(decode_client_packed(&packed(&frame)), Ok(FromClient::Frame(frame.clone())));
        // However a client orders its fields, and whatever else it says.
        let mut more = said.as_object().unwrap().clone();
        more.insert("a_later_field".into(), json!({"deep": [1, [2, {"x": null}]]}));
        assert_eq!(decode_client_packed(&packed(&more)), Ok(FromClient::Frame(frame)), "{said}");
    }
}

#[test]
fn the_bytes_of_a_request_and_of_an_answer() {
    let ping = ClientFrame::Ping(Ping { ref_: 300 });
    // {"type": "ping", "ref": 300}
    assert_eq!(hex(&packed(&ping)), "82a474797065a470696e67a3726566cd012c");
    let (frame, _) = server_frames().into_iter().find(|(_, text)| text.contains("message_deleted")).unwrap();
    let mut bytes = Vec::new();
    Format::MessagePack.encode(&frame, &mut bytes);
    // {"type": "message_deleted", "chat": "…c4a7", "seq": 812, "at": "2026-11-21T09:15:54.120Z", "by": "…0a", "number": 790}
    let golden = [
        "86a474797065af6d6573736167655f64656c65746564",
        "a463686174d920303030303030303030303030303030303030303030303030303030306334613",
        "7a3736571cd032c",
        "a26174b8323032362d31312d32315430393a31353a35342e3132305a",
        "a26279d9203030303030303030303030303030303030303030303030303030303030303061",
        "a66e756d626572cd0316",
    ];
    assert_eq!(hex(&bytes), golden.concat());
}

#[test]
fn what_is_no_messagepack_ends_the_connection() {
    for bytes in [
        &b""[..],
        b"\xc1",
        b"{\"type\":\"ping\",\"ref\":1}",
        b"\x82",
        b"\x82\xa4type\xa4ping\xa3ref",
        b"\x82\xa4type\xa4ping\xa3ref\x01\x01",
        b"\xdf\xff\xff\xff\xff\xa4type",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ] {
        assert_eq!(decode_client_packed(bytes), Err(NotMessagePack), "{}", hex(bytes));
    }
}

#[test]
fn whatever_is_messagepack_is_answered_with_what_is_wrong_in_it() {
    let chat = "0000000000000000000000000000c4a7";
    let deep = [vec![0x91; 2_000], vec![0xc0]].concat();
    let in_a_field = [b"\x83\xa4type\xa4ping\xa3ref\x01\xa1x".to_vec(), deep.clone()].concat();
    let no_map = "a map was expected";
    let table: Vec<(Vec<u8>, Option<u64>, &str, &str)> = vec![
        (b"\xc0".to_vec(), None, "", no_map),
        (b"\x07".to_vec(), None, "", no_map),
        (b"\x92\xa4ping\x01".to_vec(), None, "", no_map),
        (deep, None, "", "is nested more than 64 deep"),
        (in_a_field, None, "", "is nested more than 64 deep"),
        (b"\x80".to_vec(), None, "type", "a text was expected"),
        (packed(&json!({"type": [1], "ref": 5})), Some(5), "type", "a text was expected"),
        (packed(&json!({"type": null, "ref": {"a": 1}})), None, "type", "a text was expected"),
        (b"\x82\xa4type\xa4ping\xa4type\xa4ping".to_vec(), None, "type", "stands twice"),
        (packed(&json!({"type": "ping"})), None, "ref", "is missing"),
        (packed(&json!({"type": "ping", "ref": "x"})), None, "ref", "is of the wrong type"),
        (
            packed(&json!({"type": "edit", "ref": 1, "chat": chat, "number": true, "body": "b"})),
            Some(1),
            "number",
            "invalid type: boolean `true`, expected u64",
        ),
        (
            packed(&json!({"type": "delete", "ref": 1, "chat": "no id", "number": 1})),
            Some(1),
            "chat",
            "not an id: 32 hexadecimal digits were expected",
        ),
    ];
    for (bytes, ref_, param, msg) in table {
        let expected = FromClient::Invalid { ref_, error: FieldError::body(param, msg) };
        assert_eq!(decode_client_packed(&bytes), Ok(expected), "{}", hex(&bytes[..bytes.len().min(60)]));
    }
    let unknown = FromClient::UnknownType { ref_: Some(4), kind: "dance".into() };
    assert_eq!(decode_client_packed(&packed(&json!({"type": "dance", "ref": 4}))), Ok(unknown));
}

proptest! {
    #[test]
    fn any_client_frame_means_the_same_in_both_formats(frame in any_client_frame()) {
        let text = serde_json::to_string(&frame).unwrap();
        let from_text = decode_client(&text).unwrap();
        prop_assert_eq!(decode_client_packed(&packed(&frame)), Ok(from_text));
    }

    #[test]
    fn mangled_bytes_never_panic(
        frame in any_client_frame(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..8),
    ) {
        let mut bytes = packed(&frame);
        for (at, with, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = with,
                1 => bytes.insert(at, with),
                _ if bytes.len() > 1 => { bytes.remove(at); }
                _ => {}
            }
        }
        let _ = decode_client_packed(&bytes);
    }

    #[test]
    fn any_bytes_at_all_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_client_packed(&bytes);
    }
}
