//! What users and applications choose to be told of, and where it goes (NO-1, NO-2).

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;

use super::{
    Fixture, Scribe,
    notify::{hold, round, sending, waiting},
};
use crate::{
    applications::AppSettings,
    ids::{AppId, EndpointId, SessionId, UserId, UserKey},
    model::Role,
    notifications::{
        ChatPreferences, Endpoint, NotificationKind, Preferences, QuietHours, Target, WebhookChange,
    },
    store::{
        Application, EndpointAdded, Except, Looked, Receivers, SUBSCRIPTIONS, SharedStore, SignIn, WEBHOOKS,
    },
    time::Millis,
    wire::record::What,
};

/// A webhook that was made then.
pub(super) fn webhook(app: AppId, at: i64) -> Endpoint {
    let target = Target::Webhook { url: format!("https://hooks.example/{at}"), secret: vec![1; 32] };
    Endpoint { id: EndpointId::random(), app, target, created_at: Millis(at), enabled: true }
}

/// A browser that was made then.
pub(super) fn browser(app: AppId, user: UserId, url: &str, at: i64) -> Endpoint {
    let (url, session) = (url.to_owned(), SessionId::random());
    let target = Target::Push { user, session, url, p256dh: vec![4; 65], auth: vec![2; 16] };
    Endpoint { id: EndpointId::random(), app, target, created_at: Millis(at), enabled: true }
}

pub(super) async fn add(store: &SharedStore, endpoint: &Endpoint) {
    assert_eq!(store.add_endpoint(endpoint).await.unwrap(), EndpointAdded::Added);
}

async fn ids(store: &SharedStore, app: AppId, user: Option<UserId>) -> Vec<EndpointId> {
    store.endpoints(app, user).await.unwrap().into_iter().map(|endpoint| endpoint.id).collect()
}

async fn shop(store: &SharedStore) -> AppId {
    let shop = Application {
        id: AppId::random(),
        name: "Shop".to_owned(),
        token_secret: vec![7; 32],
        token_kid: "k1".to_owned(),
        settings: Arc::new(AppSettings::default()),
    };
    assert!(store.add_application(&shop).await.unwrap());
    shop.id
}

pub async fn no_2_preferences_are_a_users_own_and_of_one_chat(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (app, ana, ben) = (scribe.app, scribe.user("Ana").await, scribe.user("Ben").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    let (store, key) = (scribe.store.clone(), scribe.key(chat));
    let of = |user| UserKey { app, user };
    assert_eq!(store.preferences(of(ana)).await.unwrap(), Preferences::default());
    let quiet = QuietHours { from: "22:00".parse().unwrap(), to: "07:30".parse().unwrap() };
    let mut chosen = Preferences {
        kinds: BTreeSet::from([NotificationKind::Mention, NotificationKind::Reply]),
        muted_until: Some(Millis(7)),
        quiet_hours: Some(quiet),
    };
    for kinds in [chosen.kinds.clone(), BTreeSet::new()] {
        chosen.kinds = kinds;
        assert!(store.set_preferences(of(ana), &chosen).await.unwrap());
        assert_eq!(fixture.open().await.preferences(of(ana)).await.unwrap(), chosen);
    }
    assert_eq!(store.preferences(of(ben)).await.unwrap(), Preferences::default());
    for nobody in [of(UserId::random()), UserKey { app: AppId::random(), user: ana }] {
        assert!(!store.set_preferences(nobody, &chosen).await.unwrap());
        assert_eq!(store.preferences(nobody).await.unwrap(), Preferences::default());
    }

    assert_eq!(store.chat_preferences(key, ana).await.unwrap(), Some(ChatPreferences::default()));
    let here = ChatPreferences { kinds: Some(BTreeSet::new()), muted_until: Some(Millis(9)) };
    for chosen in [ChatPreferences { muted_until: None, ..here.clone() }, here.clone()] {
        assert!(store.set_chat_preferences(key, ana, &chosen).await.unwrap());
        assert_eq!(store.chat_preferences(key, ana).await.unwrap(), Some(chosen));
    }
    assert_eq!(store.chat_preferences(key, ben).await.unwrap(), Some(ChatPreferences::default()));
    let cleo = scribe.user("Cleo").await;
    assert!(!store.set_chat_preferences(key, cleo, &here).await.unwrap(), "she is not in it");
    assert_eq!(store.chat_preferences(key, cleo).await.unwrap(), None);
    scribe.does(chat, ana, What::Left { user: ana, heir: Some(ben) }).await;
    assert_eq!(store.chat_preferences(key, ana).await.unwrap(), None);
    assert!(!store.set_chat_preferences(key, ana, &here).await.unwrap());
    scribe.does(chat, ben, What::Joined { user: ana, role: Role::Member }).await;
    assert_eq!(store.chat_preferences(key, ana).await.unwrap(), Some(ChatPreferences::default()));
    scribe.does(chat, ben, What::Deleted).await;
    assert_eq!(store.chat_preferences(key, ben).await.unwrap(), None);
}

pub async fn no_1_an_application_has_so_many_webhooks_and_no_more(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let app = shop(&store).await;
    let many: Vec<Endpoint> = (1..=WEBHOOKS as i64 + 5).map(|at| webhook(app, at)).collect();
    let outcomes = join_all(many.iter().map(|endpoint| store.add_endpoint(endpoint))).await;
    let added: Vec<&Endpoint> = many
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| matches!(outcome, Ok(EndpointAdded::Added)))
        .map(|(endpoint, _)| endpoint)
        .collect();
    assert_eq!(added.len() as u64, WEBHOOKS);
    assert_eq!(store.add_endpoint(&webhook(app, 99)).await.unwrap(), EndpointAdded::Full);
    let listed = fixture.open().await.endpoints(app, None).await.unwrap();
    assert_eq!(listed.iter().collect::<Vec<_>>(), added, "oldest first");

    let first = added[0].clone();
    let target = Target::Webhook { url: "https://other.example".to_owned(), secret: vec![9; 24] };
    let other = Endpoint { target, enabled: false, ..first.clone() };
    let changes = [
        WebhookChange { url: Some("https://other.example".to_owned()), ..WebhookChange::default() },
        WebhookChange { secret: Some(vec![9; 24]), ..WebhookChange::default() },
        WebhookChange { enabled: Some(false), ..WebhookChange::default() },
    ];
    for outcome in join_all(changes.iter().map(|change| store.update_webhook(app, first.id, change))).await {
        assert_eq!(outcome.unwrap().map(|endpoint| endpoint.id), Some(first.id));
    }
    assert_eq!(store.endpoint(app, None, first.id).await.unwrap(), Some(other), "none undoes another");
    assert_eq!(store.update_webhook(AppId::DEFAULT, first.id, &changes[2]).await.unwrap(), None);
    assert_eq!(store.update_webhook(app, EndpointId::random(), &changes[2]).await.unwrap(), None);
    assert_eq!(store.endpoint(AppId::DEFAULT, None, first.id).await.unwrap(), None);
    assert_eq!(store.endpoint(app, Some(UserId::random()), first.id).await.unwrap(), None);
    assert!(!store.remove_endpoint(AppId::DEFAULT, None, first.id).await.unwrap());
    assert!(!store.remove_endpoint(app, Some(UserId::random()), first.id).await.unwrap());
    assert!(store.remove_endpoint(app, None, first.id).await.unwrap());
    assert!(!store.remove_endpoint(app, None, first.id).await.unwrap(), "once");
    add(&store, &webhook(app, 99)).await;

    assert_eq!(store.add_endpoint(&webhook(AppId::random(), 1)).await.unwrap(), EndpointAdded::Nobody);
    assert_eq!(store.endpoints(AppId::DEFAULT, None).await.unwrap(), []);
}

pub async fn no_1_a_browser_is_there_once_and_a_user_has_so_many(fixture: &dyn Fixture) {
    let scribe = Scribe::new(fixture.open().await);
    let (store, app) = (scribe.store.clone(), scribe.app);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let first = browser(app, ana, "https://push.example/1", 1);
    add(&store, &first).await;
    let target = Target::Push {
        user: ana,
        session: SessionId::random(),
        url: "https://push.example/1".to_owned(),
        p256dh: vec![5; 65],
        auth: vec![6; 16],
    };
    add(
        &store,
        &Endpoint { id: EndpointId::random(), target: target.clone(), created_at: Millis(5), ..first },
    )
    .await;
    let with_new_keys = Endpoint { target, ..first.clone() };
    assert_eq!(store.endpoints(app, Some(ana)).await.unwrap(), [with_new_keys], "with its id");
    assert_eq!(store.endpoints(app, None).await.unwrap(), []);

    let his = browser(app, ben, "https://push.example/1", 2);
    add(&store, &his).await;
    assert_eq!(store.endpoints(app, Some(ana)).await.unwrap(), [], "it is his browser now");
    assert_eq!(store.endpoints(app, Some(ben)).await.unwrap(), std::slice::from_ref(&his));
    assert_eq!(store.endpoint(app, Some(ana), his.id).await.unwrap(), None);
    assert!(!store.remove_endpoint(app, Some(ana), his.id).await.unwrap());

    let browsers: Vec<Endpoint> = (0..SUBSCRIPTIONS as i64 + 3)
        .map(|at| browser(app, ana, &format!("https://push.example/{}", "x".repeat(3_000 + at as usize)), at))
        .collect();
    for browser in &browsers {
        add(&store, browser).await;
    }
    let newest: Vec<EndpointId> = browsers.iter().skip(3).map(|browser| browser.id).collect();
    assert_eq!(ids(&store, app, Some(ana)).await, newest);
    assert!(store.remove_endpoint(app, Some(ana), newest[0]).await.unwrap());
    assert_eq!(ids(&store, app, Some(ana)).await, newest[1..]);
    let old = browser(app, ana, "https://push.example/old", 0);
    add(&store, &old).await;
    add(&store, &browser(app, ana, "https://push.example/old", 0)).await;
    let all = ids(&store, app, Some(ana)).await;
    assert_eq!((all.len() as u64, all[0]), (SUBSCRIPTIONS, old.id), "what is there is no one more");

    for n in 0..10 {
        let url = format!("https://push.example/shared-{n}");
        let both: Vec<Endpoint> =
            [ana, ben, ana, ben].iter().map(|user| browser(app, *user, &url, 100 + n)).collect();
        for outcome in join_all(both.iter().map(|endpoint| store.add_endpoint(endpoint))).await {
            assert_eq!(outcome.unwrap(), EndpointAdded::Added);
        }
        let mut there = store.endpoints(app, Some(ana)).await.unwrap();
        there.extend(store.endpoints(app, Some(ben)).await.unwrap());
        assert_eq!(there.iter().filter(|endpoint| endpoint.target.url() == url).count(), 1);
    }
    for nobody in
        [browser(app, UserId::random(), "https://x", 1), browser(AppId::random(), ana, "https://x", 1)]
    {
        assert_eq!(store.add_endpoint(&nobody).await.unwrap(), EndpointAdded::Nobody);
    }
}

pub async fn no_1_a_browser_goes_with_its_sign_in(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app, ana) = (scribe.store.clone(), scribe.app, scribe.user("Ana").await);
    let chat = scribe.group(None, &[ana]).await;
    let (at, expires_at) = (Millis(1), Millis(i64::MAX / 2));
    let sign_ins = [(); 3].map(|()| SignIn {
        id: SessionId::random(),
        user: ana,
        device: None,
        created_at: at,
        expires_at,
    });
    let hers = |sign_in: &SignIn, url: &str| {
        let target = Target::Push {
            user: ana,
            session: sign_in.id,
            url: url.to_owned(),
            p256dh: vec![4; 65],
            auth: vec![2; 16],
        };
        Endpoint { id: EndpointId::random(), app, target, created_at: at, enabled: true }
    };
    for sign_in in &sign_ins {
        assert!(store.add_sign_in(app, sign_in).await.unwrap());
    }
    let (first, other) =
        (hers(&sign_ins[0], "https://push.example/1"), hers(&sign_ins[1], "https://push.example/2"));
    add(&store, &first).await;
    add(&store, &other).await;
    scribe.say(chat, ana, "hello").await;
    let row = waiting(&store, app).await.remove(0);
    let send = vec![sending(Some(ana), "hello")];
    assert!(store.looked(&Looked { send, ..round(&row, 1) }).await.unwrap());

    assert!(store.end_sign_in(app, ana, sign_ins[0].id).await.unwrap());
    assert_eq!(ids(&store, app, Some(ana)).await, [other.id]);
    assert_eq!(store.queued(app, other.id, 10).await.unwrap().len(), 1);
    while store.prune_deliveries(Millis(0), Millis(0), 10).await.unwrap() > 0 {}
    assert_eq!(store.queued(app, first.id, 10).await.unwrap(), [], "and what was to be sent to it");
    let late = hers(&sign_ins[0], "https://push.example/3");
    assert_eq!(store.add_endpoint(&late).await.unwrap(), EndpointAdded::Nobody);

    // Whoever signs in again in the same browser has it with the new sign-in.
    add(&store, &hers(&sign_ins[2], "https://push.example/2")).await;
    assert!(store.end_sign_in(app, ana, sign_ins[1].id).await.unwrap());
    assert_eq!(ids(&store, app, Some(ana)).await, [other.id]);

    // At the same time: nothing is left of it.
    let many: Vec<Endpoint> =
        (0..8).map(|n| hers(&sign_ins[2], &format!("https://push.example/race-{n}"))).collect();
    let (ended, _) = tokio::join!(
        store.end_sign_in(app, ana, sign_ins[2].id),
        join_all(many.iter().map(|endpoint| store.add_endpoint(endpoint)))
    );
    assert!(ended.unwrap());
    assert_eq!(store.endpoints(app, Some(ana)).await.unwrap(), []);
}

pub async fn no_2_who_was_erased_is_told_of_nothing(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app) = (scribe.store.clone(), scribe.app);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let (chat, key) = (scribe.group(None, &[ana, ben]).await, UserKey { app, user: ana });
    let muted = Preferences { muted_until: Some(Millis(1)), ..Preferences::default() };
    assert!(store.set_preferences(key, &muted).await.unwrap());
    let quiet = ChatPreferences { muted_until: Some(Millis(1)), kinds: None };
    assert!(store.set_chat_preferences(scribe.key(chat), ana, &quiet).await.unwrap());
    for (user, url) in [(ana, "https://push.example/a"), (ben, "https://push.example/b")] {
        add(&store, &browser(app, user, url, 1)).await;
    }
    scribe.say(chat, ben, "hello").await;
    hold(&store, &waiting(&store, app).await[0], &[ana, ben]).await;

    assert!(store.erase_user(app, ana, Millis(10)).await.unwrap());
    assert_eq!(store.preferences(key).await.unwrap(), Preferences::default());
    let hers = store.chat_preferences(scribe.key(chat), ana).await.unwrap();
    assert_eq!(hers, Some(ChatPreferences::default()), "she is in it until its owner has let her out");
    assert_eq!(store.endpoints(app, Some(ana)).await.unwrap(), []);
    let held = store.held(&[0], Millis(i64::MAX), 10).await.unwrap();
    assert_eq!(held.iter().map(|held| held.user).collect::<Vec<_>>(), [ben]);
    let candidates = store.candidates(scribe.key(chat), None, 10).await.unwrap();
    assert_eq!(candidates.iter().map(|one| one.user).collect::<Vec<_>>(), [ben]);
    assert_eq!(store.candidates_among(scribe.key(chat), &[ana]).await.unwrap(), []);
    assert!(!store.set_preferences(key, &muted).await.unwrap());
    assert!(!store.set_chat_preferences(scribe.key(chat), ana, &quiet).await.unwrap());
    let late = browser(app, ana, "https://push.example/c", 11);
    assert_eq!(store.add_endpoint(&late).await.unwrap(), EndpointAdded::Nobody);
}

pub async fn no_1_an_application_that_was_erased_notifies_nobody(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let store = scribe.store.clone();
    let app = shop(&store).await;
    scribe.app = app;
    let ana = scribe.user("Ana").await;
    let key = UserKey { app, user: ana };
    let chats = [scribe.group(None, &[ana]).await, scribe.group(None, &[ana]).await];
    let muted = Preferences { muted_until: Some(Millis(1)), ..Preferences::default() };
    assert!(store.set_preferences(key, &muted).await.unwrap());
    let quiet = ChatPreferences { muted_until: Some(Millis(1)), kinds: None };
    assert!(store.set_chat_preferences(scribe.key(chats[0]), ana, &quiet).await.unwrap());
    let hook = webhook(app, 1);
    add(&store, &hook).await;
    add(&store, &browser(app, ana, "https://push.example/a", 1)).await;
    for chat in chats {
        scribe.say(chat, ana, "hello").await;
    }
    hold(&store, &waiting(&store, app).await[0], &[ana]).await;
    assert_eq!(waiting(&store, app).await.len(), 1);

    assert!(store.erase_application(app, Millis(10)).await.unwrap());
    assert_eq!(store.notifying().await.unwrap(), []);
    let lease = std::time::Duration::from_secs(60);
    for receivers in [Receivers::Webhooks, Receivers::Browsers] {
        let leased =
            store.lease_endpoints(receivers, Except::default(), Millis(i64::MAX / 2), lease, 10).await;
        assert_eq!(leased.unwrap(), []);
    }
    assert_eq!(store.add_endpoint(&webhook(app, 1)).await.unwrap(), EndpointAdded::Nobody);
    let late = browser(app, ana, "https://push.example/b", 1);
    assert_eq!(store.add_endpoint(&late).await.unwrap(), EndpointAdded::Nobody);
    while store.drop_rows(Millis(11), 2).await.unwrap() > 0 {}
    assert_eq!(store.endpoints(app, None).await.unwrap(), []);
    assert_eq!(store.endpoints(app, Some(ana)).await.unwrap(), []);
    assert_eq!(store.preferences(key).await.unwrap(), Preferences::default());
    assert_eq!(store.held(&[0], Millis(i64::MAX), 10).await.unwrap(), []);
    assert_eq!(waiting(&store, app).await, []);
    assert_eq!(store.queued(app, hook.id, 10).await.unwrap(), []);
}
