//! Contacts and blocks.

use async_trait::async_trait;

use super::{Postgres, value::column};
use crate::{
    ids::{UserId, UserKey},
    model::{Page, PageRequest, UserView},
    store::{
        Contact, Pair, Related, Relation, RelationChange, Relations, Result, Ties,
        relations::{CHANGES, FORGOTTEN, contacts_on_page, gather, kept_after},
        rows::{self, Columns, int},
    },
    time::Millis,
};

#[async_trait]
impl Relations for Postgres {
    async fn relate(
        &self,
        user: UserKey,
        relation: Relation,
        peer: UserId,
        on: bool,
        at: Millis,
        most: u64,
    ) -> Result<Related> {
        self.call(|| async move {
            let mut write = self.begin().await?;
            // One after another for each user, so that they are counted whole; and before or after the user is erased.
            let erased: Option<bool> = sqlx::query_scalar(
                "SELECT erased_at IS NOT NULL FROM users WHERE app = $1 AND id = $2 FOR NO KEY UPDATE",
            )
            .bind(user.app)
            .bind(user.user)
            .fetch_optional(&mut *write)
            .await?;
            if erased == Some(true) {
                return Ok(Related::Erased);
            }
            let there: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM relations WHERE app = $1 AND user_id = $2 AND kind = $3 AND peer = $4)",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(relation.word())
            .bind(peer)
            .fetch_one(&mut *write)
            .await?;
            if there == on {
                return Ok(Related::Already);
            }
            if on {
                let count: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM relations WHERE app = $1 AND user_id = $2 AND kind = $3",
                )
                .bind(user.app)
                .bind(user.user)
                .bind(relation.word())
                .fetch_one(&mut *write)
                .await?;
                // Those who were erased make room when there is no other.
                if count >= int(most) {
                    let gone = sqlx::query(
                        "DELETE FROM relations AS r WHERE r.app = $1 AND r.user_id = $2 AND r.kind = $3 AND EXISTS (
                           SELECT 1 FROM users u WHERE u.app = r.app AND u.id = r.peer AND u.erased_at IS NOT NULL)",
                    )
                    .bind(user.app)
                    .bind(user.user)
                    .bind(relation.word())
                    .execute(&mut *write)
                    .await?;
                    if count.unsigned_abs() - gone.rows_affected() >= most {
                        return Ok(Related::Full);
                    }
                }
                sqlx::query(
                    "INSERT INTO relations (app, user_id, kind, peer, chat, at) VALUES ($1, $2, $3, $4, $5, $6)
                     ON CONFLICT DO NOTHING",
                )
                .bind(user.app)
                .bind(user.user)
                .bind(relation.word())
                .bind(peer)
                .bind(Pair::new(user.app, user.user, peer).chat())
                .bind(at)
                .execute(&mut *write)
                .await?;
            } else {
                sqlx::query(
                    "DELETE FROM relations WHERE app = $1 AND user_id = $2 AND kind = $3 AND peer = $4",
                )
                .bind(user.app)
                .bind(user.user)
                .bind(relation.word())
                .bind(peer)
                .execute(&mut *write)
                .await?;
            }
            // Last, so that others wait for the count only as long as the commit takes; and until then, so that numbers are seen in order.
            sqlx::query(
                "WITH next AS (UPDATE relation_change_count SET last = last + 1 RETURNING last),
                 old AS (
                   DELETE FROM relation_changes WHERE at <= $5 AND no IN (
                     SELECT no FROM relation_changes WHERE no < (SELECT max(no) FROM relation_changes)
                     ORDER BY no LIMIT $6 FOR UPDATE SKIP LOCKED))
                 INSERT INTO relation_changes (no, app, user_id, peer, at) SELECT last, $1, $2, $3, $4 FROM next",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(peer)
            .bind(at)
            .bind(kept_after(at))
            .bind(FORGOTTEN)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(Related::Changed)
        })
        .await
    }

    async fn contacts(&self, user: UserKey, page: PageRequest) -> Result<Page<Contact>> {
        let all = self
            .call(|| async move {
                let rows = sqlx::query(
                    "SELECT u.id, u.name, u.avatar, CASE WHEN c.head_number > 0 THEN c.active_at END AS last_message_at
                     FROM relations r
                     JOIN users u ON u.app = r.app AND u.id = r.peer AND u.erased_at IS NULL
                     LEFT JOIN chats c ON c.app = r.app AND c.chat = r.chat
                     WHERE r.app = $1 AND r.user_id = $2 AND r.kind = $3",
                )
                .bind(user.app)
                .bind(user.user)
                .bind(Relation::Contact.word())
                .fetch_all(&self.pool)
                .await?;
                rows.iter().map(rows::contact).collect::<sqlx::Result<Vec<_>>>()
            })
            .await?;
        Ok(contacts_on_page(all, page))
    }

    async fn blocks(&self, user: UserKey, page: PageRequest) -> Result<Page<UserView>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let count: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM relations r
                 JOIN users u ON u.app = r.app AND u.id = r.peer AND u.erased_at IS NULL
                 WHERE r.app = $1 AND r.user_id = $2 AND r.kind = $3",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(Relation::Block.word())
            .fetch_one(&mut *instant)
            .await?;
            let rows = sqlx::query(
                "SELECT u.id, u.name, u.avatar FROM relations r
                 JOIN users u ON u.app = r.app AND u.id = r.peer AND u.erased_at IS NULL
                 WHERE r.app = $1 AND r.user_id = $2 AND r.kind = $3 ORDER BY r.at DESC, r.peer LIMIT $4 OFFSET $5",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(Relation::Block.word())
            .bind(i64::from(page.per_page))
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let views = rows.iter().map(rows::user_view).collect::<sqlx::Result<_>>()?;
            Ok(page.answer(count.unsigned_abs(), views))
        })
        .await
    }

    async fn ties(&self, pairs: &[Pair]) -> Result<Vec<Ties>> {
        let keys: Vec<_> = pairs.iter().flat_map(|pair| pair.rows()).collect();
        let keys = keys.as_slice();
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT r.app, r.user_id AS user, r.kind, r.peer
                 FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::uuid[]) AS k (app, user_id, kind, peer)
                 JOIN relations r ON r.app = k.app AND r.user_id = k.user_id AND r.kind = k.kind AND r.peer = k.peer",
            )
            .bind(column(keys, |(app, ..)| *app))
            .bind(column(keys, |(_, user, ..)| *user))
            .bind(column(keys, |(_, _, kind, _)| *kind))
            .bind(column(keys, |(.., peer)| *peer))
            .fetch_all(&self.pool)
            .await?;
            Ok(gather(rows.iter().map(rows::relation).collect::<sqlx::Result<Vec<_>>>()?))
        })
        .await
    }

    async fn blocked_by(&self, users: &[UserKey]) -> Result<Vec<(UserKey, UserId)>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT r.app, r.user_id AS user, r.peer FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, user_id)
                 JOIN relations r ON r.app = k.app AND r.user_id = k.user_id AND r.kind = $3",
            )
            .bind(column(users, |user| user.app))
            .bind(column(users, |user| user.user))
            .bind(Relation::Block.word())
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(|row| Ok((rows::user_key(row)?, row.get("peer")?))).collect()
        })
        .await
    }

    async fn blockers_of(&self, user: UserKey, among: &[UserId]) -> Result<Vec<(UserId, Millis)>> {
        self.call(|| async move {
            sqlx::query_as(
                "SELECT r.user_id, r.at FROM UNNEST($2::uuid[]) AS k (user_id)
                 JOIN relations r ON r.app = $1 AND r.user_id = k.user_id AND r.kind = $3 AND r.peer = $4",
            )
            .bind(user.app)
            .bind(among)
            .bind(Relation::Block.word())
            .bind(user.user)
            .fetch_all(&self.pool)
            .await
        })
        .await
    }

    async fn relation_changes(&self, after: u64) -> Result<Vec<RelationChange>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT no, app, user_id AS user, peer, at FROM relation_changes WHERE no > $1 ORDER BY no LIMIT $2",
            )
            .bind(int(after))
            .bind(CHANGES)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::relation_change).collect()
        })
        .await
    }
}
