//! Which endpoints are sent to at the same time. Webhooks and browsers have senders of their own, and neither one host nor one application has
//! them all: whoever is silent holds up nobody else.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use common::{ids::AppId, store::Receivers};
use rand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Shared,
    http::{self, Http},
    queue::{Sender, Taken},
};

/// Webhooks that are sent to at the same time, and browsers.
const SENDERS: usize = 32;

/// Of these, at one host: 80 a second to a push service that takes 100 ms.
const AT_HOST: usize = 8;

/// And of one application.
const OF_APP: usize = 16;

/// Endpoints that wait for others of their host or application; as many as are served in a second, so that the store is not asked more often. What
/// is more, or has waited for too long, is given back.
const WAITING: usize = 64;

/// How long nobody takes what was given back: half of it at least.
const GIVEN_BACK: Duration = Duration::from_secs(4);

/// How long until it is tried again to make what sends.
const PAUSE: Duration = Duration::from_secs(60);

/// Where an endpoint is, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    app: AppId,
    host: String,
}

/// How many are sent to.
#[derive(Default)]
struct Busy {
    at: HashMap<String, usize>,
    of: HashMap<AppId, usize>,
}

impl Busy {
    /// Counts one more, if there may be.
    fn admit(&mut self, place: &Place) -> bool {
        let at = self.at.get(&place.host).copied().unwrap_or_default();
        let of = self.of.get(&place.app).copied().unwrap_or_default();
        if at >= AT_HOST || of >= OF_APP {
            return false;
        }
        self.at.insert(place.host.clone(), at + 1);
        self.of.insert(place.app, of + 1);
        true
    }

    fn ended(&mut self, place: &Place) {
        for count in [self.at.get_mut(&place.host), self.of.get_mut(&place.app)].into_iter().flatten() {
            *count = count.saturating_sub(1);
        }
        self.at.retain(|_, count| *count > 0);
        self.of.retain(|_, count| *count > 0);
    }

    /// Applications that may have no more.
    fn full(&self) -> Vec<AppId> {
        self.of.iter().filter(|(_, count)| **count >= OF_APP).map(|(app, _)| *app).collect()
    }
}

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
    busy: Busy,
    sending: JoinSet<Place>,
    waiting: VecDeque<(Place, Taken)>,
}

impl<'a> Senders<'a> {
    fn new(shared: &'a Shared, sender: Sender, receivers: Receivers) -> Self {
        let (busy, sending, waiting) = (Busy::default(), JoinSet::new(), VecDeque::new());
        Self { shared, sender, receivers, busy, sending, waiting }
    }

    async fn run(mut self) -> Infallible {
        // While some wait for their host or application, most that can be taken are of the same.
        let mut crowded_until = Instant::now();
        let queued = match self.receivers {
            Receivers::Webhooks => &self.shared.queued_for.webhooks,
            Receivers::Browsers => &self.shared.queued_for.browsers,
        };
        loop {
            self.go_on().await;
            if crowded_until <= Instant::now() && self.take().await {
                crowded_until = Instant::now() + self.shared.config.every;
            }
            tokio::select! {
                Some(ended) = self.sending.join_next() => match ended {
                    Ok(place) => self.busy.ended(&place),
                    Err(died) => if let Ok(panic) = died.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    },
                },
                () = queued.notified() => {}
                () = sleep(self.shared.config.every) => {}
            }
        }
    }

    /// Begins with those that have waited, as far as they may now.
    async fn go_on(&mut self) {
        for (place, taken) in std::mem::take(&mut self.waiting) {
            self.begin_or_wait(place, taken).await;
        }
    }

    /// Takes what may be sent to. Whether some of it has to wait.
    async fn take(&mut self) -> bool {
        let free = SENDERS.saturating_sub(self.sending.len());
        let most = free + WAITING.saturating_sub(self.waiting.len());
        if free == 0 {
            return false;
        }
        for taken in self.sender.lease(self.receivers, &self.busy.full(), most).await {
            let endpoint = &taken.leased.endpoint;
            let place = Place { app: endpoint.app, host: http::host(endpoint.target.url()) };
            self.begin_or_wait(place, taken).await;
        }
        !self.waiting.is_empty()
    }

    async fn begin_or_wait(&mut self, place: Place, taken: Taken) {
        if taken.is_in_time() && self.sending.len() < SENDERS && self.busy.admit(&place) {
            let sender = self.sender.clone();
            self.sending.spawn(async move {
                sender.drain(&taken).await;
                place
            });
        } else if taken.is_in_time() && self.waiting.len() < WAITING {
            self.waiting.push_back((place, taken));
        } else {
            let jitter = rand::rng().random_range(0.5..=1.0);
            let next = self.shared.now().plus(GIVEN_BACK.mul_f64(jitter));
            self.sender.give_back(&taken, next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_3_neither_a_host_nor_an_application_has_all_senders() {
        let mut busy = Busy::default();
        let (app, other) = (AppId::random(), AppId::random());
        let place = |app, host: &str| Place { app, host: host.to_owned() };
        let admitted = |busy: &mut Busy, place: &Place| (0..SENDERS).filter(|_| busy.admit(place)).count();
        assert_eq!(admitted(&mut busy, &place(app, "a.example")), AT_HOST);
        assert!(!busy.admit(&place(other, "a.example")), "whoever it is");
        assert_eq!(busy.full(), []);
        assert_eq!(admitted(&mut busy, &place(app, "b.example")), OF_APP - AT_HOST);
        assert!(!busy.admit(&place(app, "c.example")));
        assert_eq!(busy.full(), [app]);
        assert!(busy.admit(&place(other, "c.example")));
        busy.ended(&place(app, "a.example"));
        assert_eq!(busy.full(), []);
        assert!(busy.admit(&place(app, "c.example")) && !busy.admit(&place(app, "a.example")));
        for host in ["a.example", "b.example"] {
            (0..AT_HOST).for_each(|_| busy.ended(&place(app, host)));
        }
        for app in [app, other] {
            busy.ended(&place(app, "c.example"));
        }
        assert!(busy.at.is_empty() && busy.of.is_empty(), "nothing is kept of who is served");
    }
}
