//! What a device did and saw, in the order in which it did and saw it: JSON lines, appended, one file per device.
//!
//! The judge knows nothing else. So a line is written *before* what it announces leaves the process (a `sending`), and after
//! what it tells has arrived (an `event`); and bodies are kept as fingerprints, so that a journal holds nobody's text.

mod asks;
mod fate;
mod writer;

use std::collections::BTreeMap;

use common::{
    ids::{ChatId, ClientId, MessageId, NodeId, Number, Seq, UserId},
    model::{Head, Message, Reaction},
    partition::stable_hash,
    wire::codes::ErrorCode,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::{
    asks::{Answer, Ask, Counted},
    fate::{Drained, Fate, Mended},
    writer::Journal,
};
use crate::client::frames::{Event as Frame, Happened};

/// The version of the lines; a reader refuses others.
pub const VERSION: u32 = 1;

/// A text's fingerprint: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Print(pub u64);

impl Print {
    /// The fingerprint of `text`.
    pub fn of(text: &str) -> Self {
        Self(stable_hash(&[text.as_bytes()]))
    }
}

impl Serialize for Print {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Print {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(de::Error::custom)
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its order in the journal, from 1.
    pub n: u64,
    /// When, in microseconds of the run's clock.
    pub at: u64,
    /// What.
    pub entry: Entry,
}

/// What a line tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The first line of a device's journal.
    Device {
        /// [`VERSION`].
        version: u32,
        /// Its name.
        device: String,
        /// Whose it is.
        user: UserId,
        /// Which clock `at` is of.
        clock: u64,
    },
    /// The device has signed in: sockets opened from here on belong to this sign-in.
    SignedIn {
        /// When its token expires, in microseconds of the run's clock.
        until: u64,
    },
    /// What the next session says it has, about to be said in `hello`.
    Resuming {
        /// The last cursor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// Chats that moved after it, and how far the device has seen them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        chats: BTreeMap<ChatId, Seq>,
    },
    /// A socket session is ready: everything until `closed` belongs to it.
    Opened {
        /// Counts the device's sockets, from 1.
        socket: u64,
        /// The node.
        node: NodeId,
        /// Whether missed events follow; when not, the view of every chat starts anew.
        resuming: bool,
    },
    /// The socket session is over.
    Closed {
        /// Which.
        socket: u64,
        /// The close code; absent when the connection just broke.
        code: Option<u16>,
    },
    /// A message is about to be handed to the socket.
    Sending {
        /// The order in which the device's user wrote it, from 1.
        order: u64,
        /// Where to.
        chat: ChatId,
        /// Its name.
        client_id: ClientId,
        /// What it says.
        body: Print,
        /// Whether it was handed over before.
        retry: bool,
    },
    /// A send was acknowledged.
    Acked {
        /// Where.
        chat: ChatId,
        /// Its name.
        client_id: ClientId,
        /// Its id.
        id: MessageId,
        /// Its number.
        number: Number,
        /// Its place among the chat's changes.
        seq: Seq,
        /// Whether it was there already.
        repeat: bool,
    },
    /// A send was answered with an error.
    Refused {
        /// Where.
        chat: ChatId,
        /// Its name.
        client_id: ClientId,
        /// Why.
        code: ErrorCode,
        /// Whether the device will not try again.
        last: bool,
    },
    /// A numbered event arrived, whether new or not.
    Event(Event),
    /// The user is in a chat; its events follow from `seq` + 1 on.
    NewChat {
        /// Which.
        chat: ChatId,
        /// How far it is told.
        seq: Seq,
    },
    /// The server says the user is in this chat no more.
    ChatRemoved {
        /// Which.
        chat: ChatId,
    },
    /// `resumed`: what was missing has come, as far as it says.
    Resumed {
        /// By chat. When it answers `hello`, a chat that is not named did not change.
        chats: Vec<Mended>,
        /// Whether it answers `hello`, or else one `changes`.
        hello: bool,
    },
    /// A cursor was given.
    Cursor {
        /// The cursor.
        cursor: String,
    },
    /// `message_read`: somebody's read mark.
    ReadMark {
        /// Where.
        chat: ChatId,
        /// Whose.
        user: UserId,
        /// The newest message they have read.
        number: Number,
    },
    /// The server says the view of this chat is not whole.
    ChatReload {
        /// Which.
        chat: ChatId,
    },
    /// The chat was read again up to here; what came before and was not seen as an event is closed by reading.
    ViewRestarted {
        /// Which.
        chat: ChatId,
        /// `head.seq` of the page.
        seq: Seq,
        /// `head.number` of the page.
        number: Number,
        /// Why it was read.
        why: Restart,
    },
    /// Something other than a send is about to be asked.
    Asked {
        /// Its mark in this journal, from 1.
        request: u64,
        /// What.
        ask: Ask,
    },
    /// The answer to it.
    Answered {
        /// Its mark.
        request: u64,
        /// What was said.
        answer: Answer,
    },
    /// The first line of a file with a chat's history.
    History {
        /// [`VERSION`].
        version: u32,
        /// Which chat.
        chat: ChatId,
        /// Who read it.
        reader: UserId,
        /// How far the chat was.
        head: Head,
        /// Whether the server called every page complete.
        complete: bool,
    },
    /// One message of that history.
    Message(Kept),
    /// The first line of a file that tells what was done to the cluster.
    Faults {
        /// [`VERSION`].
        version: u32,
        /// Which clock `at` is of.
        clock: u64,
    },
    /// What was done to it, and when.
    Fault(Fate),
    /// The first line of a file that tells what log and store hold at rest.
    AtRest {
        /// [`VERSION`].
        version: u32,
    },
    /// How far one partition is drained.
    Drained(Drained),
    /// A message as the valid records of the log make it.
    Logged {
        /// Where.
        chat: ChatId,
        /// As it stands.
        message: Kept,
    },
    /// A message's row in the store.
    Row {
        /// Where.
        chat: ChatId,
        /// As it stands.
        message: Kept,
    },
    /// How far a chat is.
    Heads {
        /// Which.
        chat: ChatId,
        /// By the valid records of the log.
        logged: Head,
        /// By its row.
        row: Head,
    },
}

/// Why a view was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// The session was opened, or the chat followed, a moment ago.
    Opened,
    /// The server said so (`chat_reload`).
    Told,
    /// An event was missing, and nobody had said so.
    Gap,
}

/// A numbered event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Where.
    pub chat: ChatId,
    /// Its place in the chat.
    pub seq: Seq,
    /// By whom.
    pub by: UserId,
    /// What happened.
    pub what: What,
}

/// What a numbered event tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// `new_message`.
    Message {
        /// Its number.
        number: Number,
        /// Its id.
        id: MessageId,
        /// Who wrote it.
        from: UserId,
        /// What it says; none when it was deleted before this was told.
        body: Option<Print>,
        /// Its client's name for it, shown to its sender's own sessions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<ClientId>,
    },
    /// `message_updated`.
    Updated {
        /// Its number.
        number: Number,
        /// Its id.
        id: MessageId,
        /// What it says now; none when it was deleted before this was told.
        body: Option<Print>,
    },
    /// `message_deleted`.
    Deleted {
        /// Its number.
        number: Number,
    },
    /// `reaction`.
    Reaction {
        /// The message's number.
        number: Number,
        /// What with.
        emoji: String,
        /// Whether it stands from now on.
        on: bool,
    },
    /// `member_joined`.
    Joined {
        /// Who.
        user: UserId,
    },
    /// `member_left`.
    Left {
        /// Who.
        user: UserId,
    },
    /// `chat_updated`.
    ChatUpdated,
    /// `chat_deleted`.
    ChatDeleted,
    /// One of a later version.
    Other,
}

/// A message as history shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub number: Number,
    /// Its id.
    pub id: MessageId,
    /// Who wrote it.
    pub from: UserId,
    /// What it says.
    pub body: Print,
    /// Whether it was edited.
    pub edited: bool,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Whether it says nothing any more because its time was over; then it is shown as a deleted one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
    /// What it is answered with; none when with nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reactions: Option<Print>,
    /// Whom it mentions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
}

impl Kept {
    /// The fingerprint of what a message is answered with: by emoji, how many and whom it shows.
    pub fn reactions(reactions: &[Reaction]) -> Option<Print> {
        if reactions.is_empty() {
            return None;
        }
        let mut text = String::new();
        for Reaction { emoji, count, users } in reactions {
            text += &format!("{emoji} {count} {users:?}\n");
        }
        Some(Print::of(&text))
    }
}

impl From<&Message> for Kept {
    fn from(message: &Message) -> Self {
        Self {
            number: message.number,
            id: message.id,
            from: message.from,
            body: Print::of(&message.body),
            edited: message.edited_at.is_some(),
            deleted: message.deleted,
            expired: message.expired,
            reactions: Self::reactions(&message.reactions),
            mentions: message.mentions.clone(),
        }
    }
}

fn said(message: &Message) -> Option<Print> {
    (!message.deleted).then(|| Print::of(&message.body))
}

impl From<&Frame> for Event {
    fn from(frame: &Frame) -> Self {
        let what = match &frame.what {
            Happened::Message(message) => What::Message {
                number: message.number,
                id: message.id,
                from: message.from,
                body: said(message),
                client_id: message.client_id.clone(),
            },
            Happened::Updated(message) => {
                What::Updated { number: message.number, id: message.id, body: said(message) }
            }
            Happened::Deleted(number) => What::Deleted { number: *number },
            Happened::Reaction(number, emoji, on) => {
                What::Reaction { number: *number, emoji: emoji.clone(), on: *on }
            }
            Happened::Joined(user) => What::Joined { user: *user },
            Happened::Left(user) => What::Left { user: *user },
            Happened::ChatUpdated => What::ChatUpdated,
            Happened::ChatDeleted => What::ChatDeleted,
            Happened::Other => What::Other,
        };
        Self { chat: frame.chat, seq: frame.seq, by: frame.by, what }
    }
}
