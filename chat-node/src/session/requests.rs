//! A session's requests under way: at most so many at once, and the answers about one chat in the order they were asked.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use common::{
    ids::{ChatId, ChatKey, ClientId, Number},
    problem::Problem,
    store::Range,
    token::Caller,
    wire::{
        client::{
            Ack, Changes, ClientFrame, Delete, Edit, FieldError, History, HistoryPage, React, Read, Ref,
            Send as SendFrame, ServerFrame,
        },
        codes::ErrorCode,
        owner::{Draft, Refusal, Sent},
    },
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{commands::Commands, deliver::Deliver, forward::Lanes, hub::Handle, presence::Limit};

/// Requests of one session under way at once: at 5 ms each, 12,800 a second; at 16 KiB each, 1 MiB.
pub const PENDING: usize = 64;
/// Gaps of one session that are mended at once: up to 1 MiB each, which waits for the client to read.
const MENDING: usize = 4;
/// How many messages a client gets that does not say.
const HISTORY: u32 = 50;
/// How long an answer may take: what commands and lanes have themselves (5 s), twice.
const PATIENCE: Duration = Duration::from_secs(10);

/// One device's sends, in order per chat.
pub trait Sends: Send + Sync {
    /// Takes its place in the chat's order before it returns.
    fn send(&self, chat: ChatId, draft: Draft) -> oneshot::Receiver<Result<Sent, Refusal>>;
}

impl Sends for Lanes {
    fn send(&self, chat: ChatId, draft: Draft) -> oneshot::Receiver<Result<Sent, Refusal>> {
        Self::send(self, chat, draft)
    }
}

/// Makes the lanes of a new session.
pub type OpenLanes = Arc<dyn Fn(Caller) -> Box<dyn Sends> + Send + Sync>;

/// A request about a chat that waits for those before it.
enum Waiting {
    /// It has its place in the chat's order already; only its answer waits.
    Sent { ref_: Ref, client_id: ClientId, outcome: oneshot::Receiver<Result<Sent, Refusal>> },
    /// Not begun.
    Edit(Edit),
    /// Not begun.
    Delete(Delete),
    /// Not begun.
    React(React),
}

/// An answer, and what is said right before it.
pub(super) struct Answered {
    /// Events, ready for the wire.
    pub(super) before: Vec<Bytes>,
    pub(super) answer: ServerFrame,
}

impl From<ServerFrame> for Answered {
    fn from(answer: ServerFrame) -> Self {
        Self { before: Vec::new(), answer }
    }
}

/// What ends with an answer.
#[derive(Clone, Copy)]
enum Ends {
    /// The turn of one of those that are answered in their chat's order.
    Turn(ChatId),
    /// The mending of a gap.
    Mending,
    Nothing,
}

/// The requests of one session.
pub(super) struct Requests {
    caller: Caller,
    handle: Arc<Handle>,
    deliver: Deliver,
    commands: Commands,
    sends: Box<dyn Sends>,
    running: FuturesUnordered<BoxFuture<'static, (Ends, Answered)>>,
    /// By chat, what waits behind the one that runs.
    chats: HashMap<ChatId, VecDeque<Waiting>>,
    pending: usize,
    mending: usize,
    typing: Limit,
}

impl Requests {
    pub(super) fn new(
        caller: Caller,
        handle: Arc<Handle>,
        deliver: Deliver,
        commands: Commands,
        sends: Box<dyn Sends>,
    ) -> Self {
        let (running, chats) = (FuturesUnordered::new(), HashMap::new());
        let typing = Limit::default();
        Self { caller, handle, deliver, commands, sends, running, chats, pending: 0, mending: 0, typing }
    }

    /// Begins a request; `retry` flags every send as one. An answer that is there at once is given back.
    pub(super) fn begin(&mut self, frame: ClientFrame, retry: bool) -> Option<ServerFrame> {
        if let ClientFrame::Typing(typing) = frame {
            if self.typing.take(Instant::now()) {
                self.deliver.typing(&self.handle, typing.chat, typing.on);
            }
            return None;
        }
        // All others have one.
        let ref_ = frame.ref_().unwrap_or_default();
        if let ClientFrame::Ping(_) = frame {
            return Some(ServerFrame::Pong { ref_ });
        }
        if self.pending >= PENDING {
            let problem = Problem::new(
                ErrorCode::TooManyPending,
                format!("{PENDING} requests are under way: wait for their answers"),
            );
            return Some(answer(ref_, problem));
        }
        let begun = match frame {
            ClientFrame::Send(send) => self.send(send, retry),
            ClientFrame::Read(read) => {
                self.read(read);
                Ok(())
            }
            ClientFrame::History(history) => self.history(history),
            ClientFrame::Changes(changes) => self.changes(changes),
            ClientFrame::Edit(edit) => {
                self.in_order(edit.chat, Waiting::Edit(edit));
                Ok(())
            }
            ClientFrame::Delete(delete) => {
                self.in_order(delete.chat, Waiting::Delete(delete));
                Ok(())
            }
            ClientFrame::React(react) => {
                self.in_order(react.chat, Waiting::React(react));
                Ok(())
            }
            // Seen to, or not here: the session knows what they mean.
            ClientFrame::Hello(_) | ClientFrame::Ping(_) | ClientFrame::Typing(_) => Ok(()),
        };
        begun.err().map(|problem| answer(ref_, problem))
    }

    /// The next answer. Never ready while nothing is under way.
    pub(super) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Answered> {
        let Poll::Ready(Some((ends, answered))) = self.running.poll_next_unpin(context) else {
            return Poll::Pending;
        };
        self.pending -= 1;
        match ends {
            Ends::Turn(chat) => match self.chats.get_mut(&chat).and_then(VecDeque::pop_front) {
                Some(next) => self.run(chat, next),
                None => {
                    self.chats.remove(&chat);
                }
            },
            Ends::Mending => self.mending -= 1,
            Ends::Nothing => {}
        }
        Poll::Ready(answered)
    }

    fn send(&mut self, send: SendFrame, retry: bool) -> Result<(), Problem> {
        let SendFrame {
            ref_,
            chat,
            client_id,
            body,
            kind,
            reply_to,
            attachments,
            mentions,
            mention_all,
            retry: again,
        } = send;
        let (id, retry) = (Some(client_id.clone()), again || retry);
        let draft = Draft { client_id: id, body, kind, reply_to, attachments, mentions, mention_all, retry };
        let draft = self.commands.draft(draft)?;
        let outcome = self.sends.send(chat, draft);
        self.in_order(chat, Waiting::Sent { ref_, client_id, outcome });
        Ok(())
    }

    fn in_order(&mut self, chat: ChatId, waiting: Waiting) {
        self.pending += 1;
        match self.chats.entry(chat) {
            Entry::Occupied(mut others) => others.get_mut().push_back(waiting),
            Entry::Vacant(none) => {
                none.insert(VecDeque::new());
                self.run(chat, waiting);
            }
        }
    }

    fn run(&mut self, chat: ChatId, waiting: Waiting) {
        let (caller, commands) = (self.caller.clone(), self.commands.clone());
        let run = async move {
            let frame = match waiting {
                Waiting::Sent { ref_, client_id, outcome } => {
                    in_time(ref_, async {
                        let refused = || Problem::new(ErrorCode::Unknown, "the chat's owner did not answer");
                        let sent = outcome.await.map_err(|_| refused())?.map_err(Problem::from)?;
                        Ok(ServerFrame::Ack(Ack {
                            seq: Some(sent.seq),
                            client_id: Some(client_id),
                            id: Some(sent.id),
                            number: Some(sent.number),
                            created_at: Some(sent.at),
                            repeat: sent.repeat,
                            masked: sent.masked,
                            ..ack(ref_, chat)
                        }))
                    })
                    .await
                }
                Waiting::Edit(Edit { ref_, number, body, .. }) => {
                    in_time(ref_, async {
                        let seq = commands.edit(&caller, chat, number, body).await?;
                        Ok(ServerFrame::Ack(Ack { seq: Some(seq), ..ack(ref_, chat) }))
                    })
                    .await
                }
                Waiting::React(React { ref_, number, emoji, on, .. }) => {
                    in_time(ref_, async {
                        let seq = commands.react(&caller, chat, number, emoji, on).await?;
                        Ok(ServerFrame::Ack(Ack { seq: Some(seq), ..ack(ref_, chat) }))
                    })
                    .await
                }
                Waiting::Delete(Delete { ref_, number, .. }) => {
                    in_time(ref_, async {
                        let seq = commands.delete(&caller, chat, number).await?;
                        Ok(ServerFrame::Ack(Ack { seq: Some(seq), ..ack(ref_, chat) }))
                    })
                    .await
                }
            };
            (Ends::Turn(chat), frame.into())
        };
        self.running.push(run.boxed());
    }

    fn read(&mut self, read: Read) {
        let Read { ref_, chat, number } = read;
        let (caller, commands) = (self.caller.clone(), self.commands.clone());
        // What was shown to this session, the log has: mostly nobody needs to be asked.
        let seen = self.deliver.newest_shown(ChatKey { app: caller.app, chat });
        let socket = Some(self.handle.socket);
        let run = async move {
            let frame = in_time(ref_, async {
                let number = commands.read(&caller, chat, number, socket, seen).await?;
                Ok(ServerFrame::Ack(Ack { number: Some(number), ..ack(ref_, chat) }))
            });
            (Ends::Nothing, frame.await.into())
        };
        self.pending += 1;
        self.running.push(run.boxed());
    }

    fn changes(&mut self, changes: Changes) -> Result<(), Problem> {
        if self.mending >= MENDING {
            let detail = format!("{MENDING} gaps are being mended: wait for the answers");
            return Err(Problem::retry_later(detail));
        }
        let Changes { ref_, chat, after } = changes;
        let (handle, deliver) = (Arc::clone(&self.handle), self.deliver.clone());
        let tasks = deliver.0.tasks.clone();
        // In a task of its own: it shares what is there for all sessions, and must not hold that while its client does not read.
        let mending = AbortOnDropHandle::new(tasks.spawn(async move {
            let told = tokio::time::timeout(PATIENCE, deliver.changes(&handle, chat, after)).await;
            let told = told.unwrap_or_else(|_| Err(unread()))?;
            Ok(Answered { before: told.frames, answer: ServerFrame::Resumed { ref_, chats: told.chats } })
        }));
        let run = async move {
            let told = mending.await.unwrap_or_else(|_| Err(unread()));
            (Ends::Mending, told.unwrap_or_else(|problem| answer(ref_, problem).into()))
        };
        (self.pending, self.mending) = (self.pending + 1, self.mending + 1);
        self.running.push(run.boxed());
        Ok(())
    }

    fn history(&mut self, history: History) -> Result<(), Problem> {
        let History { ref_, chat, before, after, limit } = history;
        let range = match (before, after) {
            (Some(_), Some(_)) => {
                return Err(Problem::invalid(FieldError::body(
                    "after",
                    "stands beside before: one of them, not both",
                )));
            }
            (None, Some(after)) => Range::After(after),
            (before, None) => Range::Before(before.unwrap_or(Number::MAX)),
        };
        let (caller, commands) = (self.caller.clone(), self.commands.clone());
        let run = async move {
            let frame = in_time(ref_, async {
                let page = commands.history(&caller, chat, range, limit.unwrap_or(HISTORY)).await?;
                let (messages, head, complete) = (page.messages, page.head, page.complete);
                Ok(ServerFrame::Page(HistoryPage { ref_, chat, messages, head, complete }))
            });
            (Ends::Nothing, frame.await.into())
        };
        self.pending += 1;
        self.running.push(run.boxed());
        Ok(())
    }
}

/// The answer, or the problem as one, in time.
async fn in_time(ref_: Ref, run: impl Future<Output = Result<ServerFrame, Problem>>) -> ServerFrame {
    match tokio::time::timeout(PATIENCE, run).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(problem)) => answer(ref_, problem),
        Err(_) => answer(ref_, Problem::new(ErrorCode::Unknown, "this took too long: it may be done or not")),
    }
}

fn unread() -> Problem {
    Problem::retry_later("the chat cannot be read at the moment")
}

fn answer(ref_: Ref, problem: Problem) -> ServerFrame {
    ServerFrame::Error(problem.frame(Some(ref_)))
}

fn ack(ref_: Ref, chat: ChatId) -> Ack {
    Ack {
        ref_,
        chat,
        seq: None,
        client_id: None,
        id: None,
        number: None,
        created_at: None,
        repeat: false,
        masked: None,
    }
}
