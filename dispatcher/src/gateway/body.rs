//! The two bodies that stream through the gateway: up with a bound and a memory of being touched, down with patience.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// More than the gateway passes on.
    #[error("the body is too large")]
    TooLarge,
    /// Nothing came for too long.
    #[error("the body stopped coming")]
    Stalled,
    /// The connection it came on broke.
    #[error("the body broke off: {0}")]
    Broken(String),
}

/// A client's body. It outlives the attempts to send it, so that an attempt that never touched it can be followed by another.
#[derive(Debug)]
pub(super) struct Upload {
    source: Mutex<Source>,
    touched: AtomicBool,
    too_large: AtomicBool,
    broken: AtomicBool,
}

#[derive(Debug)]
struct Source {
    body: Body,
    /// Bytes that may still come.
    left: u64,
    /// When the last piece came.
    moved_at: Option<Instant>,
}

impl Upload {
    pub(super) fn new(body: Body, max: u64) -> Self {
        Self {
            source: Mutex::new(Source { body, left: max, moved_at: None }),
            touched: AtomicBool::new(false),
            too_large: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }

    /// Whether nothing of it was read, and so nothing of it sent.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched.load(Relaxed)
    }

    /// When the last piece of it came.
    pub(super) fn moved_at(&self) -> Option<Instant> {
        self.source.lock().moved_at
    }

    /// Whether it ended before it was whole, for what its client did.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// Whether it was cut off for its length.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large.load(Relaxed)
    }
}

/// An [`Upload`] on its way.
pub(super) struct Outgoing(Arc<Upload>);

impl Outgoing {
    pub(super) fn new(upload: &Arc<Upload>) -> Self {
        Self(Arc::clone(upload))
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.touched.store(true, Relaxed);
        let mut source = self.0.source.lock();
        let frame = match ready!(Pin::new(&mut source.body).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => {
                self.0.broken.store(true, Relaxed);
                return Poll::Ready(Some(Err(BodyError::Broken(error.to_string()))));
            }
            Some(Ok(frame)) => frame,
        };
        // Trailers are for one connection, and no API of ours has any.
        let Ok(data) = frame.into_data() else { return Poll::Ready(None) };
        match source.left.checked_sub(data.len() as u64) {
            Some(left) => {
                source.left = left;
                source.moved_at = Some(Instant::now());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            None => {
                self.0.too_large.store(true, Relaxed);
                Poll::Ready(Some(Err(BodyError::TooLarge)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.source.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.source.lock().body.size_hint()
    }
}

/// A node's body on its way to the client. It may take as long as it likes, but not stand still while it is wanted: how long the client takes
/// is not counted here.
pub(super) struct Incoming {
    body: hyper::body::Incoming,
    patience: Duration,
    /// Set while the next piece is waited for.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    pub(super) fn new(body: hyper::body::Incoming, patience: Duration) -> Self {
        Self { body, patience, limit: None }
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.limit = None;
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Broken(error.to_string()))))
            }
            Poll::Pending => {
                let patience = self.patience;
                let limit = self.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(limit.as_mut().poll(context));
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
