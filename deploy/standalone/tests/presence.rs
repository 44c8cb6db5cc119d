//! Who is connected, on several nodes of one cluster: PR-1 to PR-3, and who writes (ME-8).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{collections::HashSet, time::Duration};

use common::shutdown::Shutdown;
use futures_util::{SinkExt, StreamExt};
use loadtest::client::{
    http::Http,
    rest::{Session, register},
};
use reqwest::Method;
use serde_json::{Value, json};
use stage::{Folder, MEND, settings};
use standalone::{Cluster, Presence, Runtimes};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

struct World {
    cluster: Cluster,
    _folder: Folder,
    made: usize,
}

struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    node: String,
}

impl Socket {
    async fn of(session: &Session) -> Self {
        let location = session.location().await.unwrap();
        let (socket, _) = connect_async(&location.url).await.unwrap();
        let mut socket = Self { socket, node: location.node.as_str().to_owned() };
        socket.say(json!({"type": "hello", "ref": 1})).await;
        assert_eq!(socket.hear().await["type"], "ready");
        socket
    }

    async fn say(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame but cursors.
    async fn hear(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(MEND, self.socket.next()).await.expect("nothing was heard");
            if let Message::Text(text) = next.unwrap().unwrap() {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["type"] != "cursor" {
                    return frame;
                }
            }
        }
    }

    /// The next status of somebody.
    async fn status(&mut self, who: &Session) -> String {
        loop {
            let frame = self.hear().await;
            if frame["type"] == "presence" && frame["user"] == json!(who.user()) {
                return frame["status"].as_str().unwrap().to_owned();
            }
        }
    }
}

impl World {
    async fn new(nodes: u16, presence: Presence) -> Self {
        let _ = common::telemetry::init("warn");
        let folder = Folder::new();
        let settings = standalone::Settings { presence, ..settings(&folder, nodes) };
        let cluster = Cluster::start(settings, Runtimes::Own, Shutdown::new()).await.unwrap();
        Self { cluster, _folder: folder, made: 0 }
    }

    async fn person(&mut self) -> Session {
        self.made += 1;
        let http = Http::new(&self.cluster.url()).unwrap();
        let name = format!("person-{}", self.made);
        let account = register(&http, &name, "a good password", &name).await.unwrap();
        Session::sign_in(&http, &account).await.unwrap()
    }

    /// People on different nodes.
    async fn apart(&mut self, count: usize) -> Vec<Session> {
        let (mut nodes, mut people) = (HashSet::new(), Vec::new());
        while people.len() < count {
            let person = self.person().await;
            if nodes.insert(person.location().await.unwrap().node) {
                people.push(person);
            }
        }
        people
    }
}

async fn pull(asker: &Session, of: &Session) -> Value {
    asker.ask(Method::GET, &format!("/api/v1/users/{}/presence", of.user()), None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pr_1_people_on_different_nodes_see_each_other_come_and_go() {
    let presence = Presence { grace_ms: 500, ..Presence::default() };
    let mut world = World::new(3, presence).await;
    let people = world.apart(3).await;
    let [ana, ben, eve] = &people[..] else { panic!() };
    let chat = ana.open_direct(ben.user()).await.unwrap();
    let mut watching = Socket::of(ana).await;
    let pulled = pull(ana, ben).await;
    assert_eq!(pulled, json!({"user": ben.user(), "status": "offline", "last_seen": null}));
    let (mut phone, desk) = (Socket::of(ben).await, Socket::of(ben).await);
    assert_ne!(phone.node, watching.node);
    assert_eq!(watching.status(ben).await, "online");
    assert_eq!(pull(ana, ben).await["status"], "online");
    assert_eq!(pull(ana, ana).await["status"], "online");
    let path = format!("/api/v1/presence?users={},{},{}", eve.user(), ben.user(), ana.user());
    let several: Value = ana.ask(Method::GET, &path, None).await.unwrap();
    let views = several["results"].as_array().unwrap();
    let views: Vec<_> = views.iter().map(|view| (&view["user"], view["status"].as_str().unwrap())).collect();
    let (of_eve, of_ben, of_ana) = (json!(eve.user()), json!(ben.user()), json!(ana.user()));
    assert_eq!(views, [(&of_eve, "offline"), (&of_ben, "online"), (&of_ana, "online")]);
    let profile: Value = eve.ask(Method::GET, &format!("/api/v1/users/{}", ben.user()), None).await.unwrap();
    assert_eq!(profile["presence"], json!({"status": "online", "last_seen": null}));

    // Who writes, across nodes.
    phone.say(json!({"type": "typing", "chat": chat, "on": true})).await;
    loop {
        let frame = watching.hear().await;
        if frame["type"] == "typing" {
            assert_eq!(frame, json!({"type": "typing", "chat": chat, "user": ben.user(), "on": true}));
            break;
        }
    }

    // One device is enough.
    drop(desk);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(pull(ana, ben).await["status"], "online");
    drop(phone);
    assert_eq!(watching.status(ben).await, "offline");
    let pulled = pull(ana, ben).await;
    assert_eq!(pulled["status"], "offline");
    assert!(pulled["last_seen"].is_string(), "{pulled}");
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pr_3_a_killed_nodes_users_go_offline_in_time_but_for_those_who_are_back_on_another() {
    let presence = Presence { grace_ms: 500, timeout_ms: 12_000, ..Presence::default() };
    let mut world = World::new(3, presence).await;
    let mut people = world.apart(2).await;
    let (ben, ana) = (people.remove(1), people.remove(0));
    let mut watching = Socket::of(&ana).await;
    let lost = Socket::of(&ben).await;
    // Somebody else on that node.
    let cleo = loop {
        let person = world.person().await;
        if person.location().await.unwrap().node.as_str() == lost.node {
            break person;
        }
    };
    ana.create_group("three", &[ben.user(), cleo.user()]).await.unwrap();
    let moving = Socket::of(&cleo).await;
    assert_eq!(moving.node, lost.node);
    assert_eq!(watching.status(&cleo).await, "online");
    assert_eq!(pull(&ana, &ben).await["status"], "online");
    let killed = lost.node.clone();
    world.cluster.kill_node(&killed);
    drop((lost, moving));
    // She asks until the dispatcher has learnt of it.
    let back = loop {
        if cleo.location().await.is_ok_and(|location| location.node.as_str() != killed) {
            break Socket::of(&cleo).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // The first that is heard of either is that he is gone: of her nothing but that she is there.
    loop {
        let frame = watching.hear().await;
        if frame["type"] != "presence" {
            continue;
        }
        if frame["user"] == json!(cleo.user()) {
            assert_eq!(frame["status"], "online");
        } else if frame["user"] == json!(ben.user()) && frame["status"] == "offline" {
            break;
        }
    }
    assert_eq!(pull(&ana, &ben).await["status"], "offline");
    assert_eq!(pull(&ana, &cleo).await["status"], "online");
    drop(back);
    assert_eq!(watching.status(&cleo).await, "offline");
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pr_2_a_large_groups_number_is_summed_over_the_nodes() {
    let presence = Presence { grace_ms: 500, timeout_ms: 3_000, group: 2 };
    let mut world = World::new(3, presence).await;
    let people = world.apart(3).await;
    let members: Vec<_> = people[1..].iter().map(Session::user).collect();
    let chat = people[0].create_group("large", &members).await.unwrap();
    let mut sockets = Vec::new();
    for person in &people {
        sockets.push(Socket::of(person).await);
    }
    let counted = async |socket: &mut Socket, online: u64| loop {
        let frame = socket.hear().await;
        assert_ne!(frame["type"], "presence");
        if frame == json!({"type": "presence_count", "chat": chat, "online": online}) {
            break;
        }
    };
    for socket in &mut sockets {
        counted(socket, 3).await;
    }
    let dead = sockets.remove(2);
    world.cluster.kill_node(&dead.node);
    counted(&mut sockets[0], 2).await;
    world.cluster.stop().await.unwrap();
}
