//! Owning: for the partitions that the placement names this node for, it decides, numbers, appends and publishes.
//!
//! A partition is one task ([`partition`]): it takes over ([`takeover`]: claims, and reads what the store does not have yet), then
//! serves one request after another: each chat has a queue ([`queue`]), a request waits in it for what it needs from the store
//! ([`lookup`]), is decided by pure rules ([`policy`]) against the chat in memory ([`chat`]), appended, and answered when
//! the log has confirmed it ([`publish`]), or, if it changes who is in a chat, when the writer has stored it ([`stored`]).
//!
//! Absent on purpose: who should own what (the dispatcher says so), and how requests get here (`forward`, `control`).

mod chat;
mod lookup;
mod partition;
#[cfg(feature = "planted")]
mod planted;
mod policy;
mod publish;
mod queue;
mod rate;
mod since;
mod stored;
mod tails;
mod takeover;

use std::{fmt, sync::Arc, time::Duration};

use common::{
    applications::{Applications, MessageRate, Retention},
    cache::SharedCache,
    ids::{AppId, Incarnation, NodeId, Partition},
    log::SharedLog,
    shutdown::Shutdown,
    store::SharedStore,
    time::Millis,
    wire::{
        codes::ErrorCode,
        marks::Place,
        owner::{Answer, OwnerRequest, Refusal},
        peer::{Live, Placement, Topic},
    },
};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use self::{lookup::Lookup, queue::Job, since::Whereabouts, stored::Stored, tails::Tails};
use crate::{
    control::{Clock, Lease},
    relationships::Relationships,
};

/// Requests that wait for one partition's task. At 5,000/s on one partition this is 0.4 s of work; when it is full, a request is
/// refused with `retry_later`, surely not stored.
const INTAKE: usize = 2_048;

/// Where confirmed changes go: this node's own sessions, and the dispatchers for everybody else's.
pub trait Outlet: Send + Sync + 'static {
    /// Must not block; what it cannot pass on, it marks as lost, and receivers repair. What is published together may be kept until
    /// [`Self::flush`].
    fn publish(&self, topics: Vec<Topic>, live: Live);

    /// That was all for now.
    fn flush(&self) {}
}

/// What an owner's memory may hold, and how fast one may write.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnerLimits {
    /// Bytes of undrained changes in one partition; beyond it requests are refused with `retry_later` until the writer has caught up.
    pub undrained_bytes: usize,
    /// Bytes of drained changes that one partition keeps for nodes that ask what they missed; beyond it they are forgotten, and read elsewhere.
    pub drained_bytes: usize,
    /// Chats in memory in one partition; beyond it a chat that is not in memory is refused with `retry_later`.
    pub chats: usize,
    /// How fast one user may write in one chat of an application that has chosen nothing else. [`MessageRate::UNLIMITED`] unless it is set; a setting
    /// of [`crate::settings::Limits`].
    #[serde(skip)]
    pub message_rate: MessageRate,
    /// How many chats one user may be in, in an application that has chosen nothing else; 0: as many as come. 0 unless it is set; a setting of
    /// [`crate::settings::Limits`].
    #[serde(skip)]
    pub chats_per_user: u32,
}

impl Default for OwnerLimits {
    fn default() -> Self {
        // 16 partitions on one node: 1 GiB of undrained and 256 MiB of drained changes at the worst, and about 1 KiB a small chat.
        Self {
            undrained_bytes: 64 * 1024 * 1024,
            drained_bytes: 16 * 1024 * 1024,
            chats: 50_000,
            message_rate: MessageRate::UNLIMITED,
            chats_per_user: 0,
        }
    }
}

/// What owning stands on.
pub struct OwnerDeps {
    /// This node.
    pub node: NodeId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// The log.
    pub log: SharedLog,
    /// The store.
    pub store: SharedStore,
    /// Where the tails of chats are kept.
    pub cache: SharedCache,
    /// What applications have chosen.
    pub applications: Applications,
    /// What the users of direct chats are to each other.
    pub relationships: Relationships,
    /// Whether the dispatchers still count on this node.
    pub lease: Lease,
    /// The dispatchers' clock.
    pub clock: Clock,
    /// Where confirmed changes go.
    pub outlet: Arc<dyn Outlet>,
    /// Bounds.
    pub limits: OwnerLimits,
    /// What is planted here.
    #[cfg(feature = "planted")]
    pub planted: common::planted::Planted,
}

struct Context {
    node: NodeId,
    incarnation: Incarnation,
    log: SharedLog,
    store: SharedStore,
    applications: Applications,
    relationships: Relationships,
    lease: Lease,
    clock: Clock,
    outlet: Arc<dyn Outlet>,
    limits: OwnerLimits,
    stored: Stored,
    lookup: Lookup,
    tails: Tails,
    metrics: Metrics,
    #[cfg(feature = "planted")]
    planted: common::planted::Planted,
}

impl Context {
    /// How fast one user may write in one chat of an application.
    fn message_rate(&self, app: AppId) -> MessageRate {
        self.applications.settings(app).message_rate.unwrap_or(self.limits.message_rate)
    }

    /// How many chats one user of an application may be in, if there is a limit.
    fn chats_per_user(&self, app: AppId) -> Option<u32> {
        let most = self.applications.settings(app).chats_per_user.unwrap_or(self.limits.chats_per_user);
        (most > 0).then_some(most)
    }

    /// Whether messages of a chat end some day: how they stand, memory alone does not say then.
    fn messages_end(&self, app: AppId, chat: &chat::Chat) -> bool {
        let chosen = chat.retention.unwrap_or_else(|| self.applications.settings(app).retention);
        chosen != Retention::Forever
    }
}

struct Metrics {
    appended: IntCounter,
    confirmed: IntCounter,
    repeats: IntCounter,
    terms: IntCounterVec,
}

impl Metrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            appended: IntCounter::new(
                "owner_appended_total",
                "Records appended to the log, claims excluded",
            )?,
            confirmed: IntCounter::new("owner_confirmed_total", "Records confirmed by the log")?,
            repeats: IntCounter::new("owner_repeats_total", "Sends that were known already")?,
            terms: IntCounterVec::new(
                Opts::new("owner_terms_total", "Terms that began or ended, by how"),
                &["how"],
            )?,
        };
        registry.register(Box::new(metrics.appended.clone()))?;
        registry.register(Box::new(metrics.confirmed.clone()))?;
        registry.register(Box::new(metrics.repeats.clone()))?;
        registry.register(Box::new(metrics.terms.clone()))?;
        Ok(metrics)
    }
}

/// The door to every partition's task. Cheap to clone.
#[derive(Clone)]
pub struct Owners(Arc<Vec<Handle>>);

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owners of {} partitions", self.0.len())
    }
}

struct Handle {
    jobs: mpsc::Sender<Job>,
    named: watch::Sender<bool>,
    serving: watch::Receiver<bool>,
    place: Whereabouts,
}

impl Owners {
    /// Starts a task for each partition; none owns anything before [`Self::place`]. They end with `shutdown`, after what they
    /// appended is settled.
    ///
    /// # Errors
    /// When the registry has one of the metrics' names already.
    pub fn start(
        deps: OwnerDeps,
        registry: &Registry,
        shutdown: &Shutdown,
    ) -> Result<Self, prometheus::Error> {
        let partitions = deps.log.partitions();
        let context = Arc::new(Context {
            stored: Stored::start(deps.store.clone(), shutdown),
            lookup: Lookup::start(deps.store.clone(), shutdown),
            tails: Tails::start(deps.cache, shutdown),
            metrics: Metrics::new(registry)?,
            node: deps.node,
            incarnation: deps.incarnation,
            log: deps.log,
            store: deps.store,
            applications: deps.applications,
            relationships: deps.relationships,
            lease: deps.lease,
            clock: deps.clock,
            outlet: deps.outlet,
            limits: deps.limits,
            #[cfg(feature = "planted")]
            planted: deps.planted,
        });
        let handles = (0..partitions).map(|number| {
            let (jobs, intake) = mpsc::channel(INTAKE);
            let (named, is_named) = watch::channel(false);
            let (serves, serving) = watch::channel(false);
            let place = Whereabouts::default();
            #[cfg(feature = "planted")]
            shutdown.spawn(
                "a second owner",
                planted::second_owner(Arc::clone(&context), number, shutdown.soft()),
            );
            let owning = partition::Owning {
                context: Arc::clone(&context),
                partition: number,
                place: Arc::clone(&place),
            };
            let task = partition::run(owning, intake, is_named, serves, shutdown.soft());
            shutdown.spawn("a partition's owner", task);
            Handle { jobs, named, serving, place }
        });
        Ok(Self(Arc::new(handles.collect())))
    }

    /// Takes over what the placement names this node for, and hands over what it does not.
    pub fn place(&self, placement: &Placement, node: &NodeId) {
        for (number, handle) in self.0.iter().enumerate() {
            let mine = placement.owners.get(number).is_some_and(|owner| owner.as_ref() == Some(node));
            handle.named.send_if_modified(|named| std::mem::replace(named, mine) != mine);
        }
    }

    /// Resolves once every partition that this node is not named for has been given up: what was under way is flushed, and no read is answered
    /// from its memory any more. False when that took longer than `wait`.
    pub async fn handed_over(&self, wait: Duration) -> bool {
        let all = async {
            for handle in self.0.iter() {
                // A task that has ended serves nothing. One that found itself named a moment ago hears that it is not before it claims.
                if !*handle.named.borrow() {
                    let _ = handle.serving.clone().wait_for(|serving| !serving).await;
                }
            }
        };
        tokio::time::timeout(wait, all).await.is_ok()
    }

    /// Resolves once this node is named for nothing, and has given everything up. False when that took longer than `wait`.
    pub async fn given_up(&self, wait: Duration) -> bool {
        let all = async {
            for handle in self.0.iter() {
                let _ = handle.named.subscribe().wait_for(|named| !named).await;
                let _ = handle.serving.clone().wait_for(|serving| !serving).await;
            }
        };
        tokio::time::timeout(wait, all).await.is_ok()
    }

    /// Where the partitions are that this node owns now.
    pub fn places(&self) -> Vec<(Partition, Place)> {
        let places = (0..).zip(self.0.iter());
        places.filter_map(|(number, handle)| Some((number, (*handle.place.lock())?))).collect()
    }

    /// Asks this node as the owner of `partition`. Answers [`Answer::NotOwner`] when it is not; past `deadline` it stores nothing more, and what it
    /// did before is not known to who asked: [`Answer::Unknown`], at the latest `wait` from now.
    pub async fn handle(
        &self,
        partition: Partition,
        request: OwnerRequest,
        deadline: Millis,
        wait: Duration,
    ) -> Answer {
        let Some(handle) = self.0.get(usize::from(partition)) else { return Answer::NotOwner };
        let (reply, answer) = oneshot::channel();
        match handle.jobs.try_send(Job::new(request, deadline, reply)) {
            // The partition was dropped after the request was appended, or in the middle of it.
            Ok(()) => match tokio::time::timeout(wait, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Answer::Unknown,
            },
            Err(mpsc::error::TrySendError::Full(_)) => retry_later("the chat's owner has too much to do"),
            Err(mpsc::error::TrySendError::Closed(_)) => Answer::NotOwner,
        }
    }
}

fn retry_later(detail: &str) -> Answer {
    Answer::Refused(later(detail))
}

fn later(detail: &str) -> Refusal {
    Refusal {
        retry_after_ms: Some(u64::try_from(RETRY_AFTER.as_millis()).unwrap_or(u64::MAX)),
        ..Refusal::new(ErrorCode::RetryLater, detail)
    }
}

/// What a refused client is told to wait: about as long as a full intake takes to empty.
const RETRY_AFTER: Duration = Duration::from_millis(500);
