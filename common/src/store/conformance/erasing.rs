//! The end of users and of applications.

use std::sync::Arc;

use super::{
    Fixture,
    scribe::{Scribe, person},
};
use crate::{
    applications::AppSettings,
    ids::{AppId, SessionId, UserId, UserKey},
    model::PageRequest,
    store::{AppCounts, Application, Pair, ProfileChange, Related, Relation, SharedStore, SignIn},
    time::Millis,
    wire::record::What,
};

const PAGE: PageRequest = PageRequest { page: 1, per_page: 10 };

async fn signed_in(store: &SharedStore, app: AppId, user: UserId, expires_at: Millis) -> SessionId {
    let id = SessionId::random();
    let sign_in = SignIn { id, user, device: None, created_at: Millis(1), expires_at };
    assert!(store.add_sign_in(app, &sign_in).await.unwrap());
    id
}

pub async fn a_user_who_was_erased_is_known_to_nobody_and_leaves_groups_in_time(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let store = scribe.store.clone();
    let app = scribe.app;
    let ana = person("Ana");
    assert!(store.add_user(app, &ana).await.unwrap());
    let (ben, key) = (scribe.user("Ben").await, UserKey { app, user: ana.id });
    let group = scribe.group(Some("group"), &[ben, ana.id]).await;
    let direct = scribe.direct(ana.id, ben).await;
    scribe.say(group, ana.id, "what she wrote").await;
    store.note_seen(&[(key, Millis(5))]).await.unwrap();
    let long = Millis(1 << 50);
    for expires_at in [Millis(900), long, Millis(901)] {
        signed_in(&store, app, ana.id, expires_at).await;
    }
    let others = signed_in(&store, app, ben, Millis(900)).await;
    assert!(store.end_sign_in(app, ben, others).await.unwrap());
    assert!(!store.erase_user(AppId::random(), ana.id, Millis(10)).await.unwrap());
    assert_eq!(store.groups_of_erased(10).await.unwrap(), []);

    assert!(store.erase_user(app, ana.id, Millis(10)).await.unwrap());
    assert!(!store.erase_user(app, ana.id, Millis(11)).await.unwrap(), "once");
    let store = fixture.open().await;
    assert_eq!(store.user(app, ana.id).await.unwrap(), None);
    assert_eq!(store.users(app, &[ana.id, ben]).await.unwrap().len(), 1);
    let asked = [ana.id, ben, UserId::random()];
    assert_eq!(store.erased(app, &asked).await.unwrap(), [ana.id], "who was here, and who never was");
    assert_eq!(store.erased(AppId::random(), &asked).await.unwrap(), []);
    for name in [&ana.username, "", &format!("ERASED {}", ana.id.0), &format!("erased {}", ana.id.0.simple())]
    {
        assert_eq!(store.user_by_username(app, name).await.unwrap(), None, "{name}");
    }
    assert_eq!(store.find_people(app, "ana", PAGE).await.unwrap().results, []);
    assert_eq!(store.update_profile(app, ana.id, &ProfileChange::default()).await.unwrap(), None);
    let bens = UserKey { app, user: ben };
    store.note_seen(&[(key, Millis(12)), (bens, Millis(13))]).await.unwrap();
    assert_eq!(store.last_seen(&[key, bens]).await.unwrap(), [(bens, Millis(13))], "who has just left");
    for relation in [Relation::Contact, Relation::Block] {
        let related = store.relate(key, relation, ben, true, Millis(12), 9).await.unwrap();
        assert_eq!(related, Related::Erased);
    }
    assert_eq!(store.ties(&[Pair::new(app, ana.id, ben)]).await.unwrap(), []);
    let late = SignIn {
        id: SessionId::random(),
        user: ana.id,
        device: None,
        created_at: Millis(1),
        expires_at: Millis(900),
    };
    assert!(!store.add_sign_in(app, &late).await.unwrap(), "who was signing in meanwhile does not");
    assert_eq!(store.sign_ins(app, ana.id, Millis(2)).await.unwrap(), []);
    let revoked = store.revocations(0, Millis(2)).await.unwrap();
    assert!(revoked.is_sorted_by(|one, other| one.no < other.no));
    let hers: Vec<_> = revoked.iter().filter(|one| one.user == ana.id).collect();
    assert_eq!((revoked.len(), hers.len()), (2, 1), "one for all of hers");
    assert_eq!((hers[0].session, hers[0].expires_at), (SessionId::every(app, ana.id), long));
    // Whoever signed in with tokens of the application's own has no row, and a token all the same.
    assert!(store.erase_user(app, scribe.user("Dan").await, Millis(10)).await.unwrap());
    let dans = store.revocations(hers[0].no, Millis(2)).await.unwrap().pop().unwrap();
    assert!(dans.expires_at > Millis(3_600_000), "{dans:?}");
    // The name is free, the id is not.
    assert!(store.add_user(app, &crate::store::User { id: UserId::random(), ..ana.clone() }).await.unwrap());
    let again = crate::store::User { username: "another".into(), ..ana.clone() };
    assert!(!store.add_user(app, &again).await.unwrap());

    // Until an owner has let her out.
    assert_eq!(store.groups_of_erased(10).await.unwrap(), [(key, scribe.key(group))]);
    store.settle_erased(Millis(1_000)).await.unwrap();
    assert_eq!(store.groups_of_erased(10).await.unwrap().len(), 1, "she is in it still");
    scribe.does(group, ana.id, What::Left { user: ana.id, heir: None }).await;
    assert_eq!(store.groups_of_erased(10).await.unwrap(), []);
    store.settle_erased(Millis(10)).await.unwrap();
    let late = scribe.group(Some("late"), &[ben, ana.id]).await;
    assert_eq!(
        store.groups_of_erased(10).await.unwrap(),
        [(key, scribe.key(late))],
        "who let her in meanwhile"
    );
    scribe.does(late, ana.id, What::Left { user: ana.id, heir: None }).await;
    store.settle_erased(Millis(11)).await.unwrap();
    scribe.group(Some("later"), &[ben, ana.id]).await;
    assert_eq!(store.groups_of_erased(10).await.unwrap(), [], "she is looked at no more");

    let said = store.message(scribe.key(group), 1).await.unwrap().answer.unwrap();
    assert_eq!((said.from, said.body.as_str()), (ana.id, "what she wrote"));
    assert!(store.is_member(scribe.key(direct), ana.id).await.unwrap(), "a direct chat has two members");
}

pub async fn an_application_that_was_erased_loses_its_rows_and_no_other_does(fixture: &dyn Fixture) {
    let mut here = Scribe::new(fixture.open().await);
    let store = here.store.clone();
    let shop = Application {
        id: AppId::random(),
        name: "Shop".to_owned(),
        token_secret: vec![7; 32],
        token_kid: "k1".to_owned(),
        settings: Arc::new(AppSettings::default()),
    };
    assert!(store.add_application(&shop).await.unwrap());
    let (ana, ben) = (here.user("Ana").await, here.user("Ben").await);
    let kept = here.group(Some("kept"), &[ana, ben]).await;
    here.say(kept, ana, "kept").await;

    here.app = shop.id;
    let (eve, dan) = (here.user("Eve").await, here.user("Dan").await);
    let chats = [here.group(Some("one"), &[eve, dan]).await, here.direct(eve, dan).await];
    for n in 0..20 {
        here.say(chats[n % 2], eve, "gone").await;
    }
    store.note_seen(&[(UserKey { app: shop.id, user: eve }, Millis(5))]).await.unwrap();
    signed_in(&store, shop.id, eve, Millis(900)).await;

    let changes = store.application_changes().await.unwrap();
    assert!(store.erase_application(shop.id, Millis(10)).await.unwrap());
    assert!(store.application_changes().await.unwrap() > changes);
    assert!(!store.erase_application(shop.id, Millis(11)).await.unwrap(), "once");
    let seen = store.application_changes().await.unwrap();
    assert!(!store.update_application(shop.id, "Shop", &AppSettings::default(), seen).await.unwrap());
    assert!(store.applications().await.unwrap().iter().all(|one| one.id != shop.id));
    assert!(!store.add_application(&shop).await.unwrap(), "its id is not given again");

    assert_eq!(store.drop_rows(Millis(10), 100).await.unwrap(), 0, "not yet");
    let mut rounds = 0;
    while store.drop_rows(Millis(11), 3).await.unwrap() > 0 {
        rounds += 1;
        assert!(rounds < 100);
    }
    assert!(rounds > 5, "in parts");
    let store = fixture.open().await;
    assert_eq!(store.application_counts(shop.id).await.unwrap(), AppCounts::default());
    assert_eq!(store.users(shop.id, &[eve, dan]).await.unwrap(), []);
    assert_eq!(store.find_people(shop.id, "eve", PAGE).await.unwrap().results, []);
    assert_eq!(store.message(here.key(chats[0]), 1).await.unwrap().answer, None);
    assert_eq!(store.load(&chats.map(|chat| here.key(chat))).await.unwrap().answer.len(), 0);
    assert!(here.memberships(eve).await.is_empty());

    here.app = AppId::DEFAULT;
    assert_eq!(store.users(here.app, &[ana, ben]).await.unwrap().len(), 2);
    assert_eq!(store.application_counts(here.app).await.unwrap(), AppCounts { chats: 1, messages: 1 });
    assert_eq!(here.memberships(ana).await.len(), 1);
}
