//! Delivery against a small world: one chat's log, an owner that remembers some of it, a store that lags, and a network that loses,
//! repeats, delays and reorders. Time is the runtime's own and stands still until everybody waits.

mod back;
mod judge;
mod order;
mod plan;
mod world;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use common::{
    cache::{Cache, NodeLife, SharedCache, TailEntry, memory::MemoryCache},
    ids::{
        AppId, ChatId, ChatKey, Incarnation, MessageId, NodeId, Number, Offset, Partition, Seq, SessionId,
        SocketId, UserId, UserKey,
    },
    log::{AppendError, Entry, Log, LogError, ReadError, ReadLimit, Receipt, SharedLog, Subscription},
    model::{
        ChatKind, ChatView, ChatsPage, Head, MemberView, MessageKind, Page, PageRequest, Role, UserView,
    },
    partition::partition_of,
    revocations::Revocations,
    seal::Sealer,
    store::{
        self, Chats, Contact, Departure, Membership, Pair, Position, Range, Related, Relation,
        RelationChange, Relations, Seen, SharedStore, Slice, Standing, StoreError, Ties, UserChats,
        sqlite::Sqlite,
    },
    term::TermState,
    time::Millis,
    wire::{
        client::{Resume, ServerFrame},
        codec::Format,
        codes::ErrorCode,
        marks::{LogPlace, Mark, Place, Since},
        owner::{Answer, Ask, OwnerRequest, Refusal},
        peer::{Live, Placement},
        record::{Change, Claim, Record, What},
    },
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{
    judge::{View, judge, judge_end},
    world::{ANA, APP, BEN, CHAT, Truth, USERS, Unrelated, Unseen, World},
};
use super::{Deliver, DeliverDeps};
use crate::{
    ask::AskOwner,
    control::Interest,
    hub::{Admitted, Fanout, Handle, Room},
    joins::Entered,
    marks::Partitions,
    outbox::Outbox,
    resume,
    socket::{
        SocketMetrics,
        frame::{self, framed},
    },
};

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
    /// When its first session was ready.
    first: Arc<Mutex<Option<Ready>>>,
    /// Frames, each with how far the chat was when it was taken. A session that is resumed begins with [`BACK`], one that begins anew
    /// though it wanted to be with [`ANEW`].
    frames: Vec<(usize, serde_json::Value)>,
    /// What it comes back with: the last cursor it was told, and whether the chat has moved since.
    cursor: Option<String>,
    /// It reads the chat at its start.
    moved: bool,
}

const BACK: &str = "#back";
const ANEW: &str = "#anew";

impl Client {
    /// Takes in what was read.
    fn take(&mut self, confirmed: usize) {
        for text in self.handle.outbox.take() {
            let frame: serde_json::Value = serde_json::from_slice(&text).unwrap();
            match frame["type"].as_str().unwrap() {
                "cursor" => {
                    self.cursor = frame["cursor"].as_str().map(str::to_owned);
                    self.moved = false;
                }
                kind => {
                    // What was not whole is read, and that is more than the cursor says.
                    self.moved |=
                        kind != "resumed" || frame["chats"][CHAT.chat.to_string()]["complete"] == false;
                    self.frames.push((confirmed, frame));
                }
            }
        }
    }

    /// What it says when it comes back.
    fn left_off(&self, truth: &Truth) -> Resume {
        let chats = match judge(self, truth) {
            View::Has(seq) if self.moved => HashMap::from([(CHAT.chat, seq as Seq)]),
            _ => HashMap::new(),
        };
        Resume { cursor: self.cursor.clone(), chats }
    }
}

/// How things stood when a session was ready.
#[derive(Clone, Debug)]
struct Ready {
    confirmed: usize,
    listed: bool,
    seated: bool,
    cursor: String,
}

/// A node in the world.
struct Stage {
    world: Arc<World>,
    deliver: Deliver,
    cache: Arc<MemoryCache>,
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
        let cache = Arc::new(MemoryCache::default());
        let deliver = Deliver::start(DeliverDeps {
            chats: Arc::clone(&world) as Arc<dyn Chats>,
            owners: Arc::clone(&world) as Arc<dyn AskOwner>,
            interest: Interest::detached(),
            revocations: no_revocations(),
            metrics: SocketMetrics::new(&prometheus::Registry::new()).unwrap(),
            clock: crate::control::Clock::default(),
            sessions_per_user: 100,
            cache: Arc::clone(&cache) as SharedCache,
            log: Arc::clone(&world) as SharedLog,
            partitions: Partitions { count: 16, log: Uuid::nil(), placement: placement.subscribe() },
            sealer: Sealer::new(&[7; 32]).unwrap(),
            presence: crate::presence::PresenceDeps {
                config: Default::default(),
                life: NodeLife { node: NodeId::new("here").unwrap(), incarnation: Incarnation(1) },
                silence: Default::default(),
                seen: Arc::new(Unseen),
                hint: Arc::new(|_, _| {}),
            },
            relationships: crate::relationships::Relationships::new(Arc::new(Unrelated)),
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        });
        Self { world, deliver, cache, clients: Vec::new(), placement, said: None, shutdown }
    }

    /// Opens a session; it starts in the background.
    fn open(&mut self, user: UserId) -> usize {
        let (admitted, ready) = self.begin(user, None);
        let handle = Arc::clone(admitted.handle());
        let (admitted, first, frames) = (Some(admitted), Arc::clone(&ready), Vec::new());
        self.clients.push(Client {
            user,
            admitted,
            handle,
            ready,
            first,
            frames,
            cursor: None,
            moved: false,
        });
        self.clients.len() - 1
    }

    /// A client that was ready loses its connection, with what was on its way, and comes back.
    fn come_back(&mut self, client: usize) {
        let confirmed = self.world.0.lock().confirmed;
        let (user, resume) = {
            let client = &mut self.clients[client];
            client.admitted = None;
            let Some(ready) = client.ready.lock().clone() else { return };
            client.cursor = client.cursor.take().or(Some(ready.cursor));
            // What it was never told of, it did not read either; nor does anybody tell it that it is out of that again.
            let untold = |(_, frame): &(usize, serde_json::Value)| frame["type"] == ANEW;
            if !ready.seated && client.frames.last().is_none_or(untold) {
                client.frames.push((confirmed, serde_json::json!({"type": "chat_removed"})));
            }
            client.frames.push((confirmed, serde_json::json!({"type": BACK})));
            (client.user, client.left_off(&self.world.0.lock()))
        };
        let (admitted, ready) = self.begin(user, Some(resume));
        let client = &mut self.clients[client];
        (client.handle, client.ready) = (Arc::clone(admitted.handle()), ready);
        client.admitted = Some(admitted);
    }

    fn begin(&self, user: UserId, resume: Option<Resume>) -> (Arc<Admitted>, Arc<Mutex<Option<Ready>>>) {
        let key = UserKey { app: APP, user };
        let handle = Handle::new(SocketId::random(), key, SessionId::random(), Outbox::default());
        let admitted = Arc::new(self.deliver.0.hub.admit(&Arc::new(handle)).unwrap());
        let ready = Arc::new(Mutex::new(None));
        let (deliver, world) = (self.deliver.clone(), Arc::clone(&self.world));
        let (weak, is_ready) = (Arc::downgrade(&admitted), Arc::clone(&ready));
        tokio::spawn(async move {
            // The session's task ends with the session.
            let Some(admitted) = weak.upgrade() else { return };
            let again = resume.is_some();
            let Entered { cursor, told, beginning } = deliver.enter(&admitted, resume).await.unwrap();
            {
                let truth = world.0.lock();
                let outbox = &admitted.handle().outbox;
                let listed = told.is_none() && truth.members(truth.drained).contains(&user);
                match told {
                    Some(resume::Replay { frames, chats, .. }) => {
                        frames.into_iter().for_each(|frame| outbox.answer(frame));
                        outbox.answer(framed(&ServerFrame::Resumed { ref_: 0, chats }, Format::Json));
                    }
                    None if again => {
                        let anew = format!("{{\"type\": \"{ANEW}\"}}");
                        outbox.answer(frame::control(frame::Opcode::Ping, anew.as_bytes()));
                    }
                    None => {}
                }
                let seated = deliver.0.hub.seated(admitted.handle(), CHAT.chat, 0);
                *is_ready.lock() = Some(Ready { confirmed: truth.confirmed, listed, seated, cursor });
            }
            deliver.started(&admitted, beginning);
        });
        (admitted, ready)
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

    /// The owner adds the newest confirmed change to the chat's tail.
    async fn add_to_tail(&self) {
        let (seq, bytes) = {
            let truth = self.world.0.lock();
            (truth.confirmed as u64, truth.record(truth.confirmed - 1))
        };
        self.cache.append_tail(CHAT, vec![TailEntry { seq, offset: seq, bytes }]).await.unwrap();
    }

    fn drain(&self, some: usize) -> Vec<Live> {
        let mut truth = self.world.0.lock();
        let from = truth.drained;
        let end = truth.confirmed.min(from.saturating_add(some));
        truth.drained = end;
        truth.batches.push(end);
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
        // Nothing happens in the others.
        let told = LogPlace { offset: 0, state: TermState::default() };
        let still =
            Mark { partition, from: 0, told_from: 0, place: Place { term: 0, to: 0, told }, whole: true };
        let others = (0..16).filter(|other| *other != partition);
        let mut marks: Vec<_> = others.map(|partition| Mark { partition, ..still.clone() }).collect();
        marks.push(mark);
        self.deliver.marks(&NodeId::new("owner").unwrap(), &marks);
    }

    /// The owner says how far it is, and the mark is lost.
    fn mark_to_nobody(&mut self) {
        self.said = Some(self.world.0.lock().place());
    }

    /// Clients read.
    fn look(&mut self) {
        let confirmed = self.world.0.lock().confirmed;
        for client in self.clients.iter_mut().filter(|client| client.ready.lock().is_some()) {
            client.take(confirmed);
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
        mentions: Vec::new(),
        mention_all: false,
        sent_as: None,
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
    // Whether everything since the last mark has arrived.
    let mut whole = true;
    let deliver = stage.deliver.clone();
    // Somebody who writes what the room has to say, and takes long.
    let mut writing: Option<(Arc<Room>, Fanout)> = None;
    let go_on = |writing: &mut Option<(Arc<Room>, Fanout)>| {
        if let Some((room, fanout)) = writing {
            let (more, effects) = fanout.step(room, 1);
            deliver.see_to_effects(room, effects);
            if !more {
                *writing = None;
            }
        }
    };
    for (kind, arg) in moves {
        let mut send = |live: Live, way: u8, on_the_way: &mut Vec<Live>| match way % 4 {
            0 | 1 => deliver.live(live),
            2 => {
                whole = false;
                on_the_way.push(live);
            }
            _ => whole = false,
        };
        match kind {
            0..=7 => {
                if let Some(record) = stage.confirm() {
                    if arg & 8 == 0 {
                        stage.add_to_tail().await;
                    }
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
            20 | 21 => {
                let some = usize::from(arg) % stage.clients.len().max(1);
                if arg & 32 == 0 {
                    stage.look();
                }
                if stage.clients.get(some).is_some_and(|client| client.admitted.is_some()) {
                    stage.come_back(some);
                }
            }
            22 | 23 => stage.mark(std::mem::replace(&mut whole, true)),
            24 => tokio::time::sleep(Duration::from_millis(u64::from(arg) * 10)).await,
            25 => drop(stage.cache.flush().await),
            29 if writing.is_none() => {
                if let Some(record) = stage.confirm() {
                    deliver.collect(Live::Change(record));
                    let room = deliver.0.hub.room(CHAT);
                    writing = room.and_then(|room| room.begin_fanout().map(|fanout| (room, fanout)));
                }
            }
            29 | 30 => go_on(&mut writing),
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
    while writing.is_some() {
        go_on(&mut writing);
    }
    deliver.flush();
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
        moves in proptest::collection::vec((0u8..32, any::<u8>()), 0..100),
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
    stage.drain(1);
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
    stage.drain(1);
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
    stage.drain(1);
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
    stage.drain(1);
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
    stage.drain(1);
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
