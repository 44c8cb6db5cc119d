//! Applications, as the operator changes them (ID-6).

use common::ids::UserId;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::world::{ADMIN_KEY, Person, World};

const SECRET: &str = "a secret of an application's own";

#[tokio::test]
async fn changes_at_the_same_time_are_all_made_and_bring_nothing_back_id_6() {
    let world = World::new().await;
    let operator = Person { id: UserId::APPLICATION, token: ADMIN_KEY.to_owned() };
    let new = json!({"name": "School", "settings": {}});
    let made = world.post(&operator, "/api/v1/applications", new).await.expect(201);
    let path = format!("/api/v1/applications/{}", made["token"].as_str().unwrap());
    let key = |kid: &str| json!({"kid": kid, "algorithm": "HS256", "key": SECRET});
    for round in 0..10 {
        let keys = json!([key("old"), key("new")]);
        world.put(&operator, &path, json!({"settings": {"keys": keys}})).await.expect(200);
        // One takes a key away, others give it other names meanwhile.
        let keys = json!([key("new")]);
        let mut changes = vec![json!({"settings": {"keys": keys, "contacts_only": true}})];
        let name = format!("School {round}");
        changes.extend((0..4).map(|_| json!({"name": name})));
        let done = join_all(changes.into_iter().map(|change| world.put(&operator, &path, change))).await;
        done.into_iter().for_each(|reply| drop(reply.expect(200)));
        let now = world.call(Some(&operator), Method::GET, &path, Value::Null).await.expect(200);
        let kids: Vec<_> =
            now["settings"]["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
        assert_eq!((&now["name"], kids), (&json!(name), vec![&json!("new")]), "{now}");
        assert_eq!(now["settings"]["contacts_only"], true);
    }
}
