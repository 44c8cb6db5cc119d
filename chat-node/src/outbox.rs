//! What is on its way to one session. Frames come ready for the wire, encoded once and shared by everybody they go to.
//!
//! Whoever has something for the client (a room, from any thread) writes it to the connection itself, without waiting, as long as
//! the system takes it: no task is woken and nothing is copied. What the system does not take waits here, and the session's own task
//! writes it, as much as can be with each call, when there is room again. Under the outbox's lock, so that frames leave whole and in order.
//!
//! A client that reads more slowly than its chats speak fills its outbox and is closed with `slow_consumer`: it holds nobody back, and what it
//! missed it reads again when it comes back.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    task::{Context, Poll},
};

use bytes::Bytes;
use common::wire::{client::ServerFrame, codec::Format, codes::CloseCode};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::net::{TcpStream, tcp::OwnedWriteHalf};

use crate::socket::frame;

/// Events that may wait: two seconds of a chat that speaks 2,000 times a second. What the kernel's buffers hold (some
/// MiB on the usual settings) comes on top of it.
pub const FRAMES: usize = 4_096;
/// Bytes of events that may wait: 512 for each of [`FRAMES`], a short message as JSON. They are shared with the other recipients, so the
/// sum over all sessions is not what the process holds.
pub const BYTES: usize = 2 * 1024 * 1024;
/// Pieces that leave with one call: a system takes 1,024, and a list of these is made on the stack each time.
const PIECES: usize = 64;
/// Places for waiting pieces that an outbox keeps when it is empty.
const KEPT: usize = 16;

/// The outbox of one session.
#[derive(Debug, Default)]
pub struct Outbox {
    format: Format,
    queue: Mutex<Queue>,
    task: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    /// Where everything goes; none before the connection is there and after it is gone.
    pipe: Option<OwnedWriteHalf>,
    /// What waits, the first of it in part.
    waiting: VecDeque<Piece>,
    /// Events from before `ready`.
    held: VecDeque<Piece>,
    /// Bytes of the first that waits that are written already.
    sent: usize,
    /// The first that waits is the rest of a frame.
    torn: bool,
    /// Whether events are let out.
    open: bool,
    /// The system takes no more: the session's task writes when it does.
    blocked: bool,
    broken: bool,
    frames: usize,
    bytes: usize,
    answers: usize,
    answers_bytes: usize,
    closing: Option<CloseCode>,
}

/// Whole frames that lie together.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// How many events these are; none for an answer.
    events: usize,
}

impl Outbox {
    /// Of a session that speaks `format`, to a connection that is there.
    pub fn over(pipe: OwnedWriteHalf, format: Format) -> Self {
        Self {
            format,
            queue: Mutex::new(Queue { pipe: Some(pipe), ..Queue::default() }),
            task: AtomicWaker::new(),
        }
    }

    /// What the session speaks.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Puts a frame behind the others.
    pub fn tell(&self, frame: &ServerFrame) {
        self.push(frame::framed(frame, self.format), 1);
    }

    /// Puts so many events, which lie together, behind the others. When there is no room the session is closed with
    /// `slow_consumer`; what is put in after that goes nowhere.
    pub fn push(&self, bytes: Bytes, events: usize) {
        self.push_all([(bytes, events)]);
    }

    /// Puts an event behind the others if there is plenty of room, else drops it: one that may be lost closes nobody, and leaves room for
    /// those that may not.
    pub(crate) fn offer(&self, bytes: Bytes) {
        let queue = self.queue.lock();
        let plenty = queue.frames < FRAMES / 2 && queue.bytes + bytes.len() <= BYTES / 2;
        drop(queue);
        if plenty {
            self.push(bytes, 1);
        }
    }

    /// Puts pieces behind the others, which leave together.
    pub(crate) fn push_all(&self, pieces: impl IntoIterator<Item = (Bytes, usize)>) {
        let mut queue = self.queue.lock();
        let before = (queue.blocked, queue.broken, queue.closing);
        for (bytes, events) in pieces {
            queue.push(Piece { bytes, events });
        }
        if queue.open && !queue.blocked && !queue.waiting.is_empty() {
            queue.write();
        }
        let wake = before != (queue.blocked, queue.broken, queue.closing);
        drop(queue);
        if wake {
            self.task.wake();
        }
    }

    /// Puts an answer, or an event that belongs to one, behind the others, for the session's task to write. It counts by itself: not as the
    /// events that others put here, which close a slow session, but as what the session looks at before it takes more ([`Self::answers`]).
    pub(crate) fn answer(&self, bytes: Bytes) {
        let mut queue = self.queue.lock();
        queue.answers += 1;
        queue.answers_bytes += bytes.len();
        queue.waiting.push_back(Piece { bytes, events: 0 });
    }

    /// Answers that wait, with the events that belong to them, and their bytes.
    pub(crate) fn answers(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.answers, queue.answers_bytes)
    }

    /// Lets events out, behind what waits; from here on they are written by whoever has them.
    pub(crate) fn open(&self) {
        let mut queue = self.queue.lock();
        queue.open = true;
        let held = std::mem::take(&mut queue.held);
        queue.waiting.extend(held);
    }

    /// Writes what waits. Ready when nothing does, or with an error when the connection is broken. For the session's task, on the connection
    /// whose other half it has.
    pub(crate) fn poll_write(
        &self,
        context: &mut Context<'_>,
        connection: &TcpStream,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut queue = self.queue.lock();
            if queue.write() {
                return Poll::Ready(Ok(()));
            }
            if queue.broken || queue.pipe.is_none() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            drop(queue);
            match connection.poll_write_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Asks the session to close; events that wait are not sent. The first reason stands.
    pub fn close(&self, code: CloseCode) {
        self.queue.lock().close(code);
        self.task.wake();
    }

    /// Why the session is to close, if it is.
    pub fn closing(&self) -> Option<CloseCode> {
        self.queue.lock().closing
    }

    /// Resolves when the session is to close.
    pub fn poll_closing(&self, context: &Context<'_>) -> Poll<CloseCode> {
        self.task.register(context.waker());
        self.closing().map_or(Poll::Pending, Poll::Ready)
    }

    /// The session says its last words: nothing else is sent from here on but what is torn.
    pub(crate) fn last_words(&self) {
        let mut queue = self.queue.lock();
        queue.closing.get_or_insert(CloseCode::Bye);
        queue.clear();
    }

    /// The connection is over: its half here is closed, and what comes later goes nowhere.
    pub(crate) fn end(&self) {
        let mut queue = self.queue.lock();
        *queue = Queue { closing: Some(queue.closing.unwrap_or(CloseCode::Bye)), ..Queue::default() };
    }

    /// The payloads of everything that waits, oldest first, as if a client had read them.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Vec<Bytes> {
        let mut queue = self.queue.lock();
        queue.open = true;
        let held = std::mem::take(&mut queue.held);
        queue.waiting.extend(held);
        (queue.frames, queue.bytes, queue.answers, queue.answers_bytes) = (0, 0, 0, 0);
        std::mem::take(&mut queue.waiting)
            .into_iter()
            .flat_map(|piece| frame::payloads(piece.bytes))
            .collect()
    }
}

impl Queue {
    fn push(&mut self, piece: Piece) {
        if self.closing.is_some() {
            return;
        }
        let (frames, bytes) = (self.frames + piece.events, self.bytes + piece.bytes.len());
        // What comes together always fits: a chat's view with its hundred members may be longer than most.
        if (frames > FRAMES || bytes > BYTES) && self.frames > 0 {
            return self.close(CloseCode::SlowConsumer);
        }
        if self.open && !self.blocked && self.waiting.is_empty() {
            // The usual case: nobody has to remember it.
            match write(self.pipe.as_ref(), &[IoSlice::new(&piece.bytes)]) {
                Wrote::Some(sent) if sent == piece.bytes.len() => return,
                Wrote::Some(sent) => self.sent = sent,
                Wrote::Nothing => self.blocked = true,
                Wrote::Never => self.broken = true,
            }
        }
        (self.frames, self.bytes) = (frames, bytes);
        if self.open { self.waiting.push_back(piece) } else { self.held.push_back(piece) }
    }

    /// Writes as much as the system takes. True when nothing waits any more.
    fn write(&mut self) -> bool {
        self.blocked = false;
        while !self.waiting.is_empty() && !self.blocked && !self.broken {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            for (place, piece) in pieces.iter_mut().zip(&self.waiting) {
                *place = IoSlice::new(&piece.bytes);
            }
            if let Some(first) = pieces.first_mut() {
                first.advance(self.sent);
            }
            let count = self.waiting.len().min(PIECES);
            match write(self.pipe.as_ref(), pieces.get(..count).unwrap_or_default()) {
                Wrote::Some(sent) => self.written(sent),
                Wrote::Nothing => self.blocked = true,
                Wrote::Never => self.broken = true,
            }
        }
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            self.waiting = VecDeque::new();
        }
        self.waiting.is_empty()
    }

    fn written(&mut self, mut sent: usize) {
        sent += self.sent;
        while let Some(first) = self.waiting.front()
            && first.bytes.len() <= sent
        {
            sent -= first.bytes.len();
            self.forget_first();
        }
        self.sent = sent;
    }

    fn forget_first(&mut self) {
        self.torn = false;
        if let Some(Piece { bytes, events }) = self.waiting.pop_front() {
            if events == 0 {
                self.answers = self.answers.saturating_sub(1);
                self.answers_bytes = self.answers_bytes.saturating_sub(bytes.len());
            } else {
                self.frames = self.frames.saturating_sub(events);
                self.bytes = self.bytes.saturating_sub(bytes.len());
            }
        }
    }

    fn close(&mut self, code: CloseCode) {
        if self.closing.is_none() {
            self.closing = Some(code);
            self.clear();
        }
    }

    /// Forgets what waits, but for the rest of a frame of which some is written.
    fn clear(&mut self) {
        let torn = self.waiting.pop_front().map(|Piece { bytes, .. }| {
            let rest = if self.torn { self.sent..bytes.len() } else { frame::torn(&bytes, self.sent) };
            bytes.slice(rest)
        });
        self.waiting = VecDeque::new();
        self.held = VecDeque::new();
        (self.sent, self.torn, self.frames, self.bytes) = (0, false, 0, 0);
        (self.answers, self.answers_bytes) = (0, 0);
        if let Some(bytes) = torn.filter(|bytes| !bytes.is_empty()) {
            self.torn = true;
            (self.answers, self.answers_bytes) = (1, bytes.len());
            self.waiting.push_back(Piece { bytes, events: 0 });
        }
    }
}

/// How much the system took.
enum Wrote {
    Some(usize),
    /// Nothing for now.
    Nothing,
    /// The connection is broken.
    Never,
}

/// Without waiting.
fn write(pipe: Option<&OwnedWriteHalf>, pieces: &[IoSlice<'_>]) -> Wrote {
    let Some(pipe) = pipe else { return Wrote::Nothing };
    let outcome = match pieces {
        [one] => pipe.try_write(one),
        more => pipe.try_write_vectored(more),
    };
    match outcome {
        Ok(sent) => Wrote::Some(sent),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Wrote::Nothing,
        Err(_) => Wrote::Never,
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, tcp::OwnedReadHalf},
    };

    use super::*;

    fn event(text: &str) -> Bytes {
        frame::control(frame::Opcode::Ping, text.as_bytes())
    }

    async fn connected() -> (Arc<Outbox>, OwnedReadHalf, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.writable().await.unwrap();
        let (read, write) = server.into_split();
        (Arc::new(Outbox::over(write, Format::Json)), read, client)
    }

    /// What the session's task does, until it is closed or nothing waits.
    async fn write(outbox: &Outbox, half: &OwnedReadHalf) -> io::Result<()> {
        poll_fn(|context| outbox.poll_write(context, half.as_ref())).await
    }

    #[test]
    fn frames_come_out_in_order_and_share_their_bytes() {
        let outbox = Outbox::default();
        let frame = event("one");
        outbox.push(frame.clone(), 1);
        outbox.push(event("two"), 1);
        let taken = outbox.take();
        assert_eq!(taken, ["one", "two"]);
        assert_eq!(taken[0].as_ptr(), frame[2..].as_ptr());
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn too_many_frames_close_the_session_and_free_what_waited() {
        let outbox = Outbox::default();
        for _ in 0..FRAMES {
            outbox.push(event("x"), 1);
        }
        assert_eq!(outbox.closing(), None);
        outbox.push(event("x"), 1);
        assert_eq!(outbox.closing(), Some(CloseCode::SlowConsumer));
        outbox.push(event("x"), 1);
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn what_may_be_lost_closes_nobody() {
        let outbox = Outbox::default();
        for _ in 0..FRAMES {
            outbox.offer(event("x"));
        }
        for _ in 0..FRAMES / 2 {
            outbox.push(event("y"), 1);
        }
        assert_eq!(outbox.closing(), None);
        assert_eq!(outbox.take().len(), FRAMES);
    }

    #[test]
    fn too_many_bytes_close_the_session_but_what_comes_at_once_passes() {
        let outbox = Outbox::default();
        outbox.push(Bytes::from(vec![0; BYTES + 1]), 1);
        assert_eq!(outbox.closing(), None);
        outbox.push(event("x"), 1);
        assert_eq!(outbox.closing(), Some(CloseCode::SlowConsumer));
        let outbox = Outbox::default();
        outbox.push(event("x"), FRAMES + 1);
        assert_eq!(outbox.closing(), None);
    }

    #[tokio::test]
    async fn answers_that_wait_are_counted_with_their_bytes_until_they_are_written() {
        let (outbox, half, mut client) = connected().await;
        outbox.answer(event("one"));
        outbox.answer(event("three"));
        outbox.push(event("x"), 1);
        assert_eq!(outbox.answers(), (2, 2 + 3 + 2 + 5));
        outbox.open();
        write(&outbox, &half).await.unwrap();
        assert_eq!(outbox.answers(), (0, 0));
        let mut read = vec![0; 3 * 2 + "onethreex".len()];
        client.read_exact(&mut read).await.unwrap();
        outbox.answer(event("more"));
        outbox.close(CloseCode::Bye);
        assert_eq!(outbox.answers(), (0, 0));
    }

    #[tokio::test]
    async fn what_the_system_takes_is_written_by_whoever_has_it() {
        let (outbox, _half, mut client) = connected().await;
        outbox.push(event("early"), 1);
        outbox.answer(event("ready"));
        outbox.open();
        outbox.push(event("late"), 1);
        let mut read = vec![0; 3 * 2 + "readyearlylate".len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(frame::payloads(read.into()), ["ready", "early", "late"]);
    }

    #[tokio::test]
    async fn a_client_that_reads_late_gets_every_frame_whole_and_in_order() {
        let (outbox, half, mut client) = connected().await;
        outbox.open();
        let payload = |at: usize| vec![u8::try_from(at % 251).unwrap(); 20_000];
        let big = |at: usize| {
            let frame = ServerFrame::ChatUpdated {
                chat: common::ids::ChatId::random(),
                seq: at as u64,
                at: common::time::Millis(0),
                by: common::ids::UserId::random(),
                name: Some(String::from_utf8(vec![b'a' + payload(at)[0] % 26; 20_000]).unwrap()),
                description: None,
                retention: None,
                roles: Vec::new(),
            };
            frame::framed(&frame, Format::Json)
        };
        let mut pushed = Vec::new();
        // Until the system takes no more, and some that have to wait; fewer than an outbox holds.
        while outbox.queue.lock().waiting.len() < 50 {
            let frame = big(pushed.len());
            pushed.extend_from_slice(&frame);
            outbox.push(frame, 1);
        }
        let writer = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { (write(&outbox, &half).await, half) }
        });
        let mut read = vec![0; pushed.len()];
        client.read_exact(&mut read).await.unwrap();
        assert!(read == pushed, "frames are torn or out of order");
        assert!(writer.await.unwrap().0.is_ok());
        let queue = outbox.queue.lock();
        assert_eq!((queue.frames, queue.bytes, queue.sent), (0, 0, 0));
    }

    #[tokio::test]
    async fn who_is_closed_in_the_middle_of_a_frame_gets_the_rest_of_it_and_the_last_words() {
        let (outbox, half, mut client) = connected().await;
        outbox.open();
        let three = Bytes::from([event(&"x".repeat(120)), event(&"y".repeat(120)), event("z")].concat());
        let mut whole = 0;
        while outbox.closing().is_none() {
            outbox.push(three.clone(), 3);
            whole += 1;
        }
        assert_eq!(outbox.closing(), Some(CloseCode::SlowConsumer));
        outbox.last_words();
        outbox.answer(frame::close(4004, "slow_consumer"));
        tokio::spawn(async move {
            let _ = write(&outbox, &half).await;
            outbox.end();
        });
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        let mut payloads = frame::payloads(read.into());
        assert_eq!(payloads.pop().unwrap(), [&4004u16.to_be_bytes()[..], b"slow_consumer"].concat());
        assert!(payloads.len() < whole * 3, "what waited is not sent");
        for (at, payload) in payloads.iter().enumerate() {
            assert_eq!(payload.first(), b"xyz".get(at % 3), "frame {at} of {}", payloads.len());
        }
    }

    #[tokio::test]
    async fn the_task_is_woken_for_what_waits_and_for_a_close() {
        let outbox = Arc::new(Outbox::default());
        outbox.open();
        let task = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move {
                let mut taken = 0;
                poll_fn(|context| {
                    let closing = outbox.poll_closing(context);
                    taken += outbox.take().len();
                    closing.map(|code| (code, taken))
                })
                .await
            }
        });
        for _ in 0..100 {
            outbox.push(event("x"), 1);
            tokio::task::yield_now().await;
        }
        outbox.close(CloseCode::Revoked);
        outbox.close(CloseCode::Bye);
        let (code, taken) = task.await.unwrap();
        assert_eq!(code, CloseCode::Revoked, "the first reason stands");
        assert!((1..=100).contains(&taken));
    }
}
