//! Reactions and mentions (ME-8).

use super::{Fixture, Scribe, scribe::edited};
use crate::{
    ids::{AppId, ChatId, Number, UserId},
    model::{Message, PageRequest, Reaction, Role},
    store::{Range, ReadMark, Refused},
    wire::record::What,
};

async fn message(scribe: &Scribe, chat: ChatId, number: Number) -> Message {
    let slice = scribe.store.history(scribe.key(chat), Range::After(number - 1), 1).await.unwrap().unwrap();
    slice.messages.into_iter().next().unwrap()
}

async fn reacts(scribe: &Scribe, chat: ChatId, number: Number, user: UserId, emoji: &str) -> Option<bool> {
    let answer = scribe.store.reaction(scribe.key(chat), number, user, emoji).await.unwrap().answer;
    if let Some((found, _)) = &answer {
        assert_eq!(*found, message(scribe, chat, number).await);
    }
    answer.map(|(_, reacts)| reacts)
}

fn of(emoji: &str, count: u64, users: &[UserId]) -> Reaction {
    Reaction { emoji: emoji.to_owned(), count, users: users.to_vec() }
}

fn reacted(number: Number, emoji: &str, on: bool, reactions: &[Reaction]) -> What {
    What::Reacted { number, emoji: emoji.to_owned(), on, reactions: reactions.to_vec() }
}

pub async fn what_a_message_is_answered_with_is_as_the_newest_record_says(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    scribe.say(chat, ana, "one").await;
    let one = [of("👍", 1, &[ben])];
    scribe.does(chat, ben, reacted(1, "👍", true, &one)).await;
    assert_eq!(message(&scribe, chat, 1).await.reactions, one);
    assert_eq!(reacts(&scribe, chat, 1, ben, "👍").await, Some(true));
    assert_eq!(reacts(&scribe, chat, 1, ana, "👍").await, Some(false));
    assert_eq!(reacts(&scribe, chat, 1, ben, "👎").await, Some(false));
    assert_eq!(reacts(&scribe, chat, 2, ben, "👍").await, None);

    // Several in one batch, with a message that is not there yet.
    let two = [of("👍", 2, &[ben, ana])];
    let batch = vec![
        scribe.change(chat, ana, reacted(1, "👍", true, &two)),
        scribe.change(chat, ben, reacted(1, "👎", true, &[of("👍", 2, &[ben, ana]), of("👎", 1, &[ben])])),
        scribe.change(chat, ben, reacted(1, "👎", false, &two)),
        scribe.message(chat, ben, "two"),
        scribe.change(chat, ana, reacted(2, "👍", true, &[of("👍", 1, &[ana])])),
    ];
    scribe.write(batch).await;
    assert_eq!(message(&scribe, chat, 1).await.reactions, two);
    assert_eq!(message(&scribe, chat, 2).await.reactions, [of("👍", 1, &[ana])]);
    assert_eq!(reacts(&scribe, chat, 1, ben, "👎").await, Some(false));
    assert_eq!(reacts(&scribe, chat, 2, ana, "👍").await, Some(true));
    // An edit leaves them; what is taken back leaves nothing.
    let edit = edited(&message(&scribe, chat, 2).await, "deux", scribe.now);
    scribe.does(chat, ben, edit).await;
    assert_eq!(message(&scribe, chat, 2).await.reactions, [of("👍", 1, &[ana])]);
    scribe.does(chat, ana, reacted(2, "👍", false, &[])).await;
    assert_eq!(message(&scribe, chat, 2).await.reactions, []);
    let seen = scribe.store.chat_view(scribe.key(chat), ana).await.unwrap().unwrap();
    assert_eq!(seen.last_message.unwrap().body, "deux");

    // A deleted message has none, and is answered no more.
    scribe.does(chat, ana, What::Erased { number: 1 }).await;
    assert_eq!(message(&scribe, chat, 1).await.reactions, []);
    assert_eq!(reacts(&scribe, chat, 1, ben, "👍").await, Some(false));
    let head = scribe.head(chat);
    for number in [1, 9] {
        let change = scribe.change(chat, ben, reacted(number, "👍", true, &one));
        assert!(matches!(scribe.attempt(0, vec![change]).await, Err(Refused::Broken { .. })));
        scribe.back_to(chat, head);
    }
    let batch = vec![
        scribe.message(chat, ana, "three"),
        scribe.change(chat, ben, reacted(3, "👍", true, &one)),
        scribe.change(chat, ana, What::Erased { number: 3 }),
    ];
    scribe.write(batch).await;
    let three = message(&scribe, chat, 3).await;
    assert_eq!((three.deleted, three.reactions), (true, vec![]));
    assert_eq!(reacts(&scribe, chat, 3, ben, "👍").await, Some(false));
}

pub async fn what_mentions_a_member_is_counted_until_it_is_read(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (scribe.user("Ana").await, scribe.user("Ben").await, scribe.user("Eve").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    let say = |scribe: &mut Scribe, named: &[UserId], all: bool| {
        let mut change = scribe.message(chat, ana, "hello");
        if let What::Sent { mentions, mention_all, .. } = &mut change.what {
            (*mentions, *mention_all) = (named.to_vec(), all);
        }
        change
    };
    let counted = async |scribe: &Scribe, user: UserId| {
        let seen = scribe.store.chat_view(scribe.key(chat), user).await.unwrap().unwrap();
        let page = PageRequest { page: 1, per_page: 10 };
        let listed = scribe.store.chats_of(AppId::DEFAULT, user, page).await.unwrap().results.remove(0);
        assert_eq!(listed, seen);
        (seen.mentions_count, seen.unread_count)
    };
    let batch = vec![
        say(&mut scribe, &[], false),
        say(&mut scribe, &[ben], false),
        say(&mut scribe, &[], true),
        // One mention for each message, however it is said.
        say(&mut scribe, &[ben], true),
        say(&mut scribe, &[ana], false),
    ];
    scribe.write(batch).await;
    let second = message(&scribe, chat, 2).await;
    assert_eq!((second.mentions, second.mention_all), (vec![ben], false));
    let fourth = message(&scribe, chat, 4).await;
    assert_eq!((fourth.mentions, fourth.mention_all), (vec![ben], true));
    assert_eq!(counted(&scribe, ben).await, (3, 5));
    assert_eq!(counted(&scribe, ana).await, (0, 0), "one's own are read");
    // Who comes in now was not meant.
    scribe.does(chat, ana, What::Joined { user: eve, role: Role::Member }).await;
    assert_eq!(counted(&scribe, eve).await, (0, 0));
    let batch = vec![say(&mut scribe, &[eve], false)];
    scribe.write(batch).await;
    assert_eq!((counted(&scribe, eve).await, counted(&scribe, ben).await), ((1, 1), (3, 6)));
    // A deleted message mentions nobody.
    scribe.does(chat, ana, What::Erased { number: 3 }).await;
    assert_eq!(counted(&scribe, ben).await, (2, 6));
    scribe.does(chat, ana, What::Erased { number: 2 }).await;
    assert_eq!(counted(&scribe, ben).await, (1, 6));
    assert_eq!(message(&scribe, chat, 2).await.mentions, []);
    let mark = ReadMark { chat: scribe.key(chat), user: ben, number: 4, head: 0 };
    scribe.store.mark_read(&[mark]).await.unwrap();
    assert_eq!(counted(&scribe, ben).await, (0, 2));
    // Deleted in the batch that wrote it.
    let batch = vec![say(&mut scribe, &[ben], true), scribe.change(chat, ana, What::Erased { number: 7 })];
    scribe.write(batch).await;
    assert_eq!(counted(&scribe, ben).await, (0, 3));
}
