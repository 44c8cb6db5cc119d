//! Sockets that are read as cheaply as can be, all on one thread of their own: their events are counted, and how long each took.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use common::ids::ChatId;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{Notify, mpsc, oneshot},
    task::LocalSet,
};

use super::frames::{Counter, Kind, masked};

/// How long a socket may take to be open, and to be ready.
const OPEN_WITHIN: Duration = Duration::from_secs(20);
/// Bytes read at once, into one buffer for all.
const READ: usize = 256 * 1024;
/// The longest answer to an upgrade.
const ANSWER: usize = 4 * 1024;

/// What all readers have seen together.
#[derive(Debug)]
pub(super) struct Tally {
    began: Instant,
    /// Messages that came in.
    pub(super) events: AtomicU64,
    /// Sends that were answered.
    pub(super) acks: AtomicU64,
    /// Sends that were refused.
    pub(super) errors: AtomicU64,
    /// Sockets that the server closed.
    pub(super) closed: AtomicU64,
    target: AtomicU64,
    reached: Notify,
    timed: AtomicBool,
    /// When each message was sent, in microseconds, by its place since the clock was started.
    sent: Mutex<Vec<u64>>,
    took: Mutex<Histogram<u64>>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            events: AtomicU64::new(0),
            acks: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            target: AtomicU64::new(u64::MAX),
            reached: Notify::new(),
            timed: AtomicBool::new(false),
            sent: Mutex::default(),
            took: Mutex::new(Histogram::new_with_bounds(1, 600_000_000, 3)?),
        })
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// From now on so many more messages are to come in before [`Self::reached`] resolves.
    pub(super) fn expect(&self, more: u64) {
        self.target.store(self.events.load(Relaxed) + more, Relaxed);
    }

    /// Resolves when all that was expected is in.
    pub(super) async fn reached(&self) -> anyhow::Result<()> {
        let reached = async {
            while self.events.load(Relaxed) < self.target.load(Relaxed) {
                self.reached.notified().await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(30), reached).await;
        within.with_context(|| {
            format!(
                "messages are missing: {} of {} came in, {} sends were refused, {} sockets were closed",
                self.events.load(Relaxed),
                self.target.load(Relaxed),
                self.errors.load(Relaxed),
                self.closed.load(Relaxed)
            )
        })
    }

    /// From now on it is measured how long each message takes.
    pub(super) fn start_clock(&self) {
        self.sent.lock().clear();
        self.took.lock().reset();
        self.timed.store(true, Relaxed);
    }

    /// A message leaves now.
    pub(super) fn sends(&self) {
        let now = self.micros();
        self.sent.lock().push(now);
    }

    /// How long messages took since the clock was started, in microseconds.
    pub(super) fn stop_clock(&self) -> Histogram<u64> {
        self.timed.store(false, Relaxed);
        self.took.lock().clone()
    }
}

/// How a socket is opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Open {
    /// What is said first, once the socket is there.
    pub(super) hello: Option<String>,
    /// Bytes that the system buffers for a reader that stalls.
    pub(super) receive_buffer: Option<u32>,
}

/// What a sender writes: messages to one chat, each under a name of its own.
#[derive(Debug, Clone)]
pub(super) struct Messages {
    chat: ChatId,
    body: String,
    name: u64,
    next: u64,
}

impl Messages {
    pub(super) fn new(chat: ChatId, body_bytes: usize) -> Self {
        Self { chat, body: "x".repeat(body_bytes), name: rand::random(), next: 0 }
    }

    /// The next one, as a frame.
    pub(super) fn frame(&mut self) -> Vec<u8> {
        self.next += 1;
        let Self { chat, body, name, next } = self;
        let text = format!(
            r#"{{"type":"send","ref":{next},"chat":"{chat}","client_id":"{name:x}-{next}","body":"{body}"}}"#
        );
        masked(1, text.as_bytes())
    }
}

/// One socket; closed when dropped.
#[derive(Debug)]
pub(super) struct Reader {
    stream: Arc<TcpStream>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Messages that came in since the clock was started.
    seen: AtomicU64,
    stalled: AtomicBool,
    gone: AtomicBool,
    wake: Notify,
    /// Written one after the other, each when another was answered.
    sending: Mutex<Option<Messages>>,
}

impl Reader {
    /// Writes a frame.
    pub(super) async fn say(&self, frame: &[u8]) -> io::Result<()> {
        write(&self.stream, frame).await
    }

    /// Keeps so many sends under way from now on.
    pub(super) async fn keep_sending(&self, mut messages: Messages, window: usize) -> io::Result<()> {
        let first: Vec<u8> = (0..window).flat_map(|_| messages.frame()).collect();
        *self.shared.sending.lock() = Some(messages);
        self.say(&first).await
    }

    /// Sends no more; what is under way is answered still.
    pub(super) fn stop_sending(&self) {
        *self.shared.sending.lock() = None;
    }

    /// Reads no more, or again.
    pub(super) fn stall(&self, stalled: bool) {
        self.shared.stalled.store(stalled, Relaxed);
        self.shared.wake.notify_one();
    }

    /// The next message is the first since the clock was started.
    pub(super) fn count_anew(&self) {
        self.shared.seen.store(0, Relaxed);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.gone.store(true, Relaxed);
        self.shared.wake.notify_one();
    }
}

/// The thread that reads.
#[derive(Debug)]
pub(super) struct Readers {
    opens: mpsc::Sender<Opening>,
    /// What they have seen.
    pub(super) tally: Arc<Tally>,
}

/// Sockets that wait to be opened; whoever opens more at once waits.
const OPENING: usize = 64;

#[derive(Debug)]
struct Opening {
    url: String,
    how: Open,
    opened: oneshot::Sender<anyhow::Result<Reader>>,
}

impl Readers {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tally = Arc::new(Tally::new()?);
        let (opens, mut opening) = mpsc::channel::<Opening>(OPENING);
        let shown = Arc::clone(&tally);
        std::thread::Builder::new().name("readers".to_owned()).spawn(move || {
            let reading = async {
                let buffer = Rc::new(RefCell::new(vec![0; READ]));
                while let Some(Opening { url, how, opened }) = opening.recv().await {
                    let (tally, buffer) = (Arc::clone(&shown), Rc::clone(&buffer));
                    tokio::task::spawn_local(async move {
                        let reader = tokio::time::timeout(OPEN_WITHIN, open(&url, &how)).await;
                        let reader = reader.unwrap_or_else(|_| bail!("a socket did not open in time"));
                        let shared = reader.as_ref().ok().map(|(reader, counter)| {
                            (Arc::clone(&reader.stream), Arc::clone(&reader.shared), counter.clone())
                        });
                        // Whoever asked may have gone.
                        let _ = opened.send(reader.map(|(reader, _)| reader));
                        if let Some((stream, shared, counter)) = shared {
                            read(&stream, &shared, counter, &tally, &buffer).await;
                        }
                    });
                }
            };
            LocalSet::new().block_on(&runtime, reading);
        })?;
        Ok(Self { opens, tally })
    }

    /// Opens a socket; when there is a `hello`, returns when it was answered.
    pub(super) async fn open(&self, url: &str, how: Open) -> anyhow::Result<Reader> {
        let (opened, is_open) = oneshot::channel();
        self.opens
            .send(Opening { url: url.to_owned(), how, opened })
            .await
            .context("the readers have ended")?;
        is_open.await.context("the readers have ended")?
    }
}

async fn open(url: &str, how: &Open) -> anyhow::Result<(Reader, Counter)> {
    let uri: http::Uri = url.parse()?;
    let address: SocketAddr = uri.authority().context("a URL without a host")?.as_str().parse()?;
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = how.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let mut counter = Counter::default();
    if let Some(hello) = &how.hello {
        let path = uri.path_and_query().context("a URL without a path")?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        write(&stream, request.as_bytes()).await?;
        upgraded(&stream).await?;
        write(&stream, &masked(1, hello.as_bytes())).await?;
        let (mut ready, mut buffer) = (false, [0; ANSWER]);
        while !ready {
            stream.readable().await?;
            match stream.try_read(&mut buffer) {
                Ok(0) => bail!("closed instead of ready"),
                Ok(length) => {
                    let mut refused = None;
                    counter.feed(buffer.get(..length).unwrap_or_default(), |kind| match kind {
                        Kind::Ready => ready = true,
                        Kind::Error | Kind::Close => refused = Some(kind),
                        _ => {}
                    });
                    ensure!(refused.is_none(), "{refused:?} instead of ready");
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok((Reader { stream: Arc::new(stream), shared: Arc::default() }, counter))
}

/// Reads the answer, behind which nothing comes until the server is told something.
async fn upgraded(stream: &TcpStream) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        ensure!(answer.len() < ANSWER, "a long answer to an upgrade");
        stream.readable().await?;
        let mut some = [0; ANSWER];
        match stream.try_read(&mut some) {
            Ok(0) => bail!("closed instead of an answer"),
            Ok(length) => answer.extend(some.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    let status = String::from_utf8_lossy(&answer);
    ensure!(status.starts_with("HTTP/1.1 101"), "refused: {}", status.lines().next().unwrap_or_default());
    Ok(())
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads one socket to its end.
async fn read(
    stream: &TcpStream,
    shared: &Shared,
    mut counter: Counter,
    tally: &Tally,
    buffer: &RefCell<Vec<u8>>,
) {
    loop {
        if shared.gone.load(Relaxed) {
            return;
        }
        if shared.stalled.load(Relaxed) {
            shared.wake.notified().await;
            continue;
        }
        tokio::select! {
            biased;
            ready = stream.readable() => if ready.is_err() { return },
            () = shared.wake.notified() => continue,
        }
        let mut seen = Seen::default();
        {
            let mut buffer = buffer.borrow_mut();
            match stream.try_read(&mut buffer) {
                Ok(0) => {
                    tally.closed.fetch_add(1, Relaxed);
                    return;
                }
                Ok(length) => counter.feed(buffer.get(..length).unwrap_or_default(), |kind| seen.count(kind)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => {
                    tally.closed.fetch_add(1, Relaxed);
                    return;
                }
            }
        }
        if tally.timed.load(Relaxed) && seen.events > 0 {
            let first = shared.seen.fetch_add(seen.events, Relaxed);
            let (now, sent, mut took) = (tally.micros(), tally.sent.lock(), tally.took.lock());
            let (from, to) = (first as usize, (first + seen.events) as usize);
            for sent in sent.get(from..to.min(sent.len())).unwrap_or_default() {
                // Out of range only after ten minutes.
                let _ = took.record(now.saturating_sub(*sent).max(1));
            }
        }
        let all = tally.events.fetch_add(seen.events, Relaxed) + seen.events;
        if all >= tally.target.load(Relaxed) {
            tally.reached.notify_one();
        }
        tally.errors.fetch_add(seen.errors, Relaxed);
        tally.acks.fetch_add(seen.acks, Relaxed);
        let answer = seen.answer(&mut shared.sending.lock());
        if !answer.is_empty() && write(stream, &answer).await.is_err() {
            return;
        }
    }
}

/// What one read brought.
#[derive(Debug, Default)]
struct Seen {
    events: u64,
    acks: u64,
    errors: u64,
    pings: u64,
}

impl Seen {
    fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Event => self.events += 1,
            Kind::Ack => self.acks += 1,
            Kind::Error => self.errors += 1,
            Kind::Ping => self.pings += 1,
            Kind::Ready | Kind::Close | Kind::Other => {}
        }
    }

    /// What is written for it: a pong, and a message for each that was answered.
    fn answer(&self, sending: &mut Option<Messages>) -> Vec<u8> {
        let mut answer = Vec::new();
        if self.pings > 0 {
            answer.extend(masked(10, &[]));
        }
        if let Some(messages) = sending {
            for _ in 0..self.acks + self.errors {
                answer.extend(messages.frame());
            }
        }
        answer
    }
}
