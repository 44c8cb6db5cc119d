//! Changes of a chat that a session missed, from wherever they still are: the chat's tail in the cache, the log read from where the session
//! was, the owner's memory.
//!
//! Each source continues where the one before it ended, so together they make one run without a hole, or none.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use common::{
    cache::{Tail, TailEntry},
    ids::{ChatKey, Number, Offset, Partition, Seq, UserId},
    log::{ReadLimit, SharedLog},
    partition::partition_of,
    term::Verdict,
    wire::{
        marks::LogPlace,
        owner::{Answer, Ask, OwnerRequest},
        record::{Change, Record, What},
    },
};
use moka::{future, sync};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::deliver::{Deliver, Event, Withheld};

/// Records of a partition that are read for sessions that were at one place: 4 s of one that takes 5,000 a second. Who was further back
/// reads what the tails do not have anew.
const RECORDS: Offset = 20_000;
/// Bytes of theirs, whatever they are.
const RECORDS_BYTES: usize = 16 * 1024 * 1024;
/// Windows that are read at once for one session that comes back, so that those of others have their turn in between.
const WINDOWS: usize = 4;
/// Bytes of such reads that are kept for others who were at the same place: all who were told a cursor together.
const WINDOWS_BYTES: u64 = 128 * 1024 * 1024;
/// How long they are kept.
const WINDOW_AGE: Duration = Duration::from_secs(2);
/// Bytes of events that are kept with their frames, so that each is framed once for all who missed it.
const EVENTS_BYTES: u64 = 32 * 1024 * 1024;
/// Windows that are read at once: with what is kept, a quarter of a GiB at the worst.
const READS: usize = 4;
/// How long the log may take for one window, and the cache for a tail.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an owner may take: its own bound for reads (2 s), and some.
const OWNER: Duration = Duration::from_secs(6);

/// Where a session left a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// The newest change it has, if it says so.
    pub(crate) seq: Option<Seq>,
    /// A place in the log before which it has everything.
    pub(crate) place: Option<LogPlace>,
}

/// What a session is to be told of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// From here on.
    pub(crate) left: Left,
    /// Up to and including this change.
    pub(crate) upto: Seq,
    /// Messages up to here are past their time.
    pub(crate) expired: Number,
}

/// An event with its frames, shared by all who missed it.
pub(crate) type SharedEvent = Arc<Mutex<Event>>;

/// Where missed changes are read, and what was read just now.
pub(crate) struct Missed {
    log: SharedLog,
    /// None: it is too much, or could not be read.
    windows: future::Cache<(Partition, LogPlace), Option<Arc<Window>>>,
    reads: Semaphore,
    events: sync::Cache<EventKey, SharedEvent>,
}

/// By the record, not the seq alone: a void record may carry the seq of a valid one. And whether its text is withheld.
type EventKey = (ChatKey, Seq, Offset, u64, Option<Withheld>);

/// The turns of one session to have a window read: [`WINDOWS`] at once. The others wait, as long as the session may.
#[derive(Debug)]
pub(crate) struct Allowance(Semaphore);

impl Default for Allowance {
    fn default() -> Self {
        Self(Semaphore::new(WINDOWS))
    }
}

impl fmt::Debug for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Missed")
    }
}

/// The valid changes of a partition from one place on.
#[derive(Debug, Default)]
struct Window {
    chats: HashMap<ChatKey, Vec<TailEntry>>,
    bytes: usize,
}

impl Missed {
    pub(crate) fn new(log: SharedLog) -> Self {
        let weight = |_: &(Partition, LogPlace), window: &Option<Arc<Window>>| {
            let bytes = window.as_ref().map_or(0, |window| window.bytes);
            u32::try_from(bytes.saturating_add(1_024)).unwrap_or(u32::MAX)
        };
        let event_weight = |_: &EventKey, event: &SharedEvent| {
            // Its change, and a frame in each format.
            u32::try_from(event.lock().bytes().saturating_mul(3).saturating_add(512)).unwrap_or(u32::MAX)
        };
        Self {
            log,
            windows: future::Cache::builder()
                .max_capacity(WINDOWS_BYTES)
                .weigher(weight)
                .time_to_live(WINDOW_AGE)
                .build(),
            reads: Semaphore::new(READS),
            events: sync::Cache::builder().max_capacity(EVENTS_BYTES).weigher(event_weight).build(),
        }
    }

    /// What the log has from a place on; none when that is too much, or cannot be read.
    async fn window(
        &self,
        partition: Partition,
        from: LogPlace,
        allowance: &Allowance,
    ) -> Option<Arc<Window>> {
        if let Some(known) = self.windows.get(&(partition, from)).await {
            return known;
        }
        let read = async {
            // Only for what is read: whoever waits for a read of another session's, or of another chat's, takes nobody's turn.
            let _turn = allowance.0.acquire().await.ok()?;
            let _permit = self.reads.acquire().await.ok()?;
            tokio::time::timeout(PATIENCE, read(&self.log, partition, from)).await.ok().flatten()
        };
        self.windows.get_with((partition, from), read).await
    }

    /// The events of a run of one chat; none when one of them cannot be read. A message that is deleted by the end of the run is shown as
    /// history shows it: its place, without what it said; so is one up to `expired`.
    fn events(&self, chat: ChatKey, run: &[TailEntry], expired: Number) -> Option<Vec<SharedEvent>> {
        let changes: Vec<Change> = run.iter().map(|entry| change(chat, entry)).collect::<Option<_>>()?;
        let erased = changes.iter().filter_map(|change| match change.what {
            What::Erased { number } => Some(number),
            _ => None,
        });
        let erased: HashSet<Number> = erased.collect();
        let events = changes.into_iter().zip(run).map(|(change, entry)| {
            let withheld = Event::number(&change).and_then(|number| match number {
                number if erased.contains(&number) => Some(Withheld::Deleted),
                number if number <= expired => Some(Withheld::Expired),
                _ => None,
            });
            self.event(change, entry.bytes.len(), withheld)
        });
        Some(events.collect())
    }

    fn event(&self, change: Change, bytes: usize, withheld: Option<Withheld>) -> SharedEvent {
        let key = (change.key(), change.seq, change.term, change.n, withheld);
        self.events.get(&key).unwrap_or_else(|| {
            let event = Event::new(change, bytes);
            let event = match withheld {
                Some(why) => event.without_text(why),
                None => event,
            };
            let event = Arc::new(Mutex::new(event));
            self.events.insert(key, Arc::clone(&event));
            event
        })
    }
}

/// The change that an entry should be.
fn change(chat: ChatKey, entry: &TailEntry) -> Option<Change> {
    match Record::decode(&entry.bytes) {
        Ok(Record::Change(change)) if change.key() == chat && change.seq == entry.seq => Some(change),
        Ok(_) => {
            tracing::error!(%chat, seq = entry.seq, "a missed change is another one than it should be");
            None
        }
        Err(error) => {
            tracing::error!(%error, %chat, seq = entry.seq, "a missed change cannot be read");
            None
        }
    }
}

async fn read(log: &SharedLog, partition: Partition, from: LogPlace) -> Option<Arc<Window>> {
    let mut window = Window::default();
    let (mut next, mut state, mut bytes) = (from.offset, from.state, 0);
    // What comes while this is read is asked for elsewhere.
    let end = log.end(partition).await.ok()?;
    if end.saturating_sub(next) > RECORDS {
        return None;
    }
    while next < end {
        let entries = log.read(partition, next, ReadLimit::default()).await.ok()?;
        next = entries.last()?.offset + 1;
        // Void records and dead letters are read as well.
        bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        if bytes > RECORDS_BYTES {
            return None;
        }
        for entry in entries {
            // What cannot be read is void or a dead letter for everybody.
            let Ok(record) = Record::decode(&entry.payload) else { continue };
            if state.advance(record.header(), entry.offset) == Verdict::Void {
                continue;
            }
            if let Record::Change(change) = record {
                window.bytes += entry.payload.len() + 128;
                let change_at = TailEntry { seq: change.seq, offset: entry.offset, bytes: entry.payload };
                window.chats.entry(change.key()).or_default().push(change_at);
            }
        }
    }
    Some(Arc::new(window))
}

/// A run of changes without a hole that grows at its end.
struct Run {
    /// The change before the first; none while nothing was found and the session did not say.
    before: Option<Seq>,
    entries: Vec<TailEntry>,
    upto: Seq,
}

impl Run {
    fn reached(&self) -> Option<Seq> {
        self.entries.last().map(|entry| entry.seq).or(self.before)
    }

    fn is_whole(&self) -> bool {
        self.reached().is_some_and(|seq| seq >= self.upto)
    }

    /// Takes in what continues the run, in order; what it has is passed over, what would leave a hole ends it.
    fn extend(&mut self, entries: impl IntoIterator<Item = TailEntry>) {
        for entry in entries {
            match self.reached() {
                _ if entry.seq > self.upto => return,
                Some(reached) if entry.seq <= reached => {}
                Some(reached) if entry.seq > reached + 1 => return,
                Some(_) => self.entries.push(entry),
                None => {
                    self.before = entry.seq.checked_sub(1);
                    self.entries.push(entry);
                }
            }
        }
    }
}

/// Where changes may still be, in the order of what asking costs. The tail may go on where the log's window ended.
#[derive(Clone, Copy, Debug)]
enum Source {
    Tail,
    Log,
    Owner,
}

const SOURCES: [Source; 4] = [Source::Tail, Source::Log, Source::Tail, Source::Owner];

impl Deliver {
    /// Every change of a chat after where a session left it, up to and including `upto`, with the change before the first; none when
    /// they cannot all be had, or are more than `most`. What messages up to `expired` said is not told.
    pub(crate) async fn missed(
        &self,
        chat: ChatKey,
        Missing { left, upto, expired }: Missing,
        most: usize,
        allowance: &Allowance,
    ) -> Option<(Seq, Vec<SharedEvent>)> {
        let mut run = Run { before: left.seq, entries: Vec::new(), upto };
        let too_many =
            |before: Seq| usize::try_from(upto.saturating_sub(before)).map_or(true, |all| all > most);
        if left.seq.is_some_and(too_many) {
            return None;
        }
        for source in SOURCES {
            if run.is_whole() {
                break;
            }
            run.extend(match source {
                Source::Tail => self.in_tail(chat, left.place, run.reached()).await,
                Source::Log => self.in_log(chat, left.place, allowance).await,
                Source::Owner => self.at_owner(chat, run.reached()).await,
            });
        }
        let before = run.before.filter(|before| run.is_whole() && !too_many(*before))?;
        Some((before, self.0.missed.events(chat, &run.entries, expired)?))
    }

    async fn in_tail(&self, chat: ChatKey, place: Option<LogPlace>, reached: Option<Seq>) -> Vec<TailEntry> {
        let ask = async {
            match (reached, place) {
                (Some(seq), _) => self.0.cache.tail_after(chat, seq).await,
                (None, Some(place)) => self.0.cache.tail_from(chat, place.offset).await,
                (None, None) => Ok(Tail::Missing),
            }
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(Tail::Run(entries))) => return entries,
            Ok(Ok(Tail::Missing)) => {}
            Ok(Err(error)) => tracing::debug!(%error, %chat, "a tail cannot be read"),
            Err(_) => tracing::debug!(%chat, "a tail is not answered"),
        }
        Vec::new()
    }

    async fn in_log(&self, chat: ChatKey, place: Option<LogPlace>, allowance: &Allowance) -> Vec<TailEntry> {
        let Some(place) = place else { return Vec::new() };
        let partition = partition_of(chat, self.0.marks.partitions.count);
        let window = self.0.missed.window(partition, place, allowance).await;
        window.and_then(|window| window.chats.get(&chat).cloned()).unwrap_or_default()
    }

    async fn at_owner(&self, chat: ChatKey, reached: Option<Seq>) -> Vec<TailEntry> {
        let Some(after) = reached else { return Vec::new() };
        let Some(Answer::Changes { changes, .. }) = self.changes_after(chat, after).await else {
            return Vec::new();
        };
        // Where they stand in the log is not asked for any more.
        let offset: Offset = 0;
        (after + 1..).zip(changes).map(|(seq, bytes)| TailEntry { seq, offset, bytes }).collect()
    }

    /// Asks a chat's owner for the changes after one; none when it does not answer in time.
    pub(crate) async fn changes_after(&self, chat: ChatKey, after: Seq) -> Option<Answer> {
        // The node asks for itself, on behalf of nobody.
        let by = UserId(Uuid::nil());
        let request =
            OwnerRequest { app: chat.app, chat: chat.chat, by, retry: false, ask: Ask::Changes { after } };
        tokio::time::timeout(OWNER, self.0.owners.ask(request)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use common::log::sqlite::SqliteLog;

    use super::*;

    async fn log(folder: &tempfile::TempDir, partitions: Partition) -> SharedLog {
        Arc::new(SqliteLog::open(&folder.path().join("log.db"), partitions).await.unwrap())
    }

    async fn append(log: &SharedLog, partition: Partition, payload: Bytes) {
        log.append(partition, Bytes::new(), payload).await.unwrap().await.unwrap();
    }

    #[tokio::test]
    async fn what_does_not_count_is_read_as_well_and_counts_as_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder, 1).await;
        let dead = Bytes::from(vec![0xff; 512 * 1024]);
        for _ in 0..RECORDS_BYTES / dead.len() {
            append(&log, 0, dead.clone()).await;
        }
        assert!(read(&log, 0, LogPlace::default()).await.is_some());
        append(&log, 0, dead).await;
        assert!(read(&log, 0, LogPlace::default()).await.is_none());
    }

    #[tokio::test]
    async fn for_one_session_a_few_windows_are_read_at_once_and_what_others_had_read_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let missed = Missed::new(log(&folder, 16).await);
        let (one, other) = (Allowance::default(), Allowance::default());
        let has = async |partition, allowance| {
            missed.window(partition, LogPlace::default(), allowance).await.is_some()
        };
        let busy = missed.reads.acquire_many(u32::try_from(READS).unwrap()).await.unwrap();
        let all =
            async { futures_util::future::join_all((0..12).map(|partition| has(partition, &one))).await };
        tokio::pin!(all);
        assert!(futures_util::poll!(&mut all).is_pending());
        assert_eq!((one.0.available_permits(), other.0.available_permits()), (0, WINDOWS), "some wait");
        drop(busy);
        assert_eq!(all.await, [true; 12], "each has its turn");
        assert_eq!(one.0.available_permits(), WINDOWS);
        let turns = one.0.acquire_many(u32::try_from(WINDOWS).unwrap()).await.unwrap();
        assert!(has(0, &one).await, "it is there");
        let waits = tokio::time::timeout(Duration::from_millis(50), has(12, &one)).await;
        assert!(waits.is_err(), "for its turn");
        assert!(has(12, &other).await);
        assert!(has(12, &one).await, "it is there now");
        drop(turns);
        assert!(has(13, &one).await);
    }
}
