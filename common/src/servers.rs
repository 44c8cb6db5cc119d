//! Real servers for tests: Kafka, Postgres and Redis on this machine, started by `deploy/engines`.
//!
//! All calls block, within time-outs, and panic when a server does not do what it should: such a test has failed, it is not left out.
//! Tests that share servers keep apart by names of their own (a topic, a database, a prefix of keys).
#![allow(clippy::panic, clippy::print_stderr, reason = "an instrument of tests")]

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
};

use uuid::Uuid;

/// What a command may take, in seconds. The first of all may install packages and fetch jars.
const COMMAND_SECS: &str = "900";

/// Servers that run.
#[derive(Debug)]
pub struct Servers {
    folder: PathBuf,
    urls: HashMap<String, String>,
    owned: bool,
}

impl Servers {
    /// The servers that all tests of this workspace share, started when they do not run; nobody here stops them.
    /// Panics when one does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Servers> = OnceLock::new();
        SHARED.get_or_init(|| Self::up(root().join("target/engines"), &["kafka", "postgres", "redis"], false))
    }

    /// Servers of one test, named `kafka`, `postgres`, `redis`: it may kill them. They are gone with their data when this is dropped,
    /// or when the process ends. Panics when one does not start.
    pub fn own(names: &[&str]) -> Self {
        Self::up(env::temp_dir().join(format!("chat-engines-{}", Uuid::new_v4().as_simple())), names, true)
    }

    fn up(folder: PathBuf, names: &[&str], owned: bool) -> Self {
        let only = names.join(",");
        let id = process::id().to_string();
        let mut arguments = vec!["up", "--only", &only];
        if owned {
            arguments.extend(["--while", &id]);
        }
        // Made first, so that what is left of a failed start is taken down.
        let mut servers = Self { folder, urls: HashMap::new(), owned };
        let printed = servers.run(&arguments).unwrap_or_else(|why| panic!("{why}"));
        servers.urls = printed
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, url)| (name.to_owned(), url.to_owned()))
            .collect();
        servers
    }

    /// Where the log is: `kafka://HOST:PORT/TOPIC`. Panics when Kafka is not among these servers, and so do its two fellows.
    pub fn log(&self) -> &str {
        self.url("CHAT_ENGINES__LOG")
    }

    /// Where the store is: `postgres://USER@HOST:PORT/DATABASE`.
    pub fn store(&self) -> &str {
        self.url("CHAT_ENGINES__STORE")
    }

    /// Where the cache is: `redis://HOST:PORT`.
    pub fn cache(&self) -> &str {
        self.url("CHAT_ENGINES__CACHE")
    }

    fn url(&self, name: &str) -> &str {
        match self.urls.get(name) {
            Some(url) => url,
            None => panic!("{name} is not among {:?}", self.urls),
        }
    }

    /// Starts one again on the port it had, and waits until it answers.
    pub fn start(&self, name: &str) {
        self.command("start", name);
    }

    /// Stops one in order.
    pub fn stop(&self, name: &str) {
        self.command("stop", name);
    }

    /// Kills one at once, as a crash would.
    pub fn kill(&self, name: &str) {
        self.command("kill", name);
    }

    /// Stops the execution of one: it stays connected, and silent.
    pub fn pause(&self, name: &str) {
        self.command("pause", name);
    }

    /// Lets one go on after a pause.
    pub fn resume(&self, name: &str) {
        self.command("resume", name);
    }

    fn command(&self, command: &str, name: &str) {
        assert!(self.owned, "{command} {name}: other tests use it");
        self.run(&[command, name]).unwrap_or_else(|why| panic!("{why}"));
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let script = root().join("deploy/engines");
        let output = Command::new("timeout")
            .args(["--kill-after=5", COMMAND_SECS])
            .arg(&script)
            .args(arguments)
            .arg("--folder")
            .arg(&self.folder)
            .output()
            .map_err(|error| format!("{}: {error}", script.display()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("engines {}: {}\n{said}", arguments.join(" "), output.status))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if self.owned {
            if let Err(why) = self.run(&["down", "--wipe"]) {
                eprintln!("{why}");
            }
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
