//! When two states are one, under our rule: when their essence is the same.
//!
//! Whatever can follow from the one can then follow from the other, and looks the same to clients and readers. What
//! is left out, and why it cannot matter:
//!
//! - *The names of messages.* They are interchangeable, and numbered here in the order in which they are met.
//! - *Offsets.* An owner asks only whether its entries are in their places, and that depends on how far its claim is
//!   from the end of the log. If that is farther than it has entries, it does not matter how far; nor if somebody
//!   claimed after it: an entry in its place needs all before it in theirs, and one of those places is taken.
//! - *Entries without hope*: those that are not valid, never will be, and will not be acknowledged. They are, if
//!   somebody claimed after their owner, all from the first that is not in its place, whether it landed or not; and
//!   always all after one that is lost. (Some of the former may be valid: `Cluster::valid` has those.) They take up
//!   room when they land, and their owner, while it is up, does not append their messages again. Nothing else.
//! - *The memory of an owner that is down.* What it has under way matters only while it can be valid.
//!
//! The tests hold this against a search that leaves nothing out, in a smaller world.

use crate::cluster::{Cluster, Fate, Message, Model, Number, Owner};

/// Everything about `cluster` that matters, in few bytes.
pub(crate) fn essence(model: &Model, cluster: &Cluster) -> Vec<u8> {
    let mut essence = Essence { bytes: Vec::with_capacity(48), names: Vec::with_capacity(model.messages) };
    essence.pairs(&cluster.valid);
    essence.pairs(&cluster.acks);
    essence.push(cluster.readers.n as usize);
    for owner in &cluster.owners {
        let stale = cluster.is_stale(owner);
        let distance = (cluster.end - owner.term) as usize;
        // 0 is nobody's distance: the end is after every claim.
        essence.push(if stale { 0 } else { distance.min(model.messages + 1) });
        essence.push(owner.under_way());
        if owner.up {
            essence.owner(owner, stale);
        } else if !stale {
            essence.late_requests(owner);
        }
    }
    essence.bytes
}

struct Essence {
    bytes: Vec<u8>,
    names: Vec<Message>,
}

impl Essence {
    fn owner(&mut self, owner: &Owner, stale: bool) {
        let hopeless = owner.sent.iter().position(|entry| match entry.fate {
            Fate::Lost => true,
            Fate::UnderWay | Fate::Landed { in_place: false } => stale,
            Fate::Landed { in_place: true } | Fate::Acknowledged => false,
        });
        let (hopeful, hopeless) = owner.sent.split_at(hopeless.unwrap_or(owner.sent.len()));
        self.push(owner.read);
        self.push(hopeful.len());
        for entry in hopeful {
            self.message(entry.message);
            self.push(match entry.fate {
                Fate::UnderWay => 0,
                Fate::Landed { in_place: false } => 1,
                Fate::Landed { in_place: true } => 2,
                Fate::Acknowledged => 3,
                Fate::Lost => 4,
            });
        }
        let mut hopeless: Vec<_> = hopeless.iter().map(|entry| self.name(entry.message)).collect();
        hopeless.sort_unstable();
        self.push(hopeless.len());
        hopeless.into_iter().for_each(|name| self.push(name));
    }

    /// Of an owner that is down and whose term is still the latest. Its first entries landed, and are valid; how many
    /// is the readers' `n`. Those under way after them will be.
    fn late_requests(&mut self, owner: &Owner) {
        let lost = owner.sent.iter().position(|entry| entry.fate == Fate::Lost);
        let (hopeful, _) = owner.sent.split_at(lost.unwrap_or(owner.sent.len()));
        let hopeful: Vec<_> = hopeful.iter().filter(|entry| entry.fate == Fate::UnderWay).collect();
        self.push(hopeful.len());
        for entry in hopeful {
            self.message(entry.message);
            self.push(entry.number);
        }
        self.push(usize::from(lost.is_some()));
    }

    fn pairs(&mut self, pairs: &[(Message, Number)]) {
        self.push(pairs.len());
        let mut pairs: Vec<_> = pairs.iter().map(|&(message, number)| (number, self.name(message))).collect();
        pairs.sort_unstable();
        for (number, name) in pairs {
            self.push(number);
            self.push(name);
        }
    }

    fn message(&mut self, message: Message) {
        let name = self.name(message);
        self.push(name);
    }

    fn name(&mut self, message: Message) -> usize {
        let met = self.names.iter().position(|name| *name == message);
        met.unwrap_or_else(|| {
            self.names.push(message);
            self.names.len() - 1
        })
    }

    fn push(&mut self, value: usize) {
        self.bytes.push(u8::try_from(value).unwrap());
    }
}
