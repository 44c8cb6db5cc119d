//! How the fake server goes on where a session ended: what was missed, and what is asked for again.

use std::collections::BTreeMap;

use common::{
    ids::{ChatId, UserId},
    wire::client::{Changes, Hello, Resume},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::world::{Chat, Fault, Out, Socket, World, for_user};

/// What a session missed of one chat.
struct Missed {
    from: u64,
    to: u64,
    complete: bool,
    events: Vec<Value>,
}

impl Chat {
    /// How far the chat was at a stamp.
    fn at(&self, stamp: u64) -> u64 {
        self.events.iter().filter(|(_, (at, _))| *at <= stamp).map(|(seq, _)| *seq).max().unwrap_or(1)
    }

    fn after(&self, seq: u64, user: UserId) -> Vec<Value> {
        self.events.range(seq + 1..).map(|(_, (_, event))| for_user(event, user)).collect()
    }

    /// Where the user's part of the chat begins.
    fn since(&self, user: UserId) -> u64 {
        self.came.get(&user).map_or(0, |(seq, _)| *seq)
    }
}

impl World {
    pub(crate) fn connect(&mut self, user: UserId, outbox: mpsc::Sender<Out>, hello: Hello) -> u64 {
        self.next_socket += 1;
        let socket = self.next_socket;
        let device = hello.device.unwrap_or_default();
        let resume = hello.resume.as_ref().and_then(|resume| {
            self.resumes += 1;
            let cursor = resume.cursor.as_ref()?.parse::<u64>().ok()?;
            (self.fault != Fault::NoResume || !self.befalls()).then_some((cursor, resume))
        });
        let cursor = resume.map_or(self.stamp, |(cursor, _)| cursor);
        let ready = json!({
            "type": "ready", "ref": hello.ref_, "session": UserId::random(), "user": user, "node": "fake",
            "cursor": cursor.to_string(), "ping_interval_ms": 20_000, "resuming": resume.is_some(),
            "limits": { "frame_bytes": 65_536, "body_bytes": 16_384, "pending_sends": 64 }
        });
        self.sockets
            .insert(socket, Socket { user, device: device.clone(), outbox, resuming: resume.is_some() });
        self.answer(socket, &ready);
        if let Some((cursor, resume)) = resume {
            let taken = self.taken.remove(&device).unwrap_or(0);
            self.resume(socket, user, hello.ref_, cursor, resume, taken);
        }
        socket
    }

    fn befalls(&self) -> bool {
        self.every > 0 && self.resumes.is_multiple_of(self.every)
    }

    fn resume(&mut self, socket: u64, user: UserId, ref_: u64, cursor: u64, said: &Resume, taken: u64) {
        let befalls = self.befalls();
        let mut named: BTreeMap<ChatId, Missed> = BTreeMap::new();
        let mut joined = Vec::new();
        for (id, chat) in &self.chats {
            if !chat.members.contains(&user) {
                continue;
            }
            if chat.came.get(&user).is_some_and(|(_, stamp)| *stamp > cursor) {
                let seq = chat.since(user);
                joined.push(json!({ "type": "new_chat", "chat": self.view(*id), "seq": seq }));
            }
            let had = said.chats.get(id).copied().unwrap_or_else(|| chat.at(cursor));
            let from = had.max(chat.since(user)).max(if taken > 0 { chat.at(taken) } else { 0 });
            let events = chat.after(from, user);
            if !events.is_empty() || from > had && taken > 0 {
                named.insert(*id, Missed { from, to: chat.seq, complete: true, events });
            }
        }
        let gone = self.chats.iter().filter(|(_, chat)| chat.left.get(&user).is_some_and(|at| *at > cursor));
        let gone: Vec<ChatId> =
            gone.filter(|(_, chat)| !chat.members.contains(&user)).map(|(id, _)| *id).collect();
        if befalls {
            self.spoil(&mut named);
        }
        let late = befalls && self.fault == Fault::LateNewChat;
        if !late {
            joined.drain(..).for_each(|frame| self.answer(socket, &frame));
        }
        let all: usize = named.values().map(|missed| missed.events.len()).sum();
        for (n, event) in named.values().flat_map(|missed| &missed.events).enumerate() {
            if befalls && self.fault == Fault::CutInResume && n >= all / 2 {
                return self.cut(socket);
            }
            self.answer(socket, event);
        }
        for chat in gone {
            self.answer(socket, &json!({ "type": "chat_removed", "chat": chat }));
        }
        let told =
            |missed: &Missed| json!({ "from": missed.from, "to": missed.to, "complete": missed.complete });
        let chats: BTreeMap<ChatId, Value> =
            named.iter().map(|(chat, missed)| (*chat, told(missed))).collect();
        let resumed = json!({ "type": "resumed", "ref": ref_, "chats": chats }).to_string();
        if befalls && self.fault == Fault::SlowResume {
            let _ = self.sockets[&socket].outbox.try_send(Out::Later(resumed));
        } else {
            self.end_of_resume(socket, resumed);
        }
        joined.iter().for_each(|frame| self.answer(socket, frame));
    }

    /// Does to what was missed whatever is to be done wrong.
    fn spoil(&self, named: &mut BTreeMap<ChatId, Missed>) {
        match self.fault {
            Fault::Incomplete => {
                for missed in named.values_mut().step_by(2) {
                    missed.complete = false;
                    missed.events.drain(..missed.events.len().div_ceil(2));
                }
            }
            Fault::ForgetAnEdit => {
                for missed in named.values_mut() {
                    missed.events.retain(|event| event["type"] != "message_updated");
                }
            }
            Fault::ClaimComplete => {
                for missed in named.values_mut() {
                    missed.events.drain(..missed.events.len().div_ceil(2));
                }
            }
            Fault::Unnamed => drop(named.pop_first()),
            _ => {}
        }
    }

    /// Says `resumed`; cursors may follow.
    pub(crate) fn end_of_resume(&mut self, socket: u64, resumed: String) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.resuming = false;
            let _ = socket.outbox.try_send(Out::Frame(resumed));
        }
    }

    /// Whoever has been told everything is told where that is.
    pub(super) fn tell_cursors(&self) {
        let frame = json!({ "type": "cursor", "cursor": self.stamp.to_string() }).to_string();
        for socket in self.sockets.values().filter(|socket| !socket.resuming) {
            let _ = socket.outbox.try_send(Out::Frame(frame.clone()));
        }
    }

    pub(super) fn changes(&self, socket: u64, user: UserId, ask: &Changes) {
        let Some(chat) = self.chats.get(&ask.chat).filter(|chat| chat.members.contains(&user)) else {
            return self.refuse(socket, ask.ref_, "not_found", false);
        };
        let from = ask.after.max(chat.since(user));
        chat.after(from, user).iter().for_each(|event| self.answer(socket, event));
        let told = json!({ "from": from, "to": chat.seq.max(from), "complete": true });
        self.answer(
            socket,
            &json!({ "type": "resumed", "ref": ask.ref_, "chats": { ask.chat.to_string(): told } }),
        );
    }
}
