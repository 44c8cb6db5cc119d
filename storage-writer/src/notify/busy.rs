//! Who may have how many senders. Pure: time is an argument.
//!
//! Neither one place nor one application has all of them, and those that failed last have half at most. Whoever does not answer soon is set aside, up
//! to a bound: addresses that are silent for the first time make room for others as well.

use std::{collections::HashMap, hash::Hash, time::Duration};

use common::ids::AppId;
use tokio::time::Instant;

/// Webhooks that are sent to at the same time, and browsers; those that are set aside do not count.
const SENDERS: usize = 32;

/// Of these, of one application.
const OF_APP: usize = 16;

/// At one place of an application, with those that are set aside: 80 a second to a push service that takes 100 ms.
const AT_PLACE: usize = 8;

/// How long an endpoint counts: most queues are sent in less.
const SOON: Duration = Duration::from_secs(2);

/// Endpoints that are set aside: each takes a connection and what is sent, 100 KiB at most. With [`SOON`] they let 8 silent addresses a second
/// be tried, that take 15 s each.
const ASIDE: usize = 128;

/// Of these, of one application.
const ASIDE_OF_APP: usize = 64;

/// An endpoint that is sent to: of which application, at which host and port, and whether it failed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) app: AppId,
    pub(super) place: String,
    pub(super) is_failing: bool,
}

struct Running {
    whose: Whose,
    since: Instant,
    is_aside: bool,
}

/// Those that are sent to, some 160 at most: each has an id.
pub(super) struct Busy<I> {
    running: HashMap<I, Running>,
}

impl<I> Default for Busy<I> {
    fn default() -> Self {
        Self { running: HashMap::new() }
    }
}

impl<I: Eq + Hash> Busy<I> {
    /// Whether one more may be sent to.
    pub(super) fn may_begin(&self, whose: &Whose) -> bool {
        let of_app = |one: &Running| one.whose.app == whose.app;
        let at_place = |one: &Running| of_app(one) && one.whose.place == whose.place;
        let is_failing = |one: &Running| one.whose.is_failing;
        let at_places = self.running.values().filter(|one| at_place(one)).count();
        let failing_at_place =
            || self.running.values().filter(|one| at_place(one) && is_failing(one)).count();
        let within = self.free() > 0 && self.counted(of_app) < OF_APP && at_places < AT_PLACE;
        let failing_within = || {
            self.counted(is_failing) < SENDERS / 2
                && self.counted(|one| of_app(one) && is_failing(one)) < OF_APP / 2
                && failing_at_place() < AT_PLACE / 2
        };
        within && (!whose.is_failing || failing_within())
    }

    /// How many more may be sent to, whosever they are.
    pub(super) fn free(&self) -> usize {
        SENDERS.saturating_sub(self.counted(|_| true))
    }

    /// Applications that may have no more, and those that may have no more that failed last.
    pub(super) fn full(&self) -> (Vec<AppId>, Vec<AppId>) {
        let mut apps: HashMap<AppId, (usize, usize)> = HashMap::new();
        for one in self.running.values().filter(|one| !one.is_aside) {
            let (all, failing) = apps.entry(one.whose.app).or_default();
            *all += 1;
            *failing += usize::from(one.whose.is_failing);
        }
        let full = apps.iter().filter(|(_, (all, _))| *all >= OF_APP);
        let failing = apps.iter().filter(|(_, (_, failing))| *failing >= OF_APP / 2);
        (full.map(|(app, _)| *app).collect(), failing.map(|(app, _)| *app).collect())
    }

    pub(super) fn begun(&mut self, id: I, whose: Whose, now: Instant) {
        self.running.insert(id, Running { whose, since: now, is_aside: false });
    }

    pub(super) fn ended(&mut self, id: I) {
        self.running.remove(&id);
    }

    /// Sets those aside that have taken their time, as far as there is room for them.
    pub(super) fn set_slow_aside(&mut self, now: Instant) {
        let mut aside: HashMap<AppId, usize> = HashMap::new();
        for one in self.running.values().filter(|one| one.is_aside) {
            *aside.entry(one.whose.app).or_default() += 1;
        }
        let mut room = ASIDE.saturating_sub(aside.values().sum());
        for one in self.running.values_mut() {
            let of_app = aside.entry(one.whose.app).or_default();
            let is_slow = now.duration_since(one.since) >= SOON;
            if !one.is_aside && is_slow && room > 0 && *of_app < ASIDE_OF_APP {
                one.is_aside = true;
                *of_app += 1;
                room -= 1;
            }
        }
    }

    fn counted(&self, which: impl Fn(&Running) -> bool) -> usize {
        self.running.values().filter(|one| !one.is_aside && which(one)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told {
        busy: Busy<usize>,
        next: usize,
        now: Instant,
    }

    impl Told {
        fn new() -> Self {
            Self { busy: Busy::default(), next: 0, now: Instant::now() }
        }

        /// Begins with as many of these as may be, each at a place of its own.
        fn begin(&mut self, app: AppId, is_failing: bool) -> usize {
            self.begin_at(app, is_failing, |n| format!("{n}.example:443"))
        }

        fn begin_at(&mut self, app: AppId, is_failing: bool, place: impl Fn(usize) -> String) -> usize {
            let before = self.next;
            loop {
                let whose = Whose { app, place: place(self.next), is_failing };
                if !self.busy.may_begin(&whose) {
                    return self.next - before;
                }
                self.busy.begun(self.next, whose, self.now);
                self.next += 1;
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.busy.set_slow_aside(self.now);
        }
    }

    #[test]
    fn no_3_neither_a_place_nor_an_application_has_all_senders() {
        let (mut told, app, other) = (Told::new(), AppId::random(), AppId::random());
        assert_eq!(told.begin_at(app, false, |_| "a.example:443".into()), AT_PLACE);
        assert_eq!(told.begin_at(app, false, |_| "a.example:8443".into()), AT_PLACE, "another port");
        assert_eq!(told.busy.full(), (vec![app], vec![]));
        assert_eq!(told.begin(app, false), 0);
        assert_eq!(told.begin_at(other, false, |_| "a.example:443".into()), AT_PLACE, "another application");
        assert_eq!(told.begin(other, false), OF_APP - AT_PLACE);
        assert_eq!(told.begin(AppId::random(), false), 0);
        assert_eq!(told.busy.free(), 0);
        told.busy.ended(0);
        assert_eq!((told.busy.free(), told.busy.full().0), (1, vec![other]));
        assert_eq!(told.begin_at(app, false, |_| "a.example:443".into()), 1);
    }

    #[test]
    fn no_3_those_that_failed_leave_half_to_the_others() {
        let (mut told, app, other) = (Told::new(), AppId::random(), AppId::random());
        assert_eq!(told.begin_at(app, true, |_| "a.example:443".into()), AT_PLACE / 2);
        assert_eq!(told.begin_at(app, false, |_| "a.example:443".into()), AT_PLACE / 2);
        assert_eq!(told.begin(app, true), OF_APP / 2 - AT_PLACE / 2);
        assert_eq!(told.busy.full(), (vec![], vec![app]));
        assert_eq!(told.begin(app, false), OF_APP / 2 - AT_PLACE / 2);
        assert_eq!(told.begin(other, true), OF_APP / 2);
        assert_eq!(told.begin(AppId::random(), true), 0, "of all applications");
        assert_eq!(told.begin(other, false), OF_APP / 2);
    }

    #[test]
    fn no_3_those_that_are_silent_make_room_in_time() {
        let (mut told, app, other) = (Told::new(), AppId::random(), AppId::random());
        assert_eq!(told.begin_at(app, false, |_| "a.example:443".into()), AT_PLACE);
        assert_eq!(told.begin(app, false), OF_APP - AT_PLACE);
        told.pass(SOON - Duration::from_millis(1));
        assert_eq!(told.begin(app, false), 0);
        told.pass(Duration::from_millis(1));
        assert_eq!(
            told.begin_at(app, false, |_| "a.example:443".into()),
            0,
            "as many as before at one place"
        );
        for aside in (2 * OF_APP..=ASIDE_OF_APP).step_by(OF_APP) {
            assert_eq!(told.begin(app, false), OF_APP, "{aside}");
            told.pass(SOON);
        }
        assert_eq!(told.begin(app, false), OF_APP);
        told.pass(10 * SOON);
        assert_eq!(told.begin(app, false), 0, "there is no more room for them");
        assert_eq!(told.begin(other, false), OF_APP, "but for others");
        told.busy.ended(0);
        told.pass(Duration::ZERO);
        assert_eq!(told.begin(app, false), 1);
    }
}
