//! What owners look up, many at a time.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    Sqlite,
    fault::bounded,
    value::{client_id, int, key, kind, list, message, role, unreadable, unsigned},
};
use crate::{
    ids::{ChatKey, Number},
    model::{Head, Message},
    store::{ChatRow, Found, MemberRow, Owned, Result, SendKey},
};

#[async_trait]
impl Owned for Sqlite {
    async fn load(&self, chats: &[ChatKey]) -> Result<Vec<ChatRow>> {
        bounded(async {
            // Each once, or its members would be listed twice.
            let chats: BTreeSet<_> = chats.iter().map(|chat| (chat.app, chat.chat)).collect();
            let keys = list(chats);
            let mut instant = self.readers.begin().await?;
            let rows = sqlx::query(
                "SELECT c.app, c.chat, c.kind, c.name, c.description, c.created_by, c.head_number, c.head_seq, c.deleted,
                        c.request, c.makings
                 FROM json_each(?) k
                 CROSS JOIN chats c ON c.app = unhex(k.value ->> 0) AND c.chat = unhex(k.value ->> 1)",
            )
            .bind(&keys)
            .fetch_all(&mut *instant)
            .await?;
            let mut loaded = HashMap::with_capacity(rows.len());
            for row in &rows {
                let chat = chat(row)?;
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
                if let Some(chat) = loaded.get_mut(&key(row)?) {
                    chat.members.push(member(row)?);
                }
            }
            Ok(loaded.into_values().collect())
        })
        .await
    }

    async fn find_sent(&self, keys: &[SendKey]) -> Result<Vec<Found>> {
        bounded(async {
            let keys = list(keys.iter().map(|key| (key.chat.app, key.chat.chat, key.from, &key.client_id)));
            // With min() the other columns are those of its row (<https://www.sqlite.org/lang_select.html#bareagg>).
            let rows = sqlx::query(
                "SELECT m.app, m.chat, m.sender, m.client_id, m.id, min(m.number) AS number, m.seq, m.created_at,
                        m.fingerprint
                 FROM json_each(?) k
                 CROSS JOIN messages m ON m.app = unhex(k.value ->> 0) AND m.chat = unhex(k.value ->> 1)
                   AND m.sender = unhex(k.value ->> 2) AND m.client_id = k.value ->> 3
                 GROUP BY k.key",
            )
            .bind(keys)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(found).collect()
        })
        .await
    }

    async fn message(&self, chat: ChatKey, number: Number) -> Result<Option<Message>> {
        bounded(async {
            let row = sqlx::query("SELECT * FROM messages WHERE app = ? AND chat = ? AND number = ?")
                .bind(chat.app)
                .bind(chat.chat)
                .bind(int(number))
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(message).transpose()
        })
        .await
    }
}

fn chat(row: &SqliteRow) -> sqlx::Result<ChatRow> {
    Ok(ChatRow {
        key: key(row)?,
        kind: kind(row)?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        created_by: row.try_get("created_by")?,
        head: Head { number: unsigned(row, "head_number")?, seq: unsigned(row, "head_seq")? },
        deleted: row.try_get("deleted")?,
        members: Vec::new(),
        request: row.try_get::<Option<i64>, _>("request")?.map(i64::cast_unsigned),
        makings: unsigned(row, "makings")?,
    })
}

fn member(row: &SqliteRow) -> sqlx::Result<MemberRow> {
    Ok(MemberRow { user: row.try_get("user")?, role: role(row)?, joined_seq: unsigned(row, "joined_seq")? })
}

fn found(row: &SqliteRow) -> sqlx::Result<Found> {
    let client_id = client_id(row)?.ok_or_else(|| unreadable("a message was found by no name".to_owned()))?;
    Ok(Found {
        key: SendKey { chat: key(row)?, from: row.try_get("sender")?, client_id },
        id: row.try_get("id")?,
        number: unsigned(row, "number")?,
        seq: unsigned(row, "seq")?,
        at: row.try_get("created_at")?,
        fingerprint: row.try_get::<i64, _>("fingerprint")?.cast_unsigned(),
    })
}
