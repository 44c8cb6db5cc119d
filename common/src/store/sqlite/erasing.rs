//! The end of users and of applications.

use async_trait::async_trait;

use super::{Sqlite, fault::bounded, value::list};
use crate::{
    ids::{AppId, ChatKey, SessionId, UserId, UserKey},
    store::{Erasing, Result, erasing::revoked_until, rows},
    time::Millis,
};

/// What an application has, table by table, with the columns of its key.
const TABLES: &[(&str, &str)] = &[
    ("user_words", "app, word, user"),
    ("last_seen", "app, user"),
    ("sign_ins", "app, user, id"),
    ("users", "app, id"),
    ("erased_users", "app, user"),
    ("relations", "app, user, kind, peer"),
    ("reactions", "app, chat, number, emoji, user"),
    ("mentions", "app, user, chat, number"),
    ("mentions_of_all", "app, chat, number"),
    ("attachment_uses", "app, chat, number, attachment"),
    ("search_due", "app, chat, upto"),
    ("search_segments", "app, chat, first_number"),
    ("search_buckets", "app, chat, first_number, bucket"),
    ("search_changes", "app, chat, number, seq"),
    ("notification_preferences", "app, user"),
    ("chat_notification_preferences", "app, user, chat"),
    ("notify_endpoints", "app, id"),
    ("notify_removed", "app, endpoint"),
    ("notify_waiting", "app, chat"),
    ("notify_held", "app, user, chat, endpoint"),
    ("notify_deliveries", "app, endpoint, place"),
    ("messages", "app, chat, number"),
    ("departures", "app, user, chat"),
    ("memberships", "app, user, chat"),
    ("members", "app, chat, user"),
    ("chats", "app, chat"),
    ("chat_counts", "app"),
];

#[async_trait]
impl Erasing for Sqlite {
    async fn erase_user(&self, app: AppId, user: UserId, now: Millis) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            // No spelling of a user name is folded to capitals.
            let erased = sqlx::query(
                "UPDATE users SET username = '', folded = 'ERASED ' || hex(id), name = '', avatar = NULL, mobile_number = NULL,
                   timezone = NULL, password_hash = '', erased_at = ?3
                 WHERE app = ?1 AND id = ?2 AND erased_at IS NULL",
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
                "DELETE FROM user_words WHERE app = ?1 AND user = ?2",
                "DELETE FROM last_seen WHERE app = ?1 AND user = ?2",
                "DELETE FROM relations WHERE app = ?1 AND user = ?2",
                "DELETE FROM notification_preferences WHERE app = ?1 AND user = ?2",
                "DELETE FROM chat_notification_preferences WHERE app = ?1 AND user = ?2",
                "DELETE FROM notify_held WHERE app = ?1 AND user = ?2",
                "INSERT OR IGNORE INTO notify_removed (app, endpoint)
                 SELECT app, id FROM notify_endpoints INDEXED BY notify_endpoints_by_user WHERE app = ?1 AND user = ?2",
                "DELETE FROM notify_endpoints INDEXED BY notify_endpoints_by_user WHERE app = ?1 AND user = ?2",
            ] {
                sqlx::query(statement).bind(app).bind(user).execute(&mut *write).await?;
            }
            sqlx::query(
                "INSERT INTO revocations (app, user, session, expires_at)
                 SELECT ?1, ?2, ?3, max(?4, coalesce(max(expires_at), 0)) FROM sign_ins WHERE app = ?1 AND user = ?2",
            )
            .bind(app)
            .bind(user)
            .bind(SessionId::every(app, user))
            .bind(revoked_until(now))
            .execute(&mut *write)
            .await?;
            sqlx::query("DELETE FROM sign_ins WHERE app = ? AND user = ?")
                .bind(app)
                .bind(user)
                .execute(&mut *write)
                .await?;
            sqlx::query("INSERT INTO erased_users (app, user, erased_at) VALUES (?, ?, ?)")
                .bind(app)
                .bind(user)
                .bind(now)
                .execute(&mut *write)
                .await?;
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn erased(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserId>> {
        bounded(async {
            sqlx::query_scalar(
                "SELECT u.id FROM users u
                 WHERE u.app = ? AND u.id IN (SELECT unhex(value) FROM json_each(?)) AND u.erased_at IS NOT NULL",
            )
            .bind(app)
            .bind(list(ids))
            .fetch_all(&self.readers)
            .await
        })
        .await
    }

    async fn groups_of_erased(&self, most: u32) -> Result<Vec<(UserKey, ChatKey)>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT m.app, m.user, m.chat FROM erased_users e
                 JOIN memberships m ON m.app = e.app AND m.user = e.user
                 JOIN chats c ON c.app = m.app AND c.chat = m.chat
                 WHERE c.kind = 'group' AND NOT c.deleted LIMIT ?",
            )
            .bind(most)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(|row| Ok((rows::user_key(row)?, rows::key(row)?))).collect()
        })
        .await
    }

    async fn settle_erased(&self, before: Millis) -> Result<()> {
        bounded(async {
            let mut write = self.begin().await?;
            sqlx::query(
                "DELETE FROM erased_users AS e WHERE e.erased_at < ? AND NOT EXISTS (
                   SELECT 1 FROM memberships m JOIN chats c ON c.app = m.app AND c.chat = m.chat
                   WHERE m.app = e.app AND m.user = e.user AND c.kind = 'group' AND NOT c.deleted)",
            )
            .bind(before)
            .execute(&mut *write)
            .await?;
            write.commit().await
        })
        .await
    }

    async fn erase_application(&self, app: AppId, now: Millis) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            let erased = sqlx::query(
                "UPDATE applications SET name = '', settings = '{}', token_secret = x'', erased_at = ?2
                 WHERE id = ?1 AND erased_at IS NULL",
            )
            .bind(app)
            .bind(now)
            .execute(&mut *write)
            .await?;
            sqlx::query("UPDATE application_changes SET last = last + 1").execute(&mut *write).await?;
            write.commit().await?;
            Ok(erased.rows_affected() == 1)
        })
        .await
    }

    async fn drop_rows(&self, before: Millis, most: u32) -> Result<u64> {
        let apps: Vec<AppId> = bounded(async {
            sqlx::query_scalar("SELECT id FROM applications WHERE erased_at < ? AND dropped_at IS NULL")
                .bind(before)
                .fetch_all(&self.readers)
                .await
        })
        .await?;
        let mut all = 0;
        for app in apps {
            all += bounded(async {
                let mut write = self.begin().await?;
                // An attachment's row goes when its object is noted as nobody's.
                sqlx::query(
                    "INSERT INTO loose_objects (app, object, since)
                     SELECT app, object, 0 FROM attachments WHERE app = ? ORDER BY id LIMIT ? ON CONFLICT DO NOTHING",
                )
                .bind(app)
                .bind(most)
                .execute(&mut *write)
                .await?;
                let mut dropped = sqlx::query(
                    "DELETE FROM attachments WHERE (app, id) IN (SELECT app, id FROM attachments WHERE app = ? ORDER BY id LIMIT ?)",
                )
                .bind(app)
                .bind(most)
                .execute(&mut *write)
                .await?
                .rows_affected();
                for (table, key) in TABLES {
                    let statement = format!(
                        "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE app = ? LIMIT ?)"
                    );
                    let deleted = sqlx::query(sqlx::AssertSqlSafe(statement))
                        .bind(app)
                        .bind(most)
                        .execute(&mut *write)
                        .await?;
                    dropped += deleted.rows_affected();
                }
                if dropped == 0 {
                    sqlx::query("UPDATE applications SET dropped_at = ? WHERE id = ?")
                        .bind(before)
                        .bind(app)
                        .execute(&mut *write)
                        .await?;
                }
                write.commit().await?;
                Ok(dropped)
            })
            .await?;
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
        let named: BTreeSet<String> = TABLES.iter().map(|(table, _)| (*table).to_owned()).collect();
        assert_eq!(named, tables_of_applications(STEPS));
    }
}
