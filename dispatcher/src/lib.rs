//! The dispatcher: says which node serves whom and which node owns what, forwards frames between nodes, and is the one public origin.
//! It reads addresses, never what a message says.
//!
//! - [`members`], [`assign`], [`handover`], [`topics`]: who is there, who is to own what, who may still serve it, who wants what; pure.
//!   [`cluster`] holds them together.
//! - [`control`]: the nodes' links; [`forward`]: frames between them.
//! - [`http`]: `GET /chat/location` and what operators ask; [`gateway`]: the REST API; [`cors`].
//!
//! All of it is soft state: after a restart the nodes register again and say what they hold, so that nothing moves that need not. A node
//! that does not come back may still hold a lease of the former dispatcher's: without the number of nodes to expect, the first placement
//! waits until that is over.

pub mod assign;
pub mod cluster;
pub mod control;
pub mod cors;
mod docs;
pub mod forward;
pub mod gateway;
pub mod handover;
pub mod http;
pub mod members;
pub mod metrics;
mod parts;
#[cfg(feature = "servers")]
pub mod program;
pub mod topics;

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use common::{
    admission::Admission,
    applications::Applications,
    engines::EngineError,
    ids::Partition,
    link::Endpoint,
    listen::{self, ListenLimits},
    revocations::Revocations,
    shutdown::{Shutdown, Stopped},
    store::SharedStore,
    time::Millis,
    token,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, Settings},
    gateway::{Gateway, GatewaySettings},
    http::{Door, Keys},
    metrics::Metrics,
};

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct DispatcherConfig {
    /// Partitions of the log: the same on every service.
    pub partitions: Partition,
    /// How long a node lives without a heartbeat, which it sends each second.
    pub lease: Duration,
    /// How long after the first registration the first placement is made; at least a lease. Nodes notice within 3 s that a former dispatcher is
    /// gone, all at much the same time, and dial within another. Whoever is not back when a lease has passed holds none of the former
    /// dispatcher's any more, and serves nothing.
    pub settle: Duration,
    /// With this many nodes the first placement is made at once. 0: not known. Must not be less than there are: of a node that is not back
    /// yet, and may still serve what it owned, nothing would be known.
    pub expect_nodes: usize,
    /// Origins whose pages may call from a browser, as browsers send them: `https://chat.example.org`.
    pub allowed_origins: Vec<String>,
    /// The gateway's bounds.
    pub gateway: GatewaySettings,
}

impl Default for DispatcherConfig {
    fn default() -> Self {
        Self {
            partitions: 64,
            lease: Duration::from_secs(3),
            settle: Duration::from_secs(3),
            expect_nodes: 0,
            allowed_origins: Vec::new(),
            gateway: GatewaySettings::default(),
        }
    }
}

/// The engines that a dispatcher stands on.
#[derive(Clone, Debug)]
pub struct Engines {
    /// For the keys of tokens and tickets, and for ended sign-ins.
    pub store: SharedStore,
}

/// Where a dispatcher is reached.
#[derive(Debug)]
pub struct Listeners {
    /// By clients.
    pub http: TcpListener,
    /// By nodes: of the role dispatcher.
    pub links: Endpoint,
}

/// How long requests that are under way may take once it stops: half of what clients wait for an outcome, and "seconds" to an operator.
/// Slower ones are cut off, which is a clean stop all the same.
const REQUESTS: Duration = Duration::from_secs(3);
/// How long its parts may take to end: requests, and a second to cut off what is left of them. Past it, one hangs.
const GRACE: Duration = Duration::from_secs(4);

/// Why a dispatcher did not run, or stopped unasked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting cannot be used.
    #[error("{0}")]
    Config(String),
    /// A part of it died, or would not end.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Runs a dispatcher until `shutdown`, and then a moment longer: requests that are under way are answered.
///
/// Links and operators' paths are served at once; locations once the store has given the keys and the nodes have registered.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    config: DispatcherConfig,
    engines: Engines,
    listeners: Listeners,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    run_while_opening(config, async { Ok(Some(engines.store)) }, listeners, shutdown).await
}

/// Likewise, with a store that is still to be opened. Frames are forwarded meanwhile: that needs no store, and owners and
/// sessions on the nodes go on without one.
///
/// # Errors
/// [`RunError`]; that the store cannot be opened ends it.
pub async fn run_while_opening(
    config: DispatcherConfig,
    store: impl Future<Output = Result<Option<SharedStore>, EngineError>> + Send + 'static,
    listeners: Listeners,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let metrics = Metrics::new().map_err(|error| RunError::Config(error.to_string()))?;
    let origins = cors::allowed(&config.allowed_origins).map_err(RunError::Config)?;
    let settings = Settings {
        partitions: config.partitions,
        lease: config.lease,
        settle: config.settle,
        expect_nodes: config.expect_nodes,
        // For those who look at it from outside it goes on across a restart, as long as the clock does. Nodes say what they have heard.
        epoch: u64::try_from(Millis::now().0).unwrap_or(0),
    };
    let cluster = Arc::new(Cluster::new(settings, metrics.clone()));
    let keys = Arc::new(OnceLock::new());
    let door = Door {
        cluster: Arc::clone(&cluster),
        keys: Arc::clone(&keys),
        gateway: Gateway::new(config.gateway, metrics),
    };
    let router = http::router(Arc::new(door), origins);

    // Its own: when a part dies the others end as if asked to, and whoever runs this hears of it.
    let shutdown = shutdown.child();
    shutdown.spawn_critical("dispatcher links", control::run(cluster, listeners.links, shutdown.soft()));
    shutdown.spawn_critical("dispatcher keys", keep_keys(store, keys, shutdown.soft()));
    let limits = ListenLimits { grace: REQUESTS, ..ListenLimits::default() };
    let serving = listen::serve(listeners.http, router, limits, shutdown.soft());
    shutdown.spawn_critical("dispatcher HTTP", async move {
        serving.await;
        Ok::<(), Infallible>(())
    });
    Ok(shutdown.wait(GRACE).await?)
}

/// Waits for the store and its keys, hands them on, and follows the revocations.
async fn keep_keys(
    store: impl Future<Output = Result<Option<SharedStore>, EngineError>>,
    keys: Arc<OnceLock<Keys>>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let Some(Some(store)) = shutdown.run_until_cancelled(store).await.transpose()? else { return Ok(()) };
    let loaded = async {
        let (tokens, tickets) = token::load(&store, &shutdown).await?;
        let revocations = Revocations::load(Arc::clone(&store), &shutdown).await?;
        let applications = Applications::load(&store, &shutdown).await?;
        applications.keep_keys(&tokens);
        Some((tokens, tickets, revocations, applications))
    };
    if let Some((tokens, tickets, revocations, applications)) = loaded.await {
        let admission = Admission::new(Arc::clone(&store), applications.clone());
        let _ = keys.set(Keys { tokens, tickets, revocations: revocations.clone(), admission });
        tokio::join!(revocations.run(shutdown.clone()), applications.run(store, shutdown));
    }
    Ok(())
}
