//! Tokens that users hold and tickets that open one socket, both signed (but for [`crate::vapid`] the one place that names jsonwebtoken).
//!
//! A key is chosen from our own table by issuer and `kid`, and brings its algorithm with it: nothing in a token chooses how it is
//! checked (facts 16). Times are checked here, against the moment that is passed in, and not by the library, which asks the machine.

mod tickets;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, dangerous::insecure_decode_claims, decode,
    decode_header, encode,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

pub use self::tickets::{Ticket, Tickets};
use crate::{
    applications::{self, KeyMark, VerificationKey},
    ids::{AppId, SessionId, UserId, UserKey},
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
    /// The key that its application has chosen and that the token was signed with: the token is good for as long as it has that key. None: ours.
    pub signed_by: Option<KeyMark>,
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
    /// `name`, if there is one: to be shown to others, as the subject never is.
    pub name: Option<String>,
}

/// The keys of one application.
struct AppKeys {
    /// Signs for those who sign in here; and its name.
    own: Option<(String, SigningKey)>,
    /// Those that the application has chosen, by their names.
    chosen: HashMap<String, (KeyMark, CheckingKey)>,
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
                let (user, session) = (claims.sub, claims.sid);
                let caller = Caller { app, user, session, expires_at, signed_by: None };
                Presented { caller, foreign: None }
            }
            (_, Some((mark, key))) => foreign(app, (&kid, *mark), token, key.check(token, now)?)?,
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
            Some((key.kid.clone(), (key.mark(), checking?)))
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
fn foreign(
    app: AppId,
    (kid, mark): (&str, KeyMark),
    token: &str,
    claims: ForeignClaims,
) -> Result<Presented, BadToken> {
    let ForeignClaims { sub, sid, jti, name, nbf: _, exp } = claims;
    if sub.is_empty() || sub.len() > SUBJECT_BYTES || sub.chars().any(char::is_control) {
        return Err(BadToken::Forged);
    }
    let user = UserId::called(app, &sub);
    let session = sid.unwrap_or_else(|| SessionId::external(app, kid, &sub, jti.as_deref().unwrap_or(token)));
    let caller = Caller { app, user, session, expires_at: Millis::from_secs(exp), signed_by: Some(mark) };
    Ok(Presented { caller, foreign: Some(Subject { subject: sub, name }) })
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
