//! Applications, users, sign-ins, revocations.

use async_trait::async_trait;

use super::{Postgres, notifications, value::column};
use crate::{
    applications::AppSettings,
    ids::{AppId, EndpointId, SessionId, UserId},
    model::UserView,
    store::{
        Accounts, Application, Result, Revocation, SignIn, User,
        accounts::{REVOCATIONS, SIGN_INS, fold, kept_after, settings_column},
        names,
        rows::{self, int},
    },
    time::Millis,
};

#[async_trait]
impl Accounts for Postgres {
    async fn applications(&self) -> Result<Vec<Application>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT id, name, token_secret, token_kid, settings FROM applications WHERE erased_at IS NULL ORDER BY id",
            )
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::application).collect()
        })
        .await
    }

    async fn application_changes(&self) -> Result<u64> {
        self.call(|| async move {
            let row = sqlx::query("SELECT last FROM application_changes").fetch_one(&self.pool).await?;
            rows::unsigned(&row, "last")
        })
        .await
    }

    async fn add_application(&self, application: &Application) -> Result<bool> {
        self.call(|| async move {
            let added: i64 = sqlx::query_scalar(
                "WITH counted AS (UPDATE application_changes SET last = last + 1),
                 added AS (
                   INSERT INTO applications (id, name, token_secret, token_kid, settings)
                   VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING id)
                 SELECT count(*) FROM added",
            )
            .bind(application.id)
            .bind(&application.name)
            .bind(&application.token_secret)
            .bind(&application.token_kid)
            .bind(settings_column(&application.settings))
            .fetch_one(&self.pool)
            .await?;
            Ok(added == 1)
        })
        .await
    }

    async fn update_application(
        &self,
        app: AppId,
        name: &str,
        settings: &AppSettings,
        seen: u64,
    ) -> Result<bool> {
        self.call(|| async move {
            // Of two that have seen the same, the second waits for the first's count, and finds another one.
            let updated: i64 = sqlx::query_scalar(
                "WITH counted AS (UPDATE application_changes SET last = last + 1 WHERE last = $4 RETURNING last),
                 updated AS (
                   UPDATE applications SET name = $2, settings = $3
                   WHERE id = $1 AND erased_at IS NULL AND EXISTS (SELECT 1 FROM counted) RETURNING id)
                 SELECT count(*) FROM updated",
            )
            .bind(app)
            .bind(name)
            .bind(settings_column(settings))
            .bind(int(seen))
            .fetch_one(&self.pool)
            .await?;
            Ok(updated == 1)
        })
        .await
    }

    async fn cluster_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>> {
        self.call(|| async move {
            let known = sqlx::query_scalar("SELECT secret FROM secrets WHERE name = $1").bind(name);
            if let Some(secret) = known.fetch_optional(&self.pool).await? {
                return Ok(secret);
            }
            sqlx::query("INSERT INTO secrets (name, secret) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(name)
                .bind(fresh)
                .execute(&self.pool)
                .await?;
            // Whoever came first has committed by now.
            sqlx::query_scalar("SELECT secret FROM secrets WHERE name = $1")
                .bind(name)
                .fetch_one(&self.pool)
                .await
        })
        .await
    }

    async fn add_user(&self, app: AppId, user: &User) -> Result<bool> {
        self.call(|| async move {
            let added: i64 = sqlx::query_scalar(
                "WITH added AS (
                   INSERT INTO users
                     (app, id, username, folded, name, mobile_number, timezone, created_at, password_hash, avatar)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING app, id),
                 named AS (
                   INSERT INTO user_words (app, word, user_id)
                   SELECT a.app, w.word, a.id FROM added a CROSS JOIN UNNEST($11::text[]) AS w (word))
                 SELECT count(*) FROM added",
            )
            .bind(app)
            .bind(user.id)
            .bind(&user.username)
            .bind(fold(&user.username))
            .bind(&user.name)
            .bind(user.mobile_number.as_deref())
            .bind(user.timezone.as_deref())
            .bind(user.created_at)
            .bind(&user.password_hash)
            .bind(user.avatar.as_deref())
            .bind(names::words(&user.name))
            .fetch_one(&self.pool)
            .await?;
            Ok(added == 1)
        })
        .await
    }

    async fn user_by_username(&self, app: AppId, username: &str) -> Result<Option<User>> {
        self.call(|| async move {
            let row = sqlx::query("SELECT * FROM users WHERE app = $1 AND folded = $2")
                .bind(app)
                .bind(fold(username))
                .fetch_optional(&self.pool)
                .await?;
            row.as_ref().map(rows::user).transpose()
        })
        .await
    }

    async fn user(&self, app: AppId, id: UserId) -> Result<Option<User>> {
        self.call(|| async move {
            let row = sqlx::query("SELECT * FROM users WHERE app = $1 AND id = $2 AND erased_at IS NULL")
                .bind(app)
                .bind(id)
                .fetch_optional(&self.pool)
                .await?;
            row.as_ref().map(rows::user).transpose()
        })
        .await
    }

    async fn users(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserView>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT id, name, avatar FROM users WHERE app = $1 AND id = ANY($2) AND erased_at IS NULL",
            )
            .bind(app)
            .bind(column(ids, |id| *id))
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::user_view).collect()
        })
        .await
    }

    async fn add_sign_in(&self, app: AppId, sign_in: &SignIn) -> Result<bool> {
        self.call(|| async move {
            // A user who comes and goes leaves nothing behind but what still matters. What another one is just removing is skipped, and
            // what has gathered is removed a piece at a time: nobody waits for it. The user's row is held, so that whoever erases the user comes
            // before, and is seen here, or after, and ends this one as well.
            let added = sqlx::query(
                "WITH expired AS (
                   DELETE FROM sign_ins WHERE (app, user_id, id) IN (
                     SELECT app, user_id, id FROM sign_ins
                     WHERE app = $1 AND user_id = $2 AND expires_at <= $5 FOR UPDATE SKIP LOCKED)),
                 useless AS (
                   DELETE FROM revocations WHERE no IN (
                     SELECT no FROM revocations WHERE expires_at <= $7
                     ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED)),
                 living AS (SELECT erased_at FROM users WHERE app = $1 AND id = $2 FOR SHARE)
                 INSERT INTO sign_ins (app, user_id, id, device, created_at, expires_at)
                 SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT 1 FROM living WHERE erased_at IS NOT NULL)",
            )
            .bind(app)
            .bind(sign_in.user)
            .bind(sign_in.id)
            .bind(sign_in.device.as_deref())
            .bind(sign_in.created_at)
            .bind(sign_in.expires_at)
            .bind(kept_after(sign_in.created_at))
            .execute(&self.pool)
            .await?;
            Ok(added.rows_affected() == 1)
        })
        .await
    }

    async fn sign_ins(&self, app: AppId, user: UserId, now: Millis) -> Result<Vec<SignIn>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT id, user_id AS user, device, created_at, expires_at FROM sign_ins
                 WHERE app = $1 AND user_id = $2 AND expires_at > $3 ORDER BY created_at DESC, id LIMIT $4",
            )
            .bind(app)
            .bind(user)
            .bind(now)
            .bind(SIGN_INS)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::sign_in).collect()
        })
        .await
    }

    async fn end_sign_in(&self, app: AppId, user: UserId, session: SessionId) -> Result<bool> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            // A browser of this sign-in comes before, and goes here, or after, and sees that it was ended.
            sqlx::query("SELECT 1 FROM users WHERE app = $1 AND id = $2 FOR SHARE")
                .bind(app)
                .bind(user)
                .execute(&mut *write)
                .await?;
            let expires_at: Option<Millis> = sqlx::query_scalar(
                "DELETE FROM sign_ins WHERE app = $1 AND user_id = $2 AND id = $3 RETURNING expires_at",
            )
            .bind(app)
            .bind(user)
            .bind(session)
            .fetch_optional(&mut *write)
            .await?;
            let Some(expires_at) = expires_at else { return Ok(false) };
            let browsers: Vec<EndpointId> = sqlx::query_scalar(
                "DELETE FROM notify_endpoints WHERE app = $1 AND session = $2 AND user_id = $3 RETURNING id",
            )
            .bind(app)
            .bind(session)
            .bind(user)
            .fetch_all(&mut *write)
            .await?;
            notifications::removed(&mut write, app, &browsers).await?;
            // Last, so that others wait for the count only as long as the commit takes; and until then, so that numbers are seen in order.
            sqlx::query(
                "WITH next AS (UPDATE revocation_count SET last = last + 1 RETURNING last)
                 INSERT INTO revocations (no, app, user_id, session, expires_at)
                 SELECT last, $1, $2, $3, $4 FROM next",
            )
            .bind(app)
            .bind(user)
            .bind(session)
            .bind(expires_at)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn revocations(&self, after: u64, now: Millis) -> Result<Vec<Revocation>> {
        self.call(|| async move {
            // By the key, whatever has expired: the numbers after the last one are few.
            let rows = sqlx::query(
                "SELECT no, app, user_id AS user, session, expires_at FROM revocations
                 WHERE no > $1 AND expires_at + 0 > $2 ORDER BY no LIMIT $3",
            )
            .bind(int(after))
            .bind(now)
            .bind(REVOCATIONS)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::revocation).collect()
        })
        .await
    }
}
