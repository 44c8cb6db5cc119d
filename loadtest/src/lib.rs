//! A chat client, a load generator, and a judge.
//!
//! Everything here talks to the cluster through its public doors only: REST and sockets. From the cluster's crates it takes
//! plain types and frames, never a service and never an engine.
//!
//! | module | what |
//! | --- | --- |
//! | [`client`] | a device as an app would have it |
//! | [`journal`] | what a device did and saw, written down |
//! | [`check`] | the judge: proves invariants from journals alone |
//! | [`workload`] | crowds of devices, and what they do |
//! | [`figures`], [`report`] | what a run counts and measures, and how it is told |
//! | [`self_test`] | whether the judge can see |
//! | [`mod@bench`] | speed and memory beside a bare loop of `send` calls |
//! | [`cli`] | the command |

pub mod bench;
pub mod check;
pub mod cli;
pub mod client;
pub mod clock;
pub mod figures;
pub mod journal;
pub mod progress;
pub mod report;
pub mod self_test;
pub mod server_process;
pub mod workload;
