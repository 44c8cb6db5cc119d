//! What clients and owners read of chats.

use std::collections::{BTreeMap, HashMap};

use super::{
    Fixture, Scribe,
    scribe::{edited, group, sent},
};
use crate::{
    ids::{AppId, ChatId, ClientId, Number, UserId, UserKey},
    model::{ChatKind, ChatView, Head, MessageKind, PageRequest, Role},
    store::{AppCounts, DEPARTURES, Departure, Membership, Range, Refused, SendKey, fingerprint},
    time::Millis,
    wire::record::What,
};

const FIRST: PageRequest = PageRequest { page: 1, per_page: 10 };

async fn view(scribe: &Scribe, chat: ChatId, user: UserId) -> ChatView {
    scribe.store.chat_view(scribe.key(chat), user).await.unwrap().unwrap()
}

pub async fn a_chat_is_seen_by_its_members_only(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (scribe.user("Ana").await, scribe.user("Ben").await, scribe.user("Eve").await);
    let chat = scribe.group(Some("Course"), &[ana, ben]).await;
    scribe.say(chat, ana, "hello").await;
    let key = scribe.key(chat);
    let store = scribe.store.clone();

    let seen = view(&scribe, chat, ben).await;
    assert_eq!((seen.id, seen.number, seen.kind), (chat, 1, ChatKind::Group));
    assert_eq!((seen.name.as_str(), seen.description.clone()), ("Course", None));
    assert_eq!((seen.members_count, seen.messages_count, seen.seq), (2, 1, 2));
    assert_eq!((seen.created_at, seen.created_by), (Millis(1_001), ana));
    let members: Vec<_> = seen.members.iter().map(|m| (m.id, m.name.as_str(), m.role, m.joined_at)).collect();
    assert_eq!(
        members,
        [(ana, "Ana", Role::Owner, Millis(1_001)), (ben, "Ben", Role::Member, Millis(1_001))]
    );
    assert_eq!(seen.last_message.as_ref().unwrap().body, "hello");
    assert_eq!(store.chats_of(AppId::DEFAULT, ben, FIRST).await.unwrap().results, [seen]);
    let head = Head { number: 1, seq: 2 };
    assert_eq!(
        scribe.memberships(ben).await,
        [Membership { chat, head, members: 2, expired: 0, head_upto: 2, joined_seq: 1, joined_upto: 1 }]
    );
    assert!(store.is_member(key, ben).await.unwrap());

    assert_eq!(store.chat_view(key, eve).await.unwrap(), None);
    assert_eq!(store.members(key, eve, FIRST).await.unwrap(), None);
    assert!(!store.is_member(key, eve).await.unwrap());
    assert!(scribe.memberships(eve).await.is_empty());
    let none = store.chats_of(AppId::DEFAULT, eve, FIRST).await.unwrap();
    assert_eq!((none.current, none.total, none.results.len()), (1, 0, 0));

    scribe.does(chat, ana, What::Joined { user: eve, role: Role::Admin }).await;
    assert_eq!(view(&scribe, chat, eve).await.members[2].role, Role::Admin);
    scribe.does(chat, ana, What::Left { user: ben, heir: None }).await;
    assert_eq!(store.chat_view(key, ben).await.unwrap(), None);
    assert!(scribe.memberships(ben).await.is_empty());
    assert!(!store.is_member(key, ben).await.unwrap());
    assert_eq!(view(&scribe, chat, eve).await.members_count, 2);
}

pub async fn chats_are_listed_by_their_latest_activity(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let mut chats = Vec::new();
    for n in 0..23 {
        chats.push(scribe.group(Some(&format!("chat {n}")), &[ana, ben]).await);
    }
    // A message is activity; a new name is not.
    scribe.say(chats[3], ben, "up").await;
    scribe
        .does(
            chats[5],
            ana,
            What::Updated { name: Some("five".into()), description: Some("of 23".into()), retention: None },
        )
        .await;
    let mut expected: Vec<ChatId> = chats.iter().rev().copied().filter(|chat| *chat != chats[3]).collect();
    expected.insert(0, chats[3]);
    let mut listed = Vec::new();
    for page in 1..=3 {
        let page =
            scribe.store.chats_of(AppId::DEFAULT, ana, PageRequest { page, per_page: 10 }).await.unwrap();
        assert_eq!(page.total, 3);
        listed.extend(page.results.iter().map(|chat| chat.id));
    }
    assert_eq!(listed, expected);
    let past =
        scribe.store.chats_of(AppId::DEFAULT, ana, PageRequest { page: 4, per_page: 10 }).await.unwrap();
    assert_eq!((past.current, past.total, past.results.len()), (4, 3, 0));
    let five = view(&scribe, chats[5], ben).await;
    assert_eq!((five.name.as_str(), five.description.as_deref()), ("five", Some("of 23")));
    scribe
        .does(
            chats[5],
            ana,
            What::Updated { name: None, description: Some("of many".into()), retention: None },
        )
        .await;
    let five = view(&scribe, chats[5], ben).await;
    assert_eq!((five.name.as_str(), five.description.as_deref()), ("five", Some("of many")));
}

pub async fn a_chat_without_a_name_is_called_after_its_others(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let mut users = Vec::new();
    for name in ["Ana", "Ben", "Cem", "Dan", "Eva"] {
        users.push(scribe.user(name).await);
    }
    let direct = scribe.direct(users[0], users[1]).await;
    assert_eq!(view(&scribe, direct, users[0]).await.name, "Ben");
    assert_eq!(view(&scribe, direct, users[1]).await.name, "Ana");
    let group = scribe.group(None, &users).await;
    assert_eq!(view(&scribe, group, users[0]).await.name, "Ben, Cem, Dan and 1 more");
    assert_eq!(view(&scribe, group, users[2]).await.name, "Ana, Ben, Dan and 1 more");
    let seen = scribe.store.app_chat(scribe.key(group)).await.unwrap().unwrap();
    assert_eq!(seen.name, "Ana, Ben, Cem and 2 more", "to the application, which is none of them");
    let with_stranger = scribe.direct(users[0], UserId::random()).await;
    assert!(!view(&scribe, with_stranger, users[0]).await.name.is_empty());
}

pub async fn the_newest_message_shows_its_client_id_to_its_sender_only(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chat = scribe.direct(ana, ben).await;
    let change = scribe.named(chat, ana, "hi", Some("a-1"));
    scribe.write(vec![change]).await;
    for (user, expected) in [(ana, Some("a-1")), (ben, None)] {
        let expected = expected.map(|name| ClientId::new(name).unwrap());
        assert_eq!(view(&scribe, chat, user).await.last_message.unwrap().client_id, expected);
        let page = scribe.store.chats_of(AppId::DEFAULT, user, FIRST).await.unwrap();
        assert_eq!(page.results[0].last_message.as_ref().unwrap().client_id, expected);
    }
}

pub async fn unread_is_what_came_after_joining_reading_and_writing(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (scribe.user("Ana").await, scribe.user("Ben").await, scribe.user("Eve").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    let unread = async |scribe: &Scribe, user| view(scribe, chat, user).await.unread_count;
    for n in 0..3 {
        scribe.say(chat, ana, &format!("{n}")).await;
    }
    assert_eq!((unread(&scribe, ana).await, unread(&scribe, ben).await), (0, 3));
    // Writing is reading.
    scribe.say(chat, ben, "seen").await;
    assert_eq!((unread(&scribe, ana).await, unread(&scribe, ben).await), (1, 0));
    scribe.does(chat, ana, What::Joined { user: eve, role: Role::Member }).await;
    assert_eq!(unread(&scribe, eve).await, 0);
    scribe.say(chat, ana, "welcome").await;
    assert_eq!(unread(&scribe, eve).await, 1);
    // A deleted message keeps its number, and is counted.
    scribe.does(chat, ana, What::Erased { number: 5 }).await;
    assert_eq!(unread(&scribe, eve).await, 1);
    // Who comes again starts anew, also when all of it is one batch.
    let batch = vec![
        scribe.message(chat, eve, "bye"),
        scribe.change(chat, eve, What::Left { user: eve, heir: None }),
        scribe.message(chat, ana, "oh"),
        scribe.change(chat, ana, What::Joined { user: eve, role: Role::Member }),
        scribe.message(chat, ana, "again"),
    ];
    scribe.write(batch).await;
    assert_eq!(unread(&scribe, eve).await, 1);
    assert_eq!(view(&scribe, chat, eve).await.members_count, 3);
}

pub async fn members_are_paged_in_order_of_joining(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = scribe.user("Ana").await;
    let mut members = vec![ana];
    members.extend((0..120).map(|_| UserId::random()));
    let chat = scribe.group(Some("big"), &members).await;
    let late = UserId::random();
    scribe.does(chat, ana, What::Joined { user: late, role: Role::Member }).await;
    members.push(late);
    let mut listed = Vec::new();
    for page in 1..=4 {
        let page = PageRequest { page, per_page: 40 };
        let page = scribe.store.members(scribe.key(chat), ana, page).await.unwrap().unwrap();
        assert_eq!(page.total, 4);
        listed.extend(page.results.iter().map(|member| member.id));
    }
    assert_eq!(listed, members);
    let seen = view(&scribe, chat, ana).await;
    assert_eq!((seen.members_count, seen.members.len()), (122, 100));
    assert_eq!(seen.members[99].id, members[99]);
}

pub async fn an_owner_who_leaves_has_an_heir(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (scribe.user("Ana").await, scribe.user("Ben").await, scribe.user("Eve").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    scribe.does(chat, ana, What::Left { user: ana, heir: Some(ben) }).await;
    assert_eq!(view(&scribe, chat, ben).await.members[0].role, Role::Owner);
    // One who came in the same batch may inherit as well, and one who comes again is what they came as.
    let batch = vec![
        scribe.change(chat, ben, What::Joined { user: eve, role: Role::Member }),
        scribe.change(chat, ben, What::Left { user: ben, heir: Some(eve) }),
        scribe.change(chat, eve, What::Joined { user: ben, role: Role::Member }),
    ];
    scribe.write(batch).await;
    let roles: Vec<_> = view(&scribe, chat, eve).await.members.iter().map(|m| (m.id, m.role)).collect();
    assert_eq!(roles, [(eve, Role::Owner), (ben, Role::Member)]);
}

/// CH-4.
pub async fn members_are_named_and_un_named_and_a_group_is_handed_over(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (scribe.user("Ana").await, scribe.user("Ben").await, scribe.user("Eve").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    let given = async |scribe: &Scribe| {
        let row = scribe.store.load(&[scribe.key(chat)]).await.unwrap().answer.remove(0);
        row.members.iter().map(|member| (member.user, member.role)).collect::<Vec<_>>()
    };
    let roles = |roles: &[(UserId, Role)]| What::Roles { roles: roles.to_vec() };
    scribe.does(chat, ana, roles(&[(ben, Role::Admin)])).await;
    assert_eq!(given(&scribe).await, [(ana, Role::Owner), (ben, Role::Admin)]);
    assert_eq!(view(&scribe, chat, ben).await.members[1].role, Role::Admin);
    // Handed over, back again and once more in one batch, with somebody who has just come.
    let batch = vec![
        scribe.change(chat, ana, roles(&[(ben, Role::Owner), (ana, Role::Admin)])),
        scribe.change(chat, ben, What::Joined { user: eve, role: Role::Member }),
        scribe.change(chat, ben, roles(&[(eve, Role::Owner), (ben, Role::Admin)])),
        scribe.change(chat, ana, roles(&[(ana, Role::Member)])),
    ];
    scribe.write(batch).await;
    assert_eq!(given(&scribe).await, [(ana, Role::Member), (ben, Role::Admin), (eve, Role::Owner)]);
    // Whoever is no member has no role.
    let head = scribe.head(chat);
    let stranger = scribe.change(chat, eve, roles(&[(UserId::random(), Role::Admin)]));
    assert!(matches!(scribe.attempt(0, vec![stranger]).await, Err(Refused::Broken { .. })));
    scribe.back_to(chat, head);
    assert_eq!(view(&scribe, chat, ana).await.seq, head.seq);
}

pub async fn a_deleted_chat_is_listed_nowhere_and_still_known(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chat = scribe.group(Some("gone"), &[ana, ben]).await;
    let kept = scribe.group(Some("kept"), &[ana, ben]).await;
    scribe.say(chat, ana, "hello").await;
    scribe.does(chat, ana, What::Deleted).await;
    let key = scribe.key(chat);
    for user in [ana, ben] {
        let page = scribe.store.chats_of(AppId::DEFAULT, user, FIRST).await.unwrap();
        assert_eq!((page.total, page.results.len(), page.results[0].id), (1, 1, kept));
        assert_eq!(scribe.store.chat_view(key, user).await.unwrap(), None);
        assert_eq!(scribe.store.members(key, user, FIRST).await.unwrap(), None);
        assert!(!scribe.store.is_member(key, user).await.unwrap());
        assert_eq!(scribe.memberships(user).await.len(), 1);
    }
    let loaded = scribe.store.load(&[key]).await.unwrap().answer;
    assert!(loaded[0].deleted);
    assert_eq!(loaded[0].head, Head { number: 1, seq: 3 });
    // Made and deleted in one batch.
    let short = ChatId::random();
    let batch =
        vec![scribe.change(short, ana, group(None, &[ana, ben])), scribe.change(short, ana, What::Deleted)];
    scribe.write(batch).await;
    assert_eq!(scribe.memberships(ben).await.len(), 1);
}

pub async fn what_a_user_is_in_and_has_left_is_told_with_its_place_in_the_log(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (scribe.user("Ana").await, scribe.user("Ben").await, scribe.user("Eve").await);
    let key = |user| UserKey { app: AppId::DEFAULT, user };
    // The first batch leads to position 1, and each further one to the next.
    let first = scribe.group(Some("first"), &[ana, ben]).await;
    let second = scribe.group(Some("second"), &[ana, ben]).await;
    scribe.does(first, ana, What::Joined { user: eve, role: Role::Member }).await;
    scribe.say(first, ana, "hello").await;
    scribe.does(first, ana, What::Left { user: ben, heir: None }).await;

    let store = scribe.store.clone();
    let mut found = store.standing(&[key(ana), key(ben), key(eve)]).await.unwrap();
    found.users.values_mut().for_each(|chats| chats.memberships.sort_by_key(|chat| chat.joined_upto));
    assert_eq!(found.positions, store.positions().await.unwrap(), "of the same instant");
    let found: HashMap<_, _> =
        found.users.into_iter().map(|(user, chats)| (user, chats.memberships)).collect();
    let head = Head { number: 1, seq: 4 };
    let in_first =
        Membership { chat: first, head, members: 2, expired: 0, head_upto: 5, joined_seq: 1, joined_upto: 1 };
    let in_second = Membership {
        chat: second,
        head: Head { number: 0, seq: 1 },
        members: 2,
        expired: 0,
        head_upto: 2,
        joined_seq: 1,
        joined_upto: 2,
    };
    assert_eq!(found[&key(ana)], [in_first, in_second]);
    assert_eq!(found[&key(ben)], [in_second]);
    assert_eq!(found[&key(eve)], [Membership { joined_seq: 2, joined_upto: 3, ..in_first }]);
    assert_eq!(scribe.memberships(eve).await, found[&key(eve)], "alone as well");

    assert_eq!(scribe.standing(ben).await.departures, [Departure { chat: first, left_upto: 5 }]);
    assert_eq!(scribe.standing(ana).await.departures, []);
    scribe.does(first, ana, What::Joined { user: ben, role: Role::Member }).await;
    scribe.does(first, ana, What::Left { user: ben, heir: None }).await;
    scribe.does(second, ana, What::Deleted).await;
    let mut left = scribe.standing(ben).await.departures;
    left.sort_by_key(|departure| departure.left_upto);
    assert_eq!(
        left,
        [Departure { chat: first, left_upto: 7 }, Departure { chat: second, left_upto: 8 }],
        "the newest time, and a chat that was deleted"
    );
    assert_eq!(scribe.standing(ana).await.departures, [Departure { chat: second, left_upto: 8 }]);
    assert!(store.standing(&[]).await.unwrap().users.is_empty());
}

pub async fn the_newest_departures_of_a_user_are_kept(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chats: Vec<ChatId> = (0..DEPARTURES + 8).map(|_| ChatId::random()).collect();
    let made = chats.iter().map(|chat| scribe.change(*chat, ana, group(None, &[ana, ben]))).collect();
    scribe.write(made).await;
    for some in chats.chunks(8) {
        let left =
            some.iter().map(|chat| scribe.change(*chat, ben, What::Left { user: ben, heir: None })).collect();
        scribe.write(left).await;
    }
    let kept = async |scribe: &Scribe, user| {
        let mut kept: BTreeMap<_, Vec<ChatId>> = BTreeMap::new();
        for Departure { chat, left_upto } in scribe.standing(user).await.departures {
            kept.entry(left_upto).or_default().push(chat);
        }
        kept
    };
    let kept_of_ben = kept(&scribe, ben).await;
    assert_eq!(kept_of_ben.len() * 8, DEPARTURES);
    for (kept, left) in kept_of_ben.values().zip(chats.chunks(8).skip(1)) {
        assert!(
            kept.len() == 8 && kept.iter().all(|chat| left.contains(chat)),
            "the first ones are forgotten"
        );
    }
    assert_eq!(kept(&scribe, ana).await.len(), 0);

    // Whoever leaves one of them again has left it anew, and a chat that is deleted is one more.
    scribe.does(chats[8], ana, What::Joined { user: ben, role: Role::Member }).await;
    scribe.does(chats[8], ben, What::Left { user: ben, heir: None }).await;
    let last = scribe.group(None, &[ana, ben]).await;
    scribe.does(last, ana, What::Deleted).await;
    let kept_of_ben = kept(&scribe, ben).await;
    let counts: Vec<usize> = kept_of_ben.values().map(Vec::len).collect();
    assert_eq!((counts.iter().sum::<usize>(), counts[0]), (DEPARTURES, 6));
    assert_eq!(kept_of_ben.values().rev().take(2).collect::<Vec<_>>(), [&vec![last], &vec![chats[8]]]);
    assert_eq!(kept(&scribe, ana).await.into_values().collect::<Vec<_>>(), [[last]], "nobody else's");
    // Of many at once.
    let gone: Vec<_> = chats.iter().map(|chat| scribe.change(*chat, ana, What::Deleted)).collect();
    scribe.write(gone).await;
    assert_eq!(kept(&scribe, ana).await.into_values().map(|chats| chats.len()).sum::<usize>(), DEPARTURES);
    assert_eq!(kept(&scribe, ben).await.into_values().map(|chats| chats.len()).sum::<usize>(), DEPARTURES);
}

pub async fn history_reads_both_ways_to_the_ends(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    let key = scribe.key(chat);
    let empty = scribe.store.history(key, Range::Before(Number::MAX), 10).await.unwrap().unwrap();
    assert_eq!((empty.messages.len(), empty.head), (0, Head { number: 0, seq: 1 }));
    let batch = (1..=70).map(|n| scribe.message(chat, ana, &format!("m{n}"))).collect();
    scribe.write(batch).await;
    let numbers = async |range, limit| {
        let slice = scribe.store.history(key, range, limit).await.unwrap().unwrap();
        assert_eq!(slice.head, Head { number: 70, seq: 71 });
        assert!(slice.messages.iter().all(|message| message.body == format!("m{}", message.number)));
        slice.messages.iter().map(|message| message.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(Range::Before(Number::MAX), 3).await, [70, 69, 68]);
    assert_eq!(numbers(Range::Before(3), 50).await, [2, 1]);
    assert_eq!(numbers(Range::Before(1), 50).await, [0; 0]);
    assert_eq!(numbers(Range::After(0), 3).await, [1, 2, 3]);
    assert_eq!(numbers(Range::After(68), 50).await, [69, 70]);
    assert_eq!(numbers(Range::After(70), 50).await, [0; 0]);
    assert_eq!(numbers(Range::After(Number::MAX), 50).await, [0; 0]);
    assert_eq!(scribe.store.history(scribe.key(ChatId::random()), Range::After(0), 9).await.unwrap(), None);
    let ids = scribe.store.message_ids(key, 66, 3).await.unwrap();
    assert_eq!(ids.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [67, 68, 69]);
    let last = scribe.store.message(key, 70).await.unwrap().answer.unwrap();
    assert_eq!(scribe.store.message_ids(key, 69, 9).await.unwrap(), [(70, last.id)]);
}

pub async fn an_edited_message_has_its_new_text_and_a_deleted_one_none(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    let key = scribe.key(chat);
    let mut first = scribe.named(chat, ana, "first", Some("one"));
    if let What::Sent { attachments, reply_to, kind, .. } = &mut first.what {
        *attachments = vec!["a".into(), "b \"c\"".into()];
        *reply_to = Some(1);
        *kind = MessageKind::Image;
    }
    let second = scribe.message(chat, ana, "second");
    let (was_first, was_second) = (first.message().unwrap(), second.message().unwrap());
    scribe.write(vec![first, second]).await;
    assert_eq!(scribe.store.message(key, 1).await.unwrap().answer, Some(was_first.clone()), "as it was sent");

    scribe.does(chat, ana, edited(&was_first, "better", 77)).await;
    let better = scribe.store.message(key, 1).await.unwrap().answer.unwrap();
    assert_eq!(
        (better.body.as_str(), better.edited_at, better.created_at),
        ("better", Some(Millis(77)), was_first.created_at)
    );
    assert_eq!((&better.client_id, &better.attachments), (&was_first.client_id, &was_first.attachments));

    scribe.does(chat, ana, What::Erased { number: 1 }).await;
    scribe.does(chat, ana, What::Erased { number: 1 }).await;
    let erased = scribe.store.message(key, 1).await.unwrap().answer.unwrap();
    assert!(erased.deleted && erased.body.is_empty() && erased.attachments.is_empty());
    assert_eq!((erased.id, erased.number), (was_first.id, 1));

    // All of it once more within one batch, around a message that was there and one that was not.
    let third = scribe.message(chat, ana, "third");
    let was_third = third.message().unwrap();
    let batch = vec![
        third,
        scribe.change(chat, ana, edited(&was_second, "2nd", 78)),
        scribe.change(chat, ana, edited(&was_third, "3rd", 79)),
        scribe.change(chat, ana, What::Erased { number: 2 }),
        scribe.message(chat, ana, "fourth"),
        scribe.change(chat, ana, What::Erased { number: 4 }),
    ];
    scribe.write(batch).await;
    let slice = scribe.store.history(key, Range::After(0), 10).await.unwrap().unwrap();
    let shown: Vec<_> = slice.messages.iter().map(|m| (m.number, m.body.as_str(), m.deleted)).collect();
    assert_eq!(shown, [(1, "", true), (2, "", true), (3, "3rd", false), (4, "", true)]);
    assert_eq!(slice.head, Head { number: 4, seq: 12 });
}

pub async fn chats_are_loaded_many_at_a_time(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let users: Vec<UserId> = (0..5).map(|_| UserId::random()).collect();
    let group = scribe.group(Some("all"), &users).await;
    let direct = scribe.direct(users[1], users[0]).await;
    scribe.say(group, users[0], "hello").await;
    let joined = scribe.does(direct, users[0], What::Joined { user: users[2], role: Role::Admin }).await;
    let keys = [group, ChatId::random(), direct, group].map(|chat| scribe.key(chat));
    let mut loaded = scribe.store.load(&keys).await.unwrap().answer;
    loaded.sort_by_key(|chat| chat.kind == ChatKind::Group);
    assert_eq!(loaded.len(), 2);
    assert_eq!((loaded[0].key.chat, loaded[1].key.chat), (direct, group));
    assert_eq!(
        (loaded[1].name.as_deref(), loaded[1].created_by, loaded[1].deleted),
        (Some("all"), users[0], false)
    );
    assert_eq!(loaded[1].head, Head { number: 1, seq: 2 });
    assert_eq!(loaded[1].members.iter().map(|member| member.user).collect::<Vec<_>>(), users);
    assert_eq!(loaded[1].members[0].role, Role::Owner);
    assert_eq!(
        (loaded[0].request, loaded[0].makings, loaded[1].request, loaded[1].makings),
        (None, 1, None, 1)
    );
    let late = loaded[0].members[2];
    assert_eq!((late.user, late.role, late.joined_seq), (users[2], Role::Admin, joined));
    assert!(scribe.store.load(&[]).await.unwrap().answer.is_empty());
}

pub async fn a_group_knows_the_request_that_made_it_and_how_much_of_its_making_is_there(
    fixture: &dyn Fixture,
) {
    let mut scribe = Scribe::new(fixture.open().await);
    let users: Vec<UserId> = (0..4).map(|_| UserId::random()).collect();
    let chat = ChatId::random();
    let mut made = group(None, &users[..1]);
    if let What::Created { request, .. } = &mut made {
        *request = Some(u64::MAX - 6);
    }
    let changes = vec![
        scribe.change(chat, users[0], made),
        scribe.change(chat, users[0], What::Members { members: vec![(users[1], Role::Member)] }),
    ];
    scribe.write(changes).await;
    let there = async |store: &crate::store::SharedStore, key| {
        let row = store.load(&[key]).await.unwrap().answer.remove(0);
        (row.request, row.makings, row.members.len())
    };
    let key = scribe.key(chat);
    assert_eq!(there(&scribe.store, key).await, (Some(u64::MAX - 6), 2, 2));
    // Somebody who is let in later is no part of it, and a record that brings nobody is.
    scribe.does(chat, users[0], What::Joined { user: users[2], role: Role::Member }).await;
    scribe.does(chat, users[0], What::Members { members: vec![(users[3], Role::Member)] }).await;
    scribe.does(chat, users[0], What::Members { members: vec![] }).await;
    assert_eq!(there(&scribe.store, key).await, (Some(u64::MAX - 6), 4, 4));
}

pub async fn a_sent_message_is_found_by_its_senders_name_for_it(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = scribe.group(None, &[ana, ben]).await;
    let other = scribe.group(None, &[ana, ben]).await;
    let changes = vec![
        scribe.named(chat, ana, "one", Some("a'1\"")),
        scribe.named(chat, ben, "two", Some("a'1\"")),
        scribe.named(chat, ana, "three", Some("é🙂")),
        scribe.message(chat, ana, "four"),
    ];
    scribe.write(changes.clone()).await;
    scribe.does(chat, ana, edited(&changes[0].message().unwrap(), "1", 9)).await;
    scribe.does(chat, ana, What::Erased { number: 3 }).await;
    let key = |chat, from, name: &str| SendKey {
        chat: scribe.key(chat),
        from,
        client_id: ClientId::new(name).unwrap(),
    };
    let asked = [
        key(chat, ana, "a'1\""),
        key(chat, ana, "é🙂"),
        key(chat, ben, "a'1\""),
        key(chat, ben, "é🙂"),
        key(other, ana, "a'1\""),
    ];
    let mut found = scribe.store.find_sent(&asked).await.unwrap().answer;
    found.sort_by_key(|found| found.number);
    assert_eq!(found.len(), 3);
    for (found, change) in found.iter().zip(&changes) {
        let message = change.message().unwrap();
        assert_eq!(
            (found.id, found.number, found.seq, found.at),
            (message.id, message.number, change.seq, change.at)
        );
        assert_eq!(
            found.fingerprint,
            fingerprint(&message.body, message.kind, None, &[]),
            "of what was sent first"
        );
        assert_eq!((found.key.from, Some(&found.key.client_id)), (message.from, message.client_id.as_ref()));
    }
    assert!(scribe.store.find_sent(&[]).await.unwrap().answer.is_empty());
}

/// No client may stop a partition.
pub async fn a_name_that_is_used_again_means_the_first_message(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    let first = scribe.named(chat, ana, "first", Some("one"));
    let same_batch = scribe.named(chat, ana, "second", Some("one"));
    let id = first.message().unwrap().id;
    scribe.write(vec![first, same_batch]).await;
    let later = scribe.named(chat, ana, "third", Some("one"));
    scribe.write(vec![later]).await;
    let client_id = ClientId::new("one").unwrap();
    let asked = SendKey { chat: scribe.key(chat), from: ana, client_id: client_id.clone() };
    let found = scribe.store.find_sent(&[asked]).await.unwrap().answer;
    assert_eq!(
        found.iter().map(|found| (found.id, found.number, found.seq)).collect::<Vec<_>>(),
        [(id, 1, 2)]
    );
    assert_eq!(found[0].fingerprint, fingerprint("first", MessageKind::Text, None, &[]));
    let last = scribe.store.message(scribe.key(chat), 3).await.unwrap().answer.unwrap();
    assert_eq!((last.body.as_str(), last.client_id), ("third", Some(client_id)));
}

pub async fn applications_do_not_see_each_other(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = scribe.group(Some("here"), &[ana, ben]).await;
    scribe.say(chat, ana, "here").await;
    // The same ids in another application are others.
    let here = scribe.key(chat);
    scribe.app = AppId::random();
    let there = scribe.key(chat);
    let changes = vec![
        scribe.change(chat, ana, group(Some("there"), &[ana])),
        scribe.change(chat, ana, sent(1, "there", Some("x"))),
        scribe.message(chat, ana, "2"),
    ];
    scribe.write(changes).await;
    let store = &scribe.store;
    assert_eq!(store.chat_view(here, ana).await.unwrap().unwrap().name, "here");
    let other = store.chat_view(there, ana).await.unwrap().unwrap();
    assert_eq!((other.name.as_str(), other.number, other.messages_count), ("there", 1, 2));
    assert!(store.is_member(here, ben).await.unwrap() && !store.is_member(there, ben).await.unwrap());
    assert_eq!(store.chats_of(AppId::DEFAULT, ana, FIRST).await.unwrap().results.len(), 1);
    assert_eq!(store.message(here, 2).await.unwrap().answer, None);
    let asked = SendKey { chat: here, from: ana, client_id: ClientId::new("x").unwrap() };
    assert!(store.find_sent(&[asked]).await.unwrap().answer.is_empty());
    assert_eq!(store.load(&[here, there]).await.unwrap().answer.len(), 2);
}

pub async fn an_application_finds_its_chats_by_number_and_counts_them(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let counts = async |scribe: &Scribe| scribe.store.application_counts(scribe.app).await.unwrap();
    assert_eq!(counts(&scribe).await, AppCounts::default());
    let one = scribe.group(Some("one"), &[ana, ben]).await;
    let two = scribe.direct(ana, ben).await;
    // Of nobody: an application may make one.
    let three = ChatId::random();
    scribe.does(three, UserId::APPLICATION, group(Some("three"), &[])).await;
    scribe.say(one, ana, "hello").await;
    scribe.say(one, UserId::APPLICATION, "a notice").await;
    scribe.say(two, ben, "hello").await;
    scribe.does(one, ana, What::Erased { number: 1 }).await;
    assert_eq!(counts(&scribe).await, AppCounts { chats: 3, messages: 3 });

    let store = scribe.store.clone();
    let page = store.app_chats(scribe.app, PageRequest { page: 1, per_page: 2 }).await.unwrap();
    assert_eq!((page.current, page.total), (1, 2));
    assert_eq!(
        page.results.iter().map(|chat| (chat.id, chat.number)).collect::<Vec<_>>(),
        [(one, 1), (two, 2)]
    );
    let view = store.app_chat(scribe.key(one)).await.unwrap().unwrap();
    assert_eq!(view, page.results[0]);
    assert_eq!((view.messages_count, view.members_count, view.unread_count), (2, 2, 0));
    let newest = view.last_message.unwrap();
    assert_eq!(
        (newest.from, newest.body.as_str(), newest.client_id),
        (UserId::APPLICATION, "a notice", None)
    );
    assert_eq!(store.app_chat(scribe.key(three)).await.unwrap().unwrap().members_count, 0);
    assert_eq!(store.chat_numbered(scribe.app, 2).await.unwrap(), Some(two));
    for none in [0, 4, u64::MAX] {
        assert_eq!(store.chat_numbered(scribe.app, none).await.unwrap(), None, "{none}");
    }

    scribe.does(one, ana, What::Deleted).await;
    assert_eq!(counts(&scribe).await, AppCounts { chats: 2, messages: 1 });
    assert_eq!(store.chat_numbered(scribe.app, 1).await.unwrap(), None);
    assert_eq!(store.app_chat(scribe.key(one)).await.unwrap(), None);
    assert_eq!(store.app_chats(scribe.app, FIRST).await.unwrap().results.len(), 2);
    let other = AppId::random();
    assert_eq!(store.application_counts(other).await.unwrap(), AppCounts::default());
    assert_eq!(store.chat_numbered(other, 2).await.unwrap(), None);
    assert!(store.app_chats(other, FIRST).await.unwrap().results.is_empty());
}
