//! What goes on and what is told while a part is away: writers, a link, a node that has not heard of a move.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use common::link::relay::FaultyPath;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use stage::{MEND, Stage};

/// Somebody signed in.
struct Person {
    client: Client,
    token: String,
    id: String,
}

impl Person {
    async fn new(url: &str, name: &str) -> Self {
        let client = Client::new();
        let register = json!({"username": name, "password": "correct horse", "name": name});
        let users = client.post(format!("{url}/api/v1/users")).json(&register).send().await.unwrap();
        let user: Value = users.json().await.unwrap();
        let sessions = client.post(format!("{url}/api/v1/sessions")).json(&register).send().await.unwrap();
        let session: Value = sessions.json().await.unwrap();
        Self {
            client,
            token: session["token"].as_str().unwrap().to_owned(),
            id: user["id"].as_str().unwrap().to_owned(),
        }
    }

    async fn post(&self, url: String, body: &Value, within: Duration) -> Option<Response> {
        let request = self.client.post(url).bearer_auth(&self.token).json(body).timeout(within);
        request.send().await.ok()
    }

    async fn group(&self, url: &str, name: &str, other: &Self) -> String {
        let body = json!({"name": name, "members": [other.id]});
        let made = self.post(format!("{url}/api/v1/chats"), &body, Duration::from_secs(20)).await.unwrap();
        made.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Whether a search in all chats says that it is complete.
    async fn searches_all(&self, url: &str) -> bool {
        let (url, query) = (format!("{url}/api/v1/messages/search"), json!({"query": "hello"}));
        let found = self.post(url, &query, Duration::from_secs(20)).await.unwrap();
        found.json::<Value>().await.unwrap()["complete"].as_bool().unwrap()
    }

    async fn page(&self, url: &str, chat: &str, query: &str) -> Value {
        let url = format!("{url}/api/v1/chats/{chat}/messages?{query}");
        self.client.get(url).bearer_auth(&self.token).send().await.unwrap().json().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_name_is_there_once_however_often_the_link_breaks() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut paths = HashMap::new();
    for node in ["node-1", "node-2", "node-3"] {
        paths.insert(node.to_owned(), FaultyPath::to(nowhere).await.unwrap());
    }
    let paths = Arc::new(paths);
    let ways = Arc::clone(&paths);
    let way = move |node: &str, dispatcher| {
        ways[node].retarget(dispatcher);
        ways[node].addr()
    };
    let stage = Stage::over(3, Box::new(way)).await;
    let url = stage.cluster.url();
    let (ana, ben) = (Arc::new(Person::new(&url, "ana").await), Person::new(&url, "ben").await);
    let mut chats = Vec::new();
    for n in 0..12 {
        chats.push(ana.group(&url, &format!("group {n}"), &ben).await);
    }
    let posting = chats.iter().map(|chat| {
        let (ana, to) = (Arc::clone(&ana), format!("{url}/api/v1/chats/{chat}/messages"));
        tokio::spawn(async move {
            let mut acknowledged = 0;
            for n in 0..200 {
                let answer = ana
                    .post(to.clone(), &json!({"body": format!("text {n}")}), Duration::from_secs(20))
                    .await;
                acknowledged += usize::from(answer.is_some_and(|answer| answer.status() == 201));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            acknowledged
        })
    });
    let posting: Vec<_> = posting.collect();
    for path in paths.values() {
        tokio::time::sleep(Duration::from_millis(300)).await;
        path.cut();
        tokio::time::sleep(Duration::from_millis(4_000)).await;
        path.heal();
    }
    let mut acknowledged = 0;
    for posted in posting {
        acknowledged += posted.await.unwrap();
    }
    let mut found = 0;
    for chat in &chats {
        let mut bodies: HashMap<String, u32> = HashMap::new();
        let mut after = 0;
        loop {
            let page = ana.page(&url, chat, &format!("after={after}&limit=100")).await;
            let messages = page["results"].as_array().unwrap();
            let Some(last) = messages.last() else { break };
            after = last["number"].as_u64().unwrap();
            for message in messages {
                found += 1;
                *bodies.entry(message["body"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        bodies.retain(|_, times| *times > 1);
        assert!(bodies.is_empty(), "more than once in {chat}: {bodies:?}");
    }
    assert!(acknowledged > 1_000 && found >= acknowledged, "{acknowledged} acknowledged, {found} found");
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn recent_history_is_whole_from_every_node_while_no_writer_lives() {
    let mut stage = Stage::new(3).await;
    let url = stage.cluster.url();
    let (ana, ben) = (Person::new(&url, "ana").await, Person::new(&url, "ben").await);
    let chat = ana.group(&url, "a group", &ben).await;
    assert!(ben.searches_all(&url).await);
    stage.cluster.kill_writers();
    // More than one answer of an owner holds, and more than one frame of a link.
    let body = json!({"body": "x".repeat(16_000)});
    for _ in 0..300 {
        let to = format!("{url}/api/v1/chats/{chat}/messages");
        assert_eq!(ana.post(to, &body, Duration::from_secs(20)).await.unwrap().status(), 201);
    }
    let nodes: Vec<_> = stage.cluster.nodes().map(|(name, node)| (name.to_owned(), node)).collect();
    for (name, node) in nodes {
        for query in ["after=290&limit=10", "before=11&limit=10"] {
            let page = ana.page(&node, &chat, query).await;
            assert_eq!(page["results"].as_array().map(Vec::len), Some(10), "{name} {query}");
            assert_eq!(page["complete"], true, "{name} {query}");
            assert_eq!(page["head"]["number"], 300, "{name} {query}");
        }
    }
    // What is looked for in the store alone may not be there, and is told so until a writer has come.
    for complete in [false, true] {
        if complete {
            stage.cluster.add_writer().unwrap();
        }
        let told = async { while ben.searches_all(&url).await != complete {} };
        tokio::time::timeout(MEND, told).await.expect("nothing is told of the writers");
    }
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_not_heard_of_a_move_calls_no_old_history_complete() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let path = Arc::new(FaultyPath::to(nowhere).await.unwrap());
    let way = Arc::clone(&path);
    let mut stage = Stage::over(
        1,
        Box::new(move |node, dispatcher| {
            if node == "node-1" {
                way.retarget(dispatcher);
                way.addr()
            } else {
                dispatcher
            }
        }),
    )
    .await;
    let url = stage.cluster.url();
    let (ana, ben) = (Person::new(&url, "ana").await, Person::new(&url, "ben").await);
    let mut chats = Vec::new();
    for n in 0..24 {
        chats.push(ana.group(&url, &format!("group {n}"), &ben).await);
    }
    path.cut_back();
    stage.cluster.add_node().unwrap();
    let nodes: HashMap<_, _> = stage.cluster.nodes().map(|(name, node)| (name.to_owned(), node)).collect();
    let (one, two) = (&nodes["node-1"], &nodes["node-2"]);
    let begin = Instant::now();
    let (mut asked, mut acknowledged) = (0, 0);
    while begin.elapsed() < Duration::from_secs(8) {
        for chat in &chats {
            asked += 1;
            let body = json!({"body": format!("text {asked}"), "client_id": format!("c{asked}")});
            let to = format!("{two}/api/v1/chats/{chat}/messages");
            let Some(answer) = ana.post(to, &body, Duration::from_millis(150)).await else { continue };
            if answer.status() != 201 {
                continue;
            }
            acknowledged += 1;
            let message: Value = answer.json().await.unwrap();
            let page = ana.page(one, chat, "before=1000000&limit=5").await;
            let messages = page["results"].as_array().cloned().unwrap_or_default();
            let there = messages.iter().any(|shown| shown["number"] == message["number"]);
            assert!(there || page["complete"] != true, "{:?}: {message} is not in {page}", begin.elapsed());
        }
    }
    assert!(acknowledged > 0, "the new node came to own something");
    stage.cluster.stop().await.unwrap();
}
