//! Positions, and batches applied whole or not at all.

use uuid::Uuid;

use super::{
    Fixture, Scribe,
    scribe::{edited, group, sent},
};
use crate::{
    ids::{AppId, ChatId, Partition, UserId},
    model::{Head, Message, PageRequest, Role},
    store::{DeadLetter, PartitionBatch, Position, Range, Refused},
    term::TermState,
    wire::record::{Change, What},
};

fn broken(outcome: &Result<(), Refused>) -> (ChatId, u64) {
    match outcome {
        Err(Refused::Broken { chat, seq, why }) => {
            assert!(!why.is_empty());
            (chat.chat, *seq)
        }
        other => panic!("{other:?}"),
    }
}

pub async fn a_position_moves_only_from_where_it_is(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chat = ChatId::random();
    let made = scribe.change(chat, ana, group(None, &[ana]));
    let first = scribe.batch(3, vec![made]);
    let store = scribe.store.clone();
    assert!(store.positions().await.unwrap().is_empty());

    let too_far = PartitionBatch { expected: Some(first.next), ..first.clone() };
    assert_eq!(store.apply(&[too_far]).await.unwrap(), [Err(Refused::Moved(None))]);
    assert!(store.positions().await.unwrap().is_empty());
    assert!(store.load(&[scribe.key(chat)]).await.unwrap().answer.is_empty());

    assert_eq!(store.apply(std::slice::from_ref(&first)).await.unwrap(), [Ok(())]);
    scribe.applied(&first);
    assert_eq!(store.positions().await.unwrap(), [(3, first.next)]);
    assert_eq!(
        store.apply(std::slice::from_ref(&first)).await.unwrap(),
        [Err(Refused::Moved(Some(first.next)))]
    );

    let message = scribe.message(chat, ana, "hello");
    let good = scribe.batch(3, vec![message]);
    let here = first.next;
    let elsewhere = [
        Position { log: Uuid::from_u128(8), ..here },
        Position { offset: here.offset + 1, ..here },
        Position { state: TermState { term: Some(1), ..here.state }, ..here },
        Position { state: TermState { term: None, ..here.state }, ..here },
        Position { state: TermState { n: here.state.n + 1, ..here.state }, ..here },
    ];
    for expected in elsewhere.map(Some).into_iter().chain([None]) {
        let wrong = PartitionBatch { expected, ..good.clone() };
        assert_eq!(store.apply(&[wrong]).await.unwrap(), [Err(Refused::Moved(Some(here)))], "{expected:?}");
    }
    assert_eq!(store.apply(std::slice::from_ref(&good)).await.unwrap(), [Ok(())]);
    assert_eq!(store.positions().await.unwrap(), [(3, good.next)]);
    assert_eq!(store.load(&[scribe.key(chat)]).await.unwrap().answer[0].head, Head { number: 1, seq: 2 });

    // A state without a term is a position as well.
    let early = Position { log: scribe.log, offset: 4, state: TermState::default() };
    let batch = |expected, next| PartitionBatch {
        partition: 9,
        expected,
        next,
        changes: Vec::new(),
        dead: Vec::new(),
    };
    assert_eq!(store.apply(&[batch(None, early)]).await.unwrap(), [Ok(())]);
    assert_eq!(store.apply(&[batch(Some(early), here)]).await.unwrap(), [Ok(())]);
    assert_eq!(store.positions().await.unwrap(), [(3, good.next), (9, here)]);
}

pub async fn of_two_writers_at_once_one_is_refused(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    for n in 1..=20 {
        let message = scribe.message(chat, ana, &format!("{n}"));
        let batch = scribe.batch(0, vec![message]);
        let both = [batch.clone()];
        let (one, other) = tokio::join!(scribe.store.apply(&both), scribe.store.apply(&both));
        let outcomes = [one.unwrap().remove(0), other.unwrap().remove(0)];
        assert!(outcomes.contains(&Ok(())), "{outcomes:?}");
        assert!(outcomes.contains(&Err(Refused::Moved(Some(batch.next)))), "{outcomes:?}");
        scribe.applied(&batch);
    }
    let ids = scribe.store.message_ids(scribe.key(chat), 0, 100).await.unwrap();
    assert_eq!(ids.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
}

pub async fn a_batch_without_changes_moves_the_position(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    assert!(scribe.store.apply(&[]).await.unwrap().is_empty());
    assert_eq!(scribe.attempt(5, Vec::new()).await, Ok(()));
    assert_eq!(scribe.attempt(5, Vec::new()).await, Ok(()));
    let positions = scribe.store.positions().await.unwrap();
    assert_eq!(positions.len(), 1);
    assert_eq!((positions[0].0, positions[0].1.offset), (5, 2));
}

/// Every way in which a change may fail to follow, each behind a good one that must go with it.
pub async fn what_does_not_follow_is_refused_whole(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (UserId::random(), UserId::random(), UserId::random());
    let chat = scribe.group(Some("good"), &[ana, ben]).await;
    let first = scribe.message(chat, ana, "first");
    let message = first.message().unwrap();
    scribe.write(vec![first]).await;
    scribe.say(chat, ana, "second").await;
    scribe.does(chat, ana, What::Erased { number: 2 }).await;
    let gone = scribe.group(None, &[ana]).await;
    scribe.does(gone, ana, What::Deleted).await;
    let unknown = ChatId::random();
    let head = scribe.head(chat);
    let gone_head = scribe.head(gone);

    type Bad = Box<dyn Fn(&mut Scribe) -> Change + Send>;
    let in_chat = |what: What| -> Bad { Box::new(move |scribe| scribe.change(chat, ana, what.clone())) };
    let moved = |by: i64| -> Bad {
        Box::new(move |scribe| {
            let change = scribe.message(chat, ana, "x");
            Change { seq: change.seq.saturating_add_signed(by), ..change }
        })
    };
    let stranger = Message { number: 99, ..message.clone() };
    let erased = Message { number: 2, ..message.clone() };
    let members =
        |users: &[UserId]| What::Members { members: users.iter().map(|u| (*u, Role::Member)).collect() };
    let cases: Vec<(&str, Bad)> = vec![
        ("a seq is skipped", moved(1)),
        ("a seq comes again", moved(-1)),
        ("a number is skipped", in_chat(sent(head.number + 3, "x", None))),
        ("a number comes again", in_chat(sent(head.number, "x", None))),
        ("a chat is made again", in_chat(group(None, &[eve]))),
        ("a member comes in again", in_chat(What::Joined { user: ben, role: Role::Member })),
        ("first members come again", in_chat(members(&[eve, ben]))),
        ("a member is listed twice", in_chat(members(&[eve, eve]))),
        ("a stranger leaves", in_chat(What::Left { user: eve, heir: None })),
        ("a stranger inherits", in_chat(What::Left { user: ana, heir: Some(eve) })),
        ("the one who left inherits", in_chat(What::Left { user: ana, heir: Some(ana) })),
        ("an unknown message is edited", in_chat(edited(&stranger, "x", 1))),
        ("a deleted message is edited", in_chat(edited(&erased, "x", 1))),
        ("an unknown message is deleted", in_chat(What::Erased { number: 99 })),
        ("a deleted chat goes on", Box::new(move |scribe| scribe.message(gone, ana, "x"))),
        ("an unknown chat goes on", Box::new(move |scribe| scribe.message(unknown, ana, "x"))),
        (
            "a new chat starts late",
            Box::new(move |scribe| Change { seq: 2, ..scribe.change(unknown, ana, group(None, &[ana])) }),
        ),
    ];
    let before = scribe.store.history(scribe.key(chat), Range::After(0), 10).await.unwrap();
    let position = scribe.store.positions().await.unwrap();
    for (name, bad) in cases {
        let new = ChatId::random();
        let batch = vec![
            scribe.change(new, eve, group(None, &[eve])),
            scribe.message(chat, ana, "good"),
            bad(&mut scribe),
            scribe.message(new, eve, "after it"),
        ];
        let (bad_chat, bad_seq) = (batch[2].chat, batch[2].seq);
        let outcome = scribe.attempt(0, batch).await;
        assert_eq!(broken(&outcome), (bad_chat, bad_seq), "{name}: {outcome:?}");
        assert!(scribe.store.load(&[scribe.key(new)]).await.unwrap().answer.is_empty(), "{name}");
        assert!(scribe.memberships(eve).await.is_empty(), "{name}");
        for (chat, head) in [(chat, head), (gone, gone_head), (unknown, Head::default())] {
            scribe.back_to(chat, head);
        }
    }
    assert_eq!(scribe.store.history(scribe.key(chat), Range::After(0), 10).await.unwrap(), before);
    assert_eq!(scribe.store.positions().await.unwrap(), position);
    let loaded = scribe.store.load(&[scribe.key(chat)]).await.unwrap().answer;
    assert_eq!((loaded[0].head, loaded[0].members.len()), (head, 2));
    // And what follows is taken.
    scribe.say(chat, ana, "third").await;
}

pub async fn a_broken_partition_stops_alone(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chats: Vec<ChatId> = (0..4).map(|_| ChatId::random()).collect();
    let mut batches = Vec::new();
    for (partition, chat) in (0..).zip(&chats) {
        let made = scribe.change(*chat, ana, group(None, &[ana]));
        let said = scribe.message(*chat, ana, "hello");
        let changes = if partition == 1 { vec![said] } else { vec![made, said] };
        batches.push(scribe.batch(partition, changes));
    }
    batches[3].expected = Some(batches[3].next);
    let outcomes = scribe.store.apply(&batches).await.unwrap();
    assert_eq!(outcomes.len(), 4);
    assert_eq!((&outcomes[0], &outcomes[2]), (&Ok(()), &Ok(())));
    assert_eq!(broken(&outcomes[1]), (chats[1], 2));
    assert_eq!(outcomes[3], Err(Refused::Moved(None)));
    let partitions: Vec<Partition> =
        scribe.store.positions().await.unwrap().into_iter().map(|(partition, _)| partition).collect();
    assert_eq!(partitions, [0, 2]);
    let keys: Vec<_> = chats.iter().map(|chat| scribe.key(*chat)).collect();
    let mut loaded: Vec<ChatId> =
        scribe.store.load(&keys).await.unwrap().answer.iter().map(|chat| chat.key.chat).collect();
    loaded.sort();
    let mut expected = vec![chats[0], chats[2]];
    expected.sort();
    assert_eq!(loaded, expected);
}

pub async fn chats_are_numbered_without_holes_whatever_is_refused(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let made = |scribe: &mut Scribe, count: usize| -> Vec<Change> {
        (0..count).map(|_| scribe.change(ChatId::random(), ana, group(None, &[ana]))).collect()
    };
    let mut order = Vec::new();
    for count in [1, 150, 2] {
        let changes = made(&mut scribe, count);
        order.extend(changes.iter().map(|change| change.chat));
        scribe.write(changes).await;
        let mut refused = made(&mut scribe, 5);
        refused.push(scribe.message(ChatId::random(), ana, "nowhere"));
        broken(&scribe.attempt(1, refused).await);
    }
    let mut numbers = Vec::new();
    for chat in &order {
        numbers.push(scribe.store.chat_view(scribe.key(*chat), ana).await.unwrap().unwrap().number);
    }
    assert_eq!(numbers, (1..=153).collect::<Vec<_>>());
    scribe.app = AppId::random();
    let elsewhere = scribe.group(None, &[ana]).await;
    assert_eq!(scribe.store.chat_view(scribe.key(elsewhere), ana).await.unwrap().unwrap().number, 1);
}

pub async fn a_long_list_of_members_comes_in_several_records(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let users: Vec<UserId> = (0..5_000).map(|_| UserId::random()).collect();
    let chat = ChatId::random();
    let mut changes = vec![scribe.change(chat, users[0], group(Some("course"), &users[..1_000]))];
    for part in users[1_000..].chunks(1_000) {
        let members = part.iter().map(|user| (*user, Role::Member)).collect();
        changes.push(scribe.change(chat, users[0], What::Members { members }));
    }
    changes.push(scribe.message(chat, users[0], "welcome"));
    // One part comes with the chat, the others later.
    let later = changes.split_off(2);
    scribe.write(changes).await;
    scribe.write(later).await;
    let seen = scribe.store.chat_view(scribe.key(chat), users[4_999]).await.unwrap().unwrap();
    assert_eq!((seen.members_count, seen.unread_count), (5_000, 1));
    let loaded = scribe.store.load(&[scribe.key(chat)]).await.unwrap().answer;
    assert_eq!(loaded[0].members.iter().map(|member| member.user).collect::<Vec<_>>(), users);
    scribe.does(chat, users[0], What::Deleted).await;
    assert!(scribe.memberships(users[2_500]).await.is_empty());
}

pub async fn bytes_that_are_no_record_are_kept(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chat = ChatId::random();
    let made = scribe.change(chat, ana, group(None, &[ana]));
    let letter =
        |offset: u64| DeadLetter { offset, payload: vec![0, 255, 1], reason: "not a record".to_owned() };
    let mut batch = scribe.batch(0, vec![made.clone()]);
    batch.dead = vec![letter(0), letter(2)];
    let other = ChatId::random();
    let nothing = scribe.change(other, ana, What::Deleted);
    let mut refused = scribe.batch(1, vec![nothing]);
    refused.dead = vec![letter(0)];
    let outcomes = scribe.store.apply(&[batch.clone(), refused.clone()]).await.unwrap();
    assert_eq!(outcomes[0], Ok(()));
    broken(&outcomes[1]);
    scribe.applied(&batch);
    // The refused batch left none behind, or this one could not be written.
    refused.changes.clear();
    assert_eq!(scribe.store.apply(&[refused]).await.unwrap(), [Ok(())]);
    assert_eq!(scribe.store.load(&[scribe.key(chat)]).await.unwrap().answer.len(), 1);
}

pub async fn everything_is_there_after_a_restart(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chat = scribe.direct(ana, ben).await;
    let message = scribe.named(chat, ana, "hello", Some("one"));
    scribe.write(vec![message]).await;
    let key = scribe.key(chat);
    let view = scribe.store.chat_view(key, ben).await.unwrap();
    let history = scribe.store.history(key, Range::After(0), 10).await.unwrap();
    let positions = scribe.store.positions().await.unwrap();
    let loaded = scribe.store.load(&[key]).await.unwrap().answer;
    scribe.store = fixture.open().await;
    assert_eq!(scribe.store.chat_view(key, ben).await.unwrap(), view);
    assert_eq!(scribe.store.history(key, Range::After(0), 10).await.unwrap(), history);
    assert_eq!(scribe.store.positions().await.unwrap(), positions);
    assert_eq!(scribe.store.load(&[key]).await.unwrap().answer, loaded);
    scribe.say(chat, ben, "still here").await;
    let page =
        scribe.store.chats_of(AppId::DEFAULT, ana, PageRequest { page: 1, per_page: 10 }).await.unwrap();
    assert_eq!(page.results[0].unread_count, 1);
}
