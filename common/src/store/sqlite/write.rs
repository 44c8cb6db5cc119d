//! A plan's rows, in as few statements as they need: up to 64 rows in each.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, SqliteConnection};
use uuid::Uuid;

use super::{answers, attachments, fault::contradicts, notifications, search, value::Values};
use crate::{
    ids::{AppId, ChatKey, Offset, Partition, Seq},
    store::{
        DEPARTURES, DeadLetter, Refused,
        plan::{ChatWrite, Gone, NewMember, NewMessage, NewRole, Plan, ReadMark, Rewrite},
        retention::retention_column,
        rows::{int, json},
        words::{kind_word, role_word},
    },
};

/// Rows of one statement. Counts are powers of two up to this, so a kind of row has seven statements to keep prepared.
const ROWS: usize = 64;

/// Why a partition's batch stops.
#[derive(Debug)]
pub(super) enum Stop {
    /// It alone.
    Refused(Refused),
    /// Everything: the engine did not answer.
    Engine(sqlx::Error),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error)
    }
}

/// Writes all of it.
pub(super) async fn plan(connection: &mut SqliteConnection, plan: &Plan<'_>) -> Result<(), Stop> {
    let (made, moved): (Vec<&ChatWrite<'_>>, Vec<&ChatWrite<'_>>) =
        plan.chats.iter().partition(|chat| chat.made.is_some());
    let made = numbered(connection, made).await?;
    rows(connection, &made).await?;
    rows(connection, &moved).await?;
    rows(connection, &plan.messages).await?;
    for rewrite in &plan.rewritten {
        rewritten(connection, rewrite).await?;
    }
    answers::write(connection, plan).await?;
    attachments::references(connection, plan).await?;
    search::note(connection, plan).await?;
    notifications::note(connection, plan).await?;
    for gone in &plan.left {
        left(connection, gone).await?;
    }
    rows(connection, &plan.joined.iter().map(InChat).collect::<Vec<_>>()).await?;
    rows(connection, &plan.joined.iter().map(OfUser).collect::<Vec<_>>()).await?;
    for promoted in &plan.roles {
        role(connection, promoted).await?;
    }
    rows(connection, &plan.read).await?;
    for (chat, upto) in &plan.deleted {
        unlisted(connection, *chat, *upto).await?;
    }
    Ok(())
}

/// Moves read marks forward.
pub(super) async fn read_marks(connection: &mut SqliteConnection, marks: &[ReadMark]) -> sqlx::Result<()> {
    match rows(connection, marks).await {
        Err(Stop::Engine(error)) => Err(error),
        // A number contradicts nothing.
        Ok(()) | Err(Stop::Refused(_)) => Ok(()),
    }
}

/// Writes what is no record.
pub(super) async fn dead_letters(
    connection: &mut SqliteConnection,
    partition: Partition,
    log: Uuid,
    letters: &[DeadLetter],
) -> sqlx::Result<()> {
    for letter in letters {
        sqlx::query(
            "INSERT INTO dead_letters (partition, log, offset, payload, reason) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(partition)
        .bind(log.as_bytes().as_slice())
        .bind(int(letter.offset))
        .bind(&letter.payload)
        .bind(&letter.reason)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// A kind of row that is written many at a time.
trait Row {
    /// What comes before the rows.
    const HEAD: &'static str;
    /// The parameters of one.
    const ROW: &'static str;
    /// What comes after them.
    const TAIL: &'static str;

    fn put(&self, values: &mut Values);

    /// What to name when it contradicts another row.
    fn origin(&self) -> (ChatKey, Seq);
}

async fn rows<T: Row>(connection: &mut SqliteConnection, mut rest: &[T]) -> Result<(), Stop> {
    while !rest.is_empty() {
        let most = rest.len().min(ROWS);
        // The largest power of two that is not more.
        let count = 1 << most.ilog2();
        let (now, later) = rest.split_at(count);
        rest = later;
        match statement(connection, now).await {
            // The plan found nothing wrong, so the tables disagree among themselves: about one of these rows.
            Err(error) if contradicts(&error) => {
                let Some((chat, seq)) = now.first().map(Row::origin) else { continue };
                return Err(Stop::Refused(Refused::Broken { chat, seq, why: error.to_string() }));
            }
            other => other?,
        }
    }
    Ok(())
}

async fn statement<T: Row>(connection: &mut SqliteConnection, rows: &[T]) -> sqlx::Result<()> {
    let mut sql = String::with_capacity(T::HEAD.len() + rows.len() * (T::ROW.len() + 1) + T::TAIL.len());
    sql.push_str(T::HEAD);
    let mut values = Values::default();
    for (place, row) in rows.iter().enumerate() {
        if place > 0 {
            sql.push(',');
        }
        sql.push_str(T::ROW);
        row.put(&mut values);
    }
    sql.push_str(T::TAIL);
    // Made of constants; every value is a parameter.
    let query = sqlx::query_with(AssertSqlSafe(sql), values.done().map_err(sqlx::Error::Encode)?);
    query.execute(connection).await?;
    Ok(())
}

/// A new chat with its number.
struct Numbered<'a>(u64, &'a ChatWrite<'a>);

/// Gives new chats their numbers: those of one application follow each other in the order of the log.
async fn numbered<'a>(
    connection: &mut SqliteConnection,
    made: Vec<&'a ChatWrite<'a>>,
) -> sqlx::Result<Vec<Numbered<'a>>> {
    let mut next: BTreeMap<AppId, (u64, u64)> = BTreeMap::new();
    for chat in &made {
        next.entry(chat.key.app).or_default().0 += 1;
    }
    for (app, (count, number)) in &mut next {
        let last: i64 = sqlx::query_scalar(
            "INSERT INTO chat_counts (app, chats) VALUES (?, ?)
             ON CONFLICT (app) DO UPDATE SET chats = chats + excluded.chats RETURNING chats",
        )
        .bind(*app)
        .bind(int(*count))
        .fetch_one(&mut *connection)
        .await?;
        *number = last.unsigned_abs().saturating_sub(*count);
    }
    let number = |chat: &'a ChatWrite<'a>| {
        let (_, number) = next.entry(chat.key.app).or_default();
        *number += 1;
        Numbered(*number, chat)
    };
    Ok(made.into_iter().map(number).collect())
}

impl Row for Numbered<'_> {
    const HEAD: &'static str = "INSERT INTO chats
        (app, chat, head_number, head_seq, head_upto, active_at, members, deleted, makings, name, description,
         retention, number, kind, created_by, created_at, request) VALUES ";
    const ROW: &'static str = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
    const TAIL: &'static str = "";

    fn put(&self, values: &mut Values) {
        let Self(number, chat) = self;
        chat.put(values);
        values.put(int(*number));
        values.put(chat.made.map(|made| kind_word(made.kind)));
        values.put(chat.made.map(|made| made.by));
        values.put(chat.made.map(|made| made.at));
        values.put(chat.made.and_then(|made| made.request).map(u64::cast_signed));
    }

    fn origin(&self) -> (ChatKey, Seq) {
        (self.1.key, self.1.head.seq)
    }
}

impl Row for ChatWrite<'_> {
    const HEAD: &'static str =
        "UPDATE chats SET head_number = w.column3, head_seq = w.column4, head_upto = w.column5,
        active_at = w.column6, members = w.column7, deleted = w.column8, makings = makings + w.column9,
        name = coalesce(w.column10, name), description = coalesce(w.column11, description),
        retention = coalesce(w.column12, retention) FROM (VALUES ";
    const ROW: &'static str = "(?,?,?,?,?,?,?,?,?,?,?,?)";
    const TAIL: &'static str = ") AS w WHERE chats.app = w.column1 AND chats.chat = w.column2";

    fn put(&self, values: &mut Values) {
        values.put_key(self.key);
        values.put(int(self.head.number));
        values.put(int(self.head.seq));
        values.put(int(self.head_upto));
        values.put(self.active_at);
        values.put(int(self.members));
        values.put(self.deleted);
        values.put(int(self.makings));
        values.put(self.name);
        values.put(self.description);
        values.put(self.retention.map(retention_column));
    }

    fn origin(&self) -> (ChatKey, Seq) {
        (self.key, self.head.seq)
    }
}

impl<T: Row> Row for &T {
    const HEAD: &'static str = T::HEAD;
    const ROW: &'static str = T::ROW;
    const TAIL: &'static str = T::TAIL;

    fn put(&self, values: &mut Values) {
        T::put(self, values);
    }

    fn origin(&self) -> (ChatKey, Seq) {
        T::origin(self)
    }
}

impl Row for NewMessage<'_> {
    const HEAD: &'static str = "INSERT INTO messages
        (app, chat, number, id, seq, sender, body, kind, created_at, edited_at, deleted, reply_to, attachments,
         client_id, fingerprint, mentions, mention_all) VALUES ";
    const ROW: &'static str = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
    const TAIL: &'static str = "";

    fn put(&self, values: &mut Values) {
        values.put_key(self.key);
        values.put(int(self.number));
        values.put(self.id);
        values.put(int(self.seq));
        values.put(self.from);
        values.put(self.text.body);
        values.put(self.text.kind.word());
        values.put(self.at);
        values.put(self.text.edited_at);
        values.put(self.text.deleted);
        values.put(self.text.reply_to.map(int));
        values.put(json(self.text.attachments));
        values.put(self.client_id.map(|name| name.as_str()));
        values.put(self.fingerprint.cast_signed());
        values.put(json(self.mentions));
        values.put(self.mention_all);
    }

    fn origin(&self) -> (ChatKey, Seq) {
        (self.key, self.seq)
    }
}

/// A member, in the list of the chat.
struct InChat<'a>(&'a NewMember);

impl Row for InChat<'_> {
    const HEAD: &'static str =
        "INSERT INTO members (app, chat, user, role, joined_at, joined_seq, place) VALUES ";
    const ROW: &'static str = "(?,?,?,?,?,?,?)";
    const TAIL: &'static str = "";

    fn put(&self, values: &mut Values) {
        let Self(member) = self;
        values.put_key(member.key);
        values.put(member.user);
        values.put(role_word(member.role));
        values.put(member.joined_at);
        values.put(int(member.joined_seq));
        values.put(member.place);
    }

    fn origin(&self) -> (ChatKey, Seq) {
        (self.0.key, self.0.joined_seq)
    }
}

/// A member, in the list of the user.
struct OfUser<'a>(&'a NewMember);

impl Row for OfUser<'_> {
    const HEAD: &'static str = "INSERT INTO memberships (app, user, chat, joined_number, read_number, joined_seq, joined_upto) VALUES ";
    const ROW: &'static str = "(?,?,?,?,0,?,?)";
    const TAIL: &'static str = "";

    fn put(&self, values: &mut Values) {
        let Self(member) = self;
        values.put(member.key.app);
        values.put(member.user);
        values.put(member.key.chat);
        values.put(int(member.joined_number));
        values.put(int(member.joined_seq));
        values.put(int(member.joined_upto));
    }

    fn origin(&self) -> (ChatKey, Seq) {
        (self.0.key, self.0.joined_seq)
    }
}

impl Row for ReadMark {
    const HEAD: &'static str = "UPDATE memberships SET read_number = w.column4 FROM (VALUES ";
    const ROW: &'static str = "(?,?,?,?)";
    const TAIL: &'static str = ") AS w WHERE memberships.app = w.column1 AND memberships.user = w.column2
        AND memberships.chat = w.column3 AND memberships.read_number < w.column4";

    fn put(&self, values: &mut Values) {
        values.put(self.key.app);
        values.put(self.user);
        values.put(self.key.chat);
        values.put(int(self.number));
    }

    fn origin(&self) -> (ChatKey, Seq) {
        (self.key, 0)
    }
}

async fn rewritten(connection: &mut SqliteConnection, rewrite: &Rewrite<'_>) -> sqlx::Result<()> {
    let query = match &rewrite.text {
        Some(text) => sqlx::query(
            "UPDATE messages SET body = ?, kind = ?, reply_to = ?, attachments = ?, edited_at = ?, deleted = ?
             WHERE app = ? AND chat = ? AND number = ?",
        )
        .bind(text.body)
        .bind(text.kind.word())
        .bind(text.reply_to.map(int))
        .bind(json(text.attachments))
        .bind(text.edited_at)
        .bind(text.deleted),
        None => sqlx::query(
            "UPDATE messages SET body = '', attachments = NULL, deleted = 1 WHERE app = ? AND chat = ? AND number = ?",
        ),
    };
    query.bind(rewrite.key.app).bind(rewrite.key.chat).bind(int(rewrite.number)).execute(connection).await?;
    Ok(())
}

async fn left(connection: &mut SqliteConnection, gone: &Gone) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM members WHERE app = ? AND chat = ? AND user = ?")
        .bind(gone.key.app)
        .bind(gone.key.chat)
        .bind(gone.user)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM memberships WHERE app = ? AND user = ? AND chat = ?")
        .bind(gone.key.app)
        .bind(gone.user)
        .bind(gone.key.chat)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM chat_notification_preferences WHERE app = ? AND user = ? AND chat = ?")
        .bind(gone.key.app)
        .bind(gone.user)
        .bind(gone.key.chat)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT OR REPLACE INTO departures (app, user, chat, left_upto) VALUES (?, ?, ?, ?)")
        .bind(gone.key.app)
        .bind(gone.user)
        .bind(gone.key.chat)
        .bind(int(gone.left_upto))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM departures WHERE app = ?1 AND user = ?2 AND chat IN
         (SELECT chat FROM departures WHERE app = ?1 AND user = ?2 ORDER BY left_upto DESC LIMIT -1 OFFSET ?3)",
    )
    .bind(gone.key.app)
    .bind(gone.user)
    .bind(int(DEPARTURES as u64))
    .execute(connection)
    .await?;
    Ok(())
}

async fn role(connection: &mut SqliteConnection, promoted: &NewRole) -> sqlx::Result<()> {
    sqlx::query("UPDATE members SET role = ? WHERE app = ? AND chat = ? AND user = ?")
        .bind(role_word(promoted.role))
        .bind(promoted.key.app)
        .bind(promoted.key.chat)
        .bind(promoted.user)
        .execute(connection)
        .await?;
    Ok(())
}

async fn unlisted(connection: &mut SqliteConnection, chat: ChatKey, upto: Offset) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT OR REPLACE INTO departures (app, user, chat, left_upto)
         SELECT app, user, chat, ?3 FROM members WHERE app = ?1 AND chat = ?2",
    )
    .bind(chat.app)
    .bind(chat.chat)
    .bind(int(upto))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM departures WHERE (app, user, chat) IN (
             SELECT app, user, chat FROM (
                 SELECT d.app, d.user, d.chat,
                     row_number() OVER (PARTITION BY d.user ORDER BY d.left_upto DESC) AS place
                 FROM members m CROSS JOIN departures d ON d.app = m.app AND d.user = m.user
                 WHERE m.app = ?1 AND m.chat = ?2)
             WHERE place > ?3)",
    )
    .bind(chat.app)
    .bind(chat.chat)
    .bind(int(DEPARTURES as u64))
    .execute(&mut *connection)
    .await?;
    for statement in [
        "DELETE FROM memberships WHERE app = ?1 AND chat = ?2
         AND user IN (SELECT user FROM members WHERE app = ?1 AND chat = ?2)",
        "DELETE FROM chat_notification_preferences WHERE app = ?1 AND chat = ?2
         AND user IN (SELECT user FROM members WHERE app = ?1 AND chat = ?2)",
    ] {
        sqlx::query(statement).bind(chat.app).bind(chat.chat).execute(&mut *connection).await?;
    }
    Ok(())
}
