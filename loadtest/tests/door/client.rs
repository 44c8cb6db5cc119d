//! A device on its own: what it does about trouble.

use std::{path::Path, sync::Arc, time::Duration};

use common::{ids::ClientId, wire::codes::ErrorCode};
use loadtest::{
    check::{Exercise, Journals},
    client::{Client, Nobody, Options, Outcome, Post, State, Undone},
    clock::Clock,
    progress::Progress,
    workload::{Crowd, CrowdOptions},
};

use crate::fake::{self, Fault};

const SOON: Duration = Duration::from_secs(20);

async fn crowd(fault: Fault, every: u64, users: usize, devices: usize) -> Crowd {
    journaling(fault, every, (users, devices), true, None).await
}

async fn journaling(
    fault: Fault,
    every: u64,
    (users, devices): (usize, usize),
    resume: bool,
    journal: Option<&Path>,
) -> Crowd {
    let url = fake::start(fault, every).await;
    let client = Options { resume, ..Options::default() };
    let options = CrowdOptions { users, devices, journal: journal.map(Path::to_owned), client };
    Crowd::gather(&url, options, Clock::start(), Arc::new(Nobody), &Progress::quiet()).await.unwrap()
}

async fn ended(device: &Client) -> State {
    tokio::time::timeout(SOON, async {
        while !matches!(device.state(), State::Ended(_)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    device.state()
}

fn number(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Acked { number, .. } => *number,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_repeated_by_another_device_is_the_same_message() {
    let crowd = crowd(Fault::None, 0, 2, 2).await;
    let chat = crowd.direct(0, 1).await.unwrap();
    let mut outcomes = Vec::new();
    for (device, retry) in crowd.people()[0].devices.iter().zip([false, true]) {
        let client_id = ClientId::new("once").ok();
        let post = Post { client_id, retry, ..Post::new(chat, "once") };
        outcomes.push(device.start_send(post).await.await.unwrap());
    }
    assert!(
        matches!(&outcomes[..], [Outcome::Acked { id: one, repeat: false, .. }, Outcome::Acked { id: two, repeat: true, .. }] if one == two)
    );
}

#[tokio::test]
async fn every_device_of_every_member_sees_what_was_sent_edited_and_deleted() {
    let crowd = crowd(Fault::None, 0, 2, 2).await;
    let chat = crowd.direct(0, 1).await.unwrap();
    let ana = crowd.device(0).unwrap();
    let number = number(&ana.send(chat, "hello").await);
    assert!(ana.edit(chat, number, "hello!").await.unwrap().is_some());
    let last = ana.delete(chat, number).await.unwrap().unwrap();
    for device in crowd.devices() {
        assert!(device.seen(chat, |head| head.seq == last && head.number == number, SOON).await);
    }
    let ben = crowd.device(1).unwrap();
    assert_eq!(ben.edit(chat, number, "mine").await, Err(Undone::Refused(ErrorCode::NotFound)));
    assert!(ben.newest(chat, None, 10).await.unwrap().messages[0].deleted);
}

#[tokio::test]
async fn whatever_breaks_a_device_comes_back_and_its_messages_stay_in_order() {
    let troubles =
        [Fault::CutAfterStoring, Fault::CutBeforeStoring, Fault::Close(4004), Fault::Revoke, Fault::Move];
    for trouble in troubles {
        let crowd = crowd(trouble, 5, 2, 1).await;
        let chat = crowd.direct(0, 1).await.unwrap();
        let device = crowd.device(0).unwrap();
        let mut outcomes = Vec::new();
        for n in 0..12 {
            outcomes.push(device.start_send(Post::new(chat, n.to_string())).await);
        }
        for (n, outcome) in (1..).zip(outcomes) {
            assert_eq!(number(&outcome.await.unwrap()), n, "{trouble:?}");
        }
        assert!(matches!(device.state(), State::Ready(socket) if socket > 1), "{trouble:?}");
    }
}

#[tokio::test]
async fn a_device_that_is_told_not_to_come_back_does_not_and_says_so_to_whoever_waits() {
    let crowd = crowd(Fault::Close(4008), 1, 2, 1).await;
    let chat = crowd.direct(0, 1).await.unwrap();
    let device = crowd.device(0).unwrap();
    assert_eq!(device.send(chat, "hello").await, Outcome::Abandoned);
    assert_eq!(ended(device).await, State::Ended(Some(4008)));
    assert_eq!(device.send(chat, "anybody?").await, Outcome::Abandoned);
}

#[tokio::test]
async fn a_refusal_for_good_is_told_and_holds_nothing_back() {
    let crowd = crowd(Fault::None, 0, 3, 1).await;
    let chat = crowd.direct(0, 1).await.unwrap();
    let own = crowd.direct(1, 2).await.unwrap();
    let stranger = crowd.device(2).unwrap();
    let refused = stranger.send(chat, "let me in").await;
    assert!(matches!(refused, Outcome::Refused { code: ErrorCode::NotFound, .. }));
    assert_eq!(number(&stranger.send(own, "here I may").await), 1);
}

/// One writes and edits, the other loses the connection now and then, and has everything in the end.
async fn missed_and_mended(fault: Fault, every: u64, resume: bool) -> Exercise {
    let folder = tempfile::tempdir().unwrap();
    let crowd = journaling(fault, every, (2, 1), resume, Some(folder.path())).await;
    let chat = crowd.direct(0, 1).await.unwrap();
    let (ana, ben) = (crowd.device(0).unwrap(), crowd.device(1).unwrap());
    ana.send(chat, "one").await;
    assert!(ben.seen(chat, |head| head.number == 1, SOON).await);
    let mut last = 0;
    for n in 2..60 {
        match n % 16 {
            0 => ben.break_connection().await,
            8 => ben.stay_away(Duration::from_millis(200)).await,
            _ => {}
        }
        let number = number(&ana.send(chat, n.to_string()).await);
        last = ana.edit(chat, number, "edited").await.unwrap().unwrap();
    }
    assert!(ben.seen(chat, |head| (head.number, head.seq) == (59, last), SOON).await);
    crowd.stop().await.unwrap();
    Exercise::of(&Journals::read(folder.path()).unwrap())
}

#[tokio::test]
async fn what_was_missed_between_two_sessions_is_told_on_coming_back() {
    let told = missed_and_mended(Fault::None, 0, true).await;
    assert!(told.resumed > 1 && told.resumed == told.resuming && told.complete > 0, "{told}");
    assert_eq!(told.incomplete + told.mended, 0, "{told}");
}

#[tokio::test]
async fn a_device_that_does_not_resume_reads_what_it_missed() {
    let told = missed_and_mended(Fault::None, 0, false).await;
    assert!(told.resuming == 0 && told.sessions > 2, "{told}");
}

#[tokio::test]
async fn what_a_resume_does_not_give_is_read_or_given_the_next_time() {
    for fault in [Fault::Incomplete, Fault::CutInResume, Fault::SlowResume, Fault::ClaimComplete] {
        let told = missed_and_mended(fault, 2, true).await;
        assert!(told.resuming > 1, "{fault:?} {told}");
    }
}

#[tokio::test]
async fn a_hole_between_two_events_is_mended_by_asking_for_it() {
    let told = missed_and_mended(Fault::LoseEvent, 7, true).await;
    assert!(told.mended > 0, "{told}");
}
