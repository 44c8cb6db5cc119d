//! Coming back (WS-3), and mending a gap.

use std::time::Duration;

use common::{
    cache::TailEntry,
    ids::{ChatId, ChatKey, MessageId, NodeId},
    model::{Message, MessageKind, Role},
    store::Position,
    time::Millis,
    wire::{
        marks::{LogPlace, Mark, Place},
        record::{Change, Record, What},
    },
};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::stage::{APP, Client, Person, Stage, change, live, sent};

/// A session that is ready, and where it is.
pub(crate) async fn begin(stage: &Stage, person: Person) -> (Client, String) {
    let mut client = stage.open(person).await;
    let ready = client.ask(json!({"type": "hello", "ref": 0})).await;
    assert_eq!(ready["resuming"], false);
    (client, ready["cursor"].as_str().unwrap().to_owned())
}

/// A session that comes back: everything up to `resumed`.
pub(crate) async fn again(stage: &Stage, person: Person, resume: Value) -> (Client, Vec<Value>) {
    let mut client = stage.open(person).await;
    let ready = client.ask(json!({"type": "hello", "ref": 5, "resume": resume})).await;
    assert_eq!(
        (&ready["type"], &ready["ref"], &ready["resuming"]),
        (&json!("ready"), &json!(5), &json!(true))
    );
    if let Some(cursor) = resume.get("cursor") {
        assert_eq!(&ready["cursor"], cursor, "nothing is promised before resumed");
    }
    let mut frames = Vec::new();
    loop {
        let frame = client.hear().await;
        let last = frame["type"] == "resumed";
        frames.push(frame);
        if last {
            return (client, frames);
        }
    }
}

fn told(frames: &[Value]) -> Vec<(&str, u64)> {
    let told = |frame: &Value| frame["seq"].as_u64().unwrap_or(0);
    frames.iter().map(|frame| (frame["type"].as_str().unwrap(), told(frame))).collect()
}

/// What `resumed` says of a chat.
pub(crate) fn of(frames: &[Value], chat: ChatId) -> Value {
    let resumed = frames.last().unwrap();
    assert_eq!((&resumed["type"], &resumed["ref"]), (&json!("resumed"), &json!(5)));
    resumed["chats"][chat.to_string()].clone()
}

fn edited(chat: ChatId, number: u64, by: Person, body: &str) -> What {
    let message = Message {
        id: MessageId::random(),
        chat,
        room_id: chat,
        number,
        from: by.user,
        body: body.into(),
        kind: MessageKind::Text,
        created_at: Millis(0),
        edited_at: Some(Millis(1)),
        deleted: false,
        expired: false,
        reply_to: None,
        attachments: Vec::new(),
        reactions: Vec::new(),
        mentions: Vec::new(),
        mention_all: false,
        client_id: None,
    };
    What::Edited { message: Box::new(message) }
}

async fn away(stage: &Stage, client: Client) {
    drop(client);
    stage.until(|| async { stage.sockets.load(std::sync::atomic::Ordering::SeqCst) == 0 }).await;
}

#[tokio::test]
async fn ws_3_who_comes_back_is_told_exactly_what_was_missed_and_then_what_comes() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let (busy, quiet) = (stage.group(&[ana, ben]).await, stage.group(&[ana, ben]).await);
    stage.write(vec![change(busy, 2, ben.user, sent(1, "before"))]).await;
    let (client, cursor) = begin(&stage, ana).await;
    away(&stage, client).await;

    let missed = vec![
        change(busy, 3, ben.user, sent(2, "one")),
        change(busy, 4, ben.user, edited(busy, 1, ben, "anew")),
        change(busy, 5, ben.user, What::Erased { number: 2 }),
        change(busy, 6, ana.user, sent(3, "from my phone")),
    ];
    stage.write(missed).await;
    let (mut client, frames) = again(&stage, ana, json!({"cursor": cursor})).await;
    assert_eq!(
        told(&frames),
        [
            ("new_message", 3),
            ("message_updated", 4),
            ("message_deleted", 5),
            ("new_message", 6),
            ("resumed", 0)
        ]
    );
    assert_eq!(frames[0]["message"].get("client_id"), None, "another one's");
    let said = |frame: &Value| (frame["message"]["body"].clone(), frame["message"].get("deleted").cloned());
    assert_eq!(said(&frames[0]), (json!(""), Some(json!(true))), "deleted by now");
    assert_eq!(said(&frames[1]), (json!("anew"), None));
    assert_eq!(frames[3]["message"]["client_id"], "m3", "one's own");
    assert_eq!(of(&frames, busy), json!({"from": 2, "to": 6, "complete": true}));
    assert_eq!(of(&frames, quiet), Value::Null, "it did not change");

    stage.deliver.live(live(change(busy, 7, ben.user, sent(4, "live"))));
    assert_eq!(client.hear().await["seq"], 7);
}

#[tokio::test]
async fn ws_3_who_says_how_far_a_chat_was_seen_is_told_from_there_on() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let (chat, other) = (stage.group(&[ana, ben]).await, stage.group(&[ana, ben]).await);
    let (client, cursor) = begin(&stage, ana).await;
    away(&stage, client).await;
    stage.write((2..=5).map(|seq| change(chat, seq, ben.user, sent(seq - 1, "x"))).collect()).await;
    for (seen, expected) in [(3, vec![4, 5, 0]), (5, vec![0])] {
        let resume = json!({"cursor": cursor, "chats": {chat.to_string(): seen}});
        let (client, frames) = again(&stage, ana, resume).await;
        assert_eq!(told(&frames).iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), expected);
        let said = if seen == 5 { Value::Null } else { json!({"from": 3, "to": 5, "complete": true}) };
        assert_eq!(of(&frames, chat), said);
        away(&stage, client).await;
    }
    // Without a cursor, what is not named is to be read.
    let (client, frames) = again(&stage, ana, json!({"chats": {chat.to_string(): 5}})).await;
    assert_eq!((of(&frames, chat), told(&frames)), (Value::Null, vec![("resumed", 0)]));
    assert_eq!(of(&frames, other)["complete"], false);
    away(&stage, client).await;
    // Likewise with the cursor that it was given then, which says nothing: with it alone there is nothing to go by.
    let mut client = stage.open(ana).await;
    let resume = json!({"chats": {chat.to_string(): 5}});
    let ready = client.ask(json!({"type": "hello", "ref": 5, "resume": resume})).await;
    let nothing = &ready["cursor"];
    away(&stage, client).await;
    let resume = json!({"cursor": nothing, "chats": {chat.to_string(): 5}});
    let (client, frames) = again(&stage, ana, resume).await;
    assert_eq!((of(&frames, chat), told(&frames)), (Value::Null, vec![("resumed", 0)]));
    assert_eq!(of(&frames, other)["complete"], false, "known, and to be read");
    away(&stage, client).await;
    let mut client = stage.open(ana).await;
    let ready = client.ask(json!({"type": "hello", "ref": 5, "resume": {"cursor": nothing}})).await;
    assert_eq!(ready["resuming"], false);
    away(&stage, client).await;
    // Who has more than there is, is to read, and is shown whatever comes.
    let (mut client, frames) =
        again(&stage, ana, json!({"cursor": cursor, "chats": {chat.to_string(): 7}})).await;
    assert_eq!(of(&frames, chat), json!({"from": 7, "to": 5, "complete": false}));
    for seq in 6..=8 {
        stage.deliver.live(live(change(chat, seq, ben.user, sent(seq - 1, "x"))));
        assert_eq!(client.hear().await["seq"], seq);
    }
    // A client's word about a seq keeps nobody in a chat.
    stage.deliver.live(live(change(chat, 9, ben.user, What::Left { user: ana.user, heir: None })));
    stage.deliver.live(live(change(chat, 10, ben.user, sent(9, "about ana"))));
    assert_eq!(client.hear().await, json!({"type": "chat_removed", "chat": chat.to_string()}));
}

#[tokio::test]
async fn ws_3_chats_that_came_and_went_meanwhile_are_told_as_such() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let (left, deleted, again_in) =
        (stage.group(&[ben, ana]).await, stage.group(&[ben, ana]).await, stage.group(&[ben, ana]).await);
    let (client, cursor) = begin(&stage, ana).await;
    away(&stage, client).await;
    let gone = What::Left { user: ana.user, heir: None };
    stage
        .write(vec![change(left, 2, ben.user, gone.clone()), change(left, 3, ben.user, sent(1, "secret"))])
        .await;
    stage.write(vec![change(deleted, 2, ben.user, What::Deleted)]).await;
    let back = What::Joined { user: ana.user, role: Role::Member };
    stage.write(vec![change(again_in, 2, ben.user, gone), change(again_in, 3, ben.user, back)]).await;
    let new = stage.group(&[ben, ana]).await;

    let (_client, mut frames) = again(&stage, ana, json!({"cursor": cursor})).await;
    assert_eq!(frames.pop().unwrap()["chats"], json!({}));
    let new_chats = frames.split_off(frames.len() - 2);
    let mut removed: Vec<_> = frames
        .iter()
        .map(|frame| {
            assert_eq!(frame["type"], "chat_removed");
            frame["chat"].as_str().unwrap().to_owned()
        })
        .collect();
    removed.sort();
    let mut expected = [left, deleted, again_in].map(|chat| chat.to_string());
    expected.sort();
    assert_eq!(removed, expected);
    let mut told = Vec::new();
    for frame in new_chats {
        assert_eq!(frame["type"], "new_chat");
        told.push((frame["chat"]["id"].as_str().unwrap().to_owned(), frame["seq"].as_u64().unwrap()));
    }
    told.sort();
    let mut expected = vec![(new.to_string(), 1), (again_in.to_string(), 3)];
    expected.sort();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn ws_3_what_nobody_has_any_more_is_never_called_complete() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = stage.group(&[ana, ben]).await;
    let (client, cursor) = begin(&stage, ana).await;
    away(&stage, client).await;
    stage.store(vec![change(chat, 2, ben.user, sent(1, "x"))]).await;
    let (client, frames) = again(&stage, ana, json!({"cursor": cursor})).await;
    assert_eq!(of(&frames, chat), json!({"from": 0, "to": 2, "complete": false}));
    away(&stage, client).await;
    let (_client, frames) =
        again(&stage, ana, json!({"cursor": cursor, "chats": {chat.to_string(): 1}})).await;
    assert_eq!(of(&frames, chat), json!({"from": 1, "to": 2, "complete": false}));
}

#[tokio::test]
async fn a_cursor_that_is_none_begins_anew() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let other = Stage::new().await;
    let eve = other.person("eve").await;
    let (_eve, foreign) = begin(&other, eve).await;
    // As the cluster gave it, but for one letter: where a rule of terms stands, how far a partition is, or the seal.
    let (_ana, own) = begin(&stage, ana).await;
    let changed = |at: usize| {
        let letter = if own.as_bytes()[at] == b'B' { "C" } else { "B" };
        [&own[..at], letter, &own[at + 1..]].concat()
    };
    let mut forged: Vec<String> = (0..own.len()).step_by(7).map(changed).collect();
    forged.extend(["", "0", "AQAA", "not one", &foreign, &"A".repeat(30_000)].map(str::to_owned));
    for cursor in forged {
        let mut client = stage.open(ana).await;
        let resume = json!({"cursor": cursor, "chats": {ChatId::random().to_string(): 3}});
        let ready = client.ask(json!({"type": "hello", "ref": 1, "resume": resume})).await;
        assert_eq!((&ready["type"], &ready["resuming"]), (&json!("ready"), &json!(false)), "{cursor}");
    }
}

#[tokio::test]
async fn ws_3_of_two_thousand_chats_a_small_frame_brings_back_those_that_changed() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let mut chats = Vec::new();
    for _ in 0..2_000 {
        chats.push(stage.group(&[ana, ben]).await);
    }
    let (client, cursor) = begin(&stage, ana).await;
    away(&stage, client).await;
    for chat in [chats[7], chats[1_300]] {
        stage.write(vec![change(chat, 2, ben.user, sent(1, "x"))]).await;
    }
    let resume = json!({"cursor": cursor});
    assert!(resume.to_string().len() < 400);
    let (_client, frames) = again(&stage, ana, resume).await;
    assert_eq!(told(&frames), [("new_message", 2), ("new_message", 2), ("resumed", 0)]);
    assert_eq!(frames[2]["chats"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn sessions_are_told_where_they_are_once_everything_before_was_shown() {
    let stage = Stage::new().await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = stage.group(&[ana, ben]).await;
    let (mut client, old) = begin(&stage, ana).await;
    let second: Change = change(chat, 2, ben.user, sent(1, "x"));
    let (partition, Position { offset, state, .. }) = stage.write(vec![second.clone()]).await;
    let mark = |from, whole| {
        let place = Place { term: 0, to: offset, told: LogPlace { offset, state } };
        let mark = Mark { partition, from, told_from: from, place, whole };
        stage.deliver.marks(&NodeId::new("owner").unwrap(), &[mark]);
    };
    mark(offset, true);
    stage.deliver.live(live(second));
    assert_eq!(client.hear().await["seq"], 2);
    let told = client.hear().await;
    assert_eq!(told["type"], "cursor");
    let cursor = told["cursor"].as_str().unwrap();
    assert_ne!(cursor, old);
    away(&stage, client).await;
    let (_client, frames) = again(&stage, ana, json!({"cursor": cursor})).await;
    assert_eq!(frames.len(), 1, "nothing was missed: {frames:?}");
}

#[tokio::test]
async fn a_gap_is_mended_by_asking_for_the_changes_after_it() {
    let stage = Stage::new().await;
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    let chat = stage.group(&[ana, ben]).await;
    let changes: Vec<_> = (2..=4).map(|seq| change(chat, seq, ben.user, sent(seq - 1, "x"))).collect();
    stage.write(changes.clone()).await;
    let mut client = stage.ready(ana).await;
    let ask = |after: u64| json!({"type": "changes", "ref": 9, "chat": chat.to_string(), "after": after});
    let resumed = |from: u64, complete: bool| json!({"type": "resumed", "ref": 9, "chats": {chat.to_string(): {"from": from, "to": 4, "complete": complete}}});
    assert_eq!(client.ask(ask(2)).await, resumed(2, false), "nobody has them");
    assert_eq!(client.ask(ask(4)).await, resumed(4, true));
    assert_eq!(client.ask(ask(9)).await, resumed(9, false), "there is no such change");
    let tail = changes.into_iter().map(|change| TailEntry {
        seq: change.seq,
        offset: change.seq,
        bytes: Record::Change(change).encode(),
    });
    stage.cache.append_tail(ChatKey { app: APP, chat }, tail.collect()).await.unwrap();
    assert_eq!(client.ask(ask(2)).await["seq"], 3);
    assert_eq!(client.hear().await["seq"], 4);
    assert_eq!(client.hear().await, resumed(2, true));

    let mut stranger = stage.ready(eve).await;
    let refused = stranger.ask(ask(0)).await;
    assert_eq!(
        (&refused["type"], &refused["code"], &refused["ref"]),
        (&json!("error"), &json!("not_found"), &json!(9))
    );
}

#[tokio::test]
async fn of_many_gaps_of_one_session_some_are_mended_at_once_and_the_others_later() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let chat = stage.group(&[ana]).await;
    let mut client = stage.ready(ana).await;
    // Together, so that they are read before the first is answered.
    for ref_ in 0..6 {
        let ask = json!({"type": "changes", "ref": ref_, "chat": chat.to_string(), "after": 1});
        client.socket.feed(Frame::text(ask.to_string())).await.unwrap();
    }
    client.socket.flush().await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..6 {
        let answer = client.hear().await;
        answers.push((
            answer["ref"].as_u64().unwrap(),
            answer["type"] == "resumed" || answer["code"] != "retry_later",
        ));
    }
    answers.sort_unstable();
    assert_eq!(answers, [(0, true), (1, true), (2, true), (3, true), (4, false), (5, false)]);
    let ask = json!({"type": "changes", "ref": 6, "chat": chat.to_string(), "after": 1});
    assert_eq!(client.ask(ask).await["type"], "resumed", "when the others are mended");
}

#[tokio::test]
async fn who_names_many_chats_of_others_begins_anew() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    for (count, resuming) in [(256, true), (257, false)] {
        let chats: serde_json::Map<_, _> =
            (0..count).map(|_| (ChatId::random().to_string(), json!(1))).collect();
        let mut client = stage.open(ana).await;
        let ready = client.ask(json!({"type": "hello", "ref": 1, "resume": {"chats": chats}})).await;
        assert_eq!(ready["resuming"], resuming, "{count}");
    }
}

#[tokio::test]
async fn many_answers_at_once_are_all_written() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let mut client = stage.ready(ana).await;
    for ref_ in 0..1_000 {
        client.say(json!({"type": "ping", "ref": ref_})).await;
    }
    for ref_ in 0..1_000 {
        let pong = tokio::time::timeout(Duration::from_secs(5), client.hear()).await.unwrap();
        assert_eq!(pong, json!({"type": "pong", "ref": ref_}));
    }
}

#[tokio::test]
async fn many_devices_that_come_back_to_many_new_chats_are_each_told_of_all_of_them() {
    let stage = Stage::new().await;
    let ana = stage.person("ana").await;
    let mut devices = Vec::new();
    for _ in 0..8 {
        devices.push(begin(&stage, ana).await);
    }
    let cursors: Vec<_> = devices.into_iter().map(|(_, cursor)| cursor).collect();
    stage.until(|| async { stage.sockets.load(std::sync::atomic::Ordering::SeqCst) == 0 }).await;
    let mut chats = Vec::new();
    for _ in 0..200 {
        chats.push(stage.group(&[ana]).await.to_string());
    }
    chats.sort_unstable();
    // All of them at the same time.
    let back = cursors.iter().map(async |cursor| {
        let (_client, frames) = again(&stage, ana, json!({"cursor": cursor})).await;
        let new_chats = frames.iter().filter(|frame| frame["type"] == "new_chat");
        let mut new: Vec<_> =
            new_chats.map(|frame| frame["chat"]["id"].as_str().unwrap().to_owned()).collect();
        new.sort_unstable();
        assert_eq!(new, chats);
    });
    futures_util::future::join_all(back).await;
}
