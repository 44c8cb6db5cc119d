//! How services start: what they wait for, and what ends them with a word on what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{fs, process::Command, time::Duration};

use cluster::{Process, Processes, quoted};
use common::servers::Servers;
use stage::{Folder, apart, setup};

const SOON: Duration = Duration::from_secs(30);

/// Starts it, and gives what it says at its end, which is no good one.
async fn refusal(process: &Process) -> String {
    let before = fs::read_to_string(process.log()).unwrap_or_default().len();
    process.start().unwrap();
    let error = process.ended(SOON).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 1"), "{error}");
    fs::read_to_string(process.log()).unwrap()[before..].to_owned()
}

/// Waits until its readiness says `word`, and looks that it is alive meanwhile.
async fn says(process: &Process, word: &str) {
    let until = tokio::time::Instant::now() + SOON;
    loop {
        let said = process.get("/readyz").await;
        if said.as_ref().is_ok_and(|(status, why)| *status == 503 && why.contains(word)) {
            assert_eq!(process.get("/healthz").await.unwrap().0, 200);
            return;
        }
        assert!(tokio::time::Instant::now() < until, "{}: {said:?}", process.name());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_waiting_mends_ends_a_start_with_a_word_on_what_to_do() {
    let folder = Folder::new();
    let engines = apart(Servers::shared());
    let cluster = Processes::unmade(setup(&folder, engines.clone(), 1, 1)).unwrap();
    let (node, writer) = (cluster.node("node-1").unwrap(), cluster.writer("writer-1").unwrap());

    // Neither topic nor tables.
    for process in [&node, &writer] {
        let said = refusal(process).await;
        assert!(said.contains("storage-writer init"), "{said}");
    }
    let said = cluster.init().await.unwrap();
    assert!(said.contains(": made, 16 partitions") && said.contains("tables made"), "{said}");
    let again = cluster.init().await.unwrap();
    assert!(again.contains("was there") && again.contains("were up to date"), "{again}");

    for (key, value, word) in [
        ("partitions", "8".to_owned(), "set `partitions` to 16"),
        ("engines.log", quoted("kafka://127.0.0.1"), "HOST:PORT"),
        ("engines.log", quoted("file:log.db"), "serves one process only"),
        ("engines.store", quoted("mysql://127.0.0.1/chat"), "postgres://"),
        ("nods", "3".to_owned(), "nods"),
    ] {
        let folder = Folder::new();
        let other = Processes::unmade(setup(&folder, engines.clone(), 0, 1)).unwrap();
        let writer = other.writer("writer-1").unwrap();
        writer.set(key, &value);
        let said = refusal(&writer).await;
        assert!(said.contains(word), "{key} = {value}: {said}");
    }

    // The tables of an earlier program.
    let older = Command::new("psql")
        .args(["-q", "-c", "UPDATE store_version SET version = version - 1", &engines.store])
        .status()
        .unwrap();
    assert!(older.success());
    let dispatcher = cluster.dispatcher().unwrap();
    for process in [&node, &writer, &dispatcher] {
        let said = refusal(process).await;
        assert!(said.contains("storage-writer init"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_and_postgres_are_waited_for_and_redis_is_not() {
    let folder = Folder::new();
    let servers = Servers::own(&["kafka", "postgres", "redis"]);
    let cluster = Processes::unmade(setup(&folder, apart(&servers), 2, 1)).unwrap();
    cluster.init().await.unwrap();
    for name in ["kafka", "postgres", "redis"] {
        servers.stop(name);
    }
    cluster.start_all().unwrap();
    for process in cluster.all() {
        says(&process, "store").await;
    }
    servers.start("postgres");
    for name in ["node-1", "node-2"] {
        says(&cluster.node(name).unwrap(), "waiting for the log").await;
    }
    servers.start("kafka");
    cluster.ready().await.unwrap();
    cluster.stop().await.unwrap();
}

#[test]
fn every_program_lists_its_settings_and_checks_a_configuration_without_starting() {
    let folder = Folder::new();
    let setup = setup(&folder, common::engines::EngineUrls::default(), 0, 0);
    let run = |program: &str, arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(setup.programs.join(program));
        let output = command.args(arguments).envs(variables.iter().copied()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    for program in ["dispatcher", "chat-node", "storage-writer"] {
        let (good, help) = run(program, &["--help"], &[]);
        for word in ["CHAT_ENGINES__STORE", "postgres://chat@127.0.0.1:5432/chat", "--check-config"] {
            assert!(good && help.contains(word), "{program}: {help}");
        }
        let (good, version) = run(program, &["--version"], &[]);
        assert!(good && version.starts_with(program), "{version}");
        let (good, said) = run(program, &["--check-config"], &[("CHAT_NODS", "3")]);
        assert!(!good && said.contains("nods"), "{program}: {said}");
    }
    let secret = ("CHAT_ENGINES__STORE", "postgres://chat:hush@db/chat");
    let (good, said) = run("storage-writer", &["--check-config"], &[secret]);
    assert!(good && said.contains("postgres://chat:***@db/chat") && !said.contains("hush"), "{said}");
    let early = ("CHAT_WRITER__NOTIFY__SETTLE", "9999");
    let (good, said) = run("storage-writer", &["--check-config"], &[secret, early]);
    assert!(good && said.contains("presence.grace_ms (10000)"), "{said}");
    let unread = ("CHAT_ENGINES__STORE", "postgres:chat:hush@db");
    let (good, said) = run("storage-writer", &["--check-config"], &[unread]);
    assert!(!good && said.contains("postgres:***") && !said.contains("hush"), "{said}");
    // Without certificates a node cannot link; with them it could start.
    let certificates = folder.path().join("certificates");
    let authority = certificates.join("authority.pem");
    let authority = ("CHAT_TLS__AUTHORITY", authority.to_str().unwrap());
    let (good, said) = run("chat-node", &["--check-config"], &[authority, secret]);
    assert!(!good && said.contains("dispatcher certificates") && !said.contains("hush"), "{said}");
    let (good, said) = run(
        "dispatcher",
        &["certificates", "--folder", certificates.to_str().unwrap(), "--node", "node-1"],
        &[],
    );
    assert!(good && said.contains("node node-1"), "{said}");
    let (good, said) = run("chat-node", &["--check-config"], &[authority, secret]);
    assert!(good && said.contains("node node-1, good for 36"), "{said}");
    let (good, said) = run("chat-node", &["--check-config"], &[authority, ("CHAT_NAME", "node-2")]);
    assert!(!good, "{said}");
}
