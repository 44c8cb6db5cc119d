//! A UDP path that fails on request, for tests of whatever talks over links.
//!
//! ```text
//! dialer ──► FaultyPath::addr ──► (faults) ──► target
//! ```

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{net::UdpSocket, sync::Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Datagrams held by a delay at a time; what comes on top is dropped, as a router would.
const DELAYED: usize = 8_192;
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
    delayed: Arc<Semaphore>,
    running: CancellationToken,
    forwarded: AtomicU64,
    dropped: AtomicU64,
}

struct Faults {
    target: SocketAddr,
    cut_there: bool,
    cut_back: bool,
    loss: f64,
    delay: Duration,
    chance: StdRng,
}

/// How a dialer looks from the target: a socket of its own, read by a task for as long as this lives.
struct Behind {
    socket: Arc<UdpSocket>,
    _reading: DropGuard,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    There,
    Back,
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
        let chance = StdRng::seed_from_u64(0);
        let faults =
            Faults { target, cut_there: false, cut_back: false, loss: 0.0, delay: Duration::ZERO, chance };
        let shared = Arc::new(Shared {
            front,
            faults: Mutex::new(faults),
            dialers: Mutex::default(),
            delayed: Arc::new(Semaphore::new(DELAYED)),
            running: running.clone(),
            forwarded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let relay = shared.clone();
        tokio::spawn(async move { relay.running.run_until_cancelled(relay.there()).await });
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

    /// Takes all faults away. What was forgotten stays so.
    pub fn heal(&self) {
        self.set(|faults| {
            (faults.cut_there, faults.cut_back, faults.loss, faults.delay) =
                (false, false, 0.0, Duration::ZERO);
        });
    }

    /// Drops this share of datagrams (0 to 1), chosen by the seed.
    pub fn lose(&self, share: f64, seed: u64) {
        self.set(|faults| {
            (faults.loss, faults.chance) = (share.clamp(0.0, 1.0), StdRng::seed_from_u64(seed))
        });
    }

    /// Holds every datagram for so long, each way.
    pub fn delay(&self, delay: Duration) {
        self.set(|faults| faults.delay = delay);
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
            let Some((target, delay)) = self.judge(Way::There) else { continue };
            let Ok(behind) = self.behind(from).await else { continue };
            self.forward(datagram, delay, Outlet { through: Through::Behind(behind), to: target });
        }
    }

    /// The dialer's socket towards the target, new for a new dialer.
    async fn behind(self: &Arc<Self>, dialer: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        if let Some(known) = self.dialers.lock().get(&dialer) {
            return Ok(known.socket.clone());
        }
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
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
            let Some((_, delay)) = self.judge(Way::Back) else { continue };
            self.forward(datagram, delay, Outlet { through: Through::Front, to: dialer });
        }
    }

    /// Target and delay of the next datagram; `None`: it is dropped.
    fn judge(&self, way: Way) -> Option<(SocketAddr, Duration)> {
        let mut faults = self.faults.lock();
        let cut = if way == Way::There { faults.cut_there } else { faults.cut_back };
        let loss = faults.loss;
        if cut || (loss > 0.0 && faults.chance.random_bool(loss)) {
            self.dropped.fetch_add(1, Relaxed);
            return None;
        }
        Some((faults.target, faults.delay))
    }

    fn forward(self: &Arc<Self>, datagram: &[u8], delay: Duration, outlet: Outlet) {
        if delay.is_zero() {
            self.send(datagram, &outlet);
            return;
        }
        let Ok(permit) = self.delayed.clone().try_acquire_owned() else {
            self.dropped.fetch_add(1, Relaxed);
            return;
        };
        let (relay, datagram) = (self.clone(), datagram.to_vec());
        tokio::spawn(async move {
            let slept = relay.running.run_until_cancelled(tokio::time::sleep(delay)).await;
            if slept.is_some() {
                relay.send(&datagram, &outlet);
            }
            drop(permit);
        });
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

struct Outlet {
    through: Through,
    to: SocketAddr,
}

enum Through {
    Front,
    Behind(Arc<UdpSocket>),
}
