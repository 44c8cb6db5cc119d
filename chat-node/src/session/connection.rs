//! A WebSocket as its session uses it: what is ready is fed to it together and flushed once; reading and writing in one task, neither
//! waiting for the other.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use common::wire::{client::ServerFrame, codec::encode_server, codes::CloseCode};
use futures_util::{Sink, Stream};
use tokio_tungstenite::tungstenite;

use crate::outbox::Outbox;

/// Answers that may wait to be written before no more requests are read: all that may be pending, twice.
const REPLIES: usize = 128;

/// What came in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A text frame.
    Text(Utf8Bytes),
    /// A binary frame.
    Binary,
    /// A ping or pong, which shows that the client is there.
    Sign,
    /// The client closed, or the connection broke.
    Gone,
    /// A frame was longer than is read here.
    TooLarge,
    /// It is no WebSocket's language.
    Garbled,
}

/// The socket, and what is on its way out.
pub(super) struct Connection {
    socket: WebSocket,
    frame_bytes: usize,
    /// Answers to the client's own requests: they go before events.
    replies: VecDeque<Message>,
    /// Events taken from the outbox. At most what an outbox holds, so a session has twice that at the worst.
    events: VecDeque<Utf8Bytes>,
    /// Something was fed and not flushed.
    fed: bool,
    /// Nothing can be read any more: the client has closed, or what it sent cannot be read.
    ended: bool,
    /// What it sent cannot be read, and it has not closed.
    unreadable: bool,
}

impl Connection {
    pub(super) fn new(socket: WebSocket, frame_bytes: usize) -> Self {
        Self {
            socket,
            frame_bytes,
            replies: VecDeque::new(),
            events: VecDeque::new(),
            fed: false,
            ended: false,
            unreadable: false,
        }
    }

    /// An answer to the client.
    pub(super) fn reply(&mut self, frame: &ServerFrame) {
        self.replies.push_back(Message::Text(encode_server(frame).into()));
    }

    /// Asks the client whether it is there.
    pub(super) fn ping(&mut self) {
        self.replies.push_back(Message::Ping(bytes::Bytes::new()));
    }

    /// Feeds answers, then what the outbox holds. Ready when everything was fed, or with an error when the connection is broken.
    pub(super) fn poll_feed(
        &mut self,
        context: &mut Context<'_>,
        outbox: Option<&Outbox>,
    ) -> Poll<Result<(), axum::Error>> {
        loop {
            if self.replies.is_empty() && self.events.is_empty() {
                self.events = outbox.map(Outbox::take).unwrap_or_default();
                if self.events.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(Pin::new(&mut self.socket).poll_ready(context))?;
            let next = self.replies.pop_front().or_else(|| self.events.pop_front().map(Message::Text));
            if let Some(message) = next {
                Pin::new(&mut self.socket).start_send(message)?;
                self.fed = true;
            }
        }
    }

    /// Flushes what was fed.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        if self.fed {
            ready!(Pin::new(&mut self.socket).poll_flush(context))?;
            self.fed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The next frame, unless too many answers wait to be written: who does not read them is not read either.
    pub(super) fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        if self.replies.len() >= REPLIES {
            return Poll::Pending;
        }
        self.poll_read(context)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        if self.ended {
            return Poll::Ready(Incoming::Gone);
        }
        let incoming = match ready!(Pin::new(&mut self.socket).poll_next(context)) {
            Some(Ok(Message::Text(text))) if text.as_str().len() > self.frame_bytes => Incoming::TooLarge,
            Some(Ok(Message::Text(text))) => Incoming::Text(text),
            Some(Ok(Message::Binary(bytes))) if bytes.len() > self.frame_bytes => Incoming::TooLarge,
            Some(Ok(Message::Binary(_))) => Incoming::Binary,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Incoming::Sign,
            Some(Ok(Message::Close(_))) => Incoming::Gone,
            None => {
                self.ended = true;
                Incoming::Gone
            }
            Some(Err(error)) => {
                self.ended = true;
                let failure = failure(error);
                self.unreadable = !matches!(failure, Incoming::Gone);
                failure
            }
        };
        Poll::Ready(incoming)
    }

    /// Says goodbye: what waits is dropped, `last` and the close frame are written, and the client's own close is waited for; all of it
    /// for `wait` at most.
    pub(super) async fn close(mut self, code: CloseCode, last: Option<ServerFrame>, wait: Duration) {
        self.replies.clear();
        self.events.clear();
        if let Some(frame) = last {
            self.reply(&frame);
        }
        let reason = Utf8Bytes::from_static(code.word());
        self.replies.push_back(Message::Close(Some(CloseFrame { code: code.code(), reason })));
        let farewell = poll_fn(|context| {
            let written = match self.poll_feed(context, None) {
                Poll::Ready(Ok(())) => self.poll_flush(context),
                other => other,
            };
            if let Poll::Ready(Err(_)) = written {
                return Poll::Ready(());
            }
            while !self.ended
                && let Poll::Ready(_) = self.poll_read(context)
            {}
            // A client whose frames cannot be read any more has the time to read this: what is still on its way in would make the
            // system reset the connection.
            if self.ended && !self.unreadable { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(wait, farewell).await;
    }

    /// The client has closed: its close is answered.
    pub(super) async fn closed(mut self, wait: Duration) {
        let farewell = poll_fn(|context| {
            while !self.ended {
                ready!(self.poll_read(context));
            }
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(wait, farewell).await;
    }
}

/// What an error in reading means.
fn failure(error: axum::Error) -> Incoming {
    match error.into_inner().downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => Incoming::TooLarge,
        Some(tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        )) => Incoming::Gone,
        Some(tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_)) => Incoming::Garbled,
        _ => Incoming::Gone,
    }
}
