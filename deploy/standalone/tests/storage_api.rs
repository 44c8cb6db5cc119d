//! The storage API (OP-6): on a port of its own, with its key; and not to be found anywhere else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use common::shutdown::Shutdown;
use loadtest::client::rest::Session;
use reqwest::Method;
use serde_json::{Value, json};
use stage::{
    ADMIN_KEY, Folder, MEND, Stage,
    ear::Ear,
    people::{get, person},
    settings,
};
use standalone::{Cluster, Runtimes, Settings, StorageApi};

const KEY: &str = "the storage key of this stage";

/// A cluster of two nodes with a storage API each.
async fn with_storage() -> Stage {
    let _ = common::telemetry::init("warn");
    let folder = Folder::new();
    let storage_api = StorageApi { listen: Some("127.0.0.1:0".parse().unwrap()), key: KEY.to_owned().into() };
    let settings = Settings { storage_api, ..settings(&folder, 2) };
    let cluster = Cluster::start(settings, Runtimes::Own, Shutdown::new()).await.unwrap();
    Stage { folder, cluster }
}

/// Somebody who calls with a key, or without.
struct Caller {
    client: reqwest::Client,
    url: String,
    key: &'static str,
}

impl Caller {
    fn new(url: String, key: &'static str) -> Self {
        Self { client: reqwest::Client::builder().timeout(MEND).build().unwrap(), url, key }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if !self.key.is_empty() {
            request = request.bearer_auth(self.key);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value, expected: u16) -> Value {
        let (status, body) = self.ask(Method::POST, path, body).await;
        assert_eq!(status, expected, "{path}: {body}");
        body
    }
}

fn storage(stage: &Stage) -> Vec<Caller> {
    stage.cluster.storage().map(|(_, url)| Caller::new(url, KEY)).collect()
}

async fn id(session: &Session) -> String {
    get(session, "/api/v1/users/me").await["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn op_6_is_reached_on_its_own_port_with_its_key_and_nowhere_else() {
    let stage = with_storage().await;
    let all = storage(&stage);
    assert_eq!(all.len(), 2, "each node has one");
    let ana = person(&stage, "Ana").await;
    let ana_id = id(&ana).await;
    let group = all[0].post("/group/", json!({"name": "Course", "users": [ana_id]}), 201).await;
    let group = group["id"].as_str().unwrap();
    let said = all[0].post("/message/", json!({"group": group, "message": "x"}), 201).await;
    let paths = [
        (Method::GET, "/group".to_owned()),
        (Method::GET, "/group/".to_owned()),
        (Method::POST, "/group/".to_owned()),
        (Method::GET, format!("/group/{group}")),
        (Method::GET, format!("/group/messages?groupID={group}")),
        (Method::GET, format!("/group/user/{ana_id}")),
        (Method::GET, "/message/".to_owned()),
        (Method::POST, "/message/".to_owned()),
        (Method::GET, format!("/message/{}", said["id"].as_str().unwrap())),
        (Method::GET, "/user/".to_owned()),
        (Method::POST, format!("/user/{ana_id}")),
        (Method::GET, "/api/v1/../../group/".to_owned()),
    ];
    let public = std::iter::once(stage.cluster.url());
    let public: Vec<String> = public.chain(stage.cluster.nodes().map(|(_, url)| url)).collect();
    for (method, path) in &paths {
        // Whatever key is shown: the dispatcher knows no such path and passes none on, and neither do the nodes' own doors.
        for url in &public {
            for key in [KEY, ADMIN_KEY, ""] {
                let (status, _) = Caller::new(url.clone(), key).ask(method.clone(), path, Value::Null).await;
                assert_eq!(status, 404, "{method} {url}{path}");
            }
        }
        for storage in &all {
            for key in ["", ADMIN_KEY, "the storage key of this stagf"] {
                let caller = Caller::new(storage.url.clone(), key);
                let (status, body) = caller.ask(method.clone(), path, json!({})).await;
                assert_eq!((status, &body["code"]), (401, &json!("unauthenticated")), "{method} {path}");
                assert!(!body.to_string().contains(&ana_id), "{body}");
            }
        }
    }
    // Nobody is told where it is.
    let told = Caller::new(stage.cluster.url(), "").get("/cluster").await.to_string();
    for storage in &all {
        let port = storage.url.rsplit(':').next().unwrap();
        assert!(!told.contains(&format!(":{port}")), "{told}");
    }
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn op_6_a_listener_without_a_key_does_not_start() {
    let folder = Folder::new();
    let storage_api = StorageApi { listen: Some("127.0.0.1:0".parse().unwrap()), key: Default::default() };
    let settings = Settings { storage_api, ..settings(&folder, 1) };
    let refused = Cluster::start(settings, Runtimes::Own, Shutdown::new()).await.unwrap_err();
    assert!(refused.to_string().contains("storage_api.key"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn op_6_what_is_made_there_is_heard_live_and_stands_in_history() {
    let stage = with_storage().await;
    let (one, other) = {
        let mut all = storage(&stage).into_iter();
        (all.next().unwrap(), all.next().unwrap())
    };
    let ana = person(&stage, "Ana").await;
    let ana_id = id(&ana).await;
    let mut ear = Ear::open(&ana).await;

    let ben = one.post("/user/up201706518", json!({"username": "ben-up", "name": "Ben"}), 201).await;
    let ben_id = ben["id"].as_str().unwrap();
    let body = json!({"name": "Course", "users": [ana_id, "up201706518"]});
    let group = one.post("/group/", body, 201).await;
    let group = group["id"].as_str().unwrap();
    let made = ear.hear("new_chat").await;
    assert!(made.to_string().contains(group), "{made}");

    // Whichever node is told, the chat's owner numbers it.
    for n in 1..=12_u64 {
        let storage = if n % 2 == 0 { &one } else { &other };
        let body = json!({"group": group, "from": "up201706518", "message": format!("message {n}")});
        let said = storage.post("/message/", body, 201).await;
        assert_eq!((&said["number"], said["from"].as_str()), (&json!(n), Some(ben_id)));
        let heard = ear.hear("new_message").await;
        assert_eq!(heard["message"]["id"], said["id"], "{heard}");
        let path = format!("/message/{}", said["id"].as_str().unwrap());
        assert_eq!(storage.get(&path).await["number"], n, "found at once");
    }
    let notice = json!({"group": group, "message": "a notice"});
    one.post("/message/", notice, 201).await;
    assert_eq!(ear.hear("new_message").await["message"]["body"], "a notice");

    let history = get(&ana, &format!("/api/v1/chats/{group}/messages?after=0")).await;
    let bodies: Vec<_> = history["results"].as_array().unwrap().iter().map(|one| &one["body"]).collect();
    assert_eq!((bodies.len(), bodies[0], bodies[12]), (13, &json!("message 1"), &json!("a notice")));
    let page = other.get(&format!("/group/messages?groupID={group}&page=1&perPage=10")).await;
    assert_eq!(
        (&page["current"], &page["total"], &page["results"][0]["number"]),
        (&json!(1), &json!(2), &json!(3))
    );
    assert_eq!(page["results"].as_array().unwrap().len(), 3);
    assert_eq!(other.get(&format!("/group/{group}")).await["messages_count"], 13);
    assert_eq!(other.get("/group/user/up201706518").await["results"][0]["id"], group);
    assert_eq!(one.get("/group/").await["results"][0]["id"], group);
    // The list of all follows the writer.
    let stored = async {
        while other.get("/message/?perPage=100").await["results"].as_array().unwrap().len() != 13 {}
    };
    tokio::time::timeout(MEND, stored).await.expect("13 messages are stored");
    let users = one.get("/user/").await;
    assert_eq!(users["results"].as_array().unwrap().len(), 2);
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn op_6_who_is_said_to_be_online_is_shown_so_until_the_contrary_is_said() {
    let stage = with_storage().await;
    let (one, other) = {
        let mut all = storage(&stage).into_iter();
        (all.next().unwrap(), all.next().unwrap())
    };
    let ana = person(&stage, "Ana").await;
    let ana_id = id(&ana).await;
    let ben = one.post("/user/up1", json!({"username": "ben-up"}), 201).await;
    let ben_id = ben["id"].as_str().unwrap();
    assert_eq!(ben["online"], false);
    one.post("/group/", json!({"name": "Course", "users": [ana_id, "up1"]}), 201).await;
    let mut ear = Ear::open(&ana).await;
    let of_ben = |status: &'static str| {
        let ben_id = ben_id.to_owned();
        move |frame: &Value| {
            frame["type"] == "presence" && frame["user"] == ben_id && frame["status"] == status
        }
    };
    assert_eq!(one.post("/user/up1", json!({"online": true}), 200).await["online"], true);
    ear.hear_one(of_ben("online"), "Ben comes").await;
    let presence = format!("/api/v1/users/{ben_id}/presence");
    assert_eq!(get(&ana, &presence).await["status"], "online");
    // Said again, and to another node, it is the same; and what is not said stays.
    assert_eq!(other.post("/user/up1", json!({"online": true}), 200).await["online"], true);
    assert_eq!(other.post("/user/up1", json!({"name": "Ben"}), 200).await["online"], true);
    assert_eq!(other.post("/user/up1", json!({"online": false}), 200).await["online"], false);
    ear.hear_one(of_ben("offline"), "Ben goes").await;
    let seen = get(&ana, &presence).await;
    assert_eq!(seen["status"], "offline");
    assert!(!seen["last_seen"].is_null(), "{seen}");
    // Who has a session is there, whatever is said.
    let path = format!("/user/{ana_id}");
    assert_eq!(one.post(&path, json!({"online": false}), 200).await["online"], true);
    stage.cluster.stop().await.unwrap();
}
