//! Applications, users, sign-ins, revocations.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    Sqlite,
    fault::bounded,
    value::{list, unsigned},
};
use crate::{
    ids::{AppId, SessionId, UserId},
    model::UserView,
    store::{Accounts, Application, Result, Revocation, SignIn, User},
    time::Millis,
};

/// How long after its token's expiry a revocation is kept: clocks of nodes differ, and tokens are accepted some seconds late.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(3600);

/// Most sign-ins that one answer lists.
const SIGN_INS: i64 = 100;

/// Most revocations that one answer lists.
const REVOCATIONS: i64 = 1_000;

#[async_trait]
impl Accounts for Sqlite {
    async fn applications(&self) -> Result<Vec<Application>> {
        bounded(async {
            let rows = sqlx::query("SELECT id, name, token_secret, token_kid FROM applications ORDER BY id")
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(application).collect()
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
                   (app, id, username, folded, name, mobile_number, timezone, created_at, password_hash)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (app, folded) DO NOTHING",
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
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(added.rows_affected() == 1)
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
            row.as_ref().map(user).transpose()
        })
        .await
    }

    async fn user(&self, app: AppId, id: UserId) -> Result<Option<User>> {
        bounded(async {
            let row = sqlx::query("SELECT * FROM users WHERE app = ? AND id = ?")
                .bind(app)
                .bind(id)
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(user).transpose()
        })
        .await
    }

    async fn users(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserView>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT u.id, u.name FROM users u
                 WHERE u.app = ? AND u.id IN (SELECT unhex(value) FROM json_each(?))",
            )
            .bind(app)
            .bind(list(ids))
            .fetch_all(&self.readers)
            .await?;
            rows.iter()
                .map(|row| Ok(UserView { id: row.try_get("id")?, name: row.try_get("name")? }))
                .collect()
        })
        .await
    }

    async fn add_sign_in(&self, app: AppId, sign_in: &SignIn) -> Result<()> {
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
                .bind(Millis(sign_in.created_at.0.saturating_sub(Millis(0).plus(KEPT_AFTER_EXPIRY).0)))
                .execute(&mut *write)
                .await?;
            sqlx::query(
                "INSERT INTO sign_ins (app, user, id, device, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(app)
            .bind(sign_in.user)
            .bind(sign_in.id)
            .bind(sign_in.device.as_deref())
            .bind(sign_in.created_at)
            .bind(sign_in.expires_at)
            .execute(&mut *write)
            .await?;
            write.commit().await
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
            rows.iter().map(sign_in).collect()
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
            .bind(super::value::int(after))
            .bind(now)
            .bind(REVOCATIONS)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(revocation).collect()
        })
        .await
    }
}

/// What two spellings of one user name have in common.
fn fold(username: &str) -> String {
    username.to_lowercase()
}

fn application(row: &SqliteRow) -> sqlx::Result<Application> {
    Ok(Application {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        token_secret: row.try_get("token_secret")?,
        token_kid: row.try_get("token_kid")?,
    })
}

fn user(row: &SqliteRow) -> sqlx::Result<User> {
    Ok(User {
        id: row.try_get("id")?,
        username: row.try_get("username")?,
        name: row.try_get("name")?,
        mobile_number: row.try_get("mobile_number")?,
        timezone: row.try_get("timezone")?,
        created_at: row.try_get("created_at")?,
        password_hash: row.try_get("password_hash")?,
    })
}

fn sign_in(row: &SqliteRow) -> sqlx::Result<SignIn> {
    Ok(SignIn {
        id: row.try_get("id")?,
        user: row.try_get("user")?,
        device: row.try_get("device")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}

fn revocation(row: &SqliteRow) -> sqlx::Result<Revocation> {
    Ok(Revocation {
        no: unsigned(row, "no")?,
        app: row.try_get("app")?,
        user: row.try_get("user")?,
        session: row.try_get("session")?,
        expires_at: row.try_get("expires_at")?,
    })
}
