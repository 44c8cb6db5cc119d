//! Devices, journals and the judge together, against a server that is honest, or is not.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use loadtest::{
    check::{Exercise, Journals, Violation, judge},
    client::{Nobody, Options, Outcome, Post},
    clock::Clock,
    progress::Progress,
    workload::{
        Crowd, CrowdOptions,
        mixed::{Mixed, MixedOptions},
    },
};

use crate::fake::{self, Fault};

const SOON: Duration = Duration::from_secs(20);

async fn crowd(url: &str, users: usize, devices: usize, folder: &Path) -> Crowd {
    let options = CrowdOptions {
        users,
        devices,
        journal: Some(folder.to_owned()),
        client: Options { window: 4, ..Options::default() },
    };
    Crowd::gather(url, options, Clock::start(), Arc::new(Nobody), &Progress::quiet()).await.unwrap()
}

async fn verdict(crowd: Crowd, folder: &Path) -> Vec<Violation> {
    verdict_and_exercise(crowd, folder).await.0
}

async fn verdict_and_exercise(crowd: Crowd, folder: &Path) -> (Vec<Violation>, Exercise) {
    crowd.read_histories(folder, &Progress::quiet()).await.unwrap();
    crowd.stop().await.unwrap();
    let journals = Journals::read(folder).unwrap();
    let violations = judge(&journals);
    violations.iter().for_each(|violation| println!("{violation}"));
    (violations, Exercise::of(&journals))
}

/// Two members write, a third is removed and goes on writing, a fourth was never in. What does the judge find?
async fn broken(fault: Fault, every: u64) -> BTreeSet<u8> {
    let folder = tempfile::tempdir().unwrap();
    let url = fake::start(fault, every).await;
    let crowd = crowd(&url, 4, 1, folder.path()).await;
    let chat = crowd.group("all", 0, &[1, 2]).await.unwrap();
    for user in 0..3 {
        assert!(crowd.device(user).unwrap().seen(chat, |head| head.seq >= 1, SOON).await);
    }
    let write = async |user: usize, n: usize| {
        let device = crowd.device(user).unwrap();
        let mut outcomes = Vec::new();
        for m in 0..n {
            outcomes.push(device.start_send(Post::new(chat, format!("{user} {m} {n}"))).await);
        }
        for outcome in outcomes {
            assert_ne!(outcome.await, Ok(Outcome::Abandoned));
        }
    };
    tokio::join!(write(0, 12), write(1, 12), write(2, 12));
    let third = crowd.user(2).unwrap();
    crowd.device(0).unwrap().remove_member(chat, third).await.unwrap();
    tokio::join!(write(0, 6), write(1, 6), write(2, 6), write(3, 6));
    assert_eq!(crowd.drained(SOON).await, 0);
    if fault == Fault::None {
        assert_eq!(crowd.settled(SOON).await.unwrap(), [] as [String; 0]);
    }
    verdict(crowd, folder.path()).await.iter().map(|violation| violation.invariant).collect()
}

#[tokio::test]
async fn an_honest_server_is_found_honest() {
    assert_eq!(broken(Fault::None, 0).await, [].into());
}

#[tokio::test]
async fn a_server_that_has_troubles_and_keeps_its_word_is_found_honest() {
    for fault in [
        Fault::RetryLater,
        Fault::UnknownButStored,
        Fault::UnknownNotStored,
        Fault::CutAfterStoring,
        Fault::CutBeforeStoring,
    ] {
        assert_eq!(broken(fault, 7).await, [].into(), "{fault:?}");
    }
}

#[tokio::test]
async fn every_broken_word_is_found() {
    for (fault, invariant) in [
        (Fault::Lose, 1),
        (Fault::ForgetNames, 1),
        (Fault::RefuseAndStore, 2),
        (Fault::Invent, 2),
        (Fault::Skip, 3),
        (Fault::TwoNumbers, 3),
        (Fault::LoseEvent, 4),
        (Fault::DoubleEvent, 4),
        (Fault::LateEvent, 4),
        (Fault::Overtake, 5),
        (Fault::Leak, 9),
        (Fault::KeepRemoved, 9),
    ] {
        let found = broken(fault, 7).await;
        assert!(found.contains(&invariant), "{fault:?}: {found:?}");
    }
}

/// Everybody does everything, and loses their connections often, until there are so many messages in one chat.
async fn mixed(fault: Fault, every: u64, messages: u64, honest: bool) -> (Vec<Violation>, Exercise) {
    let folder = tempfile::tempdir().unwrap();
    let url = fake::start(fault, every).await;
    let crowd = Arc::new(crowd(&url, 7, 2, folder.path()).await);
    let options =
        MixedOptions { pause: Duration::from_millis(10), breaks: 60, seed: 7, ..Default::default() };
    let mixed = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    let busy = crowd.chats()[0].0;
    assert!(crowd.device(0).unwrap().seen(busy, |head| head.number > messages, SOON * 3).await);
    mixed.stop().await;
    assert_eq!(crowd.drained(SOON).await, 0);
    if honest {
        assert_eq!(crowd.settled(SOON).await.unwrap(), [] as [String; 0], "{fault:?}");
    }
    let crowd = Arc::into_inner(crowd).unwrap();
    let (violations, exercise) = verdict_and_exercise(crowd, folder.path()).await;
    println!("{fault:?}: {exercise}");
    (violations, exercise)
}

#[tokio::test]
async fn a_mixed_workload_on_an_honest_server_ends_at_rest_and_unblamed() {
    for fault in [Fault::None, Fault::CutAfterStoring] {
        let (violations, exercise) = mixed(fault, 50, 150, true).await;
        assert_eq!(violations, []);
        assert!(exercise.resumed > 10 && exercise.complete > 10 && exercise.incomplete == 0);
        assert!(exercise.mended > 0 && exercise.sessions > exercise.resuming, "{exercise}");
    }
}

#[tokio::test]
async fn whatever_befalls_an_honest_resume_nobody_is_blamed_and_every_view_is_whole_in_the_end() {
    let misfortunes =
        [Fault::CutInResume, Fault::Incomplete, Fault::SlowResume, Fault::LateNewChat, Fault::NoResume];
    for fault in misfortunes {
        let (violations, exercise) = mixed(fault, 2, 100, true).await;
        assert_eq!(violations, [], "{fault:?}");
        assert!(exercise.resumed > 5, "{exercise}");
        // Without that fault it happens as well, to whoever is cut off again at once.
        assert!(fault != Fault::CutInResume || exercise.resumed < exercise.resuming, "{exercise}");
        assert_eq!(exercise.incomplete > 0, fault == Fault::Incomplete, "{exercise}");
    }
}

#[tokio::test]
async fn a_resume_that_breaks_its_word_is_found() {
    for (fault, every, invariants) in [
        (Fault::ForgetAnEdit, 1, [4, 7]),
        (Fault::ClaimComplete, 2, [7, 7]),
        (Fault::Unnamed, 2, [4, 6]),
        (Fault::LoseTheLast, 7, [4, 7]),
    ] {
        let (violations, _) = mixed(fault, every, 100, false).await;
        let found = violations.iter().any(|violation| invariants.contains(&violation.invariant));
        assert!(found, "{fault:?}: {violations:?}");
    }
}
