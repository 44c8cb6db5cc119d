//! Delivery against a small world: one chat's log, an owner that remembers some of it, a store that lags, and a network that loses,
//! repeats, delays and reorders. Time is the runtime's own and stands still until everybody waits.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use common::{
    ids::{
        AppId, ChatId, ChatKey, MessageId, NodeId, Number, Offset, Partition, Seq, SessionId, SocketId,
        UserId, UserKey,
    },
    model::{ChatKind, ChatView, ChatsPage, Head, MemberView, MessageKind, Page, PageRequest, Role},
    partition::partition_of,
    revocations::Revocations,
    store::{self, Chats, Membership, Range, SharedStore, Slice, StoreError, sqlite::Sqlite},
    term::TermState,
    time::Millis,
    wire::{
        codes::ErrorCode,
        marks::{Mark, Place, Since, Told},
        owner::{Answer, Ask, OwnerRequest, Refusal},
        peer::{Live, Placement},
        record::{Change, Record, What},
    },
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{Deliver, DeliverDeps};
use crate::{
    ask::AskOwner,
    control::Interest,
    hub::{Admitted, Handle},
    marks::Partitions,
    outbox::Outbox,
    socket::SocketMetrics,
};

const APP: AppId = AppId::DEFAULT;
const CHAT: ChatKey = ChatKey { app: APP, chat: ChatId(Uuid::from_u128(0xc4a7)) };
const USERS: [UserId; 3] =
    [UserId(Uuid::from_u128(0xa)), UserId(Uuid::from_u128(0xb)), UserId(Uuid::from_u128(0xc))];
const ANA: UserId = USERS[0];
const BEN: UserId = USERS[1];

/// What is true, and how much of it who knows.
#[derive(Debug, Default)]
struct Truth {
    changes: Vec<Change>,
    /// Changes that the log has confirmed.
    confirmed: usize,
    /// Changes that the store has.
    drained: usize,
    /// Changes that the owner does not remember.
    forgotten: usize,
    /// Answers that fail before one succeeds.
    failing: usize,
    /// Says how long answers take.
    dice: u64,
    /// An announcement was lost: who came in and went before the loss was noticed hears of neither.
    unannounced: bool,
}

#[derive(Debug, Default)]
struct World(Mutex<Truth>);

impl Truth {
    fn members(&self, after: usize) -> HashSet<UserId> {
        let mut members = HashSet::new();
        for change in &self.changes[..after] {
            match &change.what {
                What::Created { members: first, .. } => members.extend(first.iter().map(|(user, _)| *user)),
                What::Joined { user, .. } => drop(members.insert(*user)),
                What::Left { user, .. } => drop(members.remove(user)),
                What::Deleted => members.clear(),
                _ => {}
            }
        }
        members
    }

    fn record(&self, at: usize) -> Bytes {
        Record::Change(self.changes[at].clone()).encode()
    }

    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice >> 33
    }

    /// The first change stands behind the claim, at 1.
    fn place(&self) -> Place {
        let told = Told { offset: self.drained as u64 + 1, state: TermState::default() };
        Place { term: 0, to: self.confirmed as u64 + 1, told }
    }

    /// What is told to users when the store has the changes from `from` on.
    fn announcements(&self, from: usize) -> Vec<Live> {
        let (app, chat) = (APP, CHAT.chat);
        self.changes[from..self.drained]
            .iter()
            .filter_map(|change| match &change.what {
                What::Created { members, .. } => {
                    let users = members.iter().map(|(user, _)| *user).collect();
                    Some(Live::Added { app, chat, seq: change.seq, users })
                }
                What::Joined { user, .. } => {
                    Some(Live::Added { app, chat, seq: change.seq, users: vec![*user] })
                }
                What::Left { user, .. } => {
                    Some(Live::Removed { app, chat, seq: change.seq, users: vec![*user] })
                }
                _ => None,
            })
            .collect()
    }
}

impl World {
    async fn pause(&self) {
        let wait = self.0.lock().roll() % 6;
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
}

impl AskOwner for World {
    fn ask(&self, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            self.pause().await;
            let answer = {
                let mut truth = self.0.lock();
                let Ask::Changes { after } = request.ask else {
                    panic!("{:?} was not expected", request.ask)
                };
                let (after, end) = (after as usize, truth.confirmed);
                if truth.failing > 0 {
                    truth.failing -= 1;
                    Answer::Refused(Refusal::new(ErrorCode::RetryLater, "away"))
                } else if after < truth.forgotten {
                    let head = Head { number: 0, seq: end as Seq };
                    Answer::Changes { changes: Vec::new(), head, complete: after == end }
                } else {
                    // As if long answers were cut.
                    let some = end.min(after + 4);
                    let changes = (after..some).map(|at| truth.record(at)).collect();
                    Answer::Changes {
                        changes,
                        head: Head { number: 0, seq: end as Seq },
                        complete: some == end,
                    }
                }
            };
            self.pause().await;
            answer
        })
    }

    fn ask_partition(&self, _: Partition, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            self.pause().await;
            let truth = self.0.lock();
            let Ask::Since { from } = request.ask else { panic!("{:?} was not expected", request.ask) };
            let first = from.map_or(truth.drained, |told| told.offset as usize - 1);
            let came_or_went = |live: Live| match live {
                Live::Added { users, .. } | Live::Removed { users, .. } => users,
                _ => Vec::new(),
            };
            let users = truth.announcements(first).into_iter().flat_map(came_or_went);
            let chats =
                if first < truth.confirmed { vec![(CHAT, truth.confirmed as Seq)] } else { Vec::new() };
            Answer::Since(Since {
                place: truth.place(),
                chats,
                users: users.map(|user| UserKey { app: APP, user }).collect(),
                complete: true,
            })
        })
    }
}

fn not_here<T>() -> store::Result<T> {
    Err(StoreError::Corrupt("not in this world".into()))
}

#[async_trait]
impl Chats for World {
    async fn memberships(&self, _: AppId, user: UserId) -> store::Result<Vec<Membership>> {
        self.pause().await;
        let found = {
            let truth = self.0.lock();
            let head = Head { number: 0, seq: truth.drained as Seq };
            let is_in = truth.members(truth.drained).contains(&user);
            is_in.then_some(Membership {
                chat: CHAT.chat,
                head,
                head_upto: Offset::MAX,
                joined_seq: 1,
                joined_upto: 0,
            })
        };
        self.pause().await;
        Ok(found.into_iter().collect())
    }

    async fn chat_view(&self, _: ChatKey, user: UserId) -> store::Result<Option<ChatView>> {
        self.pause().await;
        let found = {
            let truth = self.0.lock();
            truth.members(truth.drained).contains(&user).then_some(truth.drained as Seq)
        };
        self.pause().await;
        Ok(found.map(|seq| ChatView {
            id: CHAT.chat,
            number: 1,
            kind: ChatKind::Group,
            name: "a group".into(),
            description: None,
            members: Vec::new(),
            members_count: 0,
            messages_count: 0,
            created_at: Millis(0),
            created_by: ANA,
            last_message: None,
            unread_count: 0,
            seq,
        }))
    }

    async fn chats_of(&self, _: AppId, _: UserId, _: PageRequest) -> store::Result<ChatsPage> {
        not_here()
    }

    async fn members(
        &self,
        _: ChatKey,
        _: UserId,
        _: PageRequest,
    ) -> store::Result<Option<Page<MemberView>>> {
        not_here()
    }

    async fn history(&self, _: ChatKey, _: Range, _: u32) -> store::Result<Option<Slice>> {
        not_here()
    }

    async fn is_member(&self, _: ChatKey, _: UserId) -> store::Result<bool> {
        not_here()
    }

    async fn message_ids(&self, _: ChatKey, _: Number, _: u32) -> store::Result<Vec<(Number, MessageId)>> {
        not_here()
    }
}

/// Ones of which nothing is revoked: made once, on a store of its own.
fn no_revocations() -> Revocations {
    static ONCE: OnceLock<Revocations> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
            Revocations::load(store, &CancellationToken::new()).await.unwrap()
        })
    };
    ONCE.get_or_init(|| std::thread::spawn(make).join().unwrap()).clone()
}

/// A session as its client sees it.
struct Client {
    user: UserId,
    admitted: Option<Arc<Admitted>>,
    handle: Arc<Handle>,
    ready: Arc<Mutex<Option<Ready>>>,
    /// Frames, each with how far the chat was when it was taken.
    frames: Vec<(usize, serde_json::Value)>,
}

/// How things stood when a session was ready.
#[derive(Clone, Copy, Debug)]
struct Ready {
    confirmed: usize,
    listed: bool,
}

/// A node in the world.
struct Stage {
    world: Arc<World>,
    deliver: Deliver,
    clients: Vec<Client>,
    placement: watch::Sender<Arc<Placement>>,
    /// What the owner's newest mark said.
    said: Option<Place>,
    shutdown: CancellationToken,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Stage {
    fn new(changes: Vec<Change>, dice: u64) -> Self {
        let world = Arc::new(World(Mutex::new(Truth { changes, dice, ..Truth::default() })));
        let shutdown = CancellationToken::new();
        let placement = watch::Sender::new(Arc::default());
        let deliver = Deliver::start(DeliverDeps {
            chats: Arc::clone(&world) as Arc<dyn Chats>,
            owners: Arc::clone(&world) as Arc<dyn AskOwner>,
            interest: Interest::detached(),
            revocations: no_revocations(),
            metrics: SocketMetrics::new(&prometheus::Registry::new()).unwrap(),
            clock: crate::control::Clock::default(),
            sessions_per_user: 100,
            cache: Arc::new(common::cache::memory::MemoryCache::default()),
            partitions: Partitions { count: 16, log: Uuid::nil(), placement: placement.subscribe() },
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        });
        Self { world, deliver, clients: Vec::new(), placement, said: None, shutdown }
    }

    /// Opens a session; it starts in the background.
    fn open(&mut self, user: UserId) -> usize {
        let key = UserKey { app: APP, user };
        let handle = Handle::new(SocketId::random(), key, SessionId::random(), Outbox::default());
        let admitted = Arc::new(self.deliver.0.hub.admit(&Arc::new(handle)).unwrap());
        let ready = Arc::new(Mutex::new(None));
        let handle = Arc::clone(admitted.handle());
        let (deliver, world) = (self.deliver.clone(), Arc::clone(&self.world));
        let (weak, told) = (Arc::downgrade(&admitted), Arc::clone(&ready));
        tokio::spawn(async move {
            // The session's task ends with the session.
            let Some(admitted) = weak.upgrade() else { return };
            deliver.enter(&admitted).await.unwrap();
            {
                let truth = world.0.lock();
                let listed = truth.members(truth.drained).contains(&user);
                *told.lock() = Some(Ready { confirmed: truth.confirmed, listed });
            }
            deliver.started(&admitted);
        });
        self.clients.push(Client { user, admitted: Some(admitted), handle, ready, frames: Vec::new() });
        self.clients.len() - 1
    }

    /// The log confirms the next change.
    fn confirm(&mut self) -> Option<Bytes> {
        self.look();
        let mut truth = self.world.0.lock();
        let at = truth.confirmed;
        if at == truth.changes.len() {
            return None;
        }
        truth.confirmed += 1;
        Some(truth.record(at))
    }

    fn drain(&self, some: usize) -> Vec<Live> {
        let mut truth = self.world.0.lock();
        let from = truth.drained;
        truth.drained = truth.confirmed.min(from + some);
        truth.announcements(from)
    }

    /// The owner says how far it is.
    fn mark(&mut self, whole: bool) {
        let before = self.said;
        self.mark_to_nobody();
        let place = self.said.unwrap();
        let before = before.unwrap_or(place);
        let partition = partition_of(CHAT, 16);
        let mark = Mark { partition, from: before.to, told_from: before.told.offset, place, whole };
        self.deliver.marks(&NodeId::new("owner").unwrap(), &[mark]);
    }

    /// The owner says how far it is, and the mark is lost.
    fn mark_to_nobody(&mut self) {
        self.said = Some(self.world.0.lock().place());
    }

    /// Clients read.
    fn look(&mut self) {
        let confirmed = self.world.0.lock().confirmed;
        for client in self.clients.iter_mut().filter(|client| client.ready.lock().is_some()) {
            let frames = client.handle.outbox.take();
            let frames = frames.iter().map(|text| (confirmed, serde_json::from_slice(text).unwrap()));
            client.frames.extend(frames);
        }
    }

    async fn settle(&mut self) {
        tokio::time::sleep(Duration::from_secs(60)).await;
        self.look();
    }

    fn types(&self, client: usize) -> Vec<String> {
        let frames = self.clients[client].frames.iter();
        frames
            .map(|(_, frame)| match frame["seq"].as_u64() {
                Some(seq) => format!("{} {seq}", frame["type"].as_str().unwrap()),
                None => frame["type"].as_str().unwrap().to_owned(),
            })
            .collect()
    }
}

/// What a client knows of the chat.
#[derive(Debug, Clone, Copy, PartialEq)]
enum View {
    /// It reads the chat now, which includes this change, and may include later ones.
    Reads(usize),
    /// It has everything up to here.
    Has(usize),
    /// It is not in the chat.
    Gone,
}

/// Holds a client's frames against the rules, and gives what it knows at the end.
fn judge(client: &Client, truth: &Truth) -> View {
    let ready = client.ready.lock().unwrap();
    let mut view = View::Reads(ready.confirmed);
    for (confirmed, frame) in &client.frames {
        let seq = frame["seq"].as_u64().map(|seq| seq as usize);
        view = match (frame["type"].as_str().unwrap(), view) {
            ("new_chat", View::Gone | View::Reads(_)) => {
                let seq = seq.unwrap();
                assert!(truth.members(seq).contains(&client.user), "told of a chat it is not in: {frame}");
                View::Has(seq)
            }
            // Once more than it knew, when it came in and went before it could be told.
            ("chat_removed", _) => View::Gone,
            ("chat_reload", View::Has(_) | View::Reads(_)) => View::Reads(*confirmed),
            (kind, View::Gone | View::Has(_)) if seq.is_none() || view == View::Gone => {
                panic!("{kind} when {view:?}: {:?}", client.frames)
            }
            (kind, _) => {
                let seq = seq.unwrap();
                match view {
                    View::Reads(at) => {
                        assert!(seq <= at + 1, "begins at {seq} after {at}: {:?}", client.frames)
                    }
                    View::Has(at) => assert_eq!(seq, at + 1, "{:?}", client.frames),
                    View::Gone => unreachable!("handled above"),
                }
                let deleted = kind == "chat_deleted";
                let allowed = truth.members(if deleted { seq - 1 } else { seq }).contains(&client.user);
                assert!(allowed, "{} is no member at {seq}: {:?}", client.user, client.frames);
                if deleted { View::Gone } else { View::Has(seq) }
            }
        };
    }
    view
}

/// Everybody who is there knows everything.
fn judge_end(client: &Client, truth: &Truth) {
    let view = judge(client, truth);
    let end = truth.changes.len();
    let ready = client.ready.lock().unwrap();
    if truth.members(end).contains(&client.user) {
        let whole = match view {
            View::Reads(at) => at == end,
            View::Has(at) => at == end,
            View::Gone => false,
        };
        assert!(whole, "{} of {end} changes known at the end: {:?}", format_args!("{view:?}"), client.frames);
    } else if ready.listed && !truth.unannounced {
        assert_eq!(view, View::Gone, "not told of its removal: {:?}", client.frames);
    } else {
        assert!(!matches!(view, View::Has(_)), "not told of its removal: {:?}", client.frames);
    }
    assert_eq!(client.handle.outbox.closing(), None);
}

fn change(seq: usize, what: What) -> Change {
    Change {
        app: APP,
        chat: CHAT.chat,
        term: 0,
        n: seq as u64,
        seq: seq as Seq,
        at: Millis(0),
        by: ANA,
        what,
    }
}

fn sent(number: usize) -> What {
    What::Sent {
        id: MessageId::random(),
        number: number as u64,
        client_id: None,
        body: "hello".into(),
        kind: MessageKind::Text,
        reply_to: None,
        attachments: Vec::new(),
    }
}

fn created(members: &[UserId]) -> What {
    What::Created {
        kind: ChatKind::Group,
        name: None,
        description: None,
        members: members.iter().map(|user| (*user, Role::Member)).collect(),
        request: None,
    }
}

/// A chat's life: Ana is in it from the beginning, others come and go.
fn life(steps: &[u8]) -> Vec<Change> {
    let mut changes = vec![change(1, created(&[ANA]))];
    let mut inside = HashSet::from([ANA]);
    for (at, step) in steps.iter().enumerate() {
        let user = USERS[usize::from(*step) % 2 + 1];
        let what = match step {
            0..=90 => {
                if inside.remove(&user) {
                    What::Left { user, heir: None }
                } else {
                    inside.insert(user);
                    What::Joined { user, role: Role::Member }
                }
            }
            91..=93 => What::Deleted,
            _ => sent(at),
        };
        let last = what == What::Deleted;
        changes.push(change(at + 2, what));
        if last {
            break;
        }
    }
    changes
}

async fn play(steps: Vec<u8>, moves: Vec<(u8, u8)>, dice: u64) {
    let mut stage = Stage::new(life(&steps), dice);
    let mut on_the_way: Vec<Live> = Vec::new();
    let deliver = stage.deliver.clone();
    for (kind, arg) in moves {
        let send = |live: Live, way: u8, on_the_way: &mut Vec<Live>| match way % 4 {
            0 | 1 => deliver.live(live),
            2 => on_the_way.push(live),
            _ => {}
        };
        match kind {
            0..=7 => {
                if let Some(record) = stage.confirm() {
                    send(Live::Change(record), arg, &mut on_the_way);
                }
            }
            8..=9 => {
                if let Some(live) = on_the_way.get(usize::from(arg) % on_the_way.len().max(1)) {
                    deliver.live(live.clone());
                }
            }
            10..=13 => {
                for live in stage.drain(usize::from(arg) % 5) {
                    let way = arg / 5;
                    stage.world.0.lock().unannounced |= way % 4 == 3;
                    send(live, way, &mut on_the_way);
                }
            }
            14..=16 => drop(stage.open(USERS[usize::from(arg) % 3])),
            17 => {
                let some = usize::from(arg) % stage.clients.len().max(1);
                stage.look();
                if let Some(client) = stage.clients.get_mut(some) {
                    client.admitted = None;
                }
            }
            18 => deliver.lost(),
            19 => {
                let mut truth = stage.world.0.lock();
                truth.forgotten = truth.confirmed - usize::from(arg) % (truth.confirmed + 1);
                truth.failing = usize::from(arg) % 3;
            }
            _ => tokio::time::sleep(Duration::from_millis(u64::from(arg) % 20)).await,
        }
        for _ in 0..arg % 4 {
            tokio::task::yield_now().await;
        }
    }
    // The network heals: what is on its way arrives, late, and whoever may have missed something is told so.
    while let Some(record) = stage.confirm() {
        deliver.live(Live::Change(record));
    }
    for live in stage.drain(usize::MAX / 2) {
        deliver.live(live);
    }
    on_the_way.reverse();
    on_the_way.into_iter().for_each(|live| deliver.live(live));
    deliver.lost();
    stage.settle().await;

    let truth = stage.world.0.lock();
    for client in stage.clients.iter().filter(|client| client.ready.lock().is_some()) {
        if client.admitted.is_some() {
            judge_end(client, &truth);
        } else {
            judge(client, &truth);
        }
    }
    drop(truth);
    stage.clients.clear();
    assert_eq!(format!("{:?}", deliver.0.hub), "Hub of 0 rooms and 0 users");
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 5_000 }))]

    #[test]
    fn whatever_the_network_does_every_session_is_shown_the_chat_in_order_once_and_whole(
        steps in proptest::collection::vec(any::<u8>(), 0..25),
        moves in proptest::collection::vec((0u8..23, any::<u8>()), 0..80),
        dice in any::<u64>(),
    ) {
        paused().block_on(play(steps, moves, dice));
    }
}

/// A chat of Ana and Ben with `messages` after its making, of which everything is stored.
fn pair(messages: usize) -> Stage {
    let mut changes = vec![change(1, created(&[ANA, BEN]))];
    changes.extend((0..messages).map(|at| change(at + 2, sent(at + 1))));
    let stage = Stage::new(changes, 0);
    stage.world.0.lock().confirmed = 1;
    stage.world.0.lock().drained = 1;
    stage
}

#[tokio::test(start_paused = true)]
async fn a_session_is_shown_what_comes_after_its_start() {
    let mut stage = pair(2);
    let ana = stage.open(ANA);
    stage.settle().await;
    for _ in 0..2 {
        let record = stage.confirm().unwrap();
        stage.deliver.live(Live::Change(record.clone()));
        stage.deliver.live(Live::Change(record));
    }
    stage.look();
    assert_eq!(stage.types(ana), ["new_message 2", "new_message 3"]);
}

#[tokio::test(start_paused = true)]
async fn an_early_change_waits_for_the_missing_one_and_the_client_hears_that_its_view_is_not_whole() {
    let mut stage = pair(3);
    let ana = stage.open(ANA);
    stage.settle().await;
    let missing = stage.confirm().unwrap();
    let early = stage.confirm().unwrap();
    stage.world.0.lock().failing = 3;
    stage.deliver.live(Live::Change(early));
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.look();
    assert!(stage.types(ana).is_empty(), "the owner is away");
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.look();
    assert_eq!(stage.types(ana), ["chat_reload"]);
    stage.settle().await;
    assert_eq!(stage.types(ana), ["chat_reload", "new_message 2", "new_message 3"]);
    stage.deliver.live(Live::Change(missing));
    stage.look();
    assert_eq!(stage.types(ana).len(), 3, "what comes late is dropped");
}

#[tokio::test(start_paused = true)]
async fn the_last_change_of_a_chat_that_falls_silent_is_mended_by_the_next_mark() {
    let mut stage = pair(3);
    let ana = stage.open(ANA);
    stage.settle().await;
    stage.mark(true);
    for whole in [false, true] {
        // Its frame is lost: the owner's link knows, or else the mark is lost as well.
        stage.confirm().unwrap();
        stage.drain(10);
        if whole {
            stage.mark_to_nobody();
        }
        stage.mark(whole);
        stage.settle().await;
    }
    assert_eq!(stage.types(ana), ["new_message 2", "new_message 3"]);
    let next = stage.confirm().unwrap();
    stage.deliver.live(Live::Change(next));
    stage.mark(true);
    stage.settle().await;
    assert_eq!(stage.types(ana), ["new_message 2", "new_message 3", "new_message 4"]);
    assert_eq!(stage.deliver.0.metrics.caught_up.get(), 2, "nothing was missed this time");
}

#[tokio::test(start_paused = true)]
async fn who_came_in_and_who_went_unannounced_is_mended_by_the_next_mark() {
    let mut stage = Stage::new(
        vec![
            change(1, created(&[ANA])),
            change(2, What::Joined { user: BEN, role: Role::Member }),
            change(3, sent(1)),
            change(4, What::Left { user: BEN, heir: None }),
            change(5, sent(2)),
        ],
        0,
    );
    stage.world.0.lock().confirmed = 1;
    stage.world.0.lock().drained = 1;
    let ben = stage.open(BEN);
    stage.settle().await;
    stage.mark(true);
    for _ in 0..2 {
        stage.confirm();
        stage.drain(10);
        stage.confirm();
        stage.mark(false);
        stage.settle().await;
    }
    assert_eq!(stage.types(ben), ["new_chat 2", "new_message 3", "chat_removed"]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_falls_silent_is_asked() {
    let mut stage = pair(2);
    let ana = stage.open(ANA);
    stage.settle().await;
    let owners = vec![Some(NodeId::new("owner").unwrap()); 16];
    stage.placement.send_replace(Arc::new(Placement { epoch: 1, owners }));
    stage.mark(true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.confirm().unwrap();
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    stage.look();
    assert!(stage.types(ana).is_empty());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    stage.look();
    assert_eq!(stage.types(ana), ["new_message 2"]);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_has_the_missing_change_the_client_is_told_to_read_again() {
    let mut stage = pair(4);
    let ana = stage.open(ANA);
    stage.settle().await;
    stage.confirm();
    let early = stage.confirm().unwrap();
    stage.world.0.lock().forgotten = 2;
    stage.drain(10);
    stage.deliver.live(Live::Change(early));
    stage.settle().await;
    assert_eq!(stage.types(ana), ["chat_reload"]);
    let next = stage.confirm().unwrap();
    stage.deliver.live(Live::Change(next));
    stage.look();
    assert_eq!(stage.types(ana), ["chat_reload", "new_message 4"]);
}

/// Ana's chat with Ben, who then leaves, and another message.
fn farewell() -> Stage {
    let changes = vec![
        change(1, created(&[ANA, BEN])),
        change(2, What::Left { user: BEN, heir: None }),
        change(3, sent(1)),
        change(4, sent(2)),
    ];
    let stage = Stage::new(changes, 0);
    stage.world.0.lock().confirmed = 1;
    stage.world.0.lock().drained = 1;
    stage
}

#[tokio::test(start_paused = true)]
async fn who_is_removed_is_shown_nothing_from_then_on_and_told_once_whatever_comes_first() {
    // Whether the store's word comes before the change, after it, or not at all.
    for order in 0..3 {
        let mut stage = farewell();
        let (ana, ben) = (stage.open(ANA), stage.open(BEN));
        stage.settle().await;
        let records = [stage.confirm().unwrap(), stage.confirm().unwrap(), stage.confirm().unwrap()];
        let removed = stage.drain(10);
        if order == 0 {
            removed.clone().into_iter().for_each(|live| stage.deliver.live(live));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for record in records {
            stage.deliver.live(Live::Change(record));
        }
        stage.look();
        assert_eq!(stage.types(ben), if order == 0 { vec!["chat_removed"] } else { vec![] });
        if order == 1 {
            removed.into_iter().for_each(|live| stage.deliver.live(live));
        }
        stage.settle().await;
        assert_eq!(stage.types(ben), ["chat_removed"], "order {order}");
        assert_eq!(stage.types(ana), ["member_left 2", "new_message 3", "new_message 4"]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_let_in_is_told_of_the_chat_first_and_then_shown_what_came_after() {
    let changes = vec![
        change(1, created(&[ANA])),
        change(2, What::Joined { user: BEN, role: Role::Member }),
        change(3, sent(1)),
        change(4, sent(2)),
        change(5, sent(3)),
    ];
    let mut stage = Stage::new(changes, 0);
    stage.world.0.lock().confirmed = 1;
    stage.world.0.lock().drained = 1;
    let (ana, phone, laptop) = (stage.open(ANA), stage.open(BEN), stage.open(BEN));
    stage.settle().await;
    for _ in 0..3 {
        let record = stage.confirm().unwrap();
        stage.deliver.live(Live::Change(record));
    }
    // The store shows Ben's coming and not yet what was said since.
    for live in stage.drain(1) {
        stage.deliver.live(live);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.look();
    assert!(stage.types(phone).is_empty(), "the store is behind the room");
    stage.drain(1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.look();
    assert!(stage.types(phone).is_empty(), "still");
    stage.drain(1);
    let record = stage.confirm().unwrap();
    stage.deliver.live(Live::Change(record));
    stage.settle().await;
    for device in [phone, laptop] {
        let types = stage.types(device);
        assert!(types.first().is_some_and(|first| first.starts_with("new_chat")), "{types:?}");
        assert_eq!(types.last().map(String::as_str), Some("new_message 5"));
        judge_end(&stage.clients[device], &stage.world.0.lock());
    }
    assert_eq!(stage.types(ana), ["member_joined 2", "new_message 3", "new_message 4", "new_message 5"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_chat_says_so_once_and_its_room_is_gone() {
    let changes = vec![change(1, created(&[ANA, BEN])), change(2, What::Deleted)];
    let mut stage = Stage::new(changes, 0);
    stage.world.0.lock().confirmed = 1;
    stage.world.0.lock().drained = 1;
    let (ana, ben) = (stage.open(ANA), stage.open(BEN));
    stage.settle().await;
    let record = stage.confirm().unwrap();
    stage.deliver.live(Live::Change(record.clone()));
    assert!(stage.deliver.0.hub.room(CHAT).is_none());
    stage.deliver.live(Live::Change(record));
    stage.drain(1);
    stage.deliver.lost();
    stage.settle().await;
    assert_eq!(stage.types(ana), ["chat_deleted 2"]);
    assert_eq!(stage.types(ben), ["chat_deleted 2"]);
}

#[tokio::test(start_paused = true)]
async fn one_text_is_made_for_all_who_see_the_same() {
    let mut stage = pair(1);
    let clients: Vec<_> = (0..5).map(|_| stage.open(BEN)).collect();
    stage.settle().await;
    let record = stage.confirm().unwrap();
    stage.deliver.live(Live::Change(record));
    let texts: HashSet<_> = clients
        .iter()
        .flat_map(|client| stage.clients[*client].handle.outbox.take())
        .map(|text| text.as_ptr() as usize)
        .collect();
    assert_eq!(texts.len(), 1);
}
