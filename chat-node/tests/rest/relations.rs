//! Contacts (ID-8) and blocks (ID-9) over REST.

use std::time::Duration;

use common::{
    applications::AppSettings,
    ids::{AppId, UserId, UserKey},
    time::Millis,
};
use serde_json::{Value, json};

use crate::{
    presence::comes_online,
    world::{Person, World},
};

fn contact(person: &Person) -> String {
    format!("/api/v1/contacts/{}", person.id)
}

fn block(person: &Person) -> String {
    format!("/api/v1/blocks/{}", person.id)
}

fn names(page: &Value) -> Vec<&str> {
    page["results"].as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap()).collect()
}

async fn contacts(world: &World, who: &Person) -> Value {
    world.get(who, "/api/v1/contacts").await.expect(200)
}

/// Opens the direct chat of two, and says something there.
async fn chat(world: &World, one: &Person, other: &Person) {
    let chat = world.post(one, "/api/v1/chats", json!({"host_id": other.id})).await.expect(201);
    let path = format!("/api/v1/chats/{}/messages", chat["id"].as_str().unwrap());
    world.post(one, &path, json!({"body": "hello"})).await.expect(201);
}

#[tokio::test]
async fn id_8_contacts_come_most_recently_chatted_with_first_and_then_by_name_with_presence() {
    let world = World::new().await;
    let (ana, ben, cleo, dan) = (
        world.person("ana").await,
        world.person("ben").await,
        world.person("Cleo").await,
        world.person("dan").await,
    );
    for person in [&dan, &cleo, &ben, &ben] {
        world.put(&ana, &contact(person), Value::Null).await.expect(204);
    }
    assert_eq!(names(&contacts(&world, &ana).await), ["ben", "Cleo", "dan"]);
    assert_eq!(names(&contacts(&world, &ben).await), Vec::<&str>::new(), "hers, and not his");
    chat(&world, &ana, &cleo).await;
    chat(&world, &dan, &ana).await;
    comes_online(&world, &cleo).await;
    let page = contacts(&world, &ana).await;
    assert_eq!((&page["current"], &page["total"]), (&json!(1), &json!(1)));
    assert_eq!(names(&page), ["dan", "Cleo", "ben"]);
    let at = page["results"][1]["last_message_at"].clone();
    assert!(at.is_string(), "{page}");
    let view = json!({"id": cleo.id, "name": "Cleo", "avatar": null, "last_message_at": at,
        "presence": {"status": "online", "last_seen": null}});
    assert_eq!(page["results"][1], view, "and no more than that");
    assert_eq!(page["results"][2]["last_message_at"], Value::Null);

    let older = format!("/v1/users/{}/contacts", ana.id);
    assert_eq!(world.get(&ana, &older).await.expect(200), page);
    world.get(&ben, &older).await.refused(404, "not_found");
    world.call(None, http::Method::GET, &older, Value::Null).await.refused(401, "unauthenticated");

    for _ in 0..2 {
        world.delete(&ana, &contact(&dan)).await.expect(204);
    }
    assert_eq!(names(&contacts(&world, &ana).await), ["Cleo", "ben"]);
}

#[tokio::test]
async fn id_8_contacts_have_15_a_page_unless_asked_otherwise() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    for n in 0..17 {
        let person = world.person(&format!("person-{n:02}")).await;
        world.put(&ana, &contact(&person), Value::Null).await.expect(204);
        world.put(&ana, &block(&person), Value::Null).await.expect(204);
    }
    let page = contacts(&world, &ana).await;
    assert_eq!((names(&page).len(), &page["total"]), (15, &json!(2)));
    for (path, shown, total) in [
        ("/api/v1/contacts?page=2", 2, 2),
        ("/api/v1/contacts?page=3", 0, 2),
        ("/api/v1/contacts?perPage=4&page=5", 1, 5),
        ("/api/v1/blocks", 10, 2),
        ("/api/v1/blocks?page=2", 7, 2),
        ("/api/v1/blocks?perPage=100", 17, 1),
    ] {
        let page = world.get(&ana, path).await.expect(200);
        assert_eq!((names(&page).len(), &page["total"]), (shown, &json!(total)), "{path}");
    }
    for bad in ["contacts?page=0", "contacts?perPage=101", "blocks?page=x"] {
        world.get(&ana, &format!("/api/v1/{bad}")).await.refused(400, "invalid");
    }
    let newest = world.get(&ana, "/api/v1/blocks?perPage=1").await.expect(200);
    let view = &newest["results"][0];
    assert_eq!(view.as_object().unwrap().len(), 3, "id, name, avatar: {view}");
}

#[tokio::test]
async fn id_9_only_others_that_there_are_can_be_contacts_or_blocked() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    for what in ["contacts", "blocks"] {
        let path = |id: &str| format!("/api/v1/{what}/{id}");
        let own = path(&ana.id.to_string());
        let problem = world.put(&ana, &own, Value::Null).await.refused(400, "invalid");
        assert_eq!(problem["errors"][0]["location"], "params");
        world.put(&ana, &path(&UserId::random().to_string()), Value::Null).await.refused(404, "not_found");
        world.put(&ana, &path("x"), Value::Null).await.refused(404, "not_found");
        world.delete(&ana, &path("x")).await.refused(404, "not_found");
        // Nobody is none of them.
        world.delete(&ana, &path(&UserId::random().to_string())).await.expect(204);
        world.delete(&ana, &own).await.expect(204);
        world.call(None, http::Method::PUT, &own, Value::Null).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn id_9_who_is_blocked_sees_no_presence_of_the_blocker_wherever_they_look() {
    let world = World::new().await;
    let (ana, ben, eve) = (world.person("ana").await, world.person("ben").await, world.person("eve").await);
    comes_online(&world, &ben).await;
    let key = UserKey { app: AppId::DEFAULT, user: ben.id };
    world.store.note_seen(&[(key, Millis(1_000))]).await.unwrap();
    for person in [&ana, &eve] {
        world.put(person, &contact(&ben), Value::Null).await.expect(204);
    }
    // What is seen of him: his presence, in a list, his profile, a contact.
    let seen = async |by: &Person| {
        let one = world.get(by, &format!("/api/v1/users/{}/presence", ben.id)).await.expect(200);
        let many = world.get(by, &format!("/api/v1/presence?users={},{}", by.id, ben.id)).await.expect(200);
        let profile = world.get(by, &format!("/api/v1/users/{}", ben.id)).await.expect(200);
        let listed = contacts(&world, by).await;
        assert_eq!(many["results"][1], one);
        let view = json!({"status": one["status"], "last_seen": one["last_seen"]});
        assert_eq!(profile["presence"], view);
        assert_eq!(listed["results"][0]["presence"], view);
        view
    };
    let online = json!({"status": "online", "last_seen": null});
    assert_eq!(seen(&ana).await, online);
    let before = Millis::now();
    for _ in 0..2 {
        world.put(&ben, &block(&ana), Value::Null).await.expect(204);
    }
    // As if he had been there then and not since, whatever he does.
    let gone = seen(&ana).await;
    let blocked: Millis = serde_json::from_value(gone["last_seen"].clone()).unwrap();
    assert!(gone["status"] == "offline" && blocked >= before && blocked <= Millis::now(), "{gone}");
    world.store.note_seen(&[(key, Millis::now().plus(Duration::from_secs(9)))]).await.unwrap();
    assert_eq!(seen(&ana).await, gone);
    assert_eq!(seen(&eve).await, online);
    let listed = world.get(&ben, "/api/v1/blocks").await.expect(200);
    assert_eq!(
        listed,
        json!({"current": 1, "total": 1, "results": [{"id": ana.id, "name": "ana", "avatar": null}]})
    );
    assert_eq!(names(&world.get(&ana, "/api/v1/blocks").await.expect(200)), Vec::<&str>::new());
    // He sees her as ever.
    comes_online(&world, &ana).await;
    let path = format!("/api/v1/users/{}/presence", ana.id);
    assert_eq!(world.get(&ben, &path).await.expect(200)["status"], "online");
    for _ in 0..2 {
        world.delete(&ben, &block(&ana)).await.expect(204);
    }
    assert_eq!(seen(&ana).await, online);
}

#[tokio::test]
async fn id_9_who_is_blocked_or_no_contact_where_only_those_may_write_brings_nobody_into_a_new_direct_chat() {
    let world = World::new().await;
    let (ana, ben, eve) = (world.person("ana").await, world.person("ben").await, world.person("eve").await);
    world.put(&ben, &block(&ana), Value::Null).await.expect(204);
    let open =
        async |by: &Person, with: &Person| world.post(by, "/api/v1/chats", json!({"host_id": with.id})).await;
    let blocked = open(&ana, &ben).await.refused(403, "forbidden");
    // It is his to open; and one that there is stays.
    open(&ben, &ana).await.expect(201);
    open(&ana, &ben).await.expect(200);

    let settings = AppSettings { contacts_only: true, ..AppSettings::default() };
    let seen = world.store.application_changes().await.unwrap();
    assert!(world.store.update_application(AppId::DEFAULT, "default", &settings, seen).await.unwrap());
    let refused = async {
        loop {
            let person = world.person(&format!("p-{}", UserId::random())).await;
            let reply = open(&eve, &person).await;
            if reply.status == 403 {
                return reply.refused(403, "forbidden");
            }
        }
    };
    let stranger = tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap();
    assert_eq!(stranger, blocked, "a block does not show");
    open(&eve, &ben).await.refused(403, "forbidden");
    world.put(&eve, &contact(&ben), Value::Null).await.expect(204);
    open(&eve, &ben).await.refused(403, "forbidden");
    world.put(&ben, &contact(&eve), Value::Null).await.expect(204);
    open(&eve, &ben).await.expect(201);
    // In groups nothing of it counts.
    world.group(&[&ana, &ben, &eve]).await;
}
