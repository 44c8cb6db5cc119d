//! Read marks.

use async_trait::async_trait;

use super::{Sqlite, fault::bounded, value::list, write};
use crate::store::{
    Marked, ReadMark, Reads, Result, plan,
    rows::{self, unsigned},
};

#[async_trait]
impl Reads for Sqlite {
    async fn mark_read(&self, marks: &[ReadMark]) -> Result<Vec<Option<Marked>>> {
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        bounded(async {
            let mut write = self.begin().await?;
            #[cfg(feature = "planted")]
            self.forget_the_marks(&mut write, marks).await?;
            let rows = sqlx::query(
                "SELECT k.key AS place, c.head_number, c.head_seq, max(s.joined_number, s.read_number) AS at
                 FROM json_each(?) k
                 CROSS JOIN memberships s ON s.app = unhex(k.value ->> 0) AND s.user = unhex(k.value ->> 1)
                   AND s.chat = unhex(k.value ->> 2)
                 CROSS JOIN chats c ON c.app = s.app AND c.chat = s.chat",
            )
            .bind(list(marks.iter().map(|mark| (mark.chat.app, mark.user, mark.chat.chat))))
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
