//! The end of messages that are past their time.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Sqlite, fault::bounded};
use crate::{
    applications::Retention,
    ids::{AppId, ChatId, ChatKey, Number, Partition},
    store::{
        Accounts, DrainedMark, Due, Expire, Result, Scope,
        retention::{self, Ending, retention_column},
        rows::{self, int, unreadable, unsigned},
    },
    time::Millis,
};

/// Of the chats `k`, whether the oldest message that is left is past its time at ?1.
macro_rules! due {
    ($chats:literal) => {
        concat!(
            "SELECT k.app, k.chat,
               CASE
                 WHEN k.retention > 0 THEN EXISTS (
                   SELECT 1 FROM messages m WHERE m.app = k.app AND m.chat = k.chat AND m.number = k.expired_number + 1
                     AND m.created_at <= ?1 - k.retention * 86400000)
                 WHEN k.retention < 0 THEN k.head_number > k.expired_number
                   AND EXISTS (SELECT 1 FROM members m WHERE m.app = k.app AND m.chat = k.chat)
                   AND NOT EXISTS (
                     SELECT 1 FROM members m
                     CROSS JOIN memberships s ON s.app = m.app AND s.user = m.user AND s.chat = m.chat
                     WHERE m.app = k.app AND m.chat = k.chat
                       AND max(s.joined_number, s.read_number) <= k.expired_number)
                 ELSE 0
               END AS due
             FROM (",
            $chats,
            ") k ORDER BY k.app, k.chat"
        )
    };
}

#[async_trait]
impl Expire for Sqlite {
    async fn application_retentions(&self) -> Result<Vec<(AppId, Retention)>> {
        let applications = self.applications().await?;
        let chosen = applications.iter().map(|application| (application.id, application.settings.retention));
        Ok(chosen.filter(|(_, retention)| *retention != Retention::Forever).collect())
    }

    async fn due(&self, scope: Scope, after: Option<ChatKey>, now: Millis, limit: u32) -> Result<Due> {
        let after = after.unwrap_or(ChatKey { app: AppId(Uuid::nil()), chat: ChatId(Uuid::nil()) });
        bounded(async {
            let rows = match scope {
                Scope::Chosen => {
                    sqlx::query(due!(
                        "SELECT app, chat, head_number, expired_number, retention
                         FROM chats INDEXED BY chats_with_retention
                         WHERE retention IS NOT NULL AND (app, chat) > (?2, ?3) AND deleted = 0
                         ORDER BY app, chat LIMIT ?4"
                    ))
                    .bind(now)
                    .bind(after.app)
                    .bind(after.chat)
                    .bind(limit)
                    .fetch_all(&self.readers)
                    .await?
                }
                Scope::Application(app, retention) => {
                    sqlx::query(due!(
                        "SELECT app, chat, head_number, expired_number, ?5 AS retention FROM chats
                         WHERE app = ?2 AND chat > ?3 AND retention IS NULL AND deleted = 0
                         ORDER BY app, chat LIMIT ?4"
                    ))
                    .bind(now)
                    .bind(app)
                    .bind(after.chat)
                    .bind(limit)
                    .bind(retention_column(retention))
                    .fetch_all(&self.readers)
                    .await?
                }
            };
            rows::due(&rows, limit)
        })
        .await
    }

    async fn expire(
        &self,
        _: Partition,
        chat: ChatKey,
        default: Retention,
        now: Millis,
        limit: u32,
    ) -> Result<u32> {
        bounded(async {
            let mut write = self.begin().await?;
            let row = sqlx::query(
                "SELECT head_number, expired_number, retention FROM chats WHERE app = ? AND chat = ? AND deleted = 0",
            )
            .bind(chat.app)
            .bind(chat.chat)
            .fetch_optional(&mut *write)
            .await?;
            let Some(row) = row else { return Ok(0) };
            let ended = retention::expire(&mut *write, chat, rows::kept(&row)?, default, now, limit).await?;
            write.commit().await?;
            Ok(ended)
        })
        .await
    }

    async fn drained_marks(&self) -> Result<Vec<(Partition, DrainedMark)>> {
        bounded(async {
            let rows =
                sqlx::query("SELECT partition, log, at, offset FROM drained_marks ORDER BY partition, place")
                    .fetch_all(&self.readers)
                    .await?;
            rows.iter().map(drained_mark).collect()
        })
        .await
    }

    async fn mark_drained(&self, partition: Partition, marks: &[DrainedMark]) -> Result<()> {
        bounded(async {
            let mut write = self.begin().await?;
            sqlx::query("DELETE FROM drained_marks WHERE partition = ?")
                .bind(partition)
                .execute(&mut *write)
                .await?;
            for (place, mark) in (0_i64..).zip(marks) {
                sqlx::query(
                    "INSERT INTO drained_marks (partition, place, log, at, offset) VALUES (?, ?, ?, ?, ?)",
                )
                .bind(partition)
                .bind(place)
                .bind(mark.log.as_bytes().as_slice())
                .bind(mark.at)
                .bind(int(mark.offset))
                .execute(&mut *write)
                .await?;
            }
            write.commit().await
        })
        .await
    }
}

fn drained_mark(row: &SqliteRow) -> sqlx::Result<(Partition, DrainedMark)> {
    let mark = DrainedMark {
        log: Uuid::from_slice(row.try_get("log")?).map_err(|error| unreadable(error.to_string()))?,
        at: row.try_get("at")?,
        offset: unsigned(row, "offset")?,
    };
    Ok((row.try_get("partition")?, mark))
}

#[async_trait]
impl Ending for SqliteConnection {
    type Error = sqlx::Error;

    async fn accepted(
        &mut self,
        chat: ChatKey,
        from: Number,
        most: Number,
        by: Millis,
    ) -> sqlx::Result<Option<Number>> {
        let upto: Option<i64> = sqlx::query_scalar(
            "SELECT max(number) FROM messages WHERE app = ? AND chat = ? AND number > ? AND number <= ? AND created_at <= ?",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(from))
        .bind(int(most))
        .bind(by)
        .fetch_one(self)
        .await?;
        Ok(upto.map(i64::unsigned_abs))
    }

    async fn read_by_all(&mut self, chat: ChatKey) -> sqlx::Result<Option<Number>> {
        let upto: Option<i64> = sqlx::query_scalar(
            "SELECT min(max(s.joined_number, s.read_number)) FROM members m
             CROSS JOIN memberships s ON s.app = m.app AND s.user = m.user AND s.chat = m.chat
             WHERE m.app = ? AND m.chat = ?",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .fetch_one(self)
        .await?;
        Ok(upto.map(i64::unsigned_abs))
    }

    async fn end(&mut self, chat: ChatKey, from: Number, upto: Number) -> sqlx::Result<()> {
        for statement in [
            "UPDATE attachments SET referred = 0 WHERE (app, id) IN (
               SELECT app, attachment FROM attachment_uses WHERE app = ?1 AND chat = ?2 AND number > ?3 AND number <= ?4)",
            "DELETE FROM attachment_uses WHERE app = ?1 AND chat = ?2 AND number = 0 AND attachment IN (
               SELECT attachment FROM attachment_uses WHERE app = ?1 AND chat = ?2 AND number > ?3 AND number <= ?4)",
            "DELETE FROM attachment_uses WHERE app = ?1 AND chat = ?2 AND number > ?3 AND number <= ?4",
            "DELETE FROM reactions WHERE app = ?1 AND chat = ?2 AND number > ?3 AND number <= ?4",
            "DELETE FROM mentions WHERE app = ?1 AND chat = ?2 AND number > ?3 AND number <= ?4",
            "DELETE FROM mentions_of_all WHERE app = ?1 AND chat = ?2 AND number > ?3 AND number <= ?4",
            "UPDATE messages SET body = '', attachments = NULL, reactions = NULL, mentions = NULL, mention_all = 0,
               expired = NOT deleted, deleted = 1
             WHERE app = ?1 AND chat = ?2 AND number > ?3 AND number <= ?4",
            "UPDATE chats SET expired_number = ?4 WHERE app = ?1 AND chat = ?2 AND expired_number = ?3",
        ] {
            sqlx::query(statement)
                .bind(chat.app)
                .bind(chat.chat)
                .bind(int(from))
                .bind(int(upto))
                .execute(&mut *self)
                .await?;
        }
        Ok(())
    }

    async fn note(&mut self, chat: ChatKey, from: Number, upto: Number, now: Millis) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT OR IGNORE INTO search_changes (app, chat, number, seq, at)
             SELECT app, chat, number, seq, ?5 FROM messages
             WHERE app = ?1 AND chat = ?2 AND number > ?3 AND number <= ?4 AND NOT deleted",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(from))
        .bind(int(upto))
        .bind(now)
        .execute(self)
        .await?;
        Ok(())
    }
}
