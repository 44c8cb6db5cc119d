//! Who is to be notified (NO-1, NO-2): chats that wait, rounds through their members, and who is held.

use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    Fixture, Scribe,
    deliveries::Told,
    notifications::{add, browser, webhook},
    scribe::group,
};
use crate::{
    applications::{AppSettings, NotificationSettings},
    ids::{AppId, ChatId, UserId, UserKey},
    model::Role,
    notifications::{ChatPreferences, Preferences},
    store::{
        Attempt, Held, Leased, Looked, ProfileChange, ReadMark, Relation, Sending, SharedStore, Split,
        Waiting,
    },
    time::Millis,
    wire::record::{Change, What},
};

const LATE: Millis = Millis(i64::MAX);

/// What waits in partition 0.
pub async fn waiting(store: &SharedStore, app: AppId) -> Vec<Waiting> {
    store.waiting(app, &[0], LATE, 100).await.unwrap()
}

/// A round that is over with one page.
pub fn round(waiting: &Waiting, upto: u64) -> Looked {
    Looked {
        partition: 0,
        waiting: *waiting,
        upto,
        after: None,
        next_at: Millis(0),
        send: Vec::new(),
        hold: Vec::new(),
        now: Millis(5_000),
    }
}

fn held(waiting: &Waiting, user: UserId, until: i64) -> Held {
    let Waiting { chat, from, .. } = *waiting;
    Held { chat, user, endpoint: None, from, upto: from, until: Millis(until) }
}

/// Ends the round with these to be told later.
pub(super) async fn hold(store: &SharedStore, waiting: &Waiting, users: &[UserId]) {
    let hold = users.iter().map(|user| held(waiting, *user, 9_000)).collect();
    assert!(store.looked(&Looked { hold, ..round(waiting, waiting.from) }).await.unwrap());
}

pub(super) fn sending(user: Option<UserId>, body: &str) -> Sending {
    Sending { id: Uuid::new_v4(), user, body: format!("{{\"text\": {body:?}}}") }
}

/// What is to be sent to an endpoint, in order.
async fn bodies(store: &SharedStore, endpoint: &crate::notifications::Endpoint) -> Vec<Uuid> {
    let queued = store.queued(endpoint.app, endpoint.id, 1_000).await.unwrap();
    queued.into_iter().map(|queued| queued.id).collect()
}

pub async fn no_1_a_chat_waits_once_and_only_where_there_is_an_endpoint(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app, ana) = (scribe.store.clone(), scribe.app, UserId::random());
    let chat = scribe.group(None, &[ana]).await;
    scribe.say(chat, ana, "nobody is notified of this").await;
    assert_eq!(waiting(&store, app).await, []);
    assert_eq!(store.notifying().await.unwrap(), []);

    add(&store, &webhook(app, 1)).await;
    assert_eq!(store.notifying().await.unwrap(), [(app, Duration::from_secs(300))]);
    let settings = AppSettings {
        notifications: NotificationSettings { after_seconds: 7, show_body: true },
        ..AppSettings::default()
    };
    let seen = store.application_changes().await.unwrap();
    assert!(store.update_application(app, "default", &settings, seen).await.unwrap());
    assert_eq!(store.notifying().await.unwrap(), [(app, Duration::from_secs(7))]);

    let three: Vec<Change> = (0..3).map(|_| scribe.message(chat, ana, "told")).collect();
    let at = three[0].at;
    scribe.write(three).await;
    scribe.say(chat, ana, "another").await;
    let key = scribe.key(chat);
    let row = Waiting { chat: key, from: 2, from_at: at, upto: None, after: None };
    assert_eq!(waiting(&fixture.open().await, app).await, [row]);
    assert_eq!(store.waiting(app, &[0], at, 10).await.unwrap(), [], "not yet");
    assert_eq!(store.waiting(app, &[1, 2], LATE, 10).await.unwrap(), []);
    assert_eq!(store.waiting(app, &[], LATE, 10).await.unwrap(), []);
    assert_eq!(store.waiting(AppId::random(), &[0], LATE, 10).await.unwrap(), []);

    // What is no message waits for nobody, and what was deleted at once does not either.
    let quiet = scribe.group(None, &[ana]).await;
    let gone = ChatId::random();
    let changes = vec![
        scribe.change(gone, ana, group(None, &[ana])),
        scribe.message(gone, ana, "gone"),
        scribe.change(gone, ana, What::Deleted),
        scribe.change(quiet, ana, What::Joined { user: UserId::random(), role: Role::Member }),
    ];
    scribe.write(changes).await;
    assert_eq!(waiting(&store, app).await, [row]);

    // Oldest first, of all partitions that are asked for.
    let other = scribe.group_in(3, &[ana]).await;
    let message = scribe.message(other, ana, "in another partition");
    assert_eq!(scribe.attempt(3, vec![message]).await, Ok(()));
    scribe.say(quiet, ana, "later").await;
    let chats = async |partitions: &[u16], limit| -> Vec<ChatId> {
        let rows = store.waiting(app, partitions, LATE, limit).await.unwrap();
        rows.into_iter().map(|row| row.chat.chat).collect()
    };
    assert_eq!(chats(&[3, 0], 10).await, [chat, other, quiet]);
    assert_eq!(chats(&[3, 0], 2).await, [chat, other]);
    assert_eq!(chats(&[3], 2).await, [other]);

    // Another application has no endpoint.
    scribe.app = AppId::random();
    let elsewhere = scribe.group(None, &[ana]).await;
    scribe.say(elsewhere, ana, "nobody").await;
    assert_eq!(waiting(&store, scribe.app).await, []);
}

pub async fn no_1_candidates_are_paged_with_what_decides_about_them(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app) = (scribe.store.clone(), scribe.app);
    let mut users = Vec::new();
    for name in ["Ana", "Ben", "Cleo", "Dan", "Eve"] {
        users.push(scribe.user(name).await);
    }
    users.sort();
    let chat = scribe.group(None, &users).await;
    let key = scribe.key(chat);
    for _ in 0..3 {
        scribe.say(chat, users[0], "hello").await;
    }
    let mark = ReadMark { chat: key, user: users[1], number: 2, head: 3 };
    store.mark_read(&[mark]).await.unwrap();
    let of = |user| UserKey { app, user };
    store.note_seen(&[(of(users[2]), Millis(77))]).await.unwrap();
    let muted = Preferences { muted_until: Some(Millis(1)), ..Preferences::default() };
    assert!(store.set_preferences(of(users[2]), &muted).await.unwrap());
    let here = ChatPreferences { muted_until: Some(Millis(2)), kinds: None };
    assert!(store.set_chat_preferences(key, users[3], &here).await.unwrap());
    add(&store, &browser(app, users[4], "https://push.example/1", 1)).await;

    let all = store.candidates(key, None, 10).await.unwrap();
    assert_eq!(all.iter().map(|one| one.user).collect::<Vec<_>>(), users, "in order of their ids");
    assert_eq!(all.iter().map(|one| one.read).collect::<Vec<_>>(), [3, 2, 0, 0, 0]);
    let seen: Vec<_> = all.iter().map(|one| one.last_seen).collect();
    assert_eq!(seen, [None, None, Some(Millis(77)), None, None]);
    assert!(all.iter().all(|one| one.timezone.as_deref() == Some("Europe/Berlin")));
    assert_eq!((&all[2].preferences, &all[1].preferences), (&muted, &Preferences::default()));
    assert_eq!((&all[3].chat, &all[1].chat), (&here, &ChatPreferences::default()));
    let subscribed: Vec<_> = all.iter().map(|one| one.subscribed).collect();
    assert_eq!(subscribed, [false, false, false, false, true]);
    for (place, user) in users.iter().enumerate() {
        assert_eq!(store.candidates_among(key, &[*user]).await.unwrap(), all[place..=place]);
    }
    let some = [users[3], UserId::random(), users[1], users[2]];
    assert_eq!(store.candidates_among(key, &some).await.unwrap(), all[1..4]);
    assert_eq!(store.candidates_among(key, &[]).await.unwrap(), []);
    assert_eq!(store.candidates(key, Some(users[1]), 2).await.unwrap(), all[2..4]);
    assert_eq!(store.candidates(key, Some(users[4]), 2).await.unwrap(), []);

    // Who came later is not told of what was before.
    scribe.does(chat, users[0], What::Left { user: users[4], heir: None }).await;
    assert_eq!(store.candidates_among(key, &users).await.unwrap(), all[..4]);
    assert_eq!(store.candidates(key, None, 10).await.unwrap(), all[..4]);
    scribe.does(chat, users[0], What::Joined { user: users[4], role: Role::Member }).await;
    assert_eq!(store.candidates_among(key, &users[4..]).await.unwrap()[0].read, 3);
    scribe.does(chat, users[0], What::Deleted).await;
    assert_eq!(store.candidates(key, None, 10).await.unwrap(), []);
    assert_eq!(store.candidates_among(key, &users).await.unwrap(), []);
}

/// What is changed between two looks at somebody decides in the second one.
pub async fn no_1_who_is_looked_at_again_is_seen_as_they_are_by_then(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app) = (scribe.store.clone(), scribe.app);
    let mut users = Vec::new();
    for name in ["Ana", "Ben", "Cleo", "Dan", "Eve", "Fay"] {
        users.push(scribe.user(name).await);
    }
    users.sort();
    let [ana, reads, comes, mutes, blocks, leaves] = users[..] else { panic!() };
    let chat = scribe.group(None, &users).await;
    let key = scribe.key(chat);
    scribe.say(chat, ana, "hello").await;
    let before = store.candidates_among(key, &users).await.unwrap();
    assert_eq!(before.len(), users.len());
    let of = |user| UserKey { app, user };
    assert_eq!(store.blockers_of(of(ana), &users).await.unwrap(), []);

    store.mark_read(&[ReadMark { chat: key, user: reads, number: 1, head: 1 }]).await.unwrap();
    store.note_seen(&[(of(comes), Millis(77))]).await.unwrap();
    let muted = ChatPreferences { muted_until: Some(Millis(2)), kinds: None };
    assert!(store.set_chat_preferences(key, mutes, &muted).await.unwrap());
    store.relate(of(blocks), Relation::Block, ana, true, Millis(9), 10).await.unwrap();
    scribe.does(chat, ana, What::Left { user: leaves, heir: None }).await;

    let mut expected = before;
    assert_eq!(expected.pop().map(|one| one.user), Some(leaves));
    expected[1].read = 1;
    expected[2].last_seen = Some(Millis(77));
    expected[3].chat = muted;
    let store = fixture.open().await;
    assert_eq!(store.candidates_among(key, &users).await.unwrap(), expected);
    assert_eq!(store.last_seen(&[of(comes)]).await.unwrap(), [(of(comes), Millis(77))]);
    assert_eq!(store.blockers_of(of(ana), &users).await.unwrap(), [(blocks, Millis(9))]);
    assert_eq!(store.blocked_by(&[of(blocks)]).await.unwrap(), [(of(blocks), ana)]);
}

pub async fn no_1_a_round_goes_on_from_page_to_page_and_each_is_written_once(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app) = (scribe.store.clone(), scribe.app);
    let (ana, ben) = (scribe.user("Ana").await, scribe.user("Ben").await);
    let (hook, other, his) =
        (webhook(app, 1), webhook(app, 2), browser(app, ben, "https://push.example/1", 1));
    for endpoint in [&hook, &other, &his] {
        add(&store, endpoint).await;
    }
    let chat = scribe.group(None, &[ana, ben]).await;
    scribe.say(chat, ana, "one").await;
    scribe.say(chat, ana, "two").await;
    let begun = waiting(&store, app).await.remove(0);

    let send = vec![sending(None, "first page"), sending(Some(ben), "his"), sending(Some(ana), "nobody's")];
    let first = Looked { after: Some(ana), send, ..round(&begun, 2) };
    let racing = join_all((0..4).map(|_| store.looked(&first))).await;
    assert_eq!(racing.into_iter().filter(|outcome| *outcome.as_ref().unwrap()).count(), 1, "one has it");
    let going = Waiting { upto: Some(2), after: Some(ana), ..begun };
    assert_eq!(waiting(&store, app).await, [going]);
    assert_eq!(bodies(&store, &hook).await, [first.send[0].id]);
    assert_eq!(bodies(&store, &other).await, [first.send[0].id]);
    assert_eq!(bodies(&store, &his).await, [first.send[1].id]);

    // Written meanwhile: it is not what this round is about.
    scribe.say(chat, ana, "three").await;
    assert_eq!(waiting(&store, app).await, [going]);
    let stale = Looked { send: vec![sending(None, "doubled")], ..round(&begun, 2) };
    assert!(!store.looked(&stale).await.unwrap());
    let last = Looked { send: vec![sending(None, "last page")], ..round(&going, 2) };
    assert!(store.looked(&last).await.unwrap());
    assert!(!store.looked(&last).await.unwrap(), "it is over");
    assert_eq!(bodies(&store, &hook).await, [first.send[0].id, last.send[0].id]);
    let queued = store.queued(app, hook.id, 1).await.unwrap().remove(0);
    assert_eq!((queued.body, queued.created_at), (first.send[0].body.clone(), first.now));

    let at = store.message(scribe.key(chat), 3).await.unwrap().answer.unwrap().created_at;
    let later = Waiting { from: 3, from_at: at, ..begun };
    assert_eq!(waiting(&store, app).await, [later], "what came after it");
    assert!(store.looked(&round(&later, 3)).await.unwrap());
    assert_eq!(waiting(&store, app).await, []);
    scribe.say(chat, ana, "four").await;
    assert_eq!(waiting(&store, app).await[0].from, 4);

    // What comes after a round counts from the moment that the round says, or from when it was accepted.
    let at = waiting(&store, app).await.remove(0).from_at;
    let next_at = at.plus(Duration::from_secs(30));
    let page = Looked { after: Some(ana), next_at, ..round(&waiting(&store, app).await[0], 3) };
    assert!(store.looked(&page).await.unwrap());
    let going = waiting(&store, app).await.remove(0);
    assert_eq!((going.from, going.from_at), (4, at), "not before it is over");
    assert!(store.looked(&Looked { next_at, ..round(&going, 3) }).await.unwrap());
    let gathers = Waiting { from: 4, from_at: next_at, ..begun };
    assert_eq!(waiting(&store, app).await, [gathers]);
    assert_eq!(store.waiting(app, &[0], next_at, 10).await.unwrap(), [], "not before");
    assert!(store.looked(&Looked { next_at: Millis(1), ..round(&gathers, 3) }).await.unwrap());
    assert_eq!(waiting(&store, app).await, [Waiting { from_at: at, ..gathers }]);

    // A chat that was deleted is not looked at again.
    scribe.say(chat, ana, "five").await;
    scribe.does(chat, ana, What::Deleted).await;
    let gone = waiting(&store, app).await.remove(0);
    assert!(store.looked(&round(&gone, 4)).await.unwrap());
    assert_eq!(waiting(&store, app).await, []);
}

/// Rounds and batches at the same time, on one chat: each message is in one round.
pub async fn no_1_no_message_is_left_out_when_a_round_ends_as_a_batch_comes(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app, ana) = (scribe.store.clone(), scribe.app, UserId::random());
    add(&store, &webhook(app, 1)).await;
    let chat = scribe.group(None, &[ana]).await;
    let writing = async {
        for _ in 0..60 {
            scribe.say(chat, ana, "hello").await;
        }
    };
    let mut told = Vec::new();
    let telling = async {
        while told.last() != Some(&60) {
            for row in waiting(&store, app).await {
                let head = store.message_ids(row.chat, 0, 1_000).await.unwrap().len() as u64;
                if store.looked(&round(&row, head)).await.unwrap() {
                    told.extend(row.from..=head);
                }
            }
        }
    };
    let both = async { tokio::join!(writing, telling) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("a message is in no round");
    assert_eq!(told, (1..=60).collect::<Vec<_>>());
    assert_eq!(waiting(&store, app).await, []);
}

pub async fn no_2_who_is_held_is_told_once_and_of_everything(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app) = (scribe.store.clone(), scribe.app);
    let hook = webhook(app, 1);
    add(&store, &hook).await;
    let users: Vec<UserId> = (0..3).map(|_| UserId::random()).collect();
    let chat = scribe.group(None, &users).await;
    let key = scribe.key(chat);
    for _ in 0..5 {
        scribe.say(chat, users[0], "hello").await;
    }
    let begun = waiting(&store, app).await.remove(0);
    let one =
        |user, from, upto, until| Held { chat: key, user, endpoint: None, from, upto, until: Millis(until) };
    let hold = vec![one(users[1], 1, 2, 900), one(users[0], 1, 2, 800), one(users[2], 1, 1, 700)];
    assert!(store.looked(&Looked { hold, ..round(&begun, 2) }).await.unwrap());
    let begun = waiting(&store, app).await.remove(0);
    let hold = vec![one(users[0], 4, 5, 600), one(users[1], 3, 5, 950)];
    assert!(store.looked(&Looked { hold, ..round(&begun, 5) }).await.unwrap());

    let store = fixture.open().await;
    let whole = [one(users[2], 1, 1, 700), one(users[0], 1, 5, 800), one(users[1], 1, 5, 950)];
    assert_eq!(store.held(&[0], Millis(950), 10).await.unwrap(), whole, "the later time, for all of them");
    assert_eq!(store.held(&[0], Millis(949), 10).await.unwrap(), whole[..2]);
    assert_eq!(store.held(&[1, 0], Millis(950), 1).await.unwrap(), whole[..1]);
    assert_eq!(store.held(&[1], Millis(950), 10).await.unwrap(), []);

    let tell = |send: &Sending| vec![send.clone()];
    let (send, now) = (sending(None, "told"), Millis(1_000));
    let racing = join_all((0..4).map(|_| store.told(&whole[0], None, tell(&send), now))).await;
    assert_eq!(racing.into_iter().filter(|outcome| *outcome.as_ref().unwrap()).count(), 1);
    assert_eq!(bodies(&store, &hook).await, [send.id]);
    let again = Held { until: Millis(990), ..whole[1] };
    assert!(store.told(&whole[1], Some(again.until), Vec::new(), now).await.unwrap());
    let late = sending(None, "doubled");
    assert!(!store.told(&whole[1], None, tell(&late), now).await.unwrap(), "it is not as it was");
    assert_eq!(store.held(&[0], LATE, 10).await.unwrap(), [whole[2], again]);
    assert!(store.told(&again, None, Vec::new(), now).await.unwrap(), "nothing is to be told any more");
    assert_eq!(store.held(&[0], LATE, 10).await.unwrap(), whole[2..]);
    assert_eq!(bodies(&store, &hook).await, [send.id]);
}

pub async fn no_2_who_is_held_is_looked_at_again_when_it_may_be_quiet_no_more(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let (store, app) = (scribe.store.clone(), scribe.app);
    add(&store, &webhook(app, 1)).await;
    let mut users = Vec::new();
    for name in ["Ana", "Ben", "Cleo"] {
        users.push(scribe.user(name).await);
    }
    let [ana, ben, cleo] = users[..] else { panic!() };
    let of = |user| UserKey { app, user };
    for _ in 0..2 {
        let chat = scribe.group(None, &users).await;
        scribe.say(chat, ana, "hello").await;
        hold(&store, &waiting(&store, app).await[0], &users).await;
    }
    let by_now = async || {
        let held = store.held(&[0], Millis(1), 10).await.unwrap();
        let mut users: Vec<UserId> = held.into_iter().map(|held| held.user).collect();
        users.sort();
        users
    };
    assert_eq!(by_now().await, []);
    assert!(store.set_preferences(of(ana), &Preferences::default()).await.unwrap());
    assert_eq!(by_now().await, [ana, ana], "in every chat");
    for held in store.held(&[0], Millis(1), 10).await.unwrap() {
        assert!(store.told(&held, Some(Millis(9_000)), Vec::new(), Millis(1)).await.unwrap());
    }
    assert_eq!(by_now().await, []);

    let named = ProfileChange { name: Some("Benjamin".to_owned()), ..ProfileChange::default() };
    assert!(store.update_profile(app, ben, &named).await.unwrap().is_some());
    assert_eq!(by_now().await, [], "it is as quiet as before");
    let moved = ProfileChange { timezone: Some(Some("Asia/Tokyo".to_owned())), ..ProfileChange::default() };
    assert!(store.update_profile(app, ben, &moved).await.unwrap().is_some());
    assert_eq!(by_now().await, [ben, ben]);
    store.look_again_at(AppId::random(), &[ana, cleo]).await.unwrap();
    assert_eq!(by_now().await, [ben, ben]);
    store.look_again_at(app, &users).await.unwrap();
    assert_eq!(by_now().await.len(), 6);
}

pub async fn no_2_who_is_held_as_it_is_sent_is_told_by_that_endpoint_alone_and_first(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app, user) = (told.store.clone(), told.app, told.user);
    let (hook, other) = (webhook(app, 1), webhook(app, 2));
    let his = browser(app, user, "https://push.example/1", 1);
    for endpoint in [&hook, &other, &his] {
        add(&store, endpoint).await;
    }
    let sent = told.send_to_webhooks(1_000, &["one", "two"]).await;
    let leased = told.lease(2_000).await.into_iter().find(|leased| leased.endpoint.id == hook.id).unwrap();
    let chat = told.scribe.key(told.chat);
    let one = |endpoint, from, upto, until| Held { chat, user, endpoint, from, upto, until: Millis(until) };
    let split =
        |held| Attempt::Split(Split { rest: "\"rest\"".to_owned(), hold: vec![held], ..Split::default() });
    let stale = Leased { until: Millis(leased.until.0 - 1), ..leased.clone() };
    let first = split(one(Some(hook.id), 1, 2, 900));
    assert!(!store.attempted(&stale, sent[0], &first, Millis(2_001)).await.unwrap());
    assert_eq!(store.held(&[0], LATE, 10).await.unwrap(), [], "nothing was noted");
    for _ in 0..2 {
        assert!(store.attempted(&leased, sent[0], &first, Millis(2_001)).await.unwrap());
        assert_eq!(store.held(&[0], LATE, 10).await.unwrap(), [one(Some(hook.id), 1, 2, 900)], "once");
    }
    let head = store.queued(app, hook.id, 1).await.unwrap().remove(0);
    assert_eq!((head.id, head.body.as_str()), (sent[0], "\"rest\""));
    let second = split(one(Some(hook.id), 2, 3, 950));
    assert!(store.attempted(&leased, sent[1], &second, Millis(2_002)).await.unwrap());
    told.scribe.say(told.chat, user, "hello").await;
    let row = waiting(&store, app).await.remove(0);
    assert!(
        store.looked(&Looked { hold: vec![one(None, 4, 5, 950)], ..round(&row, row.from) }).await.unwrap()
    );

    let store = fixture.open().await;
    let apart = [one(Some(hook.id), 1, 3, 950), one(None, 4, 5, 950)];
    assert_eq!(store.held(&[0], Millis(950), 10).await.unwrap(), apart);
    assert_eq!(store.held(&[0], Millis(950), 1).await.unwrap(), apart[..1], "the earlier messages first");
    store.look_again_at(app, &[user]).await.unwrap();
    let by_now = apart.map(|held| Held { until: Millis(0), ..held });
    assert_eq!(store.held(&[0], Millis(1), 10).await.unwrap(), by_now);

    let later = Held { until: Millis(7), ..by_now[0] };
    assert!(store.told(&by_now[0], Some(later.until), Vec::new(), Millis(3_000)).await.unwrap());
    let send = || vec![sending(None, "told"), sending(Some(user), "told")];
    let (alone, all) = (send(), send());
    assert!(store.told(&later, None, alone.clone(), Millis(3_001)).await.unwrap());
    assert_eq!(bodies(&store, &hook).await, [&sent[..], &[alone[0].id]].concat());
    assert_eq!((bodies(&store, &other).await, bodies(&store, &his).await), (sent.clone(), Vec::new()));
    assert!(store.told(&by_now[1], None, all.clone(), Millis(3_002)).await.unwrap());
    assert_eq!(bodies(&store, &hook).await, [&sent[..], &[alone[0].id, all[0].id]].concat());
    assert_eq!(bodies(&store, &other).await, [&sent[..], &[all[0].id]].concat());
    assert_eq!(bodies(&store, &his).await, [all[1].id]);
    assert_eq!(store.held(&[0], LATE, 10).await.unwrap(), []);
}
