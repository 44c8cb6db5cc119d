//! A refused request, in the one form that every answer uses: as `application/problem+json` over REST, as an `error` frame over
//! a socket.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    store::StoreError,
    wire::{
        client::{ErrorFrame, FieldError, Ref},
        codes::ErrorCode,
        owner::Refusal,
    },
};

/// Why a request was not done. Holds nothing internal: no query, no path, no stack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.word())]
pub struct Problem {
    /// The word.
    pub code: ErrorCode,
    /// For a person: what is wrong, and what to do.
    pub detail: String,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Of `invalid`: the fields.
    pub errors: Vec<FieldError>,
}

/// A [`Problem`] as it stands in an HTTP answer's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct ProblemBody {
    /// The HTTP status once more.
    pub status: u16,
    /// The word: stable, `snake_case`.
    pub code: String,
    /// The word's meaning.
    pub title: String,
    /// This request's own trouble.
    pub detail: String,
    /// Of `invalid`: the fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem with nothing but a word and a detail.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after_ms: None, errors: Vec::new() }
    }

    /// One field is wrong.
    pub fn invalid(error: FieldError) -> Self {
        let detail = if error.param.is_empty() {
            error.msg.clone()
        } else {
            format!("{}: {}", error.param, error.msg)
        };
        Self { code: ErrorCode::Invalid, detail, retry_after_ms: None, errors: vec![error] }
    }

    /// It does not exist, or the caller may not know of it: one answer for both.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no such {what}, or it is not yours"))
    }

    /// Not possible now, and surely not done.
    pub fn retry_later(detail: impl Into<String>) -> Self {
        Self { retry_after_ms: Some(1_000), ..Self::new(ErrorCode::RetryLater, detail) }
    }

    /// The answer to a socket's request.
    pub fn frame(self, ref_: Option<Ref>) -> ErrorFrame {
        ErrorFrame {
            ref_,
            code: self.code,
            detail: self.detail,
            retry_after_ms: self.retry_after_ms,
            temporary: self.code.temporary(),
            errors: self.errors,
        }
    }
}

impl From<Refusal> for Problem {
    /// An owner names the field that is `invalid` in front of its detail: `reply_to: there is no such message`.
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, detail, retry_after_ms } = refusal;
        let (param, msg) = detail.split_once(": ").unwrap_or(("", &detail));
        let errors = if code == ErrorCode::Invalid { vec![FieldError::body(param, msg)] } else { Vec::new() };
        Self { code, detail, retry_after_ms, errors }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // The client is told that it may try again; what happened is for the operator.
        tracing::warn!(%error, "the store did not answer a request");
        match error {
            StoreError::Unavailable(_) => Self::retry_later("the store does not answer at the moment"),
            StoreError::Corrupt(_) => {
                Self::new(ErrorCode::Internal, "something is wrong here; it was reported")
            }
        }
    }
}

impl From<Problem> for ProblemBody {
    fn from(problem: Problem) -> Self {
        Self {
            status: problem.code.status(),
            code: problem.code.rest_word().to_owned(),
            title: problem.code.title().to_owned(),
            detail: problem.detail,
            errors: problem.errors,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (code, retry_after_ms) = (self.code, self.retry_after_ms);
        let mut response = (status, axum::Json(ProblemBody::from(self))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let wait = match retry_after_ms {
            Some(ms) => Some(ms.div_ceil(1_000).max(1)),
            None if status == StatusCode::SERVICE_UNAVAILABLE => Some(1),
            None => None,
        };
        if let Some(seconds) = wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(code, ErrorCode::TooLarge | ErrorCode::TooSlow) {
            // The rest of the body may still be on its way: the connection is of no further use, and its next user must know.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
