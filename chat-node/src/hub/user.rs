//! One user with sessions on this node, and what is to be done for them, one thing after another.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{
    ids::{ChatId, Seq, UserKey},
    wire::codes::CloseCode,
};
use parking_lot::Mutex;

use super::Handle;

/// Things that may wait for one user: being let into 1,000 chats at once is unusual, and then the sessions are closed, to come back and
/// read everything.
const JOBS: usize = 1_024;

/// Something to be done about one user's chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    /// The user came into a chat by this change.
    Added { chat: ChatId, seq: Seq },
    /// The user is in a chat no more since this change.
    Removed { chat: ChatId, seq: Seq },
    /// Seats of the user in this chat are pending.
    Settle { chat: ChatId },
    /// Jobs may have been lost: compare with the store.
    Compare,
}

/// A user's entry in the hub.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) key: UserKey,
    wanted: AtomicBool,
    registered: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: Vec<Served>,
    jobs: Jobs,
    /// Somebody works on `jobs`.
    busy: bool,
    /// Things that are done later.
    put_off: usize,
}

/// A session, and while it starts, what came for it in the meantime.
#[derive(Debug)]
struct Served {
    handle: Arc<Handle>,
    starting: Option<Jobs>,
    began: Began,
    /// The round of cursors up to which it was told where it is; before that, the one it began with.
    told: u64,
}

/// Things to be done, each once: whatever is done looks at how things stand by then, for every session that has started.
#[derive(Debug, Default)]
struct Jobs {
    order: VecDeque<Job>,
    known: HashSet<Job>,
}

impl Jobs {
    fn push(&mut self, job: Job) {
        if self.known.insert(job) {
            self.order.push_back(job);
        }
    }

    fn pop(&mut self) -> Option<Job> {
        let job = self.order.pop_front()?;
        self.known.remove(&job);
        Some(job)
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// When a session began, in rounds of cursors ([`crate::cursors`]): what a round between the two took for shown, this session may have
/// missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Began {
    /// The round before its chats were read.
    pub(crate) read: u64,
    /// The round before it was ready.
    pub(crate) ready: u64,
}

impl Began {
    /// Whether nothing is missed by a session that goes by what these rounds took for shown.
    pub(crate) fn outlasts(self, rounds: &[u64]) -> bool {
        !rounds.iter().any(|round| (self.read + 1..=self.ready).contains(round))
    }
}

impl User {
    pub(super) fn new(key: UserKey) -> Self {
        Self {
            key,
            wanted: AtomicBool::new(false),
            registered: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }

    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    pub(super) fn was_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Acquire)
    }

    pub(super) fn set_registered(&self) {
        self.registered.store(true, Ordering::Release);
    }

    /// Adds a session, which is starting; false when there are `most` already.
    pub(super) fn add(&self, handle: &Arc<Handle>, most: usize) -> bool {
        let mut inner = self.inner.lock();
        let fits = inner.sessions.len() < most;
        if fits {
            inner.sessions.push(Served {
                handle: Arc::clone(handle),
                starting: Some(Jobs::default()),
                began: Began::default(),
                told: 0,
            });
        }
        fits
    }

    pub(super) fn remove(&self, handle: &Arc<Handle>) {
        self.inner.lock().sessions.retain(|served| !Arc::ptr_eq(&served.handle, handle));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().sessions.is_empty()
    }

    /// All sessions.
    pub(crate) fn handles(&self) -> Vec<Arc<Handle>> {
        self.inner.lock().sessions.iter().map(|served| Arc::clone(&served.handle)).collect()
    }

    /// Those of its sessions.
    pub(crate) fn those(&self, which: impl Fn(&Handle) -> bool) -> Vec<Arc<Handle>> {
        let inner = self.inner.lock();
        let those = inner.sessions.iter().filter(|served| which(&served.handle));
        those.map(|served| Arc::clone(&served.handle)).collect()
    }

    /// The sessions that have started.
    pub(crate) fn ready_handles(&self) -> Vec<Arc<Handle>> {
        let inner = self.inner.lock();
        let ready = inner.sessions.iter().filter(|served| served.starting.is_none());
        ready.map(|served| Arc::clone(&served.handle)).collect()
    }

    /// The sessions that are to be told where they are, each once for each round that `moved` places: those that have been shown whatever
    /// these rounds of cursors took for shown, and told what else there was. None while anything is to be done for the user.
    pub(crate) fn due_for_cursor(&self, rounds: &[u64], moved: u64) -> Vec<Arc<Handle>> {
        let mut inner = self.inner.lock();
        if inner.busy || inner.put_off > 0 || !inner.jobs.is_empty() {
            return Vec::new();
        }
        // What was done may still be on its way: looked at after the jobs, which leave it behind.
        let due = inner.sessions.iter_mut().filter(|served| {
            served.starting.is_none()
                && served.told < moved
                && served.began.outlasts(rounds)
                && served.handle.is_owed_nothing()
        });
        let told = due.map(|served| {
            served.told = moved;
            Arc::clone(&served.handle)
        });
        told.collect()
    }

    /// Something to be done: for the sessions that have started in turn, for the others when they have. True when somebody has to begin
    /// working: [`Self::next`].
    pub(crate) fn push(&self, job: Job) -> bool {
        let mut inner = self.inner.lock();
        let mut ready = false;
        for served in &mut inner.sessions {
            match &mut served.starting {
                Some(waiting) if waiting.len() >= JOBS => served.handle.outbox.close(CloseCode::SlowConsumer),
                Some(waiting) => waiting.push(job),
                None => ready = true,
            }
        }
        ready && inner.enqueue([job])
    }

    /// A session has started: `first`, and what came for it meanwhile, is to be done. True when somebody has to begin working.
    pub(crate) fn started(&self, handle: &Arc<Handle>, began: Began, first: Vec<Job>) -> bool {
        let mut inner = self.inner.lock();
        let served = inner.sessions.iter_mut().find(|served| Arc::ptr_eq(&served.handle, handle));
        let waiting = served.and_then(|served| {
            served.began = began;
            served.told = began.ready;
            served.starting.take()
        });
        match waiting {
            Some(waiting) => inner.enqueue(first.into_iter().chain(waiting.order)),
            None => false,
        }
    }

    /// Something is to be done later: [`Self::due`].
    pub(crate) fn put_off(&self) {
        self.inner.lock().put_off += 1;
    }

    /// What was put off is to be done now; otherwise as [`Self::push`].
    pub(crate) fn due(&self, job: Job) -> bool {
        let begin = self.push(job);
        self.inner.lock().put_off -= 1;
        begin
    }

    /// The next thing to be done; none ends the work.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut inner = self.inner.lock();
        if inner.sessions.is_empty() {
            inner.jobs = Jobs::default();
        }
        let job = inner.jobs.pop();
        if job.is_none() {
            inner.busy = false;
            inner.jobs = Jobs::default();
        }
        job
    }
}

impl Inner {
    fn enqueue(&mut self, jobs: impl IntoIterator<Item = Job>) -> bool {
        for job in jobs {
            self.jobs.push(job);
        }
        if self.jobs.len() > JOBS {
            self.jobs = Jobs::default();
            self.sessions.iter().for_each(|served| served.handle.outbox.close(CloseCode::SlowConsumer));
            return false;
        }
        !self.jobs.is_empty() && !std::mem::replace(&mut self.busy, true)
    }
}

#[cfg(test)]
mod tests {
    use common::ids::{AppId, SessionId, SocketId, UserId};

    use super::*;
    use crate::outbox::Outbox;

    fn user() -> User {
        User::new(UserKey { app: AppId::DEFAULT, user: UserId::random() })
    }

    fn session(user: &User) -> Arc<Handle> {
        let handle =
            Arc::new(Handle::new(SocketId::random(), user.key, SessionId::random(), Outbox::default()));
        assert!(user.add(&handle, 99));
        handle
    }

    fn added(seq: Seq) -> Job {
        Job::Added { chat: ChatId(uuid::Uuid::from_u128(1)), seq }
    }

    #[test]
    fn what_comes_while_a_session_starts_is_done_when_it_has_started() {
        let user = user();
        let handle = session(&user);
        assert!(!user.push(added(1)));
        assert!(!user.push(added(2)));
        assert_eq!(user.next(), None);
        assert!(user.started(&handle, Began::default(), vec![]));
        assert!(!user.push(added(3)), "somebody works on it");
        assert_eq!(
            [user.next(), user.next(), user.next(), user.next()],
            [Some(added(1)), Some(added(2)), Some(added(3)), None]
        );
        assert!(user.push(added(4)), "nobody does any more");
    }

    #[test]
    fn too_much_at_once_closes_the_sessions() {
        let user = user();
        let (ready, starting) = (session(&user), session(&user));
        user.started(&ready, Began::default(), vec![]);
        for seq in 0..=JOBS as Seq {
            user.push(added(seq));
        }
        assert_eq!(ready.outbox.closing(), Some(CloseCode::SlowConsumer));
        assert_eq!(starting.outbox.closing(), Some(CloseCode::SlowConsumer));
    }

    #[test]
    fn what_is_new_to_many_devices_is_done_once_for_those_that_have_started() {
        let user = user();
        let devices: Vec<_> = (0..20).map(|_| session(&user)).collect();
        let new: Vec<_> = (1..=200).map(added).collect();
        // What concerns them all is behind it, and in the order in which it came.
        user.push(Job::Compare);
        for device in &devices {
            user.started(device, Began::default(), new.clone());
            assert_eq!(device.outbox.closing(), None);
        }
        let done: Vec<_> = std::iter::from_fn(|| user.next()).collect();
        assert_eq!(done.len(), 201, "each once");
        assert_eq!((done[0], done[199], done[200]), (added(1), added(200), Job::Compare));
        // Who starts when it was done has it done again.
        let late = session(&user);
        assert!(user.started(&late, Began::default(), new));
        assert_eq!(std::iter::from_fn(|| user.next()).count(), 200);
    }

    #[test]
    fn what_waits_already_is_not_put_down_again_wherever_it_stands() {
        let user = user();
        let handle = session(&user);
        user.started(&handle, Began::default(), vec![]);
        for _ in 0..JOBS {
            user.push(added(1));
            user.push(Job::Compare);
        }
        assert_eq!(handle.outbox.closing(), None);
        assert_eq!([user.next(), user.next(), user.next()], [Some(added(1)), Some(Job::Compare), None]);
        assert!(user.push(added(1)), "it was done, and is to be done again");
    }

    #[test]
    fn a_session_is_told_where_it_is_once_nothing_is_to_be_done_and_by_rounds_that_saw_it() {
        let user = user();
        let handle = session(&user);
        assert!(user.due_for_cursor(&[1], 9).is_empty(), "it starts");
        user.started(&handle, Began { read: 3, ready: 5 }, vec![]);
        let count = |rounds: &[u64], moved| user.due_for_cursor(rounds, moved).len();
        assert_eq!(
            [count(&[3, 4], 6), count(&[5, 6], 6)],
            [0, 0],
            "it may have missed what these took for shown"
        );
        assert_eq!(count(&[1, 3], 5), 0, "nothing has moved since it began");
        assert_eq!(
            [count(&[1, 3], 6), count(&[3, 6], 6), count(&[3, 6], 7)],
            [1, 0, 1],
            "once for each move"
        );
        assert!(user.push(added(1)));
        assert_eq!(count(&[6], 8), 0);
        assert!(user.next().is_some() && count(&[6], 8) == 0);
        user.put_off();
        assert!(user.next().is_none() && count(&[6], 8) == 0);
        assert!(user.due(added(2)));
        assert!(user.next().is_some() && user.next().is_none());
        assert_eq!(count(&[6], 8), 1, "also when the round that moved is long over");
    }
}
