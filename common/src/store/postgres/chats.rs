//! Lists, views and history: what clients read.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{PgConnection, postgres::PgRow};

use super::{Postgres, drain::positions, value::column};
use crate::{
    ids::{AppId, ChatKey, MessageId, Number, UserId, UserKey},
    model::{ChatView, ChatsPage, MemberView, Message, Page, PageRequest, limits::MEMBERS_SHOWN},
    store::{
        Chats, DEPARTURES, Departure, Membership, Range, Result, Slice, Standing,
        rows::{self, Columns, int, unsigned},
    },
};

/// How many messages of a chat a member has not read, of those that are not past their time. A mark may be past the stored head for a moment: the log had it.
macro_rules! unread {
    () => {
        "greatest(0, c.head_number - greatest(s.joined_number, s.read_number, c.expired_number))"
    };
}

/// How many of those mention the member: a row for each named mention, and one for each that is of all. Beside it the mark.
macro_rules! mentioned {
    () => {
        "(SELECT count(*) FROM mentions n WHERE n.app = s.app AND n.user_id = s.user_id AND n.chat = s.chat
            AND n.number > greatest(s.joined_number, s.read_number))
          + (SELECT count(*) FROM mentions_of_all n WHERE n.app = s.app AND n.chat = s.chat
            AND n.number > greatest(s.joined_number, s.read_number)) AS mentioned,
          greatest(s.joined_number, s.read_number, c.expired_number) AS mark"
    };
}

/// What of a chat makes a view; who is asking has the rest.
macro_rules! view_columns {
    () => {
        "c.app, c.chat, c.number, c.kind, c.name, c.description, c.retention, c.created_by, c.created_at, c.head_number,
         c.head_seq, c.members"
    };
}

/// The page of a chat's messages on one side of a number, newest or oldest first, with the chat's head: one statement, one instant.
macro_rules! history {
    ($side:literal, $order:literal) => {
        concat!(
            "SELECT c.head_number, c.head_seq, c.expired_number, m.* FROM chats c
             LEFT JOIN LATERAL (
               SELECT * FROM messages m WHERE m.app = $1 AND m.chat = $2 AND m.number ",
            $side,
            " $3 ORDER BY m.number ",
            $order,
            " LIMIT $4) m ON true
             WHERE c.app = $1 AND c.chat = $2 ORDER BY m.number ",
            $order
        )
    };
}

#[async_trait]
impl Chats for Postgres {
    async fn standing(&self, users: &[UserKey]) -> Result<Standing> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let positions = positions(&mut *instant).await?;
            let memberships = sqlx::query(
                "SELECT s.app, s.user_id AS user, c.chat, c.head_number, c.head_seq, c.head_upto, c.members, c.expired_number, s.joined_seq, s.joined_upto
                 FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, user_id)
                 JOIN memberships s ON s.app = k.app AND s.user_id = k.user_id
                 JOIN chats c ON c.app = s.app AND c.chat = s.chat",
            )
            .bind(column(users, |user| user.app))
            .bind(column(users, |user| user.user))
            .fetch_all(&mut *instant)
            .await?;
            let departures = sqlx::query(
                "SELECT d.app, d.user_id AS user, d.chat, d.left_upto
                 FROM UNNEST($1::uuid[], $2::uuid[]) AS k (app, user_id)
                 CROSS JOIN LATERAL (
                   SELECT * FROM departures d WHERE d.app = k.app AND d.user_id = k.user_id
                   ORDER BY d.left_upto DESC LIMIT $3) d",
            )
            .bind(column(users, |user| user.app))
            .bind(column(users, |user| user.user))
            .bind(int(DEPARTURES as u64))
            .fetch_all(&mut *instant)
            .await?;
            let mut standing = Standing {
                positions, ..Standing::default()
            };
            for row in &memberships {
                let chats = standing.users.entry(rows::user_key(row)?).or_default();
                chats.memberships.push(membership(row)?);
            }
            for row in &departures {
                let chats = standing.users.entry(rows::user_key(row)?).or_default();
                chats.departures.push(departure(row)?);
            }
            Ok(standing)
        })
        .await
    }

    async fn chats_of(&self, app: AppId, user: UserId, page: PageRequest) -> Result<ChatsPage> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            // Always a row, for what is counted; without a chat when the page has none.
            let rows = sqlx::query(concat!(
                "WITH mine AS MATERIALIZED (
                   SELECT c.chat, c.active_at, ",
                unread!(),
                " AS unread
                   FROM memberships s JOIN chats c ON c.app = s.app AND c.chat = s.chat
                   WHERE s.app = $1 AND s.user_id = $2)
                 SELECT t.count, t.all_unread, p.chat IS NOT NULL AS listed, p.unread, ",
                view_columns!(),
                ", ",
                mentioned!(),
                " FROM (SELECT count(*) AS count, coalesce(sum(unread), 0)::bigint AS all_unread FROM mine) t
                 LEFT JOIN (SELECT * FROM mine ORDER BY active_at DESC, chat LIMIT $3 OFFSET $4) p ON true
                 LEFT JOIN chats c ON c.app = $1 AND c.chat = p.chat
                 LEFT JOIN memberships s ON s.app = $1 AND s.user_id = $2 AND s.chat = p.chat
                 ORDER BY p.active_at DESC, p.chat"
            ))
            .bind(app)
            .bind(user)
            .bind(i64::from(page.per_page))
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let (mut count, mut unread_count, mut listed) = (0, 0, Vec::with_capacity(rows.len()));
            for row in &rows {
                (count, unread_count) = (unsigned(row, "count")?, unsigned(row, "all_unread")?);
                if row.get("listed")? {
                    listed.push(row);
                }
            }
            let views = views(&mut instant, &listed, user).await?;
            let Page { current, total, results } = page.answer(count, views);
            Ok(ChatsPage { current, total, results, unread_count })
        })
        .await
    }

    async fn chat_view(&self, chat: ChatKey, user: UserId) -> Result<Option<ChatView>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let row = sqlx::query(concat!(
                "SELECT ",
                view_columns!(),
                ", ",
                unread!(),
                " AS unread, ",
                mentioned!(),
                " FROM memberships s JOIN chats c ON c.app = s.app AND c.chat = s.chat
                  WHERE s.app = $1 AND s.user_id = $2 AND s.chat = $3"
            ))
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .fetch_optional(&mut *instant)
            .await?;
            Ok(views(&mut instant, row.as_slice().iter().collect::<Vec<_>>().as_slice(), user).await?.pop())
        })
        .await
    }

    async fn members(
        &self,
        chat: ChatKey,
        user: UserId,
        page: PageRequest,
    ) -> Result<Option<Page<MemberView>>> {
        self.call(|| async move {
            let mut instant = self.instant().await?;
            let count: Option<i64> = sqlx::query_scalar(
                "SELECT c.members FROM memberships s JOIN chats c ON c.app = s.app AND c.chat = s.chat
                 WHERE s.app = $1 AND s.user_id = $2 AND s.chat = $3",
            )
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .fetch_optional(&mut *instant)
            .await?;
            let Some(count) = count else { return Ok(None) };
            let mut members = members(&mut instant, &[chat], i64::from(page.per_page), page.skip()).await?;
            Ok(Some(page.answer(count.unsigned_abs(), members.remove(&chat).unwrap_or_default())))
        })
        .await
    }

    async fn history(&self, chat: ChatKey, range: Range, limit: u32) -> Result<Option<Slice>> {
        self.call(|| async move {
            let (query, number) = match range {
                Range::Before(number) => (sqlx::query(history!("<", "DESC")), number),
                Range::After(number) => (sqlx::query(history!(">", "ASC")), number),
            };
            let rows = query
                .bind(chat.app)
                .bind(chat.chat)
                .bind(int(number))
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await?;
            let Some(first) = rows.first() else { return Ok(None) };
            let head = rows::head(first)?;
            // A chat without a message there has one row, which has none.
            let messages = match first.get::<Option<MessageId>>("id")? {
                Some(_) => rows.iter().map(rows::message).collect::<sqlx::Result<_>>()?,
                None => Vec::new(),
            };
            Ok(Some(Slice { messages, head, expired: unsigned(first, "expired_number")? }))
        })
        .await
    }

    async fn is_member(&self, chat: ChatKey, user: UserId) -> Result<bool> {
        self.call(|| async move {
            sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM memberships WHERE app = $1 AND user_id = $2 AND chat = $3)",
            )
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .fetch_one(&self.pool)
            .await
        })
        .await
    }

    async fn message_ids(
        &self,
        chat: ChatKey,
        after: Number,
        limit: u32,
    ) -> Result<Vec<(Number, MessageId)>> {
        self.call(|| async move {
            let rows = sqlx::query(
                "SELECT number, id FROM messages WHERE app = $1 AND chat = $2 AND number > $3 ORDER BY number LIMIT $4",
            )
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(after))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(|row| Ok((unsigned(row, "number")?, row.get("id")?))).collect()
        })
        .await
    }
}

/// These chats with their first members and their newest messages.
pub(super) async fn views(
    instant: &mut PgConnection,
    chats: &[&PgRow],
    viewer: UserId,
) -> sqlx::Result<Vec<ChatView>> {
    if chats.is_empty() {
        return Ok(Vec::new());
    }
    let (mut keys, mut newest) = (Vec::with_capacity(chats.len()), Vec::with_capacity(chats.len()));
    for row in chats {
        keys.push(rows::key(*row)?);
        newest.push(int(rows::head(*row)?.number));
    }
    let shown = i64::try_from(MEMBERS_SHOWN).unwrap_or(i64::MAX);
    let mut members = members(instant, &keys, shown, 0).await?;
    let messages = sqlx::query(
        "SELECT m.* FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS k (app, chat, number)
         JOIN messages m ON m.app = k.app AND m.chat = k.chat AND m.number = k.number",
    )
    .bind(column(&keys, |key| key.app))
    .bind(column(&keys, |key| key.chat))
    .bind(newest)
    .fetch_all(instant)
    .await?;
    let mut newest: HashMap<ChatKey, Message> = HashMap::with_capacity(messages.len());
    for row in &messages {
        newest.insert(rows::key(row)?, rows::message(row)?);
    }
    let view = |(row, key): (&&PgRow, &ChatKey)| {
        rows::view(*row, viewer, members.remove(key).unwrap_or_default(), newest.remove(key))
    };
    chats.iter().zip(&keys).map(view).collect()
}

/// A page of the members of each of these chats, in order of joining.
async fn members(
    instant: &mut PgConnection,
    chats: &[ChatKey],
    most: i64,
    skip: u64,
) -> sqlx::Result<HashMap<ChatKey, Vec<MemberView>>> {
    let rows = sqlx::query(
        "SELECT m.app, m.chat, m.user_id AS user, m.role, m.joined_at, u.name
         FROM UNNEST($1::uuid[], $2::uuid[]) WITH ORDINALITY AS k (app, chat, row)
         CROSS JOIN LATERAL (
           SELECT * FROM members m WHERE m.app = k.app AND m.chat = k.chat
           ORDER BY m.joined_seq, m.place LIMIT $3 OFFSET $4) m
         LEFT JOIN users u ON u.app = m.app AND u.id = m.user_id
         ORDER BY k.row, m.joined_seq, m.place",
    )
    .bind(column(chats, |chat| chat.app))
    .bind(column(chats, |chat| chat.chat))
    .bind(most)
    .bind(int(skip))
    .fetch_all(instant)
    .await?;
    let mut members: HashMap<ChatKey, Vec<MemberView>> = HashMap::with_capacity(chats.len());
    for row in &rows {
        members.entry(rows::key(row)?).or_default().push(rows::member_view(row)?);
    }
    Ok(members)
}

fn membership(row: &PgRow) -> sqlx::Result<Membership> {
    Ok(Membership {
        chat: row.get("chat")?,
        head: rows::head(row)?,
        head_upto: unsigned(row, "head_upto")?,
        members: unsigned(row, "members")?,
        expired: unsigned(row, "expired_number")?,
        joined_seq: unsigned(row, "joined_seq")?,
        joined_upto: unsigned(row, "joined_upto")?,
    })
}

fn departure(row: &PgRow) -> sqlx::Result<Departure> {
    Ok(Departure { chat: row.get("chat")?, left_upto: unsigned(row, "left_upto")? })
}
