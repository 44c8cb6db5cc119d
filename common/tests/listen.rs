//! The accept loop: what strangers cannot make it wait for, and how it stops.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, WebSocketUpgrade, ws::Message},
    http::StatusCode,
    routing::{get, post},
};
use common::listen::{ListenLimits, serve};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);
/// More than the system takes in for a client that does not read.
const BIG: usize = 64 * 1024 * 1024;
const GET: &[u8] = b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n";

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<usize>,
    /// Lets one `/slow` request finish.
    finish: Arc<Notify>,
    /// A `/slow` request has begun.
    begun: Arc<Notify>,
}

async fn server(limits: ListenLimits) -> Server {
    let (finish, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wait, tell) = (finish.clone(), begun.clone());
    let router = Router::new()
        .route("/who", get(|ConnectInfo(client): ConnectInfo<SocketAddr>| async move { client.to_string() }))
        .route("/big", get(|| async { vec![b'x'; BIG] }))
        .route("/refuse", post(|| async { StatusCode::PAYLOAD_TOO_LARGE }))
        .route("/echo", post(|body: String| async move { body }))
        .route(
            "/slow",
            get(|| async move {
                tell.notify_one();
                wait.notified().await;
                "done"
            }),
        )
        .route(
            "/socket",
            get(|upgrade: WebSocketUpgrade| async move {
                upgrade.on_upgrade(|mut socket| async move {
                    while let Some(Ok(Message::Text(text))) = socket.recv().await {
                        let _ = socket.send(Message::Text(text)).await;
                    }
                })
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
    Server { address, shutdown, serving, finish, begun }
}

fn impatient() -> ListenLimits {
    ListenLimits {
        header: Duration::from_millis(200),
        body: Duration::from_millis(200),
        ..ListenLimits::default()
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Everything until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut text)).await.expect("it was not closed");
    String::from_utf8(text).unwrap()
}

/// One answer with a content-length.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let reading = async {
        loop {
            text.push(stream.read_u8().await.unwrap());
            let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if text.len() == end + 4 + length.parse::<usize>().unwrap() {
                return;
            }
        }
    };
    timeout(SOON, reading).await.expect("no answer");
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_connection_without_a_byte_and_one_with_a_slow_header_are_closed() {
    let server = server(impatient()).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /who HTTP/1.1\r\nhost:").await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    let said = rest(&mut slow).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test]
async fn two_hundred_half_open_connections_are_not_held() {
    let server = server(ListenLimits { connections: 200, ..impatient() }).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(server.connect().await);
    }
    for stream in &mut held {
        rest(stream).await;
    }
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = server(impatient()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 4"));
}

#[tokio::test]
async fn a_connection_is_kept_for_several_requests_which_see_the_clients_address() {
    let server = server(ListenLimits::default()).await;
    let mut stream = server.connect().await;
    let own = stream.local_addr().unwrap().to_string();
    for _ in 0..3 {
        stream.write_all(GET).await.unwrap();
        assert!(answer(&mut stream).await.ends_with(&own));
    }
}

#[tokio::test]
async fn a_header_that_is_too_long_is_refused() {
    let server = server(ListenLimits::default()).await;
    let mut stream = server.connect().await;
    let _ =
        stream.write_all(format!("GET /who HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000)).as_bytes()).await;
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 431") && said.contains("application/problem+json"), "{said}");
    let mut stream = server.connect().await;
    stream.write_all(b"no HTTP at all\r\n\r\n").await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 400") && said.ends_with("}]}"), "{said}");
}

#[tokio::test]
async fn a_header_that_is_too_long_is_refused_in_the_same_words_on_a_connection_that_was_kept() {
    let server = server(ListenLimits::default()).await;
    let mut stream = server.connect().await;
    // A body that is an answer is not one.
    let bare =
        "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let echo = format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{bare}", bare.len());
    for _ in 0..3 {
        stream.write_all(GET).await.unwrap();
        answer(&mut stream).await;
        stream.write_all(echo.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.ends_with(bare));
    }
    let _ =
        stream.write_all(format!("GET /who HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000)).as_bytes()).await;
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 431") && said.contains("application/problem+json"), "{said}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_its_place_is_free_again_after_another_closed() {
    let server = server(ListenLimits { connections: 1, ..ListenLimits::default() }).await;
    let mut first = server.connect().await;
    first.write_all(GET).await.unwrap();
    answer(&mut first).await;
    let said = rest(&mut server.connect().await).await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("retry_later"), "{said}");
    drop(first);
    let again = async {
        loop {
            let mut next = server.connect().await;
            let _ = next.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            if rest(&mut next).await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(SOON, again).await.unwrap();
}

#[tokio::test]
async fn a_websocket_is_upgraded_and_lives_on_when_the_listener_stops() {
    let server = server(impatient()).await;
    let url = format!("ws://{}/socket", server.address);
    let stream = server.connect().await;
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    server.shutdown.cancel();
    assert_eq!(timeout(SOON, server.serving).await.unwrap().unwrap(), 0);
    socket.send("hello".into()).await.unwrap();
    assert_eq!(timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap().into_text().unwrap(), "hello");
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_finish_and_closes_the_idle() {
    let server = server(ListenLimits { header: SOON * 2, ..ListenLimits::default() }).await;
    let mut idle = server.connect().await;
    idle.write_all(GET).await.unwrap();
    answer(&mut idle).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    timeout(SOON, server.begun.notified()).await.unwrap();
    server.shutdown.cancel();
    assert_eq!(rest(&mut idle).await, "");
    assert!(!server.serving.is_finished());
    let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
    timeout(SOON, refused).await.expect("it still takes connections");
    server.finish.notify_one();
    assert!(rest(&mut busy).await.ends_with("done"));
    assert_eq!(timeout(SOON, server.serving).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn what_does_not_finish_in_the_grace_is_dropped() {
    let server = server(ListenLimits { grace: Duration::from_millis(50), ..ListenLimits::default() }).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    timeout(SOON, server.begun.notified()).await.unwrap();
    server.shutdown.cancel();
    assert_eq!(timeout(SOON, server.serving).await.unwrap().unwrap(), 1);
    assert_eq!(rest(&mut busy).await, "");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go_and_one_that_reads_slowly_gets_everything() {
    let write = Duration::from_secs(1);
    let server = server(ListenLimits { connections: 2, write, ..ListenLimits::default() }).await;
    let big = b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (mut deaf, mut slow) = (server.connect().await, server.connect().await);
    deaf.write_all(big).await.unwrap();
    slow.write_all(big).await.unwrap();
    let begun = std::time::Instant::now();
    let (mut read, mut part) = (0, vec![0; BIG / 32]);
    let reading = async {
        loop {
            match slow.read(&mut part).await.unwrap() {
                0 => break,
                more => read += more,
            }
            if begun.elapsed() < 3 * write {
                tokio::time::sleep(write / 16).await;
            }
        }
    };
    timeout(SOON, reading).await.unwrap();
    assert!(read > BIG && begun.elapsed() > write, "{read} bytes in {:?}", begun.elapsed());
    // Both places are free.
    let again = async {
        loop {
            let (mut one, mut other) = (server.connect().await, server.connect().await);
            let _ = (one.write_all(GET).await, other.write_all(GET).await);
            let mut first = [[0; 12]; 2];
            let _ = (one.read_exact(&mut first[0]).await, other.read_exact(&mut first[1]).await);
            if first.iter().all(|first| first == b"HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(SOON, again).await.expect("the one that reads nothing is still held");
    drop(deaf);
}

#[tokio::test]
async fn who_is_refused_before_the_body_was_read_gets_the_answer_all_the_same() {
    let server = server(ListenLimits::default()).await;
    for length in [100_000, 900_000] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in vec![b'x'; length].chunks(50_000) {
            // As over a network: it is not all there when the answer is made.
            tokio::time::sleep(Duration::from_millis(5)).await;
            stream.write_all(piece).await.unwrap();
        }
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 413"));
    }
    // More than is swallowed is refused as well, and nobody waits for it.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn who_sends_more_than_is_swallowed_gets_the_answer_and_no_reset() {
    let server = server(ListenLimits::default()).await;
    let chunk = format!("c350\r\n{}\r\n", "x".repeat(50_000));
    let piece = "x".repeat(50_000);
    for (framing, piece) in [("content-length: 3000000", piece), ("transfer-encoding: chunked", chunk)] {
        let mut stream = server.connect().await;
        let head = format!("POST /refuse HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..60 {
            // It is refused in the midst of it.
            tokio::time::sleep(Duration::from_millis(5)).await;
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 413"), "{framing}");
    }
}
