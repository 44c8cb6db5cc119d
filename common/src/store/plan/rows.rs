//! What a plan rests on, and what it is: rows of no engine's in particular, which every engine reads and writes as its own.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::{
    applications::Retention,
    ids::{ChatKey, ClientId, MessageId, Number, Offset, Partition, Seq, UserId},
    model::{ChatKind, Head, MessageKind, Reaction, Role},
    store::Fingerprint,
    time::Millis,
};

/// What a plan rests on: each key once.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Their heads.
    pub(crate) chats: BTreeSet<ChatKey>,
    /// Whether they are members.
    pub(crate) members: BTreeSet<(ChatKey, UserId)>,
    /// Whether they exist and are deleted.
    pub(crate) messages: BTreeSet<(ChatKey, Number)>,
}

impl Needs {
    /// These and those.
    #[cfg(feature = "servers")]
    pub(crate) fn join(&mut self, other: Self) {
        self.chats.extend(other.chats);
        self.members.extend(other.members);
        self.messages.extend(other.messages);
    }
}

/// What of it the store has.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) chats: HashMap<ChatKey, KnownChat>,
    pub(crate) members: HashSet<(ChatKey, UserId)>,
    /// With each whether it is deleted.
    pub(crate) messages: HashMap<(ChatKey, Number), bool>,
}

/// A chat's row, as far as a plan needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownChat {
    pub(crate) head: Head,
    pub(crate) active_at: Millis,
    pub(crate) members: u64,
    pub(crate) deleted: bool,
    /// Messages up to here are past their time.
    pub(crate) expired: Number,
}

/// Rows to write, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// New chats and chats that moved, in the order of the log: new ones are numbered in it.
    pub(crate) chats: Vec<ChatWrite<'a>>,
    pub(crate) messages: Vec<NewMessage<'a>>,
    /// Messages that were there before the batch.
    pub(crate) rewritten: Vec<Rewrite<'a>>,
    /// Messages that were there before the batch and are deleted by it: nobody reacts to them or is mentioned in them any more.
    pub(crate) cleared: Vec<(ChatKey, Number)>,
    /// Reactions that stand from now on, or no more.
    pub(crate) reacted: Vec<Reacted<'a>>,
    /// What messages are answered with from now on, in all.
    pub(crate) answered: Vec<Answered<'a>>,
    /// Mentions by name.
    pub(crate) mentioned: Vec<Mentioned>,
    /// Messages that mention everybody.
    pub(crate) mentioned_all: Vec<(ChatKey, Number)>,
    /// Members to remove; some of them come in again.
    pub(crate) left: Vec<Gone>,
    pub(crate) joined: Vec<NewMember>,
    pub(crate) roles: Vec<NewRole>,
    /// Senders have read their own messages. Only who is still a member has a mark.
    pub(crate) read: Vec<ReadMark>,
    /// Chats that were deleted: their members no longer list them. With the position that the batch leads to.
    pub(crate) deleted: Vec<(ChatKey, Offset)>,
    /// Ends of segments of the search index that can be made from now on.
    pub(crate) search_due: Vec<(ChatKey, Number)>,
    /// Messages of which that index says something else from now on, or may.
    pub(crate) search_changes: Vec<SearchChange>,
    /// The first new message of each chat that has one: somebody may have to be notified of it.
    pub(crate) unnotified: Vec<Unnotified>,
}

impl Plan<'_> {
    /// This plan and then the other, which is about other chats.
    #[cfg(feature = "servers")]
    pub(crate) fn join(&mut self, other: Self) {
        self.chats.extend(other.chats);
        self.messages.extend(other.messages);
        self.rewritten.extend(other.rewritten);
        self.cleared.extend(other.cleared);
        self.reacted.extend(other.reacted);
        self.answered.extend(other.answered);
        self.mentioned.extend(other.mentioned);
        self.mentioned_all.extend(other.mentioned_all);
        self.left.extend(other.left);
        self.joined.extend(other.joined);
        self.roles.extend(other.roles);
        self.read.extend(other.read);
        self.deleted.extend(other.deleted);
        self.search_due.extend(other.search_due);
        self.search_changes.extend(other.search_changes);
        self.unnotified.extend(other.unnotified);
    }
}

#[derive(Debug)]
pub(crate) struct ChatWrite<'a> {
    pub(crate) key: ChatKey,
    pub(crate) head: Head,
    /// The position that the batch leads to.
    pub(crate) head_upto: Offset,
    pub(crate) active_at: Millis,
    pub(crate) members: u64,
    pub(crate) deleted: bool,
    /// Records of its making in this batch.
    pub(crate) makings: u64,
    /// The new one; none leaves what is there.
    pub(crate) name: Option<&'a str>,
    pub(crate) description: Option<&'a str>,
    pub(crate) retention: Option<Retention>,
    /// Set when the batch made it.
    pub(crate) made: Option<Made>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) kind: ChatKind,
    pub(crate) by: UserId,
    pub(crate) at: Millis,
    pub(crate) request: Option<Fingerprint>,
}

#[derive(Debug)]
pub(crate) struct NewMessage<'a> {
    pub(crate) key: ChatKey,
    pub(crate) number: Number,
    pub(crate) id: MessageId,
    pub(crate) seq: Seq,
    pub(crate) from: UserId,
    pub(crate) at: Millis,
    pub(crate) client_id: Option<&'a ClientId>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) text: Text<'a>,
    pub(crate) mentions: &'a [UserId],
    pub(crate) mention_all: bool,
}

/// One member's answer to a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reacted<'a> {
    pub(crate) key: ChatKey,
    pub(crate) number: Number,
    pub(crate) emoji: &'a str,
    pub(crate) user: UserId,
    pub(crate) on: bool,
}

/// What a message is answered with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered<'a> {
    pub(crate) key: ChatKey,
    pub(crate) number: Number,
    pub(crate) reactions: &'a [Reaction],
}

/// A member is mentioned by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mentioned {
    pub(crate) key: ChatKey,
    pub(crate) user: UserId,
    pub(crate) number: Number,
}

/// What of a message may change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) body: &'a str,
    pub(crate) kind: MessageKind,
    pub(crate) reply_to: Option<Number>,
    pub(crate) attachments: &'a [String],
    pub(crate) edited_at: Option<Millis>,
    pub(crate) deleted: bool,
}

impl Text<'_> {
    pub(super) fn erased(self) -> Self {
        Self { body: "", attachments: &[], deleted: true, ..self }
    }
}

#[derive(Debug)]
pub(crate) struct Rewrite<'a> {
    pub(crate) key: ChatKey,
    pub(crate) number: Number,
    /// None: it is deleted, keeps nothing that was said, and all else as it is.
    pub(crate) text: Option<Text<'a>>,
}

#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) key: ChatKey,
    pub(crate) user: UserId,
    /// The position that the batch leads to.
    pub(crate) left_upto: Offset,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct NewMember {
    pub(crate) key: ChatKey,
    pub(crate) user: UserId,
    pub(crate) role: Role,
    pub(crate) joined_at: Millis,
    pub(crate) joined_seq: Seq,
    /// Among those whom the same change let in.
    pub(crate) place: u32,
    /// The chat's newest message then.
    pub(crate) joined_number: Number,
    /// The position that the batch leads to.
    pub(crate) joined_upto: Offset,
}

#[derive(Debug)]
pub(crate) struct NewRole {
    pub(crate) key: ChatKey,
    pub(crate) user: UserId,
    pub(crate) role: Role,
}

#[derive(Debug)]
pub(crate) struct ReadMark {
    pub(crate) key: ChatKey,
    pub(crate) user: UserId,
    pub(crate) number: Number,
}

/// A message that the search index has, or will have in what is due already, was edited or deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SearchChange {
    pub(crate) key: ChatKey,
    pub(crate) number: Number,
    /// The last change of it.
    pub(crate) seq: Seq,
    pub(crate) at: Millis,
}

/// A message of which nobody was notified yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unnotified {
    pub(crate) key: ChatKey,
    pub(crate) partition: Partition,
    pub(crate) number: Number,
    pub(crate) at: Millis,
}
