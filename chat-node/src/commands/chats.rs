//! Commands on chats: making and changing them, who is in them, and showing them.

use std::collections::HashSet;

use common::{
    applications::Retention,
    ids::{AppId, ChatId, ChatKey, ClientId, Seq, UserId},
    model::{ChatView, ChatsPage, MemberView, MessageKind, Page, PageRequest, Role, limits},
    problem::Problem,
    store::{AppCounts, Pair, Ties},
    token::Caller,
    wire::{
        client::FieldError,
        owner::{Answer, Ask, Draft},
    },
};

use super::{Commands, after_writing, is_application, undone};
use crate::{check::Checks, relationships::not_accepting};

/// How often a group of several records is asked for again when its owner has not answered: with the first ask 15 s, as long as a request
/// may take.
const LARGE_AGAIN: usize = 2;

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

    /// Opens the one direct chat of the caller and `host`. Who does not take the caller's messages (`contacts_only`: as anybody's who is no contact
    /// of theirs) is not brought into a new one; one that there is stays.
    ///
    /// # Errors
    /// `invalid` for a chat with oneself, `not_found` when there is no such user, `forbidden`, `too_large` and `rate_limited` for a new one,
    /// `retry_later`, `unknown`.
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
        if let Some(there) = self.stored_view(caller, chat).await? {
            return Ok(Opened { chat: self.fresh(caller, there).await?.view, made: false });
        }
        let ties = self.store.ties(&[pair]).await?.pop().unwrap_or_else(|| Ties::none(pair));
        if !ties.takes_messages_of(caller.user, contacts_only) {
            return Err(not_accepting().into());
        }
        self.may_make_another(caller).await?;
        let answer = self
            .ask(caller, chat, false, Ask::OpenDirect { peer: host, request: Some(rand::random()) })
            .await;
        self.opened(caller, chat, answer).await
    }

    /// Makes a group. Under an idempotency key it is made once, however often this is asked; what an earlier try left undone is done.
    ///
    /// # Errors
    /// `invalid` with the fields, `too_large`, `rate_limited`, `id_conflict` (another group, or another text for it, under the same key),
    /// `retry_later`, `unknown`.
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
        self.may_make_another(caller).await?;
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

    /// Whether the caller may make another chat at the moment; the application may at any.
    async fn may_make_another(&self, caller: &Caller) -> Result<(), Problem> {
        match &self.making {
            Some(making) if !is_application(caller) => making.another(caller).await,
            _ => Ok(()),
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
}
