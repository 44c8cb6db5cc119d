//! The life of a device: connect, be online, and again. What it does while a socket is open is in `online`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    ids::{ChatId, ClientId},
    wire::{
        client::{Ref, Resume},
        codes::{CloseCode, Reconnect},
    },
};
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::{
    Command, Observer, OpenError, Options, Outcome, Post, Reply, Shared, State, Undone,
    backoff::backoff,
    connection::{Connection, HELLO},
    mend::Reread,
    outbox::{Item, Outbox},
    rest::Session,
    resume::Whereabouts,
};
use crate::{
    clock::Clock,
    journal::{Entry, Journal},
};

/// What a message in the outbox carries besides itself.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) scheduled: u64,
    pub(super) reply: Option<oneshot::Sender<Outcome>>,
    /// The place in the outbox and the writer's window, given back when this is dropped.
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// A request that is not a send, and what its answer is for.
#[derive(Debug)]
pub(super) enum Waiting {
    Caller(Reply),
    Reread(Reread),
    /// What came of a chat after a seq; and the mark in the journal.
    Changes(ChatId, Option<u64>),
    /// What was missed is being told: `resumed` ends it.
    Hello,
    Ping,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// This side ended the device.
    Stopped,
    /// The socket is over, by this side's will (`Moved`, no answer) or by the other's.
    Broken(Option<u16>),
    /// This side lost the connection, and has none for so long.
    Away(Duration),
}

/// How long the user's chats may take to be listed.
const LISTED_WITHIN: Duration = Duration::from_secs(5);

/// Pages of them, at most.
const PAGES: u32 = 20;

#[derive(Debug)]
enum Next {
    Connect,
    SignIn,
    End(Option<u16>),
}

pub(super) struct Device {
    pub(super) session: Session,
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) journal: Option<Journal>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) shared: Arc<Shared>,
    state: watch::Sender<State>,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) outbox: Outbox<Tag>,
    /// Requests other than sends, by mark; the first is the oldest.
    pub(super) waiting: BTreeMap<Ref, (Instant, Waiting)>,
    pub(super) rereads: VecDeque<Reread>,
    /// Those that could not be read a moment ago: at the next look.
    pub(super) rereads_later: Vec<Reread>,
    /// Chats with a hole that is to be mended.
    pub(super) holes: VecDeque<ChatId>,
    pub(super) whereabouts: Whereabouts,
    /// What was missed is being told: what is missing yet may come.
    pub(super) resuming: bool,
    pub(super) next_ref: Ref,
    /// Names this device's messages: random, so that no two devices ever share a name.
    prefix: u64,
    written: u64,
    sockets: u64,
}

impl Device {
    #[expect(clippy::too_many_arguments, reason = "called in one place, by the handle")]
    pub(super) fn new(
        session: Session,
        options: Options,
        clock: Clock,
        journal: Option<Journal>,
        observer: Arc<dyn Observer>,
        shared: Arc<Shared>,
        state: watch::Sender<State>,
        inbox: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            outbox: Outbox::new(options.window),
            session,
            options,
            clock,
            journal,
            observer,
            shared,
            state,
            inbox,
            waiting: BTreeMap::new(),
            rereads: VecDeque::new(),
            rereads_later: Vec::new(),
            holes: VecDeque::new(),
            whereabouts: Whereabouts::default(),
            resuming: false,
            next_ref: 1,
            prefix: rand::random(),
            written: 0,
            sockets: 0,
        }
    }

    /// Runs until it is stopped or may not come back.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        self.note_sign_in();
        let ended = loop {
            let mut away = Duration::ZERO;
            let opened = match self.connect().await {
                Some(opened) => opened,
                None => break None,
            };
            let next = match opened {
                Ok(connection) => {
                    failures = 0;
                    self.sockets += 1;
                    let over = self.live(connection).await;
                    match over {
                        Over::Stopped => break None,
                        Over::Broken(code) => {
                            self.observer.broken(code);
                            after(code)
                        }
                        Over::Away(until) => {
                            self.observer.broken(None);
                            away = until;
                            Next::Connect
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "not connected");
                    self.observer.not_opened(&error);
                    match error {
                        OpenError::Location(error) if error.unauthenticated() => Next::SignIn,
                        OpenError::Closed { code, .. } => after(code),
                        _ => Next::Connect,
                    }
                }
            };
            let token = match next {
                Next::End(code) => break code,
                Next::SignIn => true,
                Next::Connect => false,
            };
            failures += 1;
            let wait = backoff(failures, &mut rand::rng()).max(away);
            let session = self.session.clone();
            let pause = async move {
                tokio::time::sleep(wait).await;
                if token && let Err(error) = session.sign_in_again().await {
                    tracing::debug!(%error, "not signed in");
                }
            };
            if !self.meanwhile(pause).await {
                break None;
            }
            if token {
                self.note_sign_in();
            }
        };
        self.state.send_replace(State::Ended(ended));
        // Whoever still waits for an outcome is told by the drop of its sender.
    }

    /// Opens a socket, and takes commands meanwhile. `None` when it is stopped.
    async fn connect(&mut self) -> Option<Result<Connection, OpenError>> {
        let (session, device) = (self.session.clone(), self.options.device.clone());
        let resume = self.resume();
        let back = self.options.mend && self.sockets > 0;
        let mut opened = None;
        let mut listed = Vec::new();
        let open = async {
            let connection = Connection::open(&session, device.as_deref(), resume).await;
            if back && connection.as_ref().is_ok_and(|connection| !connection.ready.resuming) {
                listed = list(&session).await;
            }
            opened = Some(connection);
        };
        let goes_on = self.meanwhile(open).await;
        listed.into_iter().for_each(|chat| self.shared.views.lock().follow(chat, None));
        if goes_on { opened } else { None }
    }

    /// What is said about where the device left off, written down before it is said.
    fn resume(&self) -> Option<Resume> {
        // Where holes are passed over, nobody knows what is had.
        if !self.options.resume || !self.options.mend {
            return None;
        }
        let said = self.whereabouts.say(&self.shared.views.lock())?;
        let chats = said.chats.iter().map(|(chat, seq)| (*chat, *seq)).collect();
        let resume = Resume { cursor: Some(said.cursor.clone()), chats };
        self.note(|| Entry::Resuming { cursor: Some(said.cursor), chats: said.chats });
        Some(resume)
    }

    /// Takes commands until `what` is done; `false` when it is stopped before.
    async fn meanwhile(&mut self, what: impl Future<Output = ()>) -> bool {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                () = &mut what => return true,
                command = self.inbox.recv() => match command {
                    None | Some(Command::Stop) => return false,
                    Some(Command::Post(post, room, reply)) => self.write(*post, room, reply),
                    Some(Command::Request(_, reply)) => drop(reply.send(Err(Undone::Unknown))),
                    Some(Command::Follow(chat)) => self.shared.views.lock().follow(chat, None),
                    Some(Command::Break(_)) => {}
                },
            }
        }
    }

    /// Puts a message into the outbox.
    pub(super) fn write(
        &mut self,
        post: Post,
        room: OwnedSemaphorePermit,
        reply: Option<oneshot::Sender<Outcome>>,
    ) {
        let Post { chat, body, client_id, retry, scheduled, permit } = post;
        self.written += 1;
        let client_id =
            client_id.or_else(|| ClientId::new(&format!("{:016x}-{}", self.prefix, self.written)).ok());
        let Some(client_id) = client_id else { return };
        let scheduled = scheduled.unwrap_or_else(|| self.clock.micros());
        let tag = Tag { scheduled, reply, _permits: (room, permit) };
        self.outbox.push(chat, Item::new(client_id, body, self.written, retry, tag));
    }

    /// One session, from its first frame to its last.
    async fn live(&mut self, connection: Connection) -> Over {
        let socket = self.sockets;
        self.resuming = connection.ready.resuming;
        self.note(|| Entry::Opened {
            socket,
            node: connection.node.clone(),
            resuming: connection.ready.resuming,
        });
        if self.resuming {
            self.waiting.insert(HELLO, (Instant::now(), Waiting::Hello));
        } else {
            self.begin_anew(&connection.ready.cursor);
        }
        self.state.send_replace(State::Ready(socket));
        let mut connection = connection;
        let over = self.online(&mut connection).await;
        let code = match over {
            Over::Stopped => {
                connection.close().await;
                Some(CloseCode::Bye.code())
            }
            Over::Broken(code) => code,
            Over::Away(_) => None,
        };
        self.note(|| Entry::Closed { socket, code });
        self.state.send_replace(State::Connecting);
        self.outbox.lost();
        self.rereads.extend(self.rereads_later.drain(..));
        // A hole is in the views, and is mended by the next session, resumed or not.
        self.holes.clear();
        for (_, waiting) in std::mem::take(&mut self.waiting).into_values() {
            match waiting {
                // A caller that has given up is no trouble.
                Waiting::Caller(reply) => drop(reply.send(Err(Undone::Unknown))),
                // The next session may go on behind what this one did not get to read.
                Waiting::Reread(reread) => self.read_soon(reread),
                Waiting::Changes(..) | Waiting::Hello | Waiting::Ping => {}
            }
        }
        over
    }

    /// Writes a line, if there is a journal.
    pub(super) fn note(&self, entry: impl FnOnce() -> Entry) {
        if let Some(journal) = &self.journal {
            journal.write(entry());
        }
    }

    fn note_sign_in(&self) {
        let good_for = u64::try_from(self.session.good_for().as_micros()).unwrap_or(u64::MAX);
        self.note(|| Entry::SignedIn { until: self.clock.micros().saturating_add(good_for) });
    }

    /// A mark for the next request.
    pub(super) fn mark(&mut self) -> Ref {
        self.next_ref += 1;
        self.next_ref
    }

    /// A wait before `tries` + 1, never below what the server asked for.
    pub(super) fn pause(tries: u32, asked_ms: Option<u64>, random: &mut impl Rng) -> Duration {
        // A server that asks for hours would stop the run.
        let asked = Duration::from_millis(asked_ms.unwrap_or(0).min(10_000));
        backoff(tries, random).max(asked)
    }
}

/// The user's chats. One that was joined while the device was away is told by nothing else to a session that begins anew.
async fn list(session: &Session) -> Vec<ChatId> {
    let mut chats = Vec::new();
    let listing = async {
        for page in 1..=PAGES {
            let Ok(listed) = session.chats(page).await else { break };
            chats.extend(listed.results.iter().map(|chat| chat.id));
            if listed.results.is_empty() || page >= listed.total {
                break;
            }
        }
    };
    // Frames wait meanwhile; what is not listed in time is known by its next event.
    let _ = tokio::time::timeout(LISTED_WITHIN, listing).await;
    chats
}

/// What follows a close, by the table of close codes. A broken connection and codes of a later version: come back.
fn after(code: Option<u16>) -> Next {
    match code.and_then(CloseCode::from_code).map(CloseCode::reconnect) {
        Some(Reconnect::No) => Next::End(code),
        Some(Reconnect::AfterSignIn) => Next::SignIn,
        Some(Reconnect::Yes) | None => Next::Connect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_followed_by_what_the_table_says() {
        assert!(matches!(after(None), Next::Connect));
        assert!(matches!(after(Some(4004)), Next::Connect));
        assert!(matches!(after(Some(4999)), Next::Connect));
        assert!(matches!(after(Some(4002)), Next::SignIn));
        assert!(matches!(after(Some(4008)), Next::End(Some(4008))));
    }
}
