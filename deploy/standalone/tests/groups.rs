//! Groups through the cluster's one origin, with several nodes: who may what (CH-4), how they are called (CH-3), and very large ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]
#![allow(clippy::print_stdout, reason = "how long it took, for whoever wants to know")]

mod stage;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use common::{ids::UserId, model::limits, wire::codes::ErrorCode};
use loadtest::client::rest::Session;
use reqwest::Method;
use serde_json::{Value, json};
use stage::{
    Stage,
    ear::Ear,
    people::{ask, get, person, refused},
};

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_given_taken_and_handed_over_and_everybody_hears_of_it_ch_4() {
    let stage = Stage::new(2).await;
    let (ana, ben, eve) =
        (person(&stage, "Ana").await, person(&stage, "Ben").await, person(&stage, "Eve").await);
    let made = ask(&ana, Method::POST, "/api/v1/chats", json!({ "name": "Course", "members": [ben.user()] }));
    let chat = format!("/api/v1/chats/{}", made.await.unwrap()["id"].as_str().unwrap());
    let member = |who: &Session| format!("{chat}/members/{}", who.user());
    let give = async |by: &Session, who: &Session, role: &str| {
        ask(by, Method::PUT, &member(who), json!({ "role": role })).await
    };
    let roles = async || {
        let list = get(&ana, &format!("{chat}/members")).await;
        let members = list["results"].as_array().unwrap();
        members.iter().map(|member| member["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut ear = Ear::open(&ben).await;

    refused(ask(&ben, Method::PUT, &member(&eve), Value::Null).await, ErrorCode::Forbidden);
    refused(give(&ben, &ben, "admin").await, ErrorCode::Forbidden);
    refused(give(&eve, &ben, "admin").await, ErrorCode::NotFound);
    give(&ana, &ben, "admin").await.unwrap();
    let heard = ear.hear_one(|frame| !frame["roles"].is_null(), "a new role").await;
    assert_eq!(heard["type"], "chat_updated");
    assert_eq!(heard["roles"], json!([{ "user": ben.user(), "role": "admin" }]));
    assert_eq!((&heard["seq"], &heard["by"]), (&json!(2), &json!(ana.user())));
    assert_eq!(roles().await, ["owner", "admin"]);

    // What an admin may, and may not.
    give(&ben, &eve, "member").await.unwrap();
    refused(give(&ben, &eve, "admin").await, ErrorCode::Forbidden);
    refused(ask(&ben, Method::DELETE, &chat, Value::Null).await, ErrorCode::Forbidden);
    ask(&ben, Method::PATCH, &chat, json!({ "name": "Ben's course" })).await.unwrap();
    give(&ana, &eve, "admin").await.unwrap();
    refused(ask(&ben, Method::DELETE, &member(&eve), Value::Null).await, ErrorCode::Forbidden);
    give(&ana, &eve, "member").await.unwrap();
    refused(give(&ana, &ana, "member").await, ErrorCode::Forbidden);

    // Handed over: one owner, and the old one is an admin.
    give(&ana, &ben, "owner").await.unwrap();
    let heard = ear.hear_one(|frame| frame["roles"][0]["role"] == "owner", "the hand-over").await;
    assert_eq!(heard["roles"][1], json!({ "user": ana.user(), "role": "admin" }));
    assert_eq!(roles().await, ["admin", "owner", "member"]);
    refused(ask(&ana, Method::DELETE, &chat, Value::Null).await, ErrorCode::Forbidden);

    // Who was away learns of it all from the log.
    let mut back = Ear::open(&ana).await;
    back.say(json!({ "type": "changes", "ref": 2, "chat": chat.rsplit('/').next(), "after": 1 })).await;
    let mut told = Vec::new();
    loop {
        let frame =
            back.hear_one(|frame| !frame["seq"].is_null() || frame["type"] == "resumed", "changes").await;
        if frame["type"] == "resumed" {
            break;
        }
        told.extend(frame["roles"].as_array().map(Vec::len));
    }
    assert_eq!(told, [1, 1, 1, 2], "three roles given, and a hand-over");

    // The owner leaves: the admin inherits.
    ask(&ben, Method::DELETE, &member(&ben), Value::Null).await.unwrap();
    assert_eq!(roles().await, ["owner", "member"]);
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_a_name_is_called_after_its_members_wherever_it_is_shown_ch_3() {
    let stage = Stage::new(2).await;
    let mut people = Vec::new();
    for name in ["Ana", "Ben", "Cem", "Dan", "Eva", "Fay"] {
        people.push(person(&stage, name).await);
    }
    let mut ears = Vec::new();
    for person in &people {
        ears.push(Ear::open(person).await);
    }
    let ids: Vec<UserId> = people.iter().map(Session::user).collect();
    let made =
        ask(&people[0], Method::POST, "/api/v1/chats", json!({ "members": &ids[1..3] })).await.unwrap();
    let chat = format!("/api/v1/chats/{}", made["id"].as_str().unwrap());
    assert_eq!(made["name"], "Ben, Cem");
    let shown = async |who: usize| {
        let one = get(&people[who], &chat).await["name"].clone();
        let list = get(&people[who], "/api/v1/chats").await["results"][0]["name"].clone();
        assert!(list == one || list == "Trip", "{list} in the list, and {one} alone");
        list.as_str().unwrap().to_owned()
    };
    for (who, name) in [(0, "Ben, Cem"), (1, "Ana, Cem"), (2, "Ana, Ben")] {
        assert_eq!(ears[who].hear("new_chat").await["chat"]["name"], name);
        assert_eq!(shown(who).await, name);
    }
    for user in &ids[3..] {
        ask(&people[0], Method::PUT, &format!("{chat}/members/{user}"), Value::Null).await.unwrap();
    }
    assert_eq!(ears[5].hear("new_chat").await["chat"]["name"], "Ana, Ben, Cem and 2 more");
    assert_eq!(shown(0).await, "Ben, Cem, Dan and 2 more");
    assert_eq!(shown(4).await, "Ana, Ben, Cem and 2 more");
    for user in &ids[1..4] {
        ask(&people[0], Method::DELETE, &format!("{chat}/members/{user}"), Value::Null).await.unwrap();
    }
    assert_eq!((shown(0).await.as_str(), shown(4).await.as_str()), ("Eva, Fay", "Ana, Fay"));
    // A name ends that, and who is alone is called by their own.
    ask(&people[0], Method::PATCH, &chat, json!({ "name": "Trip" })).await.unwrap();
    for who in [0, 4, 5] {
        let named = ears[who].hear_one(|frame| !frame["name"].is_null(), "the new name").await;
        assert_eq!(named["name"], "Trip");
        // A new name is in the log before it is in the store.
        while shown(who).await != "Trip" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let alone = ask(&people[0], Method::POST, "/api/v1/chats", json!({ "members": [] })).await.unwrap();
    assert_eq!(alone["name"], "Ana");
    stage.cluster.stop().await.unwrap();
}

/// The store's file, besides the cluster: to put in and to count what would take too long through the door.
struct File(sqlx::SqliteConnection);

impl File {
    async fn open(stage: &Stage) -> Self {
        use sqlx::ConnectOptions as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(stage.folder.path().join("data/store.db"))
            .busy_timeout(Duration::from_secs(20));
        Self(options.connect().await.unwrap())
    }

    /// Users of the default application, whom nobody has registered.
    async fn people(&mut self, count: usize) -> Vec<UserId> {
        let count = i64::try_from(count).unwrap();
        let rows: Vec<(Vec<u8>,)> = sqlx::query_as(
            "INSERT INTO users (app, id, username, folded, name, created_at, password_hash)
             SELECT (SELECT id FROM applications WHERE name = 'default'), randomblob(16), 'user ' || n, 'user ' || n,
                    'User ' || n, 0, ''
             FROM (WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?) SELECT n FROM c)
             RETURNING id",
        )
        .bind(count)
        .fetch_all(&mut self.0)
        .await
        .unwrap();
        rows.into_iter().map(|(id,)| UserId::from_slice(&id).unwrap()).collect()
    }

    /// From now on each row that is written is counted.
    async fn count(&mut self) {
        let mut script = String::from("CREATE TABLE written (name TEXT, what TEXT);");
        let tables: Vec<(String,)> = sqlx::query_as(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> 'positions'
             AND name <> 'written'",
        )
        .fetch_all(&mut self.0)
        .await
        .unwrap();
        for (table,) in tables {
            for what in ["INSERT", "UPDATE", "DELETE"] {
                script += &format!(
                    "CREATE TRIGGER written_{table}_{what} AFTER {what} ON {table}
                     BEGIN INSERT INTO written VALUES ('{table}', '{what}'); END;"
                );
            }
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut self.0).await.unwrap();
    }

    /// Messages written since [`Self::written`] was called.
    async fn messages_written(&mut self) -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM written WHERE name = 'messages'");
        count.fetch_one(&mut self.0).await.unwrap()
    }

    /// What was written since the last call, in order of its name.
    async fn written(&mut self) -> Vec<(String, String, i64)> {
        let written = sqlx::query_as(
            "SELECT name, what, count(*) FROM written GROUP BY name, what ORDER BY name, what",
        )
        .fetch_all(&mut self.0)
        .await
        .unwrap();
        sqlx::query("DELETE FROM written").execute(&mut self.0).await.unwrap();
        written
    }
}

/// Records that all nodes have appended as owners.
async fn appended(stage: &Stage) -> u64 {
    let mut all = 0;
    for (_, url) in stage.cluster.nodes() {
        let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with("owner_appended_total")).unwrap();
        all += line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_fifty_thousand_is_made_at_once_and_a_message_in_it_costs_what_it_does_in_a_small_one_ch_3()
 {
    let stage = Stage::new(2).await;
    let (ana, ben) = (person(&stage, "Ana").await, person(&stage, "Ben").await);
    let mut file = File::open(&stage).await;
    let mut members = vec![ben.user()];
    members.extend(file.people(limits::MEMBERS - 2).await);
    let mut ear = Ear::open(&ben).await;

    let asked = Instant::now();
    let made = ask(&ana, Method::POST, "/api/v1/chats", json!({ "members": members })).await.unwrap();
    println!("{} members were made in {:?}", limits::MEMBERS, asked.elapsed());
    assert_eq!(made["members_count"], limits::MEMBERS);
    assert_eq!(made["members"].as_array().unwrap().len(), limits::MEMBERS_SHOWN);
    assert!(made["name"].as_str().unwrap().ends_with("and 49996 more"), "{}", made["name"]);
    assert_eq!(ear.hear("new_chat").await["chat"]["id"], made["id"]);
    let large = format!("/api/v1/chats/{}", made["id"].as_str().unwrap());

    // Everybody is on some page, once.
    let asked = Instant::now();
    let mut listed = HashSet::new();
    for page in 1..=limits::MEMBERS / 100 {
        let page = get(&ben, &format!("{large}/members?perPage=100&page={page}")).await;
        assert_eq!(page["total"], limits::MEMBERS / 100);
        for member in page["results"].as_array().unwrap() {
            listed.insert(member["id"].as_str().unwrap().to_owned());
        }
    }
    println!("all pages were read in {:?}", asked.elapsed());
    let expected: HashSet<String> = members.iter().chain([&ana.user()]).map(ToString::to_string).collect();
    assert!(listed == expected, "{} of {}", listed.len(), expected.len());

    // One more than there may be.
    let mut more = members.clone();
    more.push(UserId::random());
    refused(ask(&ana, Method::POST, "/api/v1/chats", json!({ "members": more })).await, ErrorCode::Invalid);
    let late = person(&stage, "Late").await;
    let door = format!("{large}/members/{}", late.user());
    refused(ask(&ana, Method::PUT, &door, Value::Null).await, ErrorCode::TooLarge);

    let body = json!({ "name": "small", "members": [ben.user()] });
    let small = ask(&ana, Method::POST, "/api/v1/chats", body).await.unwrap();
    let small = format!("/api/v1/chats/{}", small["id"].as_str().unwrap());
    file.count().await;
    let mut ear = Ear::open(&ben).await;
    let mut costs = Vec::new();
    for chat in [&small, &large] {
        let before = appended(&stage).await;
        for number in 1..=5 {
            let sent = ask(&ana, Method::POST, &format!("{chat}/messages"), json!({ "body": "hello" })).await;
            assert_eq!(sent.unwrap()["number"], number);
            let here = |frame: &Value| {
                frame["message"]["number"] == number && chat.ends_with(frame["chat"].as_str().unwrap())
            };
            ear.hear_one(here, "the message").await;
            // Stored before the next, so that each is a batch of its own.
            while file.messages_written().await < number {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        costs.push((appended(&stage).await - before, file.written().await));
    }
    let row = |name: &str, what: &str| (name.to_owned(), what.to_owned(), 5);
    let rows = vec![row("chats", "UPDATE"), row("memberships", "UPDATE"), row("messages", "INSERT")];
    assert_eq!(costs, [(5, rows.clone()), (5, rows)], "a record and three rows for each message");
    let unread = get(&ben, "/api/v1/chats").await;
    assert_eq!(unread["unread_count"], 10);
    stage.cluster.stop().await.unwrap();
}
