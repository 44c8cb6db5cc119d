//! The real program in a process of its own.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{MEND, trial};

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    says: Option<oneshot::Receiver<String>>,
    /// Where clients find it, once it serves them.
    pub url: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// It, with two nodes, on this data and at this port; passwords cost nothing, and crowds write as fast as they can.
pub fn command(data: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-cluster"));
    command
        .args(["--listen", &format!("127.0.0.1:{port}"), "--log", "warn", "--data"])
        .arg(data)
        .env("CHAT_NODES", "2")
        .env("CHAT_AUTH__ARGON2_MEMORY_KIB", "8")
        .env("CHAT_AUTH__ARGON2_ITERATIONS", "1")
        .env("CHAT_LIMITS__MESSAGES_PER_SECOND", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    // What is for the test is no setting of the program's, and it refuses what it does not know.
    trial::NAMES.iter().for_each(|name| _ = command.env_remove(name));
    command
}

/// A port with two free ones after it.
pub fn port() -> u16 {
    loadtest::server_process::consecutive_ports(3).unwrap()
}

impl Program {
    /// Starts it, and waits until it serves clients.
    pub async fn start(data: &Path, port: u16) -> Self {
        Self::start_as(command(data, port)).await
    }

    /// Likewise, as this says.
    pub async fn start_as(command: Command) -> Self {
        let mut program = Self::launch(command);
        program.serves().await;
        program
    }

    /// How much memory it has, in bytes; from now on the most is counted anew.
    pub fn memory_from_now_on(&self) -> u64 {
        // proc(5): 5 resets the peak resident set size.
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        self.memory("VmRSS:")
    }

    /// The most memory that it had since, in bytes.
    pub fn most_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let said = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        said.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Likewise, without waiting. What it says of its troubles is appended to `log`.
    pub fn launch_with_log(data: &Path, port: u16, log: &Path) -> Self {
        let mut command = command(data, port);
        command.stderr(File::options().create(true).append(true).open(log).unwrap());
        Self::launch(command)
    }

    fn launch(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (say, says) = oneshot::channel();
        // Ends with the program. What it says after its first line has to go somewhere.
        std::thread::spawn(move || {
            if let Some(Ok(first)) = lines.next() {
                let _ = say.send(first);
            }
            lines.for_each(drop);
        });
        Self { child, says: Some(says), url: String::new() }
    }

    /// Waits until it serves clients.
    pub async fn serves(&mut self) {
        let Some(says) = self.says.take() else { return };
        let first = tokio::time::timeout(MEND, says).await.expect("it does not come up in time");
        let first = first.expect("it ended before it said where it is");
        self.url = first.split_whitespace().last().unwrap().to_owned();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, and waits for that, so long at most.
    pub async fn stop(mut self, within: Duration) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let ended = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        tokio::time::timeout(within, ended).await.expect("it did not stop in time").unwrap()
    }
}
