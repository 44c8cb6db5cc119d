//! What users are to each other: contacts (ID-8) and blocks (ID-9).

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use async_trait::async_trait;

use super::{Result, names};
use crate::{
    ids::{AppId, ChatId, UserId, UserKey},
    model::{Page, PageRequest, UserView},
    time::Millis,
};

/// How long a change is told to whoever asks which there were; the newest stays. A node that was away for longer forgets all that it knew.
const KEPT: Duration = Duration::from_secs(3_600);

/// Changes that one answer lists.
pub(super) const CHANGES: i64 = 1_000;

/// Old changes that go when a new one comes.
pub(super) const FORGOTTEN: i64 = 10;

/// What somebody may be to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Somebody whom the user knows.
    Contact,
    /// Somebody from whom the user wants to hear nothing.
    Block,
}

impl Relation {
    /// Its word in rows.
    pub fn word(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::Block => "block",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Contact, Self::Block].into_iter().find(|kind| kind.word() == word)
    }
}

/// Two users of one application: the same pair, whoever is named first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    app: AppId,
    low: UserId,
    high: UserId,
}

impl Pair {
    /// The pair of these two.
    pub fn new(app: AppId, one: UserId, other: UserId) -> Self {
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        Self { app, low, high }
    }

    /// Their application.
    pub fn app(self) -> AppId {
        self.app
    }

    /// Their direct chat, whether or not there is one.
    pub fn chat(self) -> ChatId {
        ChatId::direct(self.app, self.low, self.high)
    }

    /// Both ways, each kind, as rows are keyed: of whom, what, who.
    pub(super) fn rows(self) -> [(AppId, UserId, &'static str, UserId); 4] {
        let Self { app, low, high } = self;
        let (contact, block) = (Relation::Contact.word(), Relation::Block.word());
        [
            (app, low, contact, high),
            (app, low, block, high),
            (app, high, contact, low),
            (app, high, block, low),
        ]
    }
}

/// What one of a pair holds of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stance {
    contact: bool,
    block: bool,
}

/// What two users are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ties {
    pair: Pair,
    low: Stance,
    high: Stance,
}

impl Ties {
    /// Of two who are nothing to each other.
    pub fn none(pair: Pair) -> Self {
        Self { pair, low: Stance::default(), high: Stance::default() }
    }

    /// Of whom.
    pub fn pair(&self) -> Pair {
        self.pair
    }

    /// The same with what one is to `of`.
    pub(super) fn add(&mut self, of: UserId, relation: Relation) {
        let stance = if of == self.pair.low { &mut self.low } else { &mut self.high };
        match relation {
            Relation::Contact => stance.contact = true,
            Relation::Block => stance.block = true,
        }
    }

    fn of(&self, user: UserId) -> Stance {
        if user == self.pair.low {
            self.low
        } else if user == self.pair.high {
            self.high
        } else {
            Stance::default()
        }
    }

    /// Who is the other.
    pub fn other(&self, user: UserId) -> UserId {
        if user == self.pair.low { self.pair.high } else { self.pair.low }
    }

    /// Whether `user` has the other among their contacts.
    pub fn has_as_contact(&self, user: UserId) -> bool {
        self.of(user).contact
    }

    /// Whether `user` has blocked the other.
    pub fn blocks(&self, user: UserId) -> bool {
        self.of(user).block
    }

    /// Whether the other takes direct messages from `sender`: who has not blocked them, and in an application of `contacts_only` who has them
    /// among their contacts.
    pub fn takes_messages_of(&self, sender: UserId, contacts_only: bool) -> bool {
        let other = self.of(self.other(sender));
        !other.block && (other.contact || !contacts_only)
    }
}

/// What became of a relation that was to be there, or to be there no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Related {
    /// It is so now.
    Changed,
    /// It was so already.
    Already,
    /// The user has as many as a user may have.
    Full,
    /// The user was erased.
    Erased,
}

/// Somebody among a user's contacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub user: UserView,
    /// When the newest message of their direct chat was sent; none when there is none.
    pub last_message_at: Option<Millis>,
}

/// A pair whose relations were changed. Numbered, so that nodes poll for what is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationChange {
    /// Its number, from 1, without holes. A row is seen only after every row with a lower number.
    pub no: u64,
    /// Who.
    pub pair: Pair,
    /// When.
    pub at: Millis,
}

/// Contacts and blocks.
#[async_trait]
pub trait Relations: Send + Sync {
    /// Makes `peer` this to `user`, or (`on` is false) no longer; and numbers the change, in one transaction. At most `most` users are this to
    /// `user`, however many come at the same time; those who were erased do not count. Nobody is anything to who was erased, be it at the same moment; other than that it is not asked
    /// whether there are such users.
    async fn relate(
        &self,
        user: UserKey,
        relation: Relation,
        peer: UserId,
        on: bool,
        at: Millis,
        most: u64,
    ) -> Result<Related>;

    /// A page of a user's contacts: first those with whom they have a direct chat with messages, of the newest message first; then the others
    /// by their names.
    async fn contacts(&self, user: UserKey, page: PageRequest) -> Result<Page<Contact>>;

    /// A page of those whom a user has blocked, the newest first.
    async fn blocks(&self, user: UserKey, page: PageRequest) -> Result<Page<UserView>>;

    /// What these pairs, each once, at most 1,000, are to each other, in no order; those who are nothing to each other may be missing.
    async fn ties(&self, pairs: &[Pair]) -> Result<Vec<Ties>>;

    /// Whom these users, each once, have blocked: of whom and whom, in no order.
    async fn blocked_by(&self, users: &[UserKey]) -> Result<Vec<(UserKey, UserId)>>;

    /// Those `among` these users of one application (each once, at most 1,000) who have blocked `user`, and since when, in no order.
    async fn blockers_of(&self, user: UserKey, among: &[UserId]) -> Result<Vec<(UserId, Millis)>>;

    /// Changes after number `after`, in order, at most 1,000. Those of the last hour are there, and the newest in any case.
    async fn relation_changes(&self, after: u64) -> Result<Vec<RelationChange>>;
}

/// A change is kept at `now` when it is from after this.
pub(super) fn kept_after(now: Millis) -> Millis {
    now.minus(KEPT)
}

/// The ties of those who have any.
pub(super) fn gather(rows: impl IntoIterator<Item = (UserKey, Relation, UserId)>) -> Vec<Ties> {
    let mut ties = BTreeMap::new();
    for (UserKey { app, user }, relation, peer) in rows {
        let pair = Pair::new(app, user, peer);
        ties.entry(pair).or_insert_with(|| Ties::none(pair)).add(user, relation);
    }
    ties.into_values().collect()
}

/// The page of contacts, of all of them in no order.
pub(super) fn contacts_on_page(mut all: Vec<Contact>, page: PageRequest) -> Page<Contact> {
    all.sort_by_cached_key(|contact| {
        let name = match contact.last_message_at {
            Some(_) => String::new(),
            None => names::fold(&contact.user.name),
        };
        // None is last.
        (Reverse(contact.last_message_at), name, contact.user.id)
    });
    page.page_of(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_9_messages_are_taken_from_who_is_not_blocked_and_by_choice_from_contacts_only() {
        let (app, ana, ben) = (AppId::random(), UserId::random(), UserId::random());
        let pair = Pair::new(app, ana, ben);
        assert_eq!(pair, Pair::new(app, ben, ana));
        let mut ties = Ties::none(pair);
        let taken =
            |ties: &Ties, only| (ties.takes_messages_of(ana, only), ties.takes_messages_of(ben, only));
        assert_eq!((taken(&ties, false), taken(&ties, true)), ((true, true), (false, false)));
        ties.add(ben, Relation::Contact);
        assert_eq!((taken(&ties, false), taken(&ties, true)), ((true, true), (true, false)));
        ties.add(ben, Relation::Block);
        assert_eq!((taken(&ties, false), taken(&ties, true)), ((false, true), (false, false)));
        assert!(ties.blocks(ben) && !ties.blocks(ana) && !ties.blocks(UserId::random()));
        assert!(ties.has_as_contact(ben) && !ties.has_as_contact(ana));
    }
}
