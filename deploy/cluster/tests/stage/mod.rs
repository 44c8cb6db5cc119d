//! A cluster of processes on real servers, in a folder of its own. Crowds of clients and the judge are those of the cluster in one process.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a person needs to look into it")]

#[path = "../../../standalone/tests/stage/folder.rs"]
mod folder;
pub mod gate;
#[path = "../../../../storage-writer/tests/writer/notify/hook.rs"]
pub mod hook;
#[path = "../../../standalone/tests/stage/judged.rs"]
pub mod judged;
#[path = "../../../standalone/tests/stage/operator.rs"]
pub mod operator;
pub mod steady;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use cluster::{Kind, Processes, Setup};
use common::{engines::EngineUrls, servers::Servers};
use loadtest::{
    check::{self, Journals},
    journal::Entry,
    workload::Crowd,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub use self::folder::Folder;

/// Partitions: enough for three nodes and four writers, few enough to come up quickly.
pub const PARTITIONS: u16 = 16;

/// A cluster, its folder and its engines. The cluster goes first.
pub struct Stage {
    pub cluster: Processes,
    pub folder: Folder,
    pub engines: EngineUrls,
}

impl Stage {
    /// A cluster on the shared servers, with a log and a store of its own.
    pub async fn new(nodes: u16, writers: u16) -> Self {
        Self::on(apart(Servers::shared()), nodes, writers).await
    }

    /// A cluster on these engines, which nobody else uses.
    pub async fn on(engines: EngineUrls, nodes: u16, writers: u16) -> Self {
        let folder = Folder::new();
        let cluster = Processes::start(setup(&folder, engines.clone(), nodes, writers)).await.unwrap();
        Self { cluster, folder, engines }
    }

    /// How many valid records the log has that are not in the store.
    async fn undrained(&self, journals: &Path) -> u64 {
        check::read_stored_at(&self.engines, journals).await.unwrap();
        let Journals { rest, .. } = Journals::read(journals).unwrap();
        let left = rest.iter().flat_map(|it| &it.lines).map(|it| match &it.entry {
            Entry::Drained(drained) => drained.undrained,
            _ => 0,
        });
        left.sum()
    }

    /// Waits until everything is said and seen, reads the histories, stops, reads log and store, and has the judge look. The engines must
    /// run.
    pub async fn judge(self, crowd: Arc<Crowd>) {
        let trouble = judged::rest(&self.folder, crowd).await;
        for node in self.cluster.of(Kind::Node) {
            node.terminate(judged::MEND).await.unwrap();
        }
        let journals = self.folder.path().join("journal");
        let until = Instant::now() + judged::MEND;
        // The partitions of a writer that was killed wait for another.
        while self.undrained(&journals).await > 0 && Instant::now() < until {
            sleep(Duration::from_millis(200)).await;
        }
        self.cluster.stop().await.unwrap();
        check::read_stored_at(&self.engines, &journals).await.unwrap();
        judged::verdict(&self.folder, trouble);
        // What was not read, or is not there, nobody finds fault with.
        let Journals { rest, .. } = Journals::read(&journals).unwrap();
        let count =
            |of: fn(&Entry) -> bool| rest.iter().flat_map(|it| &it.lines).filter(|it| of(&it.entry)).count();
        let partitions = count(|entry| matches!(entry, Entry::Drained(_)));
        let logged = count(|entry| matches!(entry, Entry::Logged { .. }));
        assert!(
            rest.len() == 1 && partitions == usize::from(PARTITIONS) && logged > 0,
            "twelfth invariant: {} readings, {partitions} partitions, {logged} messages",
            rest.len()
        );
    }
}

/// A cluster for tests, in the folder: passwords cost nothing, and crowds write as fast as they can.
pub fn setup(folder: &Folder, engines: EngineUrls, nodes: u16, writers: u16) -> Setup {
    programs_are_new();
    Setup { nodes, writers, partitions: PARTITIONS, ..Setup::new(folder.path().join("cluster"), engines) }
        .with(Kind::Node, "auth.argon2_memory_kib", 8)
        .with(Kind::Node, "auth.argon2_iterations", 1)
        .with(Kind::Node, "limits.messages_per_second", 0)
}

/// A topic and a database that no other test has, on these servers. The cache is shared: ids keep its users apart.
pub fn apart(servers: &Servers) -> EngineUrls {
    apart_on(servers, servers, servers)
}

/// Likewise, with log, store and cache from different servers.
pub fn apart_on(log: &Servers, store: &Servers, cache: &Servers) -> EngineUrls {
    let name = format!("test_{}", Uuid::new_v4().as_simple());
    let (place, database) = store.store().rsplit_once('/').unwrap();
    let created = Command::new("psql")
        .args(["-q", "-c", &format!("CREATE DATABASE {name}"), &format!("{place}/{database}")])
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let (place_of_log, _) = log.log().rsplit_once('/').unwrap();
    EngineUrls {
        log: format!("{place_of_log}/{name}?replication=1"),
        store: format!("{place}/{name}"),
        cache: cache.cache().to_owned(),
        ..EngineUrls::default()
    }
}

/// What Redis answers.
pub fn ask_redis(engines: &EngineUrls, command: &str) -> String {
    let answer = Command::new("redis-cli").args(["-u", &engines.cache, command]).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap().trim().to_owned()
}

/// Falls when the programs are older than their sources: they are not built with this test, and old ones would be tested.
fn programs_are_new() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let build = "cargo build -p dispatcher -p chat-node -p storage-writer";
    let programs = Setup::new(root, EngineUrls::default()).programs;
    for program in ["dispatcher", "chat-node", "storage-writer"] {
        let path = programs.join(program);
        let built = fs::metadata(&path).and_then(|found| found.modified());
        let built = built.unwrap_or_else(|error| panic!("{}: {error}; {build}", path.display()));
        // Its crate has its name.
        for sources in ["common", program] {
            let newest = newest(&root.join(sources).join("src"));
            assert!(newest <= built, "{} is older than {sources}/src: {build}", path.display());
        }
    }
}

fn newest(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let times = entries.map(|path: PathBuf| match path.is_dir() {
        true => newest(&path),
        false => fs::metadata(&path).unwrap().modified().unwrap(),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
