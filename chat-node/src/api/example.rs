//! What the document shows for example: one person, one group, one message.

use common::{
    ids::{AttachmentId, ChatId, ClientId, EndpointId, MessageId, NodeId, SessionId, UserId},
    model::{
        ChatKind, ChatView, ChatsPage, ContactView, Head, MemberView, Message, MessageKind, OwnUserView,
        Page, PresenceStatus, PresenceView, ProfileView, Reaction, Role, SessionView, UserPresence, UserView,
    },
    time::Millis,
};
use uuid::Uuid;

use crate::search::{FoundMessage, FoundPage};

pub(crate) const ANA: UserId = UserId(Uuid::from_u128(0x5b1f_90c3_77aa_4d02_8e51_c0de_0000_000a));
pub(crate) const BEN: UserId = UserId(Uuid::from_u128(0x2c44_e8d0_16b9_4f73_9a3e_c0de_0000_000b));
pub(crate) const CHAT: ChatId = ChatId(Uuid::from_u128(0x9d07_31f2_c5a8_4b66_b1e4_c0de_0000_c4a7));
pub(crate) const FILE: AttachmentId =
    AttachmentId(Uuid::from_u128(0x71c2_5e0b_88f4_4a1d_a6d9_c0de_0000_f11e));
pub(crate) const ENDPOINT: EndpointId =
    EndpointId(Uuid::from_u128(0x8e5d_47b1_03c2_4f69_ae90_c0de_0000_e4d0));
/// 2026-11-21T09:15:54.120Z
pub(crate) const AT: Millis = Millis(1_795_252_554_120);
pub(crate) const HEAD: Head = Head { number: 790, seq: 812 };

pub(crate) fn message() -> Message {
    Message {
        id: MessageId(Uuid::from_u128(0x40aa_1d9e_f302_4c8b_8f17_c0de_0000_3e55)),
        chat: CHAT,
        room_id: CHAT,
        number: 790,
        from: ANA,
        body: "See you at eight".into(),
        kind: MessageKind::Text,
        created_at: AT,
        edited_at: None,
        deleted: false,
        expired: false,
        reply_to: Some(789),
        attachments: Vec::new(),
        reactions: vec![Reaction { emoji: "👍".into(), count: 1, users: vec![BEN] }],
        mentions: Vec::new(),
        mention_all: false,
        client_id: Some(ClientId::example()),
    }
}

fn member(id: UserId, name: &str, role: Role) -> MemberView {
    MemberView { id, name: name.into(), role, joined_at: AT }
}

pub(crate) fn members() -> Vec<MemberView> {
    vec![member(ANA, "Ana", Role::Owner), member(BEN, "Ben", Role::Member)]
}

pub(crate) fn chat() -> ChatView {
    ChatView {
        id: CHAT,
        number: 3,
        kind: ChatKind::Group,
        name: "Choir".into(),
        description: Some("Thursdays at eight".into()),
        members: members(),
        members_count: 2,
        messages_count: 790,
        created_at: AT,
        created_by: ANA,
        last_message: Some(message()),
        unread_count: 2,
        mentions_count: 0,
        seq: HEAD.seq,
        mark: 0,
        retention: None,
    }
}

pub(crate) fn chats() -> ChatsPage {
    ChatsPage { current: 1, total: 1, results: vec![chat()], unread_count: 2 }
}

/// The one page of a short list.
pub(crate) fn page<T>(results: Vec<T>) -> Page<T> {
    Page { current: 1, total: 1, results }
}

pub(crate) fn own_user() -> OwnUserView {
    OwnUserView {
        id: ANA,
        username: "ana".into(),
        name: "Ana".into(),
        avatar: None,
        mobile_number: Some("+34600000000".into()),
        timezone: Some("Europe/Madrid".into()),
        created_at: AT,
    }
}

pub(crate) fn user() -> UserView {
    UserView { id: BEN, name: "Ben".into(), avatar: Some("https://example.org/ben.png".into()) }
}

pub(crate) fn presence() -> PresenceView {
    PresenceView { status: PresenceStatus::Offline, last_seen: Some(AT) }
}

pub(crate) fn presence_of_user() -> UserPresence {
    UserPresence::new(BEN, presence())
}

pub(crate) fn contact() -> ContactView {
    ContactView { user: user(), presence: presence(), last_message_at: Some(AT) }
}

/// The message, found by its last word.
pub(crate) fn found() -> FoundPage {
    let found = FoundMessage { message: message(), highlight: vec![[11, 5]] };
    FoundPage { page: page(vec![found]), complete: true }
}

pub(crate) fn profile() -> ProfileView {
    ProfileView { user: user(), presence: presence() }
}

pub(crate) fn session() -> SessionView {
    SessionView {
        id: SessionId(Uuid::from_u128(0x0b6e_94d5_2f38_4e01_bb72_c0de_0000_5e55)),
        device: Some("Ana's phone".into()),
        node: Some(NodeId::example()),
        nodes: vec![NodeId::example()],
        since: AT,
        expires_at: AT,
        current: true,
    }
}
