//! What every engine of the cache must do. An engine's test file gives a [`Fixture`] and runs all of it with one line:
//! `common::cache_conformance!(MyFixture::new().await)`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(missing_docs, reason = "the names of the tests say what they test")]

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;

use super::{
    Cache, Grant, Lapsed, LimitPolicy, LiveSession, NodeLife, SharedCache, TAIL_BYTES, TAIL_ENTRIES, Tail,
    TailEntry,
};
use crate::{
    ids::{AppId, ChatId, ChatKey, Incarnation, NodeId, Seq, SessionId, SocketId, UserId, UserKey},
    time::Millis,
};

/// One cache for one test.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A handle of it, as another process would have one: what is put in through one is found through all. Empty at first.
    async fn open(&self) -> SharedCache;
}

/// Makes a test of each function of this suite.
#[macro_export]
macro_rules! cache_conformance {
    ($fixture:expr) => {
        $crate::cache_conformance! { @tests $fixture;
            a_tail_answers_from_where_it_is_asked
            a_tail_answers_from_a_place_in_the_log
            a_tail_that_does_not_touch_the_place_is_missing
            repeats_and_disorder_leave_a_tail_whole
            a_gap_drops_what_was_before_it
            what_ends_right_before_a_tail_is_put_in_front
            a_tail_keeps_its_newest_entries
            a_tail_keeps_within_its_bytes
            tails_of_chats_and_applications_are_apart
            many_appenders_never_make_a_hole
            sessions_are_shown_until_they_are_closed
            a_socket_opened_again_is_shown_once
            a_socket_is_ended_through_any_handle_unless_it_was_opened_later
            users_of_applications_are_apart
            a_node_that_is_gone_takes_its_sessions_along_and_its_next_life_keeps_its_own
            it_is_told_which_lives_serve_each_of_many_users
            a_life_that_is_kept_up_no_more_ends_and_its_users_are_given_to_one
            a_life_that_was_taken_is_given_again_until_its_users_have_been_told_of
            a_bucket_grants_its_burst_and_then_its_rate
            a_cost_above_the_burst_takes_it_all
            buckets_of_keys_and_applications_are_apart
            many_takers_get_no_more_than_there_is
            a_flush_forgets_everything_and_all_of_it_fills_again
        }
    };
    (@tests $fixture:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fixture = $fixture;
                $crate::cache::conformance::$name(&fixture).await;
            }
        )*
    };
}

fn chat() -> ChatKey {
    ChatKey { app: AppId::DEFAULT, chat: ChatId::random() }
}

fn user() -> UserKey {
    UserKey { app: AppId::DEFAULT, user: UserId::random() }
}

fn other_app() -> AppId {
    AppId::random()
}

fn entry(seq: Seq) -> TailEntry {
    TailEntry { seq, offset: seq * 10, bytes: format!("change {seq}").into() }
}

fn entries(seqs: RangeInclusive<Seq>) -> Vec<TailEntry> {
    seqs.map(entry).collect()
}

fn run(seqs: RangeInclusive<Seq>) -> Tail {
    Tail::Run(entries(seqs))
}

async fn append(cache: &dyn Cache, chat: ChatKey, entries: Vec<TailEntry>) {
    cache.append_tail(chat, entries).await.unwrap();
}

async fn after(cache: &dyn Cache, chat: ChatKey, seq: Seq) -> Tail {
    cache.tail_after(chat, seq).await.unwrap()
}

fn life(node: &str, incarnation: u64) -> NodeLife {
    NodeLife { node: NodeId::new(node).unwrap(), incarnation: Incarnation(incarnation) }
}

fn session(life: &NodeLife, since: i64) -> LiveSession {
    LiveSession {
        socket: SocketId::random(),
        session: SessionId::random(),
        device: Some("phone".into()),
        life: life.clone(),
        since: Millis(since),
    }
}

pub async fn a_tail_answers_from_where_it_is_asked(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    append(&*cache, chat, entries(5..=9)).await;
    append(&*cache, chat, vec![entry(10)]).await;
    let other = fixture.open().await;
    assert_eq!(after(&*other, chat, 4).await, run(5..=10));
    assert_eq!(after(&*other, chat, 7).await, run(8..=10));
    assert_eq!(after(&*other, chat, 9).await, run(10..=10));
    assert_eq!(after(&*other, chat, 10).await, Tail::Run(Vec::new()));
}

pub async fn a_tail_answers_from_a_place_in_the_log(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    let from = |offset| {
        let cache = Arc::clone(&cache);
        async move { cache.tail_from(chat, offset).await.unwrap() }
    };
    assert_eq!(from(0).await, Tail::Missing);
    append(&*cache, chat, entries(5..=9)).await;
    assert_eq!(from(50).await, run(5..=9));
    assert_eq!(from(51).await, run(6..=9));
    assert_eq!(from(90).await, run(9..=9));
    assert_eq!(
        from(91).await,
        Tail::Missing,
        "there may be none, and it may have come too late for the tail"
    );
    assert_eq!(from(49).await, Tail::Missing, "4 may stand there");
    append(&*cache, chat, entries(1..=4)).await;
    assert_eq!(from(0).await, run(1..=9), "there is none before the first");
}

pub async fn a_tail_that_does_not_touch_the_place_is_missing(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    assert_eq!(after(&*cache, chat, 0).await, Tail::Missing);
    append(&*cache, chat, Vec::new()).await;
    assert_eq!(after(&*cache, chat, 0).await, Tail::Missing, "nothing was added");
    append(&*cache, chat, entries(5..=9)).await;
    assert_eq!(after(&*cache, chat, 3).await, Tail::Missing, "4 would be skipped");
    assert_eq!(after(&*cache, chat, 0).await, Tail::Missing);
    assert_eq!(after(&*cache, chat, 10).await, Tail::Missing, "it does not know 10 itself");
}

pub async fn repeats_and_disorder_leave_a_tail_whole(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    append(&*cache, chat, vec![entry(3), entry(1), entry(2), entry(2)]).await;
    append(&*cache, chat, entries(2..=5)).await;
    append(&*cache, chat, vec![entry(1)]).await;
    assert_eq!(after(&*cache, chat, 0).await, run(1..=5));
}

pub async fn a_gap_drops_what_was_before_it(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    append(&*cache, chat, entries(1..=3)).await;
    append(&*cache, chat, entries(5..=6)).await;
    assert_eq!(after(&*cache, chat, 1).await, Tail::Missing);
    assert_eq!(after(&*cache, chat, 3).await, Tail::Missing);
    assert_eq!(after(&*cache, chat, 4).await, run(5..=6));
    append(&*cache, chat, vec![entry(8), entry(10), entry(7)]).await;
    assert_eq!(after(&*cache, chat, 8).await, Tail::Missing, "a gap within one call is one too");
    assert_eq!(after(&*cache, chat, 9).await, run(10..=10));
}

pub async fn what_ends_right_before_a_tail_is_put_in_front(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    append(&*cache, chat, vec![entry(20)]).await;
    append(&*cache, chat, entries(10..=19)).await;
    assert_eq!(after(&*cache, chat, 9).await, run(10..=20));
    append(&*cache, chat, entries(1..=5)).await;
    assert_eq!(after(&*cache, chat, 9).await, run(10..=20), "what leaves a gap before it is ignored");
    assert_eq!(after(&*cache, chat, 1).await, Tail::Missing);
}

pub async fn a_tail_keeps_its_newest_entries(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    let most = Seq::try_from(TAIL_ENTRIES).unwrap();
    append(&*cache, chat, entries(1..=most)).await;
    assert_eq!(after(&*cache, chat, 0).await, run(1..=most));
    append(&*cache, chat, vec![entry(most + 1)]).await;
    assert_eq!(after(&*cache, chat, 0).await, Tail::Missing);
    assert_eq!(after(&*cache, chat, 1).await, run(2..=most + 1));
    append(&*cache, chat, vec![entry(1)]).await;
    assert_eq!(after(&*cache, chat, 1).await, run(2..=most + 1), "what is older makes nothing newer go");
}

pub async fn a_tail_keeps_within_its_bytes(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    let large = |seq| TailEntry { seq, offset: seq * 10, bytes: vec![7; TAIL_BYTES / 4].into() };
    append(&*cache, chat, (1..=6).map(large).collect()).await;
    assert_eq!(after(&*cache, chat, 1).await, Tail::Missing);
    assert_eq!(after(&*cache, chat, 2).await, Tail::Run((3..=6).map(large).collect()));
}

pub async fn tails_of_chats_and_applications_are_apart(fixture: &dyn Fixture) {
    let (cache, one, two) = (fixture.open().await, chat(), chat());
    let elsewhere = ChatKey { app: other_app(), ..one };
    append(&*cache, one, entries(1..=2)).await;
    assert_eq!(after(&*cache, two, 0).await, Tail::Missing);
    assert_eq!(after(&*cache, elsewhere, 0).await, Tail::Missing);
    append(&*cache, elsewhere, vec![entry(1)]).await;
    assert_eq!(after(&*cache, one, 0).await, run(1..=2));
    assert_eq!(after(&*cache, elsewhere, 0).await, run(1..=1));
}

pub async fn many_appenders_never_make_a_hole(fixture: &dyn Fixture) {
    let (cache, chat) = (fixture.open().await, chat());
    let appenders = (0..8).map(|appender: Seq| {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move {
            for round in 0..200 {
                let from = round * 3 + appender;
                append(&*cache, chat, entries(from..=from + appender)).await;
                if let Tail::Run(known) = after(&*cache, chat, from).await {
                    let expected = from + 1..;
                    assert!(known.iter().zip(expected).all(|(known, seq)| *known == entry(seq)), "{known:?}");
                }
            }
        })
    });
    join_all(appenders).await.into_iter().for_each(Result::unwrap);
}

pub async fn sessions_are_shown_until_they_are_closed(fixture: &dyn Fixture) {
    let (cache, ana) = (fixture.open().await, user());
    assert_eq!(cache.sessions_of(ana).await, Ok(Vec::new()));
    let (a, b) = (life("a", 1), life("b", 1));
    let (late, early) = (session(&a, 200), session(&b, 100));
    cache.session_opened(ana, late.clone()).await.unwrap();
    cache.session_opened(ana, early.clone()).await.unwrap();
    let other = fixture.open().await;
    assert_eq!(other.sessions_of(ana).await, Ok(vec![early.clone(), late.clone()]), "oldest first");
    assert_eq!(other.sessions_of(user()).await, Ok(Vec::new()));
    cache.session_closed(ana, SocketId::random()).await.unwrap();
    cache.session_closed(user(), late.socket).await.unwrap();
    cache.session_closed(ana, early.socket).await.unwrap();
    assert_eq!(other.sessions_of(ana).await, Ok(vec![late.clone()]));
    cache.session_closed(ana, late.socket).await.unwrap();
    assert_eq!(other.sessions_of(ana).await, Ok(Vec::new()));
}

pub async fn a_socket_opened_again_is_shown_once(fixture: &dyn Fixture) {
    let (cache, ana) = (fixture.open().await, user());
    let (a, b) = (life("a", 1), life("b", 1));
    let first = session(&a, 100);
    let again = LiveSession { life: b.clone(), device: None, ..first.clone() };
    cache.session_opened(ana, first).await.unwrap();
    cache.session_opened(ana, again.clone()).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(vec![again.clone()]));
    cache.node_gone(&a).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(vec![again]), "it is no longer that node's");
    cache.node_gone(&b).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(Vec::new()));
}

pub async fn a_socket_is_ended_through_any_handle_unless_it_was_opened_later(fixture: &dyn Fixture) {
    let (cache, other, ana) = (fixture.open().await, fixture.open().await, user());
    let (a, b) = (life("a", 1), life("b", 1));
    let one = session(&a, 100);
    let again = LiveSession { life: b, since: Millis(200), ..one.clone() };
    cache.session_opened(ana, one.clone()).await.unwrap();
    other.session_ended(ana, SocketId::random(), Millis(300)).await.unwrap();
    other.session_ended(user(), one.socket, Millis(300)).await.unwrap();
    other.session_ended(ana, one.socket, Millis(99)).await.unwrap();
    assert_eq!(other.sessions_of(ana).await, Ok(vec![one.clone()]));
    other.session_ended(ana, one.socket, Millis(150)).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(Vec::new()));
    other.session_opened(ana, again.clone()).await.unwrap();
    cache.session_ended(ana, one.socket, Millis(150)).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(vec![again]));
}

pub async fn users_of_applications_are_apart(fixture: &dyn Fixture) {
    let (cache, ana) = (fixture.open().await, user());
    let elsewhere = UserKey { app: other_app(), ..ana };
    let here = session(&life("a", 1), 100);
    cache.session_opened(ana, here.clone()).await.unwrap();
    assert_eq!(cache.sessions_of(elsewhere).await, Ok(Vec::new()));
    cache.session_closed(elsewhere, here.socket).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(vec![here]));
}

pub async fn a_node_that_is_gone_takes_its_sessions_along_and_its_next_life_keeps_its_own(
    fixture: &dyn Fixture,
) {
    let (cache, ana) = (fixture.open().await, user());
    let (first, second, other) = (life("a", 1), life("a", 2), life("b", 1));
    for (life, since) in [(&first, 1), (&first, 2), (&second, 3), (&other, 4)] {
        cache.session_opened(ana, session(life, since)).await.unwrap();
    }
    let ben = user();
    cache.session_opened(ben, session(&first, 5)).await.unwrap();
    cache.node_gone(&first).await.unwrap();
    let left: Vec<NodeLife> =
        cache.sessions_of(ana).await.unwrap().into_iter().map(|session| session.life).collect();
    assert_eq!(left, [second, other]);
    assert_eq!(cache.sessions_of(ben).await, Ok(Vec::new()));
    cache.node_gone(&first).await.expect("nothing to do");
}

pub async fn it_is_told_which_lives_serve_each_of_many_users(fixture: &dyn Fixture) {
    let cache = fixture.open().await;
    let (ana, ben, eve) = (user(), user(), user());
    let (a, b) = (life("a", 1), life("b", 1));
    for (user, life) in [(ana, &a), (ana, &a), (ana, &b), (ben, &b)] {
        cache.session_opened(user, session(life, 1)).await.unwrap();
    }
    let other = fixture.open().await;
    let mut lives = other.lives_of(&[ana, eve, ben]).await.unwrap();
    lives[0].sort();
    assert_eq!(lives, [vec![a, b.clone()], vec![], vec![b]]);
    assert_eq!(other.lives_of(&[]).await, Ok(Vec::new()));
    let elsewhere = UserKey { app: other_app(), ..ana };
    assert_eq!(other.lives_of(&[elsewhere]).await, Ok(vec![Vec::new()]));
}

pub async fn a_life_that_is_kept_up_no_more_ends_and_its_users_are_given_to_one(fixture: &dyn Fixture) {
    let (cache, other) = (fixture.open().await, fixture.open().await);
    let (ana, ben) = (user(), user());
    let (ends, stays) = (life("a", 1), life("b", 1));
    let long = Duration::from_secs(3_600);
    cache.keep_life(&ends, long, Millis(1_790_000_000_001)).await.unwrap();
    other.keep_life(&stays, long, Millis(1_790_000_000_002)).await.unwrap();
    for (user, life) in [(ana, &ends), (ana, &ends), (ben, &ends), (ben, &stays)] {
        cache.session_opened(user, session(life, 1)).await.unwrap();
    }
    assert_eq!(lapsed(&*other, &stays).await, None);
    assert_eq!(other.sessions_of(ana).await.unwrap().len(), 2);
    let renewed = Millis(1_790_000_000_003);
    cache.keep_life(&ends, Duration::from_millis(1), renewed).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(other.lives_of(&[ana, ben]).await, Ok(vec![vec![], vec![stays.clone()]]));
    assert_eq!(other.sessions_of(ana).await, Ok(Vec::new()));
    assert_eq!(other.is_whole().await, Ok(false), "until somebody has seen to it");
    let third = life("c", 1);
    let (one, two) = tokio::join!(lapsed(&*cache, &stays), lapsed(&*other, &third));
    let taken: Vec<Lapsed> = one.into_iter().chain(two).collect();
    let mut users = vec![ana, ben];
    users.sort_by_key(|user| user.user);
    assert_eq!(taken, [Lapsed { life: ends, renewed, users }], "once, whoever asks");
    cache.buried(&taken[0]).await.unwrap();
    assert_eq!((lapsed(&*cache, &stays).await, lapsed(&*other, &third).await), (None, None));
    assert_eq!(other.lives_of(&[ana, ben]).await, Ok(vec![vec![], vec![stays]]));
}

/// What a life is given that asks for one that is over.
async fn lapsed(cache: &dyn Cache, by: &NodeLife) -> Option<Lapsed> {
    let mut lapsed = cache.take_lapsed(by, HOLD).await.unwrap()?;
    lapsed.users.sort_by_key(|user| user.user);
    Some(lapsed)
}

const HOLD: Duration = Duration::from_secs(2);

pub async fn a_life_that_was_taken_is_given_again_until_its_users_have_been_told_of(fixture: &dyn Fixture) {
    let (cache, other) = (fixture.open().await, fixture.open().await);
    let (ana, ends) = (user(), life("a", 1));
    let (one, two) = (life("b", 1), life("c", 1));
    cache.keep_life(&ends, Duration::from_millis(1), Millis(7)).await.unwrap();
    cache.session_opened(ana, session(&ends, 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let told = Lapsed { life: ends.clone(), renewed: Millis(7), users: vec![ana] };
    let expected = Some(told.clone());
    assert_eq!(lapsed(&*cache, &ends).await, None, "nobody is given their own");
    assert_eq!(lapsed(&*cache, &one).await, expected);
    assert_eq!(lapsed(&*other, &two).await, None, "somebody has it");
    assert_eq!(lapsed(&*cache, &one).await, expected, "it could not tell of all");
    // It dies as well.
    tokio::time::sleep(HOLD + Duration::from_millis(200)).await;
    assert_eq!(lapsed(&*other, &two).await, expected);
    assert_eq!(lapsed(&*cache, &one).await, None);
    other.buried(&told).await.unwrap();
    // It was paused, and does not know.
    cache.buried(&told).await.unwrap();
    tokio::time::sleep(HOLD + Duration::from_millis(200)).await;
    assert_eq!((lapsed(&*cache, &one).await, lapsed(&*other, &two).await), (None, None));

    // One that had not died but could not say so is not ended by whoever has told of it.
    cache.keep_life(&ends, Duration::from_millis(1), Millis(8)).await.unwrap();
    cache.session_opened(ana, session(&ends, 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let taken = lapsed(&*other, &two).await.unwrap();
    cache.keep_life(&ends, Duration::from_secs(3_600), Millis(9)).await.unwrap();
    other.buried(&taken).await.unwrap();
    assert_eq!(other.sessions_of(ana).await.unwrap().len(), 1);
}

const POLICY: LimitPolicy = LimitPolicy { per_second: 2.0, burst: 5 };

async fn take(cache: &dyn Cache, key: &str, cost: u32, now: i64) -> Grant {
    cache.take(AppId::DEFAULT, key, cost, POLICY, Millis(now)).await.unwrap()
}

fn wait(millis: u64) -> Grant {
    Grant::RetryAfter(Duration::from_millis(millis))
}

/// Some moment, and a key nobody used.
fn start() -> (i64, String) {
    (1_790_000_000_000, SocketId::random().to_string())
}

pub async fn a_bucket_grants_its_burst_and_then_its_rate(fixture: &dyn Fixture) {
    let (cache, (now, key)) = (fixture.open().await, start());
    for _ in 0..5 {
        assert_eq!(take(&*cache, &key, 1, now).await, Grant::Granted);
    }
    assert_eq!(take(&*cache, &key, 1, now).await, wait(500));
    assert_eq!(take(&*cache, &key, 1, now + 100).await, wait(400), "a refusal costs nothing");
    assert_eq!(take(&*cache, &key, 3, now + 100).await, wait(1400));
    assert_eq!(take(&*fixture.open().await, &key, 1, now + 500).await, Grant::Granted);
    assert_eq!(take(&*cache, &key, 1, now + 500).await, wait(500));
    // However long it rests, it holds no more than its burst.
    let later = now + 3_600_000;
    assert_eq!(take(&*cache, &key, 5, later).await, Grant::Granted);
    assert_eq!(take(&*cache, &key, 1, later).await, wait(500));
}

pub async fn a_cost_above_the_burst_takes_it_all(fixture: &dyn Fixture) {
    let (cache, (now, key)) = (fixture.open().await, start());
    assert_eq!(take(&*cache, &key, 100, now).await, Grant::Granted);
    assert_eq!(take(&*cache, &key, 100, now).await, wait(2500));
    assert_eq!(take(&*cache, &key, 0, now).await, Grant::Granted, "nothing costs nothing");
}

pub async fn buckets_of_keys_and_applications_are_apart(fixture: &dyn Fixture) {
    let (cache, (now, key)) = (fixture.open().await, start());
    assert_eq!(take(&*cache, &key, 5, now).await, Grant::Granted);
    assert_eq!(take(&*cache, &format!("{key}:other"), 5, now).await, Grant::Granted);
    assert_eq!(cache.take(other_app(), &key, 5, POLICY, Millis(now)).await, Ok(Grant::Granted));
    assert_eq!(take(&*cache, &key, 1, now).await, wait(500));
}

pub async fn many_takers_get_no_more_than_there_is(fixture: &dyn Fixture) {
    let (cache, (now, key)) = (fixture.open().await, start());
    let policy = LimitPolicy { per_second: 1.0, burst: 100 };
    let takers = (0..8).map(|_| {
        let (cache, key) = (Arc::clone(&cache), key.clone());
        tokio::spawn(async move {
            let mut granted = 0;
            for _ in 0..50 {
                let grant = cache.take(AppId::DEFAULT, &key, 1, policy, Millis(now)).await.unwrap();
                granted += usize::from(grant == Grant::Granted);
            }
            granted
        })
    });
    let granted: usize = join_all(takers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(granted, 100);
}

pub async fn a_flush_forgets_everything_and_all_of_it_fills_again(fixture: &dyn Fixture) {
    let (cache, chat, ana, (now, key)) = (fixture.open().await, chat(), user(), start());
    let live = session(&life("a", 1), 100);
    append(&*cache, chat, entries(1..=3)).await;
    cache.session_opened(ana, live.clone()).await.unwrap();
    assert_eq!(take(&*cache, &key, 5, now).await, Grant::Granted);
    cache.flush().await.unwrap();
    assert_eq!(after(&*cache, chat, 0).await, Tail::Missing);
    assert_eq!(cache.sessions_of(ana).await, Ok(Vec::new()));
    assert_eq!(take(&*cache, &key, 5, now).await, Grant::Granted);
    append(&*cache, chat, vec![entry(4)]).await;
    assert_eq!(after(&*cache, chat, 0).await, Tail::Missing, "what was forgotten does not come back");
    assert_eq!(after(&*cache, chat, 3).await, run(4..=4));
    cache.session_opened(ana, live.clone()).await.unwrap();
    assert_eq!(cache.sessions_of(ana).await, Ok(vec![live]));
    assert_eq!(take(&*cache, &key, 1, now).await, wait(500));
}
