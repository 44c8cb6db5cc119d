//! Who is told, of what, and when.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{
    ids::{Number, SessionId, UserId, UserKey},
    notifications::{ChatPreferences, NotificationKind, Preferences, QuietHours, Target},
    store::{ReadMark, Relation},
    time::Millis,
    wire::record::What,
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use web_push_native::{Auth, decrypt, p256::SecretKey};

use super::stage::{AFTER, APP, Hook, MINUTE, Stage, config};
use crate::kit::{Writer, key, until};

/// In the year 9892.
const CENTURIES: Millis = Millis(250_000_000_000_000);

pub(super) fn user(user: UserId) -> UserKey {
    UserKey { app: APP, user }
}

fn kinds(kinds: &[NotificationKind]) -> Preferences {
    Preferences { kinds: kinds.iter().copied().collect(), ..Preferences::default() }
}

/// From 11 to 13 o'clock, an hour from when every test begins.
pub(super) fn noon() -> Preferences {
    let quiet_hours = Some(QuietHours { from: "11:00".parse().unwrap(), to: "13:00".parse().unwrap() });
    Preferences { quiet_hours, ..Preferences::default() }
}

pub(super) async fn prefer(stage: &Stage, of: UserId, preferences: Preferences) {
    assert!(stage.bench.store.set_preferences(user(of), &preferences).await.unwrap());
}

pub(super) async fn read(stage: &Stage, chat: common::ids::ChatId, of: UserId, number: Number) {
    let mark = ReadMark { chat: key(chat), user: of, number, head: number };
    stage.bench.store.mark_read(&[mark]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_exactly_those_who_were_away_are_told_and_once() {
    use NotificationKind::{Mention, Reply};
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let id = stage.webhook(&hook.url).await;
    let mut people = BTreeMap::new();
    let names = [
        "ana",
        "away",
        "here",
        "read",
        "left",
        "later",
        "muted",
        "muted-here",
        "nothing",
        "mentioned",
        "answered",
        "unanswered",
        "blocker",
        "erased",
    ];
    for name in names {
        people.insert(name, stage.person(name, None).await);
    }
    let who = |name: &str| people[name];
    let chat = stage.group(&people.values().copied().collect::<Vec<_>>()).await;
    let writer = stage.writer();
    stage.bench.drained().await;
    let store = stage.bench.store.clone();

    prefer(
        &stage,
        who("muted"),
        Preferences { muted_until: Some(CENTURIES), ..kinds(&[NotificationKind::Message]) },
    )
    .await;
    let here =
        ChatPreferences { kinds: None, muted_until: Some(stage.now().plus(Duration::from_secs(3600))) };
    assert!(store.set_chat_preferences(key(chat), who("muted-here"), &here).await.unwrap());
    prefer(&stage, who("nothing"), kinds(&[])).await;
    for name in ["mentioned", "answered", "unanswered"] {
        prefer(&stage, who(name), kinds(&[Mention, Reply])).await;
    }
    store.relate(user(who("blocker")), Relation::Block, who("ana"), true, Millis(1), 10).await.unwrap();
    let here = stage.connect(who("here")).await;
    let left = stage.connect(who("left")).await;

    let first = stage.say(chat, who("answered"), "who comes?").await;
    let second = stage.say_that(chat, who("ana"), "I do, with @mentioned", |sent| {
        sent.mentions = vec![who("mentioned")];
        sent.reply_to = Some(first);
    });
    let second = second.await;
    let third = stage.say(chat, who("ana"), "and a cake").await;
    stage.bench.drained().await;
    read(&stage, chat, who("read"), third).await;
    // Gone, having been there when all of it was written; and one who is there only now.
    stage.disconnect(who("left"), left).await;
    let later = stage.connect(who("later")).await;
    store.erase_user(APP, who("erased"), stage.now()).await.unwrap();

    // Not yet.
    stage.pass(AFTER - MINUTE);
    writer.looks_at("chats").await;
    assert!(stage.deliveries(id).await.is_empty());
    stage.pass(MINUTE + 1);
    stage.quiet().await;
    let mut expected = BTreeMap::from([
        (who("away"), vec![(first, third, 3)]),
        (who("mentioned"), vec![(second, second, 1)]),
        (who("answered"), vec![(second, second, 1)]),
        (who("blocker"), vec![(first, first, 1)]),
    ]);
    assert_eq!(hook.told(), expected);
    writer.counts("writer_notifications_total", "made", 4.0).await;

    // Each as it was: the newest message of each, by whoever wrote it.
    for heard in hook.taken() {
        let event = heard.json();
        assert_eq!(event["type"], "messages.unseen");
        assert_eq!(event["data"]["chat"], json!({"id": chat, "kind": "group", "name": "Course"}));
        let (message, recipient) = (&event["data"]["message"], &event["data"]["recipients"][0]);
        assert_eq!(message["number"], recipient["last"]);
        let from = if message["number"] == first { "answered" } else { "ana" };
        assert_eq!((&message["from"], &message["from_name"]), (&json!(who(from)), &json!(from)));
        assert_eq!(recipient["mentioned"], json!(recipient["user"] == json!(who("mentioned"))));
        let mut hash = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
        hash.update(format!("{}.{}.", heard.id(), heard.headers["webhook-timestamp"]).as_bytes());
        hash.update(&heard.body);
        let signature = format!("v1,{}", STANDARD.encode(hash.finalize().into_bytes()));
        assert_eq!(heard.headers["webhook-signature"], signature);
    }

    // What comes now is told apart, and what was told is not told again.
    stage.disconnect(who("later"), later).await;
    stage.disconnect(who("here"), here).await;
    stage.pass(MINUTE);
    let fourth = stage.say(chat, who("away"), "without me").await;
    stage.due().await;
    stage.quiet().await;
    for name in ["ana", "here", "read", "left", "later", "blocker"] {
        expected.entry(who(name)).or_default().push((fourth, fourth, 1));
    }
    assert_eq!(hook.told(), expected);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_a_large_group_is_told_in_parts_and_everybody_once() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let people: Vec<UserId> = (0..2_300).map(|_| UserId::random()).collect();
    let chat = stage.group(&people).await;
    let writer = stage.writer();
    stage.say(chat, people[0], "hello").await;
    stage.due().await;
    stage.quiet().await;
    let told = hook.told();
    assert_eq!(told.len(), people.len() - 1);
    assert!(told.values().all(|told| told == &[(1, 1, 1)]));
    assert_eq!(hook.taken().len(), 5, "two pages of two parts, and the rest");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_more_messages_than_one_round_reads_are_told_in_several() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    for _ in 0..1_050 {
        stage.say(chat, ana, "again").await;
    }
    // What is too much for one round does not wait for more.
    let mut config = config(&["127.0.0.1"]);
    config.notify.gather = Duration::from_secs(24 * 3_600);
    let writer = Writer::start(stage.engines(), config);
    stage.due().await;
    stage.quiet().await;
    assert_eq!(hook.told(), BTreeMap::from([(ben, vec![(1, 1_000, 1_000), (1_001, 1_050, 50)])]));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_while_a_chat_goes_on_who_is_away_is_told_from_time_to_time_and_not_of_each_message() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let id = stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    let mut config = config(&["127.0.0.1"]);
    config.notify.gather = Duration::from_millis(2 * MINUTE as u64);
    let writer = Writer::start(stage.engines(), config);
    // One a minute, told after five: what comes in the two minutes after each notification is told together.
    for _ in 0..20 {
        stage.say(chat, ana, "again").await;
        stage.bench.drained().await;
        stage.pass(MINUTE);
        writer.looks_at("chats").await;
    }
    let told = stage.deliveries(id).await;
    assert!((5..=8).contains(&told.len()), "{told:?}");
    stage.due().await;
    stage.pass(2 * MINUTE);
    stage.quiet().await;
    let told = hook.told().remove(&ben).unwrap_or_default();
    assert!((7..=10).contains(&told.len()), "{told:?}");
    let numbers: Vec<Number> = told.iter().flat_map(|(first, last, _)| *first..=*last).collect();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>(), "each message once");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_what_is_no_more_is_not_told() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    let gone = stage.group(&[ana, ben]).await;
    let writer = stage.writer();
    let number = stage.say(chat, ana, "a slip").await;
    stage.append(chat, ana, What::Erased { number }).await;
    stage.say(gone, ana, "hello?").await;
    stage.append(gone, ana, What::Deleted).await;
    stage.due().await;
    stage.quiet().await;
    assert!(hook.heard().is_empty());
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_2_in_quiet_hours_nobody_is_told_and_after_them_only_of_what_is_still_unseen() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let names = ["ana", "sleeps", "reads", "comes", "is-here", "mutes", "leaves"];
    let mut people = BTreeMap::new();
    for name in names {
        people.insert(name, stage.person(name, None).await);
    }
    // It is nine in the evening there, and not quiet.
    people.insert("awake", stage.person("awake", Some("Asia/Tokyo")).await);
    let who = |name: &str| people[name];
    let chat = stage.group(&people.values().copied().collect::<Vec<_>>()).await;
    let writer = stage.writer();
    stage.bench.drained().await;
    for name in ["sleeps", "reads", "comes", "is-here", "mutes", "leaves", "awake"] {
        prefer(&stage, who(name), noon()).await;
    }
    stage.say(chat, who("ana"), "one").await;
    stage.due().await;
    stage.quiet().await;
    assert_eq!(hook.told(), BTreeMap::from([(who("awake"), vec![(1, 1, 1)])]));
    let second = stage.say(chat, who("ana"), "two").await;
    stage.due().await;
    stage.quiet().await;
    assert_eq!(hook.told(), BTreeMap::from([(who("awake"), vec![(1, 1, 1), (2, 2, 1)])]));
    writer.counts("writer_notifications_total", "held", 12.0).await;

    read(&stage, chat, who("reads"), second).await;
    let socket = stage.connect(who("comes")).await;
    stage.disconnect(who("comes"), socket).await;
    stage.connect(who("is-here")).await;
    prefer(&stage, who("mutes"), Preferences { muted_until: Some(stage.now()), ..noon() }).await;
    stage.append(chat, who("leaves"), What::Left { user: who("leaves"), heir: None }).await;
    stage.bench.drained().await;
    stage.pass(60 * MINUTE);
    hook.until_told(2).await;
    let held = async || stage.bench.store.held(&[0], Millis(i64::MAX), 10).await.unwrap();
    until("nobody is held", async || held().await.is_empty()).await;
    stage.quiet().await;
    let told = BTreeMap::from([(who("awake"), vec![(1, 1, 1), (2, 2, 1)]), (who("sleeps"), vec![(1, 2, 2)])]);
    assert_eq!(hook.told(), told);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_2_of_a_long_night_the_newest_is_told_and_whoever_is_told_of_little_is_not_forgotten() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let mut people = Vec::new();
    for name in ["ana", "ben", "eve"] {
        people.push(stage.person(name, None).await);
    }
    let [ana, ben, eve] = people[..] else { panic!() };
    let chat = stage.group(&people).await;
    stage.say_that(chat, ana, "@ben", |sent| sent.mentions = vec![ben]).await;
    for _ in 0..1_004 {
        stage.say(chat, ana, "again").await;
    }
    let writer = stage.writer();
    stage.bench.drained().await;
    let mentions = kinds(&[NotificationKind::Mention]);
    prefer(&stage, ben, Preferences { kinds: mentions.kinds, ..noon() }).await;
    prefer(&stage, eve, noon()).await;
    stage.due().await;
    stage.quiet().await;
    assert!(hook.taken().is_empty());
    stage.pass(60 * MINUTE);
    hook.until_told(2).await;
    let told = BTreeMap::from([(ben, vec![(1, 1, 1)]), (eve, vec![(6, 1_005, 1_000)])]);
    assert_eq!(hook.told(), told);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_2_quiet_hours_that_are_the_whole_day_hold_from_day_to_day() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    let writer = stage.writer();
    stage.bench.drained().await;
    let time = "12:30".parse().unwrap();
    let quiet_hours = Some(QuietHours { from: time, to: time });
    prefer(&stage, ben, Preferences { quiet_hours, ..Preferences::default() }).await;
    stage.say(chat, ana, "one").await;
    stage.due().await;
    let until_when = async || {
        let held = stage.bench.store.held(&[0], Millis(i64::MAX), 10).await.unwrap();
        held.first().map(|held| held.until)
    };
    until("held", async || until_when().await.is_some()).await;
    let first = until_when().await;
    stage.pass(60 * MINUTE);
    until("held again", async || until_when().await > first).await;
    prefer(&stage, ben, Preferences::default()).await;
    stage.pass(24 * 60 * MINUTE);
    hook.until_told(1).await;
    assert_eq!(hook.told(), BTreeMap::from([(ben, vec![(1, 1, 1)])]));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_while_nobody_knows_who_is_connected_nobody_is_told() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    stage.webhook(&hook.url).await;
    let (chat, ana, ben) = stage.pair().await;
    let (writer, silent) = stage.writer_with_silent_cache();
    stage.say(chat, ana, "one").await;
    stage.due().await;
    silent.asked.notified().await;
    silent.asked.notified().await;
    assert!(hook.heard().is_empty());
    silent.answers.store(true, Ordering::SeqCst);
    hook.until_told(1).await;
    assert_eq!(hook.told(), BTreeMap::from([(ben, vec![(1, 1, 1)])]));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_a_browser_is_told_in_a_way_that_only_it_can_read() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let names = ["ana", "ben", "eve", "dan"];
    let mut people = Vec::new();
    for name in names {
        people.push(stage.person(name, None).await);
    }
    let [ana, ben, eve, dan] = people[..] else { panic!() };
    let secret = SecretKey::from_slice(&[9; 32]).unwrap();
    let p256dh = secret.public_key().to_sec1_bytes().to_vec();
    // Of those who have one, one is there.
    for (user, path) in [(ben, "/ben"), (eve, "/eve")] {
        let url = hook.url.replace("/hook", path);
        stage
            .endpoint(Target::Push {
                user,
                session: SessionId::random(),
                url,
                p256dh: p256dh.clone(),
                auth: vec![5; 16],
            })
            .await;
    }
    stage.connect(eve).await;
    let chat = stage.group(&[ana, ben, eve, dan]).await;
    let writer = stage.writer();
    stage.say(chat, ana, "one").await;
    stage.say_that(chat, ana, "two, @all", |sent| sent.mention_all = true).await;
    stage.due().await;
    until("it was sent", async || !hook.heard().is_empty()).await;
    stage.quiet().await;
    let heard = hook.heard().clone();
    let [one] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!(one.headers["content-encoding"], "aes128gcm");
    assert_eq!(one.headers["ttl"], "86400");
    assert_eq!(one.headers["topic"], chat.0.as_simple().to_string());
    assert!(one.headers["authorization"].starts_with("vapid t="));
    let opened = decrypt(one.body.clone(), &secret, &Auth::from([5; 16])).unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&opened).unwrap();
    let expected = json!({
        "chat": chat, "title": "Course", "body": "two, @all", "from": "ana", "number": 2, "count": 2, "mentioned": true,
    });
    assert_eq!(shown, expected);
    writer.counts("writer_deliveries_total", "browser", 1.0).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_an_application_decides_how_long_and_whether_it_shows_what_was_said() {
    let (mut stage, hook) = (Stage::new().await, Hook::listen().await);
    let id = stage.webhook(&hook.url).await;
    let (chat, ana, _) = stage.pair().await;
    let writer = stage.writer();
    let store = &stage.bench.store;
    let mut settings = common::applications::AppSettings::default();
    (settings.notifications.after_seconds, settings.notifications.show_body) = (3_600, false);
    let seen = store.application_changes().await.unwrap();
    assert!(store.update_application(APP, "default", &settings, seen).await.unwrap());
    stage.say(chat, ana, "a secret").await;
    stage.due().await;
    writer.looks_at("chats").await;
    assert!(stage.deliveries(id).await.is_empty());
    stage.pass(56 * MINUTE);
    hook.until_told(1).await;
    let event = hook.taken()[0].json();
    assert_eq!(
        (event["data"]["message"].get("body"), &event["data"]["message"]["type"]),
        (None, &json!("text"))
    );
    writer.stop().await;
}
