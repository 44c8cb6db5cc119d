//! How our types stand in columns, and how rows are read back.

use sqlx::{
    Database, Decode, Encode, Row, Sqlite, Type, encode::IsNull, error::BoxDynError, sqlite::SqliteRow,
};

use crate::{
    ids::{AppId, ChatId, ChatKey, ClientId, MessageId, SessionId, UserId},
    model::{ChatKind, Message, MessageKind, Role},
    store::words,
    time::Millis,
};

type Buffer = <Sqlite as Database>::ArgumentBuffer;
type Info = <Sqlite as Database>::TypeInfo;
type Raw<'r> = <Sqlite as Database>::ValueRef<'r>;

macro_rules! id_column {
    ($($id:ty),*) => {$(
        impl Type<Sqlite> for $id {
            fn type_info() -> Info {
                <[u8] as Type<Sqlite>>::type_info()
            }
        }

        impl Encode<'_, Sqlite> for $id {
            fn encode_by_ref(&self, buffer: &mut Buffer) -> Result<IsNull, BoxDynError> {
                <Vec<u8> as Encode<'_, Sqlite>>::encode(self.as_bytes().to_vec(), buffer)
            }
        }

        impl Decode<'_, Sqlite> for $id {
            fn decode(value: Raw<'_>) -> Result<Self, BoxDynError> {
                Ok(Self::from_slice(<&[u8] as Decode<'_, Sqlite>>::decode(value)?)?)
            }
        }
    )*};
}

id_column!(AppId, UserId, ChatId, MessageId, SessionId);

impl Type<Sqlite> for Millis {
    fn type_info() -> Info {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(info: &Info) -> bool {
        <i64 as Type<Sqlite>>::compatible(info)
    }
}

impl Encode<'_, Sqlite> for Millis {
    fn encode_by_ref(&self, buffer: &mut Buffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<'_, Sqlite>>::encode(self.0, buffer)
    }
}

impl Decode<'_, Sqlite> for Millis {
    fn decode(value: Raw<'_>) -> Result<Self, BoxDynError> {
        <i64 as Decode<'_, Sqlite>>::decode(value).map(Self)
    }
}

/// Numbers, seqs and offsets: what is past the largest column is the largest column, which no chat and no log reaches.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A column that holds no negative number.
pub(super) fn unsigned(row: &SqliteRow, column: &str) -> sqlx::Result<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| unreadable(format!("{column} is {value}")))
}

pub(super) fn unsigned_or_null(row: &SqliteRow, column: &str) -> sqlx::Result<Option<u64>> {
    row.try_get::<Option<i64>, _>(column)?
        .map(|value| u64::try_from(value).map_err(|_| unreadable(format!("{column} is {value}"))))
        .transpose()
}

pub(super) fn unreadable(what: String) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

fn word<T>(row: &SqliteRow, column: &str, read: impl Fn(&str) -> Option<T>) -> sqlx::Result<T> {
    let word: &str = row.try_get(column)?;
    read(word).ok_or_else(|| unreadable(format!("{column} is {word:?}")))
}

pub(super) fn kind(row: &SqliteRow) -> sqlx::Result<ChatKind> {
    word(row, "kind", words::kind)
}

pub(super) fn role(row: &SqliteRow) -> sqlx::Result<Role> {
    word(row, "role", words::role)
}

pub(super) fn key(row: &SqliteRow) -> sqlx::Result<ChatKey> {
    Ok(ChatKey { app: row.try_get("app")?, chat: row.try_get("chat")? })
}

pub(super) fn client_id(row: &SqliteRow) -> sqlx::Result<Option<ClientId>> {
    row.try_get::<Option<&str>, _>("client_id")?
        .map(|name| ClientId::new(name).map_err(|error| unreadable(error.to_string())))
        .transpose()
}

/// The row of `messages`, read with all its columns under their own names.
pub(super) fn message(row: &SqliteRow) -> sqlx::Result<Message> {
    let chat = row.try_get("chat")?;
    let attachments: Option<&str> = row.try_get("attachments")?;
    Ok(Message {
        id: row.try_get("id")?,
        chat,
        room_id: chat,
        number: unsigned(row, "number")?,
        from: row.try_get("sender")?,
        body: row.try_get("body")?,
        kind: word(row, "kind", MessageKind::from_word)?,
        created_at: row.try_get("created_at")?,
        edited_at: row.try_get("edited_at")?,
        deleted: row.try_get("deleted")?,
        reply_to: unsigned_or_null(row, "reply_to")?,
        attachments: match attachments {
            Some(json) => serde_json::from_str(json).map_err(|error| unreadable(error.to_string()))?,
            None => Vec::new(),
        },
        client_id: client_id(row)?,
    })
}

/// Attachments as their column has them.
pub(super) fn attachments(list: &[String]) -> Option<String> {
    // A list of texts always has a JSON form.
    if list.is_empty() { None } else { serde_json::to_string(list).ok() }
}

/// A list of keys as one parameter: a JSON array for `json_each`, so that one statement serves any number of them.
pub(super) fn list<T: serde::Serialize>(keys: impl IntoIterator<Item = T>) -> String {
    let keys: Vec<T> = keys.into_iter().collect();
    serde_json::to_string(&keys).unwrap_or_else(|_| "[]".to_owned())
}

/// The values of one statement with many rows.
#[derive(Default)]
pub(super) struct Values {
    arguments: sqlx::sqlite::SqliteArguments,
    failed: Option<BoxDynError>,
}

impl Values {
    pub(super) fn put<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) {
        if let Err(error) = sqlx::Arguments::add(&mut self.arguments, value) {
            self.failed.get_or_insert(error);
        }
    }

    pub(super) fn put_key(&mut self, key: ChatKey) {
        self.put(key.app);
        self.put(key.chat);
    }

    pub(super) fn done(self) -> Result<sqlx::sqlite::SqliteArguments, BoxDynError> {
        self.failed.map_or(Ok(self.arguments), Err)
    }
}
