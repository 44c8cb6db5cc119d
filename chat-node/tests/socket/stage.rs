//! A node's socket door on port 0, with a store of its own, an owner and lanes made of paper, and WebSocket clients.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chat_node::{
    ask::AskOwner,
    attachments::CheckAttachments,
    commands::Commands,
    control::{Clock, Interest},
    deliver::{Deliver, DeliverDeps},
    hub::SESSIONS_PER_USER,
    marks::Partitions,
    presence::{PresenceConfig, PresenceDeps},
    reads::{Reads, TellRead},
    relationships::Relationships,
    session::Sends,
    socket::{SocketConfig, SocketDeps, SocketMetrics, router},
};
use common::{
    cache::{NodeLife, SharedCache},
    ids::{AppId, ChatId, ClientId, Incarnation, MessageId, NodeId, Partition, SessionId, UserId},
    listen::{self, ListenLimits},
    log::{SharedLog, sqlite::SqliteLog},
    model::{ChatKind, Head, MessageKind, Role},
    partition::partition_of,
    revocations::Revocations,
    seal::Sealer,
    store::{PartitionBatch, Position, SharedStore, SignIn, User, sqlite::Sqlite},
    term::TermState,
    time::Millis,
    token::{Caller, Ticket, Tickets},
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, Draft, OwnerRequest, Refusal, Sent},
        peer::{Live, Topic},
        record::{Change, Claim, Record, What},
    },
};
use futures_util::{SinkExt, StreamExt, future::BoxFuture};
use http::HeaderValue;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::counted::CountedCache;

pub(crate) const APP: AppId = AppId::DEFAULT;
/// Nothing here takes this long unless it is broken.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A sent draft, and who waits for its outcome.
pub(crate) struct Sending {
    pub(crate) chat: ChatId,
    pub(crate) draft: Draft,
    pub(crate) outcome: oneshot::Sender<Result<Sent, Refusal>>,
}

/// Answers every send at once with the next number, or keeps it when told so.
#[derive(Default)]
pub(crate) struct PaperLanes {
    pub(crate) hold: std::sync::atomic::AtomicBool,
    pub(crate) sending: Mutex<Vec<Sending>>,
    number: AtomicU64,
}

impl PaperLanes {
    pub(crate) fn next(&self, repeat: bool) -> Sent {
        let number = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        Sent {
            id: MessageId::random(),
            number,
            seq: number + 1,
            at: Millis(0),
            repeat,
            masked: None,
            mentions: None,
        }
    }
}

struct Lane(Arc<PaperLanes>);

impl Sends for Lane {
    fn send(&self, chat: ChatId, draft: Draft) -> oneshot::Receiver<Result<Sent, Refusal>> {
        let (outcome, receiver) = oneshot::channel();
        if self.0.hold.load(Ordering::SeqCst) {
            self.0.sending.lock().push(Sending { chat, draft, outcome });
        } else {
            let _ = outcome.send(Ok(self.0.next(draft.retry)));
        }
        receiver
    }
}

/// An owner that knows one message of everything.
#[derive(Debug)]
struct PaperOwner;

impl AskOwner for PaperOwner {
    fn ask(&self, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        let answer = match request.ask {
            Ask::Edit { .. } => Answer::Done { seq: 77 },
            Ask::Erase { .. } => Answer::Refused(Refusal::new(ErrorCode::Forbidden, "not yours")),
            Ask::Changes { after } => {
                Answer::Changes { changes: Vec::new(), head: Head { number: 0, seq: after }, complete: true }
            }
            _ => Answer::Recent { head: Head { number: 0, seq: 1 }, changes: Vec::new() },
        };
        Box::pin(async move { answer })
    }
}

/// Topics, and what was said to them.
pub(crate) type Hinted = Arc<Mutex<Vec<(Vec<Topic>, Live)>>>;

pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    pub(crate) store: SharedStore,
    pub(crate) cache: SharedCache,
    /// The same.
    pub(crate) counted: Arc<CountedCache>,
    log: SharedLog,
    /// How far the store is, by partition.
    drained: Mutex<HashMap<Partition, Position>>,
    pub(crate) deliver: Deliver,
    /// What was said to other nodes that may be lost.
    pub(crate) hinted: Hinted,
    pub(crate) lanes: Arc<PaperLanes>,
    pub(crate) sockets: Arc<AtomicU32>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    tickets: Tickets,
    node: NodeId,
    incarnation: Incarnation,
    _folder: tempfile::TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A user with a sign-in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Person {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(SocketConfig::default()).await
    }

    pub(crate) async fn with(config: SocketConfig) -> Self {
        Self::showing(
            config,
            PresenceConfig { grace: Duration::from_millis(100), ..PresenceConfig::default() },
        )
        .await
    }

    /// Likewise, with presence as chosen.
    pub(crate) async fn showing(config: SocketConfig, presence: PresenceConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let counted: Arc<CountedCache> = Arc::default();
        let cache: SharedCache = counted.clone();
        let log: SharedLog = Arc::new(SqliteLog::open(&folder.path().join("log.db"), 16).await.unwrap());
        let log_id = log.id();
        let (shutdown, tasks, registry) =
            (CancellationToken::new(), TaskTracker::new(), prometheus::Registry::new());
        let revocations = Revocations::load(Arc::clone(&store), &shutdown).await.unwrap();
        tokio::spawn(revocations.clone().run(shutdown.clone()));
        let metrics = SocketMetrics::new(&registry).unwrap();
        let owner = Arc::new(PaperOwner);
        let hinted = Hinted::default();
        let hints = Arc::clone(&hinted);
        let (node, incarnation) = (NodeId::new("node-1").unwrap(), Incarnation::random());
        let relationships = Relationships::new(store.clone());
        tokio::spawn(relationships.clone().run(shutdown.clone()));
        let deliver = Deliver::start(DeliverDeps {
            chats: store.clone(),
            owners: Arc::clone(&owner) as Arc<dyn AskOwner>,
            interest: Interest::detached(),
            revocations,
            metrics: metrics.clone(),
            sessions_per_user: SESSIONS_PER_USER,
            clock: Clock::default(),
            cache: Arc::clone(&cache),
            log: Arc::clone(&log),
            partitions: Partitions { log: log_id, ..Partitions::unowned() },
            sealer: Sealer::new(&[7; 32]).unwrap(),
            presence: PresenceDeps {
                config: presence,
                life: NodeLife { node: node.clone(), incarnation },
                silence: config.silence(),
                seen: store.clone(),
                hint: Arc::new(move |topics, live| hints.lock().push((topics, live.clone()))),
            },
            relationships: relationships.clone(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        });
        let telling = deliver.clone();
        let tell_read: TellRead = Arc::new(move |_, live| telling.live(live));
        let reads = Reads::start(Arc::clone(&store), Clock::default(), tell_read, &tasks, shutdown.clone());
        let tickets = Tickets::new(&[7; 32]);
        let (lanes, sockets) = (Arc::new(PaperLanes::default()), Arc::new(AtomicU32::new(0)));
        let open = Arc::clone(&lanes);
        let router = router(SocketDeps {
            node: node.clone(),
            incarnation,
            tickets: tickets.clone(),
            clock: Clock::default(),
            cache: Arc::clone(&cache),
            commands: Commands::new(
                owner,
                Arc::clone(&store),
                reads,
                CheckAttachments::new(Arc::clone(&store), Clock::default()),
            ),
            lanes: Arc::new(move |_| Box::new(Lane(Arc::clone(&open)))),
            deliver: deliver.clone(),
            metrics,
            sockets: Arc::clone(&sockets),
            config,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(listen::serve(listener, router, ListenLimits::default(), shutdown.clone()));
        Self {
            address,
            store,
            cache,
            counted,
            log,
            drained: Mutex::default(),
            deliver,
            hinted,
            lanes,
            sockets,
            registry,
            shutdown,
            tasks,
            tickets,
            node,
            incarnation,
            _folder: folder,
        }
    }

    /// Registers somebody and signs them in.
    pub(crate) async fn person(&self, name: &str) -> Person {
        let (user, session) = (UserId::random(), SessionId::random());
        let row = User::without_password(user, name.into(), name.into(), Millis::now());
        assert!(self.store.add_user(APP, &row).await.unwrap());
        let expires_at = Millis::now().plus(Duration::from_secs(3_600));
        let sign_in = SignIn { id: session, user, device: None, created_at: Millis::now(), expires_at };
        self.store.add_sign_in(APP, &sign_in).await.unwrap();
        Person { user, session }
    }

    /// Changes of one chat, in the log and in the store; gives where the partition is then.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> (Partition, Position) {
        let partition = partition_of(changes[0].key(), 16);
        if self.log.end(partition).await.unwrap() == 0 {
            let claim = Claim { node: self.node.clone(), incarnation: Incarnation(0), at: Millis(0) };
            self.append(partition, Record::Claim(claim).encode()).await;
        }
        let mut placed = Vec::new();
        for change in changes {
            // The claim stands at 0.
            let n = self.log.end(partition).await.unwrap();
            let change = Change { term: 0, n, ..change };
            self.append(partition, Record::Change(change.clone()).encode()).await;
            placed.push(change);
        }
        (partition, self.store_upto_the_end(partition, placed).await)
    }

    async fn append(&self, partition: Partition, record: Bytes) {
        self.log.append(partition, Bytes::new(), record).await.unwrap().await.unwrap();
    }

    async fn store_upto_the_end(&self, partition: Partition, changes: Vec<Change>) -> Position {
        let offset = self.log.end(partition).await.unwrap();
        let state = TermState { term: Some(0), n: offset.saturating_sub(1) };
        let next = Position { log: self.log.id(), offset, state };
        let expected = self.drained.lock().insert(partition, next);
        let batch = PartitionBatch { partition, expected, next, changes, dead: Vec::new() };
        for outcome in self.store.apply(&[batch]).await.unwrap() {
            outcome.unwrap();
        }
        next
    }

    /// Changes of one chat that the log has no more.
    pub(crate) async fn store(&self, changes: Vec<Change>) {
        let partition = partition_of(changes[0].key(), 16);
        let expected = self.drained.lock().get(&partition).copied();
        let offset = expected.map_or(0, |position| position.offset) + 1_000_000;
        let state = TermState { term: Some(0), n: offset - 1 };
        let next = Position { log: self.log.id(), offset, state };
        self.drained.lock().insert(partition, next);
        let batch = PartitionBatch { partition, expected, next, changes, dead: Vec::new() };
        for outcome in self.store.apply(&[batch]).await.unwrap() {
            outcome.unwrap();
        }
    }

    /// A stored group of these.
    pub(crate) async fn group(&self, members: &[Person]) -> ChatId {
        let chat = ChatId::random();
        let members: Vec<_> = members.iter().map(|person| (person.user, Role::Member)).collect();
        let by = members[0].0;
        let what = What::Created {
            kind: ChatKind::Group,
            name: Some("group".into()),
            description: None,
            members,
            request: None,
        };
        self.write(vec![change(chat, 1, by, what)]).await;
        chat
    }

    pub(crate) fn ticket(&self, person: Person) -> String {
        self.ticket_until(person, Millis::now().plus(Duration::from_secs(3_600)))
    }

    /// A ticket for a token that expires then.
    pub(crate) fn ticket_until(&self, person: Person, token_expires: Millis) -> String {
        let (user, session) = (person.user, person.session);
        let caller = Caller { app: APP, user, session, expires_at: token_expires, signed_by: None };
        let ticket = Ticket {
            caller,
            node: self.node.clone(),
            incarnation: self.incarnation,
            id: Uuid::new_v4().as_u128(),
            expires_at: Millis::now().plus(Tickets::LIFETIME),
        };
        self.tickets.issue(&ticket, Millis::now()).unwrap()
    }

    pub(crate) fn url(&self, ticket: &str) -> String {
        format!("ws://{}/socket?ticket={ticket}", self.address)
    }

    /// Opens a socket, and says nothing yet.
    pub(crate) async fn open(&self, person: Person) -> Client {
        self.open_with(&self.ticket(person), &[]).await.unwrap()
    }

    pub(crate) async fn open_with(
        &self,
        ticket: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, tungstenite::Error> {
        let mut request = self.url(ticket).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let (socket, response) = connect_async(request).await?;
        let protocol = response.headers().get("sec-websocket-protocol").cloned();
        Ok(Client { socket, protocol })
    }

    /// Opens a socket that is ready.
    pub(crate) async fn ready(&self, person: Person) -> Client {
        let mut client = self.open(person).await;
        client.say(json!({"type": "hello", "ref": 0})).await;
        assert_eq!(client.hear().await["type"], "ready");
        client
    }

    /// Waits until it is so.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: impl Fn() -> F) {
        tokio::time::timeout(LONG, async {
            while !what().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it did not become so");
    }

    /// A counter's value.
    pub(crate) fn counted(&self, name: &str, label: Option<&str>) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let counters = family.into_iter().flat_map(|family| family.get_metric());
        counters
            .filter(|metric| {
                label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label))
            })
            .map(|metric| metric.get_counter().get_value() as u64)
            .sum()
    }
}

pub(crate) fn change(chat: ChatId, seq: u64, by: UserId, what: What) -> Change {
    Change { app: APP, chat, term: 0, n: seq, seq, at: Millis::now(), by, what }
}

pub(crate) fn sent(number: u64, body: &str) -> What {
    What::Sent {
        id: MessageId::random(),
        number,
        client_id: Some(ClientId::new(&format!("m{number}")).unwrap()),
        body: body.into(),
        kind: MessageKind::Text,
        reply_to: None,
        attachments: Vec::new(),
        mentions: Vec::new(),
        mention_all: false,
        sent_as: None,
    }
}

pub(crate) fn live(change: Change) -> Live {
    Live::Change(Record::Change(change).encode())
}

fn tells_who_is_there(frame: &Value) -> bool {
    frame["type"].as_str().is_some_and(|kind| kind.starts_with("presence"))
}

/// A WebSocket client.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) protocol: Option<HeaderValue>,
}

impl Client {
    pub(crate) async fn say(&mut self, frame: Value) {
        self.say_text(&frame.to_string()).await;
    }

    pub(crate) async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame that is not about who is connected: those come when they come.
    pub(crate) async fn hear(&mut self) -> Value {
        loop {
            let frame = self.hear_any().await;
            if !tells_who_is_there(&frame) {
                return frame;
            }
        }
    }

    /// The next frame.
    pub(crate) async fn hear_any(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("a text frame was expected: {other:?}"),
            }
        }
    }

    /// Asks and hears.
    pub(crate) async fn ask(&mut self, frame: Value) -> Value {
        self.say(frame).await;
        self.hear().await
    }

    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(LONG, self.socket.next()).await.expect("nothing was heard");
        next.expect("the socket ended without a close").expect("the socket broke")
    }

    /// Reads up to the close: the frames before it but those about who is connected, the code and its word.
    pub(crate) async fn close(&mut self) -> (Vec<Value>, u16, String) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Message::Text(text) => {
                    let frame = serde_json::from_str(&text).unwrap();
                    if !tells_who_is_there(&frame) {
                        frames.push(frame);
                    }
                }
                Message::Close(Some(frame)) => return (frames, frame.code.into(), frame.reason.to_string()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("a close was expected: {other:?}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn closed_with(
        &mut self,
        code: u16,
        word: &'static str,
    ) -> impl Future<Output = Vec<Value>> + '_ {
        let here = std::panic::Location::caller();
        async move {
            let (frames, got, reason) = self.close().await;
            assert_eq!((got, reason.as_str()), (code, word), "asked at {here}");
            frames
        }
    }
}
