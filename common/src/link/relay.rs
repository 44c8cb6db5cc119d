//! A UDP path that fails on request, for tests of whatever talks over links.
//!
//! ```text
//! dialer ──► FaultyPath::addr ──► (faults) ──► target
//! ```
//!
//! It needs no privileges: it is sockets on 127.0.0.1. What is done to a datagram is decided in `faults`; what is held waits in `held`.

mod faults;
mod held;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    faults::{Faults, Way},
    held::Held,
};

/// Room for the longest datagram.
const DATAGRAM: usize = 65_536;
/// Dialers remembered at a time; a new one on top makes it forget all.
const DIALERS: usize = 1_024;

/// A UDP relay between dialers and one target. Each dialer is seen by the target under an address of its own. Faults can be set at any time
/// and hold for what comes after. Dropping it ends the path.
pub struct FaultyPath {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: DropGuard,
}

struct Shared {
    front: UdpSocket,
    faults: Mutex<Faults>,
    dialers: Mutex<HashMap<SocketAddr, Behind>>,
    held: Held<Datagram>,
    running: CancellationToken,
    forwarded: AtomicU64,
    dropped: AtomicU64,
}

/// How a dialer looks from the target: a socket of its own, read by a task for as long as this lives.
struct Behind {
    socket: Arc<UdpSocket>,
    _reading: DropGuard,
}

/// What is under way, and where to.
struct Datagram {
    bytes: Vec<u8>,
    outlet: Outlet,
}

#[derive(Clone)]
struct Outlet {
    through: Through,
    to: SocketAddr,
}

#[derive(Clone)]
enum Through {
    Front,
    Behind(Arc<UdpSocket>),
}

impl FaultyPath {
    /// A path without faults from a new port on 127.0.0.1 to `target`.
    ///
    /// # Errors
    /// When no socket can be bound.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = front.local_addr()?;
        let running = CancellationToken::new();
        let shared = Arc::new(Shared {
            front,
            faults: Mutex::new(Faults::none(target)),
            dialers: Mutex::default(),
            held: Held::new(),
            running: running.clone(),
            forwarded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let (relay, releasing) = (shared.clone(), shared.clone());
        tokio::spawn(async move { relay.running.run_until_cancelled(relay.there()).await });
        tokio::spawn(async move { releasing.running.run_until_cancelled(releasing.release()).await });
        Ok(Self { address, shared, _running: running.drop_guard() })
    }

    /// Where to dial.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Drops everything both ways, until [`Self::heal`].
    pub fn cut(&self) {
        self.set(|faults| (faults.cut_there, faults.cut_back) = (true, true));
    }

    /// Drops what goes to the target; its answers still come.
    pub fn cut_there(&self) {
        self.set(|faults| faults.cut_there = true);
    }

    /// Drops what the target sends; it still hears.
    pub fn cut_back(&self) {
        self.set(|faults| faults.cut_back = true);
    }

    /// Takes all faults away. What was forgotten stays so, and what is held comes when it is due.
    pub fn heal(&self) {
        self.set(Faults::heal);
    }

    /// Drops this share of datagrams (0 to 1), chosen by the seed.
    pub fn lose(&self, share: f64, seed: u64) {
        self.set(|faults| {
            faults.loss = share.clamp(0.0, 1.0);
            faults.seed(seed);
        });
    }

    /// Lets this share of datagrams (0 to 1) arrive twice.
    pub fn double(&self, share: f64) {
        self.set(|faults| faults.doubled = share.clamp(0.0, 1.0));
    }

    /// Holds every datagram for so long, each way.
    pub fn delay(&self, delay: Duration) {
        self.delay_unevenly(delay, Duration::ZERO);
    }

    /// Holds every datagram for so long, each way, and for up to `jitter` more: what was sent later may arrive earlier.
    pub fn delay_unevenly(&self, delay: Duration, jitter: Duration) {
        self.set(|faults| (faults.delay, faults.jitter) = (delay, jitter));
    }

    /// Lets so many bytes a second through, each way; a quarter of a second's worth waits, and what comes on top is dropped.
    pub fn narrow(&self, bytes_per_second: u32) {
        self.set(|faults| faults.rate = Some(bytes_per_second));
    }

    /// Lets chance begin anew: what is lost, doubled and held for how long.
    pub fn seed(&self, seed: u64) {
        self.set(|faults| faults.seed(seed));
    }

    /// Forgets who dialed, as a NAT does: the target sees whoever sends next under a new address, and what it sends to an old one is lost.
    pub fn forget(&self) {
        self.shared.dialers.lock().clear();
    }

    /// Leads elsewhere from now on, and forgets: the same address, another process behind it.
    pub fn retarget(&self, target: SocketAddr) {
        self.set(|faults| faults.target = target);
        self.forget();
    }

    /// Datagrams that went through so far, both ways.
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Relaxed)
    }

    /// Datagrams that did not.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.faults.lock());
    }
}

impl Shared {
    /// Reads from dialers until the path is dropped.
    async fn there(self: &Arc<Self>) {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            // An error here is an ICMP answer to something sent earlier.
            let Ok((length, from)) = self.front.recv_from(&mut buffer).await else { continue };
            let Some(datagram) = buffer.get(..length) else { continue };
            let target = self.faults.lock().target;
            let Ok(behind) = self.behind(from).await else { continue };
            self.forward(Way::There, datagram, Outlet { through: Through::Behind(behind), to: target });
        }
    }

    /// The dialer's socket towards the target, new for a new dialer.
    async fn behind(self: &Arc<Self>, dialer: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        if let Some(known) = self.dialers.lock().get(&dialer) {
            return Ok(known.socket.clone());
        }
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        // A new socket counts as full until the runtime has heard otherwise, and `send` would drop the first datagram.
        socket.writable().await?;
        let reading = self.running.child_token();
        let (relay, reader, until) = (self.clone(), socket.clone(), reading.clone());
        tokio::spawn(async move { until.run_until_cancelled(relay.back(&reader, dialer)).await });
        let mut dialers = self.dialers.lock();
        if dialers.len() >= DIALERS {
            dialers.clear();
        }
        dialers.insert(dialer, Behind { socket: socket.clone(), _reading: reading.drop_guard() });
        Ok(socket)
    }

    /// Reads what the target sends to one dialer.
    async fn back(self: &Arc<Self>, socket: &UdpSocket, dialer: SocketAddr) {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
            let Some(datagram) = buffer.get(..length) else { continue };
            self.forward(Way::Back, datagram, Outlet { through: Through::Front, to: dialer });
        }
    }

    /// Sends it on, now or later, once or twice, or not.
    fn forward(&self, way: Way, bytes: &[u8], outlet: Outlet) {
        let now = Instant::now();
        let leaves = self.faults.lock().judge(way, bytes.len(), now);
        let Some(leaves) = leaves else {
            self.dropped.fetch_add(1, Relaxed);
            return;
        };
        for at in [Some(leaves.at), leaves.again].into_iter().flatten() {
            if at <= now {
                self.send(bytes, &outlet);
            } else if !self.held.until(at, Datagram { bytes: bytes.to_vec(), outlet: outlet.clone() }) {
                self.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    /// Sends what was held, when it is due, until the path is dropped.
    async fn release(&self) {
        loop {
            let Datagram { bytes, outlet } = self.held.next().await;
            self.send(&bytes, &outlet);
        }
    }

    /// Sends now or not at all: a socket without room drops, as a router does.
    fn send(&self, datagram: &[u8], outlet: &Outlet) {
        let socket = match &outlet.through {
            Through::Front => &self.front,
            Through::Behind(socket) => socket,
        };
        let counter =
            if socket.try_send_to(datagram, outlet.to).is_ok() { &self.forwarded } else { &self.dropped };
        counter.fetch_add(1, Relaxed);
    }
}
