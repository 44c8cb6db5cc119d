//! The index that finds messages, as rows.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgConnection, Row, Transaction, postgres::PgRow};
use tokio::time::timeout;

use super::{Postgres, fault::fault, fault::late, value::column};
use crate::{
    ids::{ChatKey, Number, Seq},
    model::{Head, Message},
    search::Query,
    store::{
        Result,
        plan::Plan,
        rows::{self, Columns, int, unsigned},
        search::{
            self, Body, Bucket, CHATS_SEARCHED, Due, Findings, Instant, LEASE_MS, MANY_CHANGED, Made, Search,
            SearchScope, Segment, Tail,
        },
    },
    time::Millis,
};

/// How long the reading of a segment may take: of the longest messages there can be it is half a gigabyte.
const MADE_IN: Duration = Duration::from_secs(60);

#[async_trait]
impl Search for Postgres {
    async fn search(&self, within: SearchScope, query: &Query) -> Result<Findings> {
        let found = async {
            let mut instant = Looking(self.instant().await.map_err(fault)?);
            search::find(&mut instant, within, query).await
        };
        timeout(self.settings.call_timeout(), found).await.map_err(|_| late())?
    }

    async fn index_next(&self, now: Millis) -> Result<bool> {
        let Some(due) = self.call(|| self.claim(now)).await? else { return Ok(false) };
        let making = async {
            let mut instant = Looking(self.instant().await.map_err(fault)?);
            search::make(&mut instant, &due).await
        };
        let made = timeout(MADE_IN, making).await.map_err(|_| late())??;
        self.call(|| self.keep(&due, made.as_ref())).await?;
        Ok(true)
    }

    async fn index_changed(&self, before: Millis) -> Result<u64> {
        self.call(|| async move {
            let done = sqlx::query(
                "INSERT INTO search_due (app, chat, upto)
                 SELECT s.app, s.chat, s.last_number
                 FROM search_changes c
                 CROSS JOIN LATERAL (
                   SELECT * FROM search_segments s WHERE s.app = c.app AND s.chat = c.chat AND s.first_number <= c.number
                   ORDER BY s.first_number DESC LIMIT 1) s
                 WHERE s.last_number >= c.number
                 GROUP BY s.app, s.chat, s.first_number, s.last_number HAVING min(c.at) < $1 OR count(*) >= greatest($2, (s.last_number - s.first_number + 1) / $2)
                 ON CONFLICT DO NOTHING",
            )
            .bind(before)
            .bind(MANY_CHANGED)
            .execute(&self.pool)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

impl Postgres {
    /// Takes what is due first. In a chat one after another: a larger segment takes the place of those before it.
    async fn claim(&self, now: Millis) -> sqlx::Result<Option<Due>> {
        let row = sqlx::query(
            "UPDATE search_due u SET claimed_until = $2
             FROM (SELECT d.app, d.chat, d.upto FROM search_due d
                   WHERE d.claimed_until <= $1 AND NOT EXISTS (
                     SELECT 1 FROM search_due e WHERE e.app = d.app AND e.chat = d.chat AND e.upto < d.upto)
                   ORDER BY d.app, d.chat, d.upto LIMIT 1 FOR UPDATE OF d SKIP LOCKED) d
             WHERE u.app = d.app AND u.chat = d.chat AND u.upto = d.upto
             RETURNING u.app, u.chat, u.upto",
        )
        .bind(now)
        .bind(Millis(now.0.saturating_add(LEASE_MS)))
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok(Due { chat: rows::key(&row)?, upto: unsigned(&row, "upto")? })).transpose()
    }

    async fn keep(&self, due: &Due, made: Option<&Made>) -> sqlx::Result<()> {
        let mut write = self.begin().await?;
        let Due { chat, upto } = *due;
        let gone = sqlx::query("DELETE FROM search_due WHERE app = $1 AND chat = $2 AND upto = $3")
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(upto))
            .execute(&mut *write)
            .await?;
        if gone.rows_affected() == 0 {
            // Another process has made it meanwhile.
            return Ok(());
        }
        let Some(made) = made else { return write.commit().await };
        let first = made.first;
        for table in [
            "DELETE FROM search_segments WHERE app = $1 AND chat = $2 AND first_number BETWEEN $3 AND $4",
            "DELETE FROM search_buckets WHERE app = $1 AND chat = $2 AND first_number BETWEEN $3 AND $4",
        ] {
            sqlx::query(table)
                .bind(chat.app)
                .bind(chat.chat)
                .bind(int(first))
                .bind(int(upto))
                .execute(&mut *write)
                .await?;
        }
        sqlx::query(
            "INSERT INTO search_segments (app, chat, first_number, last_number, buckets) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(first))
        .bind(int(upto))
        .bind(i32::try_from(made.buckets.len()).unwrap_or(i32::MAX))
        .execute(&mut *write)
        .await?;
        let full: Vec<(i32, &[u8])> = (0..)
            .zip(&made.buckets)
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(at, bytes)| (at, bytes.as_slice()))
            .collect();
        sqlx::query(
            "INSERT INTO search_buckets (app, chat, first_number, bucket, bytes)
             SELECT $1, $2, $3, * FROM UNNEST($4::integer[], $5::bytea[])",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(first))
        .bind(column(&full, |(at, _)| *at))
        .bind(column(&full, |(_, bytes)| *bytes))
        .execute(&mut *write)
        .await?;
        sqlx::query(
            "DELETE FROM search_changes c USING UNNEST($3::bigint[], $4::bigint[]) AS k (number, seq)
             WHERE c.app = $1 AND c.chat = $2 AND c.number = k.number AND c.seq = k.seq",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(column(&made.changes, |(number, _)| int(*number)))
        .bind(column(&made.changes, |(_, seq)| int(*seq)))
        .execute(&mut *write)
        .await?;
        write.commit().await
    }
}

/// Notes what of a plan is due in the index, and what is wrong in it from now on.
pub(super) async fn note(connection: &mut PgConnection, plan: &Plan<'_>) -> sqlx::Result<()> {
    if !plan.search_due.is_empty() {
        sqlx::query(
            "INSERT INTO search_due (app, chat, upto) SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[])
             ON CONFLICT DO NOTHING",
        )
        .bind(column(&plan.search_due, |(key, _)| key.app))
        .bind(column(&plan.search_due, |(key, _)| key.chat))
        .bind(column(&plan.search_due, |(_, upto)| int(*upto)))
        .execute(&mut *connection)
        .await?;
    }
    if !plan.search_changes.is_empty() {
        let changes = &plan.search_changes;
        sqlx::query(
            "INSERT INTO search_changes (app, chat, number, seq, at)
             SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
             ON CONFLICT DO NOTHING",
        )
        .bind(column(changes, |change| change.key.app))
        .bind(column(changes, |change| change.key.chat))
        .bind(column(changes, |change| int(change.number)))
        .bind(column(changes, |change| int(change.seq)))
        .bind(column(changes, |change| change.at))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// The tables as they are at one instant.
struct Looking(Transaction<'static, sqlx::Postgres>);

fn all<T>(rows: &[PgRow], read: impl Fn(&PgRow) -> sqlx::Result<T>) -> Result<Vec<T>> {
    rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(fault)
}

fn body(row: &PgRow) -> sqlx::Result<Body> {
    Ok(Body {
        chat: rows::key(row)?,
        number: unsigned(row, "number")?,
        at: Columns::get(row, "created_at")?,
        body: Columns::get(row, "body")?,
    })
}

fn numbered(row: &PgRow) -> sqlx::Result<(ChatKey, Number)> {
    Ok((rows::key(row)?, unsigned(row, "number")?))
}

#[async_trait]
impl Instant for Looking {
    async fn chats(&mut self, within: SearchScope) -> Result<Vec<(ChatKey, Head)>> {
        let query = match within {
            SearchScope::Chat(chat) => {
                sqlx::query("SELECT app, chat, head_number, head_seq FROM chats WHERE app = $1 AND chat = $2")
                    .bind(chat.app)
                    .bind(chat.chat)
            }
            SearchScope::ChatsOf(app, user) => sqlx::query(
                "SELECT c.app, c.chat, c.head_number, c.head_seq
                 FROM memberships s JOIN chats c ON c.app = s.app AND c.chat = s.chat
                 WHERE s.app = $1 AND s.user_id = $2 ORDER BY c.active_at DESC, c.chat LIMIT $3",
            )
            .bind(app)
            .bind(user)
            .bind(int(CHATS_SEARCHED as u64 + 1)),
        };
        let rows = query.fetch_all(&mut *self.0).await.map_err(fault)?;
        all(&rows, |row| Ok((rows::key(row)?, rows::head(row)?)))
    }

    async fn segments(&mut self, chats: &[ChatKey]) -> Result<Vec<Segment>> {
        let rows = sqlx::query(
            "SELECT s.* FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, chat)
             JOIN search_segments s ON s.app = k.app AND s.chat = k.chat",
        )
        .bind(column(chats, |chat| chat.app))
        .bind(column(chats, |chat| chat.chat))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, |row| {
            Ok(Segment {
                chat: rows::key(row)?,
                first: unsigned(row, "first_number")?,
                last: unsigned(row, "last_number")?,
                buckets: row.try_get::<i32, _>("buckets")?.unsigned_abs(),
            })
        })
    }

    async fn buckets(&mut self, wanted: &[Bucket]) -> Result<Vec<(usize, Vec<u8>)>> {
        let rows = sqlx::query(
            "SELECT k.place, b.bytes
             FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::integer[]) WITH ORDINALITY
               AS k (app, chat, first_number, bucket, place)
             JOIN search_buckets b ON b.app = k.app AND b.chat = k.chat AND b.first_number = k.first_number
               AND b.bucket = k.bucket",
        )
        .bind(column(wanted, |bucket| bucket.chat.app))
        .bind(column(wanted, |bucket| bucket.chat.chat))
        .bind(column(wanted, |bucket| int(bucket.first)))
        .bind(column(wanted, |bucket| bucket.bucket.cast_signed()))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, |row| {
            // Counted from 1.
            let place = unsigned(row, "place")?.saturating_sub(1);
            Ok((usize::try_from(place).unwrap_or(usize::MAX), row.try_get("bytes")?))
        })
    }

    async fn changed(&mut self, chats: &[ChatKey], limit: usize) -> Result<Vec<(ChatKey, Number)>> {
        let rows = sqlx::query(
            "SELECT c.app, c.chat, c.number FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, chat)
             CROSS JOIN LATERAL (
               SELECT DISTINCT c.app, c.chat, c.number FROM search_changes c
               JOIN messages m ON m.app = c.app AND m.chat = c.chat AND m.number = c.number AND NOT m.deleted
               WHERE c.app = k.app AND c.chat = k.chat ORDER BY c.number DESC LIMIT $3) c",
        )
        .bind(column(chats, |chat| chat.app))
        .bind(column(chats, |chat| chat.chat))
        .bind(int(limit as u64))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, numbered)
    }

    async fn tails(&mut self, tails: &[Tail], limit: u32) -> Result<Vec<Body>> {
        let rows = sqlx::query(
            "SELECT m.app, m.chat, m.number, m.created_at, m.body
             FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) AS k (app, chat, after, before)
             CROSS JOIN LATERAL (
               SELECT * FROM messages m WHERE m.app = k.app AND m.chat = k.chat AND m.number > k.after AND m.number < k.before
               ORDER BY m.number DESC LIMIT $5) m",
        )
        .bind(column(tails, |tail| tail.chat.app))
        .bind(column(tails, |tail| tail.chat.chat))
        .bind(column(tails, |tail| int(tail.after)))
        .bind(column(tails, |tail| int(tail.before)))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, body)
    }

    async fn bodies(&mut self, messages: &[(ChatKey, Number)]) -> Result<Vec<Body>> {
        let rows = sqlx::query(
            "SELECT m.app, m.chat, m.number, m.created_at, m.body
             FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS k (app, chat, number)
             JOIN messages m ON m.app = k.app AND m.chat = k.chat AND m.number = k.number",
        )
        .bind(column(messages, |(chat, _)| chat.app))
        .bind(column(messages, |(chat, _)| chat.chat))
        .bind(column(messages, |(_, number)| int(*number)))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, body)
    }

    async fn messages(&mut self, messages: &[(ChatKey, Number)]) -> Result<Vec<Message>> {
        let rows = sqlx::query(
            "SELECT m.* FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS k (app, chat, number)
             JOIN messages m ON m.app = k.app AND m.chat = k.chat AND m.number = k.number",
        )
        .bind(column(messages, |(chat, _)| chat.app))
        .bind(column(messages, |(chat, _)| chat.chat))
        .bind(column(messages, |(_, number)| int(*number)))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, rows::message)
    }

    async fn from(&mut self, chat: ChatKey, after: Number, upto: Number, limit: u32) -> Result<Vec<Body>> {
        let rows = sqlx::query(
            "SELECT app, chat, number, created_at, body FROM messages
             WHERE app = $1 AND chat = $2 AND number > $3 AND number <= $4 ORDER BY number LIMIT $5",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(after))
        .bind(int(upto))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, body)
    }

    async fn changes(&mut self, chat: ChatKey, first: Number, upto: Number) -> Result<Vec<(Number, Seq)>> {
        let rows = sqlx::query(
            "SELECT number, seq FROM search_changes WHERE app = $1 AND chat = $2 AND number BETWEEN $3 AND $4",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(first))
        .bind(int(upto))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, |row| Ok((unsigned(row, "number")?, unsigned(row, "seq")?)))
    }
}
