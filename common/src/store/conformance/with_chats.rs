//! Who is in how many chats (SP-3).

use std::time::{Duration, Instant};

use super::{Fixture, Scribe};
use crate::{
    ids::{AppId, UserId},
    model::limits,
    wire::record::What,
};

pub async fn sp_3_who_is_in_so_many_chats_is_found_among_many(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (scribe.user("Ana").await, scribe.user("Ben").await, scribe.user("Eve").await);
    let mut of_ana = Vec::new();
    for _ in 0..3 {
        of_ana.push(scribe.group(None, &[ana]).await);
    }
    scribe.direct(ana, ben).await;
    let store = scribe.store.clone();
    let with = async |app: AppId, users: &[UserId], most: u64| {
        let mut found = store.with_chats(app, users, most).await.unwrap();
        found.sort_unstable();
        found
    };
    let everybody = [ana, ben, eve];
    let mut both = [ana, ben];
    both.sort_unstable();
    assert_eq!(with(AppId::DEFAULT, &everybody, 1).await, both);
    for most in [2, 3, 4] {
        assert_eq!(with(AppId::DEFAULT, &everybody, most).await, [ana], "{most}");
    }
    assert!(with(AppId::DEFAULT, &everybody, 5).await.is_empty());
    assert!(with(AppId::random(), &everybody, 1).await.is_empty(), "of one application");
    assert!(with(AppId::DEFAULT, &[], 1).await.is_empty());

    // Whoever has left is in it no more, and nobody is in a chat that was deleted.
    scribe.does(of_ana[0], ana, What::Left { user: ana, heir: None }).await;
    scribe.does(of_ana[1], ana, What::Deleted).await;
    assert_eq!(with(AppId::DEFAULT, &everybody, 2).await, [ana]);
    assert!(with(AppId::DEFAULT, &everybody, 3).await.is_empty());

    // As many as come into a chat at once, well within the time of a request.
    let mut crowd: Vec<_> = (1..limits::MEMBERS).map(|_| UserId::random()).collect();
    crowd.extend(both);
    let begun = Instant::now();
    assert_eq!(with(AppId::DEFAULT, &crowd, 1).await, both);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
