//! Webhooks of applications (NO-1, NO-3).

use std::time::Duration;

use common::{
    ids::AppId,
    store::{Attempt, Except, Looked, Receivers, Sending},
    time::Millis,
};
use http::{Method, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{ADMIN_KEY, Person, Reply, World, request};

fn hooks(app: AppId) -> String {
    format!("/api/v1/applications/{app}/webhooks")
}

/// As the operator.
pub(crate) async fn operator(world: &World, method: Method, path: &str, body: Value) -> Reply {
    let request = request(None, method, path).header(header::AUTHORIZATION, format!("Bearer {ADMIN_KEY}"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    world.raw(request.body(body.into()).unwrap()).await
}

async fn make(world: &World, url: &str) -> Value {
    operator(world, Method::POST, &hooks(AppId::DEFAULT), json!({"url": url})).await.expect(201)
}

#[tokio::test]
async fn no_1_webhooks_are_the_operator_s_and_their_secrets_are_shown_once() {
    let world = World::new().await;
    let all = hooks(AppId::DEFAULT);
    let url = "https://school.example.org/chat";
    let reply = operator(&world, Method::POST, &all, json!({"url": url})).await;
    assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store");
    let made = reply.expect(201);
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    assert_eq!((&made["url"], &made["enabled"]), (&json!(url), &json!(true)));
    let one = format!("{all}/{}", made["id"].as_str().unwrap());

    let mut shown = made.clone();
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(operator(&world, Method::GET, &one, Value::Null).await.expect(200), shown);
    let listed = operator(&world, Method::GET, &all, Value::Null).await.expect(200);
    assert_eq!(listed, json!({"current": 1, "total": 1, "results": [shown]}));

    let patch = async |body: Value| operator(&world, Method::PATCH, &one, body).await.expect(200);
    let changed = patch(json!({"url": "http://10.9.8.7:8080/hook", "enabled": false})).await;
    assert_eq!(
        (&changed["url"], &changed["enabled"], &changed["id"], &changed["created_at"]),
        (&json!("http://10.9.8.7:8080/hook"), &json!(false), &made["id"], &made["created_at"])
    );
    assert!(changed["secret"].is_null(), "{changed}");
    let rotated = patch(json!({"rotate_secret": true, "enabled": true})).await;
    let second = rotated["secret"].as_str().unwrap();
    assert!(second.starts_with("whsec_") && second != secret, "{second}");
    assert_eq!((&rotated["url"], &rotated["enabled"]), (&changed["url"], &json!(true)));

    operator(&world, Method::DELETE, &one, Value::Null).await.expect(204);
    for method in [Method::GET, Method::DELETE] {
        operator(&world, method, &one, Value::Null).await.refused(404, "not_found");
    }
    operator(&world, Method::PATCH, &one, json!({"enabled": true})).await.refused(404, "not_found");
}

#[tokio::test]
async fn no_1_webhooks_are_nobody_else_s_to_see() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let made = make(&world, "https://school.example.org/chat").await;
    let id = made["id"].as_str().unwrap();
    let other = operator(&world, Method::POST, "/api/v1/applications", json!({"name": "Other"})).await;
    let other: AppId = other.expect(201)["token"].as_str().unwrap().parse().unwrap();
    let delivery = format!("deliveries/{}/redeliver", Uuid::now_v7());
    for (method, path, body) in [
        (Method::GET, String::new(), Value::Null),
        (Method::POST, String::new(), json!({"url": "https://example.org"})),
        (Method::GET, format!("/{id}"), Value::Null),
        (Method::PATCH, format!("/{id}"), json!({"enabled": false})),
        (Method::DELETE, format!("/{id}"), Value::Null),
        (Method::GET, format!("/{id}/deliveries"), Value::Null),
        (Method::POST, format!("/{id}/{delivery}"), Value::Null),
    ] {
        let there = format!("{}{path}", hooks(AppId::DEFAULT));
        for who in [None, Some(&ana)] {
            world.call(who, method.clone(), &there, body.clone()).await.refused(401, "unauthenticated");
        }
        let nowhere = format!("{}{path}", hooks(AppId::random()));
        operator(&world, method.clone(), &nowhere, body.clone()).await.refused(404, "not_found");
        // Another application's is none of this one.
        if !path.is_empty() {
            let elsewhere = format!("{}{path}", hooks(other));
            operator(&world, method, &elsewhere, body).await.refused(404, "not_found");
        }
    }
    let listed = operator(&world, Method::GET, &hooks(other), Value::Null).await.expect(200);
    assert_eq!(listed["results"], json!([]));
    operator(&world, Method::GET, &format!("{}/{id}", hooks(AppId::DEFAULT)), Value::Null).await.expect(200);
}

#[tokio::test]
async fn no_1_an_application_has_ten_webhooks_at_most() {
    let world = World::new().await;
    let all = hooks(AppId::DEFAULT);
    let mut made = Vec::new();
    for n in 0..10 {
        // In order by the millisecond.
        tokio::time::sleep(Duration::from_millis(2)).await;
        made.push(make(&world, &format!("https://example.org/{n}")).await["id"].clone());
    }
    let full = operator(&world, Method::POST, &all, json!({"url": "https://example.org/10"})).await;
    assert!(full.refused(409, "conflict")["detail"].as_str().unwrap().contains("10 webhooks"));
    let page =
        operator(&world, Method::GET, &format!("{all}?page=2&perPage=7"), Value::Null).await.expect(200);
    let ids: Vec<_> = page["results"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!((&page["total"], ids.as_slice()), (&json!(2), &made[7..]), "oldest first");
    let one = format!("{all}/{}", made[0].as_str().unwrap());
    operator(&world, Method::DELETE, &one, Value::Null).await.expect(204);
    make(&world, "https://example.org/10").await;
}

#[tokio::test]
async fn no_3_what_could_reach_an_internal_address_is_refused_by_the_field() {
    let world = World::new().await;
    let all = hooks(AppId::DEFAULT);
    let made = make(&world, "https://school.example.org/chat").await;
    let one = format!("{all}/{}", made["id"].as_str().unwrap());
    let long = format!("https://example.org/{}", "x".repeat(2_048));
    for url in [
        json!("http://127.0.0.1:8080/"),
        json!("http://169.254.169.254/latest/meta-data/"),
        json!("http://10.8.0.1/"),
        json!("http://[::1]/"),
        json!("http://2130706433/"),
        json!("https://ana:secret@example.org/"),
        json!("https://example.org/#x"),
        json!("ftp://example.org/"),
        json!("example.org"),
        json!(""),
        json!("https://example.org/\u{0}"),
        json!(long),
        json!(7),
    ] {
        for (method, path) in [(Method::POST, &all), (Method::PATCH, &one)] {
            let refused = operator(&world, method.clone(), path, json!({"url": url})).await;
            let refused = refused.refused(400, "invalid");
            assert_eq!(refused["errors"][0]["param"], "url", "{method} {url}: {refused}");
        }
    }
    for (body, param) in [
        (json!({"url": "https://example.org", "enabled": "yes"}), "enabled"),
        (json!({"enabled": true}), "url"),
    ] {
        let refused = operator(&world, Method::POST, &all, body).await.refused(400, "invalid");
        assert_eq!(refused["errors"][0]["param"], param);
    }
    operator(&world, Method::PATCH, &one, json!({})).await.refused(400, "invalid");
    let large = json!({"url": "x".repeat(200_000)});
    operator(&world, Method::POST, &all, large).await.refused(413, "too_large");
    // Where the operator of the cluster allows it.
    make(&world, "http://10.9.0.1/").await;
}

/// What a round of the writer leaves: one delivery to every webhook of the application.
async fn something_is_told(world: &World, ana: &Person, body: &str) -> Uuid {
    let group = world.group(&[ana]).await;
    world.post(ana, &format!("{group}/messages"), json!({"body": "Hi"})).await.expect(201);
    let later = Millis::now().plus(Duration::from_secs(3600));
    let waiting = world.store.waiting(AppId::DEFAULT, &[0], later, 1_000).await.unwrap();
    let waiting = *waiting.iter().find(|one| group.ends_with(&one.chat.chat.to_string())).unwrap();
    let id = Uuid::now_v7();
    let send = vec![Sending { id, user: None, body: body.into() }];
    let looked = Looked {
        partition: 0,
        waiting,
        upto: 1,
        after: None,
        next_at: Millis(0),
        send,
        hold: Vec::new(),
        now: Millis::now(),
    };
    assert!(world.store.looked(&looked).await.unwrap());
    id
}

#[tokio::test]
async fn no_3_the_operator_sees_what_was_sent_and_has_it_sent_again() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let made = make(&world, "https://school.example.org/chat").await;
    let deliveries = format!("{}/{}/deliveries", hooks(AppId::DEFAULT), made["id"].as_str().unwrap());
    let listed = async |query: &str| {
        operator(&world, Method::GET, &format!("{deliveries}{query}"), Value::Null).await.expect(200)
    };
    assert_eq!(listed("").await["results"], json!([]));
    let first = something_is_told(&world, &ana, "{\"secret\": 1}").await;
    let second = something_is_told(&world, &ana, "{}").await;
    let all = listed("").await;
    let ids: Vec<_> = all["results"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [json!(second), json!(first)], "newest first, as in webhook-id");
    assert_eq!((&all["results"][1]["state"], &all["results"][1]["attempts"]), (&json!("pending"), &json!(0)));
    assert!(!all.to_string().contains("secret"), "what it says is not shown: {all}");
    assert_eq!(listed("?perPage=1&page=2").await["results"][0]["id"], json!(first));

    let now = Millis::now();
    let leased = world
        .store
        .lease_endpoints(Receivers::Webhooks, Except::default(), now, Duration::from_secs(30), 10)
        .await
        .unwrap();
    let failed = Attempt::Failed { status: Some(502), error: "bad gateway".into() };
    assert!(world.store.attempted(&leased[0], first, &failed, now).await.unwrap());
    let shown = &listed("").await["results"][1];
    assert_eq!(
        (&shown["state"], &shown["attempts"], &shown["status"], &shown["error"], &shown["attempted_at"]),
        (&json!("pending"), &json!(1), &json!(502), &json!("bad gateway"), &json!(now))
    );
    let taken = Attempt::Delivered { status: 204 };
    assert!(world.store.attempted(&leased[0], first, &taken, now).await.unwrap());
    let shown = &listed("").await["results"][1];
    assert_eq!((&shown["state"], &shown["status"]), (&json!("delivered"), &json!(204)));
    assert!(shown["error"].is_null(), "{shown}");

    for id in [first.to_string(), second.to_string(), first.as_simple().to_string()] {
        let path = format!("{deliveries}/{id}/redeliver");
        let reply = operator(&world, Method::POST, &path, Value::Null).await;
        assert!(reply.expect(202).is_null());
    }
    let states: Vec<_> =
        listed("").await["results"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["pending", "pending"]);
    for unknown in [Uuid::now_v7().to_string(), "x".into(), format!("%7B{first}%7D")] {
        let path = format!("{deliveries}/{unknown}/redeliver");
        operator(&world, Method::POST, &path, Value::Null).await.refused(404, "not_found");
    }
}
