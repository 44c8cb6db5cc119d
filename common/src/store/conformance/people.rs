//! Profiles, and finding people by name.

use super::{Fixture, scribe::person};
use crate::{
    ids::{AppId, UserId},
    model::PageRequest,
    store::{ProfileChange, SharedStore, User},
};

const PAGE: PageRequest = PageRequest { page: 1, per_page: 10 };

async fn add(store: &SharedStore, name: &str) -> UserId {
    let user = person(name);
    assert!(store.add_user(AppId::DEFAULT, &user).await.unwrap());
    user.id
}

async fn found(store: &SharedStore, query: &str) -> Vec<String> {
    let page = store.find_people(AppId::DEFAULT, query, PAGE).await.unwrap();
    page.results.into_iter().map(|user| user.name).collect()
}

pub async fn a_profile_is_changed_where_it_is_asked_for(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ana = person("Ana");
    store.add_user(AppId::DEFAULT, &ana).await.unwrap();
    let update =
        async |change: ProfileChange| store.update_profile(AppId::DEFAULT, ana.id, &change).await.unwrap();
    let named = User { name: "Ana María".into(), avatar: Some("picture".into()), ..ana.clone() };
    let change = ProfileChange {
        name: Some("Ana María".into()),
        avatar: Some(Some("picture".into())),
        timezone: None,
    };
    assert_eq!(update(change).await, Some(named.clone()));
    let there = ProfileChange { timezone: Some(Some("Asia/Tokyo".into())), ..ProfileChange::default() };
    assert_eq!(update(there).await, Some(User { timezone: Some("Asia/Tokyo".into()), ..named }));
    let bare = ProfileChange { avatar: Some(None), timezone: Some(None), ..ProfileChange::default() };
    let bare = update(bare).await.unwrap();
    assert_eq!((bare.name.as_str(), &bare.avatar, &bare.timezone), ("Ana María", &None, &None));
    assert_eq!(store.user(AppId::DEFAULT, ana.id).await.unwrap(), Some(bare));
    for (app, user) in [(AppId::random(), ana.id), (AppId::DEFAULT, UserId::random())] {
        assert_eq!(store.update_profile(app, user, &ProfileChange::default()).await.unwrap(), None);
    }
}

pub async fn people_are_found_by_the_beginnings_of_the_words_of_their_names(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for name in ["Ana Díaz", "Anabel Roth", "Diana Anders", "Ben O'Brien", "王小明", "🙂"] {
        add(&store, name).await;
    }
    assert_eq!(found(&store, "ana").await, ["Ana Díaz", "Anabel Roth"]);
    assert_eq!(found(&store, "ANA dia").await, ["Ana Díaz"]);
    assert_eq!(found(&store, "díaz ana").await, ["Ana Díaz"]);
    assert_eq!(found(&store, "dia an").await, ["Diana Anders", "Ana Díaz"]);
    assert_eq!(found(&store, "brien").await, ["Ben O'Brien"]);
    assert_eq!(found(&store, "小明").await, ["王小明"]);
    assert_eq!(found(&store, "🙂").await, ["🙂"]);
    for nobody in ["iaz", "ana x", "%", "_", "'", "?", "", " ", "ana' OR 1=1"] {
        assert_eq!(found(&store, nobody).await, Vec::<String>::new(), "{nobody}");
    }
}

pub async fn people_are_found_by_nothing_but_their_names(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ana = User {
        username: "secretive".into(),
        mobile_number: Some("600123".into()),
        timezone: Some("Europe/Madrid".into()),
        avatar: Some("picture".into()),
        ..person("Ana")
    };
    store.add_user(AppId::DEFAULT, &ana).await.unwrap();
    for query in ["secretive", "600123", "Europe", "Madrid", "picture", &ana.id.to_string()] {
        assert_eq!(found(&store, query).await, Vec::<String>::new(), "{query}");
    }
    assert_eq!(store.find_people(AppId::random(), "ana", PAGE).await.unwrap().results, []);
}

pub async fn who_has_a_new_name_is_found_by_it_and_by_the_old_one_no_more(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ana = add(&store, "Ana Díaz").await;
    let change = ProfileChange { name: Some("Anna Roth".into()), ..ProfileChange::default() };
    store.update_profile(AppId::DEFAULT, ana, &change).await.unwrap().unwrap();
    assert_eq!(found(&store, "roth").await, ["Anna Roth"]);
    assert_eq!(found(&store, "diaz").await, Vec::<String>::new());
    assert_eq!(found(&fixture.open().await, "an").await, ["Anna Roth"]);
}

pub async fn who_is_found_is_paged_in_one_order(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for n in 0..25 {
        add(&store, &format!("Ana {n}")).await;
    }
    let mut all = Vec::new();
    for page in 1..=3 {
        let page = PageRequest { page, per_page: 10 };
        let answer = store.find_people(AppId::DEFAULT, "ana", page).await.unwrap();
        assert_eq!((answer.current, answer.total), (page.page, 3));
        all.extend(answer.results.into_iter().map(|user| user.id));
    }
    assert_eq!(all.len(), 25);
    assert!(all.is_sorted_by(|a, b| a < b), "each once: one word, so by id");
    let past = store.find_people(AppId::DEFAULT, "ana", PageRequest { page: 9, per_page: 10 }).await.unwrap();
    assert_eq!((past.total, past.results.len()), (3, 0));
}
