//! The tables, and the steps that lead to them.
//!
//! A step is never changed once it was released: a change is another step. `store_version` remembers how many were taken.

use sqlx::{Connection, PgConnection};

use super::{fault::fault, people};
use crate::{
    ids::AppId,
    store::{StoreError, accounts::token_secret},
};

/// The steps, oldest first.
const STEPS: &[&str] = &[
    include_str!("schema/0001_start.sql"),
    include_str!("schema/0002_application_settings.sql"),
    include_str!("schema/0003_reactions_and_mentions.sql"),
    include_str!("schema/0004_people.sql"),
];

/// The advisory lock under which steps are taken, so that two who start at once take each once: "chatstor" as a number.
const LOCK: i64 = i64::from_be_bytes(*b"chatstor");

/// Takes the steps that the database has not taken yet, all or none, and makes the default application if there is none.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), StoreError> {
    let mut write = connection.begin().await.map_err(fault)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *write).await.map_err(fault)?;
    let taken = match version(&mut write).await? {
        Some(taken) => taken,
        None => {
            begin(&mut write).await?;
            0
        }
    };
    if taken > STEPS.len() {
        return Err(newer(taken));
    }
    for step in STEPS.iter().skip(taken) {
        sqlx::raw_sql(*step).execute(&mut *write).await.map_err(fault)?;
    }
    let version = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    sqlx::query("UPDATE store_version SET version = $1")
        .bind(version)
        .execute(&mut *write)
        .await
        .map_err(fault)?;
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
