//! People, chats, webhooks that listen, and a clock that the test moves on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use common::{
    address::Networks,
    applications::AppSettings,
    cache::{LiveSession, NodeLife},
    ids::{
        AppId, ChatId, ChatKey, EndpointId, Incarnation, NodeId, Number, Partition, SessionId, SocketId,
        UserId, UserKey,
    },
    model::{ChatKind, PageRequest, Role, limits},
    notifications::{Delivery, Endpoint, Target},
    store::{
        Attempt, Candidate, Except, Held, Leased, Looked, Notify, Queued, Receivers, Result, Sending, User,
        Waiting,
    },
    time::Millis,
    wire::record::What,
};
use storage_writer::{Clock, Engines, NotifyConfig, WriterConfig};
use tokio::time::Instant;
use uuid::Uuid;

pub(super) use super::hook::Hook;
use super::silent::Silent;
use crate::kit::{Bench, Owner, Writer, chat_in, small, until};

pub(super) const APP: AppId = AppId::DEFAULT;
pub(super) const MINUTE: i64 = 60_000;

/// How long members are away before they are notified.
pub(super) const AFTER: i64 = 5 * MINUTE;

/// A noon, so that it is quiet nowhere by chance.
const NOON: i64 = 1_795_262_400_000;

/// Chats whose owner lives in the test: all in one partition.
pub(super) struct Stage {
    pub(super) bench: Bench,
    owner: Owner,
    moved: Arc<AtomicI64>,
    began: Instant,
}

impl Stage {
    pub(super) async fn new() -> Self {
        let bench = Bench::new(1).await;
        let owner = Owner::claim(&bench.log, 0, None).await;
        let (moved, began) = (Arc::new(AtomicI64::new(NOON)), Instant::now());
        Self { bench, owner, moved, began }
    }

    pub(super) fn now(&self) -> Millis {
        Millis(self.moved.load(Ordering::SeqCst)).plus(self.began.elapsed())
    }

    fn clock(&self) -> Clock {
        let (moved, began) = (Arc::clone(&self.moved), self.began);
        Clock::new(move || Millis(moved.load(Ordering::SeqCst)).plus(began.elapsed()))
    }

    pub(super) fn pass(&self, millis: i64) {
        self.moved.fetch_add(millis, Ordering::SeqCst);
    }

    pub(super) async fn person(&self, name: &str, timezone: Option<&str>) -> UserId {
        let user = User {
            id: UserId::random(),
            username: name.to_owned(),
            name: name.to_owned(),
            avatar: None,
            mobile_number: None,
            timezone: timezone.map(str::to_owned),
            created_at: Millis(0),
            password_hash: "-".to_owned(),
        };
        assert!(self.bench.store.add_user(APP, &user).await.unwrap());
        user.id
    }

    pub(super) async fn group(&mut self, members: &[UserId]) -> ChatId {
        let chat = chat_in(0, 1);
        let members: Vec<_> = members.iter().map(|user| (*user, Role::Member)).collect();
        let mut records = members.chunks(limits::MEMBERS_PER_RECORD).map(<[_]>::to_vec);
        let (kind, name) = (ChatKind::Group, Some("Course".to_owned()));
        let members = records.next().unwrap();
        let what = What::Created { kind, name, description: None, members, request: None };
        self.append(chat, self.owner.user, what).await;
        for members in records {
            self.append(chat, self.owner.user, What::Members { members }).await;
        }
        chat
    }

    /// Ana and Ben in a group of their own.
    pub(super) async fn pair(&mut self) -> (ChatId, UserId, UserId) {
        let (ana, ben) = (self.person("ana", None).await, self.person("ben", None).await);
        (self.group(&[ana, ben]).await, ana, ben)
    }

    /// Writes something, and waits until the store has it.
    pub(super) async fn say(&mut self, chat: ChatId, by: UserId, body: &str) -> Number {
        self.say_that(chat, by, body, |_| {}).await
    }

    pub(super) async fn say_that(
        &mut self,
        chat: ChatId,
        by: UserId,
        body: &str,
        more: impl FnOnce(&mut Sent),
    ) -> Number {
        let mut sent = Sent { number: self.owner.next_number(chat), ..Sent::default() };
        more(&mut sent);
        let what = What::Sent {
            id: common::ids::MessageId::random(),
            number: sent.number,
            client_id: None,
            body: body.to_owned(),
            kind: Default::default(),
            reply_to: sent.reply_to,
            attachments: Vec::new(),
            mentions: sent.mentions,
            mention_all: sent.mention_all,
            sent_as: None,
        };
        self.append(chat, by, what).await;
        sent.number
    }

    pub(super) async fn append(&mut self, chat: ChatId, by: UserId, what: What) {
        let at = self.now();
        let mut change = self.owner.change(chat, what);
        (change.at, change.by) = (at, by);
        self.owner.append(change).await;
        self.owner.settled().await;
    }

    pub(super) async fn webhook(&self, url: &str) -> EndpointId {
        self.endpoint(Target::Webhook { url: url.to_owned(), secret: vec![7; 32] }).await
    }

    pub(super) async fn endpoint(&self, target: Target) -> EndpointId {
        let endpoint =
            Endpoint { id: EndpointId::random(), app: APP, target, created_at: self.now(), enabled: true };
        self.bench.store.add_endpoint(&endpoint).await.unwrap();
        endpoint.id
    }

    /// Everything that was ever to be sent there, oldest first.
    pub(super) async fn deliveries(&self, endpoint: EndpointId) -> Vec<Delivery> {
        let page = PageRequest { page: 1, per_page: 100 };
        let mut all = self.bench.store.deliveries(APP, endpoint, page).await.unwrap().results;
        all.reverse();
        all
    }

    /// A socket of theirs on some node.
    pub(super) async fn connect(&self, user: UserId) -> SocketId {
        let session = LiveSession {
            socket: SocketId::random(),
            session: SessionId::random(),
            device: None,
            life: NodeLife { node: NodeId::new("n").unwrap(), incarnation: Incarnation(1) },
            since: self.now(),
        };
        let socket = session.socket;
        self.bench.cache.session_opened(UserKey { app: APP, user }, session).await.unwrap();
        socket
    }

    /// They go, as a node notes it.
    pub(super) async fn disconnect(&self, user: UserId, socket: SocketId) {
        let user = UserKey { app: APP, user };
        self.bench.store.note_seen(&[(user, self.now())]).await.unwrap();
        self.bench.cache.session_closed(user, socket).await.unwrap();
    }

    pub(super) fn engines(&self) -> Engines {
        Engines { clock: self.clock(), ..self.bench.engines(self.bench.store.clone()) }
    }

    pub(super) fn writer(&self) -> Writer {
        self.writer_with(self.engines())
    }

    pub(super) fn writer_with(&self, engines: Engines) -> Writer {
        Writer::start(engines, config(&["127.0.0.1"]))
    }

    /// One that dies at this step, if at all: before it has done anything, or after.
    pub(super) fn writer_that_dies(&self, step: Step, after: Option<bool>) -> (Writer, Option<Arc<Deadly>>) {
        let Some(after) = after else { return (self.writer(), None) };
        let deadly = Deadly::new(self.bench.store.clone(), step, after);
        (self.writer_with(Engines { notify: deadly.clone(), ..self.engines() }), Some(deadly))
    }

    pub(super) fn writer_with_silent_cache(&self) -> (Writer, Arc<Silent>) {
        let silent = Arc::new(Silent::new(self.bench.cache.clone()));
        (self.writer_with(Engines { cache: silent.clone(), ..self.engines() }), silent)
    }

    /// From here on nobody need be away for longer than no time.
    pub(super) async fn at_once(&self) {
        let mut settings = AppSettings::default();
        settings.notifications.after_seconds = 0;
        let seen = self.bench.store.application_changes().await.unwrap();
        assert!(self.bench.store.update_application(APP, "default", &settings, seen).await.unwrap());
    }

    /// Waits until the store has everything, and lets so much time pass that all of it is due.
    pub(super) async fn due(&self) {
        self.bench.drained().await;
        self.pass(AFTER + 1);
    }

    /// Waits until nobody waits to be told in any chat (those who are held apart), and all that was to be sent is taken.
    pub(super) async fn quiet(&self) {
        until("every round is over and every queue empty", async || {
            let waiting = self.bench.store.waiting(APP, &[0], Millis(i64::MAX), 10).await.unwrap();
            waiting.is_empty() && self.pending().await == 0
        })
        .await;
    }

    async fn pending(&self) -> usize {
        let mut pending = 0;
        for endpoint in self.bench.store.endpoints(APP, None).await.unwrap() {
            pending += self.bench.store.queued(APP, endpoint.id, 1_000).await.unwrap().len();
        }
        pending
    }
}

pub(super) fn config(allow: &[&str]) -> WriterConfig {
    let notify = NotifyConfig {
        allow: Networks::parse(allow).unwrap(),
        every: Duration::from_millis(5),
        settle: Duration::ZERO,
        gather: Duration::ZERO,
        retry_first: Duration::from_millis(10),
        retry_longest: Duration::from_millis(40),
        ..NotifyConfig::default()
    };
    WriterConfig { notify, ..small() }
}

/// What a message may have besides its text.
#[derive(Default)]
pub(super) struct Sent {
    number: Number,
    pub(super) reply_to: Option<Number>,
    pub(super) mentions: Vec<UserId>,
    pub(super) mention_all: bool,
}

/// Where a store may have a writer die that notifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Candidates,
    Looked,
    Told,
    Leased,
    Queued,
    Attempted,
    Split,
    Released,
}

impl Step {
    /// Those that every writer comes to.
    pub(super) const ALL: [Self; 7] = [
        Self::Candidates,
        Self::Looked,
        Self::Told,
        Self::Leased,
        Self::Queued,
        Self::Attempted,
        Self::Released,
    ];
}

/// A store in which one of the steps never ends: before it has done anything, or after.
pub(super) struct Deadly {
    store: Arc<dyn Notify>,
    step: Step,
    after: bool,
    pub(super) reached: tokio::sync::Notify,
}

impl Deadly {
    pub(super) fn new(store: Arc<dyn Notify>, step: Step, after: bool) -> Arc<Self> {
        Arc::new(Self { store, step, after, reached: tokio::sync::Notify::new() })
    }

    async fn at<T>(&self, step: Step, call: impl Future<Output = T>) -> T {
        if step != self.step {
            return call.await;
        }
        if self.after {
            call.await;
        }
        self.reached.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl Notify for Deadly {
    async fn notifying(&self) -> Result<Vec<(AppId, Duration)>> {
        self.store.notifying().await
    }

    async fn waiting(
        &self,
        app: AppId,
        partitions: &[Partition],
        before: Millis,
        limit: u32,
    ) -> Result<Vec<Waiting>> {
        self.store.waiting(app, partitions, before, limit).await
    }

    async fn candidates(&self, chat: ChatKey, after: Option<UserId>, limit: u32) -> Result<Vec<Candidate>> {
        self.at(Step::Candidates, self.store.candidates(chat, after, limit)).await
    }

    async fn candidates_among(&self, chat: ChatKey, users: &[UserId]) -> Result<Vec<Candidate>> {
        self.store.candidates_among(chat, users).await
    }

    async fn looked(&self, looked: &Looked) -> Result<bool> {
        self.at(Step::Looked, self.store.looked(looked)).await
    }

    async fn held(&self, partitions: &[Partition], now: Millis, limit: u32) -> Result<Vec<Held>> {
        self.store.held(partitions, now, limit).await
    }

    async fn told(
        &self,
        held: &Held,
        again: Option<Millis>,
        send: Vec<Sending>,
        now: Millis,
    ) -> Result<bool> {
        self.at(Step::Told, self.store.told(held, again, send, now)).await
    }

    async fn look_again_at(&self, app: AppId, users: &[UserId]) -> Result<()> {
        self.store.look_again_at(app, users).await
    }

    async fn lease_endpoints(
        &self,
        receivers: Receivers,
        except: Except<'_>,
        now: Millis,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Leased>> {
        let leased = self.store.lease_endpoints(receivers, except, now, lease, limit).await?;
        if leased.is_empty() {
            return Ok(leased);
        }
        self.at(Step::Leased, async { Ok(leased) }).await
    }

    async fn oldest_pending(&self) -> Result<Option<Millis>> {
        self.store.oldest_pending().await
    }

    async fn queued(&self, app: AppId, endpoint: EndpointId, limit: u32) -> Result<Vec<Queued>> {
        self.at(Step::Queued, self.store.queued(app, endpoint, limit)).await
    }

    async fn attempted(
        &self,
        leased: &Leased,
        delivery: Uuid,
        attempt: &Attempt,
        now: Millis,
    ) -> Result<bool> {
        let step = if matches!(attempt, Attempt::Split(_)) { Step::Split } else { Step::Attempted };
        self.at(step, self.store.attempted(leased, delivery, attempt, now)).await
    }

    async fn release_endpoint(&self, leased: &Leased, next: Millis) -> Result<()> {
        self.at(Step::Released, self.store.release_endpoint(leased, next)).await
    }

    async fn end_endpoint(&self, leased: &Leased) -> Result<()> {
        self.store.end_endpoint(leased).await
    }

    async fn prune_deliveries(&self, waiting: Millis, ended: Millis, most: u32) -> Result<u64> {
        self.store.prune_deliveries(waiting, ended, most).await
    }
}
