use common::{
    cache::{LiveSession, NodeLife},
    ids::{AppId, Incarnation, NodeId, SessionId, SocketId, UserId, UserKey},
    time::Millis,
};
use serde_json::{Value, json};

use crate::world::{Person, World};

/// Opens a socket of theirs, as far as the cache is told.
pub(crate) async fn comes_online(world: &World, person: &Person) {
    let session = LiveSession {
        socket: SocketId::random(),
        session: SessionId::random(),
        device: None,
        life: NodeLife { node: NodeId::new("node-1").unwrap(), incarnation: Incarnation(1) },
        since: Millis(1),
    };
    world.cache.session_opened(key(person), session).await.unwrap();
}

fn key(person: &Person) -> UserKey {
    UserKey { app: AppId::DEFAULT, user: person.id }
}

fn view(person: &Person, status: &str, last_seen: Value) -> Value {
    json!({"user": person.id, "status": status, "last_seen": last_seen})
}

#[tokio::test]
async fn pr_1_presence_is_pulled_of_one_user_and_of_many() {
    let world = World::new().await;
    let (ana, ben, eve) = (world.person("ana").await, world.person("ben").await, world.person("eve").await);
    comes_online(&world, &ben).await;
    world.store.note_seen(&[(key(&eve), Millis(1_000)), (key(&ben), Millis(2_000))]).await.unwrap();
    let one = |person: &Person| format!("/api/v1/users/{}/presence", person.id);
    let gone = view(&eve, "offline", json!("1970-01-01T00:00:01.000Z"));
    assert_eq!(world.get(&ana, &one(&ben)).await.expect(200), view(&ben, "online", json!(null)));
    assert_eq!(world.get(&ana, &one(&eve)).await.expect(200), gone);
    assert_eq!(world.get(&ana, &one(&ana)).await.expect(200), view(&ana, "offline", json!(null)));
    // In the order asked, each once; whom there is not is left out, and so is what is no id.
    let path = format!(
        "/api/v1/presence?users={},{},nobody,{},{},{}",
        eve.id,
        UserId::random(),
        ben.id,
        eve.id,
        ana.id
    );
    let views = [gone, view(&ben, "online", json!(null)), view(&ana, "offline", json!(null))];
    assert_eq!(world.get(&ana, &path).await.expect(200), json!({"results": views}));
    for person in [&eve, &ben, &ana] {
        let profile = world.get(&ana, &format!("/api/v1/users/{}", person.id)).await.expect(200);
        let pulled = world.get(&ana, &one(person)).await.expect(200);
        assert_eq!(
            profile["presence"],
            json!({"status": pulled["status"], "last_seen": pulled["last_seen"]})
        );
    }
}

#[tokio::test]
async fn pr_1_who_asks_wrongly_or_is_nobody_is_told_nothing() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let id = ana.id;
    for path in [format!("/api/v1/users/{}/presence", UserId::random()), "/api/v1/users/x/presence".into()] {
        world.get(&ana, &path).await.refused(404, "not_found");
    }
    let many = vec![id.to_string(); 101].join(",");
    for query in ["", "?users=", "?users=,", &format!("?users={id}&users={id}"), &format!("?users={many}")] {
        let problem = world.get(&ana, &format!("/api/v1/presence{query}")).await.refused(400, "invalid");
        assert_eq!(problem["errors"][0]["param"], "users", "{query}");
    }
    let most = vec![id.to_string(); 100].join(",");
    let all = world.get(&ana, &format!("/api/v1/presence?users={most}")).await.expect(200);
    assert_eq!(all["results"].as_array().unwrap().len(), 1);
    for path in [format!("/api/v1/users/{id}/presence"), format!("/api/v1/presence?users={id}")] {
        world.call(None, http::Method::GET, &path, json!(null)).await.refused(401, "unauthenticated");
    }
}
