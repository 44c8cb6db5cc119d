//! What the fake server keeps, and what it does wrong when it is told to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::{
    ids::{AppId, ChatId, ClientId, MessageId, UserId},
    model::{Head, Message, MessageKind},
    time::Millis,
    wire::client::{ClientFrame, Read, Send},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What is done at every so many-eth send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// All is well.
    None,
    /// Says `retry_later` and does not store.
    RetryLater,
    /// Says `unknown` and has stored.
    UnknownButStored,
    /// Says `unknown` and has not stored.
    UnknownNotStored,
    /// Stores and cuts the connection instead of answering.
    CutAfterStoring,
    /// Cuts the connection instead of storing.
    CutBeforeStoring,
    /// Acknowledges and stores nothing.
    Lose,
    /// Stores what it refuses.
    RefuseAndStore,
    /// Cuts the connection, has stored, and knows nothing of it when it is sent again.
    ForgetNames,
    /// Stores something that nobody has sent.
    Invent,
    /// Tells nobody of the message.
    LoseEvent,
    /// Tells everybody twice.
    DoubleEvent,
    /// Tells of a message only after the next one.
    LateEvent,
    /// Tells the sender another number than the others.
    TwoNumbers,
    /// Puts a message before the one that came before it.
    Overtake,
    /// Tells strangers, too.
    Leak,
    /// Goes on telling those who were removed, and takes what they write.
    KeepRemoved,
    /// Leaves a number out.
    Skip,
    /// Closes with this code instead of storing.
    Close(u16),
    /// As above, and the token is no longer good.
    Revoke,
    /// Says that the user's place is elsewhere, and stores.
    Move,
    /// Resuming, cuts the connection in the middle. This and the following ones befall every so many-eth resume.
    CutInResume,
    /// Resuming, says that some chats are not complete, and shows only the end of what was missed.
    Incomplete,
    /// Resuming, takes its time to say that it is done, and shows what happens meanwhile.
    SlowResume,
    /// Resuming, tells of chats joined meanwhile last.
    LateNewChat,
    /// Does not resume.
    NoResume,
    /// Resuming, shows no edits.
    ForgetAnEdit,
    /// Resuming, shows only the end of what was missed, and calls it complete.
    ClaimComplete,
    /// Resuming, shows nothing of one chat and does not name it.
    Unnamed,
    /// Cuts the connections of those who are to be told of a message, and thinks that they were.
    LoseTheLast,
}

pub(crate) enum Out {
    Frame(String),
    Later(String),
    Close(u16),
    Cut,
}

/// An open socket.
pub(crate) struct Socket {
    pub(super) user: UserId,
    pub(super) device: String,
    pub(super) outbox: mpsc::Sender<Out>,
    /// It is being told what it missed: cursors wait.
    pub(super) resuming: bool,
}

#[derive(Default)]
pub(super) struct Chat {
    owner: Option<UserId>,
    pub(super) members: BTreeSet<UserId>,
    removed: BTreeSet<UserId>,
    /// Where, and at which stamp, each member came in; at which stamp each left.
    pub(super) came: HashMap<UserId, (u64, u64)>,
    pub(super) left: HashMap<UserId, u64>,
    /// Every event by its seq, with its stamp.
    pub(super) events: BTreeMap<u64, (u64, Value)>,
    pub(super) seq: u64,
    next_number: u64,
    messages: Vec<Message>,
    names: HashMap<(UserId, ClientId), (MessageId, u64, u64)>,
    late: Vec<Value>,
}

pub(crate) struct World {
    pub(super) fault: Fault,
    pub(super) every: u64,
    /// Counts whatever happens in any chat: a cursor is one of these.
    pub(super) stamp: u64,
    pub(super) resumes: u64,
    /// Up to which stamp a device is taken to have been told everything.
    pub(super) taken: HashMap<String, u64>,
    sends: u64,
    pub(crate) users: HashMap<String, UserId>,
    pub(crate) tokens: HashMap<String, UserId>,
    pub(crate) tickets: HashMap<String, UserId>,
    pub(crate) sockets: BTreeMap<u64, Socket>,
    pub(super) next_socket: u64,
    marks: HashMap<(ChatId, UserId), u64>,
    pub(super) chats: HashMap<ChatId, Chat>,
    /// Sends that a device must not be told of in order: held until the next one is stored.
    held: Option<(u64, UserId, Send)>,
}

/// A cursor is told whenever so many things have happened.
const CURSOR_EVERY: u64 = 8;

/// An event as this user is shown it.
pub(super) fn for_user(event: &Value, user: UserId) -> Value {
    let mut event = event.clone();
    if event["type"] == "new_message" && event["message"]["from"] != json!(user) {
        event["message"].as_object_mut().unwrap().remove("client_id");
    }
    event
}

impl World {
    pub(crate) fn new(fault: Fault, every: u64) -> Self {
        Self {
            fault,
            every,
            stamp: 0,
            resumes: 0,
            taken: HashMap::new(),
            sends: 0,
            users: HashMap::new(),
            tokens: HashMap::new(),
            tickets: HashMap::new(),
            sockets: BTreeMap::new(),
            next_socket: 0,
            marks: HashMap::new(),
            chats: HashMap::new(),
            held: None,
        }
    }

    pub(crate) fn is_member(&self, chat: ChatId, user: UserId) -> bool {
        self.chats.get(&chat).is_some_and(|chat| {
            chat.members.contains(&user) || self.fault == Fault::KeepRemoved && chat.removed.contains(&user)
        })
    }

    pub(crate) fn direct(&mut self, one: UserId, other: UserId) -> ChatId {
        let id = ChatId::direct(AppId::DEFAULT, one, other);
        if !self.chats.contains_key(&id) {
            self.found(id, one, [one, other].into());
        }
        id
    }

    pub(crate) fn group(&mut self, owner: UserId, mut members: BTreeSet<UserId>) -> ChatId {
        let id = ChatId::random();
        members.insert(owner);
        self.found(id, owner, members);
        id
    }

    fn found(&mut self, id: ChatId, owner: UserId, members: BTreeSet<UserId>) {
        self.stamp += 1;
        let came = members.iter().map(|member| (*member, (1, self.stamp))).collect();
        let chat = Chat { owner: Some(owner), members: members.clone(), came, seq: 1, ..Chat::default() };
        self.chats.insert(id, chat);
        for member in members {
            self.tell(member, &json!({ "type": "new_chat", "chat": self.view(id), "seq": 1 }));
        }
    }

    pub(crate) fn view(&self, id: ChatId) -> Value {
        let chat = &self.chats[&id];
        let at = Millis::now();
        let member = |id: &UserId| json!({ "id": id, "name": "", "role": "member", "joined_at": at });
        json!({
            "id": id, "number": 1, "kind": "group", "name": "", "description": null,
            "members": chat.members.iter().map(member).collect::<Vec<_>>(), "members_count": chat.members.len(),
            "messages_count": chat.messages.len(), "created_at": at, "created_by": chat.owner, "last_message": null,
            "unread_count": 0, "seq": chat.seq
        })
    }

    /// The user's chats, with what is unread in them.
    pub(crate) fn list(&self, user: UserId) -> Vec<Value> {
        let mine = self.chats.iter().filter(|(_, chat)| chat.members.contains(&user));
        mine.map(|(id, chat)| {
            let own = chat.messages.iter().filter(|message| message.from == user);
            let own = own.map(|message| message.number).max().unwrap_or(0);
            let mark = self.marks.get(&(*id, user)).copied().unwrap_or(0);
            let before = chat.events.range(..=chat.came[&user].0);
            let before = before.filter(|(_, (_, event))| event["type"] == "new_message").count() as u64;
            let read = own.max(mark).max(before);
            let mut view = self.view(*id);
            view["unread_count"] = json!((chat.messages.len() as u64).saturating_sub(read));
            view
        })
        .collect()
    }

    pub(crate) fn page(&self, id: ChatId, after: Option<u64>, limit: usize) -> (Vec<Message>, Head) {
        let chat = &self.chats[&id];
        let newest = chat.messages.iter().map(|message| message.number).max().unwrap_or(0);
        let head = Head { number: newest, seq: chat.seq };
        let mut messages: Vec<Message> = chat.messages.clone();
        messages.sort_by_key(|message| message.number);
        match after {
            Some(after) => messages.retain(|message| message.number > after),
            None => messages.reverse(),
        }
        messages.truncate(limit);
        messages.iter_mut().for_each(|message| message.client_id = None);
        (messages, head)
    }

    pub(crate) fn join(&mut self, id: ChatId, by: UserId, user: UserId) {
        let chat = self.chats.get_mut(&id).unwrap();
        if chat.members.contains(&user) {
            return;
        }
        self.event(id, json!({ "type": "member_joined", "by": by, "user": user, "role": "member" }));
        let chat = self.chats.get_mut(&id).unwrap();
        chat.members.insert(user);
        chat.removed.remove(&user);
        let seq = chat.seq;
        chat.came.insert(user, (seq, self.stamp));
        self.tell(user, &json!({ "type": "new_chat", "chat": self.view(id), "seq": seq }));
    }

    pub(crate) fn leave(&mut self, id: ChatId, by: UserId, user: UserId) {
        let chat = self.chats.get_mut(&id).unwrap();
        chat.members.remove(&user);
        chat.removed.insert(user);
        self.event(id, json!({ "type": "member_left", "by": by, "user": user }));
        self.chats.get_mut(&id).unwrap().left.insert(user, self.stamp);
        if self.fault != Fault::KeepRemoved {
            self.tell(user, &json!({ "type": "chat_removed", "chat": id }));
        }
    }

    fn tell(&self, user: UserId, frame: &Value) {
        for socket in self.sockets.values().filter(|socket| socket.user == user) {
            let _ = socket.outbox.try_send(Out::Frame(frame.to_string()));
        }
    }

    /// Numbers an event and tells the members.
    fn event(&mut self, id: ChatId, mut event: Value) {
        let chat = self.chats.get_mut(&id).unwrap();
        chat.seq += 1;
        event["chat"] = json!(id);
        event["seq"] = json!(chat.seq);
        event["at"] = json!(Millis::now());
        self.stamp += 1;
        chat.events.insert(chat.seq, (self.stamp, event.clone()));
        self.publish(id, event);
        if self.stamp.is_multiple_of(CURSOR_EVERY) {
            self.tell_cursors();
        }
    }

    fn publish(&mut self, id: ChatId, event: Value) {
        let wrong = self.is_wrong();
        let chat = self.chats.get_mut(&id).unwrap();
        let is_message = event["type"] == "new_message";
        let mut events = vec![event];
        match self.fault {
            Fault::LoseEvent if wrong && is_message => events.clear(),
            Fault::DoubleEvent if wrong && is_message => events.push(events[0].clone()),
            Fault::LateEvent if wrong && is_message => chat.late.append(&mut events),
            Fault::LateEvent => events.append(&mut chat.late),
            _ => {}
        }
        for event in events {
            let chat = &self.chats[&id];
            let mut lost = Vec::new();
            for (socket, Socket { user, outbox, .. }) in &self.sockets {
                let mut event = for_user(&event, *user);
                let sender = event["message"]["from"] == json!(user);
                if self.fault == Fault::TwoNumbers && wrong && sender {
                    event["message"]["number"] = json!(event["message"]["number"].as_u64().unwrap() + 1_000);
                }
                let told = chat.members.contains(user)
                    || self.fault == Fault::Leak && wrong
                    || self.fault == Fault::KeepRemoved && chat.removed.contains(user);
                if told && self.fault == Fault::LoseTheLast && wrong && is_message && !sender {
                    lost.push(*socket);
                } else if told {
                    let _ = outbox.try_send(Out::Frame(event.to_string()));
                }
            }
            for socket in lost {
                let device = self.sockets[&socket].device.clone();
                self.taken.insert(device, self.stamp);
                self.cut(socket);
            }
        }
    }

    fn is_wrong(&self) -> bool {
        self.every > 0 && self.sends.is_multiple_of(self.every)
    }

    pub(crate) fn take(&mut self, socket: u64, user: UserId, frame: ClientFrame) {
        // What arrives on a connection after it was cut would overtake what was cut off.
        if !self.sockets.contains_key(&socket) {
            return;
        }
        match frame {
            ClientFrame::Send(send) => self.send(socket, user, send),
            // Nobody shows it here.
            ClientFrame::Typing(_) => {}
            ClientFrame::Edit(edit) => {
                let done = self.change(edit.chat, edit.number, user, |message| {
                    message.body.clone_from(&edit.body);
                    message.edited_at = Some(Millis::now());
                    true
                });
                self.changed(socket, edit.ref_, edit.chat, done);
            }
            ClientFrame::Delete(delete) => {
                let done = self.change(delete.chat, delete.number, user, |message| {
                    message.body.clear();
                    message.deleted = true;
                    false
                });
                self.changed(socket, delete.ref_, delete.chat, done);
            }
            ClientFrame::History(ask) => {
                if !self.is_member(ask.chat, user) {
                    return self.refuse(socket, ask.ref_, "not_found", false);
                }
                let (messages, head) = self.page(ask.chat, ask.after, ask.limit.unwrap_or(50) as usize);
                let page = json!({ "type": "page", "ref": ask.ref_, "chat": ask.chat, "messages": messages, "head": head, "complete": true });
                self.answer(socket, &page);
            }
            ClientFrame::Read(read) => self.read(socket, user, read),
            ClientFrame::React(react) => {
                let done = self.change(react.chat, react.number, user, |_| true);
                self.changed(socket, react.ref_, react.chat, done);
            }
            ClientFrame::Ping(ping) => self.answer(socket, &json!({ "type": "pong", "ref": ping.ref_ })),
            ClientFrame::Changes(ask) => self.changes(socket, user, &ask),
            ClientFrame::Hello(_) => panic!("hello twice"),
        }
    }

    fn read(&mut self, socket: u64, user: UserId, read: Read) {
        let Read { ref_, chat, number } = read;
        if !self.is_member(chat, user) {
            return self.refuse(socket, ref_, "not_found", false);
        }
        let head = self.chats.get(&chat).map_or(0, |chat| chat.messages.len() as u64);
        let mark = self.marks.entry((chat, user)).or_default();
        let moved = number.min(head) > *mark;
        *mark = (*mark).max(number.min(head));
        let number = *mark;
        self.answer(socket, &json!({ "type": "ack", "ref": ref_, "chat": chat, "number": number }));
        if moved {
            let told = json!({ "type": "message_read", "chat": chat, "user": user, "number": number });
            let others =
                self.sockets.iter().filter(|(other, to)| **other != socket && self.is_member(chat, to.user));
            others.for_each(|(other, _)| self.answer(*other, &told));
        }
    }

    pub(super) fn answer(&self, socket: u64, frame: &Value) {
        if let Some(Socket { outbox, .. }) = self.sockets.get(&socket) {
            let _ = outbox.try_send(Out::Frame(frame.to_string()));
        }
    }

    pub(super) fn refuse(&self, socket: u64, ref_: u64, code: &str, temporary: bool) {
        let error =
            json!({ "type": "error", "ref": ref_, "code": code, "detail": "", "temporary": temporary });
        self.answer(socket, &error);
    }

    pub(super) fn cut(&mut self, socket: u64) {
        self.end(socket, Out::Cut);
    }

    fn close(&mut self, socket: u64, code: u16) {
        self.end(socket, Out::Close(code));
    }

    fn end(&mut self, socket: u64, how: Out) {
        if let Some(Socket { outbox, .. }) = self.sockets.remove(&socket) {
            let _ = outbox.try_send(how);
        }
    }

    /// Changes a message of the user's own; the closure says whether it is an edit.
    fn change(
        &mut self,
        id: ChatId,
        number: u64,
        user: UserId,
        how: impl FnOnce(&mut Message) -> bool,
    ) -> Option<u64> {
        if !self.is_member(id, user) {
            return None;
        }
        let chat = self.chats.get_mut(&id)?;
        let message = chat
            .messages
            .iter_mut()
            .find(|message| message.number == number && message.from == user && !message.deleted)?;
        let event = if how(message) {
            json!({ "type": "message_updated", "by": user, "message": message })
        } else {
            json!({ "type": "message_deleted", "by": user, "number": number })
        };
        self.event(id, event);
        Some(self.chats[&id].seq)
    }

    fn changed(&self, socket: u64, ref_: u64, chat: ChatId, seq: Option<u64>) {
        match seq {
            Some(seq) => {
                self.answer(socket, &json!({ "type": "ack", "ref": ref_, "chat": chat, "seq": seq }))
            }
            None => self.refuse(socket, ref_, "not_found", false),
        }
    }

    fn send(&mut self, socket: u64, user: UserId, send: Send) {
        if !self.is_member(send.chat, user) {
            return self.refuse(socket, send.ref_, "not_found", false);
        }
        self.sends += 1;
        let wrong = self.is_wrong();
        match self.fault {
            Fault::RetryLater if wrong => return self.refuse(socket, send.ref_, "retry_later", true),
            Fault::UnknownNotStored if wrong => return self.refuse(socket, send.ref_, "unknown", true),
            Fault::CutBeforeStoring if wrong => return self.cut(socket),
            Fault::UnknownButStored if wrong => {
                self.store(user, &send);
                return self.refuse(socket, send.ref_, "unknown", true);
            }
            Fault::CutAfterStoring if wrong => {
                self.store(user, &send);
                return self.cut(socket);
            }
            Fault::ForgetNames if wrong => {
                self.store(user, &send);
                self.chats.get_mut(&send.chat).unwrap().names.clear();
                return self.cut(socket);
            }
            Fault::RefuseAndStore if wrong => {
                self.store(user, &send);
                return self.refuse(socket, send.ref_, "forbidden", false);
            }
            Fault::Invent if wrong => {
                let invented = Send {
                    body: "invented".into(),
                    client_id: ClientId::new("invented").unwrap(),
                    ..send.clone()
                };
                self.store(user, &invented);
            }
            Fault::Close(code) if wrong => return self.close(socket, code),
            Fault::Revoke if wrong => {
                self.tokens.clear();
                return self.close(socket, 4003);
            }
            Fault::Move if wrong => {
                self.answer(socket, &json!({ "type": "moved", "url": "", "within_ms": 1_000 }))
            }
            Fault::Skip if wrong => self.chats.get_mut(&send.chat).unwrap().next_number += 1,
            Fault::Overtake if wrong && self.held.is_none() => {
                self.held = Some((socket, user, send));
                return;
            }
            _ => {}
        }
        self.store_and_ack(socket, user, &send);
        if wrong && self.fault == Fault::Lose {
            self.chats.get_mut(&send.chat).unwrap().messages.pop();
        }
        if let Some((socket, user, held)) = self.held.take() {
            self.store_and_ack(socket, user, &held);
        }
    }

    fn store_and_ack(&mut self, socket: u64, user: UserId, send: &Send) {
        let (id, number, seq, repeat) = self.store(user, send);
        let mut ack = json!({
            "type": "ack", "ref": send.ref_, "chat": send.chat, "seq": seq, "client_id": send.client_id, "id": id,
            "number": number, "created_at": Millis::now()
        });
        if repeat {
            ack["repeat"] = json!(true);
        }
        self.answer(socket, &ack);
    }

    fn store(&mut self, user: UserId, send: &Send) -> (MessageId, u64, u64, bool) {
        let chat = self.chats.get_mut(&send.chat).unwrap();
        let name = (user, send.client_id.clone());
        if let Some((id, number, seq)) = chat.names.get(&name) {
            return (*id, *number, *seq, true);
        }
        chat.next_number += 1;
        let number = chat.next_number;
        let message = Message {
            id: MessageId::random(),
            chat: send.chat,
            room_id: send.chat,
            number,
            from: user,
            body: send.body.clone(),
            kind: MessageKind::Text,
            created_at: Millis::now(),
            edited_at: None,
            deleted: false,
            expired: false,
            reply_to: None,
            attachments: Vec::new(),
            reactions: Vec::new(),
            mentions: Vec::new(),
            mention_all: false,
            client_id: Some(send.client_id.clone()),
        };
        let seq = chat.seq + 1;
        chat.names.insert(name, (message.id, number, seq));
        chat.messages.push(message.clone());
        let id = message.id;
        self.event(send.chat, json!({ "type": "new_message", "by": user, "message": message }));
        (id, number, seq, false)
    }
}
