//! The dispatcher: says which node serves whom and which node owns what, forwards frames between nodes, and is the one public origin.
//! It reads addresses, never what a message says.
//!
//! - [`members`], [`assign`], [`topics`]: who is there, who owns what, who wants what; pure. [`cluster`] holds the three together.
//! - [`control`]: the nodes' links; [`forward`]: frames between them.
//! - [`http`]: `GET /chat/location` and what operators ask; [`gateway`]: the REST API; [`cors`].
//!
//! All of it is soft state: after a restart the nodes register again, and the table made from the same nodes is the same.

pub mod assign;
pub mod cluster;
pub mod control;
pub mod cors;
pub mod forward;
pub mod gateway;
pub mod http;
pub mod members;
pub mod metrics;
pub mod topics;
