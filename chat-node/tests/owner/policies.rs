//! What applications have chosen about messages, decided by the owner: rate, words, links.

use std::sync::Arc;

use common::{
    applications::{AppSettings, Applications, Links, MessageRate, PolicyAction, Words},
    ids::{AppId, UserId},
    store::Application,
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, Draft, Refusal, Sent},
        record::{Change, What},
    },
};

use crate::stage::{Stage, draft, refusal, retried, sent};

/// A stage whose only application has chosen this.
async fn chosen(settings: AppSettings) -> Stage {
    let application = Application {
        id: AppId::DEFAULT,
        name: "default".into(),
        token_secret: Vec::new(),
        token_kid: String::new(),
        settings: Arc::new(settings),
    };
    let mut stage = Stage::new().await;
    stage.applications = Applications::fixed(vec![application]);
    stage
}

fn outcomes(answer: Answer) -> Vec<Result<Sent, Refusal>> {
    let Answer::Sent(outcomes) = answer else { panic!("not sent: {answer:?}") };
    outcomes
}

#[tokio::test]
async fn sp_1_who_writes_too_fast_in_a_chat_is_told_how_long_to_wait_and_nobody_else_is() {
    let message_rate = Some(MessageRate { per_second: 0.5, burst: 3 });
    let stage = chosen(AppSettings { message_rate, ..AppSettings::default() }).await;
    let node = stage.node("node-1").await;
    let (ana, ben, cleo) = (UserId::random(), UserId::random(), UserId::random());
    let (one, other) = (stage.direct(&node, ana, ben).await, stage.direct(&node, ana, cleo).await);
    let drafts: Vec<Draft> = (1..=5).map(|n| draft(&format!("m{n}"), "hello")).collect();

    let answered = outcomes(node.ask(ana, one, Ask::Send(drafts.clone())).await);
    assert!(answered[..3].iter().all(Result::is_ok), "{answered:?}");
    let refused = answered[3].as_ref().unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!((1..=2_000).contains(&refused.retry_after_ms.unwrap()), "{refused:?}");
    // What follows must not overtake it.
    assert_eq!(answered[4].as_ref().unwrap_err().code, ErrorCode::RetryLater);

    // A repeat takes nothing; other users and other chats have limits of their own.
    assert!(sent(&node.ask(ana, one, Ask::Send(vec![drafts[0].clone()])).await).repeat);
    assert_eq!(sent(&node.ask(ben, one, Ask::Send(vec![draft("b1", "hello")])).await).number, 4);
    assert_eq!(sent(&node.ask(ana, other, Ask::Send(vec![draft("m1", "hello")])).await).number, 1);
    let answer = node.ask(ana, one, Ask::Send(vec![draft("m4", "hello")])).await;
    assert_eq!(refusal(&answer).code, ErrorCode::RateLimited);
}

#[tokio::test]
async fn sp_2_words_and_links_that_are_refused_are_in_no_log_and_each_has_its_own_word() {
    let words = Words { list: vec!["darn".into()], action: PolicyAction::Refuse };
    let links = Links { action: PolicyAction::Refuse, ..Links::default() };
    let stage = chosen(AppSettings { words, links, ..AppSettings::default() }).await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    for (name, body, code) in
        [("m1", "oh DARN", ErrorCode::RefusedWords), ("m2", "see https://evil.test", ErrorCode::RefusedLinks)]
    {
        let answer = node.ask(ana, chat, Ask::Send(vec![draft(name, body)])).await;
        assert_eq!(refusal(&answer).code, code);
        // Who is no member learns nothing of policies.
        let answer = node.ask(UserId::random(), chat, Ask::Send(vec![draft(name, body)])).await;
        assert_eq!(refusal(&answer).code, ErrorCode::NotFound);
    }
    // What is refused is refused for good: what follows is sent.
    let both = Ask::Send(vec![draft("m1", "darn"), draft("m3", "fine")]);
    let answered = outcomes(node.ask(ana, chat, both).await);
    assert_eq!(answered[1].as_ref().unwrap().number, 1);
    let answer = node.ask(ana, chat, Ask::Edit { number: 1, body: "darn".into() }).await;
    assert_eq!(refusal(&answer).code, ErrorCode::RefusedWords);
    let group = Ask::CreateGroup {
        name: None,
        description: None,
        members: vec![ben],
        first: Some(draft("first", "darn")),
    };
    let answer = node.ask(ana, common::ids::ChatId::random(), group).await;
    assert_eq!(refusal(&answer).code, ErrorCode::RefusedWords);
    assert_eq!(stage.valid_messages(chat).await.len(), 1);
}

#[tokio::test]
async fn sp_2_a_masked_message_is_acknowledged_as_it_stands_and_its_repeat_is_recognised() {
    let words = Words { list: vec!["darn".into()], action: PolicyAction::Mask };
    let stage = chosen(AppSettings { words, ..AppSettings::default() }).await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let first = sent(&node.ask(ana, chat, Ask::Send(vec![draft("m1", "oh darn")])).await).clone();
    assert_eq!(first.masked.as_deref(), Some("oh ****"));
    let repeated = Sent { repeat: true, ..first.clone() };
    assert_eq!(*sent(&node.ask(ana, chat, Ask::Send(vec![draft("m1", "oh darn")])).await), repeated);
    drop(node);

    // By the next owner from the log, and by the one after that from the store.
    let other = stage.node("node-2").await;
    assert_eq!(*sent(&other.ask(ana, chat, Ask::Send(vec![draft("m1", "oh darn")])).await), repeated);
    drop(other);
    stage.drain().await;
    let third = stage.node("node-3").await;
    assert_eq!(*sent(&third.ask(ana, chat, Ask::Send(vec![retried("m1", "oh darn")])).await), repeated);
    // It was not sent like this.
    let answer = third.ask(ana, chat, Ask::Send(vec![retried("m1", "oh ****")])).await;
    assert_eq!(refusal(&answer).code, ErrorCode::IdConflict);

    third.ask(ana, chat, Ask::Edit { number: 1, body: "darn it".into() }).await;
    let Answer::Recent { changes, .. } = third.ask(ana, chat, Ask::Recent).await else { panic!() };
    let bodies = changes.iter().filter_map(|bytes| match common::wire::record::Record::decode(bytes) {
        Ok(common::wire::record::Record::Change(Change { what: What::Edited { message }, .. })) => {
            Some(message.body)
        }
        _ => None,
    });
    assert_eq!(bodies.collect::<Vec<_>>(), ["**** it"]);
}
