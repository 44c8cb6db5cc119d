use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use common::{
    ids::AppId,
    model::{Page, PageRequest, UserView},
    store::{Contact, Related, Relation, Result, sqlite::Sqlite},
    time::Millis,
};

use super::*;

/// A store that counts what it is asked, and lets something happen before it answers.
struct Watched {
    inner: Sqlite,
    asked: AtomicUsize,
    /// Blocks that come in between what is read and its answer.
    meanwhile: Mutex<Vec<(UserKey, UserId)>>,
    relationships: Mutex<Option<Relationships>>,
}

#[async_trait]
impl Relations for Watched {
    async fn relate(
        &self,
        user: UserKey,
        relation: Relation,
        peer: UserId,
        on: bool,
        at: Millis,
        most: u64,
    ) -> Result<Related> {
        self.inner.relate(user, relation, peer, on, at, most).await
    }

    async fn contacts(&self, user: UserKey, page: PageRequest) -> Result<Page<Contact>> {
        self.inner.contacts(user, page).await
    }

    async fn blocks(&self, user: UserKey, page: PageRequest) -> Result<Page<UserView>> {
        self.inner.blocks(user, page).await
    }

    async fn ties(&self, pairs: &[Pair]) -> Result<Vec<Ties>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let read = self.inner.ties(pairs).await;
        let meanwhile = self.meanwhile.lock().pop();
        if let Some((user, peer)) = meanwhile {
            self.relate(user, Relation::Block, peer, true, Millis(1), 10).await?;
            let relationships = self.relationships.lock().clone().unwrap();
            relationships.look().await?;
        }
        read
    }

    async fn blocked_by(&self, users: &[UserKey]) -> Result<Vec<(UserKey, UserId)>> {
        self.inner.blocked_by(users).await
    }

    async fn blockers_of(&self, user: UserKey, among: &[UserId]) -> Result<Vec<(UserId, Millis)>> {
        self.inner.blockers_of(user, among).await
    }

    async fn relation_changes(&self, after: u64) -> Result<Vec<RelationChange>> {
        self.inner.relation_changes(after).await
    }
}

struct World {
    store: Arc<Watched>,
    relationships: Relationships,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Watched {
            inner: Sqlite::open(&folder.path().join("store.db")).await.unwrap(),
            asked: AtomicUsize::new(0),
            meanwhile: Mutex::default(),
            relationships: Mutex::default(),
        });
        let relationships = Relationships::new(store.clone());
        *store.relationships.lock() = Some(relationships.clone());
        Self { store, relationships, _folder: folder }
    }

    async fn block(&self, user: UserId, peer: UserId, on: bool) {
        let user = UserKey { app: AppId::DEFAULT, user };
        let done = self.store.relate(user, Relation::Block, peer, on, Millis(1), 10).await.unwrap();
        assert_eq!(done, Related::Changed);
    }

    fn asked(&self) -> usize {
        self.store.asked.load(Ordering::SeqCst)
    }
}

fn pair(one: UserId, other: UserId) -> Pair {
    Pair::new(AppId::DEFAULT, one, other)
}

#[tokio::test]
async fn id_9_a_pair_is_read_once_and_anew_when_it_has_changed() {
    let world = World::new().await;
    let (ana, ben, eve) = (UserId::random(), UserId::random(), UserId::random());
    let knows = &world.relationships;
    assert_eq!(knows.known(pair(ana, ben)), None);
    assert!(!knows.read(pair(ana, ben)).await.unwrap().blocks(ana));
    knows.read(pair(ana, eve)).await.unwrap();
    assert!(!knows.known(pair(ben, ana)).unwrap().blocks(ana));
    assert_eq!(world.asked(), 2);

    world.block(ana, ben, true).await;
    knows.look().await.unwrap();
    assert_eq!(knows.known(pair(ana, ben)), None);
    assert!(knows.known(pair(ana, eve)).is_some(), "nobody else is forgotten");
    assert!(knows.read(pair(ana, ben)).await.unwrap().blocks(ana));
    world.block(ana, ben, false).await;
    knows.look().await.unwrap();
    assert!(!knows.read(pair(ana, ben)).await.unwrap().blocks(ana));
    knows.look().await.unwrap();
    assert!(knows.known(pair(ana, ben)).is_some(), "what was seen is not news");
}

#[tokio::test]
async fn id_9_what_changes_while_it_is_read_is_read_again() {
    let world = World::new().await;
    let (ana, ben) = (UserId::random(), UserId::random());
    world.store.meanwhile.lock().push((UserKey { app: AppId::DEFAULT, user: ana }, ben));
    assert!(world.relationships.read(pair(ana, ben)).await.unwrap().blocks(ana));
    assert_eq!(world.asked(), 2);
    assert!(world.relationships.known(pair(ana, ben)).unwrap().blocks(ana));
}

#[tokio::test]
async fn id_9_a_change_counts_within_the_time_that_is_promised() {
    let world = World::new().await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.relationships.clone().run(stop.clone()));
    for on in [true, false] {
        world.relationships.read(pair(ana, ben)).await.unwrap();
        // Written by another node: nobody hints.
        world.block(ana, ben, on).await;
        let forgotten = async {
            while world.relationships.known(pair(ana, ben)).is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(STALE, forgotten).await.expect("too late");
    }
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn id_9_pairs_that_are_asked_for_together_are_asked_for_in_few_questions() {
    let world = World::new().await;
    let ana = UserId::random();
    let people: Vec<UserId> = (0..700).map(|_| UserId::random()).collect();
    for pest in &people[..5] {
        world.block(ana, *pest, true).await;
    }
    let reads = people.iter().map(|peer| world.relationships.read(pair(ana, *peer)));
    let ties = futures_util::future::try_join_all(reads).await.unwrap();
    assert_eq!(ties.iter().filter(|ties| ties.blocks(ana)).count(), 5);
    assert!(ties.iter().zip(&people).all(|(ties, peer)| ties.pair() == pair(ana, *peer)));
    assert!(world.asked() <= 15, "{}", world.asked());
    // Who gives up takes nobody's answer along.
    let people: Vec<UserId> = (0..50).map(|_| UserId::random()).collect();
    let tasks: Vec<_> = people
        .iter()
        .map(|peer| {
            let (relationships, pair) = (world.relationships.clone(), pair(ana, *peer));
            tokio::spawn(async move { relationships.read(pair).await })
        })
        .collect();
    tokio::task::yield_now().await;
    for (nth, task) in tasks.into_iter().enumerate() {
        if nth % 3 == 0 {
            task.abort();
        } else {
            assert!(task.await.unwrap().is_ok());
        }
    }
}

#[tokio::test]
async fn id_9_a_store_that_was_put_back_or_has_gone_on_for_too_long_makes_everything_unknown() {
    let world = World::new().await;
    let (ana, ben, eve) = (UserId::random(), UserId::random(), UserId::random());
    world.block(ana, eve, true).await;
    world.block(ana, eve, false).await;
    world.relationships.look().await.unwrap();
    world.relationships.read(pair(ana, ben)).await.unwrap();
    // The newest change seen is not what it was.
    let other = RelationChange { no: 2, pair: pair(ben, eve), at: Millis(7) };
    *world.relationships.0.seen.lock().await = Some(other);
    world.relationships.look().await.unwrap();
    assert_eq!(world.relationships.known(pair(ana, ben)), None);
    world.relationships.read(pair(ana, ben)).await.unwrap();
    *world.relationships.0.seen.lock().await = Some(RelationChange { no: 90, ..other });
    world.relationships.look().await.unwrap();
    assert_eq!(world.relationships.known(pair(ana, ben)), None);
    // From then on it goes on with what there is.
    world.relationships.look().await.unwrap();
    world.relationships.read(pair(ana, ben)).await.unwrap();
    world.block(ana, eve, true).await;
    world.relationships.look().await.unwrap();
    assert!(world.relationships.known(pair(ana, ben)).is_some());
}

#[test]
fn what_is_known_is_bounded_and_what_is_used_stays() {
    let mut known = Known::default();
    let first = pair(UserId::random(), UserId::random());
    known.put(first, Ties::none(first));
    for nth in 0..2 * KNOWN + 10 {
        let next = pair(UserId::random(), UserId::random());
        known.put(next, Ties::none(next));
        if nth % 1_000 == 0 {
            assert!(known.get(first).is_some());
        }
    }
    assert!(known.newer.len() + known.older.len() <= 2 * KNOWN);
}
