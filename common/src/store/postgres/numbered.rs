//! Chats as their application has them.

use async_trait::async_trait;

use super::{Postgres, chats::views};
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
    c.head_number, c.head_seq, c.members, 0::bigint AS unread, 0::bigint AS mentioned,
    0::bigint AS mark FROM chats c";

#[async_trait]
impl Numbered for Postgres {
    async fn application_counts(&self, app: AppId) -> Result<AppCounts> {
        self.call(|| async move {
            let row = sqlx::query(
                "SELECT count(*) AS chats, coalesce(sum(head_number), 0)::bigint AS messages
                 FROM chats WHERE app = $1 AND NOT deleted",
            )
            .bind(app)
            .fetch_one(&self.pool)
            .await?;
            Ok(AppCounts { chats: unsigned(&row, "chats")?, messages: unsigned(&row, "messages")? })
        })
        .await
    }

    async fn app_chats(&self, app: AppId, page: PageRequest) -> Result<Page<ChatView>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM chats WHERE app = $1 AND NOT deleted")
                .bind(app)
                .fetch_one(&mut *instant)
                .await?;
            let sql =
                format!("{VIEW} WHERE c.app = $1 AND NOT c.deleted ORDER BY c.number LIMIT $2 OFFSET $3");
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(app)
                .bind(i64::from(page.per_page))
                .bind(int(page.skip()))
                .fetch_all(&mut *instant)
                .await?;
            let views = views(&mut instant, &rows.iter().collect::<Vec<_>>(), UserId::APPLICATION).await?;
            Ok(page.answer(count.unsigned_abs(), views))
        })
        .await
    }

    async fn app_chat(&self, chat: ChatKey) -> Result<Option<ChatView>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let sql = format!("{VIEW} WHERE c.app = $1 AND c.chat = $2 AND NOT c.deleted");
            let row = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(chat.app)
                .bind(chat.chat)
                .fetch_optional(&mut *instant)
                .await?;
            let rows: Vec<_> = row.iter().collect();
            Ok(views(&mut instant, &rows, UserId::APPLICATION).await?.pop())
        })
        .await
    }

    async fn chat_numbered(&self, app: AppId, number: u64) -> Result<Option<ChatId>> {
        self.call(|| async move {
            sqlx::query_scalar("SELECT chat FROM chats WHERE app = $1 AND number = $2 AND NOT deleted")
                .bind(app)
                .bind(int(number))
                .fetch_optional(&self.pool)
                .await
        })
        .await
    }
}
