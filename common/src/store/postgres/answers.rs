//! A plan's reactions and mentions.

use sqlx::PgConnection;

use super::value::column;
use crate::{
    ids::{ChatKey, Number},
    store::{
        plan::{Answered, Mentioned, Plan, Reacted},
        rows::{int, json},
    },
};

/// Writes them. The messages they are about are there.
pub(super) async fn write(connection: &mut PgConnection, plan: &Plan<'_>) -> sqlx::Result<()> {
    cleared(connection, &plan.cleared).await?;
    reactions(connection, &plan.reacted).await?;
    answers(connection, &plan.answered).await?;
    mentions(connection, &plan.mentioned).await?;
    mentions_of_all(connection, &plan.mentioned_all).await
}

/// Takes from deleted messages what they were answered with and whom they mentioned.
async fn cleared(connection: &mut PgConnection, messages: &[(ChatKey, Number)]) -> sqlx::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    for statement in [
        "UPDATE messages m SET reactions = NULL, mentions = NULL, mention_all = false
         FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS w (app, chat, number)
         WHERE m.app = w.app AND m.chat = w.chat AND m.number = w.number",
        "DELETE FROM reactions m USING UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS w (app, chat, number)
         WHERE m.app = w.app AND m.chat = w.chat AND m.number = w.number",
        "DELETE FROM mentions m USING UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS w (app, chat, number)
         WHERE m.app = w.app AND m.chat = w.chat AND m.number = w.number",
        "DELETE FROM mentions_of_all m USING UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS w (app, chat, number)
         WHERE m.app = w.app AND m.chat = w.chat AND m.number = w.number",
    ] {
        sqlx::query(statement)
            .bind(column(messages, |(key, _)| key.app))
            .bind(column(messages, |(key, _)| key.chat))
            .bind(column(messages, |(_, number)| int(*number)))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Who answers which message with what, and who does no more.
async fn reactions(connection: &mut PgConnection, reacted: &[Reacted<'_>]) -> sqlx::Result<()> {
    let on = |on: bool| reacted.iter().filter(|reacted| reacted.on == on).collect::<Vec<_>>();
    for (reacted, statement) in [
        (
            on(true),
            "INSERT INTO reactions (app, chat, number, emoji, user_id)
             SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::uuid[])
             ON CONFLICT DO NOTHING",
        ),
        (
            on(false),
            "DELETE FROM reactions r
             USING UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::uuid[])
               AS w (app, chat, number, emoji, user_id)
             WHERE r.app = w.app AND r.chat = w.chat AND r.number = w.number AND r.emoji = w.emoji
               AND r.user_id = w.user_id",
        ),
    ] {
        if reacted.is_empty() {
            continue;
        }
        sqlx::query(statement)
            .bind(column(&reacted, |reacted| reacted.key.app))
            .bind(column(&reacted, |reacted| reacted.key.chat))
            .bind(column(&reacted, |reacted| int(reacted.number)))
            .bind(column(&reacted, |reacted| reacted.emoji))
            .bind(column(&reacted, |reacted| reacted.user))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// What messages are answered with, in all.
async fn answers(connection: &mut PgConnection, answered: &[Answered<'_>]) -> sqlx::Result<()> {
    if answered.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE messages m SET reactions = w.reactions
         FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::text[]) AS w (app, chat, number, reactions)
         WHERE m.app = w.app AND m.chat = w.chat AND m.number = w.number",
    )
    .bind(column(answered, |answered| answered.key.app))
    .bind(column(answered, |answered| answered.key.chat))
    .bind(column(answered, |answered| int(answered.number)))
    .bind(column(answered, |answered| json(answered.reactions)))
    .execute(connection)
    .await?;
    Ok(())
}

async fn mentions(connection: &mut PgConnection, mentioned: &[Mentioned]) -> sqlx::Result<()> {
    if mentioned.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO mentions (app, user_id, chat, number)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[])",
    )
    .bind(column(mentioned, |mentioned| mentioned.key.app))
    .bind(column(mentioned, |mentioned| mentioned.user))
    .bind(column(mentioned, |mentioned| mentioned.key.chat))
    .bind(column(mentioned, |mentioned| int(mentioned.number)))
    .execute(connection)
    .await?;
    Ok(())
}

async fn mentions_of_all(connection: &mut PgConnection, messages: &[(ChatKey, Number)]) -> sqlx::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO mentions_of_all (app, chat, number)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[])",
    )
    .bind(column(messages, |(key, _)| key.app))
    .bind(column(messages, |(key, _)| key.chat))
    .bind(column(messages, |(_, number)| int(*number)))
    .execute(connection)
    .await?;
    Ok(())
}
