//! The REST API through its router, on the embedded store and cache, with an owner on paper that decides what these tests
//! need and drains when it is told to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod bad_input;
mod chats;
mod identity;
mod messages;
mod owner;
mod people;
mod world;
