//! The two ends of an append's outcome.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::error::Unconfirmed;
use crate::ids::Offset;

/// The outcome of one append, once the log knows it: the offset at which the record is durable, or that nobody can say.
///
/// It has no time limit of its own: an engine that cannot reach its disk or its brokers goes on trying, so that what
/// was taken in one order lands in that order. Whoever answers a client sets a deadline.
#[derive(Debug)]
#[must_use = "an append is not durable before its receipt says so"]
pub struct Receipt(oneshot::Receiver<Result<Offset, Unconfirmed>>);

/// The engine's end of a [`Receipt`]. Dropped unsettled, it says that the outcome is not known.
#[derive(Debug)]
pub struct Settle(oneshot::Sender<Result<Offset, Unconfirmed>>);

impl Receipt {
    /// A receipt and its other end.
    pub fn new() -> (Settle, Self) {
        let (settle, outcome) = oneshot::channel();
        (Settle(settle), Self(outcome))
    }
}

impl Settle {
    /// Tells the outcome. That nobody waits for it is no error.
    pub fn settle(self, outcome: Result<Offset, Unconfirmed>) {
        drop(self.0.send(outcome));
    }
}

impl Future for Receipt {
    type Output = Result<Offset, Unconfirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|outcome| outcome.unwrap_or_else(|_| Err(Unconfirmed("the log stopped".to_owned()))))
    }
}
