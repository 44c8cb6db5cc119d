//! The node's links to the dispatchers: registration and its lease, the placement, interest in topics, requests to other owners and
//! from other nodes, live events both ways.
//!
//! [`Control`] is what the rest of the node holds; [`link`] is the task that keeps one dispatcher's link, [`marks`] the one that says each
//! second how far this node's partitions are.
//!
//! Absent on purpose: deciding anything. A frame is handed to whom it concerns: requests to the owners, events to delivery, answers to
//! who waits for them.

pub mod interest;
pub mod lease;
mod link;
mod marks;
mod remote;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{
    ids::{Incarnation, NodeId},
    link::{Events, FrameNo, Link, SendError},
    shutdown::Shutdown,
    wire::{
        codec::pack,
        marks::Mark,
        peer::{Live, NodeToDispatcher, Placement, Topic},
    },
};
use tokio::sync::watch;

pub use self::{
    interest::{Interest, InterestTimeout},
    lease::{Clock, Lease},
    remote::{Remote, RemoteAnswer},
};
use crate::owner::Owners;

/// How a node presents itself to the dispatchers.
#[derive(Clone, Debug)]
pub struct Presentation {
    /// Its name.
    pub node: NodeId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Where clients open sockets, without a path: `ws://host:port`.
    pub socket_url: String,
    /// Where the gateway sends requests: `http://host:port`.
    pub http_url: String,
    /// Sockets it takes.
    pub capacity: u32,
}

/// What a dispatcher's frames are for.
pub trait Receiver: Send + Sync + 'static {
    /// A live event from another node. Must not block.
    fn live(&self, live: Live);
    /// Live events may have been lost: everything that is served must be looked at.
    fn lost(&self);
    /// How far the partitions are that `from` owns. Everything that it published before is here, if the marks say that it was handed over. Must
    /// not block.
    fn marks(&self, from: &NodeId, marks: &[Mark]);
}

/// A dispatcher's link as the rest of the node uses it.
pub(crate) struct Line {
    link: Link,
    /// Whether the dispatcher knows this node: only then are other frames of use to it.
    registered: AtomicBool,
    /// Live events or changes of interest could not be sent: to be made good when there is room.
    behind: AtomicBool,
    /// The number of the last live event that was put on it.
    published: AtomicU64,
}

impl Line {
    fn ready(&self) -> bool {
        self.registered.load(Ordering::Acquire)
    }

    fn send(&self, frame: &NodeToDispatcher) -> Result<(), SendError> {
        self.send_bytes(pack(frame))
    }

    fn send_bytes(&self, bytes: Bytes) -> Result<(), SendError> {
        self.link.send(bytes).map(drop)
    }
}

/// The way to the dispatchers. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    presentation: Presentation,
    lines: Arc<[Line]>,
    interest: Interest,
    remote: Remote,
    lease: Lease,
    clock: Clock,
    placement: watch::Sender<Arc<Placement>>,
    sockets: Arc<AtomicU32>,
    /// Live events were lost on the way out since the last marks.
    lossy: AtomicBool,
    /// The node is about to stop: said with every registration.
    leaving: AtomicBool,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control of {}", self.0.presentation.node)
    }
}

impl Control {
    /// Over these links, none of which is listened to before [`Self::start`]. `sockets` is read for each heartbeat.
    pub fn new(presentation: Presentation, links: Vec<Link>, sockets: Arc<AtomicU32>) -> Self {
        let lines: Arc<[Line]> = links
            .into_iter()
            .map(|link| Line {
                link,
                registered: AtomicBool::new(false),
                behind: AtomicBool::new(false),
                published: AtomicU64::new(0),
            })
            .collect();
        Self(Arc::new(Shared {
            interest: Interest::over(Arc::clone(&lines)),
            remote: Remote::over(Arc::clone(&lines)),
            presentation,
            lines,
            lease: Lease::default(),
            clock: Clock::default(),
            placement: watch::Sender::new(Arc::default()),
            sockets,
            lossy: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }))
    }

    /// Listens to each link until `shutdown`; then leaves the cluster. `events` are the links' in their order.
    pub fn start(
        &self,
        events: Vec<Events>,
        owners: &Owners,
        receiver: &Arc<dyn Receiver>,
        shutdown: &Shutdown,
    ) {
        for (index, events) in events.into_iter().enumerate() {
            let task = link::LinkTask::new(
                self.clone(),
                index,
                owners.clone(),
                Arc::clone(receiver),
                shutdown.clone(),
            );
            shutdown.spawn("a dispatcher's link", task.run(events));
        }
        let saying = marks::run(self.clone(), owners.clone(), Arc::clone(receiver), shutdown.soft());
        shutdown.spawn("marks", saying);
    }

    /// Says that this node is about to stop, and waits until the dispatchers send nobody here any more and others are to own what it owned;
    /// `wait` at most. False when that is not so: no dispatcher is linked, or none answers in time.
    pub async fn leave(&self, owners: &Owners, wait: Duration) -> bool {
        let shared = &self.0;
        let mut placement = shared.placement.subscribe();
        let before = placement.borrow().epoch;
        shared.leaving.store(true, Ordering::Release);
        let ready = shared.lines.iter().filter(|line| line.ready() && line.link.is_up());
        // As many as can be told; not only until the first.
        let told = ready.filter(|line| line.send(&NodeToDispatcher::Leaving).is_ok()).count();
        if told == 0 {
            return false;
        }
        let me = Some(shared.presentation.node.clone());
        let left = async {
            let others = |known: &Arc<Placement>| {
                // While this node may still serve some, those are nobody's; and all are when there is no other node.
                let owned = known.owners.iter().filter(|owner| owner.is_some()).count();
                let moved = owned == 0 || owned == known.owners.len();
                known.epoch > before && moved && !known.owners.contains(&me)
            };
            placement.wait_for(others).await.is_ok() && owners.given_up(wait).await
        };
        tokio::time::timeout(wait, left).await.unwrap_or(false)
    }

    /// The topics that dispatchers send here.
    pub fn interest(&self) -> Interest {
        self.0.interest.clone()
    }

    /// Requests to owners on other nodes.
    pub fn remote(&self) -> Remote {
        self.0.remote.clone()
    }

    /// Whether the dispatchers count on this node.
    pub fn lease(&self) -> Lease {
        self.0.lease.clone()
    }

    /// The dispatchers' clock.
    pub fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// Who owns what, as last heard.
    pub fn placement(&self) -> watch::Receiver<Arc<Placement>> {
        self.0.placement.subscribe()
    }

    /// Whether any dispatcher knows this node.
    pub fn registered(&self) -> bool {
        self.0.lines.iter().any(Line::ready)
    }

    /// Sends a live event that may be lost to the nodes that have sessions for one of `topics`. What cannot be sent is forgotten.
    pub fn hint(&self, topics: Vec<Topic>, live: &Live) {
        if let Some(line) = self.0.lines.iter().find(|line| line.ready()) {
            let _ = line.send(&NodeToDispatcher::Publish { topics, body: pack(live) });
        }
    }

    /// Sends a live event to the nodes that have sessions for one of `topics`. What cannot be sent is marked as lost.
    pub fn publish(&self, topics: Vec<Topic>, live: &Live) {
        let lines = &self.0.lines;
        let Some(line) = lines.iter().find(|line| line.ready()) else {
            // Nobody hears of it; when a dispatcher is there again, the others must look.
            self.0.lossy.store(true, Ordering::Release);
            lines.iter().for_each(|line| line.behind.store(true, Ordering::Release));
            return;
        };
        match line.link.send(pack(&NodeToDispatcher::Publish { topics, body: pack(live) })) {
            Ok(FrameNo(no)) => {
                line.published.fetch_max(no, Ordering::AcqRel);
            }
            Err(_) => {
                self.0.lossy.store(true, Ordering::Release);
                line.behind.store(true, Ordering::Release);
            }
        }
    }

    /// A live event was lost on the way out.
    #[cfg(feature = "planted")]
    pub(crate) fn lose(&self) {
        self.0.lossy.store(true, Ordering::Release);
    }
}
