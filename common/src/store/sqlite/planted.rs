//! Bugs on purpose in how batches are applied: see [`crate::planted`].

use std::time::Duration;

use sqlx::SqliteConnection;

use super::{Sqlite, drain::advance, write::Stop};
use crate::{
    planted::Bug,
    store::{PartitionBatch, ReadMark, rows::int},
    wire::record::{Change, What},
};

/// Between the position and its rows: long enough that a kill falls into it now and then.
const BETWEEN: Duration = Duration::from_millis(60);

/// Far from every number that a chat of a test has.
const ELSEWHERE: u64 = 1_000_000;

impl Sqlite {
    /// Commits the positions in a transaction of their own; the batches then find them where they would have put them. Not with what
    /// changes members: whoever waits for that would find it missing at once, and this is about what a kill leaves.
    pub(super) async fn position_first(
        &self,
        batches: &[PartitionBatch],
    ) -> sqlx::Result<Vec<PartitionBatch>> {
        let mut batches = batches.to_vec();
        if self.planted.is(Bug::PositionBeforeRows) {
            let mut write = self.begin().await?;
            for batch in batches.iter_mut().filter(|batch| !batch.changes.iter().any(Change::of_membership)) {
                match advance(&mut write, batch).await {
                    Ok(()) => batch.expected = Some(batch.next),
                    Err(Stop::Refused(_)) => {}
                    Err(Stop::Engine(error)) => return Err(error),
                }
            }
            write.commit().await?;
            tokio::time::sleep(BETWEEN).await;
        }
        Ok(batches)
    }

    /// Whatever the position is, it is the expected one.
    pub(super) async fn forget_the_position(
        &self,
        connection: &mut SqliteConnection,
        batch: &PartitionBatch,
    ) -> sqlx::Result<()> {
        if !self.planted.is(Bug::NoCompareAndSet) {
            return Ok(());
        }
        sqlx::query("DELETE FROM positions WHERE partition = ?")
            .bind(batch.partition)
            .execute(&mut *connection)
            .await?;
        let Some(expected) = batch.expected else { return Ok(()) };
        sqlx::query("INSERT INTO positions (log, offset, term, n, partition) VALUES (?, ?, ?, ?, ?)")
            .bind(expected.log.as_bytes().as_slice())
            .bind(int(expected.offset))
            .bind(expected.state.term.map(int))
            .bind(int(expected.state.n))
            .bind(batch.partition)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Writes every fifth message once more, under another number.
    pub(super) async fn double_a_row(
        &self,
        connection: &mut SqliteConnection,
        batch: &PartitionBatch,
    ) -> sqlx::Result<()> {
        if !self.planted.is(Bug::DoubleARow) {
            return Ok(());
        }
        for change in &batch.changes {
            let Change { app, chat, what: What::Sent { number, .. }, .. } = change else { continue };
            if number % 5 == 0 {
                sqlx::query(
                    "INSERT INTO messages (app, chat, number, id, seq, sender, body, kind, created_at, deleted, fingerprint)
                     SELECT app, chat, number + ?, id, seq, sender, body, kind, created_at, deleted, fingerprint
                     FROM messages WHERE app = ? AND chat = ? AND number = ?",
                )
                .bind(int(ELSEWHERE))
                .bind(*app)
                .bind(*chat)
                .bind(int(*number))
                .execute(&mut *connection)
                .await?;
            }
        }
        Ok(())
    }

    /// Whatever was read before counts no more.
    pub(super) async fn forget_the_marks(
        &self,
        connection: &mut SqliteConnection,
        marks: &[ReadMark],
    ) -> sqlx::Result<()> {
        if !self.planted.is(Bug::ReadGoesBack) {
            return Ok(());
        }
        for mark in marks {
            sqlx::query("UPDATE memberships SET read_number = 0 WHERE app = ? AND user = ? AND chat = ?")
                .bind(mark.chat.app)
                .bind(mark.user)
                .bind(mark.chat.chat)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}
