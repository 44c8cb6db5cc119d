//! Who comes into a chat and who goes, seen to on the sessions of one user after another, off the path of live events.
//!
//! That a user is in a chat is read from the store: the view that `new_chat` carries is from there, and says how far it is told. Until
//! the store is as far as the chat's room, changes are held; so nothing falls between the view and the first event, and nothing is told
//! twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use common::{
    ids::{ChatId, ChatKey, Seq, UserId, UserKey},
    model::ChatView,
    partition::partition_of,
    problem::Problem,
    store::{Membership, StoreError},
    wire::{
        client::{Resume, ServerFrame},
        codes::CloseCode,
    },
};
use tokio::time::Instant;

use crate::{
    cursor::Cursor,
    deliver::Deliver,
    hub::{Admitted, Handle, Hold, Job, User},
    resume::{LeftOff, Plan, Replay},
    standing::{ANSWER, Stand, late},
};

/// Users whose chats are seen to at once: each asks the store for one row at a time.
pub(crate) const TOGETHER: usize = 64;
/// How long the store may take to come as far as a room is before others have their turn, or to answer at all before the user's sessions are
/// closed, to come back and read everything. It lags by milliseconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after that it is looked at again.
const LATER: Duration = Duration::from_secs(2);
/// Before the store is asked again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Times that the dispatchers are asked for a chat, at 5 s each.
const ATTEMPTS: u32 = 3;

/// A session that has its seats.
#[derive(Debug)]
pub(crate) struct Entered {
    /// Where it is.
    pub(crate) cursor: String,
    /// What it missed, if it comes back; else its client reads everything.
    pub(crate) told: Option<Replay>,
    pub(crate) beginning: Beginning,
}

/// What is to be seen to when a session has been told that it is ready.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// The round of cursors before its chats were read.
    read: u64,
    /// Chats that are new to its client and that it was not told of yet, as if its user came into them now.
    new: Vec<Job>,
}

impl Deliver {
    /// Something to be done for a user's sessions, after what is to be done already.
    pub(crate) fn job(&self, key: UserKey, job: Job) {
        if let Some(user) = self.0.hub.user(key)
            && user.push(job)
        {
            self.0.tasks.spawn(self.clone().work(user));
        }
    }

    /// Registers interest in what concerns a session that starts, reads the chats its user is in, and seats it in them: from here on
    /// its outbox gets every event. One that says where it left off is told what it missed, if that can be told.
    ///
    /// # Errors
    /// `retry_later` when store or dispatchers do not answer.
    pub(crate) async fn enter(
        &self,
        admitted: &Admitted,
        resume: Option<Resume>,
    ) -> Result<Entered, Problem> {
        let away = |_| Problem::retry_later("the dispatchers do not answer at the moment");
        let (log, count) = (self.0.marks.partitions.log, self.0.marks.partitions.count);
        let handle = admitted.handle();
        let left_off = resume.and_then(|resume| LeftOff::read(resume, handle.user.app, &self.0.cursors));
        self.0.hub.register_user(admitted.user()).await.map_err(away)?;
        let read = self.0.rounds.current();
        let stand = self.stand(handle.user).await?;
        if stand.put_back {
            return Err(Problem::retry_later("the store was put back, and is being completed from the log"));
        }
        let drained = Cursor::drained(log, count, &stand.positions);
        let mut plan = left_off.and_then(|left_off| {
            let plan = Plan::of(&left_off, &stand.chats, |chat| partition_of(handle.chat_key(chat), count));
            let unseen = left_off.may_be_gone_unseen(&stand.chats.departures, &drained, count);
            (!unseen && !plan.is_too_much()).then_some((left_off, plan))
        });
        let (stays, introduced): (Vec<Membership>, _) = match &mut plan {
            Some((_, plan)) => {
                let introduced = self.introduce(handle, plan).await;
                (plan.stays().collect(), introduced)
            }
            None => (stand.chats.memberships.clone(), Replay::default()),
        };
        let holds: Vec<Hold> =
            stays.iter().map(|stays| self.0.hub.hold(handle.chat_key(stays.chat))).collect();
        self.0.hub.register_rooms(&holds).await.map_err(away)?;
        let Some((left_off, plan)) = plan else {
            for (membership, hold) in stays.iter().zip(holds) {
                let room = Arc::clone(hold.room());
                let (effects, _) = self.0.hub.enter(handle, hold, membership, 0);
                self.apply(&room, effects);
            }
            // Its client reads everything from here on.
            let cursor = self.0.cursors.text(handle.user.app, &drained);
            return Ok(Entered { cursor, told: None, beginning: Beginning { read, new: Vec::new() } });
        };
        let new = plan.arrivals().map(|(chat, seq)| Job::Added { chat, seq }).collect();
        let told = self.come_back(handle, &stand, plan, holds, introduced).await;
        let cursor = self.0.cursors.text(handle.user.app, &left_off.cursor(log));
        Ok(Entered { cursor, told: Some(told), beginning: Beginning { read, new } })
    }

    /// A session has been told that it is ready: what is new to its client, and what came meanwhile, is seen to.
    pub(crate) fn started(&self, admitted: &Admitted, beginning: Beginning) {
        let Beginning { read, new } = beginning;
        if admitted.user().started(admitted.handle(), self.0.rounds.began(read), new) {
            self.0.tasks.spawn(self.clone().work(Arc::clone(admitted.user())));
        }
    }

    async fn work(self, user: Arc<User>) {
        while let Some(job) = user.next() {
            let Ok(_permit) = self.0.joining.acquire().await else { return };
            tokio::select! {
                () = self.0.shutdown.cancelled() => return,
                () = self.see_to(&user, job) => {}
            }
        }
    }

    async fn see_to(&self, user: &Arc<User>, job: Job) {
        let app = user.key.app;
        match job {
            Job::Added { chat, seq } => self.seat(user, chat, seq, &user.ready_handles()).await,
            Job::Removed { chat, seq } => {
                if let Some(room) = self.0.hub.room(ChatKey { app, chat }) {
                    room.removed(user.key.user, seq);
                    self.say(&room);
                }
            }
            Job::Settle { chat } => self.settle(user, chat).await,
            Job::Compare => self.compare(user).await,
        }
    }

    /// Seats those of `handles` that have no seat in a chat that their user came into by the change `seq`.
    async fn seat(&self, user: &Arc<User>, chat: ChatId, seq: Seq, handles: &[Arc<Handle>]) {
        let fresh: Vec<_> = handles.iter().filter(|handle| !self.0.hub.seated(handle, chat, seq)).collect();
        let key = ChatKey { app: user.key.app, chat };
        let holds: Vec<Hold> = fresh.iter().map(|_| self.0.hub.hold(key)).collect();
        let Some(room) = holds.first().map(|hold| Arc::clone(hold.room())) else { return };
        let mut attempt = 0;
        while self.0.hub.register_rooms(&holds).await.is_err() {
            attempt += 1;
            if attempt == ATTEMPTS {
                tracing::warn!(%key, "the dispatchers do not confirm the interest in a chat");
                fresh.iter().for_each(|handle| handle.outbox.close(CloseCode::ShuttingDown));
                return;
            }
        }
        for (handle, hold) in fresh.into_iter().zip(holds) {
            let effects = self.0.hub.join(handle, hold, seq);
            self.apply(&room, effects);
        }
        self.settle(user, chat).await;
    }

    /// Reads the store until it is as far as the user's pending seats in a chat.
    async fn settle(&self, user: &Arc<User>, chat: ChatId) {
        let key = ChatKey { app: user.key.app, chat };
        let who = user.key.user;
        let end = Instant::now() + PATIENCE;
        let mut pause = PAUSES.0;
        while let Some(room) = self.0.hub.room(key).filter(|room| room.is_pending(who)) {
            match tokio::time::timeout(ANSWER, self.0.chats.chat_view(key, who)).await {
                Ok(Ok(Some(view))) => {
                    let seen = view.seq;
                    let (done, effects) = room.settle(who, seen, &new_chat(view, who));
                    self.apply(&room, effects);
                    if done {
                        return;
                    }
                }
                Ok(Ok(None)) => {
                    room.refuse(who);
                    self.say(&room);
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, %key, "a chat's view cannot be read"),
                Err(_) => tracing::warn!(%key, "a chat's view is not answered"),
            }
            if Instant::now() >= end {
                // The writers stand still. Other chats go on meanwhile, and others have their turn.
                tracing::warn!(%key, "the store stays behind a chat: looked at again later");
                self.later(user, Job::Settle { chat });
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Sees to it when some time has passed.
    fn later(&self, user: &Arc<User>, job: Job) {
        user.put_off();
        let (deliver, user) = (self.clone(), Arc::clone(user));
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = deliver.0.shutdown.cancelled() => return,
                () = tokio::time::sleep(LATER) => {}
            }
            if user.due(job) {
                deliver.work(user).await;
            }
        });
    }

    /// Compares the seats of a user's sessions with the store, which is newer than all of them: those that have started before it is read.
    async fn compare(&self, user: &Arc<User>) {
        let handles = user.ready_handles();
        if handles.is_empty() {
            return;
        }
        let Ok(Stand { chats, .. }) = self.stand(user.key).await else {
            tracing::warn!(user = %user.key, "a user's chats cannot be compared: the user's sessions are closed");
            handles.iter().for_each(|handle| handle.outbox.close(CloseCode::ShuttingDown));
            return;
        };
        let heads: HashMap<ChatId, Seq> =
            chats.memberships.iter().map(|membership| (membership.chat, membership.head.seq)).collect();
        for handle in &handles {
            for chat in handle.chats().into_iter().filter(|chat| !heads.contains_key(chat)) {
                if let Some(room) = self.0.hub.room(handle.chat_key(chat)) {
                    room.expel(handle);
                    self.say(&room);
                }
            }
        }
        for (chat, head) in heads {
            let missing: Vec<_> =
                handles.iter().filter(|handle| !self.0.hub.seated(handle, chat, 0)).cloned().collect();
            self.seat(user, chat, head, &missing).await;
        }
    }

    /// Where a user stands, asked for until the store answers.
    async fn stand(&self, user: UserKey) -> Result<Stand, StoreError> {
        let end = Instant::now() + PATIENCE;
        let mut pause = PAUSES.0;
        loop {
            let asked = tokio::time::timeout_at(end, self.0.standings.of(user)).await;
            match asked.unwrap_or_else(|_| Err(late())) {
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => {}
                stand => return stand,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// The frame that tells `user` of a chat.
pub(crate) fn new_chat(mut view: ChatView, user: UserId) -> ServerFrame {
    if let Some(message) = view.last_message.as_mut().filter(|message| message.from != user) {
        message.client_id = None;
    }
    let seq = view.seq;
    ServerFrame::NewChat { chat: Box::new(view), seq }
}
