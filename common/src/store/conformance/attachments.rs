use super::{
    Fixture, Scribe,
    scribe::{edited, person},
};
use crate::{
    ids::{AppId, AttachmentId, ChatId, ObjectId, UserId},
    model::{MessageKind, Role},
    store::{Added, Attachment, ProfileChange, Range, SharedStore},
    time::Millis,
    wire::record::{Change, What},
};
use uuid::Uuid;

fn file(uploader: UserId, at: i64) -> Attachment {
    Attachment {
        id: AttachmentId::random(),
        uploader,
        object: ObjectId::random(),
        kind: MessageKind::Image,
        media_type: "image/png".to_owned(),
        size: 5_000_000_000,
        name: Some("größe.png".to_owned()),
        digest: None,
        created_at: Millis(at),
    }
}

/// An attachment, as a finished upload leaves it.
async fn uploaded(store: &SharedStore, uploader: UserId, at: i64) -> Attachment {
    let file = file(uploader, at);
    store.note_object(AppId::DEFAULT, file.object, Millis(at)).await.unwrap();
    assert_eq!(store.add_attachment(AppId::DEFAULT, &file).await.unwrap(), Added::New);
    file
}

/// The chat's next message, with these.
fn with(scribe: &mut Scribe, chat: ChatId, by: UserId, files: &[&Attachment]) -> Change {
    let mut change = scribe.message(chat, by, "look");
    if let What::Sent { attachments, .. } = &mut change.what {
        *attachments = files.iter().map(|file| file.id.to_string()).collect();
    }
    change
}

async fn sees(store: &SharedStore, user: UserId, file: &Attachment) -> bool {
    let found = store.attachment(AppId::DEFAULT, file.id, user).await.unwrap();
    assert!(found.is_none() || found.as_ref() == Some(file));
    found.is_some()
}

async fn loose(store: &SharedStore, before: i64) -> Vec<ObjectId> {
    let loose = store.loose_objects(Millis(before), 1_000).await.unwrap();
    loose.into_iter().map(|(_, object)| object).collect()
}

pub async fn me_7_an_attachment_is_read_by_its_uploader_and_where_it_was_sent(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let store = scribe.store.clone();
    let (ana, ben, cleo, dora) = (UserId::random(), UserId::random(), UserId::random(), UserId::random());
    let (chat, other) = (scribe.group(None, &[ana, ben]).await, scribe.group(None, &[cleo, dora]).await);
    let file = uploaded(&store, ana, 10).await;
    assert!(sees(&store, ana, &file).await && !sees(&store, ben, &file).await);

    // As soon as it is being sent, and to a chat of one's own only.
    let offer = async |chat, from| {
        let found = store.offer_attachments(scribe.key(chat), from, &[file.id], Millis(20)).await.unwrap();
        found.len()
    };
    assert_eq!((offer(other, ana).await, offer(chat, ben).await), (1, 0));
    assert!(!sees(&store, cleo, &file).await && !sees(&store, ben, &file).await);
    assert_eq!(offer(chat, ana).await, 1);
    assert_eq!(offer(chat, ana).await, 1);
    assert!(sees(&store, ben, &file).await && !sees(&store, cleo, &file).await);

    let change = with(&mut scribe, chat, ana, &[&file]);
    scribe.write(vec![change]).await;
    assert!(sees(&store, ben, &file).await && !sees(&store, cleo, &file).await);
    // Who comes in later reads what was sent before; who has left does not.
    scribe.does(chat, ana, What::Joined { user: cleo, role: Role::Member }).await;
    assert!(sees(&store, cleo, &file).await);
    scribe.does(chat, ben, What::Left { user: ben, heir: None }).await;
    assert!(!sees(&store, ben, &file).await && sees(&store, ana, &file).await);
    // An edit leaves it, a deletion takes it away.
    let number = scribe.head(chat).number;
    let slice = store.history(scribe.key(chat), Range::Before(u64::MAX), 1).await.unwrap().unwrap();
    scribe.does(chat, ana, edited(&slice.messages[0], "look again", 30)).await;
    assert!(sees(&store, cleo, &file).await);
    scribe.does(chat, ana, What::Erased { number }).await;
    assert!(!sees(&store, cleo, &file).await && sees(&store, ana, &file).await);

    // In two messages, one of which is deleted; and with the chat, all.
    let twice = uploaded(&store, ana, 10).await;
    let changes =
        vec![with(&mut scribe, chat, ana, &[&twice]), with(&mut scribe, chat, ana, &[&twice, &file])];
    scribe.write(changes).await;
    let number = scribe.head(chat).number;
    scribe.does(chat, ana, What::Erased { number }).await;
    assert!(sees(&store, cleo, &twice).await && !sees(&store, cleo, &file).await);
    scribe.does(chat, ana, What::Deleted).await;
    assert!(!sees(&store, cleo, &twice).await);
}

pub async fn me_7_applications_do_not_see_each_others_attachments(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let store = scribe.store.clone();
    let (ana, ben) = (UserId::random(), UserId::random());
    let file = uploaded(&store, ana, 10).await;
    let chat = scribe.group(None, &[ana, ben]).await;
    let change = with(&mut scribe, chat, ana, &[&file]);
    scribe.write(vec![change]).await;
    // The same ids in another application name other things.
    let app = AppId(Uuid::from_u128(77));
    assert_eq!(store.attachment(app, file.id, ana).await.unwrap(), None);
    assert_eq!(store.attachment(app, file.id, ben).await.unwrap(), None);
    let key = crate::ids::ChatKey { app, chat };
    assert!(store.offer_attachments(key, ana, &[file.id], Millis(1)).await.unwrap().is_empty());
    let mut foreign = Scribe::new(fixture.open().await);
    foreign.app = app;
    foreign.log = Uuid::from_u128(8);
    let there = foreign.group_in(1, &[ben, ana]).await;
    let change = with(&mut foreign, there, ben, &[&file]);
    assert_eq!(foreign.attempt(1, vec![change]).await, Ok(()), "a foreign id stops nobody");
    assert_eq!(store.attachment(app, file.id, ben).await.unwrap(), None);
    assert!(sees(&store, ben, &file).await, "still by his own chat");
}

pub async fn me_7_an_upload_is_an_attachment_once_and_only_while_its_object_is_noted(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ana = UserId::random();
    let first = Attachment { digest: Some(vec![7; 32]), ..uploaded(&store, ana, 10).await };
    assert!(loose(&store, i64::MAX).await.is_empty());
    let again = Attachment { id: first.id, digest: Some(vec![8; 32]), ..file(ana, 20) };
    store.note_object(AppId::DEFAULT, again.object, Millis(20)).await.unwrap();
    store.note_object(AppId::DEFAULT, again.object, Millis(20)).await.unwrap();
    let known = store.add_attachment(AppId::DEFAULT, &again).await.unwrap();
    assert_eq!(known, Added::Known(Attachment { digest: None, ..first.clone() }));
    assert_eq!(loose(&store, 21).await, [again.object], "its object is nobody's");
    assert!(loose(&store, 20).await.is_empty());
    store.forget_object(AppId::DEFAULT, again.object).await.unwrap();
    assert!(loose(&store, i64::MAX).await.is_empty());
    let late = file(ana, 30);
    assert_eq!(store.add_attachment(AppId::DEFAULT, &late).await.unwrap(), Added::Gone);
    assert!(!sees(&store, ana, &late).await);
    let keyed = Attachment { digest: Some(vec![9; 32]), name: None, ..file(ana, 40) };
    store.note_object(AppId::DEFAULT, keyed.object, Millis(40)).await.unwrap();
    assert_eq!(store.add_attachment(AppId::DEFAULT, &keyed).await.unwrap(), Added::New);
    assert!(sees(&fixture.open().await, ana, &keyed).await, "after a restart");
}

pub async fn me_7_what_no_message_refers_to_is_dropped_after_its_time(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let store = scribe.store.clone();
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = scribe.group(None, &[ana, ben]).await;
    let never = uploaded(&store, ana, 10).await;
    let young = uploaded(&store, ana, 100).await;
    let sending = uploaded(&store, ana, 10).await;
    let (sent, shared) = (uploaded(&store, ana, 10).await, uploaded(&store, ana, 10).await);
    store.offer_attachments(scribe.key(chat), ana, &[sending.id], Millis(100)).await.unwrap();
    let changes =
        vec![with(&mut scribe, chat, ana, &[&sent, &shared]), with(&mut scribe, chat, ana, &[&shared])];
    scribe.write(changes).await;

    assert_eq!(store.drop_unused(Millis(100), Millis(200), 10).await.unwrap(), 1);
    assert_eq!(loose(&store, 1).await, [never.object], "it may go at once");
    assert!(!sees(&store, ana, &never).await);
    for kept in [&young, &sending, &sent, &shared] {
        assert!(sees(&store, ana, kept).await);
    }
    store.forget_object(AppId::DEFAULT, never.object).await.unwrap();

    // Of a deleted message what no other has.
    scribe.does(chat, ana, What::Erased { number: 1 }).await;
    assert_eq!(store.drop_unused(Millis(100), Millis(200), 10).await.unwrap(), 2, "both were looked at");
    assert_eq!(loose(&store, 1).await, [sent.object]);
    assert!(sees(&store, ben, &shared).await);
    assert_eq!(
        store.drop_unused(Millis(100), Millis(200), 10).await.unwrap(),
        0,
        "until its time comes again"
    );
    // What was offered and never sent, and then what went with its chat.
    assert_eq!(store.drop_unused(Millis(101), Millis(200), 1).await.unwrap(), 1);
    assert_eq!(store.drop_unused(Millis(101), Millis(200), 10).await.unwrap(), 1);
    assert!(!sees(&store, ben, &sending).await && !sees(&store, ana, &young).await);
    scribe.does(chat, ana, What::Deleted).await;
    store.drop_unused(Millis(300), Millis(400), 10).await.unwrap();
    assert!(!sees(&store, ana, &shared).await);
    let mut left = loose(&store, 1).await;
    left.sort();
    let mut expected = vec![sent.object, sending.object, young.object, shared.object];
    expected.sort();
    assert_eq!(left, expected);
}

pub async fn me_7_a_profile_picture_is_seen_by_its_application_and_stays(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (ana, ben) = (person("ana"), person("ben"));
    for user in [&ana, &ben] {
        assert!(store.add_user(AppId::DEFAULT, user).await.unwrap());
    }
    let (picture, other) = (uploaded(&store, ana.id, 10).await, uploaded(&store, ana.id, 10).await);
    let touched = store.touch_attachments(AppId::DEFAULT, ana.id, &[picture.id], Millis(20)).await.unwrap();
    assert_eq!(touched, std::slice::from_ref(&picture));
    let foreign = store.touch_attachments(AppId::DEFAULT, ben.id, &[picture.id], Millis(90)).await.unwrap();
    assert_eq!(foreign, [], "it is not his");
    assert!(!sees(&store, ben.id, &picture).await);

    let shown = |file: &Attachment| ProfileChange {
        avatar: Some(Some(file.id.to_string())),
        ..ProfileChange::default()
    };
    // A picture that another has taken for his shows nobody anything.
    store.update_profile(AppId::DEFAULT, ben.id, &shown(&picture)).await.unwrap();
    assert!(!sees(&store, ben.id, &picture).await);
    store.update_profile(AppId::DEFAULT, ana.id, &shown(&picture)).await.unwrap();
    assert!(sees(&store, ben.id, &picture).await && !sees(&store, ben.id, &other).await);
    assert_eq!(store.attachment(AppId(Uuid::from_u128(77)), picture.id, ben.id).await.unwrap(), None);

    assert_eq!(store.drop_unused(Millis(20), Millis(200), 10).await.unwrap(), 1, "it was touched since");
    assert_eq!(loose(&store, 1).await, [other.object]);
    assert_eq!(store.drop_unused(Millis(21), Millis(200), 10).await.unwrap(), 1, "it was looked at");
    assert!(sees(&store, ben.id, &picture).await);
    let none = ProfileChange { avatar: Some(None), ..ProfileChange::default() };
    store.update_profile(AppId::DEFAULT, ana.id, &none).await.unwrap();
    assert!(!sees(&store, ben.id, &picture).await && sees(&store, ana.id, &picture).await);
    assert_eq!(store.drop_unused(Millis(201), Millis(300), 10).await.unwrap(), 1);
    assert!(!sees(&store, ana.id, &picture).await);
}
