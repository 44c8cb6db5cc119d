//! What every message passes, in nanoseconds: frames and records as bytes, the ring, the rule of terms, and who is interested in a chat.
//!
//! `cargo bench -p dispatcher --bench per_message`
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use common::{
    ids::{AppId, ChatId, ChatKey, NodeId, UserId},
    model::Message,
    partition::stable_hash,
    ring::Ring,
    term::{Header, TermState, check},
    time::Millis,
    wire::{
        client::ServerFrame,
        codec::{Format, decode_client, decode_client_packed, pack, pack_readable, unpack},
        peer::Topic,
    },
};
use dispatcher::topics::Topics;
use divan::{Bencher, black_box};
use serde_json::json;

/// Nodes of a cluster.
const NODES: [usize; 3] = [3, 30, 300];

fn main() {
    divan::main();
}

fn nodes(count: usize) -> Vec<NodeId> {
    (0..count).map(|node| NodeId::new(&format!("node-{node}")).unwrap()).collect()
}

/// A text of 150 bytes.
fn message() -> Message {
    let (id, chat) = (UserId::random(), ChatId::random());
    let message = json!({
        "id": id, "chat": chat, "room_id": chat, "number": 12_345, "from": UserId::random(), "body": "word ".repeat(30), "kind": "text",
        "created_at": Millis(1_700_000_000_000),
    });
    serde_json::from_value(message).unwrap()
}

fn frame() -> ServerFrame {
    let message = message();
    let (chat, at, by) = (message.chat, message.created_at, message.from);
    ServerFrame::NewMessage { chat, seq: 23_456, at, by, message }
}

fn send() -> serde_json::Value {
    json!({ "type": "send", "ref": 7, "chat": ChatId::random(), "client_id": "a-client-id-1", "body": "word ".repeat(30) })
}

#[divan::bench(args = [Format::Json, Format::MessagePack])]
fn codec_encode_new_message(bencher: Bencher<'_, '_>, format: Format) {
    let (frame, mut bytes) = (frame(), Vec::with_capacity(1_024));
    bencher.bench_local(|| {
        bytes.clear();
        format.encode(black_box(&frame), &mut bytes);
        bytes.len()
    });
}

#[divan::bench]
fn codec_decode_send_json(bencher: Bencher<'_, '_>) {
    let text = send().to_string();
    bencher.bench_local(|| decode_client(black_box(&text)).unwrap());
}

#[divan::bench]
fn codec_decode_send_messagepack(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    pack_readable(&send(), &mut bytes);
    bencher.bench_local(|| decode_client_packed(black_box(&bytes)).unwrap());
}

#[divan::bench]
fn codec_pack_message(bencher: Bencher<'_, '_>) {
    let message = message();
    bencher.bench_local(|| pack(black_box(&message)));
}

#[divan::bench]
fn codec_unpack_message(bencher: Bencher<'_, '_>) {
    let bytes = pack(&message());
    bencher.bench_local(|| unpack::<Message>("message", black_box(&bytes)).unwrap());
}

#[divan::bench(args = NODES)]
fn ring_home_of_a_user(bencher: Bencher<'_, '_>, count: usize) {
    let (ring, user) = (Ring::new(nodes(count)), UserId::random().to_string());
    bencher.bench_local(|| ring.home(stable_hash(&[black_box(&user).as_bytes()])));
}

#[divan::bench]
fn term_check(bencher: Bencher<'_, '_>) {
    let (state, header) = (TermState { term: Some(7), n: 12 }, Header::Entry { term: 7, n: 13 });
    bencher.bench_local(|| check(black_box(&state), black_box(header), 20));
}

/// Among 100,000 chats, of which each has sessions on up to three nodes.
#[divan::bench(args = NODES)]
fn interest_look_up(bencher: Bencher<'_, '_>, count: usize) {
    let (nodes, mut topics) = (nodes(count), Topics::default());
    let chats: Vec<Topic> =
        (0..100_000).map(|_| Topic::from(ChatKey { app: AppId::DEFAULT, chat: ChatId::random() })).collect();
    for (at, node) in nodes.iter().enumerate() {
        let own: Vec<Topic> = chats
            .iter()
            .enumerate()
            .filter(|(chat, _)| (chat + at) % count < 3)
            .map(|(_, topic)| *topic)
            .collect();
        topics.add(node, &own).unwrap();
    }
    let publisher = nodes.first().unwrap();
    let mut asked = chats.iter().cycle();
    bencher.bench_local(|| {
        let topic = *asked.next().unwrap();
        topics.audience(black_box(&[topic]), publisher)
    });
}
