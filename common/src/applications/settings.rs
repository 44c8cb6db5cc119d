//! What an application may choose. It is kept as JSON, and every field has a default, so that rows of any age are read.

use std::{collections::HashSet, fmt, num::NonZeroU64};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::wire::client::FieldError;

/// Bytes of an application's settings as JSON.
pub const MAX_BYTES: usize = 64 * 1024;

/// Words of a list.
pub const MAX_WORDS: usize = 1_000;

/// Hosts of a list.
const MAX_HOSTS: usize = 100;

/// Characters of a word in a list.
const WORD_CHARS: usize = 64;

/// Verification keys at once: a rotation needs two.
pub const MAX_KEYS: usize = 16;

/// Bytes of a host's name (RFC 1035, section 2.3.4, without the length octets).
const HOST_BYTES: usize = 253;

/// Messages a second.
const MAX_RATE: f64 = 1_000_000.0;

/// The largest limit on the chats of one user.
const MAX_CHATS: u32 = 1_000_000;

/// Characters of a key: an RSA key of 8,192 bits has some 1,500 in PEM.
const KEY_CHARS: usize = 4 * 1024;

/// Characters of a key's name.
const KID_CHARS: usize = 64;

/// Bytes of a secret (RFC 7518, 3.2: as long as the hash).
const SECRET_BYTES: usize = 32;

/// What an application has chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AppSettings {
    /// Whether direct messages are taken from contacts only (ID-8).
    pub contacts_only: bool,
    /// How fast one user may write in one chat (SP-1); as the cluster's operator has it when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_rate: Option<MessageRate>,
    /// How many chats one user may be in (SP-3), 0: as many as come; as the cluster's operator has it when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_CHATS))]
    pub chats_per_user: Option<u32>,
    /// What becomes of messages with certain words (SP-2).
    pub words: Words,
    /// What becomes of messages with links (SP-2).
    pub links: Links,
    /// How long messages are kept in chats that say nothing else (ME-9).
    pub retention: Retention,
    /// When those who are away are notified, and of what (NO-1).
    pub notifications: NotificationSettings,
    /// Whether somebody with a good token who is not known yet becomes a user (ID-6).
    pub register_on_first_sight: bool,
    /// The keys of the application's own tokens, several at once for rotation (ID-6).
    #[schemars(length(max = MAX_KEYS))]
    pub keys: Vec<VerificationKey>,
}

/// How an application notifies those who are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NotificationSettings {
    /// Seconds that a member must be without a session after a message before they are notified of it.
    #[schemars(range(max = NotificationSettings::MAX_AFTER))]
    pub after_seconds: u32,
    /// Whether notifications show what was said.
    pub show_body: bool,
}

impl NotificationSettings {
    /// A week.
    pub const MAX_AFTER: u32 = 7 * 24 * 3600;
}

impl Default for NotificationSettings {
    /// Five minutes: who changes trains is back by then.
    fn default() -> Self {
        Self { after_seconds: 300, show_body: true }
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessageRate {
    /// Messages a second in the long run; 0: as many as one likes.
    #[schemars(range(min = 0.0, max = MAX_RATE))]
    pub per_second: f64,
    /// Messages at once after a pause: at least 1, unless there is no limit.
    #[schemars(range(max = u32::MAX))]
    pub burst: u32,
}

impl MessageRate {
    /// As many as one likes.
    pub const UNLIMITED: Self = Self { per_second: 0.0, burst: 0 };
}

impl Default for MessageRate {
    /// One a second, and ten lines that somebody typed ahead.
    fn default() -> Self {
        Self { per_second: 1.0, burst: 10 }
    }
}

/// What becomes of a message that has what a policy looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyAction {
    /// It is sent as it is.
    #[default]
    Allow,
    /// It is sent with asterisks in place of that.
    Mask,
    /// It is not sent.
    Refuse,
}

/// Words that are not wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Words {
    /// Which: whole words of letters and digits, without regard to case.
    #[schemars(length(max = MAX_WORDS), inner(length(min = 1, max = WORD_CHARS)))]
    pub list: Vec<String>,
    /// What becomes of a message with one.
    pub action: PolicyAction,
}

/// Links out of the chat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Links {
    /// What becomes of a message with one.
    pub action: PolicyAction,
    /// Hosts that are no links out, with all below them.
    #[schemars(length(max = MAX_HOSTS), inner(length(min = 1, max = HOST_BYTES)))]
    pub own_hosts: Vec<String>,
}

/// How long messages are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "keep", rename_all = "snake_case")]
pub enum Retention {
    /// For ever.
    #[default]
    Forever,
    /// For so many days.
    Days {
        /// A hundred years at most.
        #[schemars(range(min = 1, max = Retention::MAX_DAYS))]
        days: u32,
    },
    /// Until every member has read them.
    UntilRead,
}

impl Retention {
    /// A hundred years.
    pub const MAX_DAYS: u32 = 36_500;

    /// What is wrong with its number of days, if anything.
    pub fn fault(self) -> Option<String> {
        let wrong = matches!(self, Self::Days { days } if !(1..=Self::MAX_DAYS).contains(&days));
        wrong.then(|| format!("must be 1 to {}", Self::MAX_DAYS))
    }
}

/// How tokens are signed (RFC 7518, 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256: a secret that both have.
    HS256,
    /// RSA with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// A key that an application's tokens may be signed with. Chosen by its name in the token's `kid`; the algorithm is the key's own, whatever
/// the token says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerificationKey {
    /// Its name in tokens, without control characters. Each has another.
    #[schemars(length(min = 1, max = KID_CHARS))]
    pub kid: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// HS256: the secret as text, of 32 bytes at least; else the public key as PEM.
    #[serde(default)]
    #[schemars(length(max = KEY_CHARS))]
    pub key: String,
}

/// Tells a verification key from every other, also from another one of its name: 8 bytes, which say nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyMark(NonZeroU64);

impl VerificationKey {
    /// Its mark: the same on every machine and in every version.
    pub fn mark(&self) -> KeyMark {
        let mut digest = Sha256::new();
        let algorithm = format!("{:?}", self.algorithm);
        for part in [&b"verification key"[..], algorithm.as_bytes(), self.kid.as_bytes(), self.key.as_bytes()]
        {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let head = digest.finalize().iter().take(8).fold(0, |head, byte| head << 8 | u64::from(*byte));
        KeyMark(NonZeroU64::new(head).unwrap_or(NonZeroU64::MIN))
    }

    /// Takes the key away, if it is a secret.
    pub fn hide_secret(&mut self) {
        if self.algorithm == Algorithm::HS256 {
            self.key.clear();
        }
    }
}

impl fmt::Debug for VerificationKey {
    /// Without the key: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl AppSettings {
    /// What is wrong with them, field by field, as they stand under `settings` in a request's body. Whether a key is one is
    /// [`crate::token`]'s to say.
    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut wrong =
            |field: String, why: &str| faults.push(FieldError::body(format!("settings.{field}"), why));
        if let Some(MessageRate { per_second, burst }) = self.message_rate {
            if !(per_second.is_finite() && (0.0..=MAX_RATE).contains(&per_second)) {
                wrong("message_rate.per_second".into(), "must be 0 (no limit) to 1000000");
            }
            if per_second > 0.0 && burst == 0 {
                wrong("message_rate.burst".into(), "must be at least 1");
            }
        }
        if self.chats_per_user.is_some_and(|most| most > MAX_CHATS) {
            wrong("chats_per_user".into(), "must be 0 (no limit) to 1000000");
        }
        if self.words.list.len() > MAX_WORDS {
            wrong("words.list".into(), "has more than 1000 words");
        }
        for (at, word) in self.words.list.iter().enumerate() {
            if !(1..=WORD_CHARS).contains(&word.chars().count()) || !word.nfc().all(char::is_alphanumeric) {
                wrong(format!("words.list[{at}]"), "must be one word of 1 to 64 letters and digits");
            }
        }
        if self.links.own_hosts.len() > MAX_HOSTS {
            wrong("links.own_hosts".into(), "are more than 100");
        }
        for (at, host) in self.links.own_hosts.iter().enumerate() {
            let good = |char: char| char.is_alphanumeric() || char == '-' || char == '.';
            if !(1..=HOST_BYTES).contains(&host.len()) || !host.chars().all(good) {
                wrong(format!("links.own_hosts[{at}]"), "must be the name of a host");
            }
        }
        if let Some(msg) = self.retention.fault() {
            wrong("retention.days".into(), &msg);
        }
        if self.notifications.after_seconds > NotificationSettings::MAX_AFTER {
            wrong("notifications.after_seconds".into(), "must be 0 to 604800");
        }
        if self.keys.len() > MAX_KEYS {
            wrong("keys".into(), "are more than 16");
        }
        let mut kids = HashSet::new();
        for (at, key) in self.keys.iter().enumerate() {
            if !(1..=KID_CHARS).contains(&key.kid.chars().count()) || key.kid.chars().any(char::is_control) {
                wrong(format!("keys[{at}].kid"), "must have 1 to 64 characters and no control characters");
            }
            if !kids.insert(&key.kid) {
                wrong(format!("keys[{at}].kid"), "is used twice");
            }
            if key.key.len() > KEY_CHARS {
                wrong(format!("keys[{at}].key"), "has more than 4096 characters");
            }
            if key.algorithm == Algorithm::HS256 && key.key.len() < SECRET_BYTES {
                wrong(format!("keys[{at}].key"), "must have at least 32 bytes");
            }
        }
        if faults.is_empty() && serde_json::to_vec(self).map_or(0, |json| json.len()) > MAX_BYTES {
            faults.push(FieldError::body("settings", "has more than 65536 bytes"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_any_age_are_read_and_what_is_absent_has_its_default() {
        assert_eq!(serde_json::from_str::<AppSettings>("{}").unwrap(), AppSettings::default());
        let read: AppSettings = serde_json::from_str(
            r#"{"words": {"list": ["x"]}, "retention": {"keep": "days", "days": 7}, "later": 1}"#,
        )
        .unwrap();
        assert_eq!(read.words, Words { list: vec!["x".into()], action: PolicyAction::Allow });
        assert_eq!(read.retention, Retention::Days { days: 7 });
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<AppSettings>(&json).unwrap(), read);
    }

    #[test]
    fn what_is_wrong_with_settings_is_named_field_by_field() {
        let key = |kid: &str, key: &str| VerificationKey {
            kid: kid.into(),
            algorithm: Algorithm::HS256,
            key: key.into(),
        };
        let settings = AppSettings {
            message_rate: Some(MessageRate { per_second: f64::NAN, burst: 1 }),
            chats_per_user: Some(MAX_CHATS + 1),
            words: Words { list: vec!["fine".into(), "two words".into()], ..Words::default() },
            retention: Retention::Days { days: 0 },
            keys: vec![key("a", &"s".repeat(32)), key("a", "short")],
            ..AppSettings::default()
        };
        let params: Vec<_> = settings.faults().into_iter().map(|fault| fault.param).collect();
        assert_eq!(
            params,
            [
                "settings.message_rate.per_second",
                "settings.chats_per_user",
                "settings.words.list[1]",
                "settings.retention.days",
                "settings.keys[1].kid",
                "settings.keys[1].key",
            ]
        );
        assert!(!format!("{settings:?}").contains("ssss"), "no secret shows");
        // Another key, whatever it is called; and in tickets of every version.
        let marks = [key("a", "b"), key("a", "c"), key("b", "b"), key("ab", "")].map(|key| key.mark());
        assert_eq!(marks.iter().collect::<HashSet<_>>().len(), 4);
        let rsa = VerificationKey { algorithm: Algorithm::RS256, ..key("a", "b") };
        assert!(rsa.mark() != marks[0]);
        assert!(AppSettings::default().faults().is_empty());
    }
}
