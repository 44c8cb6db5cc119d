//! Contacts (ID-8) and blocks (ID-9): the caller's own, seen by nobody else.

use common::{
    ids::UserId,
    model::{ContactView, Page, PageRequest, UserView, limits},
    problem::Problem,
    store::{Contact, Related, Relation},
    token::Caller,
    wire::{client::FieldError, codes::ErrorCode},
};

use super::People;
use crate::auth::unauthenticated;

impl People {
    /// A page of the caller's contacts, with their presence: the most recently chatted with first, then by name those with whom there was no
    /// message yet.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn contacts(&self, caller: &Caller, page: PageRequest) -> Result<Page<ContactView>, Problem> {
        let Page { current, total, results } = self.store.contacts(caller.key(), page).await?;
        let users: Vec<UserId> = results.iter().map(|contact| contact.user.id).collect();
        let seen = self.presence.of_known(caller.key(), &users).await?;
        let view =
            |(Contact { user, last_message_at }, presence)| ContactView { user, presence, last_message_at };
        Ok(Page { current, total, results: results.into_iter().zip(seen).map(view).collect() })
    }

    /// A page of those whom the caller has blocked, the newest first.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn blocks(&self, caller: &Caller, page: PageRequest) -> Result<Page<UserView>, Problem> {
        Ok(self.store.blocks(caller.key(), page).await?)
    }

    /// Makes somebody a contact of the caller's, or has the caller block them; once, however often it is asked.
    ///
    /// # Errors
    /// `not_found`, `invalid` for the caller, `too_large` when the caller has as many as one may have, `unauthenticated` when the caller is no more,
    /// `retry_later`: asking again is harmless.
    pub async fn relate(&self, caller: &Caller, relation: Relation, user: UserId) -> Result<(), Problem> {
        if user == caller.user {
            return Err(Problem::invalid(FieldError::params("user", "must be another user")));
        }
        if self.store.users(caller.app, &[user]).await?.is_empty() {
            return Err(Problem::not_found("user"));
        }
        self.change(caller, relation, user, true).await
    }

    /// Takes it back. Whom the caller has not among them, or whom there is not, is none of them either way.
    ///
    /// # Errors
    /// `unauthenticated` when the caller is no more, `retry_later`: asking again is harmless.
    pub async fn unrelate(&self, caller: &Caller, relation: Relation, user: UserId) -> Result<(), Problem> {
        self.change(caller, relation, user, false).await
    }

    async fn change(
        &self,
        caller: &Caller,
        relation: Relation,
        user: UserId,
        on: bool,
    ) -> Result<(), Problem> {
        let (most, what) = match relation {
            Relation::Contact => (limits::CONTACTS, "contacts"),
            Relation::Block => (limits::BLOCKS, "blocked users"),
        };
        let at = self.clock.now();
        match self.store.relate(caller.key(), relation, user, on, at, most).await? {
            Related::Full => {
                let why = format!("a user has at most {most} {what}: take one away first");
                return Err(Problem::new(ErrorCode::TooLarge, why));
            }
            Related::Erased => return Err(unauthenticated()),
            Related::Already => {}
            Related::Changed => {
                self.relationships.hint();
                if relation == Relation::Block {
                    self.presence.show_anew(caller.key(), user, at);
                }
            }
        }
        Ok(())
    }
}
