//! What users and applications choose to be told of, and where it goes.

mod notify;
mod queue;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use uuid::Uuid;

pub(super) use self::notify::note;
use super::{Sqlite, fault::bounded};
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
impl Notifications for Sqlite {
    async fn preferences(&self, user: UserKey) -> Result<Preferences> {
        bounded(async {
            let row =
                sqlx::query("SELECT preferences FROM notification_preferences WHERE app = ? AND user = ?")
                    .bind(user.app)
                    .bind(user.user)
                    .fetch_optional(&self.readers)
                    .await?;
            row.as_ref().map_or_else(|| Ok(Preferences::default()), |row| chosen(row, "preferences"))
        })
        .await
    }

    async fn set_preferences(&self, user: UserKey, preferences: &Preferences) -> Result<bool> {
        let set = bounded(async {
            let mut write = self.begin().await?;
            let set = sqlx::query(
                "INSERT INTO notification_preferences (app, user, preferences)
                 SELECT app, id, ?3 FROM users WHERE app = ?1 AND id = ?2 AND erased_at IS NULL
                 ON CONFLICT (app, user) DO UPDATE SET preferences = excluded.preferences",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(chosen_column(preferences))
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(set.rows_affected() == 1)
        })
        .await?;
        if set {
            self.look_again_at(user.app, &[user.user]).await?;
        }
        Ok(set)
    }

    async fn chat_preferences(&self, chat: ChatKey, user: UserId) -> Result<Option<ChatPreferences>> {
        bounded(async {
            let row = sqlx::query(
                "SELECT p.preferences FROM memberships s
                 LEFT JOIN chat_notification_preferences p ON p.app = s.app AND p.user = s.user AND p.chat = s.chat
                 WHERE s.app = ? AND s.user = ? AND s.chat = ?",
            )
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .fetch_optional(&self.readers)
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
        bounded(async {
            let mut write = self.begin().await?;
            // Who was erased is in groups for a while.
            let set = sqlx::query(
                "INSERT INTO chat_notification_preferences (app, user, chat, preferences)
                 SELECT s.app, s.user, s.chat, ?4 FROM memberships s
                 WHERE s.app = ?1 AND s.user = ?2 AND s.chat = ?3 AND NOT EXISTS (
                   SELECT 1 FROM users u WHERE u.app = ?1 AND u.id = ?2 AND u.erased_at IS NOT NULL)
                 ON CONFLICT (app, user, chat) DO UPDATE SET preferences = excluded.preferences",
            )
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .bind(chosen_column(preferences))
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(set.rows_affected() == 1)
        })
        .await
    }

    async fn add_endpoint(&self, endpoint: &Endpoint) -> Result<EndpointAdded> {
        bounded(async {
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
        bounded(async {
            let rows = sqlx::query(
                "SELECT * FROM notify_endpoints INDEXED BY notify_endpoints_by_user WHERE app = ? AND user = ?
                 ORDER BY created_at, id",
            )
            .bind(app)
            .bind(user.unwrap_or(UserId::APPLICATION))
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::notifications::endpoint).collect()
        })
        .await
    }

    async fn endpoint(&self, app: AppId, user: Option<UserId>, id: EndpointId) -> Result<Option<Endpoint>> {
        bounded(async {
            let row = sqlx::query("SELECT * FROM notify_endpoints WHERE app = ? AND id = ? AND user = ?")
                .bind(app)
                .bind(id)
                .bind(user.unwrap_or(UserId::APPLICATION))
                .fetch_optional(&self.readers)
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
        bounded(async {
            let mut write = self.begin().await?;
            // Whoever changed it wants to see at once whether it works now.
            let row = sqlx::query(
                "UPDATE notify_endpoints SET url = coalesce(?4, url), secret = coalesce(?5, secret),
                   enabled = coalesce(?6, enabled), failures = 0, next_at = 0, leased = 0
                 WHERE app = ?1 AND id = ?2 AND user = ?3 RETURNING *",
            )
            .bind(app)
            .bind(id)
            .bind(UserId::APPLICATION)
            .bind(change.url.as_deref())
            .bind(change.secret.as_deref())
            .bind(change.enabled)
            .fetch_optional(&mut *write)
            .await?;
            write.commit().await?;
            row.as_ref().map(rows::notifications::endpoint).transpose()
        })
        .await
    }

    async fn remove_endpoint(&self, app: AppId, user: Option<UserId>, id: EndpointId) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            let gone = sqlx::query_scalar(
                "DELETE FROM notify_endpoints WHERE app = ? AND id = ? AND user = ? RETURNING id",
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
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let count = sqlx::query(
                "SELECT count(*) AS count FROM (
                   SELECT d.place FROM notify_endpoints e
                   CROSS JOIN notify_deliveries d ON d.app = e.app AND d.endpoint = e.id
                   WHERE e.app = ? AND e.id = ? LIMIT ?)",
            )
            .bind(app)
            .bind(id)
            .bind(int(DELIVERIES_LISTED))
            .fetch_one(&mut *instant)
            .await?;
            let rows = sqlx::query(
                "SELECT d.* FROM notify_endpoints e
                 CROSS JOIN notify_deliveries d ON d.app = e.app AND d.endpoint = e.id
                 WHERE e.app = ? AND e.id = ? ORDER BY d.place DESC LIMIT ? OFFSET ?",
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
        bounded(async {
            let mut write = self.begin().await?;
            let there = queue::again(&mut write, app, id, DeliveryId(delivery), now).await?;
            write.commit().await?;
            Ok(there)
        })
        .await
    }
}

async fn add_webhook(write: &mut SqliteConnection, endpoint: &Endpoint) -> sqlx::Result<EndpointAdded> {
    if !is_application(write, endpoint.app).await? {
        return Ok(EndpointAdded::Nobody);
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notify_endpoints WHERE app = ? AND user = ?")
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
async fn forget_before(write: &mut SqliteConnection, app: AppId) -> sqlx::Result<()> {
    for statement in [
        "DELETE FROM notify_waiting WHERE app = ?1 AND NOT EXISTS (SELECT 1 FROM notify_endpoints WHERE app = ?1)",
        "DELETE FROM notify_held WHERE app = ?1 AND NOT EXISTS (SELECT 1 FROM notify_endpoints WHERE app = ?1)",
    ] {
        sqlx::query(statement).bind(app).execute(&mut *write).await?;
    }
    Ok(())
}

async fn is_application(write: &mut SqliteConnection, app: AppId) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM applications WHERE id = ? AND erased_at IS NULL)")
        .bind(app)
        .fetch_one(write)
        .await
}

async fn add_browser(
    write: &mut SqliteConnection,
    endpoint: &Endpoint,
    user: UserId,
    session: SessionId,
    url: &str,
) -> sqlx::Result<EndpointAdded> {
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM users WHERE app = ?1 AND id = ?2 AND erased_at IS NULL)
           AND NOT EXISTS (SELECT 1 FROM revocations WHERE session = ?3 AND app = ?1 AND user = ?2)",
    )
    .bind(endpoint.app)
    .bind(user)
    .bind(session)
    .fetch_one(&mut *write)
    .await?;
    if !known || !is_application(write, endpoint.app).await? {
        return Ok(EndpointAdded::Nobody);
    }
    forget_before(write, endpoint.app).await?;
    let mut gone: Vec<EndpointId> = sqlx::query_scalar(
        "DELETE FROM notify_endpoints WHERE app = ? AND url_hash = ? AND user <> ? RETURNING id",
    )
    .bind(endpoint.app)
    .bind(url_hash(url))
    .bind(user)
    .fetch_all(&mut *write)
    .await?;
    insert(write, endpoint).await?;
    let oldest: Vec<EndpointId> = sqlx::query_scalar(
        "DELETE FROM notify_endpoints WHERE (app, id) IN (
           SELECT app, id FROM notify_endpoints INDEXED BY notify_endpoints_by_user
           WHERE app = ?1 AND user = ?2 AND url_hash <> ?3
           ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET ?4) RETURNING id",
    )
    .bind(endpoint.app)
    .bind(user)
    .bind(url_hash(url))
    .bind(int(SUBSCRIPTIONS - 1))
    .fetch_all(&mut *write)
    .await?;
    gone.extend(oldest);
    removed(write, endpoint.app, &gone).await?;
    Ok(EndpointAdded::Added)
}

/// Writes an endpoint's row, or the new keys of a browser that is there.
async fn insert(write: &mut SqliteConnection, endpoint: &Endpoint) -> sqlx::Result<()> {
    let TargetColumns { secret, public_key, url_hash, session } = TargetColumns::from(&endpoint.target);
    sqlx::query(
        "INSERT INTO notify_endpoints (app, id, user, url, secret, public_key, url_hash, session, created_at, enabled)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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
    write: &mut SqliteConnection,
    app: AppId,
    endpoints: &[EndpointId],
) -> sqlx::Result<()> {
    for endpoint in endpoints {
        sqlx::query("INSERT OR IGNORE INTO notify_removed (app, endpoint) VALUES (?, ?)")
            .bind(app)
            .bind(*endpoint)
            .execute(&mut *write)
            .await?;
    }
    Ok(())
}
