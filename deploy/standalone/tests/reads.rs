//! Read marks and unread counts across nodes and devices: never back, never past the head, exact when all is at rest.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use common::ids::{ChatId, Number, UserId};
use loadtest::{
    client::{Client, Outcome, Undone},
    workload::Crowd,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use stage::{MEND, Stage};

async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let waiting = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(MEND, waiting).await.unwrap_or_else(|_| panic!("it did not become so: {what}"));
}

/// What a user's list says: unread by chat, with the number of messages; checked against its total.
async fn unread(device: &Client) -> BTreeMap<ChatId, (Number, Number)> {
    let mut all = BTreeMap::new();
    let mut total = None;
    for page in 1.. {
        let page = device.chats(page).await.unwrap();
        total = total.or(Some(page.unread_count));
        if page.results.is_empty() {
            break;
        }
        all.extend(page.results.into_iter().map(|chat| (chat.id, (chat.messages_count, chat.unread_count))));
    }
    let sum = all.values().map(|(_, unread)| unread).sum::<Number>();
    assert_eq!(Some(sum), total, "the total is that of all pages");
    all
}

async fn say(device: &Client, chat: ChatId, times: usize) {
    for _ in 0..times {
        assert!(matches!(device.send(chat, "hello").await, Outcome::Acked { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pr_4_a_mark_reaches_every_other_session_of_the_chat_on_every_node_and_nobody_else() {
    let stage = Stage::new(3).await;
    let crowd = stage.crowd(7, 2).await;
    let chat = crowd.group("readers", 0, &[1, 2, 3, 4, 5]).await.unwrap();
    say(crowd.device(0).unwrap(), chat, 10).await;
    for device in crowd.people()[..6].iter().flat_map(|person| &person.devices) {
        assert!(device.seen(chat, |head| head.number >= 10, MEND).await);
    }
    for user in 1..6_usize {
        let devices = &crowd.people()[user].devices;
        // Up, down, past the end: from one device and from the other.
        assert_eq!(devices[0].read(chat, user as u64).await, Ok(user as u64));
        assert_eq!(devices[1].read(chat, user as u64 + 2).await, Ok(user as u64 + 2));
        assert_eq!(devices[0].read(chat, 1).await, Ok(user as u64 + 2));
    }
    assert_eq!(crowd.device(5).unwrap().read(chat, 1_000).await, Ok(10));
    for reader in 1..6_usize {
        let mark = if reader == 5 { 10 } else { reader as u64 + 2 };
        for (user, person) in crowd.people()[..6].iter().enumerate() {
            for (at, device) in person.devices.iter().enumerate() {
                // The one that did it was answered, and is not told.
                let did = user == reader && at == usize::from(reader != 5);
                let told = || async { device.read_mark(chat, crowd.user(reader).unwrap()) == Some(mark) };
                if !did {
                    until("everybody is told of a mark", told).await;
                }
            }
        }
        assert_eq!(unread(&crowd.people()[reader].devices[1]).await[&chat], (10, 10 - mark));
    }
    // A stranger is neither believed nor told.
    let stranger = &crowd.people()[6].devices[0];
    assert!(matches!(stranger.read(chat, 3).await, Err(Undone::Refused(code)) if code.word() == "not_found"));
    assert!((0..6).all(|user| stranger.read_mark(chat, crowd.user(user).unwrap()).is_none()));
    assert!(unread(stranger).await.is_empty());
    // Who comes to an old chat begins at zero.
    crowd.device(0).unwrap().add_member(chat, crowd.user(6).unwrap()).await.unwrap();
    assert_eq!(unread(stranger).await[&chat], (10, 0));
    say(crowd.device(1).unwrap(), chat, 1).await;
    until("the new message is unread", || async { unread(stranger).await[&chat] == (11, 1) }).await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pr_4_marks_that_race_on_two_devices_never_go_back_though_nodes_die() {
    let mut stage = Stage::new(3).await;
    let crowd = stage.crowd(3, 2).await;
    let chat = crowd.group("racers", 0, &[1, 2]).await.unwrap();
    say(crowd.device(0).unwrap(), chat, 60).await;
    let racing = |user: usize, device: usize| {
        let crowd = Arc::clone(&crowd);
        tokio::spawn(async move {
            let device = &crowd.people()[user].devices[device];
            let mut highest = 0;
            for number in 1..=60 {
                // Unanswered when its node has just died: the mark may have moved.
                if let Ok(at) = device.read(chat, number).await {
                    assert!(
                        at >= number && at >= highest && at <= 60,
                        "{at} after {highest}, asked {number}"
                    );
                    highest = at;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            highest
        })
    };
    let races: Vec<_> = [(1, 0), (1, 1), (2, 0), (2, 1)].map(|(user, device)| racing(user, device)).into();
    for node in ["node-1", "node-2"] {
        tokio::time::sleep(Duration::from_millis(700)).await;
        stage.cluster.kill_node(node);
        tokio::time::sleep(Duration::from_millis(700)).await;
        stage.cluster.restart_node(node).unwrap();
    }
    for race in races {
        race.await.unwrap();
    }
    for user in 1..3 {
        for device in &crowd.people()[user].devices {
            until("it is read to the end", || async { device.read(chat, 60).await == Ok(60) }).await;
            assert_eq!(unread(device).await[&chat], (60, 0));
        }
    }
    stage.judge(crowd).await;
}

/// How far each user was told to have read.
type Marks = HashMap<(ChatId, UserId), Number>;

/// Writes and reads at random for a while; the marks that were acknowledged.
async fn live(crowd: &Crowd, user: usize, chats: &[ChatId], seed: u64) -> Marks {
    let mut random = StdRng::seed_from_u64(seed);
    let mut marks = Marks::new();
    for _ in 0..120 {
        let device = &crowd.people()[user].devices[random.random_range(0..2)];
        let chat = chats[random.random_range(0..chats.len())];
        if random.random_bool(0.5) {
            device.post(loadtest::client::Post::new(chat, format!("{user} says something"))).await;
        } else {
            let head = device.head(chat).unwrap_or_default().number;
            let number = if random.random_bool(0.3) { random.random_range(0..=head + 3) } else { head };
            if let Ok(at) = device.read(chat, number.max(1)).await {
                let mark = marks.entry((chat, device.user())).or_default();
                assert!(at >= *mark, "back from {mark} to {at}");
                *mark = at;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
    }
    marks
}

#[tokio::test(flavor = "multi_thread")]
async fn pr_5_at_rest_unread_is_what_histories_and_marks_say_for_every_member() {
    let mut stage = Stage::new(3).await;
    let crowd = stage.crowd(6, 2).await;
    let mut of_user: HashMap<usize, Vec<ChatId>> = HashMap::new();
    for members in [vec![0, 1, 2, 3, 4, 5], vec![1, 2, 3], vec![4, 5, 0]] {
        let chat = crowd.group("a group", members[0], &members[1..]).await.unwrap();
        members.iter().for_each(|user| of_user.entry(*user).or_default().push(chat));
    }
    let direct = crowd.direct(0, 3).await.unwrap();
    [0, 3].iter().for_each(|user| of_user.entry(*user).or_default().push(direct));
    let living: Vec<_> = (0..6)
        .map(|user| {
            let (crowd, chats) = (Arc::clone(&crowd), of_user[&user].clone());
            tokio::spawn(async move { live(&crowd, user, &chats, 40 + user as u64).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stage.cluster.kill_node("node-2");
    tokio::time::sleep(Duration::from_millis(800)).await;
    stage.cluster.restart_node("node-2").unwrap();
    let mut marks = Marks::new();
    for user in living {
        marks.extend(user.await.unwrap());
    }
    assert_eq!(crowd.drained(MEND).await, 0);

    // A read that was not answered may have counted: one more that is settles it.
    for (user, chats) in &of_user {
        let device = &crowd.people()[*user].devices[0];
        for chat in chats {
            until("a mark is acknowledged", || async { device.read(*chat, 1).await.is_ok() }).await;
            marks.insert((*chat, device.user()), device.read(*chat, 1).await.unwrap());
        }
    }
    for (user, chats) in &of_user {
        let device = &crowd.people()[*user].devices[1];
        for chat in chats {
            let history = device.session().whole_history(*chat).await.unwrap();
            let head = history.messages.iter().map(|message| message.number).max().unwrap_or(0);
            let own = history.messages.iter().filter(|message| message.from == device.user());
            let own = own.map(|message| message.number).max().unwrap_or(0);
            let mark = marks[&(*chat, device.user())].max(own);
            assert!(mark <= head, "a mark past the head: {mark} of {head}");
            let wanted = (head, head - mark);
            until("what is unread is exact", || async { unread(device).await.get(chat) == Some(&wanted) })
                .await;
        }
        assert_eq!(unread(device).await.len(), chats.len());
    }
    stage.judge(crowd).await;
}
