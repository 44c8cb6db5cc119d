//! The accepting side: who dials, which link that is, and the task of an accepted link.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{
    Events, Link, PeerId, Refusal,
    codec::{Hello, VERSION},
    connection::{self, Close, Ended, Wire},
    core::{Core, Finish},
    defaults::MAX_HANDSHAKES,
    endpoint::Shared,
    tls,
};
use crate::ids::Incarnation;

/// The accepted links, by who dialed them and by the dialer's epoch: a peer that made two links has two.
pub(super) type Registry = Mutex<HashMap<Key, Arc<Door>>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    peer: PeerId,
    epoch: u64,
}

/// Where connections of a known link are handed to its task. Holds one: a newer one takes an older one's place.
#[derive(Default)]
pub(super) struct Door {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    /// The newest attempt ever seen.
    attempt: u64,
    wire: Option<(Wire, Hello)>,
}

impl Door {
    /// Hands over a connection, unless a newer one was here before it.
    fn knock(&self, wire: Wire, hello: Hello) {
        let mut waiting = self.waiting.lock();
        if hello.attempt <= waiting.attempt {
            wire.close(Close::Superseded, "a newer connection was here first");
            return;
        }
        waiting.attempt = hello.attempt;
        if let Some((older, _)) = waiting.wire.replace((wire, hello)) {
            older.close(Close::Superseded, "a newer connection is here");
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits for the next connection. Dropping the future loses none.
    async fn opened(&self) -> (Wire, Hello) {
        loop {
            if let Some(arrival) = self.waiting.lock().wire.take() {
                return arrival;
            }
            self.arrived.notified().await;
        }
    }
}

/// Takes in connections until the endpoint closes.
pub(super) async fn run(shared: Arc<Shared>, accepted: mpsc::Sender<(Link, Events)>) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Some(Some(incoming)) = shared.closing.run_until_cancelled(shared.quinn.accept()).await {
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (shared, accepted) = (shared.clone(), accepted.clone());
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            let closing = shared.closing.clone();
            let _ = closing.run_until_cancelled(take_in(shared, incoming, accepted, permit)).await;
        });
    }
}

async fn take_in(
    shared: Arc<Shared>,
    incoming: quinn::Incoming,
    accepted: mpsc::Sender<(Link, Events)>,
    permit: OwnedSemaphorePermit,
) {
    let from = incoming.remote_address();
    match timeout(shared.settings.handshake, greet(&shared, incoming)).await {
        Ok(Ok((wire, hello, peer))) => place(&shared, wire, hello, peer, &accepted),
        Ok(Err(ended)) => tracing::debug!(%from, %ended, "no link"),
        Err(_) => tracing::debug!(%from, "no hello in time"),
    }
    drop(permit);
}

/// From a first packet to a hello from somebody who may dial us.
async fn greet(shared: &Shared, incoming: quinn::Incoming) -> Result<(Wire, Hello, PeerId), Ended> {
    let connection = incoming.await?;
    let refuse = |code: Close, refusal: Refusal| {
        tracing::warn!(from = %connection.remote_address(), %refusal, "dialer refused");
        connection::close(&connection, code, &refusal.to_string());
        Ended::Refused(refusal)
    };
    let (role, name) = tls::peer_of(&connection).map_err(|refusal| refuse(Close::Certificate, refusal))?;
    if !shared.settings.accept_roles.contains(&role) {
        return Err(refuse(Close::Role, Refusal::Role));
    }
    let streams = connection.accept_bi().await?;
    let mut wire = Wire::new(connection.clone(), streams);
    let hello = wire.hear_hello().await.map_err(|ended| match ended {
        Ended::Refused(refusal @ Refusal::Protocol(_)) => refuse(Close::Protocol, refusal),
        other => other,
    })?;
    Ok((wire, hello, PeerId { role, name, incarnation: Incarnation(hello.incarnation) }))
}

/// Gives a connection to the link it belongs to, or makes that link.
fn place(
    shared: &Arc<Shared>,
    mut wire: Wire,
    hello: Hello,
    peer: PeerId,
    accepted: &mpsc::Sender<(Link, Events)>,
) {
    let key = Key { peer, epoch: hello.epoch };
    let mut registry = shared.registry.lock();
    let full = registry.len() >= shared.settings.max_links;
    let vacant = match registry.entry(key.clone()) {
        Entry::Occupied(known) => return known.get().knock(wire, hello),
        Entry::Vacant(vacant) => vacant,
    };
    let Some(room) = (!full).then(|| accepted.try_reserve().ok()).flatten() else {
        wire.close(Close::Busy, "no more links");
        return;
    };
    let core = shared.core(Vec::new());
    wire.belong_to(&core);
    let door = Arc::new(Door::default());
    door.knock(wire, hello);
    vacant.insert(door.clone());
    drop(registry);
    let placed = Placed { shared: shared.clone(), key, door };
    room.send((Link::new(core.clone()), Events::new(core.clone())));
    shared.tasks.spawn(async move {
        let finish = Finish(core.clone());
        let closing = core.closing.clone();
        let _ = closing.run_until_cancelled(carry(&core, &placed)).await;
        drop(placed);
        drop(finish);
    });
}

/// The link's entry in the registry, for as long as its task runs.
struct Placed {
    shared: Arc<Shared>,
    key: Key,
    door: Arc<Door>,
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.shared.registry.lock().remove(&self.key);
        // Whoever knocked meanwhile comes again, and finds no link.
        self.door.waiting.lock().wire = None;
    }
}

/// An accepted link, connection after connection, until its peer closes it or stays away.
async fn carry(core: &Core, placed: &Placed) {
    let abandon: Duration = core.settings.abandon;
    let epoch = rand::random::<u64>().max(1);
    let mut first = true;
    let mut next: Option<(Wire, Hello)> = None;
    loop {
        let (mut wire, hello) = match next.take() {
            Some(arrival) => arrival,
            None => match timeout(abandon, placed.door.opened()).await {
                Ok(arrival) => arrival,
                Err(_) => return,
            },
        };
        wire.belong_to(core);
        let answered = answer(core, &mut wire, hello, epoch).await;
        let ended = match answered {
            Err(ended) => ended,
            Ok(()) => {
                core.up(placed.key.peer.clone(), first, None);
                first = false;
                let ended = tokio::select! {
                    ended = wire.carry(core) => ended,
                    newer = placed.door.opened() => {
                        next = Some(newer);
                        wire.close(Close::Superseded, "a newer connection is here");
                        Ended::Lost("superseded".to_owned())
                    }
                };
                core.down();
                ended
            }
        };
        tracing::debug!(peer = %placed.key.peer, %ended, "link down");
        match ended {
            Ended::PeerClosed => return,
            Ended::Refused(Refusal::Protocol(why)) => wire.close(Close::Protocol, &why),
            Ended::Lost(_) | Ended::Refused(_) => {}
        }
    }
}

/// Agrees with the dialer on what each has, and says so.
async fn answer(core: &Core, wire: &mut Wire, hello: Hello, epoch: u64) -> Result<(), Ended> {
    let wrong = |why: &str| Ended::Refused(Refusal::Protocol(why.to_owned()));
    if hello.peer_epoch == epoch {
        if !core.acknowledge(hello.received_upto) {
            return Err(wrong("the hello acknowledges what was never sent"));
        }
    } else if core.received() > 0 {
        return Err(wrong("the hello has forgotten this link"));
    }
    // Otherwise our answer to its first hello never arrived: it has nothing of ours, and all of it is still held.
    core.rewind();
    let answer = Hello {
        version: VERSION,
        incarnation: core.incarnation.0,
        epoch,
        peer_epoch: hello.epoch,
        attempt: hello.attempt,
        received_upto: core.received(),
    };
    timeout(core.settings.handshake, wire.say_hello(answer))
        .await
        .unwrap_or_else(|_| Err(Ended::Lost("the hello could not leave in time".to_owned())))
}
