//! A cluster in a folder of its own, and crowds of real clients on it whose journals are judged in the end.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a person needs to look into it")]

pub mod ear;
mod folder;
#[path = "../../../../storage-writer/tests/writer/notify/hook.rs"]
pub mod hook;
mod judged;
pub mod links;
pub mod operator;
pub mod people;
pub mod program;
pub mod trial;

use std::sync::Arc;

use common::shutdown::Shutdown;
use loadtest::{
    check::{self, Exercise},
    journal::Journal,
    workload::Crowd,
};
use standalone::{Auth, Cluster, Limits, Runtimes, Settings, Way};
use tempfile::TempDir;

pub use self::{
    folder::Folder,
    judged::{MEND, crowd, faults, judge, rest, verdict},
    operator::KEY as ADMIN_KEY,
};

pub struct Stage {
    pub folder: Folder,
    pub cluster: Cluster,
}

/// Settings for a cluster on free ports; passwords cost nothing, and crowds write as fast as they can.
pub fn settings(folder: &TempDir, nodes: u16) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        nodes,
        data: folder.path().join("data"),
        auth: Auth { argon2_memory_kib: 8, argon2_iterations: 1, ..Auth::default() },
        admin_key: ADMIN_KEY.to_owned().into(),
        limits: Limits { messages_per_second: 0.0, ..Limits::default() },
        ..Settings::default()
    }
}

impl Stage {
    pub async fn new(nodes: u16) -> Self {
        Self::over(nodes, Box::new(|_, dispatcher| dispatcher)).await
    }

    pub async fn over(nodes: u16, way: Box<Way>) -> Self {
        let _ = common::telemetry::init("warn");
        let folder = Folder::new();
        let cluster =
            Cluster::start_over(settings(&folder, nodes), Runtimes::Own, Shutdown::new(), way).await.unwrap();
        Self { folder, cluster }
    }

    /// Users with their devices, connected.
    pub async fn crowd(&self, users: usize, devices: usize) -> Arc<Crowd> {
        crowd(&self.cluster.url(), &self.folder, users, devices).await
    }

    /// Where a test writes down what it does to the cluster: 10 s from its end every view must be whole. To be dropped before the verdict.
    pub fn faults(&self, crowd: &Crowd) -> Journal {
        faults(&self.folder, crowd)
    }

    /// Waits until everything is said and seen, reads the histories, stops, reads log and store, and has the judge look.
    pub async fn judge(self, crowd: Arc<Crowd>) -> Exercise {
        let trouble = rest(&self.folder, crowd).await;
        self.cluster.stop().await.unwrap();
        at_rest(&self.folder).await;
        verdict(&self.folder, trouble)
    }
}

/// Reads log and store of a cluster that has stopped. What was killed before may hold them for a moment.
pub async fn at_rest(folder: &TempDir) {
    let end = tokio::time::Instant::now() + MEND;
    let (data, journal) = (folder.path().join("data"), folder.path().join("journal"));
    while let Err(error) = check::read_stored(&data, &journal).await {
        assert!(error.in_use() && tokio::time::Instant::now() < end, "{error}");
    }
}
