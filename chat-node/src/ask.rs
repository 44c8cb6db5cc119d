//! The one thing that commands want of the way to a chat's owner: ask, and be answered. [`Forward`] is that way in a
//! running node; a test puts an owner of its own here.

use std::fmt;

use common::{
    ids::Partition,
    wire::owner::{Answer, OwnerRequest},
};
use futures_util::future::BoxFuture;

use crate::forward::Forward;

/// Whoever brings a request to the chat's owner and its answer back.
pub trait AskOwner: fmt::Debug + Send + Sync + 'static {
    /// Asks; resolves within about 5 s. Never [`Answer::NotOwner`]: finding the owner is the asked one's business.
    fn ask(&self, request: OwnerRequest) -> BoxFuture<'_, Answer>;

    /// Asks a partition's owner about all of it; otherwise as [`Self::ask`]. Who cannot ask is told [`Answer::Unknown`].
    fn ask_partition(&self, partition: Partition, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        let _ = (partition, request);
        Box::pin(async { Answer::Unknown })
    }
}

impl AskOwner for Forward {
    fn ask(&self, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        Box::pin(Forward::ask(self, request))
    }

    fn ask_partition(&self, partition: Partition, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        Box::pin(Forward::ask_partition(self, partition, request))
    }
}
