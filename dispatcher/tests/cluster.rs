//! Nodes come, go, fall silent and talk to each other, over real links.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    ids::{Incarnation, Partition},
    link::{Event, LinkSettings, Peer, Role},
    time::Millis,
    wire::peer::{DispatcherToNode, NodeToDispatcher, Placement, TOPICS_PER_NODE},
};
use dispatcher::DispatcherConfig;
use support::{FakeNode, PATIENCE, Rig, chat, config, counts, node_id, until, user};
use tokio::time::timeout;

const SOON: Millis = Millis(i64::MAX);

/// A partition of this node's.
fn owned_by(placement: &Placement, name: &str) -> Partition {
    let at = placement.owners.iter().position(|owner| *owner == Some(node_id(name))).expect("owns something");
    Partition::try_from(at).unwrap()
}

/// Three nodes that know the same placement.
async fn three(rig: &Rig) -> [FakeNode; 3] {
    let mut nodes = [
        FakeNode::joined(rig, "a").await,
        FakeNode::joined(rig, "b").await,
        FakeNode::joined(rig, "c").await,
    ];
    for node in &mut nodes {
        node.placed(|placement| counts(placement).len() == 3).await;
    }
    nodes
}

#[tokio::test]
async fn nodes_that_register_are_told_who_owns_what_and_so_is_everybody_at_each_change() {
    let rig = Rig::start(2).await;
    let mut a = FakeNode::joined(&rig, "a").await;
    assert_eq!(rig.cluster().await["settled"], false, "one of two is there: nothing is placed yet");
    let mut b = FakeNode::joined(&rig, "b").await;
    let first = a.placed(|_| true).await;
    assert_eq!(counts(&first).values().sum::<usize>(), 16);
    assert!(counts(&first).values().all(|count| *count <= 10), "{first:?}");
    assert_eq!(b.placed(|_| true).await, first);

    let mut c = FakeNode::joined(&rig, "c").await;
    let between = a.placed(|placement| placement.epoch > first.epoch).await;
    b.placed(|placement| placement.epoch >= between.epoch).await;
    let second = a.settled(|placement| placement.epoch > between.epoch).await;
    assert!(counts(&second).values().all(|count| *count <= 7), "{second:?}");
    let moved = |to: &Placement| first.owners.iter().zip(&to.owners).filter(|(a, b)| a != b).count();
    assert_eq!(moved(&between), moved(&second), "what moves is nobody's first");
    assert_eq!(counts(&between).values().sum::<usize>(), 16 - moved(&second));
    assert_eq!(c.settled(|_| true).await, second);

    c.say(&NodeToDispatcher::Leave);
    let third = b.placed(|placement| placement.epoch > second.epoch).await;
    assert!(!counts(&third).contains_key("c"));
    let moved = second.owners.iter().zip(&third.owners).filter(|(before, after)| before != after).count();
    assert_eq!(moved, counts(&second)["c"], "only what was c's moves");
    rig.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_hand_over_is_waited_for_as_long_as_a_lease_lasts() {
    let rig = Rig::start(1).await;
    let mut a = FakeNode::joined(&rig, "a").await;
    let alone = a.placed(|placement| counts(placement).len() == 1).await;
    a.hands_over = false;
    let mut b = FakeNode::joined(&rig, "b").await;
    let joined = Instant::now();
    let between = b.placed(|_| true).await;
    assert!(between.owners.contains(&None), "what b is to have is nobody's while a may serve it");
    let both = b.settled(|_| true).await;
    assert!(joined.elapsed() >= config(1).lease.mul_f64(0.9), "{:?}", joined.elapsed());
    assert!(counts(&both)["b"] > 0 && both.epoch > alone.epoch);
    rig.stop().await;
}

#[tokio::test]
async fn what_nodes_held_before_a_dispatcher_began_stays_theirs_and_moves_in_two_steps() {
    let rig = Rig::start(2).await;
    let (mut a, mut b) = (FakeNode::linked(&rig, "a").await, FakeNode::linked(&rig, "b").await);
    // All of it was a's, and b believes to have one as well; the last is no partition.
    (a.holds, b.holds) = ((0..16).collect(), vec![3, 16]);
    a.register().await;
    b.register().await;
    let between = b.placed(|_| true).await;
    assert_eq!(between.owners[3], None, "two may serve it");
    assert_eq!(counts(&between).get("b"), None, "everything else was a's");
    a.placed(|placement| placement.epoch >= between.epoch).await;
    let both = b.settled(|_| true).await;
    assert!(counts(&both)["a"] + counts(&both)["b"] == 16 && counts(&both)["a"] <= 10, "{both:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_node_with_too_many_topics_is_told_so_and_keeps_what_it_has() {
    let rig = Rig::start(2).await;
    let (mut a, b) = (FakeNode::joined(&rig, "a").await, FakeNode::joined(&rig, "b").await);
    let topics: Vec<_> = (0..=TOPICS_PER_NODE as u128).map(chat).collect();
    for (no, chunk) in (1..).zip(topics[..TOPICS_PER_NODE].chunks(20_000)) {
        a.interest(no, chunk, &[]).await;
    }
    a.say(&NodeToDispatcher::Interest { no: 99, add: topics[TOPICS_PER_NODE..].to_vec(), remove: vec![] });
    assert_eq!(a.next().await, DispatcherToNode::InterestRefused { no: 99 });
    b.publish(&topics[TOPICS_PER_NODE..], b"refused");
    b.publish(&topics[..1], b"registered");
    assert_eq!(a.hear("Publish", publish).await, "registered");
    rig.stop().await;
}

#[tokio::test]
async fn a_silent_node_loses_its_lease_and_the_others_are_told_that_frames_are_lost() {
    let rig = Rig::start(2).await;
    let (mut a, mut b) = (FakeNode::joined(&rig, "a").await, FakeNode::joined(&rig, "b").await);
    a.placed(|placement| counts(placement).len() == 2).await;
    b.silence();
    let alone = a.placed(|placement| counts(placement).len() == 1).await;
    assert_eq!(counts(&alone)["a"], 16);
    a.hear("Gap", |frame| (frame == DispatcherToNode::Gap).then_some(())).await;

    // Its link has been up all the time.
    b.beat(3);
    b.hear("Expired", |frame| (frame == DispatcherToNode::Expired).then_some(())).await;
    b.register().await;
    a.placed(|placement| placement.epoch > alone.epoch).await;
    b.settled(|placement| placement.epoch > alone.epoch && counts(placement).len() == 2).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_new_life_of_a_node_takes_the_place_of_the_old_one() {
    let rig = Rig::start(2).await;
    let (mut a, mut old) = (FakeNode::joined(&rig, "a").await, FakeNode::joined(&rig, "b").await);
    let before = a.placed(|placement| counts(placement).len() == 2).await;
    old.interest(1, &[chat(1)], &[]).await;

    let mut new = FakeNode::joined(&rig, "b").await;
    assert_eq!(new.placed(|_| true).await, before, "nothing moves");
    a.hear("Gap", |frame| (frame == DispatcherToNode::Gap).then_some(())).await;
    old.hear("Expired", |frame| (frame == DispatcherToNode::Expired).then_some(())).await;

    // The old life's interest has gone with it.
    new.interest(1, &[chat(2)], &[]).await;
    a.publish(&[chat(1)], b"for nobody");
    a.publish(&[chat(2)], b"for the new one");
    let body = new.hear("Publish", publish).await;
    assert_eq!(body, "for the new one");
    rig.stop().await;
}

fn publish(frame: DispatcherToNode) -> Option<Bytes> {
    match frame {
        DispatcherToNode::Publish { body, .. } => Some(body),
        _ => None,
    }
}

#[tokio::test]
async fn a_request_reaches_the_owner_and_its_answer_the_asker() {
    let rig = Rig::start(3).await;
    let [mut a, mut b, _c] = three(&rig).await;
    let partition = owned_by(&a.placement, "b");
    let body = Bytes::from_static(b"what is asked");
    a.say(&NodeToDispatcher::Request { id: 7, partition, deadline: SOON, body: body.clone() });
    let asked = b.next().await;
    let expected = DispatcherToNode::Request {
        from: a.id.clone(),
        incarnation: a.incarnation,
        id: 7,
        partition,
        deadline: SOON,
        body,
    };
    assert_eq!(asked, expected);

    let answer = |to: &FakeNode, incarnation, body: &'static [u8]| NodeToDispatcher::Response {
        to: to.id.clone(),
        incarnation,
        id: 7,
        body: Bytes::from_static(body),
    };
    b.say(&answer(&a, Incarnation(1), b"for a life that has ended"));
    b.say(&answer(&a, a.incarnation, b"the answer"));
    let heard = a.next().await;
    assert_eq!(heard, DispatcherToNode::Response { id: 7, body: Bytes::from_static(b"the answer") });
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_no_owner_can_be_asked_comes_back() {
    let rig = Rig::start(2).await;
    let (mut a, b) = (FakeNode::joined(&rig, "a").await, FakeNode::joined(&rig, "b").await);
    let placement = a.placed(|placement| counts(placement).len() == 2).await;
    let ask = |id, partition| NodeToDispatcher::Request { id, partition, deadline: SOON, body: Bytes::new() };
    a.say(&ask(1, 999));
    assert_eq!(a.next().await, DispatcherToNode::Undeliverable { id: 1 });

    // A link that has gone before the lease did.
    let partition = owned_by(&placement, "b");
    b.die().await;
    let cluster =
        async || rig.cluster().await["nodes"].as_array().unwrap().iter().all(|node| node["linked"] == true);
    until("the break was noticed", async || !cluster().await).await;
    a.say(&ask(2, partition));
    let heard = a.hear("Undeliverable", |frame| match frame {
        DispatcherToNode::Undeliverable { id } => Some(id),
        _ => None,
    });
    assert_eq!(heard.await, 2);

    // And a node that never registered has no way back for an answer.
    let mut nobody = FakeNode::linked(&rig, "c").await;
    nobody.say(&ask(3, owned_by(&placement, "a")));
    assert_eq!(nobody.next().await, DispatcherToNode::Undeliverable { id: 3 });
    rig.stop().await;
}

#[tokio::test]
async fn a_live_event_reaches_those_who_are_interested_and_with_their_topics_only() {
    let rig = Rig::start(3).await;
    let [mut a, mut b, mut c] = three(&rig).await;
    a.interest(1, &[chat(1)], &[]).await;
    b.interest(1, &[chat(1), user(1)], &[]).await;
    c.interest(1, &[user(1), user(2)], &[]).await;

    a.publish(&[chat(1)], b"one");
    a.publish(&[user(2), user(1), user(3)], b"two");
    let event = |topics: &[_], body: &'static [u8]| DispatcherToNode::Publish {
        topics: topics.to_vec(),
        body: Bytes::from_static(body),
    };
    assert_eq!(b.next().await, event(&[chat(1)], b"one"));
    assert_eq!(b.next().await, event(&[user(1)], b"two"));
    assert_eq!(c.next().await, event(&[user(2), user(1)], b"two"), "and nothing before it");

    b.interest(2, &[], &[chat(1)]).await;
    c.publish(&[chat(1)], b"three");
    c.publish(&[user(1)], b"four");
    assert_eq!(b.next().await, event(&[user(1)], b"four"), "three is no longer for b");
    assert_eq!(a.next().await, event(&[chat(1)], b"three"));
    rig.stop().await;
}

#[tokio::test]
async fn interest_that_was_answered_misses_nothing_that_is_published_then() {
    let rig = Rig::start(2).await;
    let (a, mut b) = (FakeNode::joined(&rig, "a").await, FakeNode::joined(&rig, "b").await);
    for round in 1..=200_u64 {
        b.interest(round, &[chat(round.into())], &[]).await;
        a.publish(&[chat(round.into())], b"at once");
        assert_eq!(b.hear("Publish", publish).await, "at once");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_a_node_has_lost_is_told_to_the_others() {
    let rig = Rig::start(3).await;
    let [mut a, mut b, c] = three(&rig).await;
    c.say(&NodeToDispatcher::Lost);
    assert_eq!(a.next().await, DispatcherToNode::Gap);
    assert_eq!(b.next().await, DispatcherToNode::Gap);
    // A frame that makes no sense may have been anything.
    c.link.send(Bytes::from_static(b"\xc1")).unwrap();
    assert_eq!(a.next().await, DispatcherToNode::Gap);
    rig.stop().await;
}

#[tokio::test]
async fn only_nodes_are_taken_in() {
    let rig = Rig::start(1).await;
    for role in [Role::Dispatcher, Role::Writer] {
        let endpoint = rig.endpoint(role, "x", Incarnation::random());
        let (link, mut events) = endpoint.dial(rig.links, Peer::any(Role::Dispatcher));
        let register = NodeToDispatcher::Register {
            incarnation: Incarnation(1),
            socket_url: "ws://x:1".into(),
            http_url: "http://x:1".into(),
            capacity: 1,
            holds: Vec::new(),
            epoch: 0,
        };
        link.send(common::wire::codec::pack(&register)).unwrap();
        let turned_away = async {
            loop {
                match events.recv().await {
                    Some(Event::Frame(frame)) => panic!("{role} was answered: {frame:?}"),
                    Some(Event::Up { .. }) => {}
                    Some(Event::Down | Event::Refused(_) | Event::Closed | Event::Gap { .. }) | None => break,
                }
            }
        };
        timeout(PATIENCE, turned_away).await.expect("is turned away");
    }
    assert_eq!(rig.cluster().await["nodes"], serde_json::json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn a_node_with_an_address_that_is_none_is_turned_away() {
    let rig = Rig::start(1).await;
    let mut node = FakeNode::linked(&rig, "a").await;
    node.say(&NodeToDispatcher::Register {
        incarnation: node.incarnation,
        socket_url: "javascript:alert(1)".into(),
        http_url: "http://127.0.0.1:1".into(),
        capacity: 1,
        holds: Vec::new(),
        epoch: 0,
    });
    node.dropped().await;
    let mut good = FakeNode::joined(&rig, "b").await;
    good.placed(|placement| counts(placement).len() == 1).await;
    let cluster = rig.cluster().await;
    let names: Vec<_> =
        cluster["nodes"].as_array().unwrap().iter().map(|node| node["node"].clone()).collect();
    assert_eq!(names, ["b"]);
    rig.stop().await;
}

#[tokio::test]
async fn the_first_placement_is_made_after_a_while_when_the_number_of_nodes_is_not_known() {
    let quick = Duration::from_millis(500);
    let rig = Rig::with(DispatcherConfig { settle: quick, lease: quick, ..config(0) }).await;
    let (mut a, mut b) = (FakeNode::joined(&rig, "a").await, FakeNode::joined(&rig, "b").await);
    let placement = a.placed(|_| true).await;
    assert_eq!(b.placed(|_| true).await.owners.len(), placement.owners.len());
    a.placed(|placement| counts(placement).len() == 2).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_listen_costs_the_others_nothing_and_learns_of_its_gap() {
    /// Two hundred of these fill whatever lies between a sender and a reader that sleeps.
    static LARGE: [u8; 100_000] = [7; 100_000];

    // Fifty of them: one that listens acknowledges them long before they are on their way.
    let settings = LinkSettings { outbox_bytes: 5_000_000, ..LinkSettings::default() };
    let rig = Rig::build(config(3), settings, false).await;
    let [mut a, mut b, mut c] = three(&rig).await;
    b.interest(1, &[chat(1)], &[]).await;
    c.interest(1, &[chat(1)], &[]).await;
    for _ in 0..300 {
        a.publish(&[chat(1)], &LARGE);
        assert_eq!(c.hear("Publish", publish).await.len(), LARGE.len(), "while b reads nothing");
    }
    // Its door is full for requests too, which come back.
    let partition = owned_by(&a.placement, "b");
    a.say(&NodeToDispatcher::Request { id: 1, partition, deadline: SOON, body: Bytes::from_static(&LARGE) });
    assert_eq!(a.next().await, DispatcherToNode::Undeliverable { id: 1 });
    b.gap().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_placement_is_above_all_that_nodes_have_heard_of_a_dispatcher_whose_clock_was_ahead() {
    let rig = Rig::start(2).await;
    let ahead = u64::try_from(Millis::now().0).unwrap() + 3_600_000;
    let (mut a, mut b) = (FakeNode::linked(&rig, "a").await, FakeNode::linked(&rig, "b").await);
    a.epoch = ahead;
    a.register().await;
    b.register().await;
    assert!(a.settled(|_| true).await.epoch > ahead);
    // One that comes later has heard more, of yet another one; or takes its link up again.
    for (late, epoch) in [("c", 2 * ahead), ("c", 3 * ahead)] {
        let mut late = FakeNode::linked(&rig, late).await;
        late.epoch = epoch;
        late.register().await;
        late.placed(|placement| placement.epoch > epoch).await;
        a.placed(|placement| placement.epoch > epoch).await;
        b.placed(|placement| placement.epoch > epoch).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_node_that_is_about_to_leave_gives_its_partitions_away_and_still_hears_everything() {
    let rig = Rig::start(3).await;
    let [mut a, b, mut c] = three(&rig).await;
    c.interest(1, &[chat(1)], &[]).await;
    c.say(&NodeToDispatcher::Leaving);
    let without =
        |placement: &Placement| counts(placement).len() == 2 && !counts(placement).contains_key("c");
    let (mine, theirs) = tokio::join!(c.settled(without), a.settled(without));
    assert_eq!(mine, theirs);
    let nodes = rig.cluster().await["nodes"].clone();
    let leaving: Vec<_> = nodes.as_array().unwrap().iter().map(|node| node["leaving"] == true).collect();
    assert_eq!(leaving, [false, false, true]);
    for _ in 0..30 {
        let (_, token) = rig.token();
        let location = support::json(rig.get("/chat/location", Some(&token)).await).await;
        assert_ne!(location["node"], "c");
    }
    b.publish(&[chat(1)], b"late");
    c.hear("Publish", publish).await;
    // Its link breaks, and it says the same again.
    c.register().await;
    c.say(&NodeToDispatcher::Leaving);
    c.say(&NodeToDispatcher::Leave);
    until("gone", async || rig.cluster().await["nodes"].as_array().unwrap().len() == 2).await;
    assert_eq!(rig.cluster().await["epoch"], theirs.epoch + 1, "nothing was moved again");
    // Whoever is the last one leaves nobody.
    for node in [&a, &b] {
        node.say(&NodeToDispatcher::Leaving);
    }
    until("nobody to go to", async || rig.get("/readyz", None).await.status() == 503).await;
    rig.stop().await;
}
