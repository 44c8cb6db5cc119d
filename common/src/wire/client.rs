//! What a client and its node say to each other over a socket.
//!
//! Frames are JSON objects, or MessagePack maps with the same names, with a `type`. Fields a side does not know are ignored; a `type` it
//! does not know is answered `unknown_type`. Requests carry a `ref` that their answer repeats. Events of a chat carry its contiguous `seq`.
//!
//! Absent on purpose: what a field may hold beyond its type (lengths, ranges). That is checked where REST's is, by
//! the node's commands.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::codes::ErrorCode;
use crate::{
    applications::Retention,
    ids::{ChatId, ClientId, MessageId, NodeId, Number, Seq, SessionId, UserId},
    model::{ChatView, Head, Message, MessageKind, Role, UserPresence},
    time::Millis,
};

/// A request's mark, chosen by the client and repeated by the answer.
pub type Ref = u64;

/// The subprotocol of JSON text frames: the default when a client asks for none.
pub const SUBPROTOCOL_JSON: &str = "chat.v1.json";
/// The subprotocol of MessagePack binary frames.
pub const SUBPROTOCOL_MESSAGEPACK: &str = "chat.v1.msgpack";

/// A frame from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame: answered `ready`.
    Hello(Hello),
    /// Writes a message: answered `ack`.
    Send(Send),
    /// Changes a message's body: answered `ack`.
    Edit(Edit),
    /// Deletes a message: answered `ack`.
    Delete(Delete),
    /// Answers a message with an emoji, or takes that back: answered `ack`.
    React(React),
    /// Says that messages were read, up to one: answered `ack`.
    Read(Read),
    /// Reads messages: answered `page`.
    History(History),
    /// Says that the user writes, or no longer does: not answered.
    Typing(Typing),
    /// Asks for the changes after one: answered by them, and then `resumed` for that chat.
    Changes(Changes),
    /// Asks whether the server is there: answered `pong`.
    Ping(Ping),
}

impl ClientFrame {
    /// The types this server knows, as they stand in `type`.
    pub const TYPES: &[&str] =
        &["hello", "send", "edit", "delete", "react", "history", "read", "typing", "changes", "ping"];

    /// The request's mark; none of what is not answered.
    pub fn ref_(&self) -> Option<Ref> {
        match self {
            Self::Hello(hello) => Some(hello.ref_),
            Self::Send(send) => Some(send.ref_),
            Self::Edit(edit) => Some(edit.ref_),
            Self::Delete(delete) => Some(delete.ref_),
            Self::React(react) => Some(react.ref_),
            Self::Read(read) => Some(read.ref_),
            Self::History(history) => Some(history.ref_),
            Self::Typing(_) => None,
            Self::Changes(changes) => Some(changes.ref_),
            Self::Ping(ping) => Some(ping.ref_),
        }
    }
}

/// See [`ClientFrame::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// The device's name, for the user's list of sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Where the client left off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// Where a client left off: its last cursor, and the `seq` it has of chats that moved after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resume {
    /// The last `cursor` the client was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The newest `seq` it has, by chat.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub chats: HashMap<ChatId, Seq>,
}

/// See [`ClientFrame::Send`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Send {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Where to.
    pub chat: ChatId,
    /// The message's name until it has an id; a repeat is known by it.
    pub client_id: ClientId,
    /// The text.
    pub body: String,
    /// What it is.
    #[serde(default)]
    pub kind: MessageKind,
    /// The number of the message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Number>,
    /// Ids of its attachments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<String>,
    /// Users whom it mentions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// Whether it mentions everybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mention_all: bool,
    /// Whether it may have been sent before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
}

/// See [`ClientFrame::Edit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Edit {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Where it stands.
    pub chat: ChatId,
    /// Which message.
    pub number: Number,
    /// Its new text.
    pub body: String,
}

/// See [`ClientFrame::Delete`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delete {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Where it stands.
    pub chat: ChatId,
    /// Which message.
    pub number: Number,
}

/// See [`ClientFrame::React`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct React {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Where it stands.
    pub chat: ChatId,
    /// Which message.
    pub number: Number,
    /// What with.
    pub emoji: String,
    /// Whether it is to stand, or to be taken back.
    pub on: bool,
}

/// See [`ClientFrame::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Read {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Which chat.
    pub chat: ChatId,
    /// The newest message that was read.
    pub number: Number,
}

/// See [`ClientFrame::Typing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Typing {
    /// Which chat.
    pub chat: ChatId,
    /// Whether the user writes.
    pub on: bool,
}

/// See [`ClientFrame::History`]. `before` (newest first) or `after` (oldest first), not both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Which chat.
    pub chat: ChatId,
    /// Messages below this number, newest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Number>,
    /// Messages above this number, oldest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Number>,
    /// How many at most, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// See [`ClientFrame::Changes`]: how a client mends a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Which chat.
    pub chat: ChatId,
    /// The newest change that the client has without a hole before it.
    pub after: Seq,
}

/// See [`ClientFrame::Ping`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ping {
    /// Repeated by the answer.
    #[serde(rename = "ref")]
    pub ref_: Ref,
}

/// A frame to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// Answers `hello`: from here on the session sees every event of its chats.
    Ready(Ready),
    /// Answers `send`, `edit`, `delete` and `react`: it is in the log. And `read`, with where the read mark stands now: it is in the store.
    Ack(Ack),
    /// Answers `history`.
    Page(HistoryPage),
    /// Answers `ping`.
    Pong {
        /// The request's.
        #[serde(rename = "ref")]
        ref_: Ref,
    },
    /// Ends what a session missed: each chat that is named is told up to there, one that is not did not change.
    Resumed {
        /// The request's.
        #[serde(rename = "ref")]
        ref_: Ref,
        /// How far each chat was told.
        chats: BTreeMap<ChatId, Resumed>,
    },
    /// Answers a request that was not done, or says that a frame was none.
    Error(ErrorFrame),

    /// A message was written.
    NewMessage {
        /// Where.
        chat: ChatId,
        /// The change's place in the chat.
        seq: Seq,
        /// When.
        at: Millis,
        /// By whom.
        by: UserId,
        /// What.
        message: Message,
    },
    /// A message was edited.
    MessageUpdated {
        /// Where.
        chat: ChatId,
        /// The change's place in the chat.
        seq: Seq,
        /// When.
        at: Millis,
        /// By whom.
        by: UserId,
        /// The message as it stands now.
        message: Message,
    },
    /// A message was deleted.
    MessageDeleted {
        /// Where.
        chat: ChatId,
        /// The change's place in the chat.
        seq: Seq,
        /// When.
        at: Millis,
        /// By whom.
        by: UserId,
        /// Which message.
        number: Number,
    },
    /// A member answered a message with an emoji, or took that back.
    Reaction {
        /// Where.
        chat: ChatId,
        /// The change's place in the chat.
        seq: Seq,
        /// When.
        at: Millis,
        /// By whom.
        by: UserId,
        /// Which message.
        number: Number,
        /// What with.
        emoji: String,
        /// Whether it stands from now on.
        on: bool,
        /// How many members answer the message with it from now on.
        count: u64,
    },
    /// Somebody came into the chat.
    MemberJoined {
        /// Where.
        chat: ChatId,
        /// The change's place in the chat.
        seq: Seq,
        /// When.
        at: Millis,
        /// Who let them in.
        by: UserId,
        /// Who came.
        user: UserId,
        /// What they may do.
        role: Role,
    },
    /// Somebody left the chat, or was removed by another (`by`).
    MemberLeft {
        /// Where.
        chat: ChatId,
        /// The change's place in the chat.
        seq: Seq,
        /// When.
        at: Millis,
        /// Who did it.
        by: UserId,
        /// Who is gone.
        user: UserId,
        /// Who owns the group from now on, when its owner left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<UserId>,
    },
    /// The chat's name or description changed, how long its messages are kept, or what members may do; only what changed is present.
    ChatUpdated {
        /// Where.
        chat: ChatId,
        /// The change's place in the chat.
        seq: Seq,
        /// When.
        at: Millis,
        /// By whom.
        by: UserId,
        /// The new name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The new description.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// How long messages are kept from now on (ME-9).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention: Option<Retention>,
        /// Who may do what from now on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        roles: Vec<RoleOf>,
    },
    /// The chat is no more.
    ChatDeleted {
        /// Which.
        chat: ChatId,
        /// The change's place in the chat: its last.
        seq: Seq,
        /// When.
        at: Millis,
        /// By whom.
        by: UserId,
    },

    /// The user is in a chat they were not in before; its events follow, from `seq` + 1 on.
    NewChat {
        /// The chat as the user sees it.
        chat: Box<ChatView>,
        /// The change up to which `chat` is told.
        seq: Seq,
    },
    /// The user is in this chat no more.
    ChatRemoved {
        /// Which.
        chat: ChatId,
    },
    /// A member has read the chat up to here. Not numbered, and may be left out: the next one tells more.
    MessageRead {
        /// Where.
        chat: ChatId,
        /// Who.
        user: UserId,
        /// The newest message that they have read.
        number: Number,
    },
    /// A member writes, or no longer does. Not numbered, and may be left out.
    Typing {
        /// Where.
        chat: ChatId,
        /// Who.
        user: UserId,
        /// Whether they write.
        on: bool,
    },
    /// Somebody who shares a chat with the user came or went. Not numbered, and may be left out: what REST answers is newer.
    Presence(UserPresence),
    /// How many of a large group's members are connected: instead of `presence` of each. The first one says that the group has grown above the
    /// bound: nobody is told any more of single members who share only this group, so what was told of them holds no longer. Not numbered, and
    /// may be left out.
    PresenceCount {
        /// Which group.
        chat: ChatId,
        /// How many, about: a member on two nodes counts twice.
        online: u64,
    },
    /// This view of the chat is not whole: read it again.
    ChatReload {
        /// Which.
        chat: ChatId,
    },
    /// Where the session is now; to be given back in `resume`.
    Cursor {
        /// Opaque.
        cursor: String,
    },
    /// The session was ended; the connection closes.
    SessionRevoked {
        /// Which.
        session: SessionId,
    },
}

/// What one member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleOf {
    /// Who.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
}

/// See [`ServerFrame::Ready`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ready {
    /// The request's.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// The sign-in the socket belongs to.
    pub session: SessionId,
    /// Who the caller is.
    pub user: UserId,
    /// The node that holds the socket.
    pub node: NodeId,
    /// Where the session is; to be given back in `resume`.
    pub cursor: String,
    /// How often the server pings, in milliseconds.
    pub ping_interval_ms: u64,
    /// What the server takes.
    pub limits: SocketLimits,
    /// Whether missed events follow. When not, what the client has is to be read again.
    pub resuming: bool,
}

/// What a node takes from one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SocketLimits {
    /// Bytes of a frame.
    pub frame_bytes: u64,
    /// Bytes of a message's body.
    pub body_bytes: u64,
    /// Requests under way at once.
    pub pending_sends: u64,
}

/// How far a chat was told to a session that missed some of it: see [`ServerFrame::Resumed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed {
    /// The newest change that the client had.
    pub from: Seq,
    /// The newest one that it has now. Later ones follow as events.
    pub to: Seq,
    /// Whether it was sent every change in between. If not, the chat is to be read again.
    pub complete: bool,
}

/// See [`ServerFrame::Ack`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ack {
    /// The request's.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Where.
    pub chat: ChatId,
    /// The change's place in the chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// Of a `send`: the name its client gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// Of a `send`: the message's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
    /// The message's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<Number>,
    /// Of a `send`: when it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Millis>,
    /// Of a `send`: whether it was there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
    /// Of a `send`: its text as it is stored, when a policy of the application changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<String>,
}

/// See [`ServerFrame::Page`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryPage {
    /// The request's.
    #[serde(rename = "ref")]
    pub ref_: Ref,
    /// Which chat.
    pub chat: ChatId,
    /// The messages.
    pub messages: Vec<Message>,
    /// How far the chat is.
    pub head: Head,
    /// Whether everything acknowledged so far was looked at.
    pub complete: bool,
}

/// See [`ServerFrame::Error`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorFrame {
    /// The request's; absent when it answers none.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub ref_: Option<Ref>,
    /// Why.
    pub code: ErrorCode,
    /// For a person.
    pub detail: String,
    /// When to try again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Whether trying again may help.
    pub temporary: bool,
    /// Of `invalid`: the fields that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldError {
    /// `body`, `headers`, `query` or `params`.
    pub location: String,
    /// Its name, with a path where it lies deeper.
    pub param: String,
    /// What is wrong with it.
    pub msg: String,
}

impl FieldError {
    /// A field of the body that is wrong.
    pub fn body(param: impl Into<String>, msg: impl Into<String>) -> Self {
        Self { location: "body".into(), param: param.into(), msg: msg.into() }
    }

    /// A part of the query that is wrong.
    pub fn query(param: impl Into<String>, msg: impl Into<String>) -> Self {
        Self { location: "query".into(), param: param.into(), msg: msg.into() }
    }

    /// A part of the path that is wrong.
    pub fn params(param: impl Into<String>, msg: impl Into<String>) -> Self {
        Self { location: "params".into(), param: param.into(), msg: msg.into() }
    }
}
