//! One socket's task: `hello`, then requests in and answers and events out, until somebody closes.
//!
//! In three steps: [`Session::greeting`] waits for `hello`; the session is seated in its chats' rooms; [`Session::serve`] goes on
//! until the end. Everything a session waits for is polled in one place ([`Session::next`]), so that reading, writing, answers, the
//! clock and a request to close never wait for each other.
//!
//! Absent on purpose: finding what a session that comes back has missed ([`crate::resume`]); here it is said.

mod connection;
mod requests;

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use common::{
    cache::{LiveSession, NodeLife},
    ids::SocketId,
    model::limits,
    problem::Problem,
    time::Millis,
    token::Caller,
    wire::{
        client::{ClientFrame, Hello, Ready, ServerFrame, SocketLimits},
        codec::{Format, FromClient, decode_client, decode_client_packed},
        codes::{CloseCode, ErrorCode},
    },
};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep},
};

pub use self::requests::{OpenLanes, PENDING, Sends};
use self::{
    connection::{Connection, Incoming},
    requests::{Answered, Requests},
};
use crate::{
    hub::{Admitted, Handle},
    joins::Entered,
    outbox::Outbox,
    socket::Shared,
};

/// Answers that may wait to be written before no more requests are read: all that may be pending, twice.
const ANSWERS: usize = 2 * PENDING;
/// Bytes of theirs. One more may come on top, with the events before it: 1 MiB of what was missed, or a page of 100 messages.
const ANSWERS_BYTES: usize = 1024 * 1024;

/// How long a session that comes back flags its sends as retries: its client may have sent them before, on another socket.
const RETRYING: Duration = Duration::from_secs(30);
/// Characters of a device's name that are kept.
const DEVICE_CHARS: usize = 200;

/// Why a session ends.
#[derive(Debug)]
struct End {
    /// None: the client closed, or is gone.
    code: Option<CloseCode>,
    /// Said before the close.
    last: Option<Box<ServerFrame>>,
}

impl From<CloseCode> for End {
    fn from(code: CloseCode) -> Self {
        Self { code: Some(code), last: None }
    }
}

impl End {
    fn gone() -> Self {
        Self { code: None, last: None }
    }
}

/// Something a session waited for.
enum Event {
    Closing(CloseCode),
    Answer(Box<Answered>),
    /// The clock has something.
    Due,
    Incoming(Incoming),
}

/// A session, from its opening to its end.
struct Session {
    shared: Arc<Shared>,
    caller: Caller,
    handle: Arc<Handle>,
    connection: Connection,
    requests: Requests,
    clock: Pin<Box<Sleep>>,
    next_ping: Instant,
    /// A ping waits for a sign of life until then.
    dead_at: Option<Instant>,
    retrying_until: Option<Instant>,
}

/// Serves one socket until its end. The ticket is used up; its caller's token may have expired or been revoked since. `said` is what the
/// client has said already.
pub(crate) async fn run(shared: Arc<Shared>, socket: TcpStream, said: Bytes, format: Format, caller: Caller) {
    let (half, other) = socket.into_split();
    let handle = Handle::new(SocketId::random(), caller.key(), caller.session, Outbox::over(other, format));
    let handle = Arc::new(handle.signed_by(caller.signed_by));
    let connection = Connection::new(half, Arc::clone(&handle), shared.config.frame_bytes, &said);
    drop(said);
    let (wait, patience) = (shared.config.close_wait, shared.config.pong_wait);
    let metrics = shared.metrics.clone();
    let admitted = match shared.deliver.0.hub.admit(&handle) {
        Ok(admitted) => admitted,
        Err(refused) => {
            metrics.closed(Some(refused.0));
            return connection.close(refused.0, None, wait).await;
        }
    };
    let mut session = Session::new(shared, connection, caller, &admitted);
    let end = session.live(&admitted).await;
    let Session { connection, handle, .. } = session;
    tracing::debug!(socket = %handle.socket, user = %handle.user, code = ?end.code, "a socket ends");
    // From here on it is in no room.
    drop(admitted);
    metrics.closed(end.code);
    match end.code {
        // Who reads slowly has more before the close, in the system's buffers: as long as anybody has for a sign of life.
        Some(code @ CloseCode::SlowConsumer) => connection.close(code, end.last, wait.max(patience)).await,
        Some(code) => connection.close(code, end.last, wait).await,
        None => connection.closed(wait).await,
    }
}

impl Session {
    fn new(shared: Arc<Shared>, connection: Connection, caller: Caller, admitted: &Admitted) -> Self {
        let now = Instant::now();
        let requests = Requests::new(
            caller.clone(),
            Arc::clone(admitted.handle()),
            shared.deliver.clone(),
            shared.commands.clone(),
            (shared.lanes)(caller.clone()),
        );
        // The first one jittered, so that clients that came together are not asked together.
        let next_ping = now + shared.config.ping_every.mul_f64(rand::random_range(0.5..1.0));
        Self {
            caller,
            handle: Arc::clone(admitted.handle()),
            connection,
            requests,
            clock: Box::pin(tokio::time::sleep_until(now + shared.config.hello_wait)),
            next_ping,
            dead_at: None,
            retrying_until: None,
            shared,
        }
    }

    async fn live(&mut self, admitted: &Admitted) -> End {
        // Ended while the ticket was on its way; whoever ends it from here on finds this session.
        if self.shared.deliver.is_revoked(self.caller.key(), self.caller.session) {
            return self.closing(CloseCode::Revoked);
        }
        if self.remaining().is_zero() {
            return CloseCode::TokenExpired.into();
        }
        let hello = match self.greeting().await {
            Ok(hello) => hello,
            Err(end) => return end,
        };
        let _presence = match self.start(admitted, hello).await {
            Ok(presence) => presence,
            Err(end) => return end,
        };
        self.serve().await
    }

    /// Waits for `hello`.
    async fn greeting(&mut self) -> Result<Hello, End> {
        loop {
            let frame = match self.next().await {
                Event::Closing(code) => return Err(self.closing(code)),
                Event::Due => return Err(CloseCode::ProtocolError.into()),
                Event::Incoming(incoming) => self.read(incoming)?,
                Event::Answer(_) => continue,
            };
            let Some(frame) = frame else { continue };
            match frame {
                FromClient::Frame(ClientFrame::Hello(hello)) => return Ok(hello),
                FromClient::Frame(frame) => {
                    let problem = Problem::new(ErrorCode::Invalid, "hello comes first");
                    self.connection.reply(&ServerFrame::Error(problem.frame(frame.ref_())));
                }
                other => self.answer_bad(other),
            }
        }
    }

    /// The frame in what came in, if there is one; an error ends the session.
    fn read(&self, incoming: Incoming) -> Result<Option<FromClient>, End> {
        let frame = match incoming {
            Incoming::Text(text) => decode_client(&text).ok(),
            Incoming::Binary(bytes) => decode_client_packed(&bytes).ok(),
            Incoming::Sign => return Ok(None),
            Incoming::Gone => return Err(End::gone()),
            Incoming::TooLarge => return Err(CloseCode::FrameTooLarge.into()),
            Incoming::Garbled => return Err(CloseCode::ProtocolError.into()),
        };
        self.shared.metrics.frames_in.inc();
        frame.map(Some).ok_or_else(|| CloseCode::ProtocolError.into())
    }

    /// Seats the session in its rooms, and says that it is ready. Events that come meanwhile wait in the outbox.
    async fn start(&mut self, admitted: &Admitted, hello: Hello) -> Result<Presence, End> {
        let Hello { ref_, device, resume } = hello;
        let shared = Arc::clone(&self.shared);
        let handle = Arc::clone(&self.handle);
        let presence =
            Presence { shared: Arc::clone(&shared), handle: Arc::clone(&handle), shown: false, came: false };
        let comes_back = resume.is_some();
        let entering =
            Box::pin(async { tokio::join!(shared.deliver.enter(admitted, resume), presence.show(device)) });
        let (entered, mut presence) = tokio::select! {
            entered = entering => entered,
            () = tokio::time::sleep(self.remaining()) => return Err(CloseCode::TokenExpired.into()),
            code = poll_fn(|context| handle.outbox.poll_closing(context)) => return Err(self.closing(code)),
        };
        let Entered { cursor, told, beginning } = entered.map_err(|problem| {
            // Another node may do better.
            let last = Some(Box::new(ServerFrame::Error(problem.frame(Some(ref_)))));
            End { code: Some(CloseCode::ShuttingDown), last }
        })?;
        if self.remaining().is_zero() {
            return Err(CloseCode::TokenExpired.into());
        }
        // From when it may send, however long that took.
        self.retrying_until = comes_back.then(|| Instant::now() + RETRYING);
        let config = &shared.config;
        self.connection.reply(&ServerFrame::Ready(Ready {
            ref_,
            session: self.caller.session,
            user: self.caller.user,
            node: shared.node.clone(),
            cursor,
            ping_interval_ms: u64::try_from(config.ping_every.as_millis()).unwrap_or(u64::MAX),
            limits: SocketLimits {
                frame_bytes: config.frame_bytes as u64,
                body_bytes: limits::BODY_BYTES as u64,
                pending_sends: PENDING as u64,
            },
            resuming: told.is_some(),
        }));
        if let Some(mut told) = told {
            let (before, chats) = (std::mem::take(&mut told.frames), std::mem::take(&mut told.chats));
            self.say(Answered { before, answer: ServerFrame::Resumed { ref_, chats } });
            // The outbox has it.
            drop(told);
        }
        handle.outbox.open();
        shared.deliver.started(admitted, beginning);
        presence.came();
        Ok(presence)
    }

    /// Requests in, answers and events out.
    async fn serve(&mut self) -> End {
        self.wind_clock();
        loop {
            match self.next().await {
                Event::Closing(code) => return self.closing(code),
                Event::Answer(answered) => self.say(*answered),
                Event::Due => {
                    if let Some(code) = self.look_at_clock() {
                        return code.into();
                    }
                }
                Event::Incoming(incoming) => {
                    self.dead_at = None;
                    let end = match self.read(incoming) {
                        Ok(Some(frame)) => self.request(frame),
                        Ok(None) => None,
                        Err(end) => Some(end),
                    };
                    if let Some(end) = end {
                        return end;
                    }
                }
            }
        }
    }

    /// One frame of the client.
    fn request(&mut self, frame: FromClient) -> Option<End> {
        match frame {
            FromClient::Frame(ClientFrame::Hello(_)) => return Some(CloseCode::ProtocolError.into()),
            FromClient::Frame(frame) => {
                let retry = self.retrying_until.is_some_and(|until| Instant::now() < until);
                if let Some(answer) = self.requests.begin(frame, retry) {
                    self.connection.reply(&answer);
                }
            }
            other => self.answer_bad(other),
        }
        None
    }

    fn say(&mut self, Answered { before, answer }: Answered) {
        before.into_iter().for_each(|frame| self.handle.outbox.answer(frame));
        self.connection.reply(&answer);
    }

    fn answer_bad(&mut self, frame: FromClient) {
        let (ref_, problem) = match frame {
            FromClient::UnknownType { ref_, kind } => {
                let known = ClientFrame::TYPES.join(", ");
                (ref_, Problem::new(ErrorCode::UnknownType, format!("{kind:?} is none of {known}")))
            }
            FromClient::Invalid { ref_, error } => (ref_, Problem::invalid(error)),
            FromClient::Frame(_) => return,
        };
        self.connection.reply(&ServerFrame::Error(problem.frame(ref_)));
    }

    /// Waits for whatever comes first. Answers are written when nothing else is ready, so that they leave together.
    async fn next(&mut self) -> Event {
        let Self { handle, connection, requests, clock, .. } = self;
        poll_fn(|context| {
            loop {
                if let Poll::Ready(code) = handle.outbox.poll_closing(context) {
                    return Poll::Ready(Event::Closing(code));
                }
                if clock.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Event::Due);
                }
                // Who does not read answers is given no more, and is not read either.
                let (answers, bytes) = handle.outbox.answers();
                let room = answers < ANSWERS && bytes < ANSWERS_BYTES;
                if room && let Poll::Ready(answer) = requests.poll_answer(context) {
                    return Poll::Ready(Event::Answer(Box::new(answer)));
                }
                if room && let Poll::Ready(incoming) = connection.poll_incoming(context) {
                    return Poll::Ready(Event::Incoming(incoming));
                }
                match connection.poll_write(context) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Event::Incoming(Incoming::Gone)),
                    // There is room now, and nobody would say so.
                    Poll::Ready(Ok(())) if !room => {}
                    Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// What the clock says: the session's end, or nothing.
    fn look_at_clock(&mut self) -> Option<CloseCode> {
        let now = Instant::now();
        if self.remaining().is_zero() {
            return Some(CloseCode::TokenExpired);
        }
        if self.dead_at.is_some_and(|at| at <= now) {
            return Some(CloseCode::Idle);
        }
        if self.next_ping <= now {
            self.connection.ping();
            self.next_ping = now + self.shared.config.ping_every;
            self.dead_at = self.dead_at.or(Some(now + self.shared.config.pong_wait));
        }
        self.wind_clock();
        None
    }

    fn wind_clock(&mut self) {
        let expires = Instant::now() + self.remaining();
        let next = [Some(self.next_ping), self.dead_at, Some(expires)].into_iter().flatten().min();
        self.clock.as_mut().reset(next.unwrap_or(expires));
    }

    /// How long the caller's token is good, by the dispatchers' clock.
    fn remaining(&self) -> Duration {
        // A day at most: the clock is looked at again by then, and the runtime's has an end.
        self.caller.expires_at.since(self.shared.clock.now()).min(Duration::from_secs(86_400))
    }

    fn closing(&self, code: CloseCode) -> End {
        let revoked = code == CloseCode::Revoked;
        let last = revoked.then(|| Box::new(ServerFrame::SessionRevoked { session: self.caller.session }));
        End { code: Some(code), last }
    }
}

/// The socket as the cache shows it to the user's other devices and to others. Dropped, it is gone, or will be if nobody comes back.
struct Presence {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    shown: bool,
    came: bool,
}

impl Presence {
    /// How long the cache may take: it is a courtesy.
    const PATIENCE: Duration = Duration::from_secs(1);

    async fn show(mut self, device: Option<String>) -> Self {
        let since: Millis = self.shared.clock.now();
        let device = device.map(|name| name.chars().take(DEVICE_CHARS).collect::<String>().into());
        let session = LiveSession {
            socket: self.handle.socket,
            session: self.handle.session,
            device,
            life: NodeLife { node: self.shared.node.clone(), incarnation: self.shared.incarnation },
            since,
        };
        // Even without an answer it may be there.
        self.shown = true;
        let opened = self.shared.cache.session_opened(self.handle.user, session);
        match tokio::time::timeout(Self::PATIENCE, opened).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a socket is served and not shown"),
            Err(_) => tracing::debug!("a socket is served and not shown: the cache does not answer"),
        }
        self
    }

    /// The session is ready.
    fn came(&mut self) {
        self.came = true;
        self.shared.deliver.0.presence.came(self.handle.user);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.came && self.shared.deliver.left(&self.handle) {
            return;
        }
        if !self.shown {
            return;
        }
        let (shared, handle) = (Arc::clone(&self.shared), Arc::clone(&self.handle));
        let tasks = shared.deliver.0.tasks.clone();
        tasks.spawn(async move {
            let closed = shared.cache.session_closed(handle.user, handle.socket);
            if !matches!(tokio::time::timeout(Self::PATIENCE, closed).await, Ok(Ok(()))) {
                tracing::debug!(socket = %handle.socket, "a closed socket may still be shown");
            }
        });
    }
}
