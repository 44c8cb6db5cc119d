//! Notifies those who were away (NO-1 to NO-3), beside the draining, which only notes that a chat has messages nobody was told of.
//!
//! [`rounds`] looks who has to be told: by [`decide`] and [`absent`] of what, by [`quiet`] when, with what [`talk`] reads. [`senders`] and
//! [`queue`] send it, in order and until it is taken, as [`webhook`] or [`push`] has it, by [`http`], which reaches nothing inside; [`complete`]
//! reads what was said, and decides once more who has to be told, only then, for what [`body`] says.
//!
//! All that is known is in the store: writers may be killed at any moment, and any number of them share the work. Nobody is told of the same
//! twice; what is sent may arrive twice, under one id.

mod absent;
mod body;
mod busy;
mod complete;
mod decide;
mod http;
mod push;
mod queue;
mod quiet;
mod rounds;
mod senders;
mod talk;
mod webhook;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use common::{address::Networks, applications::Applications, ids::Partition, time::Millis};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use self::rounds::Rounds;
use crate::{Engines, metrics::Metrics, millis};

/// How long what was done with is kept, for whoever asks for it again.
const ENDED: Duration = Duration::from_secs(7 * 24 * 3600);

/// From one look for what is too old to the next.
const PRUNE: Duration = Duration::from_secs(60);

/// Deliveries that are given up or forgotten in one transaction.
const PRUNED: u32 = 1_000;

/// How those who were away are notified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {
    /// Networks that may be reached although they are not of the public internet.
    pub allow: Networks,
    /// Whom operators of push services may ask: a `mailto:` or `https:` address. Some services want one. Empty: nobody.
    pub contact: String,
    /// From one look for what is due to the next.
    #[serde(with = "millis")]
    pub every: Duration,
    /// How long a message waits whatever its application says, and all of them when a writer starts: until then it is not sure who is gone. As
    /// long as chat nodes show the users of a node that died; at least as long as they show who has gone (see [`Self::forgets`]).
    #[serde(with = "millis")]
    pub settle: Duration,
    /// From one round through the members of a chat to the next at least: what is said meanwhile is told together. Counts up to how long
    /// messages wait.
    #[serde(with = "millis")]
    pub gather: Duration,
    /// How long nothing is sent after an attempt that failed; twice as long after each further one.
    #[serde(with = "millis")]
    pub retry_first: Duration,
    /// At most so long.
    #[serde(with = "millis")]
    pub retry_longest: Duration,
    /// How long it is tried.
    #[serde(with = "millis")]
    pub keep: Duration,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self {
            allow: Networks::default(),
            contact: String::new(),
            every: Duration::from_secs(1),
            settle: Duration::from_secs(30),
            gather: Duration::from_secs(30),
            retry_first: Duration::from_secs(5),
            retry_longest: Duration::from_secs(3_600),
            keep: Duration::from_secs(3 * 24 * 3_600),
        }
    }
}

impl NotifyConfig {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The setting, and what it must be.
    pub fn check(&self) -> Result<(), &'static str> {
        let contact = self.contact.as_str();
        if !contact.is_empty() && !contact.starts_with("mailto:") && !contact.starts_with("https:") {
            return Err("contact: it begins with mailto: or https:");
        }
        if self.every.is_zero() {
            return Err("every: at least 1 millisecond");
        }
        if self.retry_first.is_zero() || self.retry_first > self.retry_longest {
            return Err("retry_first: at least 1 millisecond, and at most retry_longest");
        }
        Ok(())
    }

    /// Whether some are never notified, and what to do, where chat nodes show those who have gone for `grace`: whoever is looked at meanwhile
    /// counts as connected, and is not looked at again.
    pub fn forgets(&self, grace: Duration) -> Option<String> {
        let (settle, grace) = (self.settle.as_millis(), grace.as_millis());
        (settle < grace).then(|| {
            format!(
                "writer.notify.settle ({settle}) is less than the nodes' presence.grace_ms ({grace}): who goes right before a message would \
                 never be notified of it; set writer.notify.settle to {grace} or more, or presence.grace_ms to {settle} or less"
            )
        })
    }
}

/// What the parts have in common.
struct Shared {
    config: NotifyConfig,
    engines: Engines,
    metrics: Metrics,
    /// Something was queued by this writer.
    queued_for: QueuedFor,
    applications: Applications,
}

#[derive(Default)]
struct QueuedFor {
    webhooks: Notify,
    browsers: Notify,
}

impl Shared {
    fn queued(&self) {
        self.queued_for.webhooks.notify_one();
        self.queued_for.browsers.notify_one();
    }

    fn now(&self) -> Millis {
        self.engines.clock.now()
    }
}

/// Goes on until it is dropped.
pub(crate) async fn run(
    config: NotifyConfig,
    engines: Engines,
    metrics: Metrics,
    owned: watch::Receiver<BTreeSet<Partition>>,
) -> Infallible {
    let shared = Arc::new(Shared {
        config,
        engines,
        metrics,
        queued_for: QueuedFor::default(),
        applications: Applications::default(),
    });
    tokio::select! {
        never = Rounds::new(Arc::clone(&shared), owned).run() => never,
        never = senders::run(Arc::clone(&shared)) => never,
        never = prune(&shared) => never,
    }
}

/// Gives up what is too old, and forgets what was done with long ago. Any number of writers may.
async fn prune(shared: &Shared) -> Infallible {
    loop {
        let now = shared.now();
        let (waiting, ended) = (now.minus(shared.config.keep), now.minus(ENDED));
        match shared.engines.notify.prune_deliveries(waiting, ended, PRUNED).await {
            Ok(pruned) if pruned >= u64::from(PRUNED) => continue,
            Ok(_) => {}
            Err(error) => {
                shared.metrics.store_errors.inc();
                tracing::warn!(%error, "deliveries that are too old stay for now");
            }
        }
        match shared.engines.notify.oldest_pending().await {
            Ok(since) => shared.metrics.oldest_pending(since.map(|since| shared.now().since(since))),
            Err(error) => {
                shared.metrics.store_errors.inc();
                tracing::warn!(%error, "how long the oldest notification waits is not known");
            }
        }
        sleep(PRUNE).await;
    }
}

#[cfg(test)]
mod tests {
    use common::cache::GRACE;

    use super::*;

    #[test]
    fn no_1_who_is_still_shown_when_looked_at_would_be_forgotten() {
        let settling = |settle| NotifyConfig { settle, ..NotifyConfig::default() };
        assert_eq!(NotifyConfig::default().forgets(GRACE), None);
        assert_eq!(settling(GRACE).forgets(GRACE), None);
        let said = settling(GRACE - Duration::from_millis(1)).forgets(GRACE).unwrap();
        assert!(
            said.contains("writer.notify.settle (9999)") && said.contains("presence.grace_ms (10000)"),
            "{said}"
        );
        assert_eq!(settling(Duration::ZERO).forgets(Duration::ZERO), None);
    }
}
