//! How often one may try to register or to sign in: per address and per username, counted together by all nodes.
//!
//! Attempts count before anybody knows whether the password is right, so a limit per username is one that strangers can use up: it is far
//! wider than what one of them gets from one address.
//!
//! When the cache does not answer, everybody may: that costs processor time, which [`crate::passwords`] bounds, and nobody is shut out
//! of their account by a cache that is down.

use std::net::IpAddr;

use common::{
    cache::{Grant, LimitPolicy, SharedCache},
    ids::AppId,
    partition::stable_hash,
    problem::Problem,
    time::Millis,
    wire::codes::ErrorCode,
};

/// How often one may try.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptLimits {
    /// Sign-ins with one username from one address (of IPv6, from one /64); good ones count too. At the default (10 at once, then one in
    /// 6 s) guessing goes through 14,400 passwords a day, and shuts out nobody elsewhere.
    pub per_username_there: LimitPolicy,
    /// Sign-ins with one username, from wherever they come, as far as the limit above let them through. At the default (200 at once, then one a
    /// second) it takes more than six addresses to shut somebody out, and however many there are, they go through 86,400 passwords a day.
    pub per_username: LimitPolicy,
    /// Registrations and sign-ins from one address (of IPv6, from one /64). At the default (60 at once, then one a second) a school behind one
    /// address gets in, and one machine cannot keep the cores busy. An address of this machine itself is not limited: it is an
    /// operator's, a test's, or a proxy's that has not said whom it speaks for.
    pub per_address: LimitPolicy,
}

impl Default for AttemptLimits {
    fn default() -> Self {
        Self {
            per_username_there: LimitPolicy { per_second: 1.0 / 6.0, burst: 10 },
            per_username: LimitPolicy { per_second: 1.0, burst: 200 },
            per_address: LimitPolicy { per_second: 1.0, burst: 60 },
        }
    }
}

/// Counts attempts.
#[derive(Clone)]
pub(crate) struct Attempts {
    cache: SharedCache,
    limits: AttemptLimits,
}

impl Attempts {
    pub(crate) fn new(cache: SharedCache, limits: AttemptLimits) -> Self {
        Self { cache, limits }
    }

    /// Whether somebody at this address may do what costs a hash.
    pub(crate) async fn from(&self, app: AppId, address: Option<IpAddr>, now: Millis) -> Result<(), Problem> {
        match address.map(|address| address.to_canonical()) {
            Some(address) if !address.is_loopback() => {
                self.take(app, &format!("attempts/from/{}", network(address)), self.limits.per_address, now)
                    .await
            }
            _ => Ok(()),
        }
    }

    /// Whether somebody at this address may sign in under this name.
    pub(crate) async fn under(
        &self,
        app: AppId,
        username: &str,
        address: Option<IpAddr>,
        now: Millis,
    ) -> Result<(), Problem> {
        // A name may be long, and is nobody's business; two that share a hash share a limit.
        let name = stable_hash(&[username.to_lowercase().as_bytes()]);
        let there = address
            .map_or_else(|| "nowhere".to_owned(), |address| network(address.to_canonical()).to_string());
        // First: what is refused there takes nothing from the others.
        let key = format!("attempts/under/{name:016x}/from/{there}");
        self.take(app, &key, self.limits.per_username_there, now).await?;
        self.take(app, &format!("attempts/under/{name:016x}"), self.limits.per_username, now).await
    }

    async fn take(&self, app: AppId, key: &str, policy: LimitPolicy, now: Millis) -> Result<(), Problem> {
        take(&self.cache, app, key, policy, now, "too many attempts: wait a moment").await
    }
}

/// Takes one from a bucket that all nodes share, or says in the words of `why` how long there is none. A cache that does not answer limits nobody.
pub(crate) async fn take(
    cache: &SharedCache,
    app: AppId,
    key: &str,
    policy: LimitPolicy,
    now: Millis,
    why: &str,
) -> Result<(), Problem> {
    match cache.take(app, key, 1, policy, now).await {
        Ok(Grant::Granted) => Ok(()),
        Ok(Grant::RetryAfter(wait)) => Err(Problem {
            retry_after_ms: Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            ..Problem::new(ErrorCode::RateLimited, why)
        }),
        Err(error) => {
            tracing::warn!(%error, "attempts are not counted");
            Ok(())
        }
    }
}

/// Whom one counts as: an IPv4 address, or the network that one IPv6 subscriber gets (RFC 6177: at least a /64).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => IpAddr::V6((u128::from(six) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_with_its_neighbours_where_it_has_a_network_of_its_own() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
