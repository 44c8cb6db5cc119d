//! The store on Postgres does what every store must, and what only a server that many share can do wrong.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod postgres;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use common::{
    ids::{AppId, ChatId, UserId},
    model::{ChatKind, PageRequest, Role},
    store::{
        Accounts, Drain, PartitionBatch, Position, ReadMark, Refused, SharedStore, StoreError, User,
        conformance::{Fixture, Scribe},
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
    let user = User {
        id: ana,
        username: "a\0".into(),
        name: "a".into(),
        avatar: None,
        mobile_number: None,
        timezone: None,
        created_at: Millis(1),
        password_hash: String::new(),
    };
    corrupt(scribe.store.add_user(AppId::DEFAULT, &user).await);
    corrupt(scribe.store.user_by_username(AppId::DEFAULT, "a\0").await);
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
