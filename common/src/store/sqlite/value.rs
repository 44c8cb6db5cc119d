//! How our types stand in columns.

use sqlx::{Database, Decode, Encode, Sqlite, Type, encode::IsNull, error::BoxDynError};

use crate::{
    ids::{AppId, AttachmentId, ChatId, ChatKey, EndpointId, MessageId, ObjectId, SessionId, UserId},
    store::notifications::DeliveryId,
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

id_column!(AppId, UserId, ChatId, MessageId, SessionId, AttachmentId, ObjectId, EndpointId, DeliveryId);

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
