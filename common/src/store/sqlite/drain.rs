//! What the writer writes: positions, and batches applied whole or not at all.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection, SqliteExecutor, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    Sqlite,
    fault::bounded,
    value::list,
    write::{self, Stop},
};
use crate::{
    ids::Partition,
    store::{
        Drain, PartitionBatch, Position, Refused, Result,
        plan::{self, Known, Needs},
        rows::{self, int, unreadable, unsigned, unsigned_or_null},
    },
    term::TermState,
};

#[async_trait]
impl Drain for Sqlite {
    async fn positions(&self) -> Result<Vec<(Partition, Position)>> {
        bounded(async { positions(&self.readers).await }).await
    }

    async fn apply(&self, batches: &[PartitionBatch]) -> Result<Vec<std::result::Result<(), Refused>>> {
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        bounded(async {
            #[cfg(feature = "planted")]
            let batches = &self.position_first(batches).await?;
            let mut write = self.begin().await?;
            let mut outcomes = Vec::with_capacity(batches.len());
            for batch in batches {
                sqlx::query("SAVEPOINT batch").execute(&mut *write).await?;
                #[cfg(feature = "planted")]
                self.forget_the_position(&mut write, batch).await?;
                match apply(&mut write, batch).await {
                    Ok(()) => outcomes.push(Ok(())),
                    Err(Stop::Refused(refused)) => {
                        sqlx::query("ROLLBACK TO batch").execute(&mut *write).await?;
                        outcomes.push(Err(refused));
                    }
                    Err(Stop::Engine(error)) => return Err(error),
                }
                #[cfg(feature = "planted")]
                self.double_a_row(&mut write, batch).await?;
                sqlx::query("RELEASE batch").execute(&mut *write).await?;
            }
            write.commit().await?;
            Ok(outcomes)
        })
        .await
    }
}

async fn apply(connection: &mut SqliteConnection, batch: &PartitionBatch) -> Result<(), Stop> {
    advance(connection, batch).await?;
    let known = read(connection, &plan::needs(&batch.changes)).await?;
    let plan = plan::plan(batch, &known).map_err(Stop::Refused)?;
    write::plan(connection, &plan).await?;
    write::dead_letters(connection, batch.partition, batch.next.log, &batch.dead).await?;
    Ok(())
}

/// Moves the position, if it is the expected one.
pub(super) async fn advance(connection: &mut SqliteConnection, batch: &PartitionBatch) -> Result<(), Stop> {
    let (next, term) = (&batch.next, batch.next.state.term.map(int));
    let moved = match &batch.expected {
        Some(expected) => {
            sqlx::query(
                "UPDATE positions SET log = ?, offset = ?, term = ?, n = ?
                 WHERE partition = ? AND log = ? AND offset = ? AND term IS ? AND n = ?",
            )
            .bind(next.log.as_bytes().as_slice())
            .bind(int(next.offset))
            .bind(term)
            .bind(int(next.state.n))
            .bind(batch.partition)
            .bind(expected.log.as_bytes().as_slice())
            .bind(int(expected.offset))
            .bind(expected.state.term.map(int))
            .bind(int(expected.state.n))
            .execute(&mut *connection)
            .await?
        }
        None => {
            sqlx::query(
                "INSERT INTO positions (log, offset, term, n, partition) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(next.log.as_bytes().as_slice())
            .bind(int(next.offset))
            .bind(term)
            .bind(int(next.state.n))
            .bind(batch.partition)
            .execute(&mut *connection)
            .await?
        }
    };
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let row = sqlx::query("SELECT * FROM positions WHERE partition = ?")
        .bind(batch.partition)
        .fetch_optional(connection)
        .await?;
    Err(Stop::Refused(Refused::Moved(row.as_ref().map(position).transpose()?)))
}

/// The position of every partition that has one.
pub(super) async fn positions<'c>(from: impl SqliteExecutor<'c>) -> sqlx::Result<Vec<(Partition, Position)>> {
    let rows = sqlx::query("SELECT * FROM positions ORDER BY partition").fetch_all(from).await?;
    rows.iter().map(position_of_partition).collect()
}

/// A row of positions.
fn position_of_partition(row: &SqliteRow) -> sqlx::Result<(Partition, Position)> {
    Ok((row.try_get("partition")?, position(row)?))
}

fn position(row: &SqliteRow) -> sqlx::Result<Position> {
    Ok(Position {
        log: Uuid::from_slice(row.try_get("log")?).map_err(|error| unreadable(error.to_string()))?,
        offset: unsigned(row, "offset")?,
        state: TermState { term: unsigned_or_null(row, "term")?, n: unsigned(row, "n")? },
    })
}

/// Reads what a plan rests on.
async fn read(connection: &mut SqliteConnection, needs: &Needs) -> sqlx::Result<Known> {
    let mut known = Known::default();
    if !needs.chats.is_empty() {
        let rows = sqlx::query(
            "SELECT c.app, c.chat, c.head_number, c.head_seq, c.active_at, c.members, c.deleted, c.expired_number
             FROM json_each(?) k
             CROSS JOIN chats c ON c.app = unhex(k.value ->> 0) AND c.chat = unhex(k.value ->> 1)",
        )
        .bind(list(needs.chats.iter().map(|key| (key.app, key.chat))))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            known.chats.insert(rows::key(row)?, rows::known_chat(row)?);
        }
    }
    if !needs.members.is_empty() {
        let rows = sqlx::query(
            "SELECT m.app, m.chat, m.user FROM json_each(?) k
             CROSS JOIN members m ON m.app = unhex(k.value ->> 0) AND m.chat = unhex(k.value ->> 1)
               AND m.user = unhex(k.value ->> 2)",
        )
        .bind(list(needs.members.iter().map(|(key, user)| (key.app, key.chat, user))))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            known.members.insert((rows::key(row)?, row.try_get("user")?));
        }
    }
    if !needs.messages.is_empty() {
        let rows = sqlx::query(
            "SELECT m.app, m.chat, m.number, m.deleted FROM json_each(?) k
             CROSS JOIN messages m ON m.app = unhex(k.value ->> 0) AND m.chat = unhex(k.value ->> 1)
               AND m.number = k.value ->> 2",
        )
        .bind(list(needs.messages.iter().map(|(key, number)| (key.app, key.chat, int(*number)))))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            known.messages.insert((rows::key(row)?, unsigned(row, "number")?), row.try_get("deleted")?);
        }
    }
    Ok(known)
}
