//! A real log and a real store in a folder, owners that append to the log, and writers that can be killed.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use common::{
    cache::{
        SharedCache,
        memory::{Bounds, MemoryCache},
    },
    ids::{
        AppId, ChatId, ChatKey, ClientId, Incarnation, MessageId, NodeId, Number, Offset, Partition, UserId,
    },
    log::{Receipt, SharedLog, sqlite::SqliteLog},
    model::{ChatKind, MessageKind, Role},
    partition::partition_of,
    store::{
        Drain, PartitionBatch, Position, Refused, Result as StoreResult, SharedStore, StoreError,
        sqlite::Sqlite,
    },
    time::Millis,
    wire::record::{Change, Claim, Record, What},
};
use prometheus::Registry;
use storage_writer::{Clock, Engines, RunError, WriterConfig, run};
use tempfile::TempDir;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long anything that should happen may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) log: SharedLog,
    pub(crate) store: SharedStore,
    pub(crate) cache: SharedCache,
}

impl Bench {
    pub(crate) async fn new(partitions: Partition) -> Self {
        let folder = TempDir::new().unwrap();
        let log = SqliteLog::open(&folder.path().join("log.db"), partitions).await.unwrap();
        Self::on(folder, Arc::new(log)).await
    }

    /// The store in this folder, beside this log.
    pub(crate) async fn on(folder: TempDir, log: SharedLog) -> Self {
        let store = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let cache = Arc::new(MemoryCache::new(Bounds::default()));
        Self { folder, log, store, cache }
    }

    /// A writer in the group that all are in.
    pub(crate) fn writer(&self) -> Writer {
        Writer::start(self.engines(self.store.clone()), small())
    }

    pub(crate) fn engines(&self, store: Arc<dyn Drain>) -> Engines {
        Engines {
            log: self.log.clone(),
            store,
            search: self.store.clone(),
            retention: self.store.clone(),
            notify: self.store.clone(),
            reads: self.store.clone(),
            cache: self.cache.clone(),
            clock: Clock::default(),
        }
    }

    pub(crate) async fn offset(&self, partition: Partition) -> Offset {
        let positions: HashMap<_, _> = self.store.positions().await.unwrap().into_iter().collect();
        positions.get(&partition).map_or(0, |position| position.offset)
    }

    /// Waits until the store has the whole log.
    pub(crate) async fn drained(&self) {
        for partition in 0..self.log.partitions() {
            let end = self.log.end(partition).await.unwrap();
            until(&format!("partition {partition} is drained to {end}"), async || {
                self.offset(partition).await >= end
            })
            .await;
        }
    }

    /// The ids of a chat's messages, which are numbered from 1 without a hole.
    pub(crate) async fn messages(&self, chat: ChatId) -> Vec<MessageId> {
        let rows = self.store.message_ids(key(chat), 0, 1_000_000).await.unwrap();
        for (place, (number, _)) in (1..).zip(&rows) {
            assert_eq!(*number, place as Number, "chat {chat}");
        }
        rows.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<(i64, i64, Vec<u8>)> {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.folder.path().join("store.db"));
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        sqlx::query_as("SELECT partition, offset, payload FROM dead_letters ORDER BY partition, offset")
            .fetch_all(&pool)
            .await
            .unwrap()
    }
}

/// Small transactions, so that there are many to be killed between.
pub(crate) fn small() -> WriterConfig {
    WriterConfig { batch_records: 50, linger: Duration::from_millis(1), ..WriterConfig::default() }
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("it should have happened: {what}"));
}

pub(crate) fn key(chat: ChatId) -> ChatKey {
    ChatKey { app: AppId::DEFAULT, chat }
}

/// A chat of this partition.
pub(crate) fn chat_in(partition: Partition, partitions: Partition) -> ChatId {
    loop {
        let chat = ChatId::random();
        if partition_of(key(chat), partitions) == partition {
            return chat;
        }
    }
}

pub(crate) struct Writer {
    pub(crate) registry: Registry,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Writer {
    pub(crate) fn start(engines: Engines, config: WriterConfig) -> Self {
        let (registry, shutdown) = (Registry::new(), CancellationToken::new());
        let task = tokio::spawn(run(config, engines, registry.clone(), shutdown.clone()));
        Self { registry, shutdown, task }
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(SOON, self.task).await.expect("it stops when asked").unwrap().unwrap();
    }

    /// Waits until it has looked once from beginning to end at `what` of notifications ("chats", "webhooks"): what it had to do there is begun.
    pub(crate) async fn looks_at(&self, what: &str) {
        let looks = || self.metric("writer_notify_looks_total", what);
        // The one that goes on may have begun before.
        let enough = looks() + 2.0;
        until(&format!("it looks at {what}"), async || looks() >= enough).await;
    }

    /// Waits until it has counted so many: it counts what it has done, a moment after that is there.
    pub(crate) async fn counts(&self, name: &str, label: &str, count: f64) {
        until(&format!("{name} {label} is {count}"), async || self.metric(name, label) == count).await;
    }

    /// The value of a metric with this label, 0 when there is none.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let metrics =
            families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        let labelled = metrics
            .filter(|metric| label.is_empty() || metric.get_label().iter().any(|l| l.value() == label));
        labelled.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }
}

/// An owner of a partition: what it appends is valid as long as nobody else claims.
pub(crate) struct Owner {
    log: SharedLog,
    partition: Partition,
    term: Offset,
    n: u64,
    heads: BTreeMap<ChatId, (u64, Number)>,
    pub(crate) user: UserId,
    pub(crate) receipts: Vec<Receipt>,
}

impl Owner {
    /// Claims the partition, and goes on where the last one was.
    pub(crate) async fn claim(log: &SharedLog, partition: Partition, before: Option<&Self>) -> Self {
        let claim = Claim { node: NodeId::new("n").unwrap(), incarnation: Incarnation(1), at: Millis(1) };
        let receipt = log.append(partition, Bytes::new(), Record::Claim(claim).encode()).await.unwrap();
        Self {
            log: log.clone(),
            partition,
            term: receipt.await.unwrap(),
            n: 0,
            heads: before.map(|owner| owner.heads.clone()).unwrap_or_default(),
            user: before.map_or_else(UserId::random, |owner| owner.user),
            receipts: Vec::new(),
        }
    }

    pub(crate) fn change(&mut self, chat: ChatId, what: What) -> Change {
        self.n += 1;
        let head = self.heads.entry(chat).or_default();
        head.0 += 1;
        if let What::Sent { number, .. } = &what {
            head.1 = *number;
        }
        Change {
            app: AppId::DEFAULT,
            chat,
            term: self.term,
            n: self.n,
            seq: head.0,
            at: Millis(1_000 + self.n as i64),
            by: self.user,
            what,
        }
    }

    pub(crate) async fn append(&mut self, change: Change) {
        let key = Bytes::copy_from_slice(&change.key().to_bytes());
        self.append_bytes(key, Record::Change(change).encode()).await;
    }

    /// Bytes of any kind. An owner that lives goes on only behind records of its own.
    pub(crate) async fn append_bytes(&mut self, key: Bytes, payload: Bytes) {
        let receipt = self.log.append(self.partition, key, payload).await.unwrap();
        self.receipts.push(receipt);
    }

    pub(crate) async fn create(&mut self, chat: ChatId) {
        let members = vec![(self.user, Role::Owner)];
        let what =
            What::Created { kind: ChatKind::Group, name: None, description: None, members, request: None };
        let change = self.change(chat, what);
        self.append(change).await;
    }

    /// The number of the chat's next message.
    pub(crate) fn next_number(&self, chat: ChatId) -> Number {
        self.heads.get(&chat).map_or(0, |head| head.1) + 1
    }

    pub(crate) async fn send(&mut self, chat: ChatId) -> MessageId {
        let (id, number) = (MessageId::random(), self.next_number(chat));
        let what = What::Sent {
            id,
            number,
            client_id: Some(ClientId::new(&id.to_string()).unwrap()),
            body: format!("message {number}"),
            kind: MessageKind::Text,
            reply_to: None,
            attachments: Vec::new(),
            mentions: Vec::new(),
            mention_all: false,
            sent_as: None,
        };
        let change = self.change(chat, what);
        self.append(change).await;
        id
    }

    /// Takes these numbers for the newest of their chats: every change but the first is a message.
    pub(crate) fn know(&mut self, newest: BTreeMap<ChatId, Number>) {
        let head = |head: &mut (u64, Number), number: Number| *head = (number + 1, number);
        for (chat, heads) in &mut self.heads {
            head(heads, newest.get(chat).copied().unwrap_or(0));
        }
    }

    /// Makes a record that never arrives.
    pub(crate) fn lose(&mut self, chat: ChatId) {
        let _ = self.change(chat, What::Deleted);
    }

    /// Waits until the log has everything.
    pub(crate) async fn settled(&mut self) {
        for receipt in self.receipts.drain(..) {
            receipt.await.unwrap();
        }
    }
}

/// Where a store may fail a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    BeforePositions,
    BeforeCommit,
    AfterCommit,
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The call never ends: the writer is as good as dead, and the test kills it.
    Hangs,
    /// The call fails.
    Fails,
}

/// A store that lets `calls` of its moments pass, and then has a mishap `times` times.
pub(crate) struct Unlucky {
    pub(crate) store: SharedStore,
    pub(crate) moment: Moment,
    pub(crate) mishap: Mishap,
    pub(crate) calls: u64,
    pub(crate) times: u64,
    seen: AtomicU64,
    pub(crate) happened: Notify,
}

impl Unlucky {
    pub(crate) fn new(
        store: SharedStore,
        moment: Moment,
        mishap: Mishap,
        calls: u64,
        times: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            moment,
            mishap,
            calls,
            times,
            seen: AtomicU64::new(0),
            happened: Notify::new(),
        })
    }

    async fn at<T>(&self, moment: Moment, go_on: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        if moment == self.moment {
            let seen = self.seen.fetch_add(1, Ordering::SeqCst);
            if (self.calls..self.calls + self.times).contains(&seen) {
                self.happened.notify_one();
                match self.mishap {
                    Mishap::Hangs => std::future::pending::<()>().await,
                    Mishap::Fails => return Err(StoreError::Unavailable("a mishap".to_owned())),
                }
            }
        }
        go_on.await
    }
}

#[async_trait]
impl Drain for Unlucky {
    async fn positions(&self) -> StoreResult<Vec<(Partition, Position)>> {
        self.at(Moment::BeforePositions, self.store.positions()).await
    }

    async fn apply(&self, batches: &[PartitionBatch]) -> StoreResult<Vec<Result<(), Refused>>> {
        let outcomes = self.at(Moment::BeforeCommit, self.store.apply(batches)).await?;
        self.at(Moment::AfterCommit, async { Ok(outcomes) }).await
    }
}
