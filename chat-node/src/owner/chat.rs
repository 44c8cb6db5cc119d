//! A chat in its owner's memory: what deciding needs, and the changes that the store may not have yet.
//!
//! Two heads: `head` counts what was appended, `confirmed` what the log has. Decisions follow the first, so that requests need not wait for
//! each other; whatever is shown to anybody follows the second. When the log does not confirm, the partition is dropped
//! with all its chats, so nothing here is ever taken back.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use common::{
    applications::Retention,
    cache::TailEntry,
    ids::{AppId, ClientId, MessageId, Number, Offset, Seq, UserId},
    model::{ChatKind, Head, Message, Role},
    store::{ChatRow, Fingerprint, Found, Pair, fingerprint},
    time::Millis,
    wire::record::{Change, What},
};
use tokio::time::Instant;

use super::rate::Rates;

/// How long an accepted client id is remembered at least. A forwarded batch is refused 5 s after it was sent, so no late first
/// copy outlives this; a client's own later retry says that it is one, and is looked up in the store.
pub(super) const REPEAT_MEMORY: Duration = Duration::from_secs(60);

/// Drained changes that are kept for nodes that ask what they missed: about 30 KiB of a busy chat.
pub(super) const KEPT_DRAINED: usize = 64;

/// A change of the chat and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) offset: Offset,
    pub(super) change: Arc<Change>,
    /// The record as it stands in the log.
    pub(super) payload: Bytes,
}

impl Kept {
    /// As the cache keeps it.
    pub(super) fn tail_entry(&self) -> TailEntry {
        TailEntry { seq: self.change.seq, offset: self.offset, bytes: self.payload.clone() }
    }
}

/// A member, as deciding needs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) role: Role,
    pub(super) joined_seq: Seq,
    /// Counts members in order of joining, so that an heir can be found.
    order: u64,
}

/// A send that was accepted under a client's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) id: MessageId,
    pub(super) number: Number,
    pub(super) seq: Seq,
    pub(super) at: Millis,
    pub(super) fingerprint: Fingerprint,
    remembered: Instant,
}

/// What is known of a message without asking the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// As it stands.
    Message(Box<Message>),
    /// It was deleted, by this change.
    Erased(Seq),
    /// The chat has no message of this number.
    Never,
    /// The store knows.
    InStore,
}

/// A chat in its owner's memory.
#[derive(Debug)]
pub(super) struct Chat {
    pub(super) kind: ChatKind,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    /// How long messages are kept, if it has chosen that.
    pub(super) retention: Option<Retention>,
    /// Messages up to here are past their time, as far as was asked.
    pub(super) expired: Number,
    pub(super) created_by: UserId,
    pub(super) deleted: bool,
    /// Of the request that made it.
    pub(super) request: Option<Fingerprint>,
    /// Records of its making that are in: the first, and each that brought more first members.
    pub(super) makings: usize,
    /// Members as decided, confirmed or not.
    pub(super) members: HashMap<UserId, Member>,
    joined: u64,
    /// How far it is as decided.
    pub(super) head: Head,
    /// How far it is as confirmed by the log.
    pub(super) confirmed: Head,
    /// When the newest change was accepted.
    pub(super) last_at: Millis,
    /// Where the newest change of membership stands; a reader of lists waits until it is drained.
    pub(super) membership_offset: Option<Offset>,
    /// Changes in order of `seq`, contiguous, the newest at the back: all undrained ones, and some before.
    kept: VecDeque<Kept>,
    /// Bytes in `kept`.
    pub(super) kept_bytes: usize,
    accepted: HashMap<(UserId, ClientId), Accepted>,
    /// Oldest first, to forget by.
    forget: VecDeque<(Instant, Seq, UserId, ClientId)>,
    /// Whether `accepted` has every name ever used here: then what it lacks was never sent, and the store need not be asked.
    pub(super) knows_every_name: bool,
    /// How fast its members have written of late.
    pub(super) rates: Rates,
    pub(super) last_used: Instant,
}

impl Chat {
    /// A chat as its first change makes it.
    pub(super) fn begin(change: &Change, now: Instant) -> Option<Self> {
        let What::Created { kind, name, description, request, .. } = &change.what else { return None };
        Some(Self {
            kind: *kind,
            name: name.clone(),
            description: description.clone(),
            retention: None,
            expired: 0,
            created_by: change.by,
            deleted: false,
            request: *request,
            makings: 0,
            members: HashMap::new(),
            joined: 0,
            head: Head::default(),
            confirmed: Head::default(),
            last_at: change.at,
            membership_offset: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            accepted: HashMap::new(),
            forget: VecDeque::new(),
            knows_every_name: true,
            rates: Rates::default(),
            last_used: now,
        })
    }

    /// A chat as the store has it.
    pub(super) fn from_row(row: ChatRow, now: Instant) -> Self {
        let members: HashMap<_, _> = (0..)
            .zip(row.members)
            .map(|(order, member)| {
                (member.user, Member { role: member.role, joined_seq: member.joined_seq, order })
            })
            .collect();
        Self {
            kind: row.kind,
            name: row.name,
            description: row.description,
            retention: row.retention,
            expired: row.expired,
            created_by: row.created_by,
            deleted: row.deleted,
            request: row.request,
            makings: usize::try_from(row.makings).unwrap_or(usize::MAX),
            joined: members.len() as u64,
            members,
            head: row.head,
            confirmed: row.head,
            last_at: Millis::default(),
            membership_offset: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            accepted: HashMap::new(),
            forget: VecDeque::new(),
            knows_every_name: false,
            rates: Rates::default(),
            last_used: now,
        }
    }

    /// Takes a change in that follows `head` by one: appended just now, or found in the log. One that is already in is passed over.
    pub(super) fn apply(&mut self, kept: Kept, now: Instant) {
        let change = Arc::clone(&kept.change);
        if change.seq != self.head.seq + 1 {
            return;
        }
        self.head.seq = change.seq;
        self.last_at = self.last_at.max(change.at);
        if change.of_membership() {
            self.membership_offset = Some(kept.offset);
        }
        match &change.what {
            What::Created { members, .. } | What::Members { members } => {
                self.makings = self.makings.saturating_add(1);
                for (user, role) in members {
                    self.admit(*user, *role, change.seq);
                }
            }
            What::Joined { user, role } => self.admit(*user, *role, change.seq),
            What::Left { user, heir } => {
                self.members.remove(user);
                if let Some(heir) = heir.and_then(|heir| self.members.get_mut(&heir)) {
                    heir.role = Role::Owner;
                }
            }
            What::Roles { roles } => {
                for (user, role) in roles {
                    if let Some(member) = self.members.get_mut(user) {
                        member.role = *role;
                    }
                }
            }
            What::Updated { name, description, retention } => {
                self.retention = retention.or(self.retention);
                if name.is_some() {
                    self.name.clone_from(name);
                }
                if description.is_some() {
                    self.description.clone_from(description);
                }
            }
            What::Deleted => self.deleted = true,
            What::Sent { id, number, client_id, body, kind, reply_to, attachments, sent_as, .. } => {
                self.head.number = *number;
                if let Some(client_id) = client_id {
                    let accepted = Accepted {
                        id: *id,
                        number: *number,
                        seq: change.seq,
                        at: change.at,
                        fingerprint: sent_as
                            .unwrap_or_else(|| fingerprint(body, *kind, *reply_to, attachments)),
                        remembered: now,
                    };
                    self.remember(change.by, client_id.clone(), accepted);
                }
            }
            What::Edited { .. } | What::Reacted { .. } | What::Erased { .. } => {}
        }
        self.kept_bytes += kept.payload.len();
        self.kept.push_back(kept);
        self.last_used = now;
    }

    fn admit(&mut self, user: UserId, role: Role, seq: Seq) {
        self.joined += 1;
        self.members.insert(user, Member { role, joined_seq: seq, order: self.joined });
    }

    /// The log has every change up to `seq`.
    pub(super) fn confirm(&mut self, change: &Change) {
        self.confirmed.seq = self.confirmed.seq.max(change.seq);
        if let Some(number) = change.number() {
            self.confirmed.number = self.confirmed.number.max(number);
        }
    }

    /// Everything taken in so far is confirmed: it was read from the log, not appended.
    pub(super) fn confirm_all(&mut self) {
        self.confirmed = self.head;
    }

    /// Whether `user` may read: a member, and confirmed as one; or the application itself.
    pub(super) fn reader(&self, user: UserId) -> bool {
        let member = self.members.get(&user).is_some_and(|member| member.joined_seq <= self.confirmed.seq);
        !self.deleted && (member || user == UserId::APPLICATION)
    }

    /// The two of a direct chat, when `by` is one of them.
    pub(super) fn pair(&self, app: AppId, by: UserId) -> Option<Pair> {
        if self.kind != ChatKind::Direct || !self.members.contains_key(&by) {
            return None;
        }
        let other = self.members.keys().find(|user| **user != by)?;
        Some(Pair::new(app, by, *other))
    }

    /// Who owns the group when `leaving` has left: of its admins, or else of its members, the one who has been in longest.
    pub(super) fn heir(&self, leaving: UserId) -> Option<UserId> {
        let others = self.members.iter().filter(|(user, _)| **user != leaving);
        let first = |(_, member): &(&UserId, &Member)| (member.role != Role::Admin, member.order);
        others.min_by_key(first).map(|(user, _)| *user)
    }

    /// A send that was accepted under this name.
    pub(super) fn accepted(&self, from: UserId, client_id: &ClientId) -> Option<Accepted> {
        self.accepted.get(&(from, client_id.clone())).copied()
    }

    fn remember(&mut self, from: UserId, client_id: ClientId, accepted: Accepted) {
        self.forget.push_back((accepted.remembered, accepted.seq, from, client_id.clone()));
        self.accepted.insert((from, client_id), accepted);
    }

    /// Remembers what the store found, so that it is not asked again at once.
    pub(super) fn found(&mut self, found: Found, now: Instant) {
        let Found { key, id, number, seq, at, fingerprint } = found;
        if !self.accepted.contains_key(&(key.from, key.client_id.clone())) {
            let accepted = Accepted { id, number, seq, at, fingerprint, remembered: now };
            self.remember(key.from, key.client_id, accepted);
        }
    }

    /// What memory says of a message, confirmed or not. Whether its time is over only the store knows.
    pub(super) fn message(&self, number: Number) -> Known {
        if number == 0 || number > self.head.number {
            return Known::Never;
        }
        for kept in self.kept.iter().rev() {
            match &kept.change.what {
                What::Erased { number: erased } if *erased == number => {
                    return Known::Erased(kept.change.seq);
                }
                What::Edited { message } if message.number == number => {
                    return Known::Message(message.clone());
                }
                What::Sent { number: sent, .. } if *sent == number => {
                    return kept
                        .change
                        .message()
                        .map_or(Known::InStore, |message| Known::Message(Box::new(message)));
                }
                _ => {}
            }
        }
        Known::InStore
    }

    /// Who wrote a message, if memory has anything that says so.
    pub(super) fn author(&self, number: Number) -> Option<UserId> {
        self.kept.iter().rev().find_map(|kept| match &kept.change.what {
            What::Sent { number: sent, .. } if *sent == number => Some(kept.change.by),
            What::Edited { message } if message.number == number => Some(message.from),
            _ => None,
        })
    }

    /// A message, as the store or a change has it, with what it is answered with by now.
    pub(super) fn with_reactions(&self, mut message: Message) -> Message {
        let newest = self.kept.iter().rev().find_map(|kept| match &kept.change.what {
            What::Reacted { number, reactions, .. } if *number == message.number => Some(reactions),
            // An edited message has those that it had then.
            What::Edited { message: edited } if edited.number == message.number => Some(&edited.reactions),
            _ => None,
        });
        if let Some(newest) = newest {
            message.reactions.clone_from(newest);
        }
        message
    }

    /// Whether `user` answers a message with `emoji`, as far as memory knows; none: the store does.
    pub(super) fn reacts(&self, number: Number, user: UserId, emoji: &str) -> Option<bool> {
        self.kept.iter().rev().find_map(|kept| match &kept.change.what {
            What::Reacted { number: of, emoji: with, on, .. }
                if *of == number && kept.change.by == user && with == emoji =>
            {
                Some(*on)
            }
            // Before that there was nothing to answer.
            What::Sent { number: sent, .. } if *sent == number => Some(false),
            _ => None,
        })
    }

    /// Where the change `seq` stands, if memory has it.
    pub(super) fn offset_of(&self, seq: Seq) -> Option<Offset> {
        let first = self.kept.front()?.change.seq;
        let place = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.kept.get(place).map(|kept| kept.offset)
    }

    /// The confirmed changes that the store may lack, oldest first.
    pub(super) fn undrained(&self, drained: Offset) -> impl DoubleEndedIterator<Item = &Kept> {
        let confirmed = self.confirmed.seq;
        self.kept.iter().filter(move |kept| kept.offset >= drained && kept.change.seq <= confirmed)
    }

    /// Every undrained change, confirmed or not.
    pub(super) fn has_undrained(&self, drained: Offset) -> bool {
        self.kept.back().is_some_and(|kept| kept.offset >= drained)
    }

    /// The confirmed changes after `after`, oldest first; none when memory does not reach back that far.
    pub(super) fn changes_after(&self, after: Seq) -> Option<impl Iterator<Item = &Kept>> {
        let first = self.kept.front().map_or(self.head.seq + 1, |kept| kept.change.seq);
        let confirmed = self.confirmed.seq;
        (after + 1 >= first).then(|| {
            self.kept.iter().filter(move |kept| kept.change.seq > after && kept.change.seq <= confirmed)
        })
    }

    /// Forgets what no longer needs to be held: drained changes but the newest `keep`, and old client ids.
    pub(super) fn forget(&mut self, drained: Offset, keep: usize, now: Instant) {
        let first_undrained = self.kept.partition_point(|kept| kept.offset < drained);
        for _ in keep..first_undrained {
            if let Some(kept) = self.kept.pop_front() {
                self.kept_bytes -= kept.payload.len();
            }
        }
        if self.membership_offset.is_some_and(|offset| offset < drained) {
            self.membership_offset = None;
        }
        let first_undrained =
            self.kept.iter().find(|kept| kept.offset >= drained).map_or(Seq::MAX, |kept| kept.change.seq);
        while let Some((at, seq, ..)) = self.forget.front() {
            if now.duration_since(*at) < REPEAT_MEMORY || *seq >= first_undrained {
                break;
            }
            if let Some((at, _, from, client_id)) = self.forget.pop_front() {
                self.knows_every_name = false;
                let name = (from, client_id);
                if self.accepted.get(&name).is_some_and(|accepted| accepted.remembered == at) {
                    self.accepted.remove(&name);
                }
            }
        }
    }

    /// Whether the chat may leave memory: nothing in it but what the store has, and unused for longer than repeats are remembered, and than
    /// `rates_kept` while somebody has written so fast that it still counts.
    pub(super) fn idle(&self, drained: Offset, now: Instant, rates_kept: Duration) -> bool {
        let unused = now.duration_since(self.last_used);
        self.confirmed == self.head
            && !self.has_undrained(drained)
            && unused > REPEAT_MEMORY + REPEAT_MEMORY
            && (self.rates.are_full() || unused > rates_kept)
    }

    /// Members who came and went in undrained changes, by the change: what is announced once it is stored.
    pub(super) fn undrained_memberships(&self, drained: Offset) -> BTreeMap<Offset, Arc<Change>> {
        let kept = self.kept.iter().filter(|kept| kept.offset >= drained && kept.change.of_membership());
        kept.map(|kept| (kept.offset, Arc::clone(&kept.change))).collect()
    }
}
