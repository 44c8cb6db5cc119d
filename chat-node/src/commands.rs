//! What clients may ask for about chats, behind both doors: fields are checked here, decided is by the chat's owner, and what is
//! answered is read from where it stands. Reading messages is in [`crate::history`].
//!
//! Absent on purpose: who may do what (the owner's policy), and the forms of REST and of frames (`api`, `session`).

use std::{collections::HashSet, sync::Arc};

use common::{
    ids::{ChatId, ChatKey, ClientId, MessageId, Number, Seq, SocketId, UserId},
    model::{ChatView, ChatsPage, MemberView, Message, MessageKind, Page, PageRequest, Role, limits},
    problem::Problem,
    store::{ReadMark, SharedStore},
    token::Caller,
    wire::{
        client::FieldError,
        codes::ErrorCode,
        owner::{Answer, Ask, Draft, OwnerRequest, Sent},
    },
};

use crate::{
    ask::AskOwner,
    check::Checks,
    reads::{Reads, readable},
};

/// Ids in one query for users: what the store takes at once.
const USERS_PER_QUERY: usize = 1_000;

/// How often a group of several records is asked for again when its owner has not answered: with the first ask 15 s, as long as a request
/// may take.
const LARGE_AGAIN: usize = 2;

/// The commands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Commands {
    pub(crate) owners: Arc<dyn AskOwner>,
    pub(crate) store: SharedStore,
    pub(crate) reads: Reads,
}

/// A message that the log has, and whether it was there before this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The message as it was first written.
    pub message: Message,
    /// Whether an earlier request with the same `client_id` wrote it.
    pub repeat: bool,
}

/// A chat that exists now, and whether this request made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The chat as the caller sees it.
    pub chat: ChatView,
    /// Whether this request made it.
    pub made: bool,
}

/// A group that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewGroup {
    /// Its name; without one it is shown by its members' names.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Who is in it; the caller is in any case.
    pub members: Vec<UserId>,
    /// Its first message's text.
    pub first: Option<String>,
}

impl Commands {
    /// Commands that ask `owners`, read from `store`, and move read marks by way of `reads`.
    pub fn new(owners: Arc<dyn AskOwner>, store: SharedStore, reads: Reads) -> Self {
        Self { owners, store, reads }
    }

    /// A message that may be sent.
    ///
    /// # Errors
    /// `invalid` with the fields, `too_large`.
    pub fn draft(&self, mut draft: Draft) -> Result<Draft, Problem> {
        let Draft { body, reply_to, attachments, mentions, .. } = &mut draft;
        let mut checks = Checks::default();
        checks.body(body, !attachments.is_empty());
        checks.attachments(attachments);
        // Numbers are kept in signed 64 bits.
        if reply_to.is_some_and(|number| number == 0 || i64::try_from(number).is_err()) {
            checks.wrong("reply_to", "must be the number of a message, from 1");
        }
        let mut seen = HashSet::new();
        mentions.retain(|user| seen.insert(*user));
        if mentions.len() > limits::MENTIONS {
            checks.wrong("mentions", format!("must be at most {}", limits::MENTIONS));
        }
        checks.done()?;
        Ok(draft)
    }

    /// Sends one message and waits until the log has it. Sockets use lanes instead, which keep a device's order.
    ///
    /// # Errors
    /// The owner's refusals, `not_found` to who is not in the chat, `id_conflict`, `retry_later`, `unknown`.
    pub async fn send(&self, caller: &Caller, chat: ChatId, mut draft: Draft) -> Result<Written, Problem> {
        // Asking the owner again after a break must not write it twice, so it needs a name even when its client gave it none.
        let named = draft.client_id.is_some();
        if !named {
            draft.client_id = ClientId::new(&MessageId::random().to_string()).ok();
        }
        let answer = self.ask(caller, chat, false, Ask::Send(vec![draft.clone()])).await;
        let sent = match answer {
            Answer::Sent(mut outcomes) => match outcomes.pop() {
                Some(Ok(sent)) if outcomes.is_empty() => sent,
                Some(Err(refusal)) if outcomes.is_empty() => return Err(refusal.into()),
                _ => return Err(undone(Answer::Sent(outcomes))),
            },
            other => return Err(undone(other)),
        };
        if !named {
            draft.client_id = None;
        }
        let repeat = named && sent.repeat;
        Ok(Written { message: written(caller, chat, draft, sent), repeat })
    }

    /// Changes a message's text; answers the change's place in the chat.
    ///
    /// # Errors
    /// `invalid`, `too_large`, `not_found`, `forbidden`, `retry_later`, `unknown`.
    pub async fn edit(
        &self,
        caller: &Caller,
        chat: ChatId,
        number: Number,
        body: String,
    ) -> Result<Seq, Problem> {
        let mut checks = Checks::default();
        checks.body(&body, false);
        checks.done()?;
        self.change(caller, chat, Ask::Edit { number, body }).await
    }

    /// Deletes a message, which keeps its number; answers the change's place in the chat.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `retry_later`, `unknown`.
    pub async fn delete(&self, caller: &Caller, chat: ChatId, number: Number) -> Result<Seq, Problem> {
        self.change(caller, chat, Ask::Erase { number }).await
    }

    /// Answers a message with an emoji, or takes that back; once, however often it is asked. Answers the change's place in the chat.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `too_large` (too many different emoji), `retry_later`, `unknown`.
    pub async fn react(
        &self,
        caller: &Caller,
        chat: ChatId,
        number: Number,
        emoji: String,
        on: bool,
    ) -> Result<Seq, Problem> {
        let mut checks = Checks::default();
        checks.emoji(&emoji);
        checks.done()?;
        self.change(caller, chat, Ask::React { number, emoji, on }).await
    }

    /// Opens the one direct chat of the caller and `host`.
    ///
    /// # Errors
    /// `invalid` for a chat with oneself, `not_found` when there is no such user, `retry_later`, `unknown`.
    pub async fn open_direct(&self, caller: &Caller, host: UserId) -> Result<Opened, Problem> {
        if host == caller.user {
            return Err(Problem::invalid(FieldError::body("host_id", "must be another user")));
        }
        self.user_exists(caller, host).await?;
        let chat = ChatId::direct(caller.app, caller.user, host);
        let answer = self
            .ask(caller, chat, false, Ask::OpenDirect { peer: host, request: Some(rand::random()) })
            .await;
        self.opened(caller, chat, answer).await
    }

    /// Makes a group. Under an idempotency key it is made once, however often this is asked; what an earlier try left undone is done.
    ///
    /// # Errors
    /// `invalid` with the fields, `too_large`, `id_conflict` (another group, or another text for it, under the same key), `retry_later`,
    /// `unknown`.
    pub async fn create_group(
        &self,
        caller: &Caller,
        group: NewGroup,
        key: Option<&ClientId>,
    ) -> Result<Opened, Problem> {
        let NewGroup { name, description, mut members, first } = group;
        let mut checks = Checks::default();
        checks.name(name.as_deref());
        checks.description(description.as_deref());
        let mut seen = HashSet::with_capacity(members.len());
        for (at, member) in members.iter().enumerate() {
            if !seen.insert(*member) {
                checks.wrong(format!("members[{at}]"), "is named twice");
            }
        }
        // With the caller, who need not be named.
        seen.insert(caller.user);
        if seen.len() > limits::MEMBERS {
            checks.wrong("members", format!("must be at most {}, you included", limits::MEMBERS));
        }
        if let Some(first) = &first {
            checks.body(first, false);
        }
        checks.done()?;
        self.members_exist(caller, &members).await?;
        members.retain(|member| *member != caller.user);

        let chat = match key {
            Some(key) => ChatId::keyed(caller.app, caller.user, key.as_str()),
            None => ChatId::random(),
        };
        // Named after the chat, so that a try that goes on where another broke off knows whether it is there; and not after the
        // key, which the caller may use in the chat as well.
        let named = ClientId::new(&format!("first-{chat}")).ok();
        let first = first.map(|body| Draft {
            client_id: named,
            body,
            kind: MessageKind::Text,
            reply_to: None,
            attachments: Vec::new(),
            mentions: Vec::new(),
            mention_all: false,
            retry: true,
        });
        let first = first.map(|first| self.draft(first)).transpose()?;
        let large = members.len() >= limits::MEMBERS_PER_RECORD;
        let ask = Ask::CreateGroup { name, description, members, first };
        let mut answer = self.ask(caller, chat, key.is_some(), ask.clone()).await;
        for _ in 0..LARGE_AGAIN {
            // Its rows may take longer than one ask waits. What is there already is not made twice.
            if !(large && answer == Answer::Unknown) {
                break;
            }
            answer = self.ask(caller, chat, true, ask.clone()).await;
        }
        let opened = self.opened(caller, chat, answer).await?;
        // Nobody else can have made a chat with a random id: what was there already is this request's own work, whose answer
        // was lost on the way.
        Ok(Opened { made: opened.made || key.is_none(), ..opened })
    }

    /// Lets somebody into a group, once; answers when the store shows it.
    ///
    /// # Errors
    /// `not_found` (the chat, or the user), `forbidden`, `retry_later`, `unknown`.
    pub async fn add_member(&self, caller: &Caller, chat: ChatId, user: UserId) -> Result<Seq, Problem> {
        self.user_exists(caller, user).await?;
        self.change(caller, chat, Ask::AddMember { user }).await
    }

    /// Lets somebody into a group as this, or makes a member this; the group is handed over when its owner makes another its owner. Answers
    /// when the store shows it.
    ///
    /// # Errors
    /// `not_found` (the chat, or the user), `forbidden`, `retry_later`, `unknown`.
    pub async fn set_role(
        &self,
        caller: &Caller,
        chat: ChatId,
        user: UserId,
        role: Role,
    ) -> Result<Seq, Problem> {
        self.user_exists(caller, user).await?;
        self.change(caller, chat, Ask::SetRole { user, role }).await
    }

    /// Removes somebody from a group, or leaves it; answers when the store shows it.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `retry_later`, `unknown`.
    pub async fn remove_member(&self, caller: &Caller, chat: ChatId, user: UserId) -> Result<Seq, Problem> {
        self.change(caller, chat, Ask::RemoveMember { user }).await
    }

    /// Changes a group's name or description; what is absent stays.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `forbidden`, `retry_later`, `unknown`.
    pub async fn update_chat(
        &self,
        caller: &Caller,
        chat: ChatId,
        name: Option<String>,
        description: Option<String>,
    ) -> Result<ChatView, Problem> {
        let mut checks = Checks::default();
        checks.name(name.as_deref());
        checks.description(description.as_deref());
        if name.is_none() && description.is_none() {
            checks.wrong("name", "name or description was expected");
        }
        checks.done()?;
        let ask = Ask::Update { name: name.clone(), description: description.clone() };
        let seq = self.change(caller, chat, ask).await?;
        let mut view = self.chat(caller, chat).await.map_err(after_writing)?;
        // A new name is answered when the log has it: the store may follow a moment later.
        if view.seq < seq {
            if let Some(name) = name {
                view.name = name;
            }
            if let Some(description) = description {
                view.description = Some(description).filter(|text| !text.is_empty());
            }
        }
        Ok(view)
    }

    /// Deletes a chat; answers when the store shows it.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `retry_later`, `unknown`.
    pub async fn delete_chat(&self, caller: &Caller, chat: ChatId) -> Result<Seq, Problem> {
        self.change(caller, chat, Ask::DeleteChat).await
    }

    /// A page of the caller's chats, most recent activity first.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn chats(&self, caller: &Caller, page: PageRequest) -> Result<ChatsPage, Problem> {
        let mut page = self.store.chats_of(caller.app, caller.user, page).await?;
        for chat in &mut page.results {
            hide_client_id(caller, chat.last_message.as_mut());
        }
        Ok(page)
    }

    /// Moves the caller's read mark forward to a message, on behalf of one of the caller's sockets or of none; answers where it stands when
    /// the store has it. It never goes back, and never past the chat's head: `seen` is how far that is to the asker's knowledge (0: not
    /// known). Past both that and what is stored, the chat's owner is asked how far the log is; when it is silent, the mark stays at what
    /// is known, and the answer says so.
    ///
    /// # Errors
    /// `invalid`, `not_found` to who is not in the chat, `retry_later`.
    pub async fn read(
        &self,
        caller: &Caller,
        chat: ChatId,
        number: Number,
        socket: Option<SocketId>,
        seen: Number,
    ) -> Result<Number, Problem> {
        let chat_key = ChatKey { app: caller.app, chat };
        let mark = ReadMark { chat: chat_key, user: caller.user, number: readable(number)?, head: seen };
        let not_found = || Problem::not_found("chat");
        let marked = self.reads.mark(mark, socket).await?.ok_or_else(not_found)?.number;
        if marked >= number {
            return Ok(marked);
        }
        let head = match self.ask(caller, chat, false, Ask::Recent).await {
            Answer::Recent { head, .. } => head.number,
            Answer::Unknown | Answer::NotOwner => return Ok(marked),
            Answer::Refused(refusal) if refusal.code.temporary() => return Ok(marked),
            other => return Err(undone(other)),
        };
        if number.min(head) <= marked {
            return Ok(marked);
        }
        let marked = self.reads.mark(ReadMark { head, ..mark }, socket).await?.ok_or_else(not_found)?;
        Ok(marked.number)
    }

    /// One chat of the caller.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn chat(&self, caller: &Caller, chat: ChatId) -> Result<ChatView, Problem> {
        let key = ChatKey { app: caller.app, chat };
        let mut view =
            self.store.chat_view(key, caller.user).await?.ok_or_else(|| Problem::not_found("chat"))?;
        hide_client_id(caller, view.last_message.as_mut());
        Ok(view)
    }

    /// A page of a chat's members, in order of joining.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn members(
        &self,
        caller: &Caller,
        chat: ChatId,
        page: PageRequest,
    ) -> Result<Page<MemberView>, Problem> {
        let key = ChatKey { app: caller.app, chat };
        self.store.members(key, caller.user, page).await?.ok_or_else(|| Problem::not_found("chat"))
    }

    /// Asks the owner of one of the caller's chats.
    pub(crate) async fn ask(&self, caller: &Caller, chat: ChatId, retry: bool, ask: Ask) -> Answer {
        self.owners.ask(OwnerRequest { app: caller.app, chat, by: caller.user, retry, ask }).await
    }

    /// Asks for a change of a chat that is there.
    async fn change(&self, caller: &Caller, chat: ChatId, ask: Ask) -> Result<Seq, Problem> {
        match self.ask(caller, chat, false, ask).await {
            Answer::Done { seq } => Ok(seq),
            other => Err(undone(other)),
        }
    }

    async fn opened(&self, caller: &Caller, chat: ChatId, answer: Answer) -> Result<Opened, Problem> {
        match answer {
            // The store has it: that is when the owner answers.
            Answer::Created { made, .. } => {
                Ok(Opened { chat: self.chat(caller, chat).await.map_err(after_writing)?, made })
            }
            other => Err(undone(other)),
        }
    }

    async fn user_exists(&self, caller: &Caller, user: UserId) -> Result<(), Problem> {
        let known = self.store.users(caller.app, &[user]).await?;
        if known.is_empty() { Err(Problem::not_found("user")) } else { Ok(()) }
    }

    async fn members_exist(&self, caller: &Caller, members: &[UserId]) -> Result<(), Problem> {
        for (nth, chunk) in members.chunks(USERS_PER_QUERY).enumerate() {
            let known = self.store.users(caller.app, chunk).await?;
            if known.len() == chunk.len() {
                continue;
            }
            let known: HashSet<UserId> = known.into_iter().map(|user| user.id).collect();
            let mut checks = Checks::default();
            for (at, _) in chunk.iter().enumerate().filter(|(_, member)| !known.contains(member)) {
                checks.wrong(format!("members[{}]", nth * USERS_PER_QUERY + at), "there is no such user");
            }
            checks.done()?;
        }
        Ok(())
    }
}

/// What was asked is done, and only how it stands now could not be read: that is not "surely not stored".
pub(crate) fn after_writing(problem: Problem) -> Problem {
    if problem.code == ErrorCode::RetryLater {
        Problem::new(ErrorCode::Unknown, "it is done, but how it stands now cannot be read at the moment")
    } else {
        problem
    }
}

/// Why an answer is not the one that was hoped for: the one place where owners' words become a client's.
pub(crate) fn undone(answer: Answer) -> Problem {
    match answer {
        Answer::Refused(refusal) => refusal.into(),
        Answer::Unknown => Problem {
            retry_after_ms: Some(1_000),
            ..Problem::new(
                ErrorCode::Unknown,
                "it may be done or not: ask again, a message under the same client_id",
            )
        },
        // The asker looks until it finds the owner, so this says no more than that it has not found one.
        Answer::NotOwner => Problem::retry_later("the chat has no owner at the moment"),
        Answer::Sent(_)
        | Answer::Done { .. }
        | Answer::Created { .. }
        | Answer::Recent { .. }
        | Answer::Changes { .. }
        | Answer::Since(_) => {
            tracing::error!("an owner answered another question than it was asked");
            Problem::new(ErrorCode::Internal, "something is wrong here; it was reported")
        }
    }
}

/// The message that `draft` became.
fn written(caller: &Caller, chat: ChatId, draft: Draft, sent: Sent) -> Message {
    Message {
        id: sent.id,
        chat,
        room_id: chat,
        number: sent.number,
        from: caller.user,
        body: sent.masked.unwrap_or(draft.body),
        kind: draft.kind,
        created_at: sent.at,
        edited_at: None,
        deleted: false,
        reply_to: draft.reply_to,
        attachments: draft.attachments,
        reactions: Vec::new(),
        mentions: sent.mentions.unwrap_or(draft.mentions),
        mention_all: draft.mention_all,
        client_id: draft.client_id,
    }
}

/// Takes a message's `client_id` away when its reader is not its sender.
pub(crate) fn hide_client_id(caller: &Caller, message: Option<&mut Message>) {
    if let Some(message) = message.filter(|message| message.from != caller.user) {
        message.client_id = None;
    }
}
