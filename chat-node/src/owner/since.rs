//! What changed in a partition since an offset: the answer to a node that has missed a mark, and to sessions that begin.
//!
//! What is undrained is in memory. Further back the log is read, by the rule of terms from where the asking node stood.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use common::{
    ids::{ChatKey, Offset, Partition, Seq, UserKey},
    log::{ReadError, ReadLimit},
    term::Verdict,
    wire::{
        marks::{LogPlace, Place, Since},
        record::{Change, Record, What},
    },
};
use parking_lot::Mutex;

use super::Context;

/// Records that are read for one answer: a partition's 4 s at 5,000 a second. Who is further behind looks at everything.
const RECORDS: usize = 20_000;
/// Chats, and users, in one answer: at about 50 bytes each, half a megabyte of each of the 4 MiB a link takes.
const NAMED: usize = 10_000;

/// Where a partition is, for whoever sends its marks; none while it is not owned.
pub(super) type Whereabouts = Arc<Mutex<Option<Place>>>;

/// A confirmed change that the store may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lacking {
    pub(super) offset: Offset,
    pub(super) chat: ChatKey,
    pub(super) seq: Seq,
    /// Of the record.
    pub(super) bytes: usize,
}

/// The confirmed changes that the store may lack, oldest first, by their chats. As many as there are undrained changes in memory.
#[derive(Debug, Default)]
pub(super) struct Undrained {
    changes: VecDeque<Lacking>,
    bytes: usize,
}

impl Undrained {
    /// A change, the newest.
    pub(super) fn push(&mut self, change: Lacking) {
        self.bytes += change.bytes;
        self.changes.push_back(change);
    }

    /// Changes in any order.
    pub(super) fn from_log(mut all: Vec<Lacking>) -> Self {
        all.sort_unstable();
        Self { bytes: all.iter().map(|change| change.bytes).sum(), changes: all.into() }
    }

    /// Bytes of their records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Everything before `offset` is in the store.
    pub(super) fn drained(&mut self, offset: Offset) {
        let stored = self.changes.partition_point(|change| change.offset < offset);
        self.bytes -= self.changes.drain(..stored).map(|change| change.bytes).sum::<usize>();
    }

    /// What stands at `offset` or after it.
    pub(super) fn since(&self, offset: Offset, place: Place) -> Since {
        let mut found = Found::default();
        let first = self.changes.partition_point(|change| change.offset < offset);
        for change in self.changes.range(first..) {
            found.chats.insert(change.chat, change.seq);
        }
        found.answer(place)
    }
}

/// Reads what changed from `from` up to `place`.
pub(super) async fn read(context: &Context, partition: Partition, from: LogPlace, place: Place) -> Since {
    match look(context, partition, from, place).await {
        Ok(Some(found)) => found.answer(place),
        Ok(None) => everything(place),
        Err(error) => {
            tracing::debug!(partition, %error, "what a node missed cannot be read from the log");
            everything(place)
        }
    }
}

/// The answer that names nothing: look at everything.
pub(super) fn everything(place: Place) -> Since {
    Since { place, chats: Vec::new(), users: Vec::new(), complete: false }
}

async fn look(
    context: &Context,
    partition: Partition,
    from: LogPlace,
    place: Place,
) -> Result<Option<Found>, ReadError> {
    let mut found = Found::default();
    let (mut next, mut state, mut records) = (from.offset, from.state, 0);
    while next < place.to {
        let entries = context.log.read(partition, next, ReadLimit::default()).await?;
        let Some(last) = entries.last() else { return Ok(None) };
        next = last.offset + 1;
        records += entries.len();
        if records > RECORDS {
            return Ok(None);
        }
        for entry in entries.into_iter().take_while(|entry| entry.offset < place.to) {
            // What cannot be read is void or a dead letter for everybody.
            let Ok(record) = Record::decode(&entry.payload) else { continue };
            if state.advance(record.header(), entry.offset) == Verdict::Void {
                continue;
            }
            if let Record::Change(change) = record {
                found.chats.insert(change.key(), change.seq);
                if entry.offset < place.told.offset {
                    found.concerned(&change);
                }
            }
        }
    }
    Ok(Some(found))
}

#[derive(Debug, Default)]
struct Found {
    chats: HashMap<ChatKey, Seq>,
    users: HashSet<UserKey>,
}

impl Found {
    fn concerned(&mut self, change: &Change) {
        let mut add = |user| {
            self.users.insert(UserKey { app: change.app, user });
        };
        match &change.what {
            What::Created { members, .. } | What::Members { members } => {
                members.iter().for_each(|(user, _)| add(*user));
            }
            What::Joined { user, .. } | What::Left { user, .. } => add(*user),
            _ => {}
        }
    }

    fn answer(self, place: Place) -> Since {
        if self.chats.len() > NAMED || self.users.len() > NAMED {
            return everything(place);
        }
        Since {
            place,
            chats: self.chats.into_iter().collect(),
            users: self.users.into_iter().collect(),
            complete: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use common::ids::{AppId, ChatId};
    use uuid::Uuid;

    use super::*;

    fn chat(number: u128) -> ChatKey {
        ChatKey { app: AppId::DEFAULT, chat: ChatId(Uuid::from_u128(number)) }
    }

    #[test]
    fn what_is_undrained_is_named_once_with_its_newest_change_and_forgotten_when_it_is_stored() {
        let place = Place { term: 3, to: 9, told: LogPlace::default() };
        let change = |offset, number, seq| Lacking { offset, chat: chat(number), seq, bytes: 10 };
        let mut undrained = Undrained::from_log(vec![change(5, 1, 2), change(4, 1, 1), change(6, 2, 1)]);
        undrained.push(change(8, 1, 3));
        let named = |undrained: &Undrained, offset| {
            let mut chats = undrained.since(offset, place).chats;
            chats.sort_unstable();
            chats
        };
        assert_eq!(named(&undrained, 0), [(chat(1), 3), (chat(2), 1)]);
        assert_eq!(named(&undrained, 7), [(chat(1), 3)]);
        assert_eq!(undrained.bytes(), 40);
        undrained.drained(8);
        assert_eq!(named(&undrained, 0), [(chat(1), 3)]);
        assert_eq!(undrained.bytes(), 10);
        undrained.drained(9);
        assert_eq!(named(&undrained, 0), []);
        assert_eq!(undrained.bytes(), 0);
    }
}
