//! The store on Postgres does what every store must, and what only a server that many share can do wrong.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod postgres;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use common::{
    ids::{AppId, ChatId, EndpointId, UserId, UserKey},
    model::{ChatKind, PageRequest, Role},
    notifications::{ChatPreferences, Endpoint, Preferences, Target},
    search::Query,
    store::{
        Accounts, Drain, Except, Listed, Looked, PartitionBatch, Position, ReadMark, Receivers, Refused,
        SearchScope, SharedStore, StoreError, User,
        conformance::{Fixture, Scribe, round, waiting},
        postgres::{Postgres, PostgresSettings, check_url, without_password},
    },
    term::TermState,
    time::Millis,
    wire::record::{Change, What},
};
use futures_util::future::join_all;
use postgres::{FEW, OneDatabase};
use sqlx::Connection;
use uuid::Uuid;

#[async_trait]
impl Fixture for OneDatabase {
    async fn open(&self) -> SharedStore {
        Arc::new(self.postgres().await)
    }
}

common::store_conformance!(OneDatabase::new().await);

fn corrupt<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Corrupt(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn unavailable<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn made(members: &[UserId]) -> What {
    What::Created {
        kind: ChatKind::Group,
        name: None,
        description: None,
        members: members.iter().map(|user| (*user, Role::Member)).collect(),
        request: None,
    }
}

/// The schema is made by a command, once, by however many at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_made_once_and_by_a_command_only() {
    let database = OneDatabase::empty().await;
    let why = corrupt(Postgres::open(&database.url(), FEW).await);
    assert!(why.contains("storage-writer init"), "{why}");
    for outcome in join_all((0..6).map(|_| async { Postgres::init(&database.url()).await })).await {
        outcome.unwrap();
    }
    let applications = database.postgres().await.applications().await.unwrap();
    Postgres::init(&database.url()).await.unwrap();
    assert_eq!(database.postgres().await.applications().await.unwrap(), applications, "nothing has changed");
}

/// A database whose schema stopped before the step of retention: one that follows finds its name taken.
async fn stopped_before_retention() -> OneDatabase {
    let database = OneDatabase::empty().await;
    database.run("CREATE SEQUENCE chats_with_retention").await;
    let why = unavailable(Postgres::init(&database.url()).await);
    assert!(why.contains("chats_with_retention"), "{why}");
    assert_eq!(database.number("SELECT version FROM store_version").await, 10);
    database.run("DROP SEQUENCE chats_with_retention").await;
    database
}

#[tokio::test]
async fn a_schema_that_was_interrupted_goes_on_where_it_stopped() {
    let database = stopped_before_retention().await;
    let why = corrupt(Postgres::open(&database.url(), FEW).await);
    assert!(why.contains("storage-writer init"), "{why}");
    Postgres::init(&database.url()).await.unwrap();
    assert_eq!(database.postgres().await.applications().await.unwrap().len(), 1);
}

const MESSAGE: &str = "INSERT INTO messages (app, chat, id, sender, number, seq, created_at, fingerprint, deleted, kind, body)
    VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 1, 0, 0, false, 'text', '')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_all_messages_is_made_while_others_write_and_anew_after_it_was_interrupted() {
    let database = stopped_before_retention().await;
    database.run("DROP INDEX messages_by_id; UPDATE store_version SET version = 9").await;
    // It waits for who has written and not committed, and nobody waits for it.
    let mut other = database.connection().await;
    let mut hold = other.begin().await.unwrap();
    sqlx::query(MESSAGE).execute(&mut *hold).await.unwrap();
    let url = database.url();
    let interrupted = tokio::spawn(async move { Postgres::init(&url).await });
    let pid = database.waiting().await;
    tokio::time::timeout(Duration::from_secs(20), database.run(MESSAGE)).await.unwrap();
    database.run(&format!("SELECT pg_terminate_backend({pid})")).await;
    unavailable(interrupted.await.unwrap());
    let valid = "SELECT count(*) FROM pg_index WHERE indexrelid = 'messages_by_id'::regclass AND indisvalid";
    assert_eq!(database.number(valid).await, 0);
    hold.commit().await.unwrap();
    Postgres::init(&database.url()).await.unwrap();
    assert_eq!(database.number(valid).await, 1);
    assert_eq!(database.number("SELECT count(*) FROM messages").await, 2);
}

#[tokio::test]
async fn who_registered_before_names_had_words_is_found_by_name_as_well() {
    let database = OneDatabase::new().await;
    let scribe = Scribe::new(Arc::new(database.postgres().await));
    scribe.user("Ana Díaz").await;
    database.run("DELETE FROM user_words").await;
    let page = PageRequest { page: 1, per_page: 10 };
    let found = async || scribe.store.find_people(AppId::DEFAULT, "diaz", page).await.unwrap().results;
    assert_eq!(found().await, []);
    Postgres::init(&database.url()).await.unwrap();
    assert_eq!(found().await.len(), 1);
}

#[tokio::test]
async fn me_6_what_was_there_before_the_search_index_is_due_in_it() {
    let database = OneDatabase::new().await;
    let store: SharedStore = Arc::new(database.postgres().await);
    let mut scribe = Scribe::new(store.clone());
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    for _ in 0..5 {
        let changes = (0..500).map(|n| scribe.message(chat, ana, &format!("number {n}"))).collect();
        scribe.write(changes).await;
    }
    database.run("DROP TABLE search_due, search_segments, search_buckets, search_changes").await;
    database.run(include_str!("../src/store/postgres/schema/0009_search.sql")).await;
    let mut made = 0;
    while store.index_next(Millis(1)).await.unwrap() {
        made += 1;
    }
    assert_eq!(made, 2, "one of 2,048, and one of 256");
    let found = store.search(SearchScope::Chat(scribe.key(chat)), &Query::read("499")).await.unwrap();
    assert_eq!((found.hits.len(), found.whole), (5, true));
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused_with_what_to_do() {
    let database = OneDatabase::new().await;
    let version = database.number("SELECT version FROM store_version").await;
    database.run("UPDATE store_version SET version = version - 1").await;
    let why = corrupt(Postgres::open(&database.url(), FEW).await);
    assert!(
        why.contains("run `storage-writer init`") && why.contains(&format!("version {}", version - 1)),
        "{why}"
    );
    database.run("UPDATE store_version SET version = 1000").await;
    for why in
        [corrupt(Postgres::open(&database.url(), FEW).await), corrupt(Postgres::init(&database.url()).await)]
    {
        assert!(why.contains("newer version") && why.contains("1000"), "{why}");
    }

    let other = OneDatabase::empty().await;
    other.run("CREATE TABLE birds (name text)").await;
    let why = corrupt(Postgres::init(&other.url()).await);
    assert!(why.contains("another kind"), "{why}");
    assert_eq!(other.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 1);
}

#[tokio::test]
async fn who_is_not_let_in_is_told_what_to_do() {
    let server = postgres::server();
    let why = unavailable(Postgres::open(&format!("{server}/nowhere"), FEW).await);
    assert!(why.contains("no database \"nowhere\"") && why.contains("createdb"), "{why}");
    let (_, address) = server.split_once('@').unwrap();
    let why = unavailable(Postgres::init(&format!("postgres://nobody:secret@{address}/postgres")).await);
    assert!(
        why.contains("\"nobody\"") && why.contains("password in the URL") && !why.contains("secret"),
        "{why}"
    );
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = unavailable(Postgres::open(&format!("postgres://ana@{free}/chat"), FEW).await);
    assert!(
        why.contains(&format!("no Postgres answers at {free}")) && why.contains("check that it runs"),
        "{why}"
    );

    for wrong in
        ["postgres://ana:secret@host:port/chat", "mysql://ana:secret@host/chat", "postgres://ana:secret@host"]
    {
        let why = check_url(wrong).unwrap_err();
        assert!(
            why.contains("postgres://user:password@host:port/database") && !why.contains("secret"),
            "{why}"
        );
        assert_eq!(corrupt(Postgres::open(wrong, FEW).await), why);
    }
    let url = "postgres://ana:secret@host:99/chat";
    assert_eq!(check_url(url), Ok(()));
    assert_eq!(without_password(url), "postgres://ana@host:99/chat");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn op_5_of_two_processes_that_apply_to_the_same_partitions_each_partition_takes_one() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let other = database.open().await;
    let ana = UserId::random();
    let chats: Vec<ChatId> = (0..3).map(|_| ChatId::random()).collect();
    for round in 0..25 {
        let mut batches = Vec::new();
        for (partition, chat) in (0..).zip(&chats) {
            let change = match round {
                0 => scribe.change(*chat, ana, made(&[ana])),
                _ => scribe.message(*chat, ana, "hello"),
            };
            batches.push(scribe.batch(partition, vec![change]));
        }
        let reversed: Vec<PartitionBatch> = batches.iter().rev().cloned().collect();
        let (one, two) = tokio::join!(scribe.store.apply(&batches), other.apply(&reversed));
        let (one, mut two) = (one.unwrap(), two.unwrap());
        two.reverse();
        for ((batch, one), two) in batches.iter().zip(one).zip(two) {
            let moved = Err(Refused::Moved(Some(batch.next)));
            assert!((one == Ok(()) && two == moved) || (one == moved && two == Ok(())), "{one:?} {two:?}");
            scribe.applied(batch);
        }
    }
    let ids = scribe.store.message_ids(scribe.key(chats[2]), 0, 100).await.unwrap();
    assert_eq!(ids.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=24).collect::<Vec<_>>());
}

/// What one writer does to its partition: chats are made, spoken in, left, come into again and deleted, by the same few users everywhere.
async fn write_much(store: SharedStore, partition: u16, users: Vec<UserId>) {
    let mut scribe = Scribe::new(store);
    let mut chats: Vec<ChatId> = Vec::new();
    for round in 0..20 {
        // Not in the order of the users, and another one in each partition.
        let mut members = users.clone();
        members.rotate_left((usize::from(partition) * 7 + round) % users.len());
        let mut changes = Vec::new();
        for _ in 0..3 {
            let chat = ChatId::random();
            changes.push(scribe.change(chat, members[0], made(&members)));
            chats.push(chat);
        }
        for chat in &chats[chats.len().saturating_sub(9)..] {
            for user in &members {
                changes.push(scribe.message(*chat, *user, "hello"));
            }
            changes.push(scribe.change(*chat, members[1], What::Left { user: members[1], heir: None }));
            changes.push(scribe.change(
                *chat,
                members[0],
                What::Joined { user: members[1], role: Role::Member },
            ));
        }
        if round % 3 == 2 {
            let gone = chats.remove(chats.len() - 9);
            changes.push(scribe.change(gone, members[0], What::Deleted));
        }
        assert_eq!(scribe.attempt(partition, changes).await, Ok(()));
    }
}

/// What a node does beside them, in no order.
async fn read_much(store: SharedStore, users: Vec<UserId>) {
    for round in 0..60 {
        let mut marks = Vec::new();
        for user in &users {
            let page = PageRequest { page: 1, per_page: 30 };
            for chat in store.chats_of(AppId::DEFAULT, *user, page).await.unwrap().results {
                let key = common::ids::ChatKey { app: AppId::DEFAULT, chat: chat.id };
                marks.push(ReadMark { chat: key, user: *user, number: chat.messages_count, head: 0 });
            }
        }
        let middle = (round * 13) % marks.len().max(1);
        marks.rotate_left(middle);
        store.mark_read(&marks).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_many_partitions_and_readers_of_the_same_users_never_wait_in_a_circle() {
    let database = OneDatabase::new().await;
    let users: Vec<UserId> = (0..6).map(|_| UserId::random()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    let mut handles = Vec::new();
    for partition in 0..8 {
        let store = Arc::new(database.postgres().await);
        handles.push(store.clone());
        tasks.spawn(write_much(store, partition, users.clone()));
    }
    for _ in 0..3 {
        let store = Arc::new(database.postgres().await);
        handles.push(store.clone());
        tasks.spawn(read_much(store, users.clone()));
    }
    tokio::time::timeout(Duration::from_secs(120), tasks.join_all()).await.unwrap();
    // A backend tells its counts when it ends at the latest.
    for store in handles {
        store.close().await;
    }
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'chat'";
    while database.number(backends).await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(database.number(deadlocks).await, 0);
    // 8 partitions, 20 rounds, 3 chats.
    assert_eq!(database.number("SELECT count(*) FROM chats").await, 480);
    assert_eq!(database.number("SELECT max(number) FROM chats").await, 480);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_who_is_being_erased_nothing_is_noted_and_whose_profile_changes_is_not_waited_for() {
    let database = OneDatabase::new().await;
    let scribe = Scribe::new(database.open().await);
    let ana = UserKey { app: AppId::DEFAULT, user: scribe.user("Ana").await };
    let (mut other, seen) = (database.connection().await, [(ana, Millis(5))]);
    let mut renamed = other.begin().await.unwrap();
    sqlx::query("UPDATE users SET name = 'Anna'").execute(&mut *renamed).await.unwrap();
    scribe.store.note_seen(&seen).await.unwrap();
    renamed.commit().await.unwrap();
    let mut erased = other.begin().await.unwrap();
    sqlx::query("UPDATE users SET folded = 'ERASED', erased_at = 1").execute(&mut *erased).await.unwrap();
    sqlx::query("DELETE FROM last_seen").execute(&mut *erased).await.unwrap();
    let store = scribe.store.clone();
    let noted = tokio::spawn(async move { store.note_seen(&seen).await });
    database.waiting().await;
    erased.commit().await.unwrap();
    noted.await.unwrap().unwrap();
    assert_eq!(scribe.store.last_seen(&[ana]).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_that_others_cause_is_tried_again() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = scribe.group(None, &[ana, ben]).await;
    scribe.say(chat, ana, "hello").await;
    // Somebody who keeps no order: holds the second of two rows, and wants the first one.
    let mut keys = [ana, ben];
    keys.sort();
    let mut other = database.connection().await;
    let mut hold = other.begin().await.unwrap();
    let lock = "SELECT 1 FROM memberships WHERE user_id = $1 FOR UPDATE";
    sqlx::query("SET LOCAL deadlock_timeout = '1h'").execute(&mut *hold).await.unwrap();
    sqlx::query(lock).bind(keys[1].0).execute(&mut *hold).await.unwrap();
    let marks = [ana, ben].map(|user| ReadMark { chat: scribe.key(chat), user, number: 1, head: 0 });
    let store = scribe.store.clone();
    let marked = tokio::spawn(async move { store.mark_read(&marks).await });
    database.waiting().await;
    // The server ends our wait, for the other one's check is an hour away; ours comes again and waits until the other is done.
    sqlx::query(lock).bind(keys[0].0).execute(&mut *hold).await.unwrap();
    hold.commit().await.unwrap();
    let marked = marked.await.unwrap().unwrap();
    assert!(marked.iter().all(Option::is_some), "{marked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_3_who_gives_a_queue_back_waits_for_what_is_just_put_into_it() {
    let database = OneDatabase::new().await;
    let store = database.open().await;
    let at = Millis(1);
    webhook(&store).await;
    database.run("UPDATE notify_endpoints SET queued = true").await;
    let lease = Duration::from_secs(60);
    let leased =
        store.lease_endpoints(Receivers::Webhooks, Except::default(), at, lease, 1).await.unwrap().remove(0);

    let mut other = database.connection().await;
    let mut put = other.begin().await.unwrap();
    sqlx::raw_sql(
        "UPDATE notify_endpoints SET queued = true, last_place = 1;
         INSERT INTO notify_deliveries (app, endpoint, place, id, body, state, created_at, since)
         SELECT app, id, 1, gen_random_uuid(), '{}', 'pending', 1, 1 FROM notify_endpoints",
    )
    .execute(&mut *put)
    .await
    .unwrap();
    let again = store.clone();
    let released = tokio::spawn(async move { again.release_endpoint(&leased, at).await });
    database.waiting().await;
    put.commit().await.unwrap();
    released.await.unwrap().unwrap();
    assert_eq!(
        store.lease_endpoints(Receivers::Webhooks, Except::default(), at, lease, 1).await.unwrap().len(),
        1,
        "it is not taken for empty"
    );
}

/// A webhook of the first application, in the store.
async fn webhook(store: &SharedStore) {
    let target = Target::Webhook { url: "https://hooks.example".to_owned(), secret: vec![1; 32] };
    let (id, created_at) = (EndpointId::random(), Millis(1));
    let hook = Endpoint { id, app: AppId::DEFAULT, target, created_at, enabled: true };
    store.add_endpoint(&hook).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_1_pages_of_a_round_and_batches_wait_for_each_other_at_its_end_only() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let (store, ana) = (scribe.store.clone(), UserId::random());
    webhook(&store).await;
    let chat = scribe.group(None, &[ana]).await;
    scribe.say(chat, ana, "hello").await;
    let begun = waiting(&store, AppId::DEFAULT).await.remove(0);

    // A batch is being written.
    let mut other = database.connection().await;
    let mut batch = other.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM positions FOR UPDATE").execute(&mut *batch).await.unwrap();
    let page = Looked { after: Some(ana), ..round(&begun, 1) };
    assert!(store.looked(&page).await.unwrap(), "it does not wait for the batch");
    let going = waiting(&store, AppId::DEFAULT).await.remove(0);
    let (last, ending) = (round(&going, 1), store.clone());
    let ended = tokio::spawn(async move { ending.looked(&last).await });
    database.waiting().await;
    // What the batch says of the chat does not wait for the round.
    let noted = sqlx::query(
        "INSERT INTO notify_waiting (app, chat, partition, from_number, from_at)
         SELECT app, chat, partition, 2, 2 FROM notify_waiting ON CONFLICT DO NOTHING",
    );
    assert_eq!(noted.execute(&mut *batch).await.unwrap().rows_affected(), 0);
    batch.commit().await.unwrap();
    assert!(ended.await.unwrap().unwrap());
    assert_eq!(waiting(&store, AppId::DEFAULT).await, []);
}

#[tokio::test]
async fn no_2_a_choice_that_cannot_be_read_holds_nobody_up() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let (store, ana) = (scribe.store.clone(), scribe.user("Ana").await);
    let chat = scribe.group(None, &[ana]).await;
    let (app, key) = (AppId::DEFAULT, scribe.key(chat));
    let user = UserKey { app, user: ana };
    assert!(store.set_preferences(user, &Preferences::default()).await.unwrap());
    assert!(store.set_chat_preferences(key, ana, &ChatPreferences::default()).await.unwrap());
    webhook(&store).await;
    database
        .run(
            r#"UPDATE notification_preferences SET preferences = '{"kinds": [], "sound": "bell"}';
               UPDATE chat_notification_preferences SET preferences = 'loud';
               UPDATE applications SET settings = '{"notifications": 7}'"#,
        )
        .await;
    let candidate = store.candidates_among(key, &[ana]).await.unwrap().remove(0);
    assert!(candidate.preferences.kinds.is_empty());
    assert_eq!(candidate.chat, ChatPreferences::default());
    assert_eq!(store.preferences(user).await.unwrap(), candidate.preferences);
    assert_eq!(store.notifying().await.unwrap(), [(app, Duration::from_secs(300))]);
}

#[tokio::test]
async fn no_2_what_was_chosen_for_a_chat_ends_with_it() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chats = [scribe.group(None, &[ana, ben]).await, scribe.group(None, &[ana, ben]).await];
    for chat in chats {
        for user in [ana, ben] {
            let chosen = ChatPreferences::default();
            assert!(scribe.store.set_chat_preferences(scribe.key(chat), user, &chosen).await.unwrap());
        }
    }
    let count = "SELECT count(*) FROM chat_notification_preferences";
    assert_eq!(database.number(count).await, 4);
    scribe.does(chats[0], ana, What::Left { user: ben, heir: None }).await;
    assert_eq!(database.number(count).await, 3);
    scribe.does(chats[0], ana, What::Deleted).await;
    assert_eq!(database.number(count).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_killed_is_not_available_and_the_next_one_is() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    let message = scribe.message(chat, ana, "hello");
    let batch = scribe.batch(0, vec![message]);

    let mut other = database.connection().await;
    let mut hold = other.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM positions FOR UPDATE").execute(&mut *hold).await.unwrap();
    let (store, batches) = (scribe.store.clone(), [batch.clone()]);
    let applied = tokio::spawn(async move { store.apply(&batches).await });
    let pid = database.waiting().await;
    database.run(&format!("SELECT pg_terminate_backend({pid})")).await;
    unavailable(applied.await.unwrap());
    hold.rollback().await.unwrap();
    assert_eq!(scribe.store.apply(std::slice::from_ref(&batch)).await.unwrap(), [Ok(())]);
    scribe.applied(&batch);

    // All that lie idle, at once: each is found out at most once.
    database
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        .await;
    let mut refused = 0;
    while let Err(error) = scribe.store.positions().await {
        unavailable::<()>(Err(error));
        refused += 1;
        assert!(refused <= FEW.max_connections, "every connection is new by now");
    }
    scribe.say(chat, ana, "still here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_is_told_so_and_one_that_stands_still_loses_its_locks() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let chat = scribe.group(None, &[UserId::random()]).await;
    let message = scribe.message(chat, UserId::random(), "hello");
    let batch = scribe.batch(0, vec![message]);
    let hasty = PostgresSettings { statement_timeout: Duration::from_millis(300), ..FEW };
    let hasty = Postgres::open(&database.url(), hasty).await.unwrap();

    let mut other = database.connection().await;
    let mut hold = other.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM positions FOR UPDATE").execute(&mut *hold).await.unwrap();
    let why = unavailable(hasty.apply(std::slice::from_ref(&batch)).await);
    assert!(why.contains("statement timeout"), "{why}");
    // As the connections of a store have it set: the server ends what lies idle.
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = '200ms'").execute(&mut *hold).await.unwrap();
    assert_eq!(scribe.store.apply(std::slice::from_ref(&batch)).await.unwrap(), [Ok(())]);
    let settings = database.connection_of(&hasty).await;
    assert_eq!(settings, "300ms");
}

impl OneDatabase {
    /// What the connections of a store have set for transactions that lie idle, seen through a name that it looks up.
    async fn connection_of(&self, store: &Postgres) -> String {
        self.run("CREATE TABLE seen (value text)").await;
        self.run(
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO seen VALUES (current_setting('idle_in_transaction_session_timeout')); RETURN NEW; END $$;
             CREATE TRIGGER see BEFORE INSERT ON secrets FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .await;
        store.cluster_secret("any", &[1]).await.unwrap();
        sqlx::query_scalar("SELECT value FROM seen").fetch_one(&mut self.connection().await).await.unwrap()
    }
}

#[tokio::test]
async fn tables_that_disagree_stop_the_partition_they_are_about_alone() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let ana = UserId::random();
    let chats: Vec<ChatId> = (0..3).map(|_| ChatId::random()).collect();
    for (partition, chat) in (0..).zip(&chats) {
        let change = scribe.change(*chat, ana, made(&[ana]));
        assert_eq!(scribe.attempt(partition, vec![change]).await, Ok(()));
    }
    // A message that no head knows of.
    database
        .run(&format!(
            "INSERT INTO messages (app, chat, id, sender, number, seq, created_at, fingerprint, deleted, kind, body)
             VALUES ('{}', '{}', gen_random_uuid(), gen_random_uuid(), 1, 2, 0, 0, false, 'text', '')",
            AppId::DEFAULT.0, chats[1].0
        ))
        .await;
    let mut batches = Vec::new();
    for (partition, chat) in (0..).zip(&chats) {
        let change = scribe.message(*chat, ana, "hello");
        batches.push(scribe.batch(partition, vec![change]));
    }
    let outcomes = scribe.store.apply(&batches).await.unwrap();
    assert_eq!((&outcomes[0], &outcomes[2]), (&Ok(()), &Ok(())));
    match &outcomes[1] {
        Err(Refused::Broken { chat, seq: 2, why }) => {
            assert_eq!(chat.chat, chats[1]);
            assert!(why.contains("messages_pkey") && why.contains("already exists"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    let positions = scribe.store.positions().await.unwrap();
    assert_eq!(positions.iter().map(|(_, position)| position.offset).collect::<Vec<_>>(), [2, 1, 2]);
}

/// It never comes this far; if it does, it is an error like another.
#[tokio::test]
async fn a_character_that_no_text_can_have_is_refused() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    let bad = scribe.message(chat, ana, "a\0b");
    let outcome = scribe.attempt(0, vec![bad]).await;
    assert!(matches!(outcome, Err(Refused::Broken { .. })), "{outcome:?}");
    let user = User::without_password(ana, "a\0".into(), "a".into(), Millis(1));
    corrupt(scribe.store.add_user(AppId::DEFAULT, &user).await);
    corrupt(scribe.store.user_by_username(AppId::DEFAULT, "a\0").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn op_6_a_page_of_all_messages_reads_no_others() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let ana = scribe.user("Ana").await;
    for _ in 0..3 {
        let chat = scribe.group(None, &[ana]).await;
        let changes = (0..300).map(|n| scribe.message(chat, ana, &format!("{n}"))).collect();
        scribe.write(changes).await;
    }
    let app = scribe.app;
    drop(scribe);
    // A backend tells what it has read when it ends at the latest; the one that asks has the name of no store.
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'chat'";
    let read = "SELECT coalesce(sum(idx_tup_read), 0)::bigint + (
          SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'messages')
        FROM pg_stat_user_indexes WHERE relname = 'messages'";
    let settled = async || {
        while database.number(backends).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        database.number(read).await
    };
    let before = settled().await;
    let store = database.postgres().await;
    let page = store.all_messages(app, PageRequest { page: 60, per_page: 10 }).await.unwrap();
    assert_eq!((page.total, page.results.len()), (90, 10));
    assert_eq!((page.results[0].body.as_str(), page.results[9].body.as_str()), ("290", "299"));
    let page = store.all_messages(app, PageRequest { page: 13, per_page: 50 }).await.unwrap();
    assert_eq!((page.results[0].body.as_str(), page.results[49].body.as_str()), ("0", "49"));
    store.close().await;
    let some = settled().await - before;
    assert!((60..200).contains(&some), "{some}");
}

/// Batches of one call may follow each other, and be about one chat.
#[tokio::test]
async fn batches_that_follow_each_other_in_one_call_are_applied_in_order() {
    let database = OneDatabase::new().await;
    let mut scribe = Scribe::new(database.open().await);
    let ana = UserId::random();
    let (one, other) = (ChatId::random(), ChatId::random());
    let at = |offset| Position { log: Uuid::nil(), offset, state: TermState { term: Some(0), n: offset } };
    let batch = |partition, from: Option<u64>, changes: Vec<Change>| PartitionBatch {
        partition,
        expected: from.map(at),
        next: at(from.unwrap_or(0) + changes.len() as u64),
        changes,
        dead: Vec::new(),
    };
    let batches = [
        batch(4, None, vec![scribe.change(one, ana, made(&[ana]))]),
        batch(4, Some(1), vec![scribe.message(one, ana, "1"), scribe.change(other, ana, made(&[ana]))]),
        batch(5, None, vec![scribe.message(other, ana, "1"), scribe.message(one, ana, "2")]),
        batch(5, Some(1), vec![scribe.message(one, ana, "3")]),
    ];
    let outcomes = scribe.store.apply(&batches).await.unwrap();
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), Err(Refused::Moved(Some(at(2))))]);
    assert_eq!(scribe.store.message_ids(scribe.key(one), 0, 9).await.unwrap().len(), 2);
    let number = |chat| scribe.store.chat_view(scribe.key(chat), ana);
    assert_eq!(number(one).await.unwrap().unwrap().number, 1);
    assert_eq!(number(other).await.unwrap().unwrap().number, 2);
}
