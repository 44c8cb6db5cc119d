//! A plan's rows: one statement for each table and kind of change, whatever the number of rows.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{answers, attachments, notifications, search, value::column};
use crate::{
    ids::{AppId, ChatKey, Offset, Partition, UserId},
    store::{
        DEPARTURES, DeadLetter,
        plan::{ChatWrite, Gone, NewMember, NewMessage, NewRole, Plan, ReadMark, Rewrite},
        retention::retention_column,
        rows::{int, json},
        words::{kind_word, role_word},
    },
};

/// Writes all of it. What others wait for comes last: the counters of applications, which new chats are numbered by.
pub(super) async fn plan(connection: &mut PgConnection, plan: &Plan<'_>) -> sqlx::Result<()> {
    let (made, moved): (Vec<&ChatWrite<'_>>, Vec<&ChatWrite<'_>>) =
        plan.chats.iter().partition(|chat| chat.made.is_some());
    chats(connection, moved).await?;
    messages(connection, &plan.messages).await?;
    rewritten(connection, &plan.rewritten).await?;
    answers::write(connection, plan).await?;
    attachments::references(connection, plan).await?;
    search::note(connection, plan).await?;
    notifications::note(connection, plan).await?;
    if !plan.left.is_empty() || !plan.deleted.is_empty() {
        lock_memberships(connection, plan).await?;
    }
    left(connection, &plan.left).await?;
    joined(connection, &plan.joined).await?;
    roles(connection, &plan.roles).await?;
    read_marks(connection, &plan.read).await?;
    unlisted(connection, &plan.deleted).await?;
    new_chats(connection, &made).await
}

/// Moves read marks forward, in the order in which others lock them.
pub(super) async fn read_marks(connection: &mut PgConnection, marks: &[ReadMark]) -> sqlx::Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let mut marks: Vec<&ReadMark> = marks.iter().collect();
    marks.sort_by_key(|mark| (mark.key, mark.user));
    sqlx::query(
        "UPDATE memberships s SET read_number = w.number
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[]) AS w (app, user_id, chat, number)
         WHERE s.app = w.app AND s.user_id = w.user_id AND s.chat = w.chat AND s.read_number < w.number",
    )
    .bind(column(&marks, |mark| mark.key.app))
    .bind(column(&marks, |mark| mark.user))
    .bind(column(&marks, |mark| mark.key.chat))
    .bind(column(&marks, |mark| int(mark.number)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what is no record. A reason quotes what it is about, and may have a character that no text has here.
pub(super) async fn dead_letters(
    connection: &mut PgConnection,
    letters: &[(Partition, Uuid, &DeadLetter)],
) -> sqlx::Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO dead_letters (partition, log, log_offset, payload, reason)
         SELECT * FROM UNNEST($1::integer[], $2::uuid[], $3::bigint[], $4::bytea[], $5::text[])
         ON CONFLICT DO NOTHING",
    )
    .bind(column(letters, |(partition, ..)| i32::from(*partition)))
    .bind(column(letters, |(_, log, _)| *log))
    .bind(column(letters, |(.., letter)| int(letter.offset)))
    .bind(column(letters, |(.., letter)| letter.payload.as_slice()))
    .bind(column(letters, |(.., letter)| letter.reason.replace('\0', "\u{fffd}")))
    .execute(connection)
    .await?;
    Ok(())
}

async fn chats(connection: &mut PgConnection, mut chats: Vec<&ChatWrite<'_>>) -> sqlx::Result<()> {
    if chats.is_empty() {
        return Ok(());
    }
    chats.sort_unstable_by_key(|chat| chat.key);
    let chats = chats.as_slice();
    sqlx::query(
        "UPDATE chats c SET head_number = w.head_number, head_seq = w.head_seq, head_upto = w.head_upto,
           active_at = w.active_at, members = w.members, deleted = w.deleted, makings = c.makings + w.makings,
           name = coalesce(w.name, c.name), description = coalesce(w.description, c.description),
           retention = coalesce(w.retention, c.retention)
         FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
           $8::boolean[], $9::bigint[], $10::text[], $11::text[], $12::bigint[])
           AS w (app, chat, head_number, head_seq, head_upto, active_at, members, deleted, makings, name, description,
             retention)
         WHERE c.app = w.app AND c.chat = w.chat",
    )
    .bind(column(chats, |chat| chat.key.app))
    .bind(column(chats, |chat| chat.key.chat))
    .bind(column(chats, |chat| int(chat.head.number)))
    .bind(column(chats, |chat| int(chat.head.seq)))
    .bind(column(chats, |chat| int(chat.head_upto)))
    .bind(column(chats, |chat| chat.active_at))
    .bind(column(chats, |chat| int(chat.members)))
    .bind(column(chats, |chat| chat.deleted))
    .bind(column(chats, |chat| int(chat.makings)))
    .bind(column(chats, |chat| chat.name))
    .bind(column(chats, |chat| chat.description))
    .bind(column(chats, |chat| chat.retention.map(retention_column)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Numbers new chats, each in its application, in the order in which they come, and writes them.
async fn new_chats(connection: &mut PgConnection, chats: &[&ChatWrite<'_>]) -> sqlx::Result<()> {
    if chats.is_empty() {
        return Ok(());
    }
    let mut counts: BTreeMap<AppId, i64> = BTreeMap::new();
    for chat in chats {
        *counts.entry(chat.key.app).or_default() += 1;
    }
    let (apps, added): (Vec<AppId>, Vec<i64>) = counts.iter().map(|(app, count)| (*app, *count)).unzip();
    let rows = sqlx::query(
        "INSERT INTO chat_counts AS c (app, chats) SELECT * FROM UNNEST($1::uuid[], $2::bigint[])
         ON CONFLICT (app) DO UPDATE SET chats = c.chats + excluded.chats RETURNING app, chats",
    )
    .bind(apps)
    .bind(added)
    .fetch_all(&mut *connection)
    .await?;
    let mut last: BTreeMap<AppId, i64> = BTreeMap::new();
    for row in &rows {
        let (app, chats): (AppId, i64) = (row.try_get("app")?, row.try_get("chats")?);
        last.insert(app, chats - counts.get(&app).copied().unwrap_or_default());
    }
    let mut numbers: Vec<i64> = Vec::with_capacity(chats.len());
    for chat in chats {
        let number = last.entry(chat.key.app).or_default();
        *number += 1;
        numbers.push(*number);
    }
    sqlx::query(
        "INSERT INTO chats (app, chat, number, head_number, head_seq, head_upto, active_at, members, deleted, makings,
           name, description, kind, created_by, created_at, request, retention)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
           $7::bigint[], $8::bigint[], $9::boolean[], $10::bigint[], $11::text[], $12::text[], $13::text[],
           $14::uuid[], $15::bigint[], $16::bigint[], $17::bigint[])",
    )
    .bind(column(chats, |chat| chat.key.app))
    .bind(column(chats, |chat| chat.key.chat))
    .bind(numbers)
    .bind(column(chats, |chat| int(chat.head.number)))
    .bind(column(chats, |chat| int(chat.head.seq)))
    .bind(column(chats, |chat| int(chat.head_upto)))
    .bind(column(chats, |chat| chat.active_at))
    .bind(column(chats, |chat| int(chat.members)))
    .bind(column(chats, |chat| chat.deleted))
    .bind(column(chats, |chat| int(chat.makings)))
    .bind(column(chats, |chat| chat.name))
    .bind(column(chats, |chat| chat.description))
    .bind(column(chats, |chat| chat.made.map(|made| kind_word(made.kind))))
    .bind(column(chats, |chat| chat.made.map(|made| made.by)))
    .bind(column(chats, |chat| chat.made.map(|made| made.at)))
    .bind(column(chats, |chat| chat.made.and_then(|made| made.request).map(u64::cast_signed)))
    .bind(column(chats, |chat| chat.retention.map(retention_column)))
    .execute(connection)
    .await?;
    Ok(())
}

async fn messages(connection: &mut PgConnection, messages: &[NewMessage<'_>]) -> sqlx::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    // In the order of the key: each page of the indexes is found once, and a chat's rows lie together.
    let mut messages: Vec<&NewMessage<'_>> = messages.iter().collect();
    messages.sort_unstable_by_key(|message| (message.key, message.number));
    let messages = messages.as_slice();
    sqlx::query(
        "INSERT INTO messages (app, chat, number, id, seq, sender, body, kind, created_at, edited_at, deleted, reply_to,
           attachments, client_id, fingerprint, mentions, mention_all)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::bigint[], $6::uuid[], $7::text[],
           $8::text[], $9::bigint[], $10::bigint[], $11::boolean[], $12::bigint[], $13::text[], $14::text[],
           $15::bigint[], $16::text[], $17::boolean[])",
    )
    .bind(column(messages, |message| message.key.app))
    .bind(column(messages, |message| message.key.chat))
    .bind(column(messages, |message| int(message.number)))
    .bind(column(messages, |message| message.id))
    .bind(column(messages, |message| int(message.seq)))
    .bind(column(messages, |message| message.from))
    .bind(column(messages, |message| message.text.body))
    .bind(column(messages, |message| message.text.kind.word()))
    .bind(column(messages, |message| message.at))
    .bind(column(messages, |message| message.text.edited_at))
    .bind(column(messages, |message| message.text.deleted))
    .bind(column(messages, |message| message.text.reply_to.map(int)))
    .bind(column(messages, |message| json(message.text.attachments)))
    .bind(column(messages, |message| message.client_id.map(|name| name.as_str())))
    .bind(column(messages, |message| message.fingerprint.cast_signed()))
    .bind(column(messages, |message| json(message.mentions)))
    .bind(column(messages, |message| message.mention_all))
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives messages their new texts; one without is deleted, and keeps what is not said in it.
async fn rewritten(connection: &mut PgConnection, rewrites: &[Rewrite<'_>]) -> sqlx::Result<()> {
    if rewrites.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE messages m SET body = coalesce(w.body, ''), attachments = w.attachments, deleted = w.deleted,
           kind = coalesce(w.kind, m.kind),
           reply_to = CASE WHEN w.kind IS NULL THEN m.reply_to ELSE w.reply_to END,
           edited_at = CASE WHEN w.kind IS NULL THEN m.edited_at ELSE w.edited_at END
         FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[],
           $8::bigint[], $9::boolean[])
           AS w (app, chat, number, body, kind, reply_to, attachments, edited_at, deleted)
         WHERE m.app = w.app AND m.chat = w.chat AND m.number = w.number",
    )
    .bind(column(rewrites, |rewrite| rewrite.key.app))
    .bind(column(rewrites, |rewrite| rewrite.key.chat))
    .bind(column(rewrites, |rewrite| int(rewrite.number)))
    .bind(column(rewrites, |rewrite| rewrite.text.map(|text| text.body)))
    .bind(column(rewrites, |rewrite| rewrite.text.map(|text| text.kind.word())))
    .bind(column(rewrites, |rewrite| rewrite.text.and_then(|text| text.reply_to).map(int)))
    .bind(column(rewrites, |rewrite| rewrite.text.and_then(|text| json(text.attachments))))
    .bind(column(rewrites, |rewrite| rewrite.text.and_then(|text| text.edited_at)))
    .bind(column(rewrites, |rewrite| rewrite.text.is_none_or(|text| text.deleted)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks the memberships that several statements of a plan touch, in the order in which one does. A plan that only moves marks has one
/// statement, and needs no more.
async fn lock_memberships(connection: &mut PgConnection, plan: &Plan<'_>) -> sqlx::Result<()> {
    let left = plan.left.iter().map(|gone| (gone.key, gone.user));
    let touched: Vec<_> = left.chain(plan.read.iter().map(|mark| (mark.key, mark.user))).collect();
    sqlx::query(
        "SELECT 1 FROM (
           SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS k (app, user_id, chat)
           UNION
           SELECT m.app, m.user_id, m.chat FROM UNNEST($4::uuid[], $5::uuid[]) AS k (app, chat)
           JOIN members m ON m.app = k.app AND m.chat = k.chat) k
         JOIN memberships s ON s.app = k.app AND s.user_id = k.user_id AND s.chat = k.chat
         ORDER BY s.app, s.chat, s.user_id FOR UPDATE OF s",
    )
    .bind(column(&touched, |(key, _)| key.app))
    .bind(column(&touched, |(_, user)| *user))
    .bind(column(&touched, |(key, _)| key.chat))
    .bind(column(&plan.deleted, |(key, _)| key.app))
    .bind(column(&plan.deleted, |(key, _)| key.chat))
    .execute(connection)
    .await?;
    Ok(())
}

async fn left(connection: &mut PgConnection, gone: &[Gone]) -> sqlx::Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let apps = column(gone, |gone| gone.key.app);
    let chats = column(gone, |gone| gone.key.chat);
    let users = column(gone, |gone| gone.user);
    sqlx::query(
        "DELETE FROM members m USING UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS w (app, chat, user_id)
         WHERE m.app = w.app AND m.chat = w.chat AND m.user_id = w.user_id",
    )
    .bind(&apps)
    .bind(&chats)
    .bind(&users)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM memberships s USING UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS w (app, chat, user_id)
         WHERE s.app = w.app AND s.chat = w.chat AND s.user_id = w.user_id",
    )
    .bind(&apps)
    .bind(&chats)
    .bind(&users)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM chat_notification_preferences p
         USING UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS w (app, chat, user_id)
         WHERE p.app = w.app AND p.user_id = w.user_id AND p.chat = w.chat",
    )
    .bind(&apps)
    .bind(&chats)
    .bind(&users)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO departures (app, chat, user_id, left_upto)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[])
         ON CONFLICT (app, user_id, chat) DO UPDATE SET left_upto = excluded.left_upto",
    )
    .bind(&apps)
    .bind(&chats)
    .bind(&users)
    .bind(column(gone, |gone| int(gone.left_upto)))
    .execute(&mut *connection)
    .await?;
    forget_departures(connection, &apps, &users).await
}

/// Keeps the newest departures of these users. One that another transaction has just written is left to that one: nobody waits.
async fn forget_departures(
    connection: &mut PgConnection,
    apps: &[AppId],
    users: &[UserId],
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM departures d USING (
           SELECT o.* FROM (SELECT DISTINCT * FROM UNNEST($1::uuid[], $2::uuid[]) AS w (app, user_id)) w
           CROSS JOIN LATERAL (
             SELECT app, user_id, chat FROM departures o WHERE o.app = w.app AND o.user_id = w.user_id
             ORDER BY o.left_upto DESC OFFSET $3 FOR UPDATE SKIP LOCKED) o) o
         WHERE d.app = o.app AND d.user_id = o.user_id AND d.chat = o.chat",
    )
    .bind(apps)
    .bind(users)
    .bind(int(DEPARTURES as u64))
    .execute(connection)
    .await?;
    Ok(())
}

async fn joined(connection: &mut PgConnection, members: &[NewMember]) -> sqlx::Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    let apps = column(members, |member| member.key.app);
    let chats = column(members, |member| member.key.chat);
    let users = column(members, |member| member.user);
    let joined_seqs = column(members, |member| int(member.joined_seq));
    sqlx::query(
        "INSERT INTO members (app, chat, user_id, joined_seq, role, joined_at, place)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], $7::integer[])",
    )
    .bind(&apps)
    .bind(&chats)
    .bind(&users)
    .bind(&joined_seqs)
    .bind(column(members, |member| role_word(member.role)))
    .bind(column(members, |member| member.joined_at))
    .bind(column(members, |member| i32::try_from(member.place).unwrap_or(i32::MAX)))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO memberships (app, chat, user_id, joined_seq, joined_number, joined_upto, read_number)
         SELECT *, 0 FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[])",
    )
    .bind(&apps)
    .bind(&chats)
    .bind(&users)
    .bind(&joined_seqs)
    .bind(column(members, |member| int(member.joined_number)))
    .bind(column(members, |member| int(member.joined_upto)))
    .execute(connection)
    .await?;
    Ok(())
}

async fn roles(connection: &mut PgConnection, roles: &[NewRole]) -> sqlx::Result<()> {
    if roles.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE members m SET role = w.role
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) AS w (app, chat, user_id, role)
         WHERE m.app = w.app AND m.chat = w.chat AND m.user_id = w.user_id",
    )
    .bind(column(roles, |new| new.key.app))
    .bind(column(roles, |new| new.key.chat))
    .bind(column(roles, |new| new.user))
    .bind(column(roles, |new| role_word(new.role)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes deleted chats from the lists of their members.
async fn unlisted(connection: &mut PgConnection, deleted: &[(ChatKey, Offset)]) -> sqlx::Result<()> {
    if deleted.is_empty() {
        return Ok(());
    }
    let apps = column(deleted, |(key, _)| key.app);
    let chats = column(deleted, |(key, _)| key.chat);
    let gone = sqlx::query(
        "INSERT INTO departures (app, user_id, chat, left_upto)
         SELECT m.app, m.user_id, m.chat, w.upto FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[]) AS w (app, chat, upto)
         JOIN members m ON m.app = w.app AND m.chat = w.chat
         ON CONFLICT (app, user_id, chat) DO UPDATE SET left_upto = excluded.left_upto
         RETURNING app, user_id",
    )
    .bind(&apps)
    .bind(&chats)
    .bind(column(deleted, |(_, upto)| int(*upto)))
    .fetch_all(&mut *connection)
    .await?;
    let their_apps = gone.iter().map(|row| row.try_get("app")).collect::<sqlx::Result<Vec<AppId>>>()?;
    let users = gone.iter().map(|row| row.try_get("user_id")).collect::<sqlx::Result<Vec<UserId>>>()?;
    forget_departures(connection, &their_apps, &users).await?;
    for statement in [
        "DELETE FROM memberships s USING UNNEST($1::uuid[], $2::uuid[]) AS w (app, chat)
         JOIN members m ON m.app = w.app AND m.chat = w.chat
         WHERE s.app = m.app AND s.user_id = m.user_id AND s.chat = m.chat",
        "DELETE FROM chat_notification_preferences p USING UNNEST($1::uuid[], $2::uuid[]) AS w (app, chat)
         JOIN members m ON m.app = w.app AND m.chat = w.chat
         WHERE p.app = m.app AND p.user_id = m.user_id AND p.chat = m.chat",
    ] {
        sqlx::query(statement).bind(&apps).bind(&chats).execute(&mut *connection).await?;
    }
    Ok(())
}
