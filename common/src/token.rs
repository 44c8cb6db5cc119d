//! Tokens that users hold and tickets that open one socket, both signed (the one place that names jsonwebtoken).
//!
//! A key is chosen from our own table by issuer and `kid`, and brings its algorithm with it: nothing in a token chooses how it is
//! checked (facts 16).

use std::sync::Arc;

use crate::{
    ids::{AppId, Incarnation, NodeId, SessionId, UserId},
    store::Application,
    time::Millis,
};

/// Who a good token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The application.
    pub app: AppId,
    /// The user.
    pub user: UserId,
    /// The sign-in.
    pub session: SessionId,
    /// Until when the token is good.
    pub expires_at: Millis,
}

/// Why a token is not good. What is said to its bearer is one word for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not a token of ours: forged, cut, of another algorithm, audience or issuer.
    #[error("the token is not one of ours")]
    Forged,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
}

/// The keys of all applications. Cheap to clone; shared by whoever checks.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<()>);

impl Tokens {
    /// The keys of these applications.
    pub fn new(_applications: &[Application]) -> Self {
        todo!()
    }

    /// A token for `caller`, signed with its application's key.
    ///
    /// # Errors
    /// [`BadToken::Forged`] when the application is not known.
    pub fn issue(&self, _caller: &Caller, _now: Millis) -> Result<String, BadToken> {
        todo!()
    }

    /// Who `token` speaks for at `now`: exp, iss, aud and sub are required, leeway is 5 s, at most 4 KiB are looked at.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn check(&self, _token: &str, _now: Millis) -> Result<Caller, BadToken> {
        todo!()
    }
}

/// What a ticket says: this user may open one socket on this life of this node, soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whose socket it will be; `expires_at` is the token's, not the ticket's.
    pub caller: Caller,
    /// Where.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Its own name: it opens one socket.
    pub id: u128,
    /// Until when it may be used, at most 30 s from when it was made.
    pub expires_at: Millis,
}

/// Signs and checks tickets with the cluster's secret. Another audience than tokens: neither passes for the other.
#[derive(Clone, Debug)]
pub struct Tickets(Arc<()>);

impl Tickets {
    /// How long a ticket may be used.
    pub const LIFETIME: std::time::Duration = std::time::Duration::from_secs(30);

    /// With the cluster's secret (at least 32 bytes).
    pub fn new(_secret: &[u8]) -> Self {
        todo!()
    }

    /// The ticket as it stands in a URL.
    ///
    /// # Errors
    /// [`BadToken::Forged`] when it cannot be signed.
    pub fn issue(&self, _ticket: &Ticket, _now: Millis) -> Result<String, BadToken> {
        todo!()
    }

    /// What `ticket` says, if it is for this node's present life and not past its time. That it is used once is for its node to see to.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn check(
        &self,
        _ticket: &str,
        _node: &NodeId,
        _incarnation: Incarnation,
        _now: Millis,
    ) -> Result<Ticket, BadToken> {
        todo!()
    }
}
