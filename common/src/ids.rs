//! Names of things: who, where, which.
//!
//! Ids of users, chats, messages, sessions and applications are 128 random bits: opaque, never derived from
//! anything a person typed (but for those that must be the same whoever asks first, such as [`ChatId::direct`]). As text they are 32
//! lower-case hexadecimal digits; in binary frames they are 16 bytes.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::partition::stable_hash;

/// What is wrong with a text that should have been an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 32 hexadecimal digits were expected")]
pub struct BadId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id's bytes, as they stand in binary frames, records and the store.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id with these bytes.
            ///
            /// # Errors
            /// [`BadId`] when there are not 16 of them.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, BadId> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| BadId)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_simple().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                if text.len() != 32 {
                    return Err(BadId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| BadId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    let mut text = Uuid::encode_buffer();
                    serializer.serialize_str(self.0.as_simple().encode_lower(&mut text))
                } else {
                    serializer.serialize_bytes(self.as_bytes())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an id of 32 hexadecimal digits")
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        $name::from_slice(bytes).map_err(E::custom)
                    }
                }

                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)
                } else {
                    deserializer.deserialize_bytes(Visitor)
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": "^[0-9a-f]{32}$",
                    "description": concat!("An id (`", stringify!($name), "`): 32 hexadecimal digits, opaque."),
                })
            }
        }
    };
}

id! {
    /// An application: a tenant with users, chats and keys of its own. Part of every key, token, hash and record.
    AppId
}
id! {
    /// A user of one application.
    UserId
}
id! {
    /// A chat of one application.
    ChatId
}
id! {
    /// A message. Its place in its chat is its number; the id names it anywhere.
    MessageId
}
id! {
    /// A sign-in: what a token stands for, and what can be ended.
    SessionId
}
id! {
    /// An uploaded file, as messages refer to it.
    AttachmentId
}
id! {
    /// What an uploaded file is kept under. Never shown.
    ObjectId
}
id! {
    /// Somewhere notifications are sent to: an application's webhook, or a user's browser.
    EndpointId
}
id! {
    /// One open socket. A sign-in may have several (tabs of one browser).
    SocketId
}

impl AppId {
    /// The application that exists from the first start.
    pub const DEFAULT: Self = Self(Uuid::from_u128(1));
}

impl AppId {
    /// The id of the application that is made under an idempotency key: the same at every retry.
    pub fn keyed(key: &str) -> Self {
        Self(derived(b"application", Self::DEFAULT, &[key.as_bytes()]))
    }
}

impl UserId {
    /// What an application itself does is done by nobody: no user has this id, and no token may speak for it.
    pub const APPLICATION: Self = Self(Uuid::nil());

    /// The id of the user whom an application's own tokens call `subject`.
    pub fn external(app: AppId, subject: &str) -> Self {
        Self(derived(b"subject", app, &[subject.as_bytes()]))
    }

    /// The user whom an application calls so: an id of ours is that user; anything else is a name of its own for one.
    pub fn called(app: AppId, name: &str) -> Self {
        name.parse().unwrap_or_else(|_| Self::external(app, name))
    }
}

impl EndpointId {
    /// Stands for all that lead to somebody. None has it.
    pub const EVERY: Self = Self(Uuid::nil());
}

impl SessionId {
    /// The sign-in that one of an application's own tokens stands for, when it names none: the same for the same token.
    pub fn external(app: AppId, kid: &str, subject: &str, token: &str) -> Self {
        Self(derived(b"sign-in", app, &[kid.as_bytes(), subject.as_bytes(), token.as_bytes()]))
    }

    /// Stands for every sign-in of a user where they end together, those too that only their application knows of. No sign-in has it.
    pub fn every(app: AppId, user: UserId) -> Self {
        Self(derived(b"every sign-in", app, &[user.as_bytes()]))
    }
}

impl ChatId {
    /// The id of the direct chat of two users: the same whoever asks first, so that it exists once.
    pub fn direct(app: AppId, one: UserId, other: UserId) -> Self {
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        Self(derived(b"direct", app, &[low.as_bytes(), high.as_bytes()]))
    }

    /// The id of the group that `creator` makes under an idempotency key: the same at every retry.
    pub fn keyed(app: AppId, creator: UserId, key: &str) -> Self {
        Self(derived(b"keyed", app, &[creator.as_bytes(), key.as_bytes()]))
    }
}

fn derived(purpose: &[u8], app: AppId, parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in [purpose, app.as_bytes().as_slice()].iter().chain(parts) {
        // Lengths keep two lists of parts with the same bytes apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(hash.finalize().as_slice().get(..16).unwrap_or(&[0; 16]));
    Uuid::from_bytes(id)
}

impl AttachmentId {
    /// The id of the file that `uploader` uploads under an idempotency key: the same at every retry.
    pub fn keyed(app: AppId, uploader: UserId, key: &str) -> Self {
        Self(derived(b"attachment", app, &[uploader.as_bytes(), key.as_bytes()]))
    }
}

/// A chat, named across applications: the key of its records and of everything kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChatKey {
    /// The application it belongs to.
    pub app: AppId,
    /// The chat in it.
    pub chat: ChatId,
}

impl ChatKey {
    /// The 32 bytes that name the chat in the log: application, then chat.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (app, chat) = bytes.split_at_mut(16);
        app.copy_from_slice(self.app.as_bytes());
        chat.copy_from_slice(self.chat.as_bytes());
        bytes
    }
}

impl fmt::Display for ChatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.chat)
    }
}

/// A user, named across applications: what the ring hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserKey {
    /// The application the user belongs to.
    pub app: AppId,
    /// The user in it.
    pub user: UserId,
}

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.user)
    }
}

impl UserKey {
    /// A stable 64-bit hash: spreads users over whatever is sharded by user.
    pub fn hash64(self) -> u64 {
        stable_hash(&[self.app.as_bytes(), self.user.as_bytes()])
    }
}

/// A text from outside that names something, of bounded length and without control characters.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $what:expr, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The most characters it may have.
            pub const MAX_CHARS: usize = $max;

            /// The name, checked.
            ///
            /// # Errors
            /// [`BadName`] when it is empty, too long, or has a control character.
            pub fn new(text: &str) -> Result<Self, BadName> {
                let good = !text.is_empty()
                    && text.len() <= Self::MAX_CHARS * 4
                    && text.chars().count() <= Self::MAX_CHARS
                    && !text.chars().any(char::is_control);
                if good { Ok(Self(text.into())) } else { Err(BadName { what: $what, max: $max }) }
            }

            /// One, as documents show it.
            pub fn example() -> Self {
                Self($example.into())
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} of 1 to {} characters", $what, $max)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Visitor)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "minLength": 1,
                    "maxLength": $max,
                    "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
                    "description": concat!("A name (`", stringify!($name), "`) without control characters."),
                })
            }
        }
    };
}

/// What is wrong with a name from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} must have 1 to {max} characters and no control characters")]
pub struct BadName {
    what: &'static str,
    max: usize,
}

name! {
    /// A node's name, chosen by its operator.
    NodeId, 64, "a node's name", "node-1"
}
name! {
    /// The name a client gives a message before it is sent, so that a retry is recognised.
    ClientId, 64, "a client_id", "6f1d2c"
}

/// One life of a process: a node that restarts is another incarnation of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// A new one: random, so that two lives never share it.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A change's place in its chat, from 1, without holes.
pub type Seq = u64;

/// A message's number in its chat, from 1, without holes.
pub type Number = u64;

/// A partition of the log, from 0.
pub type Partition = u16;

/// A record's place in its partition, from 0, without holes.
pub type Offset = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text_and_from_its_bytes() {
        let id = UserId::random();
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<UserId>(&json).unwrap(), id);
        let packed = rmp_serde::to_vec(&id).unwrap();
        assert_eq!(packed.len(), 18, "two bytes of head, sixteen of id");
        assert_eq!(rmp_serde::from_slice::<UserId>(&packed).unwrap(), id);
    }

    #[test]
    fn a_text_of_another_form_is_no_id() {
        for text in ["", "1", "{00000000-0000-0000-0000-000000000001}", &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(text.parse::<ChatId>(), Err(BadId), "{text}");
        }
    }

    #[test]
    fn a_direct_chat_has_one_id_whoever_asks_and_another_in_another_application() {
        let (ana, ben) = (UserId(Uuid::from_u128(7)), UserId(Uuid::from_u128(9)));
        let id = ChatId::direct(AppId::DEFAULT, ana, ben);
        assert_eq!(id, ChatId::direct(AppId::DEFAULT, ben, ana));
        assert_ne!(id, ChatId::direct(AppId(Uuid::from_u128(2)), ana, ben));
        // Fixed for ever: stored chats are found under it.
        assert_eq!(id.to_string(), "0744cfbac456cf9ef03143bfab555085");
    }

    #[test]
    fn a_name_is_bounded() {
        assert!(ClientId::new(&"é".repeat(64)).is_ok());
        assert!(ClientId::new(&"é".repeat(65)).is_err());
        assert!(ClientId::new("").is_err());
        assert!(ClientId::new("a\u{0}b").is_err());
    }
}
