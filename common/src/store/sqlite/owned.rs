//! What owners look up, many at a time.

use std::collections::{BTreeSet, HashMap};

use super::{Sqlite, drain::positions, fault::bounded, value::list};
use crate::{
    ids::{AppId, ChatKey, Number, UserId},
    model::Message,
    store::{
        AsOf, ChatRow, Found, Owned, Result, SendKey,
        rows::{self, int},
    },
};
use async_trait::async_trait;

#[async_trait]
impl Owned for Sqlite {
    async fn load(&self, chats: &[ChatKey]) -> Result<AsOf<Vec<ChatRow>>> {
        bounded(async {
            // Each once, or its members would be listed twice.
            let chats: BTreeSet<_> = chats.iter().map(|chat| (chat.app, chat.chat)).collect();
            let keys = list(chats);
            let mut instant = self.readers.begin().await?;
            let positions = positions(&mut *instant).await?;
            let rows = sqlx::query(
                "SELECT c.app, c.chat, c.kind, c.name, c.description, c.retention, c.created_by, c.head_number, c.head_seq, c.deleted,
                        c.request, c.makings, c.expired_number
                 FROM json_each(?) k
                 CROSS JOIN chats c ON c.app = unhex(k.value ->> 0) AND c.chat = unhex(k.value ->> 1)",
            )
            .bind(&keys)
            .fetch_all(&mut *instant)
            .await?;
            let mut loaded = HashMap::with_capacity(rows.len());
            for row in &rows {
                let chat = rows::chat(row)?;
                loaded.insert(chat.key, chat);
            }
            let rows = sqlx::query(
                "SELECT m.app, m.chat, m.user, m.role, m.joined_seq
                 FROM json_each(?) k
                 CROSS JOIN members m ON m.app = unhex(k.value ->> 0) AND m.chat = unhex(k.value ->> 1)
                 ORDER BY k.key, m.joined_seq, m.place",
            )
            .bind(&keys)
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
        bounded(async {
            let keys = list(keys.iter().map(|key| (key.chat.app, key.chat.chat, key.from, &key.client_id)));
            let mut instant = self.readers.begin().await?;
            let positions = positions(&mut *instant).await?;
            // With min() the other columns are those of its row (<https://www.sqlite.org/lang_select.html#bareagg>). The index is named: without
            // statistics the planner holds the key's two columns for as good as the index's four, and would read the whole chat.
            let rows = sqlx::query(
                "SELECT m.app, m.chat, m.sender, m.client_id, m.id, min(m.number) AS number, m.seq, m.created_at,
                        m.fingerprint
                 FROM json_each(?) k
                 CROSS JOIN messages m INDEXED BY messages_by_client_id
                   ON m.app = unhex(k.value ->> 0) AND m.chat = unhex(k.value ->> 1) AND m.sender = unhex(k.value ->> 2)
                   AND m.client_id = k.value ->> 3 AND m.client_id IS NOT NULL
                 GROUP BY k.key",
            )
            .bind(keys)
            .fetch_all(&mut *instant)
            .await?;
            let answer = rows.iter().map(rows::found).collect::<sqlx::Result<_>>()?;
            Ok(AsOf::new(positions, answer))
        })
        .await
    }

    async fn message(&self, chat: ChatKey, number: Number) -> Result<AsOf<Option<Message>>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let positions = positions(&mut *instant).await?;
            let row = sqlx::query("SELECT * FROM messages WHERE app = ? AND chat = ? AND number = ?")
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
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let positions = positions(&mut *instant).await?;
            let row = sqlx::query(
                "SELECT m.*, EXISTS (SELECT 1 FROM reactions r WHERE r.app = m.app AND r.chat = m.chat
                   AND r.number = m.number AND r.emoji = ? AND r.user = ?) AS reacts
                 FROM messages m WHERE m.app = ? AND m.chat = ? AND m.number = ?",
            )
            .bind(emoji)
            .bind(user)
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(number))
            .fetch_optional(&mut *instant)
            .await?;
            let answer = row.as_ref().map(rows::message_and_reaction).transpose()?;
            Ok(AsOf::new(positions, answer))
        })
        .await
    }

    async fn with_chats(&self, app: AppId, users: &[UserId], most: u64) -> Result<Vec<UserId>> {
        bounded(async {
            sqlx::query_scalar(
                "SELECT unhex(k.value) FROM json_each(?) k
                 WHERE EXISTS (SELECT 1 FROM memberships s WHERE s.app = ? AND s.user = unhex(k.value) LIMIT 1 OFFSET ?)",
            )
            .bind(list(users))
            .bind(app)
            .bind(int(most.saturating_sub(1)))
            .fetch_all(&self.readers)
            .await
        })
        .await
    }
}
