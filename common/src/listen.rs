//! Accepts HTTP connections and serves a router on them, with a bound on everything a stranger could make us wait for.
//!
//! `axum::serve` has no such bounds: of 200 half-open connections it held 200 after 75 s. WebSockets leave here with their upgrade: from then on
//! they are their handler's, count no more, and are not waited for; [`bare`] gives their connection without the bounds.

mod linger;
mod refusal;

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderValue, Request, header::CONNECTION};
use hyper::{
    body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::linger::Linger;

/// The least that hyper takes as a buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// The waits after an accept that failed for want of something, file descriptors mostly: doubling, until some are free again.
const BACK_OFF: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// How much of a body is read before its request is refused, and for how long, so that the connection can be kept: eight times what most requests
/// may have. Who sends more is answered, and [`Linger`] has the rest.
const SWALLOWED: usize = 1024 * 1024;
const SWALLOWING: Duration = Duration::from_secs(1);

/// How much a listener bears.
#[derive(Clone, Debug)]
pub struct ListenLimits {
    /// Connections at a time, upgraded ones not counted. The next one is answered 503 and closed. Each costs about 16 KiB; 50,000
    /// are 800 MB in the worst case.
    pub connections: usize,
    /// From the moment a connection waits for a request (new or kept alive) until its header is complete. Covers the first byte,
    /// slow headers and idle keep-alive alike. A client that reuses connections should let go of idle ones sooner.
    pub header: Duration,
    /// From a request's header until its body is complete; of an upload, between two pieces of it.
    pub body: Duration,
    /// Whether a request's body is an upload, which may take as long as it goes on. Whoever reads it bounds it as a whole.
    pub is_upload: fn(&http::request::Parts) -> bool,
    /// How long a client may take in nothing at all of an answer that waits for it.
    pub write: Duration,
    /// A request's header, in bytes; more is answered 431. At least 8 KiB are taken.
    pub header_bytes: usize,
    /// How long requests in flight may take to finish once it stops.
    pub grace: Duration,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            is_upload,
            write: Duration::from_secs(30),
            header_bytes: 16 * 1024,
            grace: Duration::from_secs(10),
        }
    }
}

/// Whether a request brings a file (ME-7).
pub fn is_upload(request: &http::request::Parts) -> bool {
    request.method == http::Method::POST && request.uri.path() == "/api/v1/attachments"
}

/// Serves `router` until `shutdown`; then takes in no more connections, lets requests in flight finish, and closes what is left when the
/// grace is over. Handlers find the client's address as [`ConnectInfo<SocketAddr>`]. Returns how many connections had to be dropped.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ListenLimits,
    shutdown: CancellationToken,
) -> usize {
    let server = Arc::new(Server { router, limits, soft: shutdown, hard: CancellationToken::new() });
    // However this ends, dropped included, no connection is left behind.
    let hard = server.hard.clone().drop_guard();
    let tasks = TaskTracker::new();
    let _ = server.soft.run_until_cancelled(accept(&server, &listener, &tasks)).await;
    drop(listener);
    tasks.close();
    if timeout(server.limits.grace, tasks.wait()).await.is_ok() {
        return 0;
    }
    let left = tasks.len();
    drop(hard);
    tasks.wait().await;
    left
}

struct Server {
    router: Router,
    limits: ListenLimits,
    soft: CancellationToken,
    hard: CancellationToken,
}

async fn accept(server: &Arc<Server>, listener: &TcpListener, tasks: &TaskTracker) -> Infallible {
    let room = Arc::new(Semaphore::new(server.limits.connections));
    let mut wait = BACK_OFF;
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                wait = BACK_OFF;
                match room.clone().try_acquire_owned() {
                    Ok(permit) => {
                        tasks.spawn(server.clone().connection(stream, client, permit));
                    }
                    Err(_) => turn_away(&stream),
                }
            }
            // That client's own trouble.
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?wait, "cannot accept");
                sleep(wait).await;
                wait = (wait * 2).min(BACK_OFF_MAX);
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// At once or not at all: a flood is no reason to wait.
fn turn_away(stream: &TcpStream) {
    let _ = stream.try_write(&refusal::full());
}

impl Server {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        client: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        // Frames and answers are small and wanted now.
        let _ = stream.set_nodelay(true);
        let written = Written::new(stream, self.limits.write);
        let (answered, unread) = (Arc::clone(&written.answered), Arc::clone(&written.unread));
        let service = service_fn(|request: Request<Incoming>| {
            let rest = Rest::default();
            let (parts, body) = request.into_parts();
            let goes_on = (self.limits.is_upload)(&parts);
            unread.store(!body.is_end_stream(), Ordering::Release);
            let rests = (Rest::clone(&rest), Arc::clone(&unread));
            let body = Timed::new(body, self.limits.body, goes_on, rests);
            let mut request = Request::from_parts(parts, Body::new(body));
            request.extensions_mut().insert(ConnectInfo(client));
            let answer = self.router.clone().oneshot(request);
            answered.store(false, Ordering::Release);
            let (answered, unread) = (Arc::clone(&answered), Arc::clone(&unread));
            async move {
                let mut answer = answer.await;
                if swallow(&rest).await {
                    unread.store(false, Ordering::Release);
                }
                if unread.load(Ordering::Acquire)
                    && let Ok(answer) = &mut answer
                {
                    // The connection ends with this answer, whoever has the body by now: else its client may ask something on it before it
                    // sees the end.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                answer.map(|answer| answer.map(|body| AnswerBody { body, answered }))
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header)
                .max_buf_size(self.limits.header_bytes.max(MIN_BUFFER))
                .serve_connection(TokioIo::new(written), service)
                .with_upgrades()
        );
        let serving = async {
            tokio::select! {
                served = connection.as_mut() => return served,
                () = self.soft.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        };
        if let Some(Err(error)) = self.hard.run_until_cancelled(serving).await {
            tracing::debug!(%client, %error, "connection ended");
        }
        drop(permit);
    }
}

/// The connection under an upgrade, with what the client said already, for whoever wants to write to it. None when it did not come in here.
pub fn bare(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Written>>().ok()?;
    Some((parts.io.into_inner().stream, parts.read_buf))
}

/// A connection whose client has to take in what is written, little by little.
struct Written {
    stream: TcpStream,
    limit: Duration,
    /// Set at the first write that has to wait, until one goes on: most answers are taken in at once.
    over: Option<Pin<Box<Sleep>>>,
    /// Whether what is written next begins an answer, so that no body can be taken for one.
    begins: bool,
    /// Whether no answer is on its way any more but for what is being written.
    answered: Arc<AtomicBool>,
    /// What is left of what is said in place of an answer.
    instead: Bytes,
    /// Whether not all of a request's body was read.
    unread: Arc<AtomicBool>,
    linger: Linger,
}

impl Written {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            over: None,
            begins: true,
            answered: Arc::default(),
            instead: Bytes::new(),
            unread: Arc::default(),
            linger: Linger::default(),
        }
    }

    /// Writes what is said in place of `bytes`, if anything is; then they count as written.
    fn poll_instead(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Option<io::Result<usize>>> {
        if std::mem::take(&mut self.begins)
            && let Some(said) = refusal::instead(bytes)
        {
            self.instead = said.into();
        }
        if self.instead.is_empty() {
            return Poll::Ready(None);
        }
        while !self.instead.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(context, &self.instead);
            match ready!(self.progress(context, written)) {
                Ok(count) => drop(self.instead.split_to(count)),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(Some(Ok(bytes.len())))
    }

    fn progress(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.over = None;
            return written;
        }
        let limit = self.limit;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(limit)));
        let end = || Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing in"));
        over.as_mut().poll(context).map(|()| end())
    }
}

impl AsyncRead for Written {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Written {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = ready!(self.poll_instead(context, bytes)) {
            return Poll::Ready(written);
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A bare answer comes in one piece.
        if let Some(written) = ready!(self.poll_instead(context, slices.first().map_or(&[], |first| first))) {
            return Poll::Ready(written);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.progress(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nobody flushes before what there was is written.
        self.begins |= self.answered.swap(false, Ordering::AcqRel);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, unread, linger, .. } = &mut *self;
        ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        if unread.load(Ordering::Acquire) {
            ready!(linger.poll(stream, context));
        }
        Poll::Ready(Ok(()))
    }
}

/// An answer's body, which says when nobody reads it any more: it is complete then, or the connection ends.
struct AnswerBody {
    body: Body,
    answered: Arc<AtomicBool>,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.answered.store(true, Ordering::Release);
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body that has to be complete in time.
struct Timed {
    /// None once it took too long.
    body: Option<Incoming>,
    limit: Duration,
    /// Whether each piece begins the time anew.
    goes_on: bool,
    /// Set at the first read that has to wait: most bodies are there with their header.
    over: Option<Pin<Box<Sleep>>>,
    /// Where it goes when nobody reads it any more.
    rest: Rest,
    /// Cleared at its end.
    unread: Arc<AtomicBool>,
}

/// A body that was answered before it was read.
type Rest = Arc<Mutex<Option<Incoming>>>;

/// Reads what is left of a body whose request is answered already, within bounds. Whether it was left to us, and nothing is left any more.
async fn swallow(rest: &Rest) -> bool {
    let Some(mut body) = rest.lock().take() else { return false };
    let all = async {
        let mut left = SWALLOWED;
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    // Whoever is slower than that, or has more, has been refused all the same.
    timeout(SWALLOWING, all).await.unwrap_or(false)
}

impl Timed {
    fn new(body: Incoming, limit: Duration, goes_on: bool, (rest, unread): (Rest, Arc<AtomicBool>)) -> Self {
        Self { body: Some(body), limit, goes_on, over: None, rest, unread }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let rest = self.body.take().filter(|body| !body.is_end_stream());
        *self.rest.lock() = rest;
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(read) = Pin::new(&mut *body).poll_frame(context) {
            if read.is_none() || body.is_end_stream() {
                self.unread.store(false, Ordering::Release);
            }
            if self.goes_on {
                self.over = None;
            }
            if read.is_none() {
                self.body = None;
            }
            return Poll::Ready(read.map(|frame| frame.map_err(Into::into)));
        }
        let limit = self.limit;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(over.as_mut().poll(context));
        self.body = None;
        Poll::Ready(Some(Err("the body did not arrive in time".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
