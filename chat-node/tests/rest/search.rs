use common::ids::MessageId;
use serde_json::{Value, json};

use crate::{
    owner::Mood,
    world::{Person, World},
};

async fn say(world: &World, who: &Person, chat: &str, body: &str) -> Value {
    let body = json!({"body": body, "client_id": MessageId::random().to_string()});
    world.post(who, &format!("{chat}/messages"), body).await.expect(201)
}

async fn search(world: &World, who: &Person, chat: &str, query: &str) -> Value {
    world.post(who, &format!("{chat}/messages/search"), json!({"query": query})).await.expect(200)
}

fn numbers(answer: &Value) -> Vec<u64> {
    answer["results"].as_array().unwrap().iter().map(|message| message["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn me_6_messages_are_found_page_by_page_the_best_first_and_show_where_they_match() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let chat = world.group(&[&ana, &ben]).await;
    let said = say(&world, &ana, &chat, "¡Olé! The Meeting, at noon").await;
    say(&world, &ana, &chat, "no meetings").await;
    say(&world, &ana, &chat, "meetnig?").await;
    say(&world, &ana, &chat, "明日は東京タワーへ").await;
    let found = search(&world, &ana, &chat, " meeting ").await;
    assert_eq!(
        (&found["current"], &found["total"], &found["complete"]),
        (&json!(1), &json!(1), &json!(true))
    );
    assert_eq!(numbers(&found), [1, 2, 3]);
    let mut expected = said;
    expected["highlight"] = json!([[10, 7]]);
    assert_eq!(found["results"][0], expected, "as in history, and where it matches");
    assert_eq!(found["results"][1]["highlight"], json!([[3, 7]]));
    assert_eq!(found["results"][2]["highlight"], json!([[0, 7]]));
    let seen = search(&world, &ben, &chat, "東京").await;
    assert_eq!(numbers(&seen), [4]);
    assert_eq!(seen["results"][0]["highlight"], json!([[3, 2]]));
    assert_eq!(seen["results"][0]["client_id"], Value::Null, "the name is its sender's");
    assert_eq!(numbers(&search(&world, &ben, &chat, "?!").await), [] as [u64; 0]);

    for n in 0..12 {
        say(&world, &ben, &chat, &format!("number {}", "i".repeat(n + 1))).await;
    }
    let page = async |query: &str| {
        let path = format!("{chat}/messages/search{query}");
        world.post(&ana, &path, json!({"query": "number"})).await.expect(200)
    };
    assert_eq!(numbers(&page("").await), (7..=16).rev().collect::<Vec<_>>());
    let second = page("?page=2").await;
    assert_eq!((numbers(&second), &second["current"], &second["total"]), (vec![6, 5], &json!(2), &json!(2)));
    assert_eq!(numbers(&page("?page=3").await), [] as [u64; 0]);
    let three = page("?page=2&perPage=3").await;
    assert_eq!((numbers(&three), &three["total"]), (vec![13, 12, 11], &json!(4)));
}

#[tokio::test]
async fn me_6_what_was_acknowledged_is_found_and_what_was_changed_as_it_is_before_the_store_has_it() {
    let world = World::new().await;
    let (ana, eve) = (world.person("ana").await, world.person("eve").await);
    let chat = world.group(&[&ana]).await;
    say(&world, &ana, &chat, "a first draft").await;
    say(&world, &ana, &chat, "a second draft!").await;
    world.owner.drain(false).await;
    say(&world, &ana, &chat, "the third one, a draft").await;
    world.put(&ana, &format!("{chat}/messages/1"), json!({"body": "the final text"})).await.expect(200);
    world.delete(&ana, &format!("{chat}/messages/2")).await.expect(204);
    for drained in [false, true] {
        if drained {
            world.owner.drain(true).await;
        }
        let found = search(&world, &ana, &chat, "draft").await;
        assert_eq!((numbers(&found), &found["complete"]), (vec![3], &json!(true)), "{drained}");
        let edited = search(&world, &ana, &chat, "final").await;
        assert_eq!((numbers(&edited), &edited["results"][0]["highlight"]), (vec![1], &json!([[4, 5]])));
        assert_eq!(numbers(&search(&world, &ana, &chat, "second").await), [] as [u64; 0]);
    }
    world.owner.drain(false).await;
    say(&world, &ana, &chat, "the fourth one, a draft").await;
    for mood in [Mood::Unknown, Mood::RetryLater] {
        world.owner.feel(mood);
        let found = search(&world, &ana, &chat, "draft").await;
        assert_eq!((numbers(&found), &found["complete"]), (vec![3], &json!(false)), "the owner is silent");
        let path = format!("{chat}/messages/search");
        world.post(&eve, &path, json!({"query": "draft"})).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn me_6_a_search_in_all_chats_is_in_those_that_one_is_in() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let (one, other) = (world.group(&[&ana, &ben]).await, world.group(&[&ana]).await);
    say(&world, &ben, &one, "the plan of one").await;
    say(&world, &ana, &other, "the plans of the other").await;
    let all = async |who: &Person| {
        let found = world.post(who, "/api/v1/messages/search?perPage=5", json!({"query": "plan"})).await;
        let found = found.expect(200);
        let chat = |message: &Value| format!("/api/v1/chats/{}", message["chat"].as_str().unwrap());
        found["results"].as_array().unwrap().iter().map(chat).collect::<Vec<_>>()
    };
    assert_eq!(all(&ana).await, [one.clone(), other.clone()], "a whole word is better than a part");
    assert_eq!(all(&ben).await, std::slice::from_ref(&one));
    world.delete(&ana, &format!("{one}/members/{}", ben.id)).await.expect(204);
    assert_eq!(all(&ben).await, Vec::<String>::new());
    let path = format!("{one}/messages/search");
    world.post(&ben, &path, json!({"query": "plan"})).await.refused(404, "not_found");
}
