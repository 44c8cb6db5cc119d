//! What accounts are, whichever engine keeps them.

use std::time::Duration;

use rand::RngCore;
use uuid::Uuid;

use crate::{applications::AppSettings, time::Millis};

/// How long after its token's expiry a revocation is kept: clocks of nodes differ, and tokens are accepted some seconds late.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(3600);

/// Most sign-ins that one answer lists.
pub(super) const SIGN_INS: i64 = 100;

/// Most revocations that one answer lists.
pub(super) const REVOCATIONS: i64 = 1_000;

/// Bytes of a secret that signs tokens: as many as HS256's hash has (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

/// What two spellings of one user name have in common.
pub(super) fn fold(username: &str) -> String {
    username.to_lowercase()
}

/// A revocation is kept at `now` when its token expires after this.
pub(super) fn kept_after(now: Millis) -> Millis {
    now.minus(KEPT_AFTER_EXPIRY)
}

/// Settings as their column has them.
pub(super) fn settings_column(settings: &AppSettings) -> String {
    // Texts, numbers and lists always have a JSON form.
    serde_json::to_string(settings).unwrap_or_else(|_| "{}".to_owned())
}

/// A new secret that signs tokens, and its name.
pub(super) fn token_secret() -> (Vec<u8>, String) {
    let mut secret = vec![0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    let mut kid = Uuid::new_v4().as_simple().to_string();
    kid.truncate(8);
    (secret, kid)
}
