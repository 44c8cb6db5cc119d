//! The end of messages that are past their time.
//!
//! A chat's rows belong to its partition: the lock of the partition's position keeps the writer's batches away meanwhile.

use async_trait::async_trait;
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Postgres, drain::partition};
use crate::{
    applications::Retention,
    ids::{AppId, ChatId, ChatKey, Number, Partition},
    store::{
        Accounts, DrainedMark, Due, Expire, Result, Scope,
        retention::{self, Ending, retention_column},
        rows::{self, int, unsigned},
    },
    time::Millis,
};

/// Of the chats `k`, whether the oldest message that is left is past its time at $1.
macro_rules! due {
    ($chats:literal) => {
        concat!(
            "SELECT k.app, k.chat,
               CASE
                 WHEN k.retention > 0 THEN EXISTS (
                   SELECT 1 FROM messages m WHERE m.app = k.app AND m.chat = k.chat AND m.number = k.expired_number + 1
                     AND m.created_at <= $1 - k.retention * 86400000)
                 WHEN k.retention < 0 THEN k.head_number > k.expired_number
                   AND EXISTS (SELECT 1 FROM members m WHERE m.app = k.app AND m.chat = k.chat)
                   AND NOT EXISTS (
                     SELECT 1 FROM members m
                     JOIN memberships s ON s.app = m.app AND s.user_id = m.user_id AND s.chat = m.chat
                     WHERE m.app = k.app AND m.chat = k.chat
                       AND greatest(s.joined_number, s.read_number) <= k.expired_number)
                 ELSE false
               END AS due
             FROM (",
            $chats,
            ") k ORDER BY k.app, k.chat"
        )
    };
}

#[async_trait]
impl Expire for Postgres {
    async fn application_retentions(&self) -> Result<Vec<(AppId, Retention)>> {
        let applications = self.applications().await?;
        let chosen = applications.iter().map(|application| (application.id, application.settings.retention));
        Ok(chosen.filter(|(_, retention)| *retention != Retention::Forever).collect())
    }

    async fn due(&self, scope: Scope, after: Option<ChatKey>, now: Millis, limit: u32) -> Result<Due> {
        let after = after.unwrap_or(ChatKey { app: AppId(Uuid::nil()), chat: ChatId(Uuid::nil()) });
        self.call(|| async move {
            let rows = match scope {
                Scope::Chosen => {
                    sqlx::query(due!(
                        "SELECT app, chat, head_number, expired_number, retention FROM chats
                         WHERE retention IS NOT NULL AND (app, chat) > ($2, $3) AND NOT deleted
                         ORDER BY app, chat LIMIT $4"
                    ))
                    .bind(now)
                    .bind(after.app)
                    .bind(after.chat)
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool)
                    .await?
                }
                Scope::Application(app, retention) => {
                    sqlx::query(due!(
                        "SELECT app, chat, head_number, expired_number, $5::bigint AS retention FROM chats
                         WHERE app = $2 AND chat > $3 AND retention IS NULL AND NOT deleted
                         ORDER BY app, chat LIMIT $4"
                    ))
                    .bind(now)
                    .bind(app)
                    .bind(after.chat)
                    .bind(i64::from(limit))
                    .bind(retention_column(retention))
                    .fetch_all(&self.pool)
                    .await?
                }
            };
            rows::due(&rows, limit)
        })
        .await
    }

    async fn expire(
        &self,
        partition: Partition,
        chat: ChatKey,
        default: Retention,
        now: Millis,
        limit: u32,
    ) -> Result<u32> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            sqlx::query("SELECT 1 FROM positions WHERE partition = $1 FOR UPDATE")
                .bind(i32::from(partition))
                .execute(&mut *write)
                .await?;
            let row = sqlx::query(
                "SELECT head_number, expired_number, retention FROM chats
                 WHERE app = $1 AND chat = $2 AND NOT deleted FOR UPDATE",
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
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT partition, log, at, next_offset FROM drained_marks ORDER BY partition, place",
            )
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(drained_mark).collect()
        })
        .await
    }

    async fn mark_drained(&self, partition: Partition, marks: &[DrainedMark]) -> Result<()> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            // Of two at once, the marks of one.
            sqlx::query("SELECT 1 FROM positions WHERE partition = $1 FOR UPDATE")
                .bind(i32::from(partition))
                .execute(&mut *write)
                .await?;
            sqlx::query("DELETE FROM drained_marks WHERE partition = $1")
                .bind(i32::from(partition))
                .execute(&mut *write)
                .await?;
            for (place, mark) in (0_i32..).zip(marks) {
                sqlx::query(
                    "INSERT INTO drained_marks (partition, place, log, at, next_offset) VALUES ($1, $2, $3, $4, $5)",
                )
                .bind(i32::from(partition))
                .bind(place)
                .bind(mark.log)
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

fn drained_mark(row: &PgRow) -> sqlx::Result<(Partition, DrainedMark)> {
    let mark = DrainedMark {
        log: row.try_get("log")?,
        at: row.try_get("at")?,
        offset: unsigned(row, "next_offset")?,
    };
    Ok((partition(row)?, mark))
}

#[async_trait]
impl Ending for PgConnection {
    type Error = sqlx::Error;

    async fn accepted(
        &mut self,
        chat: ChatKey,
        from: Number,
        most: Number,
        by: Millis,
    ) -> sqlx::Result<Option<Number>> {
        let upto: Option<i64> = sqlx::query_scalar(
            "SELECT max(number) FROM messages
             WHERE app = $1 AND chat = $2 AND number > $3 AND number <= $4 AND created_at <= $5",
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
            "SELECT min(greatest(s.joined_number, s.read_number)) FROM members m
             JOIN memberships s ON s.app = m.app AND s.user_id = m.user_id AND s.chat = m.chat
             WHERE m.app = $1 AND m.chat = $2",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .fetch_one(self)
        .await?;
        Ok(upto.map(i64::unsigned_abs))
    }

    async fn end(&mut self, chat: ChatKey, from: Number, upto: Number) -> sqlx::Result<()> {
        for statement in [
            "UPDATE chats SET expired_number = $4 WHERE app = $1 AND chat = $2 AND expired_number = $3",
            "UPDATE messages SET body = '', attachments = NULL, reactions = NULL, mentions = NULL, mention_all = false,
               expired = NOT deleted, deleted = true
             WHERE app = $1 AND chat = $2 AND number > $3 AND number <= $4",
            "DELETE FROM reactions WHERE app = $1 AND chat = $2 AND number > $3 AND number <= $4",
            "DELETE FROM mentions WHERE app = $1 AND chat = $2 AND number > $3 AND number <= $4",
            "DELETE FROM mentions_of_all WHERE app = $1 AND chat = $2 AND number > $3 AND number <= $4",
            // Rows of attachments are locked in the order of their ids.
            "UPDATE attachments a SET referred = false FROM (
               SELECT DISTINCT u.app, u.attachment FROM attachment_uses u
               WHERE u.app = $1 AND u.chat = $2 AND u.number > $3 AND u.number <= $4 ORDER BY u.app, u.attachment) u
             WHERE a.app = u.app AND a.id = u.attachment",
            "DELETE FROM attachment_uses o USING (
               SELECT u.attachment FROM attachment_uses u
               WHERE u.app = $1 AND u.chat = $2 AND u.number > $3 AND u.number <= $4) u
             WHERE o.app = $1 AND o.chat = $2 AND o.number = 0 AND o.attachment = u.attachment",
            "DELETE FROM attachment_uses WHERE app = $1 AND chat = $2 AND number > $3 AND number <= $4",
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
            "INSERT INTO search_changes (app, chat, number, seq, at)
             SELECT app, chat, number, seq, $5 FROM messages
             WHERE app = $1 AND chat = $2 AND number > $3 AND number <= $4 AND NOT deleted ON CONFLICT DO NOTHING",
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
