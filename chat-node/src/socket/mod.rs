//! `GET /socket?ticket=…`: who may open a socket here, and with what bounds. What is said over it is [`crate::session`]'s.
//!
//! Everything that can be refused is refused before the upgrade, as a problem: what is not an upgrade, a browser's page from elsewhere, a
//! subprotocol nobody speaks, a full node, a bad ticket.

pub(crate) mod frame;
mod metrics;
mod upgrade;

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
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use common::{
    cache::SharedCache,
    ids::{Incarnation, NodeId},
    problem::Problem,
    token::Tickets,
    wire::{client::FieldError, codec::Format, codes::ErrorCode},
};
use serde::Deserialize;

pub use self::metrics::SocketMetrics;
use self::upgrade::{Upgrade, words};
use crate::{
    commands::Commands,
    control::Clock,
    deliver::Deliver,
    session::{self, OpenLanes},
    tickets::Gate,
};

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
            // At 8 KiB each, 160 MiB; with 49 chats each, a million topics ([`common::wire::peer::TOPICS_PER_NODE`]).
            capacity: 20_000,
            hello_wait: Duration::from_secs(10),
            // Facts, 14: 15 to 25 s, dead after one miss and 10 s.
            ping_every: Duration::from_secs(20),
            pong_wait: Duration::from_secs(10),
            close_wait: Duration::from_secs(2),
        }
    }
}

impl SocketConfig {
    /// For how long a client may give no sign of life and count as connected.
    pub fn silence(&self) -> Duration {
        self.ping_every + self.pong_wait
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

async fn open(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match admit(&shared, request) {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

fn admit(shared: &Arc<Shared>, mut request: Request) -> Result<Response, Problem> {
    let upgrade = Upgrade::asked(&mut request)
        .map_err(|_| Problem::new(ErrorCode::Invalid, "this path is for WebSockets"))?;
    allowed_origin(request.headers(), &shared.config.origins)?;
    let format = subprotocol(request.headers())?;
    let slot = Slot::take(shared)?;
    let params = Query::<Params>::try_from_uri(request.uri());
    let ticket = params.map(|Query(params)| params.ticket).unwrap_or_default();
    let ticket = shared.gate.admit(&ticket, shared.clock.now())?;
    // The runtime's token counts the task from now on, so that a shutdown waits for it.
    let token = shared.deliver.0.tasks.token();
    let task = Arc::clone(shared);
    let (response, connecting) = upgrade.answer(format);
    tokio::spawn(async move {
        if let Some((socket, said)) = connecting.connected().await {
            session::run(task, socket, said, format.unwrap_or_default(), ticket.caller).await;
        }
        drop(slot);
        drop(token);
    });
    Ok(response)
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

/// Chooses the subprotocol: the first that the client asks for and that is spoken here; none, and JSON, for a client that asks for none.
fn subprotocol(headers: &HeaderMap) -> Result<Option<Format>, Problem> {
    let mut asked = words(headers, header::SEC_WEBSOCKET_PROTOCOL).peekable();
    if asked.peek().is_none() {
        return Ok(None);
    }
    let spoken = |word: &[u8]| Format::ALL.into_iter().find(|format| format.subprotocol().as_bytes() == word);
    let error = || FieldError {
        location: "headers".into(),
        param: "sec-websocket-protocol".into(),
        msg: format!("{} are spoken here", Format::ALL.map(Format::subprotocol).join(" and ")),
    };
    asked.find_map(spoken).map(Some).ok_or_else(|| Problem::invalid(error()))
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
