//! The store: what belongs to one user or one application (accounts, sessions), and what the writer drains from the
//! log (chats, members, messages, positions).
//!
//! A trait for each reader or writer, because no service needs them all: [`Accounts`] (REST, dispatcher), [`People`] (REST), [`Relations`]
//! (REST, owners, delivery), [`Attachments`] (uploads), [`Chats`] (REST, sessions), [`Numbered`] (REST), [`Listed`] (the storage API),
//! [`Owned`] (owners taking over and looking back), [`Search`] (REST, and beside the writer), [`Notifications`] (REST), [`Drain`], [`Expire`] and [`Notify`]
//! (the writer).
//! [`Store`] is an engine that has all of them.
//! Nothing here decides anything about a chat: the log does.

mod accounts;
mod attachments;
mod chats;
#[cfg(any(test, feature = "conformance"))]
#[doc(hidden)]
pub mod conformance;
mod drain;
mod erasing;
mod follow;
mod listed;
mod names;
mod notifications;
mod numbered;
mod owned;
mod people;
mod plan;
#[cfg(feature = "servers")]
pub mod postgres;
mod reads;
mod relations;
mod retention;
mod rows;
mod search;
mod seen;
pub mod sqlite;
mod title;
mod until;
mod words;

use std::{fmt, sync::Arc};

pub use accounts::{Accounts, Application, Revocation, SignIn, User};
pub use attachments::{Added, Attachment, Attachments};
pub use chats::{Chats, DEPARTURES, Departure, Membership, Range, Slice, Standing, UserChats};
pub use drain::{DeadLetter, Drain, PartitionBatch, Position, Refused};
pub use erasing::Erasing;
pub use follow::{follow, in_time};
pub use listed::Listed;
pub use notifications::{
    Attempt, Candidate, DELIVERIES_LISTED, EndpointAdded, Except, Held, Leased, Looked, Notifications,
    Notify, PENDING_BROWSER, PENDING_WEBHOOK, Queued, Receivers, SUBSCRIPTIONS, Sending, Split, WEBHOOKS,
    Waiting,
};
pub use numbered::{AppCounts, Numbered};
pub use owned::{
    AsOf, ChatRow, Fingerprint, Found, MemberRow, Owned, SendKey, fingerprint, group_fingerprint,
};
pub use people::{People, ProfileChange};
pub use reads::{Marked, ReadMark, Reads};
pub use relations::{Contact, Pair, Related, Relation, RelationChange, Relations, Ties};
pub use retention::{DrainedMark, Due, Expire, Scope};
pub use search::{CHATS_SEARCHED, Findings, Hit, MESSAGES_FOUND, Search, SearchScope};
pub use seen::Seen;
use title::title;
pub(crate) use until::until_answered;

/// Why the store did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is busy past the time-out, or broke off: the same call may succeed later. A write may have been done.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// What it holds cannot be read by this program: an operator must look.
    #[error("the store holds what this program cannot read: {0}")]
    Corrupt(String),
}

/// What most calls answer.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Every part of an engine.
pub trait Store:
    Accounts
    + Attachments
    + People
    + Relations
    + Chats
    + Numbered
    + Listed
    + Reads
    + Seen
    + Erasing
    + Owned
    + Search
    + Drain
    + Expire
    + Notifications
    + Notify
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<T> Store for T where
    T: Accounts
        + Attachments
        + People
        + Relations
        + Chats
        + Numbered
        + Listed
        + Reads
        + Seen
        + Erasing
        + Owned
        + Search
        + Drain
        + Expire
        + Notifications
        + Notify
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// A store that is shared by everything in a process.
pub type SharedStore = Arc<dyn Store>;
