//! Who is to be notified, and what is on its way.
//!
//! A chat's row is locked by whoever looks at its members, and changed last of all: a batch of the writer does not wait for a lock, but for a
//! change. Where a round ends, the lock of the partition's position keeps the batches away while it is asked what comes after it.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use sqlx::PgConnection;
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
        postgres::{Postgres, value::column},
        rows::{self, Columns, int},
    },
    time::Millis,
};

/// Members of a chat, as who may have to be notified. What is looked up of each is no join that the planner could turn around.
macro_rules! candidates {
    ($which:literal) => {
        concat!(
            "SELECT m.user_id AS user, s.read, u.timezone,
               (SELECT l.at FROM last_seen l WHERE l.app = m.app AND l.user_id = m.user_id) AS last_seen,
               (SELECT p.preferences FROM notification_preferences p
                WHERE p.app = m.app AND p.user_id = m.user_id) AS preferences,
               (SELECT c.preferences FROM chat_notification_preferences c
                WHERE c.app = m.app AND c.user_id = m.user_id AND c.chat = m.chat) AS chat_preferences,
               EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = m.app AND e.user_id = m.user_id) AS subscribed
             FROM members m
             CROSS JOIN LATERAL (
               SELECT greatest(s.joined_number, s.read_number) AS read FROM memberships s
               WHERE s.app = m.app AND s.user_id = m.user_id AND s.chat = m.chat LIMIT 1) s
             LEFT JOIN LATERAL (
               SELECT u.timezone, u.erased_at FROM users u WHERE u.app = m.app AND u.id = m.user_id LIMIT 1) u ON true
             WHERE m.app = $1 AND m.chat = $2 AND u.erased_at IS NULL AND ",
            $which
        )
    };
}

/// Changes a chat's row, $1 and $2, if it is as $3 to $6 say.
macro_rules! if_as_it_was {
    ($change:literal) => {
        concat!(
            $change,
            " WHERE app = $1 AND chat = $2 AND from_number = $3 AND from_at = $4 AND upto IS NOT DISTINCT FROM $5
                AND last_member IS NOT DISTINCT FROM $6"
        )
    };
}

/// Changes the row of who is held, $1 to $4, if it is as $5 to $7 say.
macro_rules! if_held {
    ($change:literal) => {
        concat!(
            $change,
            " WHERE app = $1 AND user_id = $2 AND chat = $3 AND endpoint = $4 AND from_number = $5 AND upto = $6
                AND until = $7"
        )
    };
}

/// Takes, until $2, the first $3 endpoints of these receivers that may be sent to at $1, but of the applications $4, and but those
/// that failed last if $5, and the others if $6.
macro_rules! take {
    ($receivers:literal) => {
        concat!(
            "UPDATE notify_endpoints u SET leased = true, leased_until = greatest($2, u.leased_until + 1)
             FROM (SELECT e.app, e.id FROM notify_endpoints e
                   WHERE e.queued AND e.enabled AND e.",
            $receivers,
            " AND e.next_at <= $1 AND (NOT e.leased OR e.leased_until <= $1) AND e.app <> ALL ($4)
                     AND NOT (CASE WHEN e.failures > 0 THEN $5 ELSE $6 END)
                     AND (SELECT a.erased_at IS NULL FROM applications a WHERE a.id = e.app)
                   ORDER BY e.next_at LIMIT $3 FOR UPDATE OF e SKIP LOCKED) d
             WHERE u.app = d.app AND u.id = d.id
             RETURNING u.*, u.user_id AS user"
        )
    };
}

fn integers(partitions: &[Partition]) -> Vec<i32> {
    column(partitions, |partition| i32::from(*partition))
}

#[async_trait]
impl Notify for Postgres {
    async fn notifying(&self) -> Result<Vec<(AppId, Duration)>> {
        self.call(|| async move {
            // With the OFFSET each application is asked for by itself.
            let rows: Vec<(AppId, String)> = sqlx::query_as(
                "SELECT a.id, a.settings FROM applications a WHERE a.erased_at IS NULL AND EXISTS (
                   SELECT 1 FROM notify_endpoints e WHERE e.app = a.id OFFSET 0) ORDER BY a.id",
            )
            .fetch_all(&self.pool)
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
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT * FROM notify_waiting WHERE app = $1 AND from_at < $2 AND partition = ANY($3)
                 ORDER BY from_at LIMIT $4",
            )
            .bind(app)
            .bind(before)
            .bind(integers(partitions))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::notifications::waiting).collect()
        })
        .await
    }

    async fn candidates(&self, chat: ChatKey, after: Option<UserId>, limit: u32) -> Result<Vec<Candidate>> {
        self.call(|| async move {
            let rows = sqlx::query(candidates!("m.user_id > $3 ORDER BY m.user_id LIMIT $4"))
                .bind(chat.app)
                .bind(chat.chat)
                // Nobody has the first id of all.
                .bind(after.unwrap_or(UserId::APPLICATION))
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await?;
            rows.iter().map(rows::notifications::candidate).collect()
        })
        .await
    }

    async fn candidates_among(&self, chat: ChatKey, users: &[UserId]) -> Result<Vec<Candidate>> {
        self.call(|| async move {
            let rows = sqlx::query(candidates!("m.user_id = ANY($3) ORDER BY m.user_id"))
                .bind(chat.app)
                .bind(chat.chat)
                .bind(users)
                .fetch_all(&self.pool)
                .await?;
            rows.iter().map(rows::notifications::candidate).collect()
        })
        .await
    }

    async fn looked(&self, looked: &Looked) -> Result<bool> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            if !is_as_it_was(&mut write, &looked.waiting).await? {
                return Ok(false);
            }
            queue::hold(&mut write, looked.partition, &looked.hold).await?;
            queue::send(&mut write, looked.waiting.chat.app, None, &looked.send, looked.now).await?;
            if looked.after.is_none() {
                sqlx::query("SELECT 1 FROM positions WHERE partition = $1 FOR UPDATE")
                    .bind(i32::from(looked.partition))
                    .execute(&mut *write)
                    .await?;
            }
            if !go_on(&mut write, looked).await? {
                return Ok(false);
            }
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn held(&self, partitions: &[Partition], now: Millis, limit: u32) -> Result<Vec<Held>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT *, user_id AS user FROM notify_held WHERE until <= $1 AND partition = ANY($2)
                 ORDER BY until, upto LIMIT $3",
            )
            .bind(now)
            .bind(integers(partitions))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
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
        let send = send.as_slice();
        self.call(|| async move {
            let mut write = self.begin().await?;
            let as_it_was = |change: &'static str| {
                let query = sqlx::query(change).bind(held.chat.app).bind(held.user).bind(held.chat.chat);
                let query = query.bind(held.endpoint.unwrap_or(EndpointId::EVERY));
                query.bind(int(held.from)).bind(int(held.upto)).bind(held.until)
            };
            let query = match again {
                Some(until) => as_it_was(if_held!("UPDATE notify_held SET until = $8")).bind(until),
                None => as_it_was(if_held!("DELETE FROM notify_held")),
            };
            if query.execute(&mut *write).await?.rows_affected() == 0 {
                return Ok(false);
            }
            queue::send(&mut write, held.chat.app, held.endpoint, send, now).await?;
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn look_again_at(&self, app: AppId, users: &[UserId]) -> Result<()> {
        self.call(|| async move {
            // In the order in which they are put there.
            sqlx::query(
                "UPDATE notify_held h SET until = 0 FROM (
                   SELECT app, user_id, chat, endpoint FROM notify_held WHERE app = $1 AND user_id = ANY($2)
                   ORDER BY app, user_id, chat, endpoint FOR UPDATE) o
                 WHERE h.app = o.app AND h.user_id = o.user_id AND h.chat = o.chat AND h.endpoint = o.endpoint",
            )
            .bind(app)
            .bind(users)
            .execute(&self.pool)
            .await?;
            Ok(())
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
        let statement = match receivers {
            Receivers::Webhooks => take!("url_hash IS NULL"),
            Receivers::Browsers => take!("url_hash IS NOT NULL"),
        };
        self.call(|| async move {
            let rows = sqlx::query(statement)
                .bind(now)
                .bind(now.plus(lease))
                .bind(i64::from(limit))
                .bind(except.apps)
                .bind(except.failing)
                .bind(except.working)
                .fetch_all(&self.pool)
                .await?;
            rows.iter().map(rows::notifications::leased).collect()
        })
        .await
    }

    async fn oldest_pending(&self) -> Result<Option<Millis>> {
        self.call(|| async move {
            sqlx::query_scalar(
                "SELECT since FROM notify_deliveries WHERE state = 'pending' ORDER BY since LIMIT 1",
            )
            .fetch_optional(&self.pool)
            .await
        })
        .await
    }

    async fn queued(&self, app: AppId, endpoint: EndpointId, limit: u32) -> Result<Vec<Queued>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT * FROM notify_deliveries WHERE app = $1 AND endpoint = $2 AND state = 'pending'
                 ORDER BY place LIMIT $3",
            )
            .bind(app)
            .bind(endpoint)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
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
        self.call(|| async move {
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
        self.call(|| async move {
            let mut write = self.begin().await?;
            queue::release(&mut write, leased, next).await?;
            write.commit().await
        })
        .await
    }

    async fn end_endpoint(&self, leased: &Leased) -> Result<()> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            let statement = match leased.endpoint.target {
                Target::Webhook { .. } => {
                    "UPDATE notify_endpoints SET enabled = false, leased = false
                     WHERE app = $1 AND id = $2 AND leased AND leased_until = $3 RETURNING id"
                }
                Target::Push { .. } => {
                    "DELETE FROM notify_endpoints
                     WHERE app = $1 AND id = $2 AND leased AND leased_until = $3 RETURNING id"
                }
            };
            let ended: Vec<EndpointId> = sqlx::query_scalar(statement)
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
        let dated = [(queue::GIVE_UP, Some(waiting)), (queue::FORGET, Some(ended))];
        let untold = queue::UNTOLD.map(|statement| (statement, Some(waiting)));
        let mut done = 0;
        for (statement, before) in
            dated.into_iter().chain(untold).chain(queue::CLEAR.map(|statement| (statement, None)))
        {
            done += self
                .call(|| async move {
                    let query = sqlx::query(statement).bind(i64::from(most));
                    let query = match before {
                        Some(before) => query.bind(before),
                        None => query,
                    };
                    Ok(query.execute(&self.pool).await?.rows_affected())
                })
                .await?;
        }
        Ok(done)
    }
}

/// Notes chats with new messages, unless there are others that nobody was notified of, in applications that have an endpoint.
pub(in crate::store::postgres) async fn note(
    connection: &mut PgConnection,
    plan: &Plan<'_>,
) -> sqlx::Result<()> {
    let messages = plan.unnotified.as_slice();
    if messages.is_empty() {
        return Ok(());
    }
    let apps: BTreeSet<AppId> = messages.iter().map(|message| message.key.app).collect();
    // Which applications those are is asked once, and not for each chat.
    sqlx::query(
        "INSERT INTO notify_waiting (app, chat, partition, from_number, from_at)
         SELECT w.* FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::bigint[])
           AS w (app, chat, partition, from_number, from_at)
         WHERE w.app = ANY (ARRAY(
           SELECT a.app FROM UNNEST($6::uuid[]) AS a (app)
           WHERE EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = a.app)))
         ON CONFLICT DO NOTHING",
    )
    .bind(column(messages, |message| message.key.app))
    .bind(column(messages, |message| message.key.chat))
    .bind(column(messages, |message| i32::from(message.partition)))
    .bind(column(messages, |message| int(message.number)))
    .bind(column(messages, |message| message.at))
    .bind(apps.into_iter().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a chat's row is as this says. Nobody else changes it from then on.
async fn is_as_it_was(write: &mut PgConnection, waiting: &Waiting) -> sqlx::Result<bool> {
    let Waiting { chat, from, from_at, upto, after } = *waiting;
    let row = sqlx::query(concat!(if_as_it_was!("SELECT 1 FROM notify_waiting"), " FOR UPDATE"))
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(from))
        .bind(from_at)
        .bind(upto.map(int))
        .bind(after)
        .fetch_optional(write)
        .await?;
    Ok(row.is_some())
}

/// Moves a chat's row to where looking at its members is now; whether it was where that began.
async fn go_on(write: &mut PgConnection, looked: &Looked) -> sqlx::Result<bool> {
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
        (Some(after), _) => as_it_was(if_as_it_was!("UPDATE notify_waiting SET upto = $7, last_member = $8"))
            .bind(int(looked.upto))
            .bind(after),
        (None, Some((number, at))) => as_it_was(if_as_it_was!(
            "UPDATE notify_waiting SET from_number = $7, from_at = $8, upto = NULL, last_member = NULL"
        ))
        .bind(int(number))
        .bind(at.max(looked.next_at)),
        (None, None) => as_it_was(if_as_it_was!("DELETE FROM notify_waiting")),
    };
    Ok(query.execute(write).await?.rows_affected() == 1)
}

/// The message after that one, and when it was accepted; none in a chat that was deleted.
async fn message_after(
    write: &mut PgConnection,
    chat: ChatKey,
    number: Number,
) -> sqlx::Result<Option<(Number, Millis)>> {
    let number = number.saturating_add(1);
    let row = sqlx::query(
        "SELECT m.created_at FROM messages m JOIN chats c ON c.app = m.app AND c.chat = m.chat
         WHERE m.app = $1 AND m.chat = $2 AND m.number = $3 AND NOT c.deleted",
    )
    .bind(chat.app)
    .bind(chat.chat)
    .bind(int(number))
    .fetch_optional(write)
    .await?;
    row.map(|row| Ok((number, row.get("created_at")?))).transpose()
}
