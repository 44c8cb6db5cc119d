//! Who is connected, as others see it: PR-1 to PR-3, and who writes (ME-8).

use std::{sync::atomic::Ordering, time::Duration};

use chat_node::{
    presence::{PresenceConfig, Whereabouts},
    relationships::STALE,
    socket::SocketConfig,
};
use common::{
    cache::{LiveSession, NodeLife},
    ids::{ChatId, Incarnation, NodeId, SessionId, SocketId, UserId, UserKey},
    model::{ChatKind, PresenceStatus, PresenceView, Role},
    store::{Related, Relation},
    time::Millis,
    wire::{
        peer::{Came, Live, Topic},
        record::What,
    },
};
use serde_json::{Value, json};

use crate::stage::{APP, Client, LONG, Person, Stage, change, live, sent};

fn key(person: Person) -> UserKey {
    UserKey { app: APP, user: person.user }
}

async fn stage(grace: u64, group: u64) -> Stage {
    let (grace, timeout) = (Duration::from_millis(grace), Duration::from_millis(900));
    Stage::showing(SocketConfig::default(), PresenceConfig { grace, timeout, group }).await
}

/// The next frame about who is connected; no other comes before it.
async fn heard(client: &mut Client) -> Value {
    let frame = client.hear_any().await;
    assert!(frame["type"].as_str().unwrap().starts_with("presence"), "{frame}");
    frame
}

fn came(person: Person, last_seen: Option<Millis>, chats: Vec<ChatId>) -> Came {
    Came { user: person.user, last_seen, chats, hidden_from: Vec::new(), only: None }
}

fn online(person: Person) -> Value {
    json!({"type": "presence", "user": person.user, "status": "online", "last_seen": null})
}

/// A frame by which somebody is gone; gives when they were there last.
#[track_caller]
fn last_seen(frame: &Value, person: Person) -> Millis {
    let whom = (&json!("presence"), &json!(person.user), &json!("offline"));
    assert_eq!((&frame["type"], &frame["user"], &frame["status"]), whom, "{frame}");
    serde_json::from_value(frame["last_seen"].clone()).unwrap()
}

/// A socket of somebody on another node, as the cache knows it.
async fn elsewhere(stage: &Stage, person: Person) -> NodeLife {
    let life = NodeLife { node: NodeId::new("node-2").unwrap(), incarnation: Incarnation(2) };
    let session = LiveSession {
        socket: SocketId::random(),
        session: SessionId::random(),
        device: None,
        life: life.clone(),
        since: Millis::now(),
    };
    stage.cache.session_opened(key(person), session).await.unwrap();
    life
}

/// Nothing about who is connected has come up to what comes now by another way, and nothing comes within a few ticks.
async fn nothing_more(stage: &Stage, client: &mut Client, chat: ChatId, seq: u64, by: UserId) {
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    stage.deliver.live(live(change(chat, seq, by, sent(seq - 1, "still"))));
    assert_eq!(client.hear_any().await["type"], "new_message");
}

#[tokio::test]
async fn pr_1_who_shares_a_chat_hears_who_comes_and_goes_and_a_stranger_does_not() {
    let stage = stage(100, 100).await;
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    let (one, two) = (stage.group(&[ana, ben]).await, stage.group(&[ana, ben]).await);
    let alone = stage.group(&[eve]).await;
    let (mut watching, mut stranger) = (stage.ready(ana).await, stage.ready(eve).await);
    let before = Millis::now();
    let client = stage.ready(ben).await;
    // Once, though two chats are shared.
    assert_eq!(heard(&mut watching).await, online(ben));
    drop(client);
    let frame = heard(&mut watching).await;
    let seen = last_seen(&frame, ben);
    assert!(seen >= before && seen <= Millis::now());
    // It outlives the cache.
    stage.cache.flush().await.unwrap();
    stage.until(|| async { stage.store.last_seen(&[key(ben)]).await.unwrap() == [(key(ben), seen)] }).await;
    nothing_more(&stage, &mut watching, one, 2, ana.user).await;
    nothing_more(&stage, &mut stranger, alone, 2, eve.user).await;
    // The other nodes were told in the topics of the chats.
    let told: Vec<Topic> = stage.hinted.lock().iter().flat_map(|(topics, _)| topics.clone()).collect();
    assert!(told.contains(&Topic::Chat(APP, one)) && told.contains(&Topic::Chat(APP, two)));
}

#[tokio::test]
async fn pr_1_a_short_drop_is_no_flicker_and_a_second_device_is_none_either() {
    let stage = stage(1_200, 100).await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = stage.group(&[ana, ben]).await;
    let mut watching = stage.ready(ana).await;
    let (phone, desk) = (stage.ready(ben).await, stage.ready(ben).await);
    assert_eq!(heard(&mut watching).await, online(ben));
    drop(desk);
    drop(phone);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lives = stage.cache.lives_of(&[key(ben)]).await.unwrap();
    assert_eq!(lives[0].len(), 1, "who asks sees no flicker either");
    let phone = stage.ready(ben).await;
    nothing_more(&stage, &mut watching, chat, 2, ana.user).await;
    // What it was shown by meanwhile is gone.
    stage.until(|| async { stage.cache.sessions_of(key(ben)).await.unwrap().len() == 1 }).await;
    drop(phone);
    let frame = heard(&mut watching).await;
    last_seen(&frame, ben);
    assert_eq!(stage.cache.sessions_of(key(ben)).await.unwrap(), []);
}

#[tokio::test]
async fn pr_1_who_fell_silent_was_last_there_before_the_silence() {
    let wait = Duration::from_millis(500);
    let socket = SocketConfig { ping_every: wait, pong_wait: wait, ..SocketConfig::default() };
    let presence = PresenceConfig { grace: Duration::ZERO, timeout: Duration::from_secs(30), group: 100 };
    let stage = Stage::showing(socket, presence).await;
    let ben = stage.person("ben").await;
    let mut silent = stage.ready(ben).await;
    let ready = Millis::now();
    // A client answers pings when it reads, and this one does not.
    stage.until(|| async { stage.counted("chat_socket_closes_total", Some("idle")) == 1 }).await;
    silent.closed_with(4007, "idle").await;
    let seen = noted(&stage, ben).await;
    assert!(seen <= ready, "{seen}, silent since {ready}");
}

/// When somebody was there last, once it is noted.
async fn noted(stage: &Stage, person: Person) -> Millis {
    stage.until(|| async { !stage.store.last_seen(&[key(person)]).await.unwrap().is_empty() }).await;
    stage.store.last_seen(&[key(person)]).await.unwrap()[0].1
}

#[tokio::test]
async fn no_1_who_is_cut_off_in_silence_was_there_up_to_it_and_who_closes_up_to_the_close() {
    let presence = PresenceConfig { grace: Duration::ZERO, ..PresenceConfig::default() };
    let stage = Stage::showing(SocketConfig::default(), presence).await;
    let silence = Duration::from_millis(500);
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    // Cut off: what is written to him in the silence he never reads.
    let cut = stage.ready(ben).await;
    let ready = Millis::now();
    tokio::time::sleep(silence).await;
    drop(cut);
    let seen = noted(&stage, ben).await;
    assert!(seen <= ready, "{seen}, silent since {ready}");
    // Closed by the node.
    let _ended = stage.ready(eve).await;
    let ready = Millis::now();
    tokio::time::sleep(silence).await;
    assert!(stage.store.end_sign_in(APP, eve.user, eve.session).await.unwrap());
    let seen = noted(&stage, eve).await;
    assert!(seen <= ready, "{seen}, silent since {ready}");
    // Who closes has seen everything that was shown until then, though another device was lost in the meantime.
    let (mut desk, phone) = (stage.ready(ana).await, stage.ready(ana).await);
    tokio::time::sleep(silence).await;
    let closed = Millis::now();
    desk.socket.close(None).await.unwrap();
    stage.until(|| async { stage.cache.sessions_of(key(ana)).await.unwrap().len() == 1 }).await;
    drop(phone);
    let seen = noted(&stage, ana).await;
    assert!(seen >= closed, "{seen}, closed at {closed}");
}

#[tokio::test]
async fn pr_1_who_is_on_another_node_as_well_neither_comes_nor_goes_here() {
    let stage = stage(100, 100).await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = stage.group(&[ana, ben]).await;
    let mut watching = stage.ready(ana).await;
    elsewhere(&stage, ben).await;
    let client = stage.ready(ben).await;
    nothing_more(&stage, &mut watching, chat, 2, ana.user).await;
    drop(client);
    nothing_more(&stage, &mut watching, chat, 3, ana.user).await;
    // Noted all the same: it is before it is known who is elsewhere, so that nobody finds them gone and not noted.
    assert_eq!(stage.store.last_seen(&[key(ben)]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn pr_1_a_node_that_is_wrongly_told_that_its_user_is_gone_says_that_it_is_not_so() {
    let stage = stage(100, 100).await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = stage.group(&[ana, ben]).await;
    let (mut watching, _client) = (stage.ready(ana).await, stage.ready(ben).await);
    assert_eq!(heard(&mut watching).await, online(ben));
    stage.hinted.lock().clear();
    // The cache was flushed, and another node has looked before this one has noted its sockets again.
    let gone = came(ben, Some(Millis::now()), vec![chat]);
    stage.deliver.live(Live::Presence { app: APP, at: Millis::now(), users: vec![gone] });
    let says = |(_, live): &(Vec<Topic>, Live)| match live {
        Live::Presence { users, .. } => {
            users.iter().any(|came| came.user == ben.user && came.last_seen.is_none())
        }
        _ => false,
    };
    stage.until(|| async { stage.hinted.lock().iter().any(says) }).await;
}

#[tokio::test]
async fn pr_1_what_another_node_tells_reaches_the_members_in_order_and_not_late() {
    let stage = stage(100, 100).await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = stage.group(&[ana, ben]).await;
    let mut watching = stage.ready(ana).await;
    let tell = |at: i64, last_seen: Option<i64>| {
        let at = Millis(Millis::now().0 + at);
        let users = vec![came(ben, last_seen.map(Millis), vec![chat, ChatId::random()])];
        stage.deliver.live(Live::Presence { app: APP, at, users });
    };
    // Held up on the way; then out of order.
    tell(-60_000, None);
    tell(0, None);
    tell(-1_000, Some(5));
    assert_eq!(heard(&mut watching).await, online(ben));
    tell(-500, Some(6));
    tell(10, Some(7));
    assert_eq!(last_seen(&heard(&mut watching).await, ben), Millis(7));
}

#[tokio::test]
async fn pr_2_of_a_large_group_the_number_is_told_and_nobodys_coming_and_going() {
    let stage = stage(100, 2).await;
    let [ana, ben, eve] = [stage.person("ana").await, stage.person("ben").await, stage.person("eve").await];
    let large = stage.group(&[ana, ben, eve]).await;
    let count = |online: u64| json!({"type": "presence_count", "chat": large, "online": online});
    let mut watching = stage.ready(ana).await;
    assert_eq!(heard(&mut watching).await, count(1));
    let (phone, desk) = (stage.ready(ben).await, stage.ready(ben).await);
    loop {
        let frame = heard(&mut watching).await;
        if frame == count(2) {
            break;
        }
        // It was looked at before he had come.
        assert_eq!(frame, count(1), "two devices are one member");
    }
    // Others are on another node, which asks.
    stage.hinted.lock().clear();
    let node = NodeId::new("node-2").unwrap();
    stage.deliver.live(Live::Headcount { app: APP, chat: large, node, users: 40, ask: true });
    while heard(&mut watching).await != count(42) {}
    let answer = |(topics, live): &(Vec<Topic>, Live)| {
        matches!(live, Live::Headcount { users: 2, ask: false, .. }) && topics == &[Topic::Chat(APP, large)]
    };
    stage.until(|| async { stage.hinted.lock().iter().any(answer) }).await;
    // The other node is silent from here on: it is dead.
    while heard(&mut watching).await != count(2) {}
    drop((phone, desk));
    while heard(&mut watching).await != count(1) {}
    // A group that shrinks is a small one.
    stage.deliver.live(live(change(large, 2, eve.user, What::Left { user: eve.user, heir: None })));
    assert_eq!(watching.hear().await["type"], "member_left");
    stage.until(|| async { stage.cache.lives_of(&[key(ben)]).await.unwrap()[0].is_empty() }).await;
    // Whose grace is over is closed in the cache, and then announced.
    let _again = stage.ready(ben).await;
    while heard(&mut watching).await != online(ben) {}
}

#[tokio::test]
async fn pr_2_a_group_that_grows_above_the_bound_or_is_made_so_large_is_counted_though_nobody_comes_or_goes()
{
    let stage = stage(100, 2).await;
    let [ana, ben, eve] = [stage.person("ana").await, stage.person("ben").await, stage.person("eve").await];
    let small = stage.group(&[ana, ben]).await;
    let (mut watching, _client) = one_after_the_other(&stage, ana, ben).await;
    let counted = async |client: &mut Client, chat: ChatId, online: u64| {
        let told = tokio::time::timeout(Duration::from_secs(8), async {
            loop {
                let frame = client.hear_any().await;
                if frame["type"] == "presence_count" {
                    return frame;
                }
            }
        });
        let told = told.await.expect("a count");
        assert_eq!(told, json!({"type": "presence_count", "chat": chat, "online": online}));
    };
    let joined =
        |seq| live(change(small, seq, ana.user, What::Joined { user: eve.user, role: Role::Member }));
    let left = |seq| live(change(small, seq, eve.user, What::Left { user: eve.user, heir: None }));
    stage.deliver.live(joined(2));
    counted(&mut watching, small, 2).await;
    // Smaller, and larger again.
    stage.deliver.live(left(3));
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.deliver.live(joined(4));
    counted(&mut watching, small, 2).await;
    // Made while they are here.
    let large = stage.group(&[ana, ben, eve]).await;
    let users = vec![ana.user, ben.user];
    stage.deliver.live(Live::Added { app: APP, chat: large, seq: 1, users });
    counted(&mut watching, large, 2).await;
}

#[tokio::test]
async fn pr_3_the_users_of_a_node_that_is_no_more_are_gone_when_its_lease_has_lapsed() {
    let stage = stage(100, 100).await;
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    let chat = stage.group(&[ana, ben, eve]).await;
    let mut watching = stage.ready(ana).await;
    let (life, _) = (elsewhere(&stage, ben).await, elsewhere(&stage, eve).await);
    // Nobody noticed for a while.
    let renewed = Millis::now().minus(Duration::from_secs(60));
    stage.cache.keep_life(&life, Duration::from_millis(1), renewed).await.unwrap();
    // She has come here meanwhile.
    let _here = stage.ready(eve).await;
    let (mut gone, mut came) = (0, 0);
    while gone == 0 || came == 0 {
        let frame = tokio::time::timeout(LONG, heard(&mut watching)).await.unwrap();
        if frame == online(eve) {
            came += 1;
        } else {
            last_seen(&frame, ben);
            gone += 1;
        }
    }
    nothing_more(&stage, &mut watching, chat, 2, ana.user).await;
    assert_eq!(stage.cache.lives_of(&[key(ben)]).await.unwrap(), [vec![]]);
    // Whoever was silent when its lease was prolonged last may have been cut off for as long as that is not found out.
    let silence = SocketConfig::default().silence();
    assert_eq!(noted(&stage, ben).await, renewed.minus(silence), "whenever it is found out");
}

#[tokio::test]
async fn pr_3_one_lease_keeps_all_users_of_a_node_and_nothing_is_sent_for_one_who_stays() {
    let stage = stage(100, 100).await;
    let mut people = Vec::new();
    for n in 0..30 {
        people.push(stage.person(&format!("person-{n}")).await);
    }
    stage.group(&people).await;
    let mut clients = Vec::new();
    for person in &people {
        clients.push(stage.ready(*person).await);
    }
    let told = |person: &Person| {
        stage.hinted.lock().iter().any(|(_, live)| match live {
            Live::Presence { users, .. } => users.iter().any(|came| came.user == person.user),
            _ => false,
        })
    };
    stage.until(|| async { people.iter().all(told) }).await;
    let (before, hinted) = (stage.counted.calls(), stage.hinted.lock().len());
    let grown = |name: &str| {
        let (now, before) = (stage.counted.calls()[name], before.get(name).copied().unwrap_or_default());
        now - before
    };
    stage.until(|| async { grown("keep_life") >= 10 }).await;
    assert!(grown("take_lapsed").abs_diff(grown("keep_life")) <= 1, "one for each beat");
    for name in stage.counted.calls().keys().filter(|name| !["keep_life", "take_lapsed"].contains(name)) {
        assert_eq!(grown(name), 0, "{name}");
    }
    assert_eq!(stage.hinted.lock().len(), hinted);
    let users: Vec<UserKey> = people.iter().map(|person| key(*person)).collect();
    assert!(stage.cache.lives_of(&users).await.unwrap().iter().all(|lives| lives.len() == 1));
}

#[tokio::test]
async fn pr_1_without_the_cache_who_is_here_is_known_and_told_and_of_others_that_it_is_not_known() {
    let stage = stage(100, 100).await;
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    stage.group(&[ana, ben]).await;
    let mut watching = stage.ready(ana).await;
    stage.store.note_seen(&[(key(eve), Millis(1_000))]).await.unwrap();
    stage.counted.away.store(true, Ordering::SeqCst);
    let client = stage.ready(ben).await;
    assert_eq!(heard(&mut watching).await, online(ben));
    let whereabouts = Whereabouts::new(stage.cache.clone(), stage.store.clone(), stage.deliver.clone());
    let known = whereabouts.of_known(key(ana), &[ben.user, eve.user]).await.unwrap();
    let here = PresenceView { status: PresenceStatus::Online, last_seen: None };
    let not_known = PresenceView { status: PresenceStatus::Unknown, last_seen: Some(Millis(1_000)) };
    assert_eq!(known, [here, not_known]);
    drop(client);
    last_seen(&heard(&mut watching).await, ben);
}

#[tokio::test]
async fn pr_1_a_node_that_stops_notes_who_was_there_and_leaves_their_end_to_its_lease() {
    let config = PresenceConfig { grace: Duration::from_millis(100), ..PresenceConfig::default() };
    let stage = Stage::showing(SocketConfig::default(), config).await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    stage.group(&[ana, ben]).await;
    let _client = stage.ready(ben).await;
    stage.shutdown.cancel();
    stage.tasks.close();
    tokio::time::timeout(LONG, stage.tasks.wait()).await.unwrap();
    assert_eq!(stage.store.last_seen(&[key(ben)]).await.unwrap().len(), 1);
    // He is about to come to another node: nobody hears of it, unless he does not.
    assert_eq!(stage.cache.lives_of(&[key(ben)]).await.unwrap()[0].len(), 1);
    let gone = |(_, live): &(Vec<Topic>, Live)| match live {
        Live::Presence { users, .. } => users.iter().any(|came| came.last_seen.is_some()),
        _ => false,
    };
    assert!(!stage.hinted.lock().iter().any(gone));
}

#[tokio::test]
async fn no_1_a_node_that_stops_notes_nobody_as_there_for_longer_than_they_were() {
    let grace = Duration::from_secs(20);
    let stage =
        Stage::showing(SocketConfig::default(), PresenceConfig { grace, ..PresenceConfig::default() }).await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let _silent = stage.ready(ana).await;
    let mut going = stage.ready(ben).await;
    let ready = Millis::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let closes = Millis::now();
    going.socket.close(None).await.unwrap();
    stage.until(|| async { stage.sockets.load(Ordering::SeqCst) == 1 }).await;
    let closed = Millis::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.shutdown.cancel();
    stage.tasks.close();
    tokio::time::timeout(LONG, stage.tasks.wait()).await.unwrap();
    let seen = noted(&stage, ana).await;
    assert!(seen <= ready, "{seen}, silent since {ready}");
    let seen = noted(&stage, ben).await;
    assert!(closes <= seen && seen <= closed, "{seen}, closed between {closes} and {closed}");
}

#[tokio::test]
async fn me_8_who_writes_is_told_to_the_other_members_and_to_nobody_else() {
    let stage = stage(100, 3).await;
    let [ana, ben, eve] = [stage.person("ana").await, stage.person("ben").await, stage.person("eve").await];
    let chat = stage.group(&[ana, ben]).await;
    let alone = stage.group(&[eve]).await;
    let (mut writing, mut beside) = (stage.ready(ana).await, stage.ready(ana).await);
    let (mut reading, mut stranger) = (stage.ready(ben).await, stage.ready(eve).await);
    let typing = |chat: ChatId, on: bool| json!({"type": "typing", "chat": chat, "on": on});
    let told = |on: bool| json!({"type": "typing", "chat": chat, "user": ana.user, "on": on});
    writing.say(typing(chat, true)).await;
    assert_eq!(reading.hear().await, told(true));
    writing.say(typing(chat, false)).await;
    assert_eq!(reading.hear().await, told(false));
    // Not a member, no chat, and not at all.
    stranger.say(typing(chat, true)).await;
    stranger.say(typing(ChatId::random(), true)).await;
    let wrong = stranger.ask(json!({"type": "typing", "chat": chat})).await;
    assert_eq!((&wrong["code"], &wrong["errors"][0]["param"]), (&json!("invalid"), &json!("on")));
    assert_eq!(stranger.ask(json!({"type": "ping", "ref": 1})).await["type"], "pong");
    // From another node, and held up on the way.
    let late = |age: i64| Live::Typing {
        app: APP,
        chat,
        user: ana.user,
        on: true,
        at: Millis(Millis::now().0 - age),
    };
    stage.deliver.live(late(5_000));
    // No more than a session may say.
    for _ in 0..100 {
        writing.say(typing(chat, true)).await;
    }
    assert_eq!(writing.ask(json!({"type": "ping", "ref": 1})).await["type"], "pong");
    stage.deliver.live(live(change(chat, 2, ana.user, sent(1, "done"))));
    let mut heard = 0;
    while reading.hear().await == told(true) {
        heard += 1;
    }
    assert!((1..20).contains(&heard), "{heard} of 100");
    assert_eq!(beside.hear().await["type"], "new_message", "her other device knows");
    stage.deliver.live(live(change(alone, 2, eve.user, sent(1, "alone"))));
    assert_eq!(stranger.hear().await["type"], "new_message");
    // In a large group it is not told.
    for (seq, user) in (3..).zip([eve.user, UserId::random()]) {
        let joined = change(chat, seq, ana.user, What::Joined { user, role: Role::Member });
        stage.deliver.live(live(joined));
        assert_eq!(reading.hear().await["type"], "member_joined");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    writing.say(typing(chat, true)).await;
    assert_eq!(writing.hear().await["type"], "new_message");
    stage.deliver.live(live(change(chat, 5, ana.user, sent(2, "end"))));
    assert_eq!(reading.hear().await["message"]["body"], "end");
}

async fn block(stage: &Stage, user: Person, peer: Person, on: bool) {
    let related =
        stage.store.relate(key(user), Relation::Block, peer.user, on, Millis::now(), 10).await.unwrap();
    assert_eq!(related, Related::Changed);
}

/// Two sessions that share a chat, of which the first has heard of the other, and the other of nobody.
async fn one_after_the_other(stage: &Stage, one: Person, other: Person) -> (Client, Client) {
    let mut first = stage.ready(one).await;
    let told = |(_, live): &(Vec<Topic>, Live)| match live {
        Live::Presence { users, .. } => users.iter().any(|came| came.user == one.user),
        _ => false,
    };
    stage.until(|| async { stage.hinted.lock().iter().any(told) }).await;
    // Told here in the next turn.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = stage.ready(other).await;
    assert_eq!(heard(&mut first).await, online(other));
    (first, second)
}

/// The direct chat of two.
async fn direct(stage: &Stage, one: Person, other: Person) -> ChatId {
    let chat = ChatId::direct(APP, one.user, other.user);
    let what = What::Created {
        kind: ChatKind::Direct,
        name: None,
        description: None,
        members: vec![(one.user, Role::Member), (other.user, Role::Member)],
        request: None,
    };
    stage.write(vec![change(chat, 1, one.user, what)]).await;
    chat
}

#[tokio::test]
async fn id_9_who_is_blocked_hears_nothing_of_the_blockers_coming_and_going_and_the_others_do() {
    let stage = stage(100, 100).await;
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    let chat = direct(&stage, ana, ben).await;
    let group = stage.group(&[ana, ben, eve]).await;
    block(&stage, ben, ana, true).await;
    let (mut watching, mut other) = one_after_the_other(&stage, ana, eve).await;
    let client = stage.ready(ben).await;
    assert_eq!(heard(&mut other).await, online(ben));
    drop(client);
    last_seen(&heard(&mut other).await, ben);
    nothing_more(&stage, &mut watching, chat, 2, ben.user).await;
    // Of a node that tells it.
    let hidden = Came { hidden_from: vec![ana.user], ..came(ben, None, vec![chat, group]) };
    stage.deliver.live(Live::Presence { app: APP, at: Millis::now(), users: vec![hidden] });
    assert_eq!(heard(&mut other).await, online(ben));
    nothing_more(&stage, &mut watching, chat, 3, ben.user).await;

    // He hears of her; and without the block she of him.
    block(&stage, ben, ana, false).await;
    let mut blocker = stage.ready(ben).await;
    assert_eq!(heard(&mut watching).await, online(ben));
    drop(watching);
    last_seen(&heard(&mut blocker).await, ana);
}

#[tokio::test]
async fn id_9_what_one_alone_is_told_of_another_nobody_else_hears_nor_who_shares_nothing() {
    let stage = stage(100, 100).await;
    let (ana, ben, eve) = (stage.person("ana").await, stage.person("ben").await, stage.person("eve").await);
    let shared = stage.group(&[ana, ben, eve]).await;
    let (mut watching, mut other) = one_after_the_other(&stage, ana, eve).await;
    let tell = |chats: Vec<ChatId>, last_seen: Option<i64>| {
        let users = vec![Came { only: Some(ana.user), ..came(ben, last_seen.map(Millis), chats) }];
        stage.deliver.live(Live::Presence { app: APP, at: Millis::now(), users });
    };
    tell(vec![ChatId::random()], Some(1));
    tell(vec![shared], Some(7));
    assert_eq!(last_seen(&heard(&mut watching).await, ben), Millis(7));
    tell(vec![shared], None);
    assert_eq!(heard(&mut watching).await, online(ben));
    nothing_more(&stage, &mut other, shared, 2, ana.user).await;
}

#[tokio::test]
async fn id_9_nobody_hears_that_somebody_writes_in_a_direct_chat_with_a_block() {
    let stage = stage(100, 100).await;
    let (ana, ben) = (stage.person("ana").await, stage.person("ben").await);
    let chat = direct(&stage, ana, ben).await;
    let group = stage.group(&[ana, ben]).await;
    let (mut one, mut other) = one_after_the_other(&stage, ana, ben).await;
    let typing = |chat: ChatId| json!({"type": "typing", "chat": chat, "on": true});
    let told =
        |chat: ChatId, by: Person| json!({"type": "typing", "chat": chat, "user": by.user, "on": true});
    one.say(typing(chat)).await;
    assert_eq!(other.hear_any().await, told(chat, ana));
    block(&stage, ben, ana, true).await;
    tokio::time::sleep(STALE).await;
    // What comes last was said last; in the group it is nobody's secret.
    let in_the_group_only = async |from: &mut Client, to: &mut Client, by: Person| {
        from.say(typing(chat)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        from.say(typing(group)).await;
        assert_eq!(to.hear_any().await, told(group, by));
    };
    in_the_group_only(&mut one, &mut other, ana).await;
    in_the_group_only(&mut other, &mut one, ben).await;
    block(&stage, ben, ana, false).await;
    tokio::time::sleep(STALE).await;
    other.say(typing(chat)).await;
    assert_eq!(one.hear_any().await, told(chat, ben));
}
