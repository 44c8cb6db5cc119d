//! What users and applications choose to be told of, and where it goes.
//!
//! Locks are taken in one order: a user or an application, its first endpoint, the URL of a browser, endpoints by their ids, and what is in their queues.
//! [`notify`] has the rows of chats and of who is held before the endpoints, and the position of a partition behind them.

mod notify;
mod queue;

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

pub(super) use self::notify::note;
use super::Postgres;
use crate::{
    ids::{AppId, ChatKey, EndpointId, SessionId, UserId, UserKey},
    model::{Page, PageRequest},
    notifications::{ChatPreferences, Delivery, Endpoint, Preferences, Target, WebhookChange},
    store::{
        DELIVERIES_LISTED, EndpointAdded, Notifications, Notify, Result, SUBSCRIPTIONS, WEBHOOKS,
        notifications::{DeliveryId, TargetColumns, deliveries_of, url_hash},
        rows::{
            self, int,
            notifications::{chosen, chosen_column},
            unsigned,
        },
    },
    time::Millis,
};

#[async_trait]
impl Notifications for Postgres {
    async fn preferences(&self, user: UserKey) -> Result<Preferences> {
        self.call(|| async move {
            let row = sqlx::query(
                "SELECT preferences FROM notification_preferences WHERE app = $1 AND user_id = $2",
            )
            .bind(user.app)
            .bind(user.user)
            .fetch_optional(&self.pool)
            .await?;
            row.as_ref().map_or_else(|| Ok(Preferences::default()), |row| chosen(row, "preferences"))
        })
        .await
    }

    async fn set_preferences(&self, user: UserKey, preferences: &Preferences) -> Result<bool> {
        let set = self
            .call(|| async move {
            // The user's row is held, so that whoever erases the user comes before, and is seen here, or after, and removes this.
            let set = sqlx::query(
                "WITH living AS (SELECT app, id FROM users WHERE app = $1 AND id = $2 AND erased_at IS NULL FOR SHARE)
                 INSERT INTO notification_preferences (app, user_id, preferences) SELECT app, id, $3 FROM living
                 ON CONFLICT (app, user_id) DO UPDATE SET preferences = excluded.preferences",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(chosen_column(preferences))
            .execute(&self.pool)
            .await?;
            Ok(set.rows_affected() == 1)
        })
        .await?;
        if set {
            self.look_again_at(user.app, &[user.user]).await?;
        }
        Ok(set)
    }

    async fn chat_preferences(&self, chat: ChatKey, user: UserId) -> Result<Option<ChatPreferences>> {
        self.call(|| async move {
            let row = sqlx::query(
                "SELECT p.preferences FROM memberships s
                 LEFT JOIN chat_notification_preferences p ON p.app = s.app AND p.user_id = s.user_id AND p.chat = s.chat
                 WHERE s.app = $1 AND s.user_id = $2 AND s.chat = $3",
            )
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .fetch_optional(&self.pool)
            .await?;
            row.as_ref().map(|row| chosen(row, "preferences")).transpose()
        })
        .await
    }

    async fn set_chat_preferences(
        &self,
        chat: ChatKey,
        user: UserId,
        preferences: &ChatPreferences,
    ) -> Result<bool> {
        self.call(|| async move {
            // Who was erased is in groups for a while. Whoever lets them out comes before, and is seen here, or after, and removes this.
            let set = sqlx::query(
                "WITH known AS (SELECT erased_at FROM users WHERE app = $1 AND id = $2 FOR SHARE),
                 member AS (SELECT app, user_id, chat FROM memberships
                            WHERE app = $1 AND user_id = $2 AND chat = $3 FOR KEY SHARE)
                 INSERT INTO chat_notification_preferences (app, user_id, chat, preferences)
                 SELECT s.app, s.user_id, s.chat, $4 FROM member s
                 WHERE NOT EXISTS (SELECT 1 FROM known WHERE erased_at IS NOT NULL)
                 ON CONFLICT (app, user_id, chat) DO UPDATE SET preferences = excluded.preferences",
            )
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .bind(chosen_column(preferences))
            .execute(&self.pool)
            .await?;
            Ok(set.rows_affected() == 1)
        })
        .await
    }

    async fn add_endpoint(&self, endpoint: &Endpoint) -> Result<EndpointAdded> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            let added = match &endpoint.target {
                Target::Webhook { .. } => add_webhook(&mut write, endpoint).await?,
                Target::Push { user, session, url, .. } => {
                    add_browser(&mut write, endpoint, *user, *session, url).await?
                }
            };
            write.commit().await?;
            Ok(added)
        })
        .await
    }

    async fn endpoints(&self, app: AppId, user: Option<UserId>) -> Result<Vec<Endpoint>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT *, user_id AS user FROM notify_endpoints WHERE app = $1 AND user_id = $2 ORDER BY created_at, id",
            )
            .bind(app)
            .bind(user.unwrap_or(UserId::APPLICATION))
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::notifications::endpoint).collect()
        })
        .await
    }

    async fn endpoint(&self, app: AppId, user: Option<UserId>, id: EndpointId) -> Result<Option<Endpoint>> {
        self.call(|| async move {
            let row = sqlx::query(
                "SELECT *, user_id AS user FROM notify_endpoints WHERE app = $1 AND id = $2 AND user_id = $3",
            )
            .bind(app)
            .bind(id)
            .bind(user.unwrap_or(UserId::APPLICATION))
            .fetch_optional(&self.pool)
            .await?;
            row.as_ref().map(rows::notifications::endpoint).transpose()
        })
        .await
    }

    async fn update_webhook(
        &self,
        app: AppId,
        id: EndpointId,
        change: &WebhookChange,
    ) -> Result<Option<Endpoint>> {
        self.call(|| async move {
            // Whoever changed it wants to see at once whether it works now.
            let row = sqlx::query(
                "UPDATE notify_endpoints SET url = coalesce($4, url), secret = coalesce($5, secret),
                   enabled = coalesce($6, enabled), failures = 0, next_at = 0, leased = false
                 WHERE app = $1 AND id = $2 AND user_id = $3 RETURNING *, user_id AS user",
            )
            .bind(app)
            .bind(id)
            .bind(UserId::APPLICATION)
            .bind(change.url.as_deref())
            .bind(change.secret.as_deref())
            .bind(change.enabled)
            .fetch_optional(&self.pool)
            .await?;
            row.as_ref().map(rows::notifications::endpoint).transpose()
        })
        .await
    }

    async fn remove_endpoint(&self, app: AppId, user: Option<UserId>, id: EndpointId) -> Result<bool> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            let gone: Vec<EndpointId> = sqlx::query_scalar(
                "DELETE FROM notify_endpoints WHERE app = $1 AND id = $2 AND user_id = $3 RETURNING id",
            )
            .bind(app)
            .bind(id)
            .bind(user.unwrap_or(UserId::APPLICATION))
            .fetch_all(&mut *write)
            .await?;
            removed(&mut write, app, &gone).await?;
            write.commit().await?;
            Ok(!gone.is_empty())
        })
        .await
    }

    async fn deliveries(&self, app: AppId, id: EndpointId, page: PageRequest) -> Result<Page<Delivery>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let count = sqlx::query(
                "SELECT count(*) AS count FROM (
                   SELECT d.place FROM notify_deliveries d
                   WHERE d.app = $1 AND d.endpoint = $2
                     AND EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = $1 AND e.id = $2)
                   LIMIT $3) d",
            )
            .bind(app)
            .bind(id)
            .bind(int(DELIVERIES_LISTED))
            .fetch_one(&mut *instant)
            .await?;
            let rows = sqlx::query(
                "SELECT d.* FROM notify_deliveries d
                 WHERE d.app = $1 AND d.endpoint = $2
                   AND EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = $1 AND e.id = $2)
                 ORDER BY d.place DESC LIMIT $3 OFFSET $4",
            )
            .bind(app)
            .bind(id)
            .bind(int(deliveries_of(page)))
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let deliveries = rows.iter().map(rows::notifications::delivery).collect::<sqlx::Result<_>>()?;
            Ok(page.answer(unsigned(&count, "count")?, deliveries))
        })
        .await
    }

    async fn deliver_again(&self, app: AppId, id: EndpointId, delivery: Uuid, now: Millis) -> Result<bool> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            let there = queue::again(&mut write, app, id, DeliveryId(delivery), now).await?;
            write.commit().await?;
            Ok(there)
        })
        .await
    }
}

async fn add_webhook(write: &mut PgConnection, endpoint: &Endpoint) -> sqlx::Result<EndpointAdded> {
    // One after another for each application, so that they are counted whole.
    let application =
        sqlx::query("SELECT 1 FROM applications WHERE id = $1 AND erased_at IS NULL FOR NO KEY UPDATE")
            .bind(endpoint.app)
            .fetch_optional(&mut *write)
            .await?;
    if application.is_none() {
        return Ok(EndpointAdded::Nobody);
    }
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM notify_endpoints WHERE app = $1 AND user_id = $2")
            .bind(endpoint.app)
            .bind(UserId::APPLICATION)
            .fetch_one(&mut *write)
            .await?;
    if count >= int(WEBHOOKS) {
        return Ok(EndpointAdded::Full);
    }
    forget_before(write, endpoint.app).await?;
    insert(write, endpoint).await?;
    Ok(EndpointAdded::Added)
}

/// Forgets who was to be told of what in an application that has no endpoint: the first one is not told of what was before it.
async fn forget_before(write: &mut PgConnection, app: AppId) -> sqlx::Result<()> {
    if has_endpoint(write, app).await? {
        return Ok(());
    }
    // One after another: what waits for the first is not forgotten for the second.
    lock(write, &url_hash(&format!("the first endpoint of {app}"))).await?;
    if has_endpoint(write, app).await? {
        return Ok(());
    }
    // What somebody has at this moment moves on without us.
    for statement in [
        "DELETE FROM notify_waiting WHERE (app, chat) IN (
           SELECT app, chat FROM notify_waiting WHERE app = $1 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM notify_held WHERE (app, user_id, chat, endpoint) IN (
           SELECT app, user_id, chat, endpoint FROM notify_held WHERE app = $1 FOR UPDATE SKIP LOCKED)",
    ] {
        sqlx::query(statement).bind(app).execute(&mut *write).await?;
    }
    Ok(())
}

async fn has_endpoint(write: &mut PgConnection, app: AppId) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM notify_endpoints WHERE app = $1)")
        .bind(app)
        .fetch_one(write)
        .await
}

/// Until the end of the transaction nobody else has what has this hash.
async fn lock(write: &mut PgConnection, hash: &[u8]) -> sqlx::Result<()> {
    let key = hash.first_chunk().copied().map(i64::from_be_bytes).unwrap_or_default();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).execute(write).await?;
    Ok(())
}

async fn add_browser(
    write: &mut PgConnection,
    endpoint: &Endpoint,
    user: UserId,
    session: SessionId,
    url: &str,
) -> sqlx::Result<EndpointAdded> {
    // One after another for each user, so that they are counted whole; and whoever erases the user or ends the sign-in comes before or after.
    let known = sqlx::query(
        "SELECT 1 FROM users u WHERE u.app = $1 AND u.id = $2 AND u.erased_at IS NULL
           AND EXISTS (SELECT 1 FROM applications a WHERE a.id = $1 AND a.erased_at IS NULL)
         FOR NO KEY UPDATE OF u",
    )
    .bind(endpoint.app)
    .bind(user)
    .fetch_optional(&mut *write)
    .await?;
    if known.is_none() {
        return Ok(EndpointAdded::Nobody);
    }
    let ended =
        sqlx::query("SELECT 1 FROM revocations WHERE session = $1 AND app = $2 AND user_id = $3 LIMIT 1")
            .bind(session)
            .bind(endpoint.app)
            .bind(user)
            .fetch_optional(&mut *write)
            .await?;
    if ended.is_some() {
        return Ok(EndpointAdded::Nobody);
    }
    forget_before(write, endpoint.app).await?;
    // And for each URL: two users may have one browser, and both rows be new.
    let hash = url_hash(url);
    lock(write, &hash).await?;
    let mut gone: Vec<EndpointId> = sqlx::query_scalar(
        "DELETE FROM notify_endpoints WHERE app = $1 AND url_hash = $2 AND user_id <> $3 RETURNING id",
    )
    .bind(endpoint.app)
    .bind(&hash)
    .bind(user)
    .fetch_all(&mut *write)
    .await?;
    insert(write, endpoint).await?;
    let oldest: Vec<EndpointId> = sqlx::query_scalar(
        "DELETE FROM notify_endpoints e USING (
           SELECT app, id FROM notify_endpoints WHERE app = $1 AND user_id = $2 AND url_hash <> $3
           ORDER BY created_at DESC, id DESC OFFSET $4) o
         WHERE e.app = o.app AND e.id = o.id RETURNING e.id",
    )
    .bind(endpoint.app)
    .bind(user)
    .bind(&hash)
    .bind(int(SUBSCRIPTIONS - 1))
    .fetch_all(&mut *write)
    .await?;
    gone.extend(oldest);
    removed(write, endpoint.app, &gone).await?;
    Ok(EndpointAdded::Added)
}

/// Writes an endpoint's row, or the new keys of a browser that is there.
async fn insert(write: &mut PgConnection, endpoint: &Endpoint) -> sqlx::Result<()> {
    let TargetColumns { secret, public_key, url_hash, session } = TargetColumns::from(&endpoint.target);
    sqlx::query(
        "INSERT INTO notify_endpoints (app, id, user_id, url, secret, public_key, url_hash, session, created_at, enabled)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (app, url_hash) WHERE url_hash IS NOT NULL DO UPDATE SET
           failures = CASE WHEN (notify_endpoints.secret, notify_endpoints.public_key) = (excluded.secret, excluded.public_key)
             THEN notify_endpoints.failures ELSE 0 END,
           next_at = CASE WHEN (notify_endpoints.secret, notify_endpoints.public_key) = (excluded.secret, excluded.public_key)
             THEN notify_endpoints.next_at ELSE 0 END,
           secret = excluded.secret, public_key = excluded.public_key, session = excluded.session, enabled = excluded.enabled",
    )
    .bind(endpoint.app)
    .bind(endpoint.id)
    .bind(endpoint.target.user().unwrap_or(UserId::APPLICATION))
    .bind(endpoint.target.url())
    .bind(secret)
    .bind(public_key)
    .bind(url_hash)
    .bind(session)
    .bind(endpoint.created_at)
    .bind(endpoint.enabled)
    .execute(write)
    .await?;
    Ok(())
}

/// Notes endpoints that were deleted: what was to be sent to them goes later.
pub(super) async fn removed(
    write: &mut PgConnection,
    app: AppId,
    endpoints: &[EndpointId],
) -> sqlx::Result<()> {
    if endpoints.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO notify_removed (app, endpoint) SELECT $1, e.id FROM UNNEST($2::uuid[]) AS e (id)
         ON CONFLICT DO NOTHING",
    )
    .bind(app)
    .bind(endpoints)
    .execute(write)
    .await?;
    Ok(())
}
