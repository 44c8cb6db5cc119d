//! How fast messages are found on Postgres (ME-6). Measurements, run by hand:
//! `cargo test --release -p common --test search_speed_postgres -- --ignored --nocapture --test-threads 1 a_million`
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
    search::Query,
    store::{CHATS_SEARCHED, Search, SearchScope, postgres::Postgres},
    time::Millis,
};
use postgres::OneDatabase;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

/// Words that are written at all.
const WORDS: f64 = 50_000.0;

/// Messages in each chat but the large one.
const SMALL: usize = 1_000;

/// Some word: the first of all is said in each second message, and the thousandth in one of a thousand.
fn common_word(random: &mut StdRng) -> usize {
    (random.random::<f64>() * WORDS.ln()).exp() as usize
}

/// The word with this rank: the frequent ones are short, and their parts are in the rare ones.
fn spelled(rank: usize) -> String {
    const PARTS: [&str; 40] = [
        "the", "a", "in", "er", "on", "re", "at", "en", "or", "is", "an", "es", "st", "al", "te", "ar", "nd",
        "to", "nt", "ing", "ha", "ve", "ed", "ou", "it", "me", "li", "co", "de", "ra", "ro", "ic", "so",
        "ne", "io", "se", "ma", "ti", "pre", "con",
    ];
    let (mut word, mut rest) = (String::new(), rank);
    loop {
        word.push_str(PARTS[rest % PARTS.len()]);
        rest /= PARTS.len();
        if rest == 0 {
            return word;
        }
    }
}

fn han(random: &mut StdRng) -> char {
    let rank = (random.random::<f64>() * 3_000_f64.ln()).exp() as u32;
    char::from_u32(0x4e00 + rank * 6).unwrap()
}

fn body(random: &mut StdRng) -> String {
    if random.random_range(0..50) == 0 {
        return (0..random.random_range(4..24)).map(|_| han(random)).collect();
    }
    let count = random.random_range(2..18);
    (0..count).map(|_| spelled(common_word(random))).collect::<Vec<_>>().join(" ")
}

struct Written {
    database: OneDatabase,
    big: ChatId,
    /// In the large chat, and in as many others as are searched.
    user: UserId,
}

/// Messages in all, a tenth of them or a million in one chat, in the order in which they would come: a chat's rows lie far apart.
async fn written(large: usize, messages: usize) -> Written {
    let database = OneDatabase::new().await;
    let (big, user) = (ChatId::random(), UserId::random());
    let smalls: Vec<Uuid> = (0..(messages - large) / SMALL).map(|_| Uuid::new_v4()).collect();
    let begun = Instant::now();
    let mut connection = database.connection().await;
    sqlx::raw_sql(
        "SET synchronous_commit = off; SET maintenance_work_mem = '512MB';
         ALTER TABLE messages DROP CONSTRAINT messages_pkey; DROP INDEX messages_by_client_id",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let every = messages / large;
    let mut numbers = vec![0_i64; smalls.len() + 1];
    let (mut at, mut others) = (0, 0);
    while at < messages {
        let (mut chats, mut chat_numbers, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for nth in at..(at + 20_000).min(messages) {
            let place = match smalls.len() {
                0 => 0,
                large if nth % every == 0 => large,
                count => {
                    others += 1;
                    others % count
                }
            };
            numbers[place] += 1;
            chats.push(smalls.get(place).copied().unwrap_or(big.0));
            chat_numbers.push(numbers[place]);
            bodies.push(body(&mut random));
        }
        at += bodies.len();
        sqlx::query(
            "INSERT INTO messages (app, chat, number, id, seq, sender, body, kind, created_at, deleted, client_id, fingerprint)
             SELECT $1, chat, number, gen_random_uuid(), number + 1, chat, body, 'text', number, false, 'c-' || number, number
             FROM UNNEST($2::uuid[], $3::bigint[], $4::text[]) AS k (chat, number, body)",
        )
        .bind(AppId::DEFAULT.0)
        .bind(chats)
        .bind(chat_numbers)
        .bind(bodies)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "ALTER TABLE messages ADD PRIMARY KEY (app, chat, number);
         CREATE INDEX messages_by_client_id ON messages (app, chat, sender, client_id, number) WHERE client_id IS NOT NULL;
         INSERT INTO chats (app, chat, created_by, number, created_at, head_number, head_seq, head_upto, active_at, members,
           makings, deleted, kind)
         SELECT '{app}', chat, chat, row_number() OVER (), 0, last, last + 1, last, last, 1, 1, false, 'group'
         FROM (SELECT chat, max(number) AS last FROM messages GROUP BY chat) c;
         INSERT INTO memberships (app, user_id, chat, joined_number, read_number, joined_seq, joined_upto)
         SELECT app, '{user}', chat, 0, 0, 0, 0 FROM (
           SELECT app, chat FROM chats ORDER BY head_number DESC LIMIT {CHATS_SEARCHED}) c;
         INSERT INTO search_due (app, chat, upto)
         SELECT c.app, c.chat, n.upto FROM chats c CROSS JOIN LATERAL generate_series(256, c.head_number, 256) AS n (upto)
         WHERE n.upto % 16384 = 0 OR (n.upto % 2048 = 0 AND n.upto > c.head_number / 16384 * 16384)
            OR n.upto > c.head_number / 2048 * 2048;
         ANALYZE messages",
        app = AppId::DEFAULT.0,
        user = user.0,
    )))
    .execute(&mut connection)
    .await
    .unwrap();
    println!("{messages} messages, {large} of them in one chat, written in {:.0?}", begun.elapsed());
    Written { database, big, user }
}

async fn indexed(store: &Arc<Postgres>, database: &OneDatabase) {
    let begun = Instant::now();
    let one = || {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let (mut made, mut idle) = (0, 0);
            // Beside others nothing may be free for a moment.
            while idle < 3 {
                match store.index_next(Millis::now()).await.unwrap() {
                    true => (made, idle) = (made + 1, 0),
                    false => {
                        idle += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
            made
        })
    };
    let (a, b) = (one(), one());
    let made: u32 = a.await.unwrap() + b.await.unwrap();
    let bytes =
        async |table: &str| database.number(&format!("SELECT pg_total_relation_size('{table}')")).await;
    println!(
        "{made} segments made by two in {:.0?}: {} MB beside {} MB of messages",
        begun.elapsed(),
        bytes("search_buckets").await / 1_000_000,
        bytes("messages").await / 1_000_000
    );
}

/// What people look for, by kind.
fn queries(random: &mut StdRng) -> Vec<(&'static str, Vec<String>)> {
    let some = |random: &mut StdRng, from: usize, to: usize| spelled(random.random_range(from..to));
    let many = |random: &mut StdRng, one: &dyn Fn(&mut StdRng) -> String| -> Vec<String> {
        (0..300).map(|_| one(random)).collect()
    };
    let typo = |random: &mut StdRng| loop {
        let mut word: Vec<char> = spelled(random.random_range(40..20_000)).chars().collect();
        if word.len() >= 5 {
            let at = random.random_range(0..word.len() - 1);
            match random.random_range(0..3) {
                0 => drop(word.remove(at)),
                1 => word[at] = 'z',
                _ => word.swap(at, at + 1),
            }
            return word.into_iter().collect();
        }
    };
    vec![
        ("common", many(random, &|random| some(random, 1, 20))),
        ("frequent", many(random, &|random| some(random, 20, 1_000))),
        ("rare", many(random, &|random| some(random, 5_000, 49_000))),
        ("part", many(random, &|random| some(random, 1_600, 20_000).chars().skip(1).take(4).collect())),
        (
            "two words",
            many(random, &|random| format!("{} {}", some(random, 1, 500), some(random, 40, 5_000))),
        ),
        (
            "five words",
            many(random, &|random| (0..5).map(|_| some(random, 1, 400)).collect::<Vec<_>>().join(" ")),
        ),
        ("typo", many(random, &typo)),
        ("two Chinese characters", many(random, &|random| (0..2).map(|_| han(random)).collect())),
        ("absent", many(random, &|random| some(random, 60_000, 2_000_000))),
        ("one letter", many(random, &|random| some(random, 1, 40).chars().take(1).collect())),
    ]
}

async fn measured(what: &str, store: &Postgres, within: SearchScope, random: &mut StdRng) {
    let mut all: Vec<Duration> = Vec::new();
    for (kind, queries) in queries(random) {
        let (mut took, mut hits, mut whole) = (Vec::new(), 0, true);
        for query in &queries {
            let query = Query::read(query);
            let begun = Instant::now();
            let found = store.search(within, &query).await.unwrap();
            took.push(begun.elapsed());
            hits += found.hits.len();
            whole &= found.whole;
        }
        took.sort();
        all.extend(&took);
        println!(
            "{what}, {kind}: p50 {:.1?}, p99 {:.1?}, at most {:.1?}; {:.0} found each{}",
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            took[took.len() - 1],
            hits as f64 / queries.len() as f64,
            if whole { "" } else { ", NOT WHOLE" }
        );
    }
    all.sort();
    println!("{what}, all: p50 {:.1?}, p99 {:.1?}", all[all.len() / 2], all[all.len() * 99 / 100]);
}

/// How the server finds the buckets of six keys in every segment of the large chat.
async fn plan(database: &OneDatabase, big: ChatKey) {
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    sqlx::raw_sql("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off")
        .execute(&mut connection)
        .await
        .unwrap();
    let rows = sqlx::query(
        "EXPLAIN (ANALYZE, BUFFERS) SELECT k.place, b.bytes
         FROM UNNEST(
           (SELECT array_agg(app) FROM search_segments s, generate_series(1, 6) n WHERE app = $1 AND chat = $2),
           (SELECT array_agg(chat) FROM search_segments s, generate_series(1, 6) n WHERE app = $1 AND chat = $2),
           (SELECT array_agg(first_number) FROM search_segments s, generate_series(1, 6) n WHERE app = $1 AND chat = $2),
           (SELECT array_agg(buckets * n / 7) FROM search_segments s, generate_series(1, 6) n WHERE app = $1 AND chat = $2))
           WITH ORDINALITY AS k (app, chat, first_number, bucket, place)
         JOIN search_buckets b ON b.app = k.app AND b.chat = k.chat AND b.first_number = k.first_number AND b.bucket = k.bucket",
    )
    .bind(big.app.0)
    .bind(big.chat.0)
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for row in rows {
        println!("    {}", row.get::<String, _>(0));
    }
}

async fn searches(large: usize, messages: usize) {
    let Written { database, big, user } = written(large, messages).await;
    let store = Arc::new(database.postgres().await);
    indexed(&store, &database).await;
    database.run("VACUUM ANALYZE search_buckets").await;
    database.run("VACUUM messages").await;
    let big = ChatKey { app: AppId::DEFAULT, chat: big };
    let mut random = StdRng::seed_from_u64(2);
    measured("in one chat", &store, SearchScope::Chat(big), &mut random).await;
    measured("in all chats", &store, SearchScope::ChatsOf(AppId::DEFAULT, user), &mut random).await;
    plan(&database, big).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn searches_in_a_chat_of_100_000_among_300_000() {
    searches(100_000, 300_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes"]
async fn searches_in_a_chat_of_a_million_among_two_millions() {
    searches(1_000_000, 2_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a quarter of an hour"]
async fn searches_in_a_chat_of_a_million_among_ten_millions() {
    searches(1_000_000, 10_000_000).await;
}
