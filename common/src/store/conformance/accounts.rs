//! Applications, users, sign-ins, revocations.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;

use super::{Fixture, scribe::person};
use crate::{
    applications::{
        Algorithm, AppSettings, Links, MessageRate, PolicyAction, Retention, VerificationKey, Words,
    },
    ids::{AppId, SessionId, UserId},
    store::{Application, SharedStore, SignIn, User},
    time::Millis,
};

fn sign_in(user: UserId, created_at: i64, expires_at: i64) -> SignIn {
    let device = Some("phone".to_owned());
    SignIn {
        id: SessionId::random(),
        user,
        device,
        created_at: Millis(created_at),
        expires_at: Millis(expires_at),
    }
}

pub async fn there_is_one_application_with_a_secret_of_its_own(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let applications = store.applications().await.unwrap();
    assert_eq!(applications.len(), 1);
    assert_eq!(applications[0].id, AppId::DEFAULT);
    assert_eq!(applications[0].token_secret.len(), 32);
    assert!(!applications[0].token_kid.is_empty());
    let shown = format!("{:?} {:?} {:?}", applications[0], store, person("Ana"));
    assert!(
        !shown.contains(&format!("{:?}", applications[0].token_secret)) && !shown.contains("argon2id"),
        "{shown}"
    );
    assert_eq!(fixture.open().await.applications().await.unwrap(), applications, "it keeps its secret");
}

pub async fn applications_are_added_and_changed_and_each_time_is_counted(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let before = store.application_changes().await.unwrap();
    let shop = Application {
        id: AppId::random(),
        name: "Shop ✓".to_owned(),
        token_secret: vec![7; 32],
        token_kid: "k1".to_owned(),
        settings: Arc::new(AppSettings { contacts_only: true, ..AppSettings::default() }),
    };
    assert!(store.add_application(&shop).await.unwrap());
    let twice = Application { name: "Another".to_owned(), ..shop.clone() };
    assert!(!store.add_application(&twice).await.unwrap(), "an id is given once");
    let added = store.application_changes().await.unwrap();
    assert!(added > before);
    let find = async |store: SharedStore| {
        store.applications().await.unwrap().into_iter().find(|one| one.id == shop.id).unwrap()
    };
    assert_eq!(find(store.clone()).await, shop);

    let keys = vec![VerificationKey { kid: "b".into(), algorithm: Algorithm::HS256, key: "s".repeat(32) }];
    let settings = AppSettings {
        message_rate: Some(MessageRate { per_second: 2.5, burst: 3 }),
        words: Words { list: vec!["Ärger".into()], action: PolicyAction::Mask },
        links: Links { action: PolicyAction::Refuse, own_hosts: vec!["example.org".into()] },
        retention: Retention::Days { days: 30 },
        register_on_first_sight: true,
        keys,
        ..AppSettings::default()
    };
    assert!(store.update_application(shop.id, "Shop 2", &settings, added).await.unwrap());
    assert!(!store.update_application(shop.id, "none", &settings, added).await.unwrap(), "it has changed");
    let changed = store.application_changes().await.unwrap();
    assert!(changed > added);
    assert!(!store.update_application(AppId::random(), "none", &settings, changed).await.unwrap());
    let expected = Application { name: "Shop 2".to_owned(), settings: Arc::new(settings), ..shop.clone() };
    assert_eq!(find(fixture.open().await).await, expected);

    // Several at once that have seen the same: one of them does, and whoever looks again as well.
    for round in 0..10 {
        let seen = store.application_changes().await.unwrap();
        let settings = AppSettings { contacts_only: round % 2 == 0, ..AppSettings::default() };
        let names = ["One", "Two", "Three", "Four"];
        let updates = join_all(names.map(|name| store.update_application(shop.id, name, &settings, seen)));
        let done: Vec<bool> = updates.await.into_iter().map(|updated| updated.unwrap()).collect();
        assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
        let winner = names.iter().zip(&done).find(|(_, done)| **done).map(|(name, _)| *name);
        assert_eq!(Some(find(store.clone()).await.name.as_str()), winner);
        assert_eq!(store.application_changes().await.unwrap(), seen + 1);
    }
    // And those that are made meanwhile are counted.
    let seen = store.application_changes().await.unwrap();
    let two = [AppId::random(), AppId::random()].map(|id| Application { id, ..shop.clone() });
    let added = join_all(two.iter().map(|one| store.add_application(one))).await;
    assert!(added.into_iter().all(|added| added.unwrap()));
    assert!(store.application_changes().await.unwrap() >= seen + 2);
}

pub async fn a_secret_of_the_cluster_is_what_was_given_first(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let asked = (0..10_u8).map(|n| {
        let store = store.clone();
        async move { store.cluster_secret("links", &[n; 16]).await.unwrap() }
    });
    let answers: BTreeSet<Vec<u8>> = join_all(asked).await.into_iter().collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(store.cluster_secret("tickets", &[99; 16]).await.unwrap(), [99; 16]);
    assert_eq!(store.cluster_secret("tickets", &[98; 16]).await.unwrap(), [99; 16]);
}

pub async fn a_username_is_taken_without_regard_to_case(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let named = |username: &str| User { username: username.to_owned(), ..person("x") };
    assert!(store.add_user(AppId::DEFAULT, &named("Zoë")).await.unwrap());
    for taken in ["Zoë", "zoë", "ZOË"] {
        assert!(!store.add_user(AppId::DEFAULT, &named(taken)).await.unwrap(), "{taken}");
        let found = store.user_by_username(AppId::DEFAULT, taken).await.unwrap().unwrap();
        assert_eq!(found.username, "Zoë", "as it was given");
    }
    assert!(store.add_user(AppId::DEFAULT, &named("Zoe")).await.unwrap());
    assert!(store.add_user(AppId::random(), &named("Zoë")).await.unwrap());
}

pub async fn one_of_many_who_register_under_one_name_gets_it(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let users: Vec<User> = (0..20).map(|_| User { username: "ana".into(), ..person("Ana") }).collect();
    let added = join_all(users.iter().map(|user| store.add_user(AppId::DEFAULT, user))).await;
    assert_eq!(added.iter().filter(|added| *added.as_ref().unwrap()).count(), 1);
    let winner = store.user_by_username(AppId::DEFAULT, "ana").await.unwrap().unwrap();
    let place = added.iter().position(|added| *added.as_ref().unwrap()).unwrap();
    assert_eq!(winner, users[place]);
}

pub async fn a_user_is_found_by_name_and_by_id_in_one_application(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ana = person("Ana");
    let ben = User { mobile_number: None, timezone: None, ..person("Ben") };
    for user in [&ana, &ben] {
        store.add_user(AppId::DEFAULT, user).await.unwrap();
        assert_eq!(store.user(AppId::DEFAULT, user.id).await.unwrap().as_ref(), Some(user));
        assert_eq!(
            store.user_by_username(AppId::DEFAULT, &user.username).await.unwrap().as_ref(),
            Some(user)
        );
        assert_eq!(store.user(AppId::random(), user.id).await.unwrap(), None);
        assert_eq!(store.user_by_username(AppId::random(), &user.username).await.unwrap(), None);
    }
    assert_eq!(store.user(AppId::DEFAULT, UserId::random()).await.unwrap(), None);
    assert_eq!(store.user_by_username(AppId::DEFAULT, "'; --").await.unwrap(), None);
}

pub async fn names_are_answered_for_those_who_exist(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let people: Vec<User> = ["Ana", "Ben", "Zoë 🙂"].map(person).into();
    for user in &people {
        store.add_user(AppId::DEFAULT, user).await.unwrap();
    }
    let mut ids: Vec<UserId> = people.iter().map(|user| user.id).collect();
    ids.extend((0..997).map(|_| UserId::random()));
    let mut names: Vec<String> =
        store.users(AppId::DEFAULT, &ids).await.unwrap().into_iter().map(|user| user.name).collect();
    names.sort();
    assert_eq!(names, ["Ana", "Ben", "Zoë 🙂"]);
    assert!(store.users(AppId::DEFAULT, &[]).await.unwrap().is_empty());
    assert!(store.users(AppId::random(), &ids).await.unwrap().is_empty());
}

pub async fn sign_ins_are_listed_newest_first_until_they_expire(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let (old, new, short) = (sign_in(ana, 10, 900), sign_in(ana, 20, 900), sign_in(ana, 15, 100));
    for one in [&old, &new, &short, &sign_in(ben, 30, 900)] {
        store.add_sign_in(AppId::DEFAULT, one).await.unwrap();
    }
    let list = async |now| store.sign_ins(AppId::DEFAULT, ana, Millis(now)).await.unwrap();
    assert_eq!(list(99).await, [new.clone(), short, old.clone()]);
    assert_eq!(list(100).await, [new.clone(), old]);
    assert_eq!(list(900).await, []);
    assert!(store.sign_ins(AppId::random(), ana, Millis(0)).await.unwrap().is_empty());
    for n in 0..120 {
        store.add_sign_in(AppId::DEFAULT, &sign_in(ana, 30 + n, 900)).await.unwrap();
    }
    let newest = list(200).await;
    assert_eq!(newest.len(), 100);
    assert_eq!(newest[0].created_at, Millis(149));
}

pub async fn a_sign_in_is_ended_once_and_by_its_user_only(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let one = sign_in(ana, 1, 900);
    store.add_sign_in(AppId::DEFAULT, &one).await.unwrap();
    assert!(!store.end_sign_in(AppId::DEFAULT, ben, one.id).await.unwrap());
    assert!(!store.end_sign_in(AppId::random(), ana, one.id).await.unwrap());
    let ended = join_all((0..10).map(|_| store.end_sign_in(AppId::DEFAULT, ana, one.id))).await;
    assert_eq!(ended.iter().filter(|ended| *ended.as_ref().unwrap()).count(), 1);
    assert!(store.sign_ins(AppId::DEFAULT, ana, Millis(2)).await.unwrap().is_empty());
    let revoked = store.revocations(0, Millis(2)).await.unwrap();
    assert_eq!(revoked.len(), 1);
    let revoked = &revoked[0];
    assert_eq!((revoked.app, revoked.user, revoked.session), (AppId::DEFAULT, ana, one.id));
    assert_eq!(revoked.expires_at, Millis(900));
}

pub async fn revocations_are_numbered_and_seen_in_order(fixture: &dyn Fixture) {
    const COUNT: usize = 60;
    let store = fixture.open().await;
    let ana = UserId::random();
    let sign_ins: Vec<SignIn> = (0..COUNT).map(|_| sign_in(ana, 1, 900)).collect();
    for one in &sign_ins {
        store.add_sign_in(AppId::DEFAULT, one).await.unwrap();
    }
    // Who polls while rows come must never meet a number below one it has seen.
    let polled = async {
        let mut seen = Vec::new();
        while seen.len() < COUNT {
            let after = seen.last().copied().unwrap_or(0);
            let rows = store.revocations(after, Millis(2)).await.unwrap();
            assert!(rows.iter().all(|row| row.no > after));
            seen.extend(rows.into_iter().map(|row| row.no));
        }
        seen
    };
    let ended = join_all(sign_ins.iter().map(|one| store.end_sign_in(AppId::DEFAULT, ana, one.id)));
    let (seen, _) = tokio::join!(polled, ended);
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    let all: Vec<u64> =
        store.revocations(0, Millis(2)).await.unwrap().into_iter().map(|row| row.no).collect();
    assert_eq!(all, seen, "nothing was missed");
}

pub async fn a_revocation_matters_until_its_token_has_expired(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ana = UserId::random();
    let day = 24 * 3600 * 1000;
    let one = sign_in(ana, 1, 900);
    store.add_sign_in(AppId::DEFAULT, &one).await.unwrap();
    store.end_sign_in(AppId::DEFAULT, ana, one.id).await.unwrap();
    let first = store.revocations(0, Millis(899)).await.unwrap()[0].no;
    assert!(store.revocations(0, Millis(900)).await.unwrap().is_empty());
    assert!(store.revocations(first, Millis(1)).await.unwrap().is_empty());
    // Long afterwards the row may be gone; its number is not given again.
    let other = sign_in(ana, day, 2 * day);
    store.add_sign_in(AppId::DEFAULT, &other).await.unwrap();
    store.end_sign_in(AppId::DEFAULT, ana, other.id).await.unwrap();
    let rows = store.revocations(first, Millis(day)).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].no > first);
}
