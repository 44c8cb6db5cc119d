//! How our types stand in columns: ids as `uuid`, times as `bigint`.

use sqlx::{
    Database, Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgHasArrayType, PgTypeInfo},
};
use uuid::Uuid;

use crate::{
    ids::{AppId, AttachmentId, ChatId, EndpointId, MessageId, ObjectId, SessionId, UserId},
    store::notifications::DeliveryId,
    time::Millis,
};

type Buffer = <Postgres as Database>::ArgumentBuffer;
type Raw<'r> = <Postgres as Database>::ValueRef<'r>;

macro_rules! column {
    ($($name:ident as $base:ty),*) => {$(
        impl Type<Postgres> for $name {
            fn type_info() -> PgTypeInfo {
                <$base as Type<Postgres>>::type_info()
            }
        }

        impl PgHasArrayType for $name {
            fn array_type_info() -> PgTypeInfo {
                <$base as PgHasArrayType>::array_type_info()
            }
        }

        impl Encode<'_, Postgres> for $name {
            fn encode_by_ref(&self, buffer: &mut Buffer) -> Result<IsNull, BoxDynError> {
                <$base as Encode<'_, Postgres>>::encode_by_ref(&self.0, buffer)
            }
        }

        impl Decode<'_, Postgres> for $name {
            fn decode(value: Raw<'_>) -> Result<Self, BoxDynError> {
                <$base as Decode<'_, Postgres>>::decode(value).map(Self)
            }
        }
    )*};
}

column!(
    AppId as Uuid,
    UserId as Uuid,
    ChatId as Uuid,
    MessageId as Uuid,
    SessionId as Uuid,
    AttachmentId as Uuid,
    ObjectId as Uuid,
    EndpointId as Uuid,
    DeliveryId as Uuid,
    Millis as i64
);

/// One column of many rows, as an array for `UNNEST`.
pub(super) fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
