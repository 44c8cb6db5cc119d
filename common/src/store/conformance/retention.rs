//! The end of messages that are past their time (ME-9).

use super::{
    Fixture, Scribe,
    scribe::{edited, sent},
};
use crate::{
    applications::{AppSettings, Retention},
    ids::{AppId, ChatId, ChatKey, Number, UserId},
    model::{Head, Message, PageRequest, Reaction, Role},
    store::{DrainedMark, Range, ReadMark, Scope, SendKey},
    time::Millis,
    wire::record::What,
};

const DAY: i64 = 86_400_000;

const WEEK: Retention = Retention::Days { days: 7 };

fn keeps(retention: Retention) -> What {
    What::Updated { name: None, description: None, retention: Some(retention) }
}

/// Ends what is past its time at `now`, in all chats that have chosen, as many at a time; how many messages that were.
async fn sweep(scribe: &Scribe, now: i64, limit: u32) -> u32 {
    let (mut after, mut ended) = (None, 0);
    loop {
        let due = scribe.store.due(Scope::Chosen, after, Millis(now), limit).await.unwrap();
        for chat in due.chats {
            loop {
                let some =
                    scribe.store.expire(0, chat, Retention::Forever, Millis(now), limit).await.unwrap();
                assert!(some <= limit);
                ended += some;
                if some == 0 {
                    break;
                }
            }
        }
        match due.next {
            Some(next) => after = Some(next),
            None => return ended,
        }
    }
}

async fn history(scribe: &Scribe, chat: ChatId) -> Vec<Message> {
    scribe.store.history(scribe.key(chat), Range::After(0), 100).await.unwrap().unwrap().messages
}

/// By number: what it says; none when it has ended.
async fn left(scribe: &Scribe, chat: ChatId) -> Vec<Option<String>> {
    let messages = history(scribe, chat).await;
    let numbers: Vec<Number> = messages.iter().map(|message| message.number).collect();
    assert_eq!(numbers, (1..=messages.len() as Number).collect::<Vec<_>>(), "each has its place");
    let said = |message: Message| {
        assert!(message.deleted || !message.expired);
        (!message.expired).then_some(message.body)
    };
    messages.into_iter().map(said).collect()
}

fn texts(texts: &[Option<&str>]) -> Vec<Option<String>> {
    texts.iter().map(|text| text.map(str::to_owned)).collect()
}

async fn reads(scribe: &Scribe, chat: ChatId, user: UserId, number: Number) {
    let mark = ReadMark { chat: scribe.key(chat), user, number, head: 0 };
    scribe.store.mark_read(&[mark]).await.unwrap();
}

async fn unread(scribe: &Scribe, chat: ChatId, user: UserId) -> (u64, u64) {
    let view = scribe.store.chat_view(scribe.key(chat), user).await.unwrap().unwrap();
    let page = PageRequest { page: 1, per_page: 100 };
    let listed = scribe.store.chats_of(scribe.app, user, page).await.unwrap();
    assert!(listed.results.contains(&view));
    assert_eq!(listed.unread_count, listed.results.iter().map(|chat| chat.unread_count).sum::<u64>());
    (view.unread_count, view.mentions_count)
}

pub async fn me_9_messages_are_kept_for_as_many_days_as_their_chat_says(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    let kept = scribe.group(None, &[ana, ben]).await;
    for (day, text) in [(1, "one"), (2, "two"), (3, "three"), (9, "nine")] {
        scribe.now = day * DAY;
        scribe.say(chat, ana, text).await;
        scribe.say(kept, ana, text).await;
    }
    assert_eq!(sweep(&scribe, 1_000 * DAY, 10).await, 0, "for ever, unless it says otherwise");
    let key = scribe.key(chat);
    assert_eq!(scribe.store.chat_view(key, ben).await.unwrap().unwrap().retention, None);
    scribe.does(chat, ana, keeps(WEEK)).await;
    assert_eq!(scribe.store.chat_view(key, ben).await.unwrap().unwrap().retention, Some(WEEK));
    assert_eq!(scribe.store.load(&[key]).await.unwrap().answer[0].retention, Some(WEEK));

    assert_eq!(sweep(&scribe, 8 * DAY, 10).await, 0, "a moment too early");
    assert_eq!(sweep(&scribe, 8 * DAY + 1, 10).await, 1);
    assert_eq!(left(&scribe, chat).await, texts(&[None, Some("two"), Some("three"), Some("nine")]));
    assert_eq!(sweep(&scribe, 8 * DAY + 1, 10).await, 0, "once");
    assert_eq!(sweep(&scribe, 12 * DAY, 1).await, 2);
    let all = [None, None, None, Some("nine")];
    assert_eq!(left(&scribe, chat).await, texts(&all));
    let head = scribe.store.history(key, Range::After(0), 1).await.unwrap().unwrap().head;
    assert_eq!(head, Head { number: 4, seq: 6 });
    assert_eq!(scribe.store.load(&[key]).await.unwrap().answer[0].expired, 3);
    for range in [Range::After(0), Range::Before(Number::MAX)] {
        let none = scribe.store.history(key, range, 0).await.unwrap().unwrap();
        assert_eq!((none.messages.len(), none.head, none.expired), (0, head, 3), "only how far it is");
    }
    scribe.say(chat, ana, "ten").await;
    assert_eq!(scribe.head(chat).number, 5, "no number is used again");

    // What was chosen once is chosen otherwise; what has ended stays so.
    scribe.does(chat, ana, keeps(Retention::Forever)).await;
    assert_eq!(sweep(&scribe, 1_000 * DAY, 10).await, 0);
    assert_eq!(left(&fixture_scribe(&scribe, fixture).await, chat).await[..4], texts(&all));
    assert_eq!(left(&scribe, kept).await.len(), 4);
    assert!(left(&scribe, kept).await.iter().all(Option::is_some));
}

/// The same store, opened anew.
async fn fixture_scribe(scribe: &Scribe, fixture: &dyn Fixture) -> Scribe {
    let mut anew = Scribe::new(fixture.open().await);
    anew.app = scribe.app;
    anew
}

pub async fn me_9_messages_are_kept_until_every_member_has_read_them(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben, eve) = (scribe.user("Ana").await, scribe.user("Ben").await, scribe.user("Eve").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    scribe.does(chat, ana, keeps(Retention::UntilRead)).await;
    for text in ["one", "two", "three"] {
        scribe.say(chat, ana, text).await;
    }
    assert_eq!(sweep(&scribe, 0, 10).await, 0, "Ben has read nothing");
    reads(&scribe, chat, ben, 2).await;
    assert_eq!(sweep(&scribe, 0, 10).await, 2, "and Ana her own");
    assert_eq!(left(&scribe, chat).await, texts(&[None, None, Some("three")]));

    // Who comes in has what was there before as read; who leaves is waited for no more.
    scribe.does(chat, ana, What::Joined { user: eve, role: Role::Member }).await;
    scribe.say(chat, ana, "four").await;
    reads(&scribe, chat, eve, 4).await;
    assert_eq!(sweep(&scribe, 0, 10).await, 0);
    scribe.does(chat, ana, What::Left { user: ben, heir: None }).await;
    assert_eq!(sweep(&scribe, 0, 10).await, 2);
    assert_eq!(left(&scribe, chat).await, texts(&[None, None, None, None]));

    // Nobody is in it: nobody has read.
    scribe.say(chat, eve, "five").await;
    for user in [ana, eve] {
        scribe.does(chat, user, What::Left { user, heir: None }).await;
    }
    assert_eq!(sweep(&scribe, 0, 10).await, 0);
    let direct = scribe.direct(ana, ben).await;
    scribe.say(direct, ana, "hello").await;
    scribe.does(direct, ana, keeps(Retention::UntilRead)).await;
    scribe.does(direct, ana, What::Deleted).await;
    assert_eq!(sweep(&scribe, 0, 10).await, 0, "a deleted chat is left alone");
}

pub async fn me_9_what_a_chat_does_not_say_its_application_does(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let store = scribe.store.clone();
    let app = store.applications().await.unwrap().remove(0);
    assert_eq!(store.application_retentions().await.unwrap(), []);
    let settings = AppSettings { retention: WEEK, ..AppSettings::default() };
    let seen = store.application_changes().await.unwrap();
    assert!(store.update_application(app.id, &app.name, &settings, seen).await.unwrap());
    assert_eq!(store.application_retentions().await.unwrap(), [(AppId::DEFAULT, WEEK)]);
    let ana = scribe.user("Ana").await;
    let mut chats = Vec::new();
    for _ in 0..5 {
        let chat = scribe.group(None, &[ana]).await;
        scribe.say(chat, ana, "hello").await;
        chats.push(scribe.key(chat));
    }
    scribe.does(chats[0].chat, ana, keeps(Retention::Forever)).await;
    scribe.does(chats[1].chat, ana, keeps(Retention::Days { days: 30 })).await;
    let (scope, now) = (Scope::Application(AppId::DEFAULT, WEEK), Millis(10 * DAY));
    let mut found: Vec<ChatKey> = Vec::new();
    let mut after = None;
    loop {
        let due = store.due(scope, after, now, 2).await.unwrap();
        found.extend(due.chats);
        match due.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut others = chats[2..].to_vec();
    others.sort_unstable();
    assert_eq!(found, others, "in the order of their keys, and none that has chosen");
    for (chat, ended) in [(chats[0], 0), (chats[1], 0), (chats[2], 1), (chats[2], 0)] {
        assert_eq!(store.expire(0, chat, WEEK, now, 10).await.unwrap(), ended);
    }
    let other = Scope::Application(AppId::random(), WEEK);
    assert_eq!(store.due(other, None, now, 10).await.unwrap(), Default::default());
    assert_eq!(sweep(&scribe, 40 * DAY, 10).await, 1, "30 days");
}

pub async fn me_9_what_has_ended_leaves_nothing_but_its_place(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    scribe.does(chat, ana, keeps(Retention::Days { days: 1 })).await;
    let named = scribe.named(chat, ana, "one", Some("a name"));
    scribe.write(vec![named]).await;
    let mut what = sent(2, "@ben @all", None);
    if let What::Sent { mentions, .. } = &mut what {
        mentions.push(ben);
    }
    scribe.does(chat, ana, what).await;
    let reactions = vec![Reaction { emoji: "👍".into(), count: 1, users: vec![ben] }];
    let reacted = |on| What::Reacted { number: 1, emoji: "👍".into(), on, reactions: reactions.clone() };
    scribe.does(chat, ben, reacted(true)).await;
    scribe.say(chat, ana, "deleted by Ana").await;
    scribe.does(chat, ana, What::Erased { number: 3 }).await;
    scribe.now = 10 * DAY;
    scribe.say(chat, ana, "today").await;
    assert_eq!(unread(&scribe, chat, ben).await, (4, 1));

    let before = history(&scribe, chat).await;
    assert_eq!(sweep(&scribe, 10 * DAY, 100).await, 3);
    assert_eq!(unread(&scribe, chat, ben).await, (1, 0), "what has ended is not to be read any more");
    let after = history(&scribe, chat).await;
    for (was, is) in before.iter().zip(&after) {
        let kept = |message: &Message| (message.id, message.number, message.from, message.created_at);
        assert_eq!(kept(was), kept(is));
    }
    for ended in &after[..3] {
        assert!(
            ended.deleted && ended.body.is_empty() && ended.reactions.is_empty() && ended.mentions.is_empty()
        );
    }
    let expired: Vec<bool> = after.iter().map(|message| message.expired).collect();
    assert_eq!(expired, [true, true, false, false], "what its author deleted stays deleted");
    let key = scribe.key(chat);
    let reacts = scribe.store.reaction(key, 1, ben, "👍").await.unwrap().answer.unwrap();
    assert!(!reacts.1);
    // A send under the same name is still known for a repeat.
    let name = SendKey { chat: key, from: ana, client_id: crate::ids::ClientId::new("a name").unwrap() };
    let found = scribe.store.find_sent(&[name]).await.unwrap().answer;
    assert_eq!((found.len(), found[0].number), (1, 1));

    // What was on its way when it ended changes nothing, and stops nobody.
    let edit = edited(&before[0], "too late", scribe.now);
    let batch = vec![
        scribe.change(chat, ana, edit),
        scribe.change(chat, ben, reacted(true)),
        scribe.change(chat, ana, What::Erased { number: 2 }),
        scribe.message(chat, ana, "tomorrow"),
    ];
    scribe.write(batch).await;
    assert_eq!(history(&scribe, chat).await[..4], after[..4]);
    assert!(!scribe.store.reaction(key, 1, ben, "👍").await.unwrap().answer.unwrap().1);
    assert_eq!(unread(&scribe, chat, ben).await, (2, 0));
    reads(&scribe, chat, ben, 5).await;
    assert_eq!(unread(&scribe, chat, ben).await, (0, 0));
}

pub async fn me_9_files_of_what_has_ended_are_collected(fixture: &dyn Fixture) {
    use crate::{
        ids::{AttachmentId, ObjectId},
        model::MessageKind,
        store::{Added, Attachment},
    };
    let mut scribe = Scribe::new(fixture.open().await);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let chat = scribe.group(None, &[ana, ben]).await;
    scribe.does(chat, ana, keeps(Retention::UntilRead)).await;
    let attachment = Attachment {
        id: AttachmentId::random(),
        uploader: ana,
        object: ObjectId::random(),
        kind: MessageKind::Image,
        media_type: "image/png".into(),
        size: 1,
        name: None,
        digest: None,
        created_at: Millis(1),
    };
    let store = scribe.store.clone();
    store.note_object(scribe.app, attachment.object, Millis(1)).await.unwrap();
    assert_eq!(store.add_attachment(scribe.app, &attachment).await.unwrap(), Added::New);
    let mut what = sent(1, "look", None);
    if let What::Sent { attachments, .. } = &mut what {
        attachments.push(attachment.id.to_string());
    }
    scribe.does(chat, ana, what).await;
    let loose = async || {
        store.drop_unused(Millis(DAY), Millis(DAY), 10).await.unwrap();
        store.loose_objects(Millis(DAY), 10).await.unwrap().len()
    };
    assert_eq!(loose().await, 0);
    assert!(store.attachment(scribe.app, attachment.id, ben).await.unwrap().is_some());
    reads(&scribe, chat, ben, 1).await;
    assert_eq!(sweep(&scribe, 0, 10).await, 1);
    assert!(store.attachment(scribe.app, attachment.id, ben).await.unwrap().is_none());
    assert_eq!(loose().await, 1);
}

pub async fn me_9_how_far_partitions_were_drained_when_is_kept_in_order(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.drained_marks().await.unwrap(), []);
    let mark = |log, at, offset| DrainedMark { log: uuid::Uuid::from_u128(log), at: Millis(at), offset };
    // A clock may have been set back.
    let (first, second) = ([mark(1, 500, 0), mark(1, 900, 7), mark(1, 700, 7)], [mark(2, i64::MAX, 1 << 60)]);
    store.mark_drained(3, &first).await.unwrap();
    store.mark_drained(1, &second).await.unwrap();
    let all = |third: &[DrainedMark]| {
        let third = third.iter().map(|mark| (3, *mark));
        second.iter().map(|mark| (1, *mark)).chain(third).collect::<Vec<_>>()
    };
    assert_eq!(store.drained_marks().await.unwrap(), all(&first));
    store.mark_drained(3, &first[1..2]).await.unwrap();
    assert_eq!(store.drained_marks().await.unwrap(), all(&first[1..2]));
    drop(store);
    let store = fixture.open().await;
    assert_eq!(store.drained_marks().await.unwrap(), all(&first[1..2]));
    store.mark_drained(3, &[]).await.unwrap();
    assert_eq!(store.drained_marks().await.unwrap(), all(&[]));
}
