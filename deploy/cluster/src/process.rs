//! One process of the cluster: its files, its life, and what can befall it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::http;

/// How often a process is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// Lines of a process's log in an error.
const TAIL: usize = 12;

/// Ends every inherited file but the three of its own before the program begins: what a caller holds (a lock, a pipe) is not to be held by
/// what goes on running after it.
const DETACHED: &str = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec \"$@\"";

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `dispatcher`.
    Dispatcher,
    /// `chat-node`.
    Node,
    /// `storage-writer`.
    Writer,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Dispatcher, Self::Node, Self::Writer];

    /// The name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::Node => "chat-node",
            Self::Writer => "storage-writer",
        }
    }
}

/// A process of the cluster, running or not. Everything can be done from any task.
#[derive(Debug)]
pub struct Process {
    name: String,
    kind: Kind,
    address: SocketAddr,
    program: PathBuf,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    settings: BTreeMap<String, String>,
    life: Option<Life>,
    ended: Option<ExitStatus>,
}

/// A process that was started: by us, or by somebody before us.
#[derive(Debug)]
struct Life {
    pid: u32,
    /// When it began: its id alone may be another's by now.
    born: u64,
    child: Option<Child>,
}

impl Process {
    pub(crate) fn new(
        name: &str,
        kind: Kind,
        address: SocketAddr,
        program: PathBuf,
        folder: &Path,
        settings: BTreeMap<String, String>,
    ) -> Self {
        let state = Mutex::new(State { settings, ..State::default() });
        Self { name: name.to_owned(), kind, address, program, folder: folder.to_owned(), state }
    }

    /// The process that the file `NAME.pid` tells of; none when it is no such file.
    pub(crate) fn found(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?.strip_suffix(".pid")?;
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        let (pid, born) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let program = words.next()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.program() == program)?;
        let address = words.next()?.parse().ok()?;
        let process = Self::new(name, kind, address, program.into(), file.parent()?, BTreeMap::new());
        process.state.lock().life = Some(Life { pid, born, child: None });
        Some(process)
    }

    /// As it is called: `node-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens for HTTP: `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it wrote, of all its lives.
    pub fn log(&self) -> PathBuf {
        self.file("log")
    }

    /// Its id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let mut state = self.state.lock();
        state.is_running().then(|| state.life.as_ref().map(|life| life.pid)).flatten()
    }

    /// Whether it runs, paused or not.
    pub fn is_running(&self) -> bool {
        self.state.lock().is_running()
    }

    /// Changes a setting, from the next start on. `value` is TOML ([`crate::quoted`] for text).
    pub fn set(&self, key: &str, value: impl ToString) {
        self.state.lock().settings.insert(key.to_owned(), value.to_string());
    }

    /// Starts it; it may have been started before. It is ready later: see [`Self::ready`].
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn start(&self) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        ensure!(!state.is_running(), "{} runs already", self.name);
        // Whoever listens there would answer in its place.
        let free = std::net::TcpListener::bind(self.address);
        free.with_context(|| {
            format!("{} cannot listen on {}: name another place with --listen", self.name, self.address)
        })?;
        let config = self.file("toml");
        let mut text = String::new();
        for (key, value) in &state.settings {
            writeln!(text, "{key} = {value}")?;
        }
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new("sh");
        command.args(["-c", DETACHED, "sh"]).arg(&self.program).arg("--config").arg(&config);
        without_settings(&mut command);
        // A group of its own: what a terminal sends to ours is not for it.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("{} does not start", self.program.display()))?;
        let pid = child.id();
        let born = born(pid).unwrap_or(0);
        state.life = Some(Life { pid, born, child: Some(child) });
        state.ended = None;
        let line = format!("{pid} {born} {} {}\n", self.kind.program(), self.address);
        fs::write(self.file("pid"), line)?;
        Ok(())
    }

    /// `kill -9`: it is gone when this returns.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill9(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        let mut state = self.state.lock();
        if let Some(child) = state.life.as_mut().and_then(|life| life.child.as_mut()) {
            let ended = child.wait()?;
            state.ended = Some(ended);
        }
        Ok(())
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on, and does not know how long it was away.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and nothing more: for what is to happen meanwhile.
    ///
    /// # Errors
    /// When it does not run.
    pub fn ask_to_stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGTERM, and waits until it has ended in good order.
    ///
    /// # Errors
    /// When it does not run, does not end in time, or says that something was wrong.
    pub async fn terminate(&self, within: Duration) -> anyhow::Result<()> {
        self.ask_to_stop()?;
        self.ended(within).await
    }

    /// Waits until it has ended by itself, and says whether that was in good order.
    ///
    /// # Errors
    /// When it does not end in time, or its exit code is not 0.
    pub async fn ended(&self, within: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        while self.is_running() {
            ensure!(Instant::now() < until, "{} has not ended within {within:?}; {}", self.name, self.tail());
            sleep(LOOK).await;
        }
        let ended = self.state.lock().ended;
        match ended {
            Some(status) if !status.success() => bail!("{} ended with {status}; {}", self.name, self.tail()),
            _ => Ok(()),
        }
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends before, or the time is over: with what it says of itself.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        loop {
            let running = self.is_running();
            let said = match http::get(self.address, "/readyz").await {
                Ok((200, _)) if running => return Ok(()),
                Ok((status, body)) => format!("{status} {body}"),
                Err(error) => error.to_string(),
            };
            ensure!(running, "{} does not run; {}", self.name, self.tail());
            ensure!(Instant::now() < until, "{} is not ready: {said}; {}", self.name, self.tail());
            sleep(LOOK).await;
        }
    }

    /// Status and body of its answer to `GET path`.
    ///
    /// # Errors
    /// When it does not answer within 2 s.
    pub async fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        http::get(self.address, path).await
    }

    /// The sum of a counter or gauge over its labels, as `/metrics` has it; none when it is not there.
    ///
    /// # Errors
    /// When it does not answer within 2 s.
    pub async fn metric(&self, name: &str) -> std::io::Result<Option<f64>> {
        let (_, page) = self.get("/metrics").await?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let named = rest.starts_with(['{', ' ']);
            named.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        });
        Ok(values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value)))
    }

    /// Takes away what tells of it.
    pub(crate) fn forget(&self) {
        // It may be gone already.
        let _ = fs::remove_file(self.file("pid"));
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        let running = state.is_running();
        let pid = state.life.as_ref().and_then(|life| Pid::from_raw(i32::try_from(life.pid).ok()?));
        match pid {
            // The lock is held: it was not reaped since it was looked at.
            Some(pid) if running => Ok(kill_process(pid, signal)?),
            _ => bail!("{} does not run; {}", self.name, self.tail()),
        }
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.name))
    }

    /// Where to look, and the last of what is there.
    fn tail(&self) -> String {
        let log = self.log();
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(TAIL).collect();
        let lines: Vec<_> = lines.into_iter().rev().collect();
        format!("{} ends with:\n{}", log.display(), lines.join("\n"))
    }
}

impl State {
    fn is_running(&mut self) -> bool {
        let Some(life) = &mut self.life else { return false };
        match &mut life.child {
            Some(child) => match child.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    self.ended = Some(status);
                    false
                }
                Err(_) => false,
            },
            None => born(life.pid) == Some(life.born),
        }
    }
}

/// Settings of whoever starts it are not its own.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHAT_") {
            command.env_remove(name);
        }
    }
}

/// When a process began, in the kernel's ticks; none when there is no such process, or only what is left of it.
fn born(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
