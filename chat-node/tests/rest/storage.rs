//! The storage API (OP-6), through its router.

use axum::body::Body;
use http::{Method, header};
use serde_json::{Value, json};

use crate::{
    owner::Mood,
    world::{ADMIN_KEY, STORAGE_KEY, World, request},
};

const GET: Method = Method::GET;
const POST: Method = Method::POST;

async fn get(world: &World, path: &str) -> Value {
    world.storage(GET, path, Value::Null).await.expect(200)
}

/// A user whom the operator calls so.
async fn user(world: &World, up: &str) -> String {
    let made = world.storage(POST, &format!("/user/{up}"), json!({"name": up})).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn op_6_nothing_is_told_without_its_key_and_none_of_it_is_public() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let paths = ["/group/", "/group/messages", "/group/user/ana", "/message/", "/user/", "/nowhere"];
    let document = request(None, GET, "/openapi.json").body(Body::empty()).unwrap();
    world.sent(&world.storage, document).await.refused(401, "unauthenticated");
    for path in paths {
        for bearer in ["", ADMIN_KEY, &ana.token, &STORAGE_KEY[1..]] {
            let request = request(None, GET, path).header(header::AUTHORIZATION, format!("Bearer {bearer}"));
            let reply = world.sent(&world.storage, request.body(Body::empty()).unwrap()).await;
            reply.refused(401, "unauthenticated");
        }
        let bare = request(None, GET, path).body(Body::empty()).unwrap();
        world.sent(&world.storage, bare).await.refused(401, "unauthenticated");
        let key = request(None, GET, path).header(header::AUTHORIZATION, format!("Bearer {STORAGE_KEY}"));
        world.raw(key.body(Body::empty()).unwrap()).await.refused(404, "not_found");
        // And nothing of the public API is here.
        world.storage(GET, &format!("/api/v1{path}"), Value::Null).await.refused(404, "not_found");
    }
    world.storage(GET, "/healthz", Value::Null).await.refused(404, "not_found");
}

#[tokio::test]
async fn op_6_all_of_it_is_in_a_document_of_its_own_and_nothing_of_it_in_the_public_one() {
    let world = World::new().await;
    let document = get(&world, "/openapi.json").await;
    let mut served = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            served.push(format!("{} {path}", method.to_uppercase()));
            assert_eq!(operation["security"], json!([{"storage": []}]), "{method} {path}");
        }
    }
    let routes = [
        "GET /group",
        "POST /group",
        "GET /group/",
        "POST /group/",
        "GET /group/messages",
        "GET /group/user/{up}",
        "GET /group/{id}",
        "GET /message",
        "POST /message",
        "GET /message/",
        "POST /message/",
        "GET /message/{id}",
        "GET /openapi.json",
        "GET /user",
        "GET /user/",
        "POST /user/{up}",
    ];
    served.sort_unstable();
    let mut expected = routes.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(served, expected);
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes.as_object().unwrap().keys().collect::<Vec<_>>(), ["storage"]);
    assert_eq!(document["webhooks"], Value::Null);
    let public = world.call(None, GET, "/openapi.json", Value::Null).await.expect(200);
    let public = public["paths"].as_object().unwrap();
    assert!(routes[..12].iter().all(|route| !public.contains_key(route.split(' ').nth(1).unwrap())));
}

#[tokio::test]
async fn op_6_users_are_made_changed_and_listed_under_the_operator_s_names_for_them() {
    let world = World::new().await;
    let ana = world.person("anaana").await;
    let body = json!({"username": "up2017", "name": "Ben"});
    let made = world.storage(POST, "/user/up2017", body.clone()).await.expect(201);
    assert_eq!((&made["username"], &made["name"]), (&json!("up2017"), &json!("Ben")));
    let again = world.storage(POST, "/user/up2017", body).await.expect(200);
    assert_eq!(again, made, "once");
    let renamed = world.storage(POST, "/user/up2017", json!({"name": "Benjamin"})).await.expect(200);
    assert_eq!((&renamed["id"], &renamed["name"]), (&made["id"], &json!("Benjamin")));
    let by_id = format!("/user/{}", ana.id);
    let renamed = world.storage(POST, &by_id, json!({"name": "Ana Díaz"})).await.expect(200);
    assert_eq!((&renamed["username"], &renamed["name"]), (&json!("anaana"), &json!("Ana Díaz")));
    world.storage(POST, &by_id, json!({"username": "other"})).await.refused(409, "conflict");
    world.storage(POST, "/user/somebody", json!({"username": "ANAANA"})).await.refused(409, "conflict");
    let plain = world.storage(POST, "/user/plain", json!({})).await.expect(201);
    let unnamed = format!("User {}", &plain["id"].as_str().unwrap()[..6]);
    assert_eq!((&plain["username"], &plain["name"]), (&json!("plain"), &json!(unnamed)), "ID-4");
    // No password signs such a user in.
    world.sign_in("up2017", "", "198.51.100.7").await.refused(401, "unauthenticated");

    let first = get(&world, "/user/?perPage=2").await;
    assert_eq!((&first["current"], &first["total"]), (&json!(0), &json!(2)));
    let second = get(&world, "/user/?perPage=2&page=1").await;
    let listed: Vec<&Value> = [&first, &second]
        .iter()
        .flat_map(|page| page["results"].as_array().unwrap())
        .map(|user| &user["id"])
        .collect();
    assert_eq!(listed.len(), 3);
    assert!(listed.contains(&&made["id"]) && listed.contains(&&json!(ana.id.to_string())));
    assert_eq!(first["results"][0]["online"], false);
    let other = get(&world, &format!("/user/?application={}", "0".repeat(31) + "1")).await;
    assert_eq!(other["total"], 1, "the default one by its name: {other}");
}

#[tokio::test]
async fn op_6_groups_and_messages_are_made_and_read() {
    let world = World::new().await;
    let (ana, ben) = (world.person("anaana").await, user(&world, "up1").await);
    let body = json!({"name": "Course", "users": [ana.id, "up1"]});
    let group = world.storage(POST, "/group/", body).await.expect(201);
    let id = group["id"].as_str().unwrap().to_owned();
    assert_eq!((&group["name"], &group["members_count"]), (&json!("Course"), &json!(2)));
    assert_eq!((&group["members"][0]["id"], &group["members"][0]["role"]), (&json!(ana.id), &json!("owner")));
    assert_eq!(get(&world, &format!("/group/{id}")).await, group);
    assert_eq!(get(&world, "/group/").await["results"], json!([group]));
    for up in ["up1", &ben] {
        let of = get(&world, &format!("/group/user/{up}")).await;
        assert_eq!((&of["current"], &of["results"][0]["id"]), (&json!(0), &json!(id)));
    }
    assert_eq!(get(&world, &format!("/group/user/{}", ana.id)).await["total"], 1);

    let say = async |from: &str, message: &str| {
        let body = json!({"group": id, "from": from, "message": message});
        world.storage(POST, "/message/", body).await.expect(201)
    };
    for n in 1..=11 {
        let said = say("up1", &format!("message {n}")).await;
        assert_eq!((&said["number"], &said["from"]), (&json!(n), &json!(ben)));
    }
    let own = world.storage(POST, "/message", json!({"group": id, "message": "a notice"})).await.expect(201);
    assert_eq!(own["from"], "0".repeat(32));
    let named = json!({"group": id, "from": "up1", "message": "once", "client_id": "c1"});
    let once = world.storage(POST, "/message/", named.clone()).await.expect(201);
    assert_eq!(world.storage(POST, "/message/", named.clone()).await.expect(200)["id"], once["id"]);
    let mut other = named;
    other["message"] = json!("another");
    world.storage(POST, "/message/", other).await.refused(409, "id_conflict");

    let page = get(&world, &format!("/group/messages?groupID={id}&page=1&perPage=5")).await;
    assert_eq!((&page["current"], &page["total"], &page["complete"]), (&json!(1), &json!(3), &json!(true)));
    let numbers: Vec<_> = page["results"].as_array().unwrap().iter().map(|one| &one["number"]).collect();
    assert_eq!(numbers, [8, 7, 6, 5, 4]);
    let all = get(&world, "/message/?perPage=100").await;
    assert_eq!(all["results"].as_array().unwrap().len(), 13);
    assert_eq!((&all["results"][0]["body"], &all["total"]), (&json!("message 1"), &json!(1)));
    let path = format!("/message/{}", once["id"].as_str().unwrap());
    let one = get(&world, &path).await;
    assert_eq!((&one["chat"], &one["number"], &one["body"]), (&json!(id), &json!(13), &json!("once")));
    // The public API has the same.
    let seen = world.get(&ana, &format!("/api/v1/chats/{id}/messages/13")).await.expect(200);
    assert_eq!(seen["id"], once["id"]);
}

#[tokio::test]
async fn op_6_whatever_is_wrong_is_said_in_the_one_format() {
    let world = World::new().await;
    user(&world, "up1").await;
    let group = world.storage(POST, "/group/", json!({"users": ["up1"]})).await.expect(201);
    let id = group["id"].as_str().unwrap();
    let nobody = "f".repeat(32);
    let invalid =
        |path: &str, body: Value, param: &'static str| (path.to_owned(), body, 400, "invalid", param);
    let posts = [
        invalid("/group/", json!({}), "users"),
        invalid("/group/", json!({"users": "up1"}), "users"),
        invalid("/group/", json!({"users": ["up1", 7]}), "users[1]"),
        invalid("/group/", json!({"users": ["up1", "nobody"]}), "users[1]"),
        invalid("/group/", json!({"users": ["up1", "up1"]}), "users[1]"),
        invalid("/group/", json!({"users": ["0".repeat(32)]}), "users[0]"),
        invalid("/group/", json!({"users": [""]}), "users[0]"),
        invalid("/group/", json!({"users": ["a\u{0}"]}), "users[0]"),
        invalid("/group/", json!({"users": ["x".repeat(256)]}), "users[0]"),
        invalid("/group/", json!({"users": vec!["up1"; 50_001]}), "users"),
        invalid("/group/", json!({"users": [], "name": "x".repeat(201)}), "name"),
        invalid("/group/", json!([]), ""),
        invalid("/message/", json!({"message": "x"}), "group"),
        invalid("/message/", json!({"group": "x", "message": "x"}), "group"),
        invalid("/message/", json!({"group": id}), "message"),
        invalid("/message/", json!({"group": id, "message": ""}), "body"),
        invalid("/message/", json!({"group": id, "message": "a\u{0}"}), "body"),
        invalid("/message/", json!({"group": id, "message": "x", "from": ""}), "from"),
        invalid("/message/", json!({"group": id, "message": "x", "from": "0".repeat(32)}), "from"),
        invalid("/message/", json!({"group": id, "message": "x", "client_id": ""}), "client_id"),
        invalid("/user/ab", json!({}), "username"),
        invalid("/user/a%20b%20c", json!({}), "username"),
        invalid("/user/new", json!({"name": ""}), "name"),
        invalid("/user/up1", json!({"name": "\u{7}"}), "name"),
        invalid("/user/new", json!({"username": "\u{0}ab"}), "username"),
        invalid("/user/up1", json!({"online": "yes"}), "online"),
        ("/message/".into(), json!({"group": id, "message": "x".repeat(16_385)}), 413, "too_large", ""),
        ("/message/".into(), json!({"message": "x".repeat(200_000)}), 413, "too_large", ""),
        ("/message/".into(), json!({"group": nobody, "message": "x"}), 404, "not_found", ""),
        ("/message/".into(), json!({"group": id, "message": "x", "from": "nobody"}), 404, "not_found", ""),
        (format!("/user/{}", "0".repeat(32)), json!({}), 404, "not_found", ""),
        (format!("/user/{}", "x".repeat(256)), json!({}), 404, "not_found", ""),
        ("/user/%00".into(), json!({}), 404, "not_found", ""),
        ("/user/".into(), json!({}), 405, "method_not_allowed", ""),
        (format!("/group/{id}"), json!({}), 405, "method_not_allowed", ""),
        (format!("/user/up1?application={nobody}"), json!({}), 404, "not_found", ""),
        ("/user/up1?application=x".into(), json!({}), 404, "not_found", ""),
        ("/nowhere".into(), json!({}), 404, "not_found", ""),
    ];
    for (path, body, status, code, param) in posts {
        let said = world.storage(POST, &path, body).await.refused(status, code);
        if status == 400 {
            assert_eq!(said["errors"][0]["param"], param, "{path}: {said}");
        }
    }
    for (path, param) in [
        ("/group/?page=-1", "page"),
        ("/group/?perPage=101", "perPage"),
        ("/user/?page=x", "page"),
        ("/message/?perPage=0", "perPage"),
        ("/group/user/up1?page=x", "page"),
        ("/group/messages", "groupID"),
        ("/group/messages?groupID=", "groupID"),
        ("/group/?application=", "application"),
        (&format!("/group/messages?groupID={id}&page=x"), "page"),
    ] {
        let said = world.storage(GET, path, Value::Null).await.refused(400, "invalid");
        assert_eq!(said["errors"][0]["param"], param, "{path}: {said}");
    }
    for path in [
        "/group/x",
        &format!("/group/{nobody}"),
        &format!("/group/user/{nobody}"),
        "/group/user/nobody",
        "/group/messages?groupID=x",
        &format!("/group/messages?groupID={nobody}"),
        "/message/x",
        &format!("/message/{nobody}"),
        "/user/up1/",
    ] {
        world.storage(GET, path, Value::Null).await.refused(404, "not_found");
    }
    // Past the end there is nothing, and nothing is wrong with it.
    for path in
        ["/group/?page=99", "/user/?page=99999999999999999999", "/message/?page=7", "/group/user/up1?page=3"]
    {
        assert_eq!(get(&world, path).await["results"], json!([]), "{path}");
    }
    world.owner.feel(Mood::Unknown);
    let body = json!({"group": id, "from": "up1", "message": "x"});
    world.storage(POST, "/message/", body).await.refused(503, "outcome_unknown");
    world.owner.feel(Mood::Panics);
    let path = format!("/group/messages?groupID={id}");
    world.storage(GET, &path, Value::Null).await.refused(500, "internal");
}
