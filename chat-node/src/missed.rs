//! Changes of a chat that a session missed, from wherever they still are: the chat's tail in the cache, the log read from where the session
//! was, the owner's memory.
//!
//! Each source continues where the one before it ended, so together they make one run without a hole, or none.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use common::{
    cache::{Tail, TailEntry},
    ids::{ChatKey, Offset, Partition, Seq, UserId},
    log::{ReadLimit, SharedLog},
    partition::partition_of,
    term::Verdict,
    wire::{
        marks::Told,
        owner::{Answer, Ask, OwnerRequest},
        record::Record,
    },
};
use moka::{future, sync};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::deliver::{Deliver, Event};

/// Records of a partition that are read for sessions that were at one place: 4 s of one that takes 5,000 a second. Who was further back
/// reads what the tails do not have anew.
const RECORDS: Offset = 20_000;
/// Bytes of theirs.
const RECORDS_BYTES: usize = 16 * 1024 * 1024;
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
    pub(crate) place: Option<Told>,
}

/// An event with its frames, shared by all who missed it.
pub(crate) type SharedEvent = Arc<Mutex<Event>>;

/// Where missed changes are read, and what was read just now.
pub(crate) struct Missed {
    log: SharedLog,
    windows: future::Cache<(Partition, Told), Arc<Window>>,
    reads: Semaphore,
    events: sync::Cache<(ChatKey, Seq, Offset, u64), SharedEvent>,
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
        let weight = |_: &(Partition, Told), window: &Arc<Window>| {
            u32::try_from(window.bytes.saturating_add(1_024)).unwrap_or(u32::MAX)
        };
        let event_weight = |_: &(ChatKey, Seq, Offset, u64), event: &SharedEvent| {
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
    async fn window(&self, partition: Partition, from: Told) -> Option<Arc<Window>> {
        let read = async {
            let _permit = self.reads.acquire().await.map_err(drop)?;
            tokio::time::timeout(PATIENCE, read(&self.log, partition, from)).await.ok().flatten().ok_or(())
        };
        self.windows.try_get_with((partition, from), read).await.ok()
    }

    fn event(&self, chat: ChatKey, entry: &TailEntry) -> Option<SharedEvent> {
        match Record::decode(&entry.bytes) {
            Ok(Record::Change(change)) if change.key() == chat && change.seq == entry.seq => {
                // By the record, not the seq alone: a void record may carry the seq of a valid one.
                let record = (chat, change.seq, change.term, change.n);
                if let Some(event) = self.events.get(&record) {
                    return Some(event);
                }
                let event = Arc::new(Mutex::new(Event::new(change, entry.bytes.len())));
                self.events.insert(record, Arc::clone(&event));
                Some(event)
            }
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
}

async fn read(log: &SharedLog, partition: Partition, from: Told) -> Option<Arc<Window>> {
    let mut window = Window::default();
    let (mut next, mut state) = (from.offset, from.state);
    // What comes while this is read is asked for elsewhere.
    let end = log.end(partition).await.ok()?;
    if end.saturating_sub(next) > RECORDS {
        return None;
    }
    while next < end {
        let entries = log.read(partition, next, ReadLimit::default()).await.ok()?;
        next = entries.last()?.offset + 1;
        if window.bytes > RECORDS_BYTES {
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

impl Deliver {
    /// Every change of a chat after where a session left it, up to and including `upto`, with the change before the first; none when
    /// they cannot all be had, or are more than `most`.
    pub(crate) async fn missed(
        &self,
        chat: ChatKey,
        left: Left,
        upto: Seq,
        most: usize,
    ) -> Option<(Seq, Vec<SharedEvent>)> {
        let mut run = Run { before: left.seq, entries: Vec::new(), upto };
        let too_many =
            |before: Seq| usize::try_from(upto.saturating_sub(before)).map_or(true, |all| all > most);
        if left.seq.is_some_and(too_many) {
            return None;
        }
        self.extend_from_tail(chat, left.place, &mut run).await;
        if !run.is_whole() {
            self.extend_from_log(chat, left.place, &mut run).await;
        }
        if !run.is_whole() {
            // The tail may go on where the log's window ended.
            self.extend_from_tail(chat, None, &mut run).await;
        }
        if !run.is_whole() {
            self.extend_from_owner(chat, &mut run).await;
        }
        let before = run.before.filter(|before| run.is_whole() && !too_many(*before))?;
        let events = run.entries.iter().map(|entry| self.0.missed.event(chat, entry));
        Some((before, events.collect::<Option<Vec<_>>>()?))
    }

    async fn extend_from_tail(&self, chat: ChatKey, place: Option<Told>, run: &mut Run) {
        let ask = async {
            match (run.reached(), place) {
                (Some(seq), _) => self.0.cache.tail_after(chat, seq).await,
                (None, Some(place)) => self.0.cache.tail_from(chat, place.offset).await,
                (None, None) => Ok(Tail::Missing),
            }
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(Tail::Run(entries))) => run.extend(entries),
            Ok(Ok(Tail::Missing)) => {}
            Ok(Err(error)) => tracing::debug!(%error, %chat, "a tail cannot be read"),
            Err(_) => tracing::debug!(%chat, "a tail is not answered"),
        }
    }

    async fn extend_from_log(&self, chat: ChatKey, place: Option<Told>, run: &mut Run) {
        let Some(place) = place else { return };
        let partition = partition_of(chat, self.0.marks.partitions.count);
        if let Some(window) = self.0.missed.window(partition, place).await {
            run.extend(window.chats.get(&chat).into_iter().flatten().cloned());
        }
    }

    async fn extend_from_owner(&self, chat: ChatKey, run: &mut Run) {
        let Some(after) = run.reached() else { return };
        if let Some(Answer::Changes { changes, .. }) = self.changes_after(chat, after).await {
            // Where they stand in the log is not asked for any more.
            let offset: Offset = 0;
            run.extend((after + 1..).zip(changes).map(|(seq, bytes)| TailEntry { seq, offset, bytes }));
        }
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
