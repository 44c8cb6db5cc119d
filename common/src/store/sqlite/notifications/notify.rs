//! Who is to be notified, and what is on its way.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{queue, removed};
use crate::{
    ids::{AppId, ChatKey, EndpointId, Number, Partition, UserId},
    notifications::Target,
    store::{
        Attempt, Candidate, Except, Held, Leased, Looked, Notify, Queued, Receivers, Result, Sending,
        Waiting,
        notifications::{DeliveryId, notified_after},
        plan::Plan,
        rows::{self, Columns, int},
        sqlite::{Sqlite, fault::bounded, value::list},
    },
    time::Millis,
};

/// Members of a chat, as who may have to be notified.
macro_rules! candidates {
    ($which:literal) => {
        concat!(
            "SELECT m.user, max(s.joined_number, s.read_number) AS read, l.at AS last_seen, u.timezone, p.preferences,
               c.preferences AS chat_preferences,
               EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = m.app AND e.user = m.user) AS subscribed
             FROM members m
             CROSS JOIN memberships s ON s.app = m.app AND s.user = m.user AND s.chat = m.chat
             LEFT JOIN users u ON u.app = m.app AND u.id = m.user
             LEFT JOIN last_seen l ON l.app = m.app AND l.user = m.user
             LEFT JOIN notification_preferences p ON p.app = m.app AND p.user = m.user
             LEFT JOIN chat_notification_preferences c ON c.app = m.app AND c.user = m.user AND c.chat = m.chat
             WHERE m.app = ?1 AND m.chat = ?2 AND u.erased_at IS NULL AND ",
            $which
        )
    };
}

/// Changes a chat's row, ?1 and ?2, if it is as ?3 to ?6 say.
macro_rules! if_as_it_was {
    ($change:literal) => {
        concat!(
            $change,
            " WHERE app = ?1 AND chat = ?2 AND from_number = ?3 AND from_at = ?4 AND upto IS ?5 AND last_member IS ?6"
        )
    };
}

/// Changes the row of who is held, ?1 to ?4, if it is as ?5 to ?7 say.
macro_rules! if_held {
    ($change:literal) => {
        concat!(
            $change,
            " WHERE app = ?1 AND user = ?2 AND chat = ?3 AND endpoint = ?4 AND from_number = ?5 AND upto = ?6 AND until = ?7"
        )
    };
}

/// Endpoints of these receivers that may be sent to at ?1, but of the applications ?2, and but those that failed last if
/// ?3, and the others if ?4.
macro_rules! due {
    ($receivers:literal) => {
        concat!(
            "FROM notify_endpoints e
             WHERE e.queued = 1 AND e.enabled = 1 AND e.",
            $receivers,
            " AND e.next_at <= ?1 AND (e.leased = 0 OR e.leased_until <= ?1)
               AND e.app NOT IN (SELECT unhex(k.value) FROM json_each(?2) k)
               AND NOT (CASE WHEN e.failures > 0 THEN ?3 ELSE ?4 END)
               AND EXISTS (SELECT 1 FROM applications a WHERE a.id = e.app AND a.erased_at IS NULL)"
        )
    };
}

macro_rules! free {
    ($receivers:literal) => {
        concat!("SELECT EXISTS (SELECT 1 ", due!($receivers), ")")
    };
}

/// Takes the first ?6 of them until ?5.
macro_rules! take {
    ($receivers:literal) => {
        concat!(
            "UPDATE notify_endpoints SET leased = 1, leased_until = max(?5, leased_until + 1)
             WHERE (app, id) IN (SELECT e.app, e.id ",
            due!($receivers),
            " ORDER BY e.next_at LIMIT ?6) RETURNING *"
        )
    };
}

#[async_trait]
impl Notify for Sqlite {
    async fn notifying(&self) -> Result<Vec<(AppId, Duration)>> {
        bounded(async {
            let rows: Vec<(AppId, String)> = sqlx::query_as(
                "SELECT a.id, a.settings FROM applications a WHERE a.erased_at IS NULL AND EXISTS (
                   SELECT 1 FROM notify_endpoints e WHERE e.app = a.id) ORDER BY a.id",
            )
            .fetch_all(&self.readers)
            .await?;
            Ok(rows.into_iter().map(|(app, settings)| (app, notified_after(app, &settings))).collect())
        })
        .await
    }

    async fn waiting(
        &self,
        app: AppId,
        partitions: &[Partition],
        before: Millis,
        limit: u32,
    ) -> Result<Vec<Waiting>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT * FROM notify_waiting
                 WHERE app = ? AND from_at < ? AND +partition IN (SELECT value FROM json_each(?))
                 ORDER BY from_at LIMIT ?",
            )
            .bind(app)
            .bind(before)
            .bind(list(partitions))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::notifications::waiting).collect()
        })
        .await
    }

    async fn candidates(&self, chat: ChatKey, after: Option<UserId>, limit: u32) -> Result<Vec<Candidate>> {
        bounded(async {
            let rows = sqlx::query(candidates!("m.user > ?3 ORDER BY m.user LIMIT ?4"))
                .bind(chat.app)
                .bind(chat.chat)
                // Nobody has the first id of all.
                .bind(after.unwrap_or(UserId::APPLICATION))
                .bind(limit)
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(rows::notifications::candidate).collect()
        })
        .await
    }

    async fn candidates_among(&self, chat: ChatKey, users: &[UserId]) -> Result<Vec<Candidate>> {
        bounded(async {
            let rows = sqlx::query(candidates!(
                "m.user IN (SELECT unhex(k.value) FROM json_each(?3) k) ORDER BY m.user"
            ))
            .bind(chat.app)
            .bind(chat.chat)
            .bind(list(users))
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::notifications::candidate).collect()
        })
        .await
    }

    async fn looked(&self, looked: &Looked) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            if !go_on(&mut write, looked).await? {
                return Ok(false);
            }
            queue::hold(&mut write, looked.partition, &looked.hold).await?;
            queue::send(&mut write, looked.waiting.chat.app, None, &looked.send, looked.now).await?;
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn held(&self, partitions: &[Partition], now: Millis, limit: u32) -> Result<Vec<Held>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT * FROM notify_held WHERE until <= ? AND +partition IN (SELECT value FROM json_each(?))
                 ORDER BY until, upto LIMIT ?",
            )
            .bind(now)
            .bind(list(partitions))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::notifications::held).collect()
        })
        .await
    }

    async fn told(
        &self,
        held: &Held,
        again: Option<Millis>,
        send: Vec<Sending>,
        now: Millis,
    ) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            let as_it_was = |change: &'static str| {
                let query = sqlx::query(change).bind(held.chat.app).bind(held.user).bind(held.chat.chat);
                let query = query.bind(held.endpoint.unwrap_or(EndpointId::EVERY));
                query.bind(int(held.from)).bind(int(held.upto)).bind(held.until)
            };
            let query = match again {
                Some(until) => as_it_was(if_held!("UPDATE notify_held SET until = ?8")).bind(until),
                None => as_it_was(if_held!("DELETE FROM notify_held")),
            };
            if query.execute(&mut *write).await?.rows_affected() == 0 {
                return Ok(false);
            }
            queue::send(&mut write, held.chat.app, held.endpoint, &send, now).await?;
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn look_again_at(&self, app: AppId, users: &[UserId]) -> Result<()> {
        bounded(async {
            let mut write = self.begin().await?;
            sqlx::query(
                "UPDATE notify_held SET until = 0 WHERE app = ? AND user IN (SELECT unhex(k.value) FROM json_each(?) k)",
            )
            .bind(app)
            .bind(list(users))
            .execute(&mut *write)
            .await?;
            write.commit().await
        })
        .await
    }

    async fn lease_endpoints(
        &self,
        receivers: Receivers,
        except: Except<'_>,
        now: Millis,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Leased>> {
        let (free, take) = match receivers {
            Receivers::Webhooks => (free!("url_hash IS NULL"), take!("url_hash IS NULL")),
            Receivers::Browsers => (free!("url_hash IS NOT NULL"), take!("url_hash IS NOT NULL")),
        };
        let apps = list(except.apps);
        bounded(async {
            // Most of the time there is nothing, and the writer need not wait for that.
            let free: bool = sqlx::query_scalar(free)
                .bind(now)
                .bind(&apps)
                .bind(except.failing)
                .bind(except.working)
                .fetch_one(&self.readers)
                .await?;
            if !free {
                return Ok(Vec::new());
            }
            let mut write = self.begin().await?;
            let rows = sqlx::query(take)
                .bind(now)
                .bind(&apps)
                .bind(except.failing)
                .bind(except.working)
                .bind(now.plus(lease))
                .bind(limit)
                .fetch_all(&mut *write)
                .await?;
            write.commit().await?;
            rows.iter().map(rows::notifications::leased).collect()
        })
        .await
    }

    async fn oldest_pending(&self) -> Result<Option<Millis>> {
        bounded(async {
            sqlx::query_scalar(
                "SELECT since FROM notify_deliveries WHERE state = 'pending' ORDER BY since LIMIT 1",
            )
            .fetch_optional(&self.readers)
            .await
        })
        .await
    }

    async fn queued(&self, app: AppId, endpoint: EndpointId, limit: u32) -> Result<Vec<Queued>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT * FROM notify_deliveries WHERE app = ? AND endpoint = ? AND state = 'pending'
                 ORDER BY place LIMIT ?",
            )
            .bind(app)
            .bind(endpoint)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::notifications::queued).collect()
        })
        .await
    }

    async fn attempted(
        &self,
        leased: &Leased,
        delivery: Uuid,
        attempt: &Attempt,
        now: Millis,
    ) -> Result<bool> {
        bounded(async {
            let mut write = self.begin().await?;
            let stands = queue::attempted(&mut write, leased, DeliveryId(delivery), attempt, now).await?;
            if stands {
                write.commit().await?;
            }
            Ok(stands)
        })
        .await
    }

    async fn release_endpoint(&self, leased: &Leased, next: Millis) -> Result<()> {
        bounded(async {
            let mut write = self.begin().await?;
            sqlx::query(
                "UPDATE notify_endpoints SET leased = 0, next_at = ?4, queued = EXISTS (
                   SELECT 1 FROM notify_deliveries d WHERE d.app = ?1 AND d.endpoint = ?2 AND d.state = 'pending')
                 WHERE app = ?1 AND id = ?2 AND leased = 1 AND leased_until = ?3",
            )
            .bind(leased.endpoint.app)
            .bind(leased.endpoint.id)
            .bind(leased.until)
            .bind(next)
            .execute(&mut *write)
            .await?;
            write.commit().await
        })
        .await
    }

    async fn end_endpoint(&self, leased: &Leased) -> Result<()> {
        bounded(async {
            let mut write = self.begin().await?;
            let statement = match leased.endpoint.target {
                Target::Webhook { .. } => {
                    "UPDATE notify_endpoints SET enabled = 0, leased = 0
                     WHERE app = ?1 AND id = ?2 AND leased = 1 AND leased_until = ?3 RETURNING id"
                }
                Target::Push { .. } => {
                    "DELETE FROM notify_endpoints
                     WHERE app = ?1 AND id = ?2 AND leased = 1 AND leased_until = ?3 RETURNING id"
                }
            };
            let ended = sqlx::query_scalar(statement)
                .bind(leased.endpoint.app)
                .bind(leased.endpoint.id)
                .bind(leased.until)
                .fetch_all(&mut *write)
                .await?;
            if leased.endpoint.target.user().is_some() {
                removed(&mut write, leased.endpoint.app, &ended).await?;
            }
            write.commit().await
        })
        .await
    }

    async fn prune_deliveries(&self, waiting: Millis, ended: Millis, most: u32) -> Result<u64> {
        bounded(async {
            let mut write = self.begin().await?;
            let pruned = queue::prune(&mut write, waiting, ended, most).await?;
            write.commit().await?;
            Ok(pruned)
        })
        .await
    }
}

/// Notes chats with new messages, unless there are others that nobody was notified of, in applications that have an endpoint.
pub(in crate::store::sqlite) async fn note(
    connection: &mut SqliteConnection,
    plan: &Plan<'_>,
) -> sqlx::Result<()> {
    let apps: BTreeSet<AppId> = plan.unnotified.iter().map(|message| message.key.app).collect();
    if apps.is_empty() {
        return Ok(());
    }
    let apps: Vec<AppId> = sqlx::query_scalar(
        "SELECT unhex(k.value) FROM json_each(?) k
         WHERE EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = unhex(k.value))",
    )
    .bind(list(apps))
    .fetch_all(&mut *connection)
    .await?;
    if apps.is_empty() {
        return Ok(());
    }
    let messages = plan.unnotified.iter().filter(|message| apps.contains(&message.key.app)).map(|message| {
        let (app, chat) = (message.key.app, message.key.chat);
        (app, chat, message.partition, int(message.number), message.at.0)
    });
    sqlx::query(
        "INSERT OR IGNORE INTO notify_waiting (app, chat, partition, from_number, from_at)
         SELECT unhex(k.value ->> 0), unhex(k.value ->> 1), k.value ->> 2, k.value ->> 3, k.value ->> 4
         FROM json_each(?) k",
    )
    .bind(list(messages))
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves a chat's row to where looking at its members is now; whether it was where that began.
async fn go_on(write: &mut SqliteConnection, looked: &Looked) -> sqlx::Result<bool> {
    let Waiting { chat, from, from_at, upto, after } = looked.waiting;
    let next = match looked.after {
        Some(_) => None,
        None => message_after(write, chat, looked.upto).await?,
    };
    let as_it_was = |change: &'static str| {
        let query = sqlx::query(change).bind(chat.app).bind(chat.chat);
        query.bind(int(from)).bind(from_at).bind(upto.map(int)).bind(after)
    };
    let query = match (looked.after, next) {
        (Some(after), _) => as_it_was(if_as_it_was!("UPDATE notify_waiting SET upto = ?7, last_member = ?8"))
            .bind(int(looked.upto))
            .bind(after),
        (None, Some((number, at))) => as_it_was(if_as_it_was!(
            "UPDATE notify_waiting SET from_number = ?7, from_at = ?8, upto = NULL, last_member = NULL"
        ))
        .bind(int(number))
        .bind(at.max(looked.next_at)),
        (None, None) => as_it_was(if_as_it_was!("DELETE FROM notify_waiting")),
    };
    Ok(query.execute(write).await?.rows_affected() == 1)
}

/// The message after that one, and when it was accepted; none in a chat that was deleted.
async fn message_after(
    write: &mut SqliteConnection,
    chat: ChatKey,
    number: Number,
) -> sqlx::Result<Option<(Number, Millis)>> {
    let number = number.saturating_add(1);
    let row = sqlx::query(
        "SELECT m.created_at FROM messages m CROSS JOIN chats c ON c.app = m.app AND c.chat = m.chat
         WHERE m.app = ? AND m.chat = ? AND m.number = ? AND NOT c.deleted",
    )
    .bind(chat.app)
    .bind(chat.chat)
    .bind(int(number))
    .fetch_optional(write)
    .await?;
    row.map(|row| Ok((number, row.get("created_at")?))).transpose()
}
