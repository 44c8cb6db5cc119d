//! The index that finds messages, as rows.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection, Transaction, sqlite::SqliteRow};
use tokio::time::timeout;

use super::{
    Sqlite,
    fault::{WAIT, bounded, fault, late},
    value::list,
};
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

#[async_trait]
impl Search for Sqlite {
    async fn search(&self, within: SearchScope, query: &Query) -> Result<Findings> {
        let found = async {
            let mut instant = Looking(self.readers.begin().await.map_err(fault)?);
            search::find(&mut instant, within, query).await
        };
        timeout(WAIT, found).await.map_err(|_| late())?
    }

    async fn index_next(&self, now: Millis) -> Result<bool> {
        let Some(due) = bounded(self.claim(now)).await? else { return Ok(false) };
        // Made beside the writer, which goes on meanwhile.
        let making = async {
            let mut instant = Looking(self.readers.begin().await.map_err(fault)?);
            search::make(&mut instant, &due).await
        };
        let made = timeout(WAIT * 10, making).await.map_err(|_| late())??;
        bounded(self.keep(&due, made.as_ref())).await?;
        Ok(true)
    }

    async fn index_changed(&self, before: Millis) -> Result<u64> {
        bounded(async {
            let none: bool = sqlx::query_scalar("SELECT NOT EXISTS (SELECT 1 FROM search_changes)")
                .fetch_one(&self.readers)
                .await?;
            if none {
                return Ok(0);
            }
            let mut write = self.begin().await?;
            let done = sqlx::query(
                "INSERT OR IGNORE INTO search_due (app, chat, upto)
                 SELECT s.app, s.chat, s.last_number
                 FROM search_changes c
                 CROSS JOIN search_segments s ON s.app = c.app AND s.chat = c.chat AND s.first_number = (
                   SELECT max(first_number) FROM search_segments
                   WHERE app = c.app AND chat = c.chat AND first_number <= c.number)
                 WHERE s.last_number >= c.number
                 GROUP BY s.app, s.chat, s.first_number, s.last_number
                 HAVING min(c.at) < ?1 OR count(*) >= max(?2, (s.last_number - s.first_number + 1) / ?2)",
            )
            .bind(before)
            .bind(MANY_CHANGED)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

impl Sqlite {
    /// Takes what is due first. In a chat one after another: a larger segment takes the place of those before it.
    async fn claim(&self, now: Millis) -> sqlx::Result<Option<Due>> {
        // Most of the time there is nothing, and the writer need not wait for that.
        let free: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM search_due WHERE claimed_until <= ?)")
                .bind(now)
                .fetch_one(&self.readers)
                .await?;
        if !free {
            return Ok(None);
        }
        let mut write = self.begin().await?;
        let row = sqlx::query(
            "UPDATE search_due SET claimed_until = ?2 WHERE (app, chat, upto) IN (
               SELECT d.app, d.chat, d.upto FROM search_due d
               WHERE d.claimed_until <= ?1 AND NOT EXISTS (
                 SELECT 1 FROM search_due e WHERE e.app = d.app AND e.chat = d.chat AND e.upto < d.upto)
               ORDER BY d.app, d.chat, d.upto LIMIT 1)
             RETURNING app, chat, upto",
        )
        .bind(now)
        .bind(Millis(now.0.saturating_add(LEASE_MS)))
        .fetch_optional(&mut *write)
        .await?;
        write.commit().await?;
        row.map(|row| Ok(Due { chat: rows::key(&row)?, upto: unsigned(&row, "upto")? })).transpose()
    }

    async fn keep(&self, due: &Due, made: Option<&Made>) -> sqlx::Result<()> {
        let mut write = self.begin().await?;
        let Due { chat, upto } = *due;
        let gone = sqlx::query("DELETE FROM search_due WHERE app = ? AND chat = ? AND upto = ?")
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(upto))
            .execute(&mut *write)
            .await?;
        if gone.rows_affected() == 0 {
            // Another has made it meanwhile.
            return write.commit().await;
        }
        let Some(made) = made else { return write.commit().await };
        let first = made.first;
        for table in [
            "DELETE FROM search_segments WHERE app = ? AND chat = ? AND first_number BETWEEN ? AND ?",
            "DELETE FROM search_buckets WHERE app = ? AND chat = ? AND first_number BETWEEN ? AND ?",
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
            "INSERT INTO search_segments (app, chat, first_number, last_number, buckets) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(first))
        .bind(int(upto))
        .bind(int(made.buckets.len() as u64))
        .execute(&mut *write)
        .await?;
        for (at, bytes) in (0_u32..).zip(&made.buckets).filter(|(_, bytes)| !bytes.is_empty()) {
            sqlx::query(
                "INSERT INTO search_buckets (app, chat, first_number, bucket, bytes) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(first))
            .bind(at)
            .bind(bytes)
            .execute(&mut *write)
            .await?;
        }
        sqlx::query(
            "DELETE FROM search_changes WHERE app = ? AND chat = ? AND (number, seq) IN (
               SELECT value ->> 0, value ->> 1 FROM json_each(?))",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(list(made.changes.iter().map(|(number, seq)| (int(*number), int(*seq)))))
        .execute(&mut *write)
        .await?;
        write.commit().await
    }
}

/// Notes what of a plan is due in the index, and what is wrong in it from now on.
pub(super) async fn note(connection: &mut SqliteConnection, plan: &Plan<'_>) -> sqlx::Result<()> {
    for (key, upto) in &plan.search_due {
        sqlx::query("INSERT OR IGNORE INTO search_due (app, chat, upto) VALUES (?, ?, ?)")
            .bind(key.app)
            .bind(key.chat)
            .bind(int(*upto))
            .execute(&mut *connection)
            .await?;
    }
    for change in &plan.search_changes {
        sqlx::query(
            "INSERT OR IGNORE INTO search_changes (app, chat, number, seq, at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(change.key.app)
        .bind(change.key.chat)
        .bind(int(change.number))
        .bind(int(change.seq))
        .bind(change.at)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The tables as they are at one instant.
struct Looking(Transaction<'static, sqlx::Sqlite>);

fn all<T>(rows: &[SqliteRow], read: impl Fn(&SqliteRow) -> sqlx::Result<T>) -> Result<Vec<T>> {
    rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(fault)
}

fn body(row: &SqliteRow) -> sqlx::Result<Body> {
    Ok(Body {
        chat: rows::key(row)?,
        number: unsigned(row, "number")?,
        at: Columns::get(row, "created_at")?,
        body: Columns::get(row, "body")?,
    })
}

/// Keys of messages as one parameter.
fn keys(messages: &[(ChatKey, Number)]) -> String {
    list(messages.iter().map(|(chat, number)| (chat.app, chat.chat, int(*number))))
}

#[async_trait]
impl Instant for Looking {
    async fn chats(&mut self, within: SearchScope) -> Result<Vec<(ChatKey, Head)>> {
        let query = match within {
            SearchScope::Chat(chat) => {
                sqlx::query("SELECT app, chat, head_number, head_seq FROM chats WHERE app = ? AND chat = ?")
                    .bind(chat.app)
                    .bind(chat.chat)
            }
            SearchScope::ChatsOf(app, user) => sqlx::query(
                "SELECT c.app, c.chat, c.head_number, c.head_seq
                 FROM memberships s CROSS JOIN chats c ON c.app = s.app AND c.chat = s.chat
                 WHERE s.app = ? AND s.user = ? ORDER BY c.active_at DESC, c.chat LIMIT ?",
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
            "SELECT s.* FROM json_each(?) k
             CROSS JOIN search_segments s ON s.app = unhex(k.value ->> 0) AND s.chat = unhex(k.value ->> 1)",
        )
        .bind(list(chats.iter().map(|chat| (chat.app, chat.chat))))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, |row| {
            Ok(Segment {
                chat: rows::key(row)?,
                first: unsigned(row, "first_number")?,
                last: unsigned(row, "last_number")?,
                buckets: row.try_get("buckets")?,
            })
        })
    }

    async fn buckets(&mut self, wanted: &[Bucket]) -> Result<Vec<(usize, Vec<u8>)>> {
        let rows = sqlx::query(
            "SELECT k.key AS place, b.bytes FROM json_each(?) k
             CROSS JOIN search_buckets b ON b.app = unhex(k.value ->> 0) AND b.chat = unhex(k.value ->> 1)
               AND b.first_number = k.value ->> 2 AND b.bucket = k.value ->> 3",
        )
        .bind(list(wanted.iter().map(|one| (one.chat.app, one.chat.chat, int(one.first), one.bucket))))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, |row| {
            let place: i64 = row.try_get("place")?;
            Ok((usize::try_from(place).unwrap_or(usize::MAX), row.try_get("bytes")?))
        })
    }

    async fn changed(&mut self, chats: &[ChatKey], limit: usize) -> Result<Vec<(ChatKey, Number)>> {
        let mut changed = Vec::new();
        for chat in chats {
            let rows = sqlx::query(
                "SELECT DISTINCT c.number FROM search_changes c
                 CROSS JOIN messages m ON m.app = c.app AND m.chat = c.chat AND m.number = c.number AND m.deleted = 0
                 WHERE c.app = ? AND c.chat = ? ORDER BY c.number DESC LIMIT ?",
            )
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(limit as u64))
            .fetch_all(&mut *self.0)
            .await
            .map_err(fault)?;
            changed.extend(all(&rows, |row| Ok((*chat, unsigned(row, "number")?)))?);
        }
        Ok(changed)
    }

    async fn tails(&mut self, tails: &[Tail], limit: u32) -> Result<Vec<Body>> {
        let mut bodies = Vec::new();
        for tail in tails {
            let rows = sqlx::query(
                "SELECT app, chat, number, created_at, body FROM messages
                 WHERE app = ? AND chat = ? AND number > ? AND number < ? ORDER BY number DESC LIMIT ?",
            )
            .bind(tail.chat.app)
            .bind(tail.chat.chat)
            .bind(int(tail.after))
            .bind(int(tail.before))
            .bind(limit)
            .fetch_all(&mut *self.0)
            .await
            .map_err(fault)?;
            bodies.extend(all(&rows, body)?);
        }
        Ok(bodies)
    }

    async fn bodies(&mut self, messages: &[(ChatKey, Number)]) -> Result<Vec<Body>> {
        let rows = sqlx::query(
            "SELECT m.app, m.chat, m.number, m.created_at, m.body FROM json_each(?) k
             CROSS JOIN messages m ON m.app = unhex(k.value ->> 0) AND m.chat = unhex(k.value ->> 1)
               AND m.number = k.value ->> 2",
        )
        .bind(keys(messages))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, body)
    }

    async fn messages(&mut self, messages: &[(ChatKey, Number)]) -> Result<Vec<Message>> {
        let rows = sqlx::query(
            "SELECT m.* FROM json_each(?) k
             CROSS JOIN messages m ON m.app = unhex(k.value ->> 0) AND m.chat = unhex(k.value ->> 1)
               AND m.number = k.value ->> 2",
        )
        .bind(keys(messages))
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, rows::message)
    }

    async fn from(&mut self, chat: ChatKey, after: Number, upto: Number, limit: u32) -> Result<Vec<Body>> {
        let rows = sqlx::query(
            "SELECT app, chat, number, created_at, body FROM messages
             WHERE app = ? AND chat = ? AND number > ? AND number <= ? ORDER BY number LIMIT ?",
        )
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(after))
        .bind(int(upto))
        .bind(limit)
        .fetch_all(&mut *self.0)
        .await
        .map_err(fault)?;
        all(&rows, body)
    }

    async fn changes(&mut self, chat: ChatKey, first: Number, upto: Number) -> Result<Vec<(Number, Seq)>> {
        let rows = sqlx::query(
            "SELECT number, seq FROM search_changes WHERE app = ? AND chat = ? AND number BETWEEN ? AND ?",
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
