//! Whose messages a direct chat takes, decided by its owner: blocks (ID-9), and contacts only (ID-8).

use std::{sync::Arc, time::Duration};

use chat_node::relationships::STALE;
use common::{
    applications::{AppSettings, Applications},
    ids::{AppId, ChatId, UserId, UserKey},
    store::{Application, Related, Relation, Relations as _},
    time::Millis,
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, Refusal},
    },
};

use crate::stage::{Node, Stage, draft, refusal, retried, sent};

async fn relate(stage: &Stage, user: UserId, relation: Relation, peer: UserId, on: bool) {
    let user = UserKey { app: AppId::DEFAULT, user };
    let related = stage.store.relate(user, relation, peer, on, Millis::now(), 100).await.unwrap();
    assert_eq!(related, Related::Changed);
}

async fn say(node: &Node, by: UserId, chat: ChatId, name: &str) -> Answer {
    node.ask(by, chat, Ask::Send(vec![draft(name, "hello")])).await
}

/// Says things until they are refused, or until they are not; gives the refusal.
async fn until(node: &Node, by: UserId, chat: ChatId, refused: bool) -> Option<Refusal> {
    let asked = async {
        for n in 0.. {
            let answer = say(node, by, chat, &format!("until-{refused}-{n}")).await;
            let Answer::Sent(mut outcomes) = answer else { panic!("{answer:?}") };
            match outcomes.remove(0) {
                Err(refusal) if refused => return Some(refusal),
                Ok(_) if !refused => return None,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        None
    };
    tokio::time::timeout(STALE, asked).await.expect("later than is promised")
}

#[tokio::test]
async fn id_9_a_block_and_its_end_count_in_time_for_all_that_is_said_in_the_direct_chat_and_nowhere_else() {
    let stage = Stage::new().await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let direct = stage.direct(&node, ana, ben).await;
    let group = stage.group(&node, ben, vec![ana]).await;
    stage.keep_draining();
    sent(&say(&node, ana, direct, "first").await);
    sent(&say(&node, ben, direct, "other").await);
    relate(&stage, ben, Relation::Block, ana, true).await;
    let refused = until(&node, ana, direct, true).await.unwrap();
    assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::Forbidden, None));

    // Nor by another text for an old message, or an answer to one.
    let edit = Ask::Edit { number: 1, body: "read this".into() };
    assert_eq!(*refusal(&node.ask(ana, direct, edit).await), refused);
    let react = |on| Ask::React { number: 2, emoji: "👎".into(), on };
    assert_eq!(*refusal(&node.ask(ana, direct, react(true)).await), refused);
    // What was said may be taken back, and a repeat is the message that there is.
    assert!(sent(&node.ask(ana, direct, Ask::Send(vec![retried("first", "hello")])).await).repeat);
    assert!(matches!(node.ask(ana, direct, react(false)).await, Answer::Done { .. }));
    assert!(matches!(node.ask(ana, direct, Ask::Erase { number: 1 }).await, Answer::Done { .. }));
    assert!(matches!(node.ask(ana, direct, Ask::Recent).await, Answer::Recent { .. }));
    // Ben may write, and both in the group.
    sent(&say(&node, ben, direct, "mine").await);
    sent(&say(&node, ana, group, "group").await);
    // A stranger learns nothing of it.
    assert_eq!(refusal(&say(&node, UserId::random(), direct, "x").await).code, ErrorCode::NotFound);

    relate(&stage, ben, Relation::Block, ana, false).await;
    assert_eq!(until(&node, ana, direct, false).await, None);
}

#[tokio::test]
async fn id_9_whoever_owns_the_chat_next_refuses_as_well_and_the_store_is_not_read_for_each_message() {
    let stage = Stage::new().await;
    stage.keep_draining();
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let direct = stage.direct(&node, ana, ben).await;
    for n in 0..50 {
        sent(&say(&node, ana, direct, &format!("m{n}")).await);
    }
    assert!(stage.held.ties_read() <= 2, "{}", stage.held.ties_read());
    // Before the next owner has taken over, and by nobody's hint.
    drop(node);
    relate(&stage, ben, Relation::Block, ana, true).await;
    let next = stage.node("node-2").await;
    let answer = crate::stage::until_answered(|| say(&next, ana, direct, "refused")).await;
    assert_eq!(refusal(&answer).code, ErrorCode::Forbidden);
    let read = stage.held.ties_read();
    for n in 0..50 {
        assert_eq!(refusal(&say(&next, ana, direct, &format!("n{n}")).await).code, ErrorCode::Forbidden);
    }
    assert_eq!(stage.held.ties_read(), read);
    assert_eq!(stage.valid_messages(direct).await.len(), 50, "what is refused is in no log");
}

#[tokio::test]
async fn id_8_an_application_may_have_direct_messages_taken_from_contacts_only() {
    let settings = AppSettings { contacts_only: true, ..AppSettings::default() };
    let application = Application {
        id: AppId::DEFAULT,
        name: "default".into(),
        token_secret: Vec::new(),
        token_kid: String::new(),
        settings: Arc::new(settings),
    };
    let mut stage = Stage::new().await;
    stage.applications = Applications::fixed(vec![application]);
    stage.keep_draining();
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let (direct, group) = (stage.direct(&node, ana, ben).await, stage.group(&node, ana, vec![ben]).await);
    let stranger = refusal(&say(&node, ana, direct, "a").await).clone();
    assert_eq!(stranger.code, ErrorCode::Forbidden);
    sent(&say(&node, ana, group, "a").await);
    // Whom she has as a contact may write to her; whether she may write to him is his to say.
    relate(&stage, ana, Relation::Contact, ben, true).await;
    until(&node, ben, direct, false).await;
    assert_eq!(*refusal(&say(&node, ana, direct, "b").await), stranger);
    relate(&stage, ben, Relation::Contact, ana, true).await;
    until(&node, ana, direct, false).await;
    // A blocked contact is told what a stranger is told.
    relate(&stage, ben, Relation::Block, ana, true).await;
    assert_eq!(until(&node, ana, direct, true).await, Some(stranger));
}
