use std::sync::atomic::Ordering;

use common::ids::UserId;
use http::{Method, header};
use serde_json::json;

use crate::{
    owner::Mood,
    world::{World, request},
};

#[tokio::test]
async fn two_people_have_one_direct_chat() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let made = world.post(&ana, "/api/v1/chats", json!({"host_id": ben.id})).await.expect(201);
    let there = world.post(&ben, "/api/v1/chats", json!({"host_id": ana.id})).await.expect(200);
    assert_eq!(made["id"], there["id"]);
    assert_eq!(
        (&made["kind"], &made["name"], &there["name"]),
        (&json!("direct"), &json!("ben"), &json!("ana"))
    );
    world.post(&ana, "/api/v1/chats", json!({"host_id": UserId::random()})).await.refused(404, "not_found");
    let own = world.post(&ana, "/api/v1/chats", json!({"host_id": ana.id})).await.refused(400, "invalid");
    assert_eq!(own["errors"][0]["param"], "host_id");
}

#[tokio::test]
async fn a_group_is_made_with_its_members_and_its_first_message() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    // Who makes it need not be named, and may be.
    let body =
        json!({"name": "Trip", "description": "To the sea", "members": [ben.id, ana.id], "message": "Hello"});
    let made = world.post(&ana, "/api/v1/chats", body).await.expect(201);
    assert_eq!(
        (&made["name"], &made["description"], &made["members_count"]),
        (&json!("Trip"), &json!("To the sea"), &json!(2))
    );
    assert_eq!(made["last_message"]["body"], "Hello");
    let list = world.get(&ben, "/api/v1/chats").await.expect(200);
    assert_eq!(
        (&list["current"], &list["total"], &list["results"][0]["id"]),
        (&json!(1), &json!(1), &made["id"])
    );
    let past = world.get(&ben, "/api/v1/chats?page=7").await.expect(200);
    assert_eq!((&past["current"], &past["results"]), (&json!(7), &json!([])));
    world.post(&ana, "/api/v1/chats", json!({"members": []})).await.expect(201);
}

#[tokio::test]
async fn under_an_idempotency_key_a_group_is_made_once() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let ask = async |who| {
        let request = request(Some(who), Method::POST, "/api/v1/chats").header("Idempotency-Key", "trip-1");
        let reply =
            world.raw(request.body(json!({"name": "Trip", "members": []}).to_string().into()).unwrap()).await;
        (reply.status.as_u16(), reply.body["id"].clone())
    };
    let (first, again, other) = (ask(&ana).await, ask(&ana).await, ask(&ben).await);
    assert!(world.owner.last_was_retry.load(Ordering::SeqCst));
    assert_eq!((first.0, again.0, other.0), (201, 200, 201));
    assert!(first.1 == again.1 && first.1 != other.1);
}

#[tokio::test]
async fn a_stranger_does_not_learn_that_a_chat_is_there() {
    let world = World::new().await;
    let (ana, eve) = (world.person("ana").await, world.person("eve").await);
    let chat = world.group(&[&ana]).await;
    let missing = format!("/api/v1/chats/{}", UserId::random());
    for path in [chat, missing] {
        let member = format!("{path}/members/{}", eve.id);
        let message = format!("{path}/messages/1");
        let text = json!({"body": "hi"});
        let replies = [
            world.get(&eve, &path).await,
            world.patch(&eve, &path, json!({"name": "Mine"})).await,
            world.delete(&eve, &path).await,
            world.get(&eve, &format!("{path}/members")).await,
            world.put(&eve, &member, json!({})).await,
            world.delete(&eve, &member).await,
            world.get(&eve, &format!("{path}/messages")).await,
            world.get(&eve, &format!("{path}/messages?after=0")).await,
            world.post(&eve, &format!("{path}/messages"), text.clone()).await,
            world.get(&eve, &message).await,
            world.put(&eve, &message, text).await,
            world.delete(&eve, &message).await,
        ];
        for reply in replies {
            reply.refused(404, "not_found");
        }
    }
}

#[tokio::test]
async fn members_come_and_go() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let chat = world.group(&[&ana]).await;
    let member = format!("{chat}/members/{}", ben.id);
    world.put(&ana, &member, json!(null)).await.expect(204);
    world.put(&ana, &member, json!(null)).await.expect(204);
    let list = world.get(&ben, &format!("{chat}/members?perPage=1&page=2")).await.expect(200);
    assert_eq!(
        (&list["current"], &list["total"], &list["results"][0]["id"]),
        (&json!(2), &json!(2), &json!(ben.id))
    );
    world
        .put(&ana, &format!("{chat}/members/{}", UserId::random()), json!(null))
        .await
        .refused(404, "not_found");
    world.patch(&ben, &chat, json!({"name": "Mine"})).await.refused(403, "forbidden");
    world.delete(&ben, &member).await.expect(204);
    world.get(&ben, &chat).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_new_name_is_in_the_answer_before_the_store_has_it() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    world.owner.drain(false).await;
    let answer =
        world.patch(&ana, &chat, json!({"name": "New", "description": "What for"})).await.expect(200);
    assert_eq!((&answer["name"], &answer["description"]), (&json!("New"), &json!("What for")));
    world.owner.drain(true).await;
    assert_eq!(world.get(&ana, &chat).await.expect(200)["name"], "New");
    world.delete(&ana, &chat).await.expect(204);
    world.get(&ana, &chat).await.refused(404, "not_found");
}

#[tokio::test]
async fn what_may_be_done_or_not_is_said_to_be_unknown() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    world.owner.feel(Mood::Unknown);
    let text = json!({"body": "hi"});
    let reply = world.post(&ana, &format!("{chat}/messages"), text.clone()).await;
    assert!(reply.headers.contains_key(header::RETRY_AFTER));
    reply.refused(503, "outcome_unknown");
    world.post(&ana, "/api/v1/chats", json!({"members": []})).await.refused(503, "outcome_unknown");
    world.owner.feel(Mood::RetryLater);
    world.post(&ana, &format!("{chat}/messages"), text).await.refused(503, "retry_later");
}
