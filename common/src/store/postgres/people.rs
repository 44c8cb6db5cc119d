//! Profiles, and finding people by name.

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Postgres, value::column};
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
impl People for Postgres {
    async fn update_profile(&self, app: AppId, user: UserId, change: &ProfileChange) -> Result<Option<User>> {
        let changed = self
            .call(|| async move {
                let mut write = self.begin().await?;
                // Locks the row: of two who rename at once, the words of the later name stay.
                let row = sqlx::query(
                    "UPDATE users SET name = coalesce($3, name),
                   avatar = CASE WHEN $4 THEN $5 ELSE avatar END,
                   timezone = CASE WHEN $6 THEN $7 ELSE timezone END
                 WHERE app = $1 AND id = $2 AND erased_at IS NULL RETURNING *",
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
                let Some(row) = row else { return Ok(None) };
                if let Some(name) = &change.name {
                    sqlx::query("DELETE FROM user_words WHERE app = $1 AND user_id = $2")
                        .bind(app)
                        .bind(user)
                        .execute(&mut *write)
                        .await?;
                    name_many(&mut write, &[(app, user, name.clone())]).await?;
                }
                write.commit().await?;
                rows::user(&row).map(Some)
            })
            .await?;
        if change.timezone.is_some() {
            self.look_again_at(app, &[user]).await?;
        }
        Ok(changed)
    }

    async fn find_people(&self, app: AppId, query: &str, page: PageRequest) -> Result<Page<UserView>> {
        let words = &names::sought(query);
        let Some((longest, others)) = words.split_first() else { return Ok(page.answer(0, Vec::new())) };
        let found = self
            .call(|| async move {
                sqlx::query_scalar::<_, UserId>(
                    "SELECT k.user_id FROM (
                       SELECT n.user_id, min(n.word) AS word FROM (
                         SELECT user_id, word FROM user_words WHERE app = $1 AND word >= $2 AND word < $3
                         ORDER BY word, user_id LIMIT $4) n
                       GROUP BY n.user_id) k
                     WHERE NOT EXISTS (
                       SELECT 1 FROM UNNEST($5::text[]) AS q (word) WHERE NOT EXISTS (
                         SELECT 1 FROM user_words w
                         WHERE w.app = $1 AND w.user_id = k.user_id AND w.word >= q.word AND w.word < q.word || $6::text))
                     ORDER BY k.word, k.user_id LIMIT $7",
                )
                .bind(app)
                .bind(longest)
                .bind(format!("{longest}{BEHIND}"))
                .bind(LOOKED_THROUGH)
                .bind(others)
                .bind(BEHIND)
                .bind(FOUND)
                .fetch_all(&self.pool)
                .await
            })
            .await?;
        let shown: Vec<UserId> = page.part_of(found.iter().copied()).collect();
        let users = self.users(app, &shown).await?;
        Ok(page.answer(found.len() as u64, in_order(&shown, users)))
    }
}

/// Writes down the words of names.
async fn name_many(write: &mut PgConnection, users: &[(AppId, UserId, String)]) -> sqlx::Result<()> {
    let words: Vec<(AppId, UserId, String)> = users
        .iter()
        .flat_map(|(app, user, name)| names::words(name).into_iter().map(|word| (*app, *user, word)))
        .collect();
    sqlx::query(
        "INSERT INTO user_words (app, user_id, word)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[]) ON CONFLICT DO NOTHING",
    )
    .bind(column(&words, |(app, _, _)| *app))
    .bind(column(&words, |(_, user, _)| *user))
    .bind(column(&words, |(_, _, word)| word.as_str()))
    .execute(write)
    .await?;
    Ok(())
}

/// Writes down the words of all names when there are none yet: users may be from before there were words.
pub(super) async fn name_all(write: &mut PgConnection) -> sqlx::Result<()> {
    let named: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM user_words)").fetch_one(&mut *write).await?;
    let mut after = (AppId(Uuid::nil()), UserId(Uuid::nil()));
    if named {
        return Ok(());
    }
    loop {
        let rows = sqlx::query(
            "SELECT app, id, name FROM users WHERE (app, id) > ($1, $2) ORDER BY app, id LIMIT $3",
        )
        .bind(after.0)
        .bind(after.1)
        .bind(TOGETHER)
        .fetch_all(&mut *write)
        .await?;
        let mut users = Vec::with_capacity(rows.len());
        for row in &rows {
            users.push((row.get("app")?, row.get("id")?, row.get("name")?));
        }
        let Some((app, user, _)) = users.last() else { return Ok(()) };
        after = (*app, *user);
        name_many(write, &users).await?;
    }
}
