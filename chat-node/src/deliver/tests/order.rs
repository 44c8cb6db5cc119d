//! Cursors and what is told outside the order of events, coming back, and rooms whose owners are away.

use super::*;
const THEN: Duration = Duration::from_secs(5);

/// Ana's chat, which Ben comes into by its second change.
fn welcome() -> Stage {
    let changes = vec![
        change(1, created(&[ANA])),
        change(2, What::Joined { user: BEN, role: Role::Member }),
        change(3, sent(1)),
    ];
    let stage = Stage::new(changes, 0);
    stage.world.0.lock().confirmed = 1;
    stage.drain(1);
    stage
}

/// A membership as the store showed it when the chat was at `seq`.
fn seen_at(key: ChatKey, seq: Seq) -> Membership {
    let head = Head { number: 0, seq };
    Membership { chat: key.chat, head, members: 2, head_upto: 0, expired: 0, joined_seq: 1, joined_upto: 0 }
}

/// Somebody has begun to write what the chat has to say.
fn writing(stage: &Stage) -> Fanout {
    stage.deliver.0.hub.room(CHAT).unwrap().begin_fanout().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_cursor_does_not_overtake_a_new_chat_that_waits_until_it_is_written() {
    for breaks_off in [true, false] {
        let mut stage = welcome();
        let (ana, ben) = (stage.open(ANA), stage.open(BEN));
        stage.settle().await;
        stage.mark(true);
        stage.settle().await;
        let before = stage.clients[ben].cursor.clone();
        let joined = stage.confirm().unwrap();
        stage.deliver.collect(Live::Change(joined));
        let room = stage.deliver.0.hub.room(CHAT).unwrap();
        let mut fanout = writing(&stage);
        for live in stage.drain(1) {
            stage.deliver.live(live);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The change is written, and what has come meanwhile is about to be.
        assert!(fanout.step(&room, 1).0 && fanout.step(&room, 1).0);
        stage.mark(true);
        tokio::time::sleep(THEN).await;
        stage.look();
        assert_eq!(stage.types(ana), ["member_joined 2"]);
        assert_ne!(stage.clients[ana].cursor, before, "she was shown everything");
        assert_eq!(stage.clients[ben].cursor, before);
        if breaks_off {
            stage.come_back(ben);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while fanout.step(&room, 1).0 {}
        let next = stage.confirm().unwrap();
        stage.deliver.live(Live::Change(next));
        stage.drain(1);
        stage.mark(true);
        stage.settle().await;
        let told = stage.types(ben).into_iter().filter(|kind| kind.starts_with("new_"));
        assert_eq!(told.collect::<Vec<_>>(), ["new_chat 2", "new_message 3"]);
        assert_ne!(stage.clients[ben].cursor, before);
        judge_end(&stage.clients[ben], &stage.world.0.lock());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_does_not_overtake_a_removal_that_is_told_later() {
    let mut stage = farewell();
    let ben = stage.open(BEN);
    stage.settle().await;
    stage.mark(true);
    stage.settle().await;
    let before = stage.clients[ben].cursor.clone();
    let left = stage.confirm().unwrap();
    stage.deliver.live(Live::Change(left));
    // Nobody says that the store shows it.
    stage.drain(1);
    stage.mark(true);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    stage.look();
    assert!(stage.types(ben).is_empty());
    assert_eq!(stage.clients[ben].cursor, before);
    stage.come_back(ben);
    stage.settle().await;
    let told = stage.types(ben);
    assert!(told.iter().any(|kind| kind == "chat_removed"), "{told:?}");
    judge_end(&stage.clients[ben], &stage.world.0.lock());
}

#[tokio::test(start_paused = true)]
async fn a_cursor_does_not_overtake_the_end_of_a_chat() {
    let mut stage = Stage::new(vec![change(1, created(&[ANA, BEN])), change(2, What::Deleted)], 0);
    stage.world.0.lock().confirmed = 1;
    stage.drain(1);
    let ben = stage.open(BEN);
    stage.settle().await;
    stage.mark(true);
    stage.settle().await;
    let before = stage.clients[ben].cursor.clone();
    let deleted = stage.confirm().unwrap();
    stage.deliver.collect(Live::Change(deleted));
    assert!(stage.deliver.0.hub.room(CHAT).is_some(), "until the last of it is written");
    for live in stage.drain(1) {
        stage.deliver.collect(live);
    }
    stage.mark(true);
    tokio::time::sleep(THEN).await;
    stage.look();
    assert_eq!((stage.types(ben), &stage.clients[ben].cursor), (vec![], &before));
    stage.deliver.flush();
    stage.look();
    assert_eq!(stage.types(ben), ["chat_deleted 2"]);
    assert!(stage.deliver.0.hub.room(CHAT).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_enters_a_chat_just_when_it_is_deleted_is_told_that_it_is_gone() {
    let mut stage = Stage::new(vec![change(1, created(&[ANA, BEN])), change(2, What::Deleted)], 0);
    stage.world.0.lock().confirmed = 1;
    stage.drain(1);
    stage.open(ANA);
    let ben = stage.open(UserId::random());
    stage.settle().await;
    let handle = Arc::clone(&stage.clients[ben].handle);
    // It has read its chats, and is seated next.
    let hold = stage.deliver.0.hub.hold(CHAT);
    let room = Arc::clone(hold.room());
    let deleted = stage.confirm().unwrap();
    stage.deliver.live(Live::Change(deleted));
    let (effects, upto) = stage.deliver.0.hub.enter(&handle, hold, &seen_at(CHAT, 1), 0);
    assert_eq!(upto, None);
    stage.deliver.apply(&room, effects);
    stage.look();
    assert_eq!(stage.types(ben), ["chat_removed"]);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_behind_the_store_is_mended_when_somebody_enters_it() {
    let mut stage = pair(1);
    let ana = stage.open(ANA);
    stage.settle().await;
    stage.confirm().unwrap();
    stage.drain(1);
    stage.settle().await;
    assert!(stage.types(ana).is_empty(), "it was lost, and nobody has noticed");
    stage.open(BEN);
    stage.settle().await;
    assert_eq!(stage.types(ana), ["new_message 2"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_until_others_are_written_is_not_written_with_them() {
    // More than is taken at once.
    let (taken, more) = (4_096, 200);
    let mut stage = pair(1 + taken + more);
    let ana = stage.open(ANA);
    stage.settle().await;
    let room = stage.deliver.0.hub.room(CHAT).unwrap();
    let mut show = |some: usize| {
        for _ in 0..some {
            let record = stage.confirm().unwrap();
            stage.deliver.collect(Live::Change(record));
        }
    };
    show(1);
    let mut fanout = room.begin_fanout().unwrap();
    show(taken + more);
    assert!(fanout.step(&room, 1).0 && fanout.step(&room, 1).0);
    let mut behind = room.behind().unwrap();
    let mut written = 0;
    while room.is_behind(&mut behind) {
        let _ = fanout.step(&room, 1);
        written += stage.clients[ana].handle.outbox.take().len();
    }
    assert_eq!(written, 1 + taken + more, "it is behind until the last one is written");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_away_holds_up_the_rooms_of_no_other() {
    let mut stage = pair(2);
    let ana = stage.open(ANA);
    stage.settle().await;
    let handle = Arc::clone(&stage.clients[ana].handle);
    let chats = std::iter::repeat_with(|| ChatKey { app: APP, chat: ChatId::random() });
    let away: Vec<_> =
        chats.filter(|key| partition_of(*key, 16) == (partition_of(CHAT, 16) + 1) % 16).take(50).collect();
    for key in away {
        let hold = stage.deliver.0.hub.hold(key);
        let room = Arc::clone(hold.room());
        let (effects, _) = stage.deliver.0.hub.enter(&handle, hold, &seen_at(key, 1), 0);
        stage.deliver.apply(&room, effects);
        stage.deliver.suspect(&room);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.confirm().unwrap();
    let early = stage.confirm().unwrap();
    stage.deliver.live(Live::Change(early));
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.look();
    assert_eq!(stage.types(ana), ["new_message 2", "new_message 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_void_record_with_the_seq_of_a_valid_one_is_not_told_in_its_place() {
    let mut stage = pair(1);
    let (one, other) = (stage.open(BEN), stage.open(BEN));
    stage.settle().await;
    for client in &mut stage.clients {
        client.admitted = None;
    }
    stage.confirm().unwrap();
    stage.drain(1);
    let id = |stage: &Stage, client: usize| {
        let frames = stage.clients[client].frames.iter();
        let told: Vec<_> = frames.filter(|(_, frame)| frame["type"] == "new_message").collect();
        assert_eq!(told.len(), 1);
        told[0].1["message"]["id"].as_str().unwrap().to_owned()
    };
    // One that an owner wrote when it was none any more, and then the valid one.
    let void = Change { n: 99, ..change(2, sent(1)) };
    let What::Sent { id: void_id, .. } = void.what else { unreachable!() };
    let bytes = Record::Change(void).encode();
    stage.cache.append_tail(CHAT, vec![TailEntry { seq: 2, offset: 2, bytes }]).await.unwrap();
    stage.come_back(one);
    stage.settle().await;
    assert_eq!(id(&stage, one), void_id.to_string());
    stage.cache.flush().await.unwrap();
    stage.add_to_tail().await;
    stage.come_back(other);
    stage.settle().await;
    assert_ne!(id(&stage, other), void_id.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_room_whose_newest_member_was_told_of_it_may_have_missed_something() {
    let mut stage = welcome();
    let ben = stage.open(BEN);
    stage.settle().await;
    let handle = Arc::clone(&stage.clients[ben].handle);
    let hold = stage.deliver.0.hub.hold(CHAT);
    let room = Arc::clone(hold.room());
    drop(stage.deliver.0.hub.join(&handle, hold, 2));
    let (done, effects) = room.settle(BEN, 2, &ServerFrame::ChatReload { chat: CHAT.chat });
    while room.begin_fanout().is_some_and(|mut fanout| fanout.step(&room, 9).0) {}
    assert!(done && effects.repair);
    assert!(room.behind().is_some(), "until its owner was asked, no cursor is past it");
}

#[tokio::test(start_paused = true)]
async fn many_who_come_back_at_once_share_their_questions() {
    let mut stage = pair(3);
    let clients: Vec<_> = (0..90).map(|_| stage.open(BEN)).collect();
    stage.settle().await;
    for client in &mut stage.clients {
        client.admitted = None;
    }
    while stage.confirm().is_some() {}
    stage.drain(10);
    stage.world.0.lock().asked = [0; 3];
    for client in &clients {
        stage.come_back(*client);
    }
    stage.settle().await;
    for client in clients {
        let told = ["#back", "new_message 2", "new_message 3", "new_message 4", "resumed"];
        assert_eq!(stage.types(client), told, "nobody has a tail: it is read from the log");
    }
    let [standing, since, reads] = stage.world.0.lock().asked;
    assert!(standing <= 3 && since <= 3 && reads <= 3, "{standing} {since} {reads}");
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_found_nobody_ends_none_that_was_queued_since() {
    let mut stage = pair(1);
    let ana = stage.open(ANA);
    let other = stage.open(UserId::random());
    stage.settle().await;
    let handle = Arc::clone(&stage.clients[other].handle);
    let hold = stage.deliver.0.hub.hold(CHAT);
    let room = Arc::clone(hold.room());
    assert!(room.suspect());
    stage.clients[ana].admitted = None;
    assert_eq!(room.begin_repair(), None);
    drop(stage.deliver.0.hub.enter(&handle, hold, &seen_at(CHAT, 1), 0));
    assert!(room.suspect());
    assert!(!room.end_repair(false));
    assert!(room.behind().is_some(), "its owner was not asked yet");
}
