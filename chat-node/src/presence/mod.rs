//! Who is connected: what others are told of it (PR-1 to PR-3), and what is known of it when somebody asks ([`Whereabouts`]).
//!
//! Every socket is noted in the cache as one of this life of the node, and one lease keeps all of them up: nothing is sent per user. Who comes and who
//! goes is collected for half a second ([`TICK`]) and then told together, over the topics of the chats they are in ([`Live::Presence`]), so that
//! only nodes with sessions of these chats hear of it. Whoever hears it tells each session once, however many chats are shared, and less often
//! the more are to be told ([`tell`]).
//!
//! Who goes is shown for a while yet (the grace), and nobody hears of it who comes back meanwhile, here or on another node: the user's last
//! socket stays in the cache for so long. A node that dies leaves its sockets in the cache; when its lease has lapsed, one of the other nodes
//! tells that its users are gone. A node that stops leaves them there as well: they are about to come to another node.
//!
//! When somebody was there last is a row of the store, written many at a time when they go. Of a large group only the number of those who are
//! there is told ([`counts`]).
//!
//! Whom somebody has blocked is not told of them, nor told when they ask ([`hidden`], ID-9).
//!
//! All of it may be lost on the way or be wrong for a moment (the cache was flushed, or is away): a node that hears that one of its own
//! users is gone says that it is not so.

mod counts;
mod declared;
mod heard;
mod hidden;
mod lease;
mod seen;
mod tell;
mod typing;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use common::{
    cache::{GRACE, NodeLife},
    ids::{ChatId, ChatKey, SocketId, UserKey},
    model::{PresenceStatus, UserPresence},
    store::Seen,
    time::Millis,
    wire::peer::{Live, Topic},
};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::seen::{ASKED, Whereabouts};
pub(crate) use self::typing::Limit;
use self::{heard::Change, hidden::Hiding, tell::Telling};
use crate::{deliver::Deliver, hub::Handle};

/// How often who came and went is said to the nodes, and told to sessions while those are few.
const TICK: Duration = Duration::from_millis(500);
/// How often sessions are told where they are many.
const LONGEST: Duration = TICK.saturating_mul(4);
/// Users who may have come or gone and are not told of yet, of each kind: every socket a node takes, several times.
const WAITING: usize = 100_000;
/// How long cache and store may take for one step of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How presence behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceConfig {
    /// How long after the end of their last session users are shown as connected, so that a short drop and a move to another node are not
    /// seen. Writers notify nobody of a message before that time is over (`writer.notify.settle`).
    pub grace: Duration,
    /// How long after its death the users of a node are shown as connected.
    pub timeout: Duration,
    /// Members of a group above which only their number is told, and not who types.
    pub group: u64,
}

impl Default for PresenceConfig {
    /// [`GRACE`]. Ten renewals of the lease: 30 s. 100 members who come and go twice an hour
    /// each are an event every 18 s for all of them.
    fn default() -> Self {
        Self { grace: GRACE, timeout: Duration::from_secs(30), group: 100 }
    }
}

impl PresenceConfig {
    /// How long what a node said of itself holds: with a [`Self::beat`] until it is noticed, a fifth of the time-out and more is left to tell it.
    fn term(&self) -> Duration {
        self.timeout * 2 / 3
    }

    /// How often a node says so, and looks at what the others have said.
    fn beat(&self) -> Duration {
        (self.timeout / 10).max(Duration::from_millis(1))
    }
}

/// Sends a live event that may be lost to the other nodes. Must not block.
pub type Hint = Arc<dyn Fn(Vec<Topic>, &Live) + Send + Sync>;

/// What presence stands on.
pub struct PresenceDeps {
    /// How it behaves.
    pub config: PresenceConfig,
    /// This life of the node.
    pub life: NodeLife,
    /// For how long a socket's client may give no sign of life and count as connected, on any node.
    pub silence: Duration,
    /// Where it is kept when somebody was there last.
    pub seen: Arc<dyn Seen>,
    /// To the other nodes.
    pub hint: Hint,
}

impl fmt::Debug for PresenceDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresenceDeps of {}", self.life.node)
    }
}

/// Who is connected to this node, and what is to be told.
pub(crate) struct Presence {
    config: PresenceConfig,
    life: NodeLife,
    silence: Duration,
    seen: Arc<dyn Seen>,
    hint: Hint,
    people: Mutex<People>,
    telling: Mutex<Telling>,
    large: Mutex<HashSet<ChatKey>>,
    /// What is to be told as soon as the store says from whom it is hidden.
    untold: Mutex<Vec<Change>>,
    hiding: Hiding,
}

#[derive(Default)]
struct People {
    here: HashMap<UserKey, Here>,
    /// Who may have to be announced.
    coming: Vec<UserKey>,
    /// When whose grace ends: the oldest first, for it is the same for all.
    going: VecDeque<(Instant, UserKey, u64)>,
    last: u64,
    /// Sockets that are still in the cache though somebody has come back.
    stale: Vec<(UserKey, SocketId)>,
}

/// A user with a session here, or who had one until just now.
#[derive(Default)]
struct Here {
    sockets: usize,
    /// The others were told.
    announced: bool,
    /// They are to be told whatever the cache says.
    insist: bool,
    /// The last sign of life of those of their sockets that have ended.
    seen: Option<Millis>,
    going: Option<Going>,
}

struct Going {
    no: u64,
    at: Millis,
    /// The last socket, which is still in the cache.
    socket: SocketId,
    chats: Vec<ChatId>,
    /// Another node says that the user is there.
    elsewhere: bool,
}

impl Presence {
    pub(crate) fn new(deps: PresenceDeps) -> Self {
        let PresenceDeps { config, life, silence, seen, hint } = deps;
        Self {
            config,
            life,
            silence,
            seen,
            hint,
            people: Mutex::default(),
            telling: Mutex::default(),
            large: Mutex::default(),
            untold: Mutex::default(),
            hiding: Hiding::default(),
        }
    }

    /// Whether a user has a session here, or had one until just now.
    pub(crate) fn is_here(&self, user: UserKey) -> bool {
        self.people.lock().here.contains_key(&user)
    }

    /// A session is ready.
    pub(crate) fn came(&self, user: UserKey) {
        let mut people = self.people.lock();
        let people = &mut *people;
        let here = people.here.entry(user).or_default();
        here.sockets += 1;
        if let Some(going) = here.going.take() {
            people.stale.push((user, going.socket));
        }
        if !here.announced && people.coming.len() < WAITING {
            people.coming.push(user);
        }
    }
}

impl Deliver {
    /// A session that was ready has ended, and still has its seats. True when it was the user's last one here: then it is to stay in the
    /// cache for now.
    ///
    /// However it ended: what came after the client's last sign of life, nobody may have been there to see. A client that closes is one that
    /// gives such a sign.
    pub(crate) fn left(&self, handle: &Handle) -> bool {
        let presence = &self.0.presence;
        let at = self.last_sign_of(handle);
        {
            let mut people = presence.people.lock();
            let Some(here) = people.here.get_mut(&handle.user) else { return false };
            here.sockets = here.sockets.saturating_sub(1);
            here.seen = here.seen.max(Some(at));
            if here.sockets > 0 {
                return false;
            }
        }
        let chats = self.small_chats(handle);
        let mut people = presence.people.lock();
        let people = &mut *people;
        let Some(here) = people.here.get_mut(&handle.user).filter(|here| here.sockets == 0) else {
            return false;
        };
        people.last += 1;
        // Another device may have given a later one.
        let (no, at) = (people.last, here.seen.map_or(at, |seen| seen.max(at)));
        here.going = Some(Going { no, at, socket: handle.socket, chats, elsewhere: false });
        people.going.push_back((Instant::now() + presence.config.grace, handle.user, no));
        true
    }

    fn last_sign_of(&self, handle: &Handle) -> Millis {
        self.0.clock.now().minus(handle.silent_for())
    }

    /// All who are here or were until just now, and when they last gave a sign of life.
    fn last_signs(&self) -> Vec<(UserKey, Millis)> {
        let mut signs = Vec::new();
        let mut present = Vec::new();
        for (user, here) in &self.0.presence.people.lock().here {
            match &here.going {
                Some(going) => signs.push((*user, going.at)),
                None => present.push((*user, here.seen)),
            }
        }
        for (user, before) in present {
            let handles = self.0.hub.user(user).map(|user| user.ready_handles()).unwrap_or_default();
            let sign = handles.iter().map(|handle| self.last_sign_of(handle)).max().max(before);
            signs.extend(sign.map(|sign| (user, sign)));
        }
        signs
    }

    /// The chats of a session in which each member is told of.
    fn small_chats(&self, handle: &Handle) -> Vec<ChatId> {
        let largest = self.0.presence.config.group;
        let room = |chat: &ChatId| self.0.hub.room(handle.chat_key(*chat));
        let mut chats = handle.chats();
        chats.retain(|chat| room(chat).is_some_and(|room| room.members() <= largest));
        chats
    }

    /// Tells who came and went, until the shutdown; then notes when everybody was here.
    pub(crate) async fn keep_presence(self) {
        let shutdown = self.0.shutdown.clone();
        let work = async {
            tokio::join!(
                self.say_presence(),
                self.tell_sessions(),
                self.keep_lease(),
                self.bury_lapsed(),
                self.count_large()
            );
        };
        if shutdown.run_until_cancelled(work).await.is_none() {
            let signs = self.last_signs();
            self.note_seen(&signs).await;
        }
    }

    async fn say_presence(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.see_who_came().await;
            self.see_who_went().await;
        }
    }
}

/// A user as others see them.
fn view(user: UserKey, last_seen: Option<Millis>) -> UserPresence {
    let status = if last_seen.is_some() { PresenceStatus::Offline } else { PresenceStatus::Online };
    UserPresence { user: user.user, status, last_seen }
}
