//! What happens between a notification's coming up and its being sent: who need not be told any more is not.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use common::{
    ids::{ChatId, EndpointId, SessionId, UserId},
    notifications::{
        ChatPreferences, DeliveryState, NotificationKind, Preferences, QuietHours, Target, WebhookChange,
    },
    store::{ProfileChange, Relation},
    time::Millis,
    wire::record::What,
};
use tokio::sync::oneshot;
use web_push_native::p256::SecretKey;

use super::{
    stage::{APP, Hook, MINUTE, Stage, Step},
    who::{noon, prefer, read, user},
};
use crate::kit::{key, until};

/// What is said of what nobody has to be told of.
const NOBODY: Option<&str> = Some("nobody has to be told of it any more");

/// Ana, who writes, and others, in one chat in which they are told at once, each by a browser at `url`.
async fn chat(
    stage: &mut Stage,
    url: &str,
    others: &[&'static str],
) -> (ChatId, BTreeMap<&'static str, (UserId, EndpointId)>) {
    stage.at_once().await;
    let p256dh = SecretKey::from_slice(&[9; 32]).unwrap().public_key().to_sec1_bytes().to_vec();
    let mut people = BTreeMap::new();
    for name in ["ana"].iter().chain(others) {
        let user = stage.person(name, None).await;
        let (session, url) = (SessionId::random(), format!("{url}/{name}"));
        let target = Target::Push { user, session, url, p256dh: p256dh.clone(), auth: vec![5; 16] };
        people.insert(*name, (user, stage.endpoint(target).await));
    }
    let members: Vec<UserId> = people.values().map(|(user, _)| *user).collect();
    (stage.group(&members).await, people)
}

async fn tried(stage: &Stage, endpoint: EndpointId) {
    until("it was tried", async || {
        stage.deliveries(endpoint).await.first().is_some_and(|one| one.attempts > 0)
    })
    .await;
}

async fn is_for_nobody(stage: &Stage, endpoint: EndpointId) {
    until("it is given up", async || {
        stage.deliveries(endpoint).await.first().is_some_and(|one| one.state == DeliveryState::GivenUp)
    })
    .await;
    assert_eq!(stage.deliveries(endpoint).await[0].error.as_deref(), NOBODY);
}

/// Whom the last request named.
fn named(hook: &Hook) -> Vec<UserId> {
    let last = hook.heard().last().unwrap().json();
    let recipients = last["data"]["recipients"].as_array().unwrap().clone();
    recipients.into_iter().map(|one| serde_json::from_value(one["user"].clone()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_who_need_not_be_told_any_more_when_it_is_sent_is_not() {
    let mut stage = Stage::new().await;
    let (hook, browsers) = (Hook::listen().await, Hook::listen().await);
    for hook in [&hook, &browsers] {
        hook.answer(|_| (503, String::new()));
    }
    let webhook = stage.webhook(&hook.url).await;
    let changed = ["reads", "mutes", "mutes-all", "blocks", "comes", "is-here", "leaves"];
    let others = [&changed[..], &["waits"]].concat();
    let (chat, people) = chat(&mut stage, &browsers.url, &others).await;
    let (who, browser) = (|name: &str| people[name].0, |name: &str| people[name].1);
    let writer = stage.writer();
    stage.say(chat, who("ana"), "one").await;
    for name in &others {
        tried(&stage, browser(name)).await;
    }
    tried(&stage, webhook).await;
    assert_eq!(named(&hook).len(), others.len());

    stage.pass(1_000);
    read(&stage, chat, who("reads"), 1).await;
    let muted = ChatPreferences { muted_until: Some(stage.now()), kinds: None };
    assert!(stage.bench.store.set_chat_preferences(key(chat), who("mutes"), &muted).await.unwrap());
    let muted = Preferences { muted_until: Some(stage.now()), ..Preferences::default() };
    prefer(&stage, who("mutes-all"), muted).await;
    let (blocks, ana) = (user(who("blocks")), who("ana"));
    stage.bench.store.relate(blocks, Relation::Block, ana, true, Millis(1), 10).await.unwrap();
    let socket = stage.connect(who("comes")).await;
    stage.disconnect(who("comes"), socket).await;
    stage.connect(who("is-here")).await;
    stage.append(chat, who("leaves"), What::Left { user: who("leaves"), heir: None }).await;
    for name in changed {
        is_for_nobody(&stage, browser(name)).await;
    }
    until("nobody else is named", async || named(&hook) == [who("waits")]).await;
    for hook in [&hook, &browsers] {
        hook.answer(|_| (204, String::new()));
    }
    stage.quiet().await;
    assert_eq!(hook.told(), BTreeMap::from([(who("waits"), vec![(1, 1, 1)])]));
    until("taken", async || stage.deliveries(browser("waits")).await[0].state == DeliveryState::Delivered)
        .await;

    // When it is news to nobody any more nothing is sent, and what comes behind it is.
    hook.answer(|_| (503, String::new()));
    stage.say(chat, ana, "two").await;
    until("it was tried", async || {
        stage.deliveries(webhook).await.get(1).is_some_and(|one| one.attempts > 0)
    })
    .await;
    for name in others {
        read(&stage, chat, who(name), 2).await;
    }
    let second = async || stage.deliveries(webhook).await.remove(1);
    until("it is given up", async || second().await.state == DeliveryState::GivenUp).await;
    assert_eq!(second().await.error.as_deref(), NOBODY);
    hook.answer(|_| (204, String::new()));
    stage.say(chat, ana, "three").await;
    stage.bench.drained().await;
    stage.quiet().await;
    assert_eq!(hook.told()[&who("waits")], [(1, 1, 1), (3, 3, 1)]);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_of_several_messages_those_that_are_news_still_are_told() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let webhook = stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    hook.answer(|_| (503, String::new()));
    for text in ["one", "two", "three", "four"] {
        stage.say(chat, ana, text).await;
    }
    let writer = stage.writer();
    stage.due().await;
    tried(&stage, webhook).await;
    read(&stage, chat, ben, 1).await;
    stage.append(chat, ana, What::Erased { number: 4 }).await;
    stage.bench.drained().await;
    until("less is told", async || {
        let recipient = hook.heard().last().unwrap().json()["data"]["recipients"][0].clone();
        (&recipient["first"], &recipient["last"]) == (&2.into(), &3.into())
    })
    .await;
    hook.answer(|_| (204, String::new()));
    stage.quiet().await;
    assert_eq!(hook.told(), BTreeMap::from([(ben, vec![(2, 3, 2)])]));
    assert_eq!(hook.taken()[0].json()["data"]["message"]["body"], "three");
    writer.stop().await;
}

/// Two wait for one delivery that shows a message to all, which is deleted: another one is the newest to each. The writer that finds out dies
/// as it splits the delivery, if any, before it has or after.
async fn of_different_messages(dies: Option<bool>) {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let webhook = stage.webhook(&hook.url).await;
    let (ana, cleo) = (stage.person("ana", None).await, stage.person("cleo", None).await);
    let mentioned = stage.person("mentioned", None).await;
    let chat = stage.group(&[ana, cleo, mentioned]).await;
    hook.answer(|_| (503, String::new()));
    let (mut writer, deadly) = stage.writer_that_dies(Step::Split, dies);
    stage.bench.drained().await;
    let mentions = Preferences { kinds: [NotificationKind::Mention].into(), ..Preferences::default() };
    prefer(&stage, mentioned, mentions).await;
    stage.say_that(chat, ana, "one", |sent| sent.mentions = vec![mentioned]).await;
    stage.say(chat, ana, "two").await;
    stage.say_that(chat, ana, "three", |sent| sent.mention_all = true).await;
    stage.due().await;
    tried(&stage, webhook).await;
    assert_eq!(named(&hook).len(), 2);
    stage.append(chat, ana, What::Erased { number: 3 }).await;
    stage.bench.drained().await;
    if let Some(deadly) = deadly {
        deadly.reached.notified().await;
        writer.kill().await;
        stage.pass(MINUTE);
        writer = stage.writer();
    }
    until("there are two", async || stage.deliveries(webhook).await.len() == 2).await;
    hook.answer(|_| (204, String::new()));
    stage.quiet().await;
    assert_eq!(hook.told(), BTreeMap::from([(cleo, vec![(1, 2, 2)]), (mentioned, vec![(1, 1, 1)])]));
    let shown =
        hook.taken().iter().map(|one| one.json()["data"]["message"]["body"].clone()).collect::<Vec<_>>();
    assert_eq!(shown, ["two", "one"]);
    let all = stage.deliveries(webhook).await;
    assert!(all.iter().all(|one| one.state == DeliveryState::Delivered), "{all:?}");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_whoever_is_told_of_another_message_by_now_is_told_apart_and_once() {
    for dies in [None, Some(false), Some(true)] {
        println!("the writer dies: {dies:?}");
        of_different_messages(dies).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_a_message_that_is_deleted_as_it_is_decided_gives_way_to_the_one_before() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let webhook = stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    hook.answer(|_| (503, String::new()));
    let (writer, silent) = stage.writer_with_silent_cache();
    silent.answers.store(true, Ordering::SeqCst);
    stage.say(chat, ana, "one").await;
    stage.say(chat, ana, "two").await;
    stage.due().await;
    tried(&stage, webhook).await;
    // The messages were read before the cache is asked.
    let (asked, is_asked) = oneshot::channel();
    let (deleted, is_deleted) = oneshot::channel();
    silent.answers_after(async move {
        asked.send(()).unwrap();
        is_deleted.await.unwrap();
    });
    is_asked.await.unwrap();
    stage.append(chat, ana, What::Erased { number: 2 }).await;
    stage.bench.drained().await;
    hook.answer(|_| (204, String::new()));
    deleted.send(()).unwrap();
    stage.quiet().await;
    assert_eq!(hook.told(), BTreeMap::from([(ben, vec![(1, 1, 1)])]));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_while_nobody_knows_who_is_connected_nothing_is_sent() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let webhook = stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    hook.answer(|_| (503, String::new()));
    let (writer, silent) = stage.writer_with_silent_cache();
    silent.answers.store(true, Ordering::SeqCst);
    stage.say(chat, ana, "one").await;
    stage.due().await;
    tried(&stage, webhook).await;
    silent.answers.store(false, Ordering::SeqCst);
    // What was asked before may be on its way still.
    for _ in 0..3 {
        silent.asked.notified().await;
    }
    let heard = hook.heard().len();
    stage.pass(MINUTE);
    for _ in 0..3 {
        silent.asked.notified().await;
    }
    assert_eq!(hook.heard().len(), heard);
    hook.answer(|_| (204, String::new()));
    silent.answers.store(true, Ordering::SeqCst);
    stage.quiet().await;
    assert_eq!(hook.told(), BTreeMap::from([(ben, vec![(1, 1, 1)])]));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_2_whoever_takes_quiet_hours_away_is_told_soon_and_not_at_their_old_end() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let mut people = Vec::new();
    for name in ["ana", "takes-away", "shortens", "moves", "prolongs", "mutes"] {
        people.push(stage.person(name, None).await);
    }
    let [ana, takes_away, shortens, moves, prolongs, mutes] = people[..] else { panic!() };
    let chat = stage.group(&people).await;
    let writer = stage.writer();
    stage.bench.drained().await;
    for user in &people[1..] {
        prefer(&stage, *user, noon()).await;
    }
    stage.say(chat, ana, "one").await;
    stage.due().await;
    stage.quiet().await;
    let held = async || stage.bench.store.held(&[0], Millis(i64::MAX), 10).await.unwrap();
    until("they are held", async || held().await.len() == 5).await;
    assert!(hook.taken().is_empty());

    let hours = |from: &str, to: &str| {
        let quiet_hours = Some(QuietHours { from: from.parse().unwrap(), to: to.parse().unwrap() });
        Preferences { quiet_hours, ..Preferences::default() }
    };
    prefer(&stage, takes_away, Preferences::default()).await;
    prefer(&stage, shortens, hours("11:00", "12:01")).await;
    let elsewhere = Some(Some("Asia/Tokyo".to_owned()));
    let profile = ProfileChange { timezone: elsewhere, ..ProfileChange::default() };
    stage.bench.store.update_profile(APP, moves, &profile).await.unwrap();
    prefer(&stage, prolongs, hours("11:00", "14:00")).await;
    prefer(&stage, mutes, Preferences { muted_until: Some(stage.now()), ..noon() }).await;
    hook.until_told(3).await;
    until("the others are held no more", async || held().await.len() == 1).await;
    let one = vec![(1, 1, 1)];
    let mut told = BTreeMap::from([(takes_away, one.clone()), (shortens, one.clone()), (moves, one.clone())]);
    assert_eq!(hook.told(), told);
    stage.pass(60 * MINUTE);
    writer.looks_at("chats").await;
    assert_eq!(hook.told(), told, "an hour more");
    stage.pass(60 * MINUTE);
    hook.until_told(4).await;
    told.insert(prolongs, one);
    assert_eq!(hook.told(), told);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_2_quiet_hours_that_are_taken_away_as_it_is_decided_hold_nothing() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    let (writer, silent) = stage.writer_with_silent_cache();
    stage.bench.drained().await;
    prefer(&stage, ben, noon()).await;
    let store = stage.bench.store.clone();
    silent.answers_after(async move {
        assert!(store.set_preferences(user(ben), &Preferences::default()).await.unwrap());
    });
    stage.say(chat, ana, "one").await;
    stage.due().await;
    hook.until_told(1).await;
    assert_eq!(hook.told(), BTreeMap::from([(ben, vec![(1, 1, 1)])]));
    writer.stop().await;
}

/// Somebody's quiet hours begin while two endpoints of three are away: these tell them afterwards, once, and the third one has. The writer that
/// finds out dies as it notes that they are held, if any, before it has or after.
async fn held_on_the_way(dies: Option<bool>) {
    let mut stage = Stage::new().await;
    let (hook, other, browsers) = (Hook::listen().await, Hook::listen().await, Hook::listen().await);
    for hook in [&hook, &browsers] {
        hook.answer(|_| (503, String::new()));
    }
    let webhook = stage.webhook(&hook.url).await;
    stage.webhook(&other.url).await;
    let (chat, people) = chat(&mut stage, &browsers.url, &["sleeps", "wakes"]).await;
    let (ana, sleeps, wakes) = (people["ana"].0, people["sleeps"], people["wakes"]);
    let (mut writer, deadly) = stage.writer_that_dies(Step::Split, dies);
    stage.say(chat, ana, "one").await;
    for endpoint in [webhook, sleeps.1, wakes.1] {
        tried(&stage, endpoint).await;
    }
    other.until_told(2).await;
    prefer(&stage, sleeps.0, noon()).await;
    if let Some(deadly) = deadly {
        deadly.reached.notified().await;
        writer.kill().await;
        stage.pass(MINUTE);
        writer = stage.writer();
    }
    until("it is for the other alone", async || named(&hook) == [wakes.0]).await;
    until("nothing is sent to her browser", async || {
        stage.deliveries(sleeps.1).await[0].state == DeliveryState::GivenUp
    })
    .await;
    for hook in [&hook, &browsers] {
        hook.answer(|_| (204, String::new()));
    }
    stage.say(chat, ana, "two").await;
    stage.bench.drained().await;
    stage.quiet().await;
    let (first, second) = ((1, 1, 1), (2, 2, 1));
    let mut told = BTreeMap::from([(wakes.0, vec![first, second])]);
    assert_eq!(hook.told(), told);

    stage.pass(60 * MINUTE);
    hook.until("she is told of both", |hook| hook.told().get(&sleeps.0).is_some_and(|told| told.len() == 2))
        .await;
    stage.quiet().await;
    told.insert(sleeps.0, vec![first, second]);
    assert_eq!((hook.told(), other.told()), (told.clone(), told));
    let states = async |endpoint| {
        let all = stage.deliveries(endpoint).await;
        all.into_iter().map(|one| one.state).collect::<Vec<_>>()
    };
    use DeliveryState::{Delivered, GivenUp};
    until("by her browser as well", async || states(sleeps.1).await == [GivenUp, Delivered, Delivered]).await;
    assert_eq!(states(wakes.1).await, [Delivered, Delivered]);
    assert!(stage.bench.store.held(&[0], Millis(i64::MAX), 10).await.unwrap().is_empty());
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_2_quiet_hours_that_begin_while_a_notification_waits_hold_it_back() {
    for dies in [None, Some(false), Some(true)] {
        println!("the writer dies: {dies:?}");
        held_on_the_way(dies).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_2_quiet_hours_that_begin_before_the_first_attempt_hold_it_back_until_they_are_taken_away() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let webhook = stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    let (writer, silent) = stage.writer_with_silent_cache();
    silent.answers.store(true, Ordering::SeqCst);
    let store = stage.bench.store.clone();
    let switch = async |on| {
        let change = WebhookChange { enabled: Some(on), ..WebhookChange::default() };
        assert!(store.update_webhook(APP, webhook, &change).await.unwrap().is_some());
    };
    let queued = async |count| {
        until("it is queued", async || store.queued(APP, webhook, 10).await.unwrap().len() == count).await;
    };
    let held = async || store.held(&[0], Millis(i64::MAX), 10).await.unwrap().len();
    switch(false).await;
    for text in ["one", "two"] {
        stage.say(chat, ana, text).await;
    }
    stage.due().await;
    queued(1).await;
    prefer(&stage, ben, noon()).await;
    switch(true).await;
    until("he is held", async || held().await == 1).await;
    stage.quiet().await;
    assert!(hook.heard().is_empty());
    read(&stage, chat, ben, 1).await;
    prefer(&stage, ben, Preferences::default()).await;
    hook.until_told(1).await;
    assert_eq!(hook.told(), BTreeMap::from([(ben, vec![(2, 2, 1)])]), "of what is still unseen");

    // And once more, as it is decided.
    switch(false).await;
    stage.say(chat, ana, "three").await;
    stage.due().await;
    queued(1).await;
    prefer(&stage, ben, noon()).await;
    let to = stage.bench.store.clone();
    silent.answers_after(async move {
        assert!(to.set_preferences(user(ben), &Preferences::default()).await.unwrap());
    });
    switch(true).await;
    hook.until("he is told soon", |hook| hook.told()[&ben] == [(2, 2, 1), (3, 3, 1)]).await;
    assert_eq!(held().await, 0);
    writer.stop().await;
}
