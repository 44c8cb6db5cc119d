//! Notifications of those who were away (NO-1 to NO-3): what users and applications choose, and to whom they go. Plain types; the store keeps
//! them, the node takes and shows them, the storage writer acts by them.

mod unseen;

use std::{collections::BTreeSet, fmt};

use jiff::civil::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::unseen::{
    EventKind, MessagesUnseen, Recipient, UnseenChat, UnseenData, UnseenMessage, WEBHOOK_ID,
    WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP,
};
use crate::{
    ids::{AppId, EndpointId, SessionId, UserId},
    time::Millis,
};

/// Why a message is worth a notification. Every message is a [`Self::Message`]; some are more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    /// It was written in a chat of the user.
    Message,
    /// It mentions the user, or everybody in the chat.
    Mention,
    /// It answers a message of the user.
    Reply,
}

/// What a user wants to be told while away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Preferences {
    /// Messages of any of these kinds; none at all when it is empty.
    pub kinds: BTreeSet<NotificationKind>,
    /// Messages that are written before then are told never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Millis>,
    /// Times of the day in which nothing is told; it is told when they are over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
}

impl Default for Preferences {
    /// Everything, at once.
    fn default() -> Self {
        Self { kinds: BTreeSet::from([NotificationKind::Message]), muted_until: None, quiet_hours: None }
    }
}

/// What a user wants otherwise in one chat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChatPreferences {
    /// In place of the user's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<BTreeSet<NotificationKind>>,
    /// As well as the user's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Millis>,
}

/// Hours of every day in the user's own time zone (UTC when they have none): from one time to the other, over midnight when that one is
/// earlier. Both the same: the whole day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// `22:00`.
    #[serde(with = "minutes")]
    #[schemars(with = "String", regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: Time,
    /// `07:00`.
    #[serde(with = "minutes")]
    #[schemars(with = "String", regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub to: Time,
}

/// Times of the day to the minute: `HH:MM`.
mod minutes {
    use std::borrow::Cow;

    use jiff::civil::Time;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:02}:{:02}", time.hour(), time.minute()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| de::Error::custom("must be a time of the day such as 22:00"))
    }

    fn parse(text: &str) -> Option<Time> {
        let two = |digits: &str| {
            let good = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| good)
        };
        let (hour, minute) = text.split_once(':')?;
        Time::new(two(hour)?, two(minute)?, 0, 0).ok()
    }
}

/// Where notifications go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The application.
    pub app: AppId,
    /// What it is.
    pub target: Target,
    /// Since when.
    pub created_at: Millis,
    /// Whether anything is sent there. What comes up meanwhile is kept.
    pub enabled: bool,
}

/// What an endpoint is.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// An application's own server, for all of its users (Standard Webhooks).
    Webhook {
        /// Where.
        url: String,
        /// What deliveries are signed with: 24 to 64 bytes.
        secret: Vec<u8>,
    },
    /// One browser of one user (RFC 8030, RFC 8291).
    Push {
        /// Whose.
        user: UserId,
        /// The sign-in that it belongs to: when that is ended, it is forgotten.
        session: SessionId,
        /// The push service's URL for it.
        url: String,
        /// The browser's public key: an uncompressed point on P-256, 65 bytes.
        p256dh: Vec<u8>,
        /// The secret shared with the browser: 16 bytes.
        auth: Vec<u8>,
    },
}

impl Target {
    /// Where it is.
    pub fn url(&self) -> &str {
        match self {
            Self::Webhook { url, .. } | Self::Push { url, .. } => url,
        }
    }

    /// Whose it is; none: the application's.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::Webhook { .. } => None,
            Self::Push { user, .. } => Some(*user),
        }
    }
}

impl fmt::Debug for Target {
    /// Without what only the receiver may know: the address of a push service is a secret as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook { url, .. } => f.debug_struct("Webhook").field("url", url).finish_non_exhaustive(),
            Self::Push { user, .. } => f.debug_struct("Push").field("user", user).finish_non_exhaustive(),
        }
    }
}

/// What is to be changed of a webhook; what is absent stays.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WebhookChange {
    /// Where.
    pub url: Option<String>,
    /// What deliveries are signed with: 24 to 64 bytes.
    pub secret: Option<Vec<u8>>,
    /// Whether anything is sent there.
    pub enabled: Option<bool>,
}

impl fmt::Debug for WebhookChange {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, secret: _, enabled } = self;
        f.debug_struct("WebhookChange").field("url", url).field("enabled", enabled).finish_non_exhaustive()
    }
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It is to be sent, perhaps not for the first time.
    Pending,
    /// It was taken.
    Delivered,
    /// It will not be sent any more: it is too old, can never be taken, or is news to nobody by now but to those in their quiet hours, whom
    /// another one tells when these are over.
    GivenUp,
}

/// One notification on its way to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id: the same however often it is sent.
    pub id: uuid::Uuid,
    /// What is sent: JSON.
    pub body: String,
    /// When it came up.
    pub created_at: Millis,
    /// How it stands.
    pub state: DeliveryState,
    /// How often it was sent.
    pub attempts: u32,
    /// The status that the last attempt was answered with.
    pub status: Option<u16>,
    /// Why the last attempt failed, in a few words.
    pub error: Option<String>,
    /// When it was sent last.
    pub attempted_at: Option<Millis>,
}

#[cfg(test)]
mod tests {
    use jiff::civil::time;

    use super::*;

    #[test]
    fn no_2_quiet_hours_are_told_to_the_minute() {
        let hours: QuietHours = serde_json::from_str(r#"{"from": "22:00", "to": "07:05"}"#).unwrap();
        assert_eq!(hours, QuietHours { from: time(22, 0, 0, 0), to: time(7, 5, 0, 0) });
        assert_eq!(serde_json::to_string(&hours).unwrap(), r#"{"from":"22:00","to":"07:05"}"#);
        for bad in [
            "", "22", "22:0", "7:00", "24:00", "22:60", "22:00:00", "-1:00", "+1:00", "22.00", " 22:00",
            "2２:00",
        ] {
            let json = serde_json::json!({"from": bad, "to": "07:00"});
            let error = serde_json::from_value::<QuietHours>(json).unwrap_err().to_string();
            assert!(error.starts_with("must be a time of the day"), "{bad}: {error}");
        }
    }

    #[test]
    fn no_2_what_is_not_chosen_is_as_nobody_chose() {
        assert_eq!(serde_json::from_str::<Preferences>("{}").unwrap(), Preferences::default());
        assert_eq!(serde_json::to_string(&Preferences::default()).unwrap(), r#"{"kinds":["message"]}"#);
        assert_eq!(serde_json::from_str::<ChatPreferences>("{}").unwrap(), ChatPreferences::default());
        assert!(serde_json::from_str::<Preferences>(r#"{"kinds": ["shout"]}"#).is_err());
        assert!(serde_json::from_str::<Preferences>(r#"{"kind": []}"#).is_err());
        let none: Preferences = serde_json::from_str(r#"{"kinds": [], "quiet_hours": null}"#).unwrap();
        assert!(none.kinds.is_empty());
    }
}
