//! A device while its socket is open: commands in, frames out; frames in, journal, views and callers told.

use std::time::{Duration, Instant};

use common::{
    ids::ClientId,
    wire::{
        client::{
            Ack, Changes, ClientFrame, Delete, Edit, ErrorFrame, History, HistoryPage, Ping, React, Read,
            Ref, Send,
        },
        codes::ErrorCode,
    },
};

use super::{
    Command, Done, Outcome, Request, Undone,
    connection::{Connection, Gone, Received},
    device::{Device, Over, Waiting},
    frames::{Event, Happened, Incoming},
    views::Verdict,
};
use crate::journal::{Entry, Restart};

/// An answer that does not come: three times the node's own deadline. The device gives the connection up.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// How often a device looks at its clock when nothing happens.
const LOOK: Duration = Duration::from_secs(2);

/// Frames and commands taken at a turn before what they led to is written out: one write for many answers, and no turn long
/// enough to starve the other side.
const TURN: usize = 64;

/// Kept free of the node's limit of pending requests for what is not a send.
const SPARE_PENDING: u64 = 8;

/// What one session knows.
struct Turn {
    alive: Instant,
    idle_after: Duration,
    pinged: bool,
    fed: bool,
}

impl Device {
    /// Runs the session until it is over.
    pub(super) async fn online(&mut self, connection: &mut Connection) -> Over {
        let limits = connection.ready.limits;
        let pending = limits.pending_sends.saturating_sub(SPARE_PENDING).max(1);
        self.outbox.limit(usize::try_from(pending).unwrap_or(usize::MAX));
        let mut turn = Turn {
            alive: Instant::now(),
            // The node pings; two missed pings, and it is asked.
            idle_after: Duration::from_millis(connection.ready.ping_interval_ms.saturating_mul(2)).max(LOOK),
            pinged: false,
            fed: false,
        };
        let mut look = Instant::now() + LOOK;
        loop {
            if let Err(Gone) = self.pump(connection, &mut turn).await {
                return Over::Broken(None);
            }
            let wake = self.outbox.wake().map_or(look, |wake| wake.min(look));
            tokio::select! {
                received = connection.next() => {
                    turn.alive = Instant::now();
                    turn.pinged = false;
                    let mut received = Some(received);
                    for _ in 0..TURN {
                        match received {
                            Some(Received::Frame(frame)) => if let Some(over) = self.take(frame) {
                                return over;
                            },
                            Some(Received::Alive) => {}
                            Some(Received::Over(code)) => return Over::Broken(code),
                            None => break,
                        }
                        received = connection.at_hand();
                    }
                    if let Some(Received::Frame(frame)) = received
                        && let Some(over) = self.take(frame) {
                        return over;
                    }
                }
                command = self.inbox.recv() => {
                    let mut command = command.or(Some(Command::Stop));
                    for _ in 0..TURN {
                        let Some(now) = command else { break };
                        if let Some(over) = self.obey(now, connection, &mut turn).await {
                            return over;
                        }
                        command = self.inbox.try_recv().ok();
                    }
                    if let Some(last) = command
                        && let Some(over) = self.obey(last, connection, &mut turn).await {
                        return over;
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    if Instant::now() >= look {
                        look = Instant::now() + LOOK;
                        if self.look(connection, &mut turn).await.is_err() {
                            return Over::Broken(None);
                        }
                    }
                }
            }
        }
    }

    /// Writes out whatever may go now.
    async fn pump(&mut self, connection: &mut Connection, turn: &mut Turn) -> Result<(), Gone> {
        let now = Instant::now();
        loop {
            let ref_ = self.next_ref + 1;
            let Some((chat, item)) = self.outbox.next(ref_, now) else { break };
            self.next_ref = ref_;
            let retry = item.tries() > 1;
            let frame = Send {
                ref_,
                chat,
                client_id: item.client_id.clone(),
                body: item.body.clone(),
                kind: Default::default(),
                reply_to: None,
                attachments: Vec::new(),
                mentions: Vec::new(),
                mention_all: false,
                retry,
            };
            let order = item.order;
            self.note(|| Entry::Sending {
                order,
                chat,
                client_id: frame.client_id.clone(),
                body: crate::journal::Print::of(&frame.body),
                retry,
            });
            connection.feed(&ClientFrame::Send(frame)).await?;
            turn.fed = true;
        }
        while let Some((ref_, frame, waiting)) = self.next_to_mend() {
            self.ask(connection, ref_, frame, waiting).await?;
            turn.fed = true;
        }
        if std::mem::take(&mut turn.fed) { connection.flush().await } else { Ok(()) }
    }

    async fn ask(
        &mut self,
        connection: &mut Connection,
        ref_: Ref,
        frame: ClientFrame,
        waiting: Waiting,
    ) -> Result<(), Gone> {
        self.waiting.insert(ref_, (Instant::now(), waiting));
        connection.feed(&frame).await
    }

    /// Looks at the clock: is the node still there, and does it answer?
    async fn look(&mut self, connection: &mut Connection, turn: &mut Turn) -> Result<(), Gone> {
        let asked = self.waiting.first_key_value().map(|(_, (since, _))| *since);
        if asked
            .min(self.outbox.oldest())
            .or(self.outbox.oldest())
            .is_some_and(|since| since.elapsed() > ANSWER_WITHIN)
        {
            tracing::info!("a request stays without an answer: connecting anew");
            return Err(Gone);
        }
        self.rereads.extend(self.rereads_later.drain(..));
        if turn.alive.elapsed() > turn.idle_after && !turn.pinged {
            turn.pinged = true;
            let ref_ = self.mark();
            self.ask(connection, ref_, ClientFrame::Ping(Ping { ref_ }), Waiting::Ping).await?;
            turn.fed = true;
        }
        Ok(())
    }

    async fn obey(&mut self, command: Command, connection: &mut Connection, turn: &mut Turn) -> Option<Over> {
        match command {
            Command::Stop => return Some(Over::Stopped),
            Command::Break(away) => return Some(Over::Away(away)),
            Command::Post(post, room, reply) => self.write(*post, room, reply),
            Command::Follow(chat) => {
                self.shared.views.lock().follow(chat, None);
                self.doubt(chat, Restart::Opened);
            }
            Command::Request(request, reply) => {
                let ref_ = self.mark();
                let frame = match request {
                    Request::Edit { chat, number, body } => {
                        ClientFrame::Edit(Edit { ref_, chat, number, body })
                    }
                    Request::Delete { chat, number } => ClientFrame::Delete(Delete { ref_, chat, number }),
                    Request::React { chat, number, emoji, on } => {
                        ClientFrame::React(React { ref_, chat, number, emoji, on })
                    }
                    Request::Read { chat, number } => ClientFrame::Read(Read { ref_, chat, number }),
                    Request::Changes { chat, after } => ClientFrame::Changes(Changes { ref_, chat, after }),
                    Request::Newest { chat, before, limit } => {
                        ClientFrame::History(History { ref_, chat, before, after: None, limit: Some(limit) })
                    }
                };
                turn.fed = true;
                if self.ask(connection, ref_, frame, Waiting::Caller(reply)).await.is_err() {
                    return Some(Over::Broken(None));
                }
            }
        }
        None
    }

    fn take(&mut self, frame: Incoming) -> Option<Over> {
        match frame {
            Incoming::Event(event) => self.event(&event),
            Incoming::Ack(ack) => self.acked(ack),
            Incoming::Error(error) => return self.refused(error),
            Incoming::Page(page) => self.page(page),
            Incoming::Pong(ref_) => drop(self.waiting.remove(&ref_)),
            Incoming::NewChat { chat, seq } => {
                self.note(|| Entry::NewChat { chat, seq });
                self.shared.views.lock().follow(chat, Some(seq));
                self.whereabouts.moved(chat);
                self.shared.moved.notify_waiters();
            }
            Incoming::ChatRemoved(chat) => {
                self.note(|| Entry::ChatRemoved { chat });
                self.forget(chat);
            }
            Incoming::ChatReload(chat) => {
                self.note(|| Entry::ChatReload { chat });
                self.doubt(chat, Restart::Told);
            }
            Incoming::Resumed { ref_, chats } => self.resumed(ref_, &chats),
            Incoming::Cursor(cursor) => {
                self.note(|| Entry::Cursor { cursor: cursor.clone() });
                // Before `resumed`, not everything before any new one was shown.
                if !self.resuming {
                    self.whereabouts.at(&cursor, &self.shared.views.lock());
                }
            }
            Incoming::MessageRead { chat, user, number } => {
                self.note(|| Entry::ReadMark { chat, user, number });
                self.shared.views.lock().read_up_to(chat, user, number);
                self.shared.moved.notify_waiters();
            }
            Incoming::Moved => return Some(Over::Broken(None)),
            Incoming::Ready(_) | Incoming::Other => {}
        }
        None
    }

    fn event(&mut self, event: &Event) {
        self.note(|| Entry::Event(event.into()));
        let number = match &event.what {
            Happened::Message(message) => Some(message.number),
            _ => None,
        };
        let verdict = self.shared.views.lock().event(event.chat, event.seq, number);
        self.whereabouts.moved(event.chat);
        match verdict {
            Verdict::Repeat => return,
            Verdict::News => {}
            // What is missing while missed events are told is looked at when they have been.
            Verdict::AfterGap if self.resuming => {}
            Verdict::AfterGap => {
                self.observer.gap();
                self.mend_soon(event.chat);
            }
        }
        self.read_if_new(event.chat);
        self.observer.event(event, self.clock.micros());
        self.shared.moved.notify_waiters();
    }

    fn acked(&mut self, ack: Ack) {
        if let Some((_, Waiting::Caller(reply))) = self.waiting.remove(&ack.ref_) {
            // Only the answer to `read` has a number and no seq.
            let done = match (ack.seq, ack.number) {
                (None, Some(number)) => Done::Read(number),
                (seq, _) => Done::Ack(seq),
            };
            drop(reply.send(Ok(done)));
            return;
        }
        let Some((chat, item)) = self.outbox.done(ack.ref_) else { return };
        let (Some(id), Some(number), Some(seq)) = (ack.id, ack.number, ack.seq) else {
            tracing::error!(?ack, "an ack of a send without id, number or seq");
            return;
        };
        let client_id: ClientId = item.client_id;
        let repeat = ack.repeat;
        self.note(|| Entry::Acked { chat, client_id: client_id.clone(), id, number, seq, repeat });
        self.observer.acked(item.tag.scheduled, self.clock.micros());
        if let Some(reply) = item.tag.reply {
            // A caller that has given up is no trouble.
            drop(reply.send(Outcome::Acked { client_id, id, number, seq, repeat }));
        }
    }

    fn refused(&mut self, error: ErrorFrame) -> Option<Over> {
        let code = error.code;
        let Some(ref_) = error.ref_ else {
            tracing::warn!(code = code.word(), detail = error.detail, "an error that answers nothing");
            self.observer.refused(code, true);
            return None;
        };
        match self.waiting.remove(&ref_) {
            Some((_, Waiting::Caller(reply))) => {
                self.observer.refused(code, true);
                drop(reply.send(Err(Undone::Refused(code))));
                return None;
            }
            Some((_, Waiting::Reread(reread))) => {
                if code == ErrorCode::NotFound {
                    self.forget(reread.chat);
                } else if error.temporary {
                    self.rereads_later.push(reread);
                }
                return None;
            }
            Some((_, Waiting::Changes(chat, mark))) => {
                self.not_mended(chat, mark, code);
                return None;
            }
            Some((_, Waiting::Hello)) => {
                // It took the resume and cannot do it: the next session begins anew.
                self.whereabouts.anew("");
                return Some(Over::Broken(None));
            }
            Some((_, Waiting::Ping)) => return None,
            None => {}
        }
        if error.temporary {
            let after = |tries| Self::pause(tries, error.retry_after_ms, &mut rand::rng());
            let (chat, item) = self.outbox.again(ref_, Instant::now(), after)?;
            let client_id = item.client_id.clone();
            self.observer.refused(code, false);
            self.note(|| Entry::Refused { chat, client_id, code, last: false });
        } else if let Some((chat, item)) = self.outbox.done(ref_) {
            self.observer.refused(code, true);
            let client_id = item.client_id;
            self.note(|| Entry::Refused { chat, client_id: client_id.clone(), code, last: true });
            if let Some(reply) = item.tag.reply {
                drop(reply.send(Outcome::Refused { client_id, code }));
            }
        }
        None
    }

    fn page(&mut self, page: HistoryPage) {
        match self.waiting.remove(&page.ref_) {
            Some((_, Waiting::Caller(reply))) => drop(reply.send(Ok(Done::Page(page)))),
            Some((_, Waiting::Reread(reread))) => self.reread(reread, &page),
            _ => {}
        }
    }
}
