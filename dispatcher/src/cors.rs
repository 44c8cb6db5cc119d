//! Which other origins' pages may call this one: those on the list, exactly as they are written there, and nobody by default.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};

/// How long a browser may remember that it was allowed, in seconds.
const REMEMBER: &str = "600";

/// The origins that may call, as browsers send them: `https://chat.example.org`.
pub type Allowed = Arc<[HeaderValue]>;

/// The list, from a configuration.
///
/// # Errors
/// In words for an operator: one of them cannot be an origin.
pub fn allowed(origins: &[String]) -> Result<Allowed, String> {
    let one = |origin: &String| {
        let bare = origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
        HeaderValue::try_from(origin)
            .ok()
            .filter(|_| bare)
            .ok_or_else(|| format!("{origin:?} is no origin: scheme://host[:port]"))
    };
    origins.iter().map(one).collect()
}

/// Answers preflights, and marks the answers to allowed origins. To others nothing is said, and their browsers keep the answer from the page.
pub async fn check(State(allowed): State<Allowed>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let known = origin.filter(|origin| allowed.contains(origin));
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &known {
        Some(_) if preflight => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    if allowed.is_empty() {
        return response;
    }
    let headers = response.headers_mut();
    // The answer depends on who asks, and caches must know it.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = known {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if preflight {
            let methods = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            let names = HeaderValue::from_static(
                "authorization, content-type, idempotency-key, range, if-range, if-none-match",
            );
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBER));
        } else {
            let names = HeaderValue::from_static("retry-after, content-disposition, content-range, etag");
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names);
        }
    }
    response
}
