//! Which endpoints are taken, and given back (NO-3).

use super::{
    Fixture,
    deliveries::{LEASE, Told, failed, ids},
    notifications::{add, browser, webhook},
    notify::sending,
};
use crate::{
    ids::AppId,
    store::{Except, Receivers},
    time::Millis,
};

pub async fn no_3_webhooks_and_browsers_are_leased_apart_and_without_some_applications(
    fixture: &dyn Fixture,
) {
    let mut told = Told::new(fixture).await;
    let (store, app, user) = (told.store.clone(), told.app, told.user);
    let (hook, hers) = (webhook(app, 1), browser(app, user, "https://push.example/1", 1));
    add(&store, &hook).await;
    add(&store, &hers).await;
    told.send(1_000, vec![sending(None, "one"), sending(Some(user), "hers")]).await;
    let (other, both) = ([AppId::random()], [AppId::random(), app]);
    let but = |apps| Except { apps, ..Except::default() };
    for receivers in [Receivers::Webhooks, Receivers::Browsers] {
        assert_eq!(told.lease_but(receivers, but(&both), 1_000).await, []);
    }
    assert_eq!(ids(&told.lease_but(Receivers::Webhooks, but(&other), 1_000).await), [hook.id]);
    assert_eq!(told.lease_but(Receivers::Webhooks, but(&[]), 1_000).await, []);
    assert_eq!(ids(&told.lease_but(Receivers::Browsers, but(&[]), 1_000).await), [hers.id]);
    assert_eq!(told.lease(1_000).await, []);
}

pub async fn no_3_endpoints_that_failed_and_the_others_are_leased_apart(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app) = (told.store.clone(), told.app);
    let (fails, works) = (webhook(app, 1), webhook(app, 2));
    add(&store, &fails).await;
    add(&store, &works).await;
    let sent = told.send_to_webhooks(1_000, &["one"]).await;
    for leased in told.lease(1_000).await {
        let is_failing = leased.endpoint.id == fails.id;
        if is_failing {
            assert!(store.attempted(&leased, sent[0], &failed("away"), Millis(1_001)).await.unwrap());
        }
        store.release_endpoint(&leased, Millis(if is_failing { 1_000 } else { 2_000 })).await.unwrap();
    }
    let one = store.lease_endpoints(Receivers::Webhooks, Except::default(), Millis(2_000), LEASE, 1);
    let one = one.await.unwrap();
    assert_eq!(ids(&one), [fails.id], "it has waited for longest");
    store.release_endpoint(&one[0], Millis(2_000)).await.unwrap();
    let (failing, working) = ((true, false), (false, true));
    for ((failing, working), expected) in [(failing, works.id), (working, fails.id)] {
        let but = Except { failing, working, ..Except::default() };
        assert_eq!(ids(&told.lease_but(Receivers::Webhooks, but, 2_000).await), [expected]);
        assert_eq!(told.lease_but(Receivers::Webhooks, but, 2_000).await, []);
    }
}

/// Something is put into a queue while its holder, who has found it empty, gives it back.
pub async fn no_3_nothing_is_left_in_a_queue_that_is_just_given_back(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let store = told.store.clone();
    let hook = webhook(told.app, 1);
    add(&store, &hook).await;
    let mut sent = told.send_to_webhooks(1_000, &["first"]).await;
    for _ in 0..40 {
        let leased = told.lease(1_000).await.pop().expect("what was put in is found");
        assert_eq!(told.queue(&hook).await, sent);
        for delivery in sent {
            told.take(&leased, delivery, 1_000).await;
        }
        let (given_back, new) =
            tokio::join!(store.release_endpoint(&leased, Millis(0)), told.send_to_webhooks(1_000, &["next"]));
        given_back.unwrap();
        sent = new;
    }
}
