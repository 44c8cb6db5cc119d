//! Read marks.

use async_trait::async_trait;

use super::{Postgres, value::column, write};
use crate::store::{
    Marked, ReadMark, Reads, Result, plan,
    rows::{self, unsigned},
};

#[async_trait]
impl Reads for Postgres {
    async fn mark_read(&self, marks: &[ReadMark]) -> Result<Vec<Option<Marked>>> {
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        self.call(|| async move {
            let mut write = self.begin().await?;
            // Locked in the order in which the writer moves marks too.
            let rows = sqlx::query(
                "SELECT k.place - 1 AS place, c.head_number, c.head_seq, greatest(s.joined_number, s.read_number) AS at
                 FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS k (app, user_id, chat, place)
                 JOIN memberships s ON s.app = k.app AND s.user_id = k.user_id AND s.chat = k.chat
                 JOIN chats c ON c.app = k.app AND c.chat = k.chat
                 ORDER BY s.app, s.chat, s.user_id FOR UPDATE OF s",
            )
            .bind(column(marks, |mark| mark.chat.app))
            .bind(column(marks, |mark| mark.user))
            .bind(column(marks, |mark| mark.chat.chat))
            .fetch_all(&mut *write)
            .await?;
            let mut answers = vec![None; marks.len()];
            let mut moves = Vec::new();
            for row in &rows {
                let place = usize::try_from(unsigned(row, "place")?).unwrap_or(usize::MAX);
                let (Some(mark), Some(answer)) = (marks.get(place), answers.get_mut(place)) else { continue };
                let marked = mark.from(unsigned(row, "at")?, rows::head(row)?.number);
                if marked.moved {
                    moves.push(plan::ReadMark { key: mark.chat, user: mark.user, number: marked.number });
                }
                *answer = Some(marked);
            }
            write::read_marks(&mut write, &moves).await?;
            write.commit().await?;
            Ok(answers)
        })
        .await
    }
}
