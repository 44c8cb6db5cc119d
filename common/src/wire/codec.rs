//! Bytes ⇄ frames. What comes from outside is bounded by its transport before it gets here (a socket's frame limit, a link's
//! frame limit, a log's record limit), and nothing here panics on it.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;

use super::client::{ClientFrame, FieldError, Ref, SUBPROTOCOL_JSON, SUBPROTOCOL_MESSAGEPACK, ServerFrame};

/// What a client's text frame turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum FromClient {
    /// A frame.
    Frame(ClientFrame),
    /// A frame of a type this server does not know.
    UnknownType {
        /// Its mark, when it has one.
        ref_: Option<Ref>,
        /// The type, for the answer.
        kind: String,
    },
    /// A frame with something wrong in it.
    Invalid {
        /// Its mark, when it has one.
        ref_: Option<Ref>,
        /// What is wrong.
        error: FieldError,
    },
}

/// The text is not JSON: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON")]
pub struct NotJson;

/// The bytes are not MessagePack: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not MessagePack")]
pub struct NotMessagePack;

/// How frames stand on a socket: chosen by the subprotocol for what the server sends. A client may send either at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// JSON, in text frames.
    #[default]
    Json,
    /// MessagePack maps with JSON's names, in binary frames. Ids and times are the texts that they are in JSON.
    MessagePack,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Json, Self::MessagePack];

    /// The subprotocol that asks for it.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => SUBPROTOCOL_JSON,
            Self::MessagePack => SUBPROTOCOL_MESSAGEPACK,
        }
    }

    /// Writes a server's frame behind what `bytes` holds.
    pub fn encode(self, frame: &ServerFrame, bytes: &mut Vec<u8>) {
        // Writing to memory fails only for what has no form in the format, and every field of a frame has one.
        match self {
            Self::Json => drop(serde_json::to_writer(bytes, frame)),
            Self::MessagePack => pack_readable(frame, bytes),
        }
    }
}

/// A value as MessagePack with JSON's names and texts, behind what `bytes` holds. Also how a client writes its frames.
pub fn pack_readable<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    let mut serializer = rmp_serde::Serializer::new(bytes).with_struct_map().with_human_readable();
    // As in `Format::encode`.
    drop(value.serialize(&mut serializer));
}

/// The frame in a client's text.
///
/// # Errors
/// [`NotJson`]. Everything that is JSON has an answer and leaves the session usable.
pub fn decode_client(text: &str) -> Result<FromClient, NotJson> {
    #[derive(Deserialize)]
    struct Outline<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "ref")]
        ref_: Option<&'a RawValue>,
    }

    let outline: Outline<'_> = match serde_json::from_str(text) {
        // A derived struct also reads itself from a list.
        Ok(outline) if is_object(text) => outline,
        // What went wrong first may stand before something that is no JSON: only a look at all of it tells.
        outline => {
            let _: IgnoredAny = serde_json::from_str(text).map_err(|_| NotJson)?;
            let error = match outline {
                Err(error) if is_object(text) => field_error(".", &error),
                _ => FieldError::body("", NO_OBJECT),
            };
            return Ok(FromClient::Invalid { ref_: None, error });
        }
    };
    let ref_ = outline.ref_.and_then(|raw| serde_json::from_str::<Ref>(raw.get()).ok());
    let kind = outline.kind.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    Ok(read_frame(&Text(text), kind, ref_))
}

/// The frame in a client's bytes.
///
/// # Errors
/// [`NotMessagePack`]. Everything that is MessagePack has an answer and leaves the session usable.
pub fn decode_client_packed(bytes: &[u8]) -> Result<FromClient, NotMessagePack> {
    #[derive(Deserialize)]
    struct Outline {
        #[serde(default, rename = "type")]
        kind: Option<Mark>,
        #[serde(default, rename = "ref")]
        ref_: Option<Mark>,
    }

    let invalid = |error| Ok(FromClient::Invalid { ref_: None, error });
    let outline: Outline = match read_whole(bytes) {
        Ok(outline) if is_map(bytes) => outline,
        Err(rmp_serde::decode::Error::DepthLimitExceeded) => {
            return invalid(FieldError::body("", format!("is nested more than {DEPTH} deep")));
        }
        outline => {
            let _: IgnoredAny = read_whole(bytes).map_err(|_| NotMessagePack)?;
            return match outline {
                Err(error) if is_map(bytes) => invalid(worded(".", &error.to_string())),
                _ => invalid(FieldError::body("", NO_MAP)),
            };
        }
    };
    let ref_ = match outline.ref_ {
        Some(Mark::Number(number)) => Some(number),
        _ => None,
    };
    let kind = match outline.kind {
        Some(Mark::Text(text)) => Some(text),
        _ => None,
    };
    Ok(read_frame(&Packed(bytes), kind, ref_))
}

/// Where a frame's fields are read from.
trait Fields {
    fn read<T: DeserializeOwned>(&self) -> Result<T, FieldError>;
}

struct Text<'a>(&'a str);

impl Fields for Text<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, FieldError> {
        fields(self.0)
    }
}

/// A map in MessagePack, and nothing after it.
struct Packed<'a>(&'a [u8]);

impl Fields for Packed<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, FieldError> {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(self.0).with_human_readable();
        deserializer.set_max_depth(DEPTH);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            match error.inner() {
                // It names the byte that stands there.
                rmp_serde::decode::Error::TypeMismatch(_) => worded(&path, "is of the wrong type"),
                error => worded(&path, &error.to_string()),
            }
        })
    }
}

fn read_frame(from: &impl Fields, kind: Option<String>, ref_: Option<Ref>) -> FromClient {
    let Some(kind) = kind else {
        return FromClient::Invalid { ref_, error: FieldError::body("type", "a text was expected") };
    };
    let frame = match kind.as_str() {
        "hello" => from.read().map(ClientFrame::Hello),
        "send" => from.read().map(ClientFrame::Send),
        "edit" => from.read().map(ClientFrame::Edit),
        "delete" => from.read().map(ClientFrame::Delete),
        "react" => from.read().map(ClientFrame::React),
        "history" => from.read().map(ClientFrame::History),
        "read" => from.read().map(ClientFrame::Read),
        "typing" => from.read().map(ClientFrame::Typing),
        "changes" => from.read().map(ClientFrame::Changes),
        "ping" => from.read().map(ClientFrame::Ping),
        _ => return FromClient::UnknownType { ref_, kind: kind.chars().take(64).collect() },
    };
    match frame {
        Ok(frame) => FromClient::Frame(frame),
        Err(error) => FromClient::Invalid { ref_, error },
    }
}

/// How deep a client's MessagePack may be nested: frames are four deep, and this is read by recursion.
const DEPTH: usize = 64;
const NO_MAP: &str = "a map was expected";

fn is_map(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf))
}

/// A value in MessagePack, and nothing after it.
fn read_whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest).with_human_readable();
    deserializer.set_max_depth(DEPTH);
    let value = T::deserialize(&mut deserializer)?;
    if rest.is_empty() { Ok(value) } else { Err(de::Error::custom("bytes are left over")) }
}

/// A `type` or a `ref`, or anything else in its place.
enum Mark {
    Text(String),
    Number(u64),
    Other,
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Mark;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E>(self, text: &str) -> Result<Mark, E> {
                Ok(Mark::Text(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Mark, E> {
                Ok(Mark::Number(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Mark, E> {
                Ok(u64::try_from(number).map_or(Mark::Other, Mark::Number))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Mark, E> {
                Ok(Mark::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Mark, E> {
                Ok(Mark::Other)
            }

            fn visit_unit<E>(self) -> Result<Mark, E> {
                Ok(Mark::Other)
            }

            fn visit_bytes<E>(self, _: &[u8]) -> Result<Mark, E> {
                Ok(Mark::Other)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Mark, A::Error> {
                IgnoredAny.visit_seq(seq).map(|_| Mark::Other)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Mark, A::Error> {
                IgnoredAny.visit_map(map).map(|_| Mark::Other)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Mark, D::Error> {
                IgnoredAny.visit_newtype_struct(inner).map(|_| Mark::Other)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

const NO_OBJECT: &str = "an object was expected";

fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

/// A struct from JSON, or the field that is wrong in it. Also what reads the bodies of REST requests.
///
/// # Errors
/// The field and what is wrong with it, in words for a client.
pub fn fields<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, FieldError> {
    if !is_object(json) {
        return Err(FieldError::body("", NO_OBJECT));
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| field_error(&error.path().to_string(), error.inner()))?;
    deserializer.end().map_err(|error| field_error(".", &error))?;
    Ok(value)
}

/// An error of serde_json at `path`, in words for a client.
fn field_error(path: &str, error: &serde_json::Error) -> FieldError {
    let message = error.to_string();
    // serde_json appends where in the text it was; the path says it better.
    worded(path, message.split(" at line ").next().unwrap_or_default())
}

/// An error of serde at `path`, in words for a client. Where the words name the field themselves, it becomes the path.
fn worded(path: &str, message: &str) -> FieldError {
    let named = |words: &str| message.strip_prefix(words).and_then(|rest| rest.strip_suffix('`'));
    let (field, message) = match (named("missing field `"), named("duplicate field `")) {
        (Some(field), _) => (field, "is missing"),
        (None, Some(field)) => (field, "stands twice"),
        (None, None) => ("", message),
    };
    match (path, field) {
        // The whole, or a place that has no name.
        ("." | "?", field) => FieldError::body(field, message),
        (path, "") => FieldError::body(path, message),
        // A field that stands twice is already the last part of the path.
        (path, field) if path == field || path.ends_with(&format!(".{field}")) => {
            FieldError::body(path, message)
        }
        (path, field) => FieldError::body(format!("{path}.{field}"), message),
    }
}

/// A server's frame as JSON.
///
/// # Panics
/// Never: every field of a frame has a JSON form; the empty text stands in for what cannot happen.
pub fn encode_server(frame: &ServerFrame) -> String {
    serde_json::to_string(frame).unwrap_or_default()
}

/// The bytes are not what their place says they are.
#[derive(Debug, thiserror::Error)]
#[error("not a {what}: {why}")]
pub struct BadBytes {
    /// What was expected.
    pub what: &'static str,
    /// What is wrong.
    pub why: String,
}

/// MessagePack with field names: how links and records carry their frames.
pub fn pack<T: Serialize>(value: &T) -> Bytes {
    // Writing to memory fails only for types without a length, and no frame has one.
    rmp_serde::to_vec_named(value).unwrap_or_default().into()
}

/// The value in these bytes, of which none may be left over.
///
/// # Errors
/// [`BadBytes`] with `what` for a name.
pub fn unpack<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, BadBytes> {
    // Reads from the slice itself, which is then what is left; `from_read_ref` would save a copy, but never tells what is left.
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(64);
    let value =
        T::deserialize(&mut deserializer).map_err(|error| BadBytes { what, why: error.to_string() })?;
    if rest.is_empty() { Ok(value) } else { Err(BadBytes { what, why: "bytes are left over".into() }) }
}
