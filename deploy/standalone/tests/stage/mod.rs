//! A cluster in a folder of its own, and crowds of real clients on it whose journals are judged in the end.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::{sync::Arc, time::Duration};

use common::shutdown::Shutdown;
use loadtest::{
    check,
    client::{Nobody, Options},
    clock::Clock,
    progress::Progress,
    workload::{Crowd, CrowdOptions},
};
use standalone::{Auth, Cluster, Runtimes, Settings, Way};
use tempfile::TempDir;

/// How long what was cut or killed may take to be whole again.
pub const MEND: Duration = Duration::from_secs(30);

pub struct Stage {
    pub folder: TempDir,
    pub cluster: Cluster,
}

/// Settings for a cluster on free ports; passwords cost nothing.
pub fn settings(folder: &TempDir, nodes: u16) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        nodes,
        data: folder.path().join("data"),
        auth: Auth { argon2_memory_kib: 8, argon2_iterations: 1, ..Auth::default() },
        ..Settings::default()
    }
}

impl Stage {
    pub async fn new(nodes: u16) -> Self {
        Self::over(nodes, Box::new(|_, dispatcher| dispatcher)).await
    }

    pub async fn over(nodes: u16, way: Box<Way>) -> Self {
        let _ = common::telemetry::init("warn");
        let folder = tempfile::tempdir().unwrap();
        let cluster =
            Cluster::start_over(settings(&folder, nodes), Runtimes::Own, Shutdown::new(), way).await.unwrap();
        Self { folder, cluster }
    }

    /// Users with their devices, connected.
    pub async fn crowd(&self, users: usize, devices: usize) -> Arc<Crowd> {
        crowd(&self.cluster.url(), &self.folder, users, devices).await
    }

    /// Waits until everything is said and seen, reads the histories, stops, and has the judge look.
    pub async fn judge(self, crowd: Arc<Crowd>) {
        judge(&self.folder, crowd).await;
        self.cluster.stop().await.unwrap();
    }
}

pub async fn crowd(url: &str, folder: &TempDir, users: usize, devices: usize) -> Arc<Crowd> {
    let journal = folder.path().join("journal");
    std::fs::create_dir_all(&journal).unwrap();
    let options = CrowdOptions { users, devices, journal: Some(journal), client: Options::default() };
    let quiet = Progress::quiet();
    let gathering = Crowd::gather(url, options, Clock::start(), Arc::new(Nobody), &quiet);
    Arc::new(gathering.await.unwrap())
}

pub async fn judge(folder: &TempDir, crowd: Arc<Crowd>) {
    let journal = folder.path().join("journal");
    assert_eq!(crowd.drained(MEND).await, 0, "devices have messages without an answer");
    assert_eq!(crowd.settled(MEND).await.unwrap(), Vec::<String>::new());
    crowd.read_histories(&journal, &Progress::quiet()).await.unwrap();
    Arc::try_unwrap(crowd).expect("somebody still uses the crowd").stop().await.unwrap();
    let violations = check::judge(&check::Journals::read(&journal).unwrap());
    if !violations.is_empty() {
        // What a person needs to look into it.
        let kept = std::env::temp_dir().join(format!("chat-violations-{}", std::process::id()));
        let _ = std::fs::rename(&journal, &kept);
        panic!("{} violations, journals in {}:\n{violations:#?}", violations.len(), kept.display());
    }
}
