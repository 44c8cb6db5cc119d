use std::sync::atomic::Ordering;

use common::{
    applications::MessageRate,
    ids::{AppId, UserId},
    wire::peer::Live,
};
use http::{Method, header};
use serde_json::json;

use crate::{
    owner::Mood,
    webhooks::operator,
    world::{Person, World, request},
};

#[tokio::test]
async fn ch_2_two_people_have_one_direct_chat() {
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
    // Of what a group has, nothing is dropped without a word.
    let eve = world.person("eve").await;
    for field in ["name", "description", "message"] {
        for host in [ben.id, eve.id] {
            let body = json!({"host_id": host, field: "hi"});
            let refused = world.post(&ana, "/api/v1/chats", body).await.refused(400, "invalid");
            assert_eq!(refused["errors"][0]["param"], field);
        }
    }
    assert_eq!(world.get(&eve, "/api/v1/chats").await.expect(200)["results"], json!([]));
}

/// SP-1: each new chat has a bucket of its own for messages, so making them has one as well.
#[tokio::test]
async fn whoever_makes_chats_too_fast_is_told_how_long_to_wait_and_nobody_else_is() {
    let world = World::making(MessageRate { per_second: 0.01, burst: 3 }).await;
    let (ana, ben, eve) = (world.person("ana").await, world.person("ben").await, world.person("eve").await);
    let group = json!({"name": "Trip", "members": [ben.id], "message": "Hello"});
    let direct = |to: &Person| json!({"host_id": to.id});
    world.post(&ana, "/api/v1/chats", direct(&ben)).await.expect(201);
    // What is there already, or is refused for another reason, takes nothing.
    for _ in 0..5 {
        world.post(&ana, "/api/v1/chats", direct(&ben)).await.expect(200);
        world
            .post(&ana, "/api/v1/chats", json!({"members": [UserId::random()]}))
            .await
            .refused(400, "invalid");
    }
    for _ in 0..2 {
        world.post(&ana, "/api/v1/chats", group.clone()).await.expect(201);
    }
    for body in [group.clone(), direct(&eve)] {
        let refused = world.post(&ana, "/api/v1/chats", body).await;
        assert!(refused.headers.contains_key(header::RETRY_AFTER));
        refused.refused(429, "rate_limited");
    }
    world.post(&ana, "/api/v1/chats", direct(&ben)).await.expect(200);
    world.post(&ben, "/api/v1/chats", group.clone()).await.expect(201);
    // For the application, which comes with a list of its own, nothing is counted.
    let path = format!("/api/v1/applications/{}/chats", AppId::DEFAULT);
    for _ in 0..5 {
        operator(&world, Method::POST, &path, group.clone()).await.expect(201);
    }
    assert_eq!(world.get(&ana, "/api/v1/chats").await.expect(200)["results"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn ch_3_a_group_is_made_with_its_members_and_its_first_message() {
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
async fn me_2_under_an_idempotency_key_a_group_is_made_once() {
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

/// Another text under the same key is refused by the owner, which knows what the group was made of: `tests/owner.rs`.
#[tokio::test]
async fn another_group_under_the_same_idempotency_key_is_a_conflict() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let ask = async |body: serde_json::Value| {
        let request = request(Some(&ana), Method::POST, "/api/v1/chats").header("Idempotency-Key", "trip-1");
        world.raw(request.body(body.to_string().into()).unwrap()).await
    };
    let body = |name: &str, message: &str| json!({"name": name, "members": [ben.id], "message": message});
    let made = ask(body("Trip", "Hello")).await.expect(201);
    assert_eq!(made["last_message"]["body"], "Hello");
    assert_eq!(ask(body("Trip", "Hello")).await.expect(200)["id"], made["id"]);
    ask(body("Trap", "Hello")).await.refused(409, "id_conflict");
    ask(body("Trip", "Goodbye")).await.refused(409, "id_conflict");
    ask(json!({"name": "Trip", "members": [], "message": "Hello"})).await.refused(409, "id_conflict");
    let list = world.get(&ana, "/api/v1/chats").await.expect(200);
    assert_eq!(
        (&list["results"].as_array().unwrap().len(), &list["results"][0]["messages_count"]),
        (&1, &json!(1))
    );
}

#[tokio::test]
async fn pr_4_pr_5_a_read_mark_moves_forward_only_and_what_is_unread_follows() {
    let world = World::new().await;
    let (ana, ben, eve) = (world.person("ana").await, world.person("ben").await, world.person("eve").await);
    let chat = world.group(&[&ana, &ben]).await;
    for _ in 0..5 {
        world.post(&ana, &format!("{chat}/messages"), json!({"body": "hi"})).await.expect(201);
    }
    let unread = async |who| {
        let list = world.get(who, "/api/v1/chats").await.expect(200);
        assert_eq!(list["results"][0]["unread_count"], list["unread_count"]);
        list["unread_count"].as_u64().unwrap()
    };
    let path = format!("{chat}/read");
    let read = async |number: u64| {
        world.post(&ben, &path, json!({"number": number})).await.expect(200)["number"].as_u64().unwrap()
    };
    assert_eq!((unread(&ana).await, unread(&ben).await), (0, 5));
    let answers = [read(2).await, read(4).await, read(3).await, read(1_000).await, read(u64::MAX).await];
    assert_eq!(answers, [2, 4, 4, 5, 5]);
    assert_eq!(unread(&ben).await, 0);
    // The store is behind: the owner says how far the log is.
    world.owner.drain(false).await;
    for _ in 0..3 {
        world.post(&ana, &format!("{chat}/messages"), json!({"body": "hi"})).await.expect(201);
    }
    assert_eq!([read(7).await, read(6).await, read(99).await], [7, 7, 8]);
    world.owner.feel(Mood::Unknown);
    assert_eq!(read(9).await, 8, "nobody knows of more");
    world.owner.feel(Mood::Well);
    world.owner.drain(true).await;
    assert_eq!(unread(&ben).await, 0);
    // Each mark that moved was told, once.
    let told: Vec<u64> = world
        .announced
        .lock()
        .iter()
        .filter_map(|(_, live)| match live {
            Live::Read { number, user, .. } if *user == ben.id => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(told.last(), Some(&8));
    assert!(told.is_sorted_by(|one, next| one < next), "{told:?}");

    for wrong in [json!({"number": 0}), json!({"number": -1}), json!({"number": "1"}), json!({})] {
        world.post(&ben, &path, wrong).await.refused(400, "invalid");
    }
    world.post(&eve, &path, json!({"number": 1})).await.refused(404, "not_found");
    world
        .post(&eve, &format!("/api/v1/chats/{}/read", UserId::random()), json!({"number": 1}))
        .await
        .refused(404, "not_found");
    // Who comes in late begins at zero.
    world.put(&ana, &format!("{chat}/members/{}", eve.id), json!(null)).await.expect(204);
    assert_eq!(unread(&eve).await, 0);
    world.post(&ana, &format!("{chat}/messages"), json!({"body": "hi"})).await.expect(201);
    assert_eq!((unread(&eve).await, unread(&ben).await), (1, 1));
    let answer = world.post(&eve, &path, json!({"number": 3})).await.expect(200);
    assert_eq!((&answer["number"], unread(&eve).await), (&json!(8), 1));
}

#[tokio::test]
async fn ch_7_a_stranger_does_not_learn_that_a_chat_is_there() {
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
async fn ch_4_members_come_and_go() {
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

/// What may be asked and how it is answered; who may what is in the owner's policy.
#[tokio::test]
async fn a_members_role_is_said_in_the_body_ch_4() {
    let world = World::new().await;
    let (ana, ben, eve) = (world.person("ana").await, world.person("ben").await, world.person("eve").await);
    let chat = world.group(&[&ana, &ben]).await;
    let member = |who: &crate::world::Person| format!("{chat}/members/{}", who.id);
    let roles = async || {
        let list = world.get(&ana, &format!("{chat}/members")).await.expect(200);
        let members = list["results"].as_array().unwrap();
        members.iter().map(|member| member["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    world.put(&ana, &member(&ben), json!({"role": "admin"})).await.expect(204);
    assert_eq!(roles().await, ["owner", "admin"]);
    // None said: as it is.
    for unsaid in [json!(null), json!({}), json!({"role": null})] {
        world.put(&ana, &member(&ben), unsaid).await.expect(204);
    }
    world.put(&ana, &member(&eve), json!({"role": "member"})).await.expect(204);
    assert_eq!(roles().await, ["owner", "admin", "member"]);
    for wrong in [json!({"role": "king"}), json!({"role": 1}), json!([]), json!("admin")] {
        world.put(&ana, &member(&ben), wrong).await.refused(400, "invalid");
    }
    let nobody = format!("{chat}/members/{}", UserId::random());
    world.put(&ana, &nobody, json!({"role": "admin"})).await.refused(404, "not_found");
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
