//! What a link promises about frames, on real UDP, through paths that fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod link_pair;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    ids::Incarnation,
    link::{
        Discarded, Endpoint, Event, Events, FrameNo, LinkSettings, Peer, Role, SendError, relay::FaultyPath,
    },
};
use link_pair::{
    Pair, SOON, accept, endpoint_at, eventually, frame, next, number, numbers, quick, until, until_down,
    until_up,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{sleep, timeout};

fn upto(count: u64) -> Vec<u64> {
    (1..=count).collect()
}

#[tokio::test]
async fn frames_arrive_in_order_both_ways_and_are_acknowledged() {
    let mut pair = Pair::new(quick());
    let ((there, mut at_node), (back, mut at_dispatcher)) = pair.link().await;
    for n in 1..=1_000 {
        assert_eq!(there.send(frame(n)), Ok(FrameNo(n)));
        back.send(frame(n)).unwrap();
    }
    assert_eq!(numbers(&mut at_dispatcher, 1_000).await, upto(1_000));
    assert_eq!(numbers(&mut at_node, 1_000).await, upto(1_000));
    assert!(there.drain(SOON).await && back.drain(SOON).await);
    assert_eq!((there.acked(), back.acked()), (1_000, 1_000));
    assert_eq!(there.stats().unacknowledged, 0);
}

#[tokio::test]
async fn what_was_queued_before_the_first_connection_arrives() {
    let mut pair = Pair::new(quick());
    let path = FaultyPath::to(pair.address()).await.unwrap();
    path.cut();
    let (link, mut events) = pair.node.dial(path.addr(), Peer::any(Role::Dispatcher));
    for n in 1..=10 {
        link.send(frame(n)).unwrap();
    }
    eventually("the first packets are dropped", || path.dropped() > 0).await;
    path.heal();
    let (_accepted, mut at_dispatcher) = accept(&mut pair.dispatcher).await;
    assert_eq!(numbers(&mut at_dispatcher, 10).await, upto(10));
    assert!(until_up(&mut events).await);
}

#[tokio::test]
async fn a_cut_path_that_heals_loses_nothing_and_doubles_nothing() {
    let mut pair = Pair::new(quick());
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((there, mut at_node), (back, mut at_dispatcher)) = pair.link_by(path.addr()).await;
    for n in 1..=100 {
        there.send(frame(n)).unwrap();
        back.send(frame(n)).unwrap();
    }
    assert_eq!(numbers(&mut at_dispatcher, 50).await, upto(50));
    path.cut();
    for n in 101..=200 {
        there.send(frame(n)).unwrap();
        back.send(frame(n)).unwrap();
    }
    eventually("both ends notice", || !there.is_up() && !back.is_up()).await;
    for n in 201..=300 {
        there.send(frame(n)).unwrap();
        back.send(frame(n)).unwrap();
    }
    path.heal();
    assert_eq!(numbers(&mut at_dispatcher, 250).await, (51..=300).collect::<Vec<_>>());
    assert_eq!(numbers(&mut at_node, 300).await, upto(300));
    assert!(there.drain(SOON).await && back.drain(SOON).await);
    assert!(there.stats().connections >= 2);
    assert!(
        timeout(Duration::from_millis(50), pair.dispatcher.accept()).await.is_err(),
        "the link was resumed"
    );
}

#[tokio::test]
async fn a_one_way_cut_loses_nothing_either() {
    for cut in [FaultyPath::cut_there, FaultyPath::cut_back] {
        let mut pair = Pair::new(quick());
        let path = FaultyPath::to(pair.address()).await.unwrap();
        let ((there, mut at_node), (back, mut at_dispatcher)) = pair.link_by(path.addr()).await;
        assert!(until_up(&mut at_node).await && until_up(&mut at_dispatcher).await);
        cut(&path);
        // Writes "succeed" all the while.
        for n in 1..=140 {
            there.send(frame(n)).unwrap();
            back.send(frame(n)).unwrap();
            sleep(Duration::from_millis(5)).await;
        }
        eventually("one end notices", || !there.is_up() || !back.is_up()).await;
        path.heal();
        assert_eq!(numbers(&mut at_dispatcher, 140).await, upto(140));
        assert_eq!(numbers(&mut at_node, 140).await, upto(140));
    }
}

#[tokio::test]
async fn a_path_that_forgets_makes_a_new_connection_of_the_same_link() {
    let mut pair = Pair::new(quick());
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((there, mut at_node), (back, mut at_dispatcher)) = pair.link_by(path.addr()).await;
    assert!(until_up(&mut at_node).await && until_up(&mut at_dispatcher).await);
    for round in 0..3u64 {
        path.forget();
        // The dispatcher, which hears nothing under the old address, may still hold the old connection when the new one comes.
        for n in 1..=20 {
            there.send(frame(round * 20 + n)).unwrap();
            back.send(frame(round * 20 + n)).unwrap();
        }
        until_down(&mut at_node).await;
        assert!(!until_up(&mut at_node).await, "it was resumed");
    }
    assert_eq!(numbers(&mut at_dispatcher, 60).await, upto(60));
    assert!(there.drain(SOON).await && back.drain(SOON).await);
    assert_eq!(back.acked(), 60);
}

#[tokio::test]
async fn a_break_while_the_reader_is_behind_loses_nothing_and_doubles_nothing() {
    let mut pair = Pair::new(LinkSettings { inbox_frames: 4, ..quick() });
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((there, mut at_node), (back, mut at_dispatcher)) = pair.link_by(path.addr()).await;
    assert!(until_up(&mut at_node).await);
    for n in 1..=100 {
        there.send(frame(n)).unwrap();
    }
    // The inbox is full and the connection's reader waits for room, with a frame in its hand, when a newer connection comes.
    for _ in 0..3 {
        eventually("the inbox is full", || back.stats().frames_received >= 4).await;
        path.forget();
        until_down(&mut at_node).await;
        assert!(!until_up(&mut at_node).await);
    }
    assert_eq!(numbers(&mut at_dispatcher, 100).await, upto(100));
    assert!(there.drain(SOON).await);
}

#[tokio::test]
async fn a_full_buffer_refuses_and_has_room_again_after_the_break() {
    let settings = LinkSettings { outbox_frames: 10, ..quick() };
    let mut pair = Pair::new(settings);
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((there, mut at_node), (_back, mut at_dispatcher)) = pair.link_by(path.addr()).await;
    assert!(until_up(&mut at_node).await);
    path.cut();
    until_down(&mut at_node).await;
    for n in 1..=10 {
        there.send(frame(n)).unwrap();
    }
    assert_eq!(there.send(frame(11)), Err(SendError::Full));
    assert_eq!(there.send_wait(frame(11), Duration::from_millis(20)).await, Err(SendError::Full));
    path.heal();
    assert_eq!(there.send_wait(frame(11), SOON).await, Ok(FrameNo(11)));
    assert_eq!(numbers(&mut at_dispatcher, 11).await, upto(11));
}

#[tokio::test]
async fn what_a_full_buffer_could_not_hold_is_a_gap_at_its_place() {
    let settings = LinkSettings { outbox_frames: 3, ..quick() };
    let mut pair = Pair::new(settings);
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((there, mut at_node), (_back, mut at_dispatcher)) = pair.link_by(path.addr()).await;
    assert!(until_up(&mut at_node).await && until_up(&mut at_dispatcher).await);
    path.cut();
    until_down(&mut at_node).await;
    for n in 1..=3 {
        assert_eq!(there.send_or_gap(frame(n)), Ok((FrameNo(n), true)));
    }
    for n in 4..=8 {
        assert_eq!(there.send_or_gap(frame(n)), Ok((FrameNo(n), false)));
    }
    path.heal();
    assert!(there.drain(SOON).await);
    assert_eq!(there.send_or_gap(frame(9)), Ok((FrameNo(9), true)));
    let mut seen = Vec::new();
    while seen.last() != Some(&"9".to_owned()) {
        match next(&mut at_dispatcher).await {
            Event::Frame(frame) => seen.push(number(&frame).to_string()),
            Event::Gap { missing } => seen.push(format!("{missing:?}")),
            _ => {}
        }
    }
    assert_eq!(seen, ["1", "2", "3", "4..=8", "9"]);
}

#[tokio::test]
async fn a_restarted_listener_gets_a_fresh_start_and_what_was_for_the_old_one_is_named() {
    let mut pair = Pair::new(quick());
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let greeting = vec![Bytes::from_static(b"register")];
    let (there, mut at_node) =
        pair.node.dial_with(path.addr(), Peer::any(Role::Dispatcher), greeting.clone()).unwrap();
    let (_back, mut at_dispatcher) = accept(&mut pair.dispatcher).await;
    there.send(frame(2)).unwrap();
    assert!(until_up(&mut at_dispatcher).await);
    assert_eq!(next(&mut at_dispatcher).await, Event::Frame(greeting[0].clone()));
    assert_eq!(numbers(&mut at_dispatcher, 1).await, [2]);
    assert!(there.drain(SOON).await);
    let before = there.peer().unwrap();

    path.cut();
    there.send(frame(3)).unwrap();
    until_down(&mut at_node).await;
    there.send(frame(4)).unwrap();
    let mut restarted = endpoint_at(link_pair::here(), &pair.authority, Role::Dispatcher, "d1", quick());
    path.retarget(restarted.local_addr().unwrap());
    path.heal();
    let (fresh, discarded) = until(&mut at_node, |event| match event {
        Event::Up { fresh, discarded, .. } => Some((fresh, discarded)),
        _ => None,
    })
    .await;
    assert!(fresh);
    let lost = Discarded { first: FrameNo(3), last: FrameNo(4), sent_upto: FrameNo(3) };
    assert_eq!(discarded, Some(lost));
    let after = there.peer().unwrap();
    assert_eq!((after.role, &after.name), (before.role, &before.name));
    assert_ne!(after.incarnation, before.incarnation);

    assert_eq!(there.send(frame(6)), Ok(FrameNo(6)));
    let (_back, mut at_restarted) = accept(&mut restarted).await;
    assert!(until_up(&mut at_restarted).await);
    assert_eq!(next(&mut at_restarted).await, Event::Frame(greeting[0].clone()));
    assert_eq!(numbers(&mut at_restarted, 1).await, [6]);
    assert!(there.drain(SOON).await);
}

#[tokio::test]
async fn a_restarted_dialer_is_another_link_and_the_old_one_ends() {
    let settings = LinkSettings { abandon: Duration::from_millis(500), ..quick() };
    let mut pair = Pair::new(settings.clone());
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((_there, at_node), (old, mut of_old)) = pair.link_by(path.addr()).await;
    assert!(until_up(&mut of_old).await);
    path.cut();
    let again = endpoint_at(link_pair::here(), &pair.authority, Role::Node, "n1", settings);
    let (_link, _events) = again.dial(pair.address(), Peer::any(Role::Dispatcher));
    let (new, mut of_new) = accept(&mut pair.dispatcher).await;
    assert!(until_up(&mut of_new).await);
    assert_ne!(old.peer(), new.peer());
    until(&mut of_old, |event| (event == Event::Closed).then_some(())).await;
    assert!(timeout(SOON, of_old.recv()).await.unwrap().is_none());
    assert_eq!(old.send(frame(1)), Err(SendError::Closed));
    assert!(new.is_up());
    drop(at_node);
}

#[tokio::test]
async fn a_link_that_the_listener_gave_up_starts_afresh_when_its_dialer_is_back() {
    let settings = LinkSettings { abandon: Duration::from_millis(300), ..quick() };
    let mut pair = Pair::new(settings);
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((_there, mut at_node), (_old, mut of_old)) = pair.link_by(path.addr()).await;
    assert!(until_up(&mut at_node).await);
    path.cut();
    until(&mut of_old, |event| (event == Event::Closed).then_some(())).await;
    path.heal();
    let (_new, mut of_new) = accept(&mut pair.dispatcher).await;
    assert!(until_up(&mut of_new).await);
    assert!(until_up(&mut at_node).await);
}

#[tokio::test]
async fn closing_one_end_ends_the_accepted_one_and_brings_a_dialed_one_back_fresh() {
    let mut pair = Pair::new(quick());
    let ((_there, mut at_node), (back, mut at_dispatcher)) = pair.link().await;
    assert!(until_up(&mut at_node).await && until_up(&mut at_dispatcher).await);
    back.close();
    until(&mut at_dispatcher, |event| (event == Event::Closed).then_some(())).await;
    let (_again, mut at_dispatcher) = accept(&mut pair.dispatcher).await;
    assert!(until_up(&mut at_node).await && until_up(&mut at_dispatcher).await);
    // Nobody reads any more: that closes it too.
    drop(at_node);
    until(&mut at_dispatcher, |event| (event == Event::Closed).then_some(())).await;
}

#[tokio::test]
async fn a_closed_endpoint_ends_its_links_and_tells_the_peers() {
    let mut pair = Pair::new(LinkSettings { idle: SOON, ..quick() });
    let ((there, mut at_node), (_back, mut at_dispatcher)) = pair.link().await;
    assert!(until_up(&mut at_node).await && until_up(&mut at_dispatcher).await);
    pair.node.close().await;
    until(&mut at_node, |event| (event == Event::Closed).then_some(())).await;
    assert!(there.is_closed());
    until(&mut at_dispatcher, |event| (event == Event::Closed).then_some(())).await;
}

#[tokio::test]
async fn a_slow_reader_stops_the_sender_and_nothing_is_dropped() {
    let settings = LinkSettings { inbox_frames: 16, inbox_bytes: 1 << 20, outbox_bytes: 1 << 20, ..quick() };
    let mut pair = Pair::new(settings);
    let ((there, mut at_node), (_back, mut at_dispatcher)) = pair.link().await;
    assert!(until_up(&mut at_node).await);
    let long = |n: u64| {
        let mut frame = vec![0; 100_000];
        frame[..8].copy_from_slice(&n.to_be_bytes());
        Bytes::from(frame)
    };
    // Inbox, windows and outbox fill up; then there is no room, and the link stays up all the same.
    let mut sent = 0;
    while there.send_wait(long(sent + 1), Duration::from_millis(300)).await.is_ok() {
        sent += 1;
        assert!(sent < 1_000, "nothing pushes back");
    }
    assert!(there.is_up());
    let rest = sent + 1..=sent + 100;
    let sender = async {
        for n in rest.clone() {
            there.send_wait(long(n), SOON).await.unwrap();
        }
    };
    let count = usize::try_from(sent).unwrap() + 100;
    let ((), got) = tokio::join!(sender, numbers(&mut at_dispatcher, count));
    assert_eq!(got, upto(sent + 100));
    assert_eq!(there.stats().connections, 1);
}

#[tokio::test]
async fn an_oversize_frame_is_refused_and_the_longest_one_arrives() {
    let mut pair = Pair::new(LinkSettings { max_frame: 300_000, ..quick() });
    let ((there, _at_node), (_back, mut at_dispatcher)) = pair.link().await;
    let too_long = Bytes::from(vec![0; 300_001]);
    assert_eq!(there.send(too_long), Err(SendError::TooLarge { len: 300_001, max: 300_000 }));
    there.send(Bytes::from(vec![7; 300_000])).unwrap();
    there.send(Bytes::new()).unwrap();
    assert!(until_up(&mut at_dispatcher).await);
    assert_eq!(next(&mut at_dispatcher).await, Event::Frame(Bytes::from(vec![7; 300_000])));
    assert_eq!(next(&mut at_dispatcher).await, Event::Frame(Bytes::new()));
}

#[tokio::test]
async fn a_frame_longer_than_the_receiver_takes_is_a_refusal_and_not_an_allocation() {
    let authority = common::link::Authority::generate().unwrap();
    let small = LinkSettings { max_frame: 100, ..quick() };
    let mut dispatcher = endpoint_at(link_pair::here(), &authority, Role::Dispatcher, "d1", small);
    let node = endpoint_at(link_pair::here(), &authority, Role::Node, "n1", quick());
    let (there, mut at_node) = node.dial(dispatcher.local_addr().unwrap(), Peer::any(Role::Dispatcher));
    let (_back, mut at_dispatcher) = accept(&mut dispatcher).await;
    assert!(until_up(&mut at_dispatcher).await);
    there.send(Bytes::from(vec![0; 101])).unwrap();
    let why =
        until(&mut at_node, |event| if let Event::Refused(why) = event { Some(why) } else { None }).await;
    assert!(why.to_string().contains("109 bytes"), "{why}");
}

#[tokio::test]
async fn two_links_between_the_same_two_do_not_mix() {
    let mut pair = Pair::new(quick());
    let ((first, _at_first), (_back, mut of_first)) = pair.link().await;
    let ((second, _at_second), (_back, mut of_second)) = pair.link().await;
    for n in 1..=100 {
        first.send(frame(n)).unwrap();
        second.send(frame(1_000 + n)).unwrap();
    }
    assert_eq!(numbers(&mut of_first, 100).await, upto(100));
    assert_eq!(numbers(&mut of_second, 100).await, (1_001..=1_100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_listener_with_all_its_links_taken_says_so() {
    let mut pair = Pair::new(LinkSettings { max_links: 1, ..quick() });
    let (_dialed, _accepted) = pair.link().await;
    let (_link, mut events) = pair.node.dial(pair.address(), Peer::any(Role::Dispatcher));
    let why =
        until(&mut events, |event| if let Event::Refused(why) = event { Some(why) } else { None }).await;
    assert_eq!(why, common::link::Refusal::Busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_go_by_the_thousands() {
    const COUNT: u64 = 200_000;
    let mut pair = Pair::new(LinkSettings::default());
    let ((there, _at_node), (_back, mut at_dispatcher)) = pair.link().await;
    assert!(until_up(&mut at_dispatcher).await);
    let started = Instant::now();
    let sender = tokio::spawn(async move {
        let body = [0u8; 192];
        for n in 1..=COUNT {
            let frame = Bytes::from([&n.to_be_bytes()[..], &body].concat());
            there.send_wait(frame, SOON).await.unwrap();
        }
        there
    });
    let (mut batch, mut expected) = (Vec::new(), 1);
    while expected <= COUNT {
        let count = timeout(SOON, at_dispatcher.recv_many(&mut batch, 256)).await.unwrap();
        assert!(count > 0);
        for event in batch.drain(..) {
            let Event::Frame(frame) = event else { panic!("{event:?}") };
            assert_eq!(number(&frame), expected);
            expected += 1;
        }
    }
    let rate = COUNT as f64 / started.elapsed().as_secs_f64();
    println!("{COUNT} frames of 200 bytes: {rate:.0}/s, unoptimised unless built so");
    let there = sender.await.unwrap();
    assert!(there.drain(SOON).await);
}

/// Sends numbers from 1 until told to stop, sometimes a long frame; gives the last one.
async fn chatter(link: common::link::Link, seed: u64, stop: tokio_util::sync::CancellationToken) -> u64 {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut n: u64 = 0;
    while !stop.is_cancelled() {
        for _ in 0..chance.random_range(1..20) {
            let mut bytes = (n + 1).to_be_bytes().to_vec();
            if chance.random_bool(0.05) {
                bytes.resize(chance.random_range(8..40_000), 1);
            }
            match link.send(bytes.into()) {
                Ok(no) => assert_eq!(no, FrameNo(n + 1)),
                Err(SendError::Full) => break,
                Err(error) => panic!("{error}"),
            }
            n += 1;
        }
        sleep(Duration::from_millis(chance.random_range(0..4))).await;
    }
    n
}

/// Reads numbers until `last` is said and reached; every one must follow the one before. Gives the events back: dropping them would
/// close the link under the other direction.
async fn exactly(mut events: Events, mut last: tokio::sync::watch::Receiver<Option<u64>>) -> (u64, Events) {
    let mut chance = StdRng::seed_from_u64(0);
    let mut seen = 0;
    loop {
        if last.borrow_and_update().is_some_and(|last| seen >= last) {
            return (seen, events);
        }
        let event = tokio::select! {
            event = events.recv() => event.expect("the link has ended"),
            changed = last.changed() => { changed.unwrap(); continue }
        };
        match event {
            Event::Frame(frame) => {
                assert_eq!(number(&frame), seen + 1);
                seen += 1;
                if chance.random_bool(0.002) {
                    // Long enough for the queues behind it to fill up.
                    sleep(Duration::from_millis(chance.random_range(0..60))).await;
                }
            }
            Event::Up { fresh, .. } => assert!(!fresh || seen == 0),
            Event::Down => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn survives_random_faults(seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut pair = Pair::new(LinkSettings { inbox_frames: 64, outbox_frames: 2_000, ..quick() });
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((there, at_node), (back, at_dispatcher)) = pair.link_by(path.addr()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let (tell_there, last_there) = tokio::sync::watch::channel(None);
    let (tell_back, last_back) = tokio::sync::watch::channel(None);
    let senders = (
        tokio::spawn(chatter(there.clone(), seed, stop.clone())),
        tokio::spawn(chatter(back.clone(), !seed, stop.clone())),
    );
    let readers =
        (tokio::spawn(exactly(at_dispatcher, last_there)), tokio::spawn(exactly(at_node, last_back)));
    for _ in 0..12 {
        match chance.random_range(0..7) {
            0 => path.cut(),
            1 => path.cut_there(),
            2 => path.cut_back(),
            3 => path.lose(chance.random_range(0.01..0.3), seed),
            4 => path.delay(Duration::from_millis(chance.random_range(1..30))),
            5 => path.forget(),
            _ => path.heal(),
        }
        sleep(Duration::from_millis(chance.random_range(20..900))).await;
        path.heal();
        sleep(Duration::from_millis(chance.random_range(0..300))).await;
    }
    stop.cancel();
    let (last_there, last_back) = (senders.0.await.unwrap(), senders.1.await.unwrap());
    tell_there.send(Some(last_there)).unwrap();
    tell_back.send(Some(last_back)).unwrap();
    let both = async { (readers.0.await.unwrap(), readers.1.await.unwrap()) };
    let ((at_dispatcher, _still), (at_node, _open)) =
        timeout(SOON, both).await.unwrap_or_else(|_| panic!("seed {seed}: not everything arrived"));
    assert_eq!((at_dispatcher, at_node), (last_there, last_back), "seed {seed}");
    println!(
        "seed {seed}: {last_there} there, {last_back} back, {} connections, {} sent again, {} doubles dropped",
        there.stats().connections,
        there.stats().frames_resent + back.stats().frames_resent,
        there.stats().duplicates + back.stats().duplicates,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_path_does_every_frame_arrives_once_and_in_order() {
    let seeds = (1..=8).map(|seed| tokio::spawn(survives_random_faults(seed)));
    for seed in seeds.collect::<Vec<_>>() {
        seed.await.unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_on_a_taken_port_says_so() {
    let pair = Pair::new(quick());
    let identity = pair.authority.issue(Role::Node, &link_pair::name("n2")).unwrap();
    let taken = Endpoint::bind(pair.address(), &identity, Incarnation::random(), quick());
    assert!(taken.unwrap_err().to_string().contains("cannot bind"));
}
