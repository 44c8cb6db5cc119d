//! The program under test: a standalone cluster in a process of its own, that can be killed and started again.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::Case;
use crate::server_process::consecutive_ports;

/// How long the program may take to say where it is.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A running program; killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    program: PathBuf,
    folder: PathBuf,
    planted: String,
    writers: u16,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts it, with its data and what it logs in `folder`.
    pub(super) async fn start(program: &Path, folder: &Path, case: &Case) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut server = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            planted: case.planted.clone(),
            writers: case.writers,
            port: consecutive_ports(3)?,
            child: None,
        };
        server.again().await?;
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it once more, on the same data and at the same place; returns when it says that it is there.
    pub(super) async fn again(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        let log = File::options().create(true).append(true).open(self.folder.join("server.log"))?;
        let mut command = Command::new(&self.program);
        command
            .args([
                "--listen",
                &format!("127.0.0.1:{}", self.port),
                "--nodes",
                "2",
                "--log",
                "warn",
                "--data",
            ])
            .arg(self.data())
            .env("CHAT_WRITERS", self.writers.to_string())
            // Passwords are not what is tested.
            .env("CHAT_AUTH__ARGON2_MEMORY_KIB", "8")
            .env("CHAT_AUTH__ARGON2_ITERATIONS", "1")
            .env("CHAT_LIMITS__MESSAGES_PER_SECOND", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if !self.planted.is_empty() {
            command.env("CHAT_PLANTED", &self.planted);
        }
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
                "the program ended before it said where it is: see {}",
                self.folder.join("server.log").display()
            ),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
