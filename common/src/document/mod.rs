//! What is served, written down: an OpenAPI 3.1 document of the paths (OP-7), an AsyncAPI 3.0 document of the socket ([`socket`]).
//!
//! Paths are registered through [`Routes`], which writes them down: what a handler takes comes from the types of its arguments
//! ([`Input`]), schemas from the types that serde reads and writes, and the rest from [`says`]. To add one:
//!
//! ```ignore
//! Routes::new("Chats").post(
//!     "/chats/{chat}/read",
//!     read,
//!     says("Moves the read mark forward").takes(json!({"number": 790})).ok(&example).refuses(&[ErrorCode::Forbidden]),
//! )
//! ```
//!
//! A new kind of argument implements [`Input`]; types of bodies derive `JsonSchema`.

mod operation;
mod routes;
pub mod socket;
mod webhooks;

use std::collections::BTreeMap;

use axum::Router;
use schemars::{
    SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use self::{
    operation::{Answer, Body},
    routes::Entry,
};
pub use self::{
    operation::{Input, Inputs, Key, Operation, number, says},
    routes::Routes,
};
use crate::{
    problem::{Problem, ProblemBody},
    wire::{client::FieldError, codes::ErrorCode},
};

/// Where the document is served, by every service that has one.
pub const PATH: &str = "/openapi.json";

/// The media type of refusals.
const PROBLEM: &str = "application/problem+json";

/// Where schemas stand in both documents.
const SCHEMAS: &str = "/components/schemas";

/// Gathers what routers serve.
pub struct Document {
    title: &'static str,
    says: &'static str,
    entries: Vec<Entry>,
    has_webhooks: bool,
}

impl Default for Document {
    /// Of the public API.
    fn default() -> Self {
        Self::new(
            "Chat cluster",
            "The REST API. How the socket speaks is in `/asyncapi.json`. Whatever is refused is answered as `application/problem+json`, \
             with a stable `code`; lists are paged by `page` and `perPage`.",
        )
    }
}

impl Document {
    /// With this title, and what it says of all of its paths.
    pub fn new(title: &'static str, says: &'static str) -> Self {
        Self { title, says, entries: Vec::new(), has_webhooks: false }
    }

    /// The router of these paths, under `prefix` (which may be empty), written down.
    pub fn take<S: Clone + Send + Sync + 'static>(&mut self, prefix: &str, routes: Routes<S>) -> Router<S> {
        self.entries.extend(
            routes
                .entries
                .into_iter()
                .map(|entry| Entry { path: format!("{prefix}{}", entry.path), ..entry }),
        );
        if prefix.is_empty() { routes.router } else { Router::new().nest(prefix, routes.router) }
    }

    /// What webhooks are sent stands in it as well.
    pub fn tell_webhooks(&mut self) {
        self.has_webhooks = true;
    }

    /// The OpenAPI document of everything that was taken.
    pub fn openapi(&self) -> Value {
        let mut writer = Writer::new();
        let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for entry in &self.entries {
            let method = entry.method.as_str().to_ascii_lowercase();
            paths.entry(&entry.path).or_default().insert(method, writer.operation(entry));
        }
        let keys = self.entries.iter().flat_map(|entry| &entry.operation.keys);
        let schemes: BTreeMap<_, _> = keys.map(|key| (key.scheme(), key.written())).collect();
        let webhooks = self.has_webhooks.then(|| webhooks::sent(&mut writer.answers));
        let mut schemas = writer.answers.take_definitions(true);
        schemas.values_mut().for_each(plain);
        let mut document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": self.title,
                "version": env!("CARGO_PKG_VERSION"),
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                "description": self.says,
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": writer.refusals,
                "securitySchemes": schemes,
            },
        });
        if let (Some(webhooks), Some(fields)) = (webhooks, document.as_object_mut()) {
            fields.insert("webhooks".into(), webhooks);
        }
        plain(&mut document);
        document
    }
}

/// `mine`, with what only `theirs` has: one document of two services behind one origin. None when `theirs` is no document.
pub fn joined(mine: &Value, theirs: &[u8]) -> Option<Value> {
    let theirs: Value = serde_json::from_slice(theirs).ok()?;
    let mut all = mine.clone();
    if let (Some(webhooks), Some(all)) = (theirs.get("webhooks"), all.as_object_mut()) {
        all.insert("webhooks".into(), webhooks.clone());
    }
    for place in ["/paths", "/components/schemas", "/components/responses", "/components/securitySchemes"] {
        let theirs = theirs.pointer(place)?.as_object()?;
        let mine = all.pointer_mut(place)?.as_object_mut()?;
        for (name, value) in theirs {
            if !mine.contains_key(name) {
                mine.insert(name.clone(), value.clone());
            }
        }
    }
    Some(all)
}

/// Turns descriptions that were comments into text for readers without the code: links to it become its names.
fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
                    }
                    _ => plain(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(plain),
        _ => {}
    }
}

/// A generator of schemas for what we write, or for what we read.
fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12();
    settings
        .with(|settings| {
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
            // A type that is read and written has two schemas: what is read is written out in its place.
            settings.inline_subschemas = contract == Contract::Deserialize;
            settings.contract = contract;
        })
        .into_generator()
}

struct Writer {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
    refusals: BTreeMap<String, Value>,
}

impl Writer {
    fn new() -> Self {
        Self {
            requests: generator(Contract::Deserialize),
            answers: generator(Contract::Serialize),
            refusals: BTreeMap::new(),
        }
    }

    fn operation(&mut self, entry: &Entry) -> Value {
        let Entry { path, method, tag, operation } = entry;
        let mut written = json!({
            "operationId": operation_id(method.as_str(), path),
            "tags": [tag],
            "summary": operation.summary,
            "responses": self.responses(operation),
        });
        let mut parameters: Vec<Value> = Vec::new();
        for (at, name) in names(path).enumerate() {
            let (schema, example) =
                operation.path.get(at).cloned().flatten().unwrap_or_else(|| (json!({}), json!("")));
            parameters.push(
                json!({"in": "path", "name": name, "required": true, "schema": schema, "example": example}),
            );
        }
        for parameter in &operation.parameters {
            parameters.push(json!({
                "in": parameter.place,
                "name": parameter.name,
                "required": parameter.required,
                "description": parameter.says,
                "schema": parameter.schema,
                "example": parameter.example,
            }));
        }
        let mut set = |name: &str, value: Value| {
            if let Some(fields) = written.as_object_mut() {
                fields.insert(name.to_owned(), value);
            }
        };
        if !parameters.is_empty() {
            set("parameters", parameters.into());
        }
        if !operation.keys.is_empty() {
            set("security", operation.keys.iter().map(|key| json!({key.scheme(): []})).collect());
        }
        if let Some(Body { media_type, required, schema }) = &operation.body {
            let schema = schema.map_or_else(|| json!({}), |make| make(&mut self.requests).to_value());
            let content = content(media_type, schema, &operation.body_examples);
            set("requestBody", json!({"required": required, "content": content}));
        }
        written
    }

    fn responses(&mut self, operation: &Operation) -> Value {
        let mut responses = BTreeMap::new();
        for Answer { status, says, content: body } in &operation.answers {
            let mut response = json!({"description": says});
            if let Some((media_type, schema, example)) = body
                && let Some(fields) = response.as_object_mut()
            {
                let schema = schema.map_or_else(|| json!({}), |make| make(&mut self.answers).to_value());
                fields.insert("content".into(), content(media_type, schema, example.as_slice()));
            }
            responses.insert(status.to_string(), response);
        }
        let known = |code: &&ErrorCode| operation.errors.contains(code);
        let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
        for code in ErrorCode::ALL.iter().filter(known) {
            by_status.entry(code.status()).or_default().push(*code);
        }
        for (status, codes) in by_status {
            let name = codes.iter().map(|code| code.rest_word()).collect::<Vec<_>>().join("_or_");
            if !self.refusals.contains_key(&name) {
                let refusal = self.refusal(status, &codes);
                self.refusals.insert(name.clone(), refusal);
            }
            responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{name}")}));
        }
        json!(responses)
    }

    /// The answer with one status and any of these codes.
    fn refusal(&mut self, status: u16, codes: &[ErrorCode]) -> Value {
        let schema = self.answers.subschema_for::<ProblemBody>();
        let words: Vec<_> = codes.iter().map(|code| code.rest_word()).collect();
        let titles: Vec<_> =
            codes.iter().map(|code| format!("`{}`: {}.", code.rest_word(), code.title())).collect();
        let examples: Map<String, Value> = codes
            .iter()
            .map(|code| (code.rest_word().to_owned(), json!({"value": ProblemBody::from(example(*code))})))
            .collect();
        let one = json!({"properties": {"status": {"const": status}, "code": {"enum": words}}});
        let mut response = json!({
            "description": titles.join(" "),
            "content": {PROBLEM: {"schema": {"allOf": [schema, one]}, "examples": examples}},
        });
        let header = match status {
            401 => Some(("WWW-Authenticate", json!({"type": "string"}))),
            429 | 503 => Some(("Retry-After", json!({"type": "integer", "minimum": 1}))),
            _ => None,
        };
        if let (Some((name, schema)), Some(fields)) = (header, response.as_object_mut()) {
            fields.insert("headers".into(), json!({name: {"required": true, "schema": schema}}));
        }
        response
    }
}

fn content(media_type: &str, schema: Value, examples: &[Value]) -> Value {
    let mut content = json!({"schema": schema});
    if let (false, Some(fields)) = (examples.is_empty(), content.as_object_mut()) {
        let named =
            (1..).zip(examples).map(|(at, example): (u32, _)| (at.to_string(), json!({"value": example})));
        fields.insert("examples".into(), named.collect::<Map<_, _>>().into());
    }
    json!({media_type: content})
}

/// What a problem of this kind looks like.
fn example(code: ErrorCode) -> Problem {
    if code == ErrorCode::Invalid {
        return Problem::invalid(FieldError::body("name", "must have 1 to 200 characters"));
    }
    Problem::new(code, code.title())
}

/// The names in a path's braces.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut id = method.to_ascii_lowercase();
    for word in words.filter(|word| !matches!(*word, "api" | "v1")) {
        id.push('_');
        id.push_str(word);
    }
    // A path with a slash at its end is another one.
    if path.len() > 1 && path.ends_with('/') {
        id.push('_');
    }
    id
}
