//! What is to be sent, now or later, as rows. Whoever changes what is in a queue has its endpoint's row: so that what is new comes behind what is there, and
//! nobody takes a queue for empty while something is put into it.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::{
    ids::{AppId, EndpointId, Partition, UserId},
    notifications::DeliveryState,
    store::{
        Attempt, Held, Leased, PENDING_BROWSER, PENDING_WEBHOOK, Sending, Split,
        notifications::{DeliveryId, FULL, Outcome, ROWS},
        postgres::value::column,
        rows::int,
        words::state_word,
    },
    time::Millis,
};

/// The queue of an endpoint.
struct Queue {
    id: EndpointId,
    last_place: i64,
    /// How many more may wait in it.
    room: i64,
}

/// How many may wait for an endpoint of this user, or of the application.
fn pending_most(user: UserId) -> u64 {
    if user == UserId::APPLICATION { PENDING_WEBHOOK } else { PENDING_BROWSER }
}

/// Puts these into the queues of the endpoints that they are for, or of that one alone.
pub(super) async fn send(
    write: &mut PgConnection,
    app: AppId,
    only: Option<EndpointId>,
    sendings: &[Sending],
    now: Millis,
) -> sqlx::Result<()> {
    if sendings.is_empty() {
        return Ok(());
    }
    let rows: Vec<(EndpointId, UserId, i64)> = sqlx::query_as(
        "SELECT id, user_id, last_place FROM notify_endpoints
         WHERE app = $1 AND user_id = ANY($2) AND id = coalesce($3, id) ORDER BY id FOR UPDATE",
    )
    .bind(app)
    .bind(column(sendings, user))
    .bind(only)
    .fetch_all(&mut *write)
    .await?;
    // A statement of its own sees what was put in until the rows were locked.
    let pending: HashMap<EndpointId, i64> = sqlx::query_as::<_, (EndpointId, i64)>(
        "SELECT w.id, d.pending FROM UNNEST($2::uuid[], $3::bigint[]) AS w (id, most)
         CROSS JOIN LATERAL (SELECT count(*) AS pending FROM (
           SELECT 1 FROM notify_deliveries d WHERE d.app = $1 AND d.endpoint = w.id AND d.state = 'pending'
           LIMIT w.most) d) d",
    )
    .bind(app)
    .bind(column(&rows, |(id, ..)| *id))
    .bind(column(&rows, |(_, user, _)| int(pending_most(*user))))
    .fetch_all(&mut *write)
    .await?
    .into_iter()
    .collect();
    let mut endpoints: HashMap<UserId, Vec<Queue>> = HashMap::new();
    for (id, user, last_place) in rows {
        let most = int(pending_most(user));
        let room = most.saturating_sub(pending.get(&id).copied().unwrap_or(most));
        endpoints.entry(user).or_default().push(Queue { id, last_place, room });
    }
    let mut put = Vec::new();
    for sending in sendings {
        for queue in endpoints.get_mut(&user(sending)).into_iter().flatten() {
            queue.last_place = queue.last_place.saturating_add(1);
            let full = queue.room == 0;
            queue.room -= i64::from(!full);
            put.push((queue.id, queue.last_place, full, sending));
        }
    }
    let state = |full| if full { DeliveryState::GivenUp } else { DeliveryState::Pending };
    for put in put.chunks(ROWS) {
        sqlx::query(
            "INSERT INTO notify_deliveries (app, endpoint, place, id, body, state, error, created_at, since)
             SELECT $1, s.endpoint, s.place, s.id, s.body, s.state, s.error, $2, $2
             FROM UNNEST($3::uuid[], $4::bigint[], $5::uuid[], $6::text[], $7::text[], $8::text[])
               AS s (endpoint, place, id, body, state, error)
             ON CONFLICT DO NOTHING",
        )
        .bind(app)
        .bind(now)
        .bind(column(put, |(endpoint, ..)| *endpoint))
        .bind(column(put, |(_, place, ..)| *place))
        .bind(column(put, |(.., sending)| sending.id))
        .bind(column(put, |(.., sending)| sending.body.as_str()))
        .bind(column(put, |(_, _, full, _)| state_word(state(*full))))
        .bind(column(put, |(_, _, full, _)| full.then_some(FULL)))
        .execute(&mut *write)
        .await?;
    }
    let queues: Vec<Queue> = endpoints.into_values().flatten().collect();
    for some in queues.chunks(ROWS) {
        sqlx::query(
            "UPDATE notify_endpoints e SET queued = true, last_place = w.last_place
             FROM UNNEST($2::uuid[], $3::bigint[]) AS w (id, last_place) WHERE e.app = $1 AND e.id = w.id",
        )
        .bind(app)
        .bind(column(some, |queue| queue.id))
        .bind(column(some, |queue| queue.last_place))
        .execute(&mut *write)
        .await?;
    }
    Ok(())
}

/// In whose queues it comes.
fn user(sending: &Sending) -> UserId {
    sending.user.unwrap_or(UserId::APPLICATION)
}

/// Holds these, or for longer who is held already.
pub(super) async fn hold(write: &mut PgConnection, partition: Partition, hold: &[Held]) -> sqlx::Result<()> {
    let mut hold: Vec<&Held> = hold.iter().collect();
    hold.sort_by_key(|held| (held.chat.app, held.user, held.chat.chat, held.endpoint));
    for some in hold.chunks(ROWS) {
        hold_some(write, partition, some).await?;
    }
    Ok(())
}

async fn hold_some(write: &mut PgConnection, partition: Partition, hold: &[&Held]) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO notify_held AS h (app, user_id, chat, partition, from_number, upto, until, endpoint)
         SELECT w.app, w.user_id, w.chat, $7, w.from_number, w.upto, w.until, w.endpoint
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $8::uuid[])
           AS w (app, user_id, chat, from_number, upto, until, endpoint)
         ON CONFLICT (app, user_id, chat, endpoint) DO UPDATE SET from_number = least(h.from_number, excluded.from_number),
           upto = greatest(h.upto, excluded.upto), until = greatest(h.until, excluded.until)",
    )
    .bind(column(hold, |held| held.chat.app))
    .bind(column(hold, |held| held.user))
    .bind(column(hold, |held| held.chat.chat))
    .bind(column(hold, |held| int(held.from)))
    .bind(column(hold, |held| int(held.upto)))
    .bind(column(hold, |held| held.until))
    .bind(i32::from(partition))
    .bind(column(hold, |held| held.endpoint.unwrap_or(EndpointId::EVERY)))
    .execute(write)
    .await?;
    Ok(())
}

/// Puts a delivery that was done with at the end of the queue; whether there is such a delivery.
pub(super) async fn again(
    write: &mut PgConnection,
    app: AppId,
    endpoint: EndpointId,
    id: DeliveryId,
    now: Millis,
) -> sqlx::Result<bool> {
    let last: Option<i64> =
        sqlx::query_scalar("SELECT last_place FROM notify_endpoints WHERE app = $1 AND id = $2 FOR UPDATE")
            .bind(app)
            .bind(endpoint)
            .fetch_optional(&mut *write)
            .await?;
    let Some(last) = last else { return Ok(false) };
    let waits: Option<bool> = sqlx::query_scalar(
        "SELECT state = 'pending' FROM notify_deliveries WHERE app = $1 AND endpoint = $2 AND id = $3 FOR UPDATE",
    )
    .bind(app)
    .bind(endpoint)
    .bind(id)
    .fetch_optional(&mut *write)
    .await?;
    if waits != Some(false) {
        return Ok(waits.is_some());
    }
    let place = last.saturating_add(1);
    sqlx::query(
        "UPDATE notify_deliveries SET state = 'pending', since = $4, place = $5
         WHERE app = $1 AND endpoint = $2 AND id = $3",
    )
    .bind(app)
    .bind(endpoint)
    .bind(id)
    .bind(now)
    .bind(place)
    .execute(&mut *write)
    .await?;
    sqlx::query("UPDATE notify_endpoints SET queued = true, last_place = $3 WHERE app = $1 AND id = $2")
        .bind(app)
        .bind(endpoint)
        .bind(place)
        .execute(write)
        .await?;
    Ok(true)
}

/// Notes what came of an attempt; whether the lease stands.
pub(super) async fn attempted(
    write: &mut PgConnection,
    leased: &Leased,
    id: DeliveryId,
    attempt: &Attempt,
    now: Millis,
) -> sqlx::Result<bool> {
    let outcome = match Outcome::of(attempt) {
        Ok(outcome) => outcome,
        Err(into) => return split(write, leased, id, into).await,
    };
    let stands = sqlx::query(
        "UPDATE notify_endpoints SET failures = CASE WHEN $4 THEN 0 ELSE failures + $5 END
         WHERE app = $1 AND id = $2 AND leased AND leased_until = $3",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(leased.until)
    .bind(outcome.recovered)
    .bind(outcome.failures)
    .execute(&mut *write)
    .await?;
    if stands.rows_affected() == 0 {
        return Ok(false);
    }
    // What was given up meanwhile, as it was too old, stays so if it was not taken. An error quotes an answer, and may have a character that
    // no text has here.
    sqlx::query(
        "UPDATE notify_deliveries SET attempts = attempts + 1, status = $4, error = $5, attempted_at = $6,
           state = coalesce($7, state), since = CASE WHEN $7 IS NULL THEN since ELSE $6 END
         WHERE app = $1 AND endpoint = $2 AND id = $3",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(id)
    .bind(outcome.status.map(i64::from))
    .bind(outcome.error.map(|error| error.replace('\0', "\u{fffd}")))
    .bind(now)
    .bind(outcome.state.map(state_word))
    .execute(write)
    .await?;
    Ok(true)
}

/// Makes a delivery several; whether the lease stands.
async fn split(
    write: &mut PgConnection,
    leased: &Leased,
    id: DeliveryId,
    split: &Split,
) -> sqlx::Result<bool> {
    // First, as by whoever tells those who are held: all lock rows in the same order.
    hold(write, split.partition, &split.hold).await?;
    let before: Option<i64> = sqlx::query_scalar(
        "UPDATE notify_endpoints SET queued = true, last_place = last_place + $4
         WHERE app = $1 AND id = $2 AND leased AND leased_until = $3 RETURNING last_place - $4",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(leased.until)
    .bind(split.others.len() as i64)
    .fetch_optional(&mut *write)
    .await?;
    let Some(before) = before else { return Ok(false) };
    sqlx::query(
        "INSERT INTO notify_deliveries (app, endpoint, place, id, body, state, created_at, since)
         SELECT d.app, d.endpoint, $4 + o.nth, o.id, o.body, 'pending', d.created_at, d.since
         FROM notify_deliveries d CROSS JOIN UNNEST($5::uuid[], $6::text[]) WITH ORDINALITY AS o (id, body, nth)
         WHERE d.app = $1 AND d.endpoint = $2 AND d.id = $3
         ON CONFLICT DO NOTHING",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(id)
    .bind(before)
    .bind(column(&split.others, |(id, _)| *id))
    .bind(column(&split.others, |(_, body)| body.as_str()))
    .execute(&mut *write)
    .await?;
    sqlx::query("UPDATE notify_deliveries SET body = $4 WHERE app = $1 AND endpoint = $2 AND id = $3")
        .bind(leased.endpoint.app)
        .bind(leased.endpoint.id)
        .bind(id)
        .bind(&split.rest)
        .execute(write)
        .await?;
    Ok(true)
}

/// Gives a queue back, to be looked at from `next` on if there is something in it.
pub(super) async fn release(write: &mut PgConnection, leased: &Leased, next: Millis) -> sqlx::Result<()> {
    let stands = sqlx::query(
        "SELECT 1 FROM notify_endpoints WHERE app = $1 AND id = $2 AND leased AND leased_until = $3 FOR UPDATE",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(leased.until)
    .fetch_optional(&mut *write)
    .await?;
    if stands.is_none() {
        return Ok(());
    }
    // A statement of its own sees what was put in until the row was locked.
    sqlx::query(
        "UPDATE notify_endpoints SET leased = false, next_at = $3, queued = EXISTS (
           SELECT 1 FROM notify_deliveries d WHERE d.app = $1 AND d.endpoint = $2 AND d.state = 'pending')
         WHERE app = $1 AND id = $2",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(next)
    .execute(write)
    .await?;
    Ok(())
}

/// What gives up what has waited since before $2, at most $1.
pub(super) const GIVE_UP: &str = "
    UPDATE notify_deliveries d SET state = 'given_up', error = coalesce(d.error, 'it waited too long')
    FROM (SELECT app, endpoint, place FROM notify_deliveries WHERE state = 'pending' AND since < $2
          ORDER BY since LIMIT $1 FOR UPDATE SKIP LOCKED) o
    WHERE d.app = o.app AND d.endpoint = o.endpoint AND d.place = o.place";

/// What forgets what was done with before $2, at most $1.
pub(super) const FORGET: &str = "
    DELETE FROM notify_deliveries d USING (
      SELECT app, endpoint, place FROM notify_deliveries WHERE state <> 'pending' AND since < $2
      ORDER BY since LIMIT $1 FOR UPDATE SKIP LOCKED) o
    WHERE d.app = o.app AND d.endpoint = o.endpoint AND d.place = o.place";

/// What forgets what nobody needs, at most $1 of each.
pub(super) const CLEAR: [&str; 2] = [
    "DELETE FROM notify_deliveries d USING (
       SELECT o.* FROM notify_removed r CROSS JOIN LATERAL (
         SELECT d.app, d.endpoint, d.place FROM notify_deliveries d WHERE d.app = r.app AND d.endpoint = r.endpoint
         LIMIT $1 FOR UPDATE SKIP LOCKED) o
       LIMIT $1) o
     WHERE d.app = o.app AND d.endpoint = o.endpoint AND d.place = o.place",
    "DELETE FROM notify_removed g USING (
       SELECT r.app, r.endpoint FROM notify_removed r WHERE NOT EXISTS (
         SELECT 1 FROM notify_deliveries d WHERE d.app = r.app AND d.endpoint = r.endpoint)
       LIMIT $1 FOR UPDATE OF r SKIP LOCKED) o
     WHERE g.app = o.app AND g.endpoint = o.endpoint",
];

/// What forgets who was to be told of what before $2 by applications that have no endpoint, at most $1 of each. Only what is old: a message
/// that has just come may rely on what is not. With the OFFSET each application is asked for by itself.
pub(super) const UNTOLD: [&str; 2] = [
    "DELETE FROM notify_waiting d USING (
       SELECT w.* FROM applications a CROSS JOIN LATERAL (
         SELECT w.app, w.chat FROM notify_waiting w WHERE w.app = a.id AND w.from_at < $2
         LIMIT $1 FOR UPDATE SKIP LOCKED) w
       WHERE NOT EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = a.id OFFSET 0) LIMIT $1) o
     WHERE d.app = o.app AND d.chat = o.chat",
    "DELETE FROM notify_held d USING (
       SELECT h.* FROM applications a CROSS JOIN LATERAL (
         SELECT h.app, h.user_id, h.chat, h.endpoint FROM notify_held h WHERE h.app = a.id AND h.until < $2
         LIMIT $1 FOR UPDATE SKIP LOCKED) h
       WHERE NOT EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = a.id OFFSET 0) LIMIT $1) o
     WHERE d.app = o.app AND d.user_id = o.user_id AND d.chat = o.chat AND d.endpoint = o.endpoint",
];
