use std::sync::atomic::Ordering;

use http::Method;
use serde_json::{Value, json};

use crate::{
    owner::Mood,
    world::{Person, World, request},
};

fn numbers(answer: &Value) -> Vec<u64> {
    answer["results"].as_array().unwrap().iter().map(|message| message["number"].as_u64().unwrap()).collect()
}

async fn say(world: &World, who: &Person, chat: &str, count: usize) {
    for at in 1..=count {
        world.post(who, &format!("{chat}/messages"), json!({"body": format!("text {at}")})).await.expect(201);
    }
}

#[tokio::test]
async fn me_1_me_4_a_message_is_in_history_as_soon_as_it_was_acknowledged() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let chat = world.group(&[&ana, &ben]).await;
    world.owner.drain(false).await;
    let body = json!({"message": "Hi", "client_id": "c-1", "type": "text"});
    let sent = world.post(&ana, &format!("{chat}/messages"), body).await.expect(201);
    assert_eq!((&sent["number"], &sent["body"], &sent["kind"]), (&json!(1), &json!("Hi"), &json!("text")));
    assert_eq!((&sent["from"], &sent["room_id"]), (&json!(ana.id), &sent["chat"]));
    assert!(
        world.owner.last_was_retry.load(Ordering::SeqCst),
        "over HTTP, whatever has a name may be a repeat"
    );

    let history = world.get(&ana, &format!("{chat}/messages?after=0")).await.expect(200);
    assert_eq!((&history["results"][0], &history["complete"]), (&sent, &json!(true)));
    assert_eq!(history["head"], json!({"number": 1, "seq": 2}));
    let mut seen = sent.clone();
    seen.as_object_mut().unwrap().remove("client_id");
    assert_eq!(
        world.get(&ben, &format!("{chat}/messages/1")).await.expect(200),
        seen,
        "the name is its sender's"
    );
    world.owner.drain(true).await;
    assert_eq!(world.get(&ben, &format!("{chat}/messages/1")).await.expect(200), seen);
    assert_eq!(world.get(&ana, &format!("{chat}/messages/1")).await.expect(200), sent);
}

#[tokio::test]
async fn me_2_a_repeat_is_the_same_message_and_another_body_is_a_conflict() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    let path = format!("{chat}/messages");
    let first = world.post(&ana, &path, json!({"body": "Hi", "client_id": "c-1"})).await.expect(201);
    let again = request(Some(&ana), Method::POST, &path).header("Idempotency-Key", "c-1");
    let again = world.raw(again.body(json!({"body": "Hi"}).to_string().into()).unwrap()).await.expect(200);
    assert_eq!(first, again);
    world.post(&ana, &path, json!({"body": "Ho", "client_id": "c-1"})).await.refused(409, "id_conflict");
    let both = request(Some(&ana), Method::POST, &path).header("Idempotency-Key", "c-2");
    let both = both.body(json!({"body": "Hi", "client_id": "c-1"}).to_string().into()).unwrap();
    world.raw(both).await.refused(400, "invalid");
    assert_eq!(numbers(&world.get(&ana, &path).await.expect(200)), [1]);
}

#[tokio::test]
async fn me_4_pages_and_ranges_are_the_same_whatever_the_store_has() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    say(&world, &ana, &chat, 12).await;
    world.owner.drain(false).await;
    say(&world, &ana, &chat, 13).await;
    for drained in [false, true] {
        if drained {
            world.owner.drain(true).await;
        }
        let read = async |query: &str| world.get(&ana, &format!("{chat}/messages{query}")).await.expect(200);
        let first = read("").await;
        assert_eq!((&first["current"], &first["total"]), (&json!(1), &json!(3)));
        assert_eq!(numbers(&first), (16..=25).rev().collect::<Vec<_>>());
        assert_eq!(numbers(&read("?page=2").await), (6..=15).rev().collect::<Vec<_>>());
        assert_eq!(numbers(&read("?page=3").await), (1..=5).rev().collect::<Vec<_>>());
        assert_eq!(numbers(&read("?page=4").await), [] as [u64; 0]);
        assert_eq!(numbers(&read("?page=2&perPage=12").await), (2..=13).rev().collect::<Vec<_>>());
        assert_eq!(numbers(&read("?before=14&limit=3").await), [13, 12, 11]);
        assert_eq!(numbers(&read("?after=11&limit=3").await), [12, 13, 14]);
        assert_eq!(numbers(&read("?limit=2").await), [25, 24]);
        assert_eq!(numbers(&read("?before=1").await), [] as [u64; 0]);
        assert_eq!(numbers(&read("?after=25").await), [] as [u64; 0]);
        assert_eq!(numbers(&read("?after=99999999999999999999").await), [] as [u64; 0]);
        assert_eq!(numbers(&read("?after=0").await), (1..=25).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn me_5_edits_and_deletions_show_at_once() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let chat = world.group(&[&ana, &ben]).await;
    say(&world, &ana, &chat, 2).await;
    world.owner.drain(false).await;
    let edited =
        world.put(&ana, &format!("{chat}/messages/1"), json!({"message": "better"})).await.expect(200);
    assert_eq!(edited["body"], "better");
    assert!(edited["edited_at"].is_string());
    world.put(&ben, &format!("{chat}/messages/1"), json!({"body": "mine"})).await.refused(403, "forbidden");
    world.delete(&ana, &format!("{chat}/messages/2")).await.expect(204);
    for drained in [false, true] {
        if drained {
            world.owner.drain(true).await;
        }
        let history = world.get(&ben, &format!("{chat}/messages")).await.expect(200);
        assert_eq!(numbers(&history), [2, 1]);
        let gone = &history["results"][0];
        assert_eq!((&gone["deleted"], &gone["body"]), (&json!(true), &json!("")));
        assert_eq!(history["results"][1]["body"], "better");
    }
    world.get(&ben, &format!("{chat}/messages/3")).await.refused(404, "not_found");
}

#[tokio::test]
async fn when_the_owner_is_silent_the_store_answers_and_says_that_it_may_lack_something() {
    let world = World::new().await;
    let (ana, eve) = (world.person("ana").await, world.person("eve").await);
    let chat = world.group(&[&ana]).await;
    say(&world, &ana, &chat, 3).await;
    world.owner.drain(false).await;
    say(&world, &ana, &chat, 1).await;
    for mood in [Mood::Unknown, Mood::RetryLater] {
        world.owner.feel(mood);
        let page = world.get(&ana, &format!("{chat}/messages")).await.expect(200);
        assert_eq!(
            (numbers(&page), &page["total"], &page["complete"]),
            (vec![3, 2, 1], &json!(1), &json!(false))
        );
        let range = world.get(&ana, &format!("{chat}/messages?after=1")).await.expect(200);
        assert_eq!((numbers(&range), &range["complete"]), (vec![2, 3], &json!(false)));
        assert_eq!(world.get(&ana, &format!("{chat}/messages/3")).await.expect(200)["number"], 3);
        world.get(&ana, &format!("{chat}/messages/4")).await.refused(503, "retry_later");
        world.get(&eve, &format!("{chat}/messages")).await.refused(404, "not_found");
    }
}
