//! Frames from one node to others. Their bodies stay closed: addresses are all that is read.
//!
//! Nothing waits for anybody: a frame that a node's link has no room for is answered `Undeliverable` when it was a request, and is a named gap
//! on that link otherwise, so that one slow node costs the others nothing.

use bytes::Bytes;
use common::{
    ids::{Incarnation, NodeId, Partition},
    link::{Link, SendError},
    time::Millis,
    wire::{
        codec::pack,
        peer::{DispatcherToNode, Topic},
    },
};

use crate::cluster::{Cluster, Node};

/// A request of a node to an owner.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its mark.
    pub id: u64,
    /// Whose owner.
    pub partition: Partition,
    /// Past this moment the owner refuses it.
    pub deadline: Millis,
    /// Not ours to read.
    pub body: Bytes,
}

/// Sends a request to the partition's owner; back over `asker`'s link comes `Undeliverable` when there is none or its link is down or full.
/// `from` is none for a node that holds no lease: the answer would not find it.
pub fn request(cluster: &Cluster, from: Option<(&NodeId, Incarnation)>, asker: &Link, request: Request) {
    let Request { id, partition, deadline, body } = request;
    let view = cluster.view();
    let owner = view.owner(partition).filter(|owner| owner.link.is_up());
    let sent = from.zip(owner).is_some_and(|((from, incarnation), owner)| {
        let frame =
            DispatcherToNode::Request { from: from.clone(), incarnation, id, partition, deadline, body };
        owner.link.send(pack(&frame)).is_ok()
    });
    if sent {
        cluster.metrics.forwarded("request");
    } else {
        cluster.metrics.undeliverable.inc();
        // Without room the asker hears of a gap and asks again.
        let _ = asker.send_or_gap(pack(&DispatcherToNode::Undeliverable { id }));
    }
}

/// Sends an owner's answer to the life of the node that asked. If that is gone, nobody waits.
pub fn respond(cluster: &Cluster, to: &NodeId, incarnation: Incarnation, id: u64, body: Bytes) {
    if let Some(asker) = cluster.view().life(to, incarnation) {
        deliver(cluster, asker, pack(&DispatcherToNode::Response { id, body }), "response");
    }
}

/// Sends a live event to every node but `from` that is interested in one of its topics, and to each only the topics it has.
pub fn publish(cluster: &Cluster, from: &NodeId, topics: &[Topic], body: &Bytes) {
    let audience = cluster.with_topics(|known| known.audience(topics, from));
    if audience.is_empty() {
        return;
    }
    let view = cluster.view();
    for part in audience {
        let frame = pack(&DispatcherToNode::Publish { topics: part.topics, body: body.clone() });
        for node in part.nodes.iter().filter_map(|id| view.nodes.get(id)) {
            deliver(cluster, node, frame.clone(), "publish");
        }
    }
}

/// Sends an owner's marks to every other node, behind whatever it published before.
pub fn marks(cluster: &Cluster, from: &NodeId, body: Bytes) {
    let frame = pack(&DispatcherToNode::Marks { from: from.clone(), body });
    let view = cluster.view();
    for node in view.nodes.values().filter(|node| node.id != *from) {
        deliver(cluster, node, frame.clone(), "marks");
    }
}

fn deliver(cluster: &Cluster, node: &Node, frame: Bytes, kind: &'static str) {
    match node.link.send_or_gap(frame) {
        Ok((_, true)) => cluster.metrics.forwarded(kind),
        Ok((_, false)) => cluster.metrics.gaps.inc(),
        // The node's next link starts afresh, and looks at everything.
        Err(SendError::Closed) => {}
        // Longer than a link takes: a gap as much as having no room.
        Err(error) => {
            tracing::warn!(node = %node.id, %error, kind, "frame not forwarded");
            cluster.metrics.gaps.inc();
            let _ = node.link.send_or_gap(pack(&DispatcherToNode::Gap));
        }
    }
}
