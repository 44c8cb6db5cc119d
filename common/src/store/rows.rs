//! Rows of either engine, read back into what the store answers. Columns have the same names in both; where an engine's tables name one
//! otherwise, its query says `AS`.

pub(super) mod notifications;

use std::sync::Arc;

use sqlx::{Decode, Row, Sqlite, Type, sqlite::SqliteRow};
#[cfg(feature = "servers")]
use sqlx::{Postgres, postgres::PgRow};

use super::{
    Application, Attachment, ChatRow, Contact, Due, Found, MemberRow, Pair, Relation, RelationChange,
    Revocation, SendKey, SignIn, User,
    plan::KnownChat,
    retention::{Kept, retention_of},
    title, words,
};
use crate::{
    applications::Retention,
    ids::{ChatKey, ClientId, UserId, UserKey},
    model::{ChatKind, ChatView, Head, MemberView, Message, MessageKind, Role, UserView},
};

/// A type that stands in the columns of every engine.
#[cfg(not(feature = "servers"))]
pub(super) trait Column: for<'r> Decode<'r, Sqlite> + Type<Sqlite> {}

#[cfg(not(feature = "servers"))]
impl<T: for<'r> Decode<'r, Sqlite> + Type<Sqlite>> Column for T {}

/// A type that stands in the columns of every engine.
#[cfg(feature = "servers")]
pub(super) trait Column:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}

#[cfg(feature = "servers")]
impl<T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>> Column
    for T
{
}

/// A row of some engine.
pub(super) trait Columns {
    /// What stands under this name.
    fn get<T: Column>(&self, column: &str) -> sqlx::Result<T>;
}

impl Columns for SqliteRow {
    fn get<T: Column>(&self, column: &str) -> sqlx::Result<T> {
        self.try_get(column)
    }
}

#[cfg(feature = "servers")]
impl Columns for PgRow {
    fn get<T: Column>(&self, column: &str) -> sqlx::Result<T> {
        self.try_get(column)
    }
}

/// Numbers, seqs and offsets: what is past the largest column is the largest column, which no chat and no log reaches.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unreadable(what: String) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

/// A column that holds no negative number.
pub(super) fn unsigned(row: &impl Columns, column: &str) -> sqlx::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| unreadable(format!("{column} is {value}")))
}

pub(super) fn unsigned_or_null(row: &impl Columns, column: &str) -> sqlx::Result<Option<u64>> {
    row.get::<Option<i64>>(column)?
        .map(|value| u64::try_from(value).map_err(|_| unreadable(format!("{column} is {value}"))))
        .transpose()
}

fn word<T>(row: &impl Columns, column: &str, read: impl Fn(&str) -> Option<T>) -> sqlx::Result<T> {
    let word: String = row.get(column)?;
    read(&word).ok_or_else(|| unreadable(format!("{column} is {word:?}")))
}

fn kind(row: &impl Columns) -> sqlx::Result<ChatKind> {
    word(row, "kind", words::kind)
}

fn role(row: &impl Columns) -> sqlx::Result<Role> {
    word(row, "role", words::role)
}

pub(super) fn key(row: &impl Columns) -> sqlx::Result<ChatKey> {
    Ok(ChatKey { app: row.get("app")?, chat: row.get("chat")? })
}

/// Of chats that were looked through, at most `limit`: those that are due, and whether there may be more.
pub(super) fn due(rows: &[impl Columns], limit: u32) -> sqlx::Result<Due> {
    let mut due = Due::default();
    for row in rows {
        if row.get("due")? {
            due.chats.push(key(row)?);
        }
    }
    if rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
        due.next = rows.last().map(key).transpose()?;
    }
    Ok(due)
}

pub(super) fn user_key(row: &impl Columns) -> sqlx::Result<UserKey> {
    Ok(UserKey { app: row.get("app")?, user: row.get("user")? })
}

pub(super) fn head(row: &impl Columns) -> sqlx::Result<Head> {
    Ok(Head { number: unsigned(row, "head_number")?, seq: unsigned(row, "head_seq")? })
}

/// What a chat has chosen.
fn retention(row: &impl Columns) -> sqlx::Result<Option<Retention>> {
    Ok(row.get::<Option<i64>>("retention")?.map(retention_of))
}

fn client_id(row: &impl Columns) -> sqlx::Result<Option<ClientId>> {
    row.get::<Option<String>>("client_id")?
        .map(|name| ClientId::new(&name).map_err(|error| unreadable(error.to_string())))
        .transpose()
}

/// A row of `messages`.
pub(super) fn message(row: &impl Columns) -> sqlx::Result<Message> {
    let chat = row.get("chat")?;
    Ok(Message {
        id: row.get("id")?,
        chat,
        room_id: chat,
        number: unsigned(row, "number")?,
        from: row.get("sender")?,
        body: row.get("body")?,
        kind: word(row, "kind", MessageKind::from_word)?,
        created_at: row.get("created_at")?,
        edited_at: row.get("edited_at")?,
        deleted: row.get("deleted")?,
        expired: row.get("expired")?,
        reply_to: unsigned_or_null(row, "reply_to")?,
        attachments: json_list(row, "attachments")?,
        reactions: json_list(row, "reactions")?,
        mentions: json_list(row, "mentions")?,
        mention_all: row.get("mention_all")?,
        client_id: client_id(row)?,
    })
}

/// The same with whether somebody answers it with something.
pub(super) fn message_and_reaction(row: &impl Columns) -> sqlx::Result<(Message, bool)> {
    Ok((message(row)?, row.get("reacts")?))
}

/// What stands under this name as a JSON array.
pub(super) fn json_list<T: serde::de::DeserializeOwned>(
    row: &impl Columns,
    column: &str,
) -> sqlx::Result<Vec<T>> {
    let Some(json) = row.get::<Option<String>>(column)? else { return Ok(Vec::new()) };
    serde_json::from_str(&json).map_err(|error| unreadable(format!("{column}: {error}")))
}

/// A list as its column has it: attachments, reactions, mentions.
pub(super) fn json<T: serde::Serialize>(list: &[T]) -> Option<String> {
    // Lists of texts, ids and numbers always have a JSON form.
    if list.is_empty() { None } else { serde_json::to_string(list).ok() }
}

/// A message as `viewer` may see it: its name is for its sender.
pub(super) fn seen_by(viewer: UserId, mut message: Message) -> Message {
    if message.from != viewer {
        message.client_id = None;
    }
    message
}

/// A chat as `viewer` sees it, from its row, its first members, and its newest message.
pub(super) fn view(
    row: &impl Columns,
    viewer: UserId,
    members: Vec<MemberView>,
    newest: Option<Message>,
) -> sqlx::Result<ChatView> {
    let head = head(row)?;
    let kind = kind(row)?;
    let members_count = unsigned(row, "members")?;
    let name = if kind == ChatKind::Group { row.get("name")? } else { None };
    Ok(ChatView {
        id: row.get("chat")?,
        number: unsigned(row, "number")?,
        kind,
        name: title(name, viewer, &members, members_count),
        description: row.get("description")?,
        retention: retention(row)?,
        members,
        members_count,
        messages_count: head.number,
        created_at: row.get("created_at")?,
        created_by: row.get("created_by")?,
        last_message: newest.map(|message| seen_by(viewer, message)),
        unread_count: unsigned(row, "unread")?,
        mentions_count: unsigned(row, "mentioned")?,
        seq: head.seq,
        mark: unsigned(row, "mark")?,
    })
}

/// A row of `members` with the user's name, if it is known.
pub(super) fn member_view(row: &impl Columns) -> sqlx::Result<MemberView> {
    Ok(MemberView {
        id: row.get("user")?,
        name: row.get::<Option<String>>("name")?.unwrap_or_default(),
        role: role(row)?,
        joined_at: row.get("joined_at")?,
    })
}

/// A chat's row, as a plan needs it.
pub(super) fn known_chat(row: &impl Columns) -> sqlx::Result<KnownChat> {
    Ok(KnownChat {
        head: head(row)?,
        active_at: row.get("active_at")?,
        members: unsigned(row, "members")?,
        deleted: row.get("deleted")?,
        expired: unsigned(row, "expired_number")?,
    })
}

/// A chat's row, still without its members.
pub(super) fn chat(row: &impl Columns) -> sqlx::Result<ChatRow> {
    Ok(ChatRow {
        key: key(row)?,
        kind: kind(row)?,
        name: row.get("name")?,
        description: row.get("description")?,
        retention: retention(row)?,
        created_by: row.get("created_by")?,
        head: head(row)?,
        expired: unsigned(row, "expired_number")?,
        deleted: row.get("deleted")?,
        members: Vec::new(),
        request: row.get::<Option<i64>>("request")?.map(i64::cast_unsigned),
        makings: unsigned(row, "makings")?,
    })
}

pub(super) fn member(row: &impl Columns) -> sqlx::Result<MemberRow> {
    Ok(MemberRow { user: row.get("user")?, role: role(row)?, joined_seq: unsigned(row, "joined_seq")? })
}

pub(super) fn found(row: &impl Columns) -> sqlx::Result<Found> {
    let client_id = client_id(row)?.ok_or_else(|| unreadable("a message was found by no name".to_owned()))?;
    Ok(Found {
        key: SendKey { chat: key(row)?, from: row.get("sender")?, client_id },
        id: row.get("id")?,
        number: unsigned(row, "number")?,
        seq: unsigned(row, "seq")?,
        at: row.get("created_at")?,
        fingerprint: row.get::<i64>("fingerprint")?.cast_unsigned(),
    })
}

pub(super) fn application(row: &impl Columns) -> sqlx::Result<Application> {
    let settings: String = row.get("settings")?;
    Ok(Application {
        id: row.get("id")?,
        name: row.get("name")?,
        token_secret: row.get("token_secret")?,
        token_kid: row.get("token_kid")?,
        settings: serde_json::from_str(&settings)
            .map(Arc::new)
            .map_err(|error| unreadable(format!("settings: {error}")))?,
    })
}

pub(super) fn user(row: &impl Columns) -> sqlx::Result<User> {
    Ok(User {
        id: row.get("id")?,
        username: row.get("username")?,
        name: row.get("name")?,
        avatar: row.get("avatar")?,
        mobile_number: row.get("mobile_number")?,
        timezone: row.get("timezone")?,
        created_at: row.get("created_at")?,
        password_hash: row.get("password_hash")?,
    })
}

pub(super) fn user_view(row: &impl Columns) -> sqlx::Result<UserView> {
    Ok(UserView { id: row.get("id")?, name: row.get("name")?, avatar: row.get("avatar")? })
}

pub(super) fn sign_in(row: &impl Columns) -> sqlx::Result<SignIn> {
    Ok(SignIn {
        id: row.get("id")?,
        user: row.get("user")?,
        device: row.get("device")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
    })
}

pub(super) fn revocation(row: &impl Columns) -> sqlx::Result<Revocation> {
    Ok(Revocation {
        no: unsigned(row, "no")?,
        app: row.get("app")?,
        user: row.get("user")?,
        session: row.get("session")?,
        expires_at: row.get("expires_at")?,
    })
}

pub(super) fn kept(row: &impl Columns) -> sqlx::Result<Kept> {
    Ok(Kept {
        head: unsigned(row, "head_number")?,
        expired: unsigned(row, "expired_number")?,
        retention: retention(row)?,
    })
}

pub(super) fn contact(row: &impl Columns) -> sqlx::Result<Contact> {
    Ok(Contact { user: user_view(row)?, last_message_at: row.get("last_message_at")? })
}

/// A row of `relations`: of whom, what, who.
pub(super) fn relation(row: &impl Columns) -> sqlx::Result<(UserKey, Relation, UserId)> {
    Ok((user_key(row)?, word(row, "kind", Relation::from_word)?, row.get("peer")?))
}

pub(super) fn relation_change(row: &impl Columns) -> sqlx::Result<RelationChange> {
    let pair = Pair::new(row.get("app")?, row.get("user")?, row.get("peer")?);
    Ok(RelationChange { no: unsigned(row, "no")?, pair, at: row.get("at")? })
}

/// A row of `attachments`.
pub(super) fn attachment(row: &impl Columns) -> sqlx::Result<Attachment> {
    Ok(Attachment {
        id: row.get("id")?,
        uploader: row.get("uploader")?,
        object: row.get("object")?,
        kind: word(row, "kind", MessageKind::from_word)?,
        media_type: row.get("media_type")?,
        size: unsigned(row, "size")?,
        name: row.get("name")?,
        digest: row.get("digest")?,
        created_at: row.get("created_at")?,
    })
}
