//! Devices, journals and the judge together, against a server that is honest, or is not.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use loadtest::{
    check::{Journals, Violation, judge},
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
    crowd.read_histories(folder, &Progress::quiet()).await.unwrap();
    crowd.stop().await.unwrap();
    let violations = judge(&Journals::read(folder).unwrap());
    violations.iter().for_each(|violation| println!("{violation}"));
    violations
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

#[tokio::test]
async fn a_mixed_workload_on_an_honest_server_ends_at_rest_and_unblamed() {
    for fault in [Fault::None, Fault::CutAfterStoring] {
        let folder = tempfile::tempdir().unwrap();
        let url = fake::start(fault, 50).await;
        let crowd = Arc::new(crowd(&url, 7, 2, folder.path()).await);
        let options =
            MixedOptions { pause: Duration::from_millis(10), breaks: 30, seed: 7, ..Default::default() };
        let mixed = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
        let busy = crowd.chats()[0].0;
        assert!(crowd.device(0).unwrap().seen(busy, |head| head.number > 150, SOON * 3).await);
        mixed.stop().await;
        assert_eq!(crowd.drained(SOON).await, 0);
        assert_eq!(crowd.settled(SOON).await.unwrap(), [] as [String; 0]);
        let crowd = Arc::into_inner(crowd).unwrap();
        assert_eq!(verdict(crowd, folder.path()).await, []);
    }
}
