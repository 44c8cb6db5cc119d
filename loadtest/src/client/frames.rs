//! What a node's text frame says to a client.
//!
//! Read in two steps, type first: a frame of a type this client does not know is passed over, as the protocol asks, and a
//! numbered event costs one flat pass (serde's own tagged enums copy every field first, and a load generator reads millions).

use std::{borrow::Cow, collections::BTreeMap};

use common::{
    ids::{ChatId, Number, Seq, UserId},
    model::Message,
    wire::{
        client::{Ack, ErrorFrame, HistoryPage, Ready, Ref, Resumed},
        codes::ErrorCode,
    },
};
use serde::Deserialize;

/// A frame from the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// The session is ready.
    Ready(Box<Ready>),
    /// A request was done.
    Ack(Ack),
    /// A part of a chat's history.
    Page(HistoryPage),
    /// The server is there.
    Pong(Ref),
    /// A request was not done.
    Error(ErrorFrame),
    /// A numbered event.
    Event(Event),
    /// The user is in a chat; its events follow from `seq` + 1 on.
    NewChat {
        /// Which.
        chat: ChatId,
        /// How far it is told.
        seq: Seq,
    },
    /// The user is in this chat no more.
    ChatRemoved(ChatId),
    /// The view of this chat is not whole.
    ChatReload(ChatId),
    /// Somebody has read a chat up to here.
    MessageRead {
        /// Where.
        chat: ChatId,
        /// Who.
        user: UserId,
        /// The newest message they have read.
        number: Number,
    },
    /// What was missed has come.
    Resumed {
        /// What it answers: `hello` or `changes`.
        ref_: Ref,
        /// How far each chat was told.
        chats: BTreeMap<ChatId, Resumed>,
    },
    /// Everything before this was shown.
    Cursor(String),
    /// The user's place is another node: ask for a new location.
    Moved,
    /// Something this client does not use.
    Other,
}

/// A numbered event of a chat.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Where.
    pub chat: ChatId,
    /// Its place in the chat.
    pub seq: Seq,
    /// By whom.
    pub by: UserId,
    /// What happened.
    pub what: Happened,
}

/// What a numbered event tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// A message was written.
    Message(Box<Message>),
    /// A message was edited; as it stands now.
    Updated(Box<Message>),
    /// A message was deleted.
    Deleted(Number),
    /// A member (`by`) answered a message with an emoji, or took that back.
    Reaction(Number, String, bool),
    /// A user came in.
    Joined(UserId),
    /// A user left or was removed.
    Left(UserId),
    /// Name or description changed.
    ChatUpdated,
    /// The chat is no more.
    ChatDeleted,
    /// A numbered event of a type this client does not know: it counts as seen.
    Other,
}

/// A frame that is not what its type says.
#[derive(Debug, thiserror::Error)]
#[error("a frame from the node cannot be read: {0}")]
pub struct BadFrame(String);

/// Whether an error with this code says that what was asked is surely not stored.
pub fn definite(code: ErrorCode) -> bool {
    !matches!(code, ErrorCode::Unknown | ErrorCode::Internal)
}

#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    seq: Option<Seq>,
}

#[derive(Deserialize)]
struct EventFrame {
    chat: ChatId,
    seq: Seq,
    by: UserId,
    #[serde(default)]
    message: Option<Box<Message>>,
    #[serde(default)]
    number: Option<Number>,
    #[serde(default)]
    user: Option<UserId>,
    #[serde(default)]
    emoji: Option<String>,
    #[serde(default)]
    on: Option<bool>,
}

/// The frame in a node's text.
///
/// # Errors
/// [`BadFrame`] when it is not JSON, has no type, or lacks what its type needs.
pub fn decode(text: &str) -> Result<Incoming, BadFrame> {
    let outline: Outline<'_> = read(text)?;
    Ok(match &*outline.kind {
        "new_message" | "message_updated" | "message_deleted" | "reaction" | "member_joined"
        | "member_left" | "chat_updated" | "chat_deleted" => {
            Incoming::Event(event(&outline.kind, read(text)?)?)
        }
        "ack" => Incoming::Ack(read(text)?),
        "error" => Incoming::Error(read(text)?),
        "pong" => {
            #[derive(Deserialize)]
            struct Pong {
                #[serde(rename = "ref")]
                ref_: Ref,
            }
            Incoming::Pong(read::<Pong>(text)?.ref_)
        }
        "page" => Incoming::Page(read(text)?),
        "ready" => Incoming::Ready(Box::new(read(text)?)),
        "new_chat" => {
            #[derive(Deserialize)]
            struct NewChat {
                chat: Id,
                seq: Seq,
            }
            #[derive(Deserialize)]
            struct Id {
                id: ChatId,
            }
            let new: NewChat = read(text)?;
            Incoming::NewChat { chat: new.chat.id, seq: new.seq }
        }
        "chat_removed" => Incoming::ChatRemoved(read::<Chat>(text)?.chat),
        "chat_reload" => Incoming::ChatReload(read::<Chat>(text)?.chat),
        "message_read" => {
            #[derive(Deserialize)]
            struct MessageRead {
                chat: ChatId,
                user: UserId,
                number: Number,
            }
            let MessageRead { chat, user, number } = read(text)?;
            Incoming::MessageRead { chat, user, number }
        }
        "resumed" => {
            #[derive(Deserialize)]
            struct Frame {
                #[serde(rename = "ref")]
                ref_: Ref,
                chats: BTreeMap<ChatId, Resumed>,
            }
            let Frame { ref_, chats } = read(text)?;
            Incoming::Resumed { ref_, chats }
        }
        "cursor" => {
            #[derive(Deserialize)]
            struct Cursor {
                cursor: String,
            }
            Incoming::Cursor(read::<Cursor>(text)?.cursor)
        }
        "moved" => Incoming::Moved,
        // A numbered event of a later version still takes its place in the order.
        _ if outline.seq.is_some() => match read::<EventFrame>(text) {
            Ok(EventFrame { chat, seq, by, .. }) => {
                Incoming::Event(Event { chat, seq, by, what: Happened::Other })
            }
            Err(_) => Incoming::Other,
        },
        _ => Incoming::Other,
    })
}

#[derive(Deserialize)]
struct Chat {
    chat: ChatId,
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, BadFrame> {
    serde_json::from_str(text).map_err(|error| BadFrame(format!("{error} in {}", shortened(text))))
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

fn event(kind: &str, frame: EventFrame) -> Result<Event, BadFrame> {
    let EventFrame { chat, seq, by, message, number, user, emoji, on } = frame;
    let lacks = |field: &str| BadFrame(format!("{kind} has no {field}"));
    let what = match kind {
        "new_message" => Happened::Message(message.ok_or_else(|| lacks("message"))?),
        "message_updated" => Happened::Updated(message.ok_or_else(|| lacks("message"))?),
        "message_deleted" => Happened::Deleted(number.ok_or_else(|| lacks("number"))?),
        "reaction" => Happened::Reaction(
            number.ok_or_else(|| lacks("number"))?,
            emoji.ok_or_else(|| lacks("emoji"))?,
            on.ok_or_else(|| lacks("on"))?,
        ),
        "member_joined" => Happened::Joined(user.ok_or_else(|| lacks("user"))?),
        "member_left" => Happened::Left(user.ok_or_else(|| lacks("user"))?),
        "chat_updated" => Happened::ChatUpdated,
        _ => Happened::ChatDeleted,
    };
    Ok(Event { chat, seq, by, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_message_is_read_and_unknown_fields_are_passed_over() {
        let id = "00000000000000000000000000000007";
        let text = format!(
            r#"{{"type":"new_message","chat":"{id}","seq":3,"at":"2026-11-21T09:15:54.120Z","by":"{id}","later":[1],
            "message":{{"id":"{id}","chat":"{id}","room_id":"{id}","number":2,"from":"{id}","body":"hi","kind":"text",
            "created_at":"2026-11-21T09:15:54.120Z","reactions":[]}}}}"#
        );
        let Incoming::Event(Event { seq: 3, what: Happened::Message(message), .. }) = decode(&text).unwrap()
        else {
            panic!("not a message: {text}")
        };
        assert_eq!((message.number, message.body.as_str()), (2, "hi"));
    }

    #[test]
    fn a_frame_of_a_later_version_is_passed_over_and_a_numbered_one_counts() {
        assert_eq!(decode(r#"{"type":"presence","user":"x"}"#).unwrap(), Incoming::Other);
        let id = "00000000000000000000000000000007";
        let numbered = format!(r#"{{"type":"later","chat":"{id}","seq":9,"by":"{id}","emoji":"+"}}"#);
        assert!(matches!(
            decode(&numbered).unwrap(),
            Incoming::Event(Event { seq: 9, what: Happened::Other, .. })
        ));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_never_panics() {
        for text in ["", "[]", "{", r#"{"type":7}"#, r#"{"type":"ack"}"#, r#"{"type":"new_message","seq":1}"#]
        {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
