//! Bytes ⇄ frames. What comes from outside is bounded by its transport before it gets here (a socket's frame limit, a link's
//! frame limit, a log's record limit), and nothing here panics on it.

use bytes::Bytes;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;

use super::client::{ClientFrame, FieldError, Ref, ServerFrame};

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
    let Some(kind) = kind else {
        return Ok(FromClient::Invalid { ref_, error: FieldError::body("type", "a text was expected") });
    };
    let frame = match kind.as_str() {
        "hello" => fields(text).map(ClientFrame::Hello),
        "send" => fields(text).map(ClientFrame::Send),
        "edit" => fields(text).map(ClientFrame::Edit),
        "delete" => fields(text).map(ClientFrame::Delete),
        "history" => fields(text).map(ClientFrame::History),
        "ping" => fields(text).map(ClientFrame::Ping),
        _ => return Ok(FromClient::UnknownType { ref_, kind: kind.chars().take(64).collect() }),
    };
    Ok(match frame {
        Ok(frame) => FromClient::Frame(frame),
        Err(error) => FromClient::Invalid { ref_, error },
    })
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

/// An error of serde_json at `path`, in words for a client. Where the words name the field themselves, it becomes the path.
fn field_error(path: &str, error: &serde_json::Error) -> FieldError {
    let message = error.to_string();
    // serde_json appends where in the text it was; the path says it better.
    let message = message.split(" at line ").next().unwrap_or_default();
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
