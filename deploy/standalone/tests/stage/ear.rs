//! A plain socket that hears what its user is told, frame by frame.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use loadtest::client::rest::Session;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// How long a frame may take that must come.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct Ear(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Ear {
    /// Opens a socket for the session's user, and says `hello`.
    pub async fn open(session: &Session) -> Self {
        Self::resume(session, Value::Null).await
    }

    /// Comes back, with what `resume` of a `hello` says.
    pub async fn resume(session: &Session, resume: Value) -> Self {
        let url = session.location().await.unwrap().url;
        let mut ear = Self(connect_async(&url).await.unwrap().0);
        ear.say(json!({ "type": "hello", "ref": 1, "resume": resume })).await;
        ear.hear("ready").await;
        ear
    }

    pub async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame of this type; others are passed over.
    pub async fn hear(&mut self, kind: &str) -> Value {
        self.hear_one(|frame| frame["type"] == kind, kind).await
    }

    /// The next frame that is so; others are passed over.
    pub async fn hear_one(&mut self, is_it: impl Fn(&Value) -> bool, what: &str) -> Value {
        let coming = async {
            loop {
                let message = self.0.next().await.expect("the socket is open").unwrap();
                let Message::Text(text) = message else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                if is_it(&frame) {
                    return frame;
                }
            }
        };
        tokio::time::timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("not heard: {what}"))
    }
}
