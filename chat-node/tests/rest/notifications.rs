//! What users choose to be told while away, and their browsers (NO-1, NO-2).

use http::Method;
use serde_json::{Value, json};

use crate::world::{Person, World};

/// A browser's public key: a point on P-256.
const POINT: &str = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";

const MINE: &str = "/api/v1/users/me/notifications";
const BROWSERS: &str = "/api/v1/users/me/push";

#[tokio::test]
async fn no_2_what_one_is_told_is_chosen_whole_and_is_one_s_own() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let nothing_chosen = json!({"kinds": ["message"]});
    assert_eq!(world.get(&ana, MINE).await.expect(200), nothing_chosen);
    let chosen = json!({"kinds": ["reply", "mention", "reply"], "muted_until": "2036-12-24T19:00:00+01:00",
        "quiet_hours": {"from": "22:00", "to": "07:05"}});
    let shown = json!({"kinds": ["mention", "reply"], "muted_until": "2036-12-24T18:00:00.000Z",
        "quiet_hours": {"from": "22:00", "to": "07:05"}});
    assert_eq!(world.put(&ana, MINE, chosen).await.expect(200), shown);
    assert_eq!(world.get(&ana, MINE).await.expect(200), shown);
    assert_eq!(world.get(&ben, MINE).await.expect(200), nothing_chosen);
    assert_eq!(world.put(&ana, MINE, shown.clone()).await.expect(200), shown, "as it was shown");
    let silence = json!({"kinds": []});
    assert_eq!(world.put(&ana, MINE, silence.clone()).await.expect(200), silence);
    assert_eq!(world.put(&ana, MINE, json!({})).await.expect(200), nothing_chosen);
    assert_eq!(world.get(&ana, MINE).await.expect(200), nothing_chosen);
}

#[tokio::test]
async fn no_2_one_chat_may_be_otherwise_to_who_is_in_it() {
    let world = World::new().await;
    let (ana, ben, eve) = (world.person("ana").await, world.person("ben").await, world.person("eve").await);
    let group = world.group(&[&ana, &ben]).await;
    let path = format!("{group}/notifications");
    assert_eq!(world.get(&ana, &path).await.expect(200), json!({}));
    // For ever, as some clients say it.
    let chosen = json!({"kinds": ["mention"], "muted_until": "9999-12-31T23:59:59.000Z"});
    assert_eq!(world.put(&ana, &path, chosen.clone()).await.expect(200), chosen);
    assert_eq!(world.get(&ana, &path).await.expect(200), chosen);
    assert_eq!(world.get(&ben, &path).await.expect(200), json!({}));
    let other = world.group(&[&ana]).await;
    assert_eq!(world.get(&ana, &format!("{other}/notifications")).await.expect(200), json!({}));
    let silent = json!({"kinds": []});
    assert_eq!(world.put(&ana, &path, silent.clone()).await.expect(200), silent, "nothing is not as for all");
    assert_eq!(world.put(&ana, &path, json!({})).await.expect(200), json!({}));

    world.get(&eve, &path).await.refused(404, "not_found");
    world.put(&eve, &path, chosen.clone()).await.refused(404, "not_found");
    world.delete(&ana, &format!("{group}/members/{}", ben.id)).await.expect(204);
    world.get(&ben, &path).await.refused(404, "not_found");
    world.put(&ben, &path, chosen).await.refused(404, "not_found");
}

/// As a browser gives it.
fn subscription(n: usize) -> Value {
    json!({
        "endpoint": format!("https://push.example.org/send/{n}"),
        "expirationTime": null,
        "keys": {"p256dh": POINT, "auth": "A".repeat(22)},
    })
}

async fn browsers(world: &World, who: &Person) -> Vec<Value> {
    let page = world.get(who, &format!("{BROWSERS}?perPage=100")).await.expect(200);
    page["results"].as_array().unwrap().clone()
}

#[tokio::test]
async fn no_1_a_browser_subscribes_once_and_its_user_takes_it_away() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let key = world.get(&ana, "/api/v1/push").await.expect(200)["public_key"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 87, "65 bytes in base64url: {key}");
    assert!(key.starts_with('B') && !key.contains(['+', '/', '=']), "{key}");
    assert_eq!(world.get(&ben, "/api/v1/push").await.expect(200)["public_key"], key);

    assert_eq!(browsers(&world, &ana).await, Vec::<Value>::new());
    let made = world.post(&ana, BROWSERS, subscription(1)).await.expect(201);
    assert_eq!(browsers(&world, &ana).await, vec![made.clone()]);
    assert_eq!(made["origin"], "https://push.example.org");
    assert_eq!(made.as_object().unwrap().len(), 3, "its address and its keys are not shown: {made}");
    let mut padded = subscription(1);
    padded["keys"]["auth"] = json!(format!("{}==", "A".repeat(22)));
    assert_eq!(world.post(&ana, BROWSERS, padded).await.expect(200)["id"], made["id"]);
    assert_eq!(browsers(&world, &ana).await.len(), 1);

    let path = format!("{BROWSERS}/{}", made["id"].as_str().unwrap());
    world.delete(&ben, &path).await.refused(404, "not_found");
    world.delete(&ana, &path).await.expect(204);
    world.delete(&ana, &path).await.refused(404, "not_found");
    assert_eq!(browsers(&world, &ana).await, Vec::<Value>::new());

    // Who signs in at a browser that somebody else has left has it.
    world.post(&ana, BROWSERS, subscription(1)).await.expect(201);
    world.post(&ben, BROWSERS, subscription(1)).await.expect(201);
    assert_eq!((browsers(&world, &ana).await.len(), browsers(&world, &ben).await.len()), (0, 1));
}

#[tokio::test]
async fn no_1_a_browser_is_told_until_its_sign_in_is_ended() {
    let world = World::new().await;
    let (ana, tab) = (world.person("ana").await, world.again("ana").await);
    world.post(&ana, BROWSERS, subscription(1)).await.expect(201);
    let other = world.post(&tab, BROWSERS, subscription(2)).await.expect(201);
    world.delete(&ana, "/api/v1/sessions/current").await.expect(204);
    assert_eq!(browsers(&world, &tab).await, [other]);
}

#[tokio::test]
async fn no_1_of_too_many_browsers_the_oldest_makes_way() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let mut made = Vec::new();
    for n in 0..21 {
        made.push(world.post(&ana, BROWSERS, subscription(n)).await.expect(201)["id"].clone());
    }
    let there: Vec<_> = browsers(&world, &ana).await.into_iter().map(|one| one["id"].clone()).collect();
    assert_eq!(there.len(), 20);
    assert!(made.iter().skip(1).all(|id| there.contains(id)), "{there:?} of {made:?}");
    let second = world.get(&ana, &format!("{BROWSERS}?page=2&perPage=15")).await.expect(200);
    assert_eq!(
        (&second["current"], &second["total"], second["results"].as_array().unwrap().len()),
        (&json!(2), &json!(2), 5)
    );
    // Browsers add fields over the years.
    let mut odd = subscription(30);
    odd["options"] = json!({"userVisibleOnly": true});
    world.call(Some(&ana), Method::POST, BROWSERS, odd).await.expect(201);
}
