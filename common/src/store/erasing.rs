//! Erasing: users and applications that are to be no more.

use std::time::Duration;

use async_trait::async_trait;

use super::Result;
use crate::{
    ids::{AppId, ChatKey, UserId, UserKey},
    time::Millis,
};

/// The end of users and of applications. Each is decided in one transaction; what follows from it is done later, in parts, by anybody.
#[async_trait]
pub trait Erasing: Send + Sync {
    /// Takes away whatever is known of a user but the id: names, number, picture, time zone, password, when they were there last. The user is
    /// found by nobody from then on, the name is free, and the sign-ins are ended by one revocation, of
    /// [`SessionId::every`](crate::ids::SessionId::every). What they wrote stays with the chats it was written in. `false` when there is no such user (any more).
    async fn erase_user(&self, app: AppId, user: UserId, now: Millis) -> Result<bool>;

    /// Those of `ids` that were users and were erased, in no order. One query, up to 1,000 ids.
    async fn erased(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserId>>;

    /// Groups that users who were erased are in still, at most so many.
    async fn groups_of_erased(&self, most: u32) -> Result<Vec<(UserKey, ChatKey)>>;

    /// Users who were erased before that time and are in no group any more need not be looked at again.
    async fn settle_erased(&self, before: Millis) -> Result<()>;

    /// An application is no more: its keys and settings are gone, and it is named no more among the others; its rows go by
    /// [`Erasing::drop_rows`]. `false` when there is no such one (any more).
    async fn erase_application(&self, app: AppId, now: Millis) -> Result<bool>;

    /// Deletes rows of applications that were erased before that time, at most so many of each table: users, chats, messages, and what belongs
    /// to them. Gives how many it deleted; 0: none are left. Objects of attachments become loose. Every change of theirs must have been
    /// applied: one that comes later finds no chat, and stops its partition.
    async fn drop_rows(&self, before: Millis, most: u32) -> Result<u64>;
}

/// Until when the end of a user's sign-ins matters at least, when it was at `now`. Later than that, no node has a socket of theirs, and tokens that
/// their application signed itself speak for nobody.
pub(super) fn revoked_until(now: Millis) -> Millis {
    now.plus(Duration::from_secs(24 * 3_600))
}

/// Tables of a schema's steps whose rows belong to an application, but for those that go by a way of their own: files by
/// [`super::Attachments`], revocations and changes of relations by their time.
#[cfg(test)]
pub(super) fn tables_of_applications(steps: &[&str]) -> std::collections::BTreeSet<String> {
    let mut tables = std::collections::BTreeSet::new();
    let bare = |step: &str| {
        step.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
    };
    for statement in
        steps.iter().flat_map(|step| bare(step).split(';').map(str::to_owned).collect::<Vec<_>>())
    {
        let words: Vec<&str> = statement.split_whitespace().take(3).collect();
        match words[..] {
            ["CREATE", "TABLE", table] if statement.contains("\n    app ") => {
                tables.insert(table.to_owned());
            }
            ["DROP", "TABLE", table] => {
                tables.remove(table);
            }
            _ => {}
        }
    }
    for apart in ["attachments", "loose_objects", "revocations", "relation_changes"] {
        assert!(tables.remove(apart), "{apart}");
    }
    tables
}
