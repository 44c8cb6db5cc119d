//! What becomes of deliveries when receivers are away, gone, or somewhere inside.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use common::{
    ids::{Number, SessionId, UserId},
    model::Role,
    notifications::{DeliveryState, Target, WebhookChange},
    time::Millis,
    wire::record::What,
};
use parking_lot::Mutex;
use storage_writer::WriterConfig;
use tokio::{net::TcpListener, time::timeout};
use web_push_native::p256::SecretKey;

use super::stage::{APP, Hook, MINUTE, Stage, config};
use crate::kit::{Writer, until};

/// A chat in which Ana writes and Ben is away, and is told at once.
async fn ana_and_ben(stage: &mut Stage) -> (common::ids::ChatId, UserId, UserId) {
    stage.at_once().await;
    stage.pair().await
}

/// The numbers that were told, in the order in which they were.
fn numbers(hook: &Hook) -> Vec<Number> {
    hook.taken().iter().map(|heard| heard.json()["data"]["recipients"][0]["last"].as_u64().unwrap()).collect()
}

/// Several rounds, each with a message.
async fn rounds(stage: &mut Stage, chat: common::ids::ChatId, by: UserId, count: usize) {
    for _ in 0..count {
        stage.say(chat, by, "again").await;
        stage.bench.drained().await;
        until("the round is over", async || {
            stage.bench.store.waiting(APP, &[0], Millis(i64::MAX), 1).await.unwrap().is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_what_is_not_taken_is_kept_and_comes_in_order_and_none_is_lost() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let id = stage.webhook(&hook.url).await;
    // Another one is not held up.
    let other = Hook::listen().await;
    stage.webhook(&other.url).await;
    let (chat, ana, _) = ana_and_ben(&mut stage).await;
    let writer = stage.writer();
    hook.answer(|_| (503, "retry-after: 0\r\n".into()));
    rounds(&mut stage, chat, ana, 5).await;
    until("it was tried again", async || hook.heard().len() >= 4).await;
    until("the other has all", async || numbers(&other) == [1, 2, 3, 4, 5]).await;
    let ids: BTreeSet<String> = hook.heard().iter().map(|heard| heard.id().to_owned()).collect();
    assert_eq!(ids.len(), 1, "nothing behind the one that is not taken");
    let deliveries = stage.deliveries(id).await;
    assert!(deliveries.iter().all(|one| one.state == DeliveryState::Pending), "{deliveries:?}");
    assert_eq!(
        (deliveries[0].status, deliveries[0].error.as_deref()),
        (Some(503), Some("answered with 503"))
    );

    // Every third is taken, and then all.
    let mut nth = 0;
    hook.answer(move |_| {
        nth += 1;
        (if nth < 12 && nth % 3 != 0 { 500 } else { 204 }, String::new())
    });
    stage.quiet().await;
    assert_eq!(numbers(&hook), [1, 2, 3, 4, 5]);
    let deliveries = stage.deliveries(id).await;
    assert!(deliveries.iter().all(|one| one.state == DeliveryState::Delivered && one.attempts >= 1));
    until("failures are counted", async || writer.metric("writer_deliveries_total", "failed") >= 4.0).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_a_server_that_is_down_is_asked_again_when_it_is_up() {
    let mut stage = Stage::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let id = stage.webhook(&format!("http://127.0.0.1:{port}/hook")).await;
    let (chat, ana, _) = ana_and_ben(&mut stage).await;
    let writer = stage.writer();
    rounds(&mut stage, chat, ana, 2).await;
    until("it was tried again", async || stage.deliveries(id).await[0].attempts >= 2).await;
    let deliveries = stage.deliveries(id).await;
    assert!(deliveries[0].error.as_deref().unwrap().contains("refused"), "{deliveries:?}");
    let hook = Hook::listen_on(&format!("127.0.0.1:{port}")).await;
    stage.quiet().await;
    assert_eq!(numbers(&hook), [1, 2]);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_whoever_is_gone_is_not_asked_again_until_an_operator_says_so() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let id = stage.webhook(&hook.url).await;
    let (chat, ana, _) = ana_and_ben(&mut stage).await;
    let writer = stage.writer();
    hook.answer(|_| (410, String::new()));
    rounds(&mut stage, chat, ana, 1).await;
    let store = stage.bench.store.clone();
    let endpoint = async || store.endpoint(APP, None, id).await.unwrap().unwrap();
    until("it is switched off", async || !endpoint().await.enabled).await;
    hook.answer(|_| (204, String::new()));
    let asked = hook.heard().len();
    assert_eq!(asked, 1);
    let on = WebhookChange { enabled: Some(true), ..WebhookChange::default() };
    rounds(&mut stage, chat, ana, 1).await;
    writer.looks_at("webhooks").await;
    assert_eq!(hook.heard().len(), asked);
    assert!(stage.bench.store.update_webhook(APP, id, &on).await.unwrap().is_some());
    stage.quiet().await;
    assert_eq!(numbers(&hook), [1, 2], "what came up meanwhile as well");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_what_nobody_takes_for_days_is_given_up() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let id = stage.webhook(&hook.url).await;
    let (chat, ana, _) = ana_and_ben(&mut stage).await;
    hook.answer(|_| (500, String::new()));
    let writer = stage.writer();
    rounds(&mut stage, chat, ana, 1).await;
    until("it was tried", async || stage.deliveries(id).await[0].attempts >= 1).await;
    writer.stop().await;
    stage.pass(3 * 24 * 60 * MINUTE);
    let writer = stage.writer();
    until("it is given up", async || stage.deliveries(id).await[0].state == DeliveryState::GivenUp).await;
    // It may have been tried once more meanwhile: that is answered as before, and the receiver rests for an hour at the most.
    writer.stop().await;
    hook.answer(|_| (204, String::new()));
    stage.pass(60 * MINUTE);
    let writer = stage.writer();
    rounds(&mut stage, chat, ana, 1).await;
    stage.quiet().await;
    assert_eq!(numbers(&hook), [2]);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_a_browser_that_is_gone_is_forgotten_and_what_it_cannot_take_is_given_up() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let (chat, ana, ben) = ana_and_ben(&mut stage).await;
    let secret = SecretKey::from_slice(&[9; 32]).unwrap();
    let p256dh = secret.public_key().to_sec1_bytes().to_vec();
    let browser = |path: &str, p256dh: &[u8]| Target::Push {
        user: ben,
        session: SessionId::random(),
        url: hook.url.replace("/hook", path),
        p256dh: p256dh.to_vec(),
        auth: vec![5; 16],
    };
    let gone = stage.endpoint(browser("/gone", &p256dh)).await;
    let full = stage.endpoint(browser("/full", &p256dh)).await;
    let wrong = stage.endpoint(browser("/wrong", &[4; 65])).await;
    // In the order of their coming: the request line is not kept, so it is told by the number of what came.
    let mut asked = 0;
    hook.answer(move |_| {
        asked += 1;
        ([404, 413, 204][(asked - 1).min(2)], String::new())
    });
    let writer = stage.writer();
    rounds(&mut stage, chat, ana, 1).await;
    let store = &stage.bench.store;
    until("one is forgotten", async || store.endpoints(APP, Some(ben)).await.unwrap().len() == 2).await;
    let left: Vec<_> = store.endpoints(APP, Some(ben)).await.unwrap().into_iter().map(|one| one.id).collect();
    assert!(left.contains(&wrong) && (left.contains(&gone) || left.contains(&full)));
    let kept = if left.contains(&gone) { gone } else { full };
    until("given up", async || stage.deliveries(kept).await[0].state == DeliveryState::GivenUp).await;
    until("given up", async || stage.deliveries(wrong).await[0].state == DeliveryState::GivenUp).await;
    assert_eq!(stage.deliveries(wrong).await[0].error.as_deref(), Some("the browser's key is none"));
    rounds(&mut stage, chat, ana, 1).await;
    until("the next one", async || stage.deliveries(kept).await[1].state == DeliveryState::Delivered).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_what_is_gone_by_the_time_that_it_is_sent_is_not_shown() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let (chat, ana, ben) = ana_and_ben(&mut stage).await;
    let p256dh = SecretKey::from_slice(&[9; 32]).unwrap().public_key().to_sec1_bytes().to_vec();
    let ids = [
        stage.webhook(&hook.url).await,
        stage
            .endpoint(Target::Push {
                user: ben,
                session: SessionId::random(),
                url: hook.url.clone(),
                p256dh,
                auth: vec![5; 16],
            })
            .await,
    ];
    hook.answer(|_| (503, String::new()));
    let writer = stage.writer();
    stage.say(chat, ana, "a slip").await;
    for id in ids {
        until("it was tried", async || {
            stage.deliveries(id).await.first().is_some_and(|one| one.attempts > 0)
        })
        .await;
        let kept = stage.deliveries(id).await.remove(0).body;
        assert!(!kept.contains("slip") && !kept.contains("ana"), "{kept}");
    }
    stage.append(chat, ana, What::Erased { number: 1 }).await;
    stage.say(chat, ana, "hello").await;
    stage.bench.drained().await;
    stage.bench.store.erase_user(APP, ana, stage.now()).await.unwrap();
    for id in ids {
        until("given up", async || stage.deliveries(id).await[0].state == DeliveryState::GivenUp).await;
    }
    hook.answer(|_| (204, String::new()));
    for id in ids {
        until("the next one", async || {
            stage.deliveries(id).await.get(1).is_some_and(|one| one.state == DeliveryState::Delivered)
        })
        .await;
    }
    let last = hook.heard().iter().rfind(|heard| heard.headers.contains_key("webhook-id")).cloned();
    let message = &last.unwrap().json()["data"]["message"];
    assert_eq!((&message["number"], message.get("from_name")), (&2.into(), None));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_receivers_that_are_silent_hold_up_no_others() {
    let mut stage = Stage::new().await;
    stage.at_once().await;
    let mut people = Vec::new();
    for name in ["ana", "ben", "cleo", "dan", "eve", "fay"] {
        people.push(stage.person(name, None).await);
    }
    let chat = stage.group(&people).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let p256dh = SecretKey::from_slice(&[9; 32]).unwrap().public_key().to_sec1_bytes().to_vec();
    for user in &people[1..] {
        for nth in 0..15 {
            let url = format!("http://{address}/{user}/{nth}");
            let (user, p256dh, auth) = (*user, p256dh.clone(), vec![5; 16]);
            stage.endpoint(Target::Push { user, session: SessionId::random(), url, p256dh, auth }).await;
        }
    }
    let writer = stage.writer();
    stage.say(chat, people[0], "one").await;
    let mut asked = Vec::new();
    while asked.len() < 8 {
        asked.push(timeout(Duration::from_secs(30), silent.accept()).await.unwrap().unwrap());
    }
    // Nothing else is asked there meanwhile: a look has come to its end.
    writer.looks_at("browsers").await;
    assert!(timeout(Duration::ZERO, silent.accept()).await.is_err(), "8 at a time");
    let hook = Hook::listen().await;
    stage.webhook(&hook.url).await;
    stage.say(chat, people[0], "two").await;
    until("the webhook is sent to", async || !hook.taken().is_empty()).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_many_silent_browsers_of_an_application_hold_up_none_of_its_others_for_long() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let (chat, ana, ben) = ana_and_ben(&mut stage).await;
    let p256dh = SecretKey::from_slice(&[9; 32]).unwrap().public_key().to_sec1_bytes().to_vec();
    let browser = |user, url| {
        let (session, p256dh) = (SessionId::random(), p256dh.clone());
        Target::Push { user, session, url, p256dh, auth: vec![5; 16] }
    };
    let writer = stage.writer();
    let answers = stage.endpoint(browser(ben, hook.url.clone())).await;
    rounds(&mut stage, chat, ana, 1).await;
    until("it was sent to", async || hook.heard().len() == 1).await;
    // Each of these was never sent to, and so its turn comes before.
    let mut silent = Vec::new();
    for n in 0..13 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let user = stage.person(&format!("silent-{n}"), None).await;
        stage.append(chat, ana, What::Joined { user, role: Role::Member }).await;
        for nth in 0..8 {
            let url = format!("http://{}/{nth}", listener.local_addr().unwrap());
            stage.endpoint(browser(user, url)).await;
        }
        silent.push(listener);
    }
    // Each of 104 is silent for 15 s: 16 at a time, it would be minutes.
    rounds(&mut stage, chat, ana, 1).await;
    until("it is sent to soon", async || hook.heard().len() == 2).await;
    assert_eq!(stage.deliveries(answers).await.len(), 2);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_a_receiver_that_failed_once_is_told_soon_beside_many_that_are_silent() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let (chat, ana, ben) = ana_and_ben(&mut stage).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let p256dh = SecretKey::from_slice(&[9; 32]).unwrap().public_key().to_sec1_bytes().to_vec();
    let browser = |user, url| {
        let (session, p256dh) = (SessionId::random(), p256dh.clone());
        Target::Push { user, session, url, p256dh, auth: vec![5; 16] }
    };
    hook.answer(|_| (503, String::new()));
    let mut config = config(&["127.0.0.1"]);
    config.notify.every = Duration::from_millis(500);
    let writer = Writer::start(stage.engines(), config);
    stage.endpoint(browser(ben, hook.url.clone())).await;
    rounds(&mut stage, chat, ana, 1).await;
    until("it failed", async || hook.heard().len() >= 2).await;
    // Twice as many as are taken until those are due again that were given back first.
    for n in 0..60 {
        let user = stage.person(&format!("silent-{n}"), None).await;
        stage.append(chat, ana, What::Joined { user, role: Role::Member }).await;
        for nth in 0..20 {
            stage.endpoint(browser(user, format!("http://{address}/{n}/{nth}"))).await;
        }
    }
    rounds(&mut stage, chat, ana, 1).await;
    timeout(Duration::from_secs(20), silent.accept()).await.unwrap().unwrap();
    let heard = hook.heard().len();
    hook.answer(|_| (204, String::new()));
    let told = until("it is told soon", async || hook.heard().len() >= heard + 2);
    timeout(Duration::from_secs(5), told).await.expect("within seconds");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_no_address_inside_is_reached() {
    let inside = Hook::listen_on("127.0.0.2:0").await;
    let port = inside.url.rsplit(':').next().unwrap().to_owned();
    let hook = Hook::listen().await;
    let to = inside.url.clone();
    hook.answer(move |_| (307, format!("location: {to}\r\n")));
    let mut stage = Stage::new().await;
    let urls = [
        // It leads inside.
        hook.url.clone(),
        inside.url.clone(),
        // A name that means an address inside.
        format!("http://localhost:{port}"),
        format!("http://[::ffff:127.0.0.2]:{port}"),
        format!("http://0x7f000002:{port}"),
    ];
    let mut ids = Vec::new();
    for url in &urls {
        ids.push(stage.webhook(url).await);
    }
    let (chat, ana, _) = ana_and_ben(&mut stage).await;
    // The name is refused by an address that is not the one allowed.
    let allowing = |stage: &Stage, allow: &[&str]| Writer::start(stage.engines(), config(allow));
    let writer = allowing(&stage, &["127.0.0.1/32"]);
    rounds(&mut stage, chat, ana, 1).await;
    for (id, url) in ids.iter().zip(&urls) {
        let refused = async || stage.deliveries(*id).await[0].attempts >= 2;
        if !url.contains("localhost") {
            until(url, refused).await;
            let delivery = stage.deliveries(*id).await.remove(0);
            let why = (delivery.state, delivery.status, delivery.error.as_deref());
            assert_eq!(
                why,
                (DeliveryState::Pending, None, Some("not an address of the public internet")),
                "{url}"
            );
        }
    }
    writer.stop().await;
    let asked = hook.heard().len();
    assert!(asked > 0);
    // Without leave nothing here is reached.
    stage.pass(60 * MINUTE);
    let (before, writer) = (stage.deliveries(ids[2]).await[0].attempts, allowing(&stage, &[]));
    until("the name", async || stage.deliveries(ids[2]).await[0].attempts > before + 1).await;
    let error = stage.deliveries(ids[2]).await.remove(0).error;
    assert_eq!(error.as_deref(), Some("not an address of the public internet"));
    writer.stop().await;
    assert_eq!(hook.heard().len(), asked);
    assert!(inside.heard().is_empty(), "nothing has arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_of_two_writers_each_delivery_has_one_and_the_order_stands() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let (chat, ana, ben) = ana_and_ben(&mut stage).await;
    // Each believes to have the partition.
    let start = |group: &str| {
        Writer::start(stage.engines(), WriterConfig { group: group.to_owned(), ..config(&["127.0.0.1"]) })
    };
    let writers = [start("one"), start("other")];
    let busy = Arc::new(Mutex::new(0));
    let count = Arc::clone(&busy);
    hook.answer(move |_| {
        let mut count = count.lock();
        *count += 1;
        (if *count % 4 == 0 { 500 } else { 204 }, String::new())
    });
    rounds(&mut stage, chat, ana, 20).await;
    stage.quiet().await;
    assert_eq!(numbers(&hook), (1..=20).collect::<Vec<_>>());
    let taken = hook.heard().iter().filter(|heard| heard.status == 204).count();
    assert_eq!(taken, 20, "none twice, as nobody died");
    let told = &hook.told()[&ben];
    assert!(told.iter().all(|(first, last, count)| first == last && *count == 1));
    for writer in writers {
        writer.stop().await;
    }
}
