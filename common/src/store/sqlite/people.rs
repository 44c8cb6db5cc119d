//! Profiles, and finding people by name.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{Sqlite, fault::bounded, value::list};
use crate::{
    ids::{AppId, UserId},
    model::{Page, PageRequest, UserView},
    store::{
        Accounts, Notify, People, ProfileChange, Result, User,
        names::{self, BEHIND, FOUND, LOOKED_THROUGH, TOGETHER},
        people::in_order,
        rows::{self, Columns},
    },
};

#[async_trait]
impl People for Sqlite {
    async fn update_profile(&self, app: AppId, user: UserId, change: &ProfileChange) -> Result<Option<User>> {
        let changed = bounded(async {
            let mut write = self.begin().await?;
            let row = sqlx::query(
                "UPDATE users SET name = coalesce(?3, name),
                   avatar = CASE WHEN ?4 THEN ?5 ELSE avatar END,
                   timezone = CASE WHEN ?6 THEN ?7 ELSE timezone END
                 WHERE app = ?1 AND id = ?2 AND erased_at IS NULL RETURNING *",
            )
            .bind(app)
            .bind(user)
            .bind(change.name.as_deref())
            .bind(change.avatar.is_some())
            .bind(change.avatar.as_ref().and_then(Option::as_deref))
            .bind(change.timezone.is_some())
            .bind(change.timezone.as_ref().and_then(Option::as_deref))
            .fetch_optional(&mut *write)
            .await?;
            if let (Some(_), Some(name)) = (&row, &change.name) {
                sqlx::query("DELETE FROM user_words WHERE app = ? AND user = ?")
                    .bind(app)
                    .bind(user)
                    .execute(&mut *write)
                    .await?;
                self::name(&mut write, app, user, name).await?;
            }
            write.commit().await?;
            row.as_ref().map(rows::user).transpose()
        })
        .await?;
        if change.timezone.is_some() {
            self.look_again_at(app, &[user]).await?;
        }
        Ok(changed)
    }

    async fn find_people(&self, app: AppId, query: &str, page: PageRequest) -> Result<Page<UserView>> {
        let words = names::sought(query);
        let Some((longest, others)) = words.split_first() else { return Ok(page.answer(0, Vec::new())) };
        let found = bounded(async {
            sqlx::query_scalar::<_, UserId>(
                "SELECT k.user FROM (
                   SELECT n.user, min(n.word) AS word FROM (
                     SELECT user, word FROM user_words WHERE app = ?1 AND word >= ?2 AND word < ?3
                     ORDER BY word, user LIMIT ?4) n
                   GROUP BY n.user) k
                 WHERE NOT EXISTS (
                   SELECT 1 FROM json_each(?5) q WHERE NOT EXISTS (
                     SELECT 1 FROM user_words w
                     WHERE w.app = ?1 AND w.user = k.user AND w.word >= q.value AND w.word < q.value || ?6))
                 ORDER BY k.word, k.user LIMIT ?7",
            )
            .bind(app)
            .bind(longest)
            .bind(format!("{longest}{BEHIND}"))
            .bind(LOOKED_THROUGH)
            .bind(list(others))
            .bind(BEHIND)
            .bind(FOUND)
            .fetch_all(&self.readers)
            .await
        })
        .await?;
        let shown: Vec<UserId> = page.part_of(found.iter().copied()).collect();
        let users = self.users(app, &shown).await?;
        Ok(page.answer(found.len() as u64, in_order(&shown, users)))
    }
}

/// Writes down the words of the name of a user who has none.
pub(super) async fn name(
    write: &mut SqliteConnection,
    app: AppId,
    user: UserId,
    name: &str,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO user_words (app, user, word) SELECT ?, ?, value FROM json_each(?)")
        .bind(app)
        .bind(user)
        .bind(list(names::words(name)))
        .execute(write)
        .await?;
    Ok(())
}

/// Writes down the words of all names when there are none yet: users may be from before there were words.
pub(super) async fn name_all(write: &mut SqliteConnection) -> sqlx::Result<()> {
    let named: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM user_words)").fetch_one(&mut *write).await?;
    let mut after: (Vec<u8>, Vec<u8>) = Default::default();
    if named {
        return Ok(());
    }
    loop {
        let rows =
            sqlx::query("SELECT app, id, name FROM users WHERE (app, id) > (?, ?) ORDER BY app, id LIMIT ?")
                .bind(after.0)
                .bind(after.1)
                .bind(TOGETHER)
                .fetch_all(&mut *write)
                .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.get("app")?, last.get("id")?);
        for row in &rows {
            name(write, row.get("app")?, row.get("id")?, &row.get::<String>("name")?).await?;
        }
    }
}
