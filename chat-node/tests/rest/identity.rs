use std::{sync::Arc, time::Duration};

use chat_node::attempts::AttemptLimits;
use common::{
    cache::{LimitPolicy, LiveSession, NodeLife},
    ids::{AppId, Incarnation, NodeId, SessionId, SocketId, UserId, UserKey},
    store::{Application, User},
    time::Millis,
    token::{Caller, Ticket, Tokens},
    wire::peer::{Live, Topic},
};
use http::{Method, header};
use serde_json::{Value, json};

use crate::world::{PASSWORD, Person, World, request};

#[tokio::test]
async fn id_1_id_4_somebody_registers_and_signs_in_and_others_see_a_name_only() {
    let world = World::new().await;
    let body = json!({"username": "Ana", "password": PASSWORD, "name": "Ana Díaz",
        "mobile_number": "+34 600 000 000", "timezone": "Europe/Madrid"});
    let made = world.call(None, Method::POST, "/api/v1/users", body).await.expect(201);
    assert_eq!(
        (&made["username"], &made["name"], &made["timezone"]),
        (&json!("Ana"), &json!("Ana Díaz"), &json!("Europe/Madrid"))
    );
    assert!(!made.to_string().contains("password") && !made.to_string().contains("argon2"));

    let ana = world.again("ana").await;
    assert_eq!(world.get(&ana, "/api/v1/users/me").await.expect(200), made);
    let ben = world.person("ben").await;
    let seen = world.get(&ben, &format!("/api/v1/users/{}", ana.id)).await.expect(200);
    let presence = json!({"status": "offline", "last_seen": null});
    assert_eq!(seen, json!({"id": ana.id, "name": "Ana Díaz", "avatar": null, "presence": presence}));
    world.get(&ben, &format!("/api/v1/users/{}", SessionId::random())).await.refused(404, "not_found");
}

#[tokio::test]
async fn id_1_a_username_is_taken_once_whatever_its_case() {
    let world = World::new().await;
    world.person("ana").await;
    let body = json!({"username": "ANA", "password": PASSWORD, "name": "Another"});
    world.call(None, Method::POST, "/api/v1/users", body).await.refused(409, "conflict");
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_sound_the_same() {
    let world = World::new().await;
    world.person("ana").await;
    let wrong = world.sign_in("ana", "wrong horse", "198.51.100.7").await.refused(401, "unauthenticated");
    let unknown =
        world.sign_in("nobody", "wrong horse", "198.51.100.7").await.refused(401, "unauthenticated");
    assert_eq!(wrong, unknown);
}

#[tokio::test]
async fn id_2_a_token_is_refused_here_from_the_answer_to_the_sign_out_on() {
    let world = World::new().await;
    let (ana, tab) = (world.person("ana").await, world.again("ana").await);
    world.delete(&ana, "/api/v1/sessions/current").await.expect(204);
    world.get(&ana, "/api/v1/users/me").await.refused(401, "unauthenticated");
    world.get(&tab, "/api/v1/users/me").await.expect(200);
    let announced = world.announced.lock().clone();
    let [(topics, Live::Revoked { app: AppId::DEFAULT, user, .. })] = &announced[..] else {
        panic!("{announced:?}")
    };
    assert_eq!((topics, user), (&vec![Topic::User(AppId::DEFAULT, ana.id)], &ana.id));
}

#[tokio::test]
async fn id_6_a_token_of_an_application_that_was_made_elsewhere_a_moment_ago_is_good_at_once() {
    let world = World::new().await;
    let application = Application {
        id: AppId::random(),
        name: "School".into(),
        token_secret: vec![7; 32],
        token_kid: "own".into(),
        settings: Arc::default(),
    };
    let (user, now) = (UserId::random(), Millis::now());
    let issue = |application: &Application| {
        let (app, session, expires_at) =
            (application.id, SessionId::random(), now.plus(Duration::from_secs(60)));
        let caller = Caller { app, user, session, expires_at, signed_by: None };
        let token = Tokens::new([application]).issue(&caller, now).unwrap();
        Person { id: user, token }
    };
    let ana = issue(&application);
    world.get(&ana, "/api/v1/users/me").await.refused(401, "unauthenticated");
    assert!(world.store.add_application(&application).await.unwrap());
    let row = User::without_password(user, "ana".into(), "Ana".into(), now);
    assert!(world.store.add_user(application.id, &row).await.unwrap());
    assert_eq!(world.get(&ana, "/api/v1/users/me").await.expect(200)["name"], "Ana");
    // Under the same names, by another.
    let forged = issue(&Application { token_secret: vec![8; 32], ..application });
    world.get(&forged, "/api/v1/users/me").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn id_5_sessions_are_listed_and_any_of_ones_own_can_be_ended() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let sign_in = json!({"username": "ana", "password": PASSWORD, "device": "Ana's phone"});
    world.call(None, Method::POST, "/api/v1/sessions", sign_in).await.expect(201);
    let browser = request(None, Method::POST, "/api/v1/sessions").header(header::USER_AGENT, "Browser/1.0");
    let browser = browser.body(json!({"username": "ana", "password": PASSWORD}).to_string().into()).unwrap();
    world.raw(browser).await.expect(201);

    let list = world.get(&ana, "/api/v1/sessions").await.expect(200);
    assert_eq!((&list["current"], &list["total"]), (&json!(1), &json!(1)));
    let sessions = list["results"].as_array().unwrap();
    let devices: Vec<&Value> = sessions.iter().map(|session| &session["device"]).collect();
    assert_eq!(sessions.len(), 3);
    assert!(
        devices.contains(&&json!("Ana's phone")) && devices.contains(&&json!("Browser/1.0")),
        "{devices:?}"
    );
    let current: Vec<bool> = sessions.iter().map(|session| session["current"].as_bool().unwrap()).collect();
    assert_eq!(current.iter().filter(|current| **current).count(), 1);

    for (query, current, shown) in [("perPage=2", 1, 2), ("perPage=2&page=2", 2, 1), ("page=9", 9, 0)] {
        let page = world.get(&ana, &format!("/api/v1/sessions?{query}")).await.expect(200);
        assert_eq!(page["current"], current);
        assert_eq!(page["total"], if query.contains("perPage") { 2 } else { 1 });
        assert_eq!(page["results"].as_array().unwrap().len(), shown, "{query}");
    }
    for query in ["page=0", "page=x", "perPage=0", "perPage=101"] {
        world.get(&ana, &format!("/api/v1/sessions?{query}")).await.refused(400, "invalid");
    }

    let phone = sessions.iter().find(|session| session["device"] == "Ana's phone").unwrap();
    let path = format!("/api/v1/sessions/{}", phone["id"].as_str().unwrap());
    let ben = world.person("ben").await;
    world.delete(&ben, &path).await.refused(404, "not_found");
    world.delete(&ana, &path).await.expect(204);
    world.delete(&ana, &path).await.refused(404, "not_found");
    let left = world.get(&ana, "/api/v1/sessions").await.expect(200);
    assert_eq!(left["results"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn id_5_a_session_shows_the_nodes_that_hold_its_sockets() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let caller = world.tokens.check(&ana.token, Millis::now()).unwrap();
    for node in ["node-2", "node-1", "node-2"] {
        let live = LiveSession {
            socket: SocketId::random(),
            session: caller.session,
            device: None,
            life: NodeLife { node: NodeId::new(node).unwrap(), incarnation: Incarnation(1) },
            since: Millis::now(),
        };
        world.cache.session_opened(UserKey { app: caller.app, user: ana.id }, live).await.unwrap();
    }
    let list = world.get(&ana, "/api/v1/sessions").await.expect(200);
    assert_eq!(list["results"][0]["nodes"], json!(["node-1", "node-2"]));
}

#[tokio::test]
async fn id_3_no_token_but_a_good_one_of_ours_is_let_in() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let caller = world.tokens.check(&ana.token, Millis::now()).unwrap();
    let expired = Caller { expires_at: Millis::from_secs(Millis::now().as_secs() - 60), ..caller.clone() };
    let ticket = Ticket {
        caller: caller.clone(),
        node: NodeId::new("node-1").unwrap(),
        incarnation: Incarnation(1),
        id: 7,
        expires_at: Millis::from_secs(Millis::now().as_secs() + 30),
    };
    let parts: Vec<&str> = ana.token.split('.').collect();
    let (head, tail) = (parts[0], parts[2]);
    // {"alg":"none"} with the same claims and no signature.
    let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    let bad = [
        String::new(),
        "x".into(),
        "x".repeat(10_000),
        none,
        format!("{head}.{}.{}", parts[1], tail.chars().rev().collect::<String>()),
        format!("{head}.e30.{tail}"),
        world.tokens.issue(&expired, Millis(0)).unwrap(),
        world.tickets.issue(&ticket, Millis::now()).unwrap(),
    ];
    for token in bad {
        let who = Person { token, ..ana.clone() };
        world.get(&who, "/api/v1/users/me").await.refused(401, "unauthenticated");
    }
    let path = format!("/api/v1/users/me?token={}&access_token={}", ana.token, ana.token);
    world.call(None, Method::GET, &path, Value::Null).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_stranger_who_guesses_locks_nobody_out_of_their_own_account() {
    let world = World::with(AttemptLimits::default()).await;
    world.person("ana").await;
    let mut guesses = 0;
    while world.sign_in("ana", "guess guess", "203.0.113.1").await.status == 401 {
        guesses += 1;
        assert!(guesses < 50, "nobody stops it");
    }
    for _ in 0..100 {
        world.sign_in("ana", "guess guess", "203.0.113.1").await.refused(429, "rate_limited");
    }
    world.sign_in("ana", PASSWORD, "203.0.113.2").await.expect(201);
}

#[tokio::test]
async fn guessing_is_slowed_down_by_name_and_by_address() {
    let none = LimitPolicy { per_second: 0.001, burst: 1_000 };
    let three = LimitPolicy { per_second: 0.001, burst: 3 };
    let limits = AttemptLimits { per_username: none, per_username_there: none, per_address: none };
    let world = World::with(AttemptLimits { per_username_there: three, ..limits.clone() }).await;
    for _ in 0..3 {
        world.sign_in("ana", "guess guess", "203.0.113.1").await.refused(401, "unauthenticated");
    }
    world.sign_in("ANA", "guess guess", "203.0.113.1").await.refused(429, "rate_limited");
    world.sign_in("ana", "guess guess", "203.0.113.2").await.refused(401, "unauthenticated");
    world.sign_in("ben", "guess guess", "203.0.113.1").await.refused(401, "unauthenticated");

    let world = World::with(AttemptLimits { per_username: three, ..limits.clone() }).await;
    for at in 0..3 {
        world.sign_in("ana", "guess guess", &format!("203.0.113.{at}")).await.refused(401, "unauthenticated");
    }
    let refused = world.sign_in("ANA", "guess guess", "203.0.113.77").await;
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    refused.refused(429, "rate_limited");
    world.sign_in("ben", "guess guess", "203.0.113.0").await.refused(401, "unauthenticated");

    let world = World::with(AttemptLimits { per_address: three, ..limits }).await;
    for name in ["ana", "ben", "eva"] {
        world.sign_in(name, "guess guess", "1.1.1.1, 203.0.113.1").await.refused(401, "unauthenticated");
    }
    world.sign_in("joe", "guess guess", "2.2.2.2, 203.0.113.1").await.refused(429, "rate_limited");
    world.sign_in("joe", "guess guess", "203.0.113.2").await.refused(401, "unauthenticated");
    for _ in 0..5 {
        world.sign_in("joe", "guess guess", "127.0.0.1").await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn who_is_erased_is_no_more_and_what_they_wrote_stays() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let group = json!({"name": "Course", "members": [ben.id]});
    let group = world.post(&ana, "/api/v1/chats", group).await.expect(201);
    let messages = format!("/api/v1/chats/{}/messages", group["id"].as_str().unwrap());
    world.post(&ana, &messages, json!({"body": "what she wrote"})).await.expect(201);
    let me = "/api/v1/users/me";
    for wrong in [json!({}), json!({"password": "wrong horse"}), json!({"password": null})] {
        let problem = world.call(Some(&ana), Method::DELETE, me, wrong).await.refused(400, "invalid");
        assert_eq!(problem["errors"][0]["param"], "password");
    }
    world.get(&ana, me).await.expect(200);
    world.call(Some(&ana), Method::DELETE, me, json!({"password": PASSWORD})).await.expect(204);
    world.get(&ana, me).await.refused(401, "unauthenticated");
    world.get(&ben, &format!("/api/v1/users/{}", ana.id)).await.refused(404, "not_found");
    let found = world.get(&ben, "/api/v1/users?query=ana").await.expect(200);
    assert_eq!(found["results"], json!([]));
    let history = world.get(&ben, &format!("{messages}?after=0")).await.expect(200);
    assert_eq!(history["results"][0]["body"], "what she wrote");
    assert_eq!(history["results"][0]["from"], json!(ana.id));
    // The name is free for somebody else.
    assert_ne!(world.person("ana").await.id, ana.id);
}
