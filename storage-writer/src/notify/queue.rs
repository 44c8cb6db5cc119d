//! Sends what is queued (NO-3): a queue for each endpoint, in order. One sender at a time has an endpoint, by a lease in the store; when it
//! dies, another has it as soon as the lease is over, and sends again what it does not know to be taken, under the same id.
//!
//! While the first of a queue fails, nothing behind it is sent. What can never be taken (a browser's keys are none, a push service finds it
//! too large), or is news to nobody any more, is given up at once, and what nobody takes for days in the end. Who is in their quiet hours by
//! now is held, as by a round.

use std::{sync::Arc, time::Duration};

use common::{
    notifications::{Endpoint, Target},
    store::{Attempt, Except, Leased, Queued, Receivers, StoreError},
    time::Millis,
    vapid::Vapid,
};
use rand::Rng;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use super::{
    NotifyConfig, Shared,
    complete::{Completed, complete},
    decide::{Broken, check_quiet},
    http::{self, Answer, Failed, Http, Post, WHOLE},
    push, webhook,
};

/// Deliveries after which others have their turn. Read one by one: the largest have some 100 KiB, and all senders hold 32 MiB at most.
const BATCH: u32 = 10;

/// How long one sender has an endpoint. Nobody else sends there for so long after it died. Clocks of writers may differ by what [`SPARE`] has
/// beyond [`WHOLE`]: 10 s.
const LEASE: Duration = Duration::from_secs(45);

/// What is left of a lease when the last attempt may begin: the attempt, noting what came of it, and by how much clocks may differ.
const SPARE: Duration = Duration::from_secs(WHOLE.as_secs() + 10);

/// An endpoint that this writer has, and since when.
pub(super) struct Taken {
    pub(super) leased: Leased,
    began: Instant,
}

impl Taken {
    /// Whether an attempt may begin: it ends while the lease stands.
    pub(super) fn is_in_time(&self) -> bool {
        self.began.elapsed() + SPARE <= LEASE
    }
}

#[derive(Clone)]
pub(super) struct Sender {
    shared: Arc<Shared>,
    http: Http,
    vapid: Arc<OnceCell<Vapid>>,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, http: Http) -> Self {
        Self { shared, http, vapid: Arc::default() }
    }

    /// Takes endpoints of these receivers, of each share at most so many, but for some.
    pub(super) async fn lease(&self, receivers: Receivers, shares: [(Except<'_>, usize); 2]) -> Vec<Taken> {
        let mut taken = Vec::new();
        for (except, most) in shares {
            let (now, began) = (self.shared.now(), Instant::now());
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            match self.shared.engines.notify.lease_endpoints(receivers, except, now, LEASE, most).await {
                Ok(leased) => taken.extend(leased.into_iter().map(|leased| Taken { leased, began })),
                Err(error) => {
                    self.shared.metrics.store_errors.inc();
                    tracing::warn!(%error, "what is to be sent to webhooks and browsers is not known");
                    sleep(self.shared.config.every).await;
                    return taken;
                }
            }
        }
        self.shared.metrics.looked_at(match receivers {
            Receivers::Webhooks => "webhooks",
            Receivers::Browsers => "browsers",
        });
        taken
    }

    /// Sends what is in its queue, as far as there is time.
    pub(super) async fn drain(&self, taken: &Taken) {
        match self.send(taken).await {
            Ok(Some(next)) => self.give_back(taken, next).await,
            Ok(None) => {}
            Err(Broken::Store(error)) => self.tell(taken, &error),
            // Nothing was sent: it waits until it is known who is absent.
            Err(Broken::Cache(error)) => {
                tracing::warn!(error, endpoint = %taken.leased.endpoint.id, "nothing is sent: later");
                let next = self.shared.now().plus(self.shared.config.retry_first);
                self.give_back(taken, next).await;
            }
        }
    }

    /// Somebody may have it from then on.
    pub(super) async fn give_back(&self, taken: &Taken, next: Millis) {
        if let Err(error) = self.shared.engines.notify.release_endpoint(&taken.leased, next).await {
            self.tell(taken, &error);
        }
    }

    /// Somebody has it when the lease is over.
    fn tell(&self, taken: &Taken, error: &StoreError) {
        self.shared.metrics.store_errors.inc();
        let endpoint = taken.leased.endpoint.id;
        tracing::warn!(%error, %endpoint, "what came of it is not noted: what was sent, if anything, may be sent once more");
    }

    /// Sends the first of its queue. Gives when something is to be sent there next; none when it is not ours any more.
    async fn send(&self, taken: &Taken) -> Result<Option<Millis>, Broken> {
        let Shared { config, engines, metrics, applications, .. } = &*self.shared;
        let leased = &taken.leased;
        let endpoint = &leased.endpoint;
        let is_browser = endpoint.target.user().is_some();
        applications.look(&engines.reads).await?;
        let known = applications.get(endpoint.app);
        let show_body = known.is_some_and(|known| known.settings.notifications.show_body);
        let mut failures = leased.failures;
        for _ in 0..BATCH {
            let Some(queued) = engines.notify.queued(endpoint.app, endpoint.id, 1).await?.pop() else {
                break;
            };
            let answered = match self.post(endpoint, &queued, show_body).await? {
                // Reading what was said took its time.
                Ok(_) if !taken.is_in_time() => break,
                Ok(post) => self.http.post(post, self.shared.now()).await,
                Err(None) => break,
                Err(Some(attempt)) => {
                    metrics.attempted(is_browser, &attempt);
                    if !engines.notify.attempted(leased, queued.id, &attempt, self.shared.now()).await? {
                        return Ok(None);
                    }
                    if let Attempt::Split(split) = attempt {
                        metrics.notified(0, split.hold.len());
                        check_quiet(&self.shared, &split.hold).await?;
                    }
                    continue;
                }
            };
            let (attempt, next) = verdict(is_browser, answered);
            let now = self.shared.now();
            metrics.attempted(is_browser, &attempt);
            if !engines.notify.attempted(leased, queued.id, &attempt, now).await? {
                return Ok(None);
            }
            match next {
                Next::Another => failures = 0,
                Next::Rest { at_least } => {
                    let jitter = rand::rng().random_range(0.5..=1.0);
                    return Ok(Some(now.plus(rest(config, failures, at_least, jitter))));
                }
                Next::End => {
                    engines.notify.end_endpoint(leased).await?;
                    tracing::info!(endpoint = %endpoint.id, is_browser, "the receiver wants no more");
                    return Ok(None);
                }
            }
            if matches!(attempt, Attempt::Delivered { .. }) {
                metrics.delivered(now.since(queued.created_at));
            }
        }
        Ok(Some(self.shared.now()))
    }

    /// What is sent there, or what is noted instead; none: it is to be looked at again.
    async fn post(
        &self,
        endpoint: &Endpoint,
        queued: &Queued,
        show_body: bool,
    ) -> Result<Result<Post, Option<Attempt>>, Broken> {
        let never = |why: &str| Some(Attempt::GivenUp { status: None, error: why.to_owned() });
        let body = match complete(&self.shared, show_body, endpoint, queued).await? {
            Completed::Body(body) => body,
            Completed::Never(why) => return Ok(Err(never(why))),
            Completed::Split(split) => return Ok(Err(Some(Attempt::Split(split)))),
            Completed::Later => return Ok(Err(None)),
        };
        let now = self.shared.now();
        let (url, push) = (endpoint.target.url().to_owned(), endpoint.target.user().is_some());
        Ok(match &endpoint.target {
            Target::Webhook { secret, .. } => {
                let headers = webhook::headers(secret, queued.id, now, &body);
                Ok(Post { url, headers, body: body.into(), push })
            }
            Target::Push { p256dh, auth, .. } => {
                let vapid = self.vapid.get_or_try_init(|| Vapid::load(&*self.shared.engines.reads)).await?;
                let Some(origin) = http::origin(&url) else {
                    return Ok(Err(never("its URL cannot be read")));
                };
                let contact = Some(self.shared.config.contact.as_str()).filter(|contact| !contact.is_empty());
                let sealed = push::push(vapid, contact, &origin, (p256dh, auth), &body, now);
                sealed.map_err(never).map(|sealed| Post {
                    url,
                    headers: sealed.headers,
                    body: sealed.body.into(),
                    push,
                })
            }
        })
    }
}

/// What comes after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next one of the queue.
    Another,
    /// The same one later.
    Rest { at_least: Option<Duration> },
    /// Nothing any more.
    End,
}

/// What an answer, or that there is none, means.
fn verdict(is_browser: bool, answered: Result<Answer, Failed>) -> (Attempt, Next) {
    let Answer { status, retry_after } = match answered {
        Ok(answer) => answer,
        Err(Failed(error)) => {
            return (Attempt::Failed { status: None, error }, Next::Rest { at_least: None });
        }
    };
    let answered = || format!("answered with {status}");
    match status {
        200..=299 => (Attempt::Delivered { status }, Next::Another),
        // A push service says of a browser that is gone one or the other.
        410 => (Attempt::Failed { status: Some(status), error: answered() }, Next::End),
        404 if is_browser => (Attempt::Failed { status: Some(status), error: answered() }, Next::End),
        // It is no better the next time: not what it says, and not by whom.
        400 | 401 | 403 | 413 if is_browser => {
            (Attempt::GivenUp { status: Some(status), error: answered() }, Next::Another)
        }
        _ => {
            let failed = Attempt::Failed { status: Some(status), error: answered() };
            (failed, Next::Rest { at_least: retry_after })
        }
    }
}

/// How long nothing is sent after an attempt that failed after so many others: twice as long each time, and so long as the receiver says. `jitter`
/// keeps those apart that failed together.
fn rest(config: &NotifyConfig, failures: u32, at_least: Option<Duration>, jitter: f64) -> Duration {
    let doubled = config.retry_first.saturating_mul(2u32.saturating_pow(failures));
    let jittered = doubled.min(config.retry_longest).mul_f64(jitter);
    jittered.max(at_least.unwrap_or_default()).min(config.retry_longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_3_what_an_answer_means() {
        let meaning = |is_browser, status| {
            let retry_after = Some(Duration::from_secs(9));
            match verdict(is_browser, Ok(Answer { status, retry_after })) {
                (Attempt::Delivered { .. }, Next::Another) => "taken",
                (Attempt::Failed { status: Some(_), .. }, Next::Rest { at_least })
                    if at_least == retry_after =>
                {
                    "later"
                }
                (Attempt::Failed { .. }, Next::End) => "ended",
                (Attempt::GivenUp { .. }, Next::Another) => "given up",
                other => panic!("{status}: {other:?}"),
            }
        };
        let cases = [
            (200, "taken", "taken"),
            (201, "taken", "taken"),
            (204, "taken", "taken"),
            (299, "taken", "taken"),
            (301, "later", "later"),
            (302, "later", "later"),
            (304, "later", "later"),
            (307, "later", "later"),
            (400, "later", "given up"),
            (401, "later", "given up"),
            (403, "later", "given up"),
            (404, "later", "ended"),
            (410, "ended", "ended"),
            (413, "later", "given up"),
            (429, "later", "later"),
            (500, "later", "later"),
            (503, "later", "later"),
        ];
        for (status, webhook, browser) in cases {
            assert_eq!((meaning(false, status), meaning(true, status)), (webhook, browser), "{status}");
        }
        let silent = verdict(true, Err(Failed("no answer in time".into())));
        let failed = Attempt::Failed { status: None, error: "no answer in time".into() };
        assert_eq!(silent, (failed, Next::Rest { at_least: None }));
    }

    #[test]
    fn no_3_rests_double_up_to_the_longest_and_heed_the_receiver() {
        let (config, secs) = (NotifyConfig::default(), Duration::from_secs);
        let doubled: Vec<u64> =
            (0..12).map(|failures| rest(&config, failures, None, 1.0).as_secs()).collect();
        assert_eq!(doubled, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(rest(&config, 1, None, 0.5), secs(5));
        assert_eq!(rest(&config, u32::MAX, None, 0.5), secs(1800));
        assert_eq!(rest(&config, 0, Some(secs(60)), 1.0), secs(60));
        assert_eq!(rest(&config, 4, Some(secs(60)), 1.0), secs(80));
        assert_eq!(rest(&config, 0, Some(secs(86_400)), 1.0), secs(3600));
    }
}
