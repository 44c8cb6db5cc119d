//! What the handles of a link and its task share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Discarded, FrameNo, LinkSettings, PeerId, SendError,
    inbox::Inbox,
    outbox::{Batch, Outbox},
};
use crate::ids::Incarnation;

pub(super) struct Core {
    pub(super) inbox: Inbox,
    outbox: Mutex<Outbox>,
    /// The writer waits here: something was queued, or an acknowledgement is owed.
    pub(super) work: Notify,
    /// Whoever waits for room or for acknowledgements waits here.
    progress: watch::Sender<Progress>,
    peer: ArcSwapOption<PeerId>,
    /// The highest number received; 0 when none of the peer's epoch. Written by the link's task alone.
    received: AtomicU64,
    pub(super) counters: Counters,
    pub(super) settings: Arc<LinkSettings>,
    /// Ends the link's task.
    pub(super) closing: CancellationToken,
    /// This process.
    pub(super) incarnation: Incarnation,
    /// Queued before anything else whenever the peer starts afresh.
    greeting: Vec<Bytes>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    acked: u64,
    up: bool,
    closed: bool,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) frames_sent: AtomicU64,
    pub(super) frames_resent: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) gaps: AtomicU64,
}

/// What a link has done so far, for metrics. Counts since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Connections that came up; the breaks are one fewer.
    pub connections: u64,
    /// Frames written, each time they were.
    pub frames_sent: u64,
    /// Frames written again after a break.
    pub frames_resent: u64,
    /// Frames given to the reader's queue.
    pub frames_received: u64,
    /// Frames that came a second time and were dropped.
    pub duplicates: u64,
    /// Gaps that were told to the reader.
    pub gaps: u64,
    /// Frames queued and not acknowledged, now.
    pub unacknowledged: u64,
}

impl Core {
    pub(super) fn new(
        settings: Arc<LinkSettings>,
        incarnation: Incarnation,
        closing: CancellationToken,
        greeting: Vec<Bytes>,
    ) -> Self {
        let mut outbox = Outbox::new(settings.outbox_frames, settings.outbox_bytes);
        greet(&mut outbox, &greeting);
        Self {
            inbox: Inbox::new(settings.inbox_frames, settings.inbox_bytes),
            outbox: Mutex::new(outbox),
            work: Notify::new(),
            progress: watch::Sender::default(),
            peer: ArcSwapOption::empty(),
            received: AtomicU64::new(0),
            counters: Counters::default(),
            settings,
            closing,
            incarnation,
            greeting,
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    pub(super) fn set_received(&self, upto: u64) {
        self.received.store(upto, Relaxed);
    }

    /// False when the peer acknowledges what was never sent.
    pub(super) fn acknowledge(&self, upto: u64) -> bool {
        let mut outbox = self.outbox.lock();
        let good = outbox.acknowledge(upto);
        let acked = outbox.acked();
        drop(outbox);
        self.progress.send_if_modified(|progress| {
            let moved = progress.acked != acked;
            progress.acked = acked;
            moved
        });
        good
    }

    /// The peer's state is the one we know: write again what it lacks.
    pub(super) fn rewind(&self) {
        self.outbox.lock().rewind();
    }

    /// The peer's state is a new one.
    pub(super) fn start_afresh(&self) -> Option<Discarded> {
        self.set_received(0);
        let mut outbox = self.outbox.lock();
        let discarded = outbox.discard();
        greet(&mut outbox, &self.greeting);
        drop(outbox);
        self.progress.send_modify(|_| {});
        discarded
    }

    /// What to write next; with `ack`, that too, if it is `due` or there is data to ride with. Returns whether it is in.
    pub(super) fn next_batch(&self, ack: Option<u64>, due: bool) -> (Batch, bool) {
        let mut outbox = self.outbox.lock();
        let ack = ack.filter(|_| due || outbox.has_unwritten());
        (outbox.next_batch(ack), ack.is_some())
    }

    pub(super) fn up(&self, peer: PeerId, fresh: bool, discarded: Option<Discarded>) {
        let peer = Arc::new(peer);
        self.peer.store(Some(peer.clone()));
        self.counters.connections.fetch_add(1, Relaxed);
        self.progress.send_modify(|progress| progress.up = true);
        self.inbox.up(peer, fresh, discarded);
    }

    pub(super) fn down(&self) {
        self.progress.send_modify(|progress| progress.up = false);
        self.inbox.down();
    }

    pub(super) fn close(&self) {
        self.closing.cancel();
    }
}

fn greet(outbox: &mut Outbox, greeting: &[Bytes]) {
    for frame in greeting {
        // The outbox is empty and takes what `dial_with` has checked.
        let _ = outbox.push(frame.clone());
    }
}

/// Held by a link's task: however it ends, the handles hear of it.
pub(super) struct Finish(pub(super) Arc<Core>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.close();
        self.0.progress.send_modify(|progress| (progress.up, progress.closed) = (false, true));
        self.0.inbox.finish();
    }
}

/// The sending half of a link, for any number of senders. The link lives until [`Link::close`], or until its [`super::Events`] or its
/// endpoint is dropped; an accepted one also ends when the peer closes it or stays away too long.
#[derive(Clone)]
pub struct Link {
    core: Arc<Core>,
}

impl Link {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Who is at the other end. `None`: a dialed link that was never up. Role and name never change on an accepted link; on a dialed one the
    /// incarnation changes when the peer restarts.
    pub fn peer(&self) -> Option<Arc<PeerId>> {
        self.core.peer.load_full()
    }

    /// Queues a frame, up or not. It leaves as soon as the link is up, and again after a break until it is acknowledged.
    ///
    /// # Errors
    /// [`SendError`]; the frame was then surely not sent.
    pub fn send(&self, frame: Bytes) -> Result<FrameNo, SendError> {
        self.check(&frame)?;
        let no = self.core.outbox.lock().push(frame)?;
        self.core.work.notify_one();
        Ok(no)
    }

    /// Queues a frame, or, when the buffer is full, puts a gap in its place: the receiver hears [`super::Event::Gap`] there. For what must
    /// neither wait nor vanish silently. Returns the number, and whether the frame itself was queued.
    ///
    /// # Errors
    /// [`SendError`], except for `Full`; neither frame nor gap was then sent.
    pub fn send_or_gap(&self, frame: Bytes) -> Result<(FrameNo, bool), SendError> {
        self.check(&frame)?;
        let mut outbox = self.core.outbox.lock();
        let sent = match outbox.push(frame) {
            Ok(no) => (no, true),
            Err(SendError::Full) => (outbox.push_gap(), false),
            Err(error) => return Err(error),
        };
        drop(outbox);
        self.core.work.notify_one();
        Ok(sent)
    }

    /// As [`Link::send`], but waits for room, at most `timeout`. Among several who wait, the order is by chance. Not for the task that
    /// reads the same link's events: two ends that both wait for room and do not read would wait for each other.
    ///
    /// # Errors
    /// [`SendError`]: `Full` when there was no room in time.
    pub async fn send_wait(&self, frame: Bytes, timeout: Duration) -> Result<FrameNo, SendError> {
        let deadline = Instant::now() + timeout;
        let mut progress = self.core.progress.subscribe();
        loop {
            progress.mark_unchanged();
            match self.send(frame.clone()) {
                Err(SendError::Full) => {}
                done => return done,
            }
            match timeout_at(deadline, progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(SendError::Closed),
                Err(_) => return Err(SendError::Full),
            }
        }
    }

    /// The highest acknowledged number: the peer has received every frame up to it that was not discarded ([`super::Event::Up`]) or a gap.
    pub fn acked(&self) -> u64 {
        self.core.progress.borrow().acked
    }

    /// Waits until nothing that is queued now is left: all acknowledged or discarded. False when `timeout` is over or the link closed first.
    pub async fn drain(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut progress = self.core.progress.subscribe();
        let last = self.core.outbox.lock().last();
        loop {
            progress.mark_unchanged();
            if !self.core.outbox.lock().holds_upto(last) {
                return true;
            }
            if progress.borrow().closed
                || !matches!(timeout_at(deadline, progress.changed()).await, Ok(Ok(())))
            {
                return false;
            }
        }
    }

    /// Whether there is a connection, as far as this end knows. Proves nothing; a lease does.
    pub fn is_up(&self) -> bool {
        self.core.progress.borrow().up
    }

    /// Whether the link has ended or is about to.
    pub fn is_closed(&self) -> bool {
        self.core.closing.is_cancelled()
    }

    /// Ends the link now. What is not acknowledged may or may not arrive; [`Link::drain`] first where it matters.
    pub fn close(&self) {
        self.core.close();
    }

    /// What the link has done so far.
    pub fn stats(&self) -> LinkStats {
        let counters = &self.core.counters;
        LinkStats {
            connections: counters.connections.load(Relaxed),
            frames_sent: counters.frames_sent.load(Relaxed),
            frames_resent: counters.frames_resent.load(Relaxed),
            frames_received: counters.frames_received.load(Relaxed),
            duplicates: counters.duplicates.load(Relaxed),
            gaps: counters.gaps.load(Relaxed),
            unacknowledged: u64::try_from(self.core.outbox.lock().len()).unwrap_or(u64::MAX),
        }
    }

    fn check(&self, frame: &Bytes) -> Result<(), SendError> {
        if self.is_closed() {
            return Err(SendError::Closed);
        }
        check_frame(frame, &self.core.settings)
    }
}

pub(super) fn check_frame(frame: &Bytes, settings: &LinkSettings) -> Result<(), SendError> {
    let max = settings.max_frame;
    if frame.len() > max { Err(SendError::TooLarge { len: frame.len(), max }) } else { Ok(()) }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.peer() {
            Some(peer) => write!(f, "Link({peer})"),
            None => f.write_str("Link(never up)"),
        }
    }
}
