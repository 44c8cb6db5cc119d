//! Contacts and blocks.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::{Fixture, Scribe, scribe::person};
use crate::{
    ids::{AppId, ChatId, UserId, UserKey},
    model::{ChatKind, PageRequest, Role, UserView},
    store::{Pair, Related, Relation, SharedStore, Ties},
    time::Millis,
    wire::record::What,
};

const PAGE: PageRequest = PageRequest { page: 1, per_page: 15 };
const MOST: u64 = 100;

fn key(user: UserId) -> UserKey {
    UserKey { app: AppId::DEFAULT, user }
}

async fn relate(store: &SharedStore, user: UserId, relation: Relation, peer: UserId, on: bool) -> Related {
    store.relate(key(user), relation, peer, on, Millis(1), MOST).await.unwrap()
}

/// The ties of two, which are none when there is no row.
async fn ties(store: &SharedStore, one: UserId, other: UserId) -> Ties {
    let pair = Pair::new(AppId::DEFAULT, one, other);
    store.ties(&[pair]).await.unwrap().pop().unwrap_or_else(|| Ties::none(pair))
}

/// A direct chat of two with this many messages.
async fn direct(scribe: &mut Scribe, one: UserId, other: UserId, messages: usize) -> ChatId {
    let chat = ChatId::direct(scribe.app, one, other);
    let members = vec![(one, Role::Member), (other, Role::Member)];
    let what =
        What::Created { kind: ChatKind::Direct, name: None, description: None, members, request: None };
    let mut changes = vec![scribe.change(chat, one, what)];
    for _ in 0..messages {
        changes.push(scribe.message(chat, other, "hello"));
    }
    scribe.write(changes).await;
    chat
}

pub async fn id_8_a_contact_and_a_block_are_made_and_ended_once_and_are_the_users_own(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (ana, ben) = (UserId::random(), UserId::random());
    for relation in [Relation::Contact, Relation::Block] {
        assert_eq!(relate(&store, ana, relation, ben, false).await, Related::Already);
        assert_eq!(relate(&store, ana, relation, ben, true).await, Related::Changed);
        assert_eq!(relate(&store, ana, relation, ben, true).await, Related::Already);
    }
    let reopened = fixture.open().await;
    let held = ties(&reopened, ben, ana).await;
    assert!(held.has_as_contact(ana) && held.blocks(ana));
    assert!(!held.has_as_contact(ben) && !held.blocks(ben), "his to say");
    assert_eq!(relate(&store, ben, Relation::Block, ana, false).await, Related::Already);
    assert_eq!(relate(&store, ana, Relation::Contact, ben, false).await, Related::Changed);
    let held = ties(&store, ana, ben).await;
    assert!(!held.has_as_contact(ana) && held.blocks(ana), "one stays without the other");
    assert_eq!(relate(&store, ana, Relation::Block, ben, false).await, Related::Changed);
    assert_eq!(ties(&store, ana, ben).await, Ties::none(Pair::new(AppId::DEFAULT, ana, ben)));
    // Many asked for at once are told of once each.
    let peers: Vec<UserId> = (0..50).map(|_| UserId::random()).collect();
    for peer in &peers {
        relate(&store, ana, Relation::Block, *peer, true).await;
        relate(&store, *peer, Relation::Contact, ana, true).await;
    }
    let mut pairs: Vec<Pair> = peers.iter().map(|peer| Pair::new(AppId::DEFAULT, *peer, ana)).collect();
    pairs.extend((0..950).map(|_| Pair::new(AppId::DEFAULT, ana, UserId::random())));
    let all = store.ties(&pairs).await.unwrap();
    assert_eq!(all.len(), 50);
    assert!(all.iter().all(|ties| ties.blocks(ana)));
    assert!(peers.iter().all(|peer| all.iter().any(|ties| ties.has_as_contact(*peer))));
    assert_eq!(store.ties(&[]).await.unwrap(), []);
}

pub async fn id_8_contacts_are_listed_by_the_newest_message_and_then_by_name(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let store = scribe.store.clone();
    let ana = scribe.user("Ana").await;
    let mut ids = Vec::new();
    for name in ["Zoë", "ben", "Ärne", "Cleo", "Dan"] {
        let id = scribe.user(name).await;
        assert_eq!(relate(&store, ana, Relation::Contact, id, true).await, Related::Changed);
        ids.push(id);
    }
    let [zoe, ben, _, cleo, dan] = ids[..] else { panic!() };
    // No contact of hers, whatever is said.
    let stranger = scribe.user("Stranger").await;
    direct(&mut scribe, ana, stranger, 1).await;
    relate(&store, stranger, Relation::Contact, ana, true).await;
    let names = async || {
        let page = store.contacts(key(ana), PAGE).await.unwrap();
        page.results.into_iter().map(|contact| contact.user.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["Ärne", "ben", "Cleo", "Dan", "Zoë"]);
    let first = direct(&mut scribe, ana, dan, 2).await;
    direct(&mut scribe, zoe, ana, 1).await;
    // A chat without messages is no chatting.
    direct(&mut scribe, ana, cleo, 0).await;
    assert_eq!(names().await, ["Zoë", "Dan", "Ärne", "ben", "Cleo"]);
    let again = scribe.message(first, ana, "hello again");
    let at = again.at;
    scribe.write(vec![again]).await;
    assert_eq!(names().await, ["Dan", "Zoë", "Ärne", "ben", "Cleo"]);
    let page = store.contacts(key(ana), PageRequest { page: 1, per_page: 2 }).await.unwrap();
    assert_eq!((page.current, page.total), (1, 3));
    assert_eq!(page.results[0].last_message_at, Some(at));
    let last = store.contacts(key(ana), PageRequest { page: 3, per_page: 2 }).await.unwrap();
    assert_eq!((last.results.len(), last.results[0].last_message_at), (1, None));
    let past = store.contacts(key(ana), PageRequest { page: 4, per_page: 2 }).await.unwrap();
    assert_eq!((past.total, past.results.len()), (3, 0));
    relate(&store, ana, Relation::Contact, ben, false).await;
    assert_eq!(names().await, ["Dan", "Zoë", "Ärne", "Cleo"]);
    assert_eq!(store.contacts(key(ben), PAGE).await.unwrap().results, []);
}

pub async fn id_8_a_user_has_so_many_contacts_and_blocks_and_no_more_however_many_come_at_once(
    fixture: &dyn Fixture,
) {
    let store = fixture.open().await;
    let user = person("Ana");
    store.add_user(AppId::DEFAULT, &user).await.unwrap();
    for relation in [Relation::Contact, Relation::Block] {
        let peers: Vec<UserId> = (0..20).map(|_| UserId::random()).collect();
        let made = peers.iter().map(|peer| store.relate(key(user.id), relation, *peer, true, Millis(1), 7));
        let made: Vec<Related> = join_all(made).await.into_iter().map(Result::unwrap).collect();
        let count = |what| made.iter().filter(|made| **made == what).count();
        assert_eq!((count(Related::Changed), count(Related::Full)), (7, 13));
        // Who is there is not one more; and one less makes room.
        let there = peers[made.iter().position(|made| *made == Related::Changed).unwrap()];
        let refused = peers[made.iter().position(|made| *made == Related::Full).unwrap()];
        let ask =
            async |peer, on| store.relate(key(user.id), relation, peer, on, Millis(1), 7).await.unwrap();
        assert_eq!(ask(there, true).await, Related::Already);
        assert_eq!(ask(there, false).await, Related::Changed);
        assert_eq!(ask(refused, true).await, Related::Changed);
        assert_eq!(ask(there, true).await, Related::Full);
    }
}

pub async fn id_9_blocks_are_paged_newest_first_and_found_from_both_ends(fixture: &dyn Fixture) {
    let scribe = Scribe::new(fixture.open().await);
    let store = scribe.store.clone();
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let mut blocked = Vec::new();
    for at in 0..5 {
        let id = scribe.user(&format!("Pest {at}")).await;
        store.relate(key(ana), Relation::Block, id, true, Millis(at), MOST).await.unwrap();
        blocked.push(id);
    }
    relate(&store, ana, Relation::Contact, ben, true).await;
    relate(&store, ben, Relation::Block, blocked[0], true).await;
    let page = store.blocks(key(ana), PageRequest { page: 1, per_page: 3 }).await.unwrap();
    assert_eq!((page.current, page.total), (1, 2));
    assert_eq!(page.results[0], UserView { id: blocked[4], name: "Pest 4".into(), avatar: None });
    let rest = store.blocks(key(ana), PageRequest { page: 2, per_page: 3 }).await.unwrap();
    assert_eq!(rest.results.iter().map(|user| user.id).collect::<Vec<_>>(), [blocked[1], blocked[0]]);
    assert_eq!(store.blocks(key(ana), PageRequest { page: 9, per_page: 3 }).await.unwrap().results, []);

    let all: BTreeSet<_> =
        store.blocked_by(&[key(ana), key(ben), key(blocked[0])]).await.unwrap().into_iter().collect();
    let mut expected: BTreeSet<_> = blocked.iter().map(|peer| (key(ana), *peer)).collect();
    expected.insert((key(ben), blocked[0]));
    assert_eq!(all, expected);
    assert_eq!(store.blocked_by(&[]).await.unwrap(), []);

    let mut among = vec![ana, ben, blocked[1]];
    among.extend((0..997).map(|_| UserId::random()));
    let blockers: BTreeSet<_> =
        store.blockers_of(key(blocked[0]), &among).await.unwrap().into_iter().collect();
    assert_eq!(blockers, BTreeSet::from([(ana, Millis(0)), (ben, Millis(1))]));
    assert_eq!(store.blockers_of(key(ben), &among).await.unwrap(), []);
    assert_eq!(store.blockers_of(key(blocked[0]), &[ben]).await.unwrap(), [(ben, Millis(1))]);
}

pub async fn id_9_who_was_erased_is_nobody_s_contact_and_blocked_by_nobody(fixture: &dyn Fixture) {
    let scribe = Scribe::new(fixture.open().await);
    let (store, ana) = (scribe.store.clone(), scribe.user("Ana").await);
    let mut peers = Vec::new();
    for name in ["Ben", "Cleo", "Dan"] {
        peers.push(scribe.user(name).await);
    }
    for relation in [Relation::Contact, Relation::Block] {
        for peer in &peers {
            assert_eq!(relate(&store, ana, relation, *peer, true).await, Related::Changed);
        }
    }
    for gone in &peers[..2] {
        assert!(store.erase_user(AppId::DEFAULT, *gone, Millis(2)).await.unwrap());
    }
    let one = PageRequest { page: 1, per_page: 1 };
    let blocks = store.blocks(key(ana), one).await.unwrap();
    assert_eq!((blocks.total, blocks.results[0].id), (1, peers[2]));
    let contacts = store.contacts(key(ana), one).await.unwrap();
    assert_eq!((contacts.total, contacts.results[0].user.id), (1, peers[2]));
    for relation in [Relation::Contact, Relation::Block] {
        let mut made = Vec::new();
        for _ in 0..3 {
            let peer = UserId::random();
            made.push(store.relate(key(ana), relation, peer, true, Millis(3), 3).await.unwrap());
        }
        assert_eq!(made, [Related::Changed, Related::Changed, Related::Full]);
    }
}

pub async fn id_9_changes_of_relations_are_numbered_seen_in_order_and_kept_for_a_while(
    fixture: &dyn Fixture,
) {
    const COUNT: usize = 40;
    let store = fixture.open().await;
    let ana = UserId::random();
    assert_eq!(store.relation_changes(0).await.unwrap(), []);
    // What changes nothing is no change.
    relate(&store, ana, Relation::Block, ana, false).await;
    let peers: Vec<UserId> = (0..COUNT).map(|_| UserId::random()).collect();
    let polled = async {
        let mut seen = Vec::new();
        while seen.len() < COUNT {
            let after = seen.last().copied().unwrap_or(0);
            seen.extend(store.relation_changes(after).await.unwrap().into_iter().map(|row| row.no));
        }
        seen
    };
    let made = peers.iter().map(|peer| relate(&store, ana, Relation::Contact, *peer, true));
    let (seen, _) = tokio::join!(polled, join_all(made));
    assert_eq!(seen, (1..=COUNT as u64).collect::<Vec<_>>());
    let last = store.relation_changes(COUNT as u64 - 1).await.unwrap();
    assert_eq!((last.len(), last[0].at), (1, Millis(1)));
    assert!(peers.iter().any(|peer| last[0].pair == Pair::new(AppId::DEFAULT, ana, *peer)));

    // Long afterwards old ones go, a few with each that comes; the newest stays, and no number is given again.
    let day = Millis(24 * 3_600 * 1_000);
    for peer in &peers[..10] {
        store.relate(key(ana), Relation::Contact, *peer, false, day, MOST).await.unwrap();
    }
    let kept = store.relation_changes(0).await.unwrap();
    assert!((10..=11).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap().no, COUNT as u64 + 10);
    assert!(kept.is_sorted_by(|a, b| a.no + 1 == b.no), "{kept:?}");
}

pub async fn id_9_applications_do_not_see_each_others_relations(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let there = AppId::random();
    let (ana, ben) = (person("Ana"), person("Ben"));
    for app in [AppId::DEFAULT, there] {
        for user in [&ana, &ben] {
            assert!(store.add_user(app, user).await.unwrap());
        }
    }
    for relation in [Relation::Contact, Relation::Block] {
        assert_eq!(relate(&store, ana.id, relation, ben.id, true).await, Related::Changed);
    }
    let elsewhere = UserKey { app: there, user: ana.id };
    assert_eq!(store.contacts(elsewhere, PAGE).await.unwrap().results, []);
    assert_eq!(store.blocks(elsewhere, PAGE).await.unwrap().results, []);
    assert_eq!(store.ties(&[Pair::new(there, ana.id, ben.id)]).await.unwrap(), []);
    assert_eq!(store.blocked_by(&[elsewhere]).await.unwrap(), []);
    assert_eq!(store.blockers_of(UserKey { app: there, user: ben.id }, &[ana.id]).await.unwrap(), []);
    let off = store.relate(elsewhere, Relation::Block, ben.id, false, Millis(1), MOST).await.unwrap();
    assert_eq!(off, Related::Already);
    assert!(ties(&store, ana.id, ben.id).await.blocks(ana.id));
    assert_eq!(store.contacts(key(ana.id), PAGE).await.unwrap().results.len(), 1);
}
