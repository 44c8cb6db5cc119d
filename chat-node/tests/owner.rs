//! Owners through their public door, on the embedded log and store: what is decided, numbered, confirmed and repeated; and what
//! happens when a partition has two owners, or loses its one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

#[path = "owner/engines.rs"]
mod engines;
#[path = "owner/policies.rs"]
mod policies;
#[path = "owner/relations.rs"]
mod relations;
#[path = "owner/stage.rs"]
mod stage;

use std::{collections::HashSet, time::Duration};

use chat_node::owner::OwnerLimits;
use common::{
    ids::{ChatId, Incarnation, NodeId, UserId},
    log::Log as _,
    model::{ChatKind, Role, limits},
    partition::partition_of,
    store::{Owned as _, Range, group_fingerprint},
    time::Millis,
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, Draft, Refusal, Sent},
        peer::{Live, Topic},
        record::{Change, Claim, Record, What},
    },
};
use stage::{Stage, draft, refusal, retried, sent, until_answered};

/// Long enough for whatever does not wait.
const A_WHILE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn me_1_messages_are_numbered_from_one_and_confirmed_before_they_are_acknowledged() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    for n in 1..=20 {
        let answer = node.ask(ana, chat, Ask::Send(vec![draft(&format!("m{n}"), "hello")])).await;
        assert_eq!(sent(&answer).number, n);
        assert!(stage.valid_messages(chat).await.iter().any(|(number, _)| *number == n), "{n} is in the log");
    }
}

#[tokio::test]
async fn a_batch_keeps_its_order() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let drafts = (0..50).map(|n| draft(&format!("m{n}"), &format!("text {n}"))).collect();
    let Answer::Sent(outcomes) = node.ask(ana, chat, Ask::Send(drafts)).await else { panic!("not sent") };
    let numbers: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap().number).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn me_2_a_repeat_is_the_same_message_from_memory_from_the_log_and_from_the_store() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let first = sent(&node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await).clone();
    let same = |answer: &Answer| {
        let repeat = sent(answer).clone();
        assert_eq!(Sent { repeat: true, ..first.clone() }, repeat);
    };
    same(&node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await);
    drop(node);

    // Undrained: the next owner finds it in the log.
    let other = stage.node("node-2").await;
    same(&other.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await);
    drop(other);

    // Drained: the next owner asks the store.
    stage.drain().await;
    let third = stage.node("node-3").await;
    same(&third.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await);
    same(&third.ask(ana, chat, Ask::Send(vec![retried("m1", "hello")])).await);
    assert_eq!(stage.valid_messages(chat).await.len(), 1);
}

/// CH-4: whoever owns the chat next knows who may what, from the log and from the store.
#[tokio::test]
async fn roles_are_known_to_the_next_owner() {
    let stage = Stage::new().await;
    stage.keep_draining();
    let mut node = stage.node("node-1").await;
    let (ana, ben, eve) = (UserId::random(), UserId::random(), UserId::random());
    let chat = stage.group(&node, ana, vec![ben, eve]).await;
    let roles = async || {
        let row = stage.store.load(&[stage::key(chat)]).await.unwrap().answer.remove(0);
        row.members.iter().map(|member| member.role).collect::<Vec<_>>()
    };
    let named = node.ask(ana, chat, Ask::SetRole { user: ben, role: Role::Admin }).await;
    assert_eq!(named, Answer::Done { seq: 2 });
    assert_eq!(roles().await, [Role::Owner, Role::Admin, Role::Member], "answered when it is stored");
    assert_eq!(node.ask(ana, chat, Ask::SetRole { user: ben, role: Role::Admin }).await, named);
    for name in ["node-2", "node-3"] {
        drop(node);
        node = stage.node(name).await;
        let asked =
            until_answered(|| node.ask(ben, chat, Ask::SetRole { user: eve, role: Role::Admin })).await;
        assert_eq!(refusal(&asked).code, ErrorCode::Forbidden);
        assert_eq!(node.ask(ben, chat, Ask::RemoveMember { user: UserId::random() }).await, asked_nobody());
    }
    let over = node.ask(ana, chat, Ask::SetRole { user: eve, role: Role::Owner }).await;
    assert_eq!(over, Answer::Done { seq: 3 });
    assert_eq!(roles().await, [Role::Admin, Role::Admin, Role::Owner]);
    drop(node);
    let last = stage.node("node-4").await;
    let left = until_answered(|| last.ask(eve, chat, Ask::RemoveMember { user: eve })).await;
    assert_eq!(left, Answer::Done { seq: 4 });
    assert_eq!(roles().await, [Role::Owner, Role::Admin], "the admin who has been in longest is the heir");
}

/// ME-8: an answer stands once, whoever owns the chat: it is found in memory, in the log, and in the store.
#[tokio::test]
async fn reactions_are_known_to_the_next_owner() {
    let stage = Stage::new().await;
    let mut node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    sent(&node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await);
    let react = |emoji: &str, on: bool| Ask::React { number: 1, emoji: emoji.into(), on };
    assert_eq!(node.ask(ben, chat, react("+", true)).await, Answer::Done { seq: 3 });
    assert_eq!(node.ask(ben, chat, react("+", true)).await, Answer::Done { seq: 3 });
    assert_eq!(node.ask(ana, chat, react("-", false)).await, Answer::Done { seq: 3 });
    // Undrained: found in the log.
    drop(node);
    node = stage.node("node-2").await;
    assert_eq!(until_answered(|| node.ask(ben, chat, react("+", true))).await, Answer::Done { seq: 3 });
    assert_eq!(node.ask(ana, chat, react("+", true)).await, Answer::Done { seq: 4 });
    // Drained: found in the store; what an edit and others did meanwhile is known.
    stage.drain().await;
    drop(node);
    node = stage.node("node-3").await;
    assert_eq!(until_answered(|| node.ask(ben, chat, react("+", true))).await, Answer::Done { seq: 4 });
    let edit = Ask::Edit { number: 1, body: "hi".into() };
    assert_eq!(node.ask(ana, chat, edit).await, Answer::Done { seq: 5 });
    assert_eq!(node.ask(ben, chat, react("-", true)).await, Answer::Done { seq: 6 });
    assert_eq!(node.ask(ben, chat, react("+", false)).await, Answer::Done { seq: 7 });
    assert_eq!(node.ask(ben, chat, react("+", false)).await, Answer::Done { seq: 7 });
    stage.drain().await;
    let message = stage.store.message(stage::key(chat), 1).await.unwrap().answer.unwrap();
    let shown: Vec<_> =
        message.reactions.iter().map(|r| (r.emoji.as_str(), r.count, r.users.clone())).collect();
    assert_eq!(shown, [("+", 1, vec![ana]), ("-", 1, vec![ben])]);
    assert_eq!(message.body, "hi");
    let erased = node.ask(ana, chat, Ask::Erase { number: 1 }).await;
    assert_eq!(erased, Answer::Done { seq: 8 });
    assert_eq!(refusal(&node.ask(ben, chat, react("+", true)).await).code, ErrorCode::NotFound);
}

/// Law 7: one record, one event for one topic, whoever is a member.
#[tokio::test]
async fn a_message_to_fifty_thousand_is_one_record_and_one_event_ch_3() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let crowd = (1..limits::MEMBERS).map(|_| UserId::random()).collect();
    let (small, large) = (stage.group(&node, ana, vec![ben]).await, stage.group(&node, ana, crowd).await);
    let mut costs = Vec::new();
    for chat in [small, large] {
        let (published, logged) = (node.outlet.published(), stage.logged().await);
        for n in 0..20 {
            sent(&node.ask(ana, chat, Ask::Send(vec![draft(&format!("m{n}"), "hello")])).await);
        }
        let published = node.outlet.published().split_off(published.len());
        for (topics, live) in &published {
            assert_eq!(topics, &[Topic::from(stage::key(chat))]);
            assert!(matches!(live, Live::Change(bytes) if bytes.len() < 500));
        }
        costs.push((published.len(), stage.logged().await - logged));
    }
    assert_eq!(costs, [(20, 20), (20, 20)]);
}

fn asked_nobody() -> Answer {
    Answer::Refused(Refusal::new(ErrorCode::NotFound, "there is no such member"))
}

#[tokio::test]
async fn me_2_another_body_under_the_same_client_id_is_a_conflict_and_the_original_stands() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await;
    let answer = node.ask(ana, chat, Ask::Send(vec![draft("m1", "goodbye")])).await;
    assert_eq!(refusal(&answer).code, ErrorCode::IdConflict);
    // Another sender may use the same name.
    let answer = node.ask(ben, chat, Ask::Send(vec![draft("m1", "goodbye")])).await;
    assert_eq!(sent(&answer).number, 2);
}

#[tokio::test]
async fn of_two_owners_at_once_the_log_voids_one_before_anything_is_acknowledged() {
    let stage = Stage::new().await;
    let (one, two) = (stage.node("node-1").await, stage.node("node-2").await);
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&one, ana, ben).await;
    // Both believe that they own everything, and both are asked, many at a time.
    let asks = (0..300).map(|n| {
        let (node, by) = if n % 2 == 0 { (&one, ana) } else { (&two, ben) };
        async move {
            for _ in 0..50 {
                match node
                    .ask(by, chat, Ask::Send(vec![retried(&format!("m{n}"), &format!("text {n}"))]))
                    .await
                {
                    Answer::Sent(outcomes) => {
                        if let Some(Ok(sent)) = outcomes.into_iter().next() {
                            return (sent.number, sent.id);
                        }
                    }
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            panic!("message {n} was never accepted");
        }
    });
    let acknowledged = futures_util::future::join_all(asks).await;
    let numbers: HashSet<_> = acknowledged.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len(), 300, "no number was given twice");
    let valid: HashSet<_> = stage.valid_messages(chat).await.into_iter().collect();
    for told in &acknowledged {
        assert!(valid.contains(told), "{told:?} was acknowledged and is not in the log");
    }
    stage.drain().await;
    assert_eq!(stage.stored_messages(chat).await.len(), valid.len());
}

#[tokio::test]
async fn a_record_that_lands_elsewhere_is_unknown_and_found_again() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    node.ask(ana, chat, Ask::Send(vec![draft("m1", "one")])).await;
    // A void record of nobody takes the next place; the owner's own record behind it is valid, but not confirmed.
    stage.append_void(chat).await;
    let answer = node.ask(ana, chat, Ask::Send(vec![draft("m2", "two")])).await;
    assert_eq!(answer, Answer::Unknown);
    let answer = stage::until_answered(|| node.ask(ana, chat, Ask::Send(vec![retried("m2", "two")]))).await;
    assert_eq!(sent(&answer).number, 2);
    assert!(sent(&answer).repeat);
    let answer = node.ask(ana, chat, Ask::Send(vec![draft("m3", "three")])).await;
    assert_eq!(sent(&answer).number, 3);
}

#[tokio::test]
async fn who_is_in_a_chat_is_answered_when_it_is_stored() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = ChatId::direct(common::ids::AppId::DEFAULT, ana, ben);
    let asking = node.ask(ana, chat, Ask::OpenDirect { peer: ben, request: None });
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => panic!("{answer:?}, and nothing is stored yet"),
        () = stage.until_logged(1) => {}
    }
    stage.drain().await;
    let Answer::Created { made: true, seq: 1 } = asking.await else { panic!("not created") };
    let told = node.outlet.wait_for(|live| matches!(live, Live::Added { .. })).await;
    let Live::Added { users, .. } = told else { unreachable!() };
    assert_eq!(users.into_iter().collect::<HashSet<_>>(), HashSet::from([ana, ben]));
}

#[tokio::test]
async fn ch_2_fifty_requests_for_one_direct_chat_make_one() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = ChatId::direct(common::ids::AppId::DEFAULT, ana, ben);
    stage.keep_draining();
    let asks = (0..50).map(|n| {
        let (by, peer) = if n % 2 == 0 { (ana, ben) } else { (ben, ana) };
        node.ask(by, chat, Ask::OpenDirect { peer, request: None })
    });
    let answers = futures_util::future::join_all(asks).await;
    let made = answers.iter().filter(|answer| matches!(answer, Answer::Created { made: true, .. })).count();
    let found = answers.iter().filter(|answer| matches!(answer, Answer::Created { made: false, .. })).count();
    assert_eq!((made, found), (1, 49));
}

#[tokio::test]
async fn ch_7_a_stranger_is_told_that_there_is_no_such_chat() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben, eve) = (UserId::random(), UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await;
    let asks = [
        Ask::Send(vec![draft("e1", "hello")]),
        Ask::Edit { number: 1, body: "changed".into() },
        Ask::Erase { number: 1 },
        Ask::AddMember { user: eve },
        Ask::RemoveMember { user: ana },
        Ask::Update { name: Some("mine".into()), description: None, retention: None },
        Ask::DeleteChat,
        Ask::Recent,
        Ask::OpenDirect { peer: ana, request: None },
    ];
    for ask in asks {
        let answer = node.ask(eve, chat, ask.clone()).await;
        assert_eq!(refusal(&answer).code, ErrorCode::NotFound, "{ask:?}");
        if !matches!(ask, Ask::OpenDirect { .. }) {
            let answer = node.ask(eve, ChatId::random(), ask.clone()).await;
            assert_eq!(refusal(&answer).code, ErrorCode::NotFound, "{ask:?} in a chat that is none");
        }
    }
}

#[tokio::test]
async fn a_removed_member_writes_and_reads_no_more() {
    let stage = Stage::new().await;
    stage.keep_draining();
    let node = stage.node("node-1").await;
    let (ana, ben, cleo) = (UserId::random(), UserId::random(), UserId::random());
    let chat = stage.group(&node, ana, vec![ben, cleo]).await;
    assert_eq!(sent(&node.ask(ben, chat, Ask::Send(vec![draft("b1", "hello")])).await).number, 1);
    let answer = node.ask(ben, chat, Ask::RemoveMember { user: cleo }).await;
    assert_eq!(refusal(&answer).code, ErrorCode::Forbidden);
    assert!(matches!(node.ask(ana, chat, Ask::RemoveMember { user: ben }).await, Answer::Done { .. }));
    let answer = node.ask(ben, chat, Ask::Send(vec![draft("b2", "hello?")])).await;
    assert_eq!(refusal(&answer).code, ErrorCode::NotFound);
    assert_eq!(refusal(&node.ask(ben, chat, Ask::Recent).await).code, ErrorCode::NotFound);
    // The owner leaves: whoever has been in longest is the owner now.
    assert!(matches!(node.ask(ana, chat, Ask::RemoveMember { user: ana }).await, Answer::Done { .. }));
    assert!(matches!(node.ask(cleo, chat, Ask::AddMember { user: ben }).await, Answer::Done { .. }));
}

/// ME-5: what may be sent without a text may be left without one.
#[tokio::test]
async fn a_caption_is_taken_away_by_an_edit_and_a_message_without_attachments_keeps_a_text() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let photo = Draft { attachments: vec!["a-1".into()], ..draft("m1", "the sea") };
    sent(&node.ask(ana, chat, Ask::Send(vec![photo, draft("m2", "hello")])).await);
    let edit = |by, number| node.ask(by, chat, Ask::Edit { number, body: String::new() });
    assert!(matches!(edit(ana, 1).await, Answer::Done { .. }));
    let refused = refusal(&edit(ana, 2).await).clone();
    assert_eq!((refused.code, refused.detail.as_str()), (ErrorCode::Invalid, "body: must not be empty"));
    assert_eq!(refusal(&edit(ben, 2).await).code, ErrorCode::Forbidden);
    stage.drain().await;
    let there = common::store::Chats::history(&*stage.store, stage::key(chat), Range::After(0), 10).await;
    let bodies: Vec<_> = there.unwrap().unwrap().messages.into_iter().map(|message| message.body).collect();
    assert_eq!(bodies, ["", "hello"]);
}

/// ME-5, CH-7: that a message is deleted is known to whoever might have deleted it, and to nobody else: found in memory, by the next owner
/// in the log and with its sender in the store, and in the store alone.
#[tokio::test]
async fn a_deleted_message_is_deleted_once_more_by_nobody_who_might_not_have_deleted_it() {
    let stage = Stage::new().await;
    let mut node = stage.node("node-1").await;
    let [ana, ben, cleo, dan, eve] = std::array::from_fn(|_| UserId::random());
    let chat = stage.group(&node, ana, vec![ben, cleo, dan]).await;
    let left = stage.draining(node.ask(ana, chat, Ask::RemoveMember { user: dan })).await;
    assert!(matches!(left, Answer::Done { .. }), "{left:?}");
    sent(&node.ask(ben, chat, Ask::Send(vec![draft("m1", "hello"), draft("m2", "there")])).await);
    stage.drain().await;
    assert!(matches!(node.ask(ben, chat, Ask::Erase { number: 1 }).await, Answer::Done { .. }));
    for name in ["node-1", "node-2", "node-3"] {
        if name != "node-1" {
            drop(node);
            if name == "node-3" {
                stage.drain().await;
            }
            node = stage.node(name).await;
        }
        let asked = async |by| until_answered(|| node.ask(by, chat, Ask::Erase { number: 1 })).await;
        for stranger in [eve, dan] {
            assert_eq!(refusal(&asked(stranger).await).code, ErrorCode::NotFound, "{name}");
        }
        assert_eq!(refusal(&asked(cleo).await).code, ErrorCode::Forbidden, "{name}");
        for (who, by) in [("author", ben), ("owner", ana)] {
            let answer = asked(by).await;
            assert!(matches!(answer, Answer::Done { .. }), "{name}, {who}: {answer:?}");
        }
        let other = node.ask(cleo, chat, Ask::Erase { number: 2 }).await;
        assert_eq!(refusal(&other).code, ErrorCode::Forbidden, "{name}: as for one that is not deleted");
    }
    let gone = stage.draining(node.ask(ana, chat, Ask::DeleteChat)).await;
    assert!(matches!(gone, Answer::Done { .. }), "{gone:?}");
    for by in [ana, ben, cleo, eve] {
        let answer = node.ask(by, chat, Ask::Erase { number: 1 }).await;
        assert_eq!(refusal(&answer).code, ErrorCode::NotFound, "the group was deleted");
    }
}

#[tokio::test]
async fn me_5_a_message_is_edited_by_its_sender_and_deleted_once() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello"), draft("m2", "there")])).await;
    // One of them is looked up in the store, the other found in memory.
    for drained in [false, true] {
        let number = if drained { 2 } else { 1 };
        let edit = |by, body: &str| node.ask(by, chat, Ask::Edit { number, body: body.to_owned() });
        assert_eq!(refusal(&edit(ben, "mine").await).code, ErrorCode::Forbidden);
        assert!(matches!(edit(ana, "changed").await, Answer::Done { .. }));
        assert_eq!(refusal(&node.ask(ben, chat, Ask::Erase { number }).await).code, ErrorCode::Forbidden);
        let Answer::Done { seq } = node.ask(ana, chat, Ask::Erase { number }).await else {
            panic!("not deleted")
        };
        assert_eq!(node.ask(ana, chat, Ask::Erase { number }).await, Answer::Done { seq }, "deleted already");
        assert_eq!(refusal(&edit(ana, "again").await).code, ErrorCode::NotFound);
        stage.drain().await;
    }
    assert_eq!(refusal(&node.ask(ana, chat, Ask::Erase { number: 3 }).await).code, ErrorCode::NotFound);
    let slice =
        common::store::Chats::history(&*stage.store, stage::key(chat), Range::After(0), 10).await.unwrap();
    assert!(slice.unwrap().messages.iter().all(|message| message.deleted && message.body.is_empty()));
}

#[tokio::test]
async fn a_long_list_of_members_is_several_records_and_one_group() {
    let stage = Stage::new().await;
    stage.keep_draining();
    let node = stage.node("node-1").await;
    let ana = UserId::random();
    let members: Vec<_> = (0..2_500).map(|_| UserId::random()).collect();
    let chat = stage.group(&node, ana, members.clone()).await;
    let row = stage.store.load(&[stage::key(chat)]).await.unwrap().answer.remove(0);
    assert_eq!(row.members.len(), 2_501);
    assert_eq!(row.head.seq, 2_501_u64.div_ceil(limits::MEMBERS_PER_RECORD as u64));
    let last = members.last().copied().unwrap();
    assert_eq!(sent(&node.ask(last, chat, Ask::Send(vec![draft("m1", "in")])).await).number, 1);
}

#[tokio::test]
async fn without_a_lease_nothing_is_read_and_nothing_refused() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    assert!(matches!(node.ask(ana, chat, Ask::Recent).await, Answer::Recent { .. }));
    node.lose_lease();
    assert_eq!(node.ask(ana, chat, Ask::Recent).await, Answer::NotOwner);
    assert_eq!(node.ask(UserId::random(), chat, Ask::Recent).await, Answer::NotOwner);
    // The log decides about what is appended, so that goes on.
    assert_eq!(sent(&node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await).number, 1);
}

#[tokio::test]
async fn what_was_confirmed_is_published_once_in_order_with_the_logs_own_bytes() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    for n in 0..10 {
        node.ask(ana, chat, Ask::Send(vec![draft(&format!("m{n}"), "hello")])).await;
    }
    let changes: Vec<_> = node.outlet.changes();
    let seqs: Vec<_> = changes.iter().map(|change| change.seq).collect();
    assert_eq!(seqs, (1..=11).collect::<Vec<_>>());
    assert!(matches!(changes[0].what, What::Created { .. }));
    let Answer::Changes { changes, complete: true, .. } =
        node.ask(ana, chat, Ask::Changes { after: 4 }).await
    else {
        panic!("no changes")
    };
    let again: Vec<_> = changes
        .iter()
        .map(|bytes| match Record::decode(bytes).unwrap() {
            Record::Change(change) => change.seq,
            Record::Claim(_) => panic!("a claim"),
        })
        .collect();
    assert_eq!(again, (5..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_past_its_deadline_stores_nothing() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let answer = node.ask_late(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await;
    assert_eq!(refusal(&answer).code, ErrorCode::RetryLater);
    assert!(stage.valid_messages(chat).await.is_empty());
}

fn group(name: &str, members: &[UserId], first: Option<&str>) -> Ask {
    let first = first.map(|body| draft("first", body));
    Ask::CreateGroup { name: Some(name.into()), description: None, members: members.to_vec(), first }
}

#[tokio::test]
async fn a_group_that_is_asked_for_again_is_the_same_one_and_another_one_under_its_id_is_a_conflict() {
    let stage = Stage::new().await;
    let (ana, ben, cleo) = (UserId::random(), UserId::random(), UserId::random());
    let chat = ChatId::random();
    let logged = async || {
        let partition = partition_of(stage::key(chat), stage::PARTITIONS);
        let entries = stage.log.read(partition, 0, common::log::ReadLimit::default()).await.unwrap();
        let change = |payload: &[u8]| matches!(Record::decode(payload), Ok(Record::Change(_)));
        entries.iter().filter(|entry| change(&entry.payload)).count()
    };
    let asked_again = async |node: &stage::Node, drained: bool| {
        let others = [
            group("another", &[ben, cleo], Some("hello")),
            group("a group", &[ben], Some("hello")),
            group("a group", &[ben, cleo], Some("goodbye")),
            group("a group", &[ben, cleo], None),
        ];
        for other in others {
            let answer = stage::until_answered(|| node.ask(ana, chat, other.clone())).await;
            assert_eq!(refusal(&answer).code, ErrorCode::IdConflict, "{other:?}");
        }
        if drained {
            // Members in another order: the same request.
            for members in [[ben, cleo], [cleo, ben]] {
                let answer = node.ask(ana, chat, group("a group", &members, Some("hello"))).await;
                assert_eq!(answer, Answer::Created { made: false, seq: 2 });
            }
        }
        assert_eq!(logged().await, 2);
    };
    let node = stage.node("node-1").await;
    stage.make(&node, ana, chat, group("a group", &[ben, cleo], Some("hello"))).await;
    asked_again(&node, true).await;
    drop(node);
    let second = stage.node("node-2").await;
    asked_again(&second, true).await;
    drop(second);
    let third = stage.node("node-3").await;
    asked_again(&third, true).await;
    assert_eq!(stage.valid_messages(chat).await.len(), 1);
}

#[tokio::test]
async fn a_group_whose_making_broke_off_is_completed_whatever_happened_in_it_meanwhile() {
    for drained in [false, true] {
        let stage = Stage::new().await;
        let ana = UserId::random();
        let members: Vec<_> = (0..2_500).map(|_| UserId::random()).collect();
        let mut sorted = members.clone();
        sorted.sort_unstable();
        let chat = ChatId::random();

        // An owner that died after the first record; then somebody wrote, one of the first left, and a later one was let in by hand.
        let request = Some(group_fingerprint(Some("a group"), None, &members, Some("hello")));
        let first =
            std::iter::once((ana, Role::Owner)).chain(sorted.iter().map(|user| (*user, Role::Member)));
        let first = first.take(limits::MEMBERS_PER_RECORD).collect();
        let (wrote, left, late) = (sorted[0], sorted[1], sorted[2_000]);
        let (name, kind) = (Some("a group".to_owned()), ChatKind::Group);
        let message = |client_id: &str| What::Sent {
            id: common::ids::MessageId::random(),
            number: 1,
            client_id: Some(common::ids::ClientId::new(client_id).unwrap()),
            body: "already".into(),
            kind: Default::default(),
            reply_to: None,
            attachments: vec![],
            mentions: Vec::new(),
            mention_all: false,
            sent_as: None,
        };
        let changes = [
            (ana, What::Created { kind, name, description: None, members: first, request }),
            (wrote, message("first")),
            (left, What::Left { user: left, heir: None }),
            (ana, What::Joined { user: late, role: Role::Member }),
        ];
        let partition = partition_of(stage::key(chat), stage::PARTITIONS);
        let append = async |record: Record| {
            let receipt = stage.log.append(partition, bytes::Bytes::new(), record.encode()).await.unwrap();
            receipt.await.unwrap()
        };
        let node = NodeId::new("node-0").unwrap();
        let claim = Claim { node, incarnation: Incarnation::random(), at: Millis(1) };
        let term = append(Record::Claim(claim)).await;
        for (n, (by, what)) in (1..).zip(changes) {
            let app = stage::key(chat).app;
            append(Record::Change(Change { app, chat, term, n, seq: n, at: Millis(1), by, what })).await;
        }
        if drained {
            stage.drain().await;
        }

        let node = stage.node("node-1").await;
        let mut reversed = members.clone();
        reversed.reverse();
        let other = group("a group", &reversed, Some("goodbye"));
        let answer = stage::until_answered(|| node.ask(ana, chat, other.clone())).await;
        assert_eq!(refusal(&answer).code, ErrorCode::IdConflict);
        stage.make(&node, ana, chat, group("a group", &reversed, Some("hello"))).await;
        stage.drain().await;
        let row = stage.store.load(&[stage::key(chat)]).await.unwrap().answer.remove(0);
        let there: HashSet<_> = row.members.iter().map(|member| member.user).collect();
        let wanted: HashSet<_> = members.iter().copied().chain([ana]).filter(|user| *user != left).collect();
        assert_eq!(there, wanted);
        assert_eq!((row.makings, row.head.number, row.head.seq), (3, 2, 7));
        let answer = node.ask(ana, chat, group("a group", &members, Some("hello"))).await;
        assert_eq!(answer, Answer::Created { made: false, seq: 7 });
    }
}

#[tokio::test]
async fn what_was_handed_over_answers_no_read_though_the_lease_holds() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    assert!(matches!(node.ask(ana, chat, Ask::Recent).await, Answer::Recent { .. }));
    let sending = node.ask(ana, chat, Ask::Send(vec![draft("m1", "under way")]));
    let (answer, handed_over) = tokio::join!(biased; sending, node.hand_over());
    assert!(handed_over);
    assert_eq!(node.ask(ana, chat, Ask::Recent).await, Answer::NotOwner);
    // Flushed before it was said, or never begun.
    let logged = stage.valid_messages(chat).await.len();
    assert_eq!(logged, usize::from(answer != Answer::NotOwner), "{answer:?}");
}

#[tokio::test]
async fn who_is_named_no_more_answers_no_read_though_requests_still_wait_and_the_lease_holds() {
    let stage = Stage::new().await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = {
        let maker = stage.node("node-1").await;
        stage.direct(&maker, ana, ben).await
    };
    let node = stage.node("node-2").await;
    stage.held.hold();
    let sending = node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")]));
    let reading = node.ask(ana, chat, Ask::Recent);
    let meanwhile = async {
        // Both wait for the chat; then the message waits for the log, and the read for the message.
        stage.held.until_read(1).await;
        stage.narrow.shut(true);
        stage.held.release();
        tokio::time::sleep(A_WHILE).await;
        let handing_over = node.hand_over();
        let log_goes_on = async {
            tokio::time::sleep(A_WHILE).await;
            stage.narrow.shut(false);
        };
        tokio::join!(handing_over, log_goes_on).0
    };
    let (_, read, handed_over) = tokio::join!(biased; sending, reading, meanwhile);
    assert!(handed_over);
    assert_eq!(read, Answer::NotOwner);
}

#[tokio::test]
async fn a_partition_is_handed_over_when_its_claim_is_in_the_log() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    assert!(node.hand_over().await);
    stage.narrow.silence(true);
    node.take_over();
    // Under way in every partition.
    tokio::time::sleep(A_WHILE).await;
    let handing_over = node.hand_over();
    tokio::pin!(handing_over);
    assert!(tokio::time::timeout(A_WHILE, &mut handing_over).await.is_err(), "a claim is under way");
    stage.narrow.silence(false);
    assert!(handing_over.await);
}

#[tokio::test]
async fn who_is_leaving_is_told_that_there_is_no_such_chat_when_the_log_has_it() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.group(&node, ana, vec![ben]).await;
    stage.keep_draining();
    stage.narrow.silence(true);
    let leaving = node.ask(ben, chat, Ask::RemoveMember { user: ben });
    let reading = async {
        let reading = node.ask(ben, chat, Ask::Recent);
        tokio::pin!(reading);
        assert!(tokio::time::timeout(A_WHILE, &mut reading).await.is_err(), "it may come to nothing");
        stage.narrow.silence(false);
        reading.await
    };
    let (left, read) = tokio::join!(biased; leaving, reading);
    assert!(matches!(left, Answer::Done { .. }), "{left:?}");
    assert_eq!(refusal(&read).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn what_is_drained_while_a_chat_is_being_looked_up_is_neither_lost_nor_numbered_again() {
    let stage = Stage::new().await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let node = stage.node("node-1").await;
    let chat = stage.direct(&node, ana, ben).await;
    for name in ["m1", "m2"] {
        node.ask(ana, chat, Ask::Send(vec![draft(name, "hello")])).await;
    }
    drop(node);

    // Memory is looked through whenever something is drained.
    let limits = OwnerLimits { drained_bytes: 0, ..OwnerLimits::default() };
    let node = stage.node_with("node-2", limits).await;
    stage.held.hold();
    let asking = node.ask(ana, chat, Ask::Send(vec![draft("m3", "hello")]));
    let meanwhile = async {
        stage.held.until_read(1).await;
        stage.drain().await;
        node.until_seen_drained(&stage, chat).await;
        stage.held.release();
    };
    let (answer, ()) = tokio::join!(asking, meanwhile);
    assert_eq!(sent(&answer).number, 3);
    // The writer checks that each follows the one before.
    stage.drain().await;
    assert_eq!(stage.stored_messages(chat).await.len(), 3);
}

#[tokio::test]
async fn a_question_of_a_term_that_is_over_takes_no_answer_from_the_next_ones() {
    let stage = Stage::new().await;
    let (ana, ben, cleo) = (UserId::random(), UserId::random(), UserId::random());
    let maker = stage.node("node-1").await;
    let (chat, other) = (stage.direct(&maker, ana, ben).await, stage.direct(&maker, ana, cleo).await);
    drop(maker);
    let node = stage.node("node-2").await;
    stage.held.hold();
    let ask = || node.ask(ana, chat, Ask::OpenDirect { peer: ben, request: None });
    let scene = async {
        // While the store is asked for another chat, questions wait together.
        stage.held.until_read(1).await;
        let dead = ask();
        tokio::pin!(dead);
        assert!(futures_util::poll!(&mut dead).is_pending());
        // The owner takes the request, and its question waits.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(node.hand_over().await);
        assert_eq!(dead.await, Answer::NotOwner);
        node.take_over();
        node.until_seen_drained(&stage, chat).await;
        let releasing = async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            stage.held.release();
        };
        let (answer, ()) = tokio::join!(ask(), releasing);
        assert_eq!(answer, Answer::Created { made: false, seq: 1 });
    };
    tokio::join!(scene, node.ask(ana, other, Ask::Recent));
}

#[tokio::test]
async fn drained_history_in_memory_refuses_nobody_and_is_shed() {
    let limits = OwnerLimits { undrained_bytes: 4 * 1024, drained_bytes: 8 * 1024, ..OwnerLimits::default() };
    let stage = Stage::new().await;
    let node = stage.node_with("node-1", limits).await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let send =
        async |name: String| node.ask(ana, chat, Ask::Send(vec![draft(&name, &"x".repeat(1_000))])).await;
    for round in 0..6 {
        for n in (1..=3).map(|n| 3 * round + n) {
            assert_eq!(sent(&send(format!("m{n}")).await).number, n);
        }
        stage.drain().await;
        node.until_seen_drained(&stage, chat).await;
    }
    // Message n is change n + 1.
    let Answer::Changes { changes, complete, .. } = node.ask(ana, chat, Ask::Changes { after: 18 }).await
    else {
        panic!("no changes")
    };
    assert_eq!((changes.len(), complete), (1, true), "the newest is kept");
    let Answer::Changes { complete, .. } = node.ask(ana, chat, Ask::Changes { after: 6 }).await else {
        panic!("no changes")
    };
    assert!(!complete, "12 changes of a kilobyte are more than may be kept");
    // What is undrained has its bound all the same.
    for n in 19..=22 {
        assert_eq!(sent(&send(format!("m{n}")).await).number, n);
    }
    assert_eq!(refusal(&send("m23".into()).await).code, ErrorCode::RetryLater);
}

#[tokio::test]
async fn who_takes_over_from_a_full_owner_can_be_read() {
    let limits = OwnerLimits { undrained_bytes: 4 * 1024, ..OwnerLimits::default() };
    let stage = Stage::new().await;
    let node = stage.node_with("node-1", limits).await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let drafts = (0..50).map(|n| draft(&format!("m{n}"), &"x".repeat(1_000))).collect();
    assert_eq!(sent(&node.ask(ana, chat, Ask::Send(drafts)).await).number, 1);
    let full = |answer: &Answer| assert_eq!(refusal(answer).code, ErrorCode::RetryLater);
    full(&node.ask(ana, chat, Ask::Send(vec![draft("more", "hello")])).await);
    drop(node);
    let node = stage.node_with("node-2", limits).await;
    let Answer::Recent { changes, .. } = stage::until_answered(|| node.ask(ana, chat, Ask::Recent)).await
    else {
        panic!("no recent history")
    };
    assert_eq!(changes.len(), 50);
    full(&node.ask(ana, chat, Ask::Send(vec![draft("more", "hello")])).await);
}

#[tokio::test]
async fn a_group_of_which_a_part_is_in_the_log_is_not_said_to_be_surely_not_stored() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let ana = UserId::random();
    let members: Vec<_> = (0..2_500).map(|_| UserId::random()).collect();
    let (chat, untouched) = (ChatId::random(), ChatId::random());
    // The partition is taken over.
    stage::until_answered(|| node.ask(ana, chat, Ask::Recent)).await;
    stage::until_answered(|| node.ask(ana, untouched, Ask::Recent)).await;
    let ask = || group("a group", &members, None);
    stage.narrow.leave(1);
    assert_eq!(node.ask(ana, chat, ask()).await, Answer::Unknown);
    let answer = node.ask(ana, untouched, ask()).await;
    assert_eq!(refusal(&answer).code, ErrorCode::RetryLater, "nothing of that one is there");
    stage.narrow.leave(100);
    stage.make(&node, ana, chat, ask()).await;
    let row = stage.store.load(&[stage::key(chat)]).await.unwrap().answer.remove(0);
    assert_eq!(row.members.len(), 2_501);
}

#[tokio::test]
async fn the_request_that_made_a_direct_chat_hears_so_however_often_it_is_asked() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = ChatId::direct(common::ids::AppId::DEFAULT, ana, ben);
    let open = |peer, request| Ask::OpenDirect { peer, request: Some(request) };
    let asked_again = async |node: &stage::Node| {
        for (by, peer, request, made) in [(ana, ben, 7, true), (ana, ben, 8, false), (ben, ana, 9, false)] {
            let answer = stage::until_answered(|| node.ask(by, chat, open(peer, request))).await;
            assert_eq!(answer, Answer::Created { made, seq: 1 }, "{request}");
        }
    };
    stage.make(&node, ana, chat, open(ben, 7)).await;
    asked_again(&node).await;
    drop(node);
    // From the store.
    asked_again(&stage.node("node-2").await).await;
}

#[tokio::test]
async fn a_store_that_is_put_back_to_what_it_was_neither_loses_nor_doubles_what_the_log_has() {
    let mut stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let backup = stage.back_up().await;
    let first = sent(&node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await).clone();
    stage.drain().await;
    drop(node);
    // It has nothing of the chat in memory, and knows that everything is stored.
    let node = stage.node("node-2").await;
    node.until_seen_drained(&stage, chat).await;
    stage.put_back(backup);
    let again = until_answered(|| node.ask(ana, chat, Ask::Send(vec![retried("m1", "hello")]))).await;
    assert_eq!(sent(&again), &Sent { repeat: true, ..first });
    let next = until_answered(|| node.ask(ben, chat, Ask::Send(vec![draft("m2", "hello")]))).await;
    assert_eq!(sent(&next).number, 2);
    stage.drain().await;
    assert_eq!(stage.stored_messages(chat).await, stage.valid_messages(chat).await);
}

#[tokio::test]
async fn an_owner_that_sees_the_store_put_back_holds_what_it_lacks() {
    let mut stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let backup = stage.back_up().await;
    sent(&node.ask(ana, chat, Ask::Send(vec![draft("m1", "hello")])).await);
    stage.drain().await;
    node.until_seen_drained(&stage, chat).await;
    stage.put_back(backup);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let recent = until_answered(|| node.ask(ana, chat, Ask::Recent)).await;
        let Answer::Recent { changes, .. } = recent else { panic!("{recent:?}") };
        if changes
            .iter()
            .any(|bytes| matches!(Record::decode(bytes), Ok(Record::Change(change)) if change.seq == 2))
        {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "readers are not told what the store lacks");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
