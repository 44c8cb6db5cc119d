//! The client, the workloads and the judge through the public door of a small chat server: honest, or not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::result_large_err,
    reason = "a test fails by panicking, and helpers outside of test functions are tests as well"
)]

mod client;
mod commands;
mod fake;
mod judge;
