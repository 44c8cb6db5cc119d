//! `GET /socket?ticket=…`: who may open a socket here, and with what bounds. What is said over it is [`crate::session`]'s.
//!
//! Everything that can be refused is refused before the upgrade, as a problem: what is not an upgrade, a browser's page from elsewhere, a
//! subprotocol nobody speaks, a full node, a bad ticket.

mod metrics;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{
        Query, State, WebSocketUpgrade, rejection::QueryRejection, ws::rejection::WebSocketUpgradeRejection,
    },
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use common::{
    cache::SharedCache,
    ids::{Incarnation, NodeId},
    problem::Problem,
    token::Tickets,
    wire::{
        client::{FieldError, SUBPROTOCOL_JSON},
        codes::ErrorCode,
    },
};
use serde::Deserialize;

pub use self::metrics::SocketMetrics;
use crate::{
    commands::Commands,
    control::Clock,
    deliver::Deliver,
    session::{self, OpenLanes},
    tickets::Gate,
};

/// Bytes that the socket reads at once: it zeroes as many at each read (facts, 13).
const READ_BUFFER: usize = 1024;
/// Bytes that are collected before they are written: a dozen short events.
const WRITE_BUFFER: usize = 4096;
/// Bytes that may be collected while the system takes none. Only a single frame comes near it: a page of 100 messages of 16 KiB,
/// which JSON makes six times as long at the worst (10 MiB). Otherwise nothing is fed while something waits.
const MAX_WRITE_BUFFER: usize = 16 * 1024 * 1024;

/// What a node allows its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// The pages that may open sockets, exactly as browsers send them (`https://chat.example.org`). What sends no `Origin` is no browser,
    /// and may.
    pub origins: Vec<String>,
    /// Bytes of a client's frame.
    pub frame_bytes: usize,
    /// Sockets at once. Past it they are refused, and the dispatcher sends users elsewhere.
    pub capacity: u32,
    /// How long a client has for its `hello`.
    pub hello_wait: Duration,
    /// How often a client is asked whether it is there.
    pub ping_every: Duration,
    /// How long it has for a sign of life.
    pub pong_wait: Duration,
    /// How long a closed socket waits for the client's own close.
    pub close_wait: Duration,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            // A body of 16 KiB, three times as long as escaped JSON in any script, and some.
            frame_bytes: 64 * 1024,
            // At 8 KiB each, 400 MiB.
            capacity: 50_000,
            hello_wait: Duration::from_secs(10),
            // Facts, 14: 15 to 25 s, dead after one miss and 10 s.
            ping_every: Duration::from_secs(20),
            pong_wait: Duration::from_secs(10),
            close_wait: Duration::from_secs(2),
        }
    }
}

/// What sockets stand on.
pub struct SocketDeps {
    /// This node.
    pub node: NodeId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Checks tickets.
    pub tickets: Tickets,
    /// The dispatchers' clock.
    pub clock: Clock,
    /// Shows who is connected.
    pub cache: SharedCache,
    /// What clients may ask for.
    pub commands: Commands,
    /// Makes a session's lanes.
    pub lanes: OpenLanes,
    /// Brings the events.
    pub deliver: Deliver,
    /// What is counted.
    pub metrics: SocketMetrics,
    /// Open sockets, for the heartbeat.
    pub sockets: Arc<AtomicU32>,
    /// What is allowed.
    pub config: SocketConfig,
}

impl fmt::Debug for SocketDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketDeps of {}", self.node)
    }
}

/// What the sessions of a node share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) clock: Clock,
    pub(crate) cache: SharedCache,
    pub(crate) commands: Commands,
    pub(crate) lanes: OpenLanes,
    pub(crate) deliver: Deliver,
    pub(crate) metrics: SocketMetrics,
    pub(crate) config: SocketConfig,
    gate: Gate,
    sockets: Arc<AtomicU32>,
}

/// The node's path for sockets. Each socket's task runs until its end; the shutdown that [`Deliver`] was given ends them all.
pub fn router(deps: SocketDeps) -> Router {
    let SocketDeps {
        node,
        incarnation,
        tickets,
        clock,
        cache,
        commands,
        lanes,
        deliver,
        metrics,
        sockets,
        config,
    } = deps;
    let gate = Gate::new(tickets, node.clone(), incarnation);
    let shared =
        Shared { node, incarnation, clock, cache, commands, lanes, deliver, metrics, config, gate, sockets };
    Router::new().route("/socket", get(open)).with_state(Arc::new(shared))
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    ticket: String,
}

async fn open(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    params: Result<Query<Params>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match admit(&shared, &headers, params, upgrade) {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

fn admit(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    params: Result<Query<Params>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| Problem::new(ErrorCode::Invalid, "this path is for WebSockets"))?;
    allowed_origin(headers, &shared.config.origins)?;
    let upgrade = subprotocol(upgrade)?;
    let slot = Slot::take(shared)?;
    let ticket = params.map(|Query(params)| params.ticket).unwrap_or_default();
    let ticket = shared.gate.admit(&ticket, shared.clock.now())?;
    // The runtime's token counts the task from now on, so that a shutdown waits for it.
    let token = shared.deliver.0.tasks.token();
    let task = Arc::clone(shared);
    // Twice what is allowed: one that is only somewhat too long is read, and closed in good order.
    let hard_limit = shared.config.frame_bytes * 2;
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(hard_limit)
        .max_frame_size(hard_limit)
        .on_upgrade(move |socket| async move {
            session::run(task, socket, ticket.caller).await;
            drop(slot);
            drop(token);
        }))
}

/// Browsers tell which page opens a socket, and do not ask whether it may (facts, 15).
fn allowed_origin(headers: &HeaderMap, origins: &[String]) -> Result<(), Problem> {
    let allowed =
        |origin: &HeaderValue| origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
    if headers.get_all(header::ORIGIN).iter().all(allowed) {
        Ok(())
    } else {
        Err(Problem::new(ErrorCode::Forbidden, "pages of this origin may not open sockets here"))
    }
}

/// Chooses the subprotocol: JSON, also for a client that asks for none.
fn subprotocol(upgrade: WebSocketUpgrade) -> Result<WebSocketUpgrade, Problem> {
    let asked = upgrade.requested_protocols().next().is_some();
    let upgrade = upgrade.protocols([SUBPROTOCOL_JSON]);
    if asked && upgrade.selected_protocol().is_none() {
        let error = FieldError {
            location: "headers".into(),
            param: "sec-websocket-protocol".into(),
            msg: format!("{SUBPROTOCOL_JSON} is spoken here"),
        };
        return Err(Problem::invalid(error));
    }
    Ok(upgrade)
}

/// One of the node's sockets; given back when dropped.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Result<Self, Problem> {
        let more = |open: u32| (open < shared.config.capacity).then_some(open + 1);
        match shared.sockets.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => {
                shared.metrics.sockets.inc();
                Ok(Self(Arc::clone(shared)))
            }
            Err(_) => {
                Err(Problem::retry_later("this node has as many sockets as it takes: ask for a new location"))
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.sockets.dec();
    }
}
