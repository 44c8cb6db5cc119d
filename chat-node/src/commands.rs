//! What clients may ask for about chats, behind both doors: fields are checked here, decided is by the chat's owner, and what is
//! answered is read from where it stands. Reading messages is in [`crate::history`].
//!
//! Absent on purpose: who may do what (the owner's policy), and the forms of REST and of frames (`api`, `session`).

mod chats;
mod messages;

use std::{collections::HashSet, sync::Arc};

use common::{
    ids::{AppId, ChatId, Seq, SessionId, UserId},
    problem::Problem,
    store::SharedStore,
    time::Millis,
    token::Caller,
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, OwnerRequest},
    },
};
use uuid::Uuid;

pub(crate) use self::messages::hide_client_id;
pub use self::{
    chats::{ChatChange, NewGroup, Opened},
    messages::Written,
};
use crate::{
    ask::AskOwner, attachments::CheckAttachments, check::Checks, deliver::Deliver, making::Making,
    reads::Reads,
};

/// Ids in one query for users: what the store takes at once.
pub(crate) const USERS_PER_QUERY: usize = 1_000;

/// The commands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Commands {
    pub(crate) owners: Arc<dyn AskOwner>,
    pub(crate) store: SharedStore,
    pub(crate) reads: Reads,
    check: CheckAttachments,
    /// How fast users make chats, if there is a limit.
    making: Option<Making>,
    /// What is delivered live beside the store.
    pub(crate) live: Option<Deliver>,
}

impl Commands {
    /// Commands that ask `owners`, read from `store`, move read marks by way of `reads`, and have attachments looked at by `check`.
    pub fn new(owners: Arc<dyn AskOwner>, store: SharedStore, reads: Reads, check: CheckAttachments) -> Self {
        Self { owners, store, reads, check, making: None, live: None }
    }

    /// The same, which see from what is delivered how far the store should be.
    pub fn beside(self, deliver: Deliver) -> Self {
        Self { live: Some(deliver), ..self }
    }

    /// The same, which let users make chats so fast and no faster.
    pub fn at_most(self, making: Option<Making>) -> Self {
        Self { making, ..self }
    }

    /// Looks at what is referred to.
    pub(crate) fn check_attachments(&self) -> &CheckAttachments {
        &self.check
    }

    /// Where users, chats and messages are kept.
    pub(crate) fn store(&self) -> &SharedStore {
        &self.store
    }

    /// Asks the owner of one of the caller's chats.
    pub(crate) async fn ask(&self, caller: &Caller, chat: ChatId, retry: bool, ask: Ask) -> Answer {
        self.owners.ask(OwnerRequest { app: caller.app, chat, by: caller.user, retry, ask }).await
    }

    /// Asks for a change of a chat that is there.
    pub(crate) async fn change(&self, caller: &Caller, chat: ChatId, ask: Ask) -> Result<Seq, Problem> {
        match self.ask(caller, chat, false, ask).await {
            Answer::Done { seq } => Ok(seq),
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
    Caller { app, user, session, expires_at: Millis(i64::MAX), signed_by: None }
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
