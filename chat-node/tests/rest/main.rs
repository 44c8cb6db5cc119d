//! The REST API through its router, on the embedded store and cache, with an owner on paper that decides what these tests
//! need and drains when it is told to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod applications;
mod attachments;
mod bad_input;
mod bounds;
mod chats;
mod circles;
mod document;
mod identity;
mod messages;
mod notifications;
mod owner;
mod people;
mod presence;
mod relations;
mod search;
mod storage;
mod webhooks;
mod world;
