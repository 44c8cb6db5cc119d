//! What the tests of the wire share: ids that are the same in every run, and one value of everything.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test takes what it needs; a value that is not good fails it"
)]

use common::{
    ids::{AppId, ChatId, ClientId, MessageId, NodeId, SessionId, UserId},
    model::{ChatKind, ChatView, MemberView, Message, MessageKind, Reaction, Role},
    time::Millis,
};
use uuid::Uuid;

pub(crate) const APP: AppId = AppId::DEFAULT;
pub(crate) const CHAT: ChatId = ChatId(Uuid::from_u128(0xc4a7));
pub(crate) const ANA: UserId = UserId(Uuid::from_u128(0xa));
pub(crate) const BEN: UserId = UserId(Uuid::from_u128(0xb));
pub(crate) const MESSAGE: MessageId = MessageId(Uuid::from_u128(0x3e55));
pub(crate) const SESSION: SessionId = SessionId(Uuid::from_u128(0x5e55));
/// 2026-11-21T09:15:54.120Z
pub(crate) const AT: Millis = Millis(1_795_252_554_120);

pub(crate) fn client_id() -> ClientId {
    ClientId::new("c-1").unwrap()
}

pub(crate) fn node() -> NodeId {
    NodeId::new("node-1").unwrap()
}

/// A message with every optional field absent.
pub(crate) fn plain_message() -> Message {
    Message {
        id: MESSAGE,
        chat: CHAT,
        room_id: CHAT,
        number: 790,
        from: ANA,
        body: "héllo \"you\"".into(),
        kind: MessageKind::Text,
        created_at: AT,
        edited_at: None,
        deleted: false,
        expired: false,
        reply_to: None,
        attachments: Vec::new(),
        reactions: Vec::new(),
        mentions: Vec::new(),
        mention_all: false,
        client_id: None,
    }
}

/// A message with every optional field present.
pub(crate) fn full_message() -> Message {
    Message {
        kind: MessageKind::Photo,
        edited_at: Some(AT),
        deleted: true,
        expired: false,
        reply_to: Some(789),
        attachments: vec!["att-1".into()],
        reactions: vec![Reaction { emoji: "👍".into(), count: 2, users: vec![ANA, BEN] }],
        mentions: vec![BEN],
        mention_all: true,
        client_id: Some(client_id()),
        ..plain_message()
    }
}

pub(crate) fn chat_view() -> ChatView {
    ChatView {
        id: CHAT,
        number: 3,
        kind: ChatKind::Group,
        name: "Pair".into(),
        description: None,
        retention: None,
        members: vec![MemberView { id: ANA, name: "Ana".into(), role: Role::Owner, joined_at: AT }],
        members_count: 1,
        messages_count: 0,
        created_at: AT,
        created_by: ANA,
        last_message: None,
        unread_count: 0,
        mentions_count: 0,
        seq: 1,
        mark: 0,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
