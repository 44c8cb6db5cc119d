//! A whole cluster as processes of their own on one machine, on engines that are there already: starts a dispatcher, nodes and writers, and lets
//! each be killed, paused, asked to stop and started again by name. For development (`cluster up`) and for tests:
//!
//! ```no_run
//! # async fn test(engines: common::engines::EngineUrls, folder: std::path::PathBuf) -> anyhow::Result<()> {
//! use cluster::{Processes, Setup};
//!
//! let cluster = Processes::start(Setup { nodes: 3, writers: 2, ..Setup::new(folder, engines) }).await?;
//! cluster.node("node-1")?.kill9()?;
//! cluster.writer("writer-2")?.pause()?;
//! cluster.node("node-1")?.start()?;
//! cluster.ready().await?;
//! cluster.writer("writer-2")?.resume()?;
//! cluster.stop().await
//! # }
//! ```
//!
//! Everything is kept in one folder: for each process its settings (`NAME.toml`), what it wrote (`NAME.log`) and where it runs
//! (`NAME.pid`); and `certificates`. Absent: the engines themselves; `deploy/engines` starts those.

mod http;
mod process;
mod processes;
mod setup;

pub use self::{
    process::{Kind, Process},
    processes::Processes,
    setup::{Setup, quoted},
};
