//! Those who were away are notified, and nobody else: NO-1 to NO-3 through the one origin, to receivers on this machine.
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
    net::TcpListener,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use common::{
    address::Networks,
    ids::{Number, UserId},
    shutdown::Shutdown,
    time::Millis,
};
use hmac::{Hmac, KeyInit, Mac};
use loadtest::client::rest::{Session, patiently};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use stage::{
    Folder, MEND, Stage,
    ear::Ear,
    hook::{Heard, Hook, Told},
    operator::{self, Operator, Webhook, say},
    people::{ask, get, person, person_at},
    program::{self, Program, port},
    settings,
};
use standalone::{Cluster, Presence, Runtimes, Settings};
use storage_writer::{NotifyConfig, WriterConfig};
use tokio::time::{Instant, sleep};
use web_push_native::{
    Auth, decrypt,
    p256::{SecretKey, elliptic_curve::sec1::ToEncodedPoint},
};

/// How long every message waits: time enough to read one, or to come.
const SETTLE: Duration = Duration::from_millis(1_500);

/// A cluster that notifies quickly.
async fn cluster() -> (Stage, Operator) {
    let _ = common::telemetry::init("warn");
    let folder = Folder::new();
    let notify = NotifyConfig {
        allow: Networks::parse(["127.0.0.1"]).unwrap(),
        every: Duration::from_millis(50),
        settle: SETTLE,
        retry_first: Duration::from_millis(50),
        retry_longest: Duration::from_millis(200),
        ..NotifyConfig::default()
    };
    let settings = Settings {
        writer: WriterConfig { notify, ..WriterConfig::default() },
        presence: Presence { grace_ms: 300, ..Presence::default() },
        ..settings(&folder, 2)
    };
    let cluster = Cluster::start(settings, Runtimes::Own, Shutdown::new()).await.unwrap();
    let operator = Operator::at(&cluster.url());
    operator.at_once().await;
    (Stage { folder, cluster }, operator)
}

/// Whether a request is as the specification of Standard Webhooks has it.
fn genuine(heard: &Heard, webhook: &Webhook) {
    let secret = STANDARD.decode(webhook.secret.strip_prefix("whsec_").unwrap()).unwrap();
    let timestamp = &heard.headers["webhook-timestamp"];
    let age = Millis::now().as_secs() - timestamp.parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{age}");
    let mut hash = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
    hash.update(format!("{}.{timestamp}.", heard.id()).as_bytes());
    hash.update(&heard.body);
    let signature = heard.headers["webhook-signature"].strip_prefix("v1,").unwrap();
    hash.verify_slice(&STANDARD.decode(signature).unwrap()).expect("it is genuine");
    assert_eq!(heard.headers["content-type"], "application/json");
}

/// Whether requests are as the document says that is served.
async fn as_documented(url: &str, heard: &[Heard]) {
    let document: Value = reqwest::get(format!("{url}/openapi.json")).await.unwrap().json().await.unwrap();
    let operation = &document["webhooks"]["messages.unseen"]["post"];
    let schema = |schema: &Value| {
        let schema = json!({"allOf": [schema], "components": document["components"]});
        jsonschema::draft202012::new(&schema).unwrap()
    };
    let body = schema(&operation["requestBody"]["content"]["application/json"]["schema"]);
    for heard in heard {
        let wrong: Vec<_> = body.iter_errors(&heard.json()).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}: {heard:?}");
        for header in operation["parameters"].as_array().unwrap() {
            let value = json!(heard.headers[header["name"].as_str().unwrap()]);
            assert!(schema(&header["schema"]).is_valid(&value), "{header}: {value}");
        }
    }
}

fn told(all: &[(&Session, &[Told])]) -> BTreeMap<UserId, Vec<Told>> {
    all.iter().map(|(who, told)| (who.user(), told.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_1_exactly_those_are_notified_who_were_away_once_and_in_a_way_that_can_be_trusted() {
    let (stage, operator) = cluster().await;
    let hook = Hook::listen().await;
    let webhook = operator.webhook(&hook.url).await;
    let mut people = Vec::new();
    for name in ["Ana", "Eve", "Dan", "Fay", "Gus"] {
        people.push(person(&stage, name).await);
    }
    let [ana, eve, dan, fay, gus] = &people[..] else { panic!() };
    let connected = stage.crowd(1, 1).await;
    let ben = connected.device(0).unwrap().session().clone();
    let members: Vec<UserId> = people[1..].iter().chain([&ben]).map(Session::user).collect();
    let chat = ana.create_group("Course", &members).await.unwrap();
    let muted = json!({"muted_until": Millis::now().plus(Duration::from_secs(3_600))});
    ask(dan, Method::PUT, &format!("/api/v1/chats/{chat}/notifications"), muted).await.unwrap();
    let quiet = json!({"quiet_hours": {"from": "12:00", "to": "12:00"}});
    ask(fay, Method::PUT, "/api/v1/users/me/notifications", quiet).await.unwrap();

    say(ana, chat, "one").await;
    let read = format!("/api/v1/chats/{chat}/read");
    ask(eve, Method::POST, &read, json!({"number": 1})).await.unwrap();
    hook.until_told(1).await;
    sleep(SETTLE).await;
    let heard = hook.heard().clone();
    let [one] = heard.as_slice() else { panic!("{heard:?}") };
    genuine(one, &webhook);
    let event = one.json();
    assert_eq!(event["type"], "messages.unseen");
    assert_eq!(event["data"]["chat"], json!({"id": chat, "kind": "group", "name": "Course"}));
    let message = &event["data"]["message"];
    let about = [&message["number"], &message["from"], &message["from_name"], &message["body"]];
    assert_eq!(about, [&json!(1), &json!(ana.user()), &json!("Ana"), &json!("one")]);
    assert_eq!(
        event["data"]["recipients"],
        json!([{"user": gus.user(), "first": 1, "last": 1, "count": 1, "mentioned": false}])
    );
    let deliveries = operator.deliveries(&webhook).await;
    let [delivery] = deliveries.as_slice() else { panic!("{deliveries:?}") };
    assert_eq!(delivery["id"], one.id());
    assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("delivered"), &json!(1)));

    // Ben goes, with a word, and Gus comes: of what is written now it is the other way round.
    Arc::into_inner(connected).unwrap().stop().await.unwrap();
    let end = Instant::now() + MEND;
    while get(ana, &format!("/api/v1/users/{}/presence", ben.user())).await["status"] != "offline" {
        assert!(Instant::now() < end, "he is still there");
        sleep(Duration::from_millis(20)).await;
    }
    let _ear = Ear::open(gus).await;
    say(ana, chat, "two").await;
    hook.until_told(3).await;
    sleep(SETTLE).await;
    assert_eq!(hook.told(), told(&[(gus, &[(1, 1, 1)]), (&ben, &[(2, 2, 1)]), (eve, &[(2, 2, 1)])]));
    let heard = hook.heard().clone();
    assert_eq!(heard.len(), 2, "one for both");
    as_documented(&stage.cluster.url(), &heard).await;
    stage.cluster.stop().await.unwrap();
}

/// The program with the operator's key, that notifies quickly.
fn command(data: &Path, port: u16) -> Command {
    let mut command = program::command(data, port);
    command
        .env("CHAT_ADMIN_KEY", operator::KEY)
        .env("CHAT_WRITER__NOTIFY__ALLOW", "127.0.0.1")
        .env("CHAT_WRITER__NOTIFY__EVERY", "50")
        .env("CHAT_WRITER__NOTIFY__SETTLE", "300")
        .env("CHAT_PRESENCE__GRACE_MS", "300")
        .env("CHAT_WRITER__NOTIFY__RETRY_FIRST", "50")
        .env("CHAT_WRITER__NOTIFY__RETRY_LONGEST", "300");
    command
}

fn attempts(deliveries: &[Value]) -> u64 {
    deliveries.first().map_or(0, |first| first["attempts"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_3_killed_while_the_receiver_is_down_it_delivers_all_of_it_in_order_when_both_are_back() {
    let (folder, port) = (Folder::new(), port());
    let data = folder.path().join("data");
    let mut program = Program::start_as(command(&data, port)).await;
    let operator = Operator::at(&program.url);
    operator.at_once().await;
    // Nobody listens there for now.
    let place = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let webhook = operator.webhook(&format!("http://{place}/hook")).await;
    let (ana, gus) = (person_at(&program.url, "Ana").await, person_at(&program.url, "Gus").await);
    let chat = ana.create_group("Course", &[gus.user()]).await.unwrap();
    for n in 1..=3 {
        say(&ana, chat, &format!("message {n}")).await;
        operator.until(&webhook, "it is to be sent", |all| all.len() == n).await;
    }
    let before = operator.until(&webhook, "it was tried", |all| attempts(all) > 0).await;
    assert!(before[0]["error"].as_str().unwrap().contains("refused"), "{before:?}");

    program.kill();
    program = Program::start_as(command(&data, port)).await;
    let after = operator.until(&webhook, "it is tried again", |all| attempts(all) > attempts(&before)).await;
    assert!(after.iter().all(|one| one["state"] == "pending"), "{after:?}");
    // Killed as soon as these are acknowledged, whatever was done about them.
    for n in 4..=6 {
        say(&ana, chat, &format!("message {n}")).await;
    }
    program.kill();
    program = Program::start_as(command(&data, port)).await;
    let hook = Hook::listen_on(&place.to_string()).await;
    hook.until("all six are told", |hook| {
        hook.told().get(&gus.user()).is_some_and(|told| told.last().is_some_and(|last| last.1 == 6))
    })
    .await;
    let delivered =
        operator.until(&webhook, "all is taken", |all| all.iter().all(|one| one["state"] == "delivered"));
    let delivered = delivered.await;
    let numbers: Vec<Number> = hook.told()[&gus.user()].iter().flat_map(|one| one.0..=one.1).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "in order, each once");
    let heard = hook.heard().clone();
    heard.iter().for_each(|one| genuine(one, &webhook));
    let ids: Vec<&str> = heard.iter().map(Heard::id).collect();
    let known: Vec<&str> = delivered.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, known);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id for each");

    operator.send_again(&webhook, &delivered[1]).await;
    hook.until("it comes again", |hook| hook.heard().len() > ids.len()).await;
    let again = hook.heard().last().unwrap().clone();
    assert_eq!((again.id(), &again.body), (heard[1].id(), &heard[1].body));
    genuine(&again, &webhook);
    assert_eq!(hook.heard().len(), ids.len() + 1);
    assert!(program.stop(Duration::from_secs(10)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_1_whoever_was_connected_when_it_was_killed_and_comes_back_is_not_notified() {
    const SETTLE: Duration = Duration::from_secs(3);
    let (folder, port) = (Folder::new(), port());
    let start = async || {
        let mut command = command(&folder.path().join("data"), port);
        command.env("CHAT_WRITER__NOTIFY__SETTLE", SETTLE.as_millis().to_string());
        Program::start_as(command).await
    };
    let mut program = start().await;
    let (operator, hook) = (Operator::at(&program.url), Hook::listen().await);
    operator.at_once().await;
    operator.webhook(&hook.url).await;
    let mut people = Vec::new();
    for name in ["Ana", "Ben", "Gus"] {
        people.push(person_at(&program.url, name).await);
    }
    let [ana, ben, gus] = &people[..] else { panic!() };
    let chat = ana.create_group("Course", &[ben.user(), gus.user()]).await.unwrap();
    let ear = Ear::open(ben).await;
    say(ana, chat, "hello").await;
    program.kill();
    drop(ear);
    // When it is up again it is time already.
    sleep(SETTLE).await;
    program = start().await;
    sleep(SETTLE / 3).await;
    patiently(|| ben.location()).await.unwrap();
    let _ear = Ear::open(ben).await;
    hook.until_told(1).await;
    sleep(SETTLE).await;
    assert_eq!(hook.told(), told(&[(gus, &[(1, 1, 1)])]));
    assert!(program.stop(Duration::from_secs(10)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_1_a_browser_of_somebody_who_is_away_gets_what_only_it_can_read() {
    let (stage, _operator) = cluster().await;
    let (ana, gus) = (person(&stage, "Ana").await, person(&stage, "Gus").await);
    let connected = stage.crowd(1, 1).await;
    let ben = connected.device(0).unwrap().session().clone();
    let (secret, auth) = (SecretKey::from_slice(&[9; 32]).unwrap(), [5; 16]);
    let point = secret.public_key().to_encoded_point(false);
    let (away, there) = (Hook::listen().await, Hook::listen().await);
    for (who, hook) in [(&gus, &away), (&ben, &there)] {
        let keys = json!({
            "p256dh": URL_SAFE_NO_PAD.encode(point.as_bytes()), "auth": URL_SAFE_NO_PAD.encode(auth),
        });
        let subscription = json!({"endpoint": hook.url, "expirationTime": null, "keys": keys});
        let made = ask(who, Method::POST, "/api/v1/users/me/push", subscription).await.unwrap();
        assert!(made["id"].is_string(), "{made}");
    }
    let chat = ana.create_group("Course", &[gus.user(), ben.user()]).await.unwrap();
    say(&ana, chat, "hello").await;
    away.until("it comes", |hook| !hook.heard().is_empty()).await;
    sleep(SETTLE).await;
    let heard = away.heard().clone();
    let [one] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!(one.headers["content-encoding"], "aes128gcm");
    assert_eq!(one.headers["topic"], chat.0.as_simple().to_string());
    let key = get(&gus, "/api/v1/push").await["public_key"].as_str().unwrap().to_owned();
    let authorization = &one.headers["authorization"];
    assert!(authorization.starts_with("vapid t=ey") && authorization.contains(&format!("k={key}")));
    assert!(!one.body.windows(5).any(|some| some == b"hello"), "nobody else can read it");
    let shown: Value =
        serde_json::from_slice(&decrypt(one.body.clone(), &secret, &Auth::from(auth)).unwrap()).unwrap();
    let expected = json!({
        "chat": chat, "title": "Course", "body": "hello", "from": "Ana", "number": 1, "count": 1, "mentioned": false,
    });
    assert_eq!(shown, expected);
    assert!(there.heard().is_empty(), "he is there");

    // It is gone, says its service.
    away.answer(|_| (410, String::new()));
    say(&ana, chat, "again").await;
    let end = Instant::now() + MEND;
    while get(&gus, "/api/v1/users/me/push").await["results"] != json!([]) {
        assert!(Instant::now() < end, "it is not forgotten");
        sleep(Duration::from_millis(20)).await;
    }
    drop(connected);
    stage.cluster.stop().await.unwrap();
}
