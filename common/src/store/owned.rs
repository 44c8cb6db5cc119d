//! What owners of chats look up, and by what they know a request that is made again.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;

use super::{Position, Result};
use crate::{
    applications::Retention,
    ids::{AppId, ChatKey, ClientId, MessageId, Number, Offset, Partition, Seq, UserId},
    model::{ChatKind, Head, Message, Role},
    time::Millis,
};

/// A chat as its owner takes it up: all that deciding needs, read at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRow {
    /// The chat.
    pub key: ChatKey,
    /// Direct or group.
    pub kind: ChatKind,
    /// The group's name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// How long its messages are kept; none: as its application has it.
    pub retention: Option<Retention>,
    /// Who made it.
    pub created_by: UserId,
    /// How far it is, as stored.
    pub head: Head,
    /// Messages up to here are past their time ([`Expire`](super::Expire)).
    pub expired: Number,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Its members in order of joining.
    pub members: Vec<MemberRow>,
    /// Of the request that made it, as its record has it; of a group it is [`group_fingerprint`].
    pub request: Option<Fingerprint>,
    /// How many records of its making the store has: the first, and each that brought more first members.
    pub makings: u64,
}

/// A member as the owner knows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// The user.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
    /// The change that let them in.
    pub joined_seq: Seq,
}

/// What names a send: the same three, the same message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SendKey {
    /// The chat.
    pub chat: ChatKey,
    /// The sender.
    pub from: UserId,
    /// The name its client gave it.
    pub client_id: ClientId,
}

/// An answer, and how far the store was with the log when it was read.
///
/// Positions only grow, unless the store was put back to what it was earlier (a backup). Whoever has seen a later position than the one of
/// an answer knows from it that what is missing may be in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf<T> {
    /// The position of each partition that has one: everything before it was there to be read.
    pub offsets: Arc<HashMap<Partition, Offset>>,
    /// What was read.
    pub answer: T,
}

impl<T> AsOf<T> {
    /// What was read together with these positions.
    pub fn new(positions: Vec<(Partition, Position)>, answer: T) -> Self {
        let offsets = positions.into_iter().map(|(partition, position)| (partition, position.offset));
        Self { offsets: Arc::new(offsets.collect()), answer }
    }

    /// How far a partition was drained.
    pub fn offset(&self, partition: Partition) -> Offset {
        self.offsets.get(&partition).copied().unwrap_or_default()
    }

    /// Another answer that was read at the same time.
    pub fn with<U>(&self, answer: U) -> AsOf<U> {
        AsOf { offsets: Arc::clone(&self.offsets), answer }
    }
}

/// What owners look up.
#[async_trait]
pub trait Owned: Send + Sync {
    /// Those of `chats` that the store knows, deleted ones included, in no order; each read at one instant. One query for many.
    async fn load(&self, chats: &[ChatKey]) -> Result<AsOf<Vec<ChatRow>>>;

    /// The messages that were sent under these names, of several under one name the first. Deleted ones are found too. One query for many. With each the
    /// fingerprint of what was sent ([`fingerprint`]), which an edit does not change.
    async fn find_sent(&self, keys: &[SendKey]) -> Result<AsOf<Vec<Found>>>;

    /// One message as it stands.
    async fn message(&self, chat: ChatKey, number: Number) -> Result<AsOf<Option<Message>>>;

    /// One message as it stands, and whether `user` answers it with `emoji`.
    async fn reaction(
        &self,
        chat: ChatKey,
        number: Number,
        user: UserId,
        emoji: &str,
    ) -> Result<AsOf<Option<(Message, bool)>>>;

    /// Those of these users of one application (each once, at most one more than a chat has members) who are in `most` chats or more, in
    /// no order. `most` is at least 1. One query for all of them, which looks at no more than `most` memberships of each.
    async fn with_chats(&self, app: AppId, users: &[UserId], most: u64) -> Result<Vec<UserId>>;
}

/// A message found by its sender's name for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name.
    pub key: SendKey,
    /// Its id.
    pub id: MessageId,
    /// Its number.
    pub number: Number,
    /// The change that wrote it.
    pub seq: Seq,
    /// When it was accepted.
    pub at: Millis,
    /// Of what was sent.
    pub fingerprint: Fingerprint,
}

/// Tells two bodies under one client id apart without keeping them.
pub type Fingerprint = u64;

/// The fingerprint of what a client sent: body, kind, reply and attachments, by the stable hash of [`crate::partition`].
pub fn fingerprint(
    body: &str,
    kind: crate::model::MessageKind,
    reply_to: Option<Number>,
    attachments: &[String],
) -> Fingerprint {
    let reply_to = reply_to.unwrap_or(0).to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![body.as_bytes(), &[0xff], kind.word().as_bytes(), &reply_to];
    for attachment in attachments {
        parts.push(attachment.as_bytes());
        parts.push(&[0xff]);
    }
    crate::partition::stable_hash(&parts)
}

/// The fingerprint of a request that makes a group: its name, what it is for, who is in it besides its maker (in any order), and its first
/// message's text.
pub fn group_fingerprint(
    name: Option<&str>,
    description: Option<&str>,
    members: &[UserId],
    first: Option<&str>,
) -> Fingerprint {
    let mut members: Vec<&UserId> = members.iter().collect();
    members.sort_unstable();
    members.dedup();
    let texts = [name, description, first];
    // What is absent has a length that no text has; lengths keep two lists of texts with the same bytes apart.
    let lengths = texts.map(|text| text.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
    let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * texts.len() + members.len());
    for (length, text) in lengths.iter().zip(texts) {
        parts.push(length);
        parts.push(text.unwrap_or_default().as_bytes());
    }
    parts.extend(members.into_iter().map(|member| member.as_bytes().as_slice()));
    crate::partition::stable_hash(&parts)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn two_requests_for_a_group_are_told_apart_by_whatever_differs_but_the_order_of_members() {
        let (ana, ben, cleo) =
            (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)), UserId(Uuid::from_u128(3)));
        let one = group_fingerprint(Some("ab"), Some("c"), &[ana, ben], Some("d"));
        assert_eq!(one, group_fingerprint(Some("ab"), Some("c"), &[ben, ana], Some("d")));
        // Kept in the log and in the store: the same in every version.
        assert_eq!(one, 4_240_549_260_800_953_680);
        let others = [
            group_fingerprint(Some("a"), Some("bc"), &[ana, ben], Some("d")),
            group_fingerprint(None, Some("c"), &[ana, ben], Some("d")),
            group_fingerprint(Some("ab"), Some(""), &[ana, ben], Some("d")),
            group_fingerprint(Some("ab"), None, &[ana, ben], Some("d")),
            group_fingerprint(Some("ab"), Some("c"), &[ana, cleo], Some("d")),
            group_fingerprint(Some("ab"), Some("c"), &[ana], Some("d")),
            group_fingerprint(Some("ab"), Some("c"), &[ana, ben, cleo], Some("d")),
            group_fingerprint(Some("ab"), Some("c"), &[ana, ben], None),
            group_fingerprint(Some("ab"), Some("c"), &[ana, ben], Some("e")),
        ];
        assert!(!others.contains(&one));
    }
}
