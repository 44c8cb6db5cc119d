//! One user with sessions on this node, and what is to be done for them, one thing after another.

use std::{
    collections::VecDeque,
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    jobs: VecDeque<Job>,
    /// Somebody works on `jobs`.
    busy: bool,
    /// Things that are done later.
    put_off: usize,
}

/// A session, and while it starts, what came for it in the meantime.
#[derive(Debug)]
struct Served {
    handle: Arc<Handle>,
    starting: Option<Vec<Job>>,
    began: Began,
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
    fn outlasts(self, rounds: &[u64]) -> bool {
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
                starting: Some(Vec::new()),
                began: Began::default(),
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

    /// The sessions that have started.
    pub(crate) fn ready_handles(&self) -> Vec<Arc<Handle>> {
        let inner = self.inner.lock();
        let ready = inner.sessions.iter().filter(|served| served.starting.is_none());
        ready.map(|served| Arc::clone(&served.handle)).collect()
    }

    /// The sessions that have been shown whatever these rounds of cursors took for shown, and told what else there was. None while anything
    /// is to be done for the user.
    pub(crate) fn up_to_date(&self, rounds: &[u64]) -> Vec<Arc<Handle>> {
        let inner = self.inner.lock();
        if inner.busy || inner.put_off > 0 || !inner.jobs.is_empty() {
            return Vec::new();
        }
        let sessions = inner.sessions.iter();
        // What was done may still be on its way: looked at after the jobs, which leave it behind.
        let up_to_date = sessions.filter(|served| {
            served.starting.is_none() && served.began.outlasts(rounds) && served.handle.is_owed_nothing()
        });
        up_to_date.map(|served| Arc::clone(&served.handle)).collect()
    }

    /// Something to be done: for the sessions that have started in turn, for the others when they have. True when somebody has to begin
    /// working: [`Self::next`].
    pub(crate) fn push(&self, job: Job) -> bool {
        let mut inner = self.inner.lock();
        let mut ready = false;
        for served in &mut inner.sessions {
            match &mut served.starting {
                Some(waiting) if waiting.len() >= JOBS => served.handle.outbox.close(CloseCode::SlowConsumer),
                Some(waiting) => waiting.push(job.clone()),
                None => ready = true,
            }
        }
        ready && inner.enqueue([job])
    }

    /// A session has started: what came for it meanwhile is to be done. True when somebody has to begin working.
    pub(crate) fn started(&self, handle: &Arc<Handle>, began: Began) -> bool {
        let mut inner = self.inner.lock();
        let served = inner.sessions.iter_mut().find(|served| Arc::ptr_eq(&served.handle, handle));
        let waiting = served.and_then(|served| {
            served.began = began;
            served.starting.take()
        });
        match waiting {
            Some(waiting) if !waiting.is_empty() => inner.enqueue(waiting),
            Some(_) | None => false,
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
            inner.jobs.clear();
        }
        let job = inner.jobs.pop_front();
        if job.is_none() {
            inner.busy = false;
            inner.jobs = VecDeque::new();
        }
        job
    }
}

impl Inner {
    fn enqueue(&mut self, jobs: impl IntoIterator<Item = Job>) -> bool {
        for job in jobs {
            // The same thing once more, right after, changes nothing.
            if self.jobs.back() != Some(&job) {
                self.jobs.push_back(job);
            }
        }
        if self.jobs.len() > JOBS {
            self.jobs.clear();
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
        assert!(user.add(&handle, 9));
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
        assert!(user.started(&handle, Began::default()));
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
        user.started(&ready, Began::default());
        for seq in 0..=JOBS as Seq {
            user.push(added(seq));
        }
        assert_eq!(ready.outbox.closing(), Some(CloseCode::SlowConsumer));
        assert_eq!(starting.outbox.closing(), Some(CloseCode::SlowConsumer));
    }
    #[test]
    fn a_session_is_up_to_date_once_nothing_is_to_be_done_and_by_rounds_that_saw_it() {
        let user = user();
        let handle = session(&user);
        assert!(user.up_to_date(&[1]).is_empty(), "it starts");
        user.started(&handle, Began { read: 3, ready: 5 });
        let count = |rounds: &[u64]| user.up_to_date(rounds).len();
        assert_eq!([count(&[1, 3]), count(&[3, 6]), count(&[3, 4]), count(&[5, 6])], [1, 1, 0, 0]);
        assert!(user.push(added(1)));
        assert_eq!(count(&[6]), 0);
        assert!(user.next().is_some() && count(&[6]) == 0);
        user.put_off();
        assert!(user.next().is_none() && count(&[6]) == 0);
        assert!(user.due(added(2)));
        assert!(user.next().is_some() && user.next().is_none());
        assert_eq!(count(&[6]), 1);
    }
}
