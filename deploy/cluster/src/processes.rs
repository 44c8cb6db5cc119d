//! All processes of a cluster.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::join_all;
use parking_lot::Mutex;

use crate::{
    Kind, Process, Setup,
    process::without_settings,
    setup::{free_port, quoted},
};

/// How long everything may take to come up.
const READY: Duration = Duration::from_secs(60);

/// How long a process may take to stop that is asked to: what the slowest gives itself, and some.
const STOPS: Duration = Duration::from_secs(20);

/// How long a program may take that makes something and ends.
const MAKES: Duration = Duration::from_secs(60);

/// The processes of a cluster. Killed when dropped, but for [`Self::leave`].
#[derive(Debug)]
pub struct Processes {
    setup: Setup,
    links: SocketAddr,
    all: Mutex<BTreeMap<String, Arc<Process>>>,
    left: bool,
}

impl Processes {
    /// Makes what the engines lack and the certificates, starts everything, and waits until all of it serves.
    ///
    /// # Errors
    /// In words for whoever started it.
    pub async fn start(setup: Setup) -> anyhow::Result<Self> {
        let cluster = Self::launch(setup).await?;
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Likewise, without waiting for anything but log and store being made.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn launch(setup: Setup) -> anyhow::Result<Self> {
        let cluster = Self::unmade(setup)?;
        cluster.init().await?;
        cluster.start_all()?;
        Ok(cluster)
    }

    /// A cluster of which nothing runs, with nothing made but certificates and settings: for those who want to see it come up step by step.
    ///
    /// # Errors
    /// When the folder cannot be used, a program is missing, or another cluster runs from the folder.
    pub fn unmade(setup: Setup) -> anyhow::Result<Self> {
        fs::create_dir_all(&setup.folder).with_context(|| setup.folder.display().to_string())?;
        if let Some(running) = found(&setup.folder)?.into_iter().find(Process::is_running) {
            bail!("{} runs already from {}; `cluster down` stops it", running.name(), setup.folder.display());
        }
        // Of processes that are gone.
        for file in pid_files(&setup.folder)? {
            fs::remove_file(file)?;
        }
        let links = free_port(setup.listen)?;
        let (nodes, writers) = (setup.nodes, setup.writers);
        let cluster = Self { setup, links, all: Mutex::default(), left: false };
        cluster.dispatcher_made()?;
        for _ in 0..nodes {
            cluster.make(Kind::Node)?;
        }
        for _ in 0..writers {
            cluster.make(Kind::Writer)?;
        }
        Ok(cluster)
    }

    /// The processes that were started from this folder by somebody before us. They can be looked at and stopped, not started.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn found(folder: &Path) -> anyhow::Result<Vec<Process>> {
        found(folder)
    }

    /// Makes what log and store lack: `storage-writer init`. Gives what it said.
    ///
    /// # Errors
    /// With what it said.
    pub async fn init(&self) -> anyhow::Result<String> {
        let config = self.setup.folder.join("init.toml");
        let settings = self.setup.settings_of(Kind::Writer, "init");
        let lines: Vec<_> = settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        fs::write(&config, lines.concat())?;
        let program = self.setup.program(Kind::Writer)?;
        let mut command = Command::new(program);
        command.arg("init").arg("--config").arg(&config);
        made_by(command).await
    }

    /// Starts whatever does not run.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_all(&self) -> anyhow::Result<()> {
        self.all().iter().filter(|process| !process.is_running()).try_for_each(|process| process.start())
    }

    /// Waits until every process that runs is ready.
    ///
    /// # Errors
    /// When one is not within a minute, or ends, or none runs.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let all = self.all();
        ensure!(!all.is_empty(), "there is no process");
        let asked = all.iter().filter(|process| process.is_running()).map(|process| process.ready(READY));
        join_all(asked).await.into_iter().collect()
    }

    /// The cluster's address, for clients: `http://host:port`.
    pub fn url(&self) -> String {
        self.dispatcher().map(|dispatcher| dispatcher.url()).unwrap_or_default()
    }

    /// Where nodes reach the dispatcher: host and port of its links.
    pub fn links(&self) -> SocketAddr {
        self.links
    }

    /// Every process.
    pub fn all(&self) -> Vec<Arc<Process>> {
        self.all.lock().values().cloned().collect()
    }

    /// The dispatcher.
    ///
    /// # Errors
    /// When there is none.
    pub fn dispatcher(&self) -> anyhow::Result<Arc<Process>> {
        self.named(Kind::Dispatcher, "dispatcher-1")
    }

    /// A node: `node-1`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn node(&self, name: &str) -> anyhow::Result<Arc<Process>> {
        self.named(Kind::Node, name)
    }

    /// A writer: `writer-1`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn writer(&self, name: &str) -> anyhow::Result<Arc<Process>> {
        self.named(Kind::Writer, name)
    }

    /// The processes of a kind, in the order of their names.
    pub fn of(&self, kind: Kind) -> Vec<Arc<Process>> {
        self.all.lock().values().filter(|process| process.kind() == kind).cloned().collect()
    }

    fn named(&self, kind: Kind, name: &str) -> anyhow::Result<Arc<Process>> {
        let all = self.all.lock();
        let found = all.get(name).filter(|process| process.kind() == kind).cloned();
        found.with_context(|| {
            let names: Vec<_> = all.keys().map(String::as_str).collect();
            format!("there is no {} {name}, but {}", kind.program(), names.join(", "))
        })
    }

    /// Adds a node and starts it. It is ready later.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_node(&self) -> anyhow::Result<Arc<Process>> {
        let node = self.make(Kind::Node)?;
        // A dispatcher that is started again must not think that all are back before all are.
        self.dispatcher()?.set("expect_nodes", self.of(Kind::Node).len());
        node.start()?;
        Ok(node)
    }

    /// Adds a writer and starts it. It is ready later.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_writer(&self) -> anyhow::Result<Arc<Process>> {
        let writer = self.make(Kind::Writer)?;
        writer.start()?;
        Ok(writer)
    }

    /// Stops everything that runs, in order: nodes first, so that what they have begun is stored; then writers, and the dispatcher. What does not
    /// stop in time is killed.
    ///
    /// # Errors
    /// The first complaint; the others are stopped all the same.
    pub async fn stop(self) -> anyhow::Result<()> {
        stop(&self.all()).await
    }

    /// Stops processes in the same order, and forgets them.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn stop_found(found: Vec<Process>) -> anyhow::Result<()> {
        let found: Vec<_> = found.into_iter().map(Arc::new).collect();
        let outcome = stop(&found).await;
        found.iter().filter(|process| !process.is_running()).for_each(|process| process.forget());
        outcome
    }

    /// Lets everything go on running, whoever started it.
    pub fn leave(mut self) {
        self.left = true;
    }

    fn dispatcher_made(&self) -> anyhow::Result<()> {
        let name = "dispatcher-1";
        self.certificate(Kind::Dispatcher, name)?;
        let listen = match self.setup.listen.port() {
            0 => free_port(self.setup.listen)?,
            _ => self.setup.listen,
        };
        let mut settings = self.setup.settings_of(Kind::Dispatcher, name);
        settings.insert("listen".into(), quoted(&listen.to_string()));
        settings.insert("listen_links".into(), quoted(&self.links.to_string()));
        settings.entry("expect_nodes".into()).or_insert(self.setup.nodes.to_string());
        self.keep(name.to_owned(), Kind::Dispatcher, listen, settings)?;
        Ok(())
    }

    fn make(&self, kind: Kind) -> anyhow::Result<Arc<Process>> {
        let number = self.of(kind).len() + 1;
        let name = match kind {
            Kind::Node => format!("node-{number}"),
            _ => format!("writer-{number}"),
        };
        let listen = match (kind, self.setup.listen.port(), u16::try_from(number)) {
            (Kind::Node, 1.., Ok(number)) => {
                let port =
                    self.setup.listen.port().checked_add(number).context("no port is left for the node")?;
                SocketAddr::new(self.setup.listen.ip(), port)
            }
            _ => free_port(self.setup.listen)?,
        };
        let mut settings = self.setup.settings_of(kind, &name);
        settings.insert("listen".into(), quoted(&listen.to_string()));
        if kind == Kind::Node {
            self.certificate(kind, &name)?;
            let links = format!("[{}]", quoted(&reached(self.links).to_string()));
            settings.entry("dispatchers".into()).or_insert(links);
            if let Some(first) = self.setup.storage {
                let after = u16::try_from(number - 1).ok().and_then(|after| first.port().checked_add(after));
                let port = after.context("no port is left for the node's storage API")?;
                let listen = SocketAddr::new(first.ip(), port);
                settings.insert("storage_api.listen".into(), quoted(&listen.to_string()));
            }
            if self.setup.listen.ip().is_unspecified() {
                settings.entry("advertise".into()).or_insert(quoted("localhost"));
                settings.entry("advertise_http".into()).or_insert(quoted("localhost"));
            }
        }
        self.keep(name, kind, listen, settings)
    }

    fn keep(
        &self,
        name: String,
        kind: Kind,
        listen: SocketAddr,
        settings: BTreeMap<String, String>,
    ) -> anyhow::Result<Arc<Process>> {
        let program = self.setup.program(kind)?;
        let process = Process::new(&name, kind, reached(listen), program, &self.setup.folder, settings);
        let process = Arc::new(process);
        self.all.lock().insert(name, process.clone());
        Ok(process)
    }

    fn certificate(&self, kind: Kind, name: &str) -> anyhow::Result<()> {
        let role = if kind == Kind::Node { "--node" } else { "--dispatcher" };
        let mut command = Command::new(self.setup.program(Kind::Dispatcher)?);
        command.arg("certificates").arg("--folder").arg(self.setup.certificates()).args([role, name]);
        without_settings(&mut command);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "no certificate for {name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if !self.left {
            for process in self.all() {
                // Most do not run any more.
                let _ = process.kill9();
            }
        }
    }
}

async fn stop(all: &[Arc<Process>]) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    for kind in [Kind::Node, Kind::Writer, Kind::Dispatcher] {
        let running = all.iter().filter(|process| process.kind() == kind && process.is_running());
        let stopping = running.map(async |process| {
            let stopped = process.terminate(STOPS).await;
            if process.is_running() {
                process.kill9()?;
            }
            stopped
        });
        for stopped in join_all(stopping).await {
            outcome = outcome.and(stopped);
        }
    }
    outcome
}

fn pid_files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "pid"));
    files.sort();
    Ok(files)
}

fn found(folder: &Path) -> anyhow::Result<Vec<Process>> {
    Ok(pid_files(folder)?.iter().filter_map(|file| Process::found(file)).collect())
}

/// Runs a program that makes something and ends, and gives what it said.
async fn made_by(mut command: Command) -> anyhow::Result<String> {
    without_settings(&mut command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let Ok(output) = tokio::time::timeout(MAKES, ended).await else {
        if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        bail!("{command:?} has not ended within {MAKES:?}");
    };
    let output = output??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where this machine reaches what listens there.
fn reached(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    }
}
