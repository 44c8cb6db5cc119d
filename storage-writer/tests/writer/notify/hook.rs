//! A server on 127.0.0.1 that is notified: what came, and what it answers. Tests of whole clusters have it as well.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use common::ids::{ChatId, Number, UserId};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// How long whatever must come may take: a writer may have died, and its lease on an endpoint is to be over.
const SOON: Duration = Duration::from_secs(90);

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// What it was answered with.
    pub(crate) status: u16,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }
}

type Answering = Box<dyn FnMut(&Heard) -> (u16, String) + Send>;

/// The first message, the last one, and how many.
pub(crate) type Told = (Number, Number, u64);

/// It.
pub(crate) struct Hook {
    pub(crate) url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    answering: Arc<Mutex<Answering>>,
}

impl Hook {
    /// Answers everything with 204.
    pub(crate) async fn listen() -> Self {
        Self::listen_on("127.0.0.1:0").await
    }

    pub(crate) async fn listen_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let answering: Arc<Mutex<Answering>> = Arc::new(Mutex::new(Box::new(|_| (204, String::new()))));
        let (to, by) = (Arc::clone(&heard), Arc::clone(&answering));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&to), Arc::clone(&by)));
            }
        });
        Self { url, heard, answering }
    }

    /// Answers with this status and these lines of a header from here on.
    pub(crate) fn answer(&self, answering: impl FnMut(&Heard) -> (u16, String) + Send + 'static) {
        *self.answering.lock().unwrap() = Box::new(answering);
    }

    /// Everything that came.
    pub(crate) fn heard(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap()
    }

    /// Those that were taken, each once, in the order in which they came first.
    pub(crate) fn taken(&self) -> Vec<Heard> {
        let mut taken: Vec<Heard> = Vec::new();
        for heard in self.heard().iter().filter(|heard| heard.status == 204) {
            match taken.iter().find(|known| known.id() == heard.id()) {
                Some(known) => assert_eq!(known.body, heard.body, "one id, one body"),
                None => taken.push(heard.clone()),
            }
        }
        taken
    }

    /// Who was told of which messages; each delivery once.
    pub(crate) fn told(&self) -> BTreeMap<UserId, Vec<Told>> {
        let mut told: BTreeMap<UserId, Vec<_>> = BTreeMap::new();
        for ((_, user), some) in self.told_in_chats() {
            told.entry(user).or_default().extend(some);
        }
        told
    }

    /// Likewise, by chat as well.
    pub(crate) fn told_in_chats(&self) -> BTreeMap<(ChatId, UserId), Vec<Told>> {
        let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for heard in self.taken() {
            let data = &heard.json()["data"];
            let chat = serde_json::from_value(data["chat"]["id"].clone()).unwrap();
            for one in data["recipients"].as_array().unwrap() {
                let number = |name: &str| one[name].as_u64().unwrap();
                let user = serde_json::from_value(one["user"].clone()).unwrap();
                let some = (number("first"), number("last"), number("count"));
                told.entry((chat, user)).or_default().push(some);
            }
        }
        told
    }

    pub(crate) async fn until_told(&self, users: usize) {
        self.until(&format!("{users} are told"), |hook| hook.told().len() >= users).await;
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.told()));
    }
}

async fn serve(mut socket: TcpStream, to: Arc<Mutex<Vec<Heard>>>, by: Arc<Mutex<Answering>>) {
    let (mut bytes, mut some) = (Vec::new(), [0; 8192]);
    loop {
        if let Some((mut heard, end)) = request(&bytes) {
            let (status, lines) = (by.lock().unwrap())(&heard);
            heard.status = status;
            to.lock().unwrap().push(heard);
            bytes.drain(..end);
            let answer = format!("HTTP/1.1 {status} Said\r\n{lines}content-length: 0\r\n\r\n");
            let answer = if status == 204 { answer.replace("content-length: 0\r\n", "") } else { answer };
            if socket.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
        match socket.read(&mut some).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&some[..n]),
            _ => return,
        }
    }
}

/// The first request, if it has arrived, and where it ends.
fn request(bytes: &[u8]) -> Option<(Heard, usize)> {
    let body = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..body].to_vec()).unwrap();
    let headers: HashMap<String, String> = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let end = body + headers["content-length"].parse::<usize>().unwrap();
    (bytes.len() >= end).then(|| (Heard { headers, body: bytes[body..end].to_vec(), status: 0 }, end))
}
