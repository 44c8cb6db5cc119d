//! Applications through the one origin: made by the operator, joined with their own tokens, their chats by number; and not a byte of one
//! for another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]
#![allow(clippy::print_stdout, reason = "how long it took, for whoever wants to know")]

mod stage;

use std::time::Duration;

use common::{time::Millis, wire::client::ClientFrame};
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header, encode};
use reqwest::Method;
use serde_json::{Value, json};
use stage::{ADMIN_KEY, MEND, Stage};
use tokio_tungstenite::{connect_async, tungstenite::Message};

/// A browser's public key: a point on P-256.
const POINT: &str = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";

const SECRET: &str = "a secret of an application's own";

/// Whoever calls the cluster.
struct Door {
    url: String,
    nodes: Vec<String>,
    client: reqwest::Client,
}

/// An answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    retry_after: Option<u64>,
    body: Value,
}

impl Reply {
    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl Door {
    fn to(stage: &Stage) -> Self {
        let client = reqwest::Client::builder().timeout(MEND).build().unwrap();
        Self { url: stage.cluster.url(), nodes: stage.cluster.nodes().map(|(_, url)| url).collect(), client }
    }

    async fn call(&self, bearer: &str, method: Method, path: &str, body: Value) -> Reply {
        self.call_at(&self.url, bearer, method, path, body).await
    }

    async fn call_at(&self, url: &str, bearer: &str, method: Method, path: &str, body: Value) -> Reply {
        let mut request = self.client.request(method, format!("{url}{path}"));
        if !bearer.is_empty() {
            request = request.bearer_auth(bearer);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Reply { status, retry_after, body }
    }

    async fn get(&self, bearer: &str, path: &str) -> Reply {
        self.call(bearer, Method::GET, path, Value::Null).await
    }

    async fn post(&self, bearer: &str, path: &str, body: Value) -> Reply {
        self.call(bearer, Method::POST, path, body).await
    }

    /// An application whose users come with tokens of its own; its token.
    async fn application(&self, name: &str, mut settings: Value) -> String {
        settings["register_on_first_sight"] = json!(true);
        settings["keys"] = json!([{"kid": "own", "algorithm": "HS256", "key": SECRET}]);
        let body = json!({"name": name, "settings": settings});
        let made = self.post(ADMIN_KEY, "/api/v1/applications", body).await.expect(201);
        let app = made["token"].as_str().unwrap().to_owned();
        self.until(&token(&app, "own", "somebody"), 200).await;
        app
    }

    /// Waits until a token is answered like this by every node, and by the dispatcher.
    async fn until(&self, token: &str, status: u16) {
        let me = self.nodes.iter().map(|node| (node.as_str(), "/api/v1/users/me"));
        let all = async {
            for (url, path) in me.chain([(self.url.as_str(), "/chat/location")]) {
                while self.call_at(url, token, Method::GET, path, Value::Null).await.status != status {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        tokio::time::timeout(MEND, all).await.expect("not every process knows of it");
    }

    /// Somebody of an application: the token, and the id.
    async fn person(&self, app: &str, name: &str) -> (String, String) {
        let token = token(app, "own", name);
        let me = self.get(&token, "/api/v1/users/me").await.expect(200);
        (token, me["id"].as_str().unwrap().to_owned())
    }

    async fn location(&self, token: &str) -> String {
        self.get(token, "/chat/location").await.expect(200)["url"].as_str().unwrap().to_owned()
    }
}

fn token(app: &str, kid: &str, subject: &str) -> String {
    let header = Header { kid: Some(kid.into()), ..Header::default() };
    let exp = Millis::now().as_secs() + 3_600;
    // Two of one second are not one sign-in.
    let jti = common::ids::SessionId::random();
    let claims = json!({"iss": app, "aud": "chat", "sub": subject, "name": subject, "exp": exp, "jti": jti});
    encode(&header, &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_6_applications_are_the_operator_s_to_make_to_see_and_to_change() {
    let stage = Stage::new(2).await;
    let door = Door::to(&stage);
    let path = "/api/v1/applications";
    let new = json!({"name": "School", "settings": {"contacts_only": true}});
    for stranger in ["", "another key, as long as it", &token(&"0".repeat(32), "own", "ana")] {
        door.get(stranger, path).await.expect(401);
        door.post(stranger, path, new.clone()).await.expect(401);
    }
    let made = door.post(ADMIN_KEY, path, new).await.expect(201);
    let one = format!("{path}/{}", made["token"].as_str().unwrap());
    assert_eq!(
        (&made["name"], &made["chats_count"], &made["messages_count"]),
        (&json!("School"), &json!(0), &json!(0))
    );
    assert_eq!(made["settings"]["contacts_only"], true);

    // Secrets go in, and do not come out; one that is not given again stays.
    let keys = json!([{"kid": "a", "algorithm": "HS256", "key": SECRET}]);
    let settings = json!({"keys": keys, "register_on_first_sight": true});
    let put = |body| door.call(ADMIN_KEY, Method::PUT, &one, body);
    let changed = put(json!({"settings": settings})).await.expect(200);
    assert_eq!(changed["name"], "School", "what is absent stays");
    assert!(!changed.to_string().contains(SECRET), "{changed}");
    let app = made["token"].as_str().unwrap();
    door.until(&token(app, "a", "ana"), 200).await;
    put(json!({"name": "Schule", "settings": changed["settings"]})).await.expect(200);
    assert_eq!(door.get(ADMIN_KEY, &one).await.expect(200)["name"], "Schule");
    door.until(&token(app, "a", "ana"), 200).await;

    for (wrong, param) in [
        (json!({"name": ""}), "name"),
        (
            json!({"settings": {"keys": [{"kid": "r", "algorithm": "RS256", "key": "no key"}]}}),
            "settings.keys[0].key",
        ),
        (
            json!({"settings": {"message_rate": {"per_second": -1, "burst": 1}}}),
            "settings.message_rate.per_second",
        ),
    ] {
        let refused = put(wrong).await.expect(400);
        assert_eq!(refused["errors"][0]["param"], param, "{refused}");
    }
    let listed = door.get(ADMIN_KEY, path).await.expect(200);
    assert_eq!(listed["results"].as_array().unwrap().len(), 2, "the default one and this one: {listed}");
    door.get(ADMIN_KEY, &format!("{path}/{}", "0".repeat(32))).await.expect(404);

    // Rotation: a key that is taken away is refused everywhere within seconds, and no process was started again.
    put(json!({"settings": {"register_on_first_sight": true}})).await.expect(200);
    door.until(&token(app, "a", "ana"), 401).await;
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn id_6_users_come_with_their_application_s_tokens_and_go_when_they_sign_out() {
    let stage = Stage::new(2).await;
    let door = Door::to(&stage);
    let app = door.application("School", json!({})).await;
    let (ana, id) = door.person(&app, "ana").await;
    assert_eq!(door.person(&app, "ana").await.1, id, "the same name is the same user");
    let (mut socket, _) = connect_async(door.location(&ana).await).await.unwrap();
    socket.send(Message::text(json!({"type": "hello", "ref": 1}).to_string())).await.unwrap();
    let ready: Value =
        serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
    assert_eq!((&ready["type"], &ready["user"]), (&json!("ready"), &json!(id)));
    door.call(&ana, Method::DELETE, "/api/v1/sessions/current", Value::Null).await.expect(204);
    door.get(&ana, "/api/v1/users/me").await.expect(401);

    // Whoever registers here signs in here, and nowhere else; where nobody is registered at first sight, strangers stay out.
    let closed = json!({"name": "Closed", "settings": {"keys": [{"kid": "own", "algorithm": "HS256", "key": SECRET}]}});
    let closed = door.post(ADMIN_KEY, "/api/v1/applications", closed).await.expect(201);
    let closed = closed["token"].as_str().unwrap();
    let person =
        json!({"application": closed, "username": "ben", "password": "correct horse", "name": "Ben"});
    // The other node has not heard of the application, and looks.
    door.post("", "/api/v1/users", person).await.expect(201);
    let mut signs_in = json!({"username": "ben", "password": "correct horse"});
    door.post("", "/api/v1/sessions", signs_in.clone()).await.expect(401);
    signs_in["application"] = json!(closed);
    door.post("", "/api/v1/sessions", signs_in).await.expect(201);
    door.get(&token(closed, "own", "stranger"), "/api/v1/users/me").await.expect(401);
    door.get(&token(closed, "own", "stranger"), "/chat/location").await.expect(401);
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn id_6_a_key_that_is_taken_away_takes_its_sessions_with_it_and_no_others() {
    let stage = Stage::new(2).await;
    let door = Door::to(&stage);
    let app = door.application("School", json!({})).await;
    let path = format!("/api/v1/applications/{app}");
    let put = |kids: Vec<&str>| {
        let keys: Vec<_> =
            kids.iter().map(|kid| json!({"kid": kid, "algorithm": "HS256", "key": SECRET})).collect();
        let settings = json!({"register_on_first_sight": true, "keys": keys});
        door.call(ADMIN_KEY, Method::PUT, &path, json!({ "settings": settings }))
    };
    put(vec!["own", "next"]).await.expect(200);
    door.until(&token(&app, "next", "ana"), 200).await;
    let person = json!({"application": app, "username": "ben", "password": "correct horse", "name": "Ben"});
    door.post("", "/api/v1/users", person).await.expect(201);
    let signs_in = json!({"application": app, "username": "ben", "password": "correct horse"});
    let ben = door.post("", "/api/v1/sessions", signs_in).await.expect(201);
    let ben = ben["token"].as_str().unwrap().to_owned();

    // Ana on two devices, by one key and by the other, and Cleo on the node that Ana is not on.
    let mut old = Vec::new();
    for name in ["ana", "cleo", "dan", "eve"] {
        old.push(hello(&door, &token(&app, "own", name), Value::Null).await);
    }
    let mut stay = vec![
        hello(&door, &token(&app, "next", "ana"), Value::Null).await,
        hello(&door, &ben, Value::Null).await,
    ];
    // A place in the queue, taken before and used after.
    let late = door.location(&token(&app, "own", "fay")).await;

    let taken_away = std::time::Instant::now();
    put(vec!["next"]).await.expect(200);
    for socket in &mut old {
        assert_eq!(code_of(socket).await, 4003);
    }
    println!("closed {:?} after the answer", taken_away.elapsed());
    let (mut late, _) = connect_async(late).await.unwrap();
    assert_eq!(code_of(&mut late).await, 4003);
    for socket in &mut stay {
        socket.send(Message::text(json!({"type": "ping", "ref": 9}).to_string())).await.unwrap();
        assert_eq!(answer_to(socket, 9, "nothing").await["type"], "pong");
    }
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn me_11_chats_and_messages_are_made_read_changed_and_deleted_by_number_and_counted() {
    let stage = Stage::new(2).await;
    let door = Door::to(&stage);
    let app = door.application("School", json!({})).await;
    let (ana, ana_id) = door.person(&app, "ana").await;
    let (ben, _) = door.person(&app, "ben").await;
    let one = format!("/api/v1/applications/{app}");
    let chats = format!("{one}/chats");

    // Chats are numbered, whoever makes them, at the same time too.
    let makes = (0..10).map(|n| door.post(ADMIN_KEY, &chats, json!({"name": format!("Course {n}")})));
    let made = futures_util::future::join_all(makes).await;
    let mut numbers: Vec<u64> =
        made.into_iter().map(|reply| reply.expect(201)["number"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let body = json!({"name": "Ana's", "members": [ana_id], "message": "welcome"});
    let made = door.post(ADMIN_KEY, &chats, body).await.expect(201);
    assert_eq!((&made["number"], &made["members_count"]), (&json!(11), &json!(1)));
    assert_eq!(made["members"][0]["role"], "owner");

    for word in ["messages", "message"] {
        let all = format!("{chats}/11/{word}");
        let said = door.post(ADMIN_KEY, &all, json!({"body": "by the school"})).await.expect(201);
        assert_eq!(said["from"], "0".repeat(32), "{said}");
        let said = door.post(ADMIN_KEY, &all, json!({"message": "by Ana", "from": ana_id})).await.expect(201);
        assert_eq!(said["from"], ana_id);
        let number = said["number"].as_u64().unwrap();
        let path = format!("{all}/{number}");
        let edited = door.call(ADMIN_KEY, Method::PUT, &path, json!({"body": "edited"})).await.expect(200);
        assert_eq!((&edited["body"], &edited["from"]), (&json!("edited"), &json!(ana_id)));
        assert_eq!(
            door.get(&ana, &path).await.expect(200)["body"],
            "edited",
            "a member reads it there as well"
        );
        // ME-6: by the operator, and by a member.
        for bearer in [ADMIN_KEY, &ana] {
            let found =
                door.post(bearer, &format!("{all}/search"), json!({"query": "eidted"})).await.expect(200);
            assert_eq!(found["results"][0]["number"], number, "{found}");
            assert_eq!(found["results"][0]["highlight"], json!([[0, 6]]));
        }
        door.post(&ben, &format!("{all}/search"), json!({"query": "edited"})).await.expect(404);
        door.call(ADMIN_KEY, Method::DELETE, &path, Value::Null).await.expect(204);
        assert_eq!(door.get(ADMIN_KEY, &path).await.expect(200)["deleted"], true);
        door.get(ADMIN_KEY, &format!("{all}/{}", number + 1)).await.expect(404);
    }
    let history = door.get(ADMIN_KEY, &format!("{chats}/11/messages?after=0")).await.expect(200);
    let numbers: Vec<_> =
        history["results"].as_array().unwrap().iter().map(|one| one["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);

    // A user does there what they may do anywhere, and no more.
    door.get(&ben, &format!("{chats}/11")).await.expect(404);
    door.post(&ben, &format!("{chats}/11/messages"), json!({"body": "?"})).await.expect(404);
    assert_eq!(door.get(&ana, &chats).await.expect(200)["results"].as_array().unwrap().len(), 1);
    door.post(&ana, &format!("{chats}/11/messages"), json!({"body": "?", "from": "f".repeat(32)}))
        .await
        .expect(400);

    let renamed =
        door.call(ADMIN_KEY, Method::PUT, &format!("{chats}/11"), json!({"name": "New"})).await.expect(200);
    assert_eq!(renamed["name"], "New");
    door.call(ADMIN_KEY, Method::DELETE, &format!("{chats}/1"), Value::Null).await.expect(204);
    door.get(ADMIN_KEY, &format!("{chats}/1")).await.expect(404);
    // Counts follow the writer.
    let counted = async || {
        let view = door.get(ADMIN_KEY, &one).await.expect(200);
        (view["chats_count"].as_u64().unwrap(), view["messages_count"].as_u64().unwrap())
    };
    tokio::time::timeout(MEND, async { while counted().await != (10, 5) {} })
        .await
        .expect("10 chats, 5 messages");
    assert_eq!(door.get(ADMIN_KEY, &format!("{chats}/11")).await.expect(200)["messages_count"], 5);
    let listed = door.get(ADMIN_KEY, &format!("{chats}?perPage=3&page=4")).await.expect(200);
    assert_eq!((&listed["total"], listed["results"][0]["number"].as_u64()), (&json!(4), Some(11)));
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ch_9_circles_become_groups_once_and_follow_their_list() {
    let stage = Stage::new(2).await;
    let door = Door::to(&stage);
    let app = door.application("School", json!({})).await;
    let mut people = Vec::new();
    for name in ["ana", "ben", "cleo", "dan"] {
        people.push(door.person(&app, name).await);
    }
    let id = |at: usize| people[at].1.clone();
    let path = format!("/api/v1/applications/{app}/circles");
    let put = |bearer: &str, circles: Value| {
        let (bearer, path) = (bearer.to_owned(), &path);
        let door = &door;
        async move { door.call(&bearer, Method::PUT, path, json!({"circles": circles})).await }
    };
    let maths = |name: &str, members: Value| json!({"key": "maths-1", "name": name, "members": members});
    let course = json!({"key": "course-7", "name": "Course 7", "description": "All", "members": [id(3)]});
    let first = json!([maths("Maths", json!([id(0), id(1)])), course]);
    put("", first.clone()).await.expect(401);
    put(&people[0].0, first.clone()).await.expect(401);

    // However often, and at the same time: one group for each.
    let made = futures_util::future::join_all((0..3).map(|_| put(ADMIN_KEY, first.clone()))).await;
    let made: Vec<Value> = made.into_iter().map(|reply| reply.expect(200)).collect();
    assert_eq!(made.iter().filter(|answer| answer["results"][0]["made"] == true).count(), 1, "{made:?}");
    let chat = made[0]["results"][0]["chat"].as_str().unwrap().to_owned();
    assert!(made.iter().all(|answer| answer["results"][0]["chat"] == chat), "{made:?}");
    let again = put(ADMIN_KEY, first.clone()).await.expect(200);
    for (field, nothing) in
        [("made", json!(false)), ("renamed", json!(false)), ("added", json!(0)), ("removed", json!(0))]
    {
        assert_eq!(again["results"][0][field], nothing, "{again}");
    }
    let seen = async |at: usize| door.get(&people[at].0, &format!("/api/v1/chats/{chat}")).await;
    let view = seen(0).await.expect(200);
    assert_eq!((&view["name"], &view["members_count"]), (&json!("Maths"), &json!(2)));
    seen(2).await.expect(404);

    // Another list: Ana goes, Cleo comes, and it is called otherwise.
    let changed = put(ADMIN_KEY, json!([maths("Maths 2", json!([id(1), id(2)]))])).await.expect(200);
    let done = &changed["results"][0];
    assert_eq!((&done["chat"], &done["renamed"]), (&json!(chat), &json!(true)));
    assert_eq!((&done["added"], &done["removed"]), (&json!(1), &json!(1)));
    seen(0).await.expect(404);
    let named = async { while seen(2).await.expect(200)["name"] != "Maths 2" {} };
    tokio::time::timeout(MEND, named).await.unwrap();
    let view = seen(2).await.expect(200);
    assert_eq!(view["members_count"], 2);
    assert!(view["members"].as_array().unwrap().iter().any(|one| one["role"] == "owner"), "{view}");
    // Who is in no list of this one is still in the other.
    assert_eq!(
        door.get(&people[3].0, "/api/v1/chats").await.expect(200)["results"].as_array().unwrap().len(),
        1
    );

    // Nothing is done of a list with somebody unknown, or one named twice.
    put(ADMIN_KEY, json!([maths("Maths 3", json!(["f".repeat(32)]))])).await.expect(400);
    put(ADMIN_KEY, json!([maths("Maths 3", json!([id(1), id(1)]))])).await.expect(400);
    put(ADMIN_KEY, json!([maths("Maths 3", json!([id(1)])), maths("Maths 4", json!([]))])).await.expect(400);
    assert_eq!(seen(1).await.expect(200)["name"], "Maths 2");
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sp_1_and_sp_2_hold_through_rest_on_every_node() {
    let stage = Stage::new(3).await;
    let door = Door::to(&stage);
    let settings = json!({
        "message_rate": {"per_second": 0.1, "burst": 2},
        "words": {"list": ["darn"], "action": "mask"},
        "links": {"action": "refuse"},
    });
    let app = door.application("Strict", settings).await;
    let (ana, ana_id) = door.person(&app, "ana").await;
    let body = json!({"name": "Strict", "members": [ana_id]});
    let chat = door.post(ADMIN_KEY, &format!("/api/v1/applications/{app}/chats"), body).await.expect(201);
    let path = format!("/api/v1/chats/{}/messages", chat["id"].as_str().unwrap());
    // Owners learn within a second what an application has chosen.
    let refused = async || door.post(&ana, &path, json!({"body": "https://evil.test"})).await.status == 403;
    tokio::time::timeout(MEND, async { while !refused().await {} }).await.unwrap();
    let taken = door.get(&ana, &path).await.expect(200)["head"]["number"].as_u64().unwrap();
    assert_eq!(taken, 0, "what is refused takes no number");
    let masked = door.post(&ana, &path, json!({"body": "oh darn"})).await.expect(201);
    assert_eq!(masked["body"], "oh ****");
    door.post(&ana, &path, json!({"body": "two"})).await.expect(201);
    for url in &door.nodes {
        let refused = door.call_at(url, &ana, Method::POST, &path, json!({"body": "three"})).await;
        assert_eq!((refused.status, &refused.body["code"]), (429, &json!("rate_limited")));
        assert!(refused.retry_after.is_some_and(|seconds| (1..=10).contains(&seconds)), "{refused:?}");
    }
    stage.cluster.stop().await.unwrap();
}

/// What is asked of every path: by whom, with what answer.
struct Row {
    method: Method,
    path: String,
    body: Value,
    /// To one of the application.
    own: u16,
    /// To one of another application.
    foreign: u16,
}

fn row(method: Method, path: impl Into<String>, body: Value, own: u16, foreign: u16) -> Row {
    Row { method, path: path.into(), body, own, foreign }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_applications_never_see_a_byte_of_each_other() {
    const MARK: &str = "seen-in-one-application-only";
    let stage = Stage::new(3).await;
    let door = Door::to(&stage);
    let (here, there) =
        (door.application("Here", json!({})).await, door.application("There", json!({})).await);
    let (ana, ana_id) = door.person(&here, &format!("ana-{MARK}")).await;
    let (_, ben_id) = door.person(&here, "ben").await;
    let (eve, eve_id) = door.person(&there, "eve").await;
    // Whatever name it goes by elsewhere.
    let (other_ben, _) = door.person(&there, "ben").await;
    let group = json!({"name": MARK, "description": MARK, "members": [ben_id], "message": MARK});
    let chat = door.post(&ana, "/api/v1/chats", group).await.expect(201);
    let chat_id = chat["id"].as_str().unwrap().to_owned();
    let (one, app) = (format!("/api/v1/chats/{chat_id}"), format!("/api/v1/applications/{here}"));
    let by_number = format!("{app}/chats/{}", chat["number"]);
    let thumb = format!("{one}/messages/1/reactions/%F0%9F%91%8D");
    let file = door.post(&ana, "/api/v1/attachments", json!({"text": MARK})).await.expect(201);
    let file = format!("/api/v1/attachments/{}", file["id"].as_str().unwrap());

    let hooks = format!("{app}/webhooks");
    let hook = json!({"url": "https://example.org/hook"});
    let made = door.post(ADMIN_KEY, &hooks, hook.clone()).await.expect(201);
    let webhook = format!("{hooks}/{}", made["id"].as_str().unwrap());
    let again = format!("{webhook}/deliveries/{}/redeliver", "0".repeat(32));
    let browser = json!({"endpoint": "https://push.example.org/ana", "expirationTime": null,
        "keys": {"p256dh": POINT, "auth": "A".repeat(22)}});
    let subscribed = door.post(&ana, "/api/v1/users/me/push", browser.clone()).await.expect(201);
    let subscribed = format!("/api/v1/users/me/push/{}", subscribed["id"].as_str().unwrap());

    let (get, post, put, patch, delete) =
        (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let nothing = Value::Null;
    // Reads first, then what changes, then what ends.
    let rows = [
        row(get.clone(), "/api/v1/users/me", nothing.clone(), 200, 200),
        row(get.clone(), "/api/v1/users?query=ana", nothing.clone(), 200, 200),
        row(get.clone(), format!("/api/v1/users?query={MARK}"), nothing.clone(), 200, 200),
        row(get.clone(), format!("/api/v1/users/{ana_id}"), nothing.clone(), 200, 404),
        row(get.clone(), format!("/api/v1/users/{ana_id}/presence"), nothing.clone(), 200, 404),
        row(get.clone(), format!("/api/v1/presence?users={ana_id}"), nothing.clone(), 200, 200),
        row(get.clone(), "/api/v1/contacts", nothing.clone(), 200, 200),
        row(get.clone(), format!("/v1/users/{ana_id}/contacts"), nothing.clone(), 200, 404),
        row(get.clone(), "/api/v1/blocks", nothing.clone(), 200, 200),
        row(get.clone(), file.clone(), nothing.clone(), 200, 404),
        row(get.clone(), format!("{file}/thumbnail"), nothing.clone(), 404, 404),
        row(get.clone(), "/api/v1/sessions", nothing.clone(), 200, 200),
        row(get.clone(), "/api/v1/chats", nothing.clone(), 200, 200),
        row(get.clone(), one.clone(), nothing.clone(), 200, 404),
        row(get.clone(), format!("{one}/members"), nothing.clone(), 200, 404),
        row(get.clone(), format!("{one}/messages"), nothing.clone(), 200, 404),
        row(get.clone(), format!("{one}/messages?after=0"), nothing.clone(), 200, 404),
        row(get.clone(), format!("{one}/messages/1"), nothing.clone(), 200, 404),
        row(get.clone(), "/api/v1/users/me/notifications", nothing.clone(), 200, 200),
        row(get.clone(), format!("{one}/notifications"), nothing.clone(), 200, 404),
        row(get.clone(), "/api/v1/push", nothing.clone(), 200, 200),
        row(get.clone(), "/api/v1/users/me/push", nothing.clone(), 200, 200),
        row(get.clone(), "/chat/message?messages=5", nothing.clone(), 200, 200),
        row(get.clone(), format!("/chat/{chat_id}/message"), nothing.clone(), 200, 404),
        row(get.clone(), "/chat/location", nothing.clone(), 200, 200),
        // The operator's alone.
        row(get.clone(), "/api/v1/applications", nothing.clone(), 401, 401),
        row(post.clone(), "/api/v1/applications", json!({"name": "x"}), 401, 401),
        row(get.clone(), app.clone(), nothing.clone(), 401, 401),
        row(put.clone(), app.clone(), json!({"name": "x"}), 401, 401),
        row(delete.clone(), app.clone(), nothing.clone(), 401, 401),
        row(put.clone(), format!("{app}/circles"), json!({"circles": []}), 401, 401),
        row(get.clone(), hooks.clone(), nothing.clone(), 401, 401),
        row(post.clone(), hooks, hook, 401, 401),
        row(get.clone(), webhook.clone(), nothing.clone(), 401, 401),
        row(patch.clone(), webhook.clone(), json!({"enabled": false}), 401, 401),
        row(get.clone(), format!("{webhook}/deliveries"), nothing.clone(), 401, 401),
        row(post.clone(), again, nothing.clone(), 401, 401),
        row(delete.clone(), webhook, nothing.clone(), 401, 401),
        row(get.clone(), format!("{app}/chats"), nothing.clone(), 200, 404),
        row(get.clone(), by_number.clone(), nothing.clone(), 200, 404),
        row(get.clone(), format!("{by_number}/messages"), nothing.clone(), 200, 404),
        row(get.clone(), format!("{by_number}/message"), nothing.clone(), 200, 404),
        row(get.clone(), format!("{by_number}/messages/1"), nothing.clone(), 200, 404),
        row(get.clone(), format!("{by_number}/message/1"), nothing.clone(), 200, 404),
        row(post.clone(), "/api/v1/messages/search", json!({"query": MARK}), 200, 200),
        row(post.clone(), format!("{one}/messages/search"), json!({"query": MARK}), 200, 404),
        row(post.clone(), format!("{by_number}/messages/search"), json!({"query": MARK}), 200, 404),
        row(post.clone(), format!("{by_number}/message/search"), json!({"query": MARK}), 200, 404),
        row(patch.clone(), "/api/v1/users/me", json!({"timezone": "Europe/Paris"}), 200, 200),
        row(put.clone(), "/api/v1/users/me/notifications", json!({"kinds": ["mention"]}), 200, 200),
        row(put.clone(), format!("{one}/notifications"), json!({"kinds": []}), 200, 404),
        // Foreign first: the same browser in both applications is two.
        row(post.clone(), "/api/v1/users/me/push", browser, 200, 201),
        row(put.clone(), format!("/api/v1/contacts/{ben_id}"), nothing.clone(), 204, 404),
        row(put.clone(), format!("/api/v1/blocks/{ben_id}"), nothing.clone(), 204, 404),
        row(get.clone(), "/api/v1/contacts?page=1", nothing.clone(), 200, 200),
        row(get.clone(), "/api/v1/blocks?page=1", nothing.clone(), 200, 200),
        row(post.clone(), "/api/v1/attachments", json!({"text": "x"}), 201, 201),
        row(post.clone(), "/api/v1/chats", json!({"host_id": ben_id}), 201, 404),
        row(post.clone(), "/api/v1/chats", json!({"members": [ben_id]}), 201, 400),
        row(post.clone(), format!("{one}/read"), json!({"number": 1}), 200, 404),
        row(
            post.clone(),
            format!("{one}/messages"),
            json!({"body": "x", "reply_to": 1, "mentions": [ben_id], "mention_all": true}),
            201,
            404,
        ),
        row(put.clone(), thumb.clone(), nothing.clone(), 204, 404),
        row(delete.clone(), thumb, nothing.clone(), 204, 404),
        row(put.clone(), format!("{one}/messages/1"), json!({"body": "y"}), 200, 404),
        row(patch.clone(), one.clone(), json!({"description": "x"}), 200, 404),
        row(delete.clone(), format!("{one}/members/{ben_id}"), nothing.clone(), 204, 404),
        row(put.clone(), format!("{one}/members/{ben_id}"), nothing.clone(), 204, 404),
        row(put.clone(), format!("{one}/members/{ben_id}"), json!({"role": "admin"}), 204, 404),
        row(post.clone(), format!("{app}/chats"), json!({"members": [ben_id]}), 201, 404),
        row(put.clone(), by_number.clone(), json!({"description": "x"}), 200, 404),
        row(post.clone(), format!("{by_number}/messages"), json!({"body": "x"}), 201, 404),
        row(post.clone(), format!("{by_number}/message"), json!({"body": "x"}), 201, 404),
        row(put.clone(), format!("{by_number}/messages/3"), json!({"body": "y"}), 200, 404),
        row(put.clone(), format!("{by_number}/message/4"), json!({"body": "y"}), 200, 404),
        row(delete.clone(), format!("{by_number}/messages/3"), nothing.clone(), 204, 404),
        row(delete.clone(), format!("{by_number}/message/4"), nothing.clone(), 204, 404),
        row(delete.clone(), format!("{one}/messages/2"), nothing.clone(), 204, 404),
        // Who is none of theirs stays none of theirs.
        row(delete.clone(), format!("/api/v1/contacts/{ben_id}"), nothing.clone(), 204, 204),
        row(delete.clone(), format!("/api/v1/blocks/{ben_id}"), nothing.clone(), 204, 204),
        row(delete.clone(), subscribed, nothing.clone(), 204, 404),
        row(delete.clone(), format!("/api/v1/sessions/{}", "0".repeat(32)), nothing.clone(), 404, 404),
    ];
    let ends = [
        row(delete.clone(), by_number.clone(), nothing.clone(), 204, 404),
        row(delete.clone(), one.clone(), nothing.clone(), 404, 404),
        row(delete.clone(), "/api/v1/sessions/current", nothing, 204, 204),
    ];
    every_path_has_a_row(&door, rows.iter().chain(&ends)).await;
    // The socket of the other application, open all the while.
    let mut foreign = hello(&door, &eve, json!({"chats": {&chat_id: 0}})).await;
    let walk = async |rows: &[Row]| {
        for Row { method, path, body, own, foreign } in rows {
            for (who, bearer, status) in [("nobody", "", 401), ("eve", &eve, *foreign), ("ana", &ana, *own)] {
                let reply = door.call(bearer, method.clone(), path, body.clone()).await;
                assert_eq!(reply.status, status, "{who} {method} {path}: {}", reply.body);
                let text = reply.body.to_string();
                let tells = who != "ana"
                    && [MARK, &ana_id, &ben_id, &chat_id].iter().any(|word| text.contains(*word));
                assert!(!tells, "{who} {method} {path}: {text}");
            }
        }
    };
    walk(&rows).await;

    // Every frame that names a chat; `hello` did above, and `ping` names none.
    let frames = [
        json!({"type": "send", "chat": chat_id, "client_id": "e1", "body": "x"}),
        json!({"type": "edit", "chat": chat_id, "number": 1, "body": "x"}),
        json!({"type": "delete", "chat": chat_id, "number": 1}),
        json!({"type": "react", "chat": chat_id, "number": 1, "emoji": "👍", "on": true}),
        json!({"type": "read", "chat": chat_id, "number": 1}),
        json!({"type": "history", "chat": chat_id}),
        json!({"type": "changes", "chat": chat_id, "after": 0}),
    ];
    let asked = |kind: &&&str| frames.iter().any(|frame| frame["type"] == **kind);
    let unasked: Vec<_> = ClientFrame::TYPES.iter().filter(|kind| !asked(kind)).collect();
    assert_eq!(unasked, [&"hello", &"typing", &"ping"], "a frame without a line here");
    // It has no answer, to anybody.
    foreign
        .send(Message::text(json!({"type": "typing", "chat": chat_id, "on": true}).to_string()))
        .await
        .unwrap();
    for (ref_, mut frame) in (10..).zip(frames) {
        let kind = frame["type"].clone();
        frame["ref"] = json!(ref_);
        foreign.send(Message::text(frame.to_string())).await.unwrap();
        let answer = answer_to(&mut foreign, ref_, MARK).await;
        if kind == "changes" && answer["type"] == "resumed" {
            assert_eq!(answer["chats"], json!({}), "{answer}");
        } else {
            assert_eq!(
                (&answer["type"], &answer["code"]),
                (&json!("error"), &json!("not_found")),
                "{kind}: {answer}"
            );
        }
    }
    // What is said there meanwhile does not reach it: what is asked last is answered last.
    door.post(&ana, &format!("{one}/messages"), json!({"body": MARK})).await.expect(201);
    foreign.send(Message::text(json!({"type": "ping", "ref": 99}).to_string())).await.unwrap();
    assert_eq!(answer_to(&mut foreign, 99, MARK).await["type"], "pong");
    walk(&ends).await;

    // What nobody needs a token for tells of nobody.
    for path in OPEN {
        let text = door.get("", path).await.expect(200).to_string();
        assert!(
            ![MARK, &ana_id, &ben_id, &chat_id].iter().any(|word| text.contains(*word)),
            "{path}: {text}"
        );
    }

    // Without a ticket, and with another's, there is no socket.
    let ws = door.location(&other_ben).await;
    let (place, ticket) = ws.split_once("?ticket=").unwrap();
    assert!(connect_async(place).await.is_err(), "no ticket");
    assert!(
        connect_async(format!("{place}?ticket={}x", &ticket[..ticket.len() - 2])).await.is_err(),
        "forged"
    );
    // The same name elsewhere is somebody else.
    assert!(
        door.get(&other_ben, "/api/v1/chats").await.expect(200)["results"].as_array().unwrap().is_empty()
    );
    assert_ne!(ben_id, eve_id);
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_erased_is_closed_to_its_users_and_is_no_more() {
    let stage = Stage::new(2).await;
    let door = Door::to(&stage);
    let (gone, stays) =
        (door.application("Gone", json!({})).await, door.application("Stays", json!({})).await);
    let (ana, _) = door.person(&gone, "ana").await;
    let (ben, _) = door.person(&stays, "ben").await;
    let path = format!("/api/v1/applications/{gone}");
    let mut closed = hello(&door, &ana, Value::Null).await;
    let mut open = hello(&door, &ben, Value::Null).await;
    let default = format!("/api/v1/applications/{}", common::ids::AppId::DEFAULT);
    door.call(ADMIN_KEY, Method::DELETE, &default, Value::Null).await.expect(403);
    door.call(ADMIN_KEY, Method::DELETE, &path, Value::Null).await.expect(204);
    door.until(&ana, 401).await;
    assert_eq!(code_of(&mut closed).await, 4003);
    for method in [Method::GET, Method::DELETE] {
        door.call(ADMIN_KEY, method, &path, Value::Null).await.expect(404);
    }
    open.send(Message::text(json!({"type": "ping", "ref": 9}).to_string())).await.unwrap();
    assert_eq!(answer_to(&mut open, 9, "nothing").await["type"], "pong");
    stage.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_erased_leaves_groups_and_comes_back_with_no_token() {
    let stage = Stage::new(2).await;
    let door = Door::to(&stage);
    let app = door.application("Here", json!({})).await;
    let ((ana, ana_id), (ben, ben_id)) = (door.person(&app, "ana").await, door.person(&app, "ben").await);
    let group = door.post(&ana, "/api/v1/chats", json!({"name": "Course", "members": [ben_id]})).await;
    let group = format!("/api/v1/chats/{}", group.expect(201)["id"].as_str().unwrap());
    door.post(&ana, &format!("{group}/messages"), json!({"body": "hello"})).await.expect(201);
    // Of this one only the application knows.
    let mut tablet = hello(&door, &token(&app, "own", "ana"), Value::Null).await;
    door.call(&ana, Method::DELETE, "/api/v1/users/me", json!({})).await.expect(204);
    assert_eq!(code_of(&mut tablet).await, 4003);
    door.until(&ana, 401).await;
    door.until(&token(&app, "own", "ana"), 401).await;
    let left = async {
        loop {
            let members = door.get(&ben, &format!("{group}/members")).await.expect(200);
            let members = members["results"].as_array().unwrap();
            if members.len() == 1 {
                return members[0]["role"].clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let role = tokio::time::timeout(MEND, left).await.expect("who was erased is still a member");
    assert_eq!(role, "owner", "the group has another owner");
    let history = door.get(&ben, &format!("{group}/messages?after=0")).await.expect(200);
    assert_eq!(
        (&history["results"][0]["body"], &history["results"][0]["from"]),
        (&json!("hello"), &json!(ana_id))
    );
    door.get(&ben, &format!("/api/v1/users/{ana_id}")).await.expect(404);
    stage.cluster.stop().await.unwrap();
}

/// What nobody needs a token for.
const OPEN: [&str; 8] = [
    "/asyncapi.json",
    "/cluster",
    "/docs",
    "/docs/page.js",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/readyz",
];

/// The paths that are served are each in the table, or open to everybody.
async fn every_path_has_a_row(door: &Door, rows: impl Iterator<Item = &Row>) {
    let paths: Vec<&str> = rows.map(|row| row.path.split('?').next().unwrap()).collect();
    let is = |pattern: &str, path: &str| {
        pattern.split('/').count() == path.split('/').count()
            && pattern
                .split('/')
                .zip(path.split('/'))
                .all(|(one, other)| one.starts_with('{') || one == other)
    };
    let document = door.get("", "/openapi.json").await.expect(200);
    let served = document["paths"].as_object().unwrap();
    for pattern in served.keys().filter(|path| !OPEN.contains(&path.as_str())) {
        let pattern = pattern.trim_end_matches('/');
        assert!(paths.iter().any(|path| is(pattern, path)), "{pattern} has no row");
    }
    assert!(served.len() > 20, "only {} paths found", served.len());
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// An open session that asks for what it missed.
async fn hello(door: &Door, token: &str, resume: Value) -> Socket {
    let (mut socket, _) = connect_async(door.location(token).await).await.unwrap();
    let hello = json!({"type": "hello", "ref": 1, "resume": resume});
    socket.send(Message::text(hello.to_string())).await.unwrap();
    assert_eq!(answer_to(&mut socket, 1, "nothing").await["type"], "ready");
    socket
}

/// The code with which the server closes it.
async fn code_of(socket: &mut Socket) -> u16 {
    let code = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(close)))) => return u16::from(close.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(MEND, code).await.expect("it stays open")
}

/// The answer to a request; whatever comes before it does not say `mark`, and neither does it.
async fn answer_to(socket: &mut Socket, ref_: u64, mark: &str) -> Value {
    let answered = async {
        loop {
            let frame = socket.next().await.unwrap().unwrap();
            let Ok(text) = frame.to_text() else { continue };
            assert!(!text.contains(mark), "{text}");
            let Ok(frame) = serde_json::from_str::<Value>(text) else { continue };
            if frame["ref"] == ref_ {
                return frame;
            }
        }
    };
    tokio::time::timeout(MEND, answered).await.expect("no answer")
}
