//! The whole cluster in one process: a dispatcher, chat nodes and storage writers, with real QUIC links between them, on
//! embedded engines. What `cargo run` starts, and what the tests of the cluster stand on.

mod service;
mod settings;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Context as _;
use chat_node::NodeConfig;
use common::{
    engines::{EngineUrls, Engines},
    ids::{Incarnation, NodeId},
    link::{Authority, Endpoint, Name, Role},
    shutdown::Shutdown,
};
use dispatcher::{DispatcherConfig, gateway::GatewaySettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use self::{
    service::{Runtimes, Service},
    settings::{AttachmentSettings, Auth, Limits, Presence, Settings, StorageApi},
};

/// The way from a node to the dispatcher: the address itself, or, in tests, something in between that fails on request.
pub type Way = dyn Fn(&str, SocketAddr) -> SocketAddr + Send + Sync;

/// How long everything may take to come up: an owner's log to be read, nodes to register.
const READY: Duration = Duration::from_secs(30);

/// A running cluster.
pub struct Cluster {
    settings: Settings,
    runtimes: Runtimes,
    shutdown: Shutdown,
    engines: Engines,
    authority: Authority,
    way: Box<Way>,
    dispatcher: Option<Service>,
    http: SocketAddr,
    links: SocketAddr,
    nodes: BTreeMap<String, Node>,
    writers: Vec<Service>,
    made: u16,
}

struct Node {
    http: SocketAddr,
    /// Of its storage API.
    storage: Option<SocketAddr>,
    service: Service,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster at {} with {} nodes", self.http, self.nodes.len())
    }
}

impl Cluster {
    /// Opens the engines and starts everything. `shutdown` is asked to stop when a service dies.
    ///
    /// # Errors
    /// In words for the operator: a port that is taken, a data folder that is in use.
    pub async fn start(settings: Settings, runtimes: Runtimes, shutdown: Shutdown) -> anyhow::Result<Self> {
        Self::start_over(settings, runtimes, shutdown, Box::new(|_, dispatcher| dispatcher)).await
    }

    /// Likewise, with something between the nodes and the dispatcher.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_over(
        settings: Settings,
        runtimes: Runtimes,
        shutdown: Shutdown,
        way: Box<Way>,
    ) -> anyhow::Result<Self> {
        settings.check()?;
        #[cfg(feature = "planted")]
        tracing::warn!(planted = %settings.planted, "this build can be told to break its word: for tests only");
        std::fs::create_dir_all(&settings.data)
            .with_context(|| format!("the data folder {} cannot be made", settings.data.display()))?;
        let urls = EngineUrls {
            #[cfg(feature = "planted")]
            planted: settings.planted,
            ..EngineUrls::embedded(&settings.data)
        };
        let engines = Engines::open(&urls, settings.partitions).await?;
        let authority = Authority::generate()?;

        let listener = listen(settings.listen)?;
        let http = listener.local_addr()?;
        let mut cluster = Self {
            runtimes,
            shutdown,
            engines,
            authority,
            way,
            dispatcher: None,
            http,
            links: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            nodes: BTreeMap::new(),
            writers: Vec::new(),
            made: 0,
            settings,
        };
        cluster.start_dispatcher(listener).await?;
        for _ in 0..cluster.settings.writers {
            cluster.add_writer()?;
        }
        for _ in 0..cluster.settings.nodes {
            cluster.add_node()?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Waits until clients are served: the nodes have registered, and the first placement is made.
    async fn ready(&self) -> anyhow::Result<()> {
        let stopping = self.shutdown.soft();
        let asked = async {
            while !is_ready(self.http).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = stopping.cancelled() => anyhow::bail!("a service ended while the cluster was starting; the log says why"),
            ready = tokio::time::timeout(READY, asked) => ready.context("the cluster is not ready after 30 s; the log says what it waits for"),
        }
    }

    async fn start_dispatcher(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let identity = self.authority.issue(Role::Dispatcher, &Name::new("dispatcher")?)?;
        let config = DispatcherConfig {
            partitions: self.settings.partitions,
            expect_nodes: usize::from(self.settings.nodes),
            allowed_origins: self.settings.allowed_origins.clone(),
            gateway: GatewaySettings {
                max_upload: self.settings.attachments.max_bytes,
                ..GatewaySettings::default()
            },
            ..DispatcherConfig::default()
        };
        let engines = dispatcher::Engines { store: self.engines.store.clone() };
        // A dispatcher that comes back is found at the same address.
        let address = self.links;
        let (bound, is_bound) = tokio::sync::oneshot::channel();
        let service = Service::start("dispatcher", self.runtimes, &self.shutdown, |shutdown| async move {
            let links = Endpoint::bind(address, &identity, Incarnation::random(), Default::default())?;
            let _ = bound.send(links.local_addr()?);
            let http = tokio::net::TcpListener::from_std(listener)?;
            Ok(dispatcher::run(config, engines, dispatcher::Listeners { http, links }, shutdown).await?)
        })?;
        self.links = is_bound.await.context("the dispatcher did not start")?;
        self.dispatcher = Some(service);
        Ok(())
    }

    /// Adds a node, and gives its name.
    ///
    /// # Errors
    /// When its port is taken.
    pub fn add_node(&mut self) -> anyhow::Result<String> {
        self.made += 1;
        let name = format!("node-{}", self.made);
        let port = match self.settings.listen.port() {
            0 => 0,
            port => port + self.made,
        };
        let nth = self.made - 1;
        let storage = self.settings.storage_api.listen.map(|first| match first.port() {
            0 => first,
            port => SocketAddr::new(first.ip(), port.saturating_add(nth)),
        });
        self.start_node(name.clone(), port, storage)?;
        Ok(name)
    }

    fn start_node(&mut self, name: String, port: u16, storage: Option<SocketAddr>) -> anyhow::Result<()> {
        let listener = listen(SocketAddr::new(self.settings.listen.ip(), port))?;
        let http = listener.local_addr()?;
        let storage_listener = storage.map(listen).transpose()?;
        let storage = storage_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let identity = self.authority.issue(Role::Node, &Name::new(&name)?)?;
        let config: NodeConfig = self.settings.node(NodeId::new(&name)?, http);
        let engines = self.engines.clone();
        let dispatcher = (self.way)(&name, self.links);
        let service = Service::start(name.clone(), self.runtimes, &self.shutdown, |shutdown| async move {
            let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
            let links = Endpoint::bind(local, &identity, config.incarnation, Default::default())?;
            let http = tokio::net::TcpListener::from_std(listener)?;
            let storage = storage_listener.map(tokio::net::TcpListener::from_std).transpose()?;
            let dispatchers = vec![dispatcher.to_string()];
            let listeners = chat_node::Listeners { http, storage, links, dispatchers };
            Ok(chat_node::run(config, engines, listeners, shutdown).await?)
        })?;
        self.nodes.insert(name, Node { http, storage, service });
        Ok(())
    }

    /// Adds a storage writer to the group.
    ///
    /// # Errors
    /// When no runtime can be had.
    pub fn add_writer(&mut self) -> anyhow::Result<()> {
        let config = storage_writer::WriterConfig {
            #[cfg(feature = "planted")]
            planted: self.settings.planted,
            ..self.settings.writer.clone()
        };
        let engines = storage_writer::Engines {
            log: self.engines.log.clone(),
            store: self.engines.store.clone(),
            search: self.engines.store.clone(),
            retention: self.engines.store.clone(),
            notify: self.engines.store.clone(),
            reads: self.engines.store.clone(),
            cache: self.engines.cache.clone(),
            clock: storage_writer::Clock::default(),
        };
        let name = format!("writer-{}", self.writers.len() + 1);
        let service = Service::start(name, self.runtimes, &self.shutdown, |shutdown| async move {
            Ok(storage_writer::run(config, engines, prometheus::Registry::new(), shutdown.soft()).await?)
        })?;
        self.writers.push(service);
        Ok(())
    }

    /// The cluster's address, for clients: `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.settings.host(), self.http.port())
    }

    /// Each node's name and address.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, String)> {
        let host = self.settings.host();
        self.nodes
            .iter()
            .map(move |(name, node)| (name.as_str(), format!("http://{host}:{}", node.http.port())))
    }

    /// Where each node's storage API is, if there is to be one.
    pub fn storage(&self) -> impl Iterator<Item = (&str, String)> {
        let at = |node: &Node| Some(format!("http://{}", settings::reachable(node.storage?)));
        self.nodes.iter().filter_map(move |(name, node)| Some((name.as_str(), at(node)?)))
    }

    /// The engines, for a look at what is stored.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// Kills a node: see [`Service::kill`].
    pub fn kill_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            node.service.kill();
        }
    }

    /// Starts a node again under the same name: another life of it.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn restart_node(&mut self, name: &str) -> anyhow::Result<()> {
        self.kill_node(name);
        let storage = self.settings.storage_api.listen.map(|first| SocketAddr::new(first.ip(), 0));
        self.start_node(name.to_owned(), 0, storage)
    }

    /// Asks a node to leave, and waits for it.
    ///
    /// # Errors
    /// What it says of its end.
    pub async fn stop_node(&mut self, name: &str) -> anyhow::Result<()> {
        match self.nodes.remove(name) {
            Some(node) => node.service.stop().await,
            None => Ok(()),
        }
    }

    /// Kills every storage writer.
    pub fn kill_writers(&mut self) {
        self.writers.drain(..).for_each(Service::kill);
    }

    /// Kills the dispatcher, and starts another at the same addresses.
    ///
    /// # Errors
    /// When the addresses cannot be had again.
    pub async fn restart_dispatcher(&mut self) -> anyhow::Result<()> {
        if let Some(dispatcher) = self.dispatcher.take() {
            dispatcher.kill();
        }
        let mut tries = 0;
        let listener = loop {
            // The links' address is bound again by the service itself.
            let links = std::net::UdpSocket::bind(self.links).map(drop).context("the address of the links");
            match links.and_then(|()| listen(self.http)) {
                Ok(listener) => break listener,
                Err(_) if tries < 250 => tries += 1,
                Err(error) => return Err(error),
            }
            // The killed one's sockets close a moment after it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.start_dispatcher(listener).await
    }

    /// Stops everything in order: nodes first, so that what they have begun is stored; then writers, dispatcher, engines.
    ///
    /// # Errors
    /// The first complaint of a service; the others are stopped all the same.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        let nodes = std::mem::take(&mut self.nodes).into_values().map(|node| node.service.stop());
        for stopped in futures_util::future::join_all(nodes).await {
            outcome = outcome.and(stopped);
        }
        for writer in std::mem::take(&mut self.writers) {
            outcome = outcome.and(writer.stop().await);
        }
        if let Some(dispatcher) = self.dispatcher.take() {
            outcome = outcome.and(dispatcher.stop().await);
        }
        outcome.and(self.engines.log.close().await.context("the log did not close"))
    }
}

/// Whether the dispatcher at this address says that it is ready.
async fn is_ready(http: SocketAddr) -> bool {
    let answer = async {
        let mut stream = tokio::net::TcpStream::connect(settings::reachable(http)).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok::<_, std::io::Error>(status.ends_with(b" 200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), answer).await, Ok(Ok(true)))
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; is something else there? choose another with --listen")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
