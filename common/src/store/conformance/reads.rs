use super::{Fixture, Scribe};
use crate::{
    ids::{AppId, ChatId, Number, UserId},
    model::{PageRequest, Role},
    store::{Marked, ReadMark, SharedStore},
    wire::record::What,
};

const FIRST: PageRequest = PageRequest { page: 1, per_page: 100 };

fn mark(scribe: &Scribe, chat: ChatId, user: UserId, number: Number) -> ReadMark {
    ReadMark { chat: scribe.key(chat), user, number, head: 0 }
}

fn at(number: Number, moved: bool) -> Option<Marked> {
    Some(Marked { number, moved })
}

async fn unread(store: &SharedStore, user: UserId) -> Vec<u64> {
    let page = store.chats_of(AppId::DEFAULT, user, FIRST).await.unwrap();
    assert_eq!(page.unread_count, page.results.iter().map(|chat| chat.unread_count).sum::<u64>());
    page.results.iter().map(|chat| chat.unread_count).collect()
}

pub async fn a_read_mark_moves_forward_only_and_not_past_the_head(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, cleo) = (UserId::random(), UserId::random(), UserId::random());
    let chat = scribe.group(None, &[ana, ben]).await;
    for _ in 0..5 {
        scribe.say(chat, ana, "hello").await;
    }
    let store = scribe.store.clone();
    let read = async |scribe: &Scribe, user, number| {
        store.mark_read(&[mark(scribe, chat, user, number)]).await.unwrap().remove(0)
    };
    assert_eq!(unread(&store, ben).await, [5]);
    assert_eq!(read(&scribe, ben, 3).await, at(3, true));
    assert_eq!(unread(&store, ben).await, [2]);
    assert_eq!(read(&scribe, ben, 3).await, at(3, false));
    assert_eq!(read(&scribe, ben, 1).await, at(3, false));
    assert_eq!(unread(&store, ben).await, [2]);
    assert_eq!(read(&scribe, ben, Number::MAX).await, at(5, true), "the stored head");
    // The log had three more when its owner was asked.
    let ahead = ReadMark { head: 8, ..mark(&scribe, chat, ben, 7) };
    assert_eq!(store.mark_read(&[ahead]).await.unwrap(), [at(7, true)]);
    assert_eq!(unread(&store, ben).await, [0]);
    for _ in 0..3 {
        scribe.say(chat, ana, "hello").await;
    }
    assert_eq!(unread(&store, ben).await, [1]);
    // Own messages have moved it, and it is where it is.
    assert_eq!(read(&scribe, ana, 2).await, at(8, false));
    assert_eq!(unread(&store, ana).await, [0]);

    // Who is not in the chat has no mark; who comes in later begins at zero, and who comes again as well.
    assert_eq!(read(&scribe, cleo, 2).await, None);
    assert_eq!(store.mark_read(&[mark(&scribe, ChatId::random(), ana, 1)]).await.unwrap(), [None]);
    scribe.does(chat, ana, What::Joined { user: cleo, role: Role::Member }).await;
    assert_eq!(unread(&store, cleo).await, [0]);
    assert_eq!(read(&scribe, cleo, 2).await, at(8, false));
    scribe.say(chat, ana, "hello").await;
    assert_eq!(unread(&store, cleo).await, [1]);
    scribe.does(chat, ben, What::Left { user: ben, heir: None }).await;
    assert_eq!(read(&scribe, ben, 9).await, None);
    scribe.say(chat, ana, "hello").await;
    scribe.does(chat, ana, What::Joined { user: ben, role: Role::Member }).await;
    assert_eq!(unread(&store, ben).await, [0]);
    scribe.does(chat, ana, What::Deleted).await;
    assert_eq!(read(&scribe, cleo, 10).await, None);
    assert!(store.mark_read(&[]).await.unwrap().is_empty());
}

pub async fn read_marks_that_race_end_at_the_largest(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = scribe.group(None, &[ana, ben]).await;
    let messages = (0..40).map(|_| scribe.message(chat, ana, "hello")).collect();
    scribe.write(messages).await;
    let other = fixture.open().await;
    let (store, marked) = (scribe.store.clone(), mark(&scribe, chat, ben, 0));
    let race = (1..=40_u64).map(|number| {
        let store = if number % 2 == 0 { store.clone() } else { other.clone() };
        // Each number once, in no order.
        let number = number * 7 % 41;
        async move { store.mark_read(&[ReadMark { number, ..marked }]).await.unwrap().remove(0).unwrap() }
    });
    // His own message lands among them.
    let own = scribe.message(chat, ben, "me too");
    let (told, ()) = tokio::join!(futures_util::future::join_all(race), scribe.write(vec![own]));
    for (Marked { number: at, .. }, asked) in told.into_iter().zip((1..=40).map(|number| number * 7 % 41)) {
        assert!(at >= asked && at <= 41);
    }
    assert_eq!(unread(&store, ben).await, [0]);
    assert_eq!(store.mark_read(&[ReadMark { number: 1, ..marked }]).await.unwrap(), [at(41, false)]);
}

pub async fn many_read_marks_are_written_at_once(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let users: Vec<UserId> = (0..300).map(|_| UserId::random()).collect();
    let chat = scribe.group(None, &users).await;
    let messages = (0..9).map(|_| scribe.message(chat, users[0], "hello")).collect();
    scribe.write(messages).await;
    let stranger = UserId::random();
    let marks: Vec<ReadMark> = users
        .iter()
        .enumerate()
        .map(|(place, user)| mark(&scribe, chat, *user, place as u64 % 10))
        .chain([mark(&scribe, chat, stranger, 1)])
        .collect();
    let answers = scribe.store.mark_read(&marks).await.unwrap();
    assert_eq!(answers.len(), 301);
    assert_eq!(answers[0], at(9, false), "the author");
    for (place, answer) in answers.iter().enumerate().take(300).skip(1) {
        let number = place as u64 % 10;
        assert_eq!(*answer, at(number, number > 0));
    }
    assert_eq!(answers[300], None);
    assert_eq!(unread(&scribe.store, users[17]).await, [2]);
    let again = scribe.store.mark_read(&marks).await.unwrap();
    assert!(again.iter().flatten().all(|marked| !marked.moved));
}

pub async fn unread_is_counted_in_all_chats_whatever_the_page(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (UserId::random(), UserId::random());
    let page = async |store: &SharedStore, page, per_page| {
        let page = PageRequest { page, per_page };
        store.chats_of(AppId::DEFAULT, ben, page).await.unwrap()
    };
    assert_eq!(page(&scribe.store, 1, 10).await.unread_count, 0);
    for count in 1..=5 {
        let chat = scribe.group(None, &[ana, ben]).await;
        for _ in 0..count {
            scribe.say(chat, ana, "hello").await;
        }
    }
    for number in 1..=4 {
        let two = page(&scribe.store, number, 2).await;
        assert_eq!((two.unread_count, two.total, two.current), (15, 3, number));
    }
    // A chat that is deleted is read.
    let newest = page(&scribe.store, 1, 1).await.results.remove(0).id;
    scribe.does(newest, ana, What::Deleted).await;
    assert_eq!(page(&scribe.store, 1, 2).await.unread_count, 10);
}
