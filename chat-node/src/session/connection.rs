//! A session's connection: what the client says, and what is said to it by this side's task. Events are written by whoever has them
//! ([`crate::outbox`]), and by this task once the system takes no more.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use common::wire::{client::ServerFrame, codes::CloseCode};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::tcp::OwnedReadHalf,
};

use crate::{
    hub::Handle,
    socket::frame::{self, Broken, Message, Opcode, Reader},
};

/// Bytes read at once. On the stack: a session that is silent holds no buffer.
const READ: usize = 4 * 1024;

/// What came in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Bytes),
    /// A ping or pong, which shows that the client is there.
    Sign,
    /// The client closed, or the connection broke.
    Gone,
    /// A frame was longer than is read here.
    TooLarge,
    /// It is no WebSocket's language.
    Garbled,
}

/// One half of the connection; the other is the outbox's.
pub(super) struct Connection {
    half: OwnedReadHalf,
    handle: Arc<Handle>,
    reader: Reader,
    frame_bytes: usize,
    /// Nothing can be read any more: the client has closed, or what it sent cannot be read.
    ended: bool,
    /// What it sent cannot be read, and it has not closed.
    unreadable: bool,
}

impl Connection {
    /// `said` is what the client has said already.
    pub(super) fn new(half: OwnedReadHalf, handle: Arc<Handle>, frame_bytes: usize, said: &[u8]) -> Self {
        // Twice what is allowed: a frame that is only somewhat too long is read, and the connection closed in good order.
        let mut reader = Reader::new(frame_bytes * 2);
        reader.fill(said);
        Self { half, handle, reader, frame_bytes, ended: false, unreadable: false }
    }

    /// An answer to the client. It is written when nothing else is to be done, or along with the next event.
    pub(super) fn reply(&mut self, frame: &ServerFrame) {
        self.handle.outbox.answer(frame::framed(frame, self.handle.outbox.format()));
    }

    /// Asks the client whether it is there.
    pub(super) fn ping(&mut self) {
        self.handle.outbox.answer(frame::control(Opcode::Ping, &[]));
    }

    /// Writes what waits. Ready when everything was, or with an error when the connection is broken.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.handle.outbox.poll_write(context, self.half.as_ref())
    }

    /// The next frame.
    pub(super) fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            if self.ended {
                return Poll::Ready(Incoming::Gone);
            }
            match self.reader.next() {
                Ok(Some(message)) => return Poll::Ready(self.message(message)),
                Ok(None) => {}
                Err(broken) => {
                    (self.ended, self.unreadable) = (true, true);
                    return Poll::Ready(match broken {
                        Broken::TooLarge => Incoming::TooLarge,
                        Broken::Protocol => Incoming::Garbled,
                    });
                }
            }
            let mut place = [MaybeUninit::uninit(); READ];
            let mut read = ReadBuf::uninit(&mut place);
            let outcome = ready!(Pin::new(&mut self.half).poll_read(context, &mut read));
            self.ended = outcome.is_err() || read.filled().is_empty();
            if !self.ended {
                self.handle.hear();
            }
            self.reader.fill(read.filled());
        }
    }

    fn message(&mut self, message: Message) -> Incoming {
        match message {
            Message::Text(text) if text.len() > self.frame_bytes => Incoming::TooLarge,
            Message::Text(text) => Incoming::Text(text),
            Message::Binary(bytes) if bytes.len() > self.frame_bytes => Incoming::TooLarge,
            Message::Binary(bytes) => Incoming::Binary(bytes),
            Message::Ping(payload) => {
                self.handle.outbox.answer(frame::control(Opcode::Pong, &payload));
                Incoming::Sign
            }
            Message::Pong => Incoming::Sign,
            Message::Close(code) => {
                self.ended = true;
                self.handle.outbox.last_words();
                self.handle.outbox.answer(frame::close(code.unwrap_or(CloseCode::Bye.code()), ""));
                Incoming::Gone
            }
        }
    }

    /// Says goodbye: what waits is dropped, `last` and the close frame are written, and the client's own close is waited for; all of it
    /// for `wait` at most.
    pub(super) async fn close(mut self, code: CloseCode, last: Option<Box<ServerFrame>>, wait: Duration) {
        self.handle.outbox.last_words();
        if let Some(frame) = last {
            self.reply(&frame);
        }
        self.handle.outbox.answer(frame::close(code.code(), code.word()));
        let farewell = poll_fn(|context| {
            if let Poll::Ready(Err(_)) = self.poll_write(context) {
                return Poll::Ready(());
            }
            while !self.ended
                && let Poll::Ready(_) = self.poll_incoming(context)
            {}
            // A client whose frames cannot be read any more has the time to read this: what is still on its way in would make the
            // system reset the connection.
            if self.ended && !self.unreadable { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(wait, farewell).await;
    }

    /// The client has closed: its close is answered.
    pub(super) async fn closed(mut self, wait: Duration) {
        let _ = tokio::time::timeout(wait, poll_fn(|context| self.poll_write(context))).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.handle.outbox.end();
    }
}
