//! What a batch of valid changes does to the rows: pure, and the same for every engine.
//!
//! An engine asks [`needs`] what to read, reads it inside the transaction, and writes what [`plan`] answers: in the order of
//! [`Plan`]'s fields, each chat, member and message at most once. Nothing here decides whether a change is allowed, for
//! its chat's owner did: but each must follow what is stored, and one that does not is [`Refused::Broken`].

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub(crate) use self::rows::{
    Answered, ChatWrite, Gone, Known, KnownChat, Made, Mentioned, Needs, NewMember, NewMessage, NewRole,
    Plan, Reacted, ReadMark, Rewrite, SearchChange, Text, Unnotified,
};
use super::{PartitionBatch, Refused, fingerprint};
use crate::{
    ids::{ChatKey, Number, Offset, Partition, Seq, UserId},
    model::{Head, Reaction, Role},
    search::segment,
    time::Millis,
    wire::record::{Change, What},
};

/// What must be read before these changes can be planned.
pub(crate) fn needs(changes: &[Change]) -> Needs {
    let mut needs = Needs::default();
    // What the batch itself makes, nobody has to read.
    let mut made = HashSet::new();
    let mut sent = HashSet::new();
    for change in changes {
        let key = change.key();
        needs.chats.insert(key);
        match &change.what {
            What::Created { .. } => {
                made.insert(key);
            }
            What::Sent { number, .. } => {
                sent.insert((key, *number));
            }
            What::Members { members } if !made.contains(&key) => {
                needs.members.extend(members.iter().map(|(user, _)| (key, *user)));
            }
            What::Joined { user, .. } if !made.contains(&key) => {
                needs.members.insert((key, *user));
            }
            What::Left { user, heir } if !made.contains(&key) => {
                needs.members.extend([Some(*user), *heir].into_iter().flatten().map(|user| (key, user)));
            }
            What::Roles { roles } if !made.contains(&key) => {
                needs.members.extend(roles.iter().map(|(user, _)| (key, *user)));
            }
            What::Edited { message } if !sent.contains(&(key, message.number)) => {
                needs.messages.insert((key, message.number));
            }
            What::Erased { number } | What::Reacted { number, .. } if !sent.contains(&(key, *number)) => {
                needs.messages.insert((key, *number));
            }
            _ => {}
        }
    }
    needs
}

/// What a batch's changes, in the order of the log, do to the rows.
///
/// # Errors
/// [`Refused::Broken`] with the first change that does not follow.
pub(crate) fn plan<'a>(batch: &'a PartitionBatch, known: &Known) -> Result<Plan<'a>, Refused> {
    let mut planner = Planner {
        known,
        partition: batch.partition,
        upto: batch.next.offset,
        plan: Plan::default(),
        chats: HashMap::new(),
        messages: HashMap::new(),
        members: BTreeMap::new(),
        read: BTreeMap::new(),
        rewritten: BTreeMap::new(),
        cleared: BTreeSet::new(),
        reacted: BTreeMap::new(),
        answered: BTreeMap::new(),
        changed: BTreeMap::new(),
    };
    for change in &batch.changes {
        planner.take(change).map_err(|why| Refused::Broken { chat: change.key(), seq: change.seq, why })?;
    }
    Ok(planner.finish())
}

struct Planner<'a, 'k> {
    known: &'k Known,
    partition: Partition,
    /// The position that the batch leads to.
    upto: Offset,
    plan: Plan<'a>,
    /// Places in `plan.chats`.
    chats: HashMap<ChatKey, usize>,
    /// Places in `plan.messages`.
    messages: HashMap<(ChatKey, Number), usize>,
    members: BTreeMap<(ChatKey, UserId), Fate>,
    read: BTreeMap<(ChatKey, UserId), Number>,
    rewritten: BTreeMap<(ChatKey, Number), Option<Text<'a>>>,
    cleared: BTreeSet<(ChatKey, Number)>,
    /// Whether it stands, by message, emoji and member.
    reacted: BTreeMap<(ChatKey, Number, &'a str, UserId), bool>,
    answered: BTreeMap<(ChatKey, Number), &'a [Reaction]>,
    /// When messages that were there before were edited or deleted last.
    changed: BTreeMap<(ChatKey, Number), (Seq, Millis)>,
}

/// What became of a membership.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// As stored, maybe with another role.
    Stays(Option<Role>),
    Out,
    /// `again`: the store has an older row.
    In {
        member: NewMember,
        again: bool,
    },
    /// Came and went within the batch.
    Never,
}

impl<'a> Planner<'a, '_> {
    fn take(&mut self, change: &'a Change) -> Result<(), String> {
        let key = change.key();
        if let What::Created { kind, name, description, request, .. } = &change.what {
            if self.chat(key).is_some() {
                return Err("the chat is known already".to_owned());
            }
            self.chats.insert(key, self.plan.chats.len());
            self.plan.chats.push(ChatWrite {
                key,
                head: Head::default(),
                head_upto: self.upto,
                active_at: change.at,
                members: 0,
                deleted: false,
                makings: 0,
                name: name.as_deref(),
                description: description.as_deref(),
                retention: None,
                made: Some(Made { kind: *kind, by: change.by, at: change.at, request: *request }),
            });
        }
        let chat = self.chat(key).ok_or("the chat is not known")?;
        if chat.deleted {
            return Err("the chat was deleted".to_owned());
        }
        let next = chat.head.seq.saturating_add(1);
        if change.seq != next {
            return Err(format!("change {next} must be next"));
        }
        chat.head.seq = next;
        let newest = chat.head.number;
        match &change.what {
            What::Created { members, .. } | What::Members { members } => {
                chat.makings = chat.makings.saturating_add(1);
                for (place, (user, role)) in (0..).zip(members) {
                    self.join(change, *user, *role, place, newest)?;
                }
            }
            What::Joined { user, role } => self.join(change, *user, *role, 0, newest)?,
            What::Left { user, heir } => {
                self.leave(key, *user)?;
                if let Some(heir) = heir {
                    self.promote(key, *heir, Role::Owner)?;
                }
            }
            What::Roles { roles } => {
                for (user, role) in roles {
                    self.promote(key, *user, *role)?;
                }
            }
            What::Updated { name, description, retention } => {
                chat.name = name.as_deref().or(chat.name);
                chat.description = description.as_deref().or(chat.description);
                chat.retention = retention.or(chat.retention);
            }
            What::Deleted => {
                chat.deleted = true;
                self.plan.deleted.push((key, self.upto));
            }
            What::Sent {
                id,
                number,
                client_id,
                body,
                kind,
                reply_to,
                attachments,
                mentions,
                mention_all,
                sent_as,
            } => {
                let next = newest.saturating_add(1);
                if *number != next {
                    return Err(format!("message {number} was written where message {next} must be next"));
                }
                chat.head.number = next;
                chat.active_at = chat.active_at.max(change.at);
                self.messages.insert((key, next), self.plan.messages.len());
                self.plan.messages.push(NewMessage {
                    key,
                    number: next,
                    id: *id,
                    seq: change.seq,
                    from: change.by,
                    at: change.at,
                    client_id: client_id.as_ref(),
                    fingerprint: sent_as.unwrap_or_else(|| fingerprint(body, *kind, *reply_to, attachments)),
                    text: Text {
                        body,
                        kind: *kind,
                        reply_to: *reply_to,
                        attachments,
                        edited_at: None,
                        deleted: false,
                    },
                    mentions,
                    mention_all: *mention_all,
                });
                self.read.insert((key, change.by), next);
            }
            // Its time was over before this was written down.
            What::Edited { message } if self.is_expired(key, message.number) => {}
            What::Reacted { number, .. } | What::Erased { number } if self.is_expired(key, *number) => {}
            What::Edited { message } => {
                let text = Text {
                    body: &message.body,
                    kind: message.kind,
                    reply_to: message.reply_to,
                    attachments: &message.attachments,
                    edited_at: message.edited_at,
                    deleted: false,
                };
                if self.is_deleted(key, message.number)? {
                    return Err(format!("message {} was deleted, and is edited", message.number));
                }
                self.rewrite(key, message.number, Some(text));
                self.changed.insert((key, message.number), (change.seq, change.at));
            }
            What::Reacted { number, emoji, on, reactions } => {
                if self.is_deleted(key, *number)? {
                    return Err(format!("message {number} was deleted, and is answered"));
                }
                self.reacted.insert((key, *number, emoji.as_str(), change.by), *on);
                self.answered.insert((key, *number), reactions);
            }
            What::Erased { number } => {
                if !self.is_deleted(key, *number)? {
                    self.rewrite(key, *number, None);
                    self.clear(key, *number);
                    self.changed.insert((key, *number), (change.seq, change.at));
                }
            }
        }
        Ok(())
    }

    fn chat(&mut self, key: ChatKey) -> Option<&mut ChatWrite<'a>> {
        let place = match self.chats.get(&key) {
            Some(place) => *place,
            None => {
                let known = self.known.chats.get(&key)?;
                let place = self.plan.chats.len();
                self.plan.chats.push(ChatWrite {
                    key,
                    head: known.head,
                    head_upto: self.upto,
                    active_at: known.active_at,
                    members: known.members,
                    deleted: known.deleted,
                    makings: 0,
                    name: None,
                    description: None,
                    retention: None,
                    made: None,
                });
                self.chats.insert(key, place);
                place
            }
        };
        self.plan.chats.get_mut(place)
    }

    fn fate(&self, key: ChatKey, user: UserId) -> Fate {
        let stored =
            || if self.known.members.contains(&(key, user)) { Fate::Stays(None) } else { Fate::Never };
        self.members.get(&(key, user)).copied().unwrap_or_else(stored)
    }

    fn join(
        &mut self,
        change: &Change,
        user: UserId,
        role: Role,
        place: u32,
        joined_number: Number,
    ) -> Result<(), String> {
        let key = change.key();
        let again = match self.fate(key, user) {
            Fate::Never => false,
            Fate::Out => true,
            Fate::Stays(_) | Fate::In { .. } => {
                return Err(format!("user {user} comes in, and is a member already"));
            }
        };
        let member = NewMember {
            key,
            user,
            role,
            joined_at: change.at,
            joined_seq: change.seq,
            place,
            joined_number,
            joined_upto: self.upto,
        };
        self.members.insert((key, user), Fate::In { member, again });
        if let Some(chat) = self.chat(key) {
            chat.members = chat.members.saturating_add(1);
        }
        Ok(())
    }

    fn leave(&mut self, key: ChatKey, user: UserId) -> Result<(), String> {
        let fate = match self.fate(key, user) {
            Fate::Stays(_) | Fate::In { again: true, .. } => Fate::Out,
            Fate::In { again: false, .. } => Fate::Never,
            Fate::Out | Fate::Never => return Err(format!("user {user} leaves, and is no member")),
        };
        self.members.insert((key, user), fate);
        // What was read before is read no longer, should the user come again.
        self.read.remove(&(key, user));
        if let Some(chat) = self.chat(key) {
            chat.members = chat.members.saturating_sub(1);
        }
        Ok(())
    }

    fn promote(&mut self, key: ChatKey, user: UserId, role: Role) -> Result<(), String> {
        let fate = match self.fate(key, user) {
            Fate::Stays(_) => Fate::Stays(Some(role)),
            Fate::In { member, again } => Fate::In { member: NewMember { role, ..member }, again },
            Fate::Out | Fate::Never => return Err(format!("user {user} is given a role, and is no member")),
        };
        self.members.insert((key, user), fate);
        Ok(())
    }

    fn is_expired(&self, key: ChatKey, number: Number) -> bool {
        self.known.chats.get(&key).is_some_and(|chat| number <= chat.expired)
    }

    fn is_deleted(&self, key: ChatKey, number: Number) -> Result<bool, String> {
        if let Some(message) =
            self.messages.get(&(key, number)).and_then(|place| self.plan.messages.get(*place))
        {
            return Ok(message.text.deleted);
        }
        if let Some(text) = self.rewritten.get(&(key, number)) {
            return Ok(text.is_none_or(|text| text.deleted));
        }
        self.known
            .messages
            .get(&(key, number))
            .copied()
            .ok_or_else(|| format!("message {number} is changed, and is not there"))
    }

    /// `text`: none when the message is deleted.
    fn rewrite(&mut self, key: ChatKey, number: Number, text: Option<Text<'a>>) {
        let place = self.messages.get(&(key, number));
        match place.and_then(|place| self.plan.messages.get_mut(*place)) {
            Some(message) => message.text = text.unwrap_or(message.text.erased()),
            None => {
                let before = self.rewritten.get(&(key, number)).copied().flatten();
                self.rewritten.insert((key, number), text.or(before.map(Text::erased)));
            }
        }
    }

    /// A deleted message has no answers and mentions nobody.
    fn clear(&mut self, key: ChatKey, number: Number) {
        self.answered.remove(&(key, number));
        self.reacted.retain(|(of, at, ..), _| (*of, *at) != (key, number));
        let place = self.messages.get(&(key, number));
        match place.and_then(|place| self.plan.messages.get_mut(*place)) {
            Some(message) => (message.mentions, message.mention_all) = (&[], false),
            None => drop(self.cleared.insert((key, number))),
        }
    }

    /// What becomes of the search index.
    fn index(&mut self) {
        for chat in &self.plan.chats {
            let before = self.known.chats.get(&chat.key).map_or(0, |known| known.head.number);
            let due = segment::due(before, chat.head.number);
            self.plan.search_due.extend(due.map(|upto| (chat.key, upto)));
        }
        // Those that the batch itself has brought are in no segment yet, and come into one as they are.
        let changed = std::mem::take(&mut self.changed);
        for ((key, number), (seq, at)) in changed {
            let head =
                self.chats.get(&key).and_then(|place| self.plan.chats.get(*place)).map(|chat| chat.head);
            let indexed = head.is_some_and(|head| number <= segment::indexed(head.number));
            if indexed && !self.messages.contains_key(&(key, number)) {
                self.plan.search_changes.push(SearchChange { key, number, seq, at });
            }
        }
    }

    /// Who is not there may have to be notified.
    fn notify(&mut self) {
        let mut begun = HashSet::new();
        for NewMessage { key, number, at, .. } in &self.plan.messages {
            let deleted = self
                .chats
                .get(key)
                .and_then(|place| self.plan.chats.get(*place))
                .is_some_and(|chat| chat.deleted);
            if begun.insert(*key) && !deleted {
                let (key, number, at) = (*key, *number, *at);
                self.plan.unnotified.push(Unnotified { key, partition: self.partition, number, at });
            }
        }
    }

    fn finish(mut self) -> Plan<'a> {
        self.index();
        self.notify();
        for message in &self.plan.messages {
            let NewMessage { key, number, mentions, mention_all, .. } = *message;
            if mention_all {
                self.plan.mentioned_all.push((key, number));
            } else {
                // Each once, whatever the record says: a row that does not fit would stop the partition.
                let named: BTreeSet<UserId> = mentions.iter().copied().collect();
                self.plan.mentioned.extend(named.into_iter().map(|user| Mentioned { key, user, number }));
            }
        }
        self.plan.cleared = self.cleared.into_iter().collect();
        let reacted = self.reacted.into_iter();
        self.plan.reacted = reacted
            .map(|((key, number, emoji, user), on)| Reacted { key, number, emoji, user, on })
            .collect();
        let answered = self.answered.into_iter();
        self.plan.answered =
            answered.map(|((key, number), reactions)| Answered { key, number, reactions }).collect();
        for ((key, user), fate) in self.members {
            match fate {
                Fate::Never | Fate::Stays(None) => {}
                Fate::Stays(Some(role)) => self.plan.roles.push(NewRole { key, user, role }),
                Fate::Out => self.plan.left.push(Gone { key, user, left_upto: self.upto }),
                Fate::In { member, again } => {
                    if again {
                        self.plan.left.push(Gone { key, user, left_upto: self.upto });
                    }
                    self.plan.joined.push(member);
                }
            }
        }
        self.plan.read =
            self.read.into_iter().map(|((key, user), number)| ReadMark { key, user, number }).collect();
        self.plan.rewritten =
            self.rewritten.into_iter().map(|((key, number), text)| Rewrite { key, number, text }).collect();
        self.plan
    }
}
