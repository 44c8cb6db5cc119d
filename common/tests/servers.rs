//! The instrument that starts real servers for tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

use std::net::TcpStream;

use common::servers::Servers;

fn address(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap().to_owned()
}

#[test]
fn the_shared_servers_all_run_and_are_the_same_for_everyone() {
    let servers = Servers::shared();
    for url in [servers.log(), servers.store(), servers.cache()] {
        TcpStream::connect(address(url)).expect(url);
    }
    assert_eq!(Servers::shared().cache(), servers.cache());
}

#[test]
fn an_own_server_dies_on_request_and_comes_back_where_it_was() {
    let servers = Servers::own(&["redis"]);
    let redis = address(servers.cache());
    assert_ne!(redis, address(Servers::shared().cache()));
    TcpStream::connect(&redis).unwrap();
    servers.kill("redis");
    TcpStream::connect(&redis).unwrap_err();
    servers.start("redis");
    TcpStream::connect(&redis).unwrap();
    servers.pause("redis");
    TcpStream::connect(&redis).expect("a paused server still takes connections");
    servers.resume("redis");
    servers.stop("redis");
    TcpStream::connect(&redis).unwrap_err();
    drop(servers);
    TcpStream::connect(&redis).unwrap_err();
}

#[test]
#[should_panic(expected = "not one of kafka, postgres, redis")]
fn a_server_that_does_not_start_fails_the_test() {
    Servers::own(&["etcd"]);
}

#[test]
#[should_panic(expected = "other tests use it")]
fn nobody_kills_a_shared_server() {
    Servers::shared().kill("redis");
}
