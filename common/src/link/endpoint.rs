//! One UDP socket that dials and accepts links.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Events, Identity, Link, LinkSettings, Peer, SendError,
    acceptor::{self, Registry},
    core::{Core, check_frame},
    defaults::ACCEPT_QUEUE,
    dialer, tls,
};
use crate::ids::Incarnation;

/// How long [`Endpoint::close`] waits for the last packets.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why there is no endpoint. Ends a start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or not ours.
    #[error("cannot bind {address} for links: {error}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Certificate, key and authorities do not fit together, or a setting is out of range.
    #[error("cannot set up TLS for links: {0}")]
    Tls(String),
}

/// What an endpoint's handles and tasks share.
pub(super) struct Shared {
    pub(super) quinn: quinn::Endpoint,
    pub(super) client: quinn::ClientConfig,
    pub(super) settings: Arc<LinkSettings>,
    pub(super) incarnation: Incarnation,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) registry: Registry,
}

impl Shared {
    /// The shared part of a new link.
    pub(super) fn core(&self, greeting: Vec<Bytes>) -> Arc<Core> {
        let closing = self.closing.child_token();
        Arc::new(Core::new(self.settings.clone(), self.incarnation, closing, greeting))
    }
}

/// A bound endpoint. Dropping it closes all its links; [`Endpoint::close`] also waits until the peers were told.
pub struct Endpoint {
    shared: Arc<Shared>,
    accepted: mpsc::Receiver<(Link, Events)>,
}

/// Dials from an endpoint's socket; for those who do not own the endpoint. Of no use once that is gone.
#[derive(Clone)]
pub struct Dialer {
    shared: Arc<Shared>,
}

impl Endpoint {
    /// Binds a UDP socket and starts taking in links. Inside a tokio runtime. `incarnation` names this life of the process to its peers.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        incarnation: Incarnation,
        settings: LinkSettings,
    ) -> Result<Self, BindError> {
        let bind = |error| BindError::Bind { address, error };
        let server = tls::server_config(identity, &settings)?;
        let client = tls::client_config(identity, &settings)?;
        let socket = UdpSocket::bind(address).map_err(bind)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let quinn = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), socket, runtime)
            .map_err(bind)?;
        let shared = Arc::new(Shared {
            quinn,
            client,
            settings: Arc::new(settings),
            incarnation,
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            registry: Registry::default(),
        });
        let (to_accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
        shared.tasks.spawn(acceptor::run(shared.clone(), to_accept));
        Ok(Self { shared, accepted })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.quinn.local_addr()
    }

    /// See [`Dialer::dial`].
    pub fn dial(&self, address: impl ToString, peer: Peer) -> (Link, Events) {
        self.dialer().dial(address, peer)
    }

    /// See [`Dialer::dial_with`].
    ///
    /// # Errors
    /// As there.
    pub fn dial_with(
        &self,
        address: impl ToString,
        peer: Peer,
        greeting: Vec<Bytes>,
    ) -> Result<(Link, Events), SendError> {
        self.dialer().dial_with(address, peer, greeting)
    }

    /// A handle that can dial.
    pub fn dialer(&self) -> Dialer {
        Dialer { shared: self.shared.clone() }
    }

    /// The next link that a peer has dialed; its first event is [`super::Event::Up`]. A peer that comes back resumes the link it has. A
    /// restarted peer, which is another incarnation, makes a new one; the old one is closed when [`LinkSettings::abandon`] is over, so an
    /// incarnation that was only cut off can come back to it. `None` once the endpoint is closed. Dropping the future loses nothing.
    pub async fn accept(&mut self) -> Option<(Link, Events)> {
        self.accepted.recv().await
    }

    /// Closes all links, tells the peers, and waits until that is said, a second at most.
    pub async fn close(self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        let goodbye = async {
            self.shared.tasks.wait().await;
            self.shared.quinn.wait_idle().await;
        };
        if timeout(GOODBYE, goodbye).await.is_err() {
            tracing::debug!("closed links without waiting for every peer");
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl Dialer {
    /// Keeps a link to `address` (`host:port`, resolved anew each time) for as long as the link lives: dials, dials again with back-off
    /// (50 ms to 1 s, jitter), resumes. Returns at once; [`super::Event::Up`] says when it is there.
    pub fn dial(&self, address: impl ToString, peer: Peer) -> (Link, Events) {
        self.start(address.to_string(), peer, Vec::new())
    }

    /// As [`Dialer::dial`]; `greeting` are the first frames of the first connection and after each fresh start, before anything that
    /// others send. For what the peer must hear first, whoever sends next.
    ///
    /// # Errors
    /// When the greeting does not fit into a link: [`SendError::TooLarge`] or [`SendError::Full`].
    pub fn dial_with(
        &self,
        address: impl ToString,
        peer: Peer,
        greeting: Vec<Bytes>,
    ) -> Result<(Link, Events), SendError> {
        let settings = &self.shared.settings;
        greeting.iter().try_for_each(|frame| check_frame(frame, settings))?;
        let bytes = greeting.iter().map(Bytes::len).fold(0, usize::saturating_add);
        if greeting.len() > settings.outbox_frames || bytes > settings.outbox_bytes {
            return Err(SendError::Full);
        }
        Ok(self.start(address.to_string(), peer, greeting))
    }

    fn start(&self, target: String, peer: Peer, greeting: Vec<Bytes>) -> (Link, Events) {
        let core = self.shared.core(greeting);
        self.shared.tasks.spawn(dialer::run(self.shared.clone(), core.clone(), target, peer));
        (Link::new(core.clone()), Events::new(core))
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({:?})", self.shared.quinn.local_addr().ok())
    }
}
