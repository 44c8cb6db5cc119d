//! What webhooks are sent (NO-1): the headers of Standard Webhooks (<https://www.standardwebhooks.com>), and the body, as JSON. The storage writer
//! writes it from these types, and the document shows it from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ChatId, MessageId, Number, UserId},
    model::{ChatKind, MessageKind},
    time::Millis,
};

/// The header with the delivery's id: the same however often it is sent.
pub const WEBHOOK_ID: &str = "webhook-id";

/// The header with the time of this attempt, in whole seconds since 1970.
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";

/// The header with `v1,` and the signature, in base64: HMAC-SHA256 of `{id}.{timestamp}.{body}` under the webhook's secret.
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// A chat has messages that members who are away have not seen. Webhooks are sent it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MessagesUnseen<'a> {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When it came up.
    pub timestamp: Millis,
    /// What there is to know.
    pub data: UnseenData<'a>,
}

/// What a webhook is told of. Receivers pass over what they do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum EventKind {
    /// See [`MessagesUnseen`].
    #[serde(rename = "messages.unseen")]
    MessagesUnseen,
}

impl EventKind {
    /// Its name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::MessagesUnseen => "messages.unseen",
        }
    }
}

/// What has not been seen, where, and by whom.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct UnseenData<'a> {
    /// The chat.
    pub chat: UnseenChat<'a>,
    /// Its newest message.
    pub message: UnseenMessage<'a>,
    /// Members to whom it is news. One delivery has 500 at most; of more there are several.
    pub recipients: &'a [Recipient],
}

/// The chat.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct UnseenChat<'a> {
    /// Its id.
    pub id: ChatId,
    /// What it is.
    pub kind: ChatKind,
    /// A group's name, or the names of those in it; a direct chat has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
}

/// The message.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct UnseenMessage<'a> {
    /// Its id.
    pub id: MessageId,
    /// Its number in the chat.
    pub number: Number,
    /// Who wrote it.
    pub from: UserId,
    /// What they are called, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_name: Option<&'a str>,
    /// What kind it is.
    #[serde(rename = "type")]
    pub kind: MessageKind,
    /// What it says, if the application's `notifications.show_body` has it shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<&'a str>,
    /// When it was written.
    pub created_at: Millis,
}

/// Somebody who is told. The writers keep it so as well until it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recipient {
    /// Who.
    pub user: UserId,
    /// The number of the first message that is news to them.
    pub first: Number,
    /// And of the last.
    pub last: Number,
    /// How many there are.
    pub count: u32,
    /// Whether any of them mentions them.
    pub mentioned: bool,
}
