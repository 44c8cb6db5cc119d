//! All that an application has.

use async_trait::async_trait;

use super::Postgres;
use crate::{
    ids::{AppId, ChatId, MessageId, Number},
    model::{Message, Page, PageRequest},
    store::{
        Listed, Result, User,
        listed::nobodys,
        rows::{self, Columns, int, unsigned},
    },
};

#[async_trait]
impl Listed for Postgres {
    async fn all_users(&self, app: AppId, page: PageRequest) -> Result<Page<User>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let count: i64 =
                sqlx::query_scalar("SELECT count(*) FROM users WHERE app = $1 AND erased_at IS NULL")
                    .bind(app)
                    .fetch_one(&mut *instant)
                    .await?;
            let rows = sqlx::query(
                "SELECT * FROM users WHERE app = $1 AND erased_at IS NULL ORDER BY id LIMIT $2 OFFSET $3",
            )
            .bind(app)
            .bind(i64::from(page.per_page))
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let users = rows.iter().map(rows::user).collect::<sqlx::Result<_>>()?;
            Ok(page.answer(count.unsigned_abs(), users))
        })
        .await
    }

    async fn all_messages(&self, app: AppId, page: PageRequest) -> Result<Page<Message>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let count: i64 = sqlx::query_scalar(
                "SELECT coalesce(sum(head_number), 0)::bigint FROM chats WHERE app = $1 AND NOT deleted",
            )
            .bind(app)
            .fetch_one(&mut *instant)
            .await?;
            let rows = sqlx::query(
                "SELECT m.* FROM (
                   SELECT chat, number, head_number, sum(head_number) OVER (ORDER BY number)::bigint - head_number AS before
                   FROM chats WHERE app = $1 AND NOT deleted) c
                 JOIN messages m ON m.app = $1 AND m.chat = c.chat
                   AND m.number > $3 - c.before AND m.number <= $2 + $3 - c.before
                 WHERE c.before < $2 + $3 AND c.before + c.head_number > $3
                 ORDER BY c.number, m.number",
            )
            .bind(app)
            .bind(i64::from(page.per_page))
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let messages = rows.iter().map(|row| rows::message(row).map(nobodys));
            Ok(page.answer(count.unsigned_abs(), messages.collect::<sqlx::Result<_>>()?))
        })
        .await
    }

    async fn message_place(&self, app: AppId, id: MessageId) -> Result<Option<(ChatId, Number)>> {
        self.call(|| async move {
            let row = sqlx::query(
                "SELECT m.chat, m.number FROM messages m JOIN chats c ON c.app = m.app AND c.chat = m.chat
                 WHERE m.id = $1 AND m.app = $2 AND NOT c.deleted",
            )
            .bind(id)
            .bind(app)
            .fetch_optional(&self.pool)
            .await?;
            row.map(|row| Ok((row.get("chat")?, unsigned(&row, "number")?))).transpose()
        })
        .await
    }
}
