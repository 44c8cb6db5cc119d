//! Contacts (ID-8) and blocks (ID-9) on two nodes of one cluster: what one node was told counts on the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{collections::HashSet, time::Duration};

use chat_node::relationships::STALE;
use common::{
    ids::{AppId, ChatId},
    shutdown::Shutdown,
    wire::codes::ErrorCode,
};
use futures_util::{SinkExt, StreamExt};
use loadtest::client::{
    http::{Http, HttpError},
    rest::{Session, register},
};
use reqwest::Method;
use serde_json::{Value, json};
use stage::{ADMIN_KEY, Folder, MEND, people::refused, settings};
use standalone::{Cluster, Presence, Runtimes};
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

struct World {
    cluster: Cluster,
    http: Http,
    _folder: Folder,
    made: usize,
}

impl World {
    async fn new() -> Self {
        let _ = common::telemetry::init("warn");
        let folder = Folder::new();
        let presence = Presence { grace_ms: 300, ..Presence::default() };
        let settings = standalone::Settings { presence, ..settings(&folder, 2) };
        let cluster = Cluster::start(settings, Runtimes::Own, Shutdown::new()).await.unwrap();
        let http = Http::new(&cluster.url()).unwrap();
        Self { cluster, http, _folder: folder, made: 0 }
    }

    async fn person(&mut self) -> Session {
        self.made += 1;
        let name = format!("person-{:02}", self.made);
        let account = register(&self.http, &name, "a good password", &name).await.unwrap();
        Session::sign_in(&self.http, &account).await.unwrap()
    }

    /// Two people whose sockets are on different nodes.
    async fn apart(&mut self) -> [Session; 2] {
        let (mut nodes, mut people) = (HashSet::new(), Vec::new());
        while people.len() < 2 {
            let person = self.person().await;
            if nodes.insert(person.location().await.unwrap().node) {
                people.push(person);
            }
        }
        people.try_into().unwrap()
    }

    /// The same session at each node.
    fn at_each(&self, session: &Session) -> Vec<Session> {
        self.cluster.nodes().map(|(_, url)| session.at(&url).unwrap()).collect()
    }
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn of(session: &Session) -> Self {
        let location = session.location().await.unwrap();
        let mut socket = Self(connect_async(&location.url).await.unwrap().0);
        socket.say(json!({"type": "hello", "ref": 1})).await;
        assert_eq!(socket.hear().await["type"], "ready");
        socket
    }

    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame but cursors.
    async fn hear(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(MEND, self.0.next()).await.expect("nothing was heard");
            if let Message::Text(text) = next.unwrap().unwrap() {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["type"] != "cursor" {
                    return frame;
                }
            }
        }
    }

    /// The next frame of a kind, which comes in time; the others are passed over.
    async fn next(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.hear().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    async fn send(&mut self, ref_: u64, chat: ChatId, name: &str) -> Value {
        self.say(
            json!({"type": "send", "ref": ref_, "chat": chat, "client_id": name, "body": "over the socket"}),
        )
        .await;
        loop {
            let frame = self.hear().await;
            if frame["ref"] == ref_ {
                return frame;
            }
        }
    }
}

async fn relate(by: &Session, what: &str, user: &Session, on: bool) {
    let method = if on { Method::PUT } else { Method::DELETE };
    let _: Value = by.ask(method, &format!("/api/v1/{what}/{}", user.user()), None).await.unwrap();
}

async fn say(by: &Session, chat: ChatId) -> Result<Value, HttpError> {
    by.ask(Method::POST, &format!("/api/v1/chats/{chat}/messages"), Some(&json!({"body": "hello"}))).await
}

async fn pull(by: &Session, of: &Session) -> Value {
    by.ask(Method::GET, &format!("/api/v1/users/{}/presence", of.user()), None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_9_a_block_and_its_end_on_one_node_count_on_the_other_within_the_time_that_is_promised() {
    let mut world = World::new().await;
    let ben = world.person().await;
    // Direct chats that one node owns, and that the other owns.
    let mut chats = Vec::new();
    for _ in 0..6 {
        let pest = world.person().await;
        let chat = pest.open_direct(ben.user()).await.unwrap();
        say(&pest, chat).await.unwrap();
        chats.push((pest, chat));
    }
    let here = world.at_each(&ben).remove(0);
    for on in [true, false, true] {
        for (pest, _) in &chats {
            relate(&here, "blocks", pest, on).await;
        }
        tokio::time::sleep(STALE).await;
        for (pest, chat) in &chats {
            for pest in world.at_each(pest) {
                match say(&pest, *chat).await {
                    answer if on => refused(answer, ErrorCode::Forbidden),
                    answer => drop(answer.unwrap()),
                }
            }
            say(&ben, *chat).await.unwrap();
        }
        let listed: Value = ben.ask(Method::GET, "/api/v1/blocks", None).await.unwrap();
        assert_eq!(listed["results"].as_array().unwrap().len(), if on { chats.len() } else { 0 });
    }
    // In a group each hears the other, blocked or not.
    let (pest, direct) = &chats[0];
    let group = ben.create_group("group", &[pest.user()]).await.unwrap();
    say(pest, group).await.unwrap();
    refused(say(pest, *direct).await, ErrorCode::Forbidden);
    let edit = json!({"body": "read this"});
    let answer = pest.ask(Method::PUT, &format!("/api/v1/chats/{direct}/messages/1"), Some(&edit)).await;
    refused(answer, ErrorCode::Forbidden);
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn id_9_over_the_socket_as_well_and_neither_presence_nor_typing_is_seen_on_another_node() {
    let mut world = World::new().await;
    let [ana, ben] = world.apart().await;
    let chat = ana.open_direct(ben.user()).await.unwrap();
    let mut watching = Socket::of(&ana).await;
    let mut phone = Socket::of(&ben).await;
    let about = async |socket: &mut Socket, status: &str| {
        let frame = socket.next("presence").await;
        assert_eq!((&frame["user"], &frame["status"]), (&json!(ben.user()), &json!(status)), "{frame}");
        frame["last_seen"].clone()
    };
    let read = async |number: u64| {
        let path = format!("/api/v1/chats/{chat}/read");
        let _: Value = ben.ask(Method::POST, &path, Some(&json!({"number": number}))).await.unwrap();
    };
    about(&mut watching, "online").await;
    assert_eq!(watching.send(2, chat, "a1").await["type"], "ack");

    relate(&ben, "blocks", &ana, true).await;
    let blocked = Instant::now();
    // She is told that he is gone, which he is not.
    let gone = about(&mut watching, "offline").await;
    assert!(blocked.elapsed() < STALE * 2, "{:?}", blocked.elapsed());
    tokio::time::sleep_until(blocked + STALE).await;
    let error = watching.send(3, chat, "a2").await;
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("forbidden")));
    assert_eq!(watching.send(4, chat, "a1").await["repeat"], true, "what was sent before stays");
    for ana in world.at_each(&ana) {
        assert_eq!(
            pull(&ana, &ben).await,
            json!({"user": ben.user(), "status": "offline", "last_seen": gone})
        );
    }
    assert_eq!(pull(&ben, &ana).await["status"], "online");
    // He reads, writes, goes and comes: the next that she hears is a message that he sends at last.
    read(1).await;
    assert_eq!(phone.next("message_read").await["number"], 1, "his other device knows");
    phone.say(json!({"type": "typing", "chat": chat, "on": true})).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(phone);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut phone = Socket::of(&ben).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(phone.send(2, chat, "b1").await["type"], "ack");
    loop {
        let frame = watching.hear().await;
        assert!(
            !["presence", "typing", "message_read"].contains(&frame["type"].as_str().unwrap()),
            "{frame}"
        );
        if frame["type"] == "new_message" && frame["message"]["from"] == json!(ben.user()) {
            break;
        }
    }

    relate(&ben, "blocks", &ana, false).await;
    about(&mut watching, "online").await;
    assert_eq!(pull(&ana, &ben).await["status"], "online");
    tokio::time::sleep(STALE).await;
    let sent = watching.send(5, chat, "a3").await;
    read(sent["number"].as_u64().unwrap()).await;
    assert_eq!(watching.next("message_read").await["user"], json!(ben.user()));
    phone.say(json!({"type": "typing", "chat": chat, "on": true})).await;
    assert_eq!(watching.next("typing").await["user"], json!(ben.user()));
    drop(phone);
    about(&mut watching, "offline").await;
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn id_8_where_contacts_only_may_write_others_are_told_what_the_blocked_are_told() {
    let mut world = World::new().await;
    let [ana, ben] = world.apart().await;
    let chat = ana.open_direct(ben.user()).await.unwrap();
    say(&ana, chat).await.unwrap();
    let path = format!("/api/v1/applications/{}", AppId::DEFAULT);
    let body = json!({"settings": {"contacts_only": true}});
    let _: Value = world.http.ask(Method::PUT, &path, Some(ADMIN_KEY), Some(&body)).await.unwrap();
    // Every process follows within about a second.
    tokio::time::sleep(STALE).await;
    let detail = |answer: Result<Value, HttpError>| match answer {
        Err(error) => error.to_string(),
        Ok(said) => panic!("not refused: {said}"),
    };
    let stranger = detail(say(&ana, chat).await);
    refused(say(&ana, chat).await, ErrorCode::Forbidden);
    relate(&ben, "contacts", &ana, true).await;
    tokio::time::sleep(STALE).await;
    for ana in world.at_each(&ana) {
        say(&ana, chat).await.unwrap();
    }
    refused(say(&ben, chat).await, ErrorCode::Forbidden);
    relate(&ben, "blocks", &ana, true).await;
    tokio::time::sleep(STALE).await;
    assert_eq!(detail(say(&ana, chat).await), stranger, "a block does not show");
    // Whom nobody knows makes no new chat, and a group is no direct chat.
    let eve = world.person().await;
    refused(eve.open_direct(ben.user()).await.map(|chat| json!(chat)), ErrorCode::Forbidden);
    let group = eve.create_group("group", &[ben.user()]).await.unwrap();
    say(&eve, group).await.unwrap();
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn id_8_contacts_are_the_same_on_every_node_and_under_their_older_name() {
    let mut world = World::new().await;
    let [ana, ben] = world.apart().await;
    let cleo = world.person().await;
    for person in [&ben, &cleo] {
        relate(&ana, "contacts", person, true).await;
    }
    let chat = ana.open_direct(cleo.user()).await.unwrap();
    say(&ana, chat).await.unwrap();
    let _phone = Socket::of(&cleo).await;
    let older = format!("/v1/users/{}/contacts", ana.user());
    let mut doors = world.at_each(&ana);
    doors.push(ana.clone());
    for door in doors {
        for path in ["/api/v1/contacts", &older] {
            let shown = async {
                loop {
                    let page: Value = door.ask(Method::GET, path, None).await.unwrap();
                    let results = page["results"].as_array().unwrap();
                    let ids: Vec<_> = results.iter().map(|contact| contact["id"].clone()).collect();
                    let first = &results[0]["presence"]["status"];
                    // The list follows the writer.
                    if ids == [json!(cleo.user()), json!(ben.user())] && first == "online" {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(MEND, shown).await.expect(path);
        }
    }
    refused(ben.ask(Method::GET, &older, None).await, ErrorCode::NotFound);
    world.cluster.stop().await.unwrap();
}
