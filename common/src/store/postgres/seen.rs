//! When users were connected last.

use async_trait::async_trait;

use super::{Postgres, value::column};
use crate::{
    ids::UserKey,
    store::{
        Result, Seen,
        rows::{self, Columns},
    },
    time::Millis,
};

#[async_trait]
impl Seen for Postgres {
    async fn note_seen(&self, seen: &[(UserKey, Millis)]) -> Result<()> {
        if seen.is_empty() {
            return Ok(());
        }
        self.call(|| async move {
            // In the order of the key, so that two nodes that note the same users do not wait for each other in a circle.
            let mut write = self.begin().await?;
            // The users' rows are held, so that whoever erases one comes before, and is seen here, or after, and deletes what is noted here.
            // Erasing changes a name that is a key: this lock waits for that, and for no other change of a user.
            sqlx::query(
                "WITH known AS (
                   SELECT u.app, u.id, u.erased_at FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, user_id)
                   JOIN users u ON u.app = k.app AND u.id = k.user_id ORDER BY u.app, u.id FOR KEY SHARE OF u)
                 INSERT INTO last_seen (app, user_id, at)
                 SELECT k.app, k.user_id, max(k.at) FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS k (app, user_id, at)
                 WHERE (k.app, k.user_id) NOT IN (SELECT app, id FROM known WHERE erased_at IS NOT NULL)
                 GROUP BY k.app, k.user_id ORDER BY k.app, k.user_id
                 ON CONFLICT (app, user_id) DO UPDATE SET at = greatest(last_seen.at, excluded.at)",
            )
            .bind(column(seen, |(user, _)| user.app))
            .bind(column(seen, |(user, _)| user.user))
            .bind(column(seen, |(_, at)| at.0))
            .execute(&mut *write)
            .await?;
            write.commit().await
        })
        .await
    }

    async fn last_seen(&self, users: &[UserKey]) -> Result<Vec<(UserKey, Millis)>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let rows = sqlx::query(
                "SELECT s.app, s.user_id AS user, s.at FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, user_id)
                 JOIN last_seen s ON s.app = k.app AND s.user_id = k.user_id",
            )
            .bind(column(users, |user| user.app))
            .bind(column(users, |user| user.user))
            .fetch_all(&mut *instant)
            .await?;
            rows.iter().map(|row| Ok((rows::user_key(row)?, row.get("at")?))).collect()
        })
        .await
    }
}
