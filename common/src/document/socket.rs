//! How the socket speaks, as an AsyncAPI 3.0 document: a message for every frame of [`ClientFrame`] and [`ServerFrame`], made from them.

use schemars::{
    JsonSchema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use super::{SCHEMAS, plain};
use crate::wire::{
    client::{ClientFrame, SUBPROTOCOL_JSON, SUBPROTOCOL_MESSAGEPACK, ServerFrame},
    codes::{CloseCode, Reconnect},
};

/// Where the document is served.
pub const PATH: &str = "/asyncapi.json";

/// What answers each request, besides `error`. What is not here is not answered.
const ANSWERS: &[(&str, &[&str])] = &[
    ("hello", &["ready", "resumed"]),
    ("send", &["ack"]),
    ("edit", &["ack"]),
    ("delete", &["ack"]),
    ("react", &["ack"]),
    ("read", &["ack"]),
    ("history", &["page"]),
    ("changes", &["resumed"]),
    ("ping", &["pong"]),
];

/// The document. Schemas are of JSON Schema draft 7, which is AsyncAPI's own.
pub fn asyncapi() -> Value {
    let (asked, mut schemas) = frames::<ClientFrame>(Contract::Deserialize);
    let (told, more) = frames::<ServerFrame>(Contract::Serialize);
    schemas.extend(more);
    let mut operations = Map::new();
    for (kind, _) in &asked {
        let mut operation = json!({
            "action": "receive",
            "channel": {"$ref": "#/channels/socket"},
            "messages": [of_channel("client", kind)],
        });
        let answers = ANSWERS.iter().find(|(request, _)| request == kind).map(|(_, answers)| *answers);
        if let (Some(answers), Some(fields)) = (answers, operation.as_object_mut()) {
            let all = answers.iter().chain(&["error"]).map(|answer| of_channel("server", answer));
            let reply = json!({
                "channel": {"$ref": "#/channels/socket"},
                "messages": all.collect::<Vec<_>>(),
            });
            fields.insert("reply".into(), reply);
        }
        operations.insert(kind.clone(), operation);
    }
    let events = told.iter().map(|(kind, _)| of_channel("server", kind)).collect::<Vec<_>>();
    operations.insert(
        "told".into(),
        json!({"action": "send", "channel": {"$ref": "#/channels/socket"}, "messages": events}),
    );
    let mut of_the_channel = Map::new();
    let mut messages = Map::new();
    for (side, frames) in [("client", asked), ("server", told)] {
        for (kind, mut payload) in frames {
            let summary = payload.as_object_mut().and_then(|fields| fields.remove("description"));
            let name = format!("{side}.{kind}");
            of_the_channel.insert(name.clone(), json!({"$ref": format!("#/components/messages/{name}")}));
            messages.insert(
                name,
                json!({"name": kind, "summary": summary.unwrap_or_default(), "payload": payload}),
            );
        }
    }
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Chat cluster: the socket",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0"},
            "description": format!(
                "`GET /chat/location` answers the address to open, which has a ticket in it that is good once and for a short time. Under \
                the subprotocol `{SUBPROTOCOL_JSON}` (the default) the server speaks JSON in text frames, under \
                `{SUBPROTOCOL_MESSAGEPACK}` MessagePack maps with the same names in binary frames. The first frame is `hello`. A request's \
                `ref` is repeated by its answer. Events of a chat carry its `seq`, without holes. Fields that are not known are ignored."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": "/socket",
                "title": "The socket of one session",
                "messages": of_the_channel,
                "bindings": {"ws": {"query": {
                    "type": "object",
                    "properties": {"ticket": {"type": "string", "description": "From `GET /chat/location`."}},
                    "required": ["ticket"],
                }}},
            },
        },
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
        "x-close-codes": CloseCode::ALL.iter().map(|code| closing(*code)).collect::<Vec<_>>(),
    });
    plain(&mut document);
    document
}

fn of_channel(side: &str, kind: &str) -> Value {
    json!({"$ref": format!("#/channels/socket/messages/{side}.{kind}")})
}

fn closing(code: CloseCode) -> Value {
    let then = match code.reconnect() {
        Reconnect::No => "stay away",
        Reconnect::Yes => "come back, from a new location, with resume",
        Reconnect::AfterSignIn => "sign in, and come back",
    };
    json!({"code": code.code(), "word": code.word(), "then": then})
}

/// The schema of each frame of one direction by its type, and of what they refer to.
fn frames<T: JsonSchema>(contract: Contract) -> (Vec<(String, Value)>, Map<String, Value>) {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
        settings.contract = contract;
    });
    let mut root = SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value();
    let schemas = root.pointer_mut(SCHEMAS).map(Value::take).unwrap_or_default();
    let variants = root.get_mut("oneOf").map(Value::take).unwrap_or_default();
    let (Value::Array(variants), Value::Object(schemas)) = (variants, schemas) else {
        return (Vec::new(), Map::new());
    };
    let named = variants.into_iter().filter_map(|variant| {
        let kind = variant.pointer("/properties/type/const")?.as_str()?.to_owned();
        Some((kind, variant))
    });
    (named.collect(), schemas)
}
