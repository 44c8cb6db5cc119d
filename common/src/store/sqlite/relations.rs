//! Contacts and blocks.

use async_trait::async_trait;

use super::{Sqlite, fault::bounded, value::list};
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
impl Relations for Sqlite {
    async fn relate(
        &self,
        user: UserKey,
        relation: Relation,
        peer: UserId,
        on: bool,
        at: Millis,
        most: u64,
    ) -> Result<Related> {
        bounded(async {
            let mut write = self.begin().await?;
            let erased: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM users WHERE app = ? AND id = ? AND erased_at IS NOT NULL)",
            )
            .bind(user.app)
            .bind(user.user)
            .fetch_one(&mut *write)
            .await?;
            if erased {
                return Ok(Related::Erased);
            }
            let there: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM relations WHERE app = ? AND user = ? AND kind = ? AND peer = ?)",
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
                    "SELECT count(*) FROM relations WHERE app = ? AND user = ? AND kind = ?",
                )
                .bind(user.app)
                .bind(user.user)
                .bind(relation.word())
                .fetch_one(&mut *write)
                .await?;
                // Those who were erased make room when there is no other.
                if count >= int(most) {
                    let gone = sqlx::query(
                        "DELETE FROM relations AS r WHERE r.app = ? AND r.user = ? AND r.kind = ? AND EXISTS (
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
                    "INSERT INTO relations (app, user, kind, peer, chat, at) VALUES (?, ?, ?, ?, ?, ?)",
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
                sqlx::query("DELETE FROM relations WHERE app = ? AND user = ? AND kind = ? AND peer = ?")
                    .bind(user.app)
                    .bind(user.user)
                    .bind(relation.word())
                    .bind(peer)
                    .execute(&mut *write)
                    .await?;
            }
            let no =
                sqlx::query("INSERT INTO relation_changes (app, user, peer, at) VALUES (?, ?, ?, ?)")
                    .bind(user.app)
                    .bind(user.user)
                    .bind(peer)
                    .bind(at)
                    .execute(&mut *write)
                    .await?
                    .last_insert_rowid();
            sqlx::query(
                "DELETE FROM relation_changes WHERE no IN (
                   SELECT no FROM relation_changes WHERE no < ? ORDER BY no LIMIT ?) AND at <= ?",
            )
            // The one before stays: somebody may have seen nothing newer.
            .bind(no - 1)
            .bind(FORGOTTEN)
            .bind(kept_after(at))
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(Related::Changed)
        })
        .await
    }

    async fn contacts(&self, user: UserKey, page: PageRequest) -> Result<Page<Contact>> {
        let all = bounded(async {
            let rows = sqlx::query(
                "SELECT u.id, u.name, u.avatar, CASE WHEN c.head_number > 0 THEN c.active_at END AS last_message_at
                 FROM relations r
                 CROSS JOIN users u ON u.app = r.app AND u.id = r.peer AND u.erased_at IS NULL
                 LEFT JOIN chats c ON c.app = r.app AND c.chat = r.chat
                 WHERE r.app = ? AND r.user = ? AND r.kind = ?",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(Relation::Contact.word())
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::contact).collect::<sqlx::Result<Vec<_>>>()
        })
        .await?;
        Ok(contacts_on_page(all, page))
    }

    async fn blocks(&self, user: UserKey, page: PageRequest) -> Result<Page<UserView>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let count: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM relations r
                 CROSS JOIN users u ON u.app = r.app AND u.id = r.peer AND u.erased_at IS NULL
                 WHERE r.app = ? AND r.user = ? AND r.kind = ?",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(Relation::Block.word())
            .fetch_one(&mut *instant)
            .await?;
            let rows = sqlx::query(
                "SELECT u.id, u.name, u.avatar FROM relations r
                 CROSS JOIN users u ON u.app = r.app AND u.id = r.peer AND u.erased_at IS NULL
                 WHERE r.app = ? AND r.user = ? AND r.kind = ? ORDER BY r.at DESC, r.peer LIMIT ? OFFSET ?",
            )
            .bind(user.app)
            .bind(user.user)
            .bind(Relation::Block.word())
            .bind(page.per_page)
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let views = rows.iter().map(rows::user_view).collect::<sqlx::Result<_>>()?;
            Ok(page.answer(count.unsigned_abs(), views))
        })
        .await
    }

    async fn ties(&self, pairs: &[Pair]) -> Result<Vec<Ties>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT r.app, r.user, r.kind, r.peer FROM json_each(?) k
                 CROSS JOIN relations r ON r.app = unhex(k.value ->> 0) AND r.user = unhex(k.value ->> 1)
                   AND r.kind = k.value ->> 2 AND r.peer = unhex(k.value ->> 3)",
            )
            .bind(list(pairs.iter().flat_map(|pair| pair.rows())))
            .fetch_all(&self.readers)
            .await?;
            Ok(gather(rows.iter().map(rows::relation).collect::<sqlx::Result<Vec<_>>>()?))
        })
        .await
    }

    async fn blocked_by(&self, users: &[UserKey]) -> Result<Vec<(UserKey, UserId)>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT r.app, r.user, r.peer FROM json_each(?) k
                 CROSS JOIN relations r ON r.app = unhex(k.value ->> 0) AND r.user = unhex(k.value ->> 1)
                   AND r.kind = ?",
            )
            .bind(list(users.iter().map(|user| (user.app, user.user))))
            .bind(Relation::Block.word())
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(|row| Ok((rows::user_key(row)?, row.get("peer")?))).collect()
        })
        .await
    }

    async fn blockers_of(&self, user: UserKey, among: &[UserId]) -> Result<Vec<(UserId, Millis)>> {
        bounded(async {
            sqlx::query_as(
                "SELECT r.user, r.at FROM json_each(?) k
                 CROSS JOIN relations r ON r.app = ? AND r.user = unhex(k.value) AND r.kind = ? AND r.peer = ?",
            )
            .bind(list(among))
            .bind(user.app)
            .bind(Relation::Block.word())
            .bind(user.user)
            .fetch_all(&self.readers)
            .await
        })
        .await
    }

    async fn relation_changes(&self, after: u64) -> Result<Vec<RelationChange>> {
        bounded(async {
            let rows = sqlx::query(
                "SELECT no, app, user, peer, at FROM relation_changes WHERE no > ? ORDER BY no LIMIT ?",
            )
            .bind(int(after))
            .bind(CHANGES)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(rows::relation_change).collect()
        })
        .await
    }
}
