//! The records of the log: what every chat is made of.
//!
//! A record is a version byte, then MessagePack with field names. The key is the chat's 32 bytes (a claim has none). A record holds an
//! outcome, never a question: its reader asks only whether it counts ([`crate::term`]).

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::codec::{BadBytes, pack, unpack};
use crate::{
    applications::Retention,
    ids::{AppId, ChatId, ChatKey, ClientId, Incarnation, MessageId, NodeId, Number, Offset, Seq, UserId},
    model::{ChatKind, Message, MessageKind, Reaction, Role},
    store::Fingerprint,
    term,
    time::Millis,
};

/// The newest version that is read. A record is written in the oldest version that can say it: so whoever knows only that one reads it,
/// and stops at one that it could not read whole. Readers are upgraded before writers.
pub const VERSION: u8 = 4;

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A node takes the partition over; the record's offset is its term.
    Claim(Claim),
    /// Something happened in a chat.
    Change(Change),
}

/// A node takes a partition over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// When, for people who read logs.
    pub at: Millis,
}

/// Something happened in a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The application.
    pub app: AppId,
    /// The chat.
    pub chat: ChatId,
    /// The owner's term: the offset of its claim.
    pub term: Offset,
    /// The record's place in the term, from 1.
    pub n: u64,
    /// The change's place in the chat, from 1.
    pub seq: Seq,
    /// When the owner accepted it.
    pub at: Millis,
    /// Who asked for it.
    pub by: UserId,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The chat was made, with its first members (at most 1,000; more follow as [`What::Members`]).
    Created {
        /// Direct or group.
        kind: ChatKind,
        /// The group's name.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// Its members.
        members: Vec<(UserId, Role)>,
        /// Of a direct chat: what tells the request that made it from every other. Of a group: the fingerprint of the request that made it ([`crate::store::group_fingerprint`]), so that a repeat of it is told from
        /// another one under the same key. Records from before there was one have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Fingerprint>,
    },
    /// More first members of a chat that was just made.
    Members {
        /// Who.
        members: Vec<(UserId, Role)>,
    },
    /// Somebody came in.
    Joined {
        /// Who.
        user: UserId,
        /// As what.
        role: Role,
    },
    /// Somebody left or was removed.
    Left {
        /// Who.
        user: UserId,
        /// Who owns the group from now on, when its owner left.
        heir: Option<UserId>,
    },
    /// What members may do changed. Since version 2.
    Roles {
        /// Who may do what from now on: one member who was named or un-named, or both who hand the group over.
        roles: Vec<(UserId, Role)>,
    },
    /// Name, description, or how long messages are kept changed; what is absent stays.
    Updated {
        /// The new name.
        name: Option<String>,
        /// The new description.
        description: Option<String>,
        /// How long messages are kept from now on. Since version 4.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention: Option<Retention>,
    },
    /// The chat is no more.
    Deleted,
    /// A message was written.
    Sent {
        /// Its id.
        id: MessageId,
        /// Its number.
        number: Number,
        /// The name its sender's client gave it.
        client_id: Option<ClientId>,
        /// The text.
        body: String,
        /// What it is.
        kind: MessageKind,
        /// The number of the message it answers.
        reply_to: Option<Number>,
        /// Ids of its attachments.
        attachments: Vec<String>,
        /// Members whom it mentions. Since version 2.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mentions: Vec<UserId>,
        /// Whether it mentions everybody. Since version 2.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        mention_all: bool,
        /// The fingerprint of what its sender sent ([`crate::store::fingerprint`]), when a policy has changed the text: by that a repeat is
        /// recognised. Since version 3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent_as: Option<Fingerprint>,
    },
    /// A message has a new text; the record holds it whole, so that readers look nothing up.
    Edited {
        /// The message as it stands from now on.
        message: Box<Message>,
    },
    /// A member (`by`) answered a message with an emoji, or took that back. Since version 2. The record holds what the message is answered with from
    /// then on, so that readers look nothing up and count nothing.
    Reacted {
        /// Which message.
        number: Number,
        /// What with.
        emoji: String,
        /// Whether it stands from now on.
        on: bool,
        /// All that the message is answered with from now on.
        reactions: Vec<Reaction>,
    },
    /// A message was deleted. It keeps its number.
    Erased {
        /// Which.
        number: Number,
    },
}

impl Change {
    /// The chat, across applications.
    pub fn key(&self) -> ChatKey {
        ChatKey { app: self.app, chat: self.chat }
    }

    /// The message that this change wrote, as it stood then.
    pub fn message(&self) -> Option<Message> {
        match &self.what {
            What::Sent {
                id,
                number,
                client_id,
                body,
                kind,
                reply_to,
                attachments,
                mentions,
                mention_all,
                ..
            } => Some(Message {
                id: *id,
                chat: self.chat,
                room_id: self.chat,
                number: *number,
                from: self.by,
                body: body.clone(),
                kind: *kind,
                created_at: self.at,
                edited_at: None,
                deleted: false,
                expired: false,
                reply_to: *reply_to,
                attachments: attachments.clone(),
                reactions: Vec::new(),
                mentions: mentions.clone(),
                mention_all: *mention_all,
                client_id: client_id.clone(),
            }),
            What::Edited { message } => Some((**message).clone()),
            _ => None,
        }
    }

    /// The number of a message that this change added.
    pub fn number(&self) -> Option<Number> {
        match &self.what {
            What::Sent { number, .. } => Some(*number),
            _ => None,
        }
    }

    /// Whether it changes who is in the chat and as what, or that it exists: such a request is answered when it is stored.
    pub fn of_membership(&self) -> bool {
        matches!(
            self.what,
            What::Created { .. }
                | What::Members { .. }
                | What::Joined { .. }
                | What::Left { .. }
                | What::Roles { .. }
                | What::Deleted
        )
    }

    /// The oldest version that can say it.
    fn version(&self) -> u8 {
        match &self.what {
            What::Updated { retention: Some(_), .. } => 4,
            What::Sent { sent_as: Some(_), .. } => 3,
            What::Roles { .. } | What::Reacted { .. } => 2,
            What::Sent { mentions, mention_all, .. } if *mention_all || !mentions.is_empty() => 2,
            _ => 1,
        }
    }
}

/// Why bytes from the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// Written by a later version: the reader stops, for what it skipped would be lost.
    #[error("record version {0} is newer than this program knows: upgrade it before whoever writes")]
    Version(u8),
    /// No record at all.
    #[error(transparent)]
    Bytes(#[from] BadBytes),
}

impl Record {
    /// The bytes of a change's record, without taking the change apart.
    pub fn encode_change(change: &Change) -> Bytes {
        #[derive(Serialize)]
        enum Borrowed<'a> {
            Change(&'a Change),
        }
        Self::framed(change.version(), &pack(&Borrowed::Change(change)))
    }

    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        let version = match self {
            Self::Claim(_) => 1,
            Self::Change(change) => change.version(),
        };
        Self::framed(version, &pack(self))
    }

    fn framed(version: u8, body: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + body.len());
        bytes.put_u8(version);
        bytes.extend_from_slice(body);
        bytes.freeze()
    }

    /// The record in these bytes.
    ///
    /// # Errors
    /// [`BadRecord`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        match bytes.split_first() {
            Some((1..=VERSION, body)) => Ok(unpack("record", body)?),
            Some((&version, _)) if version > VERSION && version < 0x20 => Err(BadRecord::Version(version)),
            _ => Err(BadBytes { what: "record", why: "it does not start with a version".into() }.into()),
        }
    }

    /// What the rule needs to know of it.
    pub fn header(&self) -> term::Header {
        match self {
            Self::Claim(_) => term::Header::Claim,
            Self::Change(change) => term::Header::Entry { term: change.term, n: change.n },
        }
    }
}
