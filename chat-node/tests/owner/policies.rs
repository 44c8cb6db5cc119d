//! What applications have chosen about messages, decided by the owner: rate, words, links.

use std::{sync::Arc, time::Duration};

use chat_node::owner::OwnerLimits;
use common::{
    applications::{AppSettings, Applications, Links, MessageRate, PolicyAction, Retention, Words},
    ids::{AppId, ChatId, UserId},
    model::{Role, limits},
    partition::partition_of,
    store::{Application, Chats as _, Expire as _},
    time::Millis,
    wire::{
        codes::ErrorCode,
        owner::{Answer, Ask, Draft, Refusal, Sent},
        record::{Change, What},
    },
};

use crate::stage::{Node, PARTITIONS, Stage, draft, key, refusal, retried, sent, until_answered};

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
    // Another text is told to all like a message.
    let edit = Ask::Edit { number: 1, body: "hello again".into() };
    assert_eq!(refusal(&node.ask(ana, one, edit).await).code, ErrorCode::RateLimited);
}

#[tokio::test]
async fn sp_1_a_slow_rate_holds_though_nobody_uses_the_chat_meanwhile() {
    let quiet = |seconds| Duration::from_secs(seconds);
    // It holds one, which takes 1,000 s; or longer than it is kept.
    for (per_second, short, long) in
        [(0.001, quiet(130), quiet(900)), (0.000_001, quiet(80_000), quiet(10_000))]
    {
        let message_rate = Some(MessageRate { per_second, burst: 1 });
        let stage = chosen(AppSettings { message_rate, ..AppSettings::default() }).await;
        let node = stage.node("node-1").await;
        let (ana, ben) = (UserId::random(), UserId::random());
        let chat = stage.direct(&node, ana, ben).await;
        let send = async |name: &str| node.ask(ana, chat, Ask::Send(vec![draft(name, "hello")])).await;
        assert_eq!(sent(&send("m1").await).number, 1);
        stage.drain().await;
        node.until_seen_drained(&stage, chat).await;
        let pass = async |time| {
            tokio::time::pause();
            tokio::time::advance(time).await;
            tokio::time::resume();
        };
        pass(short).await;
        let refused = refusal(&send("m2").await).clone();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        let wait = (1.0 / per_second) as u64 - short.as_secs();
        assert!(refused.retry_after_ms.unwrap() <= 1_000 * wait, "{refused:?}");
        pass(long).await;
        assert_eq!(sent(&send("m2").await).number, 2);
    }
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

/// ME-8, ME-9: a message is answered while its time lasts; memory does not say how long that is.
#[tokio::test]
async fn a_message_whose_time_is_over_is_not_answered() {
    let stage =
        chosen(AppSettings { retention: Retention::Days { days: 1 }, ..AppSettings::default() }).await;
    let node = stage.node("node-1").await;
    let (ana, ben) = (UserId::random(), UserId::random());
    let chat = stage.direct(&node, ana, ben).await;
    let answer = |name: &str, number| Draft { reply_to: Some(number), ..draft(name, "indeed") };
    let send = async |node: &Node, drafts: Vec<Draft>| outcomes(node.ask(ben, chat, Ask::Send(drafts)).await);
    assert!(send(&node, vec![draft("m1", "hello"), answer("m2", 1)]).await.iter().all(Result::is_ok));
    stage.drain().await;

    let (partition, never) = (partition_of(key(chat), PARTITIONS), Retention::Forever);
    let day_after = Millis::now().plus(Duration::from_secs(25 * 3600));
    let default = Retention::Days { days: 1 };
    assert_eq!(stage.store.expire(partition, key(chat), never, day_after, 10).await.unwrap(), 0);
    assert_eq!(stage.store.expire(partition, key(chat), default, day_after, 10).await.unwrap(), 2);
    let over = |outcome: &Result<Sent, Refusal>| {
        let refused = outcome.as_ref().unwrap_err();
        assert_eq!((refused.code, refused.detail.split(':').next()), (ErrorCode::Invalid, Some("reply_to")));
    };
    let answered =
        send(&node, vec![answer("m3", 2), draft("m4", "well"), answer("m5", 3), answer("m6", 1)]).await;
    over(&answered[0]);
    assert_eq!(answered[1].as_ref().unwrap().number, 3);
    assert_eq!(answered[2].as_ref().unwrap().number, 4);
    over(&answered[3]);
    // What was sent in time was sent.
    assert!(send(&node, vec![answer("m2", 1)]).await[0].as_ref().unwrap().repeat);

    // Also to the next owner; and when messages are kept for ever from now on.
    drop(node);
    let mut later = stage;
    later.applications = Applications::fixed(Vec::new());
    let node = later.node("node-2").await;
    until_answered(|| node.ask(ben, chat, Ask::Recent)).await;
    over(&send(&node, vec![answer("m7", 2)]).await[0]);
    assert_eq!(send(&node, vec![answer("m8", 3)]).await[0].as_ref().unwrap().number, 5);
}

fn group(members: Vec<UserId>) -> Ask {
    Ask::CreateGroup { name: None, description: None, members, first: None }
}

fn direct(peer: UserId) -> Ask {
    Ask::OpenDirect { peer, request: None }
}

#[tokio::test]
async fn sp_3_who_is_in_as_many_chats_as_one_may_be_makes_none_and_is_let_into_none() {
    let stage = chosen(AppSettings { chats_per_user: Some(2), ..AppSettings::default() }).await;
    stage.keep_draining();
    let node = stage.node("node-1").await;
    let [ana, ben, cleo, dan, eve] = std::array::from_fn(|_| UserId::random());
    let first = stage.group(&node, ana, vec![ben]).await;
    let with_cleo = stage.direct(&node, ana, cleo).await;
    let full = async |by, chat, ask: Ask| {
        let refused = refusal(&node.ask(by, chat, ask.clone()).await).clone();
        assert_eq!(refused.code, ErrorCode::TooLarge, "{ask:?}");
        refused.detail
    };
    let done = async |by, chat, ask: Ask| {
        let answer = node.ask(by, chat, ask.clone()).await;
        assert!(matches!(answer, Answer::Done { .. } | Answer::Created { .. }), "{ask:?}: {answer:?}");
    };

    // Ana makes none, be it with others, nor is she let in by others.
    let with_dan = ChatId::direct(AppId::DEFAULT, ana, dan);
    assert!(full(ana, with_dan, direct(dan)).await.contains("you are in 2 chats"));
    full(ana, ChatId::random(), group(vec![dan])).await;
    let others = ChatId::random();
    assert!(full(dan, others, group(vec![eve, ana])).await.contains(&ana.to_string()));
    done(dan, others, group(vec![eve])).await;
    full(dan, others, Ask::AddMember { user: ana }).await;
    full(dan, others, Ask::SetRole { user: ana, role: Role::Admin }).await;

    // Nobody learns of that who might not let her in.
    let answer = node.ask(UserId::random(), others, Ask::AddMember { user: ana }).await;
    assert_eq!(refusal(&answer).code, ErrorCode::NotFound);
    let answer = node.ask(eve, others, Ask::AddMember { user: ana }).await;
    assert_eq!(refusal(&answer).code, ErrorCode::Forbidden);

    // What there is stays, and may be asked for again; and she writes there.
    done(ana, with_cleo, direct(cleo)).await;
    done(cleo, with_cleo, direct(ana)).await;
    done(ben, first, Ask::RemoveMember { user: ben }).await;
    done(ana, first, Ask::AddMember { user: ben }).await;
    done(ana, first, Ask::AddMember { user: ben }).await;
    sent(&node.ask(ana, first, Ask::Send(vec![draft("m1", "hello")])).await);

    // With room again she comes in.
    done(ana, first, Ask::DeleteChat).await;
    done(dan, others, Ask::AddMember { user: ana }).await;
    full(ana, ChatId::random(), group(vec![])).await;
    // Others may begin one with her all the same, or who fills her room would shut her off.
    done(dan, with_dan, direct(ana)).await;
    // The application knows what it does.
    done(UserId::APPLICATION, ChatId::random(), group(vec![ana])).await;
    for chat in [with_cleo, others, with_dan] {
        assert!(stage.store.is_member(key(chat), ana).await.unwrap());
    }
}

#[tokio::test]
async fn sp_3_a_group_that_broke_off_is_completed_though_its_maker_has_no_more_room() {
    let limits = OwnerLimits { chats_per_user: 1, ..OwnerLimits::default() };
    let stage = Stage::new().await;
    stage.keep_draining();
    let node = stage.node_with("node-1", limits).await;
    let (ana, chat) = (UserId::random(), ChatId::random());
    let ask = group((0..1_500).map(|_| UserId::random()).collect());
    // The partition is taken over, and has room for the first of two records.
    until_answered(|| node.ask(ana, chat, Ask::Recent)).await;
    stage.narrow.leave(1);
    assert_eq!(node.ask(ana, chat, ask.clone()).await, Answer::Unknown);
    stage.narrow.leave(100);
    let answer = node.ask(ana, chat, ask).await;
    assert!(matches!(answer, Answer::Created { .. }), "{answer:?}");
    assert_eq!(refusal(&node.ask(ana, ChatId::random(), group(vec![])).await).code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn sp_3_fifty_thousand_are_counted_within_the_time_of_a_request() {
    let stage = Stage::new().await;
    let limit = OwnerLimits { chats_per_user: limits::CHATS, ..OwnerLimits::default() };
    let node = stage.node_with("node-1", limit).await;
    let members = (1..limits::MEMBERS).map(|_| UserId::random()).collect();
    let begun = std::time::Instant::now();
    stage.make(&node, UserId::random(), ChatId::random(), group(members)).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
