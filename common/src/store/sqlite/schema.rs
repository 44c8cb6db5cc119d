//! The tables, and the steps that lead to them.
//!
//! A step is never changed once it was released: a change is another step. A file remembers in its `user_version` how many it has taken.

use sqlx::SqliteConnection;

use crate::{
    ids::AppId,
    store::{
        StoreError,
        accounts::token_secret,
        sqlite::{fault::fault, people},
    },
};

/// The steps, oldest first.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema/0001_start.sql"),
    include_str!("schema/0002_resume.sql"),
    include_str!("schema/0003_group_requests.sql"),
    include_str!("schema/0004_application_settings.sql"),
    include_str!("schema/0005_reactions_and_mentions.sql"),
    include_str!("schema/0006_people.sql"),
    include_str!("schema/0007_last_seen.sql"),
    include_str!("schema/0008_attachments.sql"),
    include_str!("schema/0009_erasing.sql"),
    include_str!("schema/0010_relations.sql"),
    include_str!("schema/0011_search.sql"),
    include_str!("schema/0012_messages_by_id.sql"),
    include_str!("schema/0013_retention.sql"),
    include_str!("schema/0014_notifications.sql"),
    include_str!("schema/0015_held_by_endpoint.sql"),
    include_str!("schema/0016_drained_marks.sql"),
];

/// Takes the steps that the file has not taken yet, in the caller's transaction, and makes the default application if there is none.
pub(super) async fn prepare(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let taken: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(fault)?;
    let taken = usize::try_from(taken).unwrap_or(usize::MAX);
    if taken > STEPS.len() {
        return Err(StoreError::Corrupt(format!(
            "it was written by a later version of this program (format {taken}, and this one knows {})",
            STEPS.len()
        )));
    }
    if taken == 0 {
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut *connection)
            .await
            .map_err(fault)?;
        if tables != 0 {
            return Err(StoreError::Corrupt("it is a database of another kind".to_owned()));
        }
    }
    for step in STEPS.iter().skip(taken) {
        sqlx::raw_sql(*step).execute(&mut *connection).await.map_err(fault)?;
    }
    if taken < STEPS.len() {
        // A PRAGMA takes no parameters; the count of a constant list is no input.
        let mark = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", STEPS.len()));
        sqlx::query(mark).execute(&mut *connection).await.map_err(fault)?;
    }
    default_application(connection).await?;
    people::name_all(connection).await.map_err(fault)
}

async fn default_application(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let (secret, kid) = token_secret();
    sqlx::query(
        "INSERT INTO applications (id, name, token_secret, token_kid) VALUES (?, 'default', ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(AppId::DEFAULT)
    .bind(secret)
    .bind(kid)
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}
