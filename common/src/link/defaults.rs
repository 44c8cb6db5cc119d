//! The numbers of a link, each with its reason.

use std::time::Duration;

use super::Role;

/// The longest frame, in bytes. The longest thing said over a link is an answer with a page of history: 100 messages of
/// 16 KiB each are 1.6 MiB. Checked before anything is allocated.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;

/// How many unacknowledged frames a sender holds. A break is noticed after 3 s and mended about 1 s later; 5,000 sends/s
/// over those 4 s, each with its answer and its live frame, are 60,000.
pub const OUTBOX_FRAMES: usize = 65_536;

/// How many bytes of them: 60,000 frames of 500 bytes are 30 MB.
pub const OUTBOX_BYTES: usize = 32 * 1024 * 1024;

/// How many received frames wait for their reader: at 50,000/s, 80 ms of a reader that is busy.
pub const INBOX_FRAMES: usize = 4_096;

/// How many bytes of them: two of the longest frames and some. The last one may reach past it, so [`MAX_FRAME`] more at most.
pub const INBOX_BYTES: usize = 8 * 1024 * 1024;

/// A connection that heard nothing for this long is gone. As long as a node's lease, so that neither outlives the other by much.
pub const IDLE: Duration = Duration::from_secs(3);

/// How often a quiet connection says that it is there: a third of [`IDLE`], so that two may be lost.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// How long from the first packet to the answered hello. A few round trips and two signatures take milliseconds; the rest is for lost
/// packets and busy machines. Shorter than waiting would be useful: after a cut heals, a new attempt is quicker than an old one's retries.
pub const HANDSHAKE: Duration = Duration::from_secs(3);

/// The first wait before dialing again, with jitter.
pub const REDIAL_MIN: Duration = Duration::from_millis(50);

/// The longest wait before dialing again, with jitter.
pub const REDIAL_MAX: Duration = Duration::from_secs(1);

/// How long an accepted link waits for its peer to come back. Ten times [`IDLE`]: a network that comes back at all is back by then, and
/// a peer that comes later starts afresh.
pub const ABANDON: Duration = Duration::from_secs(30);

/// An acknowledgement leaves at the latest this long after its frame. Short beside [`IDLE`] and long beside a round trip: at
/// 100,000 frames/s it lets the sender hold 2,000.
pub const ACK_DELAY: Duration = Duration::from_millis(20);

/// ... or after this many frames.
pub const ACK_FRAMES: u64 = 64;

/// How many frames go into one write, at most: 64 measured ten times as fast as one by one.
pub const BATCH_FRAMES: usize = 64;

/// How many bytes go into one write before it is cut off (the last frame may reach past it): enough for a full GSO batch of packets.
pub const BATCH_BYTES: usize = 64 * 1024;

/// How many bytes may be under way unread on a connection: 4 MiB each 10 ms (a far round trip inside a region) are 400 MB/s. QUIC has no
/// bound by default.
pub const RECEIVE_WINDOW: u32 = 4 * 1024 * 1024;

/// How many links an endpoint accepts. A dispatcher has one per node, other dispatcher and writer; each costs at most the two
/// queues above.
pub const MAX_LINKS: usize = 1_024;

/// How many handshakes an endpoint works on at a time; more are turned away and come again. Each costs two signatures.
pub const MAX_HANDSHAKES: usize = 128;

/// How many accepted links wait to be taken by [`super::Endpoint::accept`]; the next is refused as busy and comes again.
pub const ACCEPT_QUEUE: usize = 64;

/// The numbers that an endpoint may be given. [`Default`] is the constants of this module; tests shorten some.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// See [`MAX_FRAME`], in bytes.
    pub max_frame: usize,
    /// See [`OUTBOX_FRAMES`].
    pub outbox_frames: usize,
    /// See [`OUTBOX_BYTES`].
    pub outbox_bytes: usize,
    /// See [`INBOX_FRAMES`].
    pub inbox_frames: usize,
    /// See [`INBOX_BYTES`].
    pub inbox_bytes: usize,
    /// See [`IDLE`].
    pub idle: Duration,
    /// See [`KEEP_ALIVE`].
    pub keep_alive: Duration,
    /// See [`HANDSHAKE`].
    pub handshake: Duration,
    /// See [`REDIAL_MIN`].
    pub redial_min: Duration,
    /// See [`REDIAL_MAX`].
    pub redial_max: Duration,
    /// See [`ABANDON`].
    pub abandon: Duration,
    /// See [`MAX_LINKS`].
    pub max_links: usize,
    /// The roles that may dial this endpoint. All, by default.
    pub accept_roles: Vec<Role>,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            max_frame: MAX_FRAME,
            outbox_frames: OUTBOX_FRAMES,
            outbox_bytes: OUTBOX_BYTES,
            inbox_frames: INBOX_FRAMES,
            inbox_bytes: INBOX_BYTES,
            idle: IDLE,
            keep_alive: KEEP_ALIVE,
            handshake: HANDSHAKE,
            redial_min: REDIAL_MIN,
            redial_max: REDIAL_MAX,
            abandon: ABANDON,
            max_links: MAX_LINKS,
            accept_roles: Role::ALL.to_vec(),
        }
    }
}
