//! Tickets: each opens one socket, soon, on one life of one node.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Audience, BadToken, Caller, LEEWAY, MAX_BYTES, SigningKey, Timed};
use crate::{
    applications::KeyMark,
    ids::{AppId, Incarnation, NodeId, SessionId, UserId},
    time::Millis,
};

const TICKET_AUDIENCE: &str = "chat-ticket";
const TICKET_ISSUER: &str = "chat-cluster";

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
    /// Until when it may be used (and [`LEEWAY`] longer), at most [`Tickets::LIFETIME`] from when it was made. Whole seconds.
    pub expires_at: Millis,
}

#[derive(Serialize, Deserialize)]
struct TicketClaims {
    iss: String,
    aud: Audience,
    app: AppId,
    sub: UserId,
    sid: SessionId,
    /// The token's expiry.
    tex: i64,
    /// The key that the token was signed with, when its application has chosen that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyMark>,
    node: NodeId,
    /// As text: JSON's numbers end at 53 bits in some readers.
    inc: String,
    jti: String,
    exp: i64,
}

impl Timed for TicketClaims {
    fn times(&self) -> (i64, Option<i64>) {
        (self.exp, None)
    }
}

/// Signs and checks tickets with the cluster's secret. Another audience than tokens: neither passes for the other.
#[derive(Clone)]
pub struct Tickets(Arc<SigningKey>);

impl fmt::Debug for Tickets {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// How long a ticket may be used.
    pub const LIFETIME: Duration = Duration::from_secs(30);

    /// The secret's name among the cluster's ([`crate::store::Accounts::cluster_secret`]).
    pub const SECRET: &str = "tickets";

    /// With the cluster's secret (at least 32 bytes).
    pub fn new(secret: &[u8]) -> Self {
        Self(Arc::new(SigningKey::new(secret, None, TICKET_ISSUER, TICKET_AUDIENCE)))
    }

    /// The ticket as it stands in a URL. Good for [`Self::LIFETIME`] at most, whatever it asks for.
    ///
    /// # Errors
    /// [`BadToken::Forged`] when it cannot be signed.
    pub fn issue(&self, ticket: &Ticket, now: Millis) -> Result<String, BadToken> {
        self.0.issue(&TicketClaims {
            iss: TICKET_ISSUER.into(),
            aud: Audience::One(TICKET_AUDIENCE.into()),
            app: ticket.caller.app,
            sub: ticket.caller.user,
            sid: ticket.caller.session,
            tex: ticket.caller.expires_at.as_secs(),
            key: ticket.caller.signed_by,
            node: ticket.node.clone(),
            inc: format!("{:016x}", ticket.incarnation.0),
            jti: format!("{:032x}", ticket.id),
            exp: ticket.expires_at.min(now.plus(Self::LIFETIME)).as_secs(),
        })
    }

    /// What `ticket` says, if it is for this node's present life and not past its time. That it is used once is for its node to see to:
    /// it remembers `id` until [`LEEWAY`] after `expires_at`.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn check(
        &self,
        ticket: &str,
        node: &NodeId,
        incarnation: Incarnation,
        now: Millis,
    ) -> Result<Ticket, BadToken> {
        if ticket.len() > MAX_BYTES {
            return Err(BadToken::Forged);
        }
        let claims: TicketClaims = self.0.checking.check(ticket, now)?;
        let expires_at = Millis::from_secs(claims.exp);
        let own = claims.node == *node && u64::from_str_radix(&claims.inc, 16) == Ok(incarnation.0);
        // One that is good for longer would outlive the memory of its use.
        if !own || expires_at > now.plus(Self::LIFETIME).plus(LEEWAY) {
            return Err(BadToken::Forged);
        }
        Ok(Ticket {
            caller: Caller {
                app: claims.app,
                user: claims.sub,
                session: claims.sid,
                expires_at: Millis::from_secs(claims.tex),
                signed_by: claims.key,
            },
            node: claims.node,
            incarnation,
            id: u128::from_str_radix(&claims.jti, 16).map_err(|_| BadToken::Forged)?,
            expires_at,
        })
    }
}
