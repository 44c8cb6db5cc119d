//! Two endpoints of one authority, and what the link tests ask of them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use common::{
    ids::Incarnation,
    link::{Authority, Endpoint, Event, Events, Link, LinkSettings, Name, Peer, Role},
};
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Breaks are noticed and mended sooner than in production, so that tests are quick.
pub(crate) fn quick() -> LinkSettings {
    LinkSettings {
        idle: Duration::from_millis(600),
        keep_alive: Duration::from_millis(200),
        handshake: Duration::from_millis(800),
        redial_min: Duration::from_millis(10),
        redial_max: Duration::from_millis(100),
        ..LinkSettings::default()
    }
}

/// An endpoint on a port of its own.
pub(crate) fn endpoint(authority: &Authority, role: Role, named: &str, settings: LinkSettings) -> Endpoint {
    endpoint_at(here(), authority, role, named, settings)
}

pub(crate) fn endpoint_at(
    address: SocketAddr,
    authority: &Authority,
    role: Role,
    named: &str,
    settings: LinkSettings,
) -> Endpoint {
    let identity = authority.issue(role, &name(named)).unwrap();
    Endpoint::bind(address, &identity, Incarnation::random(), settings).unwrap()
}

/// A dispatcher `d1` that listens and a node `n1` that dials.
pub(crate) struct Pair {
    pub(crate) authority: Authority,
    pub(crate) dispatcher: Endpoint,
    pub(crate) node: Endpoint,
}

impl Pair {
    pub(crate) fn new(settings: LinkSettings) -> Self {
        let authority = Authority::generate().unwrap();
        let dispatcher = endpoint(&authority, Role::Dispatcher, "d1", settings.clone());
        let node = endpoint(&authority, Role::Node, "n1", settings);
        Self { authority, dispatcher, node }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.dispatcher.local_addr().unwrap()
    }

    /// Dials the dispatcher at `address` and gives the node's half and the dispatcher's.
    pub(crate) async fn link_by(&mut self, address: SocketAddr) -> ((Link, Events), (Link, Events)) {
        let dialed = self.node.dial(address, Peer::any(Role::Dispatcher));
        let accepted = accept(&mut self.dispatcher).await;
        (dialed, accepted)
    }

    pub(crate) async fn link(&mut self) -> ((Link, Events), (Link, Events)) {
        self.link_by(self.address()).await
    }
}

pub(crate) async fn accept(endpoint: &mut Endpoint) -> (Link, Events) {
    timeout(SOON, endpoint.accept()).await.expect("nobody dialed").expect("the endpoint is closed")
}

pub(crate) async fn next(events: &mut Events) -> Event {
    timeout(SOON, events.recv()).await.expect("no event").expect("the link has ended")
}

/// The next event of which `wanted` makes something; others are skipped.
pub(crate) async fn until<T>(events: &mut Events, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(next(events).await) {
            return found;
        }
    }
}

pub(crate) async fn until_up(events: &mut Events) -> bool {
    until(events, |event| if let Event::Up { fresh, .. } = event { Some(fresh) } else { None }).await
}

pub(crate) async fn until_down(events: &mut Events) {
    until(events, |event| (event == Event::Down).then_some(())).await;
}

/// The frames that come next, `count` of them, as numbers; any gap is a failure.
pub(crate) async fn numbers(events: &mut Events, count: usize) -> Vec<u64> {
    let mut got = Vec::with_capacity(count);
    while got.len() < count {
        match next(events).await {
            Event::Frame(frame) => got.push(number(&frame)),
            Event::Up { .. } | Event::Down => {}
            other => panic!("{other:?} after {} of {count} frames", got.len()),
        }
    }
    got
}

pub(crate) fn frame(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub(crate) fn number(frame: &Bytes) -> u64 {
    u64::from_be_bytes(frame.as_ref().get(..8).expect("a short frame").try_into().unwrap())
}

/// Waits until `true`.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
