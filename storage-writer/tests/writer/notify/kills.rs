//! Killed between any two steps, and run beside others: nobody is told twice, and nobody is left out.

use std::{sync::Arc, time::Duration};

use common::{
    ids::{ChatId, Number, UserId},
    notifications::{Preferences, QuietHours},
    store::Notify,
    time::Millis,
};
use rand::Rng;
use storage_writer::Engines;
use tokio::time::timeout;

use super::stage::{APP, Deadly, Hook, MINUTE, Stage, Step};
use crate::kit::until;

/// Past every lease.
const LEASE: i64 = MINUTE;

/// Each was told of each of these messages once, whatever it was told together with.
fn told_once(hook: &Hook, users: &[UserId], numbers: std::ops::RangeInclusive<Number>) {
    let told = hook.told();
    for user in users {
        let told: Vec<Number> =
            told.get(user).into_iter().flatten().flat_map(|(first, last, _)| *first..=*last).collect();
        assert_eq!(told, numbers.clone().collect::<Vec<_>>());
    }
    assert_eq!(told.len(), users.len());
}

async fn people(stage: &Stage, count: usize) -> Vec<UserId> {
    let mut people = Vec::new();
    for n in 0..count {
        people.push(stage.person(&format!("person-{n}"), None).await);
    }
    people
}

async fn say(stage: &mut Stage, chat: ChatId, by: UserId, count: usize) {
    for _ in 0..count {
        stage.say(chat, by, "again").await;
    }
}

async fn dies(step: Step, after: bool) {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let people = people(&stage, 4).await;
    let chat = stage.group(&people).await;
    let (ana, others) = people.split_first().unwrap();
    if step == Step::Told {
        let writer = stage.writer();
        let quiet_hours = Some(QuietHours { from: "11:00".parse().unwrap(), to: "13:00".parse().unwrap() });
        let preferences = Preferences { quiet_hours, ..Preferences::default() };
        stage.bench.drained().await;
        for user in others {
            let user = common::ids::UserKey { app: APP, user: *user };
            assert!(stage.bench.store.set_preferences(user, &preferences).await.unwrap());
        }
        say(&mut stage, chat, *ana, 3).await;
        stage.due().await;
        stage.quiet().await;
        writer.stop().await;
        stage.pass(60 * MINUTE);
    } else {
        say(&mut stage, chat, *ana, 3).await;
        // Written, and due at once.
        let writer = stage.writer();
        stage.bench.drained().await;
        writer.kill().await;
        stage.pass(10 * MINUTE);
    }
    let deadly = Deadly::new(stage.bench.store.clone() as Arc<dyn Notify>, step, after);
    let writer = stage.writer_with(Engines { notify: deadly.clone(), ..stage.engines() });
    timeout(Duration::from_secs(20), deadly.reached.notified()).await.expect("it gets there");
    writer.kill().await;
    stage.pass(LEASE);
    let writer = stage.writer();
    hook.until_told(others.len()).await;
    stage.quiet().await;
    let held = async || stage.bench.store.held(&[0], Millis(i64::MAX), 10).await.unwrap();
    until("nobody is held", async || held().await.is_empty()).await;
    told_once(&hook, others, 1..=3);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_a_writer_killed_between_any_two_steps_tells_nobody_twice_and_leaves_nobody_out() {
    for step in Step::ALL {
        for after in [false, true] {
            println!("{step:?}, after it: {after}");
            dies(step, after).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_writers_dropped_at_random_tell_everybody_once() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let people = people(&stage, 5).await;
    let chat = stage.group(&people).await;
    let (ana, others) = people.split_first().unwrap();
    let mut nth = 0;
    hook.answer(move |_| {
        nth += 1;
        (if nth % 5 == 0 { 500 } else { 204 }, String::new())
    });
    for _ in 0..30 {
        let writer = stage.writer();
        say(&mut stage, chat, *ana, 2).await;
        stage.pass(6 * MINUTE);
        let life = Duration::from_micros(rand::rng().random_range(0..60_000));
        tokio::time::sleep(life).await;
        writer.kill().await;
    }
    let (one, other) = (stage.writer(), stage.writer());
    stage.due().await;
    until("all is told and taken", async || {
        hook.told().get(&others[0]).is_some_and(|told| told.last().is_some_and(|(_, last, _)| *last == 60))
    })
    .await;
    stage.quiet().await;
    told_once(&hook, others, 1..=60);
    for writer in [one, other] {
        writer.stop().await;
    }
}
