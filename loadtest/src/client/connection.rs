//! From a location to a session that is ready, and the frames of that session. One socket; when it is over, it is over.

use std::time::Duration;

use common::{
    ids::NodeId,
    wire::{
        client::{ClientFrame, Hello, Ready, Ref, Resume, SUBPROTOCOL_JSON},
        codes::CloseCode,
    },
};
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::{HeaderValue, Uri, header};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode as WsCloseCode},
    },
};

use super::{
    frames::{self, Incoming},
    http::HttpError,
    rest::Session,
};

/// How long each step of opening may take: the connection, the upgrade, `ready`.
const STEP_WITHIN: Duration = Duration::from_secs(10);

/// How long the other side may take to swallow what was written, or to answer a goodbye.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// The longest frame that is read: a page of 100 messages of 16 KiB, escaped.
const FRAME_BYTES: usize = 4 << 20;

/// The mark of `hello`: `resumed` repeats it.
pub(crate) const HELLO: Ref = 0;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The location was not given.
    #[error("no location: {0}")]
    Location(#[from] HttpError),
    /// The node did not answer, or not in time.
    #[error("the node at {node} cannot be reached: {why}")]
    Unreachable {
        /// The node, by the location's word.
        node: NodeId,
        /// What happened.
        why: String,
    },
    /// The node closed instead of saying `ready`.
    #[error("the node {node} closed the socket before it was ready: {code:?}")]
    Closed {
        /// The node.
        node: NodeId,
        /// The close code, or the HTTP status of a refused upgrade.
        code: Option<u16>,
    },
    /// Something else came before `ready`.
    #[error("the node {node} did not say ready: {why}")]
    Unexpected {
        /// The node.
        node: NodeId,
        /// What came.
        why: String,
    },
}

/// What a socket gave.
#[derive(Debug)]
pub(crate) enum Received {
    /// A frame.
    Frame(Incoming),
    /// Nothing but a sign of life.
    Alive,
    /// It is over; the close code when one was said.
    Over(Option<u16>),
}

/// A socket whose session is ready.
#[derive(Debug)]
pub(crate) struct Connection {
    ws: WebSocketStream<TcpStream>,
    /// What the node said.
    pub(crate) ready: Ready,
    /// The node, by its own word.
    pub(crate) node: NodeId,
}

impl Connection {
    /// Asks for a location, opens the socket there, says hello, and awaits `ready`.
    pub(crate) async fn open(
        session: &Session,
        device: Option<&str>,
        resume: Option<Resume>,
    ) -> Result<Self, OpenError> {
        let location = session.location().await?;
        let node = location.node;
        let unreachable = |why: String| OpenError::Unreachable { node: node.clone(), why };
        let uri: Uri = location.url.parse().map_err(|_| unreachable("its URL is not one".into()))?;
        let (Some("ws"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(unreachable(format!(
                "its URL is not a ws:// one: {}",
                without_ticket(&location.url)
            )));
        };
        let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
        let stream = within(TcpStream::connect(address))
            .await
            .map_err(unreachable)?
            .map_err(io)
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(io).map_err(unreachable)?;

        let mut request =
            location.url.as_str().into_client_request().map_err(|error| unreachable(error.to_string()))?;
        request
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL_JSON));
        let upgraded =
            within(client_async_with_config(request, stream, Some(config()))).await.map_err(unreachable)?;
        let mut ws = match upgraded {
            Ok((ws, _)) => ws,
            Err(WsError::Http(response)) => {
                return Err(OpenError::Closed { node, code: Some(response.status().as_u16()) });
            }
            Err(error) => return Err(unreachable(error.to_string())),
        };

        let hello = ClientFrame::Hello(Hello { ref_: HELLO, device: device.map(str::to_owned), resume });
        let said = within(ws.send(text(&hello))).await.map_err(unreachable)?;
        said.map_err(|error| unreachable(error.to_string()))?;
        let first = within(async {
            loop {
                match receive(ws.next().await) {
                    Ok(Received::Alive) => {}
                    other => return other,
                }
            }
        });
        let unexpected = |why: String| OpenError::Unexpected { node: node.clone(), why };
        match first.await.map_err(unreachable)?.map_err(|bad| unexpected(bad.to_string()))? {
            Received::Frame(Incoming::Ready(ready)) => Ok(Self { ws, ready: *ready, node }),
            Received::Over(code) => Err(OpenError::Closed { node, code }),
            other => Err(unexpected(format!("{other:?}"))),
        }
    }

    /// The next thing the socket gives. Cancel safe. A frame that cannot be read ends the session: nothing after it can be trusted.
    pub(crate) async fn next(&mut self) -> Received {
        let next = self.ws.next().await;
        receive(next).unwrap_or_else(|bad| {
            tracing::error!(%bad, "the node sent what is no frame");
            Received::Over(None)
        })
    }

    /// What the socket has at hand, without waiting.
    pub(crate) fn at_hand(&mut self) -> Option<Received> {
        self.next().now_or_never()
    }

    /// Takes a frame to be written; it leaves at the next [`Connection::flush`].
    pub(crate) async fn feed(&mut self, frame: &ClientFrame) -> Result<(), Gone> {
        match tokio::time::timeout(WRITE_WITHIN, self.ws.feed(text(frame))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Writes what was fed.
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        match tokio::time::timeout(WRITE_WITHIN, self.ws.flush()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Says goodbye and waits until the node has closed, so that the node, not this side, keeps the port's memory (TIME_WAIT).
    pub(crate) async fn close(mut self) {
        let bye = CloseFrame {
            code: WsCloseCode::from(CloseCode::Bye.code()),
            reason: CloseCode::Bye.word().into(),
        };
        let goodbye = async {
            if self.ws.close(Some(bye)).await.is_ok() {
                while let Some(Ok(_)) = self.ws.next().await {}
            }
        };
        // Whether it was polite or not, the socket is dropped.
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

/// The connection broke while it was written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone;

/// Small buffers: a generator holds tens of thousands of sockets, and a big read buffer is zeroed at every poll (facts 13).
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(4 << 10)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(FRAME_BYTES))
        .max_frame_size(Some(FRAME_BYTES))
}

fn text(frame: &ClientFrame) -> Message {
    // Every field of a frame has a JSON form.
    Message::text(serde_json::to_string(frame).unwrap_or_default())
}

fn receive(next: Option<Result<Message, WsError>>) -> Result<Received, frames::BadFrame> {
    Ok(match next {
        Some(Ok(Message::Text(text))) => Received::Frame(frames::decode(&text)?),
        Some(Ok(Message::Close(frame))) => Received::Over(frame.map(|frame| frame.code.into())),
        Some(Ok(_)) => Received::Alive,
        Some(Err(_)) | None => Received::Over(None),
    })
}

async fn within<T>(step: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(STEP_WITHIN, step)
        .await
        .map_err(|_| format!("nothing within {} s", STEP_WITHIN.as_secs()))
}

fn io(error: std::io::Error) -> String {
    error.to_string()
}

fn without_ticket(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}
