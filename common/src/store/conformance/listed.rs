//! All that an application has (OP-6).

use super::{Fixture, Scribe};
use crate::{
    ids::{AppId, MessageId, UserId},
    model::PageRequest,
    wire::record::What,
};

pub async fn op_6_all_users_of_an_application_are_paged_in_order_of_their_ids(fixture: &dyn Fixture) {
    let scribe = Scribe::new(fixture.open().await);
    let mut added = Vec::new();
    for n in 0..25 {
        added.push(scribe.user(&format!("User {n}")).await);
    }
    added.sort_unstable();
    let mut listed: Vec<UserId> = Vec::new();
    for page in 1..=4 {
        let answer = scribe.store.all_users(scribe.app, PageRequest { page, per_page: 10 }).await.unwrap();
        assert_eq!((answer.current, answer.total), (page, 3));
        listed.extend(answer.results.iter().map(|user| user.id));
        for user in answer.results {
            assert_eq!(scribe.store.user(scribe.app, user.id).await.unwrap(), Some(user));
        }
    }
    assert_eq!(listed, added);
    let other = scribe.store.all_users(AppId::random(), PageRequest { page: 1, per_page: 10 }).await.unwrap();
    assert_eq!((other.total, other.results), (0, Vec::new()));
}

pub async fn op_6_all_messages_of_an_application_are_paged_and_one_is_found_by_its_id(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let one = scribe.group(Some("one"), &[ana]).await;
    let two = scribe.group(Some("two"), &[ana, ben]).await;
    let gone = scribe.group(Some("gone"), &[ana]).await;
    for n in 0..4 {
        scribe.say(two, ben, &format!("two {n}")).await;
        scribe.say(gone, ana, "gone").await;
        let named = scribe.named(one, ana, &format!("one {n}"), Some("a name"));
        scribe.write(vec![named]).await;
    }
    scribe.does(one, ana, What::Erased { number: 2 }).await;
    let lost = scribe.store.message_ids(scribe.key(gone), 0, 1).await.unwrap()[0].1;
    assert_eq!(scribe.store.message_place(scribe.app, lost).await.unwrap(), Some((gone, 1)));
    scribe.does(gone, ana, What::Deleted).await;

    let mut bodies = Vec::new();
    for page in 1..=4 {
        let answer = scribe.store.all_messages(scribe.app, PageRequest { page, per_page: 3 }).await.unwrap();
        assert_eq!((answer.current, answer.total), (page, 3));
        for message in answer.results {
            let place = scribe.store.message_place(scribe.app, message.id).await.unwrap();
            assert_eq!(place, Some((message.chat, message.number)));
            assert_eq!(message.client_id, None);
            bodies.push(message.body);
        }
    }
    assert_eq!(bodies, ["one 0", "", "one 2", "one 3", "two 0", "two 1", "two 2", "two 3"]);

    assert_eq!(scribe.store.message_place(scribe.app, lost).await.unwrap(), None, "its chat was deleted");
    assert_eq!(scribe.store.message_place(scribe.app, MessageId::random()).await.unwrap(), None);
    let known = scribe.store.message_ids(scribe.key(one), 0, 1).await.unwrap()[0].1;
    assert_eq!(scribe.store.message_place(AppId::random(), known).await.unwrap(), None);
    let other = PageRequest { page: 1, per_page: 10 };
    assert!(scribe.store.all_messages(AppId::random(), other).await.unwrap().results.is_empty());
}
