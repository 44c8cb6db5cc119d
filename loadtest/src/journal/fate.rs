//! What befell a session or the cluster, and what log and store hold when nothing moves any more.

use common::{
    ids::{ChatId, Offset, Partition, Seq},
    term::TermState,
};
use serde::{Deserialize, Serialize};

/// One chat in a `resumed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mended {
    /// Which.
    pub chat: ChatId,
    /// What the client had, as the server understood it.
    pub from: Seq,
    /// How far it was told now.
    pub to: Seq,
    /// Whether everything between was told. If not, the chat is to be read again.
    pub complete: bool,
}

/// Something that is done to the cluster from outside: written by whoever does it. From its beginning to its end, and for 10 s after that,
/// nobody's view need be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It begins.
    Begins {
        /// What.
        what: String,
    },
    /// It is over.
    Ends {
        /// What.
        what: String,
    },
}

/// How far one partition is drained into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Which partition.
    pub partition: Partition,
    /// The store's position: the next offset to be read. Absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Offset>,
    /// Where the rule of terms stands there, as the store has it.
    pub state: TermState,
    /// Where it stands there by the log itself.
    pub should_be: TermState,
    /// Valid changes in the log at the position and after it.
    pub undrained: u64,
}
