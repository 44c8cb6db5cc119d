//! The topics that this node has sessions for, as the dispatchers know them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use common::wire::peer::{NodeToDispatcher, TOPICS_PER_NODE, Topic};
use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::{sync::oneshot, time::Instant};

use super::Line;

/// Topics in one frame: about 50 bytes each, so half a megabyte of the 4 MiB a link takes.
const TOGETHER: usize = 10_000;
/// What many sessions register within so long is one frame: in a storm of them a frame for each, and its answer, would be a sixth of
/// what a session costs. Who comes alone does not wait.
const GATHER: Duration = Duration::from_millis(5);
/// How long the dispatchers may take to confirm.
const WAIT: Duration = Duration::from_secs(5);

/// The dispatchers did not answer in time, or refused: the node has too many topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dispatchers did not confirm the interest in time")]
pub struct InterestTimeout;

/// How far the registration with a dispatcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No part of a registration has ended.
    Going,
    /// Every topic is registered.
    Whole,
    /// All were said, and some were refused.
    Refused,
}

/// The topics that dispatchers send here. Cheap to clone.
#[derive(Clone)]
pub struct Interest {
    lines: Arc<[Line]>,
    state: Arc<Mutex<State>>,
    refused: Arc<OnceLock<IntCounter>>,
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interest in {} topics", self.state.lock().topics.len())
    }
}

#[derive(Default)]
struct State {
    topics: HashSet<Topic>,
    last: u64,
    gathered: Gathered,
    waiting: HashMap<u64, Waiting>,
    /// The registrations under way, by link.
    registering: HashMap<usize, Registering>,
    /// Links whose dispatchers lack topics: events of these may pass by, while marks say that nothing was lost on the way.
    lacking: HashSet<usize>,
}

/// Topics that are to be said together.
#[derive(Default)]
struct Gathered {
    topics: Vec<Topic>,
    done: Vec<oneshot::Sender<bool>>,
    /// When some were said last.
    said: Option<Instant>,
    /// Whether a task waits until these are due.
    awaited: bool,
}

/// A registration of all topics, one part after the other: all at once would fill a link's outbox, and could then never end.
struct Registering {
    /// The part that was said last.
    no: u64,
    /// What is still to be said. Topics that nobody wants any more by then are left out.
    rest: Vec<Topic>,
    refused: bool,
    said: Instant,
}

struct Waiting {
    /// Links that have not answered, by index.
    links: HashSet<usize>,
    /// Whether it was taken. Dropped unsent when nobody waits any more.
    done: Vec<oneshot::Sender<bool>>,
}

impl Interest {
    pub(super) fn over(lines: Arc<[Line]>) -> Self {
        Self { lines, state: Arc::default(), refused: Arc::default() }
    }

    /// One that answers at once, for a node without dispatchers.
    pub fn detached() -> Self {
        Self::over(Arc::new([]))
    }

    /// Registers `topics`; resolves when every event published from now on reaches this node. With no dispatcher linked
    /// that is at once: when one comes, all topics are registered with it, and then everything served is looked at.
    ///
    /// # Errors
    /// [`InterestTimeout`] after 5 s; at once when there are more than [`TOPICS_PER_NODE`]. The topics stay registered until removed.
    pub async fn add(&self, topics: Vec<Topic>) -> Result<(), InterestTimeout> {
        let Some(confirmed) = self.gather_all(&topics) else {
            self.refuse();
            tracing::error!(
                limit = TOPICS_PER_NODE,
                "this node has as many topics as it may: a session is refused"
            );
            return Err(InterestTimeout);
        };
        let all = async {
            for confirmed in confirmed {
                // A dropped sender: the link was registered anew meanwhile, which includes these topics.
                if confirmed.await == Ok(false) {
                    return Err(InterestTimeout);
                }
            }
            Ok(())
        };
        tokio::time::timeout(WAIT, all).await.unwrap_or(Err(InterestTimeout))
    }

    /// Counts with `counter` how often topics are refused, here or by a dispatcher. Said once.
    pub fn count_refused(&self, counter: IntCounter) {
        if self.refused.set(counter).is_err() {
            tracing::error!("the counter of refused interest was set twice");
        }
    }

    fn refuse(&self) {
        if let Some(counter) = self.refused.get() {
            counter.inc();
        }
    }

    /// Topics to be said; what comes of each part of them. A sender is dropped when there is nobody to confirm them. None when they would be more
    /// than a dispatcher takes: turned away here, they cost no one who is served.
    fn gather_all(&self, topics: &[Topic]) -> Option<Vec<oneshot::Receiver<bool>>> {
        let mut state = self.state.lock();
        if state.is_full(topics) {
            return None;
        }
        Some(topics.chunks(TOGETHER).map(|topics| self.gather(&mut state, topics)).collect())
    }

    fn gather(&self, state: &mut State, topics: &[Topic]) -> oneshot::Receiver<bool> {
        let (done, confirmed) = oneshot::channel();
        if state.gathered.topics.len() + topics.len() > TOGETHER {
            self.say_gathered(state);
        }
        state.topics.extend(topics);
        let Gathered { topics: gathered, done: waiting, said, awaited } = &mut state.gathered;
        gathered.extend(topics);
        waiting.push(done);
        let now = Instant::now();
        if said.is_none_or(|said| said + GATHER <= now) {
            self.say_gathered(state);
        } else if !std::mem::replace(awaited, true) {
            let interest = self.clone();
            // Ends by itself, and holds nothing but this.
            tokio::spawn(async move {
                tokio::time::sleep(GATHER).await;
                let mut state = interest.state.lock();
                state.gathered.awaited = false;
                if !state.gathered.topics.is_empty() {
                    interest.say_gathered(&mut state);
                }
            });
        }
        confirmed
    }

    fn say_gathered(&self, state: &mut State) {
        let Gathered { topics, done, said, .. } = &mut state.gathered;
        let (mut add, done) = (std::mem::take(topics), std::mem::take(done));
        *said = Some(Instant::now());
        // Some may have been removed meanwhile.
        add.retain(|topic| state.topics.contains(topic));
        if !add.is_empty() {
            self.say(state, add, Vec::new(), done);
        }
    }

    /// Forgets `topics`. The caller counts who wants them.
    pub fn remove(&self, topics: Vec<Topic>) {
        if topics.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for topic in &topics {
            state.topics.remove(topic);
        }
        self.say(&mut state, Vec::new(), topics, Vec::new());
    }

    /// Tells every dispatcher that knows this node. The lock keeps changes of one topic in order.
    fn say(&self, state: &mut State, add: Vec<Topic>, remove: Vec<Topic>, done: Vec<oneshot::Sender<bool>>) {
        let State { last, waiting, lacking, .. } = state;
        *last += 1;
        let no = *last;
        let frame = common::wire::codec::pack(&NodeToDispatcher::Interest { no, add, remove });
        let mut links = HashSet::new();
        for (index, line) in self.lines.iter().enumerate().filter(|(_, line)| line.ready()) {
            match line.send_bytes(frame.clone()) {
                Ok(()) => {
                    links.insert(index);
                }
                // The link's task registers everything anew when there is room.
                Err(_) => {
                    lacking.insert(index);
                    line.behind.store(true, Ordering::Release);
                }
            }
        }
        if done.is_empty() || links.is_empty() {
            return;
        }
        waiting.retain(|_, waiting| waiting.done.iter().any(|done| !done.is_closed()));
        waiting.insert(no, Waiting { links, done });
    }

    /// Begins to register every topic with a dispatcher that was told of this node just now; from here on it hears of changes as well.
    /// [`Self::answered`] goes on with it, and tells its end.
    pub(super) fn register(&self, index: usize) {
        let mut state = self.state.lock();
        let Some(line) = self.lines.get(index) else { return };
        state.forget(index);
        state.lacking.insert(index);
        line.registered.store(true, Ordering::Release);
        let rest = state.topics.iter().copied().collect();
        state.registering.insert(index, Registering { no: 0, rest, refused: false, said: Instant::now() });
        self.say_next(&mut state, index);
    }

    /// Says the next part of a registration. The last is empty or not full, so that there is always an answer to wait for.
    fn say_next(&self, state: &mut State, index: usize) {
        let State { topics, last, registering, .. } = state;
        let (Some(line), Some(going)) = (self.lines.get(index), registering.get_mut(&index)) else { return };
        let from = going.rest.len().saturating_sub(TOGETHER);
        let mut add = going.rest.split_off(from);
        // Under the lock that changes are sent under: what was removed meanwhile must not come back.
        add.retain(|topic| topics.contains(topic));
        *last += 1;
        going.no = *last;
        going.said = Instant::now();
        if line.send(&NodeToDispatcher::Interest { no: *last, add, remove: Vec::new() }).is_err() {
            // The link's task begins anew when there is room.
            registering.remove(&index);
            line.behind.store(true, Ordering::Release);
        }
    }

    /// Whether every dispatcher that is linked has every topic, and what it published before it had was looked for: only then is a mark
    /// that nothing was lost on the way a word about what this node has.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.lock().lacking.is_empty()
    }

    /// A registration came to its end [`Progress::Whole`], and everything that is served is being looked at.
    pub(super) fn whole(&self, index: usize) {
        let mut state = self.state.lock();
        // A change that could not be sent since has its own registration to come.
        if self.lines.get(index).is_none_or(|line| !line.behind.load(Ordering::Acquire)) {
            state.lacking.remove(&index);
        }
    }

    /// Whether a registration goes on, and whether its last part has waited too long for its answer.
    pub(super) fn registering(&self, index: usize) -> Option<bool> {
        self.state.lock().registering.get(&index).map(|going| going.said.elapsed() > WAIT)
    }

    /// A dispatcher has answered: has it `taken` the topics?
    pub(super) fn answered(&self, index: usize, no: u64, taken: bool) -> Progress {
        if !taken {
            self.refuse();
        }
        let mut state = self.state.lock();
        let done = state.waiting.get_mut(&no).is_some_and(|waiting| {
            waiting.links.remove(&index);
            waiting.links.is_empty() || !taken
        });
        if done && let Some(waiting) = state.waiting.remove(&no) {
            for done in waiting.done {
                // Whoever asked may be gone.
                let _ = done.send(taken);
            }
        }
        let Some(going) = state.registering.get_mut(&index).filter(|going| going.no == no) else {
            return Progress::Going;
        };
        going.refused |= !taken;
        if !going.rest.is_empty() {
            self.say_next(&mut state, index);
            return Progress::Going;
        }
        let refused = going.refused;
        state.registering.remove(&index);
        if refused { Progress::Refused } else { Progress::Whole }
    }

    /// A dispatcher no longer knows this node: nobody waits for it.
    pub(super) fn forget(&self, index: usize) {
        let mut state = self.state.lock();
        if let Some(line) = self.lines.get(index) {
            line.registered.store(false, Ordering::Release);
        }
        state.forget(index);
        // Neither events nor marks come from there.
        state.lacking.remove(&index);
    }
}

impl State {
    fn is_full(&self, topics: &[Topic]) -> bool {
        let room = TOPICS_PER_NODE.saturating_sub(self.topics.len());
        // Most are few, and need not be looked up.
        topics.len() > room && topics.iter().filter(|topic| !self.topics.contains(topic)).count() > room
    }

    /// What a dispatcher was told counts no more.
    fn forget(&mut self, index: usize) {
        self.registering.remove(&index);
        self.waiting.retain(|_, waiting| {
            waiting.links.remove(&index);
            !waiting.links.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddr},
        sync::atomic::{AtomicBool, AtomicU64},
    };

    use common::{
        ids::{AppId, ChatId, Incarnation},
        link::{Authority, Endpoint, Event, Events, LinkSettings, Name, Peer, Role},
        wire::codec::unpack,
    };

    use super::*;

    /// A node's interest, and the dispatcher's end of its only link.
    struct Ends {
        interest: Interest,
        heard: Events,
        /// The node's end: nothing is said to it in these tests.
        _events: Events,
        _endpoints: [Endpoint; 2],
    }

    impl Ends {
        async fn new() -> Self {
            let authority = Authority::generate().unwrap();
            let endpoint = |role, name| {
                let identity = authority.issue(role, &Name::new(name).unwrap()).unwrap();
                let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                // Room for five parts of a registration: what a link acknowledges late included.
                let settings = LinkSettings { outbox_bytes: 2_600_000, ..LinkSettings::default() };
                Endpoint::bind(any, &identity, Incarnation::random(), settings).unwrap()
            };
            let (node, mut dispatcher) = (endpoint(Role::Node, "a"), endpoint(Role::Dispatcher, "d"));
            let (link, events) = node.dial(dispatcher.local_addr().unwrap(), Peer::any(Role::Dispatcher));
            let (_, heard) = dispatcher.accept().await.unwrap();
            let line = Line {
                link,
                registered: AtomicBool::new(false),
                behind: AtomicBool::new(false),
                published: AtomicU64::new(0),
            };
            Self {
                interest: Interest::over(Arc::new([line])),
                heard,
                _events: events,
                _endpoints: [node, dispatcher],
            }
        }

        /// The next change that the dispatcher hears of.
        async fn next(&mut self) -> (u64, Vec<Topic>) {
            loop {
                match self.heard.recv().await.unwrap() {
                    Event::Frame(bytes) => match unpack("frame", &bytes).unwrap() {
                        NodeToDispatcher::Interest { no, add, .. } => return (no, add),
                        other => panic!("{other:?}"),
                    },
                    Event::Up { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn topics(count: usize) -> Vec<Topic> {
        let chat =
            |no: usize| Topic::Chat(AppId::DEFAULT, ChatId::from_slice(&(no as u128).to_be_bytes()).unwrap());
        (0..count).map(chat).collect()
    }

    #[tokio::test]
    async fn a_registration_says_its_next_part_when_the_one_before_was_answered_and_nothing_twice() {
        let mut ends = Ends::new().await;
        ends.interest.add(topics(2 * TOGETHER + 1)).await.unwrap();
        ends.interest.register(0);
        let (first, add) = ends.next().await;
        assert_eq!(add.len(), TOGETHER);
        let mut seen: HashSet<_> = add.into_iter().collect();

        // A change in between is said at once, and is the next thing the dispatcher hears; what is removed is not registered any more.
        let gone = topics(2 * TOGETHER + 1).into_iter().find(|topic| !seen.contains(topic)).unwrap();
        ends.interest.remove(vec![gone]);
        let (between, add) = ends.next().await;
        assert!(add.is_empty());
        assert_eq!(ends.interest.answered(0, between, true), Progress::Going);

        assert_eq!(ends.interest.answered(0, first, true), Progress::Going);
        let (second, add) = ends.next().await;
        seen.extend(add);
        assert_eq!(ends.interest.answered(0, first, true), Progress::Going, "answered already");
        assert_eq!(ends.interest.answered(0, second, true), Progress::Going);
        let (third, add) = ends.next().await;
        seen.extend(add);
        assert!(seen.len() == 2 * TOGETHER && !seen.contains(&gone));
        assert_eq!(ends.interest.registering(0), Some(false));
        assert_eq!(ends.interest.answered(0, third, true), Progress::Whole);
        assert_eq!(ends.interest.registering(0), None);
    }

    #[tokio::test]
    async fn what_comes_at_the_same_time_is_said_together_and_what_was_removed_meanwhile_is_not() {
        let mut ends = Ends::new().await;
        ends.interest.register(0);
        let (no, _) = ends.next().await;
        assert_eq!(ends.interest.answered(0, no, true), Progress::Whole);
        ends.interest.whole(0);
        let interest = ends.interest.clone();
        let add = |topics: &[Topic]| {
            let (interest, topics) = (interest.clone(), topics.to_vec());
            tokio::spawn(async move { interest.add(topics).await })
        };
        let all = topics(5);
        // Who comes alone does not wait for others.
        let alone = add(&all[..1]);
        let (no, said) = ends.next().await;
        assert_eq!(said, all[..1]);
        ends.interest.answered(0, no, true);
        alone.await.unwrap().unwrap();
        let (one, other, gone) = (add(&all[1..2]), add(&all[2..4]), add(&all[4..]));
        tokio::task::yield_now().await;
        while ends.interest.state.lock().topics.len() < all.len() {
            tokio::task::yield_now().await;
        }
        ends.interest.remove(all[4..].to_vec());
        let (_, said) = ends.next().await;
        assert!(said.is_empty(), "what is removed is said at once");
        let (no, mut said) = ends.next().await;
        said.sort_unstable();
        let mut expected = all[1..4].to_vec();
        expected.sort_unstable();
        assert_eq!(said, expected);
        ends.interest.answered(0, no, false);
        for refused in [one, other, gone] {
            assert!(refused.await.unwrap().is_err());
        }
        assert_eq!(ends.interest.state.lock().topics.len(), 4);
    }

    #[tokio::test]
    async fn more_topics_than_an_outbox_holds_are_registered_all_the_same() {
        let mut ends = Ends::new().await;
        ends.interest.add(topics(8 * TOGETHER)).await.unwrap();
        ends.interest.register(0);
        let mut registered = HashSet::new();
        loop {
            let (no, add) = ends.next().await;
            registered.extend(add);
            match ends.interest.answered(0, no, true) {
                Progress::Going => {
                    // As the link's task does when there was no room, which is so on a slow machine.
                    while ends.interest.registering(0).is_none() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        ends.interest.register(0);
                    }
                }
                progress => break assert_eq!(progress, Progress::Whole),
            }
        }
        assert_eq!(registered.len(), 8 * TOGETHER);
    }

    #[tokio::test]
    async fn a_registration_of_which_a_part_is_refused_is_not_whole() {
        let mut ends = Ends::new().await;
        ends.interest.add(topics(TOGETHER + 1)).await.unwrap();
        ends.interest.register(0);
        let (first, _) = ends.next().await;
        assert_eq!(ends.interest.answered(0, first, false), Progress::Going);
        let (second, _) = ends.next().await;
        assert_eq!(ends.interest.answered(0, second, true), Progress::Refused);
    }

    #[tokio::test]
    async fn marks_count_when_every_topic_is_registered_and_what_passed_by_before_is_looked_for() {
        let mut ends = Ends::new().await;
        assert!(ends.interest.is_whole(), "nothing comes from a dispatcher that is not linked");
        ends.interest.add(topics(TOGETHER + 1)).await.unwrap();
        ends.interest.register(0);
        let (first, _) = ends.next().await;
        assert_eq!(ends.interest.answered(0, first, false), Progress::Going);
        let (second, _) = ends.next().await;
        assert_eq!(ends.interest.answered(0, second, true), Progress::Refused);
        assert!(!ends.interest.is_whole(), "a part was refused");
        ends.interest.register(0);
        for progress in [Progress::Going, Progress::Whole] {
            let (no, _) = ends.next().await;
            assert_eq!(ends.interest.answered(0, no, true), progress);
            assert!(!ends.interest.is_whole(), "nothing was looked for yet");
        }
        ends.interest.whole(0);
        assert!(ends.interest.is_whole());
    }

    #[tokio::test]
    async fn whoever_waits_for_topics_that_are_refused_is_told_at_once_and_it_is_counted() {
        let mut ends = Ends::new().await;
        let refused = IntCounter::new("refused", "refused").unwrap();
        ends.interest.count_refused(refused.clone());
        ends.interest.register(0);
        let (whole, _) = ends.next().await;
        assert_eq!(ends.interest.answered(0, whole, true), Progress::Whole);

        let interest = ends.interest.clone();
        let adding = tokio::spawn(async move { interest.add(topics(1)).await });
        let (no, _) = ends.next().await;
        assert_eq!(ends.interest.answered(0, no, false), Progress::Going);
        assert_eq!(adding.await.unwrap(), Err(InterestTimeout));
        assert_eq!(refused.get(), 1);
    }

    #[tokio::test]
    async fn a_node_with_as_many_topics_as_it_may_have_refuses_more_and_not_those_it_has() {
        let interest = Interest::detached();
        interest.add(topics(TOPICS_PER_NODE)).await.unwrap();
        interest.add(topics(10)).await.unwrap();
        assert_eq!(interest.add(topics(TOPICS_PER_NODE + 1)).await, Err(InterestTimeout));
        interest.remove(topics(1));
        interest.add(topics(1)).await.unwrap();
    }
}
