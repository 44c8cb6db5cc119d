//! The public door: where a user's node is, the REST API by way of the gateway, and what operators ask.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{ConnectInfo, State},
    middleware,
    response::{IntoResponse, Response},
};
use common::{
    admission::Admission,
    document::{Document, Key, Routes, says},
    ids::{Incarnation, NodeId, Partition, UserKey},
    partition::stable_hash,
    problem::Problem,
    revocations::Revocations,
    time::Millis,
    token::{Presented, Ticket, Tickets, Tokens},
    wire::codes::ErrorCode,
};
use http::{HeaderMap, HeaderValue, Request, header};
use schemars::JsonSchema;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    cluster::Cluster,
    cors,
    docs::{self, Mine},
    gateway::{self, Gateway},
};

/// What checking tokens takes. It comes from the store, and so may come later than the first request.
#[derive(Debug)]
pub struct Keys {
    /// Of the applications.
    pub tokens: Tokens,
    /// Of the cluster.
    pub tickets: Tickets,
    /// Sign-ins that were ended.
    pub revocations: Revocations,
    /// Lets those in who come with their application's own tokens.
    pub admission: Admission,
}

/// What the handlers share.
#[derive(Debug)]
pub struct Door {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Set once the store has answered.
    pub keys: Arc<OnceLock<Keys>>,
    /// Passes requests on.
    pub gateway: Gateway,
}

/// Every path of the dispatcher.
pub fn router(door: Arc<Door>, origins: cors::Allowed) -> Router {
    let mut document = Document::default();
    let paths = document.take("", routes().merge(docs::routes()));
    let mine = Mine(Arc::new(document.openapi()));
    paths
        .method_not_allowed_fallback(async || {
            Problem::new(ErrorCode::MethodNotAllowed, "this path has other methods")
        })
        .fallback(forward)
        .with_state(door)
        .layer(Extension(mine))
        .layer(middleware::from_fn_with_state(origins, cors::check))
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request's handler panicked");
            Problem::new(ErrorCode::Internal, "something is wrong here; it was reported").into_response()
        }))
}

/// The paths that are not documents. They are served and written down in one breath ([`common::document`]).
fn routes() -> Routes<Arc<Door>> {
    let text = "text/plain";
    Routes::new("Location and operation")
        .get(
            "/chat/location",
            location,
            says("Where the caller's sockets belong: the address to open")
                .by(Key::User)
                .ok(&Location::example()),
        )
        .get(
            "/cluster",
            cluster,
            says("The cluster: its nodes, and what each owns").ok(&ClusterView::example()),
        )
        .get("/healthz", async || "ok\n", says("Whether the dispatcher is alive").raw(200, "It is.", text))
        .get("/readyz", readyz, says("Whether it can serve").raw(200, "It can.", text))
        .get(
            "/metrics",
            metrics,
            says("Its figures, for Prometheus").raw(200, "Prometheus' text format.", text),
        )
}

/// Where a user's sockets belong (LO-1).
#[derive(Debug, Serialize, JsonSchema)]
struct Location {
    /// To be opened as it is, before `expires_at`, once.
    url: String,
    /// The node's name.
    node: NodeId,
    /// Of the ring that said so.
    ring_epoch: u64,
    /// Until when the ticket in `url` is good.
    expires_at: Millis,
}

impl Location {
    fn example() -> Self {
        Self {
            url: "ws://node-1.example.org/socket?ticket=eyJhbGciOiJIUzI1NiJ9.e30.c2ln".into(),
            node: NodeId::example(),
            ring_epoch: 7,
            expires_at: Millis(1_795_252_584_000),
        }
    }
}

async fn location(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    let (outcome, mut response) = match door.locate(&headers, Millis::now()).await {
        Ok(location) => ("placed", Json(location).into_response()),
        Err(problem) => (problem.code.word(), problem.into_response()),
    };
    door.cluster.metrics.location(outcome);
    // It holds a ticket.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Door {
    async fn locate(&self, headers: &HeaderMap, now: Millis) -> Result<Location, Problem> {
        let keys = self.keys.get().ok_or_else(|| Problem::retry_later("the cluster is starting"))?;
        let presented = keys.caller(headers, now).await?;
        keys.admission.admit(&presented, now).await?;
        let caller = presented.caller;
        let view = self.cluster.view();
        if !view.settled {
            return Err(Problem::retry_later("the cluster is starting"));
        }
        let user = caller.key();
        let node = view
            .place(user.hash64())
            .ok_or_else(|| Problem::retry_later("no chat node takes you in at the moment"))?;
        let ticket = Ticket {
            caller,
            node: node.id.clone(),
            incarnation: node.registration.incarnation,
            id: rand::random(),
            // Tickets count in whole seconds.
            expires_at: Millis::from_secs(now.plus(Tickets::LIFETIME).as_secs()),
        };
        let signed = keys
            .tickets
            .issue(&ticket, now)
            .map_err(|_| Problem::new(ErrorCode::Internal, "something is wrong here; it was reported"))?;
        node.load.sent(user.hash64());
        Ok(Location {
            url: format!("{}/socket?ticket={signed}", node.registration.socket_url),
            node: ticket.node,
            ring_epoch: view.epoch,
            expires_at: ticket.expires_at,
        })
    }

    /// Whose request it is, by a good token; not refused without one: that is for the node to do.
    fn known(&self, headers: &HeaderMap) -> Option<UserKey> {
        let caller = self.keys.get()?.tokens.check(bearer(headers)?, Millis::now()).ok()?;
        Some(caller.key())
    }

    /// Why it is not ready, if it is not: the store has answered once, and there is a placement with somebody in it.
    fn unready(&self) -> Option<&'static str> {
        let view = self.cluster.view();
        match () {
            () if self.keys.get().is_none() => Some("the store has not answered yet"),
            () if !view.settled => Some("there is no placement yet"),
            () if view.ring.nodes().is_empty() => Some("no chat node is alive"),
            () => None,
        }
    }
}

impl Keys {
    /// Who speaks. Whatever is wrong with a token, its bearer hears the same.
    async fn caller(&self, headers: &HeaderMap, now: Millis) -> Result<Presented, Problem> {
        let presented = match bearer(headers) {
            Some(token) => self.admission.present(&self.tokens, token, now).await,
            None => None,
        };
        presented
            .filter(|Presented { caller, .. }| !self.revocations.contains(caller.key(), caller.session))
            .ok_or_else(|| {
                Problem::new(ErrorCode::Unauthenticated, "send a valid token: Authorization: Bearer …")
            })
    }
}

/// The token in the one `Authorization` header. Two of them are none: who put the second one there is not known.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

async fn forward(State(door): State<Arc<Door>>, request: Request<Body>) -> Response {
    if !gateway::is_public(request.uri().path()) {
        return Problem::new(ErrorCode::NotFound, "there is no such path here").into_response();
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let hash = door.known(request.headers()).map_or_else(|| hash_of(peer), UserKey::hash64);
    let view = door.cluster.view();
    door.gateway.forward(&view, hash, peer, request).await
}

/// Spreads who is not known yet.
fn hash_of(peer: Option<IpAddr>) -> u64 {
    match peer {
        Some(IpAddr::V4(ip)) => stable_hash(&[&ip.octets()]),
        Some(IpAddr::V6(ip)) => stable_hash(&[&ip.octets()]),
        None => rand::random(),
    }
}

async fn readyz(State(door): State<Arc<Door>>) -> Response {
    match door.unready() {
        None => "ready\n".into_response(),
        Some(why) => Problem::retry_later(why).into_response(),
    }
}

async fn metrics(State(door): State<Arc<Door>>) -> Response {
    let (text, kind) = door.cluster.metrics.text();
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The cluster as operators see it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Cluster")]
struct ClusterView {
    epoch: u64,
    settled: bool,
    partitions: Partition,
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Node")]
struct NodeView {
    node: NodeId,
    incarnation: String,
    socket_url: String,
    /// Whether its link is up, as far as this end knows.
    linked: bool,
    sockets: u32,
    capacity: u32,
    /// Whether it is about to stop.
    leaving: bool,
    /// Those it owns.
    partitions: Vec<Partition>,
}

impl ClusterView {
    fn example() -> Self {
        let node = NodeView {
            node: NodeId::example(),
            incarnation: "5b1f90c377aa4d02".into(),
            socket_url: "ws://node-1.example.org".into(),
            linked: true,
            sockets: 1_204,
            capacity: 10_000,
            leaving: false,
            partitions: vec![0, 3],
        };
        Self { epoch: 7, settled: true, partitions: 16, nodes: vec![node] }
    }
}

async fn cluster(State(door): State<Arc<Door>>) -> Json<ClusterView> {
    let view = door.cluster.view();
    let mut owned: BTreeMap<&NodeId, Vec<Partition>> = BTreeMap::new();
    for (partition, owner) in (0..).zip(&view.owners) {
        if let Some(owner) = owner {
            owned.entry(owner).or_default().push(partition);
        }
    }
    let mut nodes: Vec<_> = view.nodes.values().collect();
    nodes.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    let nodes = nodes.into_iter().map(|node| {
        let Incarnation(incarnation) = node.registration.incarnation;
        NodeView {
            node: node.id.clone(),
            incarnation: format!("{incarnation:016x}"),
            socket_url: node.registration.socket_url.clone(),
            linked: node.link.is_up(),
            sockets: node.load.sockets(),
            capacity: node.registration.capacity,
            leaving: view.ring.nodes().binary_search(&node.id).is_err(),
            partitions: owned.remove(&node.id).unwrap_or_default(),
        }
    });
    Json(ClusterView {
        epoch: view.epoch,
        settled: view.settled,
        partitions: door.cluster.settings().partitions,
        nodes: nodes.collect(),
    })
}
