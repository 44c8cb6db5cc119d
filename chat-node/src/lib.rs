//! A chat node: holds the sockets of its users, runs the REST API, and decides for the chats whose partitions it owns.

pub mod api;
pub mod ask;
pub mod attachments;
pub mod attempts;
pub mod auth;
mod check;
pub mod circles;
pub mod commands;
pub mod control;
mod cursor;
mod cursors;
pub mod deliver;
pub mod erasing;
pub mod forward;
pub mod history;
pub mod hub;
pub mod identity;
mod joins;
pub mod making;
pub mod marks;
mod missed;
pub mod notifications;
pub mod outbox;
mod overview;
pub mod owner;
mod pace;
pub mod passwords;
pub mod people;
#[cfg(feature = "planted")]
mod planted;
pub mod presence;
#[cfg(feature = "servers")]
pub mod program;
pub mod reads;
mod recent;
pub mod relationships;
mod repair;
mod resume;
mod run;
pub mod search;
pub mod session;
pub mod settings;
pub mod socket;
mod standing;
pub mod storage_api;
pub mod tickets;

pub use self::run::{Listeners, NodeConfig, RunError, STOPPING, run};
