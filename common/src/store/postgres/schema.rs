//! The tables, and the steps that lead to them.
//!
//! A step is never changed once it was released: a change is another step. `store_version` remembers how many were taken. Each is a transaction of
//! its own, which has its count, so that its locks end with it, and who was interrupted goes on where they stopped.
//!
//! A step that begins with the line [`NO_TRANSACTION`] runs statement by statement, each for itself: `CREATE INDEX CONCURRENTLY` makes nobody wait
//! and cannot be in a transaction. It may have to run again after it was interrupted anywhere, and must come to the same.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::{fault::fault, people};
use crate::{
    ids::AppId,
    store::{StoreError, accounts::token_secret},
};

/// The steps, oldest first.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema/0001_start.sql"),
    include_str!("schema/0002_application_settings.sql"),
    include_str!("schema/0003_reactions_and_mentions.sql"),
    include_str!("schema/0004_people.sql"),
    include_str!("schema/0005_last_seen.sql"),
    include_str!("schema/0006_attachments.sql"),
    include_str!("schema/0007_erasing.sql"),
    include_str!("schema/0008_relations.sql"),
    include_str!("schema/0009_search.sql"),
    include_str!("schema/0010_messages_by_id.sql"),
    include_str!("schema/0011_retention.sql"),
    include_str!("schema/0012_notifications.sql"),
    include_str!("schema/0013_held_by_endpoint.sql"),
    include_str!("schema/0014_drained_marks.sql"),
];

const NO_TRANSACTION: &str = "-- no-transaction\n";

/// The advisory lock under which steps are taken, so that two who start at once take each once: "chatstor" as a number.
const LOCK: i64 = i64::from_be_bytes(*b"chatstor");

/// Between two attempts to take it.
const AGAIN: Duration = Duration::from_millis(100);

/// Takes the steps that the database has not taken yet, and makes the default application if there is none.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), StoreError> {
    lock(connection).await?;
    let mut taken = match version(connection).await? {
        Some(taken) => taken,
        None => {
            begin(connection).await?;
            0
        }
    };
    if taken > STEPS.len() {
        return Err(newer(taken));
    }
    while let Some(step) = STEPS.get(taken) {
        taken += 1;
        if taken == STEPS.len() {
            // Whoever sees the last count finds everything done.
            fill(connection).await?;
        }
        take(connection, step, taken).await?;
    }
    fill(connection).await
}

/// Takes the lock for as long as the connection lives. Who waited for it in a statement would have a snapshot meanwhile, for the end of which a
/// `CREATE INDEX CONCURRENTLY` of who has it would wait: so it is asked for again and again.
async fn lock(connection: &mut PgConnection) -> Result<(), StoreError> {
    let mut ask = async || {
        sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *connection).await
    };
    while !ask().await.map_err(fault)? {
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// Takes one step, the `count`th.
async fn take(connection: &mut PgConnection, step: &'static str, count: usize) -> Result<(), StoreError> {
    let apart = step.strip_prefix(NO_TRANSACTION);
    for statement in apart.into_iter().flat_map(|statements| statements.split_inclusive(';')) {
        sqlx::raw_sql(statement).execute(&mut *connection).await.map_err(fault)?;
    }
    let mut write = connection.begin().await.map_err(fault)?;
    if apart.is_none() {
        sqlx::raw_sql(step).execute(&mut *write).await.map_err(fault)?;
    }
    sqlx::query("UPDATE store_version SET version = $1")
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .execute(&mut *write)
        .await
        .map_err(fault)?;
    write.commit().await.map_err(fault)
}

/// The rows that are there from the beginning, and those that only the program can make.
async fn fill(connection: &mut PgConnection) -> Result<(), StoreError> {
    let mut write = connection.begin().await.map_err(fault)?;
    let (secret, kid) = token_secret();
    sqlx::query(
        "INSERT INTO applications (id, name, token_secret, token_kid) VALUES ($1, 'default', $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(AppId::DEFAULT)
    .bind(secret)
    .bind(kid)
    .execute(&mut *write)
    .await
    .map_err(fault)?;
    people::name_all(&mut write).await.map_err(fault)?;
    write.commit().await.map_err(fault)
}

/// Whether the tables are those of this program.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), StoreError> {
    match version(connection).await? {
        Some(taken) if taken == STEPS.len() => Ok(()),
        Some(taken) if taken > STEPS.len() => Err(newer(taken)),
        Some(taken) => Err(StoreError::Corrupt(format!(
            "its tables are of version {taken}, and this program needs {}: run `storage-writer init`",
            STEPS.len()
        ))),
        None => Err(StoreError::Corrupt(
            "the database has no tables of this program yet: run `storage-writer init`".to_owned(),
        )),
    }
}

fn newer(taken: usize) -> StoreError {
    StoreError::Corrupt(format!(
        "its tables are of version {taken}, made by a newer version of this program, which knows up to {}: run the \
         newer one",
        STEPS.len()
    ))
}

/// How many steps were taken; none in a database that this program has not touched.
async fn version(connection: &mut PgConnection) -> Result<Option<usize>, StoreError> {
    let there: bool = sqlx::query_scalar("SELECT to_regclass('store_version') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(fault)?;
    if !there {
        return Ok(None);
    }
    let taken: i64 = sqlx::query_scalar("SELECT version FROM store_version")
        .fetch_one(&mut *connection)
        .await
        .map_err(fault)?;
    Ok(Some(usize::try_from(taken).unwrap_or(usize::MAX)))
}

/// Makes the table of the version, in a database that has no other.
async fn begin(connection: &mut PgConnection) -> Result<(), StoreError> {
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = current_schema()",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(fault)?;
    if tables != 0 {
        return Err(StoreError::Corrupt(
            "the database has tables of another kind: name an empty one in the URL".to_owned(),
        ));
    }
    sqlx::raw_sql(
        "CREATE TABLE store_version (
             one     boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
             version bigint  NOT NULL
         );
         INSERT INTO store_version (version) VALUES (0)",
    )
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}
