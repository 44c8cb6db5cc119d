//! Uploaded files.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::{Sqlite, fault::bounded, value::list};
use crate::{
    ids::{AppId, AttachmentId, ChatKey, ObjectId, UserId},
    store::{
        Added, Attachment, Attachments, Result,
        attachments::References,
        plan::Plan,
        rows::{self, int},
    },
    time::Millis,
};

#[async_trait]
impl Attachments for Sqlite {
    async fn note_object(&self, app: AppId, object: ObjectId, at: Millis) -> Result<()> {
        bounded(async {
            let mut write = self.begin().await?;
            sqlx::query("INSERT OR IGNORE INTO loose_objects (app, object, since) VALUES (?, ?, ?)")
                .bind(app)
                .bind(object)
                .bind(at)
                .execute(&mut *write)
                .await?;
            write.commit().await
        })
        .await
    }

    async fn add_attachment(&self, app: AppId, attachment: &Attachment) -> Result<Added> {
        bounded(async {
            let mut write = self.begin().await?;
            let there = sqlx::query("SELECT * FROM attachments WHERE app = ? AND id = ?")
                .bind(app)
                .bind(attachment.id)
                .fetch_optional(&mut *write)
                .await?;
            let outcome = match there {
                Some(row) => Added::Known(rows::attachment(&row)?),
                None => insert(&mut write, app, attachment).await?,
            };
            write.commit().await?;
            Ok(outcome)
        })
        .await
    }

    async fn attachment(&self, app: AppId, id: AttachmentId, reader: UserId) -> Result<Option<Attachment>> {
        bounded(async {
            let row = sqlx::query(
                "SELECT * FROM attachments a WHERE a.app = ?1 AND a.id = ?2 AND (a.uploader = ?3 OR EXISTS (
                     SELECT 1 FROM attachment_uses u
                     CROSS JOIN memberships s ON s.app = u.app AND s.user = ?3 AND s.chat = u.chat
                     WHERE u.app = ?1 AND u.attachment = ?2) OR EXISTS (
                     SELECT 1 FROM users p WHERE p.app = ?1 AND p.id = a.uploader AND p.avatar = lower(hex(a.id))))",
            )
            .bind(app)
            .bind(id)
            .bind(reader)
            .fetch_optional(&self.readers)
            .await?;
            row.as_ref().map(rows::attachment).transpose()
        })
        .await
    }

    async fn touch_attachments(
        &self,
        app: AppId,
        from: UserId,
        ids: &[AttachmentId],
        at: Millis,
    ) -> Result<Vec<Attachment>> {
        bounded(async {
            let mut write = self.begin().await?;
            let found = touch(&mut write, app, from, ids, at).await?;
            write.commit().await?;
            Ok(found)
        })
        .await
    }

    async fn offer_attachments(
        &self,
        chat: ChatKey,
        from: UserId,
        ids: &[AttachmentId],
        at: Millis,
    ) -> Result<Vec<Attachment>> {
        bounded(async {
            let mut write = self.begin().await?;
            let found = touch(&mut write, chat.app, from, ids, at).await?;
            sqlx::query(
                "INSERT OR IGNORE INTO attachment_uses (app, chat, number, attachment)
                 SELECT ?1, ?2, 0, unhex(k.value) FROM json_each(?3) k
                 WHERE EXISTS (SELECT 1 FROM memberships WHERE app = ?1 AND user = ?4 AND chat = ?2)",
            )
            .bind(chat.app)
            .bind(chat.chat)
            .bind(list(found.iter().map(|attachment| attachment.id)))
            .bind(from)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(found)
        })
        .await
    }

    async fn drop_unused(&self, before: Millis, now: Millis, limit: u32) -> Result<u32> {
        bounded(async {
            let mut write = self.begin().await?;
            let rows = sqlx::query(
                "SELECT app, id FROM attachments WHERE referred = 0 AND touched_at < ? ORDER BY touched_at LIMIT ?",
            )
            .bind(before)
            .bind(limit)
            .fetch_all(&mut *write)
            .await?;
            let mut keys: Vec<(AppId, AttachmentId)> = Vec::with_capacity(rows.len());
            for row in &rows {
                keys.push((row.try_get("app")?, row.try_get("id")?));
            }
            let keys = list(keys);
            for statement in [
                // Those that are referred to all the same are looked at again later.
                "UPDATE attachments SET touched_at = ?2 FROM json_each(?1) k
                 WHERE attachments.app = unhex(k.value ->> 0) AND attachments.id = unhex(k.value ->> 1) AND (EXISTS (
                     SELECT 1 FROM attachment_uses u
                     WHERE u.app = attachments.app AND u.attachment = attachments.id AND u.number > 0) OR EXISTS (
                     SELECT 1 FROM users p WHERE p.app = attachments.app AND p.id = attachments.uploader
                       AND p.avatar = lower(hex(attachments.id))))",
                "INSERT OR IGNORE INTO loose_objects (app, object, since)
                 SELECT a.app, a.object, 0 FROM json_each(?1) k
                 CROSS JOIN attachments a ON a.app = unhex(k.value ->> 0) AND a.id = unhex(k.value ->> 1)
                 WHERE a.touched_at < ?2",
                "DELETE FROM attachment_uses WHERE number = 0 AND (app, attachment) IN (
                     SELECT a.app, a.id FROM json_each(?1) k
                     CROSS JOIN attachments a ON a.app = unhex(k.value ->> 0) AND a.id = unhex(k.value ->> 1)
                     WHERE a.touched_at < ?2)",
                "DELETE FROM attachments WHERE touched_at < ?2 AND (app, id) IN (
                     SELECT unhex(k.value ->> 0), unhex(k.value ->> 1) FROM json_each(?1) k)",
            ] {
                sqlx::query(statement).bind(&keys).bind(now).execute(&mut *write).await?;
            }
            write.commit().await?;
            Ok(u32::try_from(rows.len()).unwrap_or(limit))
        })
        .await
    }

    async fn loose_objects(&self, before: Millis, limit: u32) -> Result<Vec<(AppId, ObjectId)>> {
        bounded(async {
            let rows =
                sqlx::query("SELECT app, object FROM loose_objects WHERE since < ? ORDER BY since LIMIT ?")
                    .bind(before)
                    .bind(limit)
                    .fetch_all(&self.readers)
                    .await?;
            rows.iter().map(|row| Ok((row.try_get("app")?, row.try_get("object")?))).collect()
        })
        .await
    }

    async fn forget_object(&self, app: AppId, object: ObjectId) -> Result<()> {
        bounded(async {
            let mut write = self.begin().await?;
            sqlx::query("DELETE FROM loose_objects WHERE app = ? AND object = ?")
                .bind(app)
                .bind(object)
                .execute(&mut *write)
                .await?;
            write.commit().await
        })
        .await
    }
}

async fn touch(
    connection: &mut SqliteConnection,
    app: AppId,
    from: UserId,
    ids: &[AttachmentId],
    at: Millis,
) -> sqlx::Result<Vec<Attachment>> {
    let found = sqlx::query(
        "UPDATE attachments SET touched_at = max(touched_at, ?) WHERE app = ? AND uploader = ?
         AND id IN (SELECT unhex(value) FROM json_each(?)) RETURNING *",
    )
    .bind(at)
    .bind(app)
    .bind(from)
    .bind(list(ids))
    .fetch_all(connection)
    .await?;
    found.iter().map(rows::attachment).collect()
}

async fn insert(
    connection: &mut SqliteConnection,
    app: AppId,
    attachment: &Attachment,
) -> sqlx::Result<Added> {
    let taken = sqlx::query("DELETE FROM loose_objects WHERE app = ? AND object = ?")
        .bind(app)
        .bind(attachment.object)
        .execute(&mut *connection)
        .await?;
    if taken.rows_affected() == 0 {
        return Ok(Added::Gone);
    }
    sqlx::query(
        "INSERT INTO attachments
           (app, id, uploader, object, kind, media_type, size, name, digest, created_at, touched_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
    )
    .bind(app)
    .bind(attachment.id)
    .bind(attachment.uploader)
    .bind(attachment.object)
    .bind(attachment.kind.word())
    .bind(&attachment.media_type)
    .bind(int(attachment.size))
    .bind(attachment.name.as_deref())
    .bind(attachment.digest.as_deref())
    .bind(attachment.created_at)
    .execute(connection)
    .await?;
    Ok(Added::New)
}

/// Writes what a plan's messages refer to, and forgets what is gone.
pub(super) async fn references(connection: &mut SqliteConnection, plan: &Plan<'_>) -> sqlx::Result<()> {
    let References { added, removed } = References::of(plan);
    if !added.is_empty() {
        let added = list(added.iter().map(|(key, number, id)| (key.app, key.chat, int(*number), id)));
        for statement in [
            "INSERT OR IGNORE INTO attachment_uses (app, chat, number, attachment)
             SELECT unhex(k.value ->> 0), unhex(k.value ->> 1), k.value ->> 2, unhex(k.value ->> 3)
             FROM json_each(?) k",
            "UPDATE attachments SET referred = 1 FROM json_each(?) k
             WHERE attachments.app = unhex(k.value ->> 0) AND attachments.id = unhex(k.value ->> 3)",
        ] {
            sqlx::query(statement).bind(&added).execute(&mut *connection).await?;
        }
    }
    if !removed.is_empty() {
        let removed = list(removed.iter().map(|(key, number)| (key.app, key.chat, int(*number))));
        for statement in [
            "UPDATE attachments SET referred = 0 WHERE (app, id) IN (
                 SELECT u.app, u.attachment FROM json_each(?) k
                 CROSS JOIN attachment_uses u ON u.app = unhex(k.value ->> 0) AND u.chat = unhex(k.value ->> 1)
                   AND u.number = k.value ->> 2)",
            "DELETE FROM attachment_uses WHERE number = 0 AND (app, chat, attachment) IN (
                 SELECT u.app, u.chat, u.attachment FROM json_each(?) k
                 CROSS JOIN attachment_uses u ON u.app = unhex(k.value ->> 0) AND u.chat = unhex(k.value ->> 1)
                   AND u.number = k.value ->> 2)",
            "DELETE FROM attachment_uses WHERE (app, chat, number) IN (
                 SELECT unhex(k.value ->> 0), unhex(k.value ->> 1), k.value ->> 2 FROM json_each(?) k)",
        ] {
            sqlx::query(statement).bind(&removed).execute(&mut *connection).await?;
        }
    }
    if !plan.deleted.is_empty() {
        let chats = list(plan.deleted.iter().map(|(key, _)| (key.app, key.chat)));
        for statement in [
            "UPDATE attachments SET referred = 0 WHERE (app, id) IN (
                 SELECT u.app, u.attachment FROM json_each(?) k
                 CROSS JOIN attachment_uses u ON u.app = unhex(k.value ->> 0) AND u.chat = unhex(k.value ->> 1))",
            "DELETE FROM attachment_uses WHERE (app, chat) IN (
                 SELECT unhex(k.value ->> 0), unhex(k.value ->> 1) FROM json_each(?) k)",
        ] {
            sqlx::query(statement).bind(&chats).execute(&mut *connection).await?;
        }
    }
    Ok(())
}
