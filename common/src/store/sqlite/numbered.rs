//! Chats as their application has them.

use async_trait::async_trait;

use super::{Sqlite, chats::view, fault::bounded};
use crate::{
    ids::{AppId, ChatId, ChatKey, UserId},
    model::{ChatView, Page, PageRequest},
    store::{
        AppCounts, Numbered, Result,
        rows::{int, unsigned},
    },
};

/// What of a chat makes a view, for nobody.
const VIEW: &str =
    "SELECT c.app, c.chat, c.number, c.kind, c.name, c.description, c.retention, c.created_by, c.created_at,
    c.head_number, c.head_seq, c.members, 0 AS unread, 0 AS mentioned, 0 AS mark
    FROM chats c";

#[async_trait]
impl Numbered for Sqlite {
    async fn application_counts(&self, app: AppId) -> Result<AppCounts> {
        bounded(async {
            let row = sqlx::query(
                "SELECT count(*) AS chats, coalesce(sum(head_number), 0) AS messages
                 FROM chats WHERE app = ? AND deleted = 0",
            )
            .bind(app)
            .fetch_one(&self.readers)
            .await?;
            Ok(AppCounts { chats: unsigned(&row, "chats")?, messages: unsigned(&row, "messages")? })
        })
        .await
    }

    async fn app_chats(&self, app: AppId, page: PageRequest) -> Result<Page<ChatView>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM chats WHERE app = ? AND deleted = 0")
                .bind(app)
                .fetch_one(&mut *instant)
                .await?;
            let sql = format!("{VIEW} WHERE c.app = ? AND c.deleted = 0 ORDER BY c.number LIMIT ? OFFSET ?");
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(app)
                .bind(page.per_page)
                .bind(int(page.skip()))
                .fetch_all(&mut *instant)
                .await?;
            let mut views = Vec::with_capacity(rows.len());
            for row in &rows {
                views.push(view(&mut instant, row, UserId::APPLICATION).await?);
            }
            Ok(page.answer(count.unsigned_abs(), views))
        })
        .await
    }

    async fn app_chat(&self, chat: ChatKey) -> Result<Option<ChatView>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let sql = format!("{VIEW} WHERE c.app = ? AND c.chat = ? AND c.deleted = 0");
            let row = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(chat.app)
                .bind(chat.chat)
                .fetch_optional(&mut *instant)
                .await?;
            match &row {
                Some(row) => view(&mut instant, row, UserId::APPLICATION).await.map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    async fn chat_numbered(&self, app: AppId, number: u64) -> Result<Option<ChatId>> {
        bounded(async {
            sqlx::query_scalar("SELECT chat FROM chats WHERE app = ? AND number = ? AND deleted = 0")
                .bind(app)
                .bind(int(number))
                .fetch_optional(&self.readers)
                .await
        })
        .await
    }
}
