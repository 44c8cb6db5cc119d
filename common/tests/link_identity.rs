//! Who may link with whom: certificates carry role and name, and both ends check them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod link_pair;

use common::link::{Authority, Event, LinkSettings, Peer, Refusal, Role};
use link_pair::{Pair, accept, endpoint, name, next, quick, until};

async fn refusal(events: &mut common::link::Events) -> Refusal {
    until(events, |event| match event {
        Event::Refused(refusal) => Some(refusal),
        Event::Up { .. } => panic!("it was let in"),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn each_end_learns_role_name_and_incarnation_of_the_other() {
    let mut pair = Pair::new(quick());
    let ((dialed, mut of_node), (accepted, mut of_dispatcher)) = pair.link().await;
    let Event::Up { peer: dispatcher, fresh: true, discarded: None } = next(&mut of_node).await else {
        panic!()
    };
    let Event::Up { peer: node, fresh: true, discarded: None } = next(&mut of_dispatcher).await else {
        panic!()
    };
    assert_eq!((dispatcher.role, dispatcher.name.as_str()), (Role::Dispatcher, "d1"));
    assert_eq!((node.role, node.name.as_str()), (Role::Node, "n1"));
    assert_eq!(dialed.peer(), Some(dispatcher));
    assert_eq!(accepted.peer(), Some(node));
    assert!(dialed.is_up() && accepted.is_up());
}

#[tokio::test]
async fn a_dialer_refuses_another_role_than_it_asked_for() {
    let pair = Pair::new(quick());
    let (_link, mut events) = pair.node.dial(pair.address(), Peer::any(Role::Writer));
    let Refusal::PeerCertificate(why) = refusal(&mut events).await else { panic!() };
    assert!(why.contains("writer.chat.internal"), "{why}");
    // Nor does a node pass for a dispatcher, whatever its name.
    let posing = endpoint(&pair.authority, Role::Node, "dispatcher", quick());
    let (_link, mut events) = pair.node.dial(posing.local_addr().unwrap(), Peer::any(Role::Dispatcher));
    assert!(matches!(refusal(&mut events).await, Refusal::PeerCertificate(_)));
}

#[tokio::test]
async fn a_dialer_refuses_another_name_than_it_asked_for() {
    let mut pair = Pair::new(quick());
    let (_link, mut events) = pair.node.dial(pair.address(), Peer::named(Role::Dispatcher, name("d2")));
    let Refusal::PeerCertificate(why) = refusal(&mut events).await else { panic!() };
    assert!(why.contains("d2.dispatcher.chat.internal"), "{why}");
    let (_link, mut events) = pair.node.dial(pair.address(), Peer::named(Role::Dispatcher, name("d1")));
    assert!(matches!(next(&mut events).await, Event::Up { .. }));
    accept(&mut pair.dispatcher).await;
}

#[tokio::test]
async fn a_listener_refuses_roles_it_does_not_take() {
    let authority = Authority::generate().unwrap();
    let settings = LinkSettings { accept_roles: vec![Role::Node], ..quick() };
    let dispatcher = endpoint(&authority, Role::Dispatcher, "d1", settings);
    let writer = endpoint(&authority, Role::Writer, "w1", quick());
    let (_link, mut events) = writer.dial(dispatcher.local_addr().unwrap(), Peer::any(Role::Dispatcher));
    assert_eq!(refusal(&mut events).await, Refusal::Role);
}

#[tokio::test]
async fn certificates_of_an_unknown_authority_are_refused_at_both_ends() {
    let pair = Pair::new(quick());
    let strangers = Authority::generate().unwrap();
    let stranger = endpoint(&strangers, Role::Dispatcher, "d1", quick());
    let (_link, mut events) = pair.node.dial(stranger.local_addr().unwrap(), Peer::any(Role::Dispatcher));
    let Refusal::PeerCertificate(why) = refusal(&mut events).await else { panic!() };
    assert!(why.contains("UnknownIssuer"), "{why}");

    // A stranger that trusts our authority, and shows its own certificate.
    let folder = tempfile::tempdir().unwrap();
    let ours = pair.authority.issue(Role::Node, &name("x")).unwrap();
    let theirs = strangers.issue(Role::Node, &name("x")).unwrap();
    ours.save(folder.path()).unwrap();
    let trust = std::fs::read(folder.path().join("authority.pem")).unwrap();
    theirs.save(folder.path()).unwrap();
    std::fs::write(folder.path().join("authority.pem"), trust).unwrap();
    let mixed = common::link::Identity::load(folder.path()).unwrap();
    let intruder =
        common::link::Endpoint::bind(link_pair::here(), &mixed, common::ids::Incarnation::random(), quick())
            .unwrap();
    let (_link, mut events) = intruder.dial(pair.address(), Peer::any(Role::Dispatcher));
    assert!(matches!(refusal(&mut events).await, Refusal::OwnCertificate(_)));
}

#[tokio::test]
async fn a_refused_dialer_gets_through_once_the_right_peer_is_there() {
    let mut pair = Pair::new(quick());
    let posing = endpoint(&pair.authority, Role::Node, "n2", quick());
    let path = common::link::relay::FaultyPath::to(posing.local_addr().unwrap()).await.unwrap();
    let (_link, mut events) = pair.node.dial(path.addr(), Peer::any(Role::Dispatcher));
    refusal(&mut events).await;
    path.retarget(pair.address());
    accept(&mut pair.dispatcher).await;
    assert!(link_pair::until_up(&mut events).await);
}
