//! The cache's suite on real Redis, and what is true of that engine alone: it may be away, forget, and come back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use common::{
    cache::{
        Cache, CacheError, Grant, LimitPolicy, LiveSession, NodeLife, SharedCache, TAIL_ENTRIES, Tail,
        TailEntry,
        conformance::Fixture,
        memory::MemoryCache,
        redis::{OpenError, RedisCache, Settings},
    },
    ids::{AppId, ChatId, ChatKey, Incarnation, NodeId, Seq, SessionId, SocketId, UserId, UserKey},
    servers::Servers,
    time::Millis,
};
use proptest::{prelude::*, test_runner::TestCaseError};
use redis::aio::MultiplexedConnection;
use tokio::task::spawn_blocking;

/// Tests share a server under prefixes of their own, and have patience with a busy machine.
fn settings() -> Settings {
    Settings { prefix: format!("test:{}:", SocketId::random()), timeout_ms: 10_000, ..Settings::default() }
}

struct Redis {
    url: String,
    settings: Settings,
}

impl Redis {
    async fn new() -> Self {
        let url = spawn_blocking(|| Servers::shared().cache().to_owned()).await.unwrap();
        Self { url, settings: settings() }
    }

    async fn cache(&self) -> RedisCache {
        RedisCache::open_with(&self.url, &self.settings).await.unwrap()
    }
}

#[async_trait]
impl Fixture for Redis {
    async fn open(&self) -> SharedCache {
        Arc::new(self.cache().await)
    }
}

common::cache_conformance!(Redis::new().await);

/// A server that may be killed.
async fn own() -> Arc<Servers> {
    Arc::new(spawn_blocking(|| Servers::own(&["redis"])).await.unwrap())
}

async fn order(servers: &Arc<Servers>, command: fn(&Servers)) {
    let servers = Arc::clone(servers);
    spawn_blocking(move || command(&servers)).await.unwrap();
}

async fn raw(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// What a healthy server needs at most before a test on a busy machine gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it is so.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn chat() -> ChatKey {
    ChatKey { app: AppId::DEFAULT, chat: ChatId::random() }
}

fn user() -> UserKey {
    UserKey { app: AppId::DEFAULT, user: UserId::random() }
}

fn entry(seq: Seq) -> TailEntry {
    TailEntry { seq, offset: seq * 10, bytes: format!("change {seq}").into() }
}

fn life(node: &str) -> NodeLife {
    NodeLife { node: NodeId::new(node).unwrap(), incarnation: Incarnation::random() }
}

fn session(life: &NodeLife) -> LiveSession {
    LiveSession {
        socket: SocketId::random(),
        session: SessionId::random(),
        device: None,
        life: life.clone(),
        since: Millis(1),
    }
}

async fn take(cache: &RedisCache) -> Result<Grant, CacheError> {
    let policy = LimitPolicy { per_second: 1.0, burst: 5 };
    cache.take(AppId::DEFAULT, "a key", 1, policy, Millis(1_790_000_000_000)).await
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_and_its_password_is_not_repeated() {
    for url in
        ["", "localhost", "http://localhost", "redis://", "redis://h:port", "rediss://h", "redis+unix:///s"]
    {
        let error = RedisCache::open(url).await.expect_err(url);
        assert!(matches!(error, OpenError::Url(_)), "{url}: {error}");
    }
    let error = RedisCache::open("redis://user:hunter2@host:port").await.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    for prefix in ["", "a*", "{a}", "a b", &"a".repeat(65)] {
        let settings = Settings { prefix: prefix.into(), ..Settings::default() };
        let error = RedisCache::open_with("redis://127.0.0.1", &settings).await.unwrap_err();
        assert!(matches!(error, OpenError::Setting(_)), "{prefix:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_waited_for_in_the_background() {
    let servers = own().await;
    order(&servers, |servers| servers.stop("redis")).await;
    let cache = RedisCache::open_with(servers.cache(), &settings()).await.expect("it is only a cache");
    assert!(matches!(take(&cache).await, Err(CacheError::Unavailable(_))));
    order(&servers, |servers| servers.start("redis")).await;
    until("it takes", async || take(&cache).await == Ok(Grant::Granted)).await;
}

#[tokio::test]
async fn a_killed_server_is_unavailable_and_then_works_again() {
    let servers = own().await;
    let cache = RedisCache::open_with(servers.cache(), &settings()).await.unwrap();
    let (chat, ana) = (chat(), user());
    cache.append_tail(chat, vec![entry(1)]).await.unwrap();
    order(&servers, |servers| servers.kill("redis")).await;
    let unavailable = |error| matches!(error, CacheError::Unavailable(_));
    assert!(cache.append_tail(chat, vec![entry(2)]).await.is_err_and(unavailable));
    assert!(cache.tail_after(chat, 0).await.is_err_and(unavailable));
    assert!(cache.session_opened(ana, session(&life("a"))).await.is_err_and(unavailable));
    assert!(cache.sessions_of(ana).await.is_err_and(unavailable));
    assert!(cache.flush().await.is_err_and(unavailable));
    assert!(take(&cache).await.is_err_and(unavailable));
    order(&servers, |servers| servers.start("redis")).await;
    until("it adds", async || cache.append_tail(chat, vec![entry(3)]).await.is_ok()).await;
    assert_eq!(cache.tail_after(chat, 2).await, Ok(Tail::Run(vec![entry(3)])));
    assert_eq!(cache.tail_after(chat, 0).await, Ok(Tail::Missing), "the server forgot it");
}

#[tokio::test]
async fn a_server_that_stands_still_is_given_up_within_the_time_out() {
    let servers = own().await;
    let settings = Settings { timeout_ms: 300, ..settings() };
    let cache = RedisCache::open_with(servers.cache(), &settings).await.unwrap();
    until("it takes", async || take(&cache).await.is_ok()).await;
    order(&servers, |servers| servers.pause("redis")).await;
    // Each within its time-out, which is longer than none at all and far from for ever.
    let calls = (0..50).map(|_| tokio::time::timeout(PATIENCE, take(&cache)));
    for answer in futures_util::future::join_all(calls).await {
        assert!(matches!(answer.expect("an answer"), Err(CacheError::Unavailable(_))));
    }
    let Err(CacheError::Unavailable(why)) = take(&cache).await else { panic!("it stands still") };
    assert!(why.contains("not connected"), "the dead connection is given up, and nobody waits again: {why}");
    order(&servers, |servers| servers.resume("redis")).await;
    until("it takes", async || take(&cache).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_calls_are_in_flight_than_may_be() {
    let servers = own().await;
    let settings = Settings { in_flight: 3, ..settings() };
    let cache = Arc::new(RedisCache::open_with(servers.cache(), &settings).await.unwrap());
    until("it takes", async || take(&cache).await.is_ok()).await;
    order(&servers, |servers| servers.pause("redis")).await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { take(&cache).await })
        })
        .collect();
    until("the others are refused", async || calls.iter().filter(|call| call.is_finished()).count() >= 7)
        .await;
    order(&servers, |servers| servers.resume("redis")).await;
    let (mut answered, mut refused) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => answered += 1,
            Err(CacheError::Unavailable(why)) => {
                assert!(why.contains("3 calls are in flight"), "{why}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    // The connection is tried each second by a call of its own, which may be one of the three.
    assert!(matches!((answered, refused), (3, 7) | (2, 8)), "{answered} answered, {refused} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_flushed_under_load_never_makes_a_hole_and_fills_again() {
    let servers = own().await;
    let settings = settings();
    let (one, other) = (
        Arc::new(RedisCache::open_with(servers.cache(), &settings).await.unwrap()),
        Arc::new(RedisCache::open_with(servers.cache(), &settings).await.unwrap()),
    );
    let chat = chat();
    let appenders = [Arc::clone(&one), Arc::clone(&other)].map(|cache| {
        tokio::spawn(async move {
            for seq in 1..=600 {
                cache.append_tail(chat, vec![entry(seq)]).await.unwrap();
                let after = seq.saturating_sub(5);
                if let Tail::Run(known) = cache.tail_after(chat, after).await.unwrap() {
                    assert!(
                        known.iter().zip(after + 1..).all(|(known, seq)| *known == entry(seq)),
                        "{known:?}"
                    );
                }
            }
        })
    });
    let mut server = raw(servers.cache()).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        redis::cmd("FLUSHALL").query_async::<()>(&mut server).await.unwrap();
        // The scripts are forgotten as well, as after a restart.
        redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut server).await.unwrap();
    }
    for appender in appenders {
        appender.await.unwrap();
    }
    assert_eq!(one.tail_after(chat, 599).await, Ok(Tail::Run(vec![entry(600)])), "the newest is there");
    let most = Seq::try_from(TAIL_ENTRIES).unwrap();
    one.append_tail(chat, (1..=600).map(entry).collect()).await.unwrap();
    let expected = (601 - most..=600).map(entry).collect();
    assert_eq!(other.tail_after(chat, 600 - most).await, Ok(Tail::Run(expected)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_that_race_to_append_keep_one_run() {
    let redis = Redis::new().await;
    let chat = chat();
    let racers = [redis.cache().await, redis.cache().await].map(|cache| {
        tokio::spawn(async move {
            for seq in 1..=200 {
                cache.append_tail(chat, vec![entry(seq)]).await.unwrap();
            }
        })
    });
    for racer in racers {
        racer.await.unwrap();
    }
    let known = redis.cache().await.tail_after(chat, 0).await;
    assert_eq!(known, Ok(Tail::Run((1..=200).map(entry).collect())));
}

#[tokio::test]
async fn a_node_that_vanished_is_shown_no_longer_and_one_that_lives_is() {
    let mut redis = Redis::new().await;
    redis.settings.life_ms = 1_500;
    let (vanishing, living, watching) = (redis.cache().await, redis.cache().await, redis.cache().await);
    let ana = user();
    let (lost, kept) = (session(&life("a")), session(&life("b")));
    vanishing.session_opened(ana, lost).await.unwrap();
    living.session_opened(ana, kept.clone()).await.unwrap();
    assert_eq!(watching.sessions_of(ana).await.unwrap().len(), 2);
    drop(vanishing);
    until("one is left", async || watching.sessions_of(ana).await == Ok(vec![kept.clone()])).await;
    // Longer than a life lasts that nobody keeps up.
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    until("it is shown", async || watching.sessions_of(ana).await == Ok(vec![kept.clone()])).await;
    let mut server = raw(&redis.url).await;
    let key = format!("{}user:{{{ana}}}", redis.settings.prefix);
    let noted: u64 = redis::cmd("HLEN").arg(&key).query_async(&mut server).await.unwrap();
    assert_eq!(noted, 1, "what is not shown takes no room");
}

#[tokio::test]
async fn open_sockets_are_noted_again_when_the_server_forgot_them_and_closed_ones_are_not() {
    let servers = own().await;
    let settings = Settings { life_ms: 900, ..settings() };
    let cache = RedisCache::open_with(servers.cache(), &settings).await.unwrap();
    let (ana, node) = (user(), life("a"));
    let (open, closed) = (session(&node), session(&node));
    cache.session_opened(ana, open.clone()).await.unwrap();
    cache.session_opened(ana, closed.clone()).await.unwrap();
    let mut server = raw(servers.cache()).await;
    redis::cmd("FLUSHALL").query_async::<()>(&mut server).await.unwrap();
    until("both are shown", async || cache.sessions_of(ana).await.is_ok_and(|shown| shown.len() == 2)).await;
    order(&servers, |servers| servers.stop("redis")).await;
    let opened_meanwhile = session(&node);
    cache.session_closed(ana, closed.socket).await.unwrap_err();
    cache.session_opened(ana, opened_meanwhile.clone()).await.unwrap_err();
    order(&servers, |servers| servers.start("redis")).await;
    let mut expected = vec![open, opened_meanwhile];
    expected.sort_by_key(|session| session.socket);
    until("the open ones are shown", async || cache.sessions_of(ana).await == Ok(expected.clone())).await;
}

#[tokio::test]
async fn no_1_who_is_away_is_not_sure_for_a_while_after_it_forgot_who_is_there() {
    let mut redis = Redis::new().await;
    redis.settings.life_ms = 600;
    let (cache, asking, node) = (redis.cache().await, redis.cache().await, life("a"));
    let keep = async |millis| cache.keep_life(&node, Duration::from_millis(millis), Millis(1)).await.unwrap();
    let sure = async || asking.is_whole().await.unwrap();
    let long = async || tokio::time::sleep(Duration::from_millis(700)).await;
    for _ in 0..2 {
        assert!(!sure().await, "nobody has a life");
        keep(10_000).await;
        assert!(!sure().await, "others may not have been noted yet");
        long().await;
        assert!(sure().await);
        cache.flush().await.unwrap();
    }
    keep(1_000).await;
    long().await;
    let taken = asking.take_lapsed(&life("b"), Duration::from_secs(1)).await;
    assert!(!sure().await && taken == Ok(None), "before the life is over");
}

#[tokio::test]
async fn pr_3_whatever_fails_while_the_users_of_a_dead_node_are_told_of_none_of_them_is_lost() {
    let servers = own().await;
    let settings = settings();
    let open = async || RedisCache::open_with(servers.cache(), &settings).await.unwrap();
    let (cache, other) = (open().await, open().await);
    let mut server = raw(servers.cache()).await;
    let mut looking = raw(servers.cache()).await;
    let mut deny = async |rule: &str| {
        let mut acl = redis::cmd("ACL");
        acl.arg("SETUSER").arg("default").arg(rule);
        acl.query_async::<()>(&mut server).await.unwrap();
    };
    let (one, two, hold) = (life("b"), life("c"), Duration::from_millis(300));
    for command in ["zrange", "exists", "set", "zscore", "sscan", "rename", "hdel", "unlink", "zrem"] {
        let ends = life("a");
        let dying = open().await;
        dying.keep_life(&ends, Duration::from_millis(1), Millis(7)).await.unwrap();
        for user in [user(), user()] {
            dying.session_opened(user, session(&ends)).await.unwrap();
        }
        drop(dying);
        tokio::time::sleep(Duration::from_millis(20)).await;
        deny(&format!("-{command}")).await;
        let broken_off = match cache.take_lapsed(&one, hold).await {
            Ok(taken) => cache.buried(&taken.unwrap()).await.is_err(),
            Err(_) => true,
        };
        deny(&format!("+{command}")).await;
        assert!(broken_off, "{command}");
        // Whoever it was is no more, either.
        let mut told = None;
        until("it is taken over", async || {
            told = other.take_lapsed(&two, hold).await.unwrap();
            told.is_some()
        })
        .await;
        let told = told.unwrap();
        assert_eq!((&told.life, told.renewed), (&ends, Millis(7)), "{command}");
        // Once all were told of it may know no more whom.
        if !["hdel", "unlink", "zrem"].contains(&command) {
            assert_eq!(told.users.len(), 2, "{command}");
        }
        other.buried(&told).await.unwrap();
        assert_eq!(other.take_lapsed(&two, hold).await, Ok(None), "{command}");
        for pattern in [format!("[eh]*{}*", ends.incarnation), "user:*".to_owned()] {
            let mut keys = redis::cmd("KEYS");
            keys.arg(format!("{}{pattern}", settings.prefix));
            let left: Vec<String> = keys.query_async(&mut looking).await.unwrap();
            assert_eq!(left, Vec::<String>::new(), "{command}");
        }
    }
}

#[tokio::test]
async fn a_socket_that_could_not_be_closed_is_closed_later() {
    let servers = own().await;
    let settings = Settings { life_ms: 900, timeout_ms: 500, ..settings() };
    let cache = RedisCache::open_with(servers.cache(), &settings).await.unwrap();
    let (ana, node) = (user(), life("a"));
    let (open, closed) = (session(&node), session(&node));
    until("both are noted", async || {
        cache.session_opened(ana, open.clone()).await.is_ok()
            && cache.session_opened(ana, closed.clone()).await.is_ok()
    })
    .await;
    order(&servers, |servers| servers.pause("redis")).await;
    until("it could not be closed", async || cache.session_closed(ana, closed.socket).await.is_err()).await;
    order(&servers, |servers| servers.resume("redis")).await;
    until("one is left", async || cache.sessions_of(ana).await == Ok(vec![open.clone()])).await;
}

#[tokio::test]
async fn op_6_a_socket_that_another_process_has_ended_is_not_noted_again_whatever_the_server_forgets() {
    let servers = own().await;
    let settings = Settings { life_ms: 900, ..settings() };
    let open = async || RedisCache::open_with(servers.cache(), &settings).await.unwrap();
    let (cache, other, ana) = (open().await, open().await, user());
    let mut server = raw(servers.cache()).await;
    let mut flush = async || redis::cmd("FLUSHALL").query_async::<()>(&mut server).await.unwrap();
    let (said, stays) = (session(&life("a")), session(&life("b")));
    // Said to one, then to the other: both would note it again.
    cache.session_opened(ana, said.clone()).await.unwrap();
    let moved = LiveSession { life: life("b"), since: Millis(2), ..said.clone() };
    other.session_opened(ana, moved).await.unwrap();
    other.session_opened(ana, stays.clone()).await.unwrap();
    let third = open().await;
    third.session_ended(ana, said.socket, Millis(3)).await.unwrap();
    // At once, and once more when all have looked.
    for wait in [0, 700] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        flush().await;
        until("it is noted again", async || !third.sessions_of(ana).await.unwrap().is_empty()).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(third.sessions_of(ana).await.unwrap(), std::slice::from_ref(&stays));
    }
    // Somebody is told again that it is there.
    let again = LiveSession { since: Millis(4), ..said };
    cache.session_opened(ana, again.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    flush().await;
    until("both are noted again", async || third.sessions_of(ana).await.unwrap().len() == 2).await;
}

#[tokio::test]
async fn a_user_has_no_more_sockets_than_may_be_and_those_of_the_dead_do_not_count() {
    let redis = Redis::new().await;
    let (vanishing, cache) = (redis.cache().await, redis.cache().await);
    let (ana, dead, alive) = (user(), life("a"), life("b"));
    for _ in 0..256 {
        vanishing.session_opened(ana, session(&dead)).await.unwrap();
    }
    assert_eq!(cache.session_opened(ana, session(&alive)).await, Err(CacheError::Full));
    // It vanishes: nobody says that it is gone.
    drop(vanishing);
    let mut server = raw(&redis.url).await;
    let key = format!("{}life:{{{}/{}}}", redis.settings.prefix, dead.incarnation, dead.node);
    redis::cmd("DEL").arg(&key).query_async::<()>(&mut server).await.unwrap();
    let session = session(&alive);
    cache.session_opened(ana, session.clone()).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(vec![session]));
}

#[tokio::test]
async fn a_flush_leaves_other_prefixes_alone_and_everything_expires() {
    let (one, other) = (Redis::new().await, Redis::new().await);
    let (flushed, kept) = (one.cache().await, other.cache().await);
    let (chat, ana, node) = (chat(), user(), life("a"));
    for cache in [&flushed, &kept] {
        cache.append_tail(chat, vec![entry(1)]).await.unwrap();
        cache.session_opened(ana, session(&node)).await.unwrap();
        assert_eq!(take(cache).await, Ok(Grant::Granted));
    }
    let mut server = raw(&one.url).await;
    let keys = async |server: &mut MultiplexedConnection, prefix: &str| -> Vec<String> {
        redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(server).await.unwrap()
    };
    let mut names = keys(&mut server, &one.settings.prefix).await;
    names.sort();
    assert_eq!(names.len(), 5, "a tail, a user, a life and its sockets, a bucket: {names:?}");
    for name in names {
        let left: i64 = redis::cmd("PTTL").arg(&name).query_async(&mut server).await.unwrap();
        assert!(left > 0, "{name} stays for ever");
    }
    flushed.flush().await.unwrap();
    assert_eq!(keys(&mut server, &one.settings.prefix).await, Vec::<String>::new());
    assert_eq!(keys(&mut server, &other.settings.prefix).await.len(), 5);
    assert_eq!(kept.tail_after(chat, 0).await, Ok(Tail::Run(vec![entry(1)])));
}

#[tokio::test]
async fn what_a_stranger_put_under_a_key_is_an_error_and_no_answer() {
    let redis = Redis::new().await;
    let (cache, chat, ana) = (redis.cache().await, chat(), user());
    let mut server = raw(&redis.url).await;
    let prefix = &redis.settings.prefix;
    let mut foreign = redis::cmd("XADD");
    foreign.arg(format!("{prefix}tail:{{{chat}}}")).arg("5-1").arg(&["o", "x", "s", "0", "b", ""]);
    foreign.query_async::<()>(&mut server).await.unwrap();
    assert!(matches!(cache.tail_after(chat, 4).await, Err(CacheError::Unavailable(_))));
    let user = format!("{prefix}user:{{{ana}}}");
    redis::cmd("HSET").arg(&user).arg("x").arg("y").query_async::<()>(&mut server).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(Vec::new()));
    redis::cmd("SET")
        .arg(format!("{prefix}bucket:{}/a key", AppId::DEFAULT))
        .arg("x")
        .query_async::<()>(&mut server)
        .await
        .unwrap();
    assert!(matches!(take(&cache).await, Err(CacheError::Unavailable(_))));
    take(&cache).await.expect_err("and the connection is no worse for it");
    assert_eq!(cache.tail_after(self::chat(), 0).await, Ok(Tail::Missing));
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() }
}

fn appends() -> impl Strategy<Value = Vec<(Seq, Seq, bool)>> {
    proptest::collection::vec((0_u64..500, 1_u64..90, any::<bool>()), 1..12)
}

/// Both engines after the same appends.
async fn answers_alike(redis: &RedisCache, appends: Vec<(Seq, Seq, bool)>) -> Result<(), TestCaseError> {
    let (memory, chat) = (MemoryCache::default(), chat());
    // Sizes differ, so that both bounds are met.
    let entry = |seq: Seq| TailEntry {
        seq,
        offset: seq * 3 + 1,
        bytes: vec![u8::try_from(seq % 251).unwrap(); usize::try_from(seq * 37 % 9000).unwrap()].into(),
    };
    for (from, count, shuffled) in appends {
        let mut entries: Vec<TailEntry> = (from..from + count).map(entry).collect();
        if shuffled {
            entries.reverse();
            entries.extend((from..from + count / 2).map(entry));
            entries.retain(|entry| count < 60 || entry.seq % 40 != 7);
        }
        memory.append_tail(chat, entries.clone()).await.unwrap();
        redis.append_tail(chat, entries).await.unwrap();
        for after in (0..600).step_by(23) {
            prop_assert_eq!(redis.tail_after(chat, after).await, memory.tail_after(chat, after).await);
            let offset = after * 3;
            prop_assert_eq!(redis.tail_from(chat, offset).await, memory.tail_from(chat, offset).await);
        }
        let all = (redis.tail_after(chat, 0).await, memory.tail_after(chat, 0).await);
        prop_assert_eq!(all.0, all.1);
    }
    Ok(())
}

#[test]
fn a_tail_is_what_the_embedded_engine_makes_of_the_same_appends() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cache = runtime.block_on(async { Redis::new().await.cache().await });
    proptest!(cases(), |(appends in appends())| {
        runtime.block_on(answers_alike(&cache, appends))?;
    });
}

#[test]
fn a_bucket_answers_as_the_embedded_one_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cache = runtime.block_on(async { Redis::new().await.cache().await });
    // Clocks differ, some by far.
    let wait = prop_oneof![8 => -500_i64..3000, 1 => -4_000_000_i64..4_000_000];
    let steps = proptest::collection::vec((wait, 1_u32..10), 1..40);
    proptest!(cases(), |(per_second in 0.0_f64..500.0, burst in 0_u32..50, steps in steps)| {
        let (memory, key) = (MemoryCache::default(), SocketId::random().to_string());
        let policy = LimitPolicy { per_second, burst };
        let mut now = 1_790_000_000_000;
        for (wait, cost) in steps {
            now += wait;
            let taken = async |cache: &dyn Cache| cache.take(AppId::DEFAULT, &key, cost, policy, Millis(now)).await;
            let (here, there) = runtime.block_on(async { (taken(&memory).await, taken(&cache).await) });
            prop_assert_eq!(here, there);
        }
    });
    for per_second in [f64::NAN, 0.0, -1.0, f64::INFINITY, f64::MIN_POSITIVE] {
        for (now, burst, cost) in [(i64::MIN, 0, 1), (0, u32::MAX, u32::MAX), (i64::MAX, 1, u32::MAX)] {
            let policy = LimitPolicy { per_second, burst };
            let key = SocketId::random().to_string();
            let taken = cache.take(AppId::DEFAULT, &key, cost, policy, Millis(now));
            let _ = runtime.block_on(taken).expect("an answer, whatever is asked");
        }
    }
}
