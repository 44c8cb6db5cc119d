//! Lists, views and history: what clients read.

use async_trait::async_trait;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{Sqlite, drain::positions, fault::bounded, value::list};
use crate::{
    ids::{AppId, ChatId, ChatKey, MessageId, Number, UserId, UserKey},
    model::{ChatView, ChatsPage, Head, MemberView, Message, Page, PageRequest, limits::MEMBERS_SHOWN},
    store::{
        Chats, Departure, Membership, Range, Result, Slice, Standing, UserChats,
        rows::{self, Columns, int, unsigned},
    },
};

/// How many messages of a chat a member has not read, of those that are not past their time. A mark may be past the stored head for a moment: the log had it.
macro_rules! unread {
    () => {
        "max(0, c.head_number - max(s.joined_number, s.read_number, c.expired_number))"
    };
}

/// How many of those mention the member: a row for each named mention, and one for each that is of all.
macro_rules! mentioned {
    () => {
        "(SELECT count(*) FROM mentions n WHERE n.app = s.app AND n.user = s.user AND n.chat = s.chat
            AND n.number > max(s.joined_number, s.read_number))
          + (SELECT count(*) FROM mentions_of_all n WHERE n.app = s.app AND n.chat = s.chat
            AND n.number > max(s.joined_number, s.read_number))"
    };
}

/// What of a chat and of the caller's membership makes a view.
macro_rules! view_columns {
    () => {
        concat!(
            "c.app, c.chat, c.number, c.kind, c.name, c.description, c.retention, c.created_by, c.created_at,
             c.head_number, c.head_seq, c.members, ",
            unread!(),
            " AS unread, ",
            mentioned!(),
            " AS mentioned, max(s.joined_number, s.read_number, c.expired_number) AS mark"
        )
    };
}

#[async_trait]
impl Chats for Sqlite {
    async fn standing(&self, users: &[UserKey]) -> Result<Standing> {
        bounded(async {
            let asked = list(users.iter().map(|user| (user.app, user.user)));
            let mut instant = self.readers.begin().await?;
            let positions = positions(&mut *instant).await?;
            // A row for each user and not for each chat: every row is handed from the connection's thread to this one, which takes longer
            // than to find what it says.
            let rows = sqlx::query(
                "SELECT k.key AS place,
                   (SELECT json_group_array(json_array(hex(c.chat), json_array(c.head_number, c.head_seq), c.members, c.head_upto,
                      c.expired_number, s.joined_seq, s.joined_upto))
                    FROM memberships s CROSS JOIN chats c ON c.app = s.app AND c.chat = s.chat
                    WHERE s.app = unhex(k.value ->> 0) AND s.user = unhex(k.value ->> 1)) AS memberships,
                   (SELECT json_group_array(json_array(hex(d.chat), d.left_upto))
                    FROM departures d
                    WHERE d.app = unhex(k.value ->> 0) AND d.user = unhex(k.value ->> 1)) AS departures
                 FROM json_each(?) k",
            )
            .bind(asked)
            .fetch_all(&mut *instant)
            .await?;
            let mut standing = Standing { positions, ..Standing::default() };
            for row in &rows {
                let chats = UserChats {
                    memberships: rows::json_list(row, "memberships")?.into_iter().map(membership).collect(),
                    departures: rows::json_list(row, "departures")?.into_iter().map(departure).collect(),
                };
                let place = usize::try_from(unsigned(row, "place")?).ok();
                if let Some(user) = place.and_then(|place| users.get(place)) {
                    standing.users.insert(*user, chats);
                }
            }
            Ok(standing)
        })
        .await
    }

    async fn chats_of(&self, app: AppId, user: UserId, page: PageRequest) -> Result<ChatsPage> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            // All of them are gone through once, and only those on the page are looked at more closely. Always a row, for what is counted; without a
            // chat when the page has none.
            let rows = sqlx::query(concat!(
                "WITH mine AS MATERIALIZED (
                   SELECT c.chat, c.active_at, ",
                unread!(),
                " AS unread
                   FROM memberships s CROSS JOIN chats c ON c.app = s.app AND c.chat = s.chat
                   WHERE s.app = ?1 AND s.user = ?2)
                 SELECT t.count, t.all_unread, p.chat IS NOT NULL AS listed, ",
                view_columns!(),
                " FROM (SELECT count(*) AS count, coalesce(sum(unread), 0) AS all_unread FROM mine) t
                 LEFT JOIN (SELECT chat, active_at FROM mine ORDER BY active_at DESC, chat LIMIT ?3 OFFSET ?4) p ON true
                 LEFT JOIN chats c ON c.app = ?1 AND c.chat = p.chat
                 LEFT JOIN memberships s ON s.app = ?1 AND s.user = ?2 AND s.chat = p.chat
                 ORDER BY p.active_at DESC, p.chat"
            ))
            .bind(app)
            .bind(user)
            .bind(page.per_page)
            .bind(int(page.skip()))
            .fetch_all(&mut *instant)
            .await?;
            let (mut count, mut unread_count, mut views) = (0, 0, Vec::with_capacity(rows.len()));
            for row in &rows {
                (count, unread_count) = (unsigned(row, "count")?, unsigned(row, "all_unread")?);
                if row.get("listed")? {
                    views.push(view(&mut instant, row, user).await?);
                }
            }
            let Page { current, total, results } = page.answer(count, views);
            Ok(ChatsPage { current, total, results, unread_count })
        })
        .await
    }

    async fn chat_view(&self, chat: ChatKey, user: UserId) -> Result<Option<ChatView>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let row = sqlx::query(concat!(
                "SELECT ",
                view_columns!(),
                " FROM memberships s CROSS JOIN chats c ON c.app = s.app AND c.chat = s.chat
                  WHERE s.app = ? AND s.user = ? AND s.chat = ?"
            ))
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .fetch_optional(&mut *instant)
            .await?;
            match &row {
                Some(row) => view(&mut instant, row, user).await.map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    async fn members(
        &self,
        chat: ChatKey,
        user: UserId,
        page: PageRequest,
    ) -> Result<Option<Page<MemberView>>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let count: Option<i64> = sqlx::query_scalar(
                "SELECT c.members FROM memberships s CROSS JOIN chats c ON c.app = s.app AND c.chat = s.chat
                 WHERE s.app = ? AND s.user = ? AND s.chat = ?",
            )
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .fetch_optional(&mut *instant)
            .await?;
            let Some(count) = count else { return Ok(None) };
            let members = members(&mut instant, chat, page.per_page, page.skip()).await?;
            Ok(Some(page.answer(count.unsigned_abs(), members)))
        })
        .await
    }

    async fn history(&self, chat: ChatKey, range: Range, limit: u32) -> Result<Option<Slice>> {
        bounded(async {
            let mut instant = self.readers.begin().await?;
            let known = sqlx::query("SELECT head_number, head_seq, expired_number FROM chats WHERE app = ? AND chat = ?")
                .bind(chat.app)
                .bind(chat.chat)
                .fetch_optional(&mut *instant)
                .await?;
            let Some(known) = known else { return Ok(None) };
            let (query, number) = match range {
                Range::Before(number) => (
                    sqlx::query(
                        "SELECT * FROM messages WHERE app = ? AND chat = ? AND number < ? ORDER BY number DESC LIMIT ?",
                    ),
                    number,
                ),
                Range::After(number) => (
                    sqlx::query(
                        "SELECT * FROM messages WHERE app = ? AND chat = ? AND number > ? ORDER BY number LIMIT ?",
                    ),
                    number,
                ),
            };
            let rows =
                query.bind(chat.app).bind(chat.chat).bind(int(number)).bind(limit).fetch_all(&mut *instant).await?;
            let messages = rows.iter().map(rows::message).collect::<sqlx::Result<_>>()?;
            Ok(Some(Slice { messages, head: rows::head(&known)?, expired: unsigned(&known, "expired_number")? }))
        })
        .await
    }

    async fn is_member(&self, chat: ChatKey, user: UserId) -> Result<bool> {
        bounded(async {
            sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM memberships WHERE app = ? AND user = ? AND chat = ?)",
            )
            .bind(chat.app)
            .bind(user)
            .bind(chat.chat)
            .fetch_one(&self.readers)
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
        bounded(async {
            let rows = sqlx::query(
                "SELECT number, id FROM messages WHERE app = ? AND chat = ? AND number > ? ORDER BY number LIMIT ?",
            )
            .bind(chat.app)
            .bind(chat.chat)
            .bind(int(after))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(|row| Ok((unsigned(row, "number")?, row.get("id")?))).collect()
        })
        .await
    }
}

/// What `standing` has of a membership, in its order.
type MembershipRow = (ChatId, Head, u64, u64, u64, u64, u64);

fn membership(
    (chat, head, members, head_upto, expired, joined_seq, joined_upto): MembershipRow,
) -> Membership {
    Membership { chat, head, members, head_upto, expired, joined_seq, joined_upto }
}

fn departure((chat, left_upto): (ChatId, u64)) -> Departure {
    Departure { chat, left_upto }
}

pub(super) async fn view(
    instant: &mut SqliteConnection,
    row: &SqliteRow,
    viewer: UserId,
) -> sqlx::Result<ChatView> {
    let chat = rows::key(row)?;
    let shown = u32::try_from(MEMBERS_SHOWN).unwrap_or(u32::MAX);
    let members = members(instant, chat, shown, 0).await?;
    let newest = newest(instant, chat, rows::head(row)?.number).await?;
    rows::view(row, viewer, members, newest)
}

async fn members(
    instant: &mut SqliteConnection,
    chat: ChatKey,
    most: u32,
    skip: u64,
) -> sqlx::Result<Vec<MemberView>> {
    let rows = sqlx::query(
        // The page is found in the index alone: what is skipped costs no look at a row.
        "SELECT m.user, m.role, m.joined_at, u.name
         FROM (SELECT app, chat, user, joined_seq, place FROM members
               WHERE app = ? AND chat = ? ORDER BY joined_seq, place LIMIT ? OFFSET ?) p
         CROSS JOIN members m ON m.app = p.app AND m.chat = p.chat AND m.user = p.user
         LEFT JOIN users u ON u.app = m.app AND u.id = m.user
         ORDER BY p.joined_seq, p.place",
    )
    .bind(chat.app)
    .bind(chat.chat)
    .bind(most)
    .bind(int(skip))
    .fetch_all(instant)
    .await?;
    rows.iter().map(rows::member_view).collect()
}

async fn newest(
    instant: &mut SqliteConnection,
    chat: ChatKey,
    number: Number,
) -> sqlx::Result<Option<Message>> {
    if number == 0 {
        return Ok(None);
    }
    let row = sqlx::query("SELECT * FROM messages WHERE app = ? AND chat = ? AND number = ?")
        .bind(chat.app)
        .bind(chat.chat)
        .bind(int(number))
        .fetch_optional(instant)
        .await?;
    row.as_ref().map(rows::message).transpose()
}
