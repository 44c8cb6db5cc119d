//! From an HTTP request to the bare TCP connection under it. Axum's own upgrade hides the connection behind a lock and a buffer; here
//! whoever has something for the client writes to it.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use common::{listen, wire::codec::Format};
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A client's wish for a WebSocket.
pub(crate) struct Upgrade {
    on: OnUpgrade,
    accept: HeaderValue,
}

/// What was asked for is no WebSocket, or one of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoUpgrade;

impl Upgrade {
    /// The wish in this request, of which there is one at most.
    pub(crate) fn asked(request: &mut Request) -> Result<Self, NoUpgrade> {
        let headers = request.headers();
        let is = |name: HeaderName, value: &str| {
            headers.get(name).is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
        };
        let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(NoUpgrade)?;
        let wished = request.method() == Method::GET
            && words(headers, header::CONNECTION).any(|word| word.eq_ignore_ascii_case(b"upgrade"))
            && is(header::UPGRADE, "websocket")
            && is(header::SEC_WEBSOCKET_VERSION, "13");
        if !wished {
            return Err(NoUpgrade);
        }
        let accept = derive_accept_key(key.as_bytes()).parse().map_err(|_| NoUpgrade)?;
        let on = request.extensions_mut().remove().ok_or(NoUpgrade)?;
        Ok(Self { on, accept })
    }

    /// The answer that lets the client in, and the connection, which is there once the answer was written.
    pub(crate) fn answer(self, format: Option<Format>) -> (Response, Connecting) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(format) = format {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(format.subprotocol()));
        }
        (response, Connecting(self.on))
    }
}

/// A connection that is about to be a WebSocket.
pub(crate) struct Connecting(OnUpgrade);

impl Connecting {
    /// The connection, with what the client said already. None when it broke.
    pub(crate) async fn connected(self) -> Option<(TcpStream, Bytes)> {
        let upgraded = self.0.await.ok()?;
        let connection = listen::bare(upgraded);
        if connection.is_none() {
            tracing::error!("a socket came over something else than TCP");
        }
        connection
    }
}

/// The comma-separated words of a header, however many lines it has.
pub(crate) fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}
