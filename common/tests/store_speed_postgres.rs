//! How fast the store on Postgres is, side by side with what the server can do at all. Measurements, run by hand:
//! `cargo test --release -p common --test store_speed_postgres -- --ignored --nocapture --test-threads 1`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement may"
)]

mod postgres;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    ids::{AppId, ChatId, ChatKey, UserId},
    store::{Chats, Drain, Range, conformance::Scribe, fingerprint},
    wire::record::{Change, What},
};
use postgres::OneDatabase;
use sqlx::PgConnection;
use uuid::Uuid;

/// Records in one transaction: the writer's default.
const BATCH: usize = 2_000;

/// The rows of a batch, written as bare as can be into a table like `messages`.
async fn bare(connection: &mut PgConnection, table: &'static str, changes: &[Change]) -> Duration {
    let column = |value: &dyn Fn(&Change) -> i64| changes.iter().map(value).collect::<Vec<_>>();
    let sent = |change: &Change| match &change.what {
        What::Sent { id, number, client_id, body, kind, .. } => {
            let client_id = client_id.as_ref().map(|name| name.as_str().to_owned());
            (id.0, *number, client_id, body.clone(), *kind)
        }
        other => panic!("{other:?}"),
    };
    let sent: Vec<_> = changes.iter().map(sent).collect();
    let apps: Vec<Uuid> = changes.iter().map(|change| change.app.0).collect();
    let chats: Vec<Uuid> = changes.iter().map(|change| change.chat.0).collect();
    let senders: Vec<Uuid> = changes.iter().map(|change| change.by.0).collect();
    let numbers: Vec<i64> = sent.iter().map(|sent| sent.1.cast_signed()).collect();
    let ids: Vec<Uuid> = sent.iter().map(|sent| sent.0).collect();
    let bodies: Vec<&str> = sent.iter().map(|sent| sent.3.as_str()).collect();
    let kinds: Vec<&str> = sent.iter().map(|sent| sent.4.word()).collect();
    let client_ids: Vec<Option<&str>> = sent.iter().map(|sent| sent.2.as_deref()).collect();
    let prints: Vec<i64> =
        sent.iter().map(|sent| fingerprint(&sent.3, sent.4, None, &[]).cast_signed()).collect();
    let (seqs, ats) = (column(&|change| change.seq.cast_signed()), column(&|change| change.at.0));
    let sql = format!(
        "INSERT INTO {table} (app, chat, number, id, seq, sender, body, kind, created_at, deleted, client_id, fingerprint)
         SELECT app, chat, number, id, seq, sender, body, kind, at, false, client_id, print
         FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::bigint[], $6::uuid[], $7::text[], $8::text[],
           $9::bigint[], $10::text[], $11::bigint[])
           AS k (app, chat, number, id, seq, sender, body, kind, at, client_id, print)
         ON CONFLICT DO NOTHING"
    );
    let begun = Instant::now();
    let done = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(apps)
        .bind(chats)
        .bind(numbers)
        .bind(ids)
        .bind(seqs)
        .bind(senders)
        .bind(bodies)
        .bind(kinds)
        .bind(ats)
        .bind(client_ids)
        .bind(prints)
        .execute(connection)
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), changes.len() as u64);
    begun.elapsed()
}

/// Messages drained by one writer, in as many chats, beside a bare loop that writes the same rows batch by batch.
async fn drain(chats: usize, messages: usize) {
    let database = OneDatabase::new().await;
    database.run("CREATE TABLE bare (LIKE messages INCLUDING ALL)").await;
    database
        .run("CREATE TABLE barest (LIKE messages INCLUDING DEFAULTS); ALTER TABLE barest ADD PRIMARY KEY (app, chat, number)")
        .await;
    let store = Arc::new(database.postgres().await);
    let mut scribe = Scribe::new(store.clone());
    let mut connection = database.connection().await;
    let users: Vec<UserId> = (0..100).map(|_| UserId::random()).collect();
    let mut known = Vec::new();
    for n in 0..chats {
        known.push(scribe.chat(users[n % 100], users[(n * 7 + 1) % 100]));
    }
    let (known, made): (Vec<ChatId>, Vec<_>) = known.into_iter().unzip();
    for part in made.chunks(BATCH) {
        scribe.write(part.to_vec()).await;
    }
    let (mut ours, mut same, mut key_only) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for batch in 0..messages / BATCH {
        let one = |n: usize| {
            let place = (batch * BATCH + n) * 7_919 % chats;
            scribe.named(known[place], users[place % 100], &"x".repeat(100), Some(&format!("{batch}-{n}")))
        };
        let changes: Vec<Change> = (0..BATCH).map(one).collect();
        same += bare(&mut connection, "bare", &changes).await;
        key_only += bare(&mut connection, "barest", &changes).await;
        let batch = [scribe.batch(0, changes)];
        let begun = Instant::now();
        assert_eq!(store.apply(&batch).await.unwrap(), [Ok(())]);
        ours += begun.elapsed();
        scribe.applied(&batch[0]);
    }
    let rate = |took: Duration| messages as f64 / took.as_secs_f64();
    println!(
        "{messages} messages in {chats} chats: drained {:.0}/s; bare with the same indexes {:.0}/s ({:.2}), with the key only \
         {:.0}/s ({:.2})",
        rate(ours),
        rate(same),
        same.as_secs_f64() / ours.as_secs_f64(),
        rate(key_only),
        key_only.as_secs_f64() / ours.as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn messages_drained_per_second() {
    for chats in [100, 1_000, 10_000] {
        drain(chats, 100_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes"]
async fn a_million_messages_drained_per_second() {
    drain(1_000, 1_000_000).await;
}

/// Pages of 50 of a chat that has a tenth of all messages, the others being in chats of 1,000: written in turn, so that a chat's rows lie
/// far apart.
async fn pages(messages: i64) {
    let database = OneDatabase::new().await;
    let big = ChatId::random();
    let small = messages * 9 / 10 / 1_000;
    let app = AppId::DEFAULT.0;
    let chat = format!(
        "CASE WHEN g % 10 = 0 THEN '{}'::uuid ELSE md5(((g - g / 10 - 1) % {small})::text)::uuid END",
        big.0
    );
    let begun = Instant::now();
    database
        .run(&format!(
            "SET synchronous_commit = off; SET maintenance_work_mem = '512MB';
             ALTER TABLE messages DROP CONSTRAINT messages_pkey; DROP INDEX messages_by_client_id;
             INSERT INTO messages (app, chat, number, id, seq, sender, body, kind, created_at, deleted, client_id, fingerprint)
             SELECT '{app}', {chat}, CASE WHEN g % 10 = 0 THEN g / 10 ELSE (g - g / 10 - 1) / {small} + 1 END,
               gen_random_uuid(), 1 + g, md5((g % 100)::text)::uuid, repeat('x', 100), 'text', g, false, 'c-' || g, g
             FROM generate_series(1, {messages}) g;
             ALTER TABLE messages ADD PRIMARY KEY (app, chat, number);
             CREATE INDEX messages_by_client_id ON messages (app, chat, sender, client_id, number) WHERE client_id IS NOT NULL;
             INSERT INTO chats (app, chat, created_by, number, created_at, head_number, head_seq, head_upto, active_at, members,
               makings, deleted, kind)
             SELECT '{app}', chat, chat, row_number() OVER (), 0, last, last + 1, last, last, 0, 1, false, 'group'
             FROM (SELECT chat, max(number) AS last FROM messages GROUP BY chat) c"
        ))
        .await;
    println!("{messages} messages written in {:.0?}", begun.elapsed());
    let store = database.postgres().await;
    let key = ChatKey { app: AppId::DEFAULT, chat: big };
    let newest = (messages / 10).unsigned_abs();
    let mut took = Vec::new();
    for n in 0..4_000_u64 {
        let at = n * 7_919_993 % newest;
        let range = if n % 2 == 0 { Range::Before(at + 51) } else { Range::After(at.min(newest - 50)) };
        let begun = Instant::now();
        let slice = store.history(key, range, 50).await.unwrap().unwrap();
        took.push(begun.elapsed());
        assert_eq!(slice.messages.len(), 50);
    }
    took.sort();
    println!("a page of 50: p50 {:.2?}, p99 {:.2?}, at most {:.2?}", took[2_000], took[3_960], took[3_999]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn pages_of_a_chat_of_100_000_among_a_million() {
    pages(1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes"]
async fn pages_of_a_chat_of_a_million_among_ten_millions() {
    pages(10_000_000).await;
}
