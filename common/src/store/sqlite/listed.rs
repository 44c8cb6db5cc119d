//! All that an application has.

use async_trait::async_trait;

use super::{Sqlite, fault::bounded};
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
impl Listed for Sqlite {
    async fn all_users(&self, app: AppId, page: PageRequest) -> Result<Page<User>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let count: i64 =
                sqlx::query_scalar("SELECT count(*) FROM users WHERE app = ? AND erased_at IS NULL")
                    .bind(app)
                    .fetch_one(&mut *instant)
                    .await?;
            let rows = sqlx::query(
                "SELECT * FROM users WHERE app = ? AND erased_at IS NULL ORDER BY id LIMIT ? OFFSET ?",
            )
            .bind(app)
            .bind(page.per_page)
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let users = rows.iter().map(rows::user).collect::<sqlx::Result<_>>()?;
            Ok(page.answer(count.unsigned_abs(), users))
        })
        .await
    }

    async fn all_messages(&self, app: AppId, page: PageRequest) -> Result<Page<Message>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let count: i64 = sqlx::query_scalar(
                "SELECT coalesce(sum(head_number), 0) FROM chats WHERE app = ? AND deleted = 0",
            )
            .bind(app)
            .fetch_one(&mut *instant)
            .await?;
            let rows = sqlx::query(
                "SELECT m.* FROM (
                   SELECT chat, number, head_number, sum(head_number) OVER (ORDER BY number) - head_number AS before
                   FROM chats WHERE app = ?1 AND deleted = 0) c
                 CROSS JOIN messages m ON m.app = ?1 AND m.chat = c.chat
                   AND m.number > ?3 - c.before AND m.number <= ?2 + ?3 - c.before
                 WHERE c.before < ?2 + ?3 AND c.before + c.head_number > ?3
                 ORDER BY c.number, m.number",
            )
            .bind(app)
            .bind(page.per_page)
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let messages = rows.iter().map(|row| rows::message(row).map(nobodys));
            Ok(page.answer(count.unsigned_abs(), messages.collect::<sqlx::Result<_>>()?))
        })
        .await
    }

    async fn message_place(&self, app: AppId, id: MessageId) -> Result<Option<(ChatId, Number)>> {
        bounded(async {
            let row = sqlx::query(
                "SELECT m.chat, m.number FROM messages m INDEXED BY messages_by_id
                 CROSS JOIN chats c ON c.app = m.app AND c.chat = m.chat
                 WHERE m.id = ? AND m.app = ? AND c.deleted = 0",
            )
            .bind(id)
            .bind(app)
            .fetch_optional(&self.readers)
            .await?;
            row.map(|row| Ok((row.get("chat")?, unsigned(&row, "number")?))).transpose()
        })
        .await
    }
}
