//! The links of nodes: who may be one, what each frame does, and the clock of the leases.
//!
//! One task a link, and none of them ever waits for another's: see [`crate::forward`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    ids::{Incarnation, NodeId},
    link::{Endpoint, Event, Events, Link, Role},
    time::Millis,
    wire::{
        codec::{pack, unpack},
        peer::{DispatcherToNode, NodeToDispatcher},
    },
};
use http::Uri;
use tokio::{
    task::{JoinError, JoinSet},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, Heard},
    forward::{self, Request},
    members::Registration,
};

/// How often leases are looked at: thirty times in the 3 s of one.
const SWEEP: Duration = Duration::from_millis(100);

/// How many frames of one link are worked on before others get their turn.
const BATCH: usize = 64;

/// The longest address a node may give itself, in bytes: what a URL with a long host name needs.
const MAX_URL: usize = 300;

/// Takes in links and serves them until `shutdown`; then closes them.
///
/// # Errors
/// When a link's task dies: a bug, and reason to stop.
pub async fn run(
    cluster: Arc<Cluster>,
    mut links: Endpoint,
    shutdown: CancellationToken,
) -> Result<(), JoinError> {
    let mut tasks = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            _ = sweep.tick() => cluster.sweep(Instant::now()),
            Some(ended) = tasks.join_next() => if let Err(error) = ended {
                break Err(error);
            },
            accepted = links.accept() => match accepted {
                Some((link, events)) => {
                    tasks.spawn(LinkTask::run(Arc::clone(&cluster), link, events));
                }
                None => break Ok(()),
            }
        }
    };
    // Ends every link's events, and so every task.
    links.close().await;
    tasks.shutdown().await;
    outcome
}

/// One link of one node.
struct LinkTask {
    cluster: Arc<Cluster>,
    link: Link,
    /// As its certificate proves.
    id: NodeId,
    /// The life that registered over this link.
    incarnation: Option<Incarnation>,
}

impl LinkTask {
    async fn run(cluster: Arc<Cluster>, link: Link, mut events: Events) {
        let Some(id) = node_of(&link) else {
            link.close();
            return;
        };
        let mut task = Self { cluster, link, id, incarnation: None };
        let mut batch = Vec::with_capacity(BATCH);
        while events.recv_many(&mut batch, BATCH).await > 0 {
            for event in batch.drain(..) {
                task.event(event);
            }
            tokio::task::yield_now().await;
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Frame(bytes) => match unpack::<NodeToDispatcher>("node's frame", &bytes) {
                Ok(frame) => self.frame(frame),
                Err(error) => {
                    tracing::error!(node = %self.id, %error, "a node says what this dispatcher does not understand");
                    self.cluster.metrics.bad_frames.inc();
                    self.cluster.gap(&self.id);
                }
            },
            // Live events and answers may have been among them.
            Event::Gap { missing } => {
                tracing::warn!(node = %self.id, ?missing, "frames of a node were lost");
                self.cluster.gap(&self.id);
            }
            Event::Up { fresh, .. } => tracing::debug!(node = %self.id, fresh, "link up"),
            Event::Down => tracing::debug!(node = %self.id, "link down"),
            Event::Refused(refusal) => tracing::warn!(node = %self.id, %refusal, "link refused"),
            Event::Closed => tracing::debug!(node = %self.id, "link closed"),
        }
    }

    fn frame(&mut self, frame: NodeToDispatcher) {
        match frame {
            NodeToDispatcher::Register { incarnation, socket_url, http_url, capacity, holds, epoch } => {
                let registration = Registration { incarnation, socket_url, http_url, capacity };
                self.register(registration, &Heard { epoch, holds });
            }
            NodeToDispatcher::Heartbeat { no, sockets } => {
                let renewed = self.incarnation.is_some_and(|incarnation| {
                    self.cluster.renew(&self.id, incarnation, sockets, Instant::now())
                });
                let clock = Millis::now();
                self.say(&if renewed {
                    DispatcherToNode::Echo { no, clock }
                } else {
                    DispatcherToNode::Expired
                });
            }
            NodeToDispatcher::Leaving => {
                if let Some(incarnation) = self.incarnation {
                    self.cluster.leaving(&self.id, incarnation, Instant::now());
                }
            }
            NodeToDispatcher::Leave => {
                if let Some(incarnation) = self.incarnation.take() {
                    self.cluster.leave(&self.id, incarnation, Instant::now());
                }
            }
            NodeToDispatcher::Interest { no, add, remove } => {
                let Some(incarnation) = self.incarnation else { return };
                match self.cluster.interest(&self.id, incarnation, &add, &remove) {
                    Ok(true) => self.say(&DispatcherToNode::Interested { no }),
                    // Its next heartbeat tells it.
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(node = %self.id, %error, "interest refused");
                        self.cluster.metrics.interest_refused.inc();
                        self.say(&DispatcherToNode::InterestRefused { no });
                    }
                }
            }
            NodeToDispatcher::Request { id, partition, deadline, body } => {
                let from = self.incarnation.map(|incarnation| (&self.id, incarnation));
                let request = Request { id, partition, deadline, body };
                forward::request(&self.cluster, from, &self.link, request);
            }
            NodeToDispatcher::Response { to, incarnation, id, body } => {
                forward::respond(&self.cluster, &to, incarnation, id, body);
            }
            // Whether its lease holds or not: what is published was confirmed by the log.
            NodeToDispatcher::Publish { topics, body } => {
                forward::publish(&self.cluster, &self.id, &topics, &body)
            }
            NodeToDispatcher::Lost => self.cluster.gap(&self.id),
            NodeToDispatcher::Marks { body } => forward::marks(&self.cluster, &self.id, body),
            NodeToDispatcher::HandedOver { epoch } => {
                if let Some(incarnation) = self.incarnation {
                    self.cluster.handed_over(&self.id, incarnation, epoch, Instant::now());
                }
            }
        }
    }

    fn register(&mut self, registration: Registration, heard: &Heard) {
        if !is_address(&registration.socket_url, &["ws", "wss"])
            || !is_address(&registration.http_url, &["http"])
        {
            tracing::error!(
                node = %self.id, socket_url = %registration.socket_url.escape_debug(),
                http_url = %registration.http_url.escape_debug(), "a node's addresses are not of their form: link closed"
            );
            self.link.close();
            return;
        }
        self.incarnation = Some(registration.incarnation);
        self.cluster.register(&self.id, registration, heard, &self.link, Instant::now(), Millis::now());
    }

    /// A node without room for it hears nothing, counts its lease as over and registers anew.
    fn say(&self, frame: &DispatcherToNode) {
        if let Err(error) = self.link.send(pack(frame)) {
            tracing::warn!(node = %self.id, %error, "a node could not be answered");
        }
    }
}

/// The node at the other end, by its certificate. Others have nothing to say here.
fn node_of(link: &Link) -> Option<NodeId> {
    let peer = link.peer()?;
    if peer.role != Role::Node {
        tracing::warn!(%peer, "a link from somebody who is no node: closed");
        return None;
    }
    NodeId::new(peer.name.as_str()).ok()
}

/// Whether `text` is `scheme://host:port` and nothing more.
fn is_address(text: &str, schemes: &[&str]) -> bool {
    if text.len() > MAX_URL {
        return false;
    }
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let bare =
        uri.path() == "/" && uri.query().is_none() && !text.ends_with('/') && !text.contains(['#', '@']);
    bare && uri.host().is_some_and(|host| !host.is_empty())
        && uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port() {
        for good in ["ws://127.0.0.1:8080", "wss://node-1.example.org", "ws://[::1]:80"] {
            assert!(is_address(good, &["ws", "wss"]), "{good}");
        }
        let long = format!("ws://{}:1", "a".repeat(MAX_URL));
        for bad in [
            "",
            "127.0.0.1:80",
            "http://a",
            "ws://",
            "ws://a/",
            "ws://a/b",
            "ws://a?b",
            "ws://b@a",
            "ws://a b",
            &long,
        ] {
            assert!(!is_address(bad, &["ws", "wss"]), "{bad}");
        }
    }
}
