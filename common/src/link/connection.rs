//! One QUIC connection of a link: hello, then reading and writing until it breaks.

use std::{fmt, sync::atomic::Ordering::Relaxed};

use bytes::BytesMut;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Refusal,
    codec::{self, CodecError, Hello, StreamFrame, VERSION},
    core::Core,
    defaults::{ACK_DELAY, ACK_FRAMES},
};

/// How much room the read buffer has at least: a few dozen packets at a time.
const READ: usize = 64 * 1024;

/// Why a connection was closed, as the peer is told. QUIC's own 0 stands for a handle that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The link is over.
    Over = 1,
    /// A newer connection of the same link has taken its place.
    Superseded = 2,
    /// See [`Refusal::Role`].
    Role = 3,
    /// See [`Refusal::Busy`].
    Busy = 4,
    /// See [`Refusal::Protocol`].
    Protocol = 5,
    /// See [`Refusal::PeerCertificate`].
    Certificate = 6,
}

/// A connection that is no more.
#[derive(Debug)]
pub(super) enum Ended {
    /// It broke; the link goes on.
    Lost(String),
    /// The peer said that the link is over.
    PeerClosed,
    /// The peer said something impossible, or turns us away.
    Refused(Refusal),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) => f.write_str(why),
            Self::PeerClosed => f.write_str("the peer closed the link"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl Ended {
    fn protocol(why: impl ToString) -> Self {
        Self::Refused(Refusal::Protocol(why.to_string()))
    }
}

impl From<CodecError> for Ended {
    fn from(error: CodecError) -> Self {
        Self::protocol(error)
    }
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        const CRYPTO: std::ops::Range<u64> = 0x100..0x200;
        match error {
            ConnectionError::TransportError(error) if CRYPTO.contains(&u64::from(error.code)) => {
                Self::Refused(Refusal::PeerCertificate(error.reason))
            }
            ConnectionError::ConnectionClosed(close) if CRYPTO.contains(&u64::from(close.error_code)) => {
                Self::Refused(Refusal::OwnCertificate(close.to_string()))
            }
            ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code.into_inner();
                let is = |known: Close| code == known as u64;
                if is(Close::Over) {
                    Self::PeerClosed
                } else if is(Close::Role) {
                    Self::Refused(Refusal::Role)
                } else if is(Close::Busy) {
                    Self::Refused(Refusal::Busy)
                } else if is(Close::Protocol) {
                    Self::protocol(String::from_utf8_lossy(&close.reason))
                } else if is(Close::Certificate) {
                    Self::Refused(Refusal::OwnCertificate(
                        String::from_utf8_lossy(&close.reason).into_owned(),
                    ))
                } else {
                    Self::Lost(close.to_string())
                }
            }
            other => Self::Lost(other.to_string()),
        }
    }
}

/// A connection with its one stream. Dropping it closes it; once the link is closing, with a word that the link is over.
pub(super) struct Wire {
    connection: quinn::Connection,
    send: SendStream,
    recv: RecvStream,
    buf: BytesMut,
    /// The link's; a listener learns from the hello which link that is.
    closing: Option<CancellationToken>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.closing.as_ref().is_some_and(CancellationToken::is_cancelled) {
            self.close(Close::Over, "the link is closed");
        }
    }
}

impl Wire {
    pub(super) fn new(connection: quinn::Connection, (send, recv): (SendStream, RecvStream)) -> Self {
        Self { connection, send, recv, buf: BytesMut::new(), closing: None }
    }

    /// From now on it belongs to this link.
    pub(super) fn belong_to(&mut self, core: &Core) {
        self.closing = Some(core.closing.clone());
    }

    pub(super) fn close(&self, code: Close, reason: &str) {
        close(&self.connection, code, reason);
    }

    pub(super) async fn say_hello(&mut self, hello: Hello) -> Result<(), Ended> {
        let mut bytes = BytesMut::new();
        codec::encode(&StreamFrame::Hello(hello), &mut bytes);
        match self.send.write_all(&bytes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(why(&self.connection, error)),
        }
    }

    pub(super) async fn hear_hello(&mut self) -> Result<Hello, Ended> {
        loop {
            match codec::decode(&mut self.buf, 0)? {
                Some(StreamFrame::Hello(hello)) if hello.version != VERSION => {
                    return Err(Ended::protocol(format!("version {} instead of {VERSION}", hello.version)));
                }
                Some(StreamFrame::Hello(hello)) if hello.epoch == 0 => {
                    return Err(Ended::protocol("epoch 0"));
                }
                Some(StreamFrame::Hello(hello)) => return Ok(hello),
                Some(_) => return Err(Ended::protocol("a frame before the hello")),
                None => more(&self.connection, &mut self.recv, &mut self.buf).await?,
            }
        }
    }

    /// Carries the link's frames until something ends it. Dropping the future stops at once: no frame is then half received.
    pub(super) async fn carry(&mut self, core: &Core) -> Ended {
        let Self { connection, send, recv, buf, .. } = self;
        // Before the first read: this is what the hello told.
        let told = core.received();
        tokio::select! {
            ended = read(core, connection, recv, buf) => ended,
            ended = write(core, connection, send, told) => ended,
        }
    }
}

pub(super) fn close(connection: &quinn::Connection, code: Close, reason: &str) {
    connection.close(VarInt::from_u32(code as u32), reason.as_bytes());
}

/// A stream's error says less than its connection's.
fn why(connection: &quinn::Connection, error: impl ToString) -> Ended {
    match connection.close_reason() {
        Some(reason) => Ended::from(reason),
        None => Ended::Lost(error.to_string()),
    }
}

async fn more(
    connection: &quinn::Connection,
    recv: &mut RecvStream,
    buf: &mut BytesMut,
) -> Result<(), Ended> {
    buf.reserve(READ);
    match recv.read_buf(buf).await {
        Ok(0) => Err(why(connection, "the stream ended")),
        Ok(_) => Ok(()),
        Err(error) => Err(why(connection, error)),
    }
}

async fn read(
    core: &Core,
    connection: &quinn::Connection,
    recv: &mut RecvStream,
    buf: &mut BytesMut,
) -> Ended {
    loop {
        match codec::decode(buf, core.settings.max_frame) {
            Ok(Some(frame)) => {
                if let Err(ended) = receive(core, frame).await {
                    return ended;
                }
            }
            Ok(None) => {
                // The writer counts what is owed, and starts the clock of an acknowledgement.
                core.work.notify_one();
                if let Err(ended) = more(connection, recv, buf).await {
                    return ended;
                }
            }
            Err(error) => return error.into(),
        }
    }
}

async fn receive(core: &Core, frame: StreamFrame) -> Result<(), Ended> {
    match frame {
        StreamFrame::Hello(_) => Err(Ended::protocol("a second hello")),
        StreamFrame::Ack { upto } => {
            if core.acknowledge(upto) {
                Ok(())
            } else {
                Err(Ended::protocol("acknowledged what was never sent"))
            }
        }
        StreamFrame::Gap { first, last } => {
            let received = core.received();
            if last <= received {
                core.counters.duplicates.fetch_add(1, Relaxed);
            } else {
                missing(core, first.max(received.saturating_add(1)), last);
                core.set_received(last);
            }
            Ok(())
        }
        StreamFrame::Data { no, payload } => {
            let received = core.received();
            if no <= received {
                core.counters.duplicates.fetch_add(1, Relaxed);
                return Ok(());
            }
            core.inbox.room().await;
            // From here on without an await: the frame is received and counted, or neither.
            if received > 0 && no > received + 1 {
                missing(core, received + 1, no - 1);
            }
            core.set_received(no);
            core.inbox.frame(payload);
            core.counters.frames_received.fetch_add(1, Relaxed);
            Ok(())
        }
    }
}

fn missing(core: &Core, first: u64, last: u64) {
    core.counters.gaps.fetch_add(1, Relaxed);
    core.inbox.gap(first, last);
}

/// `told`: how much the peer knows to be received.
async fn write(core: &Core, connection: &quinn::Connection, send: &mut SendStream, mut told: u64) -> Ended {
    let mut due_at: Option<Instant> = None;
    loop {
        let received = core.received();
        let owed = received.saturating_sub(told);
        let due = owed >= ACK_FRAMES || due_at.is_some_and(|at| at <= Instant::now());
        let (mut batch, acked) = core.next_batch((owed > 0).then_some(received), due);
        if batch.chunks.is_empty() {
            if owed > 0 && due_at.is_none() {
                due_at = Some(Instant::now() + ACK_DELAY);
            }
            tokio::select! {
                () = core.work.notified() => {}
                () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {}
            }
            // Lets those who are ready queue theirs too, so that it all leaves together.
            tokio::task::yield_now().await;
            continue;
        }
        if let Err(error) = send.write_all_chunks(&mut batch.chunks).await {
            return why(connection, error);
        }
        core.counters.frames_sent.fetch_add(batch.frames, Relaxed);
        core.counters.frames_resent.fetch_add(batch.resent, Relaxed);
        if acked {
            told = received;
            due_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        ids::Incarnation,
        link::{Event, Events, LinkSettings},
    };

    /// The verdict on each frame, and what the reader gets of them: frames as `no`, gaps as `first..=last`.
    async fn received(frames: impl IntoIterator<Item = StreamFrame>) -> (Vec<bool>, Vec<String>) {
        let settings = Arc::new(LinkSettings::default());
        let core = Arc::new(Core::new(settings, Incarnation(1), CancellationToken::new(), Vec::new()));
        let mut events = Events::new(core.clone());
        let mut fine = Vec::new();
        for frame in frames {
            fine.push(receive(&core, frame).await.is_ok());
        }
        core.inbox.finish();
        let mut seen = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Frame(payload) => seen.push(String::from_utf8(payload.to_vec()).unwrap()),
                Event::Gap { missing } => seen.push(format!("{missing:?}")),
                _ => {}
            }
        }
        (fine, seen)
    }

    fn data(no: u64) -> StreamFrame {
        StreamFrame::Data { no, payload: Bytes::from(no.to_string()) }
    }

    fn gap(first: u64, last: u64) -> StreamFrame {
        StreamFrame::Gap { first, last }
    }

    #[tokio::test]
    async fn what_was_received_before_is_dropped_by_its_number() {
        let (fine, seen) = received([data(1), data(2), data(1), data(2), data(3), gap(2, 3), data(4)]).await;
        assert_eq!(fine, [true; 7]);
        assert_eq!(seen, ["1", "2", "3", "4"]);
    }

    #[tokio::test]
    async fn a_gap_is_told_once_and_one_that_grew_by_what_is_new() {
        let (_, seen) = received([data(1), gap(2, 3), gap(2, 5), gap(2, 5), data(6)]).await;
        assert_eq!(seen, ["1", "2..=5", "6"]);
        let (_, seen) = received([data(1), gap(2, 3), data(4), gap(3, 5), data(6)]).await;
        assert_eq!(seen, ["1", "2..=3", "4", "5..=5", "6"]);
    }

    #[tokio::test]
    async fn a_jump_in_the_numbers_is_a_gap_and_the_first_number_is_none() {
        let (_, seen) = received([data(57), data(60)]).await;
        assert_eq!(seen, ["57", "58..=59", "60"]);
    }

    #[tokio::test]
    async fn an_acknowledgement_of_the_unsent_and_a_second_hello_end_the_connection() {
        let hello =
            Hello { version: 1, incarnation: 1, epoch: 1, peer_epoch: 1, attempt: 1, received_upto: 0 };
        let (fine, _) = received([StreamFrame::Ack { upto: 0 }, StreamFrame::Ack { upto: 1 }]).await;
        assert_eq!(fine, [true, false]);
        assert_eq!(received([StreamFrame::Hello(hello)]).await.0, [false]);
    }
}
