//! Which endpoints are sent to at the same time. Webhooks and browsers have senders of their own, and [`super::busy`] says who may have how
//! many: whoever is silent holds up nobody else.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use common::store::{Except, Receivers};
use rand::Rng;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep},
};

use super::{
    Shared,
    busy::{Busy, Whose},
    http::{self, Http},
    queue::{Sender, Taken},
};

/// Endpoints that wait for others of their place or application. What is more, or has waited for too long, is given back. So many of those that
/// did not fail last, and so many of those that did: neither keep the others from being taken.
const WAITING: usize = 128;
const WAITING_FAILING: usize = 64;

/// Of these, at one place: as many as are served in a second, so that the store is not asked more often.
const WAITING_AT_PLACE: usize = 64;

/// How long nobody takes what was given back: half of it at least.
const GIVEN_BACK: Duration = Duration::from_secs(4);

/// How long until it is tried again to make what sends.
const PAUSE: Duration = Duration::from_secs(60);

/// Goes on until it is dropped. What it sends then is sent again by another, or later.
pub(super) async fn run(shared: Arc<Shared>) -> Infallible {
    let http = loop {
        match Http::new(shared.config.allow.clone()) {
            Ok(http) => break http,
            Err(error) => tracing::error!(%error, "nothing can be sent to webhooks and browsers"),
        }
        sleep(PAUSE).await;
    };
    let sender = Sender::new(Arc::clone(&shared), http);
    tokio::select! {
        never = Senders::new(&shared, sender.clone(), Receivers::Webhooks).run() => never,
        never = Senders::new(&shared, sender, Receivers::Browsers).run() => never,
    }
}

struct Senders<'a> {
    shared: &'a Shared,
    sender: Sender,
    receivers: Receivers,
    busy: Busy<Id>,
    sending: JoinSet<()>,
    waiting: VecDeque<(Whose, Taken)>,
}

impl<'a> Senders<'a> {
    fn new(shared: &'a Shared, sender: Sender, receivers: Receivers) -> Self {
        let (busy, sending, waiting) = (Busy::default(), JoinSet::new(), VecDeque::new());
        Self { shared, sender, receivers, busy, sending, waiting }
    }

    async fn run(mut self) -> Infallible {
        // While some wait for their place or application, most that can be taken are of the same.
        let mut crowded_until = Instant::now();
        let queued = match self.receivers {
            Receivers::Webhooks => &self.shared.queued_for.webhooks,
            Receivers::Browsers => &self.shared.queued_for.browsers,
        };
        loop {
            self.busy.set_slow_aside(Instant::now());
            self.go_on().await;
            if crowded_until <= Instant::now() && self.take().await {
                crowded_until = Instant::now() + self.shared.config.every;
            }
            tokio::select! {
                Some(ended) = self.sending.join_next_with_id() => self.ended(ended),
                () = queued.notified() => {}
                () = sleep(self.shared.config.every) => {}
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        match ended {
            Ok((id, ())) => self.busy.ended(id),
            Err(died) => {
                self.busy.ended(died.id());
                if let Ok(panic) = died.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Begins with those that have waited, as far as they may now.
    async fn go_on(&mut self) {
        for (whose, taken) in std::mem::take(&mut self.waiting) {
            self.begin_or_wait(whose, taken).await;
        }
    }

    /// Takes what may be sent to. Whether some of it has to wait.
    async fn take(&mut self) -> bool {
        let free = self.busy.free();
        if free == 0 {
            return false;
        }
        let most = |is_failing| free + self.room(is_failing);
        let (full, failing) = self.busy.full();
        let full_of_failing = [full.as_slice(), &failing].concat();
        let but_failing = Except { apps: &full, failing: true, working: false };
        let but_working = Except { apps: &full_of_failing, failing: false, working: true };
        let shares = [(but_failing, most(false)), (but_working, most(true))];
        for taken in self.sender.lease(self.receivers, shares).await {
            let endpoint = &taken.leased.endpoint;
            let whose = Whose {
                app: endpoint.app,
                place: http::host_and_port(endpoint.target.url()),
                is_failing: taken.leased.failures > 0,
            };
            self.begin_or_wait(whose, taken).await;
        }
        !self.waiting.is_empty()
    }

    async fn begin_or_wait(&mut self, whose: Whose, taken: Taken) {
        if taken.is_in_time() && self.busy.may_begin(&whose) {
            let sender = self.sender.clone();
            let begun = self.sending.spawn(async move { sender.drain(&taken).await });
            self.busy.begun(begun.id(), whose, Instant::now());
        } else if taken.is_in_time() && self.may_wait(&whose) {
            self.waiting.push_back((whose, taken));
        } else {
            let jitter = rand::rng().random_range(0.5..=1.0);
            let next = self.shared.now().plus(GIVEN_BACK.mul_f64(jitter));
            self.sender.give_back(&taken, next).await;
        }
    }

    fn may_wait(&self, whose: &Whose) -> bool {
        let is_alike = |other: &Whose| {
            (other.app, &other.place, other.is_failing) == (whose.app, &whose.place, whose.is_failing)
        };
        let those = self.waiting.iter().filter(|(waiting, _)| is_alike(waiting)).count();
        self.room(whose.is_failing) > 0 && those < WAITING_AT_PLACE
    }

    /// How many more of those that failed last, or of the others, may wait.
    fn room(&self, is_failing: bool) -> usize {
        let most = if is_failing { WAITING_FAILING } else { WAITING };
        most.saturating_sub(self.waiting.iter().filter(|(whose, _)| whose.is_failing == is_failing).count())
    }
}
