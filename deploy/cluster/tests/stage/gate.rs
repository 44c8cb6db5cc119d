//! A way to Postgres that can be closed for transactions: they are begun when it is opened again, as if the process had been stopped right
//! before its first statement.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What a transaction begins with.
const BEGIN: &[u8] = b"BEGIN";

/// Open at first. Connections end with it.
pub struct Gate {
    url: String,
    closed: watch::Sender<bool>,
    held: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Gate {
    /// A way to the database with this URL.
    pub async fn new(store: &str) -> Self {
        let (before, after) = store.split_once('@').unwrap();
        let (server, database) = after.split_once('/').unwrap();
        let server: SocketAddr = server.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{before}@{}/{database}", listener.local_addr().unwrap());
        let (closed, is_closed) = watch::channel(false);
        let held = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        serving.spawn({
            let held = Arc::clone(&held);
            async move {
                let mut connections = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(server).await else { continue };
                    let (from_client, mut to_client) = client.into_split();
                    let (mut from_server, to_server) = server.into_split();
                    connections.spawn(forward(from_client, to_server, is_closed.clone(), Arc::clone(&held)));
                    connections.spawn(async move {
                        let _ = copy(&mut from_server, &mut to_client).await;
                    });
                }
            }
        });
        Self { url, closed, held, _serving: serving }
    }

    /// What leads through it.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    pub fn open(&self) {
        self.closed.send_replace(false);
    }

    /// Transactions that wait for it to open.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// Whoever begins a transaction waits for the answer: nothing else is in what is read with it.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut closed: watch::Receiver<bool>,
    held: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let said = &buffer[..read];
        if *closed.borrow() && said.windows(BEGIN.len()).any(|some| some == BEGIN) {
            held.fetch_add(1, Ordering::Relaxed);
            let opened = closed.wait_for(|closed| !closed).await.is_ok();
            held.fetch_sub(1, Ordering::Relaxed);
            if !opened {
                return;
            }
        }
        if to.write_all(said).await.is_err() {
            return;
        }
    }
}
