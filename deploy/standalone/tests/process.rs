//! The program as it is run: what it prints, what it refuses, and that `kill -9` under load loses nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{io::Read, process::Stdio, time::Duration};

use loadtest::{
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};
use stage::{
    Folder,
    program::{Program, command, port},
};

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_and_started_again_it_has_lost_nothing() {
    let folder = Folder::new();
    let (data, port) = (folder.path().join("data"), port());
    let mut program = Program::start(&data, port).await;
    let crowd = stage::crowd(&program.url, &folder, 7, 1).await;
    let options = MixedOptions { seed: 21, breaks: 0, ..Default::default() };
    let load = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(1_500 + 377 * round)).await;
        program.kill();
        program = Program::start(&data, port).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    load.stop().await;
    stage::judge(&folder, crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn op_4_asked_to_stop_it_stops_within_seconds() {
    let folder = Folder::new();
    let program = Program::start(&folder.path().join("data"), port()).await;
    let crowd = stage::crowd(&program.url, &folder, 2, 1).await;
    let status = program.stop(Duration::from_secs(10)).await;
    assert!(status.success(), "{status}");
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_on_the_same_data_is_refused_with_a_clear_word() {
    let folder = Folder::new();
    let _first = Program::start(folder.path(), port()).await;
    let mut second = command(folder.path(), port()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    second.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!second.wait().unwrap().success());
    assert!(said.contains("in use by another process"), "{said}");
}

#[test]
fn a_wrong_setting_and_a_taken_port_are_named() {
    let folder = Folder::new();
    let output = command(folder.path(), port()).args(["--nodes", "0"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("nodes: 0 are asked for"), "{said}");
    let output = command(folder.path(), port()).env("CHAT_NODS", "3").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("nods"), "{output:?}");
    let output = command(folder.path(), port()).env("CHAT_WRITER__NOTIFY__SETTLE", "9999").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let named = said.contains("writer.notify.settle (9999)") && said.contains("presence.grace_ms (10000)");
    assert!(!output.status.success() && named, "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = command(&folder.path().join("other"), port).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&port.to_string()) && said.contains("--listen"), "{said}");
}
