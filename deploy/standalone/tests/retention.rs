//! How long messages are kept (ME-9): chosen by those who may change the group, told to its members, and acted on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::time::Duration;

use common::{shutdown::Shutdown, wire::codes::ErrorCode};
use loadtest::{check, client::rest::Session};
use reqwest::Method;
use serde_json::{Value, json};
use stage::{
    Folder, MEND, Stage,
    ear::Ear,
    people::{ask, get, person, person_at, refused},
    settings,
};
use standalone::{Cluster, Runtimes, Settings};

/// A cluster whose writer sweeps all the time.
async fn swept() -> Stage {
    let _ = common::telemetry::init("warn");
    let folder = Folder::new();
    let mut settings: Settings = settings(&folder, 2);
    settings.writer.sweep_every = Duration::from_millis(20);
    let cluster = Cluster::start(settings, Runtimes::Own, Shutdown::new()).await.unwrap();
    Stage { folder, cluster }
}

async fn id(session: &Session) -> String {
    get(session, "/api/v1/users/me").await["id"].as_str().unwrap().to_owned()
}

async fn history(session: &Session, chat: &str) -> Vec<Value> {
    let page = get(session, &format!("{chat}/messages?after=0&limit=100")).await;
    assert_eq!(page["complete"], true);
    page["results"].as_array().unwrap().clone()
}

/// Waits until so many messages of a chat have ended.
async fn ended(session: &Session, chat: &str, count: usize) {
    let all = async {
        loop {
            let ended = history(session, chat).await.iter().filter(|one| one["expired"] == true).count();
            assert!(ended <= count, "{ended} have ended");
            if ended == count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(MEND, all).await.unwrap_or_else(|_| panic!("{count} messages have not ended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn me_9_it_is_chosen_by_who_may_change_the_group_and_told_to_all() {
    let stage = swept().await;
    let (ana, ben) = (person(&stage, "Ana").await, person(&stage, "Ben").await);
    let ben_id = id(&ben).await;
    let group = ask(&ana, Method::POST, "/api/v1/chats", json!({"name": "Course", "members": [ben_id]}))
        .await
        .unwrap();
    assert!(group["retention"].is_null(), "{group}");
    let path = format!("/api/v1/chats/{}", group["id"].as_str().unwrap());
    let mut ear = Ear::open(&ben).await;
    let week = json!({"keep": "days", "days": 7});
    let patch = async |who: &Session, body: Value| ask(who, Method::PATCH, &path, body).await;
    refused(patch(&ben, json!({"retention": week})).await, ErrorCode::Forbidden);
    for (wrong, param) in [
        (json!({"keep": "days", "days": 0}), "retention.days"),
        (json!({"keep": "days", "days": 36_501}), "retention.days"),
        (json!({"keep": "days"}), "retention"),
        (json!({"keep": "never"}), "retention"),
        (json!("forever"), "retention"),
    ] {
        let refused = format!("{:?}", patch(&ana, json!({"retention": wrong})).await.unwrap_err());
        assert!(refused.contains("Invalid") && refused.contains(param), "{refused}");
    }
    let changed = patch(&ana, json!({"retention": week})).await.unwrap();
    assert_eq!((&changed["retention"], &changed["name"]), (&week, &json!("Course")));
    let told = ear.hear("chat_updated").await;
    assert_eq!((&told["retention"], &told["name"]), (&week, &Value::Null));
    let listed = async || get(&ben, "/api/v1/chats").await["results"][0]["retention"].clone();
    let shown = async { while listed().await != week {} };
    tokio::time::timeout(MEND, shown).await.expect("the list shows it");
    // Said again it changes nothing; a name changes the name.
    let seq = patch(&ana, json!({"retention": week})).await.unwrap()["seq"].clone();
    assert_eq!(patch(&ana, json!({"name": "Course 2"})).await.unwrap()["retention"], week);
    assert_eq!(seq, changed["seq"]);

    let direct = ask(&ana, Method::POST, "/api/v1/chats", json!({"host_id": ben_id})).await.unwrap();
    let direct = format!("/api/v1/chats/{}", direct["id"].as_str().unwrap());
    refused(ask(&ana, Method::PATCH, &direct, json!({"retention": week})).await, ErrorCode::Forbidden);
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn me_9_what_everybody_has_read_is_kept_by_clients_alone() {
    let stage = swept().await;
    let (ana, ben) = (person(&stage, "Ana").await, person(&stage, "Ben").await);
    let ben_id = id(&ben).await;
    let group = ask(&ana, Method::POST, "/api/v1/chats", json!({"name": "Course", "members": [ben_id]}))
        .await
        .unwrap();
    let chat_id = group["id"].as_str().unwrap().to_owned();
    let chat = format!("/api/v1/chats/{chat_id}");
    ask(&ana, Method::PATCH, &chat, json!({"retention": {"keep": "until_read"}})).await.unwrap();
    let messages = format!("{chat}/messages");
    let seq = get(&ben, &chat).await["seq"].as_u64().unwrap();
    let first = json!({"body": "message 1", "client_id": "c1"});
    let one = ask(&ana, Method::POST, &messages, first.clone()).await.unwrap();
    for n in 2..=4 {
        ask(&ana, Method::POST, &messages, json!({"body": format!("message {n}")})).await.unwrap();
    }
    assert_eq!(get(&ben, &chat).await["unread_count"], 4);
    ask(&ben, Method::POST, &format!("{chat}/read"), json!({"number": 3})).await.unwrap();
    ended(&ana, &chat, 3).await;
    for who in [&ana, &ben] {
        let all = history(who, &chat).await;
        let numbers: Vec<_> = all.iter().map(|one| one["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        for gone in &all[..3] {
            assert_eq!((&gone["body"], &gone["deleted"]), (&json!(""), &json!(true)));
        }
        assert_eq!((&all[0]["id"], &all[3]["body"]), (&one["id"], &json!("message 4")));
        assert!(all[3]["expired"].is_null());
    }
    let view = get(&ben, &chat).await;
    assert_eq!((&view["unread_count"], &view["messages_count"]), (&json!(1), &json!(4)));

    // Whoever comes back is told of them as history has them, from the log and from memory alike.
    let mut back = Ear::resume(&ben, json!({"chats": {&chat_id: seq}})).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let message = back.hear("new_message").await["message"].clone();
        told.push((message["body"].as_str().unwrap().to_owned(), message["expired"] == true));
    }
    let gone = || (String::new(), true);
    assert_eq!(told, [gone(), gone(), gone(), ("message 4".to_owned(), false)]);
    back.hear("resumed").await;
    let changes = json!({"type": "changes", "ref": 7, "chat": chat_id, "after": seq});
    back.say(changes).await;
    assert_eq!(back.hear("new_message").await["message"]["expired"], true);

    // There is nothing to be changed any more; a repeat is known for one, and numbers go on.
    let path = format!("{messages}/1");
    refused(ask(&ana, Method::PUT, &path, json!({"body": "edited"})).await, ErrorCode::NotFound);
    let thumb = format!("{path}/reactions/%F0%9F%91%8D");
    refused(ask(&ben, Method::PUT, &thumb, Value::Null).await, ErrorCode::NotFound);
    assert_eq!(ask(&ana, Method::POST, &messages, first).await.unwrap()["id"], one["id"]);
    let five = ask(&ana, Method::POST, &messages, json!({"body": "message 5"})).await.unwrap();
    assert_eq!(five["number"], 5);
    ask(&ben, Method::POST, &format!("{chat}/read"), json!({"number": 5})).await.unwrap();
    ended(&ben, &chat, 5).await;
    assert_eq!(get(&ben, &chat).await["unread_count"], 0);
    stage.cluster.stop().await.unwrap();
}

/// How long the log keeps what is drained, where it forgets soon.
const KEPT: Duration = Duration::from_millis(160);

#[tokio::test(flavor = "multi_thread")]
async fn me_9_what_was_deleted_goes_from_the_log_as_well_and_the_chat_goes_on() {
    let _ = common::telemetry::init("warn");
    let folder = Folder::new();
    let start = async || {
        let mut settings: Settings = settings(&folder, 2);
        settings.writer.sweep_every = Duration::from_millis(5);
        settings.writer.log_keep = KEPT;
        Cluster::start(settings, Runtimes::Own, Shutdown::new()).await.unwrap()
    };
    let mut cluster = start().await;
    let (ana, ben) = (person_at(&cluster.url(), "Ana").await, person_at(&cluster.url(), "Ben").await);
    let direct = json!({"host_id": id(&ben).await});
    let chat = ask(&ana, Method::POST, "/api/v1/chats", direct).await.unwrap();
    let chat = format!("/api/v1/chats/{}", chat["id"].as_str().unwrap());
    let messages = format!("{chat}/messages");
    let said = json!({"body": "a secret", "client_id": "c1"});
    let one = ask(&ana, Method::POST, &messages, said.clone()).await.unwrap();
    ask(&ben, Method::POST, &messages, json!({"body": "an answer"})).await.unwrap();
    ask(&ana, Method::DELETE, &format!("{messages}/1"), Value::Null).await.unwrap();

    let end = tokio::time::Instant::now() + MEND;
    loop {
        tokio::time::sleep(2 * KEPT).await;
        cluster.stop().await.unwrap();
        let files = folder.path().join("data").read_dir().unwrap().map(|file| file.unwrap());
        let log = files.filter(|file| file.file_name().to_string_lossy().starts_with("log.db"));
        let log: Vec<Vec<u8>> = log.filter_map(|file| std::fs::read(file.path()).ok()).collect();
        let says = |text: &str| {
            log.iter().any(|file| file.windows(text.len()).any(|window| window == text.as_bytes()))
        };
        cluster = start().await;
        if !says("a secret") && !says("an answer") {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "the log still has it");
    }

    let (ana, ben) = (ana.at(&cluster.url()).unwrap(), ben.at(&cluster.url()).unwrap());
    for who in [&ana, &ben] {
        let all = history(who, &chat).await;
        let shown: Vec<_> = all.iter().map(|one| (one["deleted"] == true, &one["body"])).collect();
        assert_eq!(shown, [(true, &json!("")), (false, &json!("an answer"))]);
    }
    // A repeat is known for one, and numbers go on.
    assert_eq!(ask(&ana, Method::POST, &messages, said).await.unwrap()["id"], one["id"]);
    let three = ask(&ana, Method::POST, &messages, json!({"body": "and on"})).await.unwrap();
    assert_eq!(three["number"], 3);
    assert_eq!(history(&ben, &chat).await.len(), 3);
    cluster.stop().await.unwrap();
    // Whoever compares rows with all of the log says that it is not all there.
    let refused = check::read_stored(&folder.path().join("data"), folder.path()).await.unwrap_err();
    assert!(refused.to_string().contains("log_keep"), "{refused}");
}
