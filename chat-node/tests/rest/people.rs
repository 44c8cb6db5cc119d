use serde_json::{Value, json};

use crate::{presence::comes_online, world::World};

fn names(page: &Value) -> Vec<&str> {
    page["results"].as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn id_7_a_profile_is_changed_by_its_user_and_seen_by_others_with_presence() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let update =
        json!({"name": "Ana Díaz", "avatar": "https://example.org/ana.png", "timezone": "Asia/Tokyo"});
    let changed = world.patch(&ana, "/api/v1/users/me", update).await.expect(200);
    assert_eq!(
        (&changed["username"], &changed["name"], &changed["timezone"]),
        (&json!("ana"), &json!("Ana Díaz"), &json!("Asia/Tokyo"))
    );
    assert_eq!(world.get(&ana, "/api/v1/users/me").await.expect(200), changed);
    let path = format!("/api/v1/users/{}", ana.id);
    let mut seen = json!({"id": ana.id, "name": "Ana Díaz", "avatar": "https://example.org/ana.png",
        "presence": {"status": "offline", "last_seen": null}});
    assert_eq!(world.get(&ben, &path).await.expect(200), seen, "and no more than that");
    comes_online(&world, &ana).await;
    seen["presence"]["status"] = json!("online");
    assert_eq!(world.get(&ben, &path).await.expect(200), seen);

    let bare = world.patch(&ana, "/api/v1/users/me", json!({"avatar": null, "timezone": null})).await;
    let bare = bare.expect(200);
    assert_eq!(
        (&bare["name"], &bare["avatar"], &bare["timezone"]),
        (&json!("Ana Díaz"), &json!(null), &json!(null))
    );
}

#[tokio::test]
async fn id_7_what_is_wrong_in_a_profile_is_named_and_nothing_of_it_is_kept() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    for (bad, param) in [
        (json!({}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": " \t"}), "name"),
        (json!({"name": "x".repeat(201)}), "name"),
        (json!({"name": "good", "avatar": "javascript:alert(1)"}), "avatar"),
        (json!({"name": "good", "timezone": "../etc"}), "timezone"),
        (json!({"name": "good", "timezone": "Europe/Madird"}), "timezone"),
        (json!({"name": 5}), "name"),
    ] {
        let problem = world.patch(&ana, "/api/v1/users/me", bad.clone()).await.refused(400, "invalid");
        assert_eq!(problem["errors"][0]["param"], param, "{bad}");
    }
    assert_eq!(world.get(&ana, "/api/v1/users/me").await.expect(200)["name"], "ana");
}

#[tokio::test]
async fn id_7_people_are_found_by_name_page_by_page_and_by_nothing_else() {
    let world = World::new().await;
    let ana = world.person("login-of-ana").await;
    for n in 0..12 {
        let body = json!({"username": format!("user-{n}"), "password": "correct horse", "name": format!("Zoë {n}"),
            "mobile_number": "+34 600 123 456"});
        world.call(None, http::Method::POST, "/api/v1/users", body).await.expect(201);
    }
    let update = json!({"name": "Ana Díaz"});
    world.patch(&ana, "/api/v1/users/me", update).await.expect(200);
    let found = world.get(&ana, "/api/v1/users?query=D%C3%8DAZ%20an").await.expect(200);
    assert_eq!(
        found,
        json!({"current": 1, "total": 1, "results": [{"id": ana.id, "name": "Ana Díaz", "avatar": null}]})
    );
    let first = world.get(&ana, "/api/v1/users?query=zoe").await.expect(200);
    assert_eq!((&first["total"], names(&first).len()), (&json!(2), 10));
    let second = world.get(&ana, "/api/v1/users?query=zoe&page=2").await.expect(200);
    assert_eq!((&second["current"], names(&second).len()), (&json!(2), 2));
    for nobody in ["user-1", "login", "600", "34%20600", "%25", "%3F"] {
        let found = world.get(&ana, &format!("/api/v1/users?query={nobody}")).await.expect(200);
        assert_eq!(names(&found), Vec::<&str>::new(), "{nobody}");
    }
    for bad in ["", "?query=", "?query=a&query=b", "?query=%00", "?query=a&page=0"] {
        world.get(&ana, &format!("/api/v1/users{bad}")).await.refused(400, "invalid");
    }
}
