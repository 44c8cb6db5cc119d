//! One method of one path: what it takes, what it answers, and why it may refuse.

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, Method},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    token::{Caller, Presented},
    wire::codes::ErrorCode,
};

/// The media type of JSON.
const JSON: &str = "application/json";

/// Makes the schema of one type.
pub(super) type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// Whose key a request carries, as `Authorization: Bearer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A user's token.
    User,
    /// The operator's.
    Operator,
    /// The storage API's.
    Storage,
}

impl Key {
    /// Its name in the document.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Storage => "storage",
        }
    }

    /// What it is.
    pub(super) fn written(self) -> Value {
        match self {
            Self::User => json!({
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "A user's token: from `POST /api/v1/sessions`, or one of an application's own.",
            }),
            Self::Operator => {
                json!({"type": "http", "scheme": "bearer", "description": "The operator's admin key."})
            }
            Self::Storage => {
                json!({"type": "http", "scheme": "bearer", "description": "The storage API's key."})
            }
        }
    }
}

/// A parameter in a query or a header.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) place: &'static str,
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) says: &'static str,
    pub(super) schema: Value,
    pub(super) example: Value,
}

/// The body that a request brings.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) media_type: &'static str,
    pub(super) required: bool,
    pub(super) schema: Option<MakeSchema>,
}

/// One answer that is not a refusal.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) says: &'static str,
    /// Its media type, its schema where it is JSON, and an example.
    pub(super) content: Option<(&'static str, Option<MakeSchema>, Option<Value>)>,
}

/// What is written of one method of one path. Made by [`says`], told the rest by its methods; what a handler takes is added from the types of
/// its arguments ([`Input`]).
#[derive(Clone, Debug)]
pub struct Operation {
    pub(super) summary: &'static str,
    pub(super) keys: Vec<Key>,
    /// Schema and example of each thing in the path, in the order in which they stand there.
    pub(super) path: Vec<Option<(Value, Value)>>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) body_examples: Vec<Value>,
    pub(super) answers: Vec<Answer>,
    pub(super) errors: Vec<ErrorCode>,
}

/// An operation, with what it does in one line.
pub fn says(summary: &'static str) -> Operation {
    Operation {
        summary,
        keys: Vec::new(),
        path: Vec::new(),
        parameters: Vec::new(),
        body: None,
        body_examples: Vec::new(),
        answers: Vec::new(),
        // Any request may come at a bad moment, or upon a bug of ours.
        errors: vec![ErrorCode::RetryLater, ErrorCode::Internal],
    }
}

impl Operation {
    /// Whose key it needs, where no argument says so.
    #[must_use]
    pub fn by(mut self, key: Key) -> Self {
        self.needs(key);
        self
    }

    /// A body that it takes, for example.
    #[must_use]
    pub fn takes(mut self, example: Value) -> Self {
        self.body_examples.push(example);
        self
    }

    /// It answers JSON, like this for example.
    #[must_use]
    pub fn answers<T: Serialize + JsonSchema>(
        mut self,
        status: u16,
        says: &'static str,
        example: &T,
    ) -> Self {
        // What cannot be written is shown as nothing, which no schema allows: a test holds every example against its own.
        let example = serde_json::to_value(example).unwrap_or_default();
        let schema: MakeSchema = SchemaGenerator::subschema_for::<T>;
        self.answers.push(Answer { status, says, content: Some((JSON, Some(schema), Some(example))) });
        self
    }

    /// 200, with JSON like this.
    #[must_use]
    pub fn ok<T: Serialize + JsonSchema>(self, example: &T) -> Self {
        self.answers(200, "Done: this is how it is.", example)
    }

    /// 201, with JSON like this.
    #[must_use]
    pub fn made<T: Serialize + JsonSchema>(self, example: &T) -> Self {
        self.answers(201, "Made.", example)
    }

    /// 201, with JSON like this; and 200 with the same when it was there already.
    #[must_use]
    pub fn made_or_there<T: Serialize + JsonSchema>(self, example: &T) -> Self {
        self.made(example).answers(200, "It was there already.", example)
    }

    /// 204.
    #[must_use]
    pub fn done(self) -> Self {
        self.bare(204, "Done.")
    }

    /// It answers without a body.
    #[must_use]
    pub fn bare(mut self, status: u16, says: &'static str) -> Self {
        self.answers.push(Answer { status, says, content: None });
        self
    }

    /// It answers something that is not JSON; `*/*` for whatever it is.
    #[must_use]
    pub fn raw(mut self, status: u16, says: &'static str, media_type: &'static str) -> Self {
        self.answers.push(Answer { status, says, content: Some((media_type, None, None)) });
        self
    }

    /// Why it may refuse, besides what its arguments may be refused for.
    #[must_use]
    pub fn refuses(mut self, codes: &[ErrorCode]) -> Self {
        self.may_refuse(codes);
        self
    }

    /// Likewise, for an [`Input`].
    pub fn may_refuse(&mut self, codes: &[ErrorCode]) {
        self.errors.extend_from_slice(codes);
    }

    /// Who calls has to show this key. Of several, any.
    pub fn needs(&mut self, key: Key) {
        self.keys.push(key);
        self.may_refuse(&[ErrorCode::Unauthenticated]);
    }

    /// What stands in the path at this place, counted from 0. A malformed one does not exist.
    pub fn path_part(&mut self, at: usize, schema: Value, example: Value) {
        if self.path.len() <= at {
            self.path.resize(at + 1, None);
        }
        if let Some(part) = self.path.get_mut(at) {
            *part = Some((schema, example));
        }
        self.may_refuse(&[ErrorCode::NotFound]);
    }

    /// A parameter of the query.
    pub fn query(
        &mut self,
        name: &'static str,
        required: bool,
        says: &'static str,
        schema: Value,
        example: Value,
    ) {
        self.parameters.push(Parameter { place: "query", name, required, says, schema, example });
        self.may_refuse(&[ErrorCode::Invalid]);
    }

    /// A header that may be given.
    pub fn header(&mut self, name: &'static str, says: &'static str, schema: Value, example: Value) {
        let required = false;
        self.parameters.push(Parameter { place: "header", name, required, says, schema, example });
    }

    /// A JSON object as the body.
    pub fn json<T: JsonSchema>(&mut self, required: bool) {
        let schema: MakeSchema = SchemaGenerator::subschema_for::<T>;
        self.body = Some(Body { media_type: JSON, required, schema: Some(schema) });
        self.may_refuse(&[ErrorCode::Invalid, ErrorCode::TooLarge, ErrorCode::TooSlow]);
    }

    /// A file as the body.
    pub fn file(&mut self) {
        self.body = Some(Body { media_type: "*/*", required: true, schema: None });
        self.may_refuse(&[ErrorCode::Invalid, ErrorCode::TooLarge, ErrorCode::TooSlow]);
    }
}

/// What a handler's argument asks of a request: written down once for its type, next to how it is read.
pub trait Input {
    /// Adds to the operation what it takes, and what it is refused for.
    fn describe(operation: &mut Operation);
}

/// The arguments of a handler, as axum's `Handler` names them.
pub trait Inputs {
    /// Adds what all of them take.
    fn describe(operation: &mut Operation);
}

macro_rules! inputs {
    ($($argument:ident)*) => {
        impl<M, $($argument: Input,)*> Inputs for (M, $($argument,)*) {
            fn describe(_operation: &mut Operation) {
                $($argument::describe(_operation);)*
            }
        }
    };
}

inputs!();
inputs!(A);
inputs!(A B);
inputs!(A B C);
inputs!(A B C D);
inputs!(A B C D E);
inputs!(A B C D E F);

/// What says nothing by itself: whoever takes it says the rest with the operation.
macro_rules! silent {
    ($($argument:ty),*) => {$(
        impl Input for $argument {
            fn describe(_: &mut Operation) {}
        }
    )*};
}

silent!(HeaderMap, Method, Request);

impl<T> Input for Extension<T> {
    fn describe(_: &mut Operation) {}
}

impl<S> Input for State<S> {
    fn describe(_: &mut Operation) {}
}

impl Input for Caller {
    fn describe(operation: &mut Operation) {
        operation.needs(Key::User);
    }
}

impl Input for Presented {
    fn describe(operation: &mut Operation) {
        operation.needs(Key::User);
    }
}

/// The schema of a number from `min` up to what 64 bits hold.
pub fn number(min: u64) -> Value {
    json!({"type": "integer", "minimum": min})
}
