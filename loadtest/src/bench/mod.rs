//! Speed and memory in one command: a cluster of this machine, and beside it, in the same run, a bare loop of `send` calls that writes the
//! same bytes to as many sockets. What counts is the ratio: machines differ, and so do kernels.
//!
//! | module | what |
//! | --- | --- |
//! | `server`, `bare` | what is measured, each a process of its own |
//! | `readers`, `frames` | the other end of the sockets, as cheap as can be |
//! | `figures` | the figures, one function each |
//! | `crowds` | the figures of many chats, many members, and many who come |
//! | `cut` | the figure of a storm of clients that come back |
//! | `report` | the table |

mod bare;
mod crowds;
mod cut;
mod figures;
mod frames;
mod readers;
mod report;
mod server;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

pub use self::{
    bare::serve as serve_bare,
    report::{BenchReport, Row},
};
use crate::progress::Progress;

/// A group of figures that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// CPU per delivery: one message at a time, 16 in flight, 100 senders.
    Delivery,
    /// CPU per delivery on three nodes against one.
    Nodes,
    /// What others notice of readers that stall.
    Stalled,
    /// CPU per connect, and memory per idle session.
    Idle,
    /// How long it takes until all are back and whole whose sockets were cut at one instant.
    Cut,
    /// The first page of somebody with 2,000 chats.
    Chats,
    /// A burst of messages in a group of 50,000.
    Large,
    /// What a send costs while 10,000 people come.
    Presence,
}

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The standalone program: a release build.
    pub server: PathBuf,
    /// Sessions in the one chat.
    pub sessions: usize,
    /// Idle sessions, each with a chat of its own; and sockets that are cut at once.
    pub idle: usize,
    /// Bytes of a message's body.
    pub body_bytes: usize,
    /// Seconds of each slice; ours and the bare loop's take turns.
    pub seconds: u64,
    /// Slices of each.
    pub rounds: u32,
    /// What is measured; everything when it is empty.
    pub only: Vec<Part>,
}

impl Bench {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Measures. Needs this machine for itself: whatever else runs on it is in the figures.
///
/// # Errors
/// When the program does not start, or does not do what it should; when too few files may be open.
pub async fn run(bench: &Bench, progress: &Progress) -> anyhow::Result<BenchReport> {
    ensure!(bench.server.is_file(), "{}: no such program; cargo build --release", bench.server.display());
    ensure!(bench.sessions >= 100, "at least 100 sessions: so many send at once");
    let coming = if bench.wants(Part::Presence) { crowds::COMING } else { 0 };
    let most = bench.sessions.max(bench.idle).max(coming);
    enough_files(most)?;
    let folder = std::env::temp_dir().join(format!("loadtest-bench-{:08x}", rand::random::<u32>()));
    let rows = figures::all(bench, &folder, progress).await;
    match rows {
        Ok(rows) => {
            // Left where it is if it cannot be removed: it is among the temporary files.
            let _ = std::fs::remove_dir_all(&folder);
            Ok(BenchReport::new(bench, rows))
        }
        Err(error) => Err(error.context(format!("what the server said is in {}", folder.display()))),
    }
}

/// Both this process and the server have a file open for every socket.
fn enough_files(sockets: usize) -> anyhow::Result<()> {
    let needed = sockets + 1_000;
    let limits = std::fs::read_to_string(Path::new("/proc/self/limits")).context("only Linux is measured")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    // Not a number: unlimited.
    ensure!(
        soft.is_none_or(|soft| soft >= needed),
        "{sockets} sockets need {needed} open files, and {} are allowed here: say `ulimit -n {needed}` first",
        soft.unwrap_or_default()
    );
    Ok(())
}
