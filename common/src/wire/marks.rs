//! Marks: how far each partition's log is, said by its owner each second to every other node, and what a node asks when one is missing.
//!
//! A mark covers the time since the one before it: the changes that were confirmed in it (`from` to `to`), and those of whose users it
//! was announced that they came in or went (`told_from` to `told`: an announcement waits until its change is stored). `whole` says that
//! every live frame of that time was handed to the dispatcher. Marks travel behind the frames they speak of, on the same way. So whoever
//! hears an unbroken, whole row of them has heard everything; whoever does not asks the owner ([`super::owner::Ask::Since`]).

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ChatKey, Offset, Partition, Seq, UserKey},
    term::TermState,
};

/// One partition's mark. A frame of marks is a list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which partition.
    pub partition: Partition,
    /// `place.to` of the mark before; of the first in a term, where the term begins.
    pub from: Offset,
    /// `place.told.offset` of the mark before.
    pub told_from: Offset,
    /// Where the partition is.
    pub place: Place,
    /// Whether every live frame since the mark before was handed over.
    pub whole: bool,
}

/// Where a partition is, as its owner knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The owner's term.
    pub term: Offset,
    /// Every change before this offset is confirmed, and was published.
    pub to: Offset,
    /// How far coming and going was announced; a writer has stored everything before.
    pub told: LogPlace,
}

/// A place in a partition's log from which it can be read on, whatever was before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogPlace {
    /// The next one.
    pub offset: Offset,
    /// Where the rule of terms stands there.
    pub state: TermState,
}

/// What changed in a partition since an offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// How far this answer reaches.
    pub place: Place,
    /// The chats that changed, each once, with their newest change.
    pub chats: Vec<(ChatKey, Seq)>,
    /// The users who came into a chat or went, each once, as far as it is stored.
    pub users: Vec<UserKey>,
    /// Whether nothing is left out. If not, whoever asks looks at everything it serves.
    pub complete: bool,
}
