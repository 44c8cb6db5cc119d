//! JSON over HTTP/1.1 with keep-alive, and nothing more: what a client of the cluster needs from HTTP, at the least cost in CPU.
//!
//! Absent on purpose: TLS. The load generator stands beside the cluster, in front of any TLS end.

use std::time::Duration;

use bytes::Bytes;
use common::wire::codes::ErrorCode;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Deserialize, de::DeserializeOwned};

/// The longest answer that is read: a page of 100 messages of 16 KiB each, escaped, fits twice.
const ANSWER_BYTES: usize = 8 << 20;

/// How long an answer may take. Above the server's own 5 s for a change, and above a sign-in that waits behind many others.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Connections kept per host: as many as the busiest command has requests under way.
const IDLE_PER_HOST: usize = 256;

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server said no, in its error format.
    #[error("{status} {word}: {detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The word, when it is one that this client knows.
        code: Option<ErrorCode>,
        /// The word as it was sent.
        word: String,
        /// For a person.
        detail: String,
    },
    /// No answer: what was asked may have been done or not.
    #[error("no answer from {uri}: {why}")]
    NoAnswer {
        /// What was asked.
        uri: String,
        /// What happened.
        why: String,
    },
    /// An answer that is not what the specification says.
    #[error("an answer from {uri} is not what it should be: {why}")]
    Unexpected {
        /// What was asked.
        uri: String,
        /// What is wrong.
        why: String,
    },
}

impl HttpError {
    /// The server's word, when it surely did not do what was asked.
    pub fn surely_refused(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code: Some(code), .. } if super::frames::definite(*code) => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn temporary(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => code.map_or(status.is_server_error(), ErrorCode::temporary),
            Self::NoAnswer { .. } => true,
            Self::Unexpected { .. } => false,
        }
    }

    /// Whether a token is no longer good.
    pub fn unauthenticated(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED)
    }
}

/// The origin of a cluster's public REST API. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    origin: String,
}

impl Http {
    /// The API at `url` (`http://host:port`).
    ///
    /// # Errors
    /// When it is not such a URL.
    pub fn new(url: &str) -> Result<Self, HttpError> {
        let bad = |why: &str| HttpError::Unexpected { uri: url.to_owned(), why: why.to_owned() };
        let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("only http:// is spoken here: point it behind the TLS end"));
        }
        let authority = uri.authority().ok_or_else(|| bad("no host"))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(connector);
        Ok(Self { client, origin: format!("http://{authority}") })
    }

    /// `http://host:port`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// One request and its answer's body, read as `T`. A `null` stands for an empty body.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&serde_json::Value>,
    ) -> Result<T, HttpError> {
        let uri = format!("{}{path}", self.origin);
        let no_answer = |why: String| HttpError::NoAnswer { uri: uri.clone(), why };
        let mut request = Request::builder().method(method).uri(&uri);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| HttpError::Unexpected { uri: uri.clone(), why: error.to_string() })?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| no_answer(chain(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| no_answer(error.to_string()))?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(ANSWER_WITHIN, exchange)
            .await
            .map_err(|_| no_answer(format!("nothing within {} s", ANSWER_WITHIN.as_secs())))??;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(text).map_err(|error| HttpError::Unexpected { uri, why: error.to_string() })
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> HttpError {
    #[derive(Default, Deserialize)]
    struct Problem {
        #[serde(default)]
        code: String,
        #[serde(default)]
        detail: String,
    }

    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let code = ErrorCode::ALL.iter().copied().find(|code| code.rest_word() == problem.code);
    let word = if problem.code.is_empty() { "without a code".to_owned() } else { problem.code };
    HttpError::Refused { status, code, word, detail: problem.detail }
}

/// The error and what is behind it: hyper's own text says only "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
