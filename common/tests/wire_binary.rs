//! The binary frames: the bytes of every variant that links and the log carry, round trips, and mangled bytes.
//!
//! `wire/golden.hex` holds a line for each value below. Bytes that change there change what older programs read: a record's need a new
//! version, a link's need every node and dispatcher to be upgraded together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod wire;

use std::fmt::Write;

use bytes::Bytes;
use common::{
    applications::Retention,
    ids::{ChatId, ChatKey, Incarnation, SocketId, UserId, UserKey},
    model::{ChatKind, Head, MessageKind, Reaction, Role},
    term::TermState,
    time::Millis,
    wire::{
        codec::{pack, unpack},
        codes::ErrorCode,
        marks::{LogPlace, Mark, Place, Since},
        owner::{Answer, Ask, Draft, OwnerRequest, Refusal, Sent},
        peer::{Came, DispatcherToNode, Live, NodeToDispatcher, Placement, Topic},
        record::{BadRecord, Change, Claim, Record, What},
    },
};
use proptest::prelude::*;
use wire::{ANA, APP, AT, BEN, CHAT, MESSAGE, SESSION, client_id, full_message, hex, node, plain_message};

const LIFE: Incarnation = Incarnation(7);
const SOCKET: SocketId = SocketId(uuid::Uuid::from_u128(0x50c));

fn body() -> Bytes {
    Bytes::from_static(&[0xca, 0xfe])
}

fn draft(full: bool) -> Draft {
    Draft {
        client_id: full.then(client_id),
        body: "héllo".into(),
        kind: MessageKind::Text,
        reply_to: full.then_some(789),
        attachments: if full { vec!["att-1".into()] } else { Vec::new() },
        mentions: if full { vec![BEN] } else { Vec::new() },
        mention_all: full,
        retry: full,
    }
}

fn to_dispatcher() -> Vec<(&'static str, NodeToDispatcher)> {
    let to = NodeToDispatcher::Response { to: node(), incarnation: LIFE, id: 9, body: body() };
    let all = vec![
        (
            "register",
            NodeToDispatcher::Register {
                incarnation: LIFE,
                socket_url: "ws://127.0.0.1:1".into(),
                http_url: "http://127.0.0.1:1".into(),
                capacity: 10_000,
                holds: vec![5],
                epoch: 6,
            },
        ),
        ("heartbeat", NodeToDispatcher::Heartbeat { no: 1, sockets: 2 }),
        ("leaving", NodeToDispatcher::Leaving),
        ("leave", NodeToDispatcher::Leave),
        (
            "interest",
            NodeToDispatcher::Interest {
                no: 3,
                add: vec![Topic::Chat(APP, CHAT)],
                remove: vec![Topic::User(APP, ANA)],
            },
        ),
        ("request", NodeToDispatcher::Request { id: 9, partition: 5, deadline: AT, body: body() }),
        ("response", to),
        ("lost", NodeToDispatcher::Lost),
        ("publish", NodeToDispatcher::Publish { topics: vec![Topic::Chat(APP, CHAT)], body: body() }),
        ("marks", NodeToDispatcher::Marks { body: body() }),
        ("handed_over", NodeToDispatcher::HandedOver { epoch: 2 }),
    ];
    for (_, frame) in &all {
        match frame {
            NodeToDispatcher::Register { .. }
            | NodeToDispatcher::Heartbeat { .. }
            | NodeToDispatcher::Leaving
            | NodeToDispatcher::Leave
            | NodeToDispatcher::Interest { .. }
            | NodeToDispatcher::Request { .. }
            | NodeToDispatcher::Response { .. }
            | NodeToDispatcher::Lost
            | NodeToDispatcher::Publish { .. }
            | NodeToDispatcher::Marks { .. }
            | NodeToDispatcher::HandedOver { .. } => {}
        }
    }
    all
}

fn to_node() -> Vec<(&'static str, DispatcherToNode)> {
    let request = DispatcherToNode::Request {
        from: node(),
        incarnation: LIFE,
        id: 9,
        partition: 5,
        deadline: AT,
        body: body(),
    };
    let all = vec![
        ("registered", DispatcherToNode::Registered { lease_ms: 3_000, clock: AT }),
        ("echo", DispatcherToNode::Echo { no: 1, clock: AT }),
        ("expired", DispatcherToNode::Expired),
        ("placement", DispatcherToNode::Placement(Placement { epoch: 2, owners: vec![Some(node()), None] })),
        ("interested", DispatcherToNode::Interested { no: 3 }),
        ("interest_refused", DispatcherToNode::InterestRefused { no: 3 }),
        ("request", request),
        ("response", DispatcherToNode::Response { id: 9, body: body() }),
        ("undeliverable", DispatcherToNode::Undeliverable { id: 9 }),
        ("publish", DispatcherToNode::Publish { topics: vec![Topic::User(APP, ANA)], body: body() }),
        ("gap", DispatcherToNode::Gap),
        ("marks", DispatcherToNode::Marks { from: node(), body: body() }),
    ];
    for (_, frame) in &all {
        match frame {
            DispatcherToNode::Registered { .. }
            | DispatcherToNode::Echo { .. }
            | DispatcherToNode::Expired
            | DispatcherToNode::Placement(_)
            | DispatcherToNode::Interested { .. }
            | DispatcherToNode::InterestRefused { .. }
            | DispatcherToNode::Request { .. }
            | DispatcherToNode::Response { .. }
            | DispatcherToNode::Undeliverable { .. }
            | DispatcherToNode::Publish { .. }
            | DispatcherToNode::Gap
            | DispatcherToNode::Marks { .. } => {}
        }
    }
    all
}

fn came(user: UserId, last_seen: Option<Millis>, chats: Vec<ChatId>) -> Came {
    Came { user, last_seen, chats, hidden_from: Vec::new(), only: None }
}

fn live() -> Vec<(&'static str, Live)> {
    let (app, chat, seq) = (APP, CHAT, 812);
    let all = vec![
        ("change", Live::Change(body())),
        ("added", Live::Added { app, chat, seq, users: vec![ANA, BEN] }),
        ("removed", Live::Removed { app, chat, seq, users: vec![BEN] }),
        ("read", Live::Read { app, chat, user: ANA, number: 790, socket: None, at: AT }),
        ("read_here", Live::Read { app, chat, user: ANA, number: 790, socket: Some(SOCKET), at: AT }),
        (
            "presence",
            Live::Presence {
                app,
                at: AT,
                users: vec![came(ANA, None, vec![chat]), came(BEN, Some(AT), Vec::new())],
            },
        ),
        (
            "presence_hidden",
            Live::Presence {
                app,
                at: AT,
                users: vec![Came { hidden_from: vec![BEN], only: Some(BEN), ..came(ANA, None, vec![chat]) }],
            },
        ),
        ("headcount", Live::Headcount { app, chat, node: node(), users: 2_000, ask: true }),
        ("typing", Live::Typing { app, chat, user: ANA, on: true, at: AT }),
        ("revoked", Live::Revoked { app, user: ANA, session: SESSION }),
    ];
    for (_, event) in &all {
        match event {
            Live::Change(_)
            | Live::Added { .. }
            | Live::Removed { .. }
            | Live::Read { .. }
            | Live::Presence { .. }
            | Live::Headcount { .. }
            | Live::Typing { .. }
            | Live::Revoked { .. } => {}
        }
    }
    all
}

fn place() -> Place {
    let state = TermState { term: Some(30), n: 4 };
    Place { term: 40, to: 43, told: LogPlace { offset: 35, state } }
}

fn marks() -> Vec<Mark> {
    vec![Mark { partition: 5, from: 41, told_from: 34, place: place(), whole: true }]
}

fn asks() -> Vec<(&'static str, Ask)> {
    let all = vec![
        ("send", Ask::Send(vec![draft(false), draft(true)])),
        ("edit", Ask::Edit { number: 790, body: "new".into() }),
        ("erase", Ask::Erase { number: 790 }),
        ("react", Ask::React { number: 790, emoji: "👍".into(), on: true }),
        ("open_direct", Ask::OpenDirect { peer: BEN, request: None }),
        ("open_direct_by_request", Ask::OpenDirect { peer: BEN, request: Some(0x0123_4567_89ab_cdef) }),
        (
            "create_group",
            Ask::CreateGroup {
                name: Some("N".into()),
                description: None,
                members: vec![BEN],
                first: Some(draft(false)),
            },
        ),
        ("add_member", Ask::AddMember { user: BEN }),
        ("set_role", Ask::SetRole { user: BEN, role: Role::Admin }),
        ("remove_member", Ask::RemoveMember { user: BEN }),
        ("update", Ask::Update { name: None, description: Some("D".into()), retention: None }),
        (
            "update_retention",
            Ask::Update { name: None, description: None, retention: Some(Retention::Days { days: 7 }) },
        ),
        ("delete_chat", Ask::DeleteChat),
        ("recent", Ask::Recent),
        ("changes", Ask::Changes { after: 811 }),
        ("since", Ask::Since { from: Some(place().told) }),
        ("since_drained", Ask::Since { from: None }),
    ];
    for (_, ask) in &all {
        match ask {
            Ask::Send(_)
            | Ask::Edit { .. }
            | Ask::Erase { .. }
            | Ask::React { .. }
            | Ask::OpenDirect { .. }
            | Ask::CreateGroup { .. }
            | Ask::AddMember { .. }
            | Ask::SetRole { .. }
            | Ask::RemoveMember { .. }
            | Ask::Update { .. }
            | Ask::DeleteChat
            | Ask::Recent
            | Ask::Changes { .. }
            | Ask::Since { .. } => {}
        }
    }
    all
}

fn answers() -> Vec<(&'static str, Answer)> {
    let head = Head { number: 790, seq: 812 };
    let sent = Sent {
        id: MESSAGE,
        number: 790,
        seq: 812,
        at: AT,
        repeat: true,
        masked: Some("***".into()),
        mentions: Some(vec![BEN]),
    };
    let refusal =
        Refusal { code: ErrorCode::RateLimited, detail: "wait".into(), retry_after_ms: Some(1_000) };
    let all = vec![
        ("sent", Answer::Sent(vec![Ok(sent), Err(refusal.clone())])),
        ("done", Answer::Done { seq: 812 }),
        ("created", Answer::Created { made: true, seq: 1 }),
        ("recent", Answer::Recent { head, changes: vec![body()] }),
        ("changes", Answer::Changes { changes: vec![body()], head, complete: true }),
        (
            "since",
            Answer::Since(Since {
                place: place(),
                chats: vec![(ChatKey { app: APP, chat: CHAT }, 812)],
                users: vec![UserKey { app: APP, user: BEN }],
                complete: true,
            }),
        ),
        ("refused", Answer::Refused(refusal)),
        ("not_owner", Answer::NotOwner),
        ("unknown", Answer::Unknown),
    ];
    for (_, answer) in &all {
        match answer {
            Answer::Sent(_)
            | Answer::Done { .. }
            | Answer::Created { .. }
            | Answer::Recent { .. }
            | Answer::Changes { .. }
            | Answer::Since(_)
            | Answer::Refused(_)
            | Answer::NotOwner
            | Answer::Unknown => {}
        }
    }
    all
}

fn changes() -> Vec<(&'static str, What)> {
    let all = vec![
        (
            "created",
            What::Created {
                kind: ChatKind::Group,
                name: Some("N".into()),
                description: None,
                members: vec![(ANA, Role::Owner), (BEN, Role::Member)],
                request: None,
            },
        ),
        (
            "created_by_request",
            What::Created {
                kind: ChatKind::Group,
                name: None,
                description: Some("D".into()),
                members: vec![(ANA, Role::Owner)],
                request: Some(0x0123_4567_89ab_cdef),
            },
        ),
        ("members", What::Members { members: vec![(BEN, Role::Admin)] }),
        ("joined", What::Joined { user: BEN, role: Role::Member }),
        ("left", What::Left { user: ANA, heir: Some(BEN) }),
        ("roles", What::Roles { roles: vec![(BEN, Role::Owner), (ANA, Role::Admin)] }),
        ("updated", What::Updated { name: Some("M".into()), description: None, retention: None }),
        (
            "updated_retention",
            What::Updated { name: None, description: None, retention: Some(Retention::UntilRead) },
        ),
        ("deleted", What::Deleted),
        (
            "sent_plain",
            What::Sent {
                id: MESSAGE,
                number: 790,
                client_id: None,
                body: "héllo".into(),
                kind: MessageKind::Text,
                reply_to: None,
                attachments: Vec::new(),
                mentions: Vec::new(),
                mention_all: false,
                sent_as: None,
            },
        ),
        (
            "sent_full",
            What::Sent {
                id: MESSAGE,
                number: 790,
                client_id: Some(client_id()),
                body: "héllo".into(),
                kind: MessageKind::Photo,
                reply_to: Some(789),
                attachments: vec!["att-1".into()],
                mentions: Vec::new(),
                mention_all: false,
                sent_as: None,
            },
        ),
        (
            "sent_mentioning",
            What::Sent {
                id: MESSAGE,
                number: 790,
                client_id: None,
                body: "@ben".into(),
                kind: MessageKind::Text,
                reply_to: None,
                attachments: Vec::new(),
                mentions: vec![BEN],
                mention_all: true,
                sent_as: None,
            },
        ),
        (
            "sent_masked",
            What::Sent {
                id: MESSAGE,
                number: 790,
                client_id: Some(client_id()),
                body: "oh ****".into(),
                kind: MessageKind::Text,
                reply_to: None,
                attachments: Vec::new(),
                mentions: Vec::new(),
                mention_all: false,
                sent_as: Some(0x0123_4567_89ab_cdef),
            },
        ),
        ("edited_plain", What::Edited { message: Box::new(plain_message()) }),
        ("edited_full", What::Edited { message: Box::new(full_message()) }),
        (
            "reacted",
            What::Reacted {
                number: 790,
                emoji: "👍".into(),
                on: true,
                reactions: vec![Reaction { emoji: "👍".into(), count: 2, users: vec![ANA, BEN] }],
            },
        ),
        ("erased", What::Erased { number: 790 }),
    ];
    for (_, what) in &all {
        match what {
            What::Created { .. }
            | What::Members { .. }
            | What::Joined { .. }
            | What::Left { .. }
            | What::Roles { .. }
            | What::Updated { .. }
            | What::Deleted
            | What::Sent { .. }
            | What::Edited { .. }
            | What::Reacted { .. }
            | What::Erased { .. } => {}
        }
    }
    all
}

fn records() -> Vec<(&'static str, Record)> {
    let claim = Record::Claim(Claim { node: node(), incarnation: LIFE, at: AT });
    let change = |what| {
        Record::Change(Change { app: APP, chat: CHAT, term: 40, n: 2, seq: 812, at: AT, by: ANA, what })
    };
    let mut all = vec![("claim", claim)];
    all.extend(changes().into_iter().map(|(name, what)| (name, change(what))));
    all
}

fn request(ask: Ask) -> OwnerRequest {
    OwnerRequest { app: APP, chat: CHAT, by: ANA, retry: false, ask }
}

/// Every value with a name, as bytes.
fn all_bytes() -> Vec<(String, Bytes)> {
    let mut all = Vec::new();
    let mut add = |family: &str, name: &str, bytes: Bytes| all.push((format!("{family}.{name}"), bytes));
    for (name, frame) in to_dispatcher() {
        add("node", name, pack(&frame));
    }
    for (name, frame) in to_node() {
        add("dispatcher", name, pack(&frame));
    }
    for (name, event) in live() {
        add("live", name, pack(&event));
    }
    for (name, ask) in asks() {
        add("ask", name, pack(&request(ask)));
    }
    for (name, answer) in answers() {
        add("answer", name, pack(&answer));
    }
    add("marks", "one", pack(&marks()));
    for (name, record) in records() {
        add("record", name, record.encode());
    }
    all
}

#[test]
fn every_variant_has_its_golden_bytes() {
    let mut lines = String::new();
    for (name, bytes) in all_bytes() {
        writeln!(lines, "{name} {}", hex(&bytes)).unwrap();
    }
    assert_eq!(lines, include_str!("wire/golden.hex"), "the bytes have changed; they are now:\n{lines}");
}

#[test]
fn every_variant_reads_back_from_its_bytes() {
    for (name, frame) in to_dispatcher() {
        assert_eq!(unpack::<NodeToDispatcher>(name, &pack(&frame)).unwrap(), frame);
    }
    for (name, frame) in to_node() {
        assert_eq!(unpack::<DispatcherToNode>(name, &pack(&frame)).unwrap(), frame);
    }
    for (name, event) in live() {
        assert_eq!(unpack::<Live>(name, &pack(&event)).unwrap(), event);
    }
    for (name, ask) in asks() {
        let request = request(ask);
        assert_eq!(unpack::<OwnerRequest>(name, &pack(&request)).unwrap(), request);
    }
    for (name, answer) in answers() {
        assert_eq!(unpack::<Answer>(name, &pack(&answer)).unwrap(), answer);
    }
    assert_eq!(unpack::<Vec<Mark>>("marks", &pack(&marks())).unwrap(), marks());
    for (_, record) in records() {
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    }
}

#[test]
fn bytes_that_are_cut_or_too_many_are_no_frame() {
    for (name, bytes) in all_bytes() {
        for cut in 0..bytes.len() {
            assert!(!decodes(&name, &bytes[..cut]), "{name} cut at {cut}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0xc0);
        assert!(!decodes(&name, &longer), "{name} with a byte more");
    }
}

#[test]
fn a_record_of_a_later_version_is_told_from_bytes_that_are_none() {
    let (_, record) = records().remove(1);
    let mut bytes = record.encode().to_vec();
    bytes[0] = 5;
    assert!(matches!(Record::decode(&bytes), Err(BadRecord::Version(5))));
    for first in [0, 0x20, 0xff] {
        bytes[0] = first;
        assert!(matches!(Record::decode(&bytes), Err(BadRecord::Bytes(_))), "{first}");
    }
    assert!(matches!(Record::decode(&[]), Err(BadRecord::Bytes(_))));
    assert!(matches!(Record::decode(&[1]), Err(BadRecord::Bytes(_))));
}

#[test]
fn a_field_that_a_reader_does_not_know_is_ignored() {
    #[derive(serde::Serialize)]
    struct LaterClaim {
        node: &'static str,
        incarnation: u64,
        at: i64,
        why: &'static str,
    }
    #[derive(serde::Serialize)]
    enum Later {
        Claim(LaterClaim),
    }
    let later = Later::Claim(LaterClaim { node: "node-1", incarnation: 7, at: AT.0, why: "asked to" });
    let mut bytes = vec![1];
    bytes.extend_from_slice(&pack(&later));
    let (_, claim) = records().remove(0);
    assert_eq!(Record::decode(&bytes).unwrap(), claim);
}

#[test]
fn lengths_and_depths_that_bytes_only_claim_cost_nothing() {
    // A list, a map, a text and bytes of four thousand million, and lists in lists without end.
    for head in [
        &[0xdd, 0xff, 0xff, 0xff, 0xff][..],
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0xc6, 0xff, 0xff, 0xff, 0xff],
    ] {
        for family in FAMILIES {
            assert!(!decodes(family, head), "{family}");
        }
        let mut inside = pack(&Live::Change(Bytes::new())).to_vec();
        inside.truncate(inside.len() - 2);
        inside.extend_from_slice(head);
        assert!(!decodes("live", &inside));
    }
    for byte in [0x91, 0x81] {
        for family in FAMILIES {
            assert!(!decodes(family, &vec![byte; 1_000_000]), "{family}");
        }
    }
}

const FAMILIES: [&str; 7] = ["node", "dispatcher", "live", "ask", "answer", "marks", "record"];

/// Whether the bytes are a frame of the family that `name` starts with.
fn decodes(name: &str, bytes: &[u8]) -> bool {
    match name.split('.').next().unwrap_or_default() {
        "node" => unpack::<NodeToDispatcher>("frame", bytes).is_ok(),
        "dispatcher" => unpack::<DispatcherToNode>("frame", bytes).is_ok(),
        "live" => unpack::<Live>("event", bytes).is_ok(),
        "ask" => unpack::<OwnerRequest>("request", bytes).is_ok(),
        "answer" => unpack::<Answer>("answer", bytes).is_ok(),
        "marks" => unpack::<Vec<Mark>>("marks", bytes).is_ok(),
        "record" => Record::decode(bytes).is_ok(),
        other => panic!("no family {other}"),
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let id = any::<u128>().prop_map(uuid::Uuid::from_u128);
    let role = proptest::sample::select(vec![Role::Member, Role::Admin, Role::Owner]);
    let members = proptest::collection::vec((id.clone().prop_map(UserId), role), 0..4);
    let what = prop_oneof![
        (any::<Option<String>>(), any::<Option<String>>(), members.clone(), any::<Option<u64>>()).prop_map(
            |(name, description, members, request)| {
                What::Created { kind: ChatKind::Group, name, description, members, request }
            }
        ),
        members.clone().prop_map(|members| What::Members { members }),
        members.prop_map(|roles| What::Roles { roles }),
        (id.clone().prop_map(UserId), proptest::option::of(id.clone().prop_map(UserId)))
            .prop_map(|(user, heir)| What::Left { user, heir }),
        (any::<u64>(), any::<String>(), any::<Option<u64>>(), any::<Vec<String>>()).prop_map(
            |(number, body, reply_to, attachments)| What::Sent {
                id: MESSAGE,
                number,
                client_id: None,
                body,
                kind: MessageKind::Audio,
                reply_to,
                attachments,
                mentions: vec![BEN; (number % 3) as usize],
                mention_all: number % 2 == 0,
                sent_as: (number % 5 == 0).then_some(number),
            }
        ),
        (any::<u64>(), any::<String>(), any::<bool>()).prop_map(|(number, emoji, on)| {
            let reactions = vec![Reaction { emoji: emoji.clone(), count: number, users: vec![ANA] }];
            What::Reacted { number, emoji, on, reactions }
        }),
        any::<u64>().prop_map(|number| What::Erased { number }),
    ];
    (id.prop_map(ChatId), any::<[u64; 3]>(), any::<i64>(), what).prop_map(
        |(chat, [term, n, seq], at, what)| {
            Record::Change(Change { app: APP, chat, term, n, seq, at: Millis(at), by: BEN, what })
        },
    )
}

proptest! {
    #[test]
    fn any_record_reads_back_from_its_bytes(record in any_record()) {
        prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn mangled_bytes_never_panic(
        which in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = all_bytes();
        let (name, bytes) = which.get(&all);
        let mut bytes = bytes.to_vec();
        for (at, with) in edits {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        let _ = decodes(name, &bytes);
        let _ = decodes(name, &bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn any_bytes_at_all_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for family in FAMILIES {
            let _ = decodes(family, &bytes);
        }
    }
}
