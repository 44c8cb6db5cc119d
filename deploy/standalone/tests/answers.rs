//! Reactions, replies and mentions (ME-8), and bundles (ME-10), through the cluster's one origin and over sockets on several nodes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use common::{model::limits, wire::codes::ErrorCode};
use loadtest::client::{http::HttpError, rest::Session};
use reqwest::Method;
use serde_json::{Value, json};
use stage::{
    Stage,
    ear::Ear,
    people::{ask, get, person, refused},
};

/// Ana's group with Ben.
struct Scene {
    stage: Stage,
    ana: Session,
    ben: Session,
    id: String,
    chat: String,
}

impl Scene {
    async fn new() -> Self {
        let stage = Stage::new(2).await;
        let (ana, ben) = (person(&stage, "Ana").await, person(&stage, "Ben").await);
        let body = json!({ "name": "Course", "members": [ben.user()] });
        let made = ask(&ana, Method::POST, "/api/v1/chats", body).await.unwrap();
        let id = made["id"].as_str().unwrap().to_owned();
        Self { stage, ana, ben, chat: format!("/api/v1/chats/{id}"), id }
    }

    async fn say(&self, who: &Session, body: Value) -> Value {
        ask(who, Method::POST, &format!("{}/messages", self.chat), body).await.unwrap()
    }

    async fn react(
        &self,
        who: &Session,
        method: Method,
        number: u64,
        emoji: &str,
    ) -> Result<Value, HttpError> {
        let emoji: String = emoji.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("{}/messages/{number}/reactions/{emoji}", self.chat);
        ask(who, method, &path, Value::Null).await
    }

    /// A message, which every way of reading it shows alike.
    async fn message(&self, number: u64) -> Value {
        let one = get(&self.ben, &format!("{}/messages/{number}", self.chat)).await;
        let at = format!("{}/messages?after={}&limit=1", self.chat, number - 1);
        assert_eq!(get(&self.ben, &at).await["results"][0], one);
        let page = get(&self.ben, &format!("{}/messages?perPage=100", self.chat)).await;
        let listed = page["results"].as_array().unwrap();
        assert_eq!(listed.iter().find(|message| message["number"] == number), Some(&one));
        one
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reactions_are_seen_by_everybody_and_survive_a_break_me_8() {
    let scene = Scene::new().await;
    let Scene { ana, ben, id, .. } = &scene;
    scene.say(ana, json!({ "body": "one" })).await;
    let (mut hers, mut his) = (Ear::open(ana).await, Ear::open(ben).await);
    let mut away = Ear::open(ana).await;
    // One comes when something has moved.
    ask(ana, Method::POST, "/api/v1/chats", json!({ "members": [] })).await.unwrap();
    let cursor = away.hear("cursor").await["cursor"].clone();
    drop(away);

    // Over the socket, and once more: one change.
    let react =
        |on: bool| json!({ "type": "react", "ref": 7, "chat": id, "number": 1, "emoji": "👍", "on": on });
    his.say(react(true)).await;
    assert_eq!(his.hear("ack").await, json!({ "type": "ack", "ref": 7, "chat": id, "seq": 3 }));
    his.say(react(true)).await;
    assert_eq!(his.hear("ack").await["seq"], 3);
    let heard = hers.hear("reaction").await;
    let told = |frame: &Value| {
        ["chat", "seq", "by", "number", "emoji", "on", "count"].map(|field| frame[field].clone())
    };
    let expected = json!([id, 3, ben.user(), 1, "👍", true, 1]);
    assert_eq!(json!(told(&heard)), expected);
    // Over REST.
    scene.react(ana, Method::PUT, 1, "👍").await.unwrap();
    scene.react(ana, Method::PUT, 1, "👍").await.unwrap();
    scene.react(ana, Method::PUT, 1, "👩🏽‍🚀").await.unwrap();
    let users = [ben.user(), ana.user()];
    let both = json!([
        { "emoji": "👍", "count": 2, "users": users },
        { "emoji": "👩🏽‍🚀", "count": 1, "users": [ana.user()] },
    ]);
    assert_eq!(scene.message(1).await["reactions"], both);
    his.say(json!({ "type": "history", "ref": 8, "chat": id, "limit": 1 })).await;
    assert_eq!(his.hear("page").await["messages"][0]["reactions"], both);

    // Who comes back is told what was missed, in order.
    // The cursor may be from before the chat: so the client names what it has of it.
    let mut back = Ear::resume(ana, json!({ "cursor": cursor, "chats": { id: 2 } })).await;
    for expected in [
        json!([id, 3, ben.user(), 1, "👍", true, 1]),
        json!([id, 4, ana.user(), 1, "👍", true, 2]),
        json!([id, 5, ana.user(), 1, "👩🏽‍🚀", true, 1]),
    ] {
        assert_eq!(json!(told(&back.hear("reaction").await)), expected);
    }
    assert_eq!(back.hear("resumed").await["chats"][id], json!({ "from": 2, "to": 5, "complete": true }));

    // An edit leaves them, and is told with them.
    let at = format!("{}/messages/1", scene.chat);
    let edited = ask(ana, Method::PUT, &at, json!({ "body": "uno" })).await.unwrap();
    assert_eq!((&edited["body"], &edited["reactions"]), (&json!("uno"), &both));
    assert_eq!(his.hear("message_updated").await["message"]["reactions"], both);
    scene.react(ana, Method::DELETE, 1, "👍").await.unwrap();
    scene.react(ana, Method::DELETE, 1, "👍").await.unwrap();
    let off = his.hear("reaction").await;
    assert_eq!(json!(told(&off)), json!([id, 7, ana.user(), 1, "👍", false, 1]));
    assert_eq!(
        scene.message(1).await["reactions"][0],
        json!({ "emoji": "👍", "count": 1, "users": [ben.user()] })
    );

    // What is no emoji, no message, and not yours.
    let eve = person(&scene.stage, "Eve").await;
    refused(scene.react(&eve, Method::PUT, 1, "👍").await, ErrorCode::NotFound);
    refused(scene.react(ana, Method::PUT, 9, "👍").await, ErrorCode::NotFound);
    for bad in [" ", "a b", "\n", "\u{0}", &"x".repeat(65)] {
        refused(scene.react(ana, Method::PUT, 1, bad).await, ErrorCode::Invalid);
    }
    for n in 2..limits::REACTIONS {
        scene.react(ben, Method::PUT, 1, &format!(":{n}:")).await.unwrap();
    }
    refused(scene.react(ben, Method::PUT, 1, ":more:").await, ErrorCode::TooLarge);
    scene.react(ana, Method::PUT, 1, ":2:").await.unwrap();

    // A deleted message has none and takes none.
    ask(ana, Method::DELETE, &at, Value::Null).await.unwrap();
    his.hear("message_deleted").await;
    let gone = scene.message(1).await;
    assert_eq!((&gone["deleted"], &gone["reactions"]), (&json!(true), &Value::Null));
    refused(scene.react(ben, Method::PUT, 1, "👍").await, ErrorCode::NotFound);
    refused(scene.react(ben, Method::DELETE, 1, ":2:").await, ErrorCode::NotFound);
    scene.stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_names_the_message_it_answers_wherever_it_is_shown_me_8() {
    let scene = Scene::new().await;
    let Scene { ana, ben, id, .. } = &scene;
    let mut ear = Ear::open(ben).await;
    scene.say(ana, json!({ "body": "a question" })).await;
    let answer = scene.say(ana, json!({ "body": "an answer", "reply_to": 1, "client_id": "r" })).await;
    assert_eq!(answer["reply_to"], 1);
    let again = scene.say(ana, json!({ "body": "an answer", "reply_to": 1, "client_id": "r" })).await;
    assert_eq!(again, answer);
    let told = ear.hear_one(|frame| frame["message"]["number"] == 2, "the answer").await;
    assert_eq!((&told["type"], &told["message"]["reply_to"]), (&json!("new_message"), &json!(1)));
    ear.say(json!({ "type": "send", "ref": 3, "chat": id, "client_id": "s", "body": "mine", "reply_to": 2 }))
        .await;
    assert_eq!(ear.hear("ack").await["number"], 3);
    for (number, answered) in [(2, 1), (3, 2)] {
        assert_eq!(scene.message(number).await["reply_to"], answered);
    }
    let at = format!("{}/messages/2", scene.chat);
    let edited = ask(ana, Method::PUT, &at, json!({ "body": "a better answer" })).await.unwrap();
    assert_eq!(edited["reply_to"], 1);
    assert_eq!(get(ben, "/api/v1/chats").await["results"][0]["last_message"]["reply_to"], 2);
    // What is answered may be deleted; what never was cannot be answered.
    ask(ana, Method::DELETE, &format!("{}/messages/1", scene.chat), Value::Null).await.unwrap();
    assert_eq!(scene.message(2).await["reply_to"], 1);
    let path = format!("{}/messages", scene.chat);
    for nowhere in [0, 4, 99] {
        let asked = ask(ana, Method::POST, &path, json!({ "body": "to nobody", "reply_to": nowhere })).await;
        refused(asked, ErrorCode::Invalid);
    }
    scene.stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_mentioned_sees_how_often_until_it_is_read_me_8() {
    let scene = Scene::new().await;
    let Scene { ana, ben, id, .. } = &scene;
    let eve = person(&scene.stage, "Eve").await;
    let mut ear = Ear::open(ben).await;
    let named =
        scene.say(ana, json!({ "body": "@Ben", "mentions": [ben.user(), eve.user(), ben.user()] })).await;
    assert_eq!(named["mentions"], json!([ben.user()]), "each member once, and no stranger");
    assert_eq!(ear.hear("new_message").await["message"]["mentions"], json!([ben.user()]));
    scene.say(ana, json!({ "body": "nobody" })).await;
    let mut hers = Ear::open(ana).await;
    hers.say(json!({ "type": "send", "ref": 3, "chat": id, "client_id": "s", "body": "@all", "mention_all": true }))
        .await;
    assert_eq!(hers.hear("ack").await["number"], 3);
    assert_eq!(scene.message(3).await["mention_all"], true);
    let counted = async |who: &Session, messages: u64| loop {
        let chat = get(who, "/api/v1/chats").await["results"][0].clone();
        // The store follows a moment later.
        if chat["messages_count"] == messages {
            assert_eq!(get(who, &scene.chat).await["mentions_count"], chat["mentions_count"]);
            return chat["mentions_count"].as_u64().unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!((counted(ben, 3).await, counted(ana, 3).await), (2, 0));
    ask(ben, Method::POST, &format!("{}/read", scene.chat), json!({ "number": 1 })).await.unwrap();
    assert_eq!(counted(ben, 3).await, 1);
    ask(ben, Method::POST, &format!("{}/read", scene.chat), json!({ "number": 3 })).await.unwrap();
    assert_eq!(counted(ben, 3).await, 0);
    let many: Vec<_> = (0..=limits::MENTIONS).map(|_| common::ids::UserId::random()).collect();
    let path = format!("{}/messages", scene.chat);
    refused(
        ask(ana, Method::POST, &path, json!({ "body": "hi", "mentions": many })).await,
        ErrorCode::Invalid,
    );
    scene.stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_has_every_chat_with_its_newest_messages_me_10() {
    let scene = Scene::new().await;
    let Scene { ana, ben, id, .. } = &scene;
    for n in 1..=25 {
        scene.say(ana, json!({ "body": format!("message {n}"), "client_id": format!("m{n}") })).await;
    }
    let mut others = Vec::new();
    for n in 0..11 {
        let made =
            ask(ben, Method::POST, "/api/v1/chats", json!({ "name": format!("chat {n}"), "members": [] }));
        others.push(made.await.unwrap()["id"].as_str().unwrap().to_owned());
    }
    // A message that was acknowledged is in the next answer, and its chat is the first of all once the store has it.
    let path = format!("/api/v1/chats/{}/messages", others[0]);
    ask(ben, Method::POST, &path, json!({ "body": "the newest" })).await.unwrap();
    while get(ben, "/chat/message").await["results"][0]["chat"]["id"] != others[0] {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let first = get(ben, "/chat/message").await;
    assert_eq!((&first["current"], &first["total"]), (&json!(0), &json!(2)), "pages count from 0");
    assert_eq!(first["unread_count"], 25);
    assert_eq!(first["results"][0]["messages"][0]["body"], "the newest");
    let mut seen = Vec::new();
    for page in 0..3 {
        let page = get(ben, &format!("/chat/message?page={page}&messages=3")).await;
        for bundle in page["results"].as_array().unwrap() {
            assert_eq!(
                (&bundle["complete"], &bundle["chat"]["messages_count"]),
                (&json!(true), &bundle["head"]["number"])
            );
            let numbers: Vec<_> = bundle["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["number"].as_u64().unwrap())
                .collect();
            let newest = bundle["head"]["number"].as_u64().unwrap();
            assert_eq!(numbers, (newest.saturating_sub(3) + 1..=newest).rev().collect::<Vec<_>>());
            seen.push(bundle["chat"]["id"].as_str().unwrap().to_owned());
        }
    }
    let mut expected = others.clone();
    expected.push(id.clone());
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected, "each chat once");

    // One group's, page by page.
    let one = get(ben, &format!("/chat/{id}/message")).await;
    assert_eq!((&one["current"], &one["total"], &one["chat"]["id"]), (&json!(0), &json!(3), &json!(id)));
    assert_eq!((&one["results"][0]["number"], &one["results"][0]["client_id"]), (&json!(25), &Value::Null));
    let last = get(ben, &format!("/chat/{id}/message?page=2")).await;
    assert_eq!(
        last["results"].as_array().unwrap().iter().map(|m| m["number"].as_u64().unwrap()).collect::<Vec<_>>(),
        [5, 4, 3, 2, 1]
    );
    assert_eq!(get(ben, &format!("/chat/{id}/message?page=3")).await["results"], json!([]));
    assert_eq!(get(ana, &format!("/chat/{id}/message?perPage=1")).await["results"][0]["client_id"], "m25");

    // Whose they are not.
    let eve = person(&scene.stage, "Eve").await;
    assert_eq!(get(&eve, "/chat/message").await["results"], json!([]));
    refused(ask(&eve, Method::GET, &format!("/chat/{id}/message"), Value::Null).await, ErrorCode::NotFound);
    for bad in ["/chat/message?page=-1", "/chat/message?perPage=101", "/chat/message?messages=0"] {
        refused(ask(ben, Method::GET, bad, Value::Null).await, ErrorCode::Invalid);
    }
    let stranger = reqwest::get(format!("{}/chat/message", scene.stage.cluster.url())).await.unwrap();
    assert_eq!(stranger.status(), 401);
    scene.stage.cluster.stop().await.unwrap();
}

/// What the list and the chat itself say of it: messages, the newest of them, unread ones, mentions.
fn said_of(view: &Value) -> (u64, u64, u64, u64) {
    let count = |name: &str| view[name].as_u64().unwrap();
    let last = view["last_message"]["number"].as_u64().unwrap();
    (count("messages_count"), last, count("unread_count"), count("mentions_count"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ch_1_pr_5_the_list_counts_whatever_was_acknowledged_before_it_is_asked_for() {
    let scene = Scene::new().await;
    let quiet = json!({ "name": "Quiet", "members": [scene.ben.user()] });
    ask(&scene.ana, Method::POST, "/api/v1/chats", quiet).await.unwrap();
    let (mut sent, mut mentions) = (0, 0);
    for round in 0..20 {
        scene.say(&scene.ana, json!({ "body": "for all", "mention_all": true })).await;
        (sent, mentions) = (sent + 1, mentions + 1);
        if round % 5 == 4 {
            // One's own answer is read, and all before it.
            scene.say(&scene.ben, json!({ "body": "answer" })).await;
            (sent, mentions) = (sent + 1, 0);
        }
        let of_ben = (sent, sent, mentions, mentions);
        let list = get(&scene.ben, "/api/v1/chats").await;
        assert_eq!(list["results"][0]["id"], json!(scene.id), "the most active comes first");
        assert_eq!((said_of(&list["results"][0]), &list["unread_count"]), (of_ben, &json!(mentions)));
        assert_eq!(said_of(&get(&scene.ben, &scene.chat).await), of_ben);
        let own = round % 5 == 4;
        assert_eq!(list["results"][0]["last_message"]["client_id"].is_string(), own, "one's own alone");
    }
    ask(&scene.ana, Method::PATCH, &scene.chat, json!({ "name": "Renamed" })).await.unwrap();
    assert_eq!(get(&scene.ben, "/api/v1/chats").await["results"][0]["name"], "Renamed");
    let last = format!("{}/messages/{sent}", scene.chat);
    ask(&scene.ben, Method::PUT, &last, json!({ "body": "better" })).await.unwrap();
    assert_eq!(get(&scene.ana, &scene.chat).await["last_message"]["body"], "better");
    ask(&scene.ben, Method::DELETE, &last, Value::Null).await.unwrap();
    let shown = get(&scene.ana, &scene.chat).await["last_message"].clone();
    assert_eq!((&shown["deleted"], &shown["number"]), (&json!(true), &json!(sent)));
    scene.stage.cluster.stop().await.unwrap();
}
