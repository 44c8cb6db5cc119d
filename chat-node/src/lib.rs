//! A chat node: holds the sockets of its users, runs the REST API, and decides for the chats whose partitions it owns.

pub mod api;
pub mod ask;
pub mod attempts;
pub mod auth;
mod check;
pub mod commands;
pub mod control;
mod cursor;
mod cursors;
pub mod deliver;
pub mod forward;
pub mod history;
pub mod hub;
pub mod identity;
mod joins;
pub mod marks;
mod missed;
pub mod outbox;
pub mod owner;
pub mod passwords;
pub mod people;
#[cfg(feature = "planted")]
mod planted;
mod presence;
#[cfg(feature = "servers")]
pub mod program;
pub mod reads;
mod recent;
mod repair;
mod resume;
mod run;
pub mod session;
pub mod settings;
pub mod socket;
mod standing;
pub mod tickets;

pub use self::run::{Listeners, NodeConfig, RunError, STOPPING, run};
