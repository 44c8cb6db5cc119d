//! The task of a dialed link: dials, resumes, and dials again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rand::Rng;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Peer, PeerId, Refusal,
    codec::{Hello, VERSION},
    connection::{self, Close, Ended, Wire},
    core::{Core, Finish},
    endpoint::Shared,
    identity::{full_name, role_name},
    tls,
};
use crate::ids::Incarnation;

/// A connection that lasted as long starts the back-off anew; a shorter one may be a peer that takes us in and drops us.
const STEADY: Duration = Duration::from_secs(1);

/// A link that is down for longer is told of in the log, and again from time to time.
const TELL_AFTER: Duration = Duration::from_secs(2);
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A link's memory of its peer between connections.
struct Dialing {
    shared: Arc<Shared>,
    core: Arc<Core>,
    target: String,
    peer: Peer,
    epoch: u64,
    /// 0 until the first hello.
    peer_epoch: u64,
    attempt: u64,
}

pub(super) async fn run(shared: Arc<Shared>, core: Arc<Core>, target: String, peer: Peer) {
    let finish = Finish(core.clone());
    let closing = core.closing.clone();
    let epoch = rand::random::<u64>().max(1);
    let dialing = Dialing { shared, core, target, peer, epoch, peer_epoch: 0, attempt: 0 };
    // Whatever is going on, closing drops it; a connection says so to the peer as it goes.
    let _ = closing.run_until_cancelled(dialing.forever()).await;
    drop(finish);
}

impl Dialing {
    async fn forever(mut self) {
        let (min, max) = (self.core.settings.redial_min, self.core.settings.redial_max);
        let mut wait = min;
        let mut told: Option<Refusal> = None;
        let mut tell = Instant::now() + TELL_AFTER;
        loop {
            let ended = match timeout(self.core.settings.handshake, self.connect()).await {
                Ok(Ok(mut wire)) => {
                    told = None;
                    let since = Instant::now();
                    let ended = wire.carry(&self.core).await;
                    self.core.down();
                    tell = Instant::now() + TELL_AFTER;
                    if let Ended::Refused(Refusal::Protocol(why)) = &ended {
                        wire.close(Close::Protocol, why);
                    }
                    if since.elapsed() >= STEADY {
                        wait = min;
                    }
                    ended
                }
                Ok(Err(ended)) => ended,
                Err(_) => Ended::Lost("no answer in time".to_owned()),
            };
            match ended {
                Ended::Refused(refusal) if told.as_ref() != Some(&refusal) => {
                    tracing::warn!(peer = %self.peer, target_addr = %self.target, %refusal, "link refused");
                    self.core.inbox.refused(refusal.clone());
                    told = Some(refusal);
                }
                ended @ Ended::Lost(_) if Instant::now() >= tell => {
                    tracing::warn!(peer = %self.peer, target_addr = %self.target, %ended, "no link yet; still trying");
                    tell = Instant::now() + TELL_EVERY;
                }
                ended => {
                    tracing::debug!(peer = %self.peer, target_addr = %self.target, %ended, "link down");
                }
            }
            sleep(jittered(wait)).await;
            wait = wait.saturating_mul(2).min(max);
        }
    }

    /// From nothing to an answered hello.
    async fn connect(&mut self) -> Result<Wire, Ended> {
        let address = self.resolve().await?;
        let asked = match &self.peer.name {
            Some(name) => full_name(self.peer.role, name),
            None => role_name(self.peer.role),
        };
        let connecting = self
            .shared
            .quinn
            .connect_with(self.shared.client.clone(), address, &asked)
            .map_err(|error| Ended::Lost(error.to_string()))?;
        let connection = connecting.await?;
        // TLS has checked the name that was asked for; this reads the one that was not.
        let (role, name) = tls::peer_of(&connection).map_err(Ended::Refused)?;
        if role != self.peer.role || self.peer.name.as_ref().is_some_and(|asked| *asked != name) {
            connection::close(&connection, Close::Certificate, "not who was asked for");
            return Err(Ended::Refused(Refusal::PeerCertificate(format!("it is of {role} {name}"))));
        }
        let streams = connection.open_bi().await?;
        let mut wire = Wire::new(connection, streams);
        wire.belong_to(&self.core);
        self.attempt += 1;
        wire.say_hello(Hello {
            version: VERSION,
            incarnation: self.core.incarnation.0,
            epoch: self.epoch,
            peer_epoch: self.peer_epoch,
            attempt: self.attempt,
            received_upto: self.core.received(),
        })
        .await?;
        let answer = wire.hear_hello().await?;
        let peer = PeerId { role, name, incarnation: Incarnation(answer.incarnation) };
        self.adopt(answer, peer).inspect_err(|ended| {
            if let Ended::Refused(refusal) = ended {
                wire.close(Close::Protocol, &refusal.to_string());
            }
        })?;
        Ok(wire)
    }

    fn adopt(&mut self, answer: Hello, peer: PeerId) -> Result<(), Ended> {
        let wrong = |why: &str| Ended::Refused(Refusal::Protocol(why.to_owned()));
        if answer.peer_epoch != self.epoch || answer.attempt != self.attempt {
            return Err(wrong("the hello answers another"));
        }
        if answer.epoch == self.peer_epoch {
            if !self.core.acknowledge(answer.received_upto) {
                return Err(wrong("the hello acknowledges what was never sent"));
            }
            self.core.rewind();
            self.core.up(peer, false, None);
            return Ok(());
        }
        let first = self.peer_epoch == 0;
        self.peer_epoch = answer.epoch;
        let discarded = if first { None } else { self.core.start_afresh() };
        self.core.rewind();
        self.core.up(peer, true, discarded);
        Ok(())
    }

    async fn resolve(&self) -> Result<SocketAddr, Ended> {
        let lost = |error: std::io::Error| Ended::Lost(error.to_string());
        let ours = self.shared.quinn.local_addr().map_err(lost)?;
        let mut found = tokio::net::lookup_host(self.target.as_str()).await.map_err(lost)?;
        found
            .find(|address| address.is_ipv4() == ours.is_ipv4())
            .ok_or_else(|| Ended::Lost(format!("{} has no address of our family", self.target)))
    }
}

/// Between half and all of it, so that those who lost the same peer do not come back together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}
