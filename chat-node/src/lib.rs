//! A chat node: holds the sockets of its users, runs the REST API, and decides for the chats whose partitions it owns.

pub mod control;
pub mod forward;
pub mod owner;
