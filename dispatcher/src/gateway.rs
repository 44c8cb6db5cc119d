//! The public REST API on one origin (LO-6): passes requests on to a node and answers back.
//!
//! A request goes to the caller's own node, whose caches know them; without a good token, or when that node cannot be reached, to another.
//! Sent twice it is never: another node is tried only when no connection could be opened, and then nothing was sent.

mod body;

use std::{
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use common::{listen, problem::Problem, wire::codes::ErrorCode};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request::Parts, uri::Authority,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use self::body::{Incoming, Outgoing, Upload};
use crate::{
    cluster::{Node, View},
    metrics::Metrics,
};

/// How many nodes are tried, one after another: two may be down at once.
const ATTEMPTS: usize = 3;

/// Connections that are kept idle to each node. At 5 ms a request 64 carry 12,800 requests/s.
const IDLE_PER_NODE: usize = 64;

/// How long one is kept: shorter than a node waits for the next request on it, so that a request does not meet one that is just closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Headers that concern one connection (RFC 9110, 7.6.1), whatever `Connection` says besides.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a client may not say: a node believes these of its dispatcher. `Expect` and `Host` are for the connection that ends here.
const OURS: [HeaderName; 7] = [
    FORWARDED_FOR,
    FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-real-ip"),
    header::FORWARDED,
    header::EXPECT,
    header::HOST,
];

/// The numbers of the gateway.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// How long a node has to take a connection. It is on the same network, so a second is a thousand round trips.
    pub connect: Duration,
    /// How long from the first byte of a request to the head of its answer; and between two pieces of the answer's body.
    pub answer: Duration,
    /// The longest body that is passed on, in bytes, but for uploads. The node has limits of its own, path by path.
    pub max_body: u64,
    /// The longest upload, in bytes.
    pub max_upload: u64,
    /// How long an upload may take in all, while it goes on: nothing may stand still for longer than `answer`.
    pub upload: Duration,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            // Longer than the 5 s after which a node says that an outcome is unknown.
            answer: Duration::from_secs(15),
            // A group of 50,000 members takes 2 MB.
            max_body: 4 * 1024 * 1024,
            max_upload: 100 * 1024 * 1024,
            // Longer than a node gives it.
            upload: Duration::from_secs(24 * 3_600),
        }
    }
}

/// Passes requests on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    client: Client<HttpConnector, Outgoing>,
    settings: GatewaySettings,
    metrics: Metrics,
}

/// Whether the gateway passes this path on: the REST API, and nothing that is for operators or for other services.
pub fn is_public(path: &str) -> bool {
    if path.split('/').any(is_dots) {
        return false;
    }
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next(), segments.next()) {
        (Some("api"), Some("v1"), Some(rest)) => !rest.is_empty(),
        (Some("v1"), Some("users"), Some(rest)) => !rest.is_empty(),
        (Some("chat"), Some("message"), _) => true,
        (Some("chat"), Some(_), Some("message")) => true,
        _ => false,
    }
}

/// `.` and `..`, written out or not: what a node would make of them is not for us to guess.
fn is_dots(segment: &str) -> bool {
    segment.len() <= 6 && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

impl Gateway {
    /// Opens nothing yet.
    pub fn new(settings: GatewaySettings, metrics: Metrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(settings.connect));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_NODE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client, settings, metrics }
    }

    /// Passes `request` on to the node nearest on the ring to `hash`, or to the next one that can be reached.
    pub async fn forward(
        &self,
        view: &View,
        hash: u64,
        peer: Option<IpAddr>,
        request: Request<Body>,
    ) -> Response {
        let started = Instant::now();
        let outcome = self.attempt(view, hash, peer, request).await;
        self.metrics.gateway_seconds.observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok(response) => {
                self.metrics.gateway("answered");
                response
            }
            Err(problem) => {
                self.metrics.gateway(problem.code.word());
                problem.into_response()
            }
        }
    }

    async fn attempt(
        &self,
        view: &View,
        hash: u64,
        peer: Option<IpAddr>,
        request: Request<Body>,
    ) -> Result<Response, Problem> {
        let (mut parts, body) = request.into_parts();
        let stored_by = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let is_upload = listen::is_upload(&parts);
        let most = if is_upload { self.settings.max_upload } else { self.settings.max_body };
        let too_large = || Problem::new(ErrorCode::TooLarge, format!("a body may have {most} bytes"));
        if declared_length(&parts.headers).is_some_and(|length| length > most) {
            return Err(too_large());
        }
        clean(&mut parts.headers);
        tell_origin(&mut parts.headers, peer);
        let upload = Arc::new(Upload::new(body, most));
        let begun = tokio::time::Instant::now();
        // Whose body is on its way, its answer is waited for from the last piece of it on.
        let last = if is_upload { begun + self.settings.upload } else { begun + self.settings.answer };
        for node in view.from(hash).take(ATTEMPTS) {
            let Some(request) = addressed(&parts, node, Outgoing::new(&upload)) else { continue };
            let patience = || last.min(upload.moved_at().unwrap_or(begun) + self.settings.answer);
            let answer = match answered(self.client.request(request), patience).await {
                Some(answer) => answer,
                None if upload.is_too_large() => return Err(too_large()),
                None => return Err(no_answer(stored_by, "the node did not answer in time")),
            };
            match answer {
                Ok(response) => return Ok(self.answer(response)),
                Err(_) if upload.is_too_large() => return Err(too_large()),
                // No node has taken in a body that is not whole.
                Err(_) if upload.is_broken() => {
                    return Err(Problem::new(ErrorCode::Invalid, "the body broke off"));
                }
                Err(error) if error.is_connect() && upload.is_untouched() => {
                    tracing::debug!(node = %node.id, %error, "no connection to a node");
                }
                Err(error) => {
                    tracing::warn!(node = %node.id, %error, "no answer from a node");
                    return Err(no_answer(stored_by, "the node broke off before it answered"));
                }
            }
        }
        Err(Problem::retry_later("no chat node can be reached at the moment"))
    }

    fn answer(&self, response: Response<hyper::body::Incoming>) -> Response {
        let (mut parts, body) = response.into_parts();
        clean_hops(&mut parts.headers);
        parts.version = Version::HTTP_11;
        Response::from_parts(parts, Body::new(Incoming::new(body, self.settings.answer)))
    }
}

/// The answer, unless `deadline` comes first, which moves as long as something else goes on.
async fn answered<T>(
    asking: impl Future<Output = T>,
    deadline: impl Fn() -> tokio::time::Instant,
) -> Option<T> {
    let mut asking = pin!(asking);
    loop {
        let until = deadline();
        match tokio::time::timeout_at(until, asking.as_mut()).await {
            Ok(answer) => return Some(answer),
            Err(_) if deadline() > until => {}
            Err(_) => return None,
        }
    }
}

/// What is said when a request was sent, or may have been, and no answer came.
fn no_answer(stores: bool, why: &str) -> Problem {
    if stores { Problem::new(ErrorCode::Unknown, why) } else { Problem::retry_later(why) }
}

/// The request as it goes to `node`.
fn addressed(parts: &Parts, node: &Node, body: Outgoing) -> Option<Request<Outgoing>> {
    let base: Uri = node.registration.http_url.parse().ok()?;
    let authority: &Authority = base.authority()?;
    let target = parts.uri.path_and_query()?.as_str();
    let uri =
        Uri::builder().scheme("http").authority(authority.clone()).path_and_query(target).build().ok()?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers.clone();
    Some(request)
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn clean(headers: &mut HeaderMap) {
    clean_hops(headers);
    for name in OURS {
        headers.remove(name);
    }
}

fn clean_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn tell_origin(headers: &mut HeaderMap, peer: Option<IpAddr>) {
    if let Some(value) = peer.and_then(|peer| HeaderValue::try_from(peer.to_string()).ok()) {
        headers.insert(FORWARDED_FOR, value);
    }
    // TLS ends in front of us, if anywhere; what stands there may say so once there is a setting to trust it.
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_api_is_passed_on() {
        for path in [
            "/api/v1/users",
            "/api/v1/chats/1/messages",
            "/chat/message",
            "/chat/message/",
            "/chat/7/message",
            "/v1/users/1/contacts",
        ] {
            assert!(is_public(path), "{path}");
        }
        for path in [
            "",
            "/",
            "*",
            "/api",
            "/api/v1",
            "/api/v1/",
            "/api/v2/users",
            "/apiv1/users",
            "/chat/location",
            "/chat",
            "/metrics",
            "/cluster",
            "/group",
            "/group/",
            "/group/1",
            "/group/messages",
            "/group/user/1",
            "/message",
            "/message/",
            "/message/1",
            "/user",
            "/user/",
            "/user/1",
            "/chat/../message/1",
            "/chat/%2e%2e/message",
            "/api/v1/../../metrics",
            "/api/v1/%2e%2E/x",
            "/api/v1/.%2e/x",
            "/api/v1/./x",
            "//api/v1/x",
        ] {
            assert!(!is_public(path), "{path}");
        }
    }

    #[test]
    fn headers_of_one_connection_and_of_ours_do_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("host", "a"),
            ("expect", "100-continue"),
            ("x-real-ip", "10.0.0.1"),
            ("authorization", "Bearer x"),
            ("idempotency-key", "k"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        clean(&mut headers);
        tell_origin(&mut headers, Some("192.0.2.1".parse().unwrap()));
        let mut left: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                ("authorization", "Bearer x"),
                ("idempotency-key", "k"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", "http"),
            ]
        );
    }
}
