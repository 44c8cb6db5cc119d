//! Coming back and mending a gap, where something stands in the way.

use common::problem::Problem;

use super::*;
use crate::resume::{GATHERED, MENDING, Replay as Answer, SESSIONS};

impl Stage {
    /// Everything happens, is in the store, and in the chat's tail; sessions are told nothing of it.
    async fn catch_up(&mut self) {
        while self.confirm().is_some() {
            self.add_to_tail().await;
        }
        self.drain(usize::MAX / 2);
    }

    async fn changes(&self, client: usize, after: Seq) -> Result<Answer, Problem> {
        self.deliver.changes(&self.clients[client].handle, CHAT.chat, after).await
    }

    /// What the newest `resumed` says of the chat.
    fn resumed(&self, client: usize) -> serde_json::Value {
        let frames = self.clients[client].frames.iter().rev();
        let resumed = frames.map(|(_, frame)| frame).find(|frame| frame["type"] == "resumed").unwrap();
        resumed["chats"][CHAT.chat.to_string()].clone()
    }
}

fn frames(answer: &Answer) -> Vec<serde_json::Value> {
    let payloads = answer.frames.iter().cloned().flat_map(frame::payloads);
    payloads.map(|payload| serde_json::from_slice(&payload).unwrap()).collect()
}

fn complete(answer: &Answer) -> bool {
    answer.chats[&CHAT.chat].complete
}

fn code(answer: Result<Answer, Problem>) -> ErrorCode {
    answer.expect_err("it was answered").frame(None).code
}

/// Two devices of Ben's were there, are away, and something is said that nobody has told him.
async fn away() -> (Stage, [usize; 2]) {
    let mut stage = pair(3);
    let ben = [stage.open(BEN), stage.open(BEN)];
    stage.settle().await;
    for client in &mut stage.clients {
        client.admitted = None;
    }
    stage.catch_up().await;
    (stage, ben)
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_is_not_asked_again_at_once() {
    let mut stage = pair(3);
    let clients = [stage.open(BEN), stage.open(BEN)];
    stage.settle().await;
    for client in &mut stage.clients {
        client.admitted = None;
    }
    while stage.confirm().is_some() {}
    stage.drain(10);
    stage.world.0.lock().asked = [0; 3];
    stage.world.0.lock().failing = 1;
    for client in clients {
        stage.come_back(client);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stage.look();
    for client in clients {
        assert_eq!(stage.types(client), ["#back", "resumed"]);
        assert_eq!(stage.resumed(client)["complete"], false);
    }
    assert_eq!(stage.world.0.lock().asked[2], 1);
}

#[tokio::test(start_paused = true)]
async fn when_nothing_has_a_tail_what_was_missed_in_many_partitions_is_told_all_the_same() {
    let mut stage = pair(0);
    let mut partitions = HashSet::from([partition_of(CHAT, 16)]);
    let keys = (1..).map(|chat| ChatKey { app: APP, chat: ChatId(Uuid::from_u128(chat)) });
    let keys: Vec<_> = keys.filter(|key| partitions.insert(partition_of(*key, 16))).take(12).collect();
    let of = |key: &ChatKey, seq, what| Change { chat: key.chat, ..change(seq, what) };
    let first = keys.iter().map(|key| (*key, vec![of(key, 1, created(&USERS))]));
    stage.world.0.lock().elsewhere = first.collect();
    let ben = stage.open(BEN);
    stage.settle().await;
    stage.clients[ben].admitted = None;
    for (key, changes) in &mut stage.world.0.lock().elsewhere {
        changes.extend((2..9).map(|seq| of(key, seq, sent(seq - 1))));
    }
    stage.come_back(ben);
    stage.settle().await;
    let (_, resumed) = stage.clients[ben].frames.last().unwrap();
    for key in &keys {
        let told = &resumed["chats"][key.chat.to_string()];
        assert_eq!((&told["complete"], &told["to"]), (&true.into(), &8.into()), "{resumed}");
    }
    assert_eq!(stage.types(ben).iter().filter(|kind| kind.starts_with("new_message")).count(), 12 * 7);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_among_those_who_come_back_is_to_read() {
    let (mut stage, [phone, laptop]) = away().await;
    let deliver = stage.deliver.clone();
    let others = deliver.0.resuming.acquire_many(u32::try_from(SESSIONS).unwrap()).await.unwrap();
    stage.come_back(phone);
    stage.settle().await;
    assert_eq!(stage.types(phone), ["#back", "resumed"]);
    assert_eq!(stage.resumed(phone)["complete"], false);
    drop(others);
    stage.come_back(laptop);
    stage.settle().await;
    assert_eq!(stage.resumed(laptop)["complete"], true);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_has_its_room_until_the_outbox_has_it_and_without_room_it_is_to_be_read() {
    let (mut stage, [phone, laptop]) = away().await;
    let gathered = Arc::clone(&stage.deliver.0.gathered);
    let others = gathered.acquire_many(u32::try_from(GATHERED).unwrap()).await.unwrap();
    stage.come_back(phone);
    stage.settle().await;
    assert_eq!(stage.resumed(phone)["complete"], false);
    drop(others);
    stage.come_back(laptop);
    stage.settle().await;
    assert_eq!(stage.resumed(laptop)["complete"], true);
    assert_eq!(gathered.available_permits(), GATHERED, "all of it is given back");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_not_mended_while_too_many_are() {
    let mut stage = pair(1);
    let ben = stage.open(BEN);
    stage.settle().await;
    let deliver = stage.deliver.clone();
    let others = deliver.0.mending.acquire_many(u32::try_from(MENDING).unwrap()).await.unwrap();
    assert_eq!(code(stage.changes(ben, 1).await), ErrorCode::RetryLater);
    drop(others);
    assert!(complete(&stage.changes(ben, 1).await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn who_came_in_later_is_told_nothing_of_what_was_before() {
    let changes = vec![
        change(1, created(&[ANA])),
        change(2, sent(1)),
        change(3, What::Joined { user: BEN, role: Role::Member }),
        change(4, sent(2)),
    ];
    let mut stage = Stage::new(changes, 0);
    stage.catch_up().await;
    let ben = stage.open(BEN);
    stage.settle().await;
    for before in [0, 1, 2] {
        let answer = stage.changes(ben, before).await.unwrap();
        assert_eq!((frames(&answer).len(), complete(&answer)), (0, false), "after {before}");
    }
    let answer = stage.changes(ben, 3).await.unwrap();
    assert_eq!((frames(&answer)[0]["seq"].as_u64(), complete(&answer)), (Some(4), true));
}

#[tokio::test(start_paused = true)]
async fn who_is_removed_while_changes_are_fetched_is_told_no_more_than_a_stranger() {
    let (mut stage, [ben, _]) = away().await;
    stage.come_back(ben);
    stage.settle().await;
    let (deliver, handle) = (stage.deliver.clone(), Arc::clone(&stage.clients[ben].handle));
    let others = deliver.0.mending.acquire_many(u32::try_from(MENDING).unwrap()).await.unwrap();
    let asking = tokio::spawn({
        let deliver = deliver.clone();
        async move { deliver.changes(&handle, CHAT.chat, 1).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    deliver.live(Live::Removed { app: APP, chat: CHAT.chat, seq: 5, users: vec![BEN] });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(others);
    assert_eq!(code(asking.await.unwrap()), ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_certain_to_be_a_member_is_asked_to_come_again() {
    let changes = vec![
        change(1, created(&[ANA])),
        change(2, What::Joined { user: BEN, role: Role::Member }),
        change(3, sent(1)),
    ];
    let mut stage = Stage::new(changes, 0);
    stage.world.0.lock().confirmed = 1;
    stage.drain(1);
    let (_ana, ben) = (stage.open(ANA), stage.open(BEN));
    stage.settle().await;
    assert_eq!(code(stage.changes(ben, 1).await), ErrorCode::NotFound);
    for _ in 0..2 {
        let record = stage.confirm().unwrap();
        stage.deliver.live(Live::Change(record));
    }
    // The store shows Ben's coming, and not yet what was said since.
    for live in stage.drain(1) {
        stage.deliver.live(live);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(code(stage.changes(ben, 1).await), ErrorCode::RetryLater);
    stage.drain(1);
    stage.settle().await;
    assert!(complete(&stage.changes(ben, 3).await.unwrap()));
}

/// What a client makes of frames after `has`: each that follows, once; what is early is kept.
fn taken(mut has: u64, frames: impl IntoIterator<Item = serde_json::Value>) -> Vec<serde_json::Value> {
    let (mut taken, mut early) = (Vec::new(), HashMap::new());
    for frame in frames {
        early.insert(frame["seq"].as_u64().unwrap(), frame);
        while let Some(next) = early.remove(&(has + 1)) {
            has += 1;
            taken.push(next);
        }
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_says_and_comes_live_as_well_is_the_same_event() {
    let mut stage = pair(4);
    let ana = stage.open(ANA);
    stage.settle().await;
    for at in 0..4 {
        let record = stage.confirm().unwrap();
        stage.add_to_tail().await;
        stage.deliver.collect(Live::Change(record));
        if at == 1 {
            stage.deliver.flush();
        }
    }
    // Two are in the outbox, two are shown to the room and not written yet.
    let answer = frames(&stage.changes(ana, 1).await.unwrap());
    stage.deliver.flush();
    stage.look();
    let live: Vec<_> = stage.clients[ana].frames.iter().map(|(_, frame)| frame.clone()).collect();
    let seqs = |frames: &[serde_json::Value]| {
        frames.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((seqs(&answer), seqs(&live)), (vec![2, 3, 4, 5], vec![2, 3, 4, 5]));
    assert_eq!(answer, live);
    // Whatever was lost before it asked, and wherever the answer stands among what came live.
    for lost in 0..=live.len() {
        let live = &live[lost..];
        for before in 0..=live.len() {
            let (early, late) = live.split_at(before);
            let heard = [early, &answer, late].concat();
            assert_eq!(taken(1, heard), answer, "{lost} lost, {before} before the answer");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_meanwhile_is_told_without_what_it_said() {
    let edited = |number: usize| {
        let mut message = change(2, sent(number)).message().unwrap();
        message.edited_at = Some(Millis(1));
        What::Edited { message: Box::new(message) }
    };
    let changes = vec![
        change(1, created(&[ANA, BEN])),
        change(2, sent(1)),
        change(3, sent(2)),
        change(4, edited(1)),
        change(5, What::Erased { number: 1 }),
    ];
    let mut stage = Stage::new(changes, 0);
    stage.world.0.lock().confirmed = 1;
    stage.drain(1);
    let (ana, ben) = (stage.open(ANA), stage.open(BEN));
    stage.settle().await;
    stage.clients[ben].admitted = None;
    for _ in 0..3 {
        let record = stage.confirm().unwrap();
        stage.add_to_tail().await;
        stage.deliver.live(Live::Change(record));
    }
    let texts = |frames: &[serde_json::Value]| -> Vec<(String, bool)> {
        let messages = frames.iter().map(|frame| &frame["message"]).filter(|message| message.is_object());
        messages
            .map(|message| (message["body"].as_str().unwrap().to_owned(), message["deleted"] == true))
            .collect()
    };
    let said = texts(&frames(&stage.changes(ana, 1).await.unwrap()));
    assert!(said.len() == 3 && said.iter().all(|(body, deleted)| !body.is_empty() && !deleted), "{said:?}");
    let record = stage.confirm().unwrap();
    stage.add_to_tail().await;
    stage.deliver.live(Live::Change(record));
    stage.drain(10);
    stage.come_back(ben);
    stage.settle().await;
    let withheld = (String::new(), true);
    let expected = vec![withheld.clone(), said[1].clone(), withheld];
    let told: Vec<_> = stage.clients[ben].frames.iter().map(|(_, frame)| frame.clone()).collect();
    assert_eq!(
        stage.types(ben)[1..5],
        ["new_message 2", "new_message 3", "message_updated 4", "message_deleted 5"]
    );
    assert_eq!(texts(&told), expected);
    assert_eq!(texts(&frames(&stage.changes(ana, 1).await.unwrap())), expected, "and whoever mends a gap");
    let one = frames(&stage.changes(ana, 4).await.unwrap());
    assert_eq!((one.len(), &one[0]["type"]), (1, &serde_json::json!("message_deleted")));
}
