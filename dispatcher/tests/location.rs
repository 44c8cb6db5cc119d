//! Where a user's node is, and what operators ask, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{sync::Arc, time::Duration};

use common::{
    ids::{AppId, Incarnation, UserKey},
    link::LinkSettings,
    ring::Ring,
    store::{Accounts as _, Application},
    time::Millis,
    token::{Caller, Ticket, Tokens},
};
use dispatcher::DispatcherConfig;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{FakeNode, Rig, config, json, node_id, until};

/// The answer is a problem with this status and code.
async fn problem(response: reqwest::Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers().contains_key("retry-after"), status == 503);
    assert_eq!(response.headers().contains_key("www-authenticate"), status == 401);
    let body = json(response).await;
    assert_eq!(body["status"], status);
    assert_eq!(body["code"], code);
    assert!(!body["title"].as_str().unwrap().is_empty());
    body
}

async fn node_of(rig: &Rig, token: &str) -> String {
    let response = rig.get("/chat/location", Some(token)).await;
    assert_eq!(response.status(), 200);
    json(response).await["node"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn id_6_a_user_of_an_application_that_was_made_a_moment_ago_is_placed_at_once() {
    let rig = Rig::start(1).await;
    let _node = FakeNode::joined(&rig, "a").await;
    rig.ready().await;
    let application = Application {
        id: AppId::random(),
        name: "School".into(),
        token_secret: vec![7; 32],
        token_kid: "own".into(),
        settings: Arc::default(),
    };
    let (caller, _) = rig.token();
    let caller = Caller { app: application.id, ..caller };
    let token = Tokens::new([&application]).issue(&caller, Millis::now()).unwrap();
    problem(rig.get("/chat/location", Some(&token)).await, 401, "unauthenticated").await;
    assert!(rig.store.add_application(&application).await.unwrap());
    assert_eq!(node_of(&rig, &token).await, "a");
    rig.stop().await;
}

#[tokio::test]
async fn lo_1_a_user_is_given_the_address_of_their_node_with_a_ticket_for_it() {
    let rig = Rig::start(3).await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(FakeNode::joined(&rig, name).await);
    }
    rig.ready().await;
    let ring = Ring::new(["a", "b", "c"].map(node_id));
    for _ in 0..20 {
        let (caller, token) = rig.token();
        let before = Millis::now();
        let response = rig.get("/chat/location", Some(&token)).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["cache-control"], "no-store");
        let location = json(response).await;
        let user = UserKey { app: caller.app, user: caller.user };
        assert_eq!(location["node"], ring.home(user.hash64()).unwrap().as_str());
        assert_eq!(location["ring_epoch"], rig.cluster().await["epoch"]);

        let node = nodes.iter().find(|node| location["node"] == node.id.as_str()).unwrap();
        let url = location["url"].as_str().unwrap();
        let ticket = url.strip_prefix(&format!("ws://{}:80/socket?ticket=", node.id)).unwrap();
        let ticket = rig.tickets.check(ticket, &node.id, node.incarnation, before).unwrap();
        assert_eq!(ticket.caller, caller);
        let expires_at: Millis = serde_json::from_value(location["expires_at"].clone()).unwrap();
        assert_eq!(ticket.expires_at, expires_at);
        assert!(
            expires_at > before.plus(Duration::from_secs(25))
                && expires_at <= Millis::now().plus(Duration::from_secs(30))
        );
        // It opens nothing elsewhere, and not in another life.
        assert!(rig.tickets.check(url, &node.id, Incarnation(1), before).is_err());
    }
    rig.stop().await;
}

#[tokio::test]
async fn id_3_without_a_good_token_there_is_no_location() {
    let rig = Rig::start(1).await;
    let node = FakeNode::joined(&rig, "a").await;
    rig.ready().await;
    let (caller, good) = rig.token();
    let now = Millis::now();
    let expired = Caller { expires_at: Millis(now.0 - 10_000), ..caller.clone() };
    let ticket = Ticket {
        caller: caller.clone(),
        node: node.id.clone(),
        incarnation: node.incarnation,
        id: 1,
        expires_at: now.plus(Duration::from_secs(30)),
    };
    let cases = [
        ("no token", vec![]),
        ("nothing", vec![String::new()]),
        ("another scheme", vec![format!("Basic {good}")]),
        ("no scheme", vec![good.clone()]),
        ("cut", vec![format!("Bearer {}", &good[..good.len() - 2])]),
        ("two", vec![format!("Bearer {good}"), format!("Bearer {good}")]),
        ("expired", vec![format!("Bearer {}", rig.tokens.issue(&expired, now).unwrap())]),
        ("a ticket", vec![format!("Bearer {}", rig.tickets.issue(&ticket, now).unwrap())]),
        ("huge", vec![format!("Bearer {}", "a".repeat(10_000))]),
    ];
    let mut answers = Vec::new();
    for (what, headers) in cases {
        let mut request = rig.client.get(rig.url("/chat/location"));
        for header in headers {
            request = request.header("authorization", header);
        }
        answers.push((what, problem(request.send().await.unwrap(), 401, "unauthenticated").await));
    }
    // A token in the URL is not looked at.
    let response = rig.get(&format!("/chat/location?token={good}"), None).await;
    answers.push(("in the URL", problem(response, 401, "unauthenticated").await));
    let first = answers[0].1.clone();
    for (what, answer) in answers {
        assert_eq!(answer, first, "{what}: whatever is wrong, the answer is the same");
    }
    assert_eq!(node_of(&rig, &good).await, "a");
    rig.stop().await;
}

#[tokio::test]
async fn a_session_that_was_ended_has_no_location_any_more() {
    let rig = Rig::start(1).await;
    let _node = FakeNode::joined(&rig, "a").await;
    rig.ready().await;
    let ((ana, token), (_, other)) = (rig.token(), rig.token());
    rig.sign_in(&ana).await;
    assert_eq!(node_of(&rig, &token).await, "a");
    assert!(rig.store.end_sign_in(AppId::DEFAULT, ana.user, ana.session).await.unwrap());
    until("refused", async || rig.get("/chat/location", Some(&token)).await.status() == 401).await;
    assert_eq!(node_of(&rig, &other).await, "a", "others are as before");
    rig.stop().await;
}

#[tokio::test]
async fn lo_4_without_a_node_the_answer_is_to_come_back() {
    let rig = Rig::start(1).await;
    let (_, token) = rig.token();
    problem(rig.get("/readyz", None).await, 503, "retry_later").await;
    // Whoever asks, the keys have to be there first.
    until("known or not, no node", async || rig.get("/chat/location", None).await.status() == 401).await;
    problem(rig.get("/chat/location", Some(&token)).await, 503, "retry_later").await;

    let node = FakeNode::joined(&rig, "a").await;
    rig.ready().await;
    assert_eq!(node_of(&rig, &token).await, "a");
    node.die().await;
    until("gone", async || rig.get("/chat/location", Some(&token)).await.status() == 503).await;
    problem(rig.get("/readyz", None).await, 503, "retry_later").await;
    rig.stop().await;
}

#[tokio::test]
async fn lo_3_a_full_node_is_passed_over_before_a_heartbeat_has_told_so() {
    let rig = Rig::with(DispatcherConfig { lease: Duration::from_secs(60), ..config(2) }).await;
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let mut node = FakeNode::linked(&rig, name).await;
        node.capacity = 10;
        node.register().await;
        // Whoever was sent there is all that the dispatcher can know of.
        node.silence();
        nodes.push(node);
    }
    rig.ready().await;
    let mut sent = std::collections::BTreeMap::new();
    for _ in 0..20 {
        let (_, token) = rig.token();
        *sent.entry(node_of(&rig, &token).await).or_insert(0) += 1;
    }
    assert_eq!(sent.into_values().collect::<Vec<_>>(), [10, 10]);
    let (_, token) = rig.token();
    problem(rig.get("/chat/location", Some(&token)).await, 503, "retry_later").await;

    // Those who were sent did not come: two heartbeats later there is room again.
    for node in &mut nodes {
        node.beat(9);
    }
    until("room", async || rig.get("/chat/location", Some(&token)).await.status() == 200).await;
    rig.stop().await;
}

#[tokio::test]
async fn who_asks_again_and_again_makes_no_node_full() {
    let rig = Rig::with(DispatcherConfig { lease: Duration::from_secs(60), ..config(1) }).await;
    let mut node = FakeNode::linked(&rig, "a").await;
    node.capacity = 3;
    node.register().await;
    node.silence();
    rig.ready().await;
    let (_, eager) = rig.token();
    for _ in 0..2 {
        for _ in 0..20 {
            node_of(&rig, &eager).await;
        }
        let (_, other) = rig.token();
        node_of(&rig, &other).await;
    }
    let (_, late) = rig.token();
    problem(rig.get("/chat/location", Some(&late)).await, 503, "retry_later").await;
    rig.stop().await;
}

#[tokio::test]
async fn op_4_operators_see_the_cluster() {
    let rig = Rig::start(2).await;
    let (mut a, b) = (FakeNode::joined(&rig, "a").await, FakeNode::joined(&rig, "b").await);
    rig.ready().await;
    a.beat(42);
    until("the load is known", async || rig.cluster().await["nodes"][0]["sockets"] == 42).await;
    let cluster = rig.cluster().await;
    assert_eq!((&cluster["partitions"], &cluster["settled"]), (&json!(16), &json!(true)));
    let nodes = cluster["nodes"].as_array().unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node["node"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(nodes[1]["incarnation"], b.incarnation.to_string());
    assert_eq!(nodes[1]["capacity"], 1_000);
    assert_eq!(nodes[1]["linked"], true);
    let mut owned: Vec<u64> = nodes
        .iter()
        .flat_map(|node| node["partitions"].as_array().unwrap())
        .map(|number| number.as_u64().unwrap())
        .collect();
    owned.sort_unstable();
    assert_eq!(owned, (0..16).collect::<Vec<_>>());

    assert_eq!(rig.get("/healthz", None).await.status(), 200);
    let metrics = rig.get("/metrics", None).await;
    assert!(metrics.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    let text = metrics.text().await.unwrap();
    for line in ["dispatcher_nodes 2", "process_resident_memory_bytes", "dispatcher_placement_epoch"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_the_one_format() {
    let rig = Rig::start(1).await;
    let _node = FakeNode::joined(&rig, "a").await;
    rig.ready().await;
    for path in [
        "/",
        "/chat",
        "/chat/location/",
        "/api",
        "/api/v1",
        "/group/",
        "/message/",
        "/user/",
        "/cluster/nodes",
        "/socket",
    ] {
        problem(rig.get(path, None).await, 404, "not_found").await;
    }
    for path in ["/chat/location", "/cluster", "/metrics", "/healthz", "/readyz"] {
        for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
            let response = rig.client.request(method, rig.url(path)).send().await.unwrap();
            problem(response, 405, "method_not_allowed").await;
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn pages_of_listed_origins_may_call_and_others_may_not() {
    let origin = "https://chat.example.org";
    let rig = Rig::with(DispatcherConfig { allowed_origins: vec![origin.into()], ..config(1) }).await;
    let _node = FakeNode::joined(&rig, "a").await;
    rig.ready().await;
    let (_, token) = rig.token();
    let ask = async |method: Method, origin: &str| {
        let request = rig.client.request(method, rig.url("/chat/location")).bearer_auth(&token);
        request.header("origin", origin).header("access-control-request-method", "GET").send().await.unwrap()
    };
    let allowed =
        |response: &reqwest::Response| response.headers().get("access-control-allow-origin").cloned();
    let preflight = ask(Method::OPTIONS, origin).await;
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(allowed(&preflight).unwrap(), origin);
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    let answer = ask(Method::GET, origin).await;
    assert_eq!(allowed(&answer).unwrap(), origin);
    assert_eq!(answer.headers()["vary"], "origin");
    for other in ["https://chat.example.org.evil.example", "http://chat.example.org", "null"] {
        assert_eq!(allowed(&ask(Method::GET, other).await), None, "{other}");
        assert_eq!(ask(Method::OPTIONS, other).await.status(), 405, "{other}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn while_the_store_is_silent_nodes_are_placed_and_users_told_to_come_back() {
    let rig = Rig::build(config(1), LinkSettings::default(), true).await;
    let mut node = FakeNode::joined(&rig, "a").await;
    node.placed(|placement| placement.owners.len() == 16).await;
    let (_, token) = rig.token();
    problem(rig.get("/chat/location", Some(&token)).await, 503, "retry_later").await;
    problem(rig.get("/readyz", None).await, 503, "retry_later").await;
    assert_eq!(rig.get("/healthz", None).await.status(), 200);
    rig.stop().await;
}
