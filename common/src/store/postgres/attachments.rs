//! Uploaded files.

use async_trait::async_trait;
use sqlx::{PgConnection, Row};

use super::{Postgres, value::column};
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
impl Attachments for Postgres {
    async fn note_object(&self, app: AppId, object: ObjectId, at: Millis) -> Result<()> {
        self.call(|| async move {
            sqlx::query(
                "INSERT INTO loose_objects (app, object, since) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            )
            .bind(app)
            .bind(object)
            .bind(at)
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    async fn add_attachment(&self, app: AppId, attachment: &Attachment) -> Result<Added> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            let added = sqlx::query(
                "INSERT INTO attachments
                   (app, id, uploader, object, kind, media_type, size, name, digest, created_at, touched_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) ON CONFLICT DO NOTHING",
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
            .execute(&mut *write)
            .await?;
            if added.rows_affected() == 0 {
                // Whoever came first has committed by now.
                let row = sqlx::query("SELECT * FROM attachments WHERE app = $1 AND id = $2")
                    .bind(app)
                    .bind(attachment.id)
                    .fetch_one(&mut *write)
                    .await?;
                return Ok(Added::Known(rows::attachment(&row)?));
            }
            let taken = sqlx::query("DELETE FROM loose_objects WHERE app = $1 AND object = $2")
                .bind(app)
                .bind(attachment.object)
                .execute(&mut *write)
                .await?;
            if taken.rows_affected() == 0 {
                return Ok(Added::Gone);
            }
            write.commit().await?;
            Ok(Added::New)
        })
        .await
    }

    async fn attachment(&self, app: AppId, id: AttachmentId, reader: UserId) -> Result<Option<Attachment>> {
        self.call(|| async move {
            let row = sqlx::query(
                "SELECT * FROM attachments a WHERE a.app = $1 AND a.id = $2 AND (a.uploader = $3 OR EXISTS (
                   SELECT 1 FROM attachment_uses u
                   JOIN memberships s ON s.app = u.app AND s.user_id = $3 AND s.chat = u.chat
                   WHERE u.app = $1 AND u.attachment = $2) OR EXISTS (
                   SELECT 1 FROM users p
                   WHERE p.app = $1 AND p.id = a.uploader AND p.avatar = replace(a.id::text, '-', '')))",
            )
            .bind(app)
            .bind(id)
            .bind(reader)
            .fetch_optional(&self.pool)
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
        self.call(|| async move {
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
        self.call(|| async move {
            let mut write = self.begin().await?;
            let found = touch(&mut write, chat.app, from, ids, at).await?;
            sqlx::query(
                "INSERT INTO attachment_uses (app, chat, number, attachment)
                 SELECT $1, $2, 0, k.id FROM UNNEST($3::uuid[]) AS k (id)
                 WHERE EXISTS (SELECT 1 FROM memberships WHERE app = $1 AND user_id = $4 AND chat = $2)
                 ON CONFLICT DO NOTHING",
            )
            .bind(chat.app)
            .bind(chat.chat)
            .bind(column(&found, |attachment| attachment.id))
            .bind(from)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(found)
        })
        .await
    }

    async fn drop_unused(&self, before: Millis, now: Millis, limit: u32) -> Result<u32> {
        self.call(|| async move {
            // A message that is drained meanwhile has locked its attachment's row, and one that is sent meanwhile has a newer time: both are
            // seen once the row is locked. Those that are referred to all the same are looked at again later.
            let looked: i64 = sqlx::query_scalar(
                "WITH candidates AS (
                   SELECT app, id, uploader FROM attachments WHERE NOT referred AND touched_at < $1
                   ORDER BY touched_at LIMIT $3 FOR UPDATE SKIP LOCKED),
                 looked AS (
                   SELECT c.app, c.id, EXISTS (
                     SELECT 1 FROM attachment_uses u
                     WHERE u.app = c.app AND u.attachment = c.id AND u.number > 0) OR EXISTS (
                     SELECT 1 FROM users p
                     WHERE p.app = c.app AND p.id = c.uploader AND p.avatar = replace(c.id::text, '-', '')) AS used
                   FROM candidates c),
                 kept AS (
                   UPDATE attachments a SET touched_at = $2 FROM looked l
                   WHERE a.app = l.app AND a.id = l.id AND l.used),
                 gone AS (
                   DELETE FROM attachments a USING looked l
                   WHERE a.app = l.app AND a.id = l.id AND NOT l.used
                   RETURNING a.app, a.id, a.object),
                 offers AS (
                   DELETE FROM attachment_uses u USING gone g
                   WHERE u.app = g.app AND u.attachment = g.id AND u.number = 0),
                 loose AS (
                   INSERT INTO loose_objects (app, object, since) SELECT app, object, 0 FROM gone
                   ON CONFLICT DO NOTHING)
                 SELECT count(*) FROM candidates",
            )
            .bind(before)
            .bind(now)
            .bind(i64::from(limit))
            .fetch_one(&self.pool)
            .await?;
            Ok(u32::try_from(looked).unwrap_or(limit))
        })
        .await
    }

    async fn loose_objects(&self, before: Millis, limit: u32) -> Result<Vec<(AppId, ObjectId)>> {
        self.call(|| async move {
            let rows =
                sqlx::query("SELECT app, object FROM loose_objects WHERE since < $1 ORDER BY since LIMIT $2")
                    .bind(before)
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool)
                    .await?;
            rows.iter().map(|row| Ok((row.try_get("app")?, row.try_get("object")?))).collect()
        })
        .await
    }

    async fn forget_object(&self, app: AppId, object: ObjectId) -> Result<()> {
        self.call(|| async move {
            sqlx::query("DELETE FROM loose_objects WHERE app = $1 AND object = $2")
                .bind(app)
                .bind(object)
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }
}

async fn touch(
    connection: &mut PgConnection,
    app: AppId,
    from: UserId,
    ids: &[AttachmentId],
    at: Millis,
) -> sqlx::Result<Vec<Attachment>> {
    let found = sqlx::query(
        "UPDATE attachments SET touched_at = greatest(touched_at, $1)
         WHERE app = $2 AND uploader = $3 AND id = ANY($4) RETURNING *",
    )
    .bind(at)
    .bind(app)
    .bind(from)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    found.iter().map(rows::attachment).collect()
}

/// Writes what a plan's messages refer to, and forgets what is gone.
pub(super) async fn references(connection: &mut PgConnection, plan: &Plan<'_>) -> sqlx::Result<()> {
    let References { mut added, removed } = References::of(plan);
    if !added.is_empty() {
        // Rows of attachments are locked in the order of their ids.
        added.sort_unstable_by_key(|(key, number, id)| (key.app, *id, key.chat, *number));
        let added = added.as_slice();
        let (apps, ids) = (column(added, |(key, ..)| key.app), column(added, |(.., id)| *id));
        sqlx::query(
            "INSERT INTO attachment_uses (app, chat, number, attachment)
             SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[]) ON CONFLICT DO NOTHING",
        )
        .bind(&apps)
        .bind(column(added, |(key, ..)| key.chat))
        .bind(column(added, |(_, number, _)| int(*number)))
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE attachments a SET referred = true
             FROM (SELECT DISTINCT * FROM UNNEST($1::uuid[], $2::uuid[]) AS w (app, id) ORDER BY app, id) w
             WHERE a.app = w.app AND a.id = w.id",
        )
        .bind(&apps)
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
    }
    if !removed.is_empty() {
        let removed = removed.as_slice();
        let numbers = column(removed, |(_, number)| int(*number));
        let (apps, chats) = (column(removed, |(key, _)| key.app), column(removed, |(key, _)| key.chat));
        for statement in [
            "UPDATE attachments a SET referred = false FROM (
               SELECT DISTINCT u.app, u.attachment
               FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS w (app, chat, number)
               JOIN attachment_uses u ON u.app = w.app AND u.chat = w.chat AND u.number = w.number
               ORDER BY u.app, u.attachment) u
             WHERE a.app = u.app AND a.id = u.attachment",
            "DELETE FROM attachment_uses o USING (
               SELECT u.app, u.chat, u.attachment
               FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS w (app, chat, number)
               JOIN attachment_uses u ON u.app = w.app AND u.chat = w.chat AND u.number = w.number) u
             WHERE o.app = u.app AND o.chat = u.chat AND o.number = 0 AND o.attachment = u.attachment",
            "DELETE FROM attachment_uses u
             USING UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS w (app, chat, number)
             WHERE u.app = w.app AND u.chat = w.chat AND u.number = w.number",
        ] {
            sqlx::query(statement).bind(&apps).bind(&chats).bind(&numbers).execute(&mut *connection).await?;
        }
    }
    if !plan.deleted.is_empty() {
        let apps = column(&plan.deleted, |(key, _)| key.app);
        let chats = column(&plan.deleted, |(key, _)| key.chat);
        for statement in [
            "UPDATE attachments a SET referred = false FROM (
               SELECT DISTINCT u.app, u.attachment FROM UNNEST($1::uuid[], $2::uuid[]) AS w (app, chat)
               JOIN attachment_uses u ON u.app = w.app AND u.chat = w.chat ORDER BY u.app, u.attachment) u
             WHERE a.app = u.app AND a.id = u.attachment",
            "DELETE FROM attachment_uses u USING UNNEST($1::uuid[], $2::uuid[]) AS w (app, chat)
             WHERE u.app = w.app AND u.chat = w.chat",
        ] {
            sqlx::query(statement).bind(&apps).bind(&chats).execute(&mut *connection).await?;
        }
    }
    Ok(())
}
