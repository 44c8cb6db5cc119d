//! What clients may ask for about chats, behind both doors: fields are checked here, decided is by the chat's owner, and what is
//! answered is read from where it stands. Reading messages is in [`crate::history`].
//!
//! Absent on purpose: who may do what (the owner's policy), and the forms of REST and of frames (`api`, `session`).

use std::{collections::HashSet, sync::Arc};

use common::{
    applications::Retention,
    ids::{AppId, ChatId, ChatKey, ClientId, MessageId, Number, Seq, SessionId, SocketId, UserId},
    model::{ChatView, ChatsPage, MemberView, Message, MessageKind, Page, PageRequest, Role, limits},
    problem::Problem,
    store::{AppCounts, Pair, ReadMark, SharedStore, Ties},
    time::Millis,
    token::Caller,
    wire::{
        client::FieldError,
        codes::ErrorCode,
        owner::{Answer, Ask, Draft, OwnerRequest, Sent},
    },
};
use uuid::Uuid;

use crate::{
    ask::AskOwner,
    attachments::CheckAttachments,
    check::Checks,
    deliver::Deliver,
    reads::{Reads, readable},
    relationships::not_accepting,
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
    check: CheckAttachments,
    /// What is delivered live beside the store.
    pub(crate) live: Option<Deliver>,
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

/// What is to be changed of a group; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatChange {
    /// Its name.
    pub name: Option<String>,
    /// What it is for; an empty text takes it away.
    pub description: Option<String>,
    /// How long its messages are kept.
    pub retention: Option<Retention>,
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
    /// Commands that ask `owners`, read from `store`, move read marks by way of `reads`, and have attachments looked at by `check`.
    pub fn new(owners: Arc<dyn AskOwner>, store: SharedStore, reads: Reads, check: CheckAttachments) -> Self {
        Self { owners, store, reads, check, live: None }
    }

    /// The same, which see from what is delivered how far the store should be.
    pub fn beside(self, deliver: Deliver) -> Self {
        Self { live: Some(deliver), ..self }
    }

    /// Looks at what is referred to.
    pub(crate) fn check_attachments(&self) -> &CheckAttachments {
        &self.check
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

    /// Where users, chats and messages are kept.
    pub(crate) fn store(&self) -> &SharedStore {
        &self.store
    }

    /// How much an application has, as stored.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn application_counts(&self, app: AppId) -> Result<AppCounts, Problem> {
        Ok(self.store.application_counts(app).await?)
    }

    /// The chat with a number; whether the caller may know of it is not asked here.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn numbered(&self, app: AppId, number: u64) -> Result<ChatId, Problem> {
        self.store.chat_numbered(app, number).await?.ok_or_else(|| Problem::not_found("chat"))
    }

    /// Sends one message and waits until the log has it. Sockets use lanes instead, which keep a device's order.
    ///
    /// # Errors
    /// The owner's refusals, `invalid` for attachments that are not the caller's, `not_found` to who is not in the chat, `id_conflict`,
    /// `retry_later`, `unknown`.
    pub async fn send(&self, caller: &Caller, chat: ChatId, mut draft: Draft) -> Result<Written, Problem> {
        self.check.check(caller, chat, &draft).await?;
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

    /// Opens the one direct chat of the caller and `host`. Who does not take the caller's messages (`contacts_only`: as anybody's who is no contact
    /// of theirs) is not brought into a new one; one that there is stays.
    ///
    /// # Errors
    /// `invalid` for a chat with oneself, `not_found` when there is no such user, `forbidden`, `retry_later`, `unknown`.
    pub async fn open_direct(
        &self,
        caller: &Caller,
        host: UserId,
        contacts_only: bool,
    ) -> Result<Opened, Problem> {
        if host == caller.user {
            return Err(Problem::invalid(FieldError::body("host_id", "must be another user")));
        }
        self.user_exists(caller, host).await?;
        let pair = Pair::new(caller.app, caller.user, host);
        let chat = pair.chat();
        let ties = self.store.ties(&[pair]).await?.pop().unwrap_or_else(|| Ties::none(pair));
        if !ties.takes_messages_of(caller.user, contacts_only) {
            let there = self.stored_view(caller, chat).await?.ok_or_else(not_accepting)?;
            return Ok(Opened { chat: self.fresh(caller, there).await?.view, made: false });
        }
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
        self.users_exist(caller, "members", &members).await?;
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
        let ask = Ask::CreateGroup { name, description, members, first };
        let answer = self.ask_for_group(caller, chat, key.is_some(), ask).await;
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

    /// Changes a group's name, its description, or how long its messages are kept; what is absent stays.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `forbidden`, `retry_later`, `unknown`.
    pub async fn update_chat(
        &self,
        caller: &Caller,
        chat: ChatId,
        change: ChatChange,
    ) -> Result<ChatView, Problem> {
        let ChatChange { name, description, retention } = change;
        let mut checks = Checks::default();
        checks.name(name.as_deref());
        checks.description(description.as_deref());
        if let Some(msg) = retention.and_then(Retention::fault) {
            checks.wrong("retention.days", msg);
        }
        if name.is_none() && description.is_none() && retention.is_none() {
            checks.wrong("name", "name, description or retention was expected");
        }
        checks.done()?;
        let ask = Ask::Update { name: name.clone(), description: description.clone(), retention };
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
            view.retention = retention.or(view.retention);
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
        if is_application(caller) {
            let Page { current, total, results } = self.store.app_chats(caller.app, page).await?;
            let mut page = ChatsPage { current, total, results, unread_count: 0 };
            self.freshen(caller, &mut page).await?;
            return Ok(page);
        }
        let mut page = self.store.chats_of(caller.app, caller.user, page).await?;
        self.freshen(caller, &mut page).await?;
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
        let view = self.stored_view(caller, chat).await?.ok_or_else(|| Problem::not_found("chat"))?;
        Ok(self.fresh(caller, view).await?.view)
    }

    /// One chat of the caller, as the store has it.
    pub(crate) async fn stored_view(
        &self,
        caller: &Caller,
        chat: ChatId,
    ) -> Result<Option<ChatView>, Problem> {
        let key = ChatKey { app: caller.app, chat };
        Ok(match is_application(caller) {
            true => self.store.app_chat(key).await?,
            false => self.store.chat_view(key, caller.user).await?,
        })
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

    /// Asks for a group, and goes on asking while a large one is made.
    pub(crate) async fn ask_for_group(&self, caller: &Caller, chat: ChatId, retry: bool, ask: Ask) -> Answer {
        let large =
            matches!(&ask, Ask::CreateGroup { members, .. } if members.len() >= limits::MEMBERS_PER_RECORD);
        let mut answer = self.ask(caller, chat, retry, ask.clone()).await;
        for _ in 0..LARGE_AGAIN {
            // Its rows may take longer than one ask waits. What is there already is not made twice.
            if !(large && answer == Answer::Unknown) {
                break;
            }
            answer = self.ask(caller, chat, true, ask.clone()).await;
        }
        answer
    }

    /// Asks for a change of a chat that is there.
    pub(crate) async fn change(&self, caller: &Caller, chat: ChatId, ask: Ask) -> Result<Seq, Problem> {
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

    pub(crate) async fn user_exists(&self, caller: &Caller, user: UserId) -> Result<(), Problem> {
        let known = self.store.users(caller.app, &[user]).await?;
        if known.is_empty() { Err(Problem::not_found("user")) } else { Ok(()) }
    }

    /// Whether all of these exist whom the list `field` of a body names.
    pub(crate) async fn users_exist(
        &self,
        caller: &Caller,
        field: &str,
        users: &[UserId],
    ) -> Result<(), Problem> {
        for (nth, chunk) in users.chunks(USERS_PER_QUERY).enumerate() {
            let known = self.store.users(caller.app, chunk).await?;
            if known.len() == chunk.len() {
                continue;
            }
            let known: HashSet<UserId> = known.into_iter().map(|user| user.id).collect();
            let mut checks = Checks::default();
            for (at, _) in chunk.iter().enumerate().filter(|(_, user)| !known.contains(user)) {
                checks.wrong(format!("{field}[{}]", nth * USERS_PER_QUERY + at), "there is no such user");
            }
            checks.done()?;
        }
        Ok(())
    }
}

/// The application, as one who calls.
pub(crate) fn itself(app: AppId) -> Caller {
    let (user, session) = (UserId::APPLICATION, SessionId(Uuid::nil()));
    Caller { app, user, session, expires_at: Millis(i64::MAX) }
}

/// Whether an application itself is calling, and no user of it.
pub(crate) fn is_application(caller: &Caller) -> bool {
    caller.user == UserId::APPLICATION
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
        expired: false,
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
