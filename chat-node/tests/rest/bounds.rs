//! What the document says that an application's settings may hold is what is taken: a value at each bound, and none beyond it (OP-7).

use http::Method;
use serde_json::{Value, json};

use crate::{webhooks::operator, world::World};

/// Every setting, so chosen that each may go to its bounds by itself.
fn whole() -> Value {
    json!({
        "name": "School",
        "settings": {
            "contacts_only": false,
            "message_rate": {"per_second": 0, "burst": 10},
            "chats_per_user": 100,
            "words": {"list": ["darn"], "action": "mask"},
            "links": {"action": "allow", "own_hosts": ["example.org"]},
            "retention": {"keep": "days", "days": 30},
            "notifications": {"after_seconds": 300, "show_body": true},
            "register_on_first_sight": true,
            "keys": [{"kid": "2026", "algorithm": "HS256", "key": "k".repeat(40)}],
        },
    })
}

/// What is put where, and whether it is within bounds.
type Case = (String, Value, bool);

/// The cases of everything in `value`, which is as `schema` says.
fn cases(schema: &Value, value: &Value, at: &str, found: &mut Vec<Case>) {
    if let Some(ways) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let way = ways.iter().find(|way| jsonschema::draft202012::is_valid(way, value));
        return cases(way.unwrap_or_else(|| panic!("{at}: {value}: {schema}")), value, at, found);
    }
    match value {
        Value::Object(fields) => {
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                let value = fields.get(name).unwrap_or_else(|| panic!("{at}/{name} is not in the example"));
                cases(schema, value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            let most = bound(schema, "maxItems", at);
            for (count, good) in [(most, true), (most + 1, false)] {
                found.push((at.into(), (0..count).map(|nth| another(&items[0], nth)).collect(), good));
            }
            cases(&schema["items"], &items[0], &format!("{at}/0"), found);
        }
        Value::Number(_) => {
            let (least, most) = (bound(schema, "minimum", at), bound(schema, "maximum", at));
            for (number, good) in [(least, true), (least - 1, false), (most, true), (most + 1, false)] {
                found.push((at.into(), json!(number), good));
            }
        }
        Value::String(_) if schema["enum"].is_null() && schema["const"].is_null() => {
            let most = bound(schema, "maxLength", at);
            let mut put = |count, good| found.push((at.into(), json!("x".repeat(count as usize)), good));
            put(most, true);
            put(most + 1, false);
            if let Some(least @ 1..) = schema["minLength"].as_i64() {
                put(least, true);
                put(least - 1, false);
            }
        }
        _ => {}
    }
}

fn bound(schema: &Value, name: &str, at: &str) -> i64 {
    let bound = schema[name].as_f64().unwrap_or_else(|| panic!("{at} has no {name}: {schema}"));
    bound as i64
}

/// Something like it that is not the same.
fn another(item: &Value, nth: i64) -> Value {
    match item {
        Value::String(text) => json!(format!("{text}{nth}")),
        other => {
            let mut other = other.clone();
            other["kid"] = json!(nth.to_string());
            other
        }
    }
}

#[tokio::test]
async fn op_7_settings_are_taken_up_to_their_documented_bounds_and_not_beyond() {
    let world = World::new().await;
    let document = world.call(None, Method::GET, "/openapi.json", Value::Null).await.expect(200);
    for (method, path) in [("post", "/api/v1/applications"), ("put", "/api/v1/applications/{token}")] {
        let body = &document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"];
        let mut all = Vec::new();
        cases(body, &whole(), "", &mut all);
        assert!(all.len() > 30, "{path}: {all:?}");
        let path = path.replace("{token}", &("0".repeat(31) + "1"));
        let method: Method = method.to_uppercase().parse().unwrap();
        for (at, value, good) in all {
            let mut body = whole();
            *body.pointer_mut(&at).unwrap() = value;
            let reply = operator(&world, method.clone(), &path, body).await;
            let said = reply.body.to_string();
            assert_eq!(reply.status.is_success(), good, "{method} {path}: {at}: {good}: {said}");
            if !good {
                reply.refused(400, "invalid");
            }
        }
    }
}
