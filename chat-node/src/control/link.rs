//! The task that keeps one dispatcher's link: says who the node is, renews the lease, and hands frames to whom they concern.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use common::{
    ids::{Incarnation, NodeId, Partition},
    link::{Event, Events},
    shutdown::Shutdown,
    time::Millis,
    wire::{
        codec::{pack, unpack},
        codes::ErrorCode,
        marks::Mark,
        owner::{Answer, OwnerRequest, Refusal},
        peer::{DispatcherToNode, NodeToDispatcher, Placement},
    },
};
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior},
};

use super::{Control, Line, Receiver, RemoteAnswer, interest::Progress};
use crate::owner::Owners;

/// How often the lease is renewed; it holds for three of these.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Requests of other nodes under way at once; beyond it they are refused with `retry_later`. At 5 ms each this is 800,000/s.
const REQUESTS: usize = 4_096;
/// How long partitions that others are to have may take to be given up; their owners give themselves 2 s. Later, the dispatcher has stopped
/// waiting.
const HANDOVER: Duration = Duration::from_secs(3);
/// After a registration that the dispatcher did not take whole, the next: seldom enough that a million topics cost little.
const AGAIN: Duration = Duration::from_secs(10);
/// How long the last frames may take when the node leaves.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) struct LinkTask {
    control: Control,
    index: usize,
    owners: Owners,
    receiver: Arc<dyn Receiver>,
    shutdown: Shutdown,
    requests: Arc<Semaphore>,
    granted: Duration,
    beat: u64,
    /// Heartbeats without an echo: number, and when they were sent.
    beats: VecDeque<(u64, Instant)>,
    /// When to register anew, because not every topic was taken.
    refused: Option<Instant>,
    /// Whether there was a registration before this one.
    again: bool,
}

impl LinkTask {
    pub(super) fn new(
        control: Control,
        index: usize,
        owners: Owners,
        receiver: Arc<dyn Receiver>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            control,
            index,
            owners,
            receiver,
            shutdown,
            requests: Arc::new(Semaphore::new(REQUESTS)),
            granted: 3 * HEARTBEAT,
            beat: 0,
            beats: VecDeque::new(),
            refused: None,
            again: false,
        }
    }

    fn line(&self) -> Option<&Line> {
        self.control.0.lines.get(self.index)
    }

    pub(super) async fn run(mut self, mut events: Events) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.shutdown.soft();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => break,
                },
                _ = heartbeat.tick() => self.heartbeat(),
            }
        }
        if let Some(line) = self.line() {
            if line.ready() && line.send(&NodeToDispatcher::Leave).is_ok() {
                // The frames that are still to come are not read: whoever sent them asks the next owner.
                line.link.drain(GOODBYE).await;
            }
            line.link.close();
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Up { fresh: true, peer, .. } => {
                tracing::info!(dispatcher = %peer, "linked");
                self.register();
            }
            Event::Up { fresh: false, .. } => self.heartbeat(),
            Event::Frame(bytes) => match unpack::<DispatcherToNode>("dispatcher's frame", &bytes) {
                Ok(frame) => self.frame(frame),
                Err(error) => {
                    tracing::error!(%error, "a dispatcher says what this node does not understand");
                    self.gap();
                }
            },
            Event::Gap { .. } => self.gap(),
            Event::Down => tracing::warn!("the link to a dispatcher broke; it is being taken up again"),
            Event::Refused(refusal) => tracing::error!(%refusal, "a dispatcher cannot be linked"),
            Event::Closed => {
                self.control.0.interest.forget(self.index);
                self.control.0.remote.broken(self.index);
            }
        }
    }

    /// Says who this node is, and everything that a dispatcher must know of it.
    fn register(&mut self) {
        let control = self.control.clone();
        let shared = &control.0;
        shared.remote.broken(self.index);
        self.beats.clear();
        let Some(line) = self.line() else { return };
        let lost = line.behind.swap(false, Ordering::AcqRel) || self.again;
        let who = &shared.presentation;
        let register = NodeToDispatcher::Register {
            incarnation: who.incarnation,
            socket_url: who.socket_url.clone(),
            http_url: who.http_url.clone(),
            capacity: who.capacity,
            holds: self.holds(),
            epoch: shared.placement.borrow().epoch,
        };
        if line.send(&register).is_err() {
            line.behind.store(true, Ordering::Release);
            return;
        }
        if shared.leaving.load(Ordering::Acquire) && line.send(&NodeToDispatcher::Leaving).is_err() {
            line.behind.store(true, Ordering::Release);
        }
        if lost {
            // Not only now: whoever registers later than this is told by the next marks.
            shared.lossy.store(true, Ordering::Release);
            if line.send(&NodeToDispatcher::Lost).is_err() {
                line.behind.store(true, Ordering::Release);
            }
        }
        self.again = true;
        self.refused = None;
        shared.interest.register(self.index);
        self.beat();
    }

    /// The partitions that this node is named for, as far as it knows.
    fn holds(&self) -> Vec<Partition> {
        let shared = &self.control.0;
        let placement = shared.placement.borrow();
        let owners = (0..).zip(&placement.owners);
        owners
            .filter(|(_, owner)| owner.as_ref() == Some(&shared.presentation.node))
            .map(|(no, _)| no)
            .collect()
    }

    /// Frames to this node were lost: answers among them, and live events.
    fn gap(&self) {
        self.control.0.remote.broken(self.index);
        self.receiver.lost();
    }

    /// Each second, and when a link is up again: registers anew when something could not be said, else renews the lease.
    fn heartbeat(&mut self) {
        let control = self.control.clone();
        let Some(line) = control.0.lines.get(self.index).filter(|line| line.link.is_up()) else { return };
        // Whatever could not be said is said again, as a whole; but a registration that goes on comes to its end first.
        let again = control.0.interest.registering(self.index).unwrap_or_else(|| {
            let refused = self.refused.is_some_and(|at| Instant::now() >= at);
            line.behind.load(Ordering::Acquire) || refused
        });
        if again {
            self.register();
        } else if line.ready() {
            self.beat();
        }
    }

    fn beat(&mut self) {
        let control = self.control.clone();
        let Some(line) = control.0.lines.get(self.index) else { return };
        let no = self.beat + 1;
        let sockets = control.0.sockets.load(Ordering::Relaxed);
        if line.send(&NodeToDispatcher::Heartbeat { no, sockets }).is_ok() {
            self.beat = no;
            self.beats.push_back((no, Instant::now()));
            // An echo that takes longer than the lease renews nothing.
            while self.beats.len() > 8 {
                self.beats.pop_front();
            }
        }
    }

    /// What came of a part of the interest.
    fn registered(&mut self, progress: Progress) {
        match progress {
            Progress::Going => {}
            // What was published between the last registration and this one did not come here.
            Progress::Whole => {
                self.receiver.lost();
                // In this order: marks count again once nothing of before them can be overlooked.
                self.control.0.interest.whole(self.index);
            }
            Progress::Refused => {
                // Of those topics nothing comes here: looking at everything each time is what shows it.
                self.refused = Some(Instant::now() + AGAIN);
                self.receiver.lost();
            }
        }
    }

    fn frame(&mut self, frame: DispatcherToNode) {
        let control = self.control.clone();
        let shared = &control.0;
        match frame {
            DispatcherToNode::Registered { lease_ms, .. } => self.granted = Duration::from_millis(lease_ms),
            DispatcherToNode::Echo { no, clock } => self.echo(no, clock),
            DispatcherToNode::Expired => self.register(),
            DispatcherToNode::Placement(placement) => self.place(placement),
            DispatcherToNode::Interested { no } => {
                let progress = shared.interest.answered(self.index, no, true);
                self.registered(progress);
            }
            DispatcherToNode::InterestRefused { no } => {
                tracing::error!(no, "a dispatcher refuses topics of this node: it has too many");
                let progress = shared.interest.answered(self.index, no, false);
                self.registered(progress);
            }
            DispatcherToNode::Request { from, incarnation, id, partition, deadline, body } => {
                self.serve(Asked { from, incarnation, id, partition, deadline, body });
            }
            DispatcherToNode::Response { id, body } => match unpack("owner's answer", &body) {
                Ok(answer) => shared.remote.answered(id, RemoteAnswer::Answer(answer)),
                Err(error) => {
                    tracing::error!(%error, "an owner's answer cannot be read");
                    shared.remote.answered(id, RemoteAnswer::Broken);
                }
            },
            DispatcherToNode::Undeliverable { id } => shared.remote.answered(id, RemoteAnswer::Undeliverable),
            DispatcherToNode::Publish { body, .. } => match unpack("live event", &body) {
                Ok(live) => self.receiver.live(live),
                Err(error) => {
                    tracing::error!(%error, "a live event cannot be read");
                    self.receiver.lost();
                }
            },
            DispatcherToNode::Gap => self.gap(),
            DispatcherToNode::Marks { from, body } => match unpack::<Vec<Mark>>("marks", &body) {
                Ok(marks) => self.receiver.marks(&from, &marks),
                Err(error) => {
                    tracing::error!(%error, "marks cannot be read");
                    self.receiver.lost();
                }
            },
        }
    }

    fn echo(&mut self, no: u64, clock: Millis) {
        while let Some((beat, sent)) = self.beats.pop_front() {
            if beat == no {
                self.control.0.lease.renew(sent, self.granted);
                self.control.0.clock.hear(clock, Millis::now(), sent.elapsed());
                break;
            }
            if beat > no {
                self.beats.push_front((beat, sent));
                break;
            }
        }
    }

    fn place(&self, placement: Placement) {
        let shared = &self.control.0;
        let epoch = placement.epoch;
        let newer = shared.placement.send_if_modified(|known| {
            // The first is taken whatever its epoch.
            let newer = placement.epoch > known.epoch || known.owners.is_empty();
            if newer {
                *known = Arc::new(placement);
            }
            newer
        });
        if newer {
            let placement = shared.placement.borrow().clone();
            self.owners.place(&placement, &shared.presentation.node);
        }
        // Said of one that is known as well: the dispatcher may not have heard it.
        let (control, owners, index) = (self.control.clone(), self.owners.clone(), self.index);
        self.shutdown.spawn("a handover", async move {
            let given_up = owners.handed_over(HANDOVER).await;
            if !given_up {
                tracing::warn!(epoch, "partitions were not given up in time");
            } else if let Some(line) = control.0.lines.get(index) {
                // Without room for it the dispatcher waits for as long as a lease.
                let _ = line.send(&NodeToDispatcher::HandedOver { epoch });
            }
        });
    }

    /// Another node asks this one as an owner.
    fn serve(&self, asked: Asked) {
        let control = self.control.clone();
        let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() else {
            let busy = Refusal::new(ErrorCode::RetryLater, "the chat's owner has too much to do");
            respond(&control, self.index, &asked, &Answer::Refused(busy));
            return;
        };
        let (owners, index) = (self.owners.clone(), self.index);
        self.shutdown.spawn("a request of another node", async move {
            let answer = match unpack::<OwnerRequest>("owner request", &asked.body) {
                Ok(request) => {
                    let wait = asked.deadline.since(control.clock().now());
                    owners.handle(asked.partition, request, asked.deadline, wait).await
                }
                Err(error) => {
                    tracing::error!(%error, from = %asked.from, "a node asks what cannot be read");
                    Answer::Refused(Refusal::new(ErrorCode::Internal, "the request cannot be read"))
                }
            };
            respond(&control, index, &asked, &answer);
            drop(permit);
        });
    }
}

/// A request of another node.
struct Asked {
    from: NodeId,
    incarnation: Incarnation,
    id: u64,
    partition: Partition,
    deadline: Millis,
    body: Bytes,
}

fn respond(control: &Control, index: usize, asked: &Asked, answer: &Answer) {
    let Some(line) = control.0.lines.get(index) else { return };
    let response = NodeToDispatcher::Response {
        to: asked.from.clone(),
        incarnation: asked.incarnation,
        id: asked.id,
        body: pack(answer),
    };
    if let Err(error) = line.send(&response) {
        // The asker waits until its deadline, and then asks again under the same name.
        tracing::warn!(%error, to = %asked.from, "an answer could not be sent");
    }
}
