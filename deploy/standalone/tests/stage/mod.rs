//! A cluster in a folder of its own, and crowds of real clients on it whose journals are judged in the end.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a person needs to look into it")]

mod folder;
pub mod links;
pub mod program;
pub mod trial;

use std::{sync::Arc, time::Duration};

use common::shutdown::Shutdown;
use loadtest::{
    check::{self, Exercise},
    client::{Nobody, Options},
    clock::Clock,
    journal::Journal,
    progress::Progress,
    workload::{Crowd, CrowdOptions},
};
use standalone::{Auth, Cluster, Runtimes, Settings, Way};
use tempfile::TempDir;

pub use self::folder::Folder;

/// How long what was cut or killed may take to be whole again.
pub const MEND: Duration = Duration::from_secs(30);

pub struct Stage {
    pub folder: Folder,
    pub cluster: Cluster,
}

/// Complaints that are printed; the others are counted.
const SHOWN: usize = 30;

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

pub fn faults(folder: &TempDir, crowd: &Crowd) -> Journal {
    Journal::of_faults(&folder.path().join("journal/faults.jsonl"), crowd.clock()).unwrap()
}

pub async fn crowd(url: &str, folder: &TempDir, users: usize, devices: usize) -> Arc<Crowd> {
    let journal = folder.path().join("journal");
    std::fs::create_dir_all(&journal).unwrap();
    let options = CrowdOptions { users, devices, journal: Some(journal), client: Options::default() };
    let quiet = Progress::quiet();
    let gathering = Crowd::gather(url, options, Clock::start(), Arc::new(Nobody), &quiet);
    Arc::new(gathering.await.unwrap())
}

/// Waits until everything is said and seen, reads the histories, and has the judge look.
pub async fn judge(folder: &TempDir, crowd: Arc<Crowd>) {
    let trouble = rest(folder, crowd).await;
    verdict(folder, trouble);
}

/// Waits until everything is said and seen, reads the histories, and ends the devices, whatever comes of it: a journal that is whole says
/// more than the first complaint. Gives the complaints.
pub async fn rest(folder: &TempDir, crowd: Arc<Crowd>) -> Vec<String> {
    let mut trouble = Vec::new();
    let busy = crowd.drained(MEND).await;
    if busy > 0 {
        trouble.push(format!("{busy} devices have messages without an answer"));
    }
    match crowd.settled(MEND).await {
        Ok(behind) => trouble.extend(behind),
        Err(error) => trouble.push(error.to_string()),
    }
    let read = crowd.read_histories(&folder.path().join("journal"), &Progress::quiet()).await;
    trouble.extend(read.err().map(|error| error.to_string()));
    Arc::try_unwrap(crowd).expect("somebody still uses the crowd").stop().await.unwrap();
    trouble
}

/// Reads log and store of a cluster that has stopped. What was killed before may hold them for a moment.
pub async fn at_rest(folder: &TempDir) {
    let end = tokio::time::Instant::now() + MEND;
    let (data, journal) = (folder.path().join("data"), folder.path().join("journal"));
    while let Err(error) = check::read_stored(&data, &journal).await {
        assert!(error.in_use() && tokio::time::Instant::now() < end, "{error}");
    }
}

/// Has the judge look, and falls for what it finds and for `trouble`. Gives how much there was to look at.
pub fn verdict(folder: &TempDir, trouble: Vec<String>) -> Exercise {
    let journals = check::Journals::read(&folder.path().join("journal")).unwrap();
    let violations = check::judge(&journals);
    let complaints: Vec<String> =
        trouble.into_iter().chain(violations.iter().map(ToString::to_string)).collect();
    let first = complaints.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(complaints.is_empty(), "{} complaints:\n{first}", complaints.len());
    Exercise::of(&journals)
}
