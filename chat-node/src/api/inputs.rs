//! What the arguments of handlers ask of a request, for the document: a line here for each kind that [`extract`](super::extract) and
//! [`query`](super::query) read.

use common::{
    document::{Input, Key, Operation, number},
    ids::{AppId, AttachmentId, ChatId, ClientId, EndpointId, MessageId, SessionId, UserId},
    model::limits,
    wire::codes::ErrorCode,
};
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{
    application_chats::Actor,
    applications::Operator,
    extract::{
        ClientAddress, DeliveryId, Emoji, IdempotencyKey, InApp, InChat, Json, MaybeJson, One, PathPart,
        Three, Two,
    },
    query::{
        BundleOf, CONTACTS_PER_PAGE, FileName, GroupPage, LIMIT, Named, OfApplication, PER_PAGE,
        PageFromZero, PageOf, PageOfContacts, Users, Which,
    },
};
use crate::presence::ASKED;

/// Something in a path, as the document shows it.
pub(crate) trait Shown: PathPart {
    /// Its schema, and an example.
    fn shown() -> (Value, Value);
}

/// An id.
fn id() -> (Value, Value) {
    (json!({"type": "string", "pattern": "^[0-9a-f]{32}$"}), json!("0000000000000000000000000000c4a7"))
}

macro_rules! ids {
    ($($id:ident),*) => {$(
        impl Shown for $id {
            fn shown() -> (Value, Value) {
                id()
            }
        }
    )*};
}

ids!(AppId, ChatId, MessageId, UserId, SessionId, AttachmentId, EndpointId);

impl Shown for DeliveryId {
    fn shown() -> (Value, Value) {
        let pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
        (json!({"type": "string", "pattern": pattern}), json!("3af066c1-9b1d-4a5e-8d2b-c0de00de117e"))
    }
}

impl Shown for InChat {
    fn shown() -> (Value, Value) {
        (number(1), json!(790))
    }
}

impl Shown for InApp {
    fn shown() -> (Value, Value) {
        (number(1), json!(3))
    }
}

impl Shown for Emoji {
    fn shown() -> (Value, Value) {
        (json!({"type": "string", "minLength": 1, "maxLength": limits::EMOJI_BYTES}), json!("👍"))
    }
}

fn part<A: Shown>(operation: &mut Operation, at: usize) {
    let (schema, example) = A::shown();
    operation.path_part(at, schema, example);
}

impl<A: Shown> Input for One<A> {
    fn describe(operation: &mut Operation) {
        part::<A>(operation, 0);
    }
}

impl<A: Shown, B: Shown> Input for Two<A, B> {
    fn describe(operation: &mut Operation) {
        part::<A>(operation, 0);
        part::<B>(operation, 1);
    }
}

impl<A: Shown, B: Shown, C: Shown> Input for Three<A, B, C> {
    fn describe(operation: &mut Operation) {
        part::<A>(operation, 0);
        part::<B>(operation, 1);
        part::<C>(operation, 2);
    }
}

impl Input for Operator {
    fn describe(operation: &mut Operation) {
        operation.needs(Key::Operator);
    }
}

impl Input for Actor {
    fn describe(operation: &mut Operation) {
        part::<AppId>(operation, 0);
        operation.needs(Key::User);
        operation.needs(Key::Operator);
    }
}

impl Input for ClientAddress {
    fn describe(operation: &mut Operation) {
        // It is what attempts are counted by.
        operation.may_refuse(&[ErrorCode::RateLimited]);
    }
}

impl<T: JsonSchema, const MAX: usize> Input for Json<T, MAX> {
    fn describe(operation: &mut Operation) {
        operation.json::<T>(true);
    }
}

impl<T: JsonSchema, const MAX: usize> Input for MaybeJson<T, MAX> {
    fn describe(operation: &mut Operation) {
        operation.json::<T>(false);
    }
}

impl Input for IdempotencyKey {
    fn describe(operation: &mut Operation) {
        let schema = json!({"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": ClientId::MAX_CHARS});
        let about =
            "A name for what is made: under the same one it is made once, however often it is asked for.";
        operation.header("Idempotency-Key", about, schema, json!(ClientId::example()));
        operation.may_refuse(&[ErrorCode::Invalid]);
    }
}

/// A number from 1 to `max`.
fn up_to(max: u32, default: u32) -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": max, "default": default})
}

fn page(operation: &mut Operation, first: u64) {
    page_of(operation, first, PER_PAGE);
}

fn page_of(operation: &mut Operation, first: u64, per_page: u32) {
    let mut schema = number(first);
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("default".into(), first.into());
    }
    let says = if first == 0 { "Which page, from 0." } else { "Which page, from 1." };
    operation.query("page", false, says, schema, json!(first));
    operation.query(
        "perPage",
        false,
        "Results on a page.",
        up_to(limits::PER_PAGE, per_page),
        json!(per_page),
    );
}

impl Input for PageOfContacts {
    fn describe(operation: &mut Operation) {
        page_of(operation, 1, CONTACTS_PER_PAGE);
    }
}

impl Input for PageOf {
    fn describe(operation: &mut Operation) {
        page(operation, 1);
    }
}

impl Input for PageFromZero {
    fn describe(operation: &mut Operation) {
        page(operation, 0);
    }
}

impl Input for GroupPage {
    fn describe(operation: &mut Operation) {
        let (schema, example) = id();
        operation.query("groupID", true, "The chat.", schema, example);
        // As in a path: what is malformed does not exist.
        operation.may_refuse(&[ErrorCode::NotFound]);
        page(operation, 0);
    }
}

impl Input for OfApplication {
    fn describe(operation: &mut Operation) {
        let (schema, example) = id();
        operation.query(
            "application",
            false,
            "The application, if it is not the default one.",
            schema,
            example,
        );
        operation.may_refuse(&[ErrorCode::NotFound]);
    }
}

impl Input for BundleOf {
    fn describe(operation: &mut Operation) {
        page(operation, 0);
        let schema = up_to(limits::PER_PAGE, PER_PAGE);
        operation.query("messages", false, "Messages of each chat.", schema, json!(PER_PAGE));
    }
}

impl Input for Named {
    fn describe(operation: &mut Operation) {
        let schema = json!({"type": "string", "minLength": 1, "maxLength": limits::QUERY_CHARS});
        operation.query("query", true, "The beginnings of words of the name.", schema, json!("ana"));
        page(operation, 1);
    }
}

impl Input for Users {
    fn describe(operation: &mut Operation) {
        let ids = format!("{0},{0}", "0".repeat(32));
        let says = "Users' ids, with commas between them.";
        let schema = json!({"type": "string", "minLength": 1, "maxLength": ASKED * 33});
        operation.query("users", true, says, schema, json!(ids));
    }
}

impl Input for FileName {
    fn describe(operation: &mut Operation) {
        operation.query(
            "name",
            false,
            "What the file is called.",
            json!({"type": "string"}),
            json!("photo.jpg"),
        );
    }
}

impl Input for Which {
    fn describe(operation: &mut Operation) {
        let says = "Messages below this number, newest first. Not with `after`, and not with `page`.";
        operation.query("before", false, says, number(1), json!(790));
        let says = "Messages above this number, oldest first. Not with `before`, and not with `page`.";
        operation.query("after", false, says, number(0), json!(0));
        let says = "How many, before or after; not with `page`.";
        operation.query("limit", false, says, up_to(limits::PER_PAGE, LIMIT), json!(LIMIT));
        page(operation, 1);
    }
}
