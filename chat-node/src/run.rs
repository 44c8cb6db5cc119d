//! What starts in a node, in which order, and how it stops.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use common::{
    address::Networks,
    admin_key::AdminKey,
    admission::Admission,
    applications::{Applications, MessageRate},
    cache::NodeLife,
    engines::Engines,
    ids::{Incarnation, NodeId},
    link::{Endpoint, Peer, Role},
    listen::{self, ListenLimits},
    revocations::Revocations,
    seal::Sealer,
    shutdown::{Shutdown, Stopped},
    token,
    wire::peer::{Live, Placement, Topic},
};
use prometheus::{IntCounter, Registry};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    api::{self, HttpMetrics, Patience},
    ask::AskOwner,
    attachments::{AttachmentSettings, Attachments, BadAttachments, CheckAttachments},
    auth::Auth,
    commands::Commands,
    control::{Control, Presentation, Receiver},
    deliver::{Deliver, DeliverDeps},
    erasing::Erasing,
    forward::{Forward, Lanes},
    identity::{Identity, IdentityConfig, IdentityParts},
    making::Making,
    marks::Partitions,
    notifications::Notifications,
    owner::{Outlet, OwnerDeps, OwnerLimits, Owners},
    passwords::BadCost,
    people::People,
    presence::{PresenceConfig, PresenceDeps, Whereabouts},
    reads::{Reads, TellRead},
    relationships::Relationships,
    socket::{self, SocketConfig, SocketDeps, SocketMetrics},
    storage_api,
};

/// How long it may take until nobody is sent here any more and others own what this node owned: a placement, and owners that flush, for
/// which they give themselves 2 s. Later, whoever still comes hears that the node stops.
const LEAVING: Duration = Duration::from_secs(3);
/// How long requests that are under way may take once the node is asked to stop. Slower ones are cut off, which is a clean stop all the same.
const REQUESTS: Duration = Duration::from_secs(2);
/// How long sockets and requests may take to end, and what is left of them to be cut off; sockets are told at once. Past it, one hangs.
const DOORS: Duration = Duration::from_secs(3);
/// How long what owners have appended may take to settle after that; they give themselves 2 s.
const OWNING: Duration = Duration::from_secs(3);
/// How long the last frames to the dispatchers may take; the links give themselves 1 s.
const LINKS: Duration = Duration::from_secs(2);
/// How long all of that takes at the most, when nothing hangs: whoever stops a node gives it longer.
pub const STOPPING: Duration = LEAVING.saturating_add(DOORS).saturating_add(OWNING).saturating_add(LINKS);

/// Connections to the storage API at a time: a few systems, with a pool each.
const STORAGE_CONNECTIONS: usize = 1_000;

/// The name of the secret that cursors are sealed with.
const CURSORS: &str = "cursor";

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name: unique in the cluster, and the one in its certificate.
    pub node: NodeId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Where clients open sockets, without a path: `ws://host:port`.
    pub socket_url: String,
    /// Where the gateway sends requests: `http://host:port`.
    pub http_url: String,
    /// Whose `X-Forwarded-For` is believed.
    pub gateways: Vec<IpAddr>,
    /// Sign-in.
    pub identity: IdentityConfig,
    /// The operator's.
    pub admin_key: AdminKey,
    /// Of the storage API.
    pub storage_key: AdminKey,
    /// Files.
    pub attachments: AttachmentSettings,
    /// What owning may take.
    pub owner: OwnerLimits,
    /// How fast one user may make chats.
    pub chat_rate: MessageRate,
    /// Bounds and times of a socket.
    pub socket: SocketConfig,
    /// Who is shown as connected, and to whom.
    pub presence: PresenceConfig,
    /// Internal networks that webhooks and push services may be in.
    pub notify_allow: Networks,
    /// What is planted in it.
    #[cfg(feature = "planted")]
    pub planted: common::planted::Planted,
}

/// Where a node is reached, and whom it links to.
#[derive(Debug)]
pub struct Listeners {
    /// By clients and the gateway.
    pub http: TcpListener,
    /// By systems of the operator's own, for the storage API, if there is to be one. Nobody is told of it.
    pub storage: Option<TcpListener>,
    /// What it dials with: of the role node, under its name.
    pub links: Endpoint,
    /// The dispatchers' addresses.
    pub dispatchers: Vec<String>,
}

/// Why a node did not run, or stopped unasked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its metrics cannot be registered.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The cost of a password cannot be used.
    #[error(transparent)]
    PasswordCost(#[from] BadCost),
    /// Attachments cannot be kept where the settings say.
    #[error(transparent)]
    Attachments(#[from] BadAttachments),
    /// There is a listener for the storage API, and no key that opens it.
    #[error("the storage API has a listener and no key")]
    StorageKey,
    /// It was stopped before the store gave what every request needs.
    #[error("the node was stopped before the store answered")]
    StoppedEarly,
    /// A part of it died, or would not end.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What an owner here decided goes to this node's own sessions, and through the dispatchers to the others'.
struct Out {
    deliver: Deliver,
    control: Control,
    #[cfg(feature = "planted")]
    planted: common::planted::Planted,
}

impl Outlet for Out {
    fn publish(&self, topics: Vec<Topic>, live: Live) {
        // So many that of a handful of chats one loses its last frame, which no later one shows to be missing: one in 200 runs does without.
        #[cfg(feature = "planted")]
        if self.planted.with(common::planted::Circumstance::LostFrames) && rand::random_ratio(3, 4) {
            self.control.lose();
            return self.deliver.collect(live);
        }
        self.control.publish(topics, &live);
        self.deliver.collect(live);
    }

    fn flush(&self) {
        self.deliver.flush();
    }
}

/// Runs a node until `shutdown`; then it has its place in the cluster taken by others, tells its clients, and settles what it has begun.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    config: NodeConfig,
    engines: Engines,
    listeners: Listeners,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    if listeners.storage.is_some() && !config.storage_key.is_set() {
        return Err(RunError::StorageKey);
    }
    let registry = Registry::new();
    // Three stops, one after the other: what clients reach, what decides, what links.
    let (doors, owning, linking) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
    let (asked, soft, tasks) = (shutdown.soft(), doors.soft(), TaskTracker::new());
    let metrics = SocketMetrics::new(&registry)?;

    // What every request needs.
    let keys = token::load(&engines.store, &asked).await;
    let (tokens, tickets) = keys.ok_or(RunError::StoppedEarly)?;
    let revocations = Revocations::load(engines.store.clone(), &asked).await.ok_or(RunError::StoppedEarly)?;
    doors.spawn("revocations", revocations.clone().run(soft.clone()));
    let applications = Applications::load(&engines.store, &asked).await.ok_or(RunError::StoppedEarly)?;
    applications.keep_keys(&tokens);
    doors.spawn("applications", applications.clone().run(engines.store.clone(), soft.clone()));
    let relationships = Relationships::new(engines.store.clone());
    doors.spawn("relationships", relationships.clone().run(soft.clone()));
    let sealer = Sealer::load(&engines.store, CURSORS, &asked).await.ok_or(RunError::StoppedEarly)?;

    // The way to the dispatchers, and through them to every owner.
    let (links, events) = listeners
        .dispatchers
        .iter()
        .map(|address| listeners.links.dial(address, Peer::any(Role::Dispatcher)))
        .unzip();
    let presentation = Presentation {
        node: config.node.clone(),
        incarnation: config.incarnation,
        socket_url: config.socket_url.clone(),
        http_url: config.http_url.clone(),
        capacity: config.socket.capacity,
    };
    let sockets = Arc::new(AtomicU32::new(0));
    let control = Control::new(presentation, links, Arc::clone(&sockets));
    let refused = IntCounter::new(
        "node_interest_refused_total",
        "Registrations of topics that were refused because the node has too many.",
    )?;
    registry.register(Box::new(refused.clone()))?;
    control.interest().count_refused(refused);
    let forward = Forward::new(config.node.clone(), engines.log.partitions(), &control);
    let asking: Arc<dyn AskOwner> = Arc::new(forward.clone());

    // Delivery before owning, for owners publish.
    let hints = control.clone();
    let deliver = Deliver::start(DeliverDeps {
        chats: engines.store.clone(),
        owners: Arc::clone(&asking),
        interest: control.interest(),
        revocations: revocations.clone(),
        metrics: metrics.clone(),
        sessions_per_user: crate::hub::SESSIONS_PER_USER,
        clock: control.clock(),
        cache: engines.cache.clone(),
        log: engines.log.clone(),
        partitions: Partitions {
            count: engines.log.partitions(),
            log: engines.log.id(),
            placement: control.placement(),
        },
        sealer,
        presence: PresenceDeps {
            config: config.presence,
            life: NodeLife { node: config.node.clone(), incarnation: config.incarnation },
            silence: config.socket.silence(),
            seen: engines.store.clone(),
            hint: Arc::new(move |topics, live| hints.hint(topics, live)),
        },
        relationships: relationships.clone(),
        tasks: tasks.clone(),
        shutdown: soft.clone(),
        #[cfg(feature = "planted")]
        planted: config.planted,
    });
    let outlet = Arc::new(Out {
        deliver: deliver.clone(),
        control: control.clone(),
        #[cfg(feature = "planted")]
        planted: config.planted,
    });
    let owners = Owners::start(
        OwnerDeps {
            node: config.node.clone(),
            incarnation: config.incarnation,
            log: engines.log.clone(),
            store: engines.store.clone(),
            cache: engines.cache.clone(),
            applications: applications.clone(),
            relationships: relationships.clone(),
            lease: control.lease(),
            clock: control.clock(),
            outlet: Arc::clone(&outlet) as Arc<dyn Outlet>,
            limits: config.owner,
            #[cfg(feature = "planted")]
            planted: config.planted,
        },
        &registry,
        &owning,
    )?;
    forward.answer_locally(owners.clone());
    let receiver: Arc<dyn Receiver> = Arc::new(deliver.clone());
    control.start(events, &owners, &receiver, &linking);
    let (mut placement, stopping) = (control.placement(), soft.clone());
    let partitions = engines.log.partitions();
    doors.spawn_critical("the placement", async move {
        // Before the first there is none.
        let other = |known: &Arc<Placement>| {
            !known.owners.is_empty() && known.owners.len() != usize::from(partitions)
        };
        match stopping.run_until_cancelled(placement.wait_for(other)).await {
            Some(Ok(known)) => Err(format!(
                "a dispatcher has {} partitions, and the log {partitions}: set `partitions` to {partitions} in every service",
                known.owners.len()
            )),
            Some(Err(_)) | None => Ok(()),
        }
    });

    // The doors.
    let (telling, hinting) = (deliver.clone(), control.clone());
    let tell_read: TellRead = Arc::new(move |topics, live| {
        hinting.hint(topics, &live);
        telling.live(live);
    });
    let reads = Reads::start(engines.store.clone(), control.clock(), tell_read, &tasks, soft.clone());
    let attachments = Attachments::open(config.attachments, engines.store.clone(), control.clock())?;
    doors.spawn("attachments", attachments.clone().run(soft.clone()));
    let check = CheckAttachments::new(engines.store.clone(), control.clock());
    let commands = Commands::new(asking, engines.store.clone(), reads, check.clone())
        .beside(deliver.clone())
        .at_most(Making::new(engines.cache.clone(), control.clock(), config.chat_rate));
    let erasing =
        Erasing::new(commands.clone(), engines.store.clone(), applications.clone(), control.clock());
    doors.spawn("erasing", erasing.clone().run(deliver.clone(), engines.log.clone(), soft.clone()));
    let announce = outlet;
    let identity = Identity::new(
        &config.identity,
        IdentityParts {
            store: engines.store.clone(),
            cache: engines.cache.clone(),
            tokens: tokens.clone(),
            revocations: revocations.clone(),
            clock: control.clock(),
            announce: Arc::new(move |topics, live| announce.publish(topics, live)),
        },
    )?;
    let linked = control.clone();
    let ready = move || if linked.registered() { Ok(()) } else { Err("no dispatcher is linked".to_owned()) };
    let whereabouts = Whereabouts::new(engines.cache.clone(), engines.store.clone(), deliver.clone());
    let deps = api::Deps {
        commands: commands.clone(),
        identity,
        presence: whereabouts.clone(),
        auth: Auth::new(tokens, revocations.clone(), control.clock()).with_admin_key(config.admin_key),
        admission: Admission::new(engines.store.clone(), applications.clone()),
        people: People::new(engines.store.clone(), whereabouts, relationships, control.clock()),
        notifications: Notifications::new(engines.store.clone(), config.notify_allow, control.clock()),
        attachments,
        applications,
        erasing,
        http_metrics: HttpMetrics::new(&registry)?,
        registry,
        ready: Arc::new(ready),
        gateways: config.gateways,
        patience: Patience::default(),
    };
    let storage = listeners.storage.map(|listener| {
        let router = storage_api::router(deps.clone(), config.storage_key);
        let limits = ListenLimits {
            connections: STORAGE_CONNECTIONS,
            is_upload: |_| false,
            grace: REQUESTS,
            ..ListenLimits::default()
        };
        listen::serve(listener, router, limits, soft.clone())
    });
    let rest = api::router(deps);
    let socket = socket::router(SocketDeps {
        node: config.node,
        incarnation: config.incarnation,
        tickets,
        clock: control.clock(),
        cache: engines.cache,
        commands,
        lanes: Arc::new(move |caller| Box::new(Lanes::new(forward.clone(), check.clone(), caller))),
        deliver,
        metrics,
        sockets,
        config: config.socket,
    });
    let limits = ListenLimits { grace: REQUESTS, ..ListenLimits::default() };
    let serving = listen::serve(listeners.http, rest.merge(socket), limits, soft.clone());
    doors.spawn_critical("node HTTP", async move {
        serving.await;
        Ok::<(), std::convert::Infallible>(())
    });

    if let Some(storage) = storage {
        doors.spawn_critical("storage API", async move {
            storage.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    // Until it is asked to stop, or a part dies.
    tokio::select! {
        () = asked.cancelled() => {}
        () = soft.cancelled() => {}
        () = owning.soft().cancelled_owned() => {}
        () = linking.soft().cancelled_owned() => {}
    }
    // First nobody comes any more; then from the outside in, so that whatever is begun still finds what it needs.
    let stopping = async {
        if !control.leave(&owners, LEAVING).await {
            tracing::warn!("stopping before others have this node's place");
        }
        doors.stop();
        tasks.close();
        let (closed, sockets) = tokio::join!(doors.wait(DOORS), tokio::time::timeout(DOORS, tasks.wait()));
        if sockets.is_err() {
            tracing::warn!(left = tasks.len(), "sockets that did not end in time are dropped");
        }
        owning.stop();
        let owned = owning.wait(OWNING).await;
        linking.stop();
        closed.and(owned).and(linking.wait(LINKS).await)
    };
    let stopped = tokio::select! {
        stopped = stopping => stopped,
        () = shutdown.hard().cancelled_owned() => {
            [&doors, &owning, &linking].into_iter().for_each(Shutdown::stop_now);
            Ok(())
        }
    };
    listeners.links.close().await;
    Ok(stopped?)
}
