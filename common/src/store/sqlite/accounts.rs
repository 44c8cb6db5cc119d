//! Applications, users, sign-ins, revocations.

use super::{Sqlite, fault::bounded, notifications, people, value::list};
use crate::{
    applications::AppSettings,
    ids::{AppId, EndpointId, SessionId, UserId},
    model::UserView,
    store::{
        Accounts, Application, Result, Revocation, SignIn, User,
        accounts::{REVOCATIONS, SIGN_INS, fold, kept_after, settings_column},
        rows::{self, int},
    },
    time::Millis,
};
use async_trait::async_trait;

#[async_trait]
impl Accounts for Sqlite {
    async fn applications(&self) -> Result<Vec<Application>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT id, name, token_secret, token_kid, settings FROM applications WHERE erased_at IS NULL ORDER BY id",
            )
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::application).collect()
        })
        .await
    }

    async fn application_changes(&self) -> Result<u64> {
        bounded(async {
            let row = sqlx::query("SELECT last FROM application_changes").fetch_one(&self.readers).await?;
            rows::unsigned(&row, "last")
        })
        .await
    }

    async fn add_application(&self, application: &Application) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            let added = sqlx::query(
                "INSERT INTO applications (id, name, token_secret, token_kid, settings) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT DO NOTHING",
            )
            .bind(application.id)
            .bind(&application.name)
            .bind(&application.token_secret)
            .bind(&application.token_kid)
            .bind(settings_column(&application.settings))
            .execute(&mut *write)
            .await?;
            sqlx::query("UPDATE application_changes SET last = last + 1").execute(&mut *write).await?;
            write.commit().await?;
            Ok(added.rows_affected() == 1)
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
        bounded(async {
            let mut write = self.begin().await?;
            let counted = sqlx::query("UPDATE application_changes SET last = last + 1 WHERE last = ?")
                .bind(int(seen))
                .execute(&mut *write)
                .await?;
            if counted.rows_affected() == 0 {
                return Ok(false);
            }
            let updated = sqlx::query(
                "UPDATE applications SET name = ?, settings = ? WHERE id = ? AND erased_at IS NULL",
            )
            .bind(name)
            .bind(settings_column(settings))
            .bind(app)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(updated.rows_affected() == 1)
        })
        .await
    }

    async fn cluster_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>> {
        bounded(async {
            let mut write = self.begin().await?;
            sqlx::query("INSERT INTO secrets (name, secret) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(name)
                .bind(fresh)
                .execute(&mut *write)
                .await?;
            let secret = sqlx::query_scalar("SELECT secret FROM secrets WHERE name = ?")
                .bind(name)
                .fetch_one(&mut *write)
                .await?;
            write.commit().await?;
            Ok(secret)
        })
        .await
    }

    async fn add_user(&self, app: AppId, user: &User) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            let added = sqlx::query(
                "INSERT INTO users
                   (app, id, username, folded, name, mobile_number, timezone, created_at, password_hash, avatar)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
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
            .execute(&mut *write)
            .await?;
            let added = added.rows_affected() == 1;
            if added {
                people::name(&mut write, app, user.id, &user.name).await?;
            }
            write.commit().await?;
            Ok(added)
        })
        .await
    }

    async fn user_by_username(&self, app: AppId, username: &str) -> Result<Option<User>> {
        bounded(async {
            let row = sqlx::query("SELECT * FROM users WHERE app = ? AND folded = ?")
                .bind(app)
                .bind(fold(username))
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(rows::user).transpose()
        })
        .await
    }

    async fn user(&self, app: AppId, id: UserId) -> Result<Option<User>> {
        bounded(async {
            let row = sqlx::query("SELECT * FROM users WHERE app = ? AND id = ? AND erased_at IS NULL")
                .bind(app)
                .bind(id)
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(rows::user).transpose()
        })
        .await
    }

    async fn users(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserView>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT u.id, u.name, u.avatar FROM users u
                 WHERE u.app = ? AND u.id IN (SELECT unhex(value) FROM json_each(?)) AND u.erased_at IS NULL",
            )
            .bind(app)
            .bind(list(ids))
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::user_view).collect()
        })
        .await
    }

    async fn add_sign_in(&self, app: AppId, sign_in: &SignIn) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            // A user who comes and goes leaves nothing behind but what still matters.
            sqlx::query("DELETE FROM sign_ins WHERE app = ? AND user = ? AND expires_at <= ?")
                .bind(app)
                .bind(sign_in.user)
                .bind(sign_in.created_at)
                .execute(&mut *write)
                .await?;
            sqlx::query("DELETE FROM revocations WHERE expires_at <= ?")
                .bind(kept_after(sign_in.created_at))
                .execute(&mut *write)
                .await?;
            let added = sqlx::query(
                "INSERT INTO sign_ins (app, user, id, device, created_at, expires_at) SELECT ?1, ?2, ?3, ?4, ?5, ?6
                 WHERE NOT EXISTS (SELECT 1 FROM users WHERE app = ?1 AND id = ?2 AND erased_at IS NOT NULL)",
            )
            .bind(app)
            .bind(sign_in.user)
            .bind(sign_in.id)
            .bind(sign_in.device.as_deref())
            .bind(sign_in.created_at)
            .bind(sign_in.expires_at)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(added.rows_affected() == 1)
        })
        .await
    }

    async fn sign_ins(&self, app: AppId, user: UserId, now: Millis) -> Result<Vec<SignIn>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT id, user, device, created_at, expires_at FROM sign_ins
                 WHERE app = ? AND user = ? AND expires_at > ? ORDER BY created_at DESC, id LIMIT ?",
            )
            .bind(app)
            .bind(user)
            .bind(now)
            .bind(SIGN_INS)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::sign_in).collect()
        })
        .await
    }

    async fn end_sign_in(&self, app: AppId, user: UserId, session: SessionId) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            let expires_at: Option<Millis> = sqlx::query_scalar(
                "DELETE FROM sign_ins WHERE app = ? AND user = ? AND id = ? RETURNING expires_at",
            )
            .bind(app)
            .bind(user)
            .bind(session)
            .fetch_optional(&mut *write)
            .await?;
            if let Some(expires_at) = expires_at {
                sqlx::query("INSERT INTO revocations (app, user, session, expires_at) VALUES (?, ?, ?, ?)")
                    .bind(app)
                    .bind(user)
                    .bind(session)
                    .bind(expires_at)
                    .execute(&mut *write)
                    .await?;
                let browsers: Vec<EndpointId> = sqlx::query_scalar(
                    "DELETE FROM notify_endpoints INDEXED BY notify_endpoints_by_session
                     WHERE app = ? AND session = ? AND user = ? RETURNING id",
                )
                .bind(app)
                .bind(session)
                .bind(user)
                .fetch_all(&mut *write)
                .await?;
                notifications::removed(&mut write, app, &browsers).await?;
            }
            write.commit().await?;
            Ok(expires_at.is_some())
        })
        .await
    }

    async fn revocations(&self, after: u64, now: Millis) -> Result<Vec<Revocation>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT no, app, user, session, expires_at FROM revocations
                 WHERE no > ? AND +expires_at > ? ORDER BY no LIMIT ?",
            )
            .bind(int(after))
            .bind(now)
            .bind(REVOCATIONS)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::revocation).collect()
        })
        .await
    }
}
