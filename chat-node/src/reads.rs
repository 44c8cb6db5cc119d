//! Read marks on their way to the store: how far each user has read each chat.
//!
//! A mark belongs to one user, so it is a row of the store and no record of the log. Marks are gathered, the newest of each user and chat,
//! and written many in one transaction; who asked is answered when that is done. Then the chat's other sessions are told, on every node:
//! an event without a number, which may be lost.
//!
//! Absent on purpose: how far a chat is ([`crate::commands::Commands::read`] asks), and how a mark moves only forward, whoever moves it (the
//! store's statement).

use std::{collections::HashMap, sync::Arc, time::Duration};

use common::{
    ids::{ChatKey, Number, SocketId, UserId},
    problem::Problem,
    store::{Marked, ReadMark, SharedStore},
    wire::peer::{Live, Topic},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::control::Clock;

/// Between two writes at least: at 20,000 readers who each read on every 2 s that is one transaction of 1,000 marks instead of 1,000
/// transactions, and nobody waits for an acknowledgement longer than for a message.
const EVERY: Duration = Duration::from_millis(100);
/// Marks in one write: what the store takes at once.
const TOGETHER: usize = 1_000;
/// Requests that wait to be gathered, beside those that are being written: ten writes, a second's worth. When they are full, a request is
/// refused with `retry_later`.
const WAITING: usize = 10_000;
/// How long an answer may take: two writes that each take as long as the store may (5 s), and a little.
const PATIENCE: Duration = Duration::from_secs(11);

/// Tells the other sessions, here and on other nodes.
pub type TellRead = Arc<dyn Fn(Vec<Topic>, Live) + Send + Sync>;

/// A mark that somebody waits for.
struct Request {
    mark: ReadMark,
    socket: Option<SocketId>,
    reply: oneshot::Sender<Result<Option<Marked>, Problem>>,
}

/// What is gathered of one user and chat.
struct Gathered {
    mark: ReadMark,
    /// Who has read furthest.
    socket: Option<SocketId>,
    replies: Vec<oneshot::Sender<Result<Option<Marked>, Problem>>>,
}

/// The way of read marks to the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reads(mpsc::Sender<Request>);

impl Reads {
    /// Starts to write, until `shutdown`. `tell` is called for each mark that has moved; it must not block.
    pub fn start(
        store: SharedStore,
        clock: Clock,
        tell: TellRead,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let (sender, requests) = mpsc::channel(WAITING);
        tasks.spawn(
            Writer { store, clock, tell, requests, gathered: HashMap::new(), waiting: 0 }.run(shutdown),
        );
        Self(sender)
    }

    /// Moves a user's mark forward, on behalf of one of the user's sockets or of none; answers where it is when the store has it. None: the
    /// store does not show the user in the chat.
    ///
    /// # Errors
    /// `retry_later`: it may have moved, and asking again is harmless.
    pub async fn mark(&self, mark: ReadMark, socket: Option<SocketId>) -> Result<Option<Marked>, Problem> {
        let busy = || Problem::retry_later("read marks cannot be stored at the moment");
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Request { mark, socket, reply }).map_err(|_| busy())?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            // It stops, or the store does not answer.
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

struct Writer {
    store: SharedStore,
    clock: Clock,
    tell: TellRead,
    requests: mpsc::Receiver<Request>,
    /// At most [`TOGETHER`], with at most [`WAITING`] who wait for them: then no more requests are taken.
    gathered: HashMap<(ChatKey, UserId), Gathered>,
    waiting: usize,
}

impl Writer {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut next = Instant::now();
        loop {
            // What is gathered when the node stops is answered with `retry_later`, for its askers are dropped.
            if !matches!(shutdown.run_until_cancelled(self.gather_until(next)).await, Some(true)) {
                return;
            }
            next = Instant::now() + EVERY;
            self.write().await;
        }
    }

    /// Gathers until `next`, and at least one; false when nobody can ask any more.
    async fn gather_until(&mut self, next: Instant) -> bool {
        if self.gathered.is_empty() {
            match self.requests.recv().await {
                Some(request) => self.gather(request),
                None => return false,
            }
        }
        loop {
            let room = self.gathered.len() < TOGETHER && self.waiting < WAITING;
            tokio::select! {
                biased;
                () = sleep_until(next) => return true,
                Some(request) = self.requests.recv(), if room => self.gather(request),
            }
        }
    }

    fn gather(&mut self, request: Request) {
        let Request { mark, socket, reply } = request;
        let new = || Gathered { mark, socket, replies: Vec::new() };
        let gathered = self.gathered.entry((mark.chat, mark.user)).or_insert_with(new);
        if mark.number > gathered.mark.number {
            gathered.mark.number = mark.number;
            gathered.socket = socket;
        }
        gathered.mark.head = gathered.mark.head.max(mark.head);
        gathered.replies.push(reply);
        self.waiting += 1;
    }

    async fn write(&mut self) {
        self.waiting = 0;
        let gathered: Vec<Gathered> = self.gathered.drain().map(|(_, gathered)| gathered).collect();
        let marks: Vec<ReadMark> = gathered.iter().map(|gathered| gathered.mark).collect();
        let answers = match self.store.mark_read(&marks).await {
            Ok(answers) => answers,
            Err(error) => {
                let problem = Problem::from(error);
                for reply in gathered.into_iter().flat_map(|gathered| gathered.replies) {
                    let _ = reply.send(Err(problem.clone()));
                }
                return;
            }
        };
        let at = self.clock.now();
        for (Gathered { mark, socket, replies }, answer) in gathered.into_iter().zip(answers) {
            for reply in replies {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(Ok(answer));
            }
            if let Some(Marked { number, moved: true }) = answer {
                let ChatKey { app, chat } = mark.chat;
                let live = Live::Read { app, chat, user: mark.user, number, socket, at };
                (self.tell)(vec![mark.chat.into()], live);
            }
        }
    }
}

/// A number of a message that may be read.
///
/// # Errors
/// `invalid`.
pub(crate) fn readable(number: Number) -> Result<Number, Problem> {
    if number == 0 {
        let field =
            common::wire::client::FieldError::body("number", "must be the number of a message, from 1");
        return Err(Problem::invalid(field));
    }
    Ok(number)
}
