//! Whether the judge can see, on the program itself: built only with the feature `planted`.
//!
//! `loadtest check --self-test` does the same with more clean runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

use std::path::PathBuf;

use common::planted::{Bug, Planted};
use loadtest::self_test::{Outcome, SelfTest, bugs, clean};

/// Clean runs: three of each kind, and some.
const CLEAN: usize = 20;

#[test]
fn every_bug_has_a_run_that_shows_it() {
    for bug in Bug::ALL {
        let planted = |text: &str| text.parse::<Planted>().unwrap().is(bug);
        assert!(bugs().iter().any(|case| planted(&case.planted)), "{bug} is shown by no run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_planted_bug_is_caught_and_clean_runs_raise_no_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let test = SelfTest {
        server: PathBuf::from(env!("CARGO_BIN_EXE_chat-cluster")),
        folder: folder.path().to_owned(),
        keep: false,
        bugs: bugs(),
        clean: (0..CLEAN).map(clean).collect(),
        at_once: 3,
    };
    let outcomes = test.run(|outcome| println!("{outcome}")).await.unwrap();
    let wrong: Vec<String> =
        outcomes.iter().filter(|outcome| !outcome.as_it_should()).map(Outcome::to_string).collect();
    if !wrong.is_empty() {
        // What a person needs to look into it.
        let kept = folder.keep();
        panic!("files in {}:\n{}", kept.display(), wrong.join("\n"));
    }
}
