//! What is on its way to whom (NO-3): leases, queues, and what becomes of deliveries.

use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    Fixture, Scribe,
    notifications::{add, browser, webhook},
    notify::{hold, round, sending, waiting},
};
use crate::{
    ids::{AppId, ChatId, EndpointId, UserId},
    model::PageRequest,
    notifications::{DeliveryState, Endpoint, Target, WebhookChange},
    store::{
        Attempt, Except, Leased, Looked, PENDING_BROWSER, PENDING_WEBHOOK, Receivers, Sending, SharedStore,
        Split,
    },
    time::Millis,
};

pub(super) const LEASE: Duration = Duration::from_secs(60);
const PAGE: PageRequest = PageRequest { page: 1, per_page: 100 };
const LATE: Millis = Millis(i64::MAX / 2);

/// A chat, and what sends something about it.
pub(super) struct Told {
    pub(super) scribe: Scribe,
    pub(super) store: SharedStore,
    pub(super) app: AppId,
    pub(super) user: UserId,
    pub(super) chat: ChatId,
}

impl Told {
    pub(super) async fn new(fixture: &dyn Fixture) -> Self {
        let mut scribe = Scribe::new(fixture.open().await);
        let user = scribe.user("Ana").await;
        let chat = scribe.group(None, &[user]).await;
        Self { store: scribe.store.clone(), app: scribe.app, scribe, user, chat }
    }

    /// Sends these, at that time.
    pub(super) async fn send(&mut self, now: i64, send: Vec<Sending>) -> Vec<Uuid> {
        self.scribe.say(self.chat, self.user, "hello").await;
        let row = waiting(&self.store, self.app).await.remove(0);
        let ids = send.iter().map(|sending| sending.id).collect();
        let looked = Looked { send, now: Millis(now), ..round(&row, row.from) };
        assert!(self.store.looked(&looked).await.unwrap());
        ids
    }

    pub(super) async fn send_to_webhooks(&mut self, now: i64, bodies: &[&str]) -> Vec<Uuid> {
        self.send(now, bodies.iter().map(|body| sending(None, body)).collect()).await
    }

    pub(super) async fn lease(&self, now: i64) -> Vec<Leased> {
        let mut leased = self.lease_but(Receivers::Webhooks, Except::default(), now).await;
        leased.extend(self.lease_but(Receivers::Browsers, Except::default(), now).await);
        leased
    }

    pub(super) async fn lease_but(&self, receivers: Receivers, except: Except<'_>, now: i64) -> Vec<Leased> {
        self.store.lease_endpoints(receivers, except, Millis(now), LEASE, 10).await.unwrap()
    }

    pub(super) async fn queue(&self, endpoint: &Endpoint) -> Vec<Uuid> {
        let queued = self.store.queued(self.app, endpoint.id, 1_000).await.unwrap();
        queued.into_iter().map(|queued| queued.id).collect()
    }

    async fn states(&self, endpoint: &Endpoint) -> Vec<(Uuid, DeliveryState)> {
        let page = self.store.deliveries(self.app, endpoint.id, PAGE).await.unwrap();
        page.results.into_iter().map(|delivery| (delivery.id, delivery.state)).collect()
    }

    pub(super) async fn take(&self, leased: &Leased, delivery: Uuid, now: i64) {
        let taken = Attempt::Delivered { status: 204 };
        assert!(self.store.attempted(leased, delivery, &taken, Millis(now)).await.unwrap());
    }
}

pub(super) fn failed(why: &str) -> Attempt {
    Attempt::Failed { status: Some(503), error: why.to_owned() }
}

pub(super) fn ids(leased: &[Leased]) -> Vec<EndpointId> {
    leased.iter().map(|leased| leased.endpoint.id).collect()
}

pub async fn no_3_an_endpoint_has_one_holder_until_it_is_given_back_or_its_lease_ends(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app) = (told.store.clone(), told.app);
    let hook = webhook(app, 1);
    add(&store, &hook).await;
    assert_eq!(told.lease(1_000).await, [], "there is nothing to be sent");
    told.send_to_webhooks(1_000, &["one", "two"]).await;
    let racing = join_all((0..4).map(|_| told.lease(1_000))).await;
    let leases: Vec<Leased> = racing.into_iter().flatten().collect();
    let first = Leased { endpoint: hook.clone(), until: Millis(61_000), failures: 0 };
    assert_eq!(leases, std::slice::from_ref(&first));
    told.send_to_webhooks(1_000, &["three"]).await;
    assert_eq!(told.lease(60_999).await, []);

    // Its holder is late, and another has it.
    let second = told.lease(61_000).await.remove(0);
    assert_eq!(ids(std::slice::from_ref(&second)), [hook.id]);
    let queue = told.queue(&hook).await;
    let taken = Attempt::Delivered { status: 200 };
    assert!(!store.attempted(&first, queue[0], &taken, Millis(61_001)).await.unwrap());
    store.release_endpoint(&first, Millis(0)).await.unwrap();
    store.end_endpoint(&first).await.unwrap();
    assert_eq!(told.lease(61_002).await, [], "it is still the other's");
    assert_eq!(told.queue(&hook).await, queue);
    told.take(&second, queue[0], 61_003).await;

    // Given back for later.
    store.release_endpoint(&second, Millis(70_000)).await.unwrap();
    assert!(!store.attempted(&second, queue[1], &taken, Millis(61_004)).await.unwrap(), "it was given back");
    assert_eq!(told.lease(69_999).await, []);
    told.send_to_webhooks(69_999, &["four"]).await;
    assert_eq!(told.lease(69_999).await, [], "what comes up does not change that");
    let third = told.lease(70_000).await.remove(0);
    assert_eq!(told.queue(&hook).await.len(), 3);
    for delivery in told.queue(&hook).await {
        told.take(&third, delivery, 70_001).await;
    }
    store.release_endpoint(&third, Millis(80_000)).await.unwrap();
    assert_eq!(told.lease(90_000).await, [], "its queue is empty");
    told.send_to_webhooks(70_000, &["five"]).await;
    assert_eq!(told.lease(79_999).await, []);
    let fourth = told.lease(80_000).await.remove(0);
    store.release_endpoint(&fourth, Millis(80_000)).await.unwrap();
    let fifth = told.lease(80_000).await.remove(0);
    assert_ne!(fourth.until, fifth.until, "no two leases have one name");

    // An operator changes it while somebody has it: what those learn is about what it was.
    let off = WebhookChange { enabled: Some(false), ..WebhookChange::default() };
    let mended = WebhookChange {
        url: Some("https://other.example".to_owned()),
        enabled: Some(true),
        ..WebhookChange::default()
    };
    let update = async |change| store.update_webhook(app, hook.id, change).await.unwrap().unwrap();
    let as_mended = update(&mended).await;
    let late = told.queue(&hook).await;
    assert!(!store.attempted(&fifth, late[0], &failed("late"), Millis(80_001)).await.unwrap());
    store.release_endpoint(&fifth, Millis(99_000)).await.unwrap();
    store.end_endpoint(&fifth).await.unwrap();
    assert_eq!(store.endpoints(app, None).await.unwrap(), std::slice::from_ref(&as_mended));
    let sixth = told.lease(80_001).await.remove(0);
    assert_eq!((&sixth.endpoint, sixth.failures), (&as_mended, 0), "at once");
    assert_ne!(sixth.until, fifth.until);
    assert!(!update(&off).await.enabled);
    assert_eq!(told.lease(200_000).await, [], "it is switched off");
    told.send_to_webhooks(70_000, &["six"]).await;
    assert_eq!(update(&WebhookChange { enabled: Some(true), ..WebhookChange::default() }).await, as_mended);
    assert_eq!(ids(&told.lease(80_002).await), [hook.id], "at once");
    assert_eq!(told.queue(&hook).await.len(), 2, "what came up meanwhile was kept");
}

pub async fn no_3_a_queue_is_in_order_and_what_failed_stays_its_head(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app, user) = (told.store.clone(), told.app, told.user);
    let (hook, hers) = (webhook(app, 1), browser(app, user, "https://push.example/1", 1));
    add(&store, &hook).await;
    add(&store, &hers).await;
    let mut all = told.send_to_webhooks(1_000, &["one", "two", "three"]).await;
    all.extend(told.send_to_webhooks(1_001, &["four"]).await);
    let personal = told.send(1_002, vec![sending(Some(user), "hers")]).await;
    assert_eq!(told.queue(&hook).await, all);
    assert_eq!(told.queue(&hers).await, personal);
    assert_eq!(store.queued(app, hook.id, 2).await.unwrap().len(), 2);
    let mut both = ids(&told.lease(2_000).await);
    both.sort();
    let mut expected = vec![hook.id, hers.id];
    expected.sort();
    assert_eq!(both, expected);
    let leased = told.lease(70_000).await.into_iter().find(|leased| leased.endpoint.id == hook.id).unwrap();

    for n in 1..=2 {
        assert!(store.attempted(&leased, all[0], &failed("no\0room"), Millis(70_000 + n)).await.unwrap());
    }
    assert_eq!(told.queue(&hook).await, all);
    let head = store.queued(app, hook.id, 1).await.unwrap().remove(0);
    assert_eq!((head.attempts, head.created_at), (2, Millis(1_000)));
    let listed = store.deliveries(app, hook.id, PAGE).await.unwrap().results;
    assert_eq!(
        listed.iter().map(|one| one.id).collect::<Vec<_>>(),
        all.iter().rev().copied().collect::<Vec<_>>()
    );
    let newest_first = &listed[3];
    assert_eq!((newest_first.state, newest_first.attempts), (DeliveryState::Pending, 2));
    assert_eq!((newest_first.status, newest_first.attempted_at), (Some(503), Some(Millis(70_002))));
    assert!(newest_first.error.as_deref().is_some_and(|error| error.starts_with("no")));

    store.release_endpoint(&leased, Millis(70_100)).await.unwrap();
    let leased = told.lease(70_100).await.remove(0);
    assert_eq!(leased.failures, 2);
    told.take(&leased, all[0], 70_101).await;
    let given_up = Attempt::GivenUp { status: Some(413), error: "too long".to_owned() };
    assert!(store.attempted(&leased, all[1], &given_up, Millis(70_102)).await.unwrap());
    assert_eq!(told.queue(&hook).await, all[2..]);
    store.release_endpoint(&leased, Millis(0)).await.unwrap();
    assert_eq!(told.lease(70_200).await.remove(0).failures, 0);
    let listed = store.deliveries(app, hook.id, PageRequest { page: 2, per_page: 2 }).await.unwrap();
    assert_eq!((listed.current, listed.total), (2, 2));
    let (given_up, taken) = (&listed.results[0], &listed.results[1]);
    assert_eq!((given_up.id, given_up.state, given_up.status), (all[1], DeliveryState::GivenUp, Some(413)));
    assert_eq!((taken.id, taken.state, taken.status), (all[0], DeliveryState::Delivered, Some(204)));
    assert_eq!((taken.attempts, taken.error.as_deref()), (3, None));
    for nowhere in [(AppId::random(), hook.id), (app, EndpointId::random())] {
        assert_eq!(store.deliveries(nowhere.0, nowhere.1, PAGE).await.unwrap().results, []);
    }
}

/// What is about more than one delivery may be.
pub async fn no_3_a_delivery_that_becomes_several_does_so_once_and_loses_none(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app) = (told.store.clone(), told.app);
    let (hook, other) = (webhook(app, 1), webhook(app, 2));
    add(&store, &hook).await;
    add(&store, &other).await;
    let sent = told.send_to_webhooks(1_000, &["one", "two"]).await;
    let leases = told.lease(2_000).await;
    let leased = leases.iter().find(|leased| leased.endpoint.id == hook.id).unwrap();
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    let split = Attempt::Split(Split {
        rest: "\"rest\"".to_owned(),
        others: vec![(a, "\"a\"".to_owned()), (b, "\"b\"".to_owned())],
        ..Split::default()
    });
    let stale = Leased { until: Millis(leased.until.0 - 1), ..leased.clone() };
    assert!(!store.attempted(&stale, sent[0], &split, Millis(2_001)).await.unwrap());
    assert_eq!(told.queue(&hook).await, sent);
    for at in [2_001, 2_002] {
        assert!(store.attempted(leased, sent[0], &split, Millis(at)).await.unwrap());
        assert_eq!(told.queue(&hook).await, [sent[0], sent[1], a, b], "once");
    }
    let queued = store.queued(app, hook.id, 10).await.unwrap();
    let bodies: Vec<_> = queued.iter().map(|one| one.body.as_str()).collect();
    assert_eq!(bodies, ["\"rest\"", "{\"text\": \"two\"}", "\"a\"", "\"b\""]);
    assert!(queued.iter().all(|one| (one.created_at, one.attempts) == (Millis(1_000), 0)), "{queued:?}");
    assert_eq!(told.queue(&other).await, sent);
    told.take(leased, a, 2_003).await;
    assert!(store.attempted(leased, sent[0], &split, Millis(2_004)).await.unwrap());
    assert_eq!(told.queue(&hook).await, [sent[0], sent[1], b], "what was taken is not sent again");
    store.release_endpoint(leased, Millis(0)).await.unwrap();
    assert_eq!(told.lease(2_005).await.remove(0).failures, 0);
    let later = told.send_to_webhooks(3_000, &["three"]).await;
    assert_eq!(told.queue(&hook).await, [sent[0], sent[1], b, later[0]]);
    store.prune_deliveries(Millis(1_001), Millis(0), 10).await.unwrap();
    assert_eq!(told.queue(&hook).await, later, "they are as old as what they were");
}

/// There are no more members to be told for it.
pub async fn no_3_a_delivery_of_a_full_queue_becomes_several_as_well(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app, user) = (told.store.clone(), told.app, told.user);
    let hers = browser(app, user, "https://push.example/1", 1);
    add(&store, &hers).await;
    let full = (0..PENDING_BROWSER).map(|_| sending(Some(user), "hello")).collect();
    let sent = told.send(1_000, full).await;
    let leased = told.lease(2_000).await.remove(0);
    let other = Uuid::new_v4();
    let split = Split { rest: "{}".to_owned(), others: vec![(other, "{}".to_owned())], ..Split::default() };
    assert!(store.attempted(&leased, sent[0], &Attempt::Split(split), Millis(2_001)).await.unwrap());
    assert_eq!(told.queue(&hers).await, [&sent[..], &[other]].concat());
}

pub async fn no_3_a_browser_that_subscribes_again_is_sent_to_no_earlier(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app, user) = (told.store.clone(), told.app, told.user);
    let hers = browser(app, user, "https://push.example/1", 1);
    add(&store, &hers).await;
    let sent = told.send(1_000, vec![sending(Some(user), "hers")]).await;
    let leased = told.lease(1_000).await.remove(0);
    assert!(store.attempted(&leased, sent[0], &failed("away"), Millis(1_001)).await.unwrap());
    store.release_endpoint(&leased, Millis(9_000)).await.unwrap();
    add(&store, &Endpoint { id: EndpointId::random(), created_at: Millis(5), ..hers.clone() }).await;
    assert_eq!(told.lease(8_999).await, []);
    let leased = told.lease(9_000).await.remove(0);
    assert_eq!(leased.failures, 1);
    store.release_endpoint(&leased, Millis(99_000)).await.unwrap();
    let Target::Push { session, url, p256dh, .. } = hers.target.clone() else { panic!("a browser") };
    let target = Target::Push { user, session, url, p256dh, auth: vec![9; 16] };
    add(&store, &Endpoint { target, ..hers }).await;
    assert_eq!(told.lease(9_001).await.remove(0).failures, 0, "what failed were the keys before");
}

pub async fn no_3_a_delivery_is_sent_again_at_the_end_of_the_queue(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app) = (told.store.clone(), told.app);
    let (hook, other) = (webhook(app, 1), webhook(app, 2));
    add(&store, &hook).await;
    let all = told.send_to_webhooks(1_000, &["one", "two", "three"]).await;
    add(&store, &other).await;
    let leased = told.lease(1_000).await.remove(0);
    told.take(&leased, all[0], 1_001).await;
    assert!(store.deliver_again(app, hook.id, all[0], Millis(500_000)).await.unwrap());
    assert_eq!(told.queue(&hook).await, [all[1], all[2], all[0]]);
    assert!(store.deliver_again(app, hook.id, all[1], Millis(500_000)).await.unwrap());
    assert_eq!(told.queue(&hook).await, [all[1], all[2], all[0]], "what waits stays where it is");
    let later = told.send_to_webhooks(500_001, &["four"]).await;
    assert_eq!(told.queue(&hook).await, [all[1], all[2], all[0], later[0]]);

    for delivery in told.queue(&hook).await {
        told.take(&leased, delivery, 500_002).await;
    }
    store.release_endpoint(&leased, Millis(0)).await.unwrap();
    let nothing = told.lease(500_003).await;
    assert_eq!(ids(&nothing), [other.id]);
    assert!(store.deliver_again(app, hook.id, all[2], Millis(500_004)).await.unwrap());
    assert_eq!(ids(&told.lease(500_004).await), [hook.id]);
    // It is as old as it was, and is not given up for that.
    assert_eq!(store.queued(app, hook.id, 1).await.unwrap()[0].created_at, Millis(1_000));
    store.prune_deliveries(Millis(500_000), Millis(0), 10).await.unwrap();
    assert_eq!(told.queue(&hook).await, [all[2]]);
    for nowhere in
        [(AppId::random(), hook.id, all[0]), (app, other.id, all[0]), (app, hook.id, Uuid::new_v4())]
    {
        let (app, endpoint, delivery) = nowhere;
        assert!(!store.deliver_again(app, endpoint, delivery, Millis(500_005)).await.unwrap());
    }
}

pub async fn no_3_what_waited_too_long_is_given_up_and_what_is_done_with_is_forgotten(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app) = (told.store.clone(), told.app);
    let hook = webhook(app, 1);
    add(&store, &hook).await;
    let old = told.send_to_webhooks(1_000, &["one", "two", "three"]).await;
    let new = told.send_to_webhooks(2_000, &["four"]).await;
    let leased = told.lease(2_000).await.remove(0);
    told.take(&leased, old[0], 2_001).await;
    assert!(store.attempted(&leased, old[1], &failed("gone fishing"), Millis(2_002)).await.unwrap());
    assert_eq!(store.prune_deliveries(Millis(1_000), Millis(1_000), 10).await.unwrap(), 0, "not yet");
    assert_eq!(store.prune_deliveries(Millis(2_000), Millis(0), 1).await.unwrap(), 1, "one at a time");
    assert_eq!(store.prune_deliveries(Millis(2_000), Millis(0), 10).await.unwrap(), 1);
    assert_eq!(store.prune_deliveries(Millis(2_000), Millis(0), 10).await.unwrap(), 0);
    assert_eq!(told.queue(&hook).await, new);
    let states = told.states(&hook).await;
    use DeliveryState::{Delivered, GivenUp, Pending};
    assert_eq!(states, [(new[0], Pending), (old[2], GivenUp), (old[1], GivenUp), (old[0], Delivered)]);
    let listed = store.deliveries(app, hook.id, PAGE).await.unwrap().results;
    assert_eq!(listed[2].error.as_deref(), Some("gone fishing"));
    assert!(listed[1].error.is_some());

    // It was under way when it was given up: taken is taken, and failed is given up.
    told.take(&leased, old[1], 2_003).await;
    assert!(store.attempted(&leased, old[2], &failed("late"), Millis(2_004)).await.unwrap());
    assert_eq!(told.queue(&hook).await, new);
    let states = told.states(&hook).await;
    assert_eq!(states, [(new[0], Pending), (old[2], GivenUp), (old[1], Delivered), (old[0], Delivered)]);

    assert_eq!(store.prune_deliveries(Millis(0), Millis(2_002), 10).await.unwrap(), 2);
    assert_eq!(told.states(&hook).await, [(new[0], Pending), (old[1], Delivered)]);
    assert_eq!(store.prune_deliveries(Millis(0), LATE, 10).await.unwrap(), 1);
    assert_eq!(told.states(&hook).await, [(new[0], Pending)]);
    // Places go on behind what was forgotten.
    assert_eq!(store.prune_deliveries(LATE, LATE, 10).await.unwrap(), 2);
    let last = told.send_to_webhooks(3_000, &["five", "six"]).await;
    assert_eq!(told.queue(&hook).await, last);
}

pub async fn no_3_what_comes_to_a_full_queue_is_given_up(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app, user) = (told.store.clone(), told.app, told.user);
    let (hook, hers) = (webhook(app, 1), browser(app, user, "https://push.example/1", 1));
    add(&store, &hook).await;
    add(&store, &hers).await;
    assert_eq!(store.oldest_pending().await.unwrap(), None);
    let many = |count: u64, user| (0..count).map(|_| sending(user, "hello")).collect::<Vec<_>>();
    let before = told.send(1_000, many(PENDING_BROWSER - 1, Some(user))).await;
    let mixed = many(3, Some(user)).into_iter().chain(many(3, None)).collect();
    let at_its_end = told.send(2_000, mixed).await;
    assert_eq!(store.oldest_pending().await.unwrap(), Some(Millis(1_000)));
    let kept: Vec<Uuid> = before.into_iter().chain(at_its_end[..1].iter().copied()).collect();
    assert_eq!(told.queue(&hers).await, kept);
    assert_eq!(told.queue(&hook).await, at_its_end[3..]);
    let listed = store.deliveries(app, hers.id, PAGE).await.unwrap();
    assert_eq!(listed.total, 2);
    let full: Vec<_> = listed.results.iter().take(3).collect();
    assert_eq!(full.iter().map(|one| one.id).collect::<Vec<_>>(), [at_its_end[2], at_its_end[1], kept[99]]);
    assert_eq!((full[0].state, full[0].attempts), (DeliveryState::GivenUp, 0));
    assert_eq!(full[0].error.as_deref(), Some("the queue is full"));
    assert_eq!((full[2].state, full[2].error.as_deref()), (DeliveryState::Pending, None));

    // There is room again.
    let leased = told.lease(3_000).await.into_iter().find(|leased| leased.endpoint.id == hers.id).unwrap();
    told.take(&leased, kept[0], 3_001).await;
    let next = told.send(3_002, many(2, Some(user))).await;
    assert_eq!(told.queue(&hers).await, [&kept[1..], &next[..1]].concat());

    // More than one statement has.
    told.send(4_000, many(PENDING_WEBHOOK, None)).await;
    let queue = store.queued(app, hook.id, 20_000).await.unwrap();
    assert_eq!(queue.len() as u64, PENDING_WEBHOOK);
    assert_eq!(told.send_to_webhooks(4_001, &["one more"]).await, [told.states(&hook).await[0].0]);
    assert_eq!(store.queued(app, hook.id, 20_000).await.unwrap(), queue);
}

pub async fn no_3_an_endpoint_that_wants_no_more_is_switched_off_or_forgotten(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app, user) = (told.store.clone(), told.app, told.user);
    let (hook, hers) = (webhook(app, 1), browser(app, user, "https://push.example/1", 1));
    add(&store, &hook).await;
    add(&store, &hers).await;
    let sent = told.send(1_000, vec![sending(None, "one"), sending(Some(user), "hers")]).await;
    for leased in told.lease(1_000).await {
        store.end_endpoint(&leased).await.unwrap();
        assert!(!store.attempted(&leased, sent[0], &failed("late"), Millis(1_001)).await.unwrap());
    }
    let off = Endpoint { enabled: false, ..hook.clone() };
    assert_eq!(store.endpoints(app, None).await.unwrap(), [off]);
    assert_eq!(told.queue(&hook).await, sent[..1], "it may be switched on again");
    assert_eq!(store.endpoints(app, Some(user)).await.unwrap(), []);
    assert_eq!(told.lease(100_000).await, []);
    assert_eq!(store.deliveries(app, hers.id, PAGE).await.unwrap().results, []);
    while store.prune_deliveries(Millis(0), Millis(0), 1).await.unwrap() > 0 {}
    assert!(told.queue(&hers).await.is_empty(), "and with it what was to be sent to it");

    // The last one goes.
    told.scribe.say(told.chat, user, "hello").await;
    told.send(1_000, vec![sending(None, "two")]).await;
    told.scribe.say(told.chat, user, "hello").await;
    assert_eq!(waiting(&store, app).await.len(), 1);
    assert!(store.remove_endpoint(app, None, hook.id).await.unwrap());
    assert!(!store.deliver_again(app, hook.id, sent[0], Millis(1)).await.unwrap());
    let mut pruned = 0;
    loop {
        match store.prune_deliveries(Millis(0), Millis(0), 1).await.unwrap() {
            0 => break,
            some => pruned += some,
        }
    }
    assert_eq!(pruned, 3, "two deliveries, and the note of their endpoint");
    assert!(told.queue(&hook).await.is_empty());
    let row = waiting(&store, app).await.remove(0);
    assert!(store.looked(&round(&row, 100)).await.unwrap());
    told.scribe.say(told.chat, user, "nobody is there").await;
    assert_eq!(waiting(&store, app).await, []);
}

pub async fn no_1_the_first_endpoint_is_not_told_of_what_was_before_it(fixture: &dyn Fixture) {
    let mut told = Told::new(fixture).await;
    let (store, app, user) = (told.store.clone(), told.app, told.user);
    let first = |n: i64| [webhook(app, n), browser(app, user, "https://push.example/1", n)];
    for (n, new) in first(1).into_iter().chain(first(2)).enumerate() {
        let other = webhook(app, 9);
        add(&store, &other).await;
        let chat = told.scribe.group(None, &[user]).await;
        told.scribe.say(chat, user, "to be told later").await;
        hold(&store, &waiting(&store, app).await[0], &[user]).await;
        told.scribe.say(chat, user, "hello").await;
        assert_eq!(store.held(&[0], LATE, 10).await.unwrap().len(), 1);
        assert!(store.remove_endpoint(app, None, other.id).await.unwrap());
        if n < 2 {
            add(&store, &new).await;
            assert_eq!(store.held(&[0], LATE, 10).await.unwrap(), []);
            assert_eq!(waiting(&store, app).await, []);
            // What waits for it is not forgotten for another.
            told.scribe.say(chat, user, "news").await;
            add(&store, &webhook(app, 10)).await;
            let row = waiting(&store, app).await.remove(0);
            assert!(store.looked(&round(&row, 100)).await.unwrap());
        }
        for endpoint in store.endpoints(app, None).await.unwrap() {
            store.remove_endpoint(app, None, endpoint.id).await.unwrap();
        }
        for endpoint in store.endpoints(app, Some(user)).await.unwrap() {
            store.remove_endpoint(app, Some(user), endpoint.id).await.unwrap();
        }
        if n >= 2 {
            // What nobody is told of goes when it is old.
            let at = waiting(&store, app).await[0].from_at;
            store.prune_deliveries(at, Millis(0), 10).await.unwrap();
            assert_eq!(waiting(&store, app).await.len(), 1);
            store.prune_deliveries(LATE, Millis(0), 10).await.unwrap();
            assert_eq!(waiting(&store, app).await, []);
            assert_eq!(store.held(&[0], LATE, 10).await.unwrap(), []);
        }
    }
}
