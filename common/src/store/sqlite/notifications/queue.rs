//! What is to be sent, now or later, as rows.

use sqlx::SqliteConnection;

use crate::{
    ids::{AppId, ChatKey, EndpointId, Partition, UserId},
    store::{
        Attempt, Held, Leased, PENDING_BROWSER, PENDING_WEBHOOK, Sending, Split,
        notifications::{DeliveryId, FULL, Outcome, ROWS},
        rows::int,
        sqlite::value::list,
        words::state_word,
    },
    time::Millis,
};

/// Puts these into the queues of the endpoints that they are for, or of that one alone.
pub(super) async fn send(
    write: &mut SqliteConnection,
    app: AppId,
    only: Option<EndpointId>,
    sendings: &[Sending],
    now: Millis,
) -> sqlx::Result<()> {
    for some in sendings.chunks(ROWS) {
        send_some(write, app, only, some, now).await?;
    }
    Ok(())
}

async fn send_some(
    write: &mut SqliteConnection,
    app: AppId,
    only: Option<EndpointId>,
    sendings: &[Sending],
    now: Millis,
) -> sqlx::Result<()> {
    let sendings = list(sendings.iter().map(|sending| {
        (sending.user.unwrap_or(UserId::APPLICATION), sending.id.simple().to_string(), &sending.body)
    }));
    sqlx::query(
        "WITH queues AS MATERIALIZED (
           SELECT e.id, e.user, e.last_place, iif(e.user = ?4, ?5, ?6) - (SELECT count(*) FROM (
             SELECT 1 FROM notify_deliveries d WHERE d.app = e.app AND d.endpoint = e.id AND d.state = 'pending'
             LIMIT max(?5, ?6))) AS room
           FROM notify_endpoints e INDEXED BY notify_endpoints_by_user
           WHERE e.app = ?1 AND e.user IN (SELECT unhex(k.value ->> 0) FROM json_each(?2) k)
             AND e.id = coalesce(?8, e.id)),
         puts AS (
           SELECT q.id, q.last_place, q.room, k.value, row_number() OVER (PARTITION BY q.id ORDER BY k.key) AS n
           FROM json_each(?2) k CROSS JOIN queues q ON q.user = unhex(k.value ->> 0))
         INSERT OR IGNORE INTO notify_deliveries (app, endpoint, place, id, body, state, error, created_at, since)
         SELECT ?1, id, last_place + n, unhex(value ->> 1), value ->> 2, iif(n <= room, 'pending', 'given_up'),
           iif(n <= room, NULL, ?7), ?3, ?3
         FROM puts",
    )
    .bind(app)
    .bind(&sendings)
    .bind(now)
    .bind(UserId::APPLICATION)
    .bind(int(PENDING_WEBHOOK))
    .bind(int(PENDING_BROWSER))
    .bind(FULL)
    .bind(only)
    .execute(&mut *write)
    .await?;
    sqlx::query(
        "UPDATE notify_endpoints INDEXED BY notify_endpoints_by_user SET queued = 1, last_place = max(last_place, coalesce((
           SELECT max(d.place) FROM notify_deliveries d
           WHERE d.app = notify_endpoints.app AND d.endpoint = notify_endpoints.id), 0))
         WHERE app = ?1 AND user IN (SELECT unhex(k.value ->> 0) FROM json_each(?2) k)",
    )
    .bind(app)
    .bind(&sendings)
    .execute(write)
    .await?;
    Ok(())
}

/// Holds these, or for longer who is held already.
pub(super) async fn hold(
    write: &mut SqliteConnection,
    partition: Partition,
    hold: &[Held],
) -> sqlx::Result<()> {
    for some in hold.chunks(ROWS) {
        hold_some(write, partition, some).await?;
    }
    Ok(())
}

async fn hold_some(write: &mut SqliteConnection, partition: Partition, hold: &[Held]) -> sqlx::Result<()> {
    let rows = hold.iter().map(|held| {
        let ChatKey { app, chat } = held.chat;
        let endpoint = held.endpoint.unwrap_or(EndpointId::EVERY);
        (app, held.user, chat, endpoint, int(held.from), int(held.upto), held.until.0)
    });
    // `WHERE true` tells the parser that ON belongs to the insertion.
    sqlx::query(
        "INSERT INTO notify_held (app, user, chat, endpoint, partition, from_number, upto, until)
         SELECT unhex(k.value ->> 0), unhex(k.value ->> 1), unhex(k.value ->> 2), unhex(k.value ->> 3), ?1,
           k.value ->> 4, k.value ->> 5, k.value ->> 6
         FROM json_each(?2) k WHERE true
         ON CONFLICT (app, user, chat, endpoint) DO UPDATE SET from_number = min(from_number, excluded.from_number),
           upto = max(upto, excluded.upto), until = max(until, excluded.until)",
    )
    .bind(partition)
    .bind(list(rows))
    .execute(write)
    .await?;
    Ok(())
}

/// Puts a delivery that was done with at the end of the queue; whether there is such a delivery.
pub(super) async fn again(
    write: &mut SqliteConnection,
    app: AppId,
    endpoint: EndpointId,
    id: DeliveryId,
    now: Millis,
) -> sqlx::Result<bool> {
    let row: Option<(i64, bool)> = sqlx::query_as(
        "SELECT e.last_place, d.state = 'pending' FROM notify_endpoints e
         CROSS JOIN notify_deliveries d ON d.app = e.app AND d.endpoint = e.id AND d.id = ?3
         WHERE e.app = ?1 AND e.id = ?2",
    )
    .bind(app)
    .bind(endpoint)
    .bind(id)
    .fetch_optional(&mut *write)
    .await?;
    let Some((last, waits)) = row else { return Ok(false) };
    if waits {
        return Ok(true);
    }
    let place = last.saturating_add(1);
    sqlx::query(
        "UPDATE notify_deliveries SET state = 'pending', since = ?, place = ? WHERE app = ? AND endpoint = ? AND id = ?",
    )
    .bind(now)
    .bind(place)
    .bind(app)
    .bind(endpoint)
    .bind(id)
    .execute(&mut *write)
    .await?;
    sqlx::query("UPDATE notify_endpoints SET queued = 1, last_place = ? WHERE app = ? AND id = ?")
        .bind(place)
        .bind(app)
        .bind(endpoint)
        .execute(write)
        .await?;
    Ok(true)
}

/// Notes what came of an attempt; whether the lease stands.
pub(super) async fn attempted(
    write: &mut SqliteConnection,
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
        "UPDATE notify_endpoints SET failures = CASE WHEN ?4 THEN 0 ELSE failures + ?5 END
         WHERE app = ?1 AND id = ?2 AND leased = 1 AND leased_until = ?3",
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
    // What was given up meanwhile, as it was too old, stays so if it was not taken.
    sqlx::query(
        "UPDATE notify_deliveries SET attempts = attempts + 1, status = ?4, error = ?5, attempted_at = ?6,
           state = coalesce(?7, state), since = CASE WHEN ?7 IS NULL THEN since ELSE ?6 END
         WHERE app = ?1 AND endpoint = ?2 AND id = ?3",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(id)
    .bind(outcome.status)
    .bind(outcome.error)
    .bind(now)
    .bind(outcome.state.map(state_word))
    .execute(write)
    .await?;
    Ok(true)
}

/// Makes a delivery several; whether the lease stands.
async fn split(
    write: &mut SqliteConnection,
    leased: &Leased,
    id: DeliveryId,
    split: &Split,
) -> sqlx::Result<bool> {
    hold(write, split.partition, &split.hold).await?;
    let others = list(split.others.iter().map(|(id, body)| (id.simple().to_string(), body)));
    let before: Option<i64> = sqlx::query_scalar(
        "UPDATE notify_endpoints SET queued = 1, last_place = last_place + ?4
         WHERE app = ?1 AND id = ?2 AND leased = 1 AND leased_until = ?3 RETURNING last_place - ?4",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(leased.until)
    .bind(split.others.len() as i64)
    .fetch_optional(&mut *write)
    .await?;
    let Some(before) = before else { return Ok(false) };
    sqlx::query(
        "INSERT OR IGNORE INTO notify_deliveries (app, endpoint, place, id, body, state, created_at, since)
         SELECT d.app, d.endpoint, ?4 + 1 + k.key, unhex(k.value ->> 0), k.value ->> 1, 'pending', d.created_at, d.since
         FROM notify_deliveries d CROSS JOIN json_each(?5) k WHERE d.app = ?1 AND d.endpoint = ?2 AND d.id = ?3",
    )
    .bind(leased.endpoint.app)
    .bind(leased.endpoint.id)
    .bind(id)
    .bind(before)
    .bind(others)
    .execute(&mut *write)
    .await?;
    sqlx::query("UPDATE notify_deliveries SET body = ?4 WHERE app = ?1 AND endpoint = ?2 AND id = ?3")
        .bind(leased.endpoint.app)
        .bind(leased.endpoint.id)
        .bind(id)
        .bind(&split.rest)
        .execute(write)
        .await?;
    Ok(true)
}

/// Gives up what is too old, and forgets what need not be known any more, at most `most` of each.
pub(super) async fn prune(
    write: &mut SqliteConnection,
    waiting: Millis,
    ended: Millis,
    most: u32,
) -> sqlx::Result<u64> {
    let mut done = 0;
    for (statement, before) in [
        (
            "UPDATE notify_deliveries SET state = 'given_up', error = coalesce(error, 'it waited too long')
             WHERE (app, endpoint, place) IN (
               SELECT app, endpoint, place FROM notify_deliveries WHERE state = 'pending' AND since < ?2
               ORDER BY since LIMIT ?1)",
            waiting,
        ),
        (
            "DELETE FROM notify_deliveries WHERE (app, endpoint, place) IN (
               SELECT app, endpoint, place FROM notify_deliveries WHERE state <> 'pending' AND since < ?2
               ORDER BY since LIMIT ?1)",
            ended,
        ),
        (
            "DELETE FROM notify_waiting WHERE (app, chat) IN (
               SELECT w.app, w.chat FROM applications a CROSS JOIN notify_waiting w ON w.app = a.id AND w.from_at < ?2
               WHERE NOT EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = a.id) LIMIT ?1)",
            waiting,
        ),
        (
            "DELETE FROM notify_held WHERE (app, user, chat, endpoint) IN (
               SELECT h.app, h.user, h.chat, h.endpoint FROM applications a CROSS JOIN notify_held h ON h.app = a.id AND h.until < ?2
               WHERE NOT EXISTS (SELECT 1 FROM notify_endpoints e WHERE e.app = a.id) LIMIT ?1)",
            waiting,
        ),
    ] {
        let pruned = sqlx::query(statement).bind(most).bind(before).execute(&mut *write).await?;
        done += pruned.rows_affected();
    }
    for statement in [
        "DELETE FROM notify_deliveries WHERE (app, endpoint, place) IN (
           SELECT d.app, d.endpoint, d.place FROM notify_removed r
           CROSS JOIN notify_deliveries d ON d.app = r.app AND d.endpoint = r.endpoint LIMIT ?)",
        "DELETE FROM notify_removed WHERE (app, endpoint) IN (
           SELECT r.app, r.endpoint FROM notify_removed r WHERE NOT EXISTS (
             SELECT 1 FROM notify_deliveries d WHERE d.app = r.app AND d.endpoint = r.endpoint) LIMIT ?)",
    ] {
        done += sqlx::query(statement).bind(most).execute(&mut *write).await?.rows_affected();
    }
    Ok(done)
}
