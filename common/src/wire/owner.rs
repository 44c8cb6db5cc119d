//! What a node asks of the owner of a chat, and what it is told. The same whether the owner is the node itself or
//! another one behind a dispatcher, which carries these as opaque bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    codes::ErrorCode,
    marks::{LogPlace, Since},
};
use crate::{
    applications::Retention,
    ids::{AppId, ChatId, ChatKey, ClientId, MessageId, Number, Seq, UserId},
    model::{Head, MessageKind, Role},
    store::Fingerprint,
    time::Millis,
};

/// A request to the owner of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRequest {
    /// The application.
    pub app: AppId,
    /// The chat.
    pub chat: ChatId,
    /// On whose behalf.
    pub by: UserId,
    /// Whether it may have been asked before: then the owner also looks for it in the store.
    pub retry: bool,
    /// What is asked.
    pub ask: Ask,
}

impl OwnerRequest {
    /// The chat, across applications.
    pub fn key(&self) -> ChatKey {
        ChatKey { app: self.app, chat: self.chat }
    }
}

/// What is asked of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Write messages, in this order: answered [`Answer::Sent`].
    Send(Vec<Draft>),
    /// Change a message's text: answered [`Answer::Done`].
    Edit {
        /// Which.
        number: Number,
        /// Its new text.
        body: String,
    },
    /// Delete a message: answered [`Answer::Done`].
    Erase {
        /// Which.
        number: Number,
    },
    /// Answer a message with an emoji, or take that back: answered [`Answer::Done`].
    React {
        /// Which.
        number: Number,
        /// What with.
        emoji: String,
        /// Whether it is to stand.
        on: bool,
    },
    /// Make the direct chat of `by` and `peer`, if there is none: answered [`Answer::Created`].
    OpenDirect {
        /// The other one.
        peer: UserId,
        /// Tells this request from every other. Kept with the chat it makes, so that it is answered likewise when a node asks again after a break.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Fingerprint>,
    },
    /// Make a group owned by `by`: answered [`Answer::Created`].
    CreateGroup {
        /// Its name.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// Who is in it besides `by`; each once.
        members: Vec<UserId>,
        /// Its first message.
        first: Option<Draft>,
    },
    /// Let somebody in: answered [`Answer::Done`].
    AddMember {
        /// Whom.
        user: UserId,
    },
    /// Let somebody in as this, or make a member this: answered [`Answer::Done`].
    SetRole {
        /// Whom.
        user: UserId,
        /// What they may do from then on.
        role: Role,
    },
    /// Remove somebody, or leave: answered [`Answer::Done`].
    RemoveMember {
        /// Whom.
        user: UserId,
    },
    /// Change name, description, or how long messages are kept: answered [`Answer::Done`].
    Update {
        /// The new name.
        name: Option<String>,
        /// The new description.
        description: Option<String>,
        /// How long messages are to be kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention: Option<Retention>,
    },
    /// Delete the chat: answered [`Answer::Done`].
    DeleteChat,
    /// What `by`, a member, may read that the store may not have yet: answered [`Answer::Recent`].
    Recent,
    /// A node's own question (`by` is nobody): the changes of the chat after `after`: answered [`Answer::Changes`].
    Changes {
        /// The newest change the node has.
        after: Seq,
    },
    /// A node's own question about the whole partition (`chat` is nobody's): what changed since `from`, or, without it, what the store may not
    /// have yet: answered [`Answer::Since`].
    Since {
        /// How far the node was told.
        from: Option<LogPlace>,
    },
}

impl Ask {
    /// Whether it only reads: then nothing of it can be stored, and asking twice is harmless.
    pub fn reads(&self) -> bool {
        matches!(self, Self::Recent | Self::Changes { .. } | Self::Since { .. })
    }
}

/// A message that is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// The name its sender's client gave it.
    pub client_id: Option<ClientId>,
    /// The text.
    pub body: String,
    /// What it is.
    pub kind: MessageKind,
    /// The number of the message it answers.
    pub reply_to: Option<Number>,
    /// Ids of its attachments.
    pub attachments: Vec<String>,
    /// Users whom it mentions; who is no member is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// Whether it mentions everybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mention_all: bool,
    /// Whether its client says that it may have been sent before, or it may be so for another reason.
    pub retry: bool,
}

/// An owner's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// One outcome for each draft, in their order.
    Sent(Vec<Result<Sent, Refusal>>),
    /// It is done, or was so already.
    Done {
        /// The change that did it.
        seq: Seq,
    },
    /// The chat exists, and the store has it.
    Created {
        /// Whether this request made it.
        made: bool,
        /// The newest change of its making.
        seq: Seq,
    },
    /// What the store may not have yet.
    Recent {
        /// How far the chat is, as confirmed by the log.
        head: Head,
        /// Records of the chat (as in the log) that the store may lack, oldest first, all confirmed.
        changes: Vec<Bytes>,
    },
    /// Changes after the asked one.
    Changes {
        /// Records of the chat (as in the log), contiguous by `seq`, from the first one asked for on.
        changes: Vec<Bytes>,
        /// How far the chat is.
        head: Head,
        /// Whether `changes` reaches the head. When not, the reader starts over.
        complete: bool,
    },
    /// What changed in the partition.
    Since(Since),
    /// It was not done, and is surely not stored.
    Refused(Refusal),
    /// Whoever was asked does not own the chat's partition: surely not stored by this attempt.
    NotOwner,
    /// May or may not be stored: the owner lost its partition before the log answered.
    Unknown,
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The word.
    pub code: ErrorCode,
    /// For a person.
    pub detail: String,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal without a time to wait.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after_ms: None }
    }
}

/// A message that the log has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its id.
    pub id: MessageId,
    /// Its number.
    pub number: Number,
    /// The change's place in the chat.
    pub seq: Seq,
    /// When it was accepted.
    pub at: Millis,
    /// Whether it was there already.
    pub repeat: bool,
    /// Its text as stored, when a policy changed it.
    pub masked: Option<String>,
    /// Whom it mentions as stored, when not all who were named are members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mentions: Option<Vec<UserId>>,
}
