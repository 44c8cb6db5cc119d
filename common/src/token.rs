//! Tokens that users hold and tickets that open one socket, both signed (but for [`crate::vapid`] the one place that names jsonwebtoken).
//!
//! A key is chosen from our own table by issuer and `kid`, and brings its algorithm with it: nothing in a token chooses how it is
//! checked (facts 16). Times are checked here, against the moment that is passed in, and not by the library, which asks the machine.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, dangerous::insecure_decode_claims, decode,
    decode_header, encode,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::{
    applications::{self, VerificationKey},
    ids::{AppId, Incarnation, NodeId, SessionId, UserId, UserKey},
    store::{self, Application, SharedStore, StoreError},
    time::Millis,
};

/// How far two clocks may be apart: a token is good this long after its `exp` and before its `nbf`.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// The longest token that is looked at, in bytes. Ours have about 350; those of other issuers carry names and roles besides.
pub const MAX_BYTES: usize = 4 * 1024;

/// The shortest secret that signs (RFC 7518, 3.2: as long as the hash).
pub const MIN_SECRET_BYTES: usize = 32;

/// The algorithm of the keys that we sign with.
const ALGORITHM: Algorithm = Algorithm::HS256;

/// The longest `sub` of another issuer's token, in bytes (OpenID Connect Core 1.0, section 2: 255 ASCII characters).
pub const SUBJECT_BYTES: usize = 255;

const TOKEN_AUDIENCE: &str = "chat";
const TICKET_AUDIENCE: &str = "chat-ticket";
const TICKET_ISSUER: &str = "chat-cluster";

/// Who a good token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The application.
    pub app: AppId,
    /// The user.
    pub user: UserId,
    /// The sign-in.
    pub session: SessionId,
    /// Until when the token is good. Whole seconds: that is how tokens count.
    pub expires_at: Millis,
}

impl Caller {
    /// Whose it is.
    pub fn key(&self) -> UserKey {
        UserKey { app: self.app, user: self.user }
    }
}

/// Why a token is not good. What is said to its bearer is one word for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not a token of ours: forged, cut, of another algorithm, audience or issuer, or not yet good.
    #[error("the token is not one of ours")]
    Forged,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
}

/// A secret and everything that is fixed about checking with it.
struct SigningKey {
    encoding: EncodingKey,
    header: Header,
    checking: CheckingKey,
}

/// A key that checks, and everything that is fixed about checking with it, its algorithm included.
struct CheckingKey {
    decoding: DecodingKey,
    validation: Validation,
}

impl SigningKey {
    fn new(secret: &[u8], kid: Option<String>, issuer: &str, audience: &str) -> Self {
        let mut header = Header::new(ALGORITHM);
        header.kid = kid;
        Self {
            encoding: EncodingKey::from_secret(secret),
            header,
            checking: CheckingKey::new(ALGORITHM, DecodingKey::from_secret(secret), issuer, audience),
        }
    }

    fn issue<C: Serialize>(&self, claims: &C) -> Result<String, BadToken> {
        encode(&self.header, claims, &self.encoding).map_err(|_| BadToken::Forged)
    }
}

impl CheckingKey {
    fn new(algorithm: Algorithm, decoding: DecodingKey, issuer: &str, audience: &str) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        // Present and of the right type: a text in `exp` is no `exp`.
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // By `Self::check`, against the caller's clock.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        Self { decoding, validation }
    }

    /// A key that an application has chosen; none when it is no key of its algorithm.
    fn chosen(key: &VerificationKey, issuer: &str) -> Option<Self> {
        let pem = key.key.as_bytes();
        let (algorithm, decoding) = match key.algorithm {
            applications::Algorithm::HS256 if pem.len() < MIN_SECRET_BYTES => return None,
            applications::Algorithm::HS256 => (Algorithm::HS256, DecodingKey::from_secret(pem)),
            applications::Algorithm::RS256 => (Algorithm::RS256, DecodingKey::from_rsa_pem(pem).ok()?),
            applications::Algorithm::ES256 => (Algorithm::ES256, DecodingKey::from_ec_pem(pem).ok()?),
            applications::Algorithm::EdDSA => (Algorithm::EdDSA, DecodingKey::from_ed_pem(pem).ok()?),
        };
        Some(Self::new(algorithm, decoding, issuer, TOKEN_AUDIENCE))
    }

    fn check<C: DeserializeOwned + Timed>(&self, token: &str, now: Millis) -> Result<C, BadToken> {
        let data = decode::<C>(token, &self.decoding, &self.validation).map_err(|_| BadToken::Forged)?;
        // RFC 7515, 4.1.11: who does not understand what is marked as critical refuses the token. We mark nothing.
        if data.header.crit.is_some() {
            return Err(BadToken::Forged);
        }
        let (exp, nbf) = data.claims.times();
        if Millis::from_secs(exp).plus(LEEWAY) <= now {
            return Err(BadToken::Expired);
        }
        if nbf.is_some_and(|nbf| now.plus(LEEWAY) < Millis::from_secs(nbf)) {
            return Err(BadToken::Forged);
        }
        Ok(data.claims)
    }
}

/// The times among claims, in whole seconds since 1970.
trait Timed {
    /// `exp`, and `nbf` where there is one.
    fn times(&self) -> (i64, Option<i64>);
}

#[derive(Serialize, Deserialize)]
struct TokenClaims {
    iss: AppId,
    aud: Audience,
    sub: UserId,
    sid: SessionId,
    #[serde(default)]
    iat: Option<i64>,
    #[serde(default)]
    nbf: Option<i64>,
    exp: i64,
}

impl Timed for TokenClaims {
    fn times(&self) -> (i64, Option<i64>) {
        (self.exp, self.nbf)
    }
}

/// One audience or a list; the library has looked at what is in it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The claims of a token that an application signed itself.
#[derive(Deserialize)]
struct ForeignClaims {
    sub: String,
    #[serde(default)]
    sid: Option<SessionId>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    nbf: Option<i64>,
    exp: i64,
}

impl Timed for ForeignClaims {
    fn times(&self) -> (i64, Option<i64>) {
        (self.exp, self.nbf)
    }
}

/// What a good token says besides whom it speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// Whom it speaks for.
    pub caller: Caller,
    /// Of a token that its application signed itself: what it calls its bearer.
    pub foreign: Option<Subject>,
}

/// A user as an application's own token has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// `sub`, as it stands: at most 255 bytes.
    pub subject: String,
    /// `name`, if there is one.
    pub name: Option<String>,
}

/// The keys of one application.
struct AppKeys {
    /// Signs for those who sign in here; and its name.
    own: Option<(String, SigningKey)>,
    /// Those that the application has chosen, by their names.
    chosen: HashMap<String, CheckingKey>,
}

/// The keys of all applications. Cheap to clone; shared by whoever checks.
#[derive(Clone)]
pub struct Tokens(Arc<ArcSwap<HashMap<AppId, AppKeys>>>);

impl fmt::Debug for Tokens {
    /// Without a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.0.load().keys().collect::<Vec<_>>()).finish()
    }
}

impl Tokens {
    /// The keys of these applications. One whose secret is shorter than [`MIN_SECRET_BYTES`] is left out, loudly: its users cannot sign in,
    /// and nobody can guess their tokens.
    pub fn new<'a>(applications: impl IntoIterator<Item = &'a Application>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(keys_of(applications))))
    }

    /// From now on the keys of these applications are the ones that count, for everybody who shares them.
    pub fn replace<'a>(&self, applications: impl IntoIterator<Item = &'a Application>) {
        self.0.store(Arc::new(keys_of(applications)));
    }

    /// A token for `caller`, signed with its application's key.
    ///
    /// # Errors
    /// [`BadToken::Forged`] when the application is not known.
    pub fn issue(&self, caller: &Caller, now: Millis) -> Result<String, BadToken> {
        let all = self.0.load();
        let (_, key) = all.get(&caller.app).and_then(|keys| keys.own.as_ref()).ok_or(BadToken::Forged)?;
        key.issue(&TokenClaims {
            iss: caller.app,
            aud: Audience::One(TOKEN_AUDIENCE.into()),
            sub: caller.user,
            sid: caller.session,
            iat: Some(now.as_secs()),
            nbf: Some(now.as_secs()),
            exp: caller.expires_at.as_secs(),
        })
    }

    /// Who `token` speaks for at `now`: exp, iss, aud and sub are required, leeway is 5 s, at most 4 KiB are looked at.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn check(&self, token: &str, now: Millis) -> Result<Caller, BadToken> {
        self.present(token, now).map(|presented| presented.caller)
    }

    /// Likewise, with what it says besides.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn present(&self, token: &str, now: Millis) -> Result<Presented, BadToken> {
        let (app, kid) = named(token).ok_or(BadToken::Forged)?;
        let all = self.0.load();
        let keys = all.get(&app).ok_or(BadToken::Forged)?;
        let presented = match (&keys.own, keys.chosen.get(&kid)) {
            (Some((own, key)), _) if *own == kid => {
                let claims: TokenClaims = key.checking.check(token, now)?;
                let expires_at = Millis::from_secs(claims.exp);
                let caller = Caller { app, user: claims.sub, session: claims.sid, expires_at };
                Presented { caller, foreign: None }
            }
            (_, Some(key)) => foreign(app, &kid, token, key.check(token, now)?)?,
            (_, None) => return Err(BadToken::Forged),
        };
        // No user has this id: see there.
        if presented.caller.user == UserId::APPLICATION {
            return Err(BadToken::Forged);
        }
        Ok(presented)
    }

    /// Whether a token names a key, and none of that name is known here. It may be new.
    pub fn names_unknown_key(&self, token: &str) -> bool {
        named(token).is_some_and(|(app, kid)| {
            let all = self.0.load();
            let is_known = |keys: &AppKeys| {
                keys.chosen.contains_key(&kid) || keys.own.as_ref().is_some_and(|(own, _)| *own == kid)
            };
            !all.get(&app).is_some_and(is_known)
        })
    }
}

/// The key that a token names: its application, and its own name. Unproven words, used for nothing but finding the key that must prove them.
fn named(token: &str) -> Option<(AppId, String)> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: AppId,
    }

    if token.len() > MAX_BYTES {
        return None;
    }
    let kid = decode_header(token).ok()?.kid?;
    let issuer: Issuer = insecure_decode_claims(token).ok()?;
    Some((issuer.iss, kid))
}

fn keys_of<'a>(applications: impl IntoIterator<Item = &'a Application>) -> HashMap<AppId, AppKeys> {
    let keys = |application: &Application| {
        let issuer = application.id.to_string();
        let kid = application.token_kid.clone();
        let own = if application.token_secret.len() < MIN_SECRET_BYTES {
            tracing::error!(application = %application.id, "token secret shorter than 32 bytes: not used");
            None
        } else {
            let key = SigningKey::new(&application.token_secret, Some(kid.clone()), &issuer, TOKEN_AUDIENCE);
            Some((kid, key))
        };
        let chosen = application.settings.keys.iter().filter_map(|key| {
            let checking = CheckingKey::chosen(key, &issuer);
            if checking.is_none() {
                tracing::error!(application = %application.id, kid = key.kid, "no key of its algorithm: not used");
            }
            Some((key.kid.clone(), checking?))
        });
        (application.id, AppKeys { own, chosen: chosen.collect() })
    };
    applications.into_iter().map(keys).collect()
}

/// Whether a key is one of its algorithm.
pub fn is_key(key: &VerificationKey) -> bool {
    CheckingKey::chosen(key, "").is_some()
}

/// Whom a token speaks for that the application `app` signed itself.
fn foreign(app: AppId, kid: &str, token: &str, claims: ForeignClaims) -> Result<Presented, BadToken> {
    let ForeignClaims { sub, sid, jti, name, nbf: _, exp } = claims;
    if sub.is_empty() || sub.len() > SUBJECT_BYTES || sub.chars().any(char::is_control) {
        return Err(BadToken::Forged);
    }
    let user = UserId::called(app, &sub);
    let session = sid.unwrap_or_else(|| SessionId::external(app, kid, &sub, jti.as_deref().unwrap_or(token)));
    let caller = Caller { app, user, session, expires_at: Millis::from_secs(exp) };
    Ok(Presented { caller, foreign: Some(Subject { subject: sub, name }) })
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
            },
            node: claims.node,
            incarnation,
            id: u128::from_str_radix(&claims.jti, 16).map_err(|_| BadToken::Forged)?,
            expires_at,
        })
    }
}

/// Reads what every service that checks needs: the applications' keys and the cluster's secret for tickets (made by whoever asks first).
/// Asks again until the store answers; none when `shutdown` came first.
pub async fn load(store: &SharedStore, shutdown: &CancellationToken) -> Option<(Tokens, Tickets)> {
    store::until_answered("keys", shutdown, async || load_once(store).await).await
}

async fn load_once(store: &SharedStore) -> Result<(Tokens, Tickets), StoreError> {
    let applications = store.applications().await?;
    let secret = store.cluster_secret(Tickets::SECRET, &rand::random::<[u8; MIN_SECRET_BYTES]>()).await?;
    if secret.len() < MIN_SECRET_BYTES {
        return Err(StoreError::Corrupt("the secret for tickets is shorter than 32 bytes".into()));
    }
    Ok((Tokens::new(&applications), Tickets::new(&secret)))
}

#[cfg(test)]
mod tests;
