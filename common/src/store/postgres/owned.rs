//! What owners look up, many at a time.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;

use super::{Postgres, drain::positions, value::column};
use crate::{
    ids::{AppId, ChatKey, Number, UserId},
    model::Message,
    store::{
        AsOf, ChatRow, Found, Owned, Result, SendKey,
        rows::{self, int},
    },
};

#[async_trait]
impl Owned for Postgres {
    async fn load(&self, chats: &[ChatKey]) -> Result<AsOf<Vec<ChatRow>>> {
        // Each once, or its members would be listed twice.
        let chats: Vec<ChatKey> = chats.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let chats = chats.as_slice();
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let positions = positions(&mut *instant).await?;
            let rows = sqlx::query(
                "SELECT c.app, c.chat, c.kind, c.name, c.description, c.retention, c.created_by, c.head_number, c.head_seq, c.deleted,
                        c.request, c.makings, c.expired_number
                 FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, chat)
                 JOIN chats c ON c.app = k.app AND c.chat = k.chat",
            )
            .bind(column(chats, |chat| chat.app))
            .bind(column(chats, |chat| chat.chat))
            .fetch_all(&mut *instant)
            .await?;
            let mut loaded = HashMap::with_capacity(rows.len());
            for row in &rows {
                let chat = rows::chat(row)?;
                loaded.insert(chat.key, chat);
            }
            let rows = sqlx::query(
                "SELECT m.app, m.chat, m.user_id AS user, m.role, m.joined_seq
                 FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, chat)
                 CROSS JOIN LATERAL (
                   SELECT * FROM members m WHERE m.app = k.app AND m.chat = k.chat ORDER BY m.joined_seq, m.place
                   OFFSET 0) m",
            )
            .bind(column(chats, |chat| chat.app))
            .bind(column(chats, |chat| chat.chat))
            .fetch_all(&mut *instant)
            .await?;
            for row in &rows {
                if let Some(chat) = loaded.get_mut(&rows::key(row)?) {
                    chat.members.push(rows::member(row)?);
                }
            }
            Ok(AsOf::new(positions, loaded.into_values().collect()))
        })
        .await
    }

    async fn find_sent(&self, keys: &[SendKey]) -> Result<AsOf<Vec<Found>>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let positions = positions(&mut *instant).await?;
            let rows = sqlx::query(
                "SELECT m.* FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) AS k (app, chat, sender, client_id)
                 CROSS JOIN LATERAL (
                   SELECT app, chat, sender, client_id, id, number, seq, created_at, fingerprint FROM messages m
                   WHERE m.app = k.app AND m.chat = k.chat AND m.sender = k.sender AND m.client_id = k.client_id
                   ORDER BY m.number LIMIT 1) m",
            )
            .bind(column(keys, |key| key.chat.app))
            .bind(column(keys, |key| key.chat.chat))
            .bind(column(keys, |key| key.from))
            .bind(column(keys, |key| key.client_id.as_str()))
            .fetch_all(&mut *instant)
            .await?;
            let answer = rows.iter().map(rows::found).collect::<sqlx::Result<_>>()?;
            Ok(AsOf::new(positions, answer))
        })
        .await
    }

    async fn message(&self, chat: ChatKey, number: Number) -> Result<AsOf<Option<Message>>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let positions = positions(&mut *instant).await?;
            let row = sqlx::query("SELECT * FROM messages WHERE app = $1 AND chat = $2 AND number = $3")
                .bind(chat.app)
                .bind(chat.chat)
                .bind(int(number))
                .fetch_optional(&mut *instant)
                .await?;
            Ok(AsOf::new(positions, row.as_ref().map(rows::message).transpose()?))
        })
        .await
    }

    async fn reaction(
        &self,
        chat: ChatKey,
        number: Number,
        user: UserId,
        emoji: &str,
    ) -> Result<AsOf<Option<(Message, bool)>>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let positions = positions(&mut *instant).await?;
            let row = sqlx::query(
                "SELECT m.*, EXISTS (SELECT 1 FROM reactions r WHERE r.app = m.app AND r.chat = m.chat
                   AND r.number = m.number AND r.emoji = $4 AND r.user_id = $5) AS reacts
                 FROM messages m WHERE m.app = $1 AND m.chat = $2 AND m.number = $3",
            )
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(number))
            .bind(emoji)
            .bind(user)
            .fetch_optional(&mut *instant)
            .await?;
            let answer = row.as_ref().map(rows::message_and_reaction).transpose()?;
            Ok(AsOf::new(positions, answer))
        })
        .await
    }

    async fn with_chats(&self, app: AppId, users: &[UserId], most: u64) -> Result<Vec<UserId>> {
        self.call(|| async move {
            sqlx::query_scalar(
                "SELECT k.user_id FROM UNNEST($2::uuid[]) AS k (user_id)
                 CROSS JOIN LATERAL (
                   SELECT 1 FROM memberships s WHERE s.app = $1 AND s.user_id = k.user_id OFFSET $3 LIMIT 1) s",
            )
            .bind(app)
            .bind(users)
            .bind(int(most.saturating_sub(1)))
            .fetch_all(&self.pool)
            .await
        })
        .await
    }
}
