//! Deciding requests about a chat: each against the chat in memory, by the rules of [`policy`].

use common::{
    ids::{ChatKey, MessageId, UserId},
    model::Message,
    store::Ties,
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, OwnerRequest, Refusal},
        record::What,
    },
};

use super::{
    super::{
        chat::{Chat, Known},
        later,
        policy::{self, Decision, Written},
        queue::Job,
        retry_later,
    },
    Owned,
};

impl Owned {
    pub(super) async fn execute(&mut self, key: ChatKey, job: Job) {
        if self.context.clock.now() > job.deadline {
            return job.answer(retry_later("the request came too late"));
        }
        if self.undrained_bytes() > self.context.limits.undrained_bytes && !job.request.ask.reads() {
            return job.answer(retry_later("the storage writer is too far behind"));
        }
        let OwnerRequest { by, retry, ask, .. } = job.request.clone();
        match ask {
            Ask::Send(drafts) => self.send(key, job, by, &drafts).await,
            Ask::CreateGroup { name, description, members, first } => {
                let (name, description, first) = (name.as_ref(), description.as_ref(), first.as_ref());
                let group = policy::NewGroup { name, description, members: &members, first };
                self.create_group(key, job, by, group).await;
            }
            Ask::Recent => match self.recent(key, by) {
                Ok(answer) => job.answer(answer),
                Err(refusal) => self.refuse(key, job, refusal),
            },
            Ask::Changes { after } => {
                let changes = self.chat(key).and_then(|chat| chat.changes_after(after));
                let answer = self.changes(key, changes);
                job.answer(answer);
            }
            // It is about no chat, and does not get into a chat's queue.
            Ask::Since { .. } => job.answer(Answer::NotOwner),
            Ask::OpenDirect { peer, request } => {
                let decision = policy::open_direct(self.chat(key), by, peer, request);
                self.decided(key, job, by, decision).await;
            }
            Ask::Edit { .. }
            | Ask::Erase { .. }
            | Ask::React { .. }
            | Ask::AddMember { .. }
            | Ask::SetRole { .. }
            | Ask::RemoveMember { .. }
            | Ask::Update { .. }
            | Ask::DeleteChat => {
                let decision = match self.chat(key) {
                    Some(chat) => self.decide(chat, &job, by, retry, &ask).and_then(|decision| {
                        if let Decision::Append(What::Edited { .. } | What::Reacted { on: true, .. }) =
                            decision
                        {
                            self.taken(key, chat, job.ties, by)?;
                        }
                        Ok(decision)
                    }),
                    None => Err(policy::no_such_chat()),
                };
                self.decided(key, job, by, decision).await;
            }
        }
    }

    fn decide(
        &self,
        chat: &Chat,
        job: &Job,
        by: UserId,
        retry: bool,
        ask: &Ask,
    ) -> Result<Decision, Refusal> {
        match ask {
            Ask::Edit { number, body } => {
                let message = known_message(chat, job, *number);
                policy::edit(chat, by, message, body, self.context.clock.now().max(chat.last_at))
            }
            Ask::Erase { number } => policy::erase(chat, by, *number, written(chat, job, *number)),
            Ask::React { number, emoji, on } => {
                let message = known_message(chat, job, *number);
                let stands = chat.reacts(*number, by, emoji).unwrap_or(job.reacts);
                policy::react(chat, by, message, emoji, *on, stands)
            }
            Ask::AddMember { user } => policy::add_member(chat, by, *user),
            Ask::SetRole { user, role } => policy::set_role(chat, by, *user, *role),
            Ask::RemoveMember { user } => policy::remove_member(chat, by, *user, retry),
            Ask::Update { name, description, retention } => {
                policy::update(chat, by, name.as_ref(), description.as_ref(), *retention)
            }
            Ask::DeleteChat => policy::delete_chat(chat, by, retry),
            _ => Err(Refusal::new(ErrorCode::Internal, "not a decision")),
        }
    }

    /// Appends what was decided, and lets the request wait for it; or for what was so already.
    async fn decided(&mut self, key: ChatKey, job: Job, by: UserId, decision: Result<Decision, Refusal>) {
        let (appended, made) = match decision {
            Err(refusal) => return self.refuse(key, job, refusal),
            Ok(Decision::Already) => (false, false),
            Ok(Decision::Made) => (false, true),
            Ok(Decision::Append(what)) => {
                if let Err(refusal) = self.have_room(key, &job, std::slice::from_ref(&what)) {
                    return self.refuse(key, job, refusal);
                }
                match self.screen_and_append(key, by, what).await {
                    Ok(_) => (true, true),
                    Err(refusal) => return job.answer(Answer::Refused(refusal)),
                }
            }
        };
        self.wait_for_head(key, job, appended, made);
    }

    /// Whether what somebody says in a direct chat is taken by the other. What was read for the request counts only when nothing newer is known.
    pub(super) fn taken(
        &self,
        key: ChatKey,
        chat: &Chat,
        read: Option<Ties>,
        by: UserId,
    ) -> Result<(), Refusal> {
        let Some(pair) = chat.pair(key.app, by) else { return Ok(()) };
        match self.context.relationships.known(pair).or(read) {
            Some(ties) => policy::taken(ties, by, self.context.applications.settings(key.app).contacts_only),
            // Whether it is taken changed just now.
            None => Err(later("the chat's owner reads what its members are to each other")),
        }
    }

    /// Whether those whom these changes bring into the chat have room for another one (SP-3). Their chats were counted in the store, where what is
    /// undrained is not yet, and for each request by itself: who comes into several chats at once gets past the limit by as many.
    fn have_room(&self, key: ChatKey, job: &Job, changes: &[What]) -> Result<(), Refusal> {
        let (Some(full), Some(most)) = (&job.full, self.context.chats_per_user(key.app)) else {
            return Ok(());
        };
        changes.iter().try_for_each(|what| policy::have_room(what, job.request.by, full, most))
    }

    /// Makes a group, or goes on where an earlier try broke off.
    async fn create_group(&mut self, key: ChatKey, job: Job, by: UserId, group: policy::NewGroup<'_>) {
        let mut changes = match policy::create_group(self.chat(key), by, group, MessageId::random()) {
            Ok(changes) => changes,
            Err(refusal) => return self.refuse(key, job, refusal),
        };
        if let Err(refusal) = self.have_room(key, &job, &changes) {
            return self.refuse(key, job, refusal);
        }
        let content = self.context.applications.content(key.app);
        // All of it, before anything of it is there.
        if let Err(refusal) = changes.iter_mut().try_for_each(|what| policy::screen(&content, what).map(drop))
        {
            return job.answer(self.read(Answer::Refused(refusal)));
        }
        let mut made = false;
        for what in changes {
            match self.append(key, by, what).await {
                Ok(()) => made = true,
                // Some of it is there, and the next try goes on behind it.
                Err(_) if made => return job.answer(Answer::Unknown),
                Err(refusal) => return job.answer(Answer::Refused(refusal)),
            }
        }
        self.wait_for_head(key, job, made, made);
    }
}

/// Who wrote a message that is to be deleted, which may be so already; none when its time is over, or there is no such one.
fn written(chat: &Chat, job: &Job, number: u64) -> Option<Written> {
    if let Known::Erased(_) = chat.message(number) {
        let stored = job.message.as_ref().and_then(Option::as_ref);
        let from = chat.author(number).or_else(|| stored.map(|message| message.from))?;
        return Some(Written { from, deleted: true });
    }
    known_message(chat, job, number).map(|Message { from, deleted, .. }| Written { from, deleted })
}

/// The message as it stands, from memory or as the store has it; none when its time is over.
fn known_message(chat: &Chat, job: &Job, number: u64) -> Option<Message> {
    let stored = job.message.clone().flatten();
    if stored.as_ref().is_some_and(|message| message.expired) {
        return None;
    }
    let message = match chat.message(number) {
        Known::Message(message) => *message,
        Known::Erased(_) | Known::Never => return None,
        Known::InStore => stored?,
    };
    Some(chat.with_reactions(message))
}
