//! The client, the workloads and the judge through the public door of a small chat server: honest, or not.

mod client;
mod commands;
mod fake;
mod judge;
