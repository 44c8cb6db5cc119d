//! Who a request speaks for: `Authorization: Bearer`, and nothing else. A token in a URL is not looked at; it would end up in logs.
//!
//! Whatever is wrong with a token, its bearer hears the same.

use common::{
    admin_key::AdminKey,
    admission::Admission,
    problem::Problem,
    revocations::Revocations,
    time::Millis,
    token::{Presented, Tokens},
    wire::codes::ErrorCode,
};
use http::{HeaderMap, header};

use crate::control::Clock;

/// Checks tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth {
    tokens: Tokens,
    revocations: Revocations,
    clock: Clock,
    admin_key: AdminKey,
}

impl Auth {
    /// With the keys of all applications, and what is known of ended sign-ins.
    pub fn new(tokens: Tokens, revocations: Revocations, clock: Clock) -> Self {
        Self { tokens, revocations, clock, admin_key: AdminKey::default() }
    }

    /// The same, with the operator's key.
    pub fn with_admin_key(self, admin_key: AdminKey) -> Self {
        Self { admin_key, ..self }
    }

    /// The time by which tokens are checked.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Whether a request with these headers comes from the operator.
    pub fn is_operator(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|presented| self.admin_key.opens_to(presented))
    }

    /// Who a request with these headers speaks for.
    ///
    /// # Errors
    /// `unauthenticated`: no token, two of them, or one that is forged, expired, revoked, or another audience's.
    pub async fn caller(&self, headers: &HeaderMap, admission: &Admission) -> Result<Presented, Problem> {
        let token = bearer(headers).ok_or_else(unauthenticated)?;
        let presented = admission.present(&self.tokens, token, self.clock.now()).await;
        presented
            .filter(|Presented { caller, .. }| !self.revocations.contains(caller.key(), caller.session))
            .ok_or_else(unauthenticated)
    }
}

/// One answer for all that is wrong with a token.
pub(crate) fn unauthenticated() -> Problem {
    Problem::new(ErrorCode::Unauthenticated, "send a valid token: Authorization: Bearer …")
}

/// The token in the one `Authorization` header. Two of them are none: who put the second one there is not known.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_token_stands_in_one_bearer_header() {
        assert_eq!(bearer(&headers(&["Bearer abc"])), Some("abc"));
        assert_eq!(bearer(&headers(&["bearer  abc"])), Some("abc"));
        for bad in [&[][..], &["abc"], &["Basic abc"], &["Bearer"], &["Bearer a", "Bearer b"]] {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }
}
