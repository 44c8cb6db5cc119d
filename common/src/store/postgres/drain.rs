//! What the writer writes: positions, and batches applied whole or not at all.
//!
//! Batches of one call are written together, so that a table is one statement whatever their number: their positions are locked, what
//! all of them rest on is read, each is planned in memory, and the plans that hold are written. One that does not hold has written nothing.
//!
//! Locks are taken in one order, so that nobody waits in a circle: positions (new ones, then known ones, each by partition), memberships
//! (by application, chat and user, as [`super::reads`] does), and last the counters of applications. A chat's other rows belong to
//! its partition, so the lock of the position is theirs.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow};

use super::{
    Postgres,
    fault::{contradicts, text},
    value::column,
    write,
};
use crate::{
    ids::{ChatKey, Partition},
    store::{
        Drain, PartitionBatch, Position, Refused, Result,
        plan::{self, Known, Needs, Plan},
        rows::{self, Columns, int, unreadable, unsigned, unsigned_or_null},
    },
    term::TermState,
    wire::record::Change,
};

type Outcome = std::result::Result<(), Refused>;

#[async_trait]
impl Drain for Postgres {
    async fn positions(&self) -> Result<Vec<(Partition, Position)>> {
        self.call(|| async move { positions(&self.pool).await }).await
    }

    async fn apply(&self, batches: &[PartitionBatch]) -> Result<Vec<Outcome>> {
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        self.call(|| async move {
            match self.together(batches).await {
                // The plans found nothing wrong, so the tables disagree among themselves: about one of these batches.
                Err(error) if contradicts(&error) => self.one_by_one(batches).await,
                other => other,
            }
        })
        .await
    }
}

impl Postgres {
    /// Applies the batches, as many as possible at once.
    async fn together(&self, mut batches: &[PartitionBatch]) -> sqlx::Result<Vec<Outcome>> {
        let mut write = self.begin().await?;
        let mut outcomes = Vec::with_capacity(batches.len());
        while !batches.is_empty() {
            let (now, later) = batches.split_at(independent(batches));
            outcomes.extend(apply(&mut write, now).await?);
            batches = later;
        }
        write.commit().await?;
        Ok(outcomes)
    }

    /// Applies each batch by itself, in the same transaction, so that one that contradicts the tables is refused alone.
    async fn one_by_one(&self, batches: &[PartitionBatch]) -> sqlx::Result<Vec<Outcome>> {
        let mut write = self.begin().await?;
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            sqlx::query("SAVEPOINT batch").execute(&mut *write).await?;
            match (apply(&mut write, std::slice::from_ref(batch)).await, batch.changes.first()) {
                (Ok(outcome), _) => outcomes.extend(outcome),
                (Err(error), Some(first)) if contradicts(&error) => {
                    sqlx::query("ROLLBACK TO SAVEPOINT batch").execute(&mut *write).await?;
                    let (chat, seq, why) = (first.key(), first.seq, text(&error));
                    outcomes.push(Err(Refused::Broken { chat, seq, why }));
                }
                (Err(error), _) => return Err(error),
            }
            sqlx::query("RELEASE SAVEPOINT batch").execute(&mut *write).await?;
        }
        write.commit().await?;
        Ok(outcomes)
    }
}

/// How many of the first batches can be planned at once, at least one: no partition and no chat is in two of them.
fn independent(batches: &[PartitionBatch]) -> usize {
    let (mut partitions, mut chats) = (HashSet::new(), HashSet::new());
    let alone = |batch: &&PartitionBatch| {
        let own: HashSet<ChatKey> = batch.changes.iter().map(Change::key).collect();
        let alone = partitions.insert(batch.partition) && own.is_disjoint(&chats);
        chats.extend(own);
        alone
    };
    batches.iter().take_while(alone).count().max(1)
}

/// Applies batches that have no partition and no chat in common.
async fn apply(connection: &mut PgConnection, batches: &[PartitionBatch]) -> sqlx::Result<Vec<Outcome>> {
    let mut outcomes = claim(connection, batches).await?;
    let mut needs = Needs::default();
    for (batch, _) in going(batches, &outcomes) {
        needs.join(plan::needs(&batch.changes));
    }
    let known = read(connection, &needs).await?;
    let mut plan = Plan::default();
    for (batch, outcome) in batches.iter().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_ok()) {
        match plan::plan(batch, &known) {
            Ok(own) => plan.join(own),
            Err(refused) => *outcome = Err(refused),
        }
    }
    settle(connection, batches, &outcomes).await?;
    let dead: Vec<_> = going(batches, &outcomes)
        .flat_map(|(batch, _)| batch.dead.iter().map(|letter| (batch.partition, batch.next.log, letter)))
        .collect();
    write::dead_letters(connection, &dead).await?;
    write::plan(connection, &plan).await?;
    Ok(outcomes)
}

fn going<'b>(
    batches: &'b [PartitionBatch],
    outcomes: &'b [Outcome],
) -> impl Iterator<Item = (&'b PartitionBatch, &'b Outcome)> {
    batches.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok())
}

/// Locks the positions, and refuses the batches that do not start from them. One that expects none is put where its batch leads to at once:
/// nobody else can do the same until this transaction ends.
async fn claim(connection: &mut PgConnection, batches: &[PartitionBatch]) -> sqlx::Result<Vec<Outcome>> {
    let mut new: Vec<&PartitionBatch> = batches.iter().filter(|batch| batch.expected.is_none()).collect();
    new.sort_by_key(|batch| batch.partition);
    let mut made = HashSet::new();
    if !new.is_empty() {
        let rows = sqlx::query(
            "INSERT INTO positions (partition, log, next_offset, term, n)
             SELECT * FROM UNNEST($1::integer[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
             ON CONFLICT DO NOTHING RETURNING partition",
        )
        .bind(column(&new, |batch| i32::from(batch.partition)))
        .bind(column(&new, |batch| batch.next.log))
        .bind(column(&new, |batch| int(batch.next.offset)))
        .bind(column(&new, |batch| batch.next.state.term.map(int)))
        .bind(column(&new, |batch| int(batch.next.state.n)))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            made.insert(partition(row)?);
        }
    }
    let rows = sqlx::query("SELECT * FROM positions WHERE partition = ANY($1) ORDER BY partition FOR UPDATE")
        .bind(column(batches, |batch| i32::from(batch.partition)))
        .fetch_all(connection)
        .await?;
    let found: HashMap<Partition, Position> =
        rows.iter().map(position_of_partition).collect::<sqlx::Result<_>>()?;
    let outcome = |batch: &PartitionBatch| {
        let found = found.get(&batch.partition).copied();
        let good = match batch.expected {
            Some(_) => found == batch.expected,
            None => made.contains(&batch.partition),
        };
        if good { Ok(()) } else { Err(Refused::Moved(found)) }
    };
    Ok(batches.iter().map(outcome).collect())
}

/// Moves the positions of batches that hold, and takes back those that [`claim`] has put for others.
async fn settle(
    connection: &mut PgConnection,
    batches: &[PartitionBatch],
    outcomes: &[Outcome],
) -> sqlx::Result<()> {
    let moved: Vec<&PartitionBatch> =
        going(batches, outcomes).map(|(batch, _)| batch).filter(|batch| batch.expected.is_some()).collect();
    if !moved.is_empty() {
        sqlx::query(
            "UPDATE positions p SET log = w.log, next_offset = w.next_offset, term = w.term, n = w.n
             FROM UNNEST($1::integer[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
               AS w (partition, log, next_offset, term, n)
             WHERE p.partition = w.partition",
        )
        .bind(column(&moved, |batch| i32::from(batch.partition)))
        .bind(column(&moved, |batch| batch.next.log))
        .bind(column(&moved, |batch| int(batch.next.offset)))
        .bind(column(&moved, |batch| batch.next.state.term.map(int)))
        .bind(column(&moved, |batch| int(batch.next.state.n)))
        .execute(&mut *connection)
        .await?;
    }
    let broken = |(batch, outcome): (&PartitionBatch, &Outcome)| {
        let put = batch.expected.is_none() && matches!(outcome, Err(Refused::Broken { .. }));
        put.then(|| i32::from(batch.partition))
    };
    let back: Vec<i32> = batches.iter().zip(outcomes).filter_map(broken).collect();
    if !back.is_empty() {
        sqlx::query("DELETE FROM positions WHERE partition = ANY($1)").bind(back).execute(connection).await?;
    }
    Ok(())
}

/// The position of every partition that has one.
pub(super) async fn positions<'c>(from: impl PgExecutor<'c>) -> sqlx::Result<Vec<(Partition, Position)>> {
    let rows = sqlx::query("SELECT * FROM positions ORDER BY partition").fetch_all(from).await?;
    rows.iter().map(position_of_partition).collect()
}

/// A row of positions.
fn position_of_partition(row: &PgRow) -> sqlx::Result<(Partition, Position)> {
    let position = Position {
        log: row.try_get("log")?,
        offset: unsigned(row, "next_offset")?,
        state: TermState { term: unsigned_or_null(row, "term")?, n: unsigned(row, "n")? },
    };
    Ok((partition(row)?, position))
}

pub(super) fn partition(row: &PgRow) -> sqlx::Result<Partition> {
    let partition: i32 = row.try_get("partition")?;
    Partition::try_from(partition).map_err(|_| unreadable(format!("partition is {partition}")))
}

/// Reads what plans rest on.
async fn read(connection: &mut PgConnection, needs: &Needs) -> sqlx::Result<Known> {
    let mut known = Known::default();
    if !needs.chats.is_empty() {
        let keys: Vec<&ChatKey> = needs.chats.iter().collect();
        let rows = sqlx::query(
            "SELECT c.app, c.chat, c.head_number, c.head_seq, c.active_at, c.members, c.deleted, c.expired_number
             FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, chat)
             JOIN chats c ON c.app = k.app AND c.chat = k.chat",
        )
        .bind(column(&keys, |key| key.app))
        .bind(column(&keys, |key| key.chat))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            known.chats.insert(rows::key(row)?, rows::known_chat(row)?);
        }
    }
    if !needs.members.is_empty() {
        let keys: Vec<_> = needs.members.iter().collect();
        let rows = sqlx::query(
            "SELECT m.app, m.chat, m.user_id AS user FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS k (app, chat, user_id)
             JOIN members m ON m.app = k.app AND m.chat = k.chat AND m.user_id = k.user_id",
        )
        .bind(column(&keys, |(key, _)| key.app))
        .bind(column(&keys, |(key, _)| key.chat))
        .bind(column(&keys, |(_, user)| *user))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            known.members.insert((rows::key(row)?, Columns::get(row, "user")?));
        }
    }
    if !needs.messages.is_empty() {
        let keys: Vec<_> = needs.messages.iter().collect();
        let rows = sqlx::query(
            "SELECT m.app, m.chat, m.number, m.deleted FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS k (app, chat, number)
             JOIN messages m ON m.app = k.app AND m.chat = k.chat AND m.number = k.number",
        )
        .bind(column(&keys, |(key, _)| key.app))
        .bind(column(&keys, |(key, _)| key.chat))
        .bind(column(&keys, |(_, number)| int(*number)))
        .fetch_all(connection)
        .await?;
        for row in &rows {
            known.messages.insert((rows::key(row)?, unsigned(row, "number")?), Columns::get(row, "deleted")?);
        }
    }
    Ok(known)
}
