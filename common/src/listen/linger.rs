//! What becomes of a connection whose client is still sending when it was answered.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// How long a client may go on sending in all: 5 MB at 1 MB/s.
const MOST: Duration = Duration::from_secs(5);

/// And how long it may send nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads what still comes, and keeps nothing of it. A connection that is closed with bytes on their way in is reset by the system, and its client
/// may never see what it was answered.
#[derive(Default)]
pub(super) struct Linger {
    until: Option<Instant>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    /// Ready when the client has ended, or has had its time.
    pub(super) fn poll(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<()> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + MOST);
        let mut bytes = [0; 8 * 1024];
        loop {
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(context, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() && Instant::now() < until => {
                    self.pause = None
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let end = until.min(Instant::now() + PAUSE);
        self.pause.get_or_insert_with(|| Box::pin(sleep_until(end))).as_mut().poll(context)
    }
}
