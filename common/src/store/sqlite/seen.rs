//! When users were connected last.

use async_trait::async_trait;

use super::{Sqlite, fault::bounded, value::list};
use crate::{
    ids::UserKey,
    store::{
        Result, Seen,
        rows::{self, Columns},
    },
    time::Millis,
};

#[async_trait]
impl Seen for Sqlite {
    async fn note_seen(&self, seen: &[(UserKey, Millis)]) -> Result<()> {
        if seen.is_empty() {
            return Ok(());
        }
        bounded(async {
            let mut write = self.begin().await?;
            sqlx::query(
                "INSERT INTO last_seen (app, user, at)
                 SELECT unhex(k.value ->> 0), unhex(k.value ->> 1), k.value ->> 2 FROM json_each(?) k
                 WHERE NOT EXISTS (
                   SELECT 1 FROM users u WHERE u.app = unhex(k.value ->> 0) AND u.id = unhex(k.value ->> 1)
                     AND u.erased_at IS NOT NULL)
                 ON CONFLICT (app, user) DO UPDATE SET at = max(at, excluded.at)",
            )
            .bind(list(seen.iter().map(|(user, at)| (user.app, user.user, at.0))))
            .execute(&mut *write)
            .await?;
            write.commit().await
        })
        .await
    }

    async fn last_seen(&self, users: &[UserKey]) -> Result<Vec<(UserKey, Millis)>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT s.app, s.user, s.at FROM json_each(?) k
                 CROSS JOIN last_seen s ON s.app = unhex(k.value ->> 0) AND s.user = unhex(k.value ->> 1)",
            )
            .bind(list(users.iter().map(|user| (user.app, user.user))))
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(|row| Ok((rows::user_key(row)?, row.get("at")?))).collect()
        })
        .await
    }
}
