//! What nodes and dispatchers say to each other over a link.
//!
//! The link delivers in order, once, and resends after a break; so these frames need no acknowledgement of their own. What a
//! request or a live event holds is opaque here ([`super::owner`], [`Live`]): a dispatcher reads addresses only.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{
        AppId, ChatId, ChatKey, Incarnation, NodeId, Number, Partition, Seq, SessionId, SocketId, UserId,
        UserKey,
    },
    time::Millis,
};

/// How many topics a node may register with a dispatcher: those of 20,000 sockets, the most a node takes unless told otherwise, whose users
/// are in 49 chats each that nobody else on the node is in. About 150 bytes each at the dispatcher: 150 MB for a full node. A node keeps to
/// it itself and turns the next session away; a dispatcher refuses what is beyond it.
pub const TOPICS_PER_NODE: usize = 1_000_000;

/// From a node to a dispatcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeToDispatcher {
    /// The first frame of a link: who the node is. The link's certificate has proved the name.
    Register {
        /// This life of it.
        incarnation: Incarnation,
        /// Where clients open sockets: `ws://host:port` or `wss://…`, without a path.
        socket_url: String,
        /// Where the gateway sends REST requests: `http://host:port`.
        http_url: String,
        /// How many sockets it takes.
        capacity: u32,
        /// The partitions that the last placement it heard names it for: a dispatcher that has just started learns from them who may still
        /// serve what.
        #[serde(default)]
        holds: Vec<Partition>,
        /// The epoch of that placement, 0 before the first: only one above it counts for the node.
        #[serde(default)]
        epoch: u64,
    },
    /// Renews the lease, each second.
    Heartbeat {
        /// Counts up; the echo repeats it.
        no: u64,
        /// Open sockets.
        sockets: u32,
    },
    /// The node is about to stop: nobody is to be sent there any more, and its partitions are to be others'. It serves what it has until
    /// `Leave`, and keeps its lease.
    Leaving,
    /// The node stops: it is to be taken out now.
    Leave,
    /// The topics that the node has sessions for have changed.
    Interest {
        /// Counts up; the answer repeats it.
        no: u64,
        /// First in.
        add: Vec<Topic>,
        /// Last out.
        remove: Vec<Topic>,
    },
    /// A request to the owner of a partition.
    Request {
        /// Chosen by the asking node; its answer repeats it.
        id: u64,
        /// Whose owner.
        partition: Partition,
        /// Past this moment (the dispatcher's clock) the owner refuses it.
        deadline: Millis,
        /// An [`super::owner::OwnerRequest`].
        body: Bytes,
    },
    /// An owner's answer.
    Response {
        /// Who asked.
        to: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
        /// Which request.
        id: u64,
        /// An [`super::owner::Answer`].
        body: Bytes,
    },
    /// Live events of this node were dropped on the way to the dispatcher: every other node is to be sent `Gap`.
    Lost,
    /// A live event, for every other node that has sessions for one of the topics.
    Publish {
        /// Whom it concerns.
        topics: Vec<Topic>,
        /// A [`Live`].
        body: Bytes,
    },
    /// How far the partitions are that the node owns, for every other node. Sent behind the live events it speaks of.
    Marks {
        /// A list of [`super::marks::Mark`].
        body: Bytes,
    },
    /// The node has taken note of every placement up to this one, and has given up every partition that it does not name the node for.
    HandedOver {
        /// Which placement.
        epoch: u64,
    },
}

/// From a dispatcher to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DispatcherToNode {
    /// Answers `Register`: the node is in.
    Registered {
        /// How long a lease holds without a heartbeat, in milliseconds.
        lease_ms: u64,
        /// The dispatcher's clock.
        clock: Millis,
    },
    /// Answers `Heartbeat`: the lease holds from when that one was sent.
    Echo {
        /// Which heartbeat.
        no: u64,
        /// The dispatcher's clock.
        clock: Millis,
    },
    /// The node's lease had ended: it must register again.
    Expired,
    /// Who owns which partition, and which nodes there are.
    Placement(Placement),
    /// Answers `Interest`: every event published from now on reaches the node.
    Interested {
        /// Which change.
        no: u64,
    },
    /// Answers `Interest`: the node has more than [`TOPICS_PER_NODE`], and nothing of what was to be added was registered.
    InterestRefused {
        /// Which change.
        no: u64,
    },
    /// A request to this node as an owner.
    Request {
        /// Who asks.
        from: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
        /// Its mark.
        id: u64,
        /// Whose owner is meant.
        partition: Partition,
        /// Past this moment (the dispatcher's clock) it is to be refused.
        deadline: Millis,
        /// An [`super::owner::OwnerRequest`].
        body: Bytes,
    },
    /// The owner's answer to a request of this node.
    Response {
        /// Which request.
        id: u64,
        /// An [`super::owner::Answer`].
        body: Bytes,
    },
    /// No owner could be asked: surely not stored by this attempt.
    Undeliverable {
        /// Which request.
        id: u64,
    },
    /// A live event.
    Publish {
        /// Whom it concerns: those of its topics that this node has registered.
        topics: Vec<Topic>,
        /// A [`Live`].
        body: Bytes,
    },
    /// Frames were lost on the way: what the node knows of live events may have holes.
    Gap,
    /// How far another node's partitions are.
    Marks {
        /// Who owns them.
        from: NodeId,
        /// A list of [`super::marks::Mark`].
        body: Bytes,
    },
}

/// Who owns which partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Counts up with every change, above whatever the nodes have heard of dispatchers before.
    pub epoch: u64,
    /// The owner of each partition; none while no node is alive, and while the one before may still serve it.
    pub owners: Vec<Option<NodeId>>,
}

/// What live events are about, and what nodes register interest in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// What happens in a chat.
    Chat(AppId, ChatId),
    /// What concerns one user.
    User(AppId, UserId),
}

impl From<ChatKey> for Topic {
    fn from(key: ChatKey) -> Self {
        Self::Chat(key.app, key.chat)
    }
}

impl From<UserKey> for Topic {
    fn from(key: UserKey) -> Self {
        Self::User(key.app, key.user)
    }
}

/// A user who came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// Who.
    pub user: UserId,
    /// When they were connected last; none: they are now.
    pub last_seen: Option<Millis>,
    /// The chats whose members are told: each is one of the frame's topics, unless one user is told alone.
    pub chats: Vec<ChatId>,
    /// Members of these who are not told (ID-9).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden_from: Vec<UserId>,
    /// The one member who is told, as what they are to know has changed; none: all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<UserId>,
}

/// A live event, from an owner to the nodes that serve whom it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Live {
    /// A confirmed change of a chat: the record's bytes as they stand in the log.
    Change(Bytes),
    /// These users are in a chat now; the store shows it.
    Added {
        /// The application.
        app: AppId,
        /// The chat.
        chat: ChatId,
        /// The change that did it.
        seq: Seq,
        /// Who; each is one of the frame's topics.
        users: Vec<UserId>,
    },
    /// These users are in the chat no more; the store shows it.
    Removed {
        /// The application.
        app: AppId,
        /// The chat.
        chat: ChatId,
        /// The change that did it.
        seq: Seq,
        /// Who.
        users: Vec<UserId>,
    },
    /// A member's read mark has moved, and the store has it. No part of the chat's order: it may come late, in any order, or not at all.
    Read {
        /// The application.
        app: AppId,
        /// The chat.
        chat: ChatId,
        /// Whose.
        user: UserId,
        /// The newest message that is read.
        number: Number,
        /// The socket that moved it, which was answered and is told no more.
        socket: Option<SocketId>,
        /// When, so that one that was held up on the way is not shown after a newer one.
        at: Millis,
    },
    /// Users came or went. May come late, in any order, or not at all.
    Presence {
        /// The application.
        app: AppId,
        /// When this was so.
        at: Millis,
        /// Who.
        users: Vec<Came>,
    },
    /// How many users of a large group one node serves. May be lost: it is said again.
    Headcount {
        /// The application.
        app: AppId,
        /// The group.
        chat: ChatId,
        /// The node.
        node: NodeId,
        /// How many.
        users: u32,
        /// Whether the others are to say theirs.
        ask: bool,
    },
    /// A member writes, or no longer does. May be lost.
    Typing {
        /// The application.
        app: AppId,
        /// The chat.
        chat: ChatId,
        /// Who.
        user: UserId,
        /// Whether they write.
        on: bool,
        /// When, so that one that was held up on the way is not shown.
        at: Millis,
    },
    /// A sign-in was ended: look at the revocations now.
    Revoked {
        /// The application.
        app: AppId,
        /// Whose.
        user: UserId,
        /// Which.
        session: SessionId,
    },
}
