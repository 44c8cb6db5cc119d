//! The program as it is run: what it prints, what it refuses, and that `kill -9` under load loses nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use loadtest::{
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};

/// The real program; killed when dropped.
struct Program {
    child: Child,
    url: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-cluster"));
    command
        .args(["--listen", &format!("127.0.0.1:{port}"), "--nodes", "2", "--log", "warn", "--data"])
        .arg(data)
        .env("CHAT_AUTH__ARGON2_MEMORY_KIB", "8")
        .env("CHAT_AUTH__ARGON2_ITERATIONS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// A port with two free ones after it.
fn port() -> u16 {
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let free = |offset| {
            port.checked_add(offset)
                .is_some_and(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
        };
        if free(1) && free(2) {
            return port;
        }
    }
}

fn start(data: &Path, port: u16) -> Program {
    let mut child = command(data, port).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().expect("it ended before it said where it is").unwrap();
    let url = first.split_whitespace().last().unwrap().to_owned();
    // The rest of what it says has to go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    Program { child, url }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_and_started_again_it_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path().join("data"), port());
    let mut program = start(&data, port);
    let crowd = stage::crowd(&program.url, &folder, 7, 1).await;
    let options = MixedOptions { seed: 21, breaks: 0, ..Default::default() };
    let load = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(1_500 + 377 * round)).await;
        program.child.kill().unwrap();
        program.child.wait().unwrap();
        program = start(&data, port);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    load.stop().await;
    stage::judge(&folder, crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_stops_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = start(&folder.path().join("data"), port());
    let crowd = stage::crowd(&program.url, &folder, 2, 1).await;
    let pid = program.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || program.child.wait().unwrap());
    let status =
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it did not stop in time").unwrap();
    assert!(status.success(), "{status}");
    drop(crowd);
}

#[test]
fn a_second_one_on_the_same_data_is_refused_with_a_clear_word() {
    let folder = tempfile::tempdir().unwrap();
    let _first = start(folder.path(), port());
    let mut second = command(folder.path(), port()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    second.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!second.wait().unwrap().success());
    assert!(said.contains("in use by another process"), "{said}");
}

#[test]
fn a_wrong_setting_and_a_taken_port_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), 0).args(["--nodes", "0"]).output();
    // A flag given twice is refused by name as well; the environment is not given twice.
    assert!(!output.unwrap().status.success());
    let output = command(folder.path(), port()).env("CHAT_NODS", "3").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("nods"), "{output:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = command(&folder.path().join("other"), port).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&port.to_string()) && said.contains("--listen"), "{said}");
}
