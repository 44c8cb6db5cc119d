//! The end of users and of applications.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;

use super::{Postgres, value::column};
use crate::{
    ids::{AppId, ChatKey, SessionId, UserId, UserKey},
    store::{Erasing, Result, erasing::revoked_until, rows},
    time::Millis,
};

/// What an application has, table by table. Each has an index that begins with the application.
const TABLES: &[&str] = &[
    "user_words",
    "last_seen",
    "sign_ins",
    "users",
    "erased_users",
    "relations",
    "reactions",
    "mentions",
    "mentions_of_all",
    "attachment_uses",
    "search_due",
    "search_segments",
    "search_buckets",
    "search_changes",
    "notification_preferences",
    "chat_notification_preferences",
    "notify_endpoints",
    "notify_removed",
    "notify_waiting",
    "notify_held",
    "notify_deliveries",
    "messages",
    "departures",
    "memberships",
    "members",
    "chats",
    "chat_counts",
];

#[async_trait]
impl Erasing for Postgres {
    async fn erase_user(&self, app: AppId, user: UserId, now: Millis) -> Result<bool> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            // No spelling of a user name is folded to capitals.
            let erased = sqlx::query(
                "UPDATE users SET username = '', folded = 'ERASED ' || id, name = '', avatar = NULL, mobile_number = NULL,
                   timezone = NULL, password_hash = '', erased_at = $3
                 WHERE app = $1 AND id = $2 AND erased_at IS NULL",
            )
            .bind(app)
            .bind(user)
            .bind(now)
            .execute(&mut *write)
            .await?;
            if erased.rows_affected() == 0 {
                return Ok(false);
            }
            for statement in [
                "DELETE FROM user_words WHERE app = $1 AND user_id = $2",
                "DELETE FROM last_seen WHERE app = $1 AND user_id = $2",
                "DELETE FROM relations WHERE app = $1 AND user_id = $2",
                "DELETE FROM notify_held WHERE app = $1 AND user_id = $2",
                "WITH gone AS (DELETE FROM notify_endpoints WHERE app = $1 AND user_id = $2 RETURNING app, id)
                 INSERT INTO notify_removed (app, endpoint) SELECT app, id FROM gone ON CONFLICT DO NOTHING",
                // Behind what a round through members may hold: it waits for batches, and these for what was chosen in a chat.
                "DELETE FROM notification_preferences WHERE app = $1 AND user_id = $2",
                "DELETE FROM chat_notification_preferences WHERE app = $1 AND user_id = $2",
            ] {
                sqlx::query(statement).bind(app).bind(user).execute(&mut *write).await?;
            }
            sqlx::query("INSERT INTO erased_users (app, user_id, erased_at) VALUES ($1, $2, $3)")
                .bind(app)
                .bind(user)
                .bind(now)
                .execute(&mut *write)
                .await?;
            // Last, as where one sign-in is ended.
            sqlx::query(
                "WITH ended AS (DELETE FROM sign_ins WHERE app = $1 AND user_id = $2 RETURNING expires_at),
                 next AS (UPDATE revocation_count SET last = last + 1 RETURNING last)
                 INSERT INTO revocations (no, app, user_id, session, expires_at)
                 SELECT last, $1, $2, $3, greatest($4, (SELECT max(expires_at) FROM ended)) FROM next",
            )
            .bind(app)
            .bind(user)
            .bind(SessionId::every(app, user))
            .bind(revoked_until(now))
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn erased(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserId>> {
        self.call(|| async move {
            sqlx::query_scalar(
                "SELECT id FROM users WHERE app = $1 AND id = ANY($2) AND erased_at IS NOT NULL",
            )
            .bind(app)
            .bind(column(ids, |id| *id))
            .fetch_all(&self.pool)
            .await
        })
        .await
    }

    async fn groups_of_erased(&self, most: u32) -> Result<Vec<(UserKey, ChatKey)>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT m.app, m.user_id AS user, m.chat FROM erased_users e
                 JOIN memberships m ON m.app = e.app AND m.user_id = e.user_id
                 JOIN chats c ON c.app = m.app AND c.chat = m.chat
                 WHERE c.kind = 'group' AND NOT c.deleted LIMIT $1",
            )
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(|row| Ok((rows::user_key(row)?, rows::key(row)?))).collect()
        })
        .await
    }

    async fn settle_erased(&self, before: Millis) -> Result<()> {
        self.call(|| async move {
            sqlx::query(
                "DELETE FROM erased_users AS e WHERE e.erased_at < $1 AND NOT EXISTS (
                   SELECT 1 FROM memberships m JOIN chats c ON c.app = m.app AND c.chat = m.chat
                   WHERE m.app = e.app AND m.user_id = e.user_id AND c.kind = 'group' AND NOT c.deleted)",
            )
            .bind(before)
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    async fn erase_application(&self, app: AppId, now: Millis) -> Result<bool> {
        self.call(|| async move {
            let erased: i64 = sqlx::query_scalar(
                "WITH counted AS (UPDATE application_changes SET last = last + 1),
                 erased AS (
                   UPDATE applications SET name = '', settings = '{}', token_secret = '', erased_at = $2
                   WHERE id = $1 AND erased_at IS NULL RETURNING id)
                 SELECT count(*) FROM erased",
            )
            .bind(app)
            .bind(now)
            .fetch_one(&self.pool)
            .await?;
            Ok(erased == 1)
        })
        .await
    }

    async fn drop_rows(&self, before: Millis, most: u32) -> Result<u64> {
        let apps: Vec<AppId> = self
            .call(|| async move {
                sqlx::query_scalar("SELECT id FROM applications WHERE erased_at < $1 AND dropped_at IS NULL")
                    .bind(before)
                    .fetch_all(&self.pool)
                    .await
            })
            .await?;
        let mut all = 0;
        for app in apps {
            let mut dropped = 0;
            // An attachment's row goes when its object is noted as nobody's.
            let attachments = "WITH gone AS (DELETE FROM attachments WHERE ctid = ANY (ARRAY(
                   SELECT ctid FROM attachments WHERE app = $1 LIMIT $2)) RETURNING app, object)
                 INSERT INTO loose_objects (app, object, since) SELECT app, object, 0 FROM gone
                 ON CONFLICT (app, object) DO UPDATE SET since = 0"
                .to_owned();
            let others = TABLES.iter().map(|table| {
                format!(
                    "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE app = $1 LIMIT $2))"
                )
            });
            for statement in std::iter::once(attachments).chain(others) {
                let statement = &statement;
                dropped += self
                    .call(|| async move {
                        let deleted = sqlx::query(AssertSqlSafe(statement.clone()))
                            .bind(app)
                            .bind(i64::from(most))
                            .execute(&self.pool)
                            .await?;
                        Ok(deleted.rows_affected())
                    })
                    .await?;
            }
            if dropped == 0 {
                self.call(|| async move {
                    sqlx::query("UPDATE applications SET dropped_at = $2 WHERE id = $1")
                        .bind(app)
                        .bind(before)
                        .execute(&self.pool)
                        .await
                })
                .await?;
            }
            all += dropped;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::schema::STEPS, TABLES};
    use crate::store::erasing::tables_of_applications;

    #[test]
    fn every_table_of_applications_is_named() {
        let named: BTreeSet<String> = TABLES.iter().map(|table| (*table).to_owned()).collect();
        assert_eq!(named, tables_of_applications(STEPS));
    }
}
