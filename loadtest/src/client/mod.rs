//! A chat client as an app would have it: it finds its node, opens its socket, keeps what it has written until it is acknowledged, sends it
//! again under the same `client_id` after trouble, comes back after a break, and passes over what it has seen.
//!
//! ```text
//! Client ──commands──► device (one task) ──► connection ──► node
//!                        │ outbox   what is not acknowledged, in order per chat
//!                        │ views    how far each chat is had
//!                        │ resume   where it is, to be said when it comes back
//!                        │ mend     what is missing, asked for
//!                        ├──► journal    for the judge
//!                        └──► Observer   for figures
//! ```
//!
//! REST calls are in [`rest`]; they need no socket.

mod asks;
mod backoff;
pub(crate) mod connection;
mod device;
pub mod frames;
pub mod http;
mod mend;
mod online;
mod outbox;
pub mod rest;
mod resume;
mod views;

use std::{sync::Arc, time::Duration};

use common::{
    ids::{ChatId, ClientId, MessageId, Number, Seq, UserId},
    model::Head,
    wire::{
        client::{HistoryPage, Resumed},
        codes::ErrorCode,
    },
};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

pub use self::connection::OpenError;
use self::{frames::Event, rest::Session, views::Views};
use crate::{clock::Clock, journal::Journal};

/// Commands that wait for a device: what a schedule of 5,000 sends a second catches up with after a tenth of a second's stall, all on
/// one device. Full: callers wait, and [`Client::try_post`] gives back.
const COMMANDS: usize = 512;

/// How long a request's answer is awaited: the node answers within 5 s, and a device that waits 15 s for one comes back anew.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// How a device behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, for the user's list of sessions.
    pub device: Option<String>,
    /// Messages of one chat under way at once.
    pub window: usize,
    /// Messages kept until they are acknowledged. Full: [`Client::post`] waits.
    pub outbox: usize,
    /// Whether the chats it follows are read again when a session starts without resume. Off, a break leaves a hole in its view:
    /// for load whose figures are all that counts.
    pub mend: bool,
    /// Whether it says where it left off when it comes back, and is told what it missed. Not without `mend`.
    pub resume: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { device: None, window: 16, outbox: 1_024, mend: true, resume: true }
    }
}

/// Who looks on, to count and to measure. Called on the device's task: be quick, never block.
pub trait Observer: Send + Sync + 'static {
    /// A send was acknowledged; both times in microseconds of the run's clock.
    fn acked(&self, scheduled: u64, now: u64) {
        let _ = (scheduled, now);
    }
    /// A request was answered with an error.
    fn refused(&self, code: ErrorCode, last: bool) {
        let _ = (code, last);
    }
    /// An event that was not seen before.
    fn event(&self, event: &Event, now: u64) {
        let _ = (event, now);
    }
    /// An event was missing before one that came.
    fn gap(&self) {}
    /// A socket is over without this side having ended it.
    fn broken(&self, code: Option<u16>) {
        let _ = code;
    }
    /// A socket could not be opened.
    fn not_opened(&self, error: &OpenError) {
        let _ = error;
    }
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Observer for Nobody {}

/// A message to be sent.
#[derive(Debug)]
pub struct Post {
    /// Where to.
    pub chat: ChatId,
    /// Its text.
    pub body: String,
    /// Its name; a new one when absent.
    pub client_id: Option<ClientId>,
    /// Whether another device or an earlier life may have sent it.
    pub retry: bool,
    /// When it was due, in microseconds of the run's clock: latency counts from here. Now, when absent.
    pub scheduled: Option<u64>,
    /// Given back when the message has its final answer: a window of the writer's own.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl Post {
    /// A plain message.
    pub fn new(chat: ChatId, body: impl Into<String>) -> Self {
        Self { chat, body: body.into(), client_id: None, retry: false, scheduled: None, permit: None }
    }
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the chat.
    Acked {
        /// Its name.
        client_id: ClientId,
        /// Its id.
        id: MessageId,
        /// Its number.
        number: Number,
        /// Its place among the chat's changes.
        seq: Seq,
        /// Whether it was there already.
        repeat: bool,
    },
    /// It was refused for good.
    Refused {
        /// Its name.
        client_id: ClientId,
        /// Why.
        code: ErrorCode,
    },
    /// The device was stopped, or may not come back, before there was an answer.
    Abandoned,
}

/// Why a request over the socket was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undone {
    /// The server said so.
    #[error("{}", .0.word())]
    Refused(ErrorCode),
    /// There was no answer: it may be done or not.
    #[error("no answer")]
    Unknown,
}

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Between sockets.
    Connecting,
    /// In its so-many-eth session, from 1.
    Ready(u64),
    /// It will not come back: stopped, or told so by this close code.
    Ended(Option<u16>),
}

/// What a device and its handles share.
#[derive(Debug)]
struct Shared {
    views: Mutex<Views>,
    /// Waked whenever a view moved.
    moved: Notify,
    /// Room in the outbox.
    room: Arc<Semaphore>,
    capacity: usize,
}

type Reply = oneshot::Sender<Result<Done, Undone>>;

/// The answer to a request over the socket.
#[derive(Debug)]
enum Done {
    Ack(Option<Seq>),
    Read(Number),
    Page(HistoryPage),
    Changes(Option<Resumed>),
}

#[derive(Debug)]
enum Request {
    Edit { chat: ChatId, number: Number, body: String },
    Delete { chat: ChatId, number: Number },
    React { chat: ChatId, number: Number, emoji: String, on: bool },
    Read { chat: ChatId, number: Number },
    Changes { chat: ChatId, after: Seq },
    Newest { chat: ChatId, before: Option<Number>, limit: u32 },
}

#[derive(Debug)]
enum Command {
    Post(Box<Post>, OwnedSemaphorePermit, Option<oneshot::Sender<Outcome>>),
    Request(Request, Reply),
    Follow(ChatId),
    Break(Duration),
    Stop,
}

/// A running device of a signed-in user. Dropped, it stops at once, without a goodbye; [`Client::stop`] is the polite way.
#[derive(Debug)]
pub struct Client {
    session: Session,
    clock: Clock,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
    shared: Arc<Shared>,
    journal: Option<Journal>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Starts a device; it connects in the background and goes on doing so.
    pub fn start(
        session: Session,
        options: Options,
        clock: Clock,
        journal: Option<Journal>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (state, state_now) = watch::channel(State::Connecting);
        let shared = Arc::new(Shared {
            views: Mutex::new(Views::new(options.mend)),
            moved: Notify::new(),
            room: Arc::new(Semaphore::new(options.outbox)),
            capacity: options.outbox,
        });
        let device = device::Device::new(
            session.clone(),
            options,
            clock,
            journal.clone(),
            observer,
            Arc::clone(&shared),
            state,
            inbox,
        );
        let task = tokio::spawn(device.run());
        Self { session, clock, commands, state: state_now, shared, journal, task }
    }

    /// Whose device it is.
    pub fn user(&self) -> UserId {
        self.session.user()
    }

    /// The user's REST session, which is this device's sign-in.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Where it writes down what it does; for what is asked over REST in its name.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Where it is.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Waits until a session is ready. `false` when the device has ended instead.
    pub async fn ready(&self) -> bool {
        let mut state = self.state.clone();
        let there = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        there.is_ok_and(|state| matches!(*state, State::Ready(_)))
    }

    /// Puts a message into the outbox, waiting for room there, and goes on without its outcome.
    pub async fn post(&self, post: Post) {
        if let Ok(room) = Arc::clone(&self.shared.room).acquire_owned().await {
            let _ended = self.commands.send(Command::Post(Box::new(post), room, None)).await;
        }
    }

    /// Puts a message into the outbox if it has room; otherwise gives it back.
    ///
    /// # Errors
    /// The message.
    pub fn try_post(&self, post: Post) -> Result<(), Box<Post>> {
        let post = Box::new(post);
        let Ok(room) = Arc::clone(&self.shared.room).try_acquire_owned() else { return Err(post) };
        self.commands.try_send(Command::Post(post, room, None)).map_err(|error| match error.into_inner() {
            Command::Post(post, _, _) => post,
            // What was sent comes back.
            _ => Box::new(Post::new(ChatId::random(), "")),
        })
    }

    /// Puts a message into the outbox, waiting for room there; the receiver tells what becomes of it.
    pub async fn start_send(&self, post: Post) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        if let Ok(room) = Arc::clone(&self.shared.room).acquire_owned().await {
            let _ended = self.commands.send(Command::Post(Box::new(post), room, Some(reply))).await;
        }
        outcome
    }

    /// Sends a message and waits for what becomes of it, through breaks and retries.
    pub async fn send(&self, chat: ChatId, body: impl Into<String>) -> Outcome {
        self.start_send(Post::new(chat, body)).await.await.unwrap_or(Outcome::Abandoned)
    }

    async fn request(&self, request: Request) -> Result<Done, Undone> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Request(request, reply)).await.map_err(|_| Undone::Unknown)?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            _ => Err(Undone::Unknown),
        }
    }

    /// Follows a chat from now on: where it is now is read, so that a hole at the start of the view can be told.
    pub async fn follow(&self, chat: ChatId) {
        let _ended = self.commands.send(Command::Follow(chat)).await;
    }

    /// How far the chat was seen, without a hole.
    pub fn head(&self, chat: ChatId) -> Option<Head> {
        self.shared.views.lock().head(chat)
    }

    /// After which seq, and up to which one, everything of the chat came as events.
    pub fn came(&self, chat: ChatId) -> Option<(Seq, Seq)> {
        self.shared.views.lock().came(chat)
    }

    /// How far `user` has read the chat, as this device was told last.
    pub fn read_mark(&self, chat: ChatId, user: UserId) -> Option<Number> {
        self.shared.views.lock().read_mark(chat, user)
    }

    /// Waits until the chat was seen as far as `far` says; `false` when `within` is over before.
    pub async fn seen(&self, chat: ChatId, far: impl Fn(Head) -> bool, within: Duration) -> bool {
        let there = async {
            loop {
                let mut moved = std::pin::pin!(self.shared.moved.notified());
                moved.as_mut().enable();
                if self.head(chat).is_some_and(&far) {
                    return;
                }
                moved.await;
            }
        };
        tokio::time::timeout(within, there).await.is_ok()
    }

    /// How many messages are in the outbox: written and not yet answered for good.
    pub fn unanswered(&self) -> usize {
        self.shared.capacity.saturating_sub(self.shared.room.available_permits())
    }

    /// Waits until the outbox is empty; `false` when `within` is over before.
    pub async fn drained(&self, within: Duration) -> bool {
        let all = u32::try_from(self.shared.capacity).unwrap_or(u32::MAX);
        tokio::time::timeout(within, self.shared.room.acquire_many(all)).await.is_ok()
    }

    /// Drops the connection without a goodbye, as a lost network does; the device comes back by itself.
    pub async fn break_connection(&self) {
        self.stay_away(Duration::ZERO).await;
    }

    /// Likewise, and comes back after `away` at the earliest.
    pub async fn stay_away(&self, away: Duration) {
        let _ended = self.commands.send(Command::Break(away)).await;
    }

    /// Says goodbye, ends the device, and writes out its journal.
    ///
    /// # Errors
    /// When the journal is not whole.
    pub async fn stop(mut self) -> std::io::Result<()> {
        let _ended = self.commands.send(Command::Stop).await;
        let stopped = tokio::time::timeout(Duration::from_secs(10), &mut self.task).await;
        if stopped.is_err() {
            tracing::warn!("a device did not stop in time");
        }
        self.journal.as_ref().map_or(Ok(()), Journal::flush)
    }

    /// The clock of the run.
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}
