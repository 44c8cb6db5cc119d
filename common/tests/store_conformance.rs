//! The embedded store does what every store must, and what only a file can do wrong.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use common::{
    ids::{AppId, ChatId, UserId},
    model::PageRequest,
    search::Query,
    store::{
        SearchScope, SharedStore, StoreError,
        conformance::{Fixture, Scribe},
        sqlite::Sqlite,
    },
    time::Millis,
};
use tempfile::TempDir;

struct OneFile(TempDir);

impl OneFile {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }
}

#[async_trait]
impl Fixture for OneFile {
    async fn open(&self) -> SharedStore {
        Arc::new(Sqlite::open(&self.0.path().join("store.db")).await.unwrap())
    }
}

common::store_conformance!(OneFile::new());

#[tokio::test]
async fn a_file_that_is_no_store_is_refused() {
    let folder = TempDir::new().unwrap();
    let text = folder.path().join("text.db");
    std::fs::write(&text, "no database, but a text of more than one hundred bytes. ".repeat(20)).unwrap();
    assert!(matches!(Sqlite::open(&text).await, Err(StoreError::Corrupt(_))), "a text");

    let other = folder.path().join("other.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&other).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql("CREATE TABLE birds (name TEXT)").execute(&pool).await.unwrap();
    assert!(matches!(Sqlite::open(&other).await, Err(StoreError::Corrupt(_))), "a database of another kind");
    sqlx::raw_sql("PRAGMA user_version = 1000").execute(&pool).await.unwrap();
    assert!(matches!(Sqlite::open(&other).await, Err(StoreError::Corrupt(_))), "a store of a later version");

    let nowhere = folder.path().join("no/such/folder/store.db");
    assert!(matches!(Sqlite::open(&nowhere).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn who_registered_before_names_had_words_is_found_by_name_as_well() {
    let file = OneFile::new();
    let scribe = Scribe::new(file.open().await);
    scribe.user("Ana Díaz").await;
    let before = sqlx::sqlite::SqliteConnectOptions::new().filename(file.0.path().join("store.db"));
    let before = sqlx::SqlitePool::connect_with(before).await.unwrap();
    sqlx::raw_sql("DELETE FROM user_words").execute(&before).await.unwrap();
    before.close().await;
    let page = PageRequest { page: 1, per_page: 10 };
    let found =
        async |store: SharedStore| store.find_people(AppId::DEFAULT, "diaz", page).await.unwrap().results;
    assert_eq!(found(scribe.store.clone()).await, []);
    assert_eq!(found(file.open().await).await.len(), 1);
}

#[tokio::test]
async fn me_6_what_was_there_before_the_search_index_is_due_in_it() {
    let file = OneFile::new();
    let mut scribe = Scribe::new(file.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    for _ in 0..5 {
        let changes = (0..500).map(|n| scribe.message(chat, ana, &format!("number {n}"))).collect();
        scribe.write(changes).await;
    }
    let before = sqlx::sqlite::SqliteConnectOptions::new().filename(file.0.path().join("store.db"));
    let before = sqlx::SqlitePool::connect_with(before).await.unwrap();
    sqlx::raw_sql(
        "DROP TABLE search_due; DROP TABLE search_segments; DROP TABLE search_buckets; DROP TABLE search_changes",
    )
    .execute(&before)
    .await
    .unwrap();
    sqlx::raw_sql(include_str!("../src/store/sqlite/schema/0011_search.sql")).execute(&before).await.unwrap();
    before.close().await;
    let store = file.open().await;
    let mut made = 0;
    while store.index_next(Millis(1)).await.unwrap() {
        made += 1;
    }
    assert_eq!(made, 2, "one of 2,048, and one of 256");
    let found = store.search(SearchScope::Chat(scribe.key(chat)), &Query::read("499")).await.unwrap();
    assert_eq!((found.hits.len(), found.whole), (5, true));
}

#[tokio::test]
async fn a_closed_store_says_that_it_is_not_available() {
    let folder = TempDir::new().unwrap();
    let store = Sqlite::open(&folder.path().join("store.db")).await.unwrap();
    store.close().await;
    let store: SharedStore = Arc::new(store);
    assert!(matches!(store.positions().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.cluster_secret("x", b"y").await, Err(StoreError::Unavailable(_))));
}

/// `cargo test --release -p common --test store_conformance -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn changes_per_second() {
    for chats in [10, 1_000, 10_000] {
        let file = OneFile::new();
        let mut scribe = Scribe::new(file.open().await);
        let (ana, ben) = (UserId::random(), UserId::random());
        let mut known = Vec::new();
        for _ in 0..chats {
            known.push(scribe.chat(ana, ben));
        }
        let (chats, made): (Vec<ChatId>, Vec<_>) = known.into_iter().unzip();
        for part in made.chunks(1_000) {
            scribe.write(part.to_vec()).await;
        }
        let mut batches = Vec::new();
        for batch in 0..50 {
            let one = |n: usize| {
                let chat = chats[(batch * 1_000 + n) * 7_919 % chats.len()];
                scribe.named(chat, ana, &"x".repeat(100), Some(&format!("{batch}-{n}")))
            };
            batches.push((0..1_000).map(one).collect::<Vec<_>>());
        }
        let begun = Instant::now();
        for batch in batches {
            scribe.write(batch).await;
        }
        let took = begun.elapsed();
        println!("{} chats: {:.0} changes/s", chats.len(), 50_000.0 / took.as_secs_f64());
    }
}
