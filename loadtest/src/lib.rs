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

pub mod check;
pub mod client;
pub mod clock;
pub mod journal;
