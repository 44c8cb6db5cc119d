//! People, as each other's users: profiles, and finding somebody by name.

use async_trait::async_trait;

use super::{Result, User};
use crate::{
    ids::{AppId, UserId},
    model::{Page, PageRequest, UserView},
};

/// What is to be changed of a profile; what is none stays. What may be absent is taken away by an inner none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChange {
    /// The name to show.
    pub name: Option<String>,
    /// The picture.
    pub avatar: Option<Option<String>>,
    /// IANA name of the time zone.
    pub timezone: Option<Option<String>>,
}

/// What users know of each other.
#[async_trait]
pub trait People: Send + Sync {
    /// Changes a user's profile and answers the whole row; none when there is no such user. When the time zone
    /// changes whoever is held is looked at again ([`super::Notify::look_again_at`]): it may be quiet no more.
    async fn update_profile(&self, app: AppId, user: UserId, change: &ProfileChange) -> Result<Option<User>>;

    /// A page of those whose names have, for each word of `query`, a word that begins with it, without regard to case and accents; nothing
    /// else of a user is looked at. In order of the word that begins with the longest of the query.
    ///
    /// Bounded: 1,000 people are found at most, among the first 10,000 names that have the longest word of the query. A query without a
    /// word finds nobody.
    async fn find_people(&self, app: AppId, query: &str, page: PageRequest) -> Result<Page<UserView>>;
}

/// The users in the order in which they were found; who is gone meanwhile is left out.
pub(super) fn in_order(found: &[UserId], mut users: Vec<UserView>) -> Vec<UserView> {
    let place = |user: &UserView| found.iter().position(|id| *id == user.id);
    users.sort_by_key(place);
    users
}
