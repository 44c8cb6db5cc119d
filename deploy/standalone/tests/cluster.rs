//! People on different nodes of one cluster: everybody sees everything, in one order, once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod stage;

use std::{collections::HashSet, time::Duration};

use common::ids::ClientId;
use futures_util::StreamExt;
use loadtest::{
    client::{Outcome, Post},
    progress::Progress,
    workload::mixed::{Mixed, MixedOptions},
};
use stage::{MEND, Stage};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn id_5_me_3_people_on_different_nodes_chat_on_all_their_devices() {
    let stage = Stage::new(3).await;
    let crowd = stage.crowd(9, 2).await;
    let mut nodes = HashSet::new();
    for person in crowd.people() {
        nodes.insert(person.devices[0].session().location().await.unwrap().node);
    }
    assert!(nodes.len() > 1, "nine people are on more than one of three nodes");
    let chat = crowd.group("everybody", 0, &[1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
    let direct = crowd.direct(3, 4).await.unwrap();
    for person in crowd.people() {
        for device in &person.devices {
            assert!(matches!(device.send(chat, "hello").await, Outcome::Acked { .. }));
        }
    }
    assert!(matches!(
        crowd.device(4).unwrap().send(direct, "just us").await,
        Outcome::Acked { number: 1, .. }
    ));
    assert_eq!(crowd.settled(MEND).await.unwrap(), Vec::<String>::new());
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn me_1_twenty_senders_of_five_hundred_messages_each_get_the_numbers_up_to_ten_thousand() {
    let stage = Stage::new(3).await;
    let crowd = stage.crowd(20, 1).await;
    let chat = crowd.group("busy", 0, &(1..20).collect::<Vec<_>>()).await.unwrap();
    let senders = crowd.people().iter().map(|person| {
        let device = &person.devices[0];
        async move {
            for n in 0..500 {
                device.post(Post::new(chat, format!("{} says {n}", device.user()))).await;
            }
        }
    });
    futures_util::future::join_all(senders).await;
    assert_eq!(crowd.drained(Duration::from_secs(120)).await, 0);
    for device in crowd.devices() {
        assert!(device.seen(chat, |head| head.number == 10_000, MEND).await, "{:?}", device.head(chat));
    }
    let history = crowd.device(7).unwrap().session().whole_history(chat).await.unwrap();
    let numbers: Vec<_> = history.messages.iter().map(|message| message.number).collect();
    assert_eq!(numbers, (1..=10_000).collect::<Vec<_>>());
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ch_2_fifty_requests_for_one_direct_chat_open_one() {
    let stage = Stage::new(3).await;
    let crowd = stage.crowd(2, 1).await;
    let asks = (0..50).map(|n| crowd.direct(n % 2, 1 - n % 2));
    let chats: HashSet<_> = futures_util::future::try_join_all(asks).await.unwrap().into_iter().collect();
    assert_eq!(chats.len(), 1);
    let listed = crowd.device(0).unwrap().session().chats(1).await.unwrap();
    assert_eq!(listed.results.len(), 1);
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn me_2_a_repeat_through_another_node_is_the_same_message() {
    let mut stage = Stage::new(2).await;
    let crowd = stage.crowd(2, 1).await;
    let chat = crowd.direct(0, 1).await.unwrap();
    let device = crowd.device(0).unwrap();
    let again =
        || Post { client_id: Some(ClientId::new("once").unwrap()), retry: true, ..Post::new(chat, "once") };
    let first = device.start_send(again()).await.await.unwrap();
    let node = device.session().location().await.unwrap().node;
    // Its node dies, so the same device comes back to the other one.
    stage.cluster.kill_node(node.as_str());
    let second = device.start_send(again()).await.await.unwrap();
    match (&first, &second) {
        (Outcome::Acked { id, number, .. }, Outcome::Acked { id: same, number: place, repeat: true, .. }) => {
            assert_eq!((id, number), (same, place));
        }
        other => panic!("{other:?}"),
    }
    assert_ne!(device.session().location().await.unwrap().node, node);
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ch_7_a_member_removed_while_writing_adds_nothing_afterwards() {
    let stage = Stage::new(3).await;
    let crowd = stage.crowd(4, 1).await;
    let chat = crowd.group("a group", 0, &[1, 2, 3]).await.unwrap();
    let writing = crowd.clone();
    let writer = tokio::spawn(async move {
        let device = writing.device(1).unwrap();
        let mut accepted = 0;
        loop {
            match device.send(chat, "still here").await {
                Outcome::Acked { .. } => accepted += 1,
                refused => return (accepted, refused),
            }
        }
    });
    assert!(crowd.device(2).unwrap().seen(chat, |head| head.number >= 20, MEND).await);
    let removed = crowd.user(1).unwrap();
    crowd.device(0).unwrap().remove_member(chat, removed).await.unwrap();
    let (accepted, refused) = writer.await.unwrap();
    assert!(accepted >= 20);
    assert!(matches!(refused, Outcome::Refused { .. }), "{refused:?}");
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once_leaves_nothing_to_complain_of() {
    let stage = Stage::new(3).await;
    let crowd = stage.crowd(8, 2).await;
    let options = MixedOptions { seed: 7, ..Default::default() };
    let mixed = Mixed::start(&crowd, &options, &Progress::quiet()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    mixed.stop().await;
    stage.judge(crowd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lo_5_op_4_a_node_that_is_asked_to_stop_tells_its_clients_when_others_have_its_place() {
    let mut stage = Stage::new(2).await;
    let crowd = stage.crowd(2, 1).await;
    let chat = crowd.direct(0, 1).await.unwrap();
    let location = crowd.device(0).unwrap().session().location().await.unwrap();
    let (mut socket, _) = tokio_tungstenite::connect_async(&location.url).await.unwrap();
    let view = format!("{}/cluster", stage.cluster.url());
    let told = async {
        let code = loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Close(close) => break u16::from(close.unwrap().code),
                _ => continue,
            }
        };
        assert_eq!(code, 4006);
        let body = reqwest::get(&view).await.unwrap().bytes().await.unwrap();
        let cluster: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let owned = |node: &serde_json::Value| node["partitions"].as_array().unwrap().len() as u64;
        for node in cluster["nodes"].as_array().unwrap() {
            let stops = node["node"] == location.node.as_str();
            assert_eq!(node["leaving"], stops);
            assert_eq!(owned(node), if stops { 0 } else { cluster["partitions"].as_u64().unwrap() });
        }
    };
    let (stopped, ()) = tokio::join!(stage.cluster.stop_node(location.node.as_str()), told);
    stopped.unwrap();
    assert!(matches!(crowd.device(0).unwrap().send(chat, "still here").await, Outcome::Acked { .. }));
    stage.judge(crowd).await;
}
