//! Postgres stops, dies, and is put back to an older state, under load: what is in owners' memory goes on, and the judge finds nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cluster::Kind;
use common::{engines::EngineUrls, servers::Servers};
use loadtest::{
    client::rest::{Session, patiently, register},
    journal::Journal,
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};
use stage::{
    Folder, Stage, apart_on, judged,
    steady::{Steady, outage},
};
use tokio::{
    task::block_in_place,
    time::{Instant, timeout},
};

/// How long somebody waits for what cannot be done now.
const PATIENCE: Duration = Duration::from_secs(3);

/// Within which a sign-in that was ended is refused everywhere (ID-2): 2 s by the tenth invariant, and some for a store that has just come up.
const REVOKED: Duration = Duration::from_secs(5);

const SECOND: Duration = Duration::from_secs(1);

/// Postgres of the test's own, and a cluster on it.
async fn stage() -> (Stage, EngineUrls, Servers) {
    let postgres = block_in_place(|| Servers::own(&["postgres"]));
    let engines = block_in_place(|| apart_on(Servers::shared(), &postgres, Servers::shared()));
    (Stage::on(engines.clone(), 3, 2).await, engines, postgres)
}

/// Tells the judge that Postgres is away while `what` is done.
async fn away(faults: &Journal, what: impl Future<Output = ()>) {
    faults.fault_begins("Postgres is away");
    what.await;
    faults.fault_ends("Postgres is away");
}

/// Kills the nodes and starts them: what owners had in memory is gone, and what is read comes from rows and the log.
async fn forget(stage: &Stage, faults: &Journal) {
    faults.fault_begins("the nodes are killed");
    for node in stage.cluster.of(Kind::Node) {
        node.kill9().unwrap();
        node.start().unwrap();
    }
    stage.cluster.ready().await.unwrap();
    faults.fault_ends("the nodes are killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_chats_in_memory_go_on_and_the_rest_waits() {
    let (stage, _, postgres) = stage().await;
    let url = stage.cluster.url();

    // A chat that no owner has in memory, once the nodes have died.
    let crowd = judged::crowd(&url, &stage.folder, 7, 1).await;
    let name = uuid::Uuid::new_v4().simple().to_string();
    let account = register(crowd.http(), &name, "correct horse", "Cora").await.unwrap();
    let cora = Session::sign_in(crowd.http(), &account).await.unwrap();
    let cold = cora.create_group("cold", &[crowd.user(0).unwrap()]).await.unwrap();
    let faults = judged::faults(&stage.folder, &crowd);
    forget(&stage, &faults).await;

    let steady = Steady::new(&url).await;
    let options = MixedOptions { seed: 21, breaks: 2, ..Default::default() };
    let load = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    steady.goes_on(2 * SECOND).await;
    away(&faults, async {
        block_in_place(|| postgres.stop("postgres"));
        let newcomer = crowd.user(1).unwrap();
        let (signed_in, added, _) = tokio::join!(
            timeout(PATIENCE, Session::sign_in(crowd.http(), &account)),
            timeout(PATIENCE, patiently(|| cora.add_member(cold, newcomer))),
            steady.goes_on(outage()),
        );
        assert!(signed_in.is_err() && added.is_err(), "{signed_in:?} {added:?}");
        block_in_place(|| postgres.start("postgres"));
    })
    .await;
    steady.goes_on(2 * SECOND).await;
    Session::sign_in(crowd.http(), &account).await.unwrap();
    patiently(|| cora.add_member(cold, crowd.user(2).unwrap())).await.unwrap();

    for _ in 0..2 {
        away(&faults, async {
            block_in_place(|| postgres.kill("postgres"));
            steady.goes_on(2 * SECOND).await;
            block_in_place(|| postgres.start("postgres"));
        })
        .await;
        steady.goes_on(3 * SECOND).await;
    }
    drop(faults);
    load.stop().await;
    steady.judge().await;
    stage.judge(crowd).await;
}

/// Copies Postgres' data folder, which nobody uses now.
fn copy(from: &Path, to: &Path) {
    let from = from.join(".");
    let copied = Command::new("cp").arg("-a").args([&from, to]).status().unwrap();
    assert!(copied.success());
}

/// Where Postgres has its data.
fn data_folder(store: &str) -> PathBuf {
    let shown =
        Command::new("psql").args(["-X", "-q", "-A", "-t", "-c", "SHOW data_directory", store]).output();
    let shown = shown.unwrap();
    assert!(shown.status.success());
    String::from_utf8(shown.stdout).unwrap().trim().into()
}

/// Signs out, and waits until every node knows of it: what they have read of sign-ins that were ended is numbered by the store.
async fn signs_out(stage: &Stage, session: &Session) {
    patiently(|| session.sign_out()).await.unwrap();
    let until = Instant::now() + REVOKED;
    for node in stage.cluster.of(Kind::Node) {
        let there = session.at(&node.url()).unwrap();
        while !there.chats(1).await.is_err_and(|error| error.unauthenticated()) {
            assert!(Instant::now() < until, "{} lets in who has signed out", node.name());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_completes_itself_from_the_log_when_postgres_is_put_back_to_a_backup() {
    let (stage, engines, postgres) = stage().await;
    let backup = Folder::new();
    let data = data_folder(&engines.store);
    let crowd = judged::crowd(&stage.cluster.url(), &stage.folder, 7, 1).await;
    let faults = judged::faults(&stage.folder, &crowd);
    // What is a row and no record is lost with the rows: read marks and sign-ins since the backup.
    let options =
        MixedOptions { seed: 22, breaks: 2, reads: 0, sign_outs: 0, lists: false, ..Default::default() };
    let load = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    let account = &crowd.people()[0].account;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(Session::sign_in(crowd.http(), account).await.unwrap());
    }
    tokio::time::sleep(2 * SECOND).await;
    away(&faults, async {
        block_in_place(|| {
            postgres.stop("postgres");
            copy(&data, backup.path());
            postgres.start("postgres");
        });
    })
    .await;
    for session in sessions.drain(..3) {
        signs_out(&stage, &session).await;
    }
    tokio::time::sleep(6 * SECOND).await;
    away(&faults, async {
        block_in_place(|| {
            postgres.stop("postgres");
            for entry in std::fs::read_dir(&data).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                    .unwrap();
            }
            copy(backup.path(), &data);
            postgres.start("postgres");
        });
    })
    .await;
    for session in sessions {
        signs_out(&stage, &session).await;
    }
    tokio::time::sleep(6 * SECOND).await;
    load.stop().await;
    forget(&stage, &faults).await;
    drop(faults);
    stage.judge(crowd).await;
}
