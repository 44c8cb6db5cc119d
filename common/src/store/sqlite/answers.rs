//! A plan's reactions and mentions.

use sqlx::SqliteConnection;

use crate::{
    ids::{ChatKey, Number},
    store::{
        plan::{Answered, Mentioned, Plan, Reacted},
        rows::{int, json},
    },
};

/// Writes them. The messages they are about are there.
pub(super) async fn write(connection: &mut SqliteConnection, plan: &Plan<'_>) -> sqlx::Result<()> {
    for (chat, number) in &plan.cleared {
        cleared(connection, *chat, *number).await?;
    }
    for reacted in &plan.reacted {
        reaction(connection, reacted).await?;
    }
    for answered in &plan.answered {
        answers(connection, answered).await?;
    }
    for named in &plan.mentioned {
        mentioned(connection, named).await?;
    }
    for (chat, number) in &plan.mentioned_all {
        mention_all(connection, *chat, *number).await?;
    }
    Ok(())
}

/// Takes from a deleted message what it was answered with and whom it mentioned.
async fn cleared(connection: &mut SqliteConnection, chat: ChatKey, number: Number) -> sqlx::Result<()> {
    for statement in [
        "UPDATE messages SET reactions = NULL, mentions = NULL, mention_all = 0
         WHERE app = ? AND chat = ? AND number = ?",
        "DELETE FROM reactions WHERE app = ? AND chat = ? AND number = ?",
        "DELETE FROM mentions WHERE app = ? AND chat = ? AND number = ?",
        "DELETE FROM mentions_of_all WHERE app = ? AND chat = ? AND number = ?",
    ] {
        sqlx::query(statement)
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(number))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn reaction(connection: &mut SqliteConnection, reacted: &Reacted<'_>) -> sqlx::Result<()> {
    let statement = if reacted.on {
        "INSERT INTO reactions (app, chat, number, emoji, user) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM reactions WHERE app = ? AND chat = ? AND number = ? AND emoji = ? AND user = ?"
    };
    sqlx::query(statement)
        .bind(reacted.key.app)
        .bind(reacted.key.chat)
        .bind(int(reacted.number))
        .bind(reacted.emoji)
        .bind(reacted.user)
        .execute(connection)
        .await?;
    Ok(())
}

async fn answers(connection: &mut SqliteConnection, answered: &Answered<'_>) -> sqlx::Result<()> {
    sqlx::query("UPDATE messages SET reactions = ? WHERE app = ? AND chat = ? AND number = ?")
        .bind(json(answered.reactions))
        .bind(answered.key.app)
        .bind(answered.key.chat)
        .bind(int(answered.number))
        .execute(connection)
        .await?;
    Ok(())
}

async fn mentioned(connection: &mut SqliteConnection, mentioned: &Mentioned) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO mentions (app, user, chat, number) VALUES (?, ?, ?, ?)")
        .bind(mentioned.key.app)
        .bind(mentioned.user)
        .bind(mentioned.key.chat)
        .bind(int(mentioned.number))
        .execute(connection)
        .await?;
    Ok(())
}

async fn mention_all(connection: &mut SqliteConnection, chat: ChatKey, number: Number) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO mentions_of_all (app, chat, number) VALUES (?, ?, ?)")
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(number))
        .execute(connection)
        .await?;
    Ok(())
}
