//! The program that is measured: a standalone cluster in a process of its own.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::server_process::{ServerProcess, consecutive_ports};

/// How long the program may take to say where it is.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A running cluster; killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// One that is not started yet, with its data and what it logs in `folder`.
    pub(super) fn new(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            port: consecutive_ports(4)?,
            child: None,
        })
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it, or ends it and starts it again on the same data, with so many nodes.
    pub(super) async fn start(&mut self, nodes: u16) -> anyhow::Result<()> {
        self.stop();
        let log = File::options().create(true).append(true).open(self.folder.join("server.log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(["--listen", &format!("127.0.0.1:{}", self.port), "--nodes", &nodes.to_string()])
            .args(["--log", "warn", "--data"])
            .arg(self.folder.join("data"))
            // Passwords are not what is measured.
            .env("CHAT_AUTH__ARGON2_MEMORY_KIB", "8")
            .env("CHAT_AUTH__ARGON2_ITERATIONS", "1")
            .env("CHAT_LIMITS__MESSAGES_PER_SECOND", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child =
            command.spawn().with_context(|| format!("{} does not start", self.program.display()))?;
        let stdout = child.stdout.take().context("the program has no standard output")?;
        self.child = Some(child);
        let (tell, told) = tokio::sync::oneshot::channel();
        // Ends with the program; what it says after its first line has to go somewhere.
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = tell.send(lines.next());
            lines.for_each(drop);
        });
        match tokio::time::timeout(STARTS_WITHIN, told).await {
            Ok(Ok(Some(Ok(_)))) => Ok(()),
            _ => bail!(
                "the program ended before it said where it is: see {}/server.log",
                self.folder.display()
            ),
        }
    }

    /// Ends it.
    pub(super) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its process.
    pub(super) fn process(&self) -> anyhow::Result<ServerProcess> {
        let pid = self.child.as_ref().context("the server does not run")?.id();
        ServerProcess::with_pid(pid).context("the server has ended: see its log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
