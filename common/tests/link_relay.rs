//! The path that fails on request: what it does to datagrams, and that a link over it loses and doubles nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

mod link_pair;

use std::{net::SocketAddr, time::Duration};

use common::link::relay::FaultyPath;
use link_pair::{Pair, SOON, eventually, frame, here, numbers, quick};
use tokio::{net::UdpSocket, time::timeout};

/// A target that counts what comes.
struct Target {
    socket: UdpSocket,
    path: FaultyPath,
    dialer: UdpSocket,
}

impl Target {
    async fn new() -> Self {
        let socket = UdpSocket::bind(here()).await.unwrap();
        let path = FaultyPath::to(socket.local_addr().unwrap()).await.unwrap();
        let dialer = UdpSocket::bind(here()).await.unwrap();
        Self { socket, path, dialer }
    }

    async fn dial(&self, n: u8) {
        self.dialer.send_to(&[n; 1_000], self.path.addr()).await.unwrap();
    }

    /// The first byte of the next datagram, and whom it is from.
    async fn next(&self) -> (u8, SocketAddr) {
        let mut buffer = [0; 1_500];
        let (_, from) = timeout(SOON, self.socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        (buffer[0], from)
    }

    async fn came(&self, count: usize) -> Vec<u8> {
        let mut came = Vec::new();
        for _ in 0..count {
            came.push(self.next().await.0);
        }
        came
    }
}

#[tokio::test]
async fn an_even_delay_keeps_the_order_and_an_uneven_one_does_not() {
    let target = Target::new().await;
    target.path.delay(Duration::from_millis(100));
    for n in 0..50 {
        target.dial(n).await;
    }
    let sent: Vec<u8> = (0..50).collect();
    assert_eq!(target.came(50).await, sent);
    target.path.seed(1);
    target.path.delay_unevenly(Duration::ZERO, Duration::from_millis(200));
    for n in 0..50 {
        target.dial(n).await;
    }
    let mut came = target.came(50).await;
    assert_ne!(came, sent);
    came.sort_unstable();
    assert_eq!(came, sent);
}

#[tokio::test]
async fn what_is_doubled_comes_twice_and_each_way_can_be_cut_alone() {
    let target = Target::new().await;
    target.path.double(1.0);
    target.dial(1).await;
    assert_eq!(target.came(2).await, [1, 1]);
    target.path.heal();
    target.path.cut_there();
    target.dial(2).await;
    eventually("it is dropped", || target.path.dropped() == 1).await;
    target.path.heal();
    target.path.cut_back();
    target.dial(3).await;
    let (three, from) = target.next().await;
    assert_eq!(three, 3, "what goes there arrives");
    target.socket.send_to(&[4], from).await.unwrap();
    eventually("the answer is dropped", || target.path.dropped() == 2).await;
    target.path.heal();
    target.socket.send_to(&[5], from).await.unwrap();
    let mut answer = [0; 8];
    timeout(SOON, target.dialer.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer[0], 5);
}

#[tokio::test]
async fn a_path_ends_with_its_handle() {
    let target = Target::new().await;
    target.dial(1).await;
    assert_eq!(target.came(1).await, [1]);
    let address = target.path.addr();
    target.path.delay(SOON * 10);
    target.dial(2).await;
    drop(target.path);
    let free = async {
        while UdpSocket::bind(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, free).await.expect("somebody still reads there");
}

#[tokio::test]
async fn a_link_over_a_bad_path_loses_nothing_and_doubles_nothing() {
    let mut pair = Pair::new(quick());
    let path = FaultyPath::to(pair.address()).await.unwrap();
    let ((there, mut at_node), (back, mut at_dispatcher)) = pair.link_by(path.addr()).await;
    path.lose(0.05, 7);
    path.double(0.1);
    path.delay_unevenly(Duration::from_millis(5), Duration::from_millis(20));
    path.narrow(200_000);
    let all: Vec<u64> = (1..=2_000).collect();
    for n in &all {
        there.send(frame(*n)).unwrap();
        back.send(frame(*n)).unwrap();
    }
    assert_eq!(numbers(&mut at_dispatcher, all.len()).await, all);
    assert_eq!(numbers(&mut at_node, all.len()).await, all);
    assert!(there.drain(SOON).await && back.drain(SOON).await);
}
