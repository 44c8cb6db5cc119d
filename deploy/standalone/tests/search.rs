//! Finding messages (ME-6) through the cluster's one origin, on several nodes, with writers that make the index meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use common::{time::Millis, wire::codes::ErrorCode};
use loadtest::client::rest::Session;
use reqwest::Method;
use serde_json::{Value, json};
use stage::{
    MEND, Stage,
    people::{ask, person, refused},
};

async fn found(who: &Session, path: &str, query: &str) -> Vec<u64> {
    let answer = ask(who, Method::POST, path, json!({ "query": query })).await.unwrap();
    assert_eq!(answer["complete"], true, "{answer}");
    let number = |message: &Value| message["number"].as_u64().unwrap();
    answer["results"].as_array().unwrap().iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn me_6_messages_are_found_as_soon_as_they_are_acknowledged_and_after_they_are_indexed() {
    let stage = Stage::new(3).await;
    let (ana, ben) = (person(&stage, "Ana").await, person(&stage, "Ben").await);
    let body = json!({ "name": "Course", "members": [ben.user()] });
    let made = ask(&ana, Method::POST, "/api/v1/chats", body).await.unwrap();
    let chat = format!("/api/v1/chats/{}", made["id"].as_str().unwrap());
    let (messages, search) = (format!("{chat}/messages"), format!("{chat}/messages/search"));
    let say = async |body: String| {
        let said = ask(&ana, Method::POST, &messages, json!({ "body": body })).await.unwrap();
        said["number"].as_u64().unwrap()
    };
    let mut said = Vec::new();
    for n in 0..270_u32 {
        let number =
            say(format!("lesson {n:03}, {}", if n % 90 == 7 { "with homework" } else { "none" })).await;
        if n % 90 == 7 {
            said.insert(0, number);
            // At once, by another member, whose node is another.
            assert_eq!(found(&ben, &search, "homework").await, said);
        }
    }
    // The index follows: when nothing is due any more, it has been made.
    let store = stage.cluster.engines().store.clone();
    let indexed = async {
        while store.index_changed(Millis(i64::MAX)).await.unwrap() == 0 {
            let body = json!({ "body": format!("lesson {}, with homework", Millis::now().0) });
            ask(&ana, Method::PUT, &format!("{messages}/{}", said[2]), body).await.unwrap();
        }
    };
    tokio::time::timeout(MEND, indexed).await.expect("a changed message is in no segment");
    for (query, expected) in [
        ("homework", said.clone()),
        ("HOMEWROK", said.clone()),
        ("omewor", said.clone()),
        ("lesson 097", vec![98]),
        ("absent", vec![]),
    ] {
        assert_eq!(found(&ben, &search, query).await, expected, "{query}");
    }
    ask(&ana, Method::PUT, &format!("{messages}/101"), json!({ "body": "東京へ行く" })).await.unwrap();
    ask(&ana, Method::DELETE, &format!("{messages}/{}", said[1]), Value::Null).await.unwrap();
    assert_eq!(found(&ben, &search, "東京").await, [101]);
    assert_eq!(found(&ben, &search, "homework").await, [said[0], said[2]]);
    assert_eq!(found(&ben, &search, "lesson 100").await, [] as [u64; 0]);

    // In all chats, once it is stored.
    let all = async { while found(&ben, "/api/v1/messages/search", "東京").await != [101] {} };
    tokio::time::timeout(MEND, all).await.expect("not found in all chats");
    let eve = person(&stage, "Eve").await;
    assert_eq!(found(&eve, "/api/v1/messages/search", "lesson").await, [] as [u64; 0]);
    let body = || json!({ "query": "lesson" });
    refused(ask(&eve, Method::POST, &search, body()).await, ErrorCode::NotFound);
    ask(&ana, Method::DELETE, &format!("{chat}/members/{}", ben.user()), Value::Null).await.unwrap();
    refused(ask(&ben, Method::POST, &search, body()).await, ErrorCode::NotFound);
    assert_eq!(found(&ben, "/api/v1/messages/search", "lesson").await, [] as [u64; 0]);
    for bad in
        [json!({}), json!({"query": ""}), json!({"query": "x".repeat(101)}), json!({"query": "a\u{0}"})]
    {
        refused(ask(&ana, Method::POST, &search, bad).await, ErrorCode::Invalid);
    }
    stage.cluster.stop().await.unwrap();
}
