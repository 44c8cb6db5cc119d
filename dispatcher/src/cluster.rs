//! What this dispatcher knows of the cluster, shared by its links and its HTTP door.
//!
//! Members, ring and table change a few times a day and stand behind one lock; whoever looks reads a [`View`] that is swapped whole.
//! Interest changes with every user who comes or goes and has a lock of its own. Nothing here waits: frames to nodes are queued or refused.
//!
//! This dispatcher is the only one for now. Where several are, one of them will make the views and the others hold copies: that place is
//! [`Cluster::change`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use common::{
    ids::{Incarnation, NodeId, Partition},
    link::Link,
    ring::Ring,
    time::Millis,
    wire::{
        codec::pack,
        peer::{DispatcherToNode, Placement, Topic},
    },
};
use parking_lot::{Mutex, RwLock};

use crate::{
    assign::assign,
    handover::Handover,
    members::{Members, Registered, Registration},
    metrics::Metrics,
    topics::{TooMany, Topics},
};

/// How the cluster is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Partitions of the log; the same everywhere, for the life of the topic.
    pub partitions: Partition,
    /// How long a node lives without a heartbeat.
    pub lease: Duration,
    /// How long after the first registration the first placement is made, so that the nodes of a running cluster are all back. Not less than a
    /// lease counts: a node that is not back by then holds none of a former dispatcher's.
    pub settle: Duration,
    /// With this many nodes it is made at once: all there are, and each has said what it holds. 0: not known.
    pub expect_nodes: usize,
    /// The first epoch is the one after it. What a former dispatcher has used the nodes say when they register.
    pub epoch: u64,
}

/// What a node that registers has heard of placements, by whomever.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The newest one's epoch; 0: none.
    pub epoch: u64,
    /// The partitions that it is named for there.
    pub holds: Vec<Partition>,
}

/// A registered node: what it said of itself, and the way to it.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// What it said of itself.
    pub registration: Registration,
    /// The way to it.
    pub link: Link,
    /// How full it is.
    pub load: Load,
    /// A placement could not be queued: the sweep sends it as soon as it can.
    owed: AtomicBool,
}

impl Node {
    /// Whether it takes no more users.
    pub fn full(&self) -> bool {
        self.load.estimate() >= self.registration.capacity
    }

    fn offer(&self, placement: &Bytes) {
        self.owed.store(self.link.send(placement.clone()).is_err(), Relaxed);
    }
}

/// A node's open sockets as far as known. Heartbeats say it each second; users who were sent there since may not be in it yet, so those
/// of this second and of the one before are added, each once: asking again and again makes no node full.
#[derive(Debug, Default)]
pub struct Load {
    sockets: AtomicU32,
    /// By their hashes. No more than the node takes, for then nobody else is sent there.
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    now: HashSet<u64>,
    before: HashSet<u64>,
}

impl Load {
    /// The user with this hash was sent there.
    pub fn sent(&self, user: u64) {
        let mut sent = self.sent.lock();
        sent.before.remove(&user);
        sent.now.insert(user);
    }

    /// What a heartbeat says.
    pub fn heard(&self, sockets: u32) {
        self.sockets.store(sockets, Relaxed);
        let mut sent = self.sent.lock();
        sent.before = std::mem::take(&mut sent.now);
    }

    /// Open sockets by the last heartbeat.
    pub fn sockets(&self) -> u32 {
        self.sockets.load(Relaxed)
    }

    /// Open sockets, and those that are on their way.
    pub fn estimate(&self) -> u32 {
        let sent = self.sent.lock();
        let coming = u32::try_from(sent.now.len() + sent.before.len()).unwrap_or(u32::MAX);
        self.sockets().saturating_add(coming)
    }
}

/// The cluster at one moment.
#[derive(Debug, Default)]
pub struct View {
    /// Counts up with every change of ring and table.
    pub epoch: u64,
    /// Whether a placement was made. Until then nobody is placed: a dispatcher that has just started does not know yet who is there.
    pub settled: bool,
    /// The ring of all registered nodes but those that are about to leave.
    pub ring: Arc<Ring>,
    /// The owner of each partition; none while the one before may still serve it.
    pub owners: Vec<Option<NodeId>>,
    /// The registered nodes.
    pub nodes: HashMap<NodeId, Arc<Node>>,
    /// The placement as it is sent to nodes.
    placement: Bytes,
}

impl View {
    /// The node that takes a user with this hash: the first one on the ring that is not full.
    pub fn place(&self, user: u64) -> Option<&Arc<Node>> {
        let full = |id: &NodeId| self.nodes.get(id).is_none_or(|node| node.full());
        self.ring.place(user, full).and_then(|id| self.nodes.get(id))
    }

    /// Every node once, the nearest on the ring first.
    pub fn from(&self, hash: u64) -> impl Iterator<Item = &Arc<Node>> {
        self.ring.from(hash).filter_map(|id| self.nodes.get(id))
    }

    /// The owner of a partition.
    pub fn owner(&self, partition: Partition) -> Option<&Arc<Node>> {
        self.nodes.get(self.owners.get(usize::from(partition))?.as_ref()?)
    }

    /// This life of this node.
    pub fn life(&self, id: &NodeId, incarnation: Incarnation) -> Option<&Arc<Node>> {
        self.nodes.get(id).filter(|node| node.registration.incarnation == incarnation)
    }
}

/// The cluster as this dispatcher knows it.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    state: Mutex<State>,
    view: ArcSwap<View>,
    topics: RwLock<Topics>,
    /// What is counted.
    pub metrics: Metrics,
}

#[derive(Debug)]
struct State {
    members: Members,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    ring: Arc<Ring>,
    /// Who is to own what.
    wanted: Vec<Option<NodeId>>,
    /// Who is named for what: the same, but for partitions that another node may still serve.
    owners: Vec<Option<NodeId>>,
    handover: Handover,
    epoch: u64,
    settled: bool,
    /// When the first node registered.
    first: Option<Instant>,
    /// When leases were last looked at.
    swept: Option<Instant>,
}

impl Cluster {
    /// Nobody yet.
    pub fn new(settings: Settings, metrics: Metrics) -> Self {
        let state = State {
            members: Members::new(settings.lease),
            nodes: BTreeMap::new(),
            ring: Arc::default(),
            wanted: Vec::new(),
            owners: Vec::new(),
            handover: Handover::new(settings.lease),
            epoch: settings.epoch,
            settled: false,
            first: None,
            swept: None,
        };
        let view = View { epoch: settings.epoch, ..View::default() };
        Self {
            settings,
            state: Mutex::new(state),
            view: ArcSwap::from_pointee(view),
            topics: RwLock::default(),
            metrics,
        }
    }

    /// The cluster now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// How the cluster is kept.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes a node in, tells it so, and tells everybody when that changes who owns what. Its topics are forgotten: it registers them anew.
    /// What it holds matters before the first placement: later this dispatcher knows better. The epoch it has heard matters always: it takes no
    /// placement that is not above it.
    pub fn register(
        &self,
        id: &NodeId,
        registration: Registration,
        heard: &Heard,
        link: &Link,
        now: Instant,
        clock: Millis,
    ) {
        let incarnation = registration.incarnation;
        let node = Arc::new(Node {
            id: id.clone(),
            registration: registration.clone(),
            link: link.clone(),
            load: Load::default(),
            owed: AtomicBool::new(false),
        });
        let mut state = self.state.lock();
        let registered = state.members.register(id.clone(), registration, now);
        state.nodes.insert(id.clone(), Arc::clone(&node));
        state.first.get_or_insert(now);
        if !state.settled {
            let partitions = self.settings.partitions;
            let holds = heard.holds.iter().copied().filter(|partition| *partition < partitions);
            state.handover.named(id, incarnation, holds);
        }
        tracing::info!(node = %id, %incarnation, ?registered, "node registered");
        let welcome = DispatcherToNode::Registered {
            lease_ms: u64::try_from(self.settings.lease.as_millis()).unwrap_or(u64::MAX),
            clock,
        };
        // A link without room is one whose node does not listen; it hears nothing and its lease will end.
        let _ = link.send(pack(&welcome));
        let behind = heard.epoch > state.epoch;
        if behind {
            tracing::warn!(
                epoch = state.epoch,
                heard = heard.epoch,
                "a node knows a newer placement: going on above it"
            );
            state.epoch = heard.epoch;
        }
        let freed = registered == Registered::Replaced && state.handover.replaced(id, incarnation);
        // New, or another life of one that was about to leave.
        let stays = state.members.get(id).is_some_and(|member| !member.leaving);
        if stays && state.ring.nodes().binary_search(id).is_err() {
            self.change(&mut state, now);
        } else if freed || (behind && state.settled) {
            self.publish(&mut state, now);
        } else {
            let view = self.store(&state);
            if view.settled {
                node.offer(&view.placement);
            }
        }
        drop(state);
        self.topics.write().drop_node(id);
        if registered == Registered::Replaced {
            // What its former life had not sent out yet is gone.
            self.gap(id);
        }
    }

    /// Renews a lease. False when it had ended: the node must register again.
    pub fn renew(&self, id: &NodeId, incarnation: Incarnation, sockets: u32, now: Instant) -> bool {
        let renewed = self.state.lock().members.renew(id, incarnation, now);
        if renewed && let Some(node) = self.view.load().life(id, incarnation) {
            node.load.heard(sockets);
        }
        renewed
    }

    /// A node is about to stop: it has no place on the ring any more, and its partitions are moved.
    pub fn leaving(&self, id: &NodeId, incarnation: Incarnation, now: Instant) {
        let mut state = self.state.lock();
        if state.members.leaving(id, incarnation) {
            tracing::info!(node = %id, %incarnation, "node is about to leave");
            self.change(&mut state, now);
        }
    }

    /// Takes a node out that stops. It has sent what it had to send.
    pub fn leave(&self, id: &NodeId, incarnation: Incarnation, now: Instant) {
        let mut state = self.state.lock();
        if !state.members.leave(id, incarnation) {
            return;
        }
        tracing::info!(node = %id, %incarnation, "node left");
        state.nodes.remove(id);
        self.change(&mut state, now);
        drop(state);
        self.topics.write().drop_node(id);
    }

    /// A node has given up what a placement did not name it for: others can be.
    pub fn handed_over(&self, id: &NodeId, incarnation: Incarnation, epoch: u64, now: Instant) {
        let mut state = self.state.lock();
        if state.handover.handed_over(id, incarnation, epoch) {
            self.publish(&mut state, now);
        }
    }

    /// Takes out whose lease is over, makes the first placement when it is time, and sends what is owed. To be called several times in a
    /// lease.
    pub fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        let before = state.swept.replace(now).unwrap_or(now);
        if now.saturating_duration_since(before) > self.settings.lease / 2 {
            // This process stood still, and the heartbeats of that time with it: nobody is dead because we were.
            tracing::warn!("leases were not looked at for a while: all are renewed");
            state.members.forgive(now);
        }
        let expired = state.members.expire(now);
        for id in &expired {
            tracing::warn!(node = %id, "lease ended: node taken out");
            state.nodes.remove(id);
        }
        if !expired.is_empty() || !state.settled {
            self.change(&mut state, now);
        } else if state.handover.overdue(now) {
            tracing::warn!("a node has not said for a lease's length that it handed over: others are named");
            self.publish(&mut state, now);
        }
        let view = self.view.load_full();
        for node in view.nodes.values().filter(|node| node.owed.load(Relaxed)) {
            node.offer(&view.placement);
        }
        drop(state);
        for id in &expired {
            self.topics.write().drop_node(id);
            // What it had not sent out yet will not come.
            self.gap(id);
        }
        self.metrics.topics.set(i64::try_from(self.topics.read().len()).unwrap_or(i64::MAX));
    }

    /// The members have changed, or it may be time for the first placement: makes ring and table, and tells the nodes.
    fn change(&self, state: &mut State, now: Instant) {
        let count = state.members.len();
        let since = state.first.map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        let complete = self.settings.expect_nodes > 0 && count >= self.settings.expect_nodes;
        let settle = self.settings.settle.max(self.settings.lease);
        let settled = state.settled || (count > 0 && (complete || since >= settle));
        state.ring = Arc::new(Ring::new(state.members.staying().cloned()));
        self.metrics.nodes.set(i64::try_from(count).unwrap_or(i64::MAX));
        if settled {
            let partitions = self.settings.partitions;
            if !state.settled {
                state.wanted = state.handover.holders(partitions);
            }
            state.settled = true;
            state.wanted = assign(&state.ring, partitions, &state.wanted);
            self.publish(state, now);
        } else {
            self.store(state);
        }
    }

    /// Names the owners that can be named by now, under a new epoch, and tells the nodes.
    fn publish(&self, state: &mut State, now: Instant) {
        state.epoch += 1;
        let State { handover, members, wanted, epoch, .. } = state;
        let life = |id: &NodeId| members.get(id).map(|member| member.registration.incarnation);
        state.owners = handover.place(wanted, *epoch, now, life);
        let waiting = state.owners.iter().zip(&state.wanted).filter(|(now, wanted)| now != wanted).count();
        tracing::info!(epoch = state.epoch, nodes = state.members.len(), waiting, "placement made");
        self.metrics.epoch.set(i64::try_from(state.epoch).unwrap_or(i64::MAX));
        let view = self.store(state);
        for node in view.nodes.values() {
            node.offer(&view.placement);
        }
    }

    fn store(&self, state: &State) -> Arc<View> {
        let placement = Placement { epoch: state.epoch, owners: state.owners.clone() };
        let view = Arc::new(View {
            epoch: state.epoch,
            settled: state.settled,
            ring: Arc::clone(&state.ring),
            owners: state.owners.clone(),
            nodes: state.nodes.iter().map(|(id, node)| (id.clone(), Arc::clone(node))).collect(),
            placement: pack(&DispatcherToNode::Placement(placement)),
        });
        self.view.store(Arc::clone(&view));
        view
    }

    /// Changes the interest of this life of a node. False when it is not registered.
    ///
    /// # Errors
    /// [`TooMany`]; then nothing was registered.
    pub fn interest(
        &self,
        id: &NodeId,
        incarnation: Incarnation,
        add: &[Topic],
        remove: &[Topic],
    ) -> Result<bool, TooMany> {
        let mut topics = self.topics.write();
        // Under the lock: whoever replaces or drops the node swaps the view first and forgets its topics then.
        if self.view.load().life(id, incarnation).is_none() {
            return Ok(false);
        }
        topics.remove(id, remove);
        topics.add(id, add)?;
        Ok(true)
    }

    /// Reads the interest.
    pub fn with_topics<T>(&self, read: impl FnOnce(&Topics) -> T) -> T {
        read(&self.topics.read())
    }

    /// Tells every node but `from` that frames were lost.
    pub fn gap(&self, from: &NodeId) {
        let frame = pack(&DispatcherToNode::Gap);
        for node in self.view.load().nodes.values().filter(|node| node.id != *from) {
            self.metrics.gaps.inc();
            // Without room the link's own gap says the same.
            let _ = node.link.send_or_gap(frame.clone());
        }
    }
}
