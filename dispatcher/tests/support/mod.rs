//! A dispatcher on loopback, and nodes that are nothing but a link.
#![allow(dead_code, reason = "every test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use common::{
    ids::{AppId, ChatId, Incarnation, NodeId, Partition, SessionId, UserId},
    link::{Authority, Endpoint, Event, Events, Link, LinkSettings, Name, Peer, Role},
    shutdown::Shutdown,
    store::{Accounts as _, SignIn, User, sqlite::Sqlite},
    time::Millis,
    token::{self, Caller, Tickets, Tokens},
    wire::{
        codec::{pack, unpack},
        peer::{DispatcherToNode, NodeToDispatcher, Placement, Topic},
    },
};
use dispatcher::{DispatcherConfig, Engines, Listeners};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

pub(crate) fn node_id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(crate) fn chat(number: u128) -> Topic {
    Topic::Chat(AppId::DEFAULT, ChatId::from_slice(&number.to_be_bytes()).unwrap())
}

pub(crate) fn user(number: u128) -> Topic {
    Topic::User(AppId::DEFAULT, UserId::from_slice(&number.to_be_bytes()).unwrap())
}

/// Sixteen partitions, a lease of two seconds, and a placement once `nodes` are there.
pub(crate) fn config(nodes: usize) -> DispatcherConfig {
    DispatcherConfig {
        partitions: 16,
        lease: Duration::from_secs(2),
        settle: Duration::from_secs(60),
        expect_nodes: nodes,
        ..DispatcherConfig::default()
    }
}

pub(crate) struct Rig {
    pub(crate) store: Arc<Sqlite>,
    pub(crate) authority: Authority,
    pub(crate) links: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) tokens: Tokens,
    pub(crate) tickets: Tickets,
    pub(crate) client: reqwest::Client,
    lease: Duration,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), dispatcher::RunError>>,
    _folder: TempDir,
}

impl Rig {
    /// A dispatcher that makes its first placement when `nodes` have registered.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::with(config(nodes)).await
    }

    pub(crate) async fn with(config: DispatcherConfig) -> Self {
        Self::build(config, LinkSettings::default(), false).await
    }

    /// With links of these bounds, and with a store that does not answer any more.
    pub(crate) async fn build(config: DispatcherConfig, settings: LinkSettings, store_down: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let authority = Authority::generate().unwrap();
        let identity = authority.issue(Role::Dispatcher, &Name::new("dispatcher").unwrap()).unwrap();
        let endpoint = Endpoint::bind(loopback(), &identity, Incarnation::random(), settings).unwrap();
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let (links, http) = (endpoint.local_addr().unwrap(), listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let shared: common::store::SharedStore = store.clone();
        let (tokens, tickets) = token::load(&shared, &CancellationToken::new()).await.unwrap();
        if store_down {
            store.close().await;
        }
        let lease = config.lease;
        let running = tokio::spawn(dispatcher::run(
            config,
            Engines { store: shared },
            Listeners { http: listener, links: endpoint },
            shutdown.clone(),
        ));
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self {
            store,
            authority,
            links,
            http,
            tokens,
            tickets,
            client,
            lease,
            shutdown,
            running,
            _folder: folder,
        }
    }

    /// A token of a new user.
    pub(crate) fn token(&self) -> (Caller, String) {
        let now = Millis::now();
        let caller = Caller {
            app: AppId::DEFAULT,
            user: UserId::random(),
            session: SessionId::random(),
            expires_at: Millis::from_secs(now.as_secs() + 3_600),
            signed_by: None,
        };
        let token = self.tokens.issue(&caller, now).unwrap();
        (caller, token)
    }

    /// Writes the caller's sign-in into the store, so that it can be ended.
    pub(crate) async fn sign_in(&self, caller: &Caller) {
        let now = Millis::now();
        let row = User::without_password(caller.user, caller.user.to_string(), "Ana".into(), now);
        assert!(self.store.add_user(caller.app, &row).await.unwrap());
        let sign_in = SignIn {
            id: caller.session,
            user: caller.user,
            device: None,
            created_at: now,
            expires_at: caller.expires_at,
        };
        self.store.add_sign_in(caller.app, &sign_in).await.unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> reqwest::Response {
        let mut request = self.client.get(self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap()
    }

    /// Until `/readyz` says so.
    pub(crate) async fn ready(&self) {
        until("ready", async || self.get("/readyz", None).await.status() == 200).await;
    }

    pub(crate) async fn cluster(&self) -> Value {
        json(self.get("/cluster", None).await).await
    }

    pub(crate) async fn stop(self) {
        self.shutdown.stop();
        timeout(PATIENCE, self.running).await.expect("stops in time").unwrap().unwrap();
    }

    pub(crate) fn endpoint(&self, role: Role, name: &str, incarnation: Incarnation) -> Endpoint {
        let identity = self.authority.issue(role, &Name::new(name).unwrap()).unwrap();
        Endpoint::bind(loopback(), &identity, incarnation, LinkSettings::default()).unwrap()
    }
}

/// Asks again until `holds`.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) async fn json(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// A node's link, spoken by a test.
pub(crate) struct FakeNode {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) link: Link,
    pub(crate) placement: Placement,
    pub(crate) http_url: String,
    pub(crate) capacity: u32,
    /// What it says to have been named for when it registers.
    pub(crate) holds: Vec<Partition>,
    /// The newest placement that it says to have heard of when it registers.
    pub(crate) epoch: u64,
    /// Whether it says that it has given up what a placement does not name it for.
    pub(crate) hands_over: bool,
    lease: Duration,
    events: Events,
    beating: JoinHandle<()>,
    endpoint: Option<Endpoint>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

impl FakeNode {
    /// A link that is up, over which nothing was said.
    pub(crate) async fn linked(rig: &Rig, name: &str) -> Self {
        let incarnation = Incarnation::random();
        let endpoint = rig.endpoint(Role::Node, name, incarnation);
        let (link, mut events) = endpoint.dial(rig.links, Peer::any(Role::Dispatcher));
        let up = timeout(PATIENCE, events.recv()).await.unwrap();
        assert!(matches!(up, Some(Event::Up { fresh: true, .. })), "{up:?}");
        Self {
            id: node_id(name),
            incarnation,
            link,
            placement: Placement::default(),
            http_url: "http://127.0.0.1:9".into(),
            capacity: 1_000,
            holds: Vec::new(),
            epoch: 0,
            hands_over: true,
            lease: rig.lease,
            events,
            beating: tokio::spawn(async {}),
            endpoint: Some(endpoint),
        }
    }

    /// Registered, and keeping its lease.
    pub(crate) async fn joined(rig: &Rig, name: &str) -> Self {
        let mut node = Self::linked(rig, name).await;
        node.register().await;
        node
    }

    pub(crate) async fn register(&mut self) {
        self.say(&NodeToDispatcher::Register {
            incarnation: self.incarnation,
            socket_url: format!("ws://{}:80", self.id),
            http_url: self.http_url.clone(),
            capacity: self.capacity,
            holds: self.holds.clone(),
            epoch: self.epoch,
        });
        self.beat(0);
        let lease = self
            .hear("Registered", |frame| match frame {
                DispatcherToNode::Registered { lease_ms, .. } => Some(lease_ms),
                _ => None,
            })
            .await;
        assert_eq!(u128::from(lease), self.lease.as_millis());
    }

    /// Heartbeats with this many sockets from now on.
    pub(crate) fn beat(&mut self, sockets: u32) {
        self.silence();
        let link = self.link.clone();
        self.beating = tokio::spawn(async move {
            for no in 1.. {
                let _ = link.send(pack(&NodeToDispatcher::Heartbeat { no, sockets }));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    /// No more heartbeats.
    pub(crate) fn silence(&self) {
        self.beating.abort();
    }

    /// Dies: link and heartbeats, without a word.
    pub(crate) async fn die(mut self) {
        self.silence();
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.close().await;
        }
    }

    pub(crate) fn say(&self, frame: &NodeToDispatcher) {
        self.link.send(pack(frame)).unwrap();
    }

    fn take_note(&mut self, placement: Placement) {
        assert!(placement.epoch >= self.placement.epoch, "epochs count up");
        if self.hands_over {
            self.say(&NodeToDispatcher::HandedOver { epoch: placement.epoch });
        }
        self.placement = placement;
    }

    /// The next frame that is neither an echo nor a placement (which is kept).
    pub(crate) async fn next(&mut self) -> DispatcherToNode {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await.expect("a frame in time");
            let frame = match event.expect("the link is open") {
                Event::Frame(bytes) => unpack("frame", &bytes).unwrap(),
                Event::Up { .. } | Event::Down => continue,
                other => panic!("{other:?}"),
            };
            match frame {
                DispatcherToNode::Echo { .. } => {}
                DispatcherToNode::Placement(placement) => {
                    self.take_note(placement);
                }
                frame => return frame,
            }
        }
    }

    /// Reads until `pick` finds what it looks for; placements are kept on the way.
    pub(crate) async fn hear<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(DispatcherToNode) -> Option<T>,
    ) -> T {
        let reading = async {
            loop {
                let Some(event) = self.events.recv().await else { panic!("closed before: {what}") };
                let Event::Frame(bytes) = event else { continue };
                let frame = unpack("frame", &bytes).unwrap();
                if let DispatcherToNode::Placement(placement) = &frame {
                    self.take_note(placement.clone());
                }
                if let Some(found) = pick(frame) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("never heard: {what}"))
    }

    /// Until every partition has an owner and the placement is as `fits` wants it.
    pub(crate) async fn settled(&mut self, fits: impl Fn(&Placement) -> bool) -> Placement {
        self.placed(|placement| placement.owners.iter().all(Option::is_some) && fits(placement)).await
    }

    /// Until a placement is as `fits` wants it.
    pub(crate) async fn placed(&mut self, fits: impl Fn(&Placement) -> bool) -> Placement {
        if self.placement.epoch > 0 && fits(&self.placement) {
            return self.placement.clone();
        }
        self.hear("a placement", |frame| match frame {
            DispatcherToNode::Placement(placement) if fits(&placement) => Some(placement),
            _ => None,
        })
        .await
    }

    /// Registers interest and waits for the answer.
    pub(crate) async fn interest(&mut self, no: u64, add: &[Topic], remove: &[Topic]) {
        self.say(&NodeToDispatcher::Interest { no, add: add.to_vec(), remove: remove.to_vec() });
        self.hear("Interested", |frame| (frame == DispatcherToNode::Interested { no }).then_some(())).await;
    }

    pub(crate) fn publish(&self, topics: &[Topic], body: &'static [u8]) {
        self.say(&NodeToDispatcher::Publish { topics: topics.to_vec(), body: Bytes::from_static(body) });
    }

    /// The link's own gap.
    pub(crate) async fn gap(&mut self) {
        let reading =
            async { while !matches!(self.events.recv().await.expect("open"), Event::Gap { .. }) {} };
        timeout(PATIENCE, reading).await.expect("a gap");
    }

    /// The other side drops the link; this one would dial again.
    pub(crate) async fn dropped(&mut self) {
        let reading = async { while self.events.recv().await.expect("open") != Event::Down {} };
        timeout(PATIENCE, reading).await.expect("the link goes down");
    }
}

/// Who owns what in a placement, by name.
pub(crate) fn counts(placement: &Placement) -> std::collections::BTreeMap<String, usize> {
    let mut counts = std::collections::BTreeMap::new();
    for owner in placement.owners.iter().flatten() {
        *counts.entry(owner.to_string()).or_default() += 1;
    }
    counts
}
