//! The contract between the services: plain types, the frames of every conversation, the rule that decides
//! which records of the log count, and the seams to the engines.
//!
//! Nothing here starts a service, and nothing here knows one: `dispatcher`, `chat-node` and `storage-writer`
//! import this crate and never each other.

pub mod address;
pub mod admin_key;
pub mod admission;
pub mod applications;
pub mod cache;
pub mod config;
pub mod document;
pub mod engines;
pub mod ids;
pub mod link;
pub mod listen;
pub mod log;
pub mod model;
pub mod notifications;
pub mod partition;
#[cfg(feature = "planted")]
pub mod planted;
pub mod problem;
#[cfg(feature = "servers")]
pub mod program;
pub mod revocations;
pub mod ring;
pub mod runtime;
pub mod seal;
pub mod search;
#[cfg(feature = "conformance")]
#[doc(hidden)]
pub mod servers;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod term;
pub mod time;
pub mod token;
pub mod vapid;
pub mod wire;
