//! A resumable, ordered, acknowledged stream of frames between two services, over QUIC with mutual TLS.
//!
//! A successful QUIC write proves nothing: at a one-way cut the two ends disagree for seconds about being connected, and what
//! was "written" meanwhile is gone. So a [`Link`] numbers its frames, the receiver acknowledges them once they stand in its inbox,
//! and after a break each side sends again what the other lacks, from a bounded buffer. The receiver sees every frame once and
//! in order. What could not be held is a named [`Event::Gap`], never a silent one.
//!
//! What an acknowledgement says: the peer's process has the frame in its [`Events`] queue. Not that it acted on it; whoever
//! needs that asks for an answer of its own.
//!
//! ```text
//!  Link::send ─► Outbox ─► writer ─┐                        ┌─► reader ─► Inbox ─► Events::recv
//!              (unacknowledged)    │  one bidirectional     │  (numbers)  (full: the reader stops,
//!                    ▲             └─ QUIC stream ──────────┘              QUIC pushes back)
//!                    └──────────────── Ack, every 64 frames or 20 ms ◄──────────┘
//! ```
//!
//! - [`identity`]: who one is: certificates that carry role and name.
//! - [`endpoint`]: one UDP socket, which dials and accepts.
//! - [`codec`]: the bytes on the stream.
//! - `outbox`, `inbox`: the two queues of a link; `core`: what its handles share; `connection`: one QUIC connection of a link, from hello to
//!   break; `dialer`, `acceptor`: what happens between two connections; `tls`: settings of QUIC and TLS.
//!
//! Absent on purpose: what the frames mean, who may say what, leases, placement. This is the only module that names quinn, rustls
//! and x509-parser, and that makes certificates.

mod acceptor;
pub mod codec;
mod connection;
mod core;
pub mod defaults;
mod dialer;
pub mod endpoint;
pub mod identity;
mod inbox;
mod outbox;
#[cfg(any(test, feature = "conformance"))]
pub mod relay;
mod tls;

use std::{fmt, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;

pub use self::{
    core::{Link, LinkStats},
    defaults::LinkSettings,
    endpoint::{BindError, Dialer, Endpoint},
    identity::{Authority, Identity, IdentityError, Name},
    inbox::Events,
};
use crate::ids::Incarnation;

/// What a service is to its peers. It stands in its certificate, and the peer checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Places users and chats, forwards frames.
    Dispatcher,
    /// Holds sockets, owns chats.
    Node,
    /// Drains the log into the store.
    Writer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Dispatcher, Self::Node, Self::Writer];

    /// The role as certificates spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::Node => "node",
            Self::Writer => "writer",
        }
    }

    /// The role of this spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whom a dialer asks for. Anybody else at that address is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The role its certificate must carry.
    pub role: Role,
    /// The name it must carry; `None`: any of that role.
    pub name: Option<Name>,
}

impl Peer {
    /// Anybody of this role.
    pub fn any(role: Role) -> Self {
        Self { role, name: None }
    }

    /// This one and nobody else.
    pub fn named(role: Role, name: Name) -> Self {
        Self { role, name: Some(name) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} {name}", self.role),
            None => write!(f, "any {}", self.role),
        }
    }
}

/// Who the other end is: role and name as its certificate proves them, and which life of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerId {
    /// From the certificate.
    pub role: Role,
    /// From the certificate.
    pub name: Name,
    /// As it says itself: one process from start to end.
    pub incarnation: Incarnation,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.role, self.name, self.incarnation)
    }
}

/// Whether an endpoint could be bound with this identity: its certificate and its key belong together, its authorities can be used.
///
/// # Errors
/// [`BindError::Tls`].
pub fn check(identity: &Identity) -> Result<(), BindError> {
    tls::server_config(identity, &LinkSettings::default()).map(drop)
}

/// A frame's number on its link: from 1, counting up for as long as the [`Link`] lives, across breaks and fresh starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(pub u64);

/// What a link tells its one reader, in order. Frames lie between the [`Event::Up`] and [`Event::Down`] of the connection they came on;
/// what was over before it was read (an `Up` without a frame or anything fresh, a refusal) is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a connection, and both sides agree on what the other has.
    Up {
        /// Who is there now.
        peer: Arc<PeerId>,
        /// The peer knows nothing of earlier frames: the first connection, or it has restarted or given up on us. Whatever it should
        /// know must be said again.
        fresh: bool,
        /// What was queued for the peer's former life and is now discarded, unacknowledged. Only with `fresh`.
        discarded: Option<Discarded>,
    },
    /// The connection is gone. [`Link::send`] keeps queueing; the frames leave once it is up again.
    Down,
    /// A frame, once and in order.
    Frame(Bytes),
    /// These numbers will never come: the sender could not hold them.
    Gap {
        /// The numbers, both inclusive.
        missing: RangeInclusive<u64>,
    },
    /// A dialer was turned away, or turned the other side away. It keeps trying; the same refusal is told once until it is up again.
    Refused(Refusal),
    /// The link has ended. The last event.
    Closed,
}

/// Frames that were dropped because the peer that should have had them is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// The first one.
    pub first: FrameNo,
    /// The last one.
    pub last: FrameNo,
    /// Up to here the former peer may have received them; those after it surely never left.
    pub sent_upto: FrameNo,
}

/// Why a frame was not queued. Nothing of it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The buffer of unacknowledged frames is full: the peer is slow or away.
    #[error("the link's buffer is full")]
    Full,
    /// Longer than [`LinkSettings::max_frame`].
    #[error("a frame of {len} bytes is longer than the {max} a link takes")]
    TooLarge {
        /// The frame's length in bytes.
        len: usize,
        /// The most it may have.
        max: usize,
    },
    /// The link has ended.
    #[error("the link is closed")]
    Closed,
}

/// Why two services do not talk, in words for an operator. Worth a look: waiting rarely mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer's certificate is not of an authority we trust, or not of the role and name asked for.
    #[error("the peer's certificate is refused: {0}")]
    PeerCertificate(String),
    /// The peer does not accept our certificate.
    #[error("the peer refuses our certificate: {0}")]
    OwnCertificate(String),
    /// The peer takes no links from our role.
    #[error("the peer takes no links from this role")]
    Role,
    /// The peer has as many links as it takes, or does not take them in.
    #[error("the peer takes no more links")]
    Busy,
    /// The peer speaks another version, or not this protocol.
    #[error("the peer does not speak this protocol: {0}")]
    Protocol(String),
}
