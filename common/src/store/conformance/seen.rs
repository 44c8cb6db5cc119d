use super::Fixture;
use crate::{
    ids::{AppId, UserId, UserKey},
    time::Millis,
};

fn key(user: UserId) -> UserKey {
    UserKey { app: AppId::DEFAULT, user }
}

pub async fn when_users_were_seen_last_moves_forward_only_and_is_told_of_many(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (ana, ben, eve) = (UserId::random(), UserId::random(), UserId::random());
    let elsewhere = UserKey { app: AppId::random(), user: ana };
    store.note_seen(&[]).await.unwrap();
    store.note_seen(&[(key(ana), Millis(10)), (key(ben), Millis(7)), (elsewhere, Millis(99))]).await.unwrap();
    store.note_seen(&[(key(ana), Millis(5)), (key(ben), Millis(8))]).await.unwrap();
    let mut seen = fixture.open().await.last_seen(&[key(ana), key(ben), key(eve)]).await.unwrap();
    seen.sort_by_key(|(_, at)| *at);
    assert_eq!(seen, [(key(ben), Millis(8)), (key(ana), Millis(10))]);
    let many: Vec<_> = (0..1_000).map(|at| (key(UserId::random()), Millis(at))).collect();
    store.note_seen(&many).await.unwrap();
    let users: Vec<_> = many.iter().map(|(user, _)| *user).collect();
    assert_eq!(store.last_seen(&users).await.unwrap().len(), 1_000);
}
