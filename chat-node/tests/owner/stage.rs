//! A log, a store, a writer that drains when told to, and nodes that own everything.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chat_node::{
    control::{Clock, Lease},
    owner::{Outlet, OwnerDeps, OwnerLimits, Owners},
    relationships::Relationships,
};
use common::{
    applications::Applications,
    ids::{AppId, ChatId, ChatKey, ClientId, Incarnation, MessageId, NodeId, Number, UserId},
    log::{Log, ReadLimit, sqlite::SqliteLog},
    model::MessageKind,
    partition::partition_of,
    shutdown::Shutdown,
    store::{Chats as _, Drain as _, PartitionBatch, Position, sqlite::Sqlite},
    term::{TermState, Verdict},
    time::Millis,
    wire::{
        owner::{Answer, Ask, Draft, OwnerRequest, Refusal, Sent},
        peer::{Live, Placement, Topic},
        record::{Change, Record, What},
    },
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::engines::{Held, Narrow};

pub(crate) const PARTITIONS: u16 = 4;

/// How long an owner has.
const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) fn key(chat: ChatId) -> ChatKey {
    ChatKey { app: AppId::DEFAULT, chat }
}

pub(crate) fn draft(client_id: &str, body: &str) -> Draft {
    Draft {
        client_id: Some(ClientId::new(client_id).unwrap()),
        body: body.into(),
        kind: MessageKind::Text,
        reply_to: None,
        attachments: vec![],
        mentions: Vec::new(),
        mention_all: false,
        retry: false,
    }
}

pub(crate) fn retried(client_id: &str, body: &str) -> Draft {
    Draft { retry: true, ..draft(client_id, body) }
}

pub(crate) fn sent(answer: &Answer) -> &Sent {
    match answer {
        Answer::Sent(outcomes) => {
            outcomes[0].as_ref().unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
        }
        other => panic!("not sent: {other:?}"),
    }
}

pub(crate) fn refusal(answer: &Answer) -> &Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        Answer::Sent(outcomes) => outcomes[0].as_ref().expect_err("it was accepted"),
        other => panic!("not refused: {other:?}"),
    }
}

/// Asks again while the partition is between two terms.
pub(crate) async fn until_answered<F: Future<Output = Answer>>(ask: impl Fn() -> F) -> Answer {
    for _ in 0..200 {
        match ask().await {
            Answer::NotOwner | Answer::Unknown => tokio::time::sleep(Duration::from_millis(20)).await,
            answer => return answer,
        }
    }
    panic!("nobody owns the partition");
}

pub(crate) struct Stage {
    pub(crate) log: Arc<SqliteLog>,
    pub(crate) store: Arc<Sqlite>,
    /// The log as the nodes see it.
    pub(crate) narrow: Arc<Narrow>,
    /// The store as the nodes see it.
    pub(crate) held: Arc<Held>,
    /// What applications have chosen, as the nodes know it.
    pub(crate) applications: Applications,
    draining: Arc<tokio::sync::Mutex<()>>,
    stop: CancellationToken,
    folder: tempfile::TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(&folder.path().join("log.db"), PARTITIONS).await.unwrap();
        let store = Sqlite::open(&folder.path().join("store.db")).await.unwrap();
        let (log, store) = (Arc::new(log), Arc::new(store));
        Self {
            narrow: Arc::new(Narrow::over(Arc::clone(&log))),
            held: Arc::new(Held::over(Arc::clone(&store))),
            applications: Applications::fixed(Vec::new()),
            log,
            store,
            draining: Arc::default(),
            stop: CancellationToken::new(),
            folder,
        }
    }

    /// A node that is named for every partition, and has taken them over.
    pub(crate) async fn node(&self, name: &str) -> Node {
        self.node_with(name, OwnerLimits::default()).await
    }

    /// The same, with bounds.
    pub(crate) async fn node_with(&self, name: &str, limits: OwnerLimits) -> Node {
        let shutdown = Shutdown::new();
        let outlet = Arc::new(Recorder::default());
        let (lease, name) = (Lease::unlimited(), NodeId::new(name).unwrap());
        let relationships = Relationships::new(self.held.clone());
        tokio::spawn(relationships.clone().run(shutdown.soft()));
        let deps = OwnerDeps {
            node: name.clone(),
            incarnation: Incarnation::random(),
            log: self.narrow.clone(),
            store: self.held.clone(),
            cache: Arc::new(common::cache::memory::MemoryCache::default()),
            applications: self.applications.clone(),
            relationships,
            lease: lease.clone(),
            clock: Clock::default(),
            outlet: Arc::clone(&outlet) as Arc<dyn Outlet>,
            limits,
            #[cfg(feature = "planted")]
            planted: Default::default(),
        };
        let owners = Owners::start(deps, &prometheus::Registry::new(), &shutdown).unwrap();
        let node = Node { name, owners, outlet, lease, shutdown };
        node.take_over();
        node
    }

    pub(crate) async fn direct(&self, node: &Node, one: UserId, other: UserId) -> ChatId {
        let chat = ChatId::direct(AppId::DEFAULT, one, other);
        self.make(node, one, chat, Ask::OpenDirect { peer: other, request: None }).await
    }

    pub(crate) async fn group(&self, node: &Node, owner: UserId, members: Vec<UserId>) -> ChatId {
        let ask = Ask::CreateGroup { name: Some("a group".into()), description: None, members, first: None };
        self.make(node, owner, ChatId::random(), ask).await
    }

    pub(crate) async fn make(&self, node: &Node, by: UserId, chat: ChatId, ask: Ask) -> ChatId {
        let answer = self.draining(until_answered(|| node.ask(by, chat, ask.clone()))).await;
        assert!(matches!(answer, Answer::Created { .. }), "{answer:?}");
        chat
    }

    /// Drains while this goes on.
    pub(crate) async fn draining<T>(&self, going_on: impl Future<Output = T>) -> T {
        let draining = async {
            loop {
                self.drain().await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            done = going_on => done,
            () = draining => unreachable!("it drains for ever"),
        }
    }

    /// A copy of the store, which nobody writes at the moment.
    pub(crate) async fn back_up(&self) -> Arc<Sqlite> {
        let copy = self.folder.path().join("copy.db");
        for part in ["", "-wal"] {
            let of = |name: &str| self.folder.path().join(format!("{name}.db{part}"));
            std::fs::copy(of("store"), of("copy")).unwrap();
        }
        Arc::new(Sqlite::open(&copy).await.unwrap())
    }

    /// The store is what it was when it was backed up.
    pub(crate) fn put_back(&mut self, backup: Arc<Sqlite>) {
        self.held.replace(Arc::clone(&backup));
        self.store = backup;
    }

    /// Drains until the stage is gone.
    pub(crate) fn keep_draining(&self) {
        let (log, store, draining, stop) =
            (self.log.clone(), self.store.clone(), Arc::clone(&self.draining), self.stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                drain(&log, &store, &draining).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    /// Drains what is in the log.
    pub(crate) async fn drain(&self) {
        let (log, store, draining) = (self.log.clone(), self.store.clone(), Arc::clone(&self.draining));
        // Whoever waits for it may stop; what was begun is done before the next.
        tokio::spawn(async move { drain(&log, &store, &draining).await }).await.unwrap();
    }

    /// How many changes the log has.
    pub(crate) async fn logged(&self) -> usize {
        let mut logged = 0;
        for partition in 0..PARTITIONS {
            let mut from = 0;
            loop {
                let entries = self.log.read(partition, from, ReadLimit::default()).await.unwrap();
                let Some(last) = entries.last() else { break };
                from = last.offset + 1;
                let changed = entries
                    .iter()
                    .filter(|entry| matches!(Record::decode(&entry.payload), Ok(Record::Change(_))));
                logged += changed.count();
            }
        }
        logged
    }

    /// Waits until the log has this many changes.
    pub(crate) async fn until_logged(&self, changes: usize) {
        while self.logged().await < changes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What every reader of the log sees of a chat.
    pub(crate) async fn valid_messages(&self, chat: ChatId) -> Vec<(Number, MessageId)> {
        let partition = partition_of(key(chat), PARTITIONS);
        let mut state = TermState::default();
        let mut messages = Vec::new();
        let mut from = 0;
        loop {
            let entries = self.log.read(partition, from, ReadLimit::default()).await.unwrap();
            let Some(last) = entries.last() else { return messages };
            from = last.offset + 1;
            for entry in &entries {
                let record = Record::decode(&entry.payload).unwrap();
                let valid = state.advance(record.header(), entry.offset) == Verdict::Valid;
                if let Record::Change(Change { chat: of, what: What::Sent { id, number, .. }, .. }) = record
                    && valid
                    && of == chat
                {
                    messages.push((number, id));
                }
            }
        }
    }

    pub(crate) async fn stored_messages(&self, chat: ChatId) -> Vec<(Number, MessageId)> {
        self.store.message_ids(key(chat), 0, 10_000).await.unwrap()
    }

    /// A record of a term that never was.
    pub(crate) async fn append_void(&self, chat: ChatId) {
        let change = Change {
            app: AppId::DEFAULT,
            chat,
            term: u64::MAX,
            n: 1,
            seq: 1,
            at: Millis(0),
            by: UserId::random(),
            what: What::Deleted,
        };
        let partition = partition_of(key(chat), PARTITIONS);
        let receipt =
            self.log.append(partition, Bytes::new(), Record::Change(change).encode()).await.unwrap();
        receipt.await.unwrap();
    }
}

async fn drain(log: &SqliteLog, store: &Sqlite, draining: &tokio::sync::Mutex<()>) {
    let _one_at_a_time = draining.lock().await;
    let positions = store.positions().await.unwrap();
    for partition in 0..PARTITIONS {
        let expected =
            positions.iter().find_map(|(number, position)| (*number == partition).then_some(*position));
        let (mut from, mut state) =
            expected.map_or((0, TermState::default()), |position| (position.offset, position.state));
        let mut changes = Vec::new();
        let begin = from;
        loop {
            let entries = log.read(partition, from, ReadLimit::default()).await.unwrap();
            let Some(last) = entries.last() else { break };
            from = last.offset + 1;
            for entry in &entries {
                let record = Record::decode(&entry.payload).unwrap();
                let verdict = state.advance(record.header(), entry.offset);
                if let (Record::Change(change), Verdict::Valid) = (record, verdict) {
                    changes.push(change);
                }
            }
        }
        if from > begin {
            let next = Position { log: log.id(), offset: from, state };
            let batch = PartitionBatch { partition, expected, next, changes, dead: vec![] };
            for outcome in store.apply(&[batch]).await.unwrap() {
                outcome.unwrap();
            }
        }
    }
}

/// What was published, in order.
#[derive(Default)]
pub(crate) struct Recorder {
    published: Mutex<Vec<(Vec<Topic>, Live)>>,
    more: tokio::sync::Notify,
}

impl Outlet for Recorder {
    fn publish(&self, topics: Vec<Topic>, live: Live) {
        self.published.lock().push((topics, live));
        self.more.notify_waiters();
    }
}

impl Recorder {
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&Live) -> bool) -> Live {
        loop {
            let more = self.more.notified();
            if let Some((_, live)) = self.published.lock().iter().find(|(_, live)| wanted(live)) {
                return live.clone();
            }
            more.await;
        }
    }

    /// Everything so far, and for whom.
    pub(crate) fn published(&self) -> Vec<(Vec<Topic>, Live)> {
        self.published.lock().clone()
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        let published = self.published.lock();
        let changes = published.iter().filter_map(|(_, live)| match live {
            Live::Change(bytes) => Some(bytes),
            _ => None,
        });
        changes
            .map(|bytes| match Record::decode(bytes).unwrap() {
                Record::Change(change) => change,
                Record::Claim(_) => panic!("a claim was published"),
            })
            .collect()
    }
}

/// A node's owners. Dropped, it is dead: nothing of it goes on.
pub(crate) struct Node {
    name: NodeId,
    owners: Owners,
    pub(crate) outlet: Arc<Recorder>,
    lease: Lease,
    shutdown: Shutdown,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.stop_now();
    }
}

impl Node {
    /// Asks until the partition has an owner here.
    pub(crate) async fn ask(&self, by: UserId, chat: ChatId, ask: Ask) -> Answer {
        let request = OwnerRequest { app: AppId::DEFAULT, chat, by, retry: false, ask };
        let partition = partition_of(key(chat), PARTITIONS);
        self.owners.handle(partition, request, Millis::now().plus(DEADLINE), DEADLINE).await
    }

    /// Asks with a deadline that is over.
    pub(crate) async fn ask_late(&self, by: UserId, chat: ChatId, ask: Ask) -> Answer {
        let request = OwnerRequest { app: AppId::DEFAULT, chat, by, retry: false, ask };
        let partition = partition_of(key(chat), PARTITIONS);
        self.owners.handle(partition, request, Millis(0), DEADLINE).await
    }

    /// A placement names it for everything.
    pub(crate) fn take_over(&self) {
        let owners = vec![Some(self.name.clone()); usize::from(PARTITIONS)];
        self.owners.place(&Placement { epoch: 1, owners }, &self.name);
    }

    /// Waits until the owner of this chat has seen what is drained, the chat's changes with it.
    pub(crate) async fn until_seen_drained(&self, stage: &Stage, chat: ChatId) {
        let partition = partition_of(key(chat), PARTITIONS);
        let positions = stage.store.positions().await.unwrap();
        let drained = positions.iter().find(|(number, _)| *number == partition).unwrap().1.offset;
        let seen = || {
            self.owners.places().iter().any(|(no, place)| *no == partition && place.told.offset >= drained)
        };
        while !seen() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A placement names it for nothing any more. Whether it has given everything up.
    pub(crate) async fn hand_over(&self) -> bool {
        let nobody = Placement { epoch: 2, owners: vec![None; usize::from(PARTITIONS)] };
        self.owners.place(&nobody, &NodeId::new("nobody").unwrap());
        self.owners.handed_over(DEADLINE).await
    }

    pub(crate) fn lose_lease(&self) {
        self.lease.end();
    }
}
