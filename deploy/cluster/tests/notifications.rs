//! Notifications on Kafka, Postgres and Redis: a writer dies, a receiver is dead, Redis forgets who is connected, and each who was away is
//! told once, and nobody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster::{Kind, Processes, quoted};
use common::{
    engines::EngineUrls,
    ids::{ChatId, Number, UserId},
    servers::Servers,
};
use loadtest::client::{
    http::Http,
    rest::{self, Session},
};
use stage::{
    Folder, PARTITIONS, Stage, apart, apart_on, ask_redis,
    hook::Hook,
    judged,
    operator::{self, Operator, say},
};
use tokio::{task::block_in_place, time::sleep};

/// How long every message waits.
const SETTLE: Duration = Duration::from_secs(1);

/// How long, in milliseconds, nodes and users are shown that are silent: who is connected is noted again after a third of it.
const SHOWN_MS: u64 = 3_000;

/// A cluster that notifies quickly, with a name for its keys in Redis that no other has.
async fn notifying(engines: EngineUrls, nodes: u16, writers: u16) -> Stage {
    let folder = Folder::new();
    let prefix = quoted(&format!("test-{}:", UserId::random()));
    let mut setup = stage::setup(&folder, engines.clone(), nodes, writers)
        .with(Kind::Node, "admin_key", quoted(operator::KEY))
        .with(Kind::Node, "notify.allow", r#"["127.0.0.1"]"#)
        .with(Kind::Node, "presence.timeout_ms", SHOWN_MS)
        .with(Kind::Node, "presence.grace_ms", 300)
        .with(Kind::Writer, "writer.notify.allow", r#"["127.0.0.1"]"#)
        .with(Kind::Writer, "writer.notify.settle", SETTLE.as_millis())
        .with(Kind::Writer, "writer.notify.every", 50)
        .with(Kind::Writer, "writer.notify.retry_first", 100)
        .with(Kind::Writer, "writer.notify.retry_longest", 500);
    for kind in [Kind::Node, Kind::Writer] {
        setup = setup.with(kind, "engines.redis.prefix", &prefix);
        setup = setup.with(kind, "engines.redis.life_ms", SHOWN_MS);
    }
    let cluster = Processes::start(setup).await.unwrap();
    Operator::at(&cluster.url()).at_once().await;
    Stage { cluster, folder, engines }
}

/// People who are never connected.
async fn people(url: &str, count: usize) -> Vec<Session> {
    let http = Http::new(url).unwrap();
    let mut people = Vec::new();
    for n in 0..count {
        let username = format!("away-{n}-{}", UserId::random());
        let account = rest::register(&http, &username, "correct horse", &username).await.unwrap();
        people.push(Session::sign_in(&http, &account).await.unwrap());
    }
    people
}

/// Each of these was told of each of these messages of each chat once, and nobody else of anything.
fn told_once(hook: &Hook, chats: &[ChatId], users: &[UserId], numbers: std::ops::RangeInclusive<Number>) {
    let told: BTreeMap<(ChatId, UserId), Vec<Number>> = hook
        .told_in_chats()
        .into_iter()
        .map(|(who, told)| (who, told.iter().flat_map(|one| one.0..=one.1).collect()))
        .collect();
    for (who, told) in &told {
        assert_eq!(*told, numbers.clone().collect::<Vec<_>>(), "{who:?}");
    }
    let all = chats.iter().flat_map(|chat| users.iter().map(|user| (*chat, *user)));
    assert_eq!(told.into_keys().collect::<BTreeSet<_>>(), all.collect());
}

/// Waits until somebody was told in each chat of its messages up to this one.
async fn until_told(hook: &Hook, chats: &[ChatId], user: UserId, last: Number) {
    hook.until("all is told", |hook| {
        let told = hook.told_in_chats();
        let last_of = |chat: &ChatId| told.get(&(*chat, user)).and_then(|told| told.last()).map(|one| one.1);
        chats.iter().all(|chat| last_of(chat) == Some(last))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_3_a_writer_killed_in_a_round_and_a_dead_receiver_leave_nobody_out_and_tell_nobody_twice() {
    const ROUNDS: Number = 6;
    let engines = block_in_place(|| apart(Servers::shared()));
    let stage = notifying(engines, 2, 2).await;
    let url = stage.cluster.url();
    let hook = Hook::listen().await;
    Operator::at(&url).webhook(&hook.url).await;
    let crowd = judged::crowd(&url, &stage.folder, 5, 1).await;
    let away: Vec<UserId> = people(&url, 40).await.iter().map(Session::user).collect();
    let ana = crowd.device(0).unwrap().session();
    let there = crowd.devices().skip(1).map(|device| device.user());
    let members: Vec<UserId> = there.chain(away.iter().copied()).collect();
    let mut chats = Vec::new();
    for n in 0..PARTITIONS {
        chats.push(ana.create_group(&format!("group {n}"), &members).await.unwrap());
    }
    for round in 1..=ROUNDS {
        for (n, chat) in chats.iter().enumerate() {
            say(ana, *chat, &format!("message {round} of {n}")).await;
        }
        match round {
            2 => hook.answer(|_| (503, String::new())),
            // Some are just being told.
            3 => {
                sleep(SETTLE + Duration::from_millis(50)).await;
                stage.cluster.writer("writer-1").unwrap().kill9().unwrap();
            }
            5 => hook.answer(|_| (204, String::new())),
            _ => {}
        }
        sleep(Duration::from_secs(1)).await;
    }
    until_told(&hook, &chats, away[39], ROUNDS).await;
    sleep(3 * SETTLE).await;
    told_once(&hook, &chats, &away, 1..=ROUNDS);
    assert!(crowd.devices().all(|device| device.unanswered() == 0));
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_1_nobody_is_notified_who_is_connected_while_redis_does_not_know_it() {
    let redis = block_in_place(|| Servers::own(&["redis"]));
    let engines = block_in_place(|| apart_on(Servers::shared(), Servers::shared(), &redis));
    let stage = notifying(engines.clone(), 2, 2).await;
    let url = stage.cluster.url();
    let hook = Hook::listen().await;
    Operator::at(&url).webhook(&hook.url).await;
    let crowd = judged::crowd(&url, &stage.folder, 8, 1).await;
    let away = people(&url, 1).await[0].user();
    let ana = crowd.device(0).unwrap().session();
    let there = crowd.devices().skip(1).map(|device| device.user());
    let members: Vec<UserId> = there.chain([away]).collect();
    let chat = ana.create_group("group", &members).await.unwrap();
    // It is looked who is away right after that, and when it is known again.
    let mut said = 0;
    for before in [10, 100, 400, 900] {
        said += 1;
        say(ana, chat, &format!("message {said}")).await;
        sleep(SETTLE - Duration::from_millis(before)).await;
        assert_eq!(ask_redis(&engines, "FLUSHALL"), "OK");
        until_told(&hook, &[chat], away, said).await;
    }
    // All leases are over before anybody can prolong one.
    for _ in 0..3 {
        said += 1;
        say(ana, chat, &format!("message {said}")).await;
        block_in_place(|| redis.pause("redis"));
        sleep(Duration::from_millis(2 * SHOWN_MS)).await;
        block_in_place(|| redis.resume("redis"));
        until_told(&hook, &[chat], away, said).await;
    }
    // With nothing in it it begins anew.
    said += 1;
    say(ana, chat, &format!("message {said}")).await;
    block_in_place(|| redis.kill("redis"));
    sleep(SETTLE).await;
    block_in_place(|| redis.start("redis"));
    until_told(&hook, &[chat], away, said).await;
    told_once(&hook, &[chat], &[away], 1..=said);
    stage.cluster.stop().await.unwrap();
}
