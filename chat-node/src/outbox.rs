//! What is on its way to one session: frames that were encoded once and are shared by everybody they go to.
//!
//! Rooms put frames in, from any thread and without waiting; the session's own task takes them out, together, and writes them. A
//! client that reads more slowly than its chats speak fills its outbox and is closed with `slow_consumer`: it holds nobody back, and
//! what it missed it reads again when it comes back.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use axum::extract::ws::Utf8Bytes;
use common::wire::codes::CloseCode;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// Frames that may wait: two seconds of a chat that speaks 2,000 times a second. What the kernel's buffers hold (some
/// MiB on the usual settings) comes on top of it.
pub const FRAMES: usize = 4_096;
/// Bytes that may wait: 512 for each of [`FRAMES`], a short message as JSON. They are shared with the other recipients, so the
/// sum over all sessions is not what the process holds.
pub const BYTES: usize = 2 * 1024 * 1024;

/// The outbox of one session.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Utf8Bytes>,
    bytes: usize,
    closing: Option<CloseCode>,
}

impl Outbox {
    /// Puts a frame behind the others. When there is no room the session is closed with `slow_consumer`; what is put in after
    /// that goes nowhere.
    pub fn push(&self, frame: Utf8Bytes) {
        let mut queue = self.queue.lock();
        if queue.closing.is_some() {
            return;
        }
        let bytes = queue.bytes + frame.as_str().len();
        // A single frame always fits: a chat's view with its hundred members may be longer than most.
        let full = queue.frames.len() >= FRAMES || (bytes > BYTES && !queue.frames.is_empty());
        if full {
            *queue = Queue { closing: Some(CloseCode::SlowConsumer), ..Queue::default() };
        } else {
            queue.bytes = bytes;
            queue.frames.push_back(frame);
            if queue.frames.len() > 1 {
                // Whoever takes the first takes this one too.
                return;
            }
        }
        drop(queue);
        self.reader.wake();
    }

    /// Asks the session to close; what waits is not sent. The first reason stands.
    pub fn close(&self, code: CloseCode) {
        let mut queue = self.queue.lock();
        if queue.closing.is_none() {
            *queue = Queue { closing: Some(code), ..Queue::default() };
        }
        drop(queue);
        self.reader.wake();
    }

    /// Why the session is to close, if it is.
    pub fn closing(&self) -> Option<CloseCode> {
        self.queue.lock().closing
    }

    /// Resolves when the session is to close.
    pub fn poll_closing(&self, context: &Context<'_>) -> Poll<CloseCode> {
        self.reader.register(context.waker());
        self.closing().map_or(Poll::Pending, Poll::Ready)
    }

    /// Everything that waits, oldest first; the outbox is empty afterwards. There is one reader, which
    /// [`Self::poll_closing`] has made known.
    pub fn take(&self) -> VecDeque<Utf8Bytes> {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.frames)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use super::*;

    #[test]
    fn frames_come_out_in_order_and_share_their_bytes() {
        let outbox = Outbox::default();
        let frame = Utf8Bytes::from("one");
        outbox.push(frame.clone());
        outbox.push(Utf8Bytes::from("two"));
        let taken = outbox.take();
        assert_eq!(taken, [frame.clone(), Utf8Bytes::from("two")]);
        assert_eq!(taken[0].as_str().as_ptr(), frame.as_str().as_ptr());
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn too_many_frames_close_the_session_and_free_what_waited() {
        let outbox = Outbox::default();
        for _ in 0..FRAMES {
            outbox.push(Utf8Bytes::from_static("x"));
        }
        assert_eq!(outbox.closing(), None);
        outbox.push(Utf8Bytes::from_static("x"));
        assert_eq!(outbox.closing(), Some(CloseCode::SlowConsumer));
        outbox.push(Utf8Bytes::from_static("x"));
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn too_many_bytes_close_the_session_but_one_long_frame_passes() {
        let outbox = Outbox::default();
        outbox.push(Utf8Bytes::from("x".repeat(BYTES + 1)));
        assert_eq!(outbox.take().len(), 1);
        outbox.push(Utf8Bytes::from("x".repeat(BYTES)));
        assert_eq!(outbox.closing(), None);
        outbox.push(Utf8Bytes::from_static("x"));
        assert_eq!(outbox.closing(), Some(CloseCode::SlowConsumer));
    }

    #[tokio::test]
    async fn the_reader_wakes_for_a_frame_and_for_a_close() {
        let outbox = Arc::new(Outbox::default());
        let reader = tokio::spawn({
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
            outbox.push(Utf8Bytes::from_static("x"));
            tokio::task::yield_now().await;
        }
        outbox.close(CloseCode::Revoked);
        outbox.close(CloseCode::Bye);
        let (code, taken) = reader.await.unwrap();
        assert_eq!(code, CloseCode::Revoked, "the first reason stands");
        assert!((1..=100).contains(&taken));
    }
}
