//! Live delivery: what happens in chats and to users, from owners and dispatchers to the sessions on this node.
//!
//! A change goes to its chat's room ([`crate::hub`]), which shows it to its seats in order. What a room misses is asked of the chat's
//! owner ([`crate::repair`]); who comes into a chat or out of it is seen to one after another per user ([`crate::joins`]). The same
//! for what this node decided itself as an owner and for what came over a link: what comes twice is shown once.

mod event;

use std::{fmt, sync::Arc};

use common::{
    applications::Applications,
    cache::SharedCache,
    ids::{ChatKey, NodeId, Number, SessionId, UserKey},
    log::SharedLog,
    revocations::Revocations,
    seal::Sealer,
    store::{Chats, Revocation, SharedStore},
    wire::{codes::CloseCode, marks::Mark, peer::Live, record::Record},
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast::error::RecvError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::event::event;
pub(crate) use self::event::{Event, Withheld};
use crate::{
    ask::AskOwner,
    control::{Clock, Interest, Receiver},
    cursor::Cursors,
    cursors::Rounds,
    hub::{Effects, Fanout, Handle, Heads, Hub, Job, Room},
    marks::{Marks, Partitions},
    missed::Missed,
    presence::{Presence, PresenceDeps},
    recent::Recent,
    relationships::Relationships,
    repair::Repairs,
    resume,
    socket::SocketMetrics,
    standing::Standings,
};

/// Writes to sockets in one go: at 4 µs each, two milliseconds.
const AT_ONCE: usize = 512;

/// What live delivery stands on.
pub struct DeliverDeps {
    /// Where memberships and views of chats are read.
    pub chats: Arc<dyn Chats>,
    /// Whoever is asked for changes that were missed.
    pub owners: Arc<dyn AskOwner>,
    /// The topics that dispatchers send here.
    pub interest: Interest,
    /// Sign-ins that were ended.
    pub revocations: Revocations,
    /// What is counted.
    pub metrics: SocketMetrics,
    /// Sessions that one user may have here: [`crate::hub::SESSIONS_PER_USER`].
    pub sessions_per_user: usize,
    /// What time it is for the whole cluster.
    pub clock: Clock,
    /// Where the tails of chats are.
    pub cache: SharedCache,
    /// Where changes are read that are not in a tail any more.
    pub log: SharedLog,
    /// Whose marks are heard.
    pub partitions: Partitions,
    /// Seals cursors, with a secret that all nodes share.
    pub sealer: Sealer,
    /// Who is connected, and who is told.
    pub presence: PresenceDeps,
    /// From whom that is hidden.
    pub relationships: Relationships,
    /// Where tasks run.
    pub tasks: TaskTracker,
    /// Ends them, and closes every session.
    pub shutdown: CancellationToken,
    /// What is planted here.
    #[cfg(feature = "planted")]
    pub planted: common::planted::Planted,
}

impl fmt::Debug for DeliverDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliverDeps")
    }
}

/// Delivers. Cheap to clone.
#[derive(Clone)]
pub struct Deliver(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) hub: Arc<Hub>,
    pub(crate) chats: Arc<dyn Chats>,
    pub(crate) owners: Arc<dyn AskOwner>,
    pub(crate) revocations: Revocations,
    pub(crate) metrics: SocketMetrics,
    pub(crate) repairs: Repairs,
    pub(crate) clock: Clock,
    pub(crate) cache: SharedCache,
    pub(crate) marks: Marks,
    pub(crate) rounds: Rounds,
    pub(crate) cursors: Cursors,
    pub(crate) standings: Standings,
    pub(crate) recent: Recent,
    pub(crate) missed: Missed,
    /// Sessions that come back and whose changes are fetched at once.
    pub(crate) resuming: Semaphore,
    /// Gaps that are mended at once.
    pub(crate) mending: Semaphore,
    /// KiB of what is told to sessions that come back, before their outboxes have it.
    pub(crate) gathered: Arc<Semaphore>,
    /// Rooms that have something to say and wait for [`Deliver::flush`]; bounded by the rooms and what one batch of an owner changes.
    unflushed: Mutex<Vec<Arc<Room>>>,
    /// Users whose chats are being seen to at once.
    pub(crate) joining: Semaphore,
    pub(crate) presence: Presence,
    pub(crate) relationships: Relationships,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl fmt::Debug for Deliver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deliver over {:?}", self.0.hub)
    }
}

impl Deliver {
    /// Starts to deliver, until the given shutdown.
    pub fn start(deps: DeliverDeps) -> Self {
        #[cfg(feature = "planted")]
        let planted = deps.planted;
        let DeliverDeps {
            chats,
            owners,
            interest,
            revocations,
            metrics,
            sessions_per_user,
            clock,
            cache,
            log,
            partitions,
            sealer,
            presence,
            relationships,
            tasks,
            shutdown,
            ..
        } = deps;
        let hub = Hub::new(interest, sessions_per_user);
        #[cfg(feature = "planted")]
        hub.plant(planted);
        let deliver = Self(Arc::new(Inner {
            hub,
            standings: Standings::start(Arc::clone(&chats), &tasks, shutdown.clone()),
            chats,
            owners,
            revocations,
            metrics,
            repairs: Repairs::new(partitions.count),
            clock,
            cache,
            recent: Recent::new(partitions.count),
            cursors: Cursors::new(partitions.log, partitions.count, sealer),
            marks: Marks::new(partitions),
            rounds: Rounds::default(),
            missed: Missed::new(log),
            resuming: Semaphore::new(resume::SESSIONS),
            mending: Semaphore::new(resume::MENDING),
            gathered: Arc::new(Semaphore::new(resume::GATHERED)),
            unflushed: Mutex::default(),
            joining: Semaphore::new(crate::joins::TOGETHER),
            presence: Presence::new(presence),
            relationships,
            tasks,
            shutdown,
        }));
        deliver.0.tasks.spawn(deliver.clone().repair());
        deliver.0.tasks.spawn(deliver.clone().revoke());
        deliver.0.tasks.spawn(deliver.clone().listen_for_marks());
        deliver.0.tasks.spawn(deliver.clone().tell_cursors());
        deliver.0.tasks.spawn(deliver.clone().keep_presence());
        deliver
    }

    /// A live event, from a dispatcher or from an owner on this node, in any order and any number of times. Never blocks.
    pub fn live(&self, live: Live) {
        self.collect(live);
        self.flush();
    }

    /// Closes the sessions that these applications do not take any more: because they are gone, or the key of the session's token is. None while
    /// the store does not say so: a dispatcher that has read of a key may send somebody who has just signed in with it to a node that has not.
    pub(crate) async fn close_untaken(&self, applications: &Applications, store: &SharedStore) {
        let takes = |handle: &Handle| applications.takes(handle.user.app, handle.signed_by);
        let users = self.0.hub.all_users();
        let untaken: Vec<_> = users.iter().flat_map(|user| user.those(|handle| !takes(handle))).collect();
        if untaken.is_empty() || applications.look_anew(store).await.is_err() {
            return;
        }
        for handle in untaken.iter().filter(|handle| !takes(handle)) {
            handle.outbox.close(CloseCode::Revoked);
        }
    }

    /// Likewise, one of several that come together: shown to the sessions at the next [`Self::flush`], so that what is ready
    /// together leaves together.
    pub fn collect(&self, live: Live) {
        match live {
            Live::Change(bytes) => match Record::decode(&bytes) {
                Ok(Record::Change(change)) => {
                    if let Some(room) = self.0.hub.room(change.key()) {
                        let effects = room.accept(Event::new(change, bytes.len()));
                        self.see_to_effects(&room, effects);
                        let mut unflushed = self.0.unflushed.lock();
                        if unflushed.last().is_none_or(|last| !Arc::ptr_eq(last, &room)) {
                            unflushed.push(room);
                        }
                    }
                }
                Ok(Record::Claim(_)) => {}
                Err(error) => tracing::error!(%error, "a live change cannot be read"),
            },
            Live::Added { app, chat, seq, users } => {
                for user in users {
                    self.job(UserKey { app, user }, Job::Added { chat, seq });
                }
            }
            Live::Removed { app, chat, seq, users } => {
                for user in users {
                    self.job(UserKey { app, user }, Job::Removed { chat, seq });
                }
            }
            Live::Read { app, chat, user, number, socket, at } => {
                self.heard_read(ChatKey { app, chat }, user, number, socket, at);
            }
            Live::Presence { app, at, users } => self.heard_presence(app, at, users),
            Live::Headcount { app, chat, node, users, ask } => {
                self.heard_heads(app, chat, node, Heads { users, ask });
            }
            Live::Typing { app, chat, user, on, at } => {
                self.heard_typing(ChatKey { app, chat }, user, on, at);
            }
            Live::Revoked { .. } => self.0.revocations.hint(),
        }
    }

    /// Shows the sessions what was collected.
    pub fn flush(&self) {
        let unflushed = std::mem::take(&mut *self.0.unflushed.lock());
        for room in unflushed {
            self.say(&room);
        }
    }

    /// The newest message of a chat that sessions here were shown; 0 when there was none. The log has it.
    pub(crate) fn newest_shown(&self, chat: ChatKey) -> Number {
        self.0.hub.room(chat).map_or(0, |room| room.number())
    }

    /// Live events may have been lost: every room asks its owner what came after what it has, and every user's chats are compared with the
    /// store. Never blocks.
    pub fn lost(&self) {
        for room in self.0.hub.all_rooms() {
            self.suspect(&room);
        }
        for user in self.0.hub.all_users() {
            self.job(user.key, Job::Compare);
        }
    }

    /// Something may have been lost in one room.
    pub(crate) fn suspect(&self, room: &Arc<Room>) {
        if room.suspect() {
            self.0.repairs.queue(Arc::clone(room));
        }
    }

    /// Does what a room has named, and says what it has to say.
    pub(crate) fn apply(&self, room: &Arc<Room>, effects: Effects) {
        self.see_to_effects(room, effects);
        self.say(room);
    }

    fn see_to_effects(&self, room: &Arc<Room>, effects: Effects) {
        let Effects { gone, repair, time, leaving, mut settle, grew } = effects;
        if grew {
            self.watch_if_large(room);
        }
        if repair {
            self.0.repairs.queue(Arc::clone(room));
        }
        if time {
            self.0.repairs.time(Arc::clone(room));
        }
        for handle in leaving {
            self.0.repairs.remind(Arc::clone(room), handle);
        }
        settle.sort_unstable();
        settle.dedup();
        let ChatKey { app, chat } = room.key;
        for user in settle {
            self.job(UserKey { app, user }, Job::Settle { chat });
        }
        drop(gone);
    }

    /// Writes what a room has to say to its sessions: at once when they are few, else in a task of its own, which lets others run in between.
    pub(crate) fn say(&self, room: &Arc<Room>) {
        let Some(mut fanout) = room.begin_fanout() else { return };
        if fanout.writes() <= AT_ONCE {
            while self.say_some(room, &mut fanout) {}
            return;
        }
        let (deliver, room) = (self.clone(), Arc::clone(room));
        self.0.tasks.spawn(async move {
            while deliver.say_some(&room, &mut fanout) {
                tokio::task::yield_now().await;
            }
        });
    }

    /// True while there is more.
    fn say_some(&self, room: &Arc<Room>, fanout: &mut Fanout) -> bool {
        let (more, effects) = fanout.step(room, AT_ONCE);
        self.0.metrics.delivered.inc_by(fanout.said());
        self.see_to_effects(room, effects);
        more
    }

    /// Closes the sockets of ended sign-ins as they become known, and every socket at the end.
    async fn revoke(self) {
        let mut revocations = self.0.revocations.subscribe();
        loop {
            let revocation = tokio::select! {
                () = self.0.shutdown.cancelled() => break,
                revocation = revocations.recv() => revocation,
            };
            match revocation {
                Ok(Revocation { app, user, session, .. }) => {
                    let every = session == SessionId::every(app, user);
                    let user = self.0.hub.user(UserKey { app, user });
                    for handle in user.iter().flat_map(|user| user.handles()) {
                        if every || handle.session == session {
                            handle.outbox.close(CloseCode::Revoked);
                        }
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    for handle in self.0.hub.all_users().iter().flat_map(|user| user.handles()) {
                        if self.is_revoked(handle.user, handle.session) {
                            handle.outbox.close(CloseCode::Revoked);
                        }
                    }
                }
                // Nobody tells any more: the node is stopping.
                Err(RecvError::Closed) => {
                    self.0.shutdown.cancelled().await;
                    break;
                }
            }
        }
        self.0.hub.close(CloseCode::ShuttingDown);
    }

    pub(crate) fn is_revoked(&self, user: UserKey, session: SessionId) -> bool {
        self.0.revocations.contains(user, session)
    }
}

impl Receiver for Deliver {
    fn live(&self, live: Live) {
        Self::live(self, live);
    }

    fn lost(&self) {
        Self::lost(self);
    }

    fn marks(&self, from: &NodeId, marks: &[Mark]) {
        Self::marks(self, from, marks);
    }
}

#[cfg(test)]
mod tests;
